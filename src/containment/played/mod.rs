//! A kernel in memory: trees of processes that begin, end and are killed as a simulation says, behind the two traits of a rung.
//!
//! What the supervisor orders is kept as [`Deed`]s, in order; what comes of it the simulation decides, with the methods of
//! [`Kernel`]. The kernel keeps the books that no supervisor can falsify: what lives, whose it is, what was ever there. A deed that
//! no supervisor may do is kept as a fault of it.

mod scopes;

pub use scopes::{Count, Members};

use crate::containment::IncarnationId;
use crate::containment::event::{Event, EventQueue, HookError, SpawnError};
use crate::containment::held::{Birth, Family, Held, Look, Mechanism, Watcher};
use crate::containment::hold::{Containment, Home};
use crate::containment::ladder::{Ground, Proof, Report};
use crate::containment::processes::usage::Usage;
use crate::containment::scopes::{HeldScope, ScopeError, ScopeRequest};
use crate::containment::spawner::Spawner;
use crate::containment::succession::adopt::Gone;
use crate::containment::succession::predecessor::{Ended, Patience, Predecessor, Spared};
use crate::containment::succession::record::AdoptionRecord;
use crate::core::clock::Tick;
use crate::core::exit::{Exit, Shortage};
use crate::core::farewell::Farewell;
use crate::core::limits::{Key, Limits, NotInForce, Value};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::core::words::Rung;
use crate::sys::pidfd::Pidfd;
use crate::sys::reap::played::Family as Children;
use crate::sys::spawn::plan::{ChildPlan, Pass, Stdio};
use mio::{Interest, Registry, Token};
use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Larger than any number that a kernel gives (PID_MAX_LIMIT), so that no real process is ever meant.
const FIRST_PID: i32 = 5_000_000;

/// What a supervisor has done to a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It made a main process of this program, which is not executed yet.
    Made {
        id: IncarnationId,
        pid: i32,
        program: String,
        /// Whom it becomes, if anybody.
        uid: Option<u32>,
        pids_max: Option<u64>,
    },
    /// It bounded the number of processes of a life that runs.
    Limited {
        id: IncarnationId,
        pids_max: Option<u64>,
    },
    Signalled {
        id: IncarnationId,
        signal: Signal,
        tree: bool,
    },
    Killed(IncarnationId),
    Froze {
        id: IncarnationId,
        frozen: bool,
    },
    Hook {
        id: IncarnationId,
        pid: i32,
        program: String,
        uid: Option<u32>,
    },
    HookEnded(IncarnationId),
    Adopted(IncarnationId),
    Released {
        id: IncarnationId,
        empty: bool,
    },
    /// It put a process into a new scope.
    Scoped {
        id: IncarnationId,
        name: ScopeName,
        pid: i32,
        memory_max: Option<u64>,
    },
    ScopeKilled {
        id: IncarnationId,
        name: ScopeName,
    },
}

/// One tree of processes, with what is known of it outside of it.
#[derive(Debug)]
pub struct Tree {
    pub main: i32,
    /// The program was executed.
    pub runs: bool,
    /// Why it was not.
    failed: bool,
    /// How the main process ended; it may wait to be reaped.
    pub ended: Option<i32>,
    /// As the supervisor has it of the kernel, with what the OOM killer did.
    exit: Option<Exit>,
    /// Processes beside the main one.
    pub others: usize,
    pub members: Members,
    pub hook: Option<i32>,
    pub frozen: bool,
    pub killed: bool,
    oom: (u64, bool),
    /// Another process is its parent: nobody tells how it ended.
    foreign: bool,
    /// The slot of the supervisor that holds it.
    slot: Option<u32>,
    stdout: Option<OwnedFd>,
    pass: Option<Pass>,
}

impl Tree {
    pub fn is_empty(&self) -> bool {
        self.ended.is_some() && self.others == 0 && self.hook.is_none() && self.members.is_empty()
    }

    pub fn oom_kills(&self) -> u64 {
        self.oom.0
    }

    /// Its program does something.
    pub fn is_up(&self) -> bool {
        self.runs && self.ended.is_none()
    }
}

#[derive(Debug)]
struct State {
    trees: BTreeMap<IncarnationId, Tree>,
    /// The greatest number that a life of a name has had since the supervisor began.
    numbers: BTreeMap<ServiceName, u64>,
    next_pid: i32,
    children: Children,
    deeds: Vec<Deed>,
    faults: Vec<String>,
    scope_counts: BTreeMap<(IncarnationId, ScopeName), Count>,
    news: BTreeSet<u32>,
    /// What clone(2) answers.
    no_process: bool,
    /// A successor does not look for what a supervisor has left.
    leaves_remains: bool,
}

/// The kernel. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Kernel(Rc<RefCell<State>>);

impl Kernel {
    /// Without a process.
    pub fn boot() -> Self {
        Self(Rc::new(RefCell::new(State {
            trees: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_pid: FIRST_PID,
            children: Children::begin(),
            deeds: Vec::new(),
            faults: Vec::new(),
            scope_counts: BTreeMap::new(),
            news: BTreeSet::new(),
            no_process: false,
            leaves_remains: false,
        })))
    }

    /// What a probe finds here.
    pub fn report(&self) -> Report {
        let proof: Rc<dyn Proof> = Rc::new(self.clone());
        Report { rung: Rung::Cgroup, attempts: vec![(Rung::Cgroup, Ok(proof))] }
    }

    /// Containment on this kernel.
    ///
    /// # Errors
    /// As [`Containment::open`].
    pub fn contain(
        &self,
        home: Home<'_>,
        inherited: Option<&Predecessor>,
        registry: Registry,
        tokens: fn(u32, u32) -> Token,
    ) -> io::Result<Containment> {
        self.state().numbers.clear();
        Containment::open_with(self.report(), home, inherited, registry, tokens, Spawner::alone())
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    // ---- what a simulation sees ----

    pub fn take_deeds(&self) -> Vec<Deed> {
        std::mem::take(&mut self.state().deeds)
    }

    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.state().faults)
    }

    pub fn tree(&self, id: &IncarnationId) -> Option<Ref<'_, Tree>> {
        Ref::filter_map(self.0.borrow(), |state| state.trees.get(id)).ok()
    }

    /// All trees with a process in them.
    pub fn living(&self) -> Vec<IncarnationId> {
        let state = self.0.borrow();
        state.trees.iter().filter(|(_, tree)| !tree.is_empty()).map(|(id, _)| id.clone()).collect()
    }

    /// A tree with processes in it that no supervisor holds.
    pub fn unheld(&self) -> Option<IncarnationId> {
        let state = self.0.borrow();
        let is_unheld = |tree: &Tree| tree.slot.is_none() && !tree.is_empty();
        state.trees.iter().find(|(_, tree)| is_unheld(tree)).map(|(id, _)| id.clone())
    }

    /// Something is to be told to whom it concerns.
    pub fn has_news(&self) -> bool {
        !self.0.borrow().news.is_empty()
    }

    // ---- what a simulation has happen ----

    /// From now on there is no process to be had, or there is.
    pub fn refuse_processes(&self, refuse: bool) {
        self.state().no_process = refuse;
    }

    /// A bug for those who look for bugs: remains are not ended.
    pub fn leave_remains(&self, leave: bool) {
        self.state().leaves_remains = leave;
    }

    fn with(&self, id: &IncarnationId, change: impl FnOnce(&mut Tree, &Children)) {
        let State { trees, children, news, .. } = &mut *self.state();
        if let Some(tree) = trees.get_mut(id) {
            change(tree, children);
            news.extend(tree.slot);
        }
    }

    /// The program of a new main process is executed, or cannot be.
    pub fn exec(&self, id: &IncarnationId, works: bool) {
        self.with(id, |tree, children| {
            if tree.ended.is_some() || tree.runs {
                return;
            }
            tree.runs = works;
            if !works {
                tree.failed = true;
                tree.end(127 << 8, children);
            }
        });
    }

    /// The main process ends with this status of wait(2), and leaves so many others. Returns its number if that is to be told.
    pub fn end_main(&self, id: &IncarnationId, status: i32, leaves: usize) {
        self.with(id, |tree, children| {
            if tree.ended.is_none() {
                tree.others += leaves;
                tree.end(status, children);
            }
        });
    }

    /// The OOM killer strikes: the main process, or another one.
    pub fn out_of_memory(&self, id: &IncarnationId, main: bool) {
        self.with(id, |tree, children| {
            tree.oom.0 += 1;
            if main && tree.ended.is_none() {
                tree.oom.1 = true;
                tree.end(Signal::KILL.number(), children);
            } else {
                tree.others = tree.others.saturating_sub(1);
            }
        });
    }

    pub fn fork(&self, id: &IncarnationId, others: usize) {
        self.with(id, |tree, _| {
            if tree.is_up() {
                tree.others += others;
            }
        });
    }

    /// One of the others ends.
    pub fn end_other(&self, id: &IncarnationId) {
        self.with(id, |tree, _| tree.others = tree.others.saturating_sub(1));
    }

    pub fn end_hook(&self, id: &IncarnationId, status: i32) {
        self.with(id, |tree, children| {
            if let Some(hook) = tree.hook.take() {
                children.ended(hook, status);
            }
        });
    }

    /// A kill has reached every process.
    pub fn die(&self, id: &IncarnationId) {
        let members = self.tree(id).map(|tree| tree.members.processes()).unwrap_or_default();
        self.state().members_end(id, &members);
        self.with(id, |tree, children| {
            tree.others = 0;
            tree.frozen = false;
            if let Some(hook) = tree.hook.take() {
                children.ended(hook, Signal::KILL.number());
            }
            if tree.ended.is_none() {
                tree.failed |= !tree.runs;
                tree.end(Signal::KILL.number(), children);
            }
        });
    }

    /// A freeze or thaw has reached every process.
    pub fn set_frozen(&self, id: &IncarnationId, frozen: bool) {
        self.with(id, |tree, _| tree.frozen = frozen && !tree.is_empty());
    }

    /// It writes a line.
    pub fn write(&self, id: &IncarnationId, line: &str) {
        if let Some(stdout) = self.tree(id).as_ref().and_then(|tree| tree.stdout.as_ref()) {
            // A full pipe would stop the process, and this one is ours: what does not fit is not written.
            if rustix::io::ioctl_fionread(stdout).is_ok_and(|waiting| waiting < 32 << 10) {
                let _ = rustix::io::write(stdout, line.as_bytes());
            }
        }
    }

    /// It reports over the pipe that it was given.
    pub fn report_ready(&self, id: &IncarnationId) {
        if let Some(pass) = self.tree(id).as_ref().and_then(|tree| tree.pass.as_ref()) {
            let _ = rustix::io::write(&pass.fd, b"\n");
        }
    }

    /// The supervisor is killed: its children are another's, those that wait for its word to be executed end.
    pub fn lose_supervisor(&self) {
        let state = &mut *self.state();
        state.children.orphan_all();
        for tree in state.trees.values_mut() {
            (tree.slot, tree.foreign) = (None, true);
            tree.members.are_not_watched();
            if !tree.runs && tree.ended.is_none() {
                tree.ended = Some(Signal::KILL.number());
            }
            if tree.hook.take().is_some() {
                tree.others += 1;
            }
        }
        state.trees.retain(|_, tree| !tree.is_empty());
        state.news.clear();
        state.deeds.clear();
    }

    /// The supervisor becomes another program: its children stay its own.
    pub fn hand_over(&self) {
        let state = &mut *self.state();
        for tree in state.trees.values_mut() {
            tree.slot = None;
            tree.members.are_not_watched();
        }
        state.trees.retain(|_, tree| !tree.is_empty());
        state.news.clear();
    }

    /// The power goes, or the container.
    pub fn cut_power(&self) {
        self.lose_supervisor();
        self.state().trees.clear();
    }
}

impl Tree {
    fn end(&mut self, status: i32, children: &Children) {
        self.ended = Some(status);
        (self.stdout, self.pass) = (None, None);
        if !self.foreign {
            children.ended(self.main, status);
        }
    }
}

impl State {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }
}

impl Proof for Kernel {
    fn remark(&self, _rung: Rung) -> &'static str {
        "played"
    }

    fn open(&self, _rung: Rung, _ground: &mut Ground<'_>) -> io::Result<Rc<dyn Mechanism>> {
        Ok(Rc::new(self.clone()))
    }
}

impl Mechanism for Kernel {
    fn spawn(&self, birth: Birth<'_>) -> Result<(Box<dyn Held>, Vec<NotInForce>), SpawnError> {
        let id = birth.id.clone();
        let mut state = self.state();
        if state.no_process {
            return Err(SpawnError::Clone("there are as many processes as are allowed".to_owned()));
        }
        let beside = state.trees.iter().find(|(other, tree)| other.name == id.name && !tree.is_empty());
        if let Some((other, _)) = beside {
            let text = format!(
                "life {} of '{}' was begun while life {} still had processes",
                id.n, id.name, other.n
            );
            state.fault(text);
        }
        let number = state.numbers.entry(id.name.clone()).or_default();
        if *number >= id.n {
            let text = format!("the number {} of a life of '{}' was used twice", id.n, id.name);
            state.fault(text);
        } else {
            *number = id.n;
        }
        let pid = state.next_pid;
        state.next_pid += 1;
        state.children.born(pid);
        let tree = Tree {
            main: pid,
            runs: false,
            failed: false,
            ended: None,
            exit: None,
            others: 0,
            members: Members::default(),
            hook: None,
            frozen: false,
            killed: false,
            oom: (0, false),
            foreign: false,
            slot: Some(birth.slot),
            stdout: copy_of(&birth.plan.stdout),
            pass: birth.plan.pass.take(),
        };
        state.trees.insert(id.clone(), tree);
        let (program, uid, pids_max) = (program_of(birth.plan), uid_of(birth.plan), pids_max(birth.limits));
        state.deeds.push(Deed::Made { id: id.clone(), pid, program, uid, pids_max });
        drop(state);
        Ok((Box::new(Life { id, kernel: self.clone(), said: Said::default() }), Vec::new()))
    }

    fn adopt(
        &self,
        slot: u32,
        record: &AdoptionRecord,
        _watcher: &Watcher,
        _patience: &Patience,
    ) -> Option<Result<Box<dyn Held>, Gone>> {
        let id = record.id();
        let state = &mut *self.state();
        let gone = || Err(Gone("its main process has ended".to_owned()));
        let Some(tree) = state.trees.get_mut(&id) else { return Some(gone()) };
        if tree.main != record.living.pid || tree.main as u64 != record.born || tree.ended.is_some() {
            return Some(gone());
        }
        tree.slot = Some(slot);
        state.numbers.insert(id.name.clone(), id.n);
        state.deeds.push(Deed::Adopted(id.clone()));
        let said = Said { spawned: true, ..Said::default() };
        Some(Ok(Box::new(Life { id, kernel: self.clone(), said })))
    }

    fn ready(&self, _which: u32, _now: Tick, _events: &mut EventQueue) -> Vec<u32> {
        std::mem::take(&mut self.state().news).into_iter().collect()
    }

    fn slot_of(&self, pid: i32) -> Option<(u32, Option<ScopeName>)> {
        let state = self.0.borrow();
        let of = |tree: &Tree| Some((tree.slot?, tree.members.scope_of(pid)?.cloned()));
        state.trees.values().find_map(of)
    }

    fn end_predecessor(&self) -> Option<Ended> {
        let state = &mut *self.state();
        let before = state.trees.len();
        if state.leaves_remains {
            return Some(Ended::default());
        }
        state.trees.retain(|_, tree| tree.slot.is_some());
        Some(Ended { cgroups: before - state.trees.len(), ..Ended::default() })
    }

    fn close(&self, _farewell: Farewell) {}
}

fn copy_of(stream: &Stdio) -> Option<OwnedFd> {
    match stream {
        Stdio::Fd(fd) => fd.try_clone().ok(),
        Stdio::Inherit => None,
    }
}

fn pids_max(limits: &Limits) -> Option<u64> {
    match limits.get(Key::PidsMax) {
        Some(Value::Amount(most)) => Some(most),
        _ => None,
    }
}

fn program_of(plan: &ChildPlan) -> String {
    let words: Vec<_> = plan.argv().iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn uid_of(plan: &ChildPlan) -> Option<u32> {
    plan.identity.as_ref().map(|who| who.uid)
}

/// A tree as the supervisor that holds it sees it.
#[derive(Debug)]
struct Life {
    id: IncarnationId,
    kernel: Kernel,
    said: Said,
}

/// What was said of a life.
#[derive(Debug, Default)]
struct Said {
    spawned: bool,
    reaped: bool,
    exited: bool,
    oom: u64,
    frozen: Option<bool>,
    over: bool,
    failed: bool,
}

impl Life {
    /// For an order: `None`, and a fault of the supervisor, where the tree is not its own.
    fn ordered(&self, deed: Deed) -> Option<RefMut<'_, State>> {
        let mut state = self.kernel.state();
        if state.trees.get(&self.id).is_none_or(|tree| tree.slot.is_none()) {
            state.fault(format!("{deed:?} although nobody holds that life"));
            return None;
        }
        state.deeds.push(deed);
        Some(state)
    }
}

impl Held for Life {
    fn id(&self) -> &IncarnationId {
        &self.id
    }

    fn rung(&self) -> Rung {
        Rung::Cgroup
    }

    fn weakness(&self) -> Option<&'static str> {
        None
    }

    fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        None
    }

    fn children(&self) -> [Option<i32>; 2] {
        let tree = self.kernel.tree(&self.id);
        let main = tree.as_ref().filter(|tree| !tree.foreign && !self.said.reaped).map(|tree| tree.main);
        [main, tree.as_ref().and_then(|tree| tree.hook)]
    }

    fn reaped(&mut self, pid: i32, status: i32, _now: Tick, events: &mut EventQueue) {
        let Some(exit) = Exit::from_wait_status(status) else { return };
        let mut state = self.kernel.state();
        let Some(tree) = state.trees.get_mut(&self.id) else { return };
        if pid == tree.main {
            self.said.reaped = true;
            tree.exit = Some(if tree.oom.1 { Exit::Oom(Shortage::Outside) } else { exit });
        } else {
            events.push(Event::HookEnded { id: self.id.clone(), ended: Ok(exit) });
        }
    }

    fn settle(&mut self, _look: Look, events: &mut EventQueue) {
        let mut state = self.kernel.state();
        let (Some(tree), false) = (state.trees.get_mut(&self.id), self.said.over) else { return };
        let id = || self.id.clone();
        if tree.runs && !self.said.spawned {
            self.said.spawned = true;
            events.push(Event::Spawned { id: id(), pid: tree.main });
        }
        if tree.oom.0 > self.said.oom {
            self.said.oom = tree.oom.0;
            let (kills, main) = tree.oom;
            events.push(Event::OomKilled { id: id(), kills, main, shortage: Shortage::Outside });
        }
        if self.said.frozen.is_some_and(|said| said != tree.frozen) {
            self.said.frozen = Some(tree.frozen);
            events.push(Event::Frozen { id: id(), frozen: tree.frozen });
        }
        if tree.foreign && tree.ended.is_some() {
            self.said.reaped = true;
            tree.exit.get_or_insert(Exit::Unknown);
        }
        if !self.said.reaped {
            return;
        }
        if let (Some(exit), false, false) = (tree.exit, tree.failed, self.said.exited) {
            self.said.exited = true;
            events.push(Event::MainExited { id: id(), exit });
        }
        if tree.is_empty() {
            self.said.over = true;
            if tree.failed {
                self.said.failed = true;
                events.push(Event::SpawnFailed { id: id(), error: SpawnError::Killed });
            } else {
                events.push(Event::TreeEmpty { id: id() });
            }
        }
    }

    fn next_look(&self) -> Option<Tick> {
        None
    }

    fn tick(&mut self, _now: Tick, _family: &Family<'_>, _events: &mut EventQueue) {}

    fn is_overdue(&self) -> bool {
        false
    }

    fn has_failed(&self) -> bool {
        self.said.failed
    }

    fn signal_main(&self, signal: Signal) -> io::Result<()> {
        let is_there = self.kernel.tree(&self.id).is_some_and(|tree| tree.ended.is_none());
        if !is_there {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        self.ordered(Deed::Signalled { id: self.id.clone(), signal, tree: false });
        Ok(())
    }

    fn signal_tree(&self, signal: Signal) {
        self.ordered(Deed::Signalled { id: self.id.clone(), signal, tree: true });
    }

    fn freeze(&mut self, frozen: bool) -> io::Result<()> {
        let now = self.kernel.tree(&self.id).is_some_and(|tree| tree.frozen);
        self.ordered(Deed::Froze { id: self.id.clone(), frozen });
        self.said.frozen.get_or_insert(now);
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.kernel.tree(&self.id).is_some_and(|tree| tree.frozen)
    }

    fn kill(&mut self, _now: Tick, _events: &mut EventQueue) {
        if let Some(mut state) = self.ordered(Deed::Killed(self.id.clone()))
            && let Some(tree) = state.trees.get_mut(&self.id)
        {
            tree.killed = true;
        }
    }

    fn end_for_oom(&mut self, now: Tick, events: &mut EventQueue) {
        self.kill(now, events);
    }

    fn set_limits(&self, limits: &Limits) -> Vec<NotInForce> {
        self.ordered(Deed::Limited { id: self.id.clone(), pids_max: pids_max(limits) });
        Vec::new()
    }

    fn run_hook(&mut self, _spawner: &mut Spawner, plan: &mut ChildPlan) -> Result<(), HookError> {
        let mut state = self.kernel.state();
        if state.no_process {
            return Err(HookError::Clone("there are as many processes as are allowed".to_owned()));
        }
        let pid = state.next_pid;
        let Some(tree) = state.trees.get_mut(&self.id).filter(|tree| !tree.killed && tree.ended.is_none())
        else {
            return Err(HookError::Ending);
        };
        if tree.hook.is_some() {
            return Err(HookError::Busy);
        }
        tree.hook = Some(pid);
        state.next_pid += 1;
        state.children.born(pid);
        let (program, uid) = (program_of(plan), uid_of(plan));
        state.deeds.push(Deed::Hook { id: self.id.clone(), pid, program, uid });
        Ok(())
    }

    fn end_hook(&mut self, _now: Tick) {
        self.ordered(Deed::HookEnded(self.id.clone()));
    }

    fn main_pid(&self) -> Option<i32> {
        self.kernel.tree(&self.id).map(|tree| tree.main)
    }

    fn main(&self) -> Option<&Pidfd> {
        None
    }

    fn born(&self, pid: i32) -> Option<u64> {
        u64::try_from(pid).ok()
    }

    fn processes(&self) -> Vec<i32> {
        self.kernel
            .tree(&self.id)
            .filter(|tree| tree.ended.is_none())
            .map(|tree| tree.main)
            .into_iter()
            .collect()
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn open_scope(
        &self,
        request: &ScopeRequest<'_>,
    ) -> Result<(Box<dyn HeldScope>, Vec<String>), ScopeError> {
        Ok((self.kernel.open_scope(&self.id, request)?, Vec::new()))
    }

    fn find_scopes(&self, number: &mut dyn FnMut() -> u32) -> Vec<(ScopeName, u32, Box<dyn HeldScope>)> {
        self.kernel.find_scopes(&self.id, number)
    }

    fn spare(&self, _spared: &mut Spared) {}

    fn release(self: Box<Self>, _now: Tick, _farewell: Farewell) {
        let state = &mut *self.kernel.state();
        let Some(tree) = state.trees.get_mut(&self.id) else { return };
        let empty = tree.is_empty();
        tree.slot = None;
        tree.members.are_not_watched();
        if empty {
            state.trees.remove(&self.id);
        }
        state.deeds.push(Deed::Released { id: self.id.clone(), empty });
    }
}
