//! The front of the room: the slots of all lives that are held, the children that belong to them, their deadlines, and the
//! queue of events. What a life is made of is the business of its rung ([`Held`]).
//!
//! Something can happen to a life in four ways: a descriptor ([`Containment::ready`]), a reaped child
//! ([`Containment::reaped`]), time ([`Containment::tick`]) and orders. Each costs the same whether one life or a thousand are held.
//! What happened is taken with [`Containment::next_event`].

use super::event::{Event, EventQueue, HookError, SpawnError};
use super::held::{Birth, Family, Held, Look, Mechanism, Watcher};
use super::ladder::{Ground, Report};
use super::processes::{MARKER, marker};
use super::scopes::Scopes;
use super::spawner::Spawner;
use super::succession::adopt::birth;
use super::succession::predecessor::{Predecessor, Spared};
use super::succession::record::{AdoptionRecord, AdoptionRecords};
use super::{IncarnationId, Rung};
use crate::core::clock::Tick;
use crate::core::farewell::Farewell;
use crate::core::gateway::Living;
use crate::core::limits::{Limits, NotInForce};
use crate::core::signal::Signal;
use crate::sys::spawn::plan::ChildPlan;
use mio::{Registry, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
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
    report: Report,
    instance: String,
    runtime_dir: PathBuf,
    pub(super) watcher: Watcher,
    /// Of each rung that works here, and last the one that adopts what no other holds.
    mechanisms: Vec<(Rung, Rc<dyn Mechanism>)>,
    pub(super) scopes: Scopes,
    pub(super) spawner: Spawner,
    records: AdoptionRecords,
    pub(super) events: EventQueue,
    /// Slot 0 is that of the mechanisms' own descriptors; its entry stays empty.
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashMap<IncarnationId, u32>,
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
    was_frozen: bool,
    /// What its adoption record says, with the [`birth`] of the main process.
    recorded: Option<(Living, u64)>,
    /// Tracers of which it was said that they keep it from ending.
    tracers: HashSet<i32>,
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
        let watcher = Watcher::new(registry, tokens);
        let mechanisms = Ground::new(home, inherited, &watcher)?.open(&report)?;
        let mut opened = Self {
            report,
            instance: home.instance.to_owned(),
            runtime_dir: home.runtime_dir.to_owned(),
            watcher,
            mechanisms,
            scopes: Scopes::default(),
            spawner: Spawner::new(home.instance),
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

    // ---- from one supervisor to the next ----

    /// What must not be ended with a predecessor's remains.
    pub(super) fn spared(&self) -> Spared {
        let mut spared = Spared::default();
        // The fork server looks like one that was forked from it.
        spared.keepers.extend(self.spawner.pid());
        self.mechanisms().for_each(|mechanism| mechanism.spare(&mut spared));
        self.slots.iter().filter_map(|slot| slot.held.as_ref()).for_each(|held| held.spare(&mut spared));
        spared
    }

    /// Everything that is to be taken over has been: a successor finds it here.
    ///
    /// # Errors
    /// As rename(2).
    pub fn taken_over(&mut self) -> io::Result<()> {
        self.records.show()
    }

    /// Whether what [`Self::predecessor`] says has changed since the last call.
    pub fn was_made_again(&mut self) -> bool {
        self.mechanisms().any(Mechanism::was_made_again)
    }

    /// What the next supervisor on this state has to know to end all trees of this one.
    pub fn predecessor(&self) -> Predecessor {
        let mut note = Predecessor::of_this_boot(&self.instance, &self.runtime_dir);
        self.mechanisms().for_each(|mechanism| mechanism.describe(&mut note));
        note
    }

    /// Writes down that this life may be taken over, as it is now; `None`: no more. A successor ends a life without a record, so
    /// where writing fails nothing is lost but a life that could have gone on.
    pub fn record(&mut self, id: &IncarnationId, living: Option<Living>) {
        let Some(number) = self.slot(id) else { return };
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(held) = &slot.held else { return };
        if slot.recorded.map(|(living, _)| living) == living {
            return;
        }
        // The number is its own while it is unreaped, by us or by its keeper.
        let born = |pid| slot.recorded.map_or_else(|| birth(pid, held.main()?), |(_, born)| Some(born));
        let known = living.and_then(|living| Some((living, born(living.pid)?)));
        let tag = held.tag();
        let record = known.map(|(living, born)| AdoptionRecord { name: id.name.clone(), living, born, tag });
        slot.recorded = self.records.write(number, record.as_ref()).ok().and(known);
    }

    /// A life that was taken over is held from now on.
    pub(super) fn hold_adopted(&mut self, number: u32, record: &AdoptionRecord, held: Box<dyn Held>) {
        if let Some(slot) = self.slots.get_mut(number as usize) {
            // It may have been, and a thaw too many does no harm.
            slot.was_frozen = true;
            if self.records.write(number, Some(record)).is_ok() {
                slot.recorded = Some((record.living, record.born));
            }
        }
        self.hold(number, held);
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

    fn hold(&mut self, number: u32, held: Box<dyn Held>) {
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

    fn know_children(&mut self, slot: u32) {
        let children = self.held_in(slot).map(Held::children).unwrap_or_default();
        self.by_pid.extend(children.into_iter().flatten().map(|pid| (pid, Child::Of(slot))));
    }

    /// It may be another than before: its end is no orphan's.
    fn know_fork_server(&mut self) {
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
    fn after(&mut self, number: u32) {
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
    /// the loop waits, after whatever is more urgent.
    pub fn tidy(&mut self, now: Tick) {
        self.mechanisms().for_each(|mechanism| mechanism.tidy(now));
    }

    // ---- orders ----

    /// Begins an incarnation on `wanted`, or on the report's rung, within `limits`. What became of it is an event. Returns the
    /// limits of a cgroup that are not in force. May wait for a fork server that was stopped, see `spawner.rs`.
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
        plan.set_env(MARKER, &marker(&self.instance, id))?;
        let slot = self.free_slot();
        let spawner = &mut self.spawner;
        let birth = Birth { slot, id, plan: &mut plan, limits, spawner, watcher: &self.watcher };
        let mechanism = self.mechanisms.iter().find(|(of, _)| *of == rung).map(|(_, mechanism)| mechanism);
        let made = mechanism.map(|mechanism| mechanism.spawn(birth));
        self.know_fork_server();
        match made.unwrap_or_else(|| Err(SpawnError::Rung(rung, super::ladder::Refusal::NotTried))) {
            Ok((held, not_in_force)) => {
                self.hold(slot, held);
                Ok(not_in_force)
            }
            Err(error) => {
                self.give_back(slot);
                Err(error)
            }
        }
    }

    /// Runs a hook in the incarnation: a program of the service beside its main process, because something happened to it. It is
    /// within the limits of the tree and ends with it, and the incarnation is not empty while it lives. One at a time for each
    /// incarnation, so that one that hangs does not become many. Only on the cgroup rungs, where a child of ours can be born into
    /// a tree. How it went is [`Event::HookEnded`]. May wait as [`Self::spawn`].
    ///
    /// # Errors
    /// [`HookError`]; no event follows then.
    pub fn run_hook(&mut self, id: &IncarnationId, mut plan: ChildPlan) -> Result<(), HookError> {
        plan.set_env(MARKER, &marker(&self.instance, id))?;
        let number = self.slot(id).ok_or(HookError::Ending)?;
        let held = self.slots.get_mut(number as usize).and_then(|slot| slot.held.as_mut());
        held.ok_or(HookError::Ending)?.run_hook(&mut self.spawner, &mut plan)?;
        self.know_fork_server();
        self.know_children(number);
        Ok(())
    }

    /// # Errors
    /// `ESRCH` when it has ended or was never there.
    pub fn signal_main(&self, id: &IncarnationId, signal: Signal) -> io::Result<()> {
        self.held(id).ok_or_else(gone)?.signal_main(signal)
    }

    /// Every process of the tree, once each; one that is born meanwhile may be missed.
    pub fn signal_tree(&self, id: &IncarnationId, signal: Signal) {
        if let Some(held) = self.held(id) {
            held.signal_tree(signal);
        }
    }

    /// Begins to stop every process of the tree where it is, or to let all go on; [`Event::Frozen`] tells when it is so,
    /// if it was not before. A kill ends a frozen tree like any other.
    ///
    /// # Errors
    /// What the kernel or the keeper says; `ESRCH` when it has ended.
    pub fn freeze(&mut self, id: &IncarnationId, frozen: bool) -> io::Result<()> {
        let slot = self.slot(id).and_then(|slot| self.slots.get_mut(slot as usize)).ok_or_else(gone)?;
        let held = slot.held.as_mut().ok_or_else(gone)?;
        slot.was_frozen |= frozen;
        held.freeze(frozen)
    }

    /// Lets it go on if it was ever told to stand still: before a signal that it is to act upon.
    pub fn thaw(&mut self, id: &IncarnationId) {
        let slot = self.slot(id).and_then(|slot| self.slots.get(slot as usize));
        if slot.is_some_and(|slot| slot.was_frozen) {
            // One that cannot be thawed can be killed, and that is what follows.
            let _ = self.freeze(id, false);
        }
    }

    /// Whether all of it stands still now.
    pub fn is_frozen(&self, id: &IncarnationId) -> bool {
        self.held(id).is_some_and(Held::is_frozen)
    }

    /// Begins the end of the whole tree; it converges through `ready`, `reaped` and `tick` until `TreeEmpty`.
    pub fn kill(&mut self, id: &IncarnationId, now: Tick) {
        self.order(id, |held, events| held.kill(now, events));
    }

    /// As [`Self::kill`], because the OOM killer has killed one of its processes.
    pub fn end_for_oom(&mut self, id: &IncarnationId, now: Tick) {
        self.order(id, |held, events| held.end_for_oom(now, events));
    }

    fn order(&mut self, id: &IncarnationId, what: impl FnOnce(&mut dyn Held, &mut EventQueue)) {
        let Some(number) = self.slot(id) else { return };
        if let Some(held) = self.slots.get_mut(number as usize).and_then(|slot| slot.held.as_deref_mut()) {
            what(held, &mut self.events);
            self.after(number);
        }
    }

    /// Puts other limits of its cgroup into force; returns those that are not.
    pub fn set_limits(&self, id: &IncarnationId, limits: &Limits) -> Vec<NotInForce> {
        self.held(id).map(|held| held.set_limits(limits)).unwrap_or_default()
    }

    /// The rung that holds this incarnation.
    pub fn rung(&self, id: &IncarnationId) -> Option<Rung> {
        self.held(id).map(Held::rung)
    }

    /// What is weaker than the rung promises for this service; `None`: nothing.
    pub fn weakness(&self, id: &IncarnationId) -> Option<&'static str> {
        self.held(id)?.weakness()
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

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}
