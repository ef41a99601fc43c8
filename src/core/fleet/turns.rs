//! Starts that are admitted some at a time, so that the first services of a big fleet answer long before the last have begun.
//!
//! What a boot or a command for all starts waits for its turn; what a person starts by its name does not, nor what that comes
//! after. A service waits for its turn last: when everything that it comes after lets it start. So no place is ever held by
//! one that waits for another service, and order and admission cannot block each other.
//!
//! A place is taken by every start out of rest and given back when the service is ready, where it cannot say so after
//! [`SETTLED`], when it ends, and after [`PATIENCE`] if it is still being made. A restart after a failure neither waits nor
//! takes a place: a service that fails again and again keeps no other one waiting.
//!
//! First come essential services with all that they come after, then what any other service comes after, then the one that was
//! used last.

use super::{Fleet, FleetEffects, Member, Place, ServiceId};
use crate::core::clock::Tick;
use crate::core::event::Event;
use crate::core::gateway::{Gateway, Phase};
use crate::core::name::ServiceName;
use crate::core::policy::Role;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long a service that cannot report readiness is taken for one that still starts, from its exec on.
pub const SETTLED: Duration = Duration::from_secs(2);
/// How long a service that is being made (its hook before the start runs, its env file is read) keeps its place.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many starts may be under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParallelStarts {
    #[default]
    Any,
    /// At least one.
    AtMost(u32),
    /// As many as the machine takes.
    Auto,
}

/// Who needs a service to be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Essential,
    Others,
    Nobody,
}

/// The smallest is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    need: Need,
    used: Reverse<Tick>,
}

/// Who waits and who has a place.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// `None`: nobody waits for a turn.
    places: Option<usize>,
    waiting: BTreeMap<ServiceId, Rank>,
    order: BTreeSet<(Rank, ServiceId)>,
    /// With the time at which the place is given back whatever happens, where there is one.
    under_way: BTreeMap<ServiceId, Option<Tick>>,
    used: BTreeMap<ServiceId, Tick>,
}

impl Turns {
    pub(super) fn is_on(&self) -> bool {
        self.places.is_some()
    }

    pub(super) fn waits(&self, id: ServiceId) -> bool {
        self.waiting.contains_key(&id)
    }

    fn wait(&mut self, id: ServiceId, rank: Rank) {
        self.admit(id);
        self.waiting.insert(id, rank);
        self.order.insert((rank, id));
    }

    /// It waits no longer. Returns whether it did.
    fn admit(&mut self, id: ServiceId) -> bool {
        let rank = self.waiting.remove(&id);
        rank.is_some_and(|rank| self.order.remove(&(rank, id)))
    }

    pub(super) fn forget(&mut self, id: ServiceId) {
        self.admit(id);
        self.under_way.remove(&id);
        self.used.remove(&id);
    }

    /// When a place is given back for which somebody waits.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        if self.waiting.is_empty() {
            return None;
        }
        self.under_way.values().flatten().min().copied()
    }

    pub(super) fn postpone(&mut self, by: Duration) {
        self.under_way.values_mut().flatten().for_each(|until| *until = until.after(by));
    }
}

impl Fleet {
    /// Lets at most so many starts of those that wait for their turn be under way from now on; `None`: any number.
    pub fn limit_starts(&mut self, places: Option<usize>) {
        self.turns.places = places.map(|places| places.max(1));
    }

    /// When somebody last used a service, as far as anybody knows.
    pub fn note_use(&mut self, id: ServiceId, at: Tick) {
        if self.turns.is_on() {
            self.turns.used.insert(id, at);
        }
    }

    /// Services wait for their turn.
    pub fn has_turns(&self) -> bool {
        !self.turns.waiting.is_empty()
    }

    /// Every place is taken.
    pub fn is_full(&self) -> bool {
        self.turns.places.is_some_and(|places| self.turns.under_way.len() >= places)
    }

    /// The next start of each of these waits for its turn.
    pub fn in_turn(&mut self, ids: impl Iterator<Item = ServiceId>, now: Tick) -> FleetEffects {
        let (mut out, mut queue) = (Vec::new(), VecDeque::new());
        if !self.turns.is_on() {
            return out;
        }
        let needs = self.needs();
        for id in ids {
            let Some(member) = self.member(id) else { continue };
            let ended = member.gateway.history().last_exit.map(|(_, at)| at);
            let noted = self.turns.used.get(&id).copied();
            let used = Reverse(ended.max(noted).unwrap_or_default());
            let need = needs.get(&id).copied().unwrap_or(Need::Nobody);
            self.turns.wait(id, Rank { need, used });
            self.settle_gate(id, &mut queue);
        }
        self.run(queue, now, &mut out);
        out
    }

    /// These, and all that they come after, do not wait for their turn.
    pub fn at_once(&mut self, ids: impl Iterator<Item = ServiceId>, now: Tick) -> FleetEffects {
        let (mut out, mut queue) = (Vec::new(), VecDeque::new());
        if self.turns.waiting.is_empty() {
            return out;
        }
        let mut found: Vec<ServiceId> = ids.collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = found.pop() {
            if !seen.insert(id) {
                continue;
            }
            found.extend(self.leaders(id));
            if self.turns.admit(id) {
                self.settle_gate(id, &mut queue);
            }
        }
        self.run(queue, now, &mut out);
        out
    }

    /// Those whose places are free now begin. Once for all that has happened: who is first in rank is first.
    pub(super) fn take_turns(&mut self, now: Tick, out: &mut FleetEffects) {
        if self.turns.waiting.is_empty() || self.closing.is_some() {
            return;
        }
        self.turns.under_way.retain(|_, until| until.is_none_or(|until| until > now));
        let places = self.turns.places.unwrap_or(usize::MAX);
        while self.turns.under_way.len() < places {
            let may_start =
                |id: &ServiceId| self.member(*id).is_some_and(|member| member.gateway.awaits_turn());
            let Some(id) = self.turns.order.iter().map(|(_, id)| *id).find(may_start) else { return };
            self.turns.admit(id);
            let mut queue = VecDeque::new();
            self.settle_gate(id, &mut queue);
            self.run(queue, now, out);
        }
    }

    /// One event of a service is dealt with: whether it has begun, waits no more, or gives its place back.
    pub(super) fn follow_turn(
        &mut self,
        id: ServiceId,
        before: Phase,
        of_gate: bool,
        queue: &mut VecDeque<(ServiceId, Event)>,
    ) {
        let Some(gateway) = self.gateway(id) else { return };
        let (phase, place, is_to_start) = (gateway.phase(), place_of(gateway), gateway.is_to_start());
        let rested = matches!(before, Phase::Down | Phase::Held | Phase::Failed | Phase::Finished);
        if phase == Phase::Starting && rested {
            self.turns.admit(id);
            self.turns.under_way.insert(id, None);
        }
        let still_to_start =
            matches!(phase, Phase::Held | Phase::Backoff { .. } | Phase::Ending(_)) || is_to_start;
        if !of_gate && !still_to_start && self.turns.admit(id) {
            self.settle_gate(id, queue);
        }
        if let Some(until) = self.turns.under_way.get_mut(&id) {
            match place {
                Some(bound) => *until = bound,
                None => {
                    self.turns.under_way.remove(&id);
                }
            }
        }
    }

    /// `name` has yet to say something for which another service waits.
    pub(super) fn is_asked(&mut self, name: &ServiceName) {
        let Some(id) = self.id(name.as_str()) else { return };
        if let Some(rank) = self.turns.waiting.get(&id).copied() {
            self.turns.wait(id, Rank { need: rank.need.min(Need::Others), ..rank });
        }
    }

    fn leaders(&self, id: ServiceId) -> Vec<ServiceId> {
        let asked = |member: &Member| match &member.place {
            Place::Ask(name) => self.id(name.as_str()),
            Place::Own | Place::Elsewhere(_) => None,
        };
        let Some(member) = self.member(id) else { return Vec::new() };
        let before = member.comes_after().filter_map(|name| self.id(name.as_str()));
        before.chain(asked(member)).collect()
    }

    /// Of those that somebody needs.
    fn needs(&self) -> BTreeMap<ServiceId, Need> {
        let mut needs = BTreeMap::new();
        let is_essential = |id: &ServiceId| {
            self.gateway(*id).is_some_and(|gateway| gateway.policy().role == Role::Essential)
        };
        let mut essential: Vec<ServiceId> = self.ids().filter(is_essential).collect();
        while let Some(id) = essential.pop() {
            if needs.insert(id, Need::Essential).is_none() {
                essential.extend(self.leaders(id));
            }
        }
        for leader in self.ids().flat_map(|id| self.leaders(id)) {
            needs.entry(leader).or_insert(Need::Others);
        }
        needs
    }
}

/// Until when a start that is under way is, at the latest; `None`: it is not any longer. The inner `None`: until something
/// happens, for which the service has a deadline of its own.
fn place_of(gateway: &Gateway) -> Option<Option<Tick>> {
    match gateway.phase() {
        Phase::Starting => Some(Some(gateway.since().after(PATIENCE))),
        Phase::Up if gateway.awaits_ready() => Some(None),
        Phase::Up if gateway.policy().ready.is_none() => Some(Some(gateway.since().after(SETTLED))),
        Phase::Up
        | Phase::Down
        | Phase::Held
        | Phase::Ending(_)
        | Phase::Backoff { .. }
        | Phase::Failed
        | Phase::Finished => None,
    }
}
