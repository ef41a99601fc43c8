//! All services together: who waits for whom, who stops before whom, and what is due next. Pure, like `gateway`.
//!
//! `after` is order only: a service waits while the other one is on its way up. `requires` also refuses and stops
//! with it. A crash of a required service that restarts by itself stops nobody. Shutdown goes the other way round: a
//! service is asked to end when everything that comes after it is gone; independent ones end in parallel.

use super::clock::Tick;
use super::effect::Effect;
use super::event::Event;
use super::gateway::{Elsewhere, Gate, Gateway, Phase, Restored};
use super::name::ServiceName;
use super::policy::Policy;
use super::words::Want;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A small number for a service, stable while it exists and reused afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

#[derive(Debug)]
struct Member {
    name: ServiceName,
    gateway: Gateway,
    after: Vec<ServiceName>,
    requires: Vec<ServiceName>,
    /// Why it must not run, whatever it wants.
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Own,
    /// This service has yet to say.
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
}

/// Effects of several services, in order.
pub type FleetEffects = Vec<(ServiceId, Effect)>;

impl Fleet {
    /// Adds a service at rest; `boot` or a command moves it.
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

    /// It may run again as it wants.
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
            member.place = place;
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

    /// Boots every service that `restored` names, those first that others come after.
    pub fn boot(&mut self, mut restored: BTreeMap<ServiceId, Restored>, now: Tick) -> FleetEffects {
        let mut out = Vec::new();
        for id in self.in_order() {
            if let Some(restored) = restored.remove(&id) {
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

    /// Lets everything happen that is due at `now`.
    pub fn pass_time(&mut self, now: Tick) -> FleetEffects {
        let mut out = Vec::new();
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let before = out.len();
            self.run(VecDeque::from([(id, Event::Time)]), now, &mut out);
            let still_due = self.deadlines.first().is_some_and(|(at, first)| *at <= now && *first == id);
            if still_due && out.len() == before {
                // Cannot happen by the machine's rules; a loop here would stop everything else.
                break;
            }
        }
        out
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Moves every deadline: for so long nobody could do anything ([`super::clock::LostTime`]).
    pub fn postpone(&mut self, by: Duration) {
        self.closing = self.closing.map(|deadline| deadline.after(by));
        for id in self.ids().collect::<Vec<_>>() {
            if let Some(member) = self.member_mut(id) {
                member.gateway.postpone(by);
            }
            self.note_deadline(id);
        }
    }

    /// Begins the end of everything: all is over by `deadline`, wants stay. A second call with an earlier deadline cuts.
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

    /// Ends the patience of a shutdown: everything that still runs is killed now.
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

    /// No tree exists any more.
    pub fn is_empty_handed(&self) -> bool {
        self.trees == 0
    }

    fn run(&mut self, mut queue: VecDeque<(ServiceId, Event)>, now: Tick, out: &mut FleetEffects) {
        while let Some((id, event)) = queue.pop_front() {
            let Some(member) = self.member_mut(id) else { continue };
            let had_tree = member.gateway.has_tree();
            let effects = member.gateway.step(event, now);
            let has_tree = member.gateway.has_tree();
            let name = member.name.clone();
            self.trees = self.trees + usize::from(has_tree) - usize::from(had_tree);
            let mut changed = false;
            for effect in effects {
                changed |= effect == Effect::Changed;
                out.push((id, effect));
            }
            self.note_deadline(id);
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

    /// `name` is different now: its followers' gates move, and in a shutdown those it came after may end.
    fn changed(&self, name: &ServiceName, queue: &mut VecDeque<(ServiceId, Event)>) {
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

    fn ask_to_end(&self, id: ServiceId, queue: &mut VecDeque<(ServiceId, Event)>) {
        let (Some(deadline), Some(member)) = (self.closing, self.member(id)) else { return };
        let mut followers = self.followers.get(&member.name).into_iter().flatten();
        let alone = followers.all(|follower| !self.member(*follower).is_some_and(|m| m.gateway.has_tree()));
        if alone {
            queue.push_back((id, Event::Shutdown { deadline }));
        }
    }

    fn settle_gate(&self, id: ServiceId, queue: &mut VecDeque<(ServiceId, Event)>) {
        if let Some(member) = self.member(id).filter(|_| self.closing.is_none()) {
            queue.push_back((id, Event::Gate(self.gate_of(member))));
        }
    }

    fn gate_of(&self, member: &Member) -> Gate {
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
                    if gateway.want() == Want::Down && !gateway.is_once() && gateway.needed_by().is_none() {
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
        waits.map_or(Gate::Open, |name| Gate::Wait(format!("waits for '{name}'")))
    }

    /// Ids with every service behind those it comes after. A cycle, which definitions are checked against, is cut.
    fn in_order(&self) -> Vec<ServiceId> {
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
        for id in self.ids() {
            visit(self, id, &mut seen, &mut order);
        }
        order
    }

    // ---- What others may see --------------------------------------------------------------------------------------

    /// All ids, in the order of the names.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.names.values().copied()
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

/// A oneshot is there for others when it has succeeded, not while it works on it.
fn is_unfinished(gateway: &Gateway) -> bool {
    let works = matches!(gateway.phase(), Phase::Up | Phase::Ending(_) | Phase::Backoff { .. });
    works && gateway.policy().kind.is_oneshot() && gateway.want() == Want::Up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{Command, Ticket};
    use crate::core::exit::Exit;
    use crate::core::policy::Kind;

    const NOW: Tick = Tick(1000);

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn add(fleet: &mut Fleet, text: &str, after: &[&str], requires: &[&str]) -> ServiceId {
        let names = |texts: &[&str]| texts.iter().map(|text| name(text)).collect();
        fleet.add(name(text), Policy::default(), names(after), names(requires), 1)
    }

    fn boot_all(fleet: &mut Fleet, want: Want) -> FleetEffects {
        let restored = fleet
            .ids()
            .map(|id| {
                (
                    id,
                    Restored {
                        want,
                        recorded: true,
                        history: Default::default(),
                        living: None,
                        finished: false,
                        needed: None,
                    },
                )
            })
            .collect();
        fleet.boot(restored, NOW)
    }

    fn spawned(effects: &FleetEffects) -> Vec<ServiceId> {
        effects.iter().filter(|(_, e)| matches!(e, Effect::Spawn { .. })).map(|(id, _)| *id).collect()
    }

    fn signalled(effects: &FleetEffects) -> Vec<ServiceId> {
        effects.iter().filter(|(_, e)| matches!(e, Effect::SignalMain { .. })).map(|(id, _)| *id).collect()
    }

    fn up(fleet: &mut Fleet, id: ServiceId) -> FleetEffects {
        fleet.step(id, Event::Spawned { incarnation: 1, pid: 7 }, NOW)
    }

    fn end(fleet: &mut Fleet, id: ServiceId) -> FleetEffects {
        end_with(fleet, id, Exit::Code(0))
    }

    fn end_with(fleet: &mut Fleet, id: ServiceId, exit: Exit) -> FleetEffects {
        let mut all = fleet.step(id, Event::MainExited { incarnation: 1, exit }, NOW);
        all.extend(fleet.step(id, Event::TreeEmpty { incarnation: 1 }, NOW));
        all.extend(fleet.step(id, Event::LogsDrained { incarnation: 1 }, NOW));
        all
    }

    /// Contract: 99.
    #[test]
    fn a_follower_starts_when_its_leader_is_up_and_ends_before_it() {
        let mut fleet = Fleet::default();
        // Named so that the alphabet is against the order.
        let follower = add(&mut fleet, "a", &["z"], &[]);
        let leader = add(&mut fleet, "z", &[], &[]);
        assert_eq!(spawned(&boot_all(&mut fleet, Want::Up)), [leader]);
        assert_eq!(spawned(&up(&mut fleet, leader)), [follower]);
        assert!(spawned(&up(&mut fleet, follower)).is_empty());
        let first = fleet.shutdown(NOW.after(Duration::from_secs(9)), NOW);
        assert_eq!(signalled(&first), [follower]);
        assert_eq!(signalled(&end(&mut fleet, follower)), [leader]);
        assert!(!fleet.is_empty_handed());
        end(&mut fleet, leader);
        assert!(fleet.is_empty_handed());
        assert_eq!(fleet.next_deadline(), None);
    }

    #[test]
    fn a_requirement_that_is_down_refuses_and_one_that_stops_takes_its_followers_along() {
        let mut fleet = Fleet::default();
        let web = add(&mut fleet, "web", &[], &["db"]);
        let db = add(&mut fleet, "db", &[], &[]);
        boot_all(&mut fleet, Want::Down);
        let start = |fleet: &mut Fleet, id, ticket| {
            let command = Command::Start { force: false };
            let mut all = fleet.step(id, Event::Command { ticket: Ticket(ticket), command }, NOW);
            all.extend(fleet.step(id, Event::Recorded { seq: 1 }, NOW));
            all
        };
        let refused = start(&mut fleet, web, 1);
        assert!(
            refused
                .iter()
                .any(|(_, e)| format!("{e:?}").contains("requires 'db', which is down: start it first")),
            "{refused:?}"
        );
        // The want stands: when the requirement comes up, so does the service.
        start(&mut fleet, db, 2);
        assert_eq!(spawned(&up(&mut fleet, db)), [web]);
        up(&mut fleet, web);
        fleet.step(db, Event::Command { ticket: Ticket(3), command: Command::Stop }, NOW);
        let stopped = fleet.step(db, Event::Recorded { seq: 2 }, NOW);
        assert_eq!(signalled(&stopped), [db, web]);
        let ended = end(&mut fleet, web);
        assert!(spawned(&ended).is_empty());
        assert_eq!(fleet.gateway(web).unwrap().want(), Want::Up);
    }

    #[test]
    fn a_crash_of_a_requirement_that_restarts_stops_nobody() {
        let mut fleet = Fleet::default();
        let web = add(&mut fleet, "web", &[], &["db"]);
        let db = add(&mut fleet, "db", &[], &[]);
        boot_all(&mut fleet, Want::Up);
        up(&mut fleet, db);
        up(&mut fleet, web);
        let crash = end_with(&mut fleet, db, Exit::Code(1));
        assert_eq!(spawned(&crash), [db]);
        assert!(signalled(&crash).is_empty());
    }

    #[test]
    fn a_follower_of_a_oneshot_waits_until_it_has_succeeded() {
        for (after, requires) in [(&["migrate"][..], &[][..]), (&[], &["migrate"])] {
            let mut fleet = Fleet::default();
            let policy = Policy { kind: Kind::Oneshot, ..Policy::default() };
            let migrate = fleet.add(name("migrate"), policy, Vec::new(), Vec::new(), 1);
            let web = add(&mut fleet, "web", after, requires);
            boot_all(&mut fleet, Want::Up);
            assert!(spawned(&up(&mut fleet, migrate)).is_empty(), "it works on it");
            assert_eq!(spawned(&end(&mut fleet, migrate)), [web]);
        }
    }

    /// A worker started without its database once that had been silent for the time that it may take.
    #[test]
    fn what_requires_a_service_that_is_late_waits_on_and_what_comes_after_it_does_not() {
        let mut fleet = Fleet::default();
        let policy = Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() };
        let redis = fleet.add(name("redis"), policy, Vec::new(), Vec::new(), 1);
        let worker = add(&mut fleet, "worker", &[], &["redis"]);
        let beside = add(&mut fleet, "beside", &["redis"], &[]);
        boot_all(&mut fleet, Want::Up);
        assert!(spawned(&up(&mut fleet, redis)).is_empty());
        let late = NOW.after(Duration::from_secs(20));
        assert_eq!(spawned(&fleet.pass_time(late)), [beside]);
        assert_eq!(fleet.gateway(worker).unwrap().reason(), "waits for 'redis'");
        let incarnation = fleet.gateway(redis).unwrap().history().incarnation;
        assert_eq!(spawned(&fleet.step(redis, Event::ReadyReported { incarnation }, late)), [worker]);
    }

    #[test]
    fn time_in_which_nobody_could_act_moves_every_deadline_and_nothing_of_the_past() {
        let mut fleet = Fleet::default();
        let (slow, late) = (add(&mut fleet, "slow", &[], &[]), add(&mut fleet, "late", &[], &[]));
        let policy = Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() };
        fleet.redefine(late, policy.into(), Vec::new(), Vec::new(), NOW);
        boot_all(&mut fleet, Want::Up);
        up(&mut fleet, slow);
        up(&mut fleet, late);
        fleet.step(slow, Event::Command { ticket: Ticket(1), command: Command::Stop }, NOW);
        // The stop waits for the disk, then for the tree; the start of the other one for its readiness.
        let hour = Duration::from_secs(3600);
        fleet.postpone(hour);
        assert_eq!(fleet.next_deadline(), Some(NOW.after(hour + crate::core::gateway::RECORD_PATIENCE)));
        let thaw = NOW.after(hour);
        assert_eq!(fleet.pass_time(thaw), []);
        fleet.step(slow, Event::Recorded { seq: 1 }, thaw);
        fleet.postpone(hour);
        assert_eq!(fleet.next_deadline(), Some(thaw.after(hour + Duration::from_secs(10))));
        assert!(fleet.gateway(late).is_some_and(|late| late.awaits_ready() && late.since() == NOW));
        fleet.shutdown(thaw.after(Duration::from_secs(5)), thaw);
        fleet.postpone(hour);
        assert_eq!(fleet.next_deadline(), Some(thaw.after(hour + Duration::from_secs(5))));
    }

    #[test]
    fn a_held_service_does_not_start_and_keeps_its_want() {
        let mut fleet = Fleet::default();
        let id = add(&mut fleet, "a", &[], &[]);
        assert!(fleet.hold(id, "it runs elsewhere".into(), NOW).is_empty());
        assert!(spawned(&boot_all(&mut fleet, Want::Up)).is_empty());
        let gateway = fleet.gateway(id).unwrap();
        assert_eq!((gateway.want(), gateway.reason().as_str()), (Want::Up, "it runs elsewhere"));
    }

    #[test]
    fn numbers_of_removed_services_are_reused_and_their_deadlines_are_gone() {
        let mut fleet = Fleet::default();
        let id = add(&mut fleet, "a", &["b"], &[]);
        boot_all(&mut fleet, Want::Down);
        fleet.step(id, Event::Command { ticket: Ticket(1), command: Command::Stop }, NOW);
        fleet.remove(id, NOW);
        assert_eq!((fleet.next_deadline(), fleet.id("a")), (None, None));
        assert!(fleet.followers.is_empty());
        assert_eq!(add(&mut fleet, "c", &[], &[]), id);
    }
}
