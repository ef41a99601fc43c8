//! The front of the room: the slots of all lives that are held, the children that belong to them, their deadlines, and the
//! queue of events. What a life is made of is the business of its rung ([`Held`]).
//!
//! Something can happen to a life in four ways: a descriptor ([`Containment::ready`]), a reaped child
//! ([`Containment::reaped`]), time ([`Containment::tick`]) and orders. Each costs the same whether one life or a thousand are held.
//! What happened is taken with [`Containment::next_event`].

use super::event::{Event, EventQueue};
use super::held::{Family, Held, Look, Mechanism, Watcher};
use super::ladder::{Ground, Report};
use super::scopes::Scopes;
use super::spawner::Spawner;
use super::succession::Recorded;
use super::succession::predecessor::Predecessor;
use super::succession::record::AdoptionRecords;
use super::{IncarnationId, Rung};
use crate::core::clock::Tick;
use crate::core::farewell::Farewell;
use foldhash::{HashMap, HashMapExt};
use mio::{Registry, Token};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// From how many ends on one look at all trees together, which may be in vain, takes the place of one at each.
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
    pub(super) report: Report,
    pub(super) instance: String,
    pub(super) runtime_dir: PathBuf,
    pub(super) watcher: Watcher,
    /// Of each rung that works here, and last the one that adopts what no other holds.
    pub(super) mechanisms: Vec<(Rung, Rc<dyn Mechanism>)>,
    pub(super) scopes: Scopes,
    pub(super) spawner: Spawner,
    pub(super) records: AdoptionRecords,
    pub(super) events: EventQueue,
    /// Slot 0 is that of the mechanisms' own descriptors; its entry stays empty.
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    pub(super) by_id: HashMap<IncarnationId, u32>,
    by_pid: HashMap<i32, Child>,
    /// Children of the daemon that belong to no life.
    others: HashSet<i32>,
    orphans: u64,
    /// What becomes of the directories of lives that are over.
    farewell: Farewell,
    /// Lives of which a child was reaped, and that have not been looked at since.
    reaped: Vec<u32>,
    due: BinaryHeap<Reverse<(Tick, u32, u32)>>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: u32,
    pub(super) held: Option<Box<dyn Held>>,
    /// The descriptor registered with the loop, if any.
    registered: Option<i32>,
    /// It was told to stand still at least once.
    pub(super) was_frozen: bool,
    /// What its adoption record says.
    pub(super) recorded: Option<Recorded>,
    /// Tracers of which it was said that they keep it from ending.
    tracers: BTreeSet<i32>,
}

/// Whose a child of ours is.
#[derive(Debug, Clone, Copy)]
enum Child {
    /// Of the life in this slot.
    Of(u32),
    ForkServer,
    /// Of a life that was released: only to be reaped.
    Released,
}

impl Containment {
    /// Takes possession of what the probe found (where `inherited` has it, if lives there are to be taken over). `tokens` makes
    /// the loop's token from a slot and its generation; the loop hands the same two back to [`Self::ready`].
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
        Self::open_with(report, home, inherited, registry, tokens, Spawner::new(home.instance))
    }

    pub(super) fn open_with(
        report: Report,
        home: Home<'_>,
        inherited: Option<&Predecessor>,
        registry: Registry,
        tokens: fn(u32, u32) -> Token,
        spawner: Spawner,
    ) -> io::Result<Self> {
        let watcher = Watcher::new(registry, tokens);
        let mechanisms = Ground::new(home, inherited, &watcher)?.open(&report)?;
        let mut opened = Self {
            report,
            instance: home.instance.to_owned(),
            runtime_dir: home.runtime_dir.to_owned(),
            watcher,
            mechanisms,
            scopes: Scopes::default(),
            spawner,
            records: AdoptionRecords::create(home.runtime_dir)?,
            events: EventQueue::default(),
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

    /// The next of the events that have happened and were not taken yet, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    pub(super) fn mechanisms(&self) -> impl Iterator<Item = &dyn Mechanism> {
        self.mechanisms.iter().map(|(_, mechanism)| &**mechanism)
    }

    // ---- slots ----

    pub(super) fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        })
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    pub(super) fn hold(&mut self, number: u32, held: Box<dyn Held>) {
        let id = held.id().clone();
        self.by_id.insert(id.clone(), number);
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let watched = held.watched().map(|(fd, interest)| {
            self.watcher.add(fd, number, slot.generation, interest).map(|()| fd.as_raw_fd())
        });
        let deaf = matches!(watched, Some(Err(_)));
        slot.registered = watched.and_then(Result::ok);
        slot.held = Some(held);
        self.know_children(number);
        if deaf {
            // We would never hear of it (epoll_ctl(2): ENOMEM, ENOSPC): better no service than one that is not watched.
            self.kill(&id, Tick::default());
        }
    }

    pub(super) fn slot(&self, id: &IncarnationId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub(super) fn held_in(&self, slot: u32) -> Option<&dyn Held> {
        self.slots.get(slot as usize)?.held.as_deref()
    }

    pub(super) fn held(&self, id: &IncarnationId) -> Option<&dyn Held> {
        self.held_in(self.slot(id)?)
    }

    /// The life that has this child of ours.
    pub(super) fn held_by_child(&self, pid: i32) -> Option<&dyn Held> {
        match self.by_pid.get(&pid)? {
            Child::Of(slot) => self.held_in(*slot),
            Child::ForkServer | Child::Released => None,
        }
    }

    /// Nothing was said yet of this tracer of a life.
    pub(super) fn is_first_word_of(&mut self, slot: u32, tracer: i32) -> bool {
        self.slots.get_mut(slot as usize).is_some_and(|slot| slot.tracers.insert(tracer))
    }

    // ---- children ----

    /// A child of the daemon that is not held here (the main program): never taken for a lost keeper's orphan.
    pub fn other_child(&mut self, pid: i32) {
        self.others.insert(pid);
    }

    /// How many children of the daemon are ours.
    pub fn children(&self) -> usize {
        self.by_pid.len()
    }

    /// Whether this child of the daemon is one of those.
    pub fn has_child(&self, pid: i32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    pub(super) fn know_children(&mut self, slot: u32) {
        let children = self.held_in(slot).map(Held::children).unwrap_or_default();
        self.by_pid.extend(children.into_iter().flatten().map(|pid| (pid, Child::Of(slot))));
    }

    /// It may be another than before: its end is no orphan's.
    pub(super) fn know_fork_server(&mut self) {
        self.by_pid.extend(self.spawner.pid().map(|pid| (pid, Child::ForkServer)));
    }

    /// The daemon has reaped a child. Returns whether it was one of ours. [`Self::settle_reaped`] has to follow, once for many.
    pub fn reaped(&mut self, pid: i32, status: i32, now: Tick) -> bool {
        match self.by_pid.remove(&pid) {
            Some(Child::Of(number)) => {
                if let Some(held) = self.slots.get_mut(number as usize).and_then(|slot| slot.held.as_mut()) {
                    held.reaped(pid, status, now, &mut self.events);
                    self.know_children(number);
                    self.reaped.push(number);
                }
                true
            }
            Some(Child::ForkServer) => {
                self.spawner.lost(pid);
                self.know_fork_server();
                true
            }
            Some(Child::Released) => true,
            None => {
                self.others.remove(&pid);
                self.orphans += 1;
                false
            }
        }
    }

    /// Says what the ends that were reaped since the last call mean. Where they are many and nothing lives in any tree of ours,
    /// which is how a shutdown ends, one look tells that of all of them.
    pub fn settle_reaped(&mut self, now: Tick) {
        let reaped = std::mem::take(&mut self.reaped);
        let all_empty = reaped.len() >= WORTH_A_LOOK && self.mechanisms().any(Mechanism::is_empty);
        for slot in reaped {
            self.settle(slot, Look { now, all_empty });
        }
    }

    // ---- what happens ----

    /// A descriptor of ours became ready: `slot` and `generation` are those that the token was made of.
    pub fn ready(&mut self, slot: u32, generation: u32, now: Tick) {
        let look = Look { now, all_empty: false };
        if slot == 0 {
            for (_, mechanism) in self.mechanisms.clone() {
                for slot in mechanism.ready(generation, now, &mut self.events) {
                    if !self.scopes.changed(slot, &mut self.events) {
                        self.settle(slot, look);
                    }
                }
            }
        } else if self.slots.get(slot as usize).is_some_and(|place| place.generation == generation) {
            self.settle(slot, look);
        }
    }

    /// Looks at one slot again, whatever woke us.
    fn settle(&mut self, number: u32, look: Look) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(held) = &mut slot.held else { return };
        held.settle(look, &mut self.events);
        if held.watched().is_none() {
            // It is closed, which took it out of the loop's set; its number may be another descriptor's now.
            slot.registered = None;
        }
        self.after(number);
    }

    /// Keeps the books after anything may have happened to a slot.
    pub(super) fn after(&mut self, number: u32) {
        let Some(slot) = self.slots.get(number as usize) else { return };
        let Some(held) = &slot.held else { return };
        if let Some(next) = held.next_look() {
            self.due.push(Reverse((next, number, slot.generation)));
        }
        if held.has_failed() {
            let id = held.id().clone();
            self.release(&id, Tick::default());
        }
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
        let tidying = self.mechanisms().filter_map(Mechanism::next_deadline).min();
        [slots, tidying, self.scopes.next_deadline()].into_iter().flatten().min()
    }

    fn wants(&self, slot: u32, generation: u32, at: Tick) -> bool {
        let slot = self.slots.get(slot as usize).filter(|slot| slot.generation == generation);
        slot.and_then(|slot| slot.held.as_ref()).and_then(|held| held.next_look()) == Some(at)
    }

    /// What time brings: the next look at killed trees.
    pub fn tick(&mut self, now: Tick) {
        while let Some(Reverse((at, slot, generation))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            if self.wants(slot, generation, at) {
                self.tick_slot(slot, now);
            }
        }
        self.scopes.tick(now, &mut self.events);
    }

    fn tick_slot(&mut self, number: u32, now: Tick) {
        let Some(held) = self.slots.get_mut(number as usize).and_then(|slot| slot.held.as_mut()) else {
            return;
        };
        let (by_pid, others) = (&self.by_pid, &self.others);
        let known = |pid: i32| others.contains(&pid) || by_pid.contains_key(&pid);
        let family = Family { known: &known, orphans: self.orphans };
        held.tick(now, &family, &mut self.events);
        let overdue = held.is_overdue();
        if overdue {
            self.end_tracers(number);
        }
        self.after(number);
    }

    /// Removes what is left of lives that are over, as far as that can be done now, and some at a time. To be called before
    /// the loop waits, after whatever is more urgent. `hurries`: it will not wait, and only what has become too much is removed.
    pub fn tidy(&mut self, now: Tick, hurries: bool) {
        self.mechanisms().for_each(|mechanism| mechanism.tidy(now, hurries));
    }

    // ---- the end ----

    /// Lets go of an incarnation whose `TreeEmpty` was said, or whose remains are given up. What is left of it on disk goes later,
    /// when it is [tidied](Self::tidy).
    pub fn release(&mut self, id: &IncarnationId, now: Tick) {
        self.scopes.release(id);
        let Some(number) = self.by_id.remove(id) else { return };
        let Some(place) = self.slots.get_mut(number as usize) else { return };
        let generation = place.generation.wrapping_add(1);
        let slot = std::mem::replace(place, Slot { generation, ..Slot::default() });
        let Some(held) = slot.held else { return };
        if slot.recorded.is_some() {
            // It is over: a successor finds nothing to take over under its numbers, whatever is written.
            let _ = self.records.write(number, None);
        }
        if let Some(fd) = slot.registered {
            self.watcher.remove(fd);
        }
        for pid in held.children().into_iter().flatten() {
            self.by_pid.insert(pid, Child::Released);
        }
        held.release(now, self.farewell);
        self.free.push(number);
    }

    /// Whether our cgroup is removed with all below it when we end, as a container's is.
    pub fn ends_with_us(&self) -> bool {
        self.mechanisms().any(Mechanism::ends_with_us)
    }

    /// All lives end, and then we do. The fork server ends now, as few processes are still to be made.
    pub fn begin_to_close(&mut self, farewell: Farewell) {
        self.farewell = farewell;
        self.spawner.end();
    }

    /// At the very end: removes what is empty. What is not stays for the successor to find, but for the adoption records, which
    /// would tell it that we did not end in order.
    pub fn close(&mut self) {
        self.records.remove();
        self.mechanisms().for_each(|mechanism| mechanism.close(self.farewell));
    }
}
