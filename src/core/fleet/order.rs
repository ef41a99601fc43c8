//! Who waits for whom: whether a service may start now, which of them are first in a boot, and which may end in a shutdown.

use super::{Fleet, Member, Place, ServiceId};
use crate::core::event::Event;
use crate::core::gateway::{Elsewhere, Gate, Gateway, Phase};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Fleet {
    /// `name` is different now: its followers' gates move, and in a shutdown those it came after may end.
    pub(super) fn changed(&self, name: &ServiceName, queue: &mut VecDeque<(ServiceId, Event)>) {
        for follower in self.followers.get(name).into_iter().flatten() {
            self.settle_gate(*follower, queue);
        }
        if self.closing.is_some() {
            let leaders = self.named(name).into_iter().flat_map(Member::comes_after);
            for leader in leaders.filter_map(|name| self.id(name.as_str())) {
                self.ask_to_end(leader, queue);
            }
        }
    }

    pub(super) fn ask_to_end(&self, id: ServiceId, queue: &mut VecDeque<(ServiceId, Event)>) {
        let (Some(deadline), Some(member)) = (self.closing, self.member(id)) else { return };
        let mut followers = self.followers.get(&member.name).into_iter().flatten();
        let alone = followers.all(|follower| !self.member(*follower).is_some_and(|m| m.gateway.has_tree()));
        if alone {
            queue.push_back((id, Event::Shutdown { deadline }));
        }
    }

    pub(super) fn settle_gate(&self, id: ServiceId, queue: &mut VecDeque<(ServiceId, Event)>) {
        if let Some(member) = self.member(id).filter(|_| self.closing.is_none()) {
            queue.push_back((id, Event::Gate(self.gate_of(id, member))));
        }
    }

    fn gate_of(&self, id: ServiceId, member: &Member) -> Gate {
        if let Some(reason) = &member.held {
            return Gate::Refused(reason.clone());
        }
        match &member.place {
            Place::Own => {}
            Place::Ask(name) => return Gate::Ask(name.clone()),
            Place::Elsewhere(place) => return Gate::Elsewhere(place.clone()),
        }
        let mut waits = None;
        for name in &member.requires {
            let Some(other) = self.named(name) else {
                return Gate::Refused(format!("requires '{name}', for which there is no valid definition"));
            };
            let gateway = &other.gateway;
            if matches!(gateway.elsewhere(), Some(Elsewhere::Served { .. })) {
                continue;
            }
            match gateway.phase() {
                Phase::Up if is_unfinished(gateway) || gateway.may_report() => waits = Some(name),
                Phase::Up | Phase::Finished => {}
                Phase::Failed => return Gate::Refused(format!("requires '{name}', which has failed")),
                Phase::Down | Phase::Held | Phase::Starting | Phase::Ending(_) | Phase::Backoff { .. } => {
                    let rests =
                        gateway.want() == Want::Down && !gateway.is_once() && gateway.needed_by().is_none();
                    // What it requires in turn may be what is down.
                    if (rests && !gateway.is_to_start()) || gateway.is_refused() {
                        return Gate::Refused(format!("requires '{name}', which is down: start it first"));
                    }
                    waits = Some(name);
                }
            }
        }
        for name in &member.after {
            let other = self.named(name);
            let pending = |other: &Member| {
                (matches!(other.gateway.phase(), Phase::Held | Phase::Starting)
                    && other.gateway.elsewhere().is_none())
                    || other.gateway.awaits_ready()
                    || is_unfinished(&other.gateway)
            };
            if other.is_some_and(pending) {
                waits = Some(name);
            }
        }
        match waits {
            Some(name) => Gate::Wait(format!("waits for '{name}'")),
            None if self.turns.waits(id) => Gate::Turn,
            None => Gate::Open,
        }
    }

    /// Puts those of `ids` first that others of them come after.
    pub fn put_in_order<T>(&self, ids: &mut [(ServiceId, T)]) {
        if ids.len() > 1 {
            let order = self.in_order(ids.iter().map(|(id, _)| *id));
            let places: BTreeMap<ServiceId, usize> = order.into_iter().zip(0..).collect();
            ids.sort_by_key(|(id, _)| places.get(id).copied());
        }
    }

    /// These, and those that they come after, each service behind those. A cycle is cut; definitions are checked for cycles when
    /// they are read.
    pub(super) fn in_order(&self, ids: impl Iterator<Item = ServiceId>) -> Vec<ServiceId> {
        fn visit(fleet: &Fleet, id: ServiceId, seen: &mut BTreeSet<ServiceId>, order: &mut Vec<ServiceId>) {
            if !seen.insert(id) {
                return;
            }
            let leaders = fleet.member(id).into_iter().flat_map(Member::comes_after);
            for leader in leaders.filter_map(|name| fleet.id(name.as_str())) {
                visit(fleet, leader, seen, order);
            }
            order.push(id);
        }
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for id in ids {
            visit(self, id, &mut seen, &mut order);
        }
        order
    }
}

/// Whether it is a oneshot that has not succeeded yet, whoever has asked for it. Others wait for its success.
fn is_unfinished(gateway: &Gateway) -> bool {
    let works = matches!(gateway.phase(), Phase::Up | Phase::Ending(_) | Phase::Backoff { .. });
    works && gateway.policy().kind.is_oneshot() && (gateway.want() == Want::Up || gateway.is_once())
}
