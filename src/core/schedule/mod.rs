//! When a oneshot runs again and again, as its definition says it. Pure: what time it is and what the zone does comes from outside.

mod cron;
#[cfg(test)]
mod cron_tests;

pub use cron::{Cron, CronError, Zone};

use std::fmt;
use std::time::Duration;

/// The shortest interval.
pub const LEAST_EVERY: Duration = Duration::from_secs(1);
/// The longest one: a year, as durations are written.
pub const MOST_EVERY: Duration = Duration::from_secs(31_557_600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the times of this line, by the wall clock.
    Cron(Cron),
    /// So long after the last start, whatever the wall clock is set to.
    Every(Duration),
}

/// As the definition has it: `*/5 * * * *`, `every 10m`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(line) => line.fmt(f),
            Self::Every(interval) => write!(f, "every {}", humantime::format_duration(*interval)),
        }
    }
}
