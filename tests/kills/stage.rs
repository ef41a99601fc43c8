//! One world with its supervisor: who kills and restarts it, and whether everything is as it should be afterwards.

use super::asking::{Sockets, ask};
use super::callers::{self, CALLERS, Site};
use super::figures::Figures;
use super::fleet::{self, FLEET, PROBE, PROBING, REGISTERED};
use super::harness::{Dice, End, Launched, Place, Rung, Setup, Supervisor, World, process, wait};
use super::ledger::Wish;
use hermes_sup::control::protocol::{Request, ServiceStatus, Targets};
use hermes_sup::core::words::{State, Want};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, VecDeque};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The variable by which a debug build ends, or has a bug, at a chosen moment.
const FAULT: &str = "HERMES_SUP_FAULT";
/// The figures of these first censuses are what later ones are compared with.
const FIRST: usize = 2;

pub struct Stage {
    pub world: World,
    pub site: Arc<Site>,
    pub dice: Dice,
    supervisor: Option<Supervisor>,
    /// It ends by itself, some time.
    armed: bool,
    /// `ctl logs -f` and `ctl events -f`.
    followers: VecDeque<Child>,
    figures: Vec<Figures>,
    /// How long anything may take to become as it is wanted.
    pub patience: Duration,
}

impl Stage {
    pub fn new(rung: Rung, dice: Dice) -> Self {
        let mut setup = Setup::new(rung, Place::Child);
        // On some rungs starts wait for their turn.
        if matches!(rung, Rung::CgroupPrivate | Rung::Keeper) {
            setup = setup.supervisor_option(&["--parallel-starts", "2"]);
        }
        let mut world = fleet::world(setup);
        world.prepare();
        let site = Site::new(Sockets::of(&world), world.path("/run/hermes-sup"), world.mark.clone());
        Self {
            world,
            site: Arc::new(site),
            dice,
            supervisor: None,
            armed: false,
            followers: VecDeque::new(),
            figures: Vec::new(),
            patience: wait::PATIENCE,
        }
    }

    pub fn tell(&self, what: impl std::fmt::Display) {
        self.site.ledger().tell(what);
    }

    pub fn wrong(&self, what: impl Into<String>) {
        self.site.ledger().wrong(what);
    }

    pub fn is_wrong(&self) -> bool {
        !self.site.ledger().wrong.is_empty()
    }

    /// Lets some of the next `most` milliseconds pass.
    pub fn pause(&mut self, most: u64) {
        let span = Duration::from_millis(self.dice.roll(most));
        wait::within(span, &self.world.root, || None::<()>);
    }

    // ---- the supervisor ----

    /// Sees to it that one runs and answers. `faults`: it may be one that ends by itself.
    pub fn ensure(&mut self, faults: bool) {
        loop {
            if self.runs() || self.is_wrong() {
                return;
            }
            let environment = &mut self.world.setup.environment;
            environment.retain(|(key, _)| key != FAULT);
            self.armed = faults && self.dice.roll(4) == 0;
            if self.armed {
                let what = self.dice.pick(&["kill", "panic"]);
                environment.push((FAULT.to_owned(), format!("{what}@{}", 1 + self.dice.roll(120))));
            }
            self.tell(format_args!("a supervisor is started{}", if self.armed { ", armed" } else { "" }));
            self.site.ledger().count("starts");
            self.supervisor = self.world.start_if_it_lives();
            if self.supervisor.is_none() && !self.armed {
                self.wrong("a supervisor ends at its start");
            }
        }
    }

    fn runs(&mut self) -> bool {
        let Some(supervisor) = &mut self.supervisor else { return false };
        let Some(end) = supervisor.process.wait_within(Duration::ZERO) else { return true };
        self.supervisor = None;
        self.tell(format_args!("the supervisor has ended: {end:?}"));
        if !(self.armed && end == End::Signal(9)) {
            self.wrong(format!("the supervisor has ended by itself: {end:?}"));
        }
        false
    }

    /// Ends it, and returns when it is gone.
    pub fn end(&mut self, signal: Signal) {
        let Some(supervisor) = self.supervisor.take() else { return };
        let Supervisor { mut process } = supervisor;
        self.tell(format_args!("the supervisor is sent {signal:?}"));
        send(process.pid, signal);
        self.ended(&mut process, signal);
    }

    fn ended(&mut self, process: &mut Launched, signal: Signal) {
        let end = process.wait_within(self.patience);
        let fits = match end {
            Some(End::Signal(9)) => signal == Signal::KILL || self.armed,
            Some(End::Code(0)) => signal == Signal::TERM,
            _ => false,
        };
        if !fits {
            self.wrong(format!("sent {signal:?}, the supervisor ends with {end:?}"));
        }
    }

    /// One that is killed while it starts, and takes over.
    pub fn interrupted_start(&mut self) {
        if self.supervisor.is_some() {
            return;
        }
        self.world.setup.environment.retain(|(key, _)| key != FAULT);
        self.armed = false;
        let mut process = self.world.launch();
        process.wait_exec();
        self.pause(120);
        if process.running() {
            send(process.pid, Signal::KILL);
        }
        self.tell("a supervisor was killed while it started");
        self.site.ledger().count("kills of a start");
        self.ended(&mut process, Signal::KILL);
    }

    pub fn supervisor(&self) -> Option<&Supervisor> {
        self.supervisor.as_ref()
    }

    /// Processes of the supervisor's own that are called so (the names of threads: `hermes-keeper`).
    pub fn called(&self, name: &str) -> Vec<i32> {
        let Some(supervisor) = &self.supervisor else { return Vec::new() };
        let all = self.world.processes(supervisor).into_iter().map(|process| process.outer);
        all.filter(|pid| process::status(*pid, "Name").is_some_and(|own| own == name)).collect()
    }

    /// A command line client that follows, and is killed when there are too many.
    pub fn follow(&mut self) {
        let words = match self.dice.roll(2) {
            0 => ["/hermes-sup", "ctl", "logs", "-f", fleet::CLOCK].as_slice(),
            _ => ["/hermes-sup", "ctl", "events", "-f"].as_slice(),
        };
        let mut command = self.world.inside_command(0, words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.followers.extend(command.spawn());
        self.site.ledger().count("followers");
        while self.followers.len() > 2 {
            self.unfollow();
        }
    }

    fn unfollow(&mut self) {
        if let Some(mut follower) = self.followers.pop_front() {
            let _ = follower.kill();
            let _ = follower.wait();
        }
    }

    // ---- a round ----

    /// Commands and mischief at the same time; in the end a supervisor runs.
    pub fn round(&mut self) {
        let commands = 2 + self.dice.roll(8);
        let seeds: Vec<u64> = (0..CALLERS).map(|_| self.dice.roll(u64::MAX)).collect();
        let site = Arc::clone(&self.site);
        let site = &*site;
        std::thread::scope(|scope| {
            let each = seeds.into_iter().enumerate();
            let callers: Vec<_> = each
                .map(|(who, seed)| scope.spawn(move || callers::call(site, who, Dice::new(seed), commands)))
                .collect();
            for _ in 0..1 + self.dice.roll(3) {
                self.pause(150);
                super::mischief::any(self);
                self.ensure(true);
            }
            // Whoever is armed may end at any command.
            while !callers.iter().all(std::thread::ScopedJoinHandle::is_finished) && !self.is_wrong() {
                self.ensure(true);
                self.pause(20);
            }
            self.ensure(true);
        });
    }

    // ---- what is so ----

    /// Nothing is damaged any more; everything becomes as it is wanted, and is.
    pub fn check(&mut self) {
        if self.armed {
            self.end(Signal::KILL);
        }
        super::mischief::repair(&self.world);
        self.ensure(false);
        if self.is_wrong() {
            return;
        }
        // What was damaged may have kept the definitions from being read.
        self.for_all("reload", &Request::Reload { restart: false });
        self.for_all("thaw", &Request::Thaw { targets: Targets::All });
        let settled = wait::within(self.patience, &self.world.root, || {
            self.status().filter(|services| services.values().all(is_as_wanted))
        });
        let Some(services) = settled else {
            let left = self.status().unwrap_or_default();
            let left = left.values().filter(|service| !is_as_wanted(service));
            let left = left.map(|service| {
                let ServiceStatus { name, want, state, reason, .. } = service;
                format!("{name} is wanted {want:?} and {state:?}: {}", reason.clone().unwrap_or_default())
            });
            return self.wrong(format!("stuck: {}", left.collect::<Vec<_>>().join("; ")));
        };
        let names = FLEET.iter().map(|member| member.name).chain(REGISTERED);
        for name in names {
            let found = services.get(name).map_or(Wish::Absent, |service| service.want.into());
            self.site.ledger().found(name, found);
        }
        self.check_copies(&services);
        self.site.ledger().count("checks");
    }

    fn for_all(&self, verb: &str, request: &Request) {
        let told = ask(self.site.sockets.client(), &[], request, self.patience);
        self.tell(format_args!("{verb}: {told:?}"));
    }

    fn status(&self) -> Option<BTreeMap<String, ServiceStatus>> {
        self.site.sockets.status(self.patience).ok().map(|(_, services)| services)
    }

    /// Of each service as many processes as one copy of it has, and no others.
    fn check_copies(&self, services: &BTreeMap<String, ServiceStatus>) {
        let mut counts = BTreeMap::new();
        let fit = wait::within(self.patience.min(Duration::from_secs(20)), &self.world.root, || {
            let all = process::marked(&self.site.mark);
            counts.clear();
            all.iter().for_each(|process| *counts.entry(fleet::service_of(process)).or_insert(0) += 1);
            wrong_counts(&counts, services).is_empty().then_some(())
        });
        if fit.is_none() {
            for line in wrong_counts(&counts, services) {
                self.wrong(line);
            }
        }
        if self.world.read(fleet::LOCK).contains("OVERLAP") {
            self.wrong(format!("there were two copies of {} at a time", fleet::SINGLE));
        }
        let said = self.world.stderr();
        let is_bug = |line: &&str| line.contains("panicked") && !line.contains("daemon/fault.rs");
        if let Some(bug) = said.lines().find(is_bug) {
            self.wrong(format!("it has panicked: {bug}"));
        }
    }

    /// Stops everything, and compares what is used then with the first times.
    pub fn census(&mut self) {
        while !self.followers.is_empty() {
            self.unfollow();
        }
        // One whose launcher was killed before it was tied to that follows on.
        let all = self.supervisor.iter().flat_map(|supervisor| self.world.processes(supervisor));
        let followers = all.filter(|process| process.command.starts_with("/hermes-sup ctl "));
        followers.for_each(|process| send(process.outer, Signal::KILL));
        for name in REGISTERED {
            if self.site.ledger().is_possible(name, Wish::Up) {
                callers::unregister(&self.site, CALLERS, name);
            }
        }
        self.for_all("stop", &Request::Stop { targets: Targets::All });
        FLEET.iter().for_each(|member| self.site.ledger().known(member.name, Wish::Down));
        self.check();
        let first = self.figures.iter().take(FIRST).copied().reduce(Figures::or_more);
        let Some(supervisor) = &self.supervisor else { return };
        let mut now = Figures::of(&self.world, supervisor, 0);
        let grown = |now: Figures| first.map(|first| now.grown_since(first, 0)).unwrap_or_default();
        // A directory of cgroup2 is removed a while after the end of what was in it, and what a start has tried ends by itself after
        // half a minute if that start was killed.
        wait::within(self.patience, &self.world.root, || {
            now = Figures::of(&self.world, supervisor, 0);
            (now.is_tidy() && grown(now).is_empty()).then_some(())
        });
        self.tell(now);
        if self.figures.len() >= FIRST {
            grown(now).into_iter().for_each(|line| self.wrong(line));
        }
        self.figures.push(now);
        self.site.ledger().count("censuses");
    }

    /// All figures that were taken, for people.
    pub fn figures(&self) -> String {
        let ends = [self.figures.first(), self.figures.last()].into_iter().flatten();
        ends.map(|figures| format!("  {figures}\n")).collect()
    }

    /// The end in order: nothing is left of anything.
    pub fn finish(&mut self) {
        self.end(Signal::TERM);
        let left = self.world.marked("").len();
        if left > 0 {
            self.wrong(format!("{left} processes of services survive the shutdown"));
        }
        let cgroups = super::figures::cgroups(&self.world);
        if !cgroups.is_empty() {
            self.wrong(format!("cgroups are left: {cgroups:?}"));
        }
    }
}

/// Everything is as it is wanted, or on its way from one short life to the next.
fn is_as_wanted(service: &ServiceStatus) -> bool {
    let name = service.name.as_str();
    match (service.want, service.state) {
        // It has no process where another serves the profile.
        (_, State::Served | State::Parked) => name == fleet::ROOT || name == fleet::CODER,
        _ if name == fleet::ROOT => true,
        (Want::Up, State::Up | State::Ready) => true,
        (Want::Up, State::Starting | State::Stopping | State::Backoff) => *fleet::copy_of(name).start() == 0,
        (Want::Down, state) => matches!(state, State::Down | State::Finished),
        (Want::Up, _) => false,
    }
}

fn wrong_counts(counts: &BTreeMap<String, usize>, services: &BTreeMap<String, ServiceStatus>) -> Vec<String> {
    let mut wrong = Vec::new();
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    for (name, service) in services.iter().filter(|(name, _)| *name != fleet::ROOT) {
        let copy = fleet::copy_of(name);
        match service.want {
            Want::Up if !copy.contains(&count(name)) => {
                wrong.push(format!(
                    "{name} is wanted up and has {} processes instead of {copy:?}",
                    count(name)
                ));
            }
            Want::Down if count(name) > 0 => {
                wrong.push(format!("{name} is wanted down and has {} processes", count(name)));
            }
            Want::Up | Want::Down => {}
        }
    }
    let asked = services.get(fleet::ASKED).map(|service| service.want);
    let probes = if asked == Some(Want::Up) { PROBE } else { 0 };
    if count(PROBING) > probes {
        wrong.push(format!("{} processes of probes instead of {probes}", count(PROBING)));
    }
    let known = |name: &str| services.contains_key(name) || name == PROBING;
    let strays = counts.iter().filter(|(name, _)| !known(name));
    wrong.extend(strays.map(|(name, count)| format!("{count} processes of {name}, which is no service")));
    wrong
}

/// Where it has ended by now, there is nobody to hear of it.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
