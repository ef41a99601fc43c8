//! All services together: who waits for whom, who stops before whom, and what is due next. Pure, like `gateway`.
//!
//! * `after` is order only: a service waits while the other one is starting.
//! * `requires` is order, too. Also, a start is refused while the required service is down, and its stop stops the service. A
//!   crash of a required service that restarts by itself stops nobody.
//! * Shutdown has the reverse order: a service is asked to end when everything that comes after it is gone. Services that do
//!   not depend on each other end in parallel.
//!
//! `order.rs` decides by these rules, `turns.rs` how many may start at a time.

mod order;
#[cfg(test)]
mod tests;
mod turns;
#[cfg(test)]
mod turns_tests;

pub use turns::{PATIENCE, ParallelStarts, SETTLED};

use super::clock::Tick;
use super::effect::Effect;
use super::event::Event;
use super::gateway::{Elsewhere, Gateway, Restored};
use super::name::ServiceName;
use super::policy::Policy;
use super::words::Want;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use turns::Turns;

/// A small number for a service, stable while it exists and reused afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub u32);

#[derive(Debug)]
struct Member {
    name: ServiceName,
    gateway: Gateway,
    after: Vec<ServiceName>,
    requires: Vec<ServiceName>,
    /// Why it must not run, even if its want is up.
    held: Option<String>,
    /// Whether another service does its work.
    place: Place,
    deadline: Option<Tick>,
}

impl Member {
    fn comes_after(&self) -> impl Iterator<Item = &ServiceName> {
        self.after.iter().chain(&self.requires)
    }
}

/// Whether a service has a process of its own, where another one may do its work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    #[default]
    Own,
    /// This service has not said yet whether it does the work.
    Ask(ServiceName),
    Elsewhere(Elsewhere),
}

/// The services and the order between them.
#[derive(Debug, Default)]
pub struct Fleet {
    members: Vec<Option<Member>>,
    free: Vec<ServiceId>,
    /// Services with a tree.
    trees: usize,
    names: BTreeMap<ServiceName, ServiceId>,
    /// For each name, who comes after it. Names need not exist.
    followers: BTreeMap<ServiceName, Vec<ServiceId>>,
    deadlines: BTreeSet<(Tick, ServiceId)>,
    closing: Option<Tick>,
    turns: Turns,
    /// The greatest number of a life of those that were removed. New services count on from there: what is still on its way for a
    /// life that is over means nothing to another service with that number or name.
    past: u64,
    /// What the services were told, and what came of it, for a trace.
    #[cfg(any(test, debug_assertions))]
    told: Option<Vec<crate::core::trace::Told>>,
}

/// Effects of several services, in order.
pub type FleetEffects = Vec<(ServiceId, Effect)>;

impl Fleet {
    /// Adds a service that is down. `boot` or a command starts it.
    pub fn add(
        &mut self,
        name: ServiceName,
        policy: impl Into<Arc<Policy>>,
        after: Vec<ServiceName>,
        requires: Vec<ServiceName>,
        seed: u64,
    ) -> ServiceId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            ServiceId(u32::try_from(self.members.len() - 1).unwrap_or(u32::MAX))
        });
        let gateway = Gateway::new(policy, seed);
        let member = Member {
            name: name.clone(),
            gateway,
            after,
            requires,
            held: None,
            place: Place::Own,
            deadline: None,
        };
        for other in member.comes_after() {
            self.followers.entry(other.clone()).or_default().push(id);
        }
        self.members[id.0 as usize] = Some(member);
        self.names.insert(name, id);
        id
    }

    /// Keeps a service from running as long as this supervisor lives; its want stays what it is.
    pub fn hold(&mut self, id: ServiceId, reason: String, now: Tick) -> FleetEffects {
        if let Some(member) = self.member_mut(id) {
            member.held = Some(reason);
        }
        let (mut out, mut queue) = (Vec::new(), VecDeque::new());
        self.settle_gate(id, &mut queue);
        self.run(queue, now, &mut out);
        out
    }

    /// Ends [`Fleet::hold`]: the service may run again.
    pub fn unhold(&mut self, id: ServiceId, now: Tick) -> FleetEffects {
        let (mut out, mut queue) = (Vec::new(), VecDeque::new());
        if self.member_mut(id).and_then(|member| member.held.take()).is_some() {
            self.settle_gate(id, &mut queue);
            self.run(queue, now, &mut out);
        }
        out
    }

    /// Says whether another service does its work.
    pub fn place(&mut self, id: ServiceId, place: Place, now: Tick) -> FleetEffects {
        let (mut out, mut queue) = (Vec::new(), VecDeque::new());
        if let Some(member) = self.member_mut(id).filter(|member| member.place != place) {
            let asked = match &place {
                Place::Ask(name) => Some(name.clone()),
                Place::Own | Place::Elsewhere(_) => None,
            };
            member.place = place;
            asked.into_iter().for_each(|name| self.is_asked(&name));
            self.settle_gate(id, &mut queue);
            self.run(queue, now, &mut out);
        }
        out
    }

    /// Takes a changed definition; what runs keeps running as it was started.
    pub fn redefine(
        &mut self,
        id: ServiceId,
        policy: Arc<Policy>,
        after: Vec<ServiceName>,
        requires: Vec<ServiceName>,
        now: Tick,
    ) -> FleetEffects {
        self.unfollow(id);
        let Some(member) = self.member_mut(id) else { return Vec::new() };
        member.after = after;
        member.requires = requires;
        let others: Vec<ServiceName> = member.comes_after().cloned().collect();
        for other in others {
            self.followers.entry(other).or_default().push(id);
        }
        let mut out = Vec::new();
        let mut queue = VecDeque::new();
        self.settle_gate(id, &mut queue);
        queue.push_back((id, Event::Defined(policy)));
        self.run(queue, now, &mut out);
        out
    }

    /// Drops a service without a tree.
    pub fn remove(&mut self, id: ServiceId, now: Tick) -> FleetEffects {
        self.unfollow(id);
        let Some(member) = self.members.get_mut(id.0 as usize).and_then(Option::take) else {
            return Vec::new();
        };
        self.free.push(id);
        self.turns.forget(id);
        self.past = self.past.max(member.gateway.history().incarnation);
        self.trees -= usize::from(member.gateway.has_tree());
        if let Some(at) = member.deadline {
            self.deadlines.remove(&(at, id));
        }
        self.names.remove(&member.name);
        let mut out = Vec::new();
        let mut queue = VecDeque::new();
        self.changed(&member.name, &mut queue);
        self.run(queue, now, &mut out);
        out
    }

    fn unfollow(&mut self, id: ServiceId) {
        let others: Vec<ServiceName> =
            self.member(id).into_iter().flat_map(Member::comes_after).cloned().collect();
        for other in others {
            if let Some(followers) = self.followers.get_mut(&other) {
                followers.retain(|follower| *follower != id);
                if followers.is_empty() {
                    self.followers.remove(&other);
                }
            }
        }
    }

    /// Boots every service that `restored` names. A service is booted before those that come after it.
    pub fn boot(&mut self, mut restored: BTreeMap<ServiceId, Restored>, now: Tick) -> FleetEffects {
        let wanted = |(id, restored): (&ServiceId, &Restored)| (restored.want == Want::Up).then_some(*id);
        let mut out = self.in_turn(restored.iter().filter_map(wanted), now);
        for id in self.in_order(self.ids()) {
            if let Some(mut restored) = restored.remove(&id) {
                restored.history.incarnation = restored.history.incarnation.max(self.past);
                let mut queue = VecDeque::new();
                self.settle_gate(id, &mut queue);
                queue.push_back((id, Event::Boot(restored)));
                self.run(queue, now, &mut out);
            }
        }
        out
    }

    /// Hands one event to one service and lets the others follow.
    pub fn step(&mut self, id: ServiceId, event: Event, now: Tick) -> FleetEffects {
        let mut out = Vec::new();
        self.run(VecDeque::from([(id, event)]), now, &mut out);
        out
    }

    /// Lets everything happen that is due at `now`, and those begin whose turn it is.
    pub fn pass_time(&mut self, now: Tick) -> FleetEffects {
        let mut out = Vec::new();
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let before = out.len();
            self.run(VecDeque::from([(id, Event::Time)]), now, &mut out);
            let still_due = self.deadlines.first().is_some_and(|(at, first)| *at <= now && *first == id);
            if still_due && out.len() == before {
                // The machine's rules exclude this. If it happened, an endless loop here would stop everything else.
                break;
            }
        }
        self.take_turns(now, &mut out);
        out
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        let services = self.deadlines.first().map(|(at, _)| *at);
        services.into_iter().chain(self.turns.next_deadline()).min()
    }

    /// Moves every deadline by the time in which no process could run ([`super::clock::LostTime`]).
    pub fn postpone(&mut self, by: Duration) {
        self.closing = self.closing.map(|deadline| deadline.after(by));
        self.turns.postpone(by);
        for id in self.ids().collect::<Vec<_>>() {
            if let Some(member) = self.member_mut(id) {
                member.gateway.postpone(by);
            }
            self.note_deadline(id);
        }
    }

    /// Stops all services by `deadline`. Wants stay. A second call with an earlier deadline shortens it.
    pub fn shutdown(&mut self, deadline: Tick, now: Tick) -> FleetEffects {
        self.closing = Some(deadline);
        let mut out = Vec::new();
        let ids: Vec<ServiceId> = self.ids().collect();
        for id in ids {
            let mut queue = VecDeque::new();
            self.ask_to_end(id, &mut queue);
            self.run(queue, now, &mut out);
        }
        out
    }

    /// Kills everything that still runs now, before the deadline of the shutdown.
    pub fn kill_all(&mut self, now: Tick) -> FleetEffects {
        self.closing = Some(now);
        let mut out = Vec::new();
        let ids: Vec<ServiceId> = self.ids().collect();
        for id in ids {
            let queue = VecDeque::from([(id, Event::Shutdown { deadline: now }), (id, Event::KillNow)]);
            self.run(queue, now, &mut out);
        }
        out
    }

    /// Whether no service has a process tree any more.
    pub fn is_empty_handed(&self) -> bool {
        self.trees == 0
    }

    fn run(&mut self, mut queue: VecDeque<(ServiceId, Event)>, now: Tick, out: &mut FleetEffects) {
        while let Some((id, event)) = queue.pop_front() {
            let Some(member) = self.member_mut(id) else { continue };
            let (had_tree, was_to_start) = (member.gateway.has_tree(), member.gateway.is_to_start());
            let was_refused = member.gateway.is_refused();
            let (before, of_gate) = (member.gateway.phase(), matches!(event, Event::Gate(_)));
            #[cfg(any(test, debug_assertions))]
            let told = (event.clone(), out.len());
            let effects = member.gateway.step(event, now);
            let has_tree = member.gateway.has_tree();
            let mut changed = was_to_start != member.gateway.is_to_start();
            changed |= was_refused != member.gateway.is_refused();
            let name = member.name.clone();
            self.trees = self.trees + usize::from(has_tree) - usize::from(had_tree);
            for effect in effects {
                changed |= effect == Effect::Changed;
                out.push((id, effect));
            }
            #[cfg(any(test, debug_assertions))]
            self.note(id, told, out);
            self.note_deadline(id);
            if self.turns.is_on() {
                self.follow_turn(id, before, of_gate, &mut queue);
            }
            if changed {
                self.changed(&name, &mut queue);
            }
        }
    }

    fn note_deadline(&mut self, id: ServiceId) {
        let Some(member) = self.members.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let next = member.gateway.deadline();
        if next != member.deadline {
            if let Some(old) = member.deadline {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = next {
                self.deadlines.insert((new, id));
            }
            member.deadline = next;
        }
    }

    /// All ids, in the order of the names.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.names.values().copied()
    }

    /// Services whose stop acts and is not on record.
    pub fn unrecorded(&self) -> impl Iterator<Item = ServiceId> {
        self.ids().filter(|id| self.gateway(*id).is_some_and(Gateway::is_unrecorded))
    }

    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.names.keys()
    }

    pub fn id(&self, name: &str) -> Option<ServiceId> {
        self.names.get(name).copied()
    }

    pub fn name(&self, id: ServiceId) -> Option<&ServiceName> {
        self.member(id).map(|member| &member.name)
    }

    pub fn gateway(&self, id: ServiceId) -> Option<&Gateway> {
        self.member(id).map(|member| &member.gateway)
    }

    fn member(&self, id: ServiceId) -> Option<&Member> {
        self.members.get(id.0 as usize).and_then(Option::as_ref)
    }

    fn named(&self, name: &ServiceName) -> Option<&Member> {
        self.id(name.as_str()).and_then(|id| self.member(id))
    }

    fn member_mut(&mut self, id: ServiceId) -> Option<&mut Member> {
        self.members.get_mut(id.0 as usize).and_then(Option::as_mut)
    }
}

/// For traces.
#[cfg(any(test, debug_assertions))]
impl Fleet {
    /// What services are told from now on is noted.
    pub fn listen(&mut self) {
        self.told = Some(Vec::new());
    }

    /// What was noted.
    pub fn heard(&mut self) -> Vec<crate::core::trace::Told> {
        self.told.take().unwrap_or_default()
    }

    /// A service was told of an event, and `out` had so many effects before.
    fn note(&mut self, id: ServiceId, (event, before): (Event, usize), out: &FleetEffects) {
        let after = self.gateway(id).map(Gateway::after);
        if let Some((told, after)) = self.told.as_mut().zip(after) {
            let effects = out[before..].iter().map(|(_, effect)| effect.clone()).collect();
            told.push(crate::core::trace::Told { id, event, effects, after });
        }
    }
}
