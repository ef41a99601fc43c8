//! What a boot does about Hermes profiles before anything starts: their stale files go, how their last lives ended is
//! noted, a home from before supervision is taken over, and wishes that were put into their state files are adopted.
//!
//! The reading and removing is done on a thread that may hang with the disk; what follows from it is decided here.

use crate::containment::AdoptionRecord;
use crate::core::fleet::ServiceId;
use crate::core::name::{DASHBOARD, ServiceName};
use crate::core::words::Want;
use crate::daemon::services::{mirror_directory, registered_directory};
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::{Options, Supervisor};
use crate::definition::resolved::Origin;
use crate::definition::template::DEFAULT_PROFILE;
use crate::definition::{Definition, Surroundings, dashboard};
use crate::hermes::boot_log::PriorExit;
use crate::hermes::reconcile::{prior_exit, remove_stale};
use crate::hermes::redirect::{is_legacy_run, is_yes};
use crate::hermes::{profiles, state_json};
use crate::store::{MirroredRow, Opened, Program, RecordRow, WantRow};
use crate::sys::beneath::Beneath;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be done in the profiles' directories.
#[derive(Debug)]
pub struct Task {
    around: Surroundings,
    profiles: Vec<ServiceName>,
    /// Those whose gateways run: nothing of theirs is stale.
    live: BTreeSet<PathBuf>,
    /// Of registered gateways, which may lie elsewhere.
    others: BTreeSet<PathBuf>,
    /// The Unix time in seconds, when the root profile is to be looked at for what ran before there was supervision.
    migrate: Option<u64>,
    /// Nobody waits for it any more: gateways start, and what they write is not stale.
    given_up: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Reconciled {
    pub exits: BTreeMap<ServiceName, PriorExit>,
    /// What the root profile's state file says after the migration.
    migrated: Option<state_json::Intent>,
    pub warnings: Vec<String>,
}

impl Task {
    /// `adopted` run already, `cmd` is the container's command, `now` the Unix time in seconds.
    pub fn new(
        options: &Options,
        around: &Surroundings,
        opened: &Opened,
        found: &Found,
        adopted: &BTreeMap<ServiceName, AdoptionRecord>,
        cmd: &[OsString],
        now: u64,
    ) -> Self {
        let directory = |record: &RecordRow| match &record.program {
            Program::Profile(directory) => registered_directory(directory, &around.home),
            Program::Argv(_) => None,
        };
        let others = opened.records.values().filter_map(directory);
        let live = adopted.keys().filter_map(|name| match opened.records.get(name) {
            Some(record) => directory(record),
            None => Some(profiles::directory_of(name)),
        });
        // What cannot be read may say something else.
        let fresh = opened.volatile.is_none() && !opened.wants.contains_key(DEFAULT_PROFILE);
        let has_root = found.profiles.iter().any(|name| name.as_str() == DEFAULT_PROFILE);
        let migrates = fresh && has_root && is_legacy_run(cmd, |name| options.variable(name));
        Self {
            around: around.clone(),
            profiles: found.profiles.clone(),
            live: live.collect(),
            others: others.collect(),
            migrate: migrates.then_some(now),
            given_up: Arc::default(),
        }
    }

    /// Set once its end is not waited for.
    pub fn given_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.given_up)
    }

    /// Does it. Blocks on the file system.
    pub fn run(self) -> Reconciled {
        let mut done = Reconciled::default();
        let user = self.around.gateway.credentials();
        // That it cannot be opened was said when the profiles were looked for.
        let Ok(home) = Beneath::open(&self.around.home) else { return done };
        for name in &self.profiles {
            done.exits.insert(name.clone(), prior_exit(&home, &user, &profiles::directory_of(name)));
        }
        let directories = self.profiles.iter().map(profiles::directory_of);
        let stale = &directories.chain(self.others).collect::<BTreeSet<_>>() - &self.live;
        for directory in stale {
            if self.given_up.load(Ordering::Relaxed) {
                return done;
            }
            if let Err(error) = remove_stale(&home, &user, &directory) {
                let shown = self.around.home.join(&directory);
                done.warnings.push(format!("stale files in {} stay: {error}", shown.display()));
            }
        }
        if let Some(now) = self.migrate.filter(|_| !self.given_up.load(Ordering::Relaxed)) {
            let root = PathBuf::new();
            let migrated = match state_json::exists(&home, &user, &root) {
                Ok(false) => state_json::migrate_legacy(&home, &user, &root, now)
                    .and_then(|()| state_json::read(&home, &user, &root).map(Some)),
                Ok(true) => Ok(None),
                Err(error) => Err(error),
            };
            match migrated {
                Ok(migrated) => done.migrated = migrated,
                Err(error) => done.warnings.push(format!("gateway_state.json is not migrated: {error}")),
            }
        }
        done
    }
}

impl Reconciled {
    /// What the migration wrote counts as what was found.
    pub fn complete(&mut self, found: &mut Found) {
        if let (Some(migrated), Ok(root)) = (self.migrated.take(), ServiceName::new(DEFAULT_PROFILE)) {
            found.intents.insert(root, migrated);
        }
    }
}

impl Found {
    /// What the state file of the gateway that this service is says, if the service is the one that tells its want there.
    pub fn intent(
        &self,
        definition: &Definition,
        record: Option<&RecordRow>,
        around: &Surroundings,
    ) -> Option<&state_json::Intent> {
        mirror_directory(definition, record, &around.home)?;
        self.intents.get(&definition.name)
    }

    /// The wish that somebody has put into a gateway's state file since its want was mirrored there.
    pub fn outside_wish(
        &self,
        row: &WantRow,
        mirrored: Option<&MirroredRow>,
        intent: Option<&state_json::Intent>,
    ) -> Option<Want> {
        state_json::outside_wish(row.want, mirrored, intent?)
    }
}

impl Supervisor {
    /// What the state file of a service that has just become known is known to say of its want, which is on disk. Returns
    /// what the database does not know yet.
    pub(in crate::daemon) fn know_mirror(
        &mut self,
        id: ServiceId,
        want: Want,
        old: Option<&MirroredRow>,
        intent: Option<&state_json::Intent>,
    ) -> Option<MirroredRow> {
        let known = match intent {
            Some(intent) => state_json::agreed(want, old, intent),
            None => old.filter(|row| row.want == want).cloned(),
        };
        let service = self.services.get_mut(&id)?;
        service.mirrored.clone_from(&known);
        known.filter(|known| Some(known) != old)
    }

    /// What does not start by itself in this boot, whatever it wants: a gateway where the container's command is none's, and an
    /// image's dashboard that nobody has switched on.
    pub(in crate::daemon) fn stays_down(&self, definition: &Definition) -> bool {
        let switched_on = || self.options.variable(dashboard::SWITCH).is_some_and(|value| is_yes(&value));
        let of_image = definition.name.as_str() == DASHBOARD && definition.origin == Origin::Slot;
        self.is_not_for_here(definition) || (of_image && !switched_on())
    }
}
