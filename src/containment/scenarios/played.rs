//! The front of the room on a rung that is only played: no process is made and none ends, so every order of things can be had.
//!
//! That this file is all it takes is also the test that a rung is one file and a line in the table.

use super::token;
use crate::containment::IncarnationId;
use crate::containment::event::{Event, EventQueue, HookError, SpawnError};
use crate::containment::held::{Birth, Family, Held, Look, Mechanism, Watcher};
use crate::containment::hold::{Containment, Home};
use crate::containment::ladder::{Ground, Proof, Report};
use crate::containment::processes::usage::Usage;
use crate::containment::scopes::{HeldScope, ScopeError, ScopeRequest};
use crate::containment::spawner::Spawner;
use crate::containment::succession::adopt::Gone;
use crate::containment::succession::predecessor::{Patience, Spared};
use crate::containment::succession::record::AdoptionRecord;
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::farewell::Farewell;
use crate::core::limits::{Limits, NotInForce};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::words::Rung;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::plan::ChildPlan;
use mio::Interest;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// What the test has the rung do, and what was asked of it.
#[derive(Debug, Default)]
struct Script {
    /// Numbers of the main processes to come.
    pids: Vec<i32>,
    /// The lives that fail as soon as they are looked at.
    failing: Vec<u64>,
    said: Vec<String>,
}

type Shared = Rc<RefCell<Script>>;

#[derive(Debug, Clone)]
struct Played(Shared);

#[derive(Debug)]
struct PlayedLife {
    id: IncarnationId,
    pid: i32,
    script: Shared,
    reaped: bool,
    failed: bool,
    next: Option<Tick>,
}

impl Proof for Played {
    fn remark(&self, _rung: Rung) -> &'static str {
        "played"
    }

    fn open(&self, _rung: Rung, _ground: &mut Ground<'_>) -> io::Result<Rc<dyn Mechanism>> {
        Ok(Rc::new(self.clone()))
    }
}

impl Mechanism for Played {
    fn spawn(&self, birth: Birth<'_>) -> Result<(Box<dyn Held>, Vec<NotInForce>), SpawnError> {
        let pid = self.0.borrow_mut().pids.pop().ok_or(SpawnError::Killed)?;
        let (id, script) = (birth.id.clone(), Rc::clone(&self.0));
        Ok((Box::new(PlayedLife { id, pid, script, reaped: false, failed: false, next: None }), Vec::new()))
    }

    fn adopt(
        &self,
        _slot: u32,
        _record: &AdoptionRecord,
        _watcher: &Watcher,
        _patience: &Patience,
    ) -> Option<Result<Box<dyn Held>, Gone>> {
        None
    }

    fn close(&self, _farewell: Farewell) {}
}

impl PlayedLife {
    fn say(&self, what: &str) {
        self.script.borrow_mut().said.push(format!("{what} {}", self.id.n));
    }
}

impl Held for PlayedLife {
    fn id(&self) -> &IncarnationId {
        &self.id
    }

    fn rung(&self) -> Rung {
        Rung::Keeper
    }

    fn weakness(&self) -> Option<&'static str> {
        None
    }

    fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        None
    }

    fn children(&self) -> [Option<i32>; 2] {
        [(!self.reaped).then_some(self.pid), None]
    }

    fn reaped(&mut self, _pid: i32, status: i32, _now: Tick, events: &mut EventQueue) {
        self.reaped = true;
        let exit = Exit::from_wait_status(status).unwrap();
        events.push(Event::MainExited { id: self.id.clone(), exit });
    }

    fn settle(&mut self, _look: Look, events: &mut EventQueue) {
        self.say("look at");
        self.failed = self.script.borrow().failing.contains(&self.id.n);
        if self.failed {
            events.push(Event::SpawnFailed { id: self.id.clone(), error: SpawnError::Killed });
        }
    }

    fn next_look(&self) -> Option<Tick> {
        self.next
    }

    fn tick(&mut self, _now: Tick, family: &Family<'_>, _events: &mut EventQueue) {
        self.next = None;
        self.say(if (family.known)(self.pid) { "tick" } else { "tick without family" });
    }

    fn is_overdue(&self) -> bool {
        false
    }

    fn has_failed(&self) -> bool {
        self.failed
    }

    fn signal_main(&self, signal: Signal) -> io::Result<()> {
        self.say(&format!("{signal} to"));
        Ok(())
    }

    fn signal_tree(&self, _signal: Signal) {}

    fn freeze(&mut self, frozen: bool) -> io::Result<()> {
        self.say(if frozen { "freeze" } else { "thaw" });
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        false
    }

    fn kill(&mut self, now: Tick, _events: &mut EventQueue) {
        self.next = Some(Tick(now.0 + 5));
    }

    fn set_limits(&self, _limits: &Limits) -> Vec<NotInForce> {
        Vec::new()
    }

    fn run_hook(&mut self, _spawner: &mut Spawner, _plan: &mut ChildPlan) -> Result<(), HookError> {
        Err(HookError::Ending)
    }

    fn end_hook(&mut self, _now: Tick) {}

    fn main_pid(&self) -> Option<i32> {
        Some(self.pid)
    }

    fn main(&self) -> Option<&Pidfd> {
        None
    }

    fn processes(&self) -> Vec<i32> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn open_scope(
        &self,
        _request: &ScopeRequest<'_>,
    ) -> Result<(Box<dyn HeldScope>, Vec<String>), ScopeError> {
        Err(ScopeError::Gone)
    }

    fn spare(&self, _spared: &mut Spared) {}

    fn release(self: Box<Self>, _now: Tick, _farewell: Farewell) {
        self.say("release");
    }
}

struct Stage {
    held: Containment,
    script: Shared,
    _runtime: tempfile::TempDir,
    _poll: mio::Poll,
}

impl Stage {
    fn new(pids: &[i32]) -> Self {
        let script = Shared::default();
        script.borrow_mut().pids = pids.iter().rev().copied().collect();
        let proof: Rc<dyn Proof> = Rc::new(Played(Rc::clone(&script)));
        let report = Report { rung: Rung::Keeper, attempts: vec![(Rung::Keeper, Ok(proof))] };
        let (poll, runtime) = (mio::Poll::new().unwrap(), tempfile::tempdir().unwrap());
        let home = Home { instance: "played", runtime_dir: runtime.path(), controllers: false };
        let registry = poll.registry().try_clone().unwrap();
        let held = Containment::open(report, home, None, registry, token).unwrap();
        Self { held, script, _runtime: runtime, _poll: poll }
    }

    fn id(n: u64) -> IncarnationId {
        IncarnationId { name: ServiceName::new("svc").unwrap(), n }
    }

    fn spawn(&mut self, n: u64) {
        let null = || -> OwnedFd { File::open("/dev/null").unwrap().into() };
        let none: [(&str, &str); 0] = [];
        let plan = ChildPlan::new(&["/bin/true"], none, None, [null(), null(), null()]).unwrap();
        self.held.spawn(&Self::id(n), plan, None, &Limits::default()).unwrap();
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.script.borrow_mut().said)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.held.next_event()).collect()
    }
}

const NOW: Tick = Tick(1000);
/// The first slot that a life can have.
const SLOT: u32 = 1;

/// A slot is used again: what was on its way for the life before must not reach the next one.
#[test]
fn what_is_late_for_a_life_never_reaches_the_next_one_in_its_slot() {
    isolated!("what_is_late_for_a_life_never_reaches_the_next_one_in_its_slot", || {
        let mut stage = Stage::new(&[101, 102]);
        stage.spawn(1);
        stage.held.ready(SLOT, 0, NOW);
        assert_eq!(stage.said(), ["look at 1"]);
        stage.held.kill(&Stage::id(1), NOW);
        stage.held.release(&Stage::id(1), NOW);
        stage.spawn(2);
        assert_eq!(stage.said(), ["release 1"]);
        // A descriptor, a deadline and a child of the first life.
        stage.held.ready(SLOT, 0, NOW);
        stage.held.tick(Tick(NOW.0 + 1000));
        assert!(stage.held.reaped(101, 9, NOW), "it was ours");
        stage.held.settle_reaped(NOW);
        assert_eq!((stage.said(), stage.events()), (vec![], vec![]));
        // The second life's own.
        stage.held.ready(SLOT, 1, NOW);
        assert!(stage.held.reaped(102, 0, NOW));
        assert!(!stage.held.reaped(102, 0, NOW), "another process with that number is an orphan");
        assert_eq!(stage.said(), ["look at 2"]);
        assert_eq!(stage.events(), [Event::MainExited { id: Stage::id(2), exit: Exit::Code(0) }]);
    });
}

#[test]
fn a_life_that_never_ran_is_let_go_of_when_that_is_said() {
    isolated!("a_life_that_never_ran_is_let_go_of_when_that_is_said", || {
        let mut stage = Stage::new(&[101]);
        stage.script.borrow_mut().failing.push(1);
        stage.spawn(1);
        stage.held.ready(SLOT, 0, NOW);
        assert_eq!(stage.said(), ["look at 1", "release 1"]);
        assert_eq!(stage.held.rung(&Stage::id(1)), None);
        let failed = Event::SpawnFailed { id: Stage::id(1), error: SpawnError::Killed };
        assert_eq!(stage.events(), [failed]);
        assert!(stage.held.signal_main(&Stage::id(1), Signal::TERM).is_err());
    });
}

#[test]
fn a_deadline_is_that_of_the_life_that_wants_it_first_and_comes_once() {
    isolated!("a_deadline_is_that_of_the_life_that_wants_it_first_and_comes_once", || {
        let mut stage = Stage::new(&[101, 102]);
        stage.spawn(1);
        stage.spawn(2);
        assert_eq!(stage.held.next_deadline(), None);
        stage.held.kill(&Stage::id(1), NOW);
        stage.held.kill(&Stage::id(2), Tick(NOW.0 + 1));
        // The same order again moves the look.
        stage.held.kill(&Stage::id(1), Tick(NOW.0 + 7));
        assert_eq!(stage.held.next_deadline(), Some(Tick(NOW.0 + 6)));
        stage.held.tick(Tick(NOW.0 + 6));
        assert_eq!(stage.said(), ["tick 2"], "and its own main process is known to be no orphan");
        assert_eq!(stage.held.next_deadline(), Some(Tick(NOW.0 + 12)));
        stage.held.tick(Tick(NOW.0 + 100));
        assert_eq!(stage.said(), ["tick 1"]);
        assert_eq!(stage.held.next_deadline(), None);
    });
}

#[test]
fn a_thaw_is_for_what_was_ever_frozen() {
    isolated!("a_thaw_is_for_what_was_ever_frozen", || {
        let mut stage = Stage::new(&[101]);
        stage.spawn(1);
        stage.held.thaw(&Stage::id(1));
        assert_eq!(stage.said(), Vec::<String>::new());
        stage.held.freeze(&Stage::id(1), true).unwrap();
        stage.held.thaw(&Stage::id(1));
        assert_eq!(stage.said(), ["freeze 1", "thaw 1"]);
        assert!(stage.held.freeze(&Stage::id(9), true).is_err());
    });
}
