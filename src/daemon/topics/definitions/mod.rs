//! Definitions: when files are read again and for whom, what becomes of services then, and what is no service because its
//! definition is refused.
//!
//! Invariants: a service whose definition is malformed or cannot be read keeps the one that it has; one that runs has a new
//! definition from its next start on; nobody waits for a disk that hangs.

pub mod asleep;
pub mod found;
mod readings;
pub mod record;
pub mod refused;
mod reload;
#[cfg(test)]
mod stories;

pub use readings::{Readings, Reloading};
pub use reload::{Define, First, New, Report};

use crate::control::protocol::{Event, EventKind};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::act::{Action, Actions};
use crate::daemon::surface::slots::{Slots, run_in};
use crate::daemon::topics::definitions::asleep::{Asleep, asleep};
use crate::daemon::topics::definitions::found::{Plan, Unreadable, is_profile};
use crate::daemon::topics::definitions::record::{DefineError, define, gateway};
use crate::daemon::topics::definitions::refused::{Refusal, Refusals, dormant};
use crate::daemon::topics::scanning::Slotted;
use crate::daemon::view::View;
use crate::definition::Definition;
use crate::definition::template::{Profile, Template};
use crate::store::{self, RecordRow};
use std::collections::BTreeMap;

/// What is known of definitions beside those of the services.
#[derive(Debug, Default)]
pub struct Definitions {
    pub readings: Readings,
    /// What gateways are made of; `None`: the operator's is malformed.
    template: Option<Template>,
    /// What is wrong with those that cannot be read.
    refused: Refusals,
    /// Records that are no services now.
    dormant: BTreeMap<ServiceName, RecordRow>,
    /// What is on record of those that have no definition now.
    asleep: BTreeMap<ServiceName, Asleep>,
    /// The start did without what is still being read: what the database wants, for when that comes.
    late: Option<BTreeMap<ServiceName, Want>>,
}

impl Definitions {
    /// As a start has found them; `late`: some are still being read.
    pub fn at_start(template: Option<Template>, plan: &Plan, rows: &store::Opened, late: bool) -> Self {
        let wants: BTreeMap<ServiceName, Want> =
            rows.wants.iter().map(|(name, row)| (name.clone(), row.want)).collect();
        let refusal = |(name, unreadable): (&String, &Unreadable)| {
            let recorded = ServiceName::new(name).ok().and_then(|name| wants.get(&name).copied());
            (name.clone(), Refusal::new(unreadable.clone(), recorded))
        };
        Self {
            readings: Readings::default(),
            template,
            refused: plan.refused.iter().map(refusal).collect(),
            dormant: dormant(&rows.records, plan),
            asleep: asleep(rows, plan),
            late: late.then_some(wants),
        }
    }

    /// The definition of a record that is being made.
    ///
    /// # Errors
    /// [`DefineError`].
    pub fn of_record(
        &self,
        name: &ServiceName,
        row: &RecordRow,
        view: &View<'_>,
    ) -> Result<Definition, DefineError> {
        define(name, row, self.template.as_ref(), view.trust, view.around)
    }

    /// The services of these slots: a gateway's is of the template.
    pub fn of_slots(&self, slots: Slots, view: &View<'_>) -> Slotted {
        let Slots { gateways, others, incomplete, unread, warnings } = slots;
        let mut there = incomplete;
        there.extend(unread);
        let mut services = Vec::new();
        for (name, (slot, down)) in gateways {
            there.insert(slot.dir.clone());
            let made = gateway(self.template.as_ref(), &name, &Profile::named(&name), view.around);
            let slotted = |mut definition| {
                run_in(&mut definition, slot);
                definition
            };
            services.push((made.map(slotted), down));
        }
        for definition in others.into_values() {
            there.extend(definition.slot.as_ref().map(|slot| slot.dir.clone()));
            let down = !definition.autostart;
            services.push((Ok(definition), down));
        }
        Slotted { services, there, warnings }
    }

    /// The record of this name that is no service.
    pub fn dormant(&self, name: &ServiceName) -> Option<&RecordRow> {
        self.dormant.get(name)
    }

    /// There is a service of this name now, or nothing on record of it any more.
    pub fn wake(&mut self, name: &ServiceName) -> Option<Asleep> {
        self.asleep.remove(name)
    }

    /// A service of this name has been registered. It may have been refused until now.
    pub fn registered(&mut self, name: &ServiceName) {
        self.wake(name);
        if self.dormant.remove(name).is_some() {
            self.refused.remove(name.as_str());
        }
    }

    /// The database could not be read at boot and can be now: its records become services, and stay down until somebody says
    /// otherwise.
    pub fn recall(&mut self, rows: &store::Opened, view: &View<'_>) -> Actions {
        let mut actions = Actions::new();
        let is_none = |(name, _): &(ServiceName, Asleep)| view.fleet.id(name.as_str()).is_none();
        self.asleep.extend(asleep(rows, &Plan::default()).into_iter().filter(is_none));
        for (name, row) in &rows.records {
            if let Some(id) = view.fleet.id(name.as_str()) {
                if view.service(id).is_some_and(|service| service.record.is_none()) {
                    self.dormant.insert(name.clone(), row.clone());
                }
                continue;
            }
            let want = rows.wants.get(name).map(|row| row.want);
            match self.of_record(name, row, view) {
                Ok(definition) => {
                    let first = First::Down { recorded: want == Some(Want::Down) };
                    self.wake(name);
                    let new = New { definition, record: Some(row.clone()), first, intent: None };
                    actions.push(Action::Define(Define::New(Box::new(new))));
                }
                Err(error) => {
                    actions.push(Action::Tell(Event::warning(EventKind::Refused, error.to_string())));
                    let refusal = Refusal::new(Unreadable::record(row, &error), want);
                    self.refused.insert(name.to_string(), refusal);
                    self.dormant.insert(name.clone(), row.clone());
                }
            }
        }
        actions
    }
}
