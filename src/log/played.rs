//! The logs without threads: [`Hands`] do what the threads would do, when they are told to. FIFOs and files are real ones, which a
//! test puts into memory; they are read and written without waiting.

use super::backlog::Backlog;
use super::files::Files;
use super::pump::Pump;
use super::{Container, LogEvent, Logs};
use rustix::event::{Timespec, epoll};
use std::io;
use std::path::Path;
use std::time::Instant;

/// The two threads, if there were any.
pub struct Hands {
    pump: Pump,
    files: Files,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hands")
    }
}

/// As [`Logs::start`].
///
/// # Errors
/// As there.
pub fn make(
    runtime_dir: &Path,
    container: Container,
    notify: impl Fn(LogEvent) + Send + Clone + 'static,
) -> io::Result<(Logs, Hands)> {
    let (logs, files, pump, _) = Logs::make(runtime_dir, container, notify)?;
    Ok((logs, Hands { pump, files, events: Vec::with_capacity(64) }))
}

impl Hands {
    /// The pump does what there is to do now.
    pub fn pump(&mut self) {
        self.pump.turn(&mut self.events, |_| Some(Timespec::default()));
    }

    /// The files thread does what it was given, all of it.
    pub fn write(&mut self) {
        while self.files.turn(Backlog::next_at_once) {}
    }

    /// When the pump gives somebody up.
    pub fn due(&self) -> Option<Instant> {
        self.pump.deadline()
    }
}
