//! How long a helper thread has been at the piece of work in its hand: what `status` shows of a stuck one.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds of CLOCK_MONOTONIC plus one at which the present work began; 0 between works.
#[derive(Debug, Default)]
pub(super) struct Busy(AtomicU64);

impl Busy {
    pub(super) fn begin(&self) {
        self.0.store(millis() + 1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// `None` when idle.
    pub(super) fn so_far(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            begun => Some(Duration::from_millis((millis() + 1).saturating_sub(begun))),
        }
    }
}

fn millis() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
