//! Services become known, get another definition, or lose theirs.

use crate::core::fingerprint::fingerprint;
use crate::core::fleet::ServiceId;
use crate::core::gateway::{History, Restored};
use crate::core::words::{Cause, Want};
use crate::daemon::Supervisor;
use crate::daemon::boot::ownership::{Gateways, SWITCHED_OFF};
use crate::daemon::execute::history;
use crate::daemon::services::{Gone, Service};
use crate::daemon::topics::definitions::found::is_profile;
use crate::daemon::topics::definitions::{Define, First, New};
use crate::daemon::view::decide;
use crate::definition::Definition;
use crate::hermes::state_json::Intent;
use crate::store::{Change, RecordRow};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why an instance ends.
const TOO_MANY: &str = "its definition has fewer instances now";

impl Supervisor {
    /// What has become of a definition takes effect.
    pub(in crate::daemon) fn define(&mut self, define: Define) {
        match define {
            Define::Same { id, stamp, record } => {
                if let Some(service) = self.services.get_mut(&id) {
                    service.definition.stamp = stamp;
                    (service.record, service.edited) = (record.map(Box::new), None);
                }
            }
            Define::Changed { id, definition, record } => self.redefine(id, *definition, record),
            Define::Back(id) => self.is_back(id),
            Define::Gone(id) => {
                if let Some(service) = self.services.get_mut(&id) {
                    service.gone = match service.gone {
                        Gone::No => Gone::Yes,
                        Gone::Returns => Gone::Dropped,
                        gone @ (Gone::Yes | Gone::Dropped) => gone,
                    };
                }
                self.drop_if_gone(id);
            }
            Define::OneTooMany(id) => {
                let effects = self.fleet.hold(id, TOO_MANY.to_owned(), self.clock.now());
                self.execute(effects);
                self.define(Define::Gone(id));
            }
            Define::New(new) => self.define_new(*new),
        }
    }

    /// There is a definition again of what was on its way out.
    fn is_back(&mut self, id: ServiceId) {
        let Some(service) = self.services.get_mut(&id) else { return };
        match service.gone {
            Gone::No => {}
            Gone::Yes => {
                service.gone = Gone::No;
                // What was one instance too many may run again.
                if service.name.as_instance().is_some() {
                    let effects = self.fleet.unhold(id, self.clock.now());
                    self.execute(effects);
                }
            }
            Gone::Dropped | Gone::Returns => service.gone = Gone::Returns,
        }
    }

    fn define_new(&mut self, New { definition, record, first, intent }: New) {
        match first {
            First::Seen(want, cause) => self.introduce(definition, record, (want, cause), intent.as_ref()),
            First::Recorded(want, run) => {
                let starts = want == Want::Up && !self.stays_down(&definition);
                let past = run.map(|run| history(&run, definition.hash)).unwrap_or_default();
                let id = self.add_service(definition, record);
                self.set_going(id, want, starts, past);
            }
            First::Down { recorded } => drop(self.add_at_rest(definition, record, recorded)),
        }
    }

    /// A service that was not there before: its first want is recorded, and it starts if that is up.
    fn introduce(
        &mut self,
        definition: Definition,
        record: Option<RecordRow>,
        (want, cause): (Want, Cause),
        intent: Option<&Intent>,
    ) {
        let name = definition.name.clone();
        let moved =
            if is_profile(&definition) { self.topics.profiles.moved_want(&name, &self.fleet) } else { None };
        let (want, cause) = moved.map_or((want, cause), |(want, _)| (want, Cause::ProfileMoved));
        let free = moved.is_none_or(|(_, free)| free);
        let starts = want == Want::Up && free && !self.stays_down(&definition);
        let id = self.add_service(definition, record);
        // It has no past, whatever there was of that name.
        let mut rows =
            vec![Change::Want(name.clone(), self.want_row(id, want, cause)), Change::ForgetRun(name.clone())];
        rows.extend(self.know_mirror(id, want, None, intent).map(|row| Change::Mirrored(name, row)));
        self.store.commit_lazily(rows);
        self.set_going(id, want, starts, History::default());
    }

    /// A service with this past, whose want is on record, goes where that is; or stays down for now.
    pub(in crate::daemon) fn set_going(&mut self, id: ServiceId, want: Want, starts: bool, past: History) {
        let in_force = if starts { Want::Up } else { Want::Down };
        let restored = Restored { history: past, ..Restored::at_rest(in_force, in_force == want) };
        let effects = self.fleet.boot(BTreeMap::from([(id, restored)]), self.clock.now());
        self.execute(effects);
    }

    /// A service that stays down until it is told otherwise; `recorded`: down is what is on record.
    pub(in crate::daemon) fn add_at_rest(
        &mut self,
        definition: Definition,
        record: Option<RecordRow>,
        recorded: bool,
    ) -> ServiceId {
        let id = self.add_service(definition, record);
        let effects =
            self.fleet.boot([(id, Restored::at_rest(Want::Down, recorded))].into(), self.clock.now());
        self.execute(effects);
        id
    }

    /// A service becomes known, at rest.
    pub(in crate::daemon) fn add_service(
        &mut self,
        mut definition: Definition,
        record: Option<RecordRow>,
    ) -> ServiceId {
        // Of many, most have the policy of the one before.
        if let Some((_, other)) = self.services.last_key_value()
            && other.definition.policy == definition.policy
        {
            definition.policy = Arc::clone(&other.definition.policy);
        }
        let seed = fingerprint([definition.name.as_str(), &self.instance]);
        let id = self.fleet.add(
            definition.name.clone(),
            Arc::clone(&definition.policy),
            definition.after.clone(),
            definition.requires.clone(),
            seed,
        );
        let switched_off = self.options.gateways == Gateways::Off && is_profile(&definition);
        self.services.insert(id, Box::new(Service::new(definition, record)));
        if switched_off {
            let effects = self.fleet.hold(id, SWITCHED_OFF.to_owned(), self.clock.now());
            self.execute(effects);
        }
        decide!(self.topology.joined(id));
        id
    }

    /// A service has another definition from its next start on.
    fn redefine(&mut self, id: ServiceId, definition: Definition, record: Option<RecordRow>) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let (policy, after, requires) =
            (Arc::clone(&definition.policy), definition.after.clone(), definition.requires.clone());
        service.definition = definition;
        (service.record, service.edited) = (record.map(Box::new), None);
        let effects = self.fleet.redefine(id, policy, after, requires, self.clock.now());
        self.execute(effects);
        self.replan(id);
    }
}
