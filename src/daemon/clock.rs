//! The only file of the loop that asks what time it is.

use crate::core::clock::Tick;
use crate::sys::time;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The supervisor's clock: Unix time in milliseconds at its start, monotonic from then on. See [`Tick`].
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_unix: Duration,
}

impl Clock {
    pub fn start() -> Self {
        let origin_unix = wall_now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: time::monotonic(), origin_unix }
    }

    pub fn now(&self) -> Tick {
        let elapsed = self.origin_unix + time::monotonic().saturating_duration_since(self.origin);
        Tick(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// When the supervisor started.
    pub fn started(&self) -> Tick {
        Tick(u64::try_from(self.origin_unix.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long until `tick`; zero when it is past.
    pub fn until(&self, tick: Tick) -> Duration {
        tick.since(self.now())
    }
}

/// What every other clock of this machine says now, also when it was set meanwhile: for those who compare.
pub fn wall_now() -> SystemTime {
    time::wall()
}

/// The same, in Unix seconds.
pub fn wall_seconds() -> i64 {
    let since = wall_now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A tick as wall-clock time, for people.
pub fn wall(tick: Tick) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(tick.0)
}
