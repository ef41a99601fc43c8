//! Debug builds only: everything that a fleet is told and what comes of it, as data. Who writes it down is the daemon's `trace`;
//! that the core does the same again and keeps its rules is `model::replay`.

use super::clock::Tick;
use super::effect::Effect;
use super::event::{Event, Incarnation};
use super::fleet::{Fleet, FleetEffects, Place, ServiceId};
use super::gateway::{Gateway, Phase, Restored, Stage};
use super::name::ServiceName;
use super::policy::{self, Policy};
use super::words::Want;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A call of a method of [`Fleet`] that changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    Add {
        name: ServiceName,
        #[serde(with = "policy::shared")]
        policy: Arc<Policy>,
        after: Vec<ServiceName>,
        requires: Vec<ServiceName>,
        seed: u64,
    },
    Hold {
        id: ServiceId,
        reason: String,
    },
    Unhold(ServiceId),
    Place {
        id: ServiceId,
        place: Place,
    },
    Redefine {
        id: ServiceId,
        #[serde(with = "policy::shared")]
        policy: Arc<Policy>,
        after: Vec<ServiceName>,
        requires: Vec<ServiceName>,
    },
    Remove(ServiceId),
    Boot(BTreeMap<ServiceId, Restored>),
    Step {
        id: ServiceId,
        event: Event,
    },
    Time,
    Postpone(Duration),
    Shutdown {
        deadline: Tick,
    },
    KillAll,
    Places(Option<usize>),
    Used {
        id: ServiceId,
        at: Tick,
    },
    InTurn(Vec<ServiceId>),
    AtOnce(Vec<ServiceId>),
}

/// How a service is, as far as the rules of a trace ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    pub want: Want,
    pub phase: Phase,
    pub deadline: Option<Tick>,
    /// The number of its newest life.
    pub incarnation: Incarnation,
    /// Failures that count against its limit.
    pub failures: usize,
    /// It is being unregistered.
    pub retiring: bool,
}

impl After {
    pub fn stage(&self) -> Option<Stage> {
        match self.phase {
            Phase::Ending(ending) => Some(ending.stage),
            _ => None,
        }
    }
}

impl Gateway {
    pub fn after(&self) -> After {
        After {
            want: self.want(),
            phase: self.phase(),
            deadline: self.deadline(),
            incarnation: self.history().incarnation,
            failures: self.history().failures.len(),
            retiring: self.is_retiring(),
        }
    }
}

/// What one service was told, and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub id: ServiceId,
    pub event: Event,
    pub effects: Vec<Effect>,
    pub after: After,
}

/// One call, and what all services were told because of it, in order. Their effects, one after another, are what is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub at: Tick,
    pub call: Call,
    pub told: Vec<Told>,
}

impl Call {
    /// Makes the call.
    pub fn make(self, fleet: &mut Fleet, now: Tick) -> FleetEffects {
        match self {
            Self::Add { name, policy, after, requires, seed } => {
                fleet.add(name, policy, after, requires, seed);
                Vec::new()
            }
            Self::Hold { id, reason } => fleet.hold(id, reason, now),
            Self::Unhold(id) => fleet.unhold(id, now),
            Self::Place { id, place } => fleet.place(id, place, now),
            Self::Redefine { id, policy, after, requires } => {
                fleet.redefine(id, policy, after, requires, now)
            }
            Self::Remove(id) => fleet.remove(id, now),
            Self::Boot(restored) => fleet.boot(restored, now),
            Self::Step { id, event } => fleet.step(id, event, now),
            Self::Time => fleet.pass_time(now),
            Self::Postpone(by) => {
                fleet.postpone(by);
                Vec::new()
            }
            Self::Shutdown { deadline } => fleet.shutdown(deadline, now),
            Self::KillAll => fleet.kill_all(now),
            Self::Places(places) => {
                fleet.limit_starts(places);
                Vec::new()
            }
            Self::Used { id, at } => {
                fleet.note_use(id, at);
                Vec::new()
            }
            Self::InTurn(ids) => fleet.in_turn(ids.into_iter(), now),
            Self::AtOnce(ids) => fleet.at_once(ids.into_iter(), now),
        }
    }
}

impl Step {
    /// Makes a call, and notes what comes of it. A passing of time of which nothing comes is no step.
    pub fn make(call: Call, fleet: &mut Fleet, at: Tick) -> (FleetEffects, Option<Self>) {
        let is_idle = call == Call::Time && fleet.next_deadline().is_none_or(|due| due > at);
        fleet.listen();
        let effects = call.clone().make(fleet, at);
        let told = fleet.heard();
        let step = (!is_idle || !told.is_empty()).then_some(Self { at, call, told });
        (effects, step)
    }
}
