//! One life in its cgroup, from the supervisor's side.
//!
//! The tree is over when the main process is reaped *and* the directory is not populated: either can come first.

use super::leaf;
use super::limits;
use super::mechanism::Site;
use super::reclaim::Reclaim;
use super::scope;
use super::stats;
use super::watch::Watched;
use crate::containment::IncarnationId;
use crate::containment::event::{Event, EventQueue, HookError, SpawnError};
use crate::containment::held::{Family, Held, Look};
use crate::containment::no_process;
use crate::containment::oom::{LifeOom, is_kill};
use crate::containment::processes::leader::Leader;
use crate::containment::processes::usage::Usage;
use crate::containment::processes::{usage, walk};
use crate::containment::retry::Retry;
use crate::containment::rung::Rung;
use crate::containment::scopes::{HeldScope, ScopeError, ScopeRequest};
use crate::containment::spawner::Spawner;
use crate::containment::succession::adopt::{Gone, Process, birth};
use crate::containment::succession::predecessor::Spared;
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::farewell::Farewell;
use crate::core::limits::{Limits, NotInForce};
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::sys::mount;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::clone::{Child, Progress, Report, Subject};
use crate::sys::spawn::plan::ChildPlan;
use mio::Interest;
use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug)]
pub struct CgroupHandle {
    site: Rc<Site>,
    slot: u32,
    id: IncarnationId,
    leaf: Rc<str>,
    /// The service has our uid, which owns the directory.
    owner: bool,
    /// Of its `cgroup.events`, from when they are waited for: most trees are seen empty together with the end of their main
    /// process.
    watched: Option<Watched>,
    memory: Option<Memory>,
    hook: Option<Box<Hook>>,
    main_pid: i32,
    main: Pidfd,
    /// The main process sees cgroup2 on read-only mounts alone, once that was asked.
    read_only: OnceCell<bool>,
    /// Present until the exec is decided, with what its failure would be described by.
    starting: Option<Box<(Report, Subject)>>,
    failure: Option<Box<SpawnError>>,
    /// How the main process ended, once it was reaped.
    reaped: Option<Exit>,
    /// The main process is not our child: its end is seen at its pidfd.
    foreign: bool,
    /// It has ended, and how is yet to be known.
    unexplained: Option<Retry>,
    exit_said: bool,
    over: Option<Over>,
    retry: Option<Retry>,
    /// `cgroup.kill` was refused: said once.
    per_process: bool,
    /// What was last said of it, once it was ever told to stand still.
    frozen: Option<bool>,
    /// Told to stand still or to go on, and not said to do so since.
    ordered: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Ended,
    NeverRan,
}

#[derive(Debug)]
struct Memory {
    _watched: Watched,
    oom: LifeOom,
}

/// Looks for how a main process ended that is not our child, at doubled intervals: about a third of a second.
const UNEXPLAINED_LOOKS: u32 = 7;

/// A program that runs beside the main process, until it is reaped.
#[derive(Debug)]
struct Hook {
    child: Child,
    subject: Subject,
    /// It is being ended, with all that it has started.
    ending: Option<(Leader, Retry)>,
}

/// A killed tree is looked at again after this long, then at doubled intervals.
const FIRST_LOOK: Duration = Duration::from_millis(5);

impl CgroupHandle {
    /// A life whose child was just made in its directory.
    pub fn new(
        site: Rc<Site>,
        slot: u32,
        id: IncarnationId,
        owner: bool,
        child: Child,
        subject: Subject,
    ) -> Self {
        let Child { pid, pidfd, report } = child;
        let mut handle = Self::around(site, slot, id, owner, (pid, pidfd));
        handle.memory = handle.watch_memory(LifeOom::default());
        handle.starting = Some(Box::new((report, subject)));
        handle
    }

    /// Takes over a life in its directory. Its main process is there, alive or not yet reaped.
    ///
    /// # Errors
    /// [`Gone`]; nothing is left behind then.
    pub fn adopt(
        site: Rc<Site>,
        slot: u32,
        id: IncarnationId,
        owner: bool,
        main: Process,
    ) -> Result<Self, Gone> {
        // Watched before it is looked at: a process of it may thaw it at any moment.
        let watched = site.watch(&id.to_string(), slot).map_err(|error| Gone(leaf::create_words(&error)))?;
        let mut handle = Self::around(site, slot, id, owner, (main.pid, main.pidfd));
        handle.foreign = main.foreign;
        if handle.state_is_frozen() {
            handle.watched = Some(watched);
            handle.frozen = Some(true);
        }
        let seen = limits::memory_events(handle.site.tree.as_fd(), &handle.leaf);
        handle.memory = handle.watch_memory(LifeOom::adopted(seen));
        Ok(handle)
    }

    /// Around a main process that is a child of ours and runs, of which nothing was said yet.
    fn around(
        site: Rc<Site>,
        slot: u32,
        id: IncarnationId,
        owner: bool,
        (main_pid, main): (i32, Pidfd),
    ) -> Self {
        let leaf: Rc<str> = id.to_string().into();
        site.books.enter(&leaf, slot);
        Self {
            site,
            slot,
            id,
            leaf,
            owner,
            watched: None,
            memory: None,
            hook: None,
            main_pid,
            main,
            read_only: OnceCell::new(),
            starting: None,
            failure: None,
            reaped: None,
            foreign: false,
            unexplained: None,
            exit_said: false,
            over: None,
            retry: None,
            per_process: false,
            frozen: None,
            ordered: None,
        }
    }

    fn watch_memory(&self, oom: LifeOom) -> Option<Memory> {
        Some(Memory { _watched: self.site.watch_memory(&self.leaf, self.slot)?, oom })
    }

    fn tree(&self) -> BorrowedFd<'_> {
        self.site.tree.as_fd()
    }

    /// The hook that is being ended.
    fn ending_hook(&mut self) -> Option<&mut (Leader, Retry)> {
        self.hook.as_mut()?.ending.as_mut()
    }

    fn state_is_frozen(&self) -> bool {
        leaf::state(self.tree(), &self.leaf).is_ok_and(|state| state.frozen)
    }

    fn is_ending(&self) -> bool {
        self.retry.is_some() || self.reaped.is_some() || self.over.is_some()
    }

    /// If it is, the loop is woken when it is no more.
    fn is_populated(&mut self, all_empty: bool) -> bool {
        if all_empty {
            return false;
        }
        // An unreadable file counts as populated: emptiness has to be seen.
        let looked = |handle: &Self| leaf::populated(handle.tree(), &handle.leaf).unwrap_or(true);
        let populated = looked(self);
        if !populated || self.watched.is_some() {
            return populated;
        }
        // Where it cannot be watched, because no descriptor is left, what remains has all of its time, and is then killed: the
        // looks that follow see its end.
        self.watched = self.site.watch(&self.leaf, self.slot).ok();
        looked(self)
    }

    fn settle_memory(&mut self, events: &mut EventQueue) {
        let Some(memory) = &mut self.memory else { return };
        let counted = limits::memory_events(self.site.tree.as_fd(), &self.leaf);
        let (killing, reaped, main) = (self.retry.is_some(), self.reaped, self.main_pid);
        // A kill of ours is no news about memory.
        let news = memory.oom.count(
            counted,
            || !killing && reaped.map_or_else(|| walk::is_being_killed(main), is_kill),
            || limits::memory_max(self.site.tree.as_fd(), &self.leaf),
        );
        let (main, shortage) = (memory.oom.has_killed_main(), memory.oom.shortage());
        if news.high {
            events.push(Event::MemoryHigh { id: self.id.clone() });
        }
        if let Some(kills) = news.kills {
            events.push(Event::OomKilled { id: self.id.clone(), kills, main, shortage });
        }
    }

    fn settle_exec(&mut self, events: &mut EventQueue) {
        let Some(starting) = &mut self.starting else { return };
        let (report, subject) = &mut **starting;
        match report.read() {
            Progress::Pending if self.reaped.is_none() => return,
            Progress::Executed => events.push(Event::Spawned { id: self.id.clone(), pid: self.main_pid }),
            Progress::Failed(failure) => {
                let words = subject.words(failure);
                self.failure = Some(Box::new(SpawnError::Child { words, errno: failure.errno }));
            }
            Progress::Pending | Progress::Killed => {
                // Kernels 6.14 to 7.2 kill a child cloned into a cgroup below one that was ever killed: the next one is moved in.
                self.site.tree.born.set(false);
                self.failure = Some(Box::new(SpawnError::Killed));
            }
        }
        self.starting = None;
    }

    /// How it ended is known when its parent has reaped it, which is waited for a little (and older kernels never tell).
    fn settle_foreign(&mut self) {
        if !self.foreign || self.reaped.is_some() || !self.main.has_ended() {
            return;
        }
        match self.main.exit_status() {
            Some(status) => self.reaped = Some(exit_of(status)),
            None => {
                self.unexplained.get_or_insert_with(|| Retry::now(None, FIRST_LOOK));
            }
        }
        if self.unexplained.is_some_and(|looks| looks.tries() > UNEXPLAINED_LOOKS) {
            self.reaped = Some(Exit::Unknown);
        }
        if self.reaped.is_some() {
            self.unexplained = None;
        }
    }

    fn settle_frozen(&mut self, events: &mut EventQueue) {
        let Some(said) = self.frozen else { return };
        let frozen = self.state_is_frozen();
        // One that is frozen again before anybody has looked is told once more: who ordered that waits for it.
        if said != frozen || self.ordered == Some(frozen) {
            self.ordered.take_if(|ordered| *ordered == frozen);
            self.frozen = Some(frozen);
            events.push(Event::Frozen { id: self.id.clone(), frozen });
        }
    }

    /// One blow at the tree; [`Held::tick`] repeats it until the tree is empty.
    fn strike(&mut self, events: &mut EventQueue) {
        let Err(error) = leaf::kill(self.tree(), &self.leaf) else { return };
        // Gone with its directory, which is what we want.
        if error.kind() == io::ErrorKind::NotFound && !leaf::exists(self.tree(), &self.leaf) {
            return;
        }
        leaf::signal_each(self.tree(), &self.leaf, Signal::KILL);
        if !self.per_process {
            self.per_process = true;
            let text = format!("cgroup.kill does not work ({error}): its processes are killed one by one");
            events.push(Event::Degraded { id: self.id.clone(), text });
        }
    }

    /// The main process sees cgroup2 on read-only mounts alone, as it was given them before its program began. Looked at once:
    /// the kernel makes the list of all its mounts for it.
    fn sees_cgroups_read_only(&self) -> bool {
        let look = || mount::sees_cgroups_read_only(self.main_pid);
        if self.starting.is_some() { look() } else { *self.read_only.get_or_init(look) }
    }
}

impl Held for CgroupHandle {
    fn id(&self) -> &IncarnationId {
        &self.id
    }

    fn rung(&self) -> Rung {
        self.site.books.rung
    }

    fn weakness(&self) -> Option<&'static str> {
        match self.rung() {
            _ if !self.owner => None,
            // Nothing keeps it from doing what we did.
            Rung::CgroupPrivate => Some(
                "it runs as the owner of its cgroup: a hostile service can mount cgroup2 itself and move out",
            ),
            _ if self.sees_cgroups_read_only() => None,
            _ => Some("it runs as the owner of its cgroup: a hostile service can move itself out"),
        }
    }

    /// The report of the exec until that is decided, or the end of a main process that is not ours to reap.
    fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        match &self.starting {
            // Only the hang-up counts: see [`Report`].
            Some(starting) => Some((starting.0.as_fd(), Interest::PRIORITY)),
            None => self.foreign.then(|| (self.main.as_fd(), Interest::READABLE)),
        }
    }

    fn children(&self) -> [Option<i32>; 2] {
        let main = (!self.foreign && self.reaped.is_none()).then_some(self.main_pid);
        [main, self.hook.as_ref().map(|hook| hook.child.pid)]
    }

    fn reaped(&mut self, pid: i32, status: i32, _now: Tick, events: &mut EventQueue) {
        if pid == self.main_pid {
            self.reaped = Some(exit_of(status));
        } else if let Some(hook) = self.hook.take() {
            let Hook { mut child, subject, ending: _ } = *hook;
            let ended = match child.report.read() {
                Progress::Failed(failure) => {
                    Err(SpawnError::Child { words: subject.words(failure), errno: failure.errno })
                }
                Progress::Pending | Progress::Executed | Progress::Killed => Ok(exit_of(status)),
            };
            events.push(Event::HookEnded { id: self.id.clone(), ended });
        }
    }

    fn settle(&mut self, look: Look, events: &mut EventQueue) {
        if self.over.is_some() {
            return;
        }
        self.settle_exec(events);
        self.settle_memory(events);
        self.settle_frozen(events);
        self.settle_foreign();
        let Some(exit) = self.reaped else { return };
        if self.failure.is_none() && !self.exit_said {
            self.exit_said = true;
            let exit = self.memory.as_ref().map_or(exit, |memory| memory.oom.judge(exit));
            events.push(Event::MainExited { id: self.id.clone(), exit });
        }
        // A hook may not have joined yet.
        if self.hook.is_some() || self.is_populated(look.all_empty) {
            return;
        }
        self.retry = None;
        let id = self.id.clone();
        let (over, event) = match self.failure.take() {
            Some(error) => (Over::NeverRan, Event::SpawnFailed { id, error: *error }),
            None => (Over::Ended, Event::TreeEmpty { id }),
        };
        self.over = Some(over);
        events.push(event);
    }

    fn next_look(&self) -> Option<Tick> {
        let ending = self.hook.as_ref().and_then(|hook| hook.ending.as_ref());
        let retries = [self.retry, self.unexplained, ending.map(|(_, retry)| *retry)];
        retries.into_iter().flatten().map(|retry| retry.next).min().filter(|_| self.over.is_none())
    }

    fn tick(&mut self, now: Tick, _family: &Family<'_>, events: &mut EventQueue) {
        if let Some(looks) = &mut self.unexplained {
            looks.due(now);
        }
        self.settle(Look { now, all_empty: false }, events);
        if self.ending_hook().is_some_and(|(_, retry)| retry.due(now)) {
            let frozen = self.state_is_frozen();
            if let Some((leader, _)) = self.ending_hook() {
                leader.end(frozen);
            }
        }
        if self.over.is_none()
            && let Some(retry) = &mut self.retry
            && retry.due(now)
        {
            self.strike(events);
            // What `cgroup.kill` leaves alive on 6.18: a zombie leader whose other threads run.
            leaf::signal_each(self.tree(), &self.leaf, Signal::KILL);
        }
    }

    fn is_overdue(&self) -> bool {
        self.next_look().is_some() && self.retry.is_some_and(|retry| retry.is_long())
    }

    fn has_failed(&self) -> bool {
        self.over == Some(Over::NeverRan)
    }

    fn signal_main(&self, signal: Signal) -> io::Result<()> {
        self.main.send(signal)
    }

    fn signal_tree(&self, signal: Signal) {
        // Most trees are seen empty together with the end of their main process: then there is no process to look for.
        if self.over.is_none() {
            leaf::signal_each(self.tree(), &self.leaf, signal);
        }
    }

    fn freeze(&mut self, frozen: bool) -> io::Result<()> {
        if self.watched.is_none() {
            self.watched = Some(self.site.watch(&self.leaf, self.slot)?);
        }
        leaf::freeze(&self.site.tree.path().join(&*self.leaf), frozen)?;
        let said = *self.frozen.get_or_insert(false);
        if frozen || said || self.ordered.is_some() {
            self.ordered = Some(frozen);
        }
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.state_is_frozen()
    }

    fn kill(&mut self, now: Tick, events: &mut EventQueue) {
        if self.over.is_some() {
            return;
        }
        // They may not have joined yet, and `cgroup.kill` does not wait for those who come later.
        let _ = self.main.send(Signal::KILL);
        if let Some(hook) = &self.hook {
            let _ = hook.child.pidfd.send(Signal::KILL);
        }
        self.strike(events);
        self.retry = Some(Retry::first(now, FIRST_LOOK));
    }

    fn end_for_oom(&mut self, now: Tick, events: &mut EventQueue) {
        if let (Some(memory), None) = (&mut self.memory, self.reaped) {
            memory.oom.takes_all();
            self.kill(now, events);
        }
    }

    fn reclaim(&self) -> Option<Reclaim> {
        Reclaim::open(self.tree(), &self.leaf).ok()
    }

    fn pids_refused(&self) -> u64 {
        limits::pids_refused(self.site.tree.as_fd(), &self.leaf)
    }

    fn set_limits(&self, limits: &Limits) -> Vec<NotInForce> {
        self.site.apply(&self.leaf, limits)
    }

    fn run_hook(&mut self, spawner: &mut Spawner, plan: &mut ChildPlan) -> Result<(), HookError> {
        if self.hook.is_some() {
            return Err(HookError::Busy);
        }
        if self.is_ending() {
            return Err(HookError::Ending);
        }
        self.site.books.shield(plan);
        // Kernels 6.14 to 7.2 kill a child cloned into a cgroup that was ever killed, so the hook is moved in.
        let failed = |error: io::Error| {
            let dir = self.site.tree.path().join(&*self.leaf);
            HookError::Clone(no_process::why(&error, || no_process::above(&dir)))
        };
        let procs = leaf::open_beside(self.tree(), &self.leaf).map_err(failed)?;
        let child = spawner.spawn(plan, Some(leaf::join(&procs, false))).map_err(failed)?;
        self.hook = Some(Box::new(Hook { child, subject: Subject::of(plan), ending: None }));
        Ok(())
    }

    fn end_hook(&mut self, now: Tick) {
        let Some(hook) = self.hook.as_mut().filter(|hook| hook.ending.is_none()) else { return };
        // Not reaped yet, so the number is its own.
        hook.ending = Leader::of(hook.child.pid).map(|leader| (leader, Retry::now(Some(now), FIRST_LOOK)));
    }

    fn main(&self) -> Option<&Pidfd> {
        Some(&self.main)
    }

    fn main_pid(&self) -> Option<i32> {
        Some(self.main_pid)
    }

    fn beside(&self) -> Option<(i32, u64)> {
        let Child { pid, pidfd, .. } = &self.hook.as_ref()?.child;
        Some((*pid, birth(*pid, pidfd)?))
    }

    fn processes(&self) -> Vec<i32> {
        leaf::processes(self.tree(), &self.leaf)
    }

    fn unreaped(&self) -> Vec<i32> {
        let mut pids = self.processes();
        if self.reaped.is_none() && !pids.contains(&self.main_pid) {
            pids.push(self.main_pid);
        }
        pids
    }

    fn usage(&self) -> Usage {
        let pids = self.processes();
        let (current, peak) = stats::memory(self.tree(), &self.leaf);
        Usage {
            procs: pids.len(),
            memory_bytes: current.or_else(|| Some(usage::resident(&pids))),
            memory_peak_bytes: peak,
            cpu_ms: stats::cpu_ms(self.site.tree.path(), &self.leaf),
            io: stats::io(self.tree(), &self.leaf),
            pressure: stats::pressure(self.tree(), &self.leaf),
            oom_kills: self.memory.as_ref().map(|memory| memory.oom.kills()),
        }
    }

    fn open_scope(
        &self,
        request: &ScopeRequest<'_>,
    ) -> Result<(Box<dyn HeldScope>, Vec<String>), ScopeError> {
        scope::ScopeDirectory::open(&self.site, &self.leaf, request)
            .map(|(scope, not_in_force)| (Box::new(scope) as Box<dyn HeldScope>, not_in_force))
    }

    fn find_scopes(&self, number: &mut dyn FnMut() -> u32) -> Vec<(ScopeName, u32, Box<dyn HeldScope>)> {
        scope::ScopeDirectory::find(&self.site, &self.leaf, number)
    }

    fn spare(&self, spared: &mut Spared) {
        spared.lives.insert(self.leaf.to_string());
    }

    fn release(self: Box<Self>, now: Tick, farewell: Farewell) {
        self.site.books.leave(&self.leaf, now, farewell);
    }
}

fn exit_of(status: i32) -> Exit {
    Exit::from_wait_status(status).unwrap_or(Exit::Unknown)
}
