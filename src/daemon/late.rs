//! Definitions and profiles that are still being read when the start has waited long enough: a slow volume, a huge directory.
//!
//! What is elsewhere starts without them. When they come, they are booted as they would have been, with what the database
//! wants of them; a reload that comes first brings them just as well. Until then `status` says what is being read.

use super::adoption::Inheritance;
use super::boot::refusals;
use super::cmd::Cmd;
use super::reconcile::Reconciled;
use super::refused::dormant;
use super::reload::Found;
use super::{Notice, Supervisor};
use crate::definition::Reading;
use crate::store::Opened;
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

/// The topic of the warning that ends when they come.
const TOPIC: &str = "definitions";

/// What the start knew, for those that come later.
#[derive(Debug)]
pub(super) struct Late {
    pub opened: Opened,
    pub cmd: Cmd,
    /// As [`Inheritance`] has them.
    pub goes_on: bool,
    pub continued: bool,
}

/// A reading that the start no longer waits for.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub found: Receiver<Found>,
    pub reading: Reading,
}

impl Supervisor {
    /// The start goes on without what `found` will bring.
    pub(super) fn expect_late(&mut self, late: Late, Unfinished { found, reading }: Unfinished) {
        let (home, place) = (self.options.home.display(), reading.place());
        let text = format!(
            "what is defined below {home} is not there yet: {} is still being read; its services start when that \
             is done",
            place.display()
        );
        self.warn(TOPIC, text);
        self.late = Some(Box::new(late));
        let notifier = self.notifier.clone();
        let wait = move || {
            if let Ok(found) = found.recv() {
                notifier.send(Notice::Late(Box::new(found)));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("late".to_owned()).spawn(wait) {
            slog::error!(self.log, "what is read late is not waited for: 'hermes-sup ctl reload' reads it"; "error" => %error);
        }
    }

    /// Boots those of `found` that the start did without.
    pub(super) fn boot_late(&mut self, found: &mut Found) {
        let Some(late) = self.late.take_if(|_| !self.shutdown.is_on()) else { return };
        let Late { opened, cmd, goes_on, continued } = *late;
        self.warnings.retain(|(topic, _)| *topic != TOPIC);
        slog::info!(self.log, "what is defined below {} was read", self.options.home.display());
        let mut plan = found.plan(&opened.records, &self.surroundings);
        self.dormant = dormant(&opened.records, &plan);
        plan.services.retain(|name, _| self.fleet.id(name.as_str()).is_none());
        self.refused = refusals(&plan, &opened);
        if let Some(template) = &found.loaded.template {
            self.template = Some(template.clone());
        }
        self.state_trust = found.state_trust.clone();
        // Whatever ran without a definition was ended at the start.
        let inheritance = Inheritance { lives: BTreeMap::new(), goes_on, continued };
        let restored = self.boot_services(plan, &opened, found, &Reconciled::default(), inheritance, &cmd);
        self.boot_fleet(restored);
        if let Cmd::Supervised(profile, _) = &cmd {
            self.want_up_after_boot(profile);
        }
    }
}
