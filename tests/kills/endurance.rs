//! One supervisor for a very long time: services that end as soon as they have begun, and one client after another.
//!
//! A first hundredth of it fills what is kept on purpose. Then everything is stopped and what the supervisor uses is noted; after the
//! rest everything is stopped again, and it may not use more. How long restarts take from tenth to tenth is shown, not judged.

use super::asking::{Sockets, ask};
use super::clients::{Crowd, Seen};
use super::figures::Figures;
use super::harness::setup::HERMES;
use super::harness::{Dice, End, Place, Rung, Setup, Supervisor, World, wait};
use super::options::Options;
use super::say;
use hermes_sup::control::protocol::{Request, Targets};
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Services that end at once, each with a start every few milliseconds.
const STORM: usize = 32;
/// Memory in kB of what is kept on purpose, such as the last thousand events, and may not be full after the first hundredth.
const CACHES: u64 = 3072;
/// The allocator of glibc, by itself, keeps up to twice the largest block that was ever freed: after answers that nobody read, megabytes
/// of which the supervisor uses nothing. That of the released binary, musl's, gives them back, and reads none of this.
const GLIBC: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")];
/// Threads of clients. They wait more than they work.
const CROWDS: usize = 8;

struct Endurance {
    world: World,
    supervisor: Supervisor,
    sockets: Sockets,
    others: Vec<String>,
    wrong: Vec<String>,
    seen: Vec<Seen>,
    rows: Vec<Row>,
}

/// What was so at the end of a tenth.
struct Row {
    at: Duration,
    restarts: u64,
    clients: u64,
    figures: Figures,
    /// Half of the restarts that were asked for took no longer, and 99 of 100.
    half: Duration,
    most: Duration,
}

/// Whether all was as it should be.
pub fn run(options: &Options) -> bool {
    let rung = options.rungs()[0];
    let mut run = Endurance::begin(rung);
    let began = Instant::now();
    let is_over = |budget: Option<Duration>| budget.is_some_and(|budget| began.elapsed() >= budget);
    run.span(options.restarts / 100, options.clients / 100, options.seed, &|| is_over(options.budget));
    let first = run.settled(None);
    let tenth = |number: u64| [options.restarts, options.clients].map(|all| all * number / 10);
    let (mut restarts, mut clients) = (0, 0);
    let begun = Instant::now();
    for number in 1..=10 {
        let [restarts_now, clients_now] = tenth(number);
        let (restarts_then, clients_then) = (restarts, clients);
        let seed = options.seed.wrapping_add(number);
        run.seen.clear();
        let done = run.span(
            restarts_now.saturating_sub(restarts_then),
            clients_now.saturating_sub(clients_then),
            seed,
            &|| is_over(options.budget),
        );
        restarts += done.0;
        clients += done.1;
        run.row(begun.elapsed(), restarts, clients);
        if is_over(options.budget) || !run.wrong.is_empty() {
            break;
        }
    }
    let last = run.settled(Some(first));
    run.wrong.extend(last.grown_since(first, CACHES));
    run.finish(rung, options, first, last)
}

impl Endurance {
    fn begin(rung: Rung) -> Self {
        // In memory, as what is measured is not the disk.
        let mut setup = Setup::new(rung, Place::Child)
            .world_option(&["--tmpfs", "/opt/data/supervisor", "size=64m,mode=750"])
            .supervisor_option(&["--log-level", "error"]);
        for (key, value) in GLIBC {
            setup = setup.env(key, value);
        }
        let mut world = World::new(setup);
        std::fs::create_dir_all(world.root.join("opt/data/supervisor")).expect("a directory");
        if rung == Rung::KeeperSameUid {
            chown(world.root.join("opt/data/supervisor"), Some(HERMES), Some(HERMES)).expect("an owner");
        }
        let at_once = "autostart = false\n[log]\nto_container = false\n[restart]\nlimit = \"none\"\n\
                       backoff = { initial = \"1ms\", max = \"1ms\", jitter = 0.0 }\n";
        let others: Vec<String> = (0..STORM).map(|number| format!("storm-{number}")).collect();
        for name in &others {
            world.adversary(name, "exit 0", at_once);
        }
        for number in 0..CROWDS {
            let lock = lock_of(number);
            world.write_as_hermes(&lock, "");
            let quick = "[stop]\ntimeout = \"50ms\"\n[restart]\nlimit = \"none\"\n";
            world.adversary(&own(number), &format!("exclusive {lock}"), quick);
        }
        world.prepare();
        let supervisor = world.start();
        let sockets = Sockets::of(&world);
        Self { world, supervisor, sockets, others, wrong: Vec::new(), seen: Vec::new(), rows: Vec::new() }
    }

    /// So many more restarts and clients at the same time; returns how many there were.
    fn span(
        &mut self,
        restarts: u64,
        clients: u64,
        seed: u64,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> (u64, u64) {
        self.for_all(
            "start",
            &Request::Start { targets: Targets::Names(self.others.clone()), timeout_ms: None, force: false },
        );
        let mut failed = None;
        let mut count = || self.restarts().map_err(|error| failed = Some(error)).unwrap_or_default();
        let before = count();
        let (served, stop, seen) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Vec::new()));
        let mut now = before;
        let socket = self.world.socket();
        std::thread::scope(|scope| {
            for number in 0..CROWDS {
                let mut crowd = Crowd::new(
                    &self.sockets,
                    socket.clone(),
                    Dice::new(seed.wrapping_mul(17).wrapping_add(number as u64)),
                    own(number),
                    self.world.path(&lock_of(number)),
                    &self.others,
                );
                let (served, stop, seen) = (&served, &stop, &seen);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed)
                        && served.fetch_add(1, Ordering::Relaxed) < clients
                        && crowd.seen.wrong.len() < 5
                    {
                        crowd.next();
                    }
                    crowd.leave();
                    seen.lock().expect("no panic").push(crowd.seen);
                });
            }
            // A look takes the supervisor's time too.
            while now - before < restarts && !is_over() {
                wait::within(Duration::from_millis(500), Path::new("/"), || None::<()>);
                now = count().max(now);
            }
            while served.load(Ordering::Relaxed) < clients && !is_over() {
                wait::within(Duration::from_millis(100), Path::new("/"), || None::<()>);
                if seen.lock().expect("no panic").len() == CROWDS {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let seen = seen.into_inner().expect("no panic");
        let clients = seen.iter().map(|seen| seen.clients).sum();
        self.wrong.extend(failed);
        self.wrong.extend(seen.iter().flat_map(|seen| seen.wrong.clone()));
        self.seen = seen;
        (now - before, clients)
    }

    /// Restarts of all services so far.
    fn restarts(&self) -> Result<u64, String> {
        let (_, services) =
            self.sockets.status(wait::PATIENCE).map_err(|error| format!("status: {error}"))?;
        Ok(services.values().map(|service| service.restarts).sum())
    }

    fn for_all(&mut self, verb: &str, request: &Request) {
        let told = ask(self.sockets.client(), &[], request, wait::PATIENCE);
        if told.values().any(|told| *told != super::asking::Told::Done) {
            self.wrong.push(format!("{verb}: {told:?}"));
        }
    }

    /// With nothing up: what is used, when that is no more than `first`, or after a while.
    fn settled(&mut self, first: Option<Figures>) -> Figures {
        self.for_all("stop", &Request::Stop { targets: Targets::All });
        let mut now = Figures::of(&self.world, &self.supervisor, 0);
        wait::within(wait::PATIENCE, &self.world.root, || {
            now = Figures::of(&self.world, &self.supervisor, 0);
            let fits = first.is_none_or(|first| now.grown_since(first, CACHES).is_empty());
            (fits && now.is_tidy()).then_some(())
        });
        now
    }

    fn row(&mut self, at: Duration, restarts: u64, clients: u64) {
        let mut took: Vec<Duration> =
            self.seen.iter().flat_map(|seen| seen.restarts.iter().map(|(_, took)| *took)).collect();
        took.sort_unstable();
        let part =
            |part: usize| took.get(took.len().saturating_sub(1) * part / 100).copied().unwrap_or_default();
        let figures = Figures::of(&self.world, &self.supervisor, 0);
        let row = Row { at, restarts, clients, figures, half: part(50), most: part(99) };
        say(&row.to_string());
        self.rows.push(row);
    }

    fn finish(mut self, rung: Rung, options: &Options, first: Figures, last: Figures) -> bool {
        let (restarts, clients) = self.rows.last().map_or((0, 0), |row| (row.restarts, row.clients));
        rustix::process::Pid::from_raw(self.supervisor.pid())
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        let end = self.supervisor.process.wait_within(wait::PATIENCE);
        if end != Some(End::Code(0)) {
            self.wrong.push(format!("a shutdown ends with {end:?}"));
        }
        if !self.world.marked("").is_empty() {
            self.wrong.push("processes survive the shutdown".to_owned());
        }
        let busy: u64 = self.seen.iter().map(|seen| seen.busy).sum();
        say(&format!(
            "{}: {restarts} of {} restarts, {clients} of {} clients, {busy} told to try again later in the last tenth\n  \
             at first: {first}\n  at last:  {last}",
            rung.name(),
            options.restarts,
            options.clients
        ));
        if self.wrong.is_empty() {
            return true;
        }
        self.wrong.truncate(20);
        say(&format!("FAILED, seed {}:", options.seed));
        self.wrong.iter().for_each(|line| say(&format!("    {line}")));
        let said = self.world.stderr();
        let last: Vec<&str> = said.lines().rev().take(20).collect();
        say(&format!(
            "the supervisor's last lines:\n{}",
            last.into_iter().rev().collect::<Vec<_>>().join("\n")
        ));
        false
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, restarts, clients, figures, half, most } = self;
        write!(
            f,
            "{:5} s {restarts:9} restarts {clients:7} clients; a restart that is asked for takes {} µs, 99 of 100 at most {}; {figures}",
            at.as_secs(),
            half.as_micros(),
            most.as_micros()
        )
    }
}

fn own(number: usize) -> String {
    format!("own-{number}")
}

fn lock_of(number: usize) -> String {
    format!("/opt/data/lock-{number}")
}
