//! The two traits that make a rung: a [`Mechanism`] begins lives, and each life is [`Held`].
//!
//! A new rung implements both in a file or folder of its own, with a probe beside them, and gets a line in the table of
//! `ladder.rs`. Nothing else in this room knows which rungs there are.

use super::IncarnationId;
use super::event::{EventQueue, HookError, SpawnError};
use super::processes::usage::Usage;
use super::rung::Rung;
use super::scopes::{HeldScope, ScopeError, ScopeRequest};
use super::spawner::Spawner;
use super::succession::adopt::{Gone, birth};
#[cfg(test)]
use super::succession::predecessor::Ended;
use super::succession::predecessor::{Patience, Predecessor, Spared};
use super::succession::record::AdoptionRecord;
use crate::containment::cgroup::reclaim::Reclaim;
use crate::core::clock::Tick;
use crate::core::farewell::Farewell;
use crate::core::limits::{Limits, NotInForce};
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::plan::ChildPlan;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One life. Every wake-up is a hint: [`Held::settle`] looks at what is true now and says what is new.
pub(super) trait Held: fmt::Debug {
    fn id(&self) -> &IncarnationId;

    fn rung(&self) -> Rung;

    /// What is weaker than the rung promises for this service; `None`: nothing.
    fn weakness(&self) -> Option<&'static str>;

    // ---- what the loop watches and reaps for it ----

    /// The descriptor that the loop has to watch now.
    fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)>;

    /// Children of ours that belong to it and were not reaped yet.
    fn children(&self) -> [Option<i32>; 2];

    /// One of [`Held::children`] was reaped. [`Held::settle`] follows.
    fn reaped(&mut self, pid: i32, status: i32, now: Tick, events: &mut EventQueue);

    /// Looks at everything again and says what is new.
    fn settle(&mut self, look: Look, events: &mut EventQueue);

    /// When [`Held::tick`] has something to do.
    fn next_look(&self) -> Option<Tick>;

    fn tick(&mut self, now: Tick, family: &Family<'_>, events: &mut EventQueue);

    /// It was killed half a second ago or more and still has processes: something keeps it from ending.
    fn is_overdue(&self) -> bool;

    /// `SpawnFailed` was said: nothing is left to be released later.
    fn has_failed(&self) -> bool;

    // ---- orders ----

    /// # Errors
    /// `ESRCH` when the main process has ended or does not run yet.
    fn signal_main(&self, signal: Signal) -> io::Result<()>;

    /// Every process of the tree, once each; one that is born meanwhile may be missed.
    fn signal_tree(&self, signal: Signal);

    /// Begins to stop the tree where it is, or to let it go on.
    ///
    /// # Errors
    /// What the kernel or the keeper says.
    fn freeze(&mut self, frozen: bool) -> io::Result<()>;

    /// Whether all of it stands still now.
    fn is_frozen(&self) -> bool;

    /// Begins the end of the whole tree.
    fn kill(&mut self, now: Tick, events: &mut EventQueue);

    /// Kills the tree because the OOM killer has killed one of its processes: that is then how it ended.
    fn end_for_oom(&mut self, _now: Tick, _events: &mut EventQueue) {}

    /// One of it was killed by us, so that its SIGKILL says nothing about memory.
    fn was_struck(&self) {}

    /// Puts other limits into force; returns those that are not.
    fn set_limits(&self, limits: &Limits) -> Vec<NotInForce>;

    /// For taking back what it does not use; `None`: nobody counts its memory, or the kernel cannot do that.
    fn reclaim(&self) -> Option<Reclaim> {
        None
    }

    /// How often the kernel refused it a process for its `pids_max`; 0 where nobody counts that.
    fn pids_refused(&self) -> u64 {
        0
    }

    /// Runs a program in the tree, beside the main process; at most one at a time.
    ///
    /// # Errors
    /// [`HookError`]; there is no such program then.
    fn run_hook(&mut self, spawner: &mut Spawner, plan: &mut ChildPlan) -> Result<(), HookError>;

    /// Begins to end the hook that runs, if one does, with all that it has started.
    fn end_hook(&mut self, now: Tick);

    // ---- what there is ----

    /// The main process, from when it is known.
    fn main(&self) -> Option<&Pidfd>;

    /// Its number, as its tree counts.
    fn main_pid(&self) -> Option<i32>;

    /// What tells its main process from all others of the same number, see [`birth`].
    fn born(&self, pid: i32) -> Option<u64> {
        birth(pid, self.main()?)
    }

    /// The program beside the main process that runs, with its [`birth`], where our death would leave it to nobody.
    fn beside(&self) -> Option<(i32, u64)> {
        None
    }

    /// The group by which its processes are known, where they have one.
    fn tag(&self) -> Option<u32> {
        None
    }

    /// The live processes of the tree.
    fn processes(&self) -> Vec<i32>;

    /// [`Held::processes`] with a main process that is dead and not reaped.
    fn unreaped(&self) -> Vec<i32> {
        self.processes()
    }

    fn usage(&self) -> Usage;

    /// `pid` is the parent of its tree: what descends from it belongs to this life.
    fn is_parent(&self, _pid: i32) -> bool {
        false
    }

    // ---- scopes ----

    /// # Errors
    /// [`ScopeError`]; nothing is changed then.
    fn open_scope(&self, request: &ScopeRequest<'_>)
    -> Result<(Box<dyn HeldScope>, Vec<String>), ScopeError>;

    /// The scopes of a life that was adopted. `number` gives each its number for the watch.
    fn find_scopes(&self, _number: &mut dyn FnMut() -> u32) -> Vec<(ScopeName, u32, Box<dyn HeldScope>)> {
        Vec::new()
    }

    // ---- its end ----

    /// Names what a predecessor's remains are not.
    fn spare(&self, spared: &mut Spared);

    /// Lets go of it: `TreeEmpty` was said, or its remains are given up.
    fn release(self: Box<Self>, now: Tick, farewell: Farewell);
}

/// With what a life is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub now: Tick,
    /// Every tree of its mechanism was seen empty just now.
    pub all_empty: bool,
}

/// What a life may need to know about children of this process that are not its own.
pub(super) struct Family<'a> {
    /// They belong to another life, or are the daemon's.
    pub known: &'a dyn Fn(i32) -> bool,
    /// How many children that belonged to nobody were reaped so far.
    pub orphans: u64,
}

/// How lives are held on a rung that works here.
pub(super) trait Mechanism: fmt::Debug {
    /// Begins a life. Never waits for it: what became of it is an event. Returns the limits that are not in force, too.
    ///
    /// # Errors
    /// Nothing is left behind then.
    fn spawn(&self, birth: Birth<'_>) -> Result<(Box<dyn Held>, Vec<NotInForce>), SpawnError>;

    /// Takes over a life of an earlier supervisor; `None`: this mechanism does not hold it. May wait for `patience`.
    fn adopt(
        &self,
        slot: u32,
        record: &AdoptionRecord,
        watcher: &Watcher,
        patience: &Patience,
    ) -> Option<Result<Box<dyn Held>, Gone>>;

    /// Its own descriptor is ready; `which` as it was given to [`Watcher::watch`]. Returns slots to look at again.
    fn ready(&self, _which: u32, _now: Tick, _events: &mut EventQueue) -> Vec<u32> {
        Vec::new()
    }

    /// Nothing lives in any tree of it: one look instead of one for each life. What cannot be read is not empty.
    fn is_empty(&self) -> bool {
        false
    }

    /// The life and the scope that a process is in, as far as the kernel keeps books about that.
    fn slot_of(&self, _pid: i32) -> Option<(u32, Option<ScopeName>)> {
        None
    }

    /// Its directory goes with us when we end, as a container's does.
    fn ends_with_us(&self) -> bool {
        false
    }

    /// Adds what a successor has to know to end its trees.
    fn describe(&self, _note: &mut Predecessor) {}

    /// Whether what [`Mechanism::describe`] says has changed since the last call.
    fn was_made_again(&self) -> bool {
        false
    }

    fn spare(&self, _spared: &mut Spared) {}

    /// When [`Mechanism::tidy`] has something to do.
    fn next_deadline(&self) -> Option<Tick> {
        None
    }

    /// Removes some of what is left of lives that are over.
    fn tidy(&self, _now: Tick, _hurries: bool) {}

    /// At the very end: removes what is empty.
    fn close(&self, farewell: Farewell);

    /// Ends what a predecessor left and nobody has taken over; `None`: its processes are the kernel's.
    #[cfg(test)]
    fn end_predecessor(&self) -> Option<Ended> {
        None
    }

    /// The directory that its lives are in.
    #[cfg(test)]
    fn directory(&self) -> Option<std::path::PathBuf> {
        None
    }
}

/// A life that begins.
pub(super) struct Birth<'a> {
    pub slot: u32,
    pub id: &'a IncarnationId,
    pub plan: &'a mut ChildPlan,
    pub limits: &'a Limits,
    pub spawner: &'a mut Spawner,
    pub watcher: &'a Watcher,
}

impl Birth<'_> {
    /// The service has our own uid, which owns whatever we make.
    pub fn is_owner(&self) -> bool {
        self.plan.identity.as_ref().is_none_or(|who| who.uid == own_uid())
    }
}

/// The way into the loop's set of descriptors.
#[derive(Debug)]
pub(super) struct Watcher {
    registry: Registry,
    tokens: fn(u32, u32) -> Token,
}

/// In slot 0, the descriptor that tells of changes in cgroups.
pub(super) const CGROUPS: u32 = 0;
/// In slot 0, the descriptor that tells of OOM kills in the container.
pub(super) const CONTAINER_OOM: u32 = 1;

impl Watcher {
    pub fn new(registry: Registry, tokens: fn(u32, u32) -> Token) -> Self {
        Self { registry, tokens }
    }

    /// A descriptor of a mechanism, for as long as it is open.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn watch(&self, fd: BorrowedFd<'_>, which: u32) -> io::Result<()> {
        self.add(fd, 0, which, Interest::READABLE)
    }

    /// A descriptor of a life.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn add(&self, fd: BorrowedFd<'_>, slot: u32, generation: u32, interest: Interest) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), (self.tokens)(slot, generation), interest)
    }

    pub fn remove(&self, fd: i32) {
        let _ = self.registry.deregister(&mut SourceFd(&fd));
    }
}

pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
