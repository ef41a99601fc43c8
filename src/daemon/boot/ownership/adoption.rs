//! What an earlier supervisor left on this state: the lives that it recorded go on, the rest of it is ended before
//! anything is started.
//!
//! Whether a life is still wanted is decided by the core once it is ours, so one that is not gets its stop signal and
//! its time. A life of a service that nobody defines any more is ended.

use crate::containment::{AdoptionRecord, AdoptionRecords, Containment, Patience, Predecessor};
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::daemon::Supervisor;
use crate::daemon::boot::ownership::identity::Kinship;
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::fault;
use crate::daemon::services::launch_error::LaunchError;
use crate::daemon::view::decide;
use crate::definition::limits::inherited;
use crate::store::Opened;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How long all keepers together may take to notice that they have a new supervisor.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(3);
/// How long a start may take to end what a killed supervisor left.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(20);

/// The last supervisor on this state, and the lives that it recorded.
#[derive(Debug, Default)]
pub struct Heritage {
    from: Option<Predecessor>,
    records: Vec<AdoptionRecord>,
    /// It did not come to its end: what it did goes on here.
    pub goes_on: bool,
}

/// What is taken over.
#[derive(Debug)]
pub struct Inheritance {
    pub lives: BTreeMap<ServiceName, AdoptionRecord>,
    /// This is no boot of services: what an earlier supervisor has done needs no doing again.
    pub goes_on: bool,
    /// That supervisor was this very process.
    pub continued: bool,
    /// It has stopped these, and the disk did not take it.
    pub stopped: BTreeSet<ServiceName>,
}

/// What the last supervisor on this state wrote down of itself.
pub(in crate::daemon) fn note_of(opened: &Opened, log: &slog::Logger) -> Option<Predecessor> {
    let note = serde_json::from_value(opened.boot.clone()?);
    note.inspect_err(|error| {
        slog::warn!(log, "the note of the last supervisor cannot be read"; "error" => %error);
    })
    .ok()
}

impl Heritage {
    /// What there is of it on this machine, in this boot and among the processes that we see.
    pub(in crate::daemon) fn of(from: Option<Predecessor>, kinship: Kinship, runtime_dir: &Path) -> Self {
        let from = match (from, kinship) {
            (None, _) | (Some(_), Kinship::Stranger(_) | Kinship::InUse) => return Self::default(),
            (Some(from), Kinship::Replaced) => return Self { from: Some(from), ..Self::default() },
            (Some(from), Kinship::Predecessor) => from,
        };
        // The output of a life goes where its FIFOs are, and those are not moved.
        let reachable = from.is_here() && from.runtime_dir == runtime_dir;
        let mut records = if reachable { AdoptionRecords::left_in(runtime_dir) } else { Vec::new() };
        // The newest first: of two lives of one service only that can be meant.
        records.sort_by_key(|one| std::cmp::Reverse(one.living.incarnation));
        Self { from: Some(from), records, goes_on: reachable && AdoptionRecords::exists(runtime_dir) }
    }

    /// Whose directories are to be used again: those in which there may be lives that go on.
    pub fn place(&self) -> Option<&Predecessor> {
        self.from.as_ref().filter(|_| !self.records.is_empty())
    }

    /// The lives that were recorded.
    pub fn lives(&self) -> &[AdoptionRecord] {
        &self.records
    }

    /// Takes over what is `known` and there; ends the rest.
    ///
    /// # Errors
    /// One line, when processes are left that do not end: then nothing may be started.
    pub fn claim(
        &self,
        containment: &mut Containment,
        known: impl Fn(&ServiceName) -> bool,
        log: &slog::Logger,
    ) -> Result<BTreeMap<ServiceName, AdoptionRecord>, StartError> {
        let mut adopted = BTreeMap::new();
        let patience = Patience::start(ADOPTION_PATIENCE);
        for record in &self.records {
            let name = &record.name;
            if adopted.contains_key(name) {
                continue;
            }
            if !known(name) {
                slog::warn!(log, "{name}: what still runs of it is ended: no definition of it can be used");
                continue;
            }
            fault::point();
            match containment.adopt(record, &patience) {
                Ok(()) => drop(adopted.insert(name.clone(), record.clone())),
                Err(gone) => slog::info!(log, "{name}: not taken over: {gone}"),
            }
        }
        fault::point();
        // Until here a successor of ours would have found what we found.
        containment.taken_over().map_err(StartError::kernel("write down what runs"))?;
        fault::point();
        let Some(from) = &self.from else { return Ok(adopted) };
        let ended = containment.end_predecessor(from, PREDECESSOR_PATIENCE)?;
        if !adopted.is_empty() {
            slog::warn!(log, "took over what the last supervisor left running"; "services" => adopted.len());
        }
        if ended.cgroups + ended.keepers + ended.strays > 0 {
            let also = if ended.silent > 0 { ", also what keepers held that do not answer" } else { "" };
            slog::warn!(log, "the last supervisor was killed: ended what it left{also}";
                "cgroups" => ended.cgroups, "keepers" => ended.keepers, "strays" => ended.strays);
        }
        Ok(adopted)
    }
}

impl Supervisor {
    /// What a start would have made for a life that was begun by another supervisor: its log is read on, its limits are those
    /// of now, and whether its definition still is the one of now is known.
    pub(in crate::daemon) fn welcome(&mut self, id: ServiceId, record: &AdoptionRecord) {
        let around = self.surroundings.clone();
        let Some(service) = self.services.get_mut(&id) else { return };
        service.in_force = record.definition;
        let name = service.name.clone();
        let opened = around
            .lookup(&service.definition.user)
            .map_err(LaunchError::from)
            .and_then(|user| self.open_log(id, &user, &around, Some(record.living.pid)));
        if let Err(error) = opened {
            slog::warn!(self.log, "{name}: what it writes is not read: {error}");
        }
        let Some(service) = self.services.get(&id) else { return };
        let (limits, mut not_in_force) = self.topics.limits.of(service, &self.state_trust, inherited);
        let life = record.id();
        // Of one whose definition is not known, those that it was started with stay.
        if !service.definition.is_unread() {
            not_in_force.extend(self.containment.set_limits(&life, &limits));
        }
        decide!(self.limits.begun(id, limits, not_in_force));
        decide!(self.limits.spawned(&life, record.living.pid));
    }
}
