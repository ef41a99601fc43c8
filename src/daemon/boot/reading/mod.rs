//! The reading of definitions and profiles, which goes on while the database is opened; what comes late; and what a boot does
//! about the homes of profiles.

pub(in crate::daemon) mod finding;
pub(in crate::daemon) mod late;
pub(in crate::daemon) mod reconcile;
pub(in crate::daemon) mod unread;

use crate::daemon::boot::patience::DISK_PATIENCE;
use crate::daemon::boot::reading::finding::Sources;
use crate::daemon::sources::Notifier;
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::{Notice, Options};
use crate::definition::Surroundings;
use std::sync::mpsc::{Receiver, Sender, channel};

pub(super) struct Finding {
    found: Receiver<Found>,
    /// Dropped when the database is open.
    opening: Option<Sender<()>>,
}

impl Finding {
    pub fn begin(sources: Sources, notifier: &Notifier) -> std::io::Result<Self> {
        let (opening, opened) = channel();
        let (sender, found) = channel();
        let first = move |found| drop(sender.send(found));
        let notifier = notifier.clone();
        let later = move |found| notifier.send(Notice::Late { reading: 0, found: Box::new(found) });
        finding::read(sources, opened, DISK_PATIENCE, first, later)?;
        Ok(Self { found, opening: Some(opening) })
    }

    /// One that is over.
    #[cfg(test)]
    pub fn over() -> Self {
        Self { found: channel().1, opening: None }
    }

    /// What was found. Where the gateways of home may be another supervisor's, only what lies elsewhere.
    pub fn end(
        &mut self,
        options: &Options,
        around: &Surroundings,
        unlocked: bool,
        log: &slog::Logger,
    ) -> Found {
        drop(self.opening.take());
        let found = if unlocked { None } else { self.found.recv().ok() };
        found.unwrap_or_else(|| {
            slog::error!(
                log,
                "{} does not answer: what is defined below it is not there",
                options.home.display()
            );
            let dirs = options.services.iter().filter(|dir| !dir.starts_with(&options.home)).cloned();
            Found::without_home(&dirs.collect::<Vec<_>>(), around)
        })
    }
}
