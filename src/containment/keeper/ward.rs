//! One incarnation under a keeper, from the supervisor's side.

use super::lost::Lost;
use super::process::ARGUMENT;
use super::wire::{self, Heard, Order, Word};
use crate::containment::adopt::Process;
use crate::containment::forks::Forks;
use crate::containment::retry::Retry;
use crate::containment::walk;
use crate::containment::{Event, IncarnationId, SpawnError};
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::signal::Signal;
use crate::sys::credentials::Credentials;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::child::Step;
use crate::sys::spawn::clone::{self, Apart, Child, Failure, Progress, Report, Subject};
use crate::sys::spawn::plan::{ChildPlan, Pass};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

#[derive(Debug)]
pub struct Ward {
    socket: OwnedFd,
    keeper: Keeper,
    /// When the keeper was made, in clock ticks since boot: what is older is not of its tree.
    pub keeper_started: u64,
    pub main_pid: Option<i32>,
    main: Option<Pidfd>,
    subject: Option<Box<Subject>>,
    pub tag: Option<u32>,
    pub same_uid: bool,
    /// The service can signal nobody but its own.
    pub scoped: bool,
    /// The keeper is the init of a namespace: its end is the end of the tree.
    pub is_init: bool,
    /// We have ended it.
    killed: bool,
    /// A SIGKILL that it has got may be one of ours.
    struck: Cell<bool>,
    exit_said: bool,
    /// The keeper said that the tree stands still.
    pub frozen: bool,
    pub over: bool,
    pub retry: Option<Retry>,
    /// The keeper died before its tree was empty: we end what falls to us.
    pub lost: Option<Lost>,
}

#[derive(Debug)]
struct Keeper {
    pid: i32,
    pidfd: Pidfd,
    /// How its exec went; `None` of one that we did not make.
    report: Option<Report>,
    /// Somebody else's child: its end is seen at its pidfd, and its orphans are not ours.
    foreign: bool,
}

/// What is to be had here to hold a tree with.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Unique among the living.
    pub tag: Option<u32>,
    /// The keeper is to be the init of namespaces of its own.
    pub apart: Option<Apart>,
    /// A service of our own uid can be kept from signalling its keeper.
    pub scope: bool,
}

/// A keeper that has not answered the order to kill is looked at this often: it may have been stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A keeper that is not ours to reap and has gone silent is looked at again after this long, then at doubled intervals.
const FOREIGN_LOOK: Duration = Duration::from_millis(2);

/// How a life is held.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub tag: Option<u32>,
    pub same_uid: bool,
    pub scoped: bool,
    pub is_init: bool,
}

impl Ward {
    /// Makes a keeper and hands it the plan.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub fn spawn(
        forks: &mut Forks,
        plan: &mut ChildPlan,
        id: &IncarnationId,
        means: Means,
        instance: &str,
        null: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
    ) -> Result<Self, SpawnError> {
        let Means { tag, apart, scope } = means;
        let failed = |error: io::Error| SpawnError::Keeper(error.to_string());
        let own = Credentials::own();
        let same_uid = plan.identity.as_ref().is_none_or(|who| who.uid == own.uid);
        if let Some(tag) = tag {
            plan.identity.get_or_insert(own).groups.push(tag);
        }
        // Otherwise a set-uid program is all it takes to leave the rung, and a signal to end its keeper. Root's own word
        // to the contrary holds; `status` then says what it costs.
        let confined = same_uid && apart.is_none() && !plan.may_gain;
        plan.no_new_privs |= confined;
        plan.scope_signals = confined && scope;
        let forked = if apart.is_none() { forks.keeper(plan) } else { Ok(None) };
        let (socket, pid, pidfd, report) = match forked.map_err(failed)? {
            Some((socket, pid, pidfd)) => (socket, pid, pidfd, None),
            None => {
                let (socket, theirs) = wire::pair().map_err(failed)?;
                let mut keeper_plan = keeper_plan(instance, null, theirs).map_err(failed)?;
                let child = match apart {
                    None => clone::spawn(&mut keeper_plan, None),
                    Some(apart) => clone::spawn_apart(&mut keeper_plan, apart),
                };
                let Child { pid, pidfd, report } = child.map_err(failed)?;
                (socket, pid, pidfd, Some(report))
            }
        };
        if let Err(error) = wire::send_start(socket.as_fd(), &id.to_string(), plan, dir) {
            // It ends by itself: its socket is closed without an order to start. Its reaping is nobody's news.
            return Err(failed(error));
        }
        let how = How { tag, same_uid, scoped: plan.scope_signals, is_init: apart.is_some() };
        let keeper = Keeper { pid, pidfd, report, foreign: false };
        let subject = Some(Box::new(Subject::of(plan)));
        Ok(Self { subject, ..Self::under(keeper, socket, how) })
    }

    /// Takes over a life whose keeper answers at `socket` and has handed out its main process.
    pub fn adopt(socket: OwnedFd, keeper: Process, (main_pid, main): (i32, Pidfd), how: How) -> Self {
        let Process { pid, pidfd, foreign } = keeper;
        let ward = Self::under(Keeper { pid, pidfd, report: None, foreign }, socket, how);
        Self { main_pid: Some(main_pid), main: Some(main), ..ward }
    }

    /// Under a keeper that has said nothing yet.
    fn under(keeper: Keeper, socket: OwnedFd, how: How) -> Self {
        Self {
            keeper_started: walk::stat(keeper.pid).map_or(0, |stat| stat.started),
            socket,
            keeper,
            main_pid: None,
            main: None,
            subject: None,
            tag: how.tag,
            same_uid: how.same_uid,
            scoped: how.scoped,
            is_init: how.is_init,
            killed: false,
            struck: Cell::new(false),
            exit_said: false,
            frozen: false,
            over: false,
            retry: None,
            lost: None,
        }
    }

    pub fn keeper_pid(&self) -> i32 {
        self.keeper.pid
    }

    /// Its keeper is not our child.
    pub fn is_foreign(&self) -> bool {
        self.keeper.foreign
    }

    /// What the loop has to watch.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hears what the keeper has to say.
    pub fn settle(&mut self, id: &IncarnationId, events: &mut Vec<Event>) {
        while !self.over && self.lost.is_none() {
            match wire::hear_word(self.socket.as_fd()) {
                Heard::Nothing => return,
                Heard::Message(word, fds) => self.take(word, fds, id, events),
                Heard::End => {
                    // Dead, or not talking to us any more. Its reaping starts what has to be done, or its end where that
                    // is not ours to reap.
                    let _ = self.keeper.pidfd.send(Signal::KILL);
                    if self.keeper.foreign {
                        self.retry.get_or_insert_with(|| Retry::now(None, FOREIGN_LOOK));
                    }
                    return;
                }
            }
        }
    }

    fn take(&mut self, word: Word, fds: Vec<OwnedFd>, id: &IncarnationId, events: &mut Vec<Event>) {
        match word {
            Word::Spawned { pid } => {
                self.main = fds.into_iter().next().map(Pidfd::from_fd);
                // Counted anew in a namespace of its own.
                let ours = || self.main.as_ref().and_then(Pidfd::pid);
                let pid = if self.is_init { ours().unwrap_or_default() } else { pid };
                self.main_pid = Some(pid);
                self.subject = None;
                events.push(Event::Spawned { id: id.clone(), pid });
            }
            Word::NotMade { errno: 0 } => self.fail(SpawnError::Killed, id, events),
            Word::NotMade { errno } => self.fail(SpawnError::Clone(clone::reason(errno)), id, events),
            Word::Failed { step, errno } => {
                let words = self.words(step, errno);
                self.fail(SpawnError::Child { words, errno }, id, events);
            }
            Word::MainExited { status } => {
                let exit = match exit_of(status) {
                    Exit::Signal { signal: Signal::KILL, .. } if !self.struck.get() => {
                        Exit::MaybeOom { likely: false }
                    }
                    exit => exit,
                };
                self.exited(exit, id, events);
            }
            Word::NoProc { errno } => {
                let reason = format!("it cannot mount its /proc: {}", clone::reason(errno));
                self.fail(SpawnError::Keeper(reason), id, events);
            }
            Word::Empty => self.finish(id, events),
            Word::Frozen => self.frozen(true, id, events),
            Word::Thawed => self.frozen(false, id, events),
        }
    }

    fn frozen(&mut self, frozen: bool, id: &IncarnationId, events: &mut Vec<Event>) {
        if self.frozen != frozen {
            self.frozen = frozen;
            events.push(Event::Frozen { id: id.clone(), frozen });
        }
    }

    fn words(&self, step: u8, errno: i32) -> String {
        match (Step::from_byte(step), &self.subject) {
            (Some(step), Some(subject)) => subject.words(Failure { step, errno, candidate: 0 }),
            (Some(_) | None, _) => clone::reason(errno),
        }
    }

    fn fail(&mut self, error: SpawnError, id: &IncarnationId, events: &mut Vec<Event>) {
        self.over = true;
        self.retry = None;
        events.push(Event::SpawnFailed { id: id.clone(), error });
    }

    pub fn exited(&mut self, exit: Exit, id: &IncarnationId, events: &mut Vec<Event>) {
        if !self.exit_said {
            self.exit_said = true;
            events.push(Event::MainExited { id: id.clone(), exit });
        }
    }

    /// The tree is empty: said by the keeper, or found after its loss.
    pub fn finish(&mut self, id: &IncarnationId, events: &mut Vec<Event>) {
        if self.main_pid.is_none() {
            let reason = "it was killed before it could say that the service runs".to_owned();
            return self.fail(SpawnError::Keeper(reason), id, events);
        }
        let unsaid =
            if self.killed { Exit::Signal { signal: Signal::KILL, core: false } } else { Exit::Unknown };
        self.exited(unsaid, id, events);
        self.over = true;
        self.retry = None;
        events.push(Event::TreeEmpty { id: id.clone() });
    }

    /// The keeper was reaped. Usually it had said all; if not, its tree has fallen to us.
    pub fn keeper_reaped(&mut self, id: &IncarnationId, now: Option<Tick>, events: &mut Vec<Event>) {
        self.settle(id, events);
        if self.over || self.lost.is_some() {
            return;
        }
        if let Some(Progress::Failed(failure)) = self.keeper.report.as_mut().map(Report::read) {
            let reason = format!("/proc/self/exe: {}", clone::reason(failure.errno));
            return self.fail(SpawnError::Keeper(reason), id, events);
        }
        if self.is_init {
            // The kernel has ended all that was in its namespace before it could be reaped (pid_namespaces(7)).
            return self.finish(id, events);
        }
        self.retry = None;
        self.lost = Some(Lost::begin(now));
        let text = "its keeper was killed: the supervisor ends what is left of the tree".to_owned();
        events.push(Event::Degraded { id: id.clone(), text });
    }

    /// One of it was killed by us, so that a SIGKILL says nothing about memory.
    pub fn was_struck(&self) {
        self.struck.set(true);
    }

    /// `None`: it has not been heard of yet.
    pub fn main(&self) -> Option<&Pidfd> {
        self.main.as_ref()
    }

    pub fn signal_main(&self, signal: Signal) -> io::Result<()> {
        self.struck.set(self.struck.get() || signal == Signal::KILL);
        match &self.main {
            Some(main) => main.send(signal),
            None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    pub fn signal_tree(&self, signal: Signal) {
        self.struck.set(self.struck.get() || signal == Signal::KILL);
        // A keeper that cannot hear is dead, and that is noticed elsewhere.
        let _ = wire::send_order(self.socket.as_fd(), Order::Signal(signal));
    }

    /// Has the tree stopped where it is, or lets it go on.
    ///
    /// # Errors
    /// The keeper is gone, or does not hear just now.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        wire::send_order(self.socket.as_fd(), if frozen { Order::Freeze } else { Order::Thaw })
    }

    pub fn kill(&mut self, now: Tick) {
        self.frozen = false;
        self.struck.set(true);
        if self.is_init {
            self.killed = true;
            let _ = self.keeper.pidfd.send(Signal::KILL);
            self.retry = Some(Retry::first(now, PATIENCE));
            return;
        }
        let _ = wire::send_order(self.socket.as_fd(), Order::Kill);
        if self.lost.is_none() {
            self.retry = Some(Retry::first(now, PATIENCE));
        }
    }

    /// A keeper of our own uid can be stopped by its service: woken once, then given up, which ends in `Lost`.
    pub fn tick(&mut self, id: &IncarnationId, now: Tick, events: &mut Vec<Event>) {
        self.settle(id, events);
        if self.keeper.foreign && !self.over && self.keeper.pidfd.has_ended() {
            return self.keeper_reaped(id, Some(now), events);
        }
        let Some(retry) = &mut self.retry else { return };
        let first = retry.is_first();
        // The kernel ends a namespace with its init: there is nobody to be woken, nor to be told.
        if self.over || !retry.due(now) || self.is_init {
            return;
        }
        let stopped = walk::stat(self.keeper.pid).is_some_and(|stat| matches!(stat.state, b'T' | b't'));
        if stopped {
            let _ = self.keeper.pidfd.send(if first { Signal::CONT } else { Signal::KILL });
        }
        // An order that found the socket full is lost; a second one does no harm.
        let _ = wire::send_order(self.socket.as_fd(), Order::Kill);
    }

    pub fn processes(&self) -> Vec<i32> {
        walk::descendants(walk::children(self.keeper.pid))
    }
}

/// How a keeper is made: ourselves again, no environment, nothing open but its socket. The instance is in its arguments
/// for a successor to see; the service is not, for others not to.
pub fn keeper_plan(instance: &str, null: BorrowedFd<'_>, socket: OwnedFd) -> io::Result<ChildPlan> {
    let copy = || rustix::io::fcntl_dupfd_cloexec(null, 4);
    let none: [(&str, &str); 0] = [];
    let mut plan =
        ChildPlan::new(&["hermes-sup", ARGUMENT, instance], none, None, [copy()?, copy()?, copy()?])
            .map_err(io::Error::other)?;
    plan.set_program(c"/proc/self/exe".to_owned());
    plan.pass = Some(Pass { fd: socket, number: 3 });
    Ok(plan)
}

fn exit_of(status: i32) -> Exit {
    Exit::from_wait_status(status).unwrap_or(Exit::Unknown)
}
