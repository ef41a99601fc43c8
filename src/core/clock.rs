//! Time as the core sees it: a number handed in with each event. The core never asks for the time.

use std::time::Duration;

/// Milliseconds on the supervisor's own clock.
///
/// It starts at the wall clock's Unix time when the supervisor starts and from then on follows the monotonic clock,
/// so a clock that is set during the run moves no deadline, while ticks kept in the database stay comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick `wait` later, rounded up to a whole millisecond so that nothing is due too early.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let millis = wait.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
