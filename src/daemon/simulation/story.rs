//! What happened in a run, in plain words: what the world did, and below it what the supervisor said and did about it.

use slog::{Drain, Never, OwnedKVList, Record};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A story that is being told. Clones tell the same one.
#[derive(Debug, Clone, Default)]
pub struct Story(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    now: u64,
    /// Another one in each run, so that it is left out.
    dir: String,
    lines: Vec<String>,
}

impl Story {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn at(&self, now: u64) {
        self.lock().now = now;
    }

    /// Paths begin here.
    pub fn begin_in(&self, dir: &Path) {
        self.lock().dir = dir.display().to_string();
    }

    /// The world does something.
    pub fn tell(&self, what: &str) {
        self.line("", what);
    }

    /// The supervisor does.
    pub fn did(&self, what: &str) {
        self.line("    ", what);
    }

    fn line(&self, indent: &str, what: &str) {
        let mut told = self.lock();
        let (seconds, millis) = (told.now / 1000, told.now % 1000);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let line = format!("{hours:02}:{minutes:02}:{:02}.{millis:03}  {indent}{what}", seconds % 60);
        let line = if told.dir.is_empty() { line } else { line.replace(&told.dir, "") };
        told.lines.push(line);
    }

    pub fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// A log whose lines are part of it.
    pub fn log(&self) -> slog::Logger {
        slog::Logger::root(Log(self.clone()), slog::o!())
    }
}

struct Log(Story);

impl Drain for Log {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        if record.level().is_at_least(slog::Level::Info) {
            let mut text = String::from("says: ");
            let _ = write!(text, "{}", record.msg());
            self.0.did(&text);
        }
        Ok(())
    }
}
