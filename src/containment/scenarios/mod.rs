//! Real processes on every rung: what a service can do to escape its end, and that it does not.
//!
//! Each test runs in a process of its own (the harness started again for that one test), because a subreaper that
//! reaps everything must not share its process with other tests.

mod hooks;
mod played;
mod scopes;

use super::ladder::{Begun, Wish, probe};
use super::processes::{self, walk};
use super::succession::predecessor::{Spared, end, is_keeper};
use super::*;
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::limits::Limits;
use crate::core::signal::Signal;
use crate::sys::credentials::Credentials;
use crate::sys::reexec::ROLE;
use crate::sys::spawn::plan::{CapabilityMasks, ChildPlan, Stdio};
use rustix::process::WaitOptions;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const INNER: &str = "HERMES_SUP_TEST_INNER";
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const RUNGS: [Rung; 5] = Rung::ALL;

/// Runs `body` alone in a fresh process.
fn isolated(name: &str, body: fn()) {
    isolated_in("scenarios", name, body);
}

pub(super) fn isolated_in(module: &str, name: &str, body: fn()) {
    if std::env::var(INNER).as_deref() == Ok(name) {
        return body();
    }
    // Its output is kept back: it would read as the outer harness's own.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("containment::{module}::{name}"), "--nocapture"])
        .env(INNER, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}{errors}");
}

/// A daemon in miniature.
pub(super) struct World {
    pub(super) held: Containment,
    poll: mio::Poll,
    begun: Instant,
    pub(super) events: Vec<Event>,
    instance: String,
    /// Of all services here.
    pub(super) name: ServiceName,
    _cleanup: Cleanup,
    runtime: tempfile::TempDir,
}

/// A test that fails leaves nothing behind either.
struct Cleanup(Predecessor);

impl Drop for Cleanup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = end(&self.0, &Spared::default(), PATIENCE);
        }
    }
}

fn token(slot: u32, generation: u32) -> mio::Token {
    mio::Token((generation as usize) << 32 | slot as usize)
}

impl World {
    fn new(rung: Rung) -> Self {
        let instance = format!("test-{}-{}", std::process::id(), rung);
        Self::with_instance(rung, instance)
    }

    /// On a kernel without Landlock's signal scope.
    fn unscoped(rung: Rung) -> Self {
        Self::with(rung, format!("test-{}-{}", std::process::id(), rung), false)
    }

    fn with_instance(rung: Rung, instance: String) -> Self {
        Self::with(rung, instance, true)
    }

    fn with(rung: Rung, instance: String, scope: bool) -> Self {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let runtime = tempfile::tempdir().unwrap();
        let wish = Wish {
            wanted: Some(rung),
            also: &[],
            instance: &instance,
            runtime_dir: runtime.path(),
            service_uid: 65534,
        };
        let mut report = probe(&wish, Begun::default()).unwrap();
        if !scope {
            for (_, result) in &mut report.attempts {
                if let Some(unscoped) = result.as_ref().ok().and_then(|proof| proof.unscoped()) {
                    *result = Ok(unscoped);
                }
            }
        }
        assert_eq!(report.rung, rung);
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let home = Home { instance: &instance, runtime_dir: runtime.path(), controllers: true };
        let held = Containment::open(report, home, None, registry, token).unwrap();
        let cleanup = Cleanup(held.predecessor());
        let name = ServiceName::new("svc").unwrap();
        Self {
            held,
            poll,
            begun: Instant::now(),
            events: Vec::new(),
            instance,
            name,
            _cleanup: cleanup,
            runtime,
        }
    }

    pub(super) fn now(&self) -> Tick {
        Tick(self.begun.elapsed().as_millis() as u64)
    }

    pub(super) fn id(&self, n: u64) -> IncarnationId {
        IncarnationId { name: self.name.clone(), n }
    }

    /// The service's plan, and the reading end of its stdout.
    pub(super) fn plan(&self, argv: &[&str], role: &str, rung: Rung) -> (ChildPlan, File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = || -> OwnedFd { File::options().read(true).write(true).open("/dev/null").unwrap().into() };
        let env = [(ROLE, role), ("PATH", "/usr/bin:/bin")];
        let mut plan = ChildPlan::new(argv, env, None, [null(), null(), null()]).unwrap();
        plan.stdout = Stdio::Fd(write);
        plan.no_new_privs = true;
        plan.capabilities = Some(CapabilityMasks { bounding: 0, ambient: 0 });
        if rung != Rung::KeeperSameUid {
            plan.identity = Some(Credentials { uid: 65534, gid: 65534, groups: [65534].into() });
        }
        (plan, File::from(read))
    }

    /// Starts one of the hostile programs and waits until it says that it is in place.
    fn start(&mut self, n: u64, role: &str, rung: Rung) -> i32 {
        let (plan, mut stdout) = self.plan(&["/proc/self/exe"], role, rung);
        let id = self.id(n);
        self.held.spawn(&id, plan, None, &Limits::default()).unwrap();
        let pid = self.spawned();
        let mut byte = [0u8; 1];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{role} never came up");
        pid
    }

    /// One round of the loop.
    pub(super) fn turn(&mut self) {
        let mut ready = mio::Events::with_capacity(64);
        let now = self.now();
        let wait = self.held.next_deadline().map_or(Duration::from_millis(10), |at| at.since(now));
        self.poll.poll(&mut ready, Some(wait.min(Duration::from_millis(10)))).unwrap();
        for event in &ready {
            let token = event.token().0;
            self.held.ready(token as u32, (token >> 32) as u32, now);
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.held.reaped(pid.as_raw_nonzero().get(), status.as_raw(), now);
            self.held.settle_reaped(now);
        }
        let now = self.now();
        self.held.tick(now);
        self.held.tidy(now);
        self.hear();
    }

    /// Takes what has happened, and forgets it with what was taken before.
    pub(super) fn forget(&mut self) {
        self.hear();
        self.events.clear();
    }

    /// Takes what has happened.
    pub(super) fn hear(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.held.next_event()));
    }

    /// Turns until an event that `pick` wants has come; it and those before it stay in `events`.
    pub(super) fn until<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.events.iter().find_map(&pick) {
                return found;
            }
            assert!(Instant::now() < end, "never {what}: {:?}", self.events);
            self.turn();
        }
    }

    /// The main process of what was spawned.
    pub(super) fn spawned(&mut self) -> i32 {
        self.until("spawned", |event| match event {
            Event::Spawned { pid, .. } => Some(*pid),
            _ => None,
        })
    }

    /// Kills, waits for the end, and checks it against what /proc says.
    pub(super) fn end(&mut self, n: u64) {
        let (id, now) = (self.id(n), self.now());
        self.held.kill(&id, now);
        self.empty(n);
    }

    fn empty(&mut self, n: u64) {
        let id = self.id(n);
        self.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
        assert_eq!(self.survivors(), Vec::<i32>::new(), "after {:?}", self.events);
        let exits = self.events.iter().filter(|event| matches!(event, Event::MainExited { .. })).count();
        assert_eq!(exits, 1, "{:?}", self.events);
        self.held.release(&id, self.now());
        self.forget();
    }

    /// Live processes that carry our marker (as root we may read it of everybody).
    pub(super) fn survivors(&self) -> Vec<i32> {
        let prefix = format!("{}:", self.instance);
        walk::all_processes()
            .into_iter()
            .filter(|pid| processes::marker_of(*pid).is_some_and(|marker| marker.starts_with(&prefix)))
            .filter(|pid| walk::stat(*pid).is_some_and(|stat| stat.state != b'Z'))
            .collect()
    }

    pub(super) fn cgroup_dir(&self) -> Option<PathBuf> {
        self.held.mechanisms().find_map(|mechanism| mechanism.directory())
    }

    /// Any child but the fork server, which goes with the world.
    fn has_children(&self) -> bool {
        let children = walk::children(std::process::id().cast_signed());
        children.into_iter().any(|pid| Some(pid) != self.held.spawner.pid())
    }

    /// Nothing is left: no child, no directory, no descriptor that the loop would still watch.
    fn finish(mut self) {
        let end = Instant::now() + PATIENCE;
        let dir = self.cgroup_dir();
        let left = |dir: &PathBuf| {
            std::fs::read_dir(dir).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count()
        };
        while dir.as_ref().is_some_and(|dir| left(dir) > 0) || self.has_children() {
            assert!(Instant::now() < end, "something is left behind");
            self.turn();
        }
        self.held.close();
        assert!(dir.is_none_or(|dir| !dir.exists()));
        assert!(!self.runtime.path().join("keepers").exists());
    }
}

/// The same on every rung.
pub(super) fn on_every_rung(scenario: fn(&mut World, Rung)) {
    for rung in RUNGS {
        let mut world = World::new(rung);
        scenario(&mut world, rung);
        world.finish();
    }
}

#[test]
fn a_tree_that_double_forked_and_ignores_every_signal_ends_whole() {
    isolated("a_tree_that_double_forked_and_ignores_every_signal_ends_whole", || {
        on_every_rung(|world, rung| {
            world.start(1, "tree:50", rung);
            let id = world.id(1);
            assert_eq!(world.held.rung(&id), Some(rung));
            assert_eq!(world.held.usage(&id).procs, 101);
            world.held.signal_tree(&id, Signal::TERM);
            world.until("exited", |event| matches!(event, Event::MainExited { .. }).then_some(()));
            assert_eq!(world.held.processes(&id).len(), 100, "the leader obeyed, the others did not");
            world.end(1);
        });
    });
}

#[test]
fn comets_end() {
    isolated("comets_end", || {
        on_every_rung(|world, rung| {
            world.start(1, "comet:5", rung);
            world.end(1);
        });
    });
}

#[test]
fn a_fork_storm_ends() {
    isolated("a_fork_storm_ends", || {
        on_every_rung(|world, rung| {
            world.start(1, "storm:10", rung);
            world.end(1);
        });
    });
}

/// cgroup.kill leaves it alive on 6.18: the signal is pended on the dead leader.
#[test]
fn a_leader_that_exited_before_its_threads_ends() {
    isolated("a_leader_that_exited_before_its_threads_ends", || {
        on_every_rung(|world, rung| {
            let pid = world.start(1, "zombie-leader", rung);
            let end = Instant::now() + PATIENCE;
            while walk::stat(pid).is_some_and(|stat| stat.state != b'Z') {
                assert!(Instant::now() < end);
                world.turn();
            }
            world.end(1);
        });
    });
}

#[test]
fn what_outlives_the_main_process_is_seen_and_ends_on_order() {
    isolated("what_outlives_the_main_process_is_seen_and_ends_on_order", || {
        on_every_rung(|world, rung| {
            world.start(1, "leave:3", rung);
            let exit = world.until("exited", |event| match event {
                Event::MainExited { exit, .. } => Some(*exit),
                _ => None,
            });
            assert_eq!(exit, Exit::Code(3));
            assert!(!world.events.iter().any(|event| matches!(event, Event::TreeEmpty { .. })));
            world.end(1);
        });
    });
}

/// Ends that are reaped together are looked at together, where nothing lives in any tree.
#[test]
fn of_many_ends_at_once_only_those_are_over_that_left_nothing() {
    isolated("of_many_ends_at_once_only_those_are_over_that_left_nothing", || {
        const MANY: u64 = 20;
        let mut world = World::new(Rung::Cgroup);
        for (from, last) in [(1, "leave:3"), (100, "sleep")] {
            let mut mains = Vec::new();
            for n in from..from + MANY {
                let role = if n + 1 == from + MANY { last } else { "sleep" };
                let argv: &[&str] = if role == "sleep" { &["sleep", "1000"] } else { &["/proc/self/exe"] };
                let (plan, _stdout) = world.plan(argv, role, Rung::Cgroup);
                world.held.spawn(&world.id(n), plan, None, &Limits::default()).unwrap();
                mains.push(match role {
                    "sleep" => world.spawned(),
                    _ => 0,
                });
                world.events.retain(|event| !matches!(event, Event::Spawned { .. }));
            }
            mains.iter().filter(|pid| **pid > 0).for_each(|pid| kill_nine(*pid));
            for _ in 0..MANY {
                let (pid, status) = rustix::process::wait(WaitOptions::empty()).unwrap().unwrap();
                world.held.reaped(pid.as_raw_nonzero().get(), status.as_raw(), world.now());
            }
            world.held.settle_reaped(world.now());
            world.hear();
            let mut over: Vec<u64> = world
                .events
                .iter()
                .filter_map(|event| match event {
                    Event::TreeEmpty { id } => Some(id.n),
                    _ => None,
                })
                .collect();
            over.sort_unstable();
            let left = if last == "sleep" { 0 } else { 1 };
            assert_eq!(over, (from..from + MANY - left).collect::<Vec<_>>());
            assert_eq!(world.survivors().len() as u64, left);
            for n in over {
                world.held.release(&world.id(n), world.now());
            }
            world.forget();
            if left > 0 {
                let (id, now) = (world.id(from + MANY - 1), world.now());
                world.held.kill(&id, now);
                world.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
                world.held.release(&id, world.now());
                world.forget();
            }
        }
        world.finish();
    });
}

#[test]
fn one_life_after_another_and_each_exit_code_is_the_services_own() {
    isolated("one_life_after_another_and_each_exit_code_is_the_services_own", || {
        on_every_rung(|world, rung| {
            for n in 1..20 {
                let (plan, _stdout) = world.plan(&["/proc/self/exe"], &format!("exit:{n}"), rung);
                let id = world.id(n);
                world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
                world.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
                let exit = Exit::Code(n as u8);
                let expected = [
                    matches!(world.events[0], Event::Spawned { .. }),
                    world.events[1] == Event::MainExited { id: id.clone(), exit },
                    world.events[2] == Event::TreeEmpty { id: id.clone() },
                    world.events.len() == 3,
                ];
                assert_eq!(expected, [true; 4], "{:?}", world.events);
                world.empty(n);
            }
        });
    });
}

#[test]
fn what_cannot_be_executed_says_why_and_leaves_nothing() {
    isolated("what_cannot_be_executed_says_why_and_leaves_nothing", || {
        on_every_rung(|world, rung| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
            let file = |name: &str, text: &str, mode: u32| {
                let path = dir.path().join(name);
                std::fs::write(&path, text).unwrap();
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(&path, mode).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let script = file("script", "#!/no/such/interpreter\n", 0o755);
            let plain = file("plain", "#!/bin/sh\n", 0o644);
            let text = file("text", "just text\n", 0o755);
            let cases = [
                ("/no/such/program".to_owned(), "'/no/such/program': No such file or directory"),
                ("no-such-program".to_owned(), "not found in PATH"),
                (plain, "Permission denied"),
                (script, "the interpreter or loader that it names does not exist"),
                (text, "not a program for this machine"),
            ];
            for (n, (program, words)) in (1..).zip(cases) {
                let (plan, _stdout) = world.plan(&[&program], "pause", rung);
                let id = world.id(n);
                world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
                let error = world.until("failed", |event| match event {
                    Event::SpawnFailed { error, .. } => Some(error.to_string()),
                    _ => None,
                });
                assert!(error.contains(words), "{error}");
                assert_eq!(world.events.len(), 1, "{:?}", world.events);
                assert_eq!(world.held.rung(&id), None, "nothing is held any more");
                world.forget();
            }
        });
    });
}

#[test]
fn a_killed_keeper_does_not_let_its_tree_go() {
    isolated("a_killed_keeper_does_not_let_its_tree_go", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid] {
            for role in ["tree:20", "comet:3", "storm:3"] {
                let mut world = World::new(rung);
                // Another service, and a child that is none of ours, are to survive it.
                world.start(7, "obey", rung);
                world.forget();
                let main = world.start(1, role, rung);
                let keeper = walk::stat(main).unwrap().parent;
                kill_nine(keeper);
                let exit = world.until("exited", |event| match event {
                    Event::MainExited { exit, .. } => Some(*exit),
                    _ => None,
                });
                assert_eq!(exit, Exit::Unknown);
                world.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
                assert!(world.events.iter().any(|event| matches!(event, Event::Degraded { .. })));
                let id = world.id(7);
                let other = world.held.processes(&id);
                assert_eq!((other.len(), world.survivors()), (1, other), "only the other service is left");
                let id = world.id(1);
                world.held.release(&id, world.now());
                world.forget();
                world.end(7);
                world.finish();
            }
        }
    });
}

#[test]
fn a_service_that_kills_its_keeper_ends_and_counts_as_crashed() {
    isolated("a_service_that_kills_its_keeper_ends_and_counts_as_crashed", || {
        let mut world = World::unscoped(Rung::KeeperSameUid);
        world.start(1, "parricide", Rung::KeeperSameUid);
        world.held.signal_main(&world.id(1), Signal::TERM).unwrap();
        world.empty(1);
        world.finish();
    });
}

/// The service's own uid is all it takes to stop a keeper; a stopped one is woken.
#[test]
fn a_stopped_keeper_still_ends_its_tree() {
    isolated("a_stopped_keeper_still_ends_its_tree", || {
        let mut world = World::new(Rung::KeeperSameUid);
        let main = world.start(1, "pause", Rung::KeeperSameUid);
        let keeper = walk::stat(main).unwrap().parent;
        crate::sys::pidfd::Pidfd::open(keeper).unwrap().send(Signal::STOP).unwrap();
        world.end(1);
        world.finish();
    });
}

#[test]
fn a_killed_supervisor_leaves_trees_that_its_successor_ends() {
    isolated("a_killed_supervisor_leaves_trees_that_its_successor_ends", || {
        for rung in RUNGS {
            let mut world = World::new(rung);
            world.start(1, "tree:10", rung);
            let record = serde_json::to_string(&world.held.predecessor()).unwrap();
            let (instance, _runtime) = (world.instance.clone(), world.runtime);
            // What a SIGKILL does to a supervisor: every descriptor closes, nothing is said to anyone.
            drop(world.held);
            drop(world.poll);
            let predecessor: Predecessor = serde_json::from_str(&record).unwrap();
            let ended = end(&predecessor, &Spared::default(), PATIENCE).unwrap();
            let expected = match rung {
                Rung::Cgroup | Rung::CgroupPrivate => (1, 0, 0),
                _ => (0, 1, 0),
            };
            assert_eq!((ended.cgroups, ended.keepers, ended.strays), expected);
            reap_all();
            let mut world = World::with_instance(rung, instance);
            assert_eq!(world.survivors(), Vec::<i32>::new());
            // The same numbers again, in a life that knows nothing of the first.
            world.start(1, "obey", rung);
            world.forget();
            world.end(1);
            world.finish();
        }
    });
}

/// It has the arguments of a predecessor's keepers that were forked: it was waited for, a second, and then killed.
#[test]
fn a_successor_does_not_take_its_own_fork_server_for_a_keeper() {
    isolated("a_successor_does_not_take_its_own_fork_server_for_a_keeper", || {
        let mut world = World::new(Rung::KeeperSameUid);
        // The server has been executed when it has made a life.
        world.start(1, "obey", Rung::KeeperSameUid);
        world.end(1);
        let server = world.held.spawner.pid().unwrap();
        assert!(is_keeper(server, &world.instance), "it looks like one");
        let ended = world.held.end_predecessor(&world.held.predecessor(), PATIENCE).unwrap();
        assert_eq!(ended, Ended::default());
        assert!(is_keeper(server, &world.instance), "it lives");
        world.finish();
    });
}

#[test]
fn a_successor_finds_strays_whose_keeper_was_killed_too() {
    isolated("a_successor_finds_strays_whose_keeper_was_killed_too", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid] {
            let mut world = World::new(rung);
            let main = world.start(1, "tree:10", rung);
            let keeper = walk::stat(main).unwrap().parent;
            let predecessor = world.held.predecessor();
            kill_nine(keeper);
            let World { held, poll, runtime, .. } = world;
            drop((held, poll));
            let ended = end(&predecessor, &Spared::default(), PATIENCE).unwrap();
            assert_eq!((ended.keepers, ended.strays), (0, 21));
            reap_all();
            drop(runtime);
            let again = end(&predecessor, &Spared::default(), PATIENCE).unwrap();
            assert_eq!(again, Ended::default(), "a second time there is nothing");
        }
    });
}

/// The process that makes ours is one more that can be killed, or stopped, which nobody is told of.
#[test]
fn a_fork_server_that_is_killed_or_stopped_costs_no_start() {
    isolated("a_fork_server_that_is_killed_or_stopped_costs_no_start", || {
        // In a PID namespace of its own the keeper is made without it.
        on_every_rung(|world, rung| {
            for (n, signal) in
                (1..).zip([Signal::STOP, Signal::KILL, Signal::KILL, Signal::STOP, Signal::KILL])
            {
                if let Some(server) = world.held.spawner.pid().filter(|_| rung != Rung::Pidns) {
                    crate::sys::pidfd::Pidfd::open(server).unwrap().send(signal).unwrap();
                }
                world.start(n, "tree:3", rung);
                world.end(n);
            }
            if rung != Rung::Pidns {
                let end = Instant::now() + PATIENCE;
                while world.held.spawner.pid().is_some() {
                    assert!(Instant::now() < end, "it is made anew for ever");
                    world.turn();
                }
                world.start(9, "obey", rung);
                world.end(9);
            }
        });
    });
}

/// Children of the fork server read its memory until their exec, and others follow before they are there.
#[test]
fn starts_in_a_row_do_not_get_each_others_words() {
    const MANY: u64 = 40;
    isolated("starts_in_a_row_do_not_get_each_others_words", || {
        on_every_rung(|world, rung| {
            let mut outputs = Vec::new();
            for n in 1..=MANY {
                let words = ["/bin/echo".to_owned(), format!("{n} ").repeat(n as usize)];
                let (plan, stdout) = world.plan(&words.each_ref().map(String::as_str), "", rung);
                world.held.spawn(&world.id(n), plan, None, &Limits::default()).unwrap();
                outputs.push((n, stdout));
            }
            for (n, mut stdout) in outputs {
                let mut said = String::new();
                stdout.read_to_string(&mut said).unwrap();
                assert_eq!(said.trim_end(), format!("{n} ").repeat(n as usize).trim_end());
                let wanted = world.id(n);
                world.until("over", |event| match event {
                    Event::TreeEmpty { id } if *id == wanted => Some(()),
                    _ => None,
                });
                world.held.release(&wanted, world.now());
            }
            world.forget();
        });
    });
}

/// The kernel adjusts all who share a memory.
#[test]
fn what_makes_a_service_likely_to_be_killed_does_not_make_the_fork_server_so() {
    isolated("what_makes_a_service_likely_to_be_killed_does_not_make_the_fork_server_so", || {
        on_every_rung(|world, rung| {
            let adjustment = |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            let server = world.held.spawner.pid().unwrap();
            let before = adjustment(server);
            let (mut plan, mut stdout) = world.plan(&["/proc/self/exe"], "obey", rung);
            plan.oom_score_adj = Some(700);
            let id = world.id(1);
            world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
            let pid = world.spawned();
            assert_eq!(stdout.read(&mut [0u8; 1]).unwrap(), 1);
            assert_eq!(adjustment(pid).trim(), "700");
            assert_eq!((world.held.spawner.pid(), adjustment(server)), (Some(server), before));
            world.end(1);
        });
    });
}

/// A kill that comes before the child has joined its cgroup, or before its exec, must not be outrun.
#[test]
fn a_kill_right_after_the_spawn_is_not_outrun() {
    isolated("a_kill_right_after_the_spawn_is_not_outrun", || {
        on_every_rung(|world, rung| {
            for n in 1..30 {
                let (plan, _stdout) = world.plan(&["/proc/self/exe"], "tree:3", rung);
                let (id, now) = (world.id(n), world.now());
                world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
                world.held.kill(&id, now);
                world.until("over", |event| {
                    matches!(event, Event::TreeEmpty { .. } | Event::SpawnFailed { .. }).then_some(())
                });
                assert_eq!(world.survivors(), Vec::<i32>::new());
                world.held.release(&id, world.now());
                world.forget();
            }
        });
    });
}

/// What a child inherits is what its plan says, on every rung: no blocked or ignored signal, no descriptor, no group.
#[test]
fn a_service_starts_clean() {
    isolated("a_service_starts_clean", || {
        let _blocked = crate::sys::posture::block_signals().unwrap();
        let _leak = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null").unwrap(), 50).unwrap();
        on_every_rung(|world, rung| {
            let (mut plan, mut stdout) = world.plan(&["/proc/self/exe"], "obey", rung);
            plan.nofile = Some((64, 128));
            plan.umask = Some(0o27);
            let id = world.id(1);
            world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
            let pid = world.spawned();
            // The loader has closed its files when the program speaks.
            assert_eq!(stdout.read(&mut [0u8; 1]).unwrap(), 1);
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let field = |name: &str| -> String {
                let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
                line.unwrap_or_default().trim().to_owned()
            };
            assert_eq!((field("SigBlk"), field("SigIgn")), ("0".repeat(16), "0".repeat(16)));
            assert_eq!((field("NoNewPrivs").as_str(), field("Umask").as_str()), ("1", "0027"));
            let mut fds: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            fds.sort();
            assert_eq!(fds, ["0", "1", "2"]);
            let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let nofile = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
            assert_eq!(nofile.split_whitespace().nth(3), Some("64"), "{nofile}");
            if rung != Rung::KeeperSameUid {
                assert_eq!(field("Uid"), "65534\t65534\t65534\t65534");
                assert_eq!(field("CapEff"), "0".repeat(16));
                let groups = processes::groups_of(pid);
                assert!(groups.contains(&65534) && !groups.contains(&0), "{groups:?}");
            }
            world.end(1);
        });
    });
}

pub(super) fn kill_nine(pid: i32) {
    crate::sys::pidfd::Pidfd::open(pid).unwrap().send(Signal::KILL).unwrap();
}

fn reap_all() {
    let end = Instant::now() + PATIENCE;
    while !matches!(rustix::process::wait(WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD)) {
        assert!(Instant::now() < end, "children are left");
        std::thread::yield_now();
    }
}
