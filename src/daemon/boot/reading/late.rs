//! Definitions and profiles that are still being read when a start or a reload has waited long enough: a slow volume, a
//! directory that hangs.
//!
//! What is there is taken without them. When they come, they are taken as they would have been: after a start, with what the
//! database wants of them. Until then `status` says what is being read.

use crate::core::name::ServiceName;
use crate::daemon::boot::cmd::Cmd;
use crate::daemon::boot::ownership::adoption::Inheritance;
use crate::daemon::boot::reading::finding::{self, Sources};
use crate::daemon::boot::reading::reconcile::Reconciled;
use crate::daemon::inbox::Input;
use crate::daemon::show::first_of;
use crate::daemon::topics::definitions::found::{Found, Plan};
use crate::daemon::{Notice, Supervisor};
use crate::store::Opened;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long a reload waits for what is slow.
const PATIENCE: Duration = Duration::from_secs(2);
/// The topic of the warning that ends when they come.
const TOPIC: &str = "definitions";
/// As many are named.
const MOST_NAMED: usize = 3;

/// What the start knew, for those that come later.
#[derive(Debug)]
pub(in crate::daemon) struct Late {
    pub opened: Opened,
    pub cmd: Cmd,
    /// As [`Inheritance`] has them.
    pub goes_on: bool,
    pub continued: bool,
    pub stopped: BTreeSet<ServiceName>,
}

impl Supervisor {
    /// Reads everything that lies in files again, on threads that may wait for it.
    pub(in crate::daemon) fn read_definitions(&mut self, reading: u64) {
        self.surroundings = self.surroundings_now();
        let watch = self.profile_watch.clone();
        let around = self.surroundings.clone();
        let sources = Sources::new(&self.options, around, self.has_hermes, watch, self.busy.clone());
        let (first, later) = (self.wakeups.notifier.clone(), self.wakeups.notifier.clone());
        let first = move |found| first.send(Notice::Found(Box::new(found)));
        let later = move |found| later.send(Notice::Late { reading, found: Box::new(found) });
        // There is a state directory, or was.
        let (_, opened) = channel();
        if let Err(error) = finding::read(sources, opened, PATIENCE, first, later) {
            slog::error!(self.log, "definitions are not read"; "error" => %error);
            let why = format!("there is no thread to read the definitions: {error}");
            self.inbox.push(Input::Notice(Notice::NotFound(why)));
        }
    }

    /// What is still being read.
    pub(in crate::daemon) fn say_late(&mut self, late: &[PathBuf]) {
        let before = self.warnings.iter().any(|(topic, _)| *topic == TOPIC);
        if late.is_empty() {
            if before {
                self.warnings.retain(|(topic, _)| *topic != TOPIC);
                slog::info!(self.log, "what was still being read has been read");
            }
            return;
        }
        let names = first_of(MOST_NAMED, late.iter().map(|path| path.display()));
        let verb = if late.len() == 1 { "is" } else { "are" };
        let text = format!("{names} {verb} still being read, and taken when that is done");
        if !self.warnings.iter().any(|(_, known)| *known == text) {
            self.warnings.retain(|(topic, _)| *topic != TOPIC);
            self.warn(TOPIC, text);
        }
    }

    /// Boots what the start did without. What ran of it goes on.
    pub(in crate::daemon) fn boot_late(&mut self, plan: Plan, found: &Found) {
        let Some(late) = self.late.take() else { return };
        let Late { opened, cmd, goes_on, continued, stopped } = &*late;
        let (goes_on, continued) = (*goes_on, *continued);
        let named = matches!(cmd, Cmd::Supervised(profile, _) if plan.services.contains_key(profile));
        let (lives, stopped) = (BTreeMap::new(), stopped.clone());
        let inheritance = Inheritance { lives, goes_on, continued, stopped: stopped.clone() };
        let restored = self.boot_services(plan, opened, found, &Reconciled::default(), inheritance, cmd);
        self.boot_fleet(restored);
        self.record_stops(&stopped);
        if let (true, Cmd::Supervised(profile, _)) = (named, cmd) {
            self.want_up_after_boot(profile);
        }
        if found.is_incomplete() {
            self.late = Some(late);
        }
    }
}
