//! What the kernel is asked to do about the memory of services (`[memory]`), and what is said where it cannot.

use crate::containment::IncarnationId;
use crate::daemon::inbox::Input;
use crate::daemon::{Notice, Supervisor};
use crate::sys::samepage::{self, Merging};
use std::io;

/// The topic of the warnings.
const KSM: &str = "ksm";
const RECLAIM: &str = "reclaim";

impl Supervisor {
    /// A service that starts asks for samepage merging. Once, where that has no effect on this machine.
    pub(in crate::daemon) fn say_of_ksm(&mut self) {
        if !self.warnings.iter().any(|(topic, _)| *topic == KSM)
            && let Merging::Not(why) = samepage::merging()
        {
            self.warn(KSM, format!("ksm = true of [memory] has no effect: {why}"));
        }
    }

    /// The kernel takes back what this life does not use, on a thread of its own: that may take seconds.
    pub(in crate::daemon) fn reclaim(&mut self, life: &IncarnationId) {
        let Some(reclaim) = self.containment.reclaim(life) else {
            let text = "reclaim_after of [memory] has no effect: it takes a cgroup rung, the memory controller and Linux 5.19";
            return self.warn(RECLAIM, text.to_owned());
        };
        let (notifier, name) = (self.wakeups.notifier.clone(), life.clone());
        let work = move || notifier.send(Notice::Reclaimed(name, reclaim.run()));
        if let Err(error) = std::thread::Builder::new().name("reclaim".to_owned()).spawn(work) {
            self.inbox.push(Input::Notice(Notice::Reclaimed(life.clone(), Err(error))));
        }
    }

    pub(in crate::daemon) fn reclaimed(&self, life: &IncarnationId, done: io::Result<u64>) {
        let name = &life.name;
        match done {
            Ok(bytes) => {
                slog::info!(
                    self.log,
                    "{name}: the kernel has taken back {} kB that it did not use",
                    bytes / 1024
                )
            }
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                slog::warn!(self.log, "{name}: what it does not use was not taken back"; "error" => %error);
            }
        }
    }
}
