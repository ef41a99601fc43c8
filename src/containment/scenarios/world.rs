//! A daemon in miniature: it holds services on one rung and hears what becomes of them.

use super::PATIENCE;
use crate::containment::ladder::{Begun, Wish, probe};
use crate::containment::processes::{self, walk};
use crate::containment::succession::predecessor::{Spared, end};
use crate::containment::*;
use crate::core::clock::Tick;
use crate::core::limits::Limits;
use crate::sys::credentials::Credentials;
use crate::sys::reexec::ROLE;
use crate::sys::spawn::plan::{CapabilityMasks, ChildPlan, Stdio};
use rustix::process::WaitOptions;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A daemon in miniature.
pub(super) struct World {
    pub(super) held: Containment,
    pub(super) poll: mio::Poll,
    begun: Instant,
    pub(super) events: Vec<Event>,
    /// The loop has more urgent things to do at each turn.
    pub(super) hurries: bool,
    pub(super) instance: String,
    /// The name of every service here.
    pub(super) name: ServiceName,
    _cleanup: Cleanup,
    pub(super) runtime: tempfile::TempDir,
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

pub(super) fn token(slot: u32, generation: u32) -> mio::Token {
    mio::Token((generation as usize) << 32 | slot as usize)
}

impl World {
    pub(super) fn new(rung: Rung) -> Self {
        let instance = format!("test-{}-{}", std::process::id(), rung);
        Self::with_instance(rung, instance)
    }

    /// On a kernel without Landlock's signal scope.
    pub(super) fn unscoped(rung: Rung) -> Self {
        Self::with(rung, format!("test-{}-{}", std::process::id(), rung), false)
    }

    pub(super) fn with_instance(rung: Rung, instance: String) -> Self {
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
            hurries: false,
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
    pub(super) fn start(&mut self, n: u64, role: &str, rung: Rung) -> i32 {
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
        self.held.tidy(now, self.hurries);
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

    pub(super) fn empty(&mut self, n: u64) {
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
    pub(super) fn finish(mut self) {
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
