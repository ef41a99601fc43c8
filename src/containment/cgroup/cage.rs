//! One incarnation in its cgroup, from the supervisor's side.
//!
//! Every wake is a hint and ends in [`Cage::settle`], which looks at what is true now and says what is new. The tree is
//! over when the main process is reaped *and* the directory is not populated: either can come first.

use super::limits::MemoryEvents;
use super::tree::Tree;
use super::watch::{Watch, Watched};
use super::{leaf, limits};
use crate::containment::adopt::{Gone, Process};
use crate::containment::forks::Forks;
use crate::containment::retry::Retry;
use crate::containment::walk;
use crate::containment::{Event, IncarnationId, SpawnError};
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::limits::{Key, Limits, NotInForce, Value};
use crate::core::signal::Signal;
use crate::sys::mount;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::clone::{self, Child, Progress, Report, Subject};
use crate::sys::spawn::plan::ChildPlan;
use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

#[derive(Debug)]
pub struct Cage {
    leaf: String,
    /// Of its `cgroup.events`, from when they are waited for: most trees are seen empty together with the end of their main
    /// process.
    watched: Option<Watched>,
    memory: Option<Memory>,
    pub hook: Option<Box<Hook>>,
    pub main_pid: i32,
    main: Pidfd,
    /// As [`Cage::sees_cgroups_read_only`], once it was asked.
    read_only: OnceCell<bool>,
    /// Present until the exec is decided, with what its failure would be described by.
    starting: Option<Box<(Report, Subject)>>,
    failure: Option<SpawnError>,
    /// How the main process ended, once it was reaped.
    reaped: Option<Exit>,
    /// The main process is somebody else's child: its end is seen at its pidfd.
    foreign: bool,
    /// It has ended, and how is yet to be known.
    unexplained: Option<Retry>,
    exit_said: bool,
    pub over: bool,
    pub retry: Option<Retry>,
    /// `cgroup.kill` was refused: said once.
    per_process: bool,
    /// What was last said of it, once it was ever told to stand still.
    frozen: Option<bool>,
}

/// Where a cage stands: in which tree, and for which slot there is news of it.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    pub tree: &'a Tree,
    pub watch: &'a Watch,
    pub slot: u32,
    /// The whole tree was seen empty just now, and with it every cage in it.
    pub seen_empty: bool,
}

impl Site<'_> {
    fn watch(self, leaf: &str) -> io::Result<Watched> {
        self.watch.add(&self.tree.path().join(leaf), self.slot)
    }
}

/// What the memory controller tells of it.
#[derive(Debug)]
struct Memory {
    _watched: Watched,
    /// What was seen so far.
    seen: MemoryEvents,
    /// The main process is one of those that it has killed, or that were ended because of it.
    main: bool,
}

/// Looks for how a main process ended that somebody else reaps, at doubled intervals: about a third of a second.
const UNEXPLAINED_LOOKS: u32 = 7;

/// A program that runs beside the main process, until it is reaped.
#[derive(Debug)]
pub struct Hook {
    pub child: Child,
    pub subject: Subject,
}

/// A killed tree is looked at again after this long, then at doubled intervals.
const FIRST_LOOK: Duration = Duration::from_millis(5);

impl Cage {
    /// Makes the directory, puts the limits into force there and makes the child in it. Also returns the limits that are not
    /// in force.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub fn spawn(
        site: Site<'_>,
        forks: &mut Forks,
        id: &IncarnationId,
        plan: &mut ChildPlan,
        limits: &Limits,
    ) -> Result<(Self, Vec<NotInForce>), SpawnError> {
        let tree = site.tree;
        let leaf = id.to_string();
        let failed =
            |error: io::Error| SpawnError::Cgroup { path: tree.shown(&leaf), reason: create_words(&error) };
        leaf::create(tree.as_fd(), &leaf).map_err(failed)?;
        let not_in_force = apply(tree, &leaf, limits);
        plan.scarce_memory = limits.get(Key::MemoryMax).is_some_and(is_scarce);
        let child = leaf::open_main(tree.as_fd(), &leaf, tree.born.get()).map_err(failed).and_then(|main| {
            let join = leaf::join(&main, tree.born.get());
            forks.spawn(plan, Some(join)).map_err(|error| SpawnError::Clone(error.to_string()))
        });
        match child {
            Ok(Child { pid, pidfd, report }) => {
                let memory = Memory::watched(site, &leaf, MemoryEvents::default());
                let starting = Some(Box::new((report, Subject::of(plan))));
                Ok((Self { starting, ..Self::around(leaf, memory, (pid, pidfd)) }, not_in_force))
            }
            Err(error) => {
                let _ = leaf::remove(tree.as_fd(), &leaf);
                Err(error)
            }
        }
    }

    /// Takes over a life in the directory `leaf`. Its main process is there, alive or not yet reaped.
    ///
    /// # Errors
    /// [`Gone`]; nothing is left behind then.
    pub fn adopt(site: Site<'_>, leaf: String, main: Process) -> Result<Self, Gone> {
        // Watched before it is looked at: what stands still may be told to go on by somebody else.
        let watched = site.watch(&leaf).map_err(|error| Gone(create_words(&error)))?;
        let frozen = leaf::state(site.tree.as_fd(), &leaf).is_ok_and(|state| state.frozen);
        let seen = limits::memory_events(site.tree.as_fd(), &leaf);
        let memory = Memory::watched(site, &leaf, seen);
        let cage = Self::around(leaf, memory, (main.pid, main.pidfd));
        let watched = frozen.then_some(watched);
        Ok(Self { foreign: main.foreign, watched, frozen: frozen.then_some(true), ..cage })
    }

    /// Around a main process that is a child of ours and runs, of which nothing was said yet.
    fn around(leaf: String, memory: Option<Memory>, (main_pid, main): (i32, Pidfd)) -> Self {
        Self {
            leaf,
            watched: None,
            memory,
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
            over: false,
            retry: None,
            per_process: false,
            frozen: None,
        }
    }

    /// What the loop has to watch besides the directory: the report of the exec until that is decided, or the end of a
    /// main process that is not ours to reap.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        match &self.starting {
            Some(starting) => Some(starting.0.as_fd()),
            None => self.foreign.then(|| self.main.as_fd()),
        }
    }

    pub fn reaped(&mut self, status: i32) {
        self.reaped = Some(Exit::from_wait_status(status).unwrap_or(Exit::Unknown));
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_look(&self) -> Option<Tick> {
        let retries = [self.retry, self.unexplained];
        retries.into_iter().flatten().map(|retry| retry.next).min().filter(|_| !self.over)
    }

    pub fn main(&self) -> &Pidfd {
        &self.main
    }

    /// The main process, dead or alive, until it is reaped.
    pub fn unreaped_main(&self) -> Option<i32> {
        self.reaped.is_none().then_some(self.main_pid)
    }

    /// The main process is not our child.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Looks at everything again and says what is new.
    pub fn settle(&mut self, site: Site<'_>, id: &IncarnationId, events: &mut Vec<Event>) {
        let tree = site.tree;
        if self.over {
            return;
        }
        self.settle_exec(tree, id, events);
        self.settle_memory(tree, id, events);
        self.settle_frost(tree, id, events);
        self.settle_foreign();
        let Some(exit) = self.reaped else { return };
        if self.failure.is_none() && !self.exit_said {
            self.exit_said = true;
            let exit = match exit {
                killed if is_kill(killed) && self.memory.as_ref().is_some_and(|memory| memory.main) => {
                    Exit::Oom
                }
                exit => exit,
            };
            events.push(Event::MainExited { id: id.clone(), exit });
        }
        // A hook may not have joined yet.
        if self.hook.is_some() || self.is_populated(site) {
            return;
        }
        self.over = true;
        self.retry = None;
        events.push(match self.failure.take() {
            Some(error) => Event::SpawnFailed { id: id.clone(), error },
            None => Event::TreeEmpty { id: id.clone() },
        });
    }

    /// If it is, the loop is woken when it is no more.
    fn is_populated(&mut self, site: Site<'_>) -> bool {
        if site.seen_empty {
            return false;
        }
        // An unreadable file counts as populated: emptiness has to be seen.
        let looked = || leaf::populated(site.tree.as_fd(), &self.leaf).unwrap_or(true);
        let populated = looked();
        if !populated || self.watched.is_some() {
            return populated;
        }
        // Where it cannot be watched, for want of a descriptor, what is left has all of its time, and is then killed: the
        // looks that follow that see it.
        self.watched = site.watch(&self.leaf).ok();
        looked()
    }

    /// The kernel counts a kill before it sends the signal (mm/oom_kill.c, `__oom_kill_process`), so whoever is seen dead
    /// is counted, and at a rise the victim is dead or about to be.
    fn settle_memory(&mut self, tree: &Tree, id: &IncarnationId, events: &mut Vec<Event>) {
        let Some(memory) = &mut self.memory else { return };
        let before = std::mem::replace(&mut memory.seen, limits::memory_events(tree.as_fd(), &self.leaf));
        let MemoryEvents { kills, high } = memory.seen;
        if high > before.high {
            events.push(Event::MemoryHigh { id: id.clone() });
        }
        // Once the main process is among them it is over, however many the kernel still takes with it, one by one.
        if kills <= before.kills || memory.main {
            return;
        }
        // A kill of ours is no news about memory.
        memory.main |= self.retry.is_none()
            && match self.reaped {
                Some(exit) => is_kill(exit),
                None => walk::is_being_killed(self.main_pid),
            };
        events.push(Event::OomKilled { id: id.clone(), kills, main: memory.main });
    }

    /// Kills the tree because one of it was killed for want of memory: that is then how it ended.
    pub fn end_for_memory(&mut self, tree: &Tree, id: &IncarnationId, now: Tick, events: &mut Vec<Event>) {
        if let (Some(memory), None) = (&mut self.memory, self.reaped) {
            memory.main = true;
            self.kill(tree, id, now, events);
        }
    }

    /// How many of it the kernel has killed for want of memory; `None`: not known here.
    pub fn oom_kills(&self) -> Option<u64> {
        self.memory.as_ref().map(|memory| memory.seen.kills)
    }

    /// The main process sees cgroup2 on read-only mounts alone, as it was given them before its program began. Looked at once:
    /// the kernel makes the list of all its mounts for it.
    pub fn sees_cgroups_read_only(&self) -> bool {
        let look = || mount::sees_cgroups_read_only(self.main_pid);
        if self.starting.is_some() { look() } else { *self.read_only.get_or_init(look) }
    }

    /// Puts other limits into force; returns those that are not.
    pub fn set_limits(&self, tree: &Tree, limits: &Limits) -> Vec<NotInForce> {
        apply(tree, &self.leaf, limits)
    }

    fn settle_exec(&mut self, tree: &Tree, id: &IncarnationId, events: &mut Vec<Event>) {
        let Some(starting) = &mut self.starting else { return };
        let (report, subject) = &mut **starting;
        match report.read() {
            Progress::Pending if self.reaped.is_none() => return,
            Progress::Executed => events.push(Event::Spawned { id: id.clone(), pid: self.main_pid }),
            Progress::Failed(failure) => {
                let words = subject.words(failure);
                self.failure = Some(SpawnError::Child { words, errno: failure.errno });
            }
            Progress::Pending | Progress::Killed => {
                // Where a cgroup on its way was ever killed, some kernels kill it at birth: the next one moves.
                tree.born.set(false);
                self.failure = Some(SpawnError::Killed);
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
            Some(status) => self.reaped(status),
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

    fn settle_frost(&mut self, tree: &Tree, id: &IncarnationId, events: &mut Vec<Event>) {
        let Some(said) = &mut self.frozen else { return };
        let frozen = leaf::state(tree.as_fd(), &self.leaf).is_ok_and(|state| state.frozen);
        if *said != frozen {
            *said = frozen;
            events.push(Event::Frozen { id: id.clone(), frozen });
        }
    }

    /// Begins to stop the tree where it is, or to let it go on.
    ///
    /// # Errors
    /// Those of [`leaf::freeze`] and [`Watch::add`].
    pub fn freeze(&mut self, site: Site<'_>, frozen: bool) -> io::Result<()> {
        if self.watched.is_none() {
            self.watched = Some(site.watch(&self.leaf)?);
        }
        leaf::freeze(site.tree.as_fd(), &self.leaf, frozen)?;
        self.frozen.get_or_insert(false);
        Ok(())
    }

    /// Makes a child of ours in the tree. At most one at a time.
    ///
    /// # Errors
    /// Those of open(2), pipe2(2) and clone(2); there is no such child then.
    pub fn run_hook(&mut self, tree: &Tree, forks: &mut Forks, plan: &mut ChildPlan) -> io::Result<i32> {
        // Whoever were born in a cgroup that was killed before would be killed, too: it moves.
        let procs = leaf::open_main(tree.as_fd(), &self.leaf, false)?;
        let child = forks.spawn(plan, Some(leaf::join(&procs, false)))?;
        let pid = child.pid;
        self.hook = Some(Box::new(Hook { child, subject: Subject::of(plan) }));
        Ok(pid)
    }

    /// It was reaped. `Err`: why it was never executed.
    pub fn hook_reaped(&mut self, status: i32) -> Option<Result<Exit, String>> {
        let Hook { mut child, subject } = *self.hook.take()?;
        Some(match child.report.read() {
            Progress::Failed(failure) => Err(subject.words(failure)),
            Progress::Pending | Progress::Executed | Progress::Killed => {
                Ok(Exit::from_wait_status(status).unwrap_or(Exit::Unknown))
            }
        })
    }

    pub fn is_ending(&self) -> bool {
        self.retry.is_some() || self.reaped.is_some() || self.over
    }

    pub fn signal_main(&self, signal: Signal) -> io::Result<()> {
        self.main.send(signal)
    }

    pub fn signal_tree(&self, tree: &Tree, signal: Signal) {
        // Most trees are seen empty together with the end of their main process: nobody is left to look for.
        if self.over {
            return;
        }
        leaf::signal_each(tree.as_fd(), &self.leaf, signal);
    }

    /// Begins the kill; [`Cage::tick`] goes on with it until the tree is empty.
    pub fn kill(&mut self, tree: &Tree, id: &IncarnationId, now: Tick, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        // They may not have joined yet, and `cgroup.kill` does not wait for those who come later.
        let _ = self.main.send(Signal::KILL);
        if let Some(hook) = &self.hook {
            let _ = hook.child.pidfd.send(Signal::KILL);
        }
        self.strike(tree, id, events);
        self.retry = Some(Retry::first(now, FIRST_LOOK));
    }

    /// The next look at a killed tree.
    pub fn tick(&mut self, site: Site<'_>, id: &IncarnationId, now: Tick, events: &mut Vec<Event>) {
        if let Some(looks) = &mut self.unexplained {
            looks.due(now);
        }
        self.settle(site, id, events);
        if self.over {
            return;
        }
        let tree = site.tree;
        if let Some(retry) = &mut self.retry
            && retry.due(now)
        {
            self.strike(tree, id, events);
            // What `cgroup.kill` leaves alive on 6.18: a zombie leader whose other threads run.
            leaf::signal_each(tree.as_fd(), &self.leaf, Signal::KILL);
        }
    }

    fn strike(&mut self, tree: &Tree, id: &IncarnationId, events: &mut Vec<Event>) {
        let Err(error) = leaf::kill(tree.as_fd(), &self.leaf) else { return };
        // Gone with its directory, which is what we want.
        if error.kind() == io::ErrorKind::NotFound && !tree.path().join(&self.leaf).exists() {
            return;
        }
        leaf::signal_each(tree.as_fd(), &self.leaf, Signal::KILL);
        if !self.per_process {
            self.per_process = true;
            let text = format!("cgroup.kill does not work ({error}): its processes are killed one by one");
            events.push(Event::Degraded { id: id.clone(), text });
        }
    }

    pub fn processes(&self, tree: &Tree) -> Vec<i32> {
        leaf::processes(tree.as_fd(), &self.leaf)
    }

    pub fn leaf(&self) -> &str {
        &self.leaf
    }

    /// Gives back the name of the directory, which is to be removed and is watched no more.
    pub fn release(self) -> String {
        self.leaf
    }
}

impl Memory {
    /// `None`: without the controller there is nothing to watch.
    fn watched(site: Site<'_>, leaf: &str, seen: MemoryEvents) -> Option<Self> {
        let Site { tree, watch, slot, .. } = site;
        if !tree.memory.get() {
            return None;
        }
        let watched = watch.add_memory(&tree.path().join(leaf), slot);
        tree.memory.set(!watched.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        let watched = watched.ok()?;
        Some(Self { _watched: watched, seen, main: false })
    }
}

fn apply(tree: &Tree, leaf: &str, limits: &Limits) -> Vec<NotInForce> {
    limits::apply(tree.as_fd(), leaf, limits, &tree.controllers, tree.refused.as_deref())
}

/// So little that a child could use it up before its exec, which takes it less than a megabyte: argument list, page tables,
/// credentials.
fn is_scarce(memory: Value) -> bool {
    const ENOUGH: u64 = 16 << 20;
    matches!(memory, Value::Amount(amount) if amount < ENOUGH)
}

fn is_kill(exit: Exit) -> bool {
    exit.signal() == Some(Signal::KILL)
}

fn create_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            "the limit on cgroups is reached (cgroup.max.descendants or cgroup.max.depth above us)".to_owned()
        }
        Some(errno) => clone::reason(errno),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_child_could_use_up_before_its_exec_is_scarce() {
        let scarce =
            [Value::Amount(0), Value::Amount(1 << 20), Value::Amount(64 << 20), Value::Max].map(is_scarce);
        assert_eq!(scarce, [true, true, false, false]);
    }
}
