//! What a real supervisor went through, step by step: whether the core does the same again, whether the model has such a step, and
//! whether every rule holds. Besides those of one service, the rules of services among each other are looked at here.

use super::rules::{Broken, Rule};
use super::world::{Main, World};
use crate::core::clock::Tick;
use crate::core::effect::Effect;
use crate::core::event::Event;
use crate::core::fleet::{Fleet, ServiceId};
use crate::core::gateway::{Elsewhere, Gate, Gateway, Phase, Readiness, Restored};
use crate::core::name::ServiceName;
use crate::core::policy::{Kind, Policy};
use crate::core::trace::{Call, Step, Told};
use crate::core::words::Want;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// As `fleet::turns` has them.
const SETTLED: Duration = crate::core::fleet::SETTLED;
const PATIENCE: Duration = crate::core::fleet::PATIENCE;

/// One service of a trace.
struct Member {
    name: ServiceName,
    requires: Vec<ServiceName>,
    after: Vec<ServiceName>,
    world: World,
    /// When a start of it out of rest began that is still under way.
    starts: Option<Tick>,
    gate: Gate,
}

/// What a supervisor leaves to the next one.
#[derive(Debug, Clone, Default)]
pub struct Heritage {
    /// What the disk may hold of each service, which it had to say of it.
    wants: BTreeMap<ServiceName, Vec<Want>>,
}

/// A core that is told what a real one was told.
#[derive(Default)]
pub struct Replay {
    fleet: Fleet,
    members: BTreeMap<ServiceId, Member>,
    heritage: Heritage,
    /// The greatest number that a life of a name has had here or had before.
    numbers: BTreeMap<ServiceName, u64>,
    places: Option<usize>,
    closing: bool,
    pub broken: Vec<Broken>,
    /// Kinds of events and effects that came by.
    pub kinds: BTreeSet<String>,
}

impl Replay {
    /// Of a supervisor that came after others on the same state.
    pub fn after(heritage: Heritage) -> Self {
        Self { heritage, ..Self::default() }
    }

    pub fn take(&mut self, step: &Step) {
        let known = self.broken.len();
        let (_, again) = Step::make(step.call.clone(), &mut self.fleet, step.at);
        let again = again.map(|step| step.told).unwrap_or_default();
        if again != step.told {
            let differs = again.iter().zip(&step.told).find(|(again, told)| again != told);
            let about = match differs {
                Some((again, told)) => format!("{told:?} was {again:?} here"),
                None => format!("{} were told, and {} here", step.told.len(), again.len()),
            };
            self.broken.push(Broken::from(Rule::OtherEffects).about(about));
        }
        self.called(&step.call);
        for told in &step.told {
            self.tell(told, step);
        }
        if let Call::Remove(id) = &step.call {
            self.members.remove(id);
        }
        for broken in &mut self.broken[known..] {
            let about = std::mem::take(&mut broken.about);
            broken.about = format!("{about} at {} of {}", step.at.0, kind(&step.call));
        }
    }

    fn called(&mut self, call: &Call) {
        match call {
            Call::Add { policy, name, after, requires, seed } => {
                if let Some(id) = self.fleet.id(name.as_str()) {
                    let member = Member::new(name, policy, (after, requires), *seed);
                    self.members.insert(id, member);
                }
            }
            Call::Redefine { id, after, requires, .. } => {
                if let Some(member) = self.members.get_mut(id) {
                    (member.after, member.requires) = (after.clone(), requires.clone());
                }
            }
            Call::Postpone(by) => {
                self.members.values_mut().for_each(|member| member.world.gateway.postpone(*by));
            }
            Call::Places(places) => self.places = *places,
            Call::Shutdown { .. } | Call::KillAll => self.closing = true,
            _ => {}
        }
    }

    fn tell(&mut self, told: &Told, step: &Step) {
        self.kinds.insert(kind(&told.event));
        self.kinds.extend(told.effects.iter().map(kind));
        let Some(member) = self.members.get_mut(&told.id) else {
            self.broken.push(Broken::from(Rule::NoSuchStep).about("of nobody"));
            return;
        };
        let name = member.name.clone();
        let mut broken = Vec::new();
        let was = member.world.after.phase;
        let was_waiting = member.gate == Gate::Turn;
        if let Event::Gate(gate) = &told.event {
            member.gate = gate.clone();
        }
        broken.extend(member.world.happens(&told.event, step.at).err());
        if let Event::Boot(restored) = &told.event {
            broken.extend(self.heritage.check(&name, restored).err());
            let living = restored.living.map_or(0, |living| living.incarnation);
            let last = self.numbers.entry(name.clone()).or_default();
            *last = restored.history.incarnation.max(living).max(*last);
        }
        let member = self.members.get_mut(&told.id).expect("it was there");
        let same: Vec<Effect> = member.world.gateway.step(told.event.clone(), step.at).into_iter().collect();
        if same != told.effects {
            broken.push(Broken::from(Rule::OtherEffects).about(format_args!("alone it does {same:?}")));
        }
        broken.extend(member.world.take(&told.event, told.effects.clone(), told.after));
        member.follow(was, step.at);
        let effects = told.effects.iter();
        let starts: Vec<&Effect> = effects
            .filter(|effect| matches!(effect, Effect::Spawn { .. } | Effect::Prepare { .. }))
            .collect();
        for effect in starts {
            let turn = was_waiting && step.call == Call::Time;
            broken.extend(self.starts(told.id, effect, turn, step.at));
        }
        for effect in &told.effects {
            if let Effect::Spawn { incarnation }
            | Effect::Prepare { incarnation }
            | Effect::Finish { incarnation, .. } = effect
            {
                let last = self.numbers.entry(name.clone()).or_default();
                if *incarnation <= *last {
                    broken.push(
                        Broken::from(Rule::NumberUsedTwice).about(format_args!("{incarnation} after {last}")),
                    );
                }
                *last = (*last).max(*incarnation);
            }
        }
        if matches!(told.event, Event::Shutdown { .. }) && step.call != Call::KillAll {
            broken.extend(self.ends_in_order(told.id).err());
        }
        self.broken.extend(broken.into_iter().map(|broken| {
            let event = kind(&told.event);
            broken.about(format_args!("{name}, told {event}"))
        }));
    }

    /// A main process, or the hook before it, is made: whether it is time for that.
    fn starts(&self, id: ServiceId, effect: &Effect, in_turn: bool, now: Tick) -> Vec<Broken> {
        let mut broken = Vec::new();
        if self.closing {
            broken.push(Rule::StartedInShutdown.into());
        }
        let Some(member) = self.members.get(&id) else { return broken };
        for required in &member.requires {
            let other = self.members.values().find(|other| other.name == *required);
            if !other.is_some_and(Member::is_there) {
                broken.push(
                    Broken::from(Rule::BeforeRequirement).about(format_args!("{required}, {effect:?}")),
                );
            }
        }
        let others = self.members.iter().filter(|(other, _)| **other != id);
        let under_way = others.filter(|(_, other)| other.is_under_way(now)).count();
        if let Some(places) = self.places.filter(|places| in_turn && under_way >= *places) {
            broken.push(Broken::from(Rule::TooManyStarts).about(format_args!("{under_way} of {places}")));
        }
        broken
    }

    fn ends_in_order(&self, id: ServiceId) -> Result<(), Broken> {
        let Some(member) = self.members.get(&id) else { return Ok(()) };
        let follows =
            |other: &&Member| other.after.iter().chain(&other.requires).any(|name| *name == member.name);
        match self.members.values().filter(follows).find(|other| other.world.gateway.has_tree()) {
            Some(other) => Err(Broken::from(Rule::EndedBeforeFollowers).about(&other.name)),
            None => Ok(()),
        }
    }

    /// The supervisor is gone, whether it has ended or was killed.
    pub fn leave(self) -> Heritage {
        // Of what it was killed too early to find, the disk still holds what it held.
        let mut heritage = self.heritage;
        for member in self.members.into_values() {
            let world = member.world;
            if world.is_sure && world.registered && world.disk.iter().all(|(_, want)| want.is_some()) {
                let all = world.disk.iter().filter_map(|(_, want)| *want);
                heritage.wants.insert(member.name, std::iter::once(world.on_disk).chain(all).collect());
            }
        }
        heritage
    }
}

impl Heritage {
    fn check(&mut self, name: &ServiceName, restored: &Restored) -> Result<(), Broken> {
        let Some(wants) = self.wants.remove(name).filter(|_| restored.recorded) else { return Ok(()) };
        if wants.contains(&restored.want) {
            return Ok(());
        }
        Err(Broken::from(Rule::WantIsLost).about(format_args!("{:?} instead of {wants:?}", restored.want)))
    }
}

impl Member {
    fn new(
        name: &ServiceName,
        policy: &Arc<Policy>,
        (after, requires): (&[ServiceName], &[ServiceName]),
        seed: u64,
    ) -> Self {
        let gateway = Gateway::new(Arc::clone(policy), seed);
        Self {
            name: name.clone(),
            after: after.to_vec(),
            requires: requires.to_vec(),
            // What the disk holds is known once it is booted.
            world: World { is_sure: false, ..World::at_rest(gateway, Want::Down) },
            starts: None,
            gate: Gate::Open,
        }
    }

    /// Others may count on it.
    fn is_there(&self) -> bool {
        let gateway = &self.world.gateway;
        if matches!(gateway.elsewhere(), Some(Elsewhere::Served { .. })) || gateway.phase() == Phase::Finished
        {
            return true;
        }
        let runs = gateway.phase() == Phase::Up && self.world.main == Main::Alive;
        let is_ready = !self.world.reports || self.world.reported;
        match gateway.policy().kind {
            Kind::Daemon => runs && is_ready,
            // Whose want is down has no run to finish.
            Kind::Oneshot | Kind::Scheduled => {
                runs && is_ready && gateway.want() == Want::Down && !gateway.is_once()
            }
        }
    }

    /// Whether a start of it has just begun, or is over.
    fn follow(&mut self, was: Phase, now: Tick) {
        let phase = self.world.gateway.phase();
        let rested = matches!(was, Phase::Down | Phase::Held | Phase::Failed | Phase::Finished);
        if phase == Phase::Starting && rested {
            self.starts = Some(now);
        } else if !self.is_under_way(now) {
            self.starts = None;
        }
    }

    fn is_under_way(&self, now: Tick) -> bool {
        let Some(began) = self.starts else { return false };
        let gateway = &self.world.gateway;
        match gateway.phase() {
            Phase::Starting => now < began.after(PATIENCE),
            Phase::Up if gateway.policy().ready.is_some() => gateway.awaits_ready(),
            Phase::Up => now < gateway.since().after(SETTLED),
            _ => false,
        }
    }
}

impl World {
    /// What a trace tells has happened.
    fn happens(&mut self, event: &Event, now: Tick) -> Result<(), Broken> {
        self.now = now;
        let may = self.may(event);
        let current = self.incarnation();
        match event {
            Event::Boot(restored) => self.is_found(restored),
            Event::Spawned { incarnation, .. } if *incarnation == current => {
                self.main = Main::Alive;
                self.reports = self.gateway.policy().ready.is_some() && !self.preparing && !self.finishing;
            }
            Event::SpawnFailed { incarnation, .. } if *incarnation == current => {
                (self.main, self.tree, self.ended) = (Main::Dead, false, None);
            }
            Event::MainExited { incarnation, exit } if *incarnation == current => self.main_ends(*exit),
            Event::TreeEmpty { incarnation } if *incarnation == current => {
                (self.tree, self.tree_told) = (false, true);
            }
            Event::LogsDrained { incarnation } if *incarnation == current => self.draining = false,
            Event::HookEnded { incarnation } if *incarnation == current => self.hook = None,
            Event::Recorded { seq } | Event::NotRecorded { seq, .. } => {
                let at = self.disk.iter().position(|(of, _)| of == seq);
                let written = at.and_then(|at| self.disk.remove(at));
                if let Some((_, want)) = written.filter(|_| matches!(event, Event::Recorded { .. })) {
                    self.write(want)?;
                } else {
                    // It may be there all the same.
                    self.is_sure = false;
                }
            }
            event => self.note(event),
        }
        if may { Ok(()) } else { Err(Rule::NoSuchStep.into()) }
    }

    /// What the supervisor finds when it starts.
    fn is_found(&mut self, restored: &Restored) {
        let other = if restored.want == Want::Up { Want::Down } else { Want::Up };
        self.on_disk = if restored.recorded { restored.want } else { other };
        self.is_sure = restored.recorded;
        self.needed = restored.needed.is_some();
        if let Some(living) = restored.living {
            (self.main, self.tree) = (Main::Alive, true);
            self.reports = living.readiness != Readiness::Undefined;
            self.reported = matches!(living.readiness, Readiness::Reported(_));
        }
    }
}

/// The name of its variant.
pub fn kind(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}
