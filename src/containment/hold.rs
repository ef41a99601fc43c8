//! The front of the room: every incarnation that is held, on whatever rung, and the four ways in which news arrives:
//! a descriptor ([`Containment::ready`]), a reaped child ([`Containment::reaped`]), time ([`Containment::tick`]) and
//! orders. Every one of them costs the same whether one service or a thousand are held.

use super::adopt::birth;
use super::cgroup::cage::{Cage, Site};
use super::cgroup::tree::Tree;
use super::cgroup::watch::Watch;
use super::cgroup::{leaf, stats};
use super::forks::Forks;
use super::keeper::lost::Sought;
use super::keeper::tags::{self, MARKER, Tags};
use super::keeper::ward::{Means, Ward};
use super::ladder::Report;
use super::losses::Losses;
use super::predecessor::Spared;
use super::retry::Retry;
use super::roster::{Roster, Vouched};
use super::scopes::Scopes;
use super::usage::{self, ProcessInfo, Stuck, Usage};
use super::{Event, IncarnationId, Predecessor, Rung, SpawnError};
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::farewell::Farewell;
use crate::core::gateway::Living;
use crate::core::limits::{Enforcer, Limits, NotInForce};
use crate::core::signal::Signal;
use crate::sys::mount::Mounts;
use crate::sys::spawn::plan::ChildPlan;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::{Mode, OFlags};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The generation, in slot 0, of the descriptor that tells of losses.
const LOSSES: u32 = 1;

/// When a directory goes: it takes longer than to end the process that was in it, and neither the next life nor the other ends
/// of a moment in which many end are to wait for that.
const LATER: Duration = Duration::from_millis(100);

/// So many directories are removed before the loop does something else, at some 30 µs each.
const REMOVED_AT_ONCE: usize = 64;

/// From how many on one look at all trees together, which may be in vain, takes the place of one at each.
const WORTH_A_LOOK: usize = 8;

/// Where an instance lives.
#[derive(Debug, Clone, Copy)]
pub struct Home<'a> {
    /// Kept in the database; tells several supervisors under one parent apart. Used in a directory name.
    pub instance: &'a str,
    /// Ours alone; keepers listen in a directory below it.
    pub runtime_dir: &'a Path,
    /// Enable memory, pids, cpu and io where they can be.
    pub controllers: bool,
}

/// The room. See the module head.
#[derive(Debug)]
pub struct Containment {
    report: Report,
    instance: String,
    runtime_dir: PathBuf,
    own: i32,
    registry: Registry,
    tokens: fn(u32, u32) -> Token,
    pub(super) cgroups: Option<Cgroups>,
    /// As [`Self::was_made_again`].
    made_again: bool,
    pub(super) scopes: Scopes,
    /// Opened with the first keeper; `Some(None)`: there is nothing to see.
    losses: Option<Option<Losses>>,
    pub(super) forks: Forks,
    keepers: OwnedFd,
    null: OwnedFd,
    /// Of cgroup2.
    mounts: Mounts,
    tags: Option<Tags>,
    /// How many tags were handed out.
    tagged: u64,
    /// Those of lives that were taken over.
    old_tags: HashSet<u32>,
    roster: Roster,
    /// Slot 0 is that of the two watches; its entry stays empty.
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    pub(super) by_id: HashMap<IncarnationId, u32>,
    pub(super) by_pid: HashMap<i32, Who>,
    /// Children of the daemon that are none of ours.
    others: HashSet<i32>,
    orphans: u64,
    /// What becomes of the directories of lives that are over.
    farewell: Farewell,
    /// Lives in cgroups whose main processes were reaped, and that have not been looked at since.
    reaped: Vec<u32>,
    due: BinaryHeap<Reverse<(Tick, u32, u32)>>,
}

#[derive(Debug)]
pub(super) struct Cgroups {
    pub(super) tree: Tree,
    pub(super) watch: Watch,
    /// Directories still to be removed, with when to try next.
    pub(super) leftovers: Vec<(String, Retry)>,
}

impl Cgroups {
    /// Nothing lives in any cgroup of the instance. What cannot be read is not empty.
    fn is_empty(&self) -> bool {
        leaf::populated(self.tree.as_fd(), ".").is_ok_and(|populated| !populated)
    }

    pub(super) fn site(&self, slot: u32) -> Site<'_> {
        Site { tree: &self.tree, watch: &self.watch, slot, seen_empty: false }
    }
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: u32,
    pub(super) held: Option<Held>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: IncarnationId,
    pub(super) on: On,
    /// The descriptor registered with the loop, if any: a report's or a keeper's socket.
    registered: Option<i32>,
    /// The service may undo its own containment: said in `status`.
    owner: bool,
    /// It was told to stand still at least once.
    frost: bool,
    /// What the roster says of it, with the [`birth`] of the main process.
    vouched: Option<(Living, u64)>,
    /// Those of whom it was said that they keep it from ending.
    pub(super) tracers: HashSet<i32>,
}

#[derive(Debug)]
pub(super) enum On {
    Cgroup(Cage),
    Keeper(Box<Ward>),
}

impl On {
    /// When [`Containment::tick`] has something to do for it.
    fn next_look(&self) -> Option<Tick> {
        match self {
            Self::Cgroup(cage) => cage.next_look(),
            Self::Keeper(ward) if ward.over => None,
            Self::Keeper(ward) => {
                ward.retry.or(ward.lost.as_ref().map(|lost| lost.retry)).map(|retry| retry.next)
            }
        }
    }

    /// It was killed so long ago, half a second to a second, that something keeps it from ending.
    fn is_overdue(&self) -> bool {
        const MANY: u32 = 8;
        let many = |retry: &Retry| retry.tries() >= MANY;
        match self {
            Self::Cgroup(cage) => cage.next_look().is_some() && cage.retry.as_ref().is_some_and(many),
            Self::Keeper(ward) if ward.over => false,
            // The first of these looks comes late.
            Self::Keeper(ward) => {
                ward.retry.is_some_and(|retry| !retry.is_first())
                    || ward.lost.as_ref().is_some_and(|lost| many(&lost.retry))
            }
        }
    }
}

impl Held {
    fn new(id: IncarnationId, on: On, owner: bool) -> Self {
        Self { id, on, registered: None, owner, frost: false, vouched: None, tracers: HashSet::new() }
    }
}

/// Who a child of ours is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// The main process of the slot: on `cgroup` always, on `keeper` after the keeper's loss.
    Main(u32),
    Keeper(u32),
    /// A program beside the main process of the slot.
    Hook(u32),
    ForkServer,
    /// A keeper that has said all, or a hook, and was released: only to be reaped.
    Ending,
}

impl Containment {
    /// Takes possession: the instance's cgroup directory (where `inherited` has it, if lives there are to be taken over),
    /// the keepers' directory, the watch. `tokens` makes the
    /// loop's token from a slot and its generation; the loop hands the same two back to [`Self::ready`].
    ///
    /// # Errors
    /// What the probe found possible and now is not; the message names the path.
    pub fn open(
        report: Report,
        home: Home<'_>,
        inherited: Option<&Predecessor>,
        registry: Registry,
        tokens: fn(u32, u32) -> Token,
    ) -> io::Result<Self> {
        let cgroups = match report.place() {
            None => None,
            Some(place) => {
                let tree = match inherited.and_then(|from| Tree::inherit(from.cgroup.as_ref()?, place)) {
                    Some(tree) => tree,
                    None => Tree::create(place, home.instance, home.controllers)?,
                };
                let watch = Watch::new()?;
                let fd = watch.as_fd().as_raw_fd();
                registry.register(&mut SourceFd(&fd), tokens(0, 0), Interest::READABLE)?;
                Some(Cgroups { tree, watch, leftovers: Vec::new() })
            }
        };
        let keepers = keepers_dir(home.runtime_dir)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut opened = Self {
            tags: report.tags(),
            report,
            instance: home.instance.to_owned(),
            runtime_dir: home.runtime_dir.to_owned(),
            scopes: Scopes::default(),
            own: rustix::process::getpid().as_raw_nonzero().get(),
            registry,
            tokens,
            cgroups,
            made_again: false,
            losses: None,
            forks: Forks::new(home.instance),
            keepers,
            null,
            mounts: Mounts::default(),
            roster: Roster::create(home.runtime_dir)?,
            tagged: 0,
            old_tags: HashSet::new(),
            slots: vec![Slot::default()],
            free: Vec::new(),
            by_id: HashMap::new(),
            by_pid: HashMap::new(),
            others: HashSet::new(),
            orphans: 0,
            farewell: Farewell::Host,
            reaped: Vec::new(),
            due: BinaryHeap::new(),
        };
        opened.know_fork_server();
        Ok(opened)
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// What must not be ended with a predecessor's remains.
    pub(super) fn spared(&self) -> Spared {
        let wards = self.slots.iter().filter_map(|place| match place.held.as_ref().map(|held| &held.on) {
            Some(On::Keeper(ward)) => Some(ward),
            Some(On::Cgroup(_)) | None => None,
        });
        Spared {
            lives: self.by_id.keys().map(ToString::to_string).collect(),
            tags: self.old_tags.clone(),
            // The fork server looks like one that was forked from it.
            keepers: wards.map(|ward| ward.keeper_pid()).chain(self.forks.pid()).collect(),
            tree: self.cgroups.as_ref().map(|cgroups| cgroups.tree.identity().1),
        }
    }

    /// Everything that is to be taken over has been: a successor finds it here.
    ///
    /// # Errors
    /// As rename(2).
    pub fn taken_over(&mut self) -> io::Result<()> {
        self.roster.show()
    }

    fn make_tree_again(&mut self) -> bool {
        let again = self.cgroups.as_mut().is_some_and(|cgroups| cgroups.tree.make_again().unwrap_or(false));
        self.made_again |= again;
        again
    }

    /// Whether what [`Self::predecessor`] says has changed since the last call.
    pub fn was_made_again(&mut self) -> bool {
        std::mem::take(&mut self.made_again)
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The controllers in force, and why one that is there is not.
    pub fn controllers(&self) -> (&[&'static str], Option<&str>) {
        match &self.cgroups {
            Some(cgroups) => (&cgroups.tree.controllers, cgroups.tree.refused.as_deref()),
            None => (&[], None),
        }
    }

    /// What the next supervisor on this state has to know to end all trees of this one.
    pub fn predecessor(&self) -> Predecessor {
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.tree.identity());
        Predecessor::of_this_boot(&self.instance, &self.runtime_dir, cgroup, self.tags)
    }

    /// A child of the daemon that is not held here (the main program): never taken for a lost keeper's orphan.
    pub fn other_child(&mut self, pid: i32) {
        self.others.insert(pid);
    }

    /// Begins an incarnation on `wanted`, or on the report's rung, within `limits`. Never waits: what became of it is an
    /// event. Returns the limits of a cgroup that are not in force.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is held or left behind then, and no event follows.
    pub fn spawn(
        &mut self,
        id: &IncarnationId,
        mut plan: ChildPlan,
        wanted: Option<Rung>,
        limits: &Limits,
    ) -> Result<Vec<NotInForce>, SpawnError> {
        if self.by_id.contains_key(id) {
            return Err(SpawnError::Busy(id.clone()));
        }
        let rung = self.report.choose(wanted)?;
        plan.set_env(MARKER, &self.marker(id))?;
        let slot = self.free_slot();
        let owner = plan.identity.as_ref().is_none_or(|who| who.uid == own_uid());
        self.shield(&mut plan, rung);
        let mut made = self.make(slot, id, &mut plan, rung, limits);
        // Where there are as many directories as there may be, those of lives that are over make room.
        if matches!(made, Err(SpawnError::Cgroup { .. })) && self.remove_leftovers(|_| true) {
            made = self.make(slot, id, &mut plan, rung, limits);
        }
        // Somebody has removed the directory of this instance, which is possible while nothing lives in it.
        if matches!(made, Err(SpawnError::Cgroup { .. })) && self.make_tree_again() {
            made = self.make(slot, id, &mut plan, rung, limits);
        }
        self.know_fork_server();
        match made {
            Ok((on, not_in_force)) => {
                self.hold(slot, Held::new(id.clone(), on, owner));
                Ok(not_in_force)
            }
            Err(error) => {
                self.give_back(slot);
                Err(error)
            }
        }
    }

    /// What runs as the owner of its cgroup could write there: it is to see every mount of cgroup2 read-only, if it cannot
    /// undo that, which takes capabilities.
    pub(super) fn shield(&mut self, plan: &mut ChildPlan, rung: Rung) {
        let owner = plan.identity.as_ref().is_none_or(|who| who.uid == own_uid());
        let powerless = plan.capabilities.is_some_and(|masks| masks.bounding == 0 && masks.ambient == 0);
        if owner && powerless && rung == Rung::Cgroup {
            let writable = self.mounts.now().unwrap_or_default().iter().filter(|mount| !mount.read_only);
            plan.read_only =
                writable.filter_map(|mount| CString::new(mount.point.as_os_str().as_bytes()).ok()).collect();
        }
    }

    pub(super) fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        })
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    pub(super) fn hold(&mut self, slot: u32, held: Held) {
        self.by_id.insert(held.id.clone(), slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.held = Some(held);
        }
        self.register(slot);
    }

    /// A life that was taken over is held from now on.
    pub(super) fn settle_in(&mut self, slot: u32, vouched: &Vouched, on: On) {
        let who = match &on {
            On::Cgroup(cage) => (!cage.is_foreign()).then_some((cage.main_pid, Who::Main(slot))),
            On::Keeper(ward) => (!ward.is_foreign()).then(|| (ward.keeper_pid(), Who::Keeper(slot))),
        };
        self.by_pid.extend(who);
        let owner = tags::uid_of(vouched.living.pid) == Some(own_uid());
        let mut held = Held::new(vouched.id(), on, owner);
        // It may be, and a thaw too many does no harm.
        held.frost = true;
        if self.roster.write(slot, Some(vouched)).is_ok() {
            held.vouched = Some((vouched.living, vouched.born));
        }
        self.old_tags.extend(vouched.tag);
        self.hold(slot, held);
        self.adopt_scopes(&vouched.id());
    }

    /// Writes down that this life may be taken over, as it is now; `None`: no more. A successor ends what it does not find
    /// written, so where that fails nothing is lost but a life that could have gone on.
    pub fn vouch(&mut self, id: &IncarnationId, living: Option<Living>) {
        let Some(slot) = self.by_id.get(id).copied() else { return };
        let Some(held) = self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut()) else {
            return;
        };
        if held.vouched.map(|(living, _)| living) == living {
            return;
        }
        // The number is its own while it is unreaped, by us or by its keeper.
        let (main, tag) = match &held.on {
            On::Cgroup(cage) => (Some(cage.main()), None),
            On::Keeper(ward) => (ward.main(), ward.tag),
        };
        let born = |pid| held.vouched.map_or_else(|| birth(pid, main?), |(_, born)| Some(born));
        let known = living.and_then(|living| Some((living, born(living.pid)?)));
        let vouched = known.map(|(living, born)| Vouched { name: id.name.clone(), living, born, tag });
        held.vouched = self.roster.write(slot, vouched.as_ref()).ok().and(known);
    }

    /// It may be another than before: its end is no orphan's.
    pub(super) fn know_fork_server(&mut self) {
        self.by_pid.extend(self.forks.pid().map(|pid| (pid, Who::ForkServer)));
    }

    fn make(
        &mut self,
        slot: u32,
        id: &IncarnationId,
        plan: &mut ChildPlan,
        rung: Rung,
        limits: &Limits,
    ) -> Result<(On, Vec<NotInForce>), SpawnError> {
        match (rung, &self.cgroups) {
            (Rung::Cgroup | Rung::CgroupPrivate, Some(cgroups)) => {
                let (cage, not_in_force) =
                    Cage::spawn(cgroups.site(slot), &mut self.forks, id, plan, limits)?;
                self.by_pid.insert(cage.main_pid, Who::Main(slot));
                Ok((On::Cgroup(cage), not_in_force))
            }
            _ => {
                self.open_losses();
                let tag = self.next_tag();
                let (null, dir) = (self.null.as_fd(), self.keepers.as_fd());
                let apart = self.report.apart().filter(|_| rung == Rung::Pidns);
                let means = Means { tag, apart, scope: self.report.scoped };
                let ward = Ward::spawn(&mut self.forks, plan, id, means, &self.instance, null, dir)?;
                self.by_pid.insert(ward.keeper_pid(), Who::Keeper(slot));
                Ok((On::Keeper(Box::new(ward)), without_cgroup(rung, limits)))
            }
        }
    }

    /// The next tag by the count, but for those that were taken over and are in its way.
    fn next_tag(&mut self) -> Option<u32> {
        let tags = self.tags?;
        loop {
            let tag = tags.nth(self.tagged);
            self.tagged += 1;
            if !self.old_tags.contains(&tag) || self.old_tags.len() >= tags.count as usize {
                return Some(tag);
            }
        }
    }

    fn register(&mut self, slot: u32) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        let token = (self.tokens)(slot, place.generation);
        let Some(held) = &mut place.held else { return };
        let (fd, interest) = match &held.on {
            On::Cgroup(cage) if cage.is_foreign() => (cage.watched(), Interest::READABLE),
            // Only the hang-up counts: see `sys::spawn::clone::Report`.
            On::Cgroup(cage) => (cage.watched(), Interest::PRIORITY),
            On::Keeper(ward) => (Some(ward.socket()), Interest::READABLE),
        };
        let fd = fd.map(|fd| fd.as_raw_fd());
        held.registered = fd.filter(|fd| self.registry.register(&mut SourceFd(fd), token, interest).is_ok());
        if fd.is_some() && held.registered.is_none() {
            // We would never hear of it (epoll_ctl(2): ENOMEM, ENOSPC): better no service than a deaf one.
            let id = held.id.clone();
            self.kill(&id, Tick::default(), &mut Vec::new());
        }
    }

    /// A descriptor of ours became ready: `slot` and `generation` are those that the token was made of.
    pub fn ready(&mut self, slot: u32, generation: u32, events: &mut Vec<Event>) {
        match (slot, generation) {
            (0, LOSSES) => return self.look_at_losses(events.len(), events),
            (0, _) => return self.cgroups_changed(events),
            _ => {}
        }
        if self.slots.get(slot as usize).is_some_and(|place| place.generation == generation) {
            self.settle(slot, events);
        }
    }

    fn cgroups_changed(&mut self, events: &mut Vec<Event>) {
        let Some(cgroups) = &self.cgroups else { return };
        for slot in cgroups.watch.drain() {
            if !self.scope_changed(slot, events) {
                self.settle(slot, events);
            }
        }
    }

    /// The daemon has reaped a child. Returns whether it was one of ours. [`Self::settle_reaped`] has to follow, once for many.
    pub fn reaped(&mut self, pid: i32, status: i32, events: &mut Vec<Event>) -> bool {
        match self.by_pid.remove(&pid) {
            Some(Who::Main(slot)) => {
                let Some(held) = self.held_at(slot) else { return true };
                match &mut held.on {
                    On::Cgroup(cage) => {
                        cage.reaped(status);
                        self.reaped.push(slot);
                        return true;
                    }
                    On::Keeper(ward) => {
                        // A SIGKILL here is most likely our own and tells nothing about the service.
                        let exit = Exit::from_wait_status(status)
                            .filter(|exit| !matches!(exit, Exit::Signal { signal: Signal::KILL, .. }));
                        let id = held.id.clone();
                        ward.exited(exit.unwrap_or(Exit::Unknown), &id, events);
                    }
                }
                self.settle(slot, events);
                true
            }
            Some(Who::Keeper(slot)) => {
                if let Some(Held { id, on: On::Keeper(ward), .. }) = self.held_at(slot) {
                    ward.keeper_reaped(id, None, events);
                    if let (Some(main), true) = (ward.main_pid, ward.lost.is_some()) {
                        self.by_pid.insert(main, Who::Main(slot));
                    }
                }
                self.settle(slot, events);
                true
            }
            Some(Who::Hook(slot)) => {
                self.hook_reaped(slot, status, events);
                self.settle(slot, events);
                true
            }
            Some(Who::ForkServer) => {
                self.forks.lost(pid);
                self.know_fork_server();
                true
            }
            Some(Who::Ending) => true,
            None => {
                self.others.remove(&pid);
                self.orphans += 1;
                false
            }
        }
    }

    /// How many children of the daemon are ours.
    pub fn children(&self) -> usize {
        self.by_pid.len()
    }

    /// Says what the ends that were reaped since the last call mean. Where they are many and nothing lives in any tree of ours,
    /// which is how a shutdown ends, one look tells that of all of them.
    pub fn settle_reaped(&mut self, events: &mut Vec<Event>) {
        let reaped = std::mem::take(&mut self.reaped);
        let seen_empty = reaped.len() >= WORTH_A_LOOK && self.cgroups.as_ref().is_some_and(Cgroups::is_empty);
        for slot in reaped {
            self.settle_knowing(slot, seen_empty, events);
        }
    }

    /// Looks at one slot again, whatever woke us.
    pub(super) fn settle(&mut self, slot: u32, events: &mut Vec<Event>) {
        self.settle_knowing(slot, false, events);
    }

    fn settle_knowing(&mut self, slot: u32, seen_empty: bool, events: &mut Vec<Event>) {
        let Some(held) = self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut()) else {
            return;
        };
        let said = events.len();
        match (&mut held.on, &self.cgroups) {
            (On::Cgroup(cage), Some(cgroups)) => {
                cage.settle(Site { seen_empty, ..cgroups.site(slot) }, &held.id, events);
                if cage.watched().is_none() {
                    // The report is closed, which took it out of the loop's set; its number may be somebody else's now.
                    held.registered = None;
                }
            }
            (On::Keeper(ward), _) => ward.settle(&held.id, events),
            (On::Cgroup(_), None) => {}
        }
        let new = events.get(said..).unwrap_or_default();
        if new.iter().any(|event| matches!(event, Event::MainExited { exit: Exit::MaybeOom { .. }, .. })) {
            self.look_at_losses(said, events);
        }
        self.after(slot, said, events);
    }

    /// What the kernel has killed in the container, said ahead of the events from `place` on.
    fn look_at_losses(&mut self, place: usize, events: &mut Vec<Event>) {
        if let Some(Some(losses)) = &mut self.losses {
            let kills = losses.more();
            if kills > 0 {
                events.insert(place, Event::Losses { kills });
            }
        }
    }

    /// The kernel tells here what it kills for want of memory in the container as a whole.
    pub fn sees_losses(&self) -> bool {
        matches!(self.losses, Some(Some(_)))
    }

    fn open_losses(&mut self) {
        let tokens = self.tokens;
        let registry = &self.registry;
        self.losses.get_or_insert_with(|| {
            let losses = Losses::open()?;
            let fd = losses.as_fd().as_raw_fd();
            registry.register(&mut SourceFd(&fd), tokens(0, LOSSES), Interest::READABLE).ok()?;
            Some(losses)
        });
    }

    /// Keeps the books after anything may have happened to a slot.
    fn after(&mut self, slot: u32, said: usize, events: &[Event]) {
        let Some(place) = self.slots.get(slot as usize) else { return };
        let Some(held) = &place.held else { return };
        if let Some(next) = held.on.next_look() {
            self.due.push(Reverse((next, slot, place.generation)));
        }
        let new = events.get(said..).unwrap_or_default();
        if new.iter().any(|event| matches!(event, Event::SpawnFailed { .. })) {
            let id = held.id.clone();
            self.release(&id, Tick::default());
        }
    }

    pub(super) fn held_at(&mut self, slot: u32) -> Option<&mut Held> {
        self.slots.get_mut(slot as usize)?.held.as_mut()
    }

    pub(super) fn held(&self, id: &IncarnationId) -> Option<&Held> {
        self.slots.get(*self.by_id.get(id)? as usize)?.held.as_ref()
    }

    /// # Errors
    /// `ESRCH` when it has ended or was never there.
    pub fn signal_main(&self, id: &IncarnationId, signal: Signal) -> io::Result<()> {
        match self.held(id).map(|held| &held.on) {
            Some(On::Cgroup(cage)) => cage.signal_main(signal),
            Some(On::Keeper(ward)) => ward.signal_main(signal),
            None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Every process of the tree, once each; one that is born meanwhile may be missed.
    pub fn signal_tree(&self, id: &IncarnationId, signal: Signal) {
        match (self.held(id).map(|held| &held.on), &self.cgroups) {
            (Some(On::Cgroup(cage)), Some(cgroups)) => cage.signal_tree(&cgroups.tree, signal),
            (Some(On::Keeper(ward)), _) => ward.signal_tree(signal),
            (Some(On::Cgroup(_)) | None, _) => {}
        }
    }

    /// Begins to stop every process of the tree where it is, or to let all go on; [`Event::Frozen`] tells when it is so,
    /// if it was not before. A kill does not care.
    ///
    /// # Errors
    /// What the kernel or the keeper says; `ESRCH` when it has ended.
    pub fn freeze(&mut self, id: &IncarnationId, frozen: bool) -> io::Result<()> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let slot = self.by_id.get(id).copied().ok_or_else(gone)?;
        let held =
            self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut()).ok_or_else(gone)?;
        held.frost |= frozen;
        match (&mut held.on, &self.cgroups) {
            (On::Cgroup(cage), Some(cgroups)) => cage.freeze(cgroups.site(slot), frozen),
            (On::Keeper(ward), _) => ward.freeze(frozen),
            (On::Cgroup(_), None) => Err(gone()),
        }
    }

    /// Lets it go on if it was ever told to stand still: before a signal that it is to act upon.
    pub fn thaw(&mut self, id: &IncarnationId) {
        if self.held(id).is_some_and(|held| held.frost) {
            // One that cannot be thawed can be killed, and that is what follows.
            let _ = self.freeze(id, false);
        }
    }

    /// Whether all of it stands still now.
    pub fn is_frozen(&self, id: &IncarnationId) -> bool {
        match (self.held(id).map(|held| &held.on), &self.cgroups) {
            (Some(On::Cgroup(cage)), Some(cgroups)) => {
                leaf::state(cgroups.tree.as_fd(), cage.leaf()).is_ok_and(|state| state.frozen)
            }
            (Some(On::Keeper(ward)), _) => ward.frozen && ward.lost.is_none(),
            (Some(On::Cgroup(_)) | None, _) => false,
        }
    }

    /// Begins the end of the whole tree; it converges through `ready`, `reaped` and `tick` until `TreeEmpty`.
    pub fn kill(&mut self, id: &IncarnationId, now: Tick, events: &mut Vec<Event>) {
        let Some(slot) = self.by_id.get(id).copied() else { return };
        let said = events.len();
        let Some(held) = self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut()) else {
            return;
        };
        match (&mut held.on, &self.cgroups) {
            (On::Cgroup(cage), Some(cgroups)) => cage.kill(&cgroups.tree, &held.id, now, events),
            (On::Keeper(ward), _) => ward.kill(now),
            (On::Cgroup(_), None) => {}
        }
        self.after(slot, said, events);
    }

    /// Puts other limits of its cgroup into force; returns those that are not.
    pub fn set_limits(&self, id: &IncarnationId, limits: &Limits) -> Vec<NotInForce> {
        match (self.held(id).map(|held| &held.on), &self.cgroups, self.rung(id)) {
            (Some(On::Cgroup(cage)), Some(cgroups), _) => cage.set_limits(&cgroups.tree, limits),
            (_, _, Some(rung)) => without_cgroup(rung, limits),
            _ => Vec::new(),
        }
    }

    /// As [`Self::kill`], where the reason is that one of it was killed for want of memory.
    pub fn end_for_memory(&mut self, id: &IncarnationId, now: Tick, events: &mut Vec<Event>) {
        let Some(slot) = self.by_id.get(id).copied() else { return };
        let said = events.len();
        let held = self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut());
        if let (Some(Held { on: On::Cgroup(cage), .. }), Some(cgroups)) = (held, &self.cgroups) {
            cage.end_for_memory(&cgroups.tree, id, now, events);
        }
        self.after(slot, said, events);
    }

    /// When [`Self::tick`] and [`Self::tidy`] want to be called; `None`: only when something else happens.
    pub fn next_deadline(&mut self) -> Option<Tick> {
        while let Some(Reverse((at, slot, generation))) = self.due.peek().copied() {
            if self.wants(slot, generation, at) {
                break;
            }
            self.due.pop();
        }
        let slots = self.due.peek().map(|Reverse((at, ..))| *at);
        let leftovers =
            self.cgroups.iter().flat_map(|cgroups| &cgroups.leftovers).map(|(_, retry)| retry.next);
        leftovers.chain(slots).chain(self.scopes_deadline()).min()
    }

    fn wants(&self, slot: u32, generation: u32, at: Tick) -> bool {
        let Some(place) = self.slots.get(slot as usize).filter(|place| place.generation == generation) else {
            return false;
        };
        place.held.as_ref().and_then(|held| held.on.next_look()) == Some(at)
    }

    /// What time brings: the next look at killed trees.
    pub fn tick(&mut self, now: Tick, events: &mut Vec<Event>) {
        while let Some(Reverse((at, slot, generation))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            if self.wants(slot, generation, at) {
                self.tick_slot(slot, now, events);
            }
        }
        self.tick_scopes(now, events);
    }

    /// Removes what is left of lives that are over, as far as that can be done now, and some at a time. To be called before
    /// whoever calls waits, after whatever is more urgent.
    pub fn tidy(&mut self, now: Tick) {
        let mut left = REMOVED_AT_ONCE;
        self.remove_leftovers(|retry| {
            let wanted = left > 0 && retry.due(now);
            left -= usize::from(wanted);
            wanted
        });
    }

    fn remove_leftovers(&mut self, mut wanted: impl FnMut(&mut Retry) -> bool) -> bool {
        let Some(Cgroups { tree, leftovers, .. }) = &mut self.cgroups else { return false };
        let before = leftovers.len();
        leftovers.retain_mut(|(name, retry)| !wanted(retry) || leaf::remove(tree.as_fd(), name).is_err());
        leftovers.len() < before
    }

    fn tick_slot(&mut self, slot: u32, now: Tick, events: &mut Vec<Event>) {
        let said = events.len();
        let marker = self.held_at(slot).map(|held| held.id.clone()).map(|id| self.marker(&id));
        let Some(held) = self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut()) else {
            return;
        };
        let foreign = matches!(&held.on, On::Keeper(ward) if ward.is_foreign());
        match (&mut held.on, &self.cgroups) {
            (On::Cgroup(cage), Some(cgroups)) => cage.tick(cgroups.site(slot), &held.id, now, events),
            (On::Keeper(ward), _) => match &mut ward.lost {
                None => ward.tick(&held.id, now, events),
                Some(lost) => {
                    let sought = Sought {
                        tag: ward.tag,
                        same_uid: ward.same_uid,
                        marker: marker.as_deref().unwrap_or_default(),
                        keeper_started: ward.keeper_started,
                        foreign,
                    };
                    let (by_pid, others, main) = (&self.by_pid, &self.others, ward.main_pid);
                    let known =
                        |pid: i32| others.contains(&pid) || (main != Some(pid) && by_pid.contains_key(&pid));
                    if lost.retry.due(now) && lost.look(self.own, sought, &known, self.orphans) {
                        ward.finish(&held.id, events);
                    }
                }
            },
            (On::Cgroup(_), None) => {}
        }
        if held.on.is_overdue() {
            self.end_tracers(slot, events);
        }
        self.after(slot, said, events);
    }

    /// Lets go of an incarnation whose `TreeEmpty` was said. Its directory goes [`LATER`], when it is [tidied](Self::tidy), and is
    /// tried again while the kernel calls it busy.
    pub fn release(&mut self, id: &IncarnationId, now: Tick) {
        self.release_scopes(id);
        let Some(slot) = self.by_id.remove(id) else { return };
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        place.generation = place.generation.wrapping_add(1);
        let Some(held) = place.held.take() else { return };
        if held.vouched.is_some() {
            // It is over: a successor finds nothing to take over under its numbers, whatever is written.
            let _ = self.roster.write(slot, None);
        }
        if let Some(fd) = held.registered {
            let _ = self.registry.deregister(&mut SourceFd(&fd));
        }
        self.free.push(slot);
        match (held.on, &mut self.cgroups) {
            (On::Cgroup(cage), Some(cgroups)) => {
                if let Some(hook) = &cage.hook {
                    // Of remains that were given up.
                    self.by_pid.insert(hook.child.pid, Who::Ending);
                }
                match self.farewell {
                    Farewell::Host => cgroups.leftovers.push((cage.release(), Retry::first(now, LATER))),
                    Farewell::Container => {}
                }
            }
            (On::Keeper(ward), _) => {
                // A process that was not ours to reap may have left its number to another.
                if let Some(main) = ward.main_pid
                    && matches!(self.by_pid.get(&main), Some(Who::Main(of)) if *of == slot)
                {
                    self.by_pid.remove(&main);
                }
                if let Some(tag) = ward.tag {
                    self.old_tags.remove(&tag);
                }
                if let Some(who) = self.by_pid.get_mut(&ward.keeper_pid())
                    && matches!(*who, Who::Keeper(of) if of == slot)
                {
                    *who = Who::Ending;
                }
            }
            (On::Cgroup(_), None) => {}
        }
    }

    /// The live processes of the tree, for people.
    pub fn processes(&self, id: &IncarnationId) -> Vec<i32> {
        match (self.held(id).map(|held| &held.on), &self.cgroups) {
            (Some(On::Cgroup(cage)), Some(cgroups)) => cage.processes(&cgroups.tree),
            (Some(On::Keeper(ward)), _) => ward.processes(),
            (Some(On::Cgroup(_)) | None, _) => Vec::new(),
        }
    }

    /// The processes of the tree with what /proc says of each, `most` at most; and how many were not looked at.
    pub fn members(&self, id: &IncarnationId, most: usize) -> (Vec<ProcessInfo>, usize) {
        let pids = self.processes(id);
        let mut scopes = self.scopes_of(id);
        let left_out = pids.len().saturating_sub(most);
        let members = pids.into_iter().take(most).filter_map(|pid| usage::describe(pid, scopes.remove(&pid)));
        (members.collect(), left_out)
    }

    /// Those of the tree that hang in the kernel or are held by a tracer: why a killed tree does not end.
    pub fn stuck(&self, id: &IncarnationId) -> Vec<Stuck> {
        let mut stuck = usage::stuck(&self.processes(id));
        stuck.extend(self.traced(id).into_iter().map(Stuck::Traced));
        stuck
    }

    pub fn usage(&self, id: &IncarnationId) -> Usage {
        let pids = self.processes(id);
        let summed = || Some(usage::resident(&pids));
        match (self.held(id).map(|held| &held.on), &self.cgroups) {
            (Some(On::Cgroup(cage)), Some(cgroups)) => {
                let tree = cgroups.tree.path();
                let at = cgroups.tree.as_fd();
                let (current, peak) = stats::memory(at, cage.leaf());
                Usage {
                    procs: pids.len(),
                    memory_bytes: current.or_else(summed),
                    memory_peak_bytes: peak,
                    cpu_ms: stats::cpu_ms(tree, cage.leaf()),
                    io: stats::io(at, cage.leaf()),
                    pressure: stats::pressure(at, cage.leaf()),
                    oom_kills: cage.oom_kills(),
                }
            }
            (Some(On::Keeper(_)), _) => Usage {
                procs: pids.len(),
                memory_bytes: summed(),
                memory_peak_bytes: None,
                cpu_ms: Some(usage::cpu_ms(&pids)),
                ..Usage::default()
            },
            (Some(On::Cgroup(_)) | None, _) => Usage::default(),
        }
    }

    /// The rung that holds this incarnation.
    pub fn rung(&self, id: &IncarnationId) -> Option<Rung> {
        self.held(id).map(|held| match &held.on {
            On::Cgroup(_) if self.is_private() => Rung::CgroupPrivate,
            On::Cgroup(_) => Rung::Cgroup,
            On::Keeper(ward) if ward.is_init => Rung::Pidns,
            On::Keeper(ward) if ward.same_uid => Rung::KeeperSameUid,
            On::Keeper(_) => Rung::Keeper,
        })
    }

    /// What is weaker than the rung promises for this service; `None`: nothing.
    pub fn weakness(&self, id: &IncarnationId) -> Option<&'static str> {
        let held = self.held(id)?;
        match &held.on {
            // Nothing keeps it from doing what we did.
            On::Cgroup(_) if held.owner && self.is_private() => Some(
                "it runs as the owner of its cgroup: a hostile service can mount cgroup2 itself and move out",
            ),
            On::Cgroup(cage) if held.owner && !cage.sees_cgroups_read_only() => {
                Some("it runs as the owner of its cgroup: a hostile service can move itself out")
            }
            On::Keeper(ward) if ward.lost.is_some() => Some("its keeper was killed"),
            On::Keeper(ward) if ward.is_init => None,
            On::Keeper(ward) if ward.same_uid && !ward.scoped => {
                Some("a hostile service can kill its keeper")
            }
            On::Cgroup(_) | On::Keeper(_) => None,
        }
    }

    /// The mount with our trees is one that only we see.
    fn is_private(&self) -> bool {
        self.report.place().is_some_and(|place| place.private.is_some())
    }

    /// Whether our cgroup is removed with all below it when we end, as a container's is.
    pub fn ends_with_us(&self) -> bool {
        self.cgroups.as_ref().is_some_and(|cgroups| cgroups.tree.goes_with_us())
    }

    /// All lives end, and then we do. The fork server ends now, as few processes are still to be made.
    pub fn begin_to_close(&mut self, farewell: Farewell) {
        self.farewell = farewell;
        self.forks.end();
    }

    /// At the very end: removes what is empty. What is not stays for the successor to find, but for the roster, by which it
    /// would know that we did not end in order.
    pub fn close(&mut self) {
        self.roster.remove();
        if let (Farewell::Host, Some(Cgroups { tree, leftovers, .. })) = (self.farewell, &mut self.cgroups) {
            leftovers.retain(|(name, _)| leaf::remove(tree.as_fd(), name).is_err());
            let _ = tree.remove();
        }
        let _ = rustix::fs::rmdir(keepers_path(&self.runtime_dir));
    }

    pub(super) fn marker(&self, id: &IncarnationId) -> String {
        format!("{}:{id}", self.instance)
    }
}

/// Limits that only a cgroup could enforce, on a rung without one.
fn without_cgroup(rung: Rung, limits: &Limits) -> Vec<NotInForce> {
    let why = || {
        format!("containment '{rung}' has no cgroup for it ('hermes-sup doctor' tells what would give one)")
    };
    let of_cgroups = limits.iter().filter(|(key, _)| matches!(key.enforcer(), Enforcer::Controller(_)));
    of_cgroups.map(|(key, value)| NotInForce { key, value, why: why() }).collect()
}

/// Where keepers without a supervisor listen.
pub(super) fn keepers_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("keepers")
}

/// Makes and opens it: mode 0700, ours.
pub(super) fn keepers_dir(runtime_dir: &Path) -> io::Result<OwnedFd> {
    let path = keepers_path(runtime_dir);
    let named = |error: rustix::io::Errno| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(named(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(named)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
