//! Definition files that were edited and not read again: `status` shows it, and whoever starts such a service is told.
//!
//! A file outside home is looked at when it is asked about. One below home may hang with its disk, so the thread that may wait
//! looks at it, and the request waits for that, bounded.

use crate::control::protocol::{Request, Targets};
use crate::control::server::Incoming;
use crate::core::clock::Tick;
use crate::core::fleet::ServiceId;
use crate::daemon::services::Service;
use crate::daemon::{Notice, Supervisor};
use crate::definition::resolved::Origin;
use crate::definition::stamp::Stamp;
use crate::sys::credentials::Credentials;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that waits until files were looked at.
#[derive(Debug)]
pub struct Looking {
    pub incoming: Incoming,
    pub ticket: u64,
    pub until: Tick,
}

/// What has become of the file of a service, in words.
pub type Edit = (ServiceId, Option<&'static str>);

/// The file that defines a service, as it was when it was read.
pub(in crate::daemon) fn file(service: &Service) -> Option<(&Path, Stamp)> {
    let path = match &service.definition.origin {
        Origin::File(path) | Origin::Profile { template: Some(path) } => path,
        Origin::Profile { template: None } | Origin::Record | Origin::BuiltIn | Origin::Slot => return None,
    };
    service.definition.stamp.map(|stamp| (path.as_path(), stamp))
}

impl Supervisor {
    /// Whether the request has to wait until files below home were looked at; if so, it is kept.
    pub(in crate::daemon) fn looks_first(&mut self, incoming: &Incoming) -> bool {
        let targets = match &incoming.request {
            Request::Status { targets }
            | Request::Start { targets, .. }
            | Request::Restart { targets, .. }
            | Request::Once { targets, .. } => targets,
            _ => return false,
        };
        let ids: Vec<ServiceId> = match targets {
            Targets::All => self.fleet.ids().collect(),
            Targets::Names(names) => names.iter().filter_map(|name| self.resolve(name)).collect(),
        };
        let in_home = |id: ServiceId| {
            let (path, stamp) = file(self.services.get(&id)?)?;
            path.starts_with(&self.options.home).then(|| (id, path.to_owned(), stamp))
        };
        let files: Vec<(ServiceId, PathBuf, Stamp)> = ids.into_iter().filter_map(in_home).collect();
        if files.is_empty() {
            return false;
        }
        self.looks += 1;
        let (ticket, notifier) = (self.looks, self.wakeups.notifier.clone());
        let work = move || -> Vec<Edit> {
            files.into_iter().map(|(id, path, stamp)| (id, stamp.edited(&path))).collect()
        };
        let done = move |edits: io::Result<Vec<Edit>>| {
            notifier.send(Notice::LookedAt { ticket, edits: edits.unwrap_or_default() });
        };
        if self.logs.files().run(Credentials::own(), work, done).is_err() {
            return false;
        }
        let until = self.clock.now().after(PATIENCE);
        self.topics.postponed.looking.push(Looking { incoming: incoming.clone(), ticket, until });
        true
    }

    /// Files were looked at.
    pub(in crate::daemon) fn looked_at(&mut self, ticket: u64, edits: Vec<Edit>) {
        for (id, edit) in edits {
            if let Some(service) = self.services.get_mut(&id) {
                service.edited = edit;
            }
        }
        let (ready, others) = std::mem::take(&mut self.topics.postponed.looking)
            .into_iter()
            .partition(|one| one.ticket == ticket);
        self.topics.postponed.looking = others;
        self.serve_looking(ready);
    }

    /// Those whose disk takes too long are answered with what is known.
    pub(in crate::daemon) fn stop_looking(&mut self, now: Tick) {
        let (due, others) =
            std::mem::take(&mut self.topics.postponed.looking).into_iter().partition(|one| one.until <= now);
        self.topics.postponed.looking = others;
        self.serve_looking(due);
    }

    fn serve_looking(&mut self, ready: Vec<Looking>) {
        for one in ready {
            self.serve(one.incoming);
        }
    }
}
