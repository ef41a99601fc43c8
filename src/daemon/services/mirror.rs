//! A gateway's want, told in its own `gateway_state.json` for its readers: the CLI, another supervisor after us.
//!
//! The database is the truth. The file is written when the want is on disk and no gateway runs that could overwrite it:
//! for a want that is up before the spawn, for one that is down at rest. What it said then is kept in the database, so
//! that a later wish of somebody else can be told from our own.

use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::services::Gone;
use crate::daemon::{Notice, Supervisor};
use crate::hermes::state_json;
use crate::store::{Change, MirroredRow};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::io;

/// What the work on the file came to.
pub type Mirrored = io::Result<MirroredRow>;

impl Supervisor {
    /// The work that brings the file up to date before a start, for the thread that may wait. `None`: nothing to do.
    pub(in crate::daemon) fn mirror_before_start(
        &mut self,
        id: ServiceId,
    ) -> Option<impl FnOnce() -> Mirrored + use<>> {
        let want = self.fleet.gateway(id)?.want();
        // What only agreed by chance is written: what the gateway says of itself must not be taken for a wish.
        let told = self
            .services
            .get(&id)?
            .mirrored
            .as_ref()
            .is_some_and(|row| row.want == want && row.modified_ns.is_some());
        if told { None } else { self.mirror_work(id, want) }
    }

    /// A service is at rest: a want that is down is told now.
    pub(in crate::daemon) fn mirror_at_rest(&mut self, id: ServiceId) {
        let resting = self.fleet.gateway(id).is_some_and(|gateway| {
            gateway.phase() == Phase::Down && gateway.want() == Want::Down && !gateway.is_retiring()
        });
        let told = |row: &MirroredRow| row.want == Want::Down;
        let due = |service: &crate::daemon::services::Service| {
            service.gone == Gone::No && !service.mirrored.as_ref().is_some_and(told)
        };
        if !resting || !self.services.get(&id).is_some_and(|service| due(service)) {
            return;
        }
        let Some(work) = self.mirror_work(id, Want::Down) else { return };
        let Some(name) = self.fleet.name(id).cloned() else { return };
        let notifier = self.wakeups.notifier.clone();
        let named = name.clone();
        let done = move |written: io::Result<Mirrored>| {
            let written = written.and_then(|written| written);
            notifier.send(Notice::Mirrored { id, name: named, written });
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            self.mirrored(id, &name, Err(io::Error::other(refused)));
        }
    }

    fn mirror_work(&mut self, id: ServiceId, want: Want) -> Option<impl FnOnce() -> Mirrored + use<>> {
        // The database may say something else, which must not be lost.
        if !self.fleet.gateway(id)?.is_recorded() {
            return None;
        }
        let directory = self.services.get(&id)?.mirror_directory(&self.options.home)?;
        let user = self.surroundings_now().gateway.credentials();
        let (home, now) = (self.options.home.clone(), self.clock.now().0 / 1000);
        let service = self.services.get_mut(&id)?;
        // Until it is answered nothing is known: a want that changes meanwhile is told again, after this one.
        service.mirrored = None;
        Some(move || {
            let home = Beneath::open(&home);
            home.and_then(|home| state_json::mirror(&home, &user, &directory, want, now))
        })
    }

    /// The file was written, or could not be.
    pub(in crate::daemon) fn mirrored(&mut self, id: ServiceId, name: &ServiceName, written: Mirrored) {
        let Some(service) = self.services.get_mut(&id).filter(|service| service.name == *name) else {
            return;
        };
        match written {
            Ok(row) => {
                service.mirrored = Some(row.clone());
                service.unmirrored = false;
                let is_off_record = service.gone.is_off_record();
                let known = self.fleet.gateway(id).is_some_and(|gateway| !gateway.is_retiring());
                if known && !is_off_record {
                    self.store.commit_lazily(vec![Change::Mirrored(name.clone(), row)]);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut service.unmirrored, true) {
                    slog::warn!(self.log, "{name}: gateway_state.json does not tell its want: {error}");
                }
            }
        }
    }
}
