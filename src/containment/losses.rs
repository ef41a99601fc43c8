//! What the kernel has killed for want of memory in the container as a whole: all that can be known where a tree has no cgroup
//! of its own that counts for it.
//!
//! The nearest cgroup at or above ours that has `memory.events` counts every process at or below it, whoever's bound was
//! too small, and before its SIGKILL is sent (mm/oom_kill.c, `__oom_kill_process`). Who was killed it does not say.

use super::cgroup::discover;
use super::cgroup::watch::{Watch, Watched};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct Losses {
    file: PathBuf,
    watch: Watch,
    _watched: Watched,
    seen: u64,
}

impl Losses {
    /// `None`: no such cgroup can be seen here.
    pub(super) fn open() -> Option<Self> {
        let file = discover::own_memory_events()?;
        let watch = Watch::new().ok()?;
        let watched = watch.add_file(&file, 0).ok()?;
        let mut losses = Self { file, watch, _watched: watched, seen: 0 };
        losses.seen = losses.read();
        Some(losses)
    }

    /// How many more there are than at the last look.
    pub(super) fn more(&mut self) -> u64 {
        // Only that the next wait is for something new; what is true is read.
        drop(self.watch.drain());
        let now = self.read();
        let before = std::mem::replace(&mut self.seen, now);
        self.seen.saturating_sub(before)
    }

    fn read(&self) -> u64 {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        // What cannot be read any more has not changed.
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(self.seen)
    }
}

impl AsFd for Losses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
