//! One life under a keeper, from the supervisor's side.

use super::lost::{Lost, Sought};
use super::mechanism::{Keepers, without_cgroup};
use super::scope::ScopeLeader;
use super::wire::{self, Heard, HookEnd, KeeperMsg, SupervisorMsg};
use crate::containment::IncarnationId;
use crate::containment::event::{Event, EventQueue, HookError, SpawnError};
use crate::containment::held::{Family, Held, Look};
use crate::containment::no_process;
use crate::containment::oom::is_kill;
use crate::containment::processes::usage::{self, Usage};
use crate::containment::processes::walk;
use crate::containment::retry::Retry;
use crate::containment::rung::Rung;
use crate::containment::scopes::{HeldScope, ScopeError, ScopeRequest};
use crate::containment::spawner::Spawner;
use crate::containment::succession::adopt::Process;
use crate::containment::succession::predecessor::Spared;
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::farewell::Farewell;
use crate::core::limits::{Limits, NotInForce};
use crate::core::signal::Signal;
use crate::sys::credentials::Credentials;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::child::Step;
use crate::sys::spawn::clone::{self, Failure, Progress, Report, Subject};
use crate::sys::spawn::plan::ChildPlan;
use mio::Interest;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug)]
pub struct KeeperHandle {
    keepers: Rc<Keepers>,
    id: IncarnationId,
    socket: OwnedFd,
    keeper: Keeper,
    /// In clock ticks since boot: a process that was made before the keeper is not of its tree.
    keeper_started: u64,
    keeper_reaped: bool,
    main_pid: Option<i32>,
    main: Option<Main>,
    main_reaped: bool,
    subject: Option<Box<Subject>>,
    /// Of the hook that runs.
    hook: Option<Box<Subject>>,
    how: How,
    /// We have ended it.
    killed: bool,
    /// A SIGKILL that hit it may be one of ours.
    struck: Cell<bool>,
    exit_said: bool,
    /// The keeper said that the tree stands still.
    frozen: bool,
    over: Option<Over>,
    retry: Option<Retry>,
    /// The keeper died before its tree was empty: we end the processes that it leaves to us.
    lost: Option<Lost>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Ended,
    NeverRan,
}

/// What the keeper says of the main process.
#[derive(Debug)]
pub struct Main {
    /// As its tree counts, which may be in a namespace of its own.
    pub pid: i32,
    pub pidfd: Pidfd,
    /// Other programs can be run beside it.
    pub takes_hooks: bool,
}

#[derive(Debug)]
pub struct Keeper {
    pub pid: i32,
    /// `None` of a child of ours, whose number is its own until we reap it.
    pub pidfd: Option<Pidfd>,
    /// How its exec went; `None` of one that we did not execute.
    pub report: Option<Report>,
    /// Not our child: its end is seen at its pidfd, and its orphans are not ours.
    pub foreign: bool,
}

/// How a life is held.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The group that all its processes have, unique among the living.
    pub tag: Option<u32>,
    pub same_uid: bool,
    /// The service can signal only its own processes.
    pub scoped: bool,
    /// The keeper is the init of a namespace: its end is the end of the tree.
    pub is_init: bool,
}

impl How {
    /// What everything that runs in the tree has to have. Returns whether it could end its keeper by a signal.
    pub fn confine(&self, plan: &mut ChildPlan) -> bool {
        if let Some(tag) = self.tag {
            plan.identity.get_or_insert_with(Credentials::own).join(tag);
        }
        // Otherwise a set-uid program is all it takes to leave the rung, and a signal to end its keeper. Root's own order
        // to the contrary holds; `status` then says what it costs.
        let confined = self.same_uid && !self.is_init && !plan.may_gain;
        plan.no_new_privs |= confined;
        confined
    }
}

/// A keeper that has not answered the order to kill is looked at this often: it may have been stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A keeper that is not ours to reap and has gone silent is looked at again after this long, then at doubled intervals.
const FOREIGN_LOOK: Duration = Duration::from_millis(2);

impl KeeperHandle {
    /// Under a keeper that was just given its plan, and was made no earlier than so many clock ticks after boot.
    pub fn new(
        keepers: Rc<Keepers>,
        id: IncarnationId,
        socket: OwnedFd,
        keeper: (Keeper, u64),
        subject: Subject,
        how: How,
    ) -> Self {
        Self { subject: Some(Box::new(subject)), ..Self::under(keepers, id, socket, keeper, how) }
    }

    /// Takes over a life whose keeper answers at `socket` and has handed out its main process.
    pub fn adopt(
        keepers: Rc<Keepers>,
        id: IncarnationId,
        socket: OwnedFd,
        Process { pid, pidfd, foreign }: Process,
        (main_pid, main): (i32, Main),
        how: How,
    ) -> Self {
        let started = walk::stat(pid).map_or(0, |stat| stat.started);
        let keeper = (Keeper { pid, pidfd: Some(pidfd), report: None, foreign }, started);
        let handle = Self::under(keepers, id, socket, keeper, how);
        Self { main_pid: Some(main_pid), main: Some(main), ..handle }
    }

    /// Under a keeper that has said nothing yet.
    fn under(
        keepers: Rc<Keepers>,
        id: IncarnationId,
        socket: OwnedFd,
        (keeper, keeper_started): (Keeper, u64),
        how: How,
    ) -> Self {
        Self {
            keepers,
            id,
            keeper_started,
            keeper_reaped: false,
            socket,
            keeper,
            main_pid: None,
            main: None,
            main_reaped: false,
            subject: None,
            hook: None,
            how,
            killed: false,
            struck: Cell::new(false),
            exit_said: false,
            frozen: false,
            over: None,
            retry: None,
            lost: None,
        }
    }

    /// Hears what the keeper has to say.
    fn hear(&mut self, now: Tick, events: &mut EventQueue) {
        while self.over.is_none() && self.lost.is_none() {
            match wire::hear_keeper(self.socket.as_fd()) {
                Heard::Nothing => return,
                Heard::Message(message, fds) => self.take(message, fds, now, events),
                Heard::End => {
                    // Dead, or not talking to us any more. Its reaping starts what has to be done, or its end where it
                    // is not ours to reap.
                    self.signal_keeper(Signal::KILL);
                    if self.keeper.foreign {
                        self.retry.get_or_insert_with(|| Retry::now(None, FOREIGN_LOOK));
                    }
                    return;
                }
            }
        }
    }

    fn take(&mut self, message: KeeperMsg, fds: Vec<OwnedFd>, now: Tick, events: &mut EventQueue) {
        match message {
            KeeperMsg::Spawned { pid, takes_hooks } => {
                let pidfd = fds.into_iter().next().map(Pidfd::from_fd);
                self.main = pidfd.map(|pidfd| Main { pid, pidfd, takes_hooks });
                // Counted anew in a namespace of its own.
                let ours = || self.main().and_then(Pidfd::pid);
                let pid = if self.how.is_init { ours().unwrap_or_default() } else { pid };
                self.main_pid = Some(pid);
                self.subject = None;
                events.push(Event::Spawned { id: self.id.clone(), pid });
            }
            KeeperMsg::NotMade { errno: 0 } => self.fail(SpawnError::Killed, events),
            KeeperMsg::NotMade { errno } => self.fail(not_made(errno), events),
            KeeperMsg::Failed { step, errno } => {
                let words = words(self.subject.as_deref(), step, errno);
                self.fail(SpawnError::Child { words, errno }, events);
            }
            KeeperMsg::MainExited { status } => {
                let exit = Exit::from_wait_status(status).unwrap_or(Exit::Unknown);
                let exit = self.keepers.judge(exit, self.struck.get(), now, events);
                self.exited(exit, events);
            }
            KeeperMsg::NoProc { errno } => {
                let reason = format!("it cannot mount its /proc: {}", clone::reason(errno));
                self.fail(SpawnError::Keeper(reason), events);
            }
            KeeperMsg::Empty => self.finish(events),
            KeeperMsg::Frozen => self.say_frozen(true, events),
            KeeperMsg::Thawed => self.say_frozen(false, events),
            KeeperMsg::Hook(end) => {
                let ended = match end {
                    HookEnd::Exited { status } => Ok(Exit::from_wait_status(status).unwrap_or(Exit::Unknown)),
                    HookEnd::Failed { step, errno } => {
                        Err(SpawnError::Child { words: words(self.hook.as_deref(), step, errno), errno })
                    }
                    HookEnd::NotMade { errno: libc::EBUSY } => {
                        Err(SpawnError::Clone("the one before still runs".to_owned()))
                    }
                    HookEnd::NotMade { errno } => Err(not_made(errno)),
                };
                self.hook_ended(ended, events);
            }
        }
    }

    /// Once for each that was begun.
    fn hook_ended(&mut self, ended: Result<Exit, SpawnError>, events: &mut EventQueue) {
        if self.hook.take().is_some() {
            events.push(Event::HookEnded { id: self.id.clone(), ended });
        }
    }

    fn say_frozen(&mut self, frozen: bool, events: &mut EventQueue) {
        if self.frozen != frozen {
            self.frozen = frozen;
            events.push(Event::Frozen { id: self.id.clone(), frozen });
        }
    }

    fn fail(&mut self, error: SpawnError, events: &mut EventQueue) {
        self.over = Some(Over::NeverRan);
        self.retry = None;
        events.push(Event::SpawnFailed { id: self.id.clone(), error });
    }

    fn exited(&mut self, exit: Exit, events: &mut EventQueue) {
        if !self.exit_said {
            self.exit_said = true;
            events.push(Event::MainExited { id: self.id.clone(), exit });
        }
    }

    /// The tree is empty: said by the keeper, or found after its loss.
    fn finish(&mut self, events: &mut EventQueue) {
        if self.main_pid.is_none() {
            let reason = "it was killed before it could say that the service runs".to_owned();
            return self.fail(SpawnError::Keeper(reason), events);
        }
        let unsaid =
            if self.killed { Exit::Signal { signal: Signal::KILL, core: false } } else { Exit::Unknown };
        self.exited(unsaid, events);
        self.hook_ended(Ok(Exit::Unknown), events);
        self.over = Some(Over::Ended);
        self.retry = None;
        events.push(Event::TreeEmpty { id: self.id.clone() });
    }

    /// The keeper is dead. Usually it had said all; if not, its tree has fallen to us.
    fn keeper_ended(&mut self, now: Tick, events: &mut EventQueue) {
        self.hear(now, events);
        if self.over.is_some() || self.lost.is_some() {
            return;
        }
        if let Some(Progress::Failed(failure)) = self.keeper.report.as_mut().map(Report::read) {
            let reason = format!("/proc/self/exe: {}", clone::reason(failure.errno));
            return self.fail(SpawnError::Keeper(reason), events);
        }
        if self.how.is_init {
            // The kernel has ended all that was in its namespace before it could be reaped (pid_namespaces(7)).
            return self.finish(events);
        }
        self.retry = None;
        self.lost = Some(Lost::begin(now));
        // It is one of those now that are ended.
        self.hook_ended(Ok(Exit::Unknown), events);
        let text = "its keeper was killed: the supervisor ends what is left of the tree".to_owned();
        events.push(Event::Degraded { id: self.id.clone(), text });
    }

    fn signal_keeper(&self, signal: Signal) {
        // One that is dead is noticed elsewhere.
        let _ = match &self.keeper.pidfd {
            Some(keeper) => keeper.send(signal),
            None if self.keeper_reaped => Ok(()),
            None => Pidfd::open(self.keeper.pid).and_then(|keeper| keeper.send(signal)),
        };
    }

    fn note_kill(&self, signal: Signal) {
        self.struck.set(self.struck.get() || signal == Signal::KILL);
    }

    /// A look for the tree of a keeper that is dead.
    fn look_for_lost(&mut self, now: Tick, family: &Family<'_>, events: &mut EventQueue) {
        let marker = self.keepers.marker(&self.id);
        let (main, foreign) = (self.main_pid, self.keeper.foreign);
        let sought = Sought {
            tag: self.how.tag,
            same_uid: self.how.same_uid,
            marker: &marker,
            keeper_started: self.keeper_started,
            foreign,
        };
        let known = |pid: i32| main != Some(pid) && (family.known)(pid);
        if let Some(lost) = &mut self.lost
            && lost.retry.due(now)
            && lost.look(sought, &known, family.orphans)
        {
            self.finish(events);
        }
    }
}

impl Held for KeeperHandle {
    fn id(&self) -> &IncarnationId {
        &self.id
    }

    fn rung(&self) -> Rung {
        match self.how {
            How { is_init: true, .. } => Rung::Pidns,
            How { same_uid: true, .. } => Rung::KeeperSameUid,
            How { .. } => Rung::Keeper,
        }
    }

    fn weakness(&self) -> Option<&'static str> {
        match self.how {
            _ if self.lost.is_some() => Some("its keeper was killed"),
            How { is_init: true, .. } => None,
            How { same_uid: true, scoped: false, .. } => Some("a hostile service can kill its keeper"),
            How { .. } => None,
        }
    }

    fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        Some((self.socket.as_fd(), Interest::READABLE))
    }

    fn children(&self) -> [Option<i32>; 2] {
        let ours = !self.keeper.foreign;
        // What a lost keeper leaves falls to us, the main process first of all.
        let main = self.main_pid.filter(|_| ours && self.lost.is_some() && !self.main_reaped);
        [(ours && !self.keeper_reaped).then_some(self.keeper.pid), main]
    }

    fn reaped(&mut self, pid: i32, status: i32, now: Tick, events: &mut EventQueue) {
        if pid == self.keeper.pid {
            self.keeper_reaped = true;
            self.keeper_ended(now, events);
        } else {
            self.main_reaped = true;
            // A SIGKILL here is most likely our own and tells nothing about the service.
            let exit = Exit::from_wait_status(status).filter(|exit| !is_kill(*exit));
            self.exited(exit.unwrap_or(Exit::Unknown), events);
        }
    }

    fn settle(&mut self, look: Look, events: &mut EventQueue) {
        self.hear(look.now, events);
    }

    fn next_look(&self) -> Option<Tick> {
        let retry = self.retry.or(self.lost.as_ref().map(|lost| lost.retry));
        retry.filter(|_| self.over.is_none()).map(|retry| retry.next)
    }

    /// A keeper of our own uid can be stopped by its service: woken once, then given up, which ends in `lost`.
    fn tick(&mut self, now: Tick, family: &Family<'_>, events: &mut EventQueue) {
        if self.lost.is_some() {
            return self.look_for_lost(now, family, events);
        }
        self.hear(now, events);
        if self.keeper.foreign
            && self.over.is_none()
            && self.keeper.pidfd.as_ref().is_some_and(Pidfd::has_ended)
        {
            return self.keeper_ended(now, events);
        }
        let Some(retry) = &mut self.retry else { return };
        let first = retry.is_first();
        // The kernel ends a namespace with its init: there is nothing to be woken, nor to be told.
        if self.over.is_some() || !retry.due(now) || self.how.is_init {
            return;
        }
        let stopped = walk::stat(self.keeper.pid).is_some_and(|stat| matches!(stat.state, b'T' | b't'));
        if stopped {
            self.signal_keeper(if first { Signal::CONT } else { Signal::KILL });
        }
        // An order that found the socket full is lost; a second one does no harm.
        let _ = wire::send_order(self.socket.as_fd(), SupervisorMsg::Kill);
    }

    fn is_overdue(&self) -> bool {
        // The first of these looks comes late.
        let slow = self.retry.is_some_and(|retry| !retry.is_first());
        self.over.is_none() && (slow || self.lost.as_ref().is_some_and(|lost| lost.retry.is_long()))
    }

    fn has_failed(&self) -> bool {
        self.over == Some(Over::NeverRan)
    }

    fn signal_main(&self, signal: Signal) -> io::Result<()> {
        self.note_kill(signal);
        match &self.main {
            Some(main) => main.pidfd.send(signal),
            None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    fn signal_tree(&self, signal: Signal) {
        self.note_kill(signal);
        if self.over.is_some() {
            return;
        }
        // A keeper that cannot hear is dead, and that is noticed elsewhere.
        let _ = wire::send_order(self.socket.as_fd(), SupervisorMsg::Signal(signal));
    }

    fn freeze(&mut self, frozen: bool) -> io::Result<()> {
        let order = if frozen { SupervisorMsg::Freeze } else { SupervisorMsg::Thaw };
        wire::send_order(self.socket.as_fd(), order)
    }

    fn is_frozen(&self) -> bool {
        self.frozen && self.lost.is_none()
    }

    fn kill(&mut self, now: Tick, _events: &mut EventQueue) {
        self.frozen = false;
        self.struck.set(true);
        if self.how.is_init {
            self.killed = true;
            self.signal_keeper(Signal::KILL);
            self.retry = Some(Retry::first(now, PATIENCE));
            return;
        }
        let _ = wire::send_order(self.socket.as_fd(), SupervisorMsg::Kill);
        if self.lost.is_none() {
            self.retry = Some(Retry::first(now, PATIENCE));
        }
    }

    fn was_struck(&self) {
        self.struck.set(true);
    }

    fn set_limits(&self, limits: &Limits) -> Vec<NotInForce> {
        without_cgroup(self.rung(), limits)
    }

    fn run_hook(&mut self, _spawner: &mut Spawner, plan: &mut ChildPlan) -> Result<(), HookError> {
        if self.hook.is_some() {
            return Err(HookError::Busy);
        }
        if self.over.is_some() || self.lost.is_some() || self.retry.is_some() || self.exit_said {
            return Err(HookError::Ending);
        }
        if self.main.as_ref().is_none_or(|main| !main.takes_hooks) {
            return Err(HookError::OldKeeper);
        }
        // Not kept from signalling: what a hook is there for may be a word to the main process, which is in another scope.
        self.how.confine(plan);
        wire::send_hook(self.socket.as_fd(), plan).map_err(|error| {
            HookError::Keeper(clone::reason(error.raw_os_error().unwrap_or(libc::EPROTO)))
        })?;
        self.hook = Some(Box::new(Subject::of(plan)));
        Ok(())
    }

    fn end_hook(&mut self, _now: Tick) {
        if self.hook.is_some() {
            let _ = wire::send_order(self.socket.as_fd(), SupervisorMsg::EndHook);
        }
    }

    fn main(&self) -> Option<&Pidfd> {
        self.main.as_ref().map(|main| &main.pidfd)
    }

    fn main_pid(&self) -> Option<i32> {
        self.main.as_ref().map(|main| main.pid)
    }

    fn tag(&self) -> Option<u32> {
        self.how.tag
    }

    fn processes(&self) -> Vec<i32> {
        walk::descendants(walk::children(self.keeper.pid))
    }

    fn usage(&self) -> Usage {
        let pids = self.processes();
        Usage {
            procs: pids.len(),
            memory_bytes: Some(usage::resident(&pids)),
            cpu_ms: Some(usage::cpu_ms(&pids)),
            ..Usage::default()
        }
    }

    fn is_parent(&self, pid: i32) -> bool {
        pid == self.keeper.pid && self.lost.is_none() && self.over.is_none()
    }

    fn open_scope(
        &self,
        request: &ScopeRequest<'_>,
    ) -> Result<(Box<dyn HeldScope>, Vec<String>), ScopeError> {
        let leader = ScopeLeader::open(request)?;
        Ok((Box::new(leader), request.limits.without_cgroup(self.rung())))
    }

    fn spare(&self, spared: &mut Spared) {
        spared.lives.insert(self.id.to_string());
        spared.keepers.insert(self.keeper.pid);
        spared.tags.extend(self.how.tag);
    }

    fn release(self: Box<Self>, _now: Tick, _farewell: Farewell) {
        if let Some(tag) = self.how.tag {
            self.keepers.free_tag(tag);
        }
    }
}

/// What a step of a child came to.
fn words(subject: Option<&Subject>, step: u8, errno: i32) -> String {
    match (Step::from_byte(step), subject) {
        (Some(step), Some(subject)) => subject.words(Failure { step, errno, candidate: 0 }),
        (Some(_) | None, _) => clone::reason(errno),
    }
}

fn not_made(errno: i32) -> SpawnError {
    let error = io::Error::from_raw_os_error(errno);
    SpawnError::Clone(no_process::why(&error, no_process::around_us))
}
