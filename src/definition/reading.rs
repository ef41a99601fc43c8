//! Which file is being read just now: what a reading that does not come to its end waits for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared between the thread that reads and the loop, which only looks.
#[derive(Debug, Clone, Default)]
pub struct Reading(Arc<Mutex<PathBuf>>);

impl Reading {
    /// This file or directory comes next.
    pub fn at(&self, path: &Path) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.clear();
        place.push(path);
    }

    /// The last one; empty before the first.
    pub fn place(&self) -> PathBuf {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
