//! One run: a world with a supervisor in it, what it was asked and what it answered, and whether all of that is true.
//!
//! Everything that is found wrong is kept as a line, and the run goes on as far as it can: one fault may show in several ways.

use super::asking::{Sockets, Told, ask, one, pausing};
use super::harness::wait;
use super::harness::{End, Launched, Supervisor, World};
use super::tracer::{Fault, From, Tracer, family};
use hermes_sup::control::client::{Client, ClientError};
use hermes_sup::control::protocol::{Part, Request, ServiceStatus, SignalName, SupervisorStatus, Until};
use hermes_sup::core::signal::Signal;
use hermes_sup::core::words::{State, Want};
use hermes_sup::store;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// In this time everything is done that is not waited for by design; what takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(12);

/// One service of one request.
#[derive(Debug, Clone)]
pub struct Said {
    pub verb: &'static str,
    pub service: String,
    pub told: Told,
}

pub struct Stage {
    pub world: World,
    supervisor: Option<Supervisor>,
    /// How the last supervisor ended.
    pub ended: Option<End>,
    tracer: Option<Tracer>,
    pub said: Vec<Said>,
    /// What is wanted of each service, as far as the answers say it for certain.
    wants: BTreeMap<String, Option<Want>>,
    pub wrong: Vec<String>,
    /// The end was asked for.
    pub over: bool,
    /// The supervisor's own log, as far as earlier supervisors wrote it.
    pub log_before: usize,
}

impl Stage {
    pub fn new(world: World) -> Self {
        Self {
            world,
            supervisor: None,
            ended: None,
            tracer: None,
            said: Vec::new(),
            wants: BTreeMap::new(),
            wrong: Vec::new(),
            over: false,
            log_before: 0,
        }
    }

    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    // ---- services ----

    /// A service whose main process has its name among its words.
    pub fn service(&mut self, name: &str, words: &str, rest: &str) {
        self.world.adversary(name, &format!("{words} {name}"), rest);
        let want = if rest.contains("autostart = false") { Want::Down } else { Want::Up };
        self.wants.insert(name.to_owned(), Some(want));
    }

    /// Nothing was promised of it.
    pub fn forget(&mut self, name: &str) {
        self.wants.insert(name.to_owned(), None);
    }

    // ---- the supervisor ----

    /// Starts it unwatched. A harness that cannot do that has no run.
    pub fn boot(&mut self) {
        self.ended = None;
        self.world.setup.launcher.clear();
        let mut process = self.world.launch();
        process.wait_exec();
        self.await_answer(process);
        assert!(self.supervisor.is_some(), "it does not start without a fault:\n{}", self.world.stderr());
        self.settle();
    }

    /// Starts it watched from its exec on.
    pub fn boot_watched(&mut self, fault: Option<Fault>) {
        self.log_before = self.world.stderr().len();
        self.world.setup.launcher = vec!["--halt".to_owned()];
        let mut process = self.world.launch();
        self.tracer = Some(Tracer::begin(vec![process.pid], From::Exec, fault));
        process.wait_exec();
        self.await_answer(process);
        if self.supervisor.is_some() {
            self.settle();
        }
    }

    /// Watches the one that runs.
    pub fn watch(&mut self, fault: Option<Fault>) {
        self.log_before = self.world.stderr().len();
        let pid = self.supervisor.as_ref().expect("a supervisor").pid();
        self.tracer = Some(Tracer::begin(family(pid), From::Now, fault));
    }

    pub fn disarm(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.disarm();
        }
    }

    pub fn seen(&self) -> super::tracer::Seen {
        self.tracer.as_ref().map(Tracer::seen).unwrap_or_default()
    }

    /// Until it answers, or ends.
    fn await_answer(&mut self, mut process: Launched) {
        let answers = wait::within(PATIENCE, &self.world.path("/run/hermes-sup"), || {
            (self.list().is_ok() || !process.running()).then_some(())
        });
        if answers.is_none() {
            self.wrong("it neither answers nor ends");
        }
        if process.running() {
            self.supervisor = Some(Supervisor { process });
        } else {
            self.ended = process.wait_within(Duration::ZERO);
        }
    }

    /// What it has become in an upgrade answers, or has ended.
    pub fn await_image(&mut self) {
        let answers = wait::within(PATIENCE, &self.world.path("/run/hermes-sup"), || {
            (self.list().is_ok() || !self.runs()).then_some(())
        });
        if answers.is_none() {
            self.wrong("it neither answers nor ends");
        }
    }

    pub fn runs(&mut self) -> bool {
        let Some(supervisor) = &mut self.supervisor else { return false };
        if let Some(end) = supervisor.process.wait_within(Duration::ZERO) {
            self.ended = Some(end);
            self.supervisor = None;
        }
        self.supervisor.is_some()
    }

    pub fn kill_supervisor(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.kill();
        }
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self) {
        self.over = true;
        let Some(mut supervisor) = self.supervisor.take() else { return };
        // It may be gone by now, which its end will say.
        if let Some(pid) = rustix::process::Pid::from_raw(supervisor.process.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        self.ended = supervisor.process.wait_within(PATIENCE);
        if self.ended.is_none() {
            self.wrong(format!("it has not ended {} s after it was told to", PATIENCE.as_secs()));
        }
    }

    /// What it has said since the run began.
    pub fn log(&self) -> String {
        self.world.stderr().get(self.log_before..).unwrap_or_default().to_owned()
    }

    // ---- requests ----

    fn client(&self) -> Result<Client, ClientError> {
        Sockets::of(&self.world).client()
    }

    fn list(&self) -> Result<(), ClientError> {
        self.client()?.call(&Request::List {}, Some(PATIENCE), |_| ())
    }

    /// What it says of itself and of all services.
    pub fn status(&mut self) -> Option<(SupervisorStatus, BTreeMap<String, ServiceStatus>)> {
        match Sockets::of(&self.world).status(PATIENCE) {
            Ok((supervisor, services)) => Some((supervisor?, services)),
            Err(error) => {
                self.wrong(format!("no answer to status: {error}"));
                None
            }
        }
    }

    /// Asks for something for services, and keeps what was answered for each.
    pub fn ask(&mut self, verb: &'static str, names: &[&str], request: &Request) -> bool {
        let told = ask(self.client(), names, request, PATIENCE);
        let mut all_done = true;
        for (service, told) in told {
            all_done &= told == Told::Done;
            if told == Told::Silence {
                self.wrong(format!("{verb} {service}: no answer within {} s", PATIENCE.as_secs()));
            }
            self.said.push(Said { verb, service, told });
        }
        all_done
    }

    /// What is wanted from now on: known where the answer was that it is done.
    fn now_wanted(&mut self, name: &str, want: Want, done: bool) {
        self.wants.insert(name.to_owned(), done.then_some(want));
    }

    pub fn start(&mut self, name: &str) -> bool {
        let request = Request::Start { targets: one(name), timeout_ms: Some(8000), force: false };
        let done = self.ask("start", &[name], &request);
        self.now_wanted(name, Want::Up, done);
        self.true_of("start", name, done, true);
        done
    }

    pub fn stop(&mut self, name: &str) -> bool {
        let done = self.ask("stop", &[name], &Request::Stop { targets: one(name) });
        self.now_wanted(name, Want::Down, done);
        self.true_of("stop", name, done, false);
        done
    }

    pub fn restart(&mut self, name: &str) -> bool {
        let request = Request::Restart { targets: one(name), timeout_ms: Some(8000), rolling: None };
        let done = self.ask("restart", &[name], &request);
        self.now_wanted(name, Want::Up, done);
        self.true_of("restart", name, done, true);
        done
    }

    pub fn freeze(&mut self, name: &str) -> bool {
        self.ask("freeze", &[name], &Request::Freeze { targets: one(name) })
    }

    pub fn thaw(&mut self, name: &str) -> bool {
        self.ask("thaw", &[name], &Request::Thaw { targets: one(name) })
    }

    /// Has it killed, and waits until another one has taken its place.
    pub fn crash(&mut self, name: &str) {
        let before = self.pids(name);
        let signal = SignalName(Signal::KILL);
        let done = self.ask("kill", &[name], &Request::Kill { targets: one(name), signal, tree: false });
        let another = |stage: &Self| stage.pids(name).iter().any(|pid| !before.contains(pid));
        if done && wait::within(PATIENCE, Path::new("/"), || another(self).then_some(())).is_none() {
            self.wrong(format!("stuck: {name} was killed, and is not started again"));
        }
    }

    pub fn register(&mut self, name: &str) -> bool {
        let done = self.ask("register", &[name], &Request::Register(pausing(name, &self.world.mark)));
        self.now_wanted(name, Want::Up, done);
        self.true_of("register", name, done, true);
        done
    }

    pub fn unregister(&mut self, name: &str) -> bool {
        let done = self.ask("unregister", &[name], &Request::Unregister { targets: one(name) });
        if done {
            self.wants.remove(name);
        } else {
            self.forget(name);
        }
        self.true_of("unregister", name, done, false);
        done
    }

    pub fn set(&mut self, name: &str, key: &str, value: &str) -> bool {
        let limits = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        self.ask("set", &[name], &Request::Set { targets: one(name), limits, persist: true })
    }

    pub fn upgrade(&mut self) -> bool {
        self.ask("upgrade", &[], &Request::Upgrade { program: None })
    }

    pub fn reload(&mut self) -> bool {
        self.ask("reload", &[], &Request::Reload { restart: true })
    }

    // ---- what is so ----

    /// What a service has written is in its log, all of it in order; what is missing is counted where people look.
    pub fn check_flood(&mut self, name: &str, lines: u64) {
        let dir = self.world.log_dir(name);
        let is_done =
            wait::within(PATIENCE, &dir, || self.world.log(name).contains("flood done").then_some(()));
        let log = self.world.log(name);
        let numbers: Vec<u64> = log
            .lines()
            .filter_map(|line| line.split_once("flood ")?.1.split(' ').next()?.parse().ok())
            .collect();
        if !numbers.is_sorted_by(|one, next| one < next) {
            self.wrong(format!("lines of {name} come twice, or in another order"));
        }
        let missing = lines.saturating_sub(numbers.len() as u64) + u64::from(is_done.is_none());
        if missing > 0 {
            let counted = self.status().and_then(|(_, all)| Some(all.get(name)?.log_dropped)).unwrap_or(0);
            if counted == 0 {
                self.wrong(format!("{missing} lines of {name} are missing, and none is said to be"));
            }
        }
    }

    pub fn processes(&self, word: &str) -> usize {
        self.pids(word).len()
    }

    /// Processes of the world that carry `word`.
    fn pids(&self, word: &str) -> Vec<i32> {
        let mut pids = self.world.cgroup_pids();
        for dir in self.world.cgroups() {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.retain(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|each| each == word.as_bytes())
        });
        pids
    }

    /// What was said to be done is so at that moment.
    fn true_of(&mut self, verb: &str, name: &str, done: bool, up: bool) {
        if !done {
            return;
        }
        let count = self.shown(name, up);
        if (count > 0) != up {
            self.wrong(format!("{verb} {name} was said to be done, and it has {count} processes"));
        }
    }

    /// Its processes. One that `is_up` is so from its exec on, and the kernel shows its words a moment later.
    fn shown(&self, name: &str, is_up: bool) -> usize {
        let look = || Some(self.processes(name)).filter(|count| *count > 0);
        if !is_up {
            return self.processes(name);
        }
        wait::within(Duration::from_secs(2), Path::new("/"), look).unwrap_or(0)
    }

    /// Waits until every service is as it is wanted; says which is not.
    pub fn settle(&mut self) {
        let Some((_, services)) = self.status() else { return };
        for (name, service) in services {
            let (until, fits): (_, fn(State) -> bool) = match service.want {
                Want::Up => (Until::Up, |state| matches!(state, State::Up | State::Ready)),
                Want::Down => (Until::Down, |state| matches!(state, State::Down | State::Finished)),
            };
            if fits(service.state) {
                continue;
            }
            let request = Request::Wait { targets: one(&name), until, timeout_ms: Some(8000) };
            let answer = self.client().and_then(|mut client| {
                let mut last = None;
                client.call(&request, Some(PATIENCE), |part| {
                    if let Part::Outcome(outcome) = part {
                        last = Some(outcome);
                    }
                })?;
                Ok(last)
            });
            match answer {
                Ok(Some(outcome)) if outcome.ok => {}
                Ok(outcome) => {
                    let why = outcome.and_then(|outcome| outcome.message).unwrap_or_default();
                    self.wrong(format!(
                        "stuck: {name} is wanted {:?} and does not become it: {why}",
                        service.want
                    ));
                }
                Err(error) => self.wrong(format!("no answer to wait {name}: {error}")),
            }
        }
    }

    /// What status says is what the answers promised, and what the kernel shows.
    pub fn check_status(&mut self) {
        let Some((_, services)) = self.status() else { return };
        for (name, promised) in self.wants.clone() {
            let Some(service) = services.get(&name) else {
                if promised.is_some() {
                    self.wrong(format!("{name} was promised, and is not known"));
                }
                continue;
            };
            if promised.is_some_and(|want| want != service.want) {
                self.wrong(format!("{name}: promised {promised:?}, and status says {:?}", service.want));
            }
            let expected = matches!(service.state, State::Up | State::Ready);
            let count = self.shown(&name, expected);
            if (count > 0) != expected {
                self.wrong(format!("{name} is {:?} with {count} processes", service.state));
            }
            let expected = self.usual_count(&name);
            if count > expected {
                self.wrong(format!("{name} has {count} processes instead of {expected}"));
            }
        }
    }

    /// How many processes a copy of it has at most.
    fn usual_count(&self, name: &str) -> usize {
        let definition = self.world.read(&format!("/etc/hermes-sup/services/{name}.toml"));
        if definition.contains("\"tree\", \"4\"") {
            5
        } else if definition.contains("/bin/sh") {
            // The shell, and what it starts, which is a copy of it up to its exec.
            2
        } else {
            1
        }
    }

    /// What the state directory says of wants once nobody has it any more.
    pub fn check_database(&mut self) {
        let home = self.world.path("/opt/data");
        let options = store::Options {
            dir: home.join("supervisor"),
            home,
            gid: super::harness::setup::HERMES,
            host: "faults".to_owned(),
            patience: PATIENCE,
            gives_way: None,
            is_init: false,
        };
        let opened = match store::begin(options, |_| ()).and_then(|opening| opening.wait(|| false)) {
            Ok((store, opened)) => {
                let _ = store.close(PATIENCE);
                opened
            }
            Err(error) => return self.wrong(format!("the state cannot be opened afterwards: {error}")),
        };
        if let Some(why) = opened.volatile {
            return self.wrong(format!("the state cannot be read afterwards: {why}"));
        }
        let aside: Vec<_> = opened.warnings.into_iter().filter(|line| line.contains("corrupt")).collect();
        if !aside.is_empty() {
            self.wrong(format!("the state is damaged: {aside:?}"));
        }
        for (name, promised) in self.wants.clone() {
            let found =
                opened.wants.iter().find(|(known, _)| known.as_str() == name).map(|(_, row)| row.want);
            if let Some(promised) = promised
                && found != Some(promised)
            {
                self.wrong(format!("{name}: promised {promised:?}, and the state has {found:?}"));
            }
        }
    }

    /// Nothing of the services and of the supervisor is left. `may_leave`: empty cgroups that could not be removed are.
    pub fn check_nothing_left(&mut self, may_leave: bool) {
        let mark = self.world.mark.clone();
        let left = wait::within(Duration::from_secs(2), Path::new("/"), || {
            (self.processes(&mark) == 0).then_some(())
        });
        if left.is_none() {
            self.wrong(format!("{} processes of services survive", self.processes(&mark)));
        }
        let gone = |stage: &Self| stage.processes("fork-server") + stage.processes("keeper") == 0;
        if wait::within(Duration::from_secs(2), Path::new("/"), || gone(self).then_some(())).is_none() {
            self.wrong("a fork server or a keeper survives");
        }
        let below = self.world.cgroups().len();
        if below > 0 && !may_leave {
            self.wrong(format!("{below} cgroups are left: {:?}", self.world.cgroups()));
        }
    }

    /// Ends whatever is still there. What was seen is known to the end.
    pub fn tear_down(mut self) -> (World, super::tracer::Seen, Vec<String>) {
        self.disarm();
        self.supervisor = None;
        self.world.cgroup_kill();
        if let Some(tracer) = &mut self.tracer {
            tracer.join();
        }
        let seen = self.seen();
        (self.world, seen, self.wrong)
    }
}
