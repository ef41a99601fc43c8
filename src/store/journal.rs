//! The newest lines of what has happened, kept over restarts for people: nothing is decided by them.
//!
//! Appended with the commits that happen anyway, and never synced. A file that is full takes the place of the one before it, so
//! between one and two times [`FULL`] bytes are kept.

use super::place::{FILE_MODE, StateDir};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

pub(super) const NAME: &str = "events";
const BEFORE: &str = "events.1";
const FULL: u64 = 256 * 1024;
/// Lines that wait for the disk.
const MOST_WAITING: usize = 1000;

/// A line of the journal. It becomes text on the store's thread, once it is written.
pub trait Note: fmt::Debug + Send + Sync {
    /// Adds it to `text`, without a line break.
    fn write(&self, text: &mut Vec<u8>);
}

/// Lines that are to be written.
#[derive(Debug, Default)]
pub(super) struct Notes(VecDeque<Arc<dyn Note>>);

impl Notes {
    pub(super) fn push(&mut self, note: Arc<dyn Note>) {
        self.0.push_back(note);
        while self.0.len() > MOST_WAITING {
            self.0.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Before those that have come since.
    pub(super) fn put_back(&mut self, older: Self) {
        let newer = std::mem::replace(self, older);
        newer.0.into_iter().for_each(|note| self.push(note));
    }
}

/// Adds the lines. What was written only in part is taken back.
///
/// # Errors
/// As openat(2), renameat(2) and write(2).
pub(super) fn write(dir: &StateDir, notes: &Notes) -> io::Result<()> {
    if notes.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for note in &notes.0 {
        note.write(&mut text);
        text.push(b'\n');
    }
    // What is foreign is said when the state is opened.
    let there = dir.existing(NAME, OFlags::WRONLY | OFlags::APPEND, FILE_MODE, &mut Vec::new())?;
    let there = match there {
        Some(file) if file.metadata()?.len() < FULL => Some(file),
        Some(_) => {
            dir.rename(NAME, BEFORE)?;
            None
        }
        None => None,
    };
    let mut file = there.map_or_else(|| dir.create(NAME, FILE_MODE), Ok)?;
    let before = file.metadata()?.len();
    file.write_all(&text).inspect_err(|_| drop(file.set_len(before)))
}

/// The lines that are kept, oldest first. What cannot be read is left out. The file is made here if it is missing, so that no
/// event makes one.
pub(super) fn read(dir: &StateDir, warnings: &mut Vec<String>) -> Vec<String> {
    let mut lines = Vec::new();
    // It is there, or cannot be made now.
    let _ = dir.create(NAME, FILE_MODE);
    for name in [BEFORE, NAME] {
        let Ok(Some(file)) = dir.existing(name, OFlags::RDONLY, FILE_MODE, warnings) else { continue };
        let mut bytes = Vec::new();
        // A batch may have gone beyond the bound.
        if file.take(4 * FULL).read_to_end(&mut bytes).is_ok() {
            lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
        }
    }
    lines
}
