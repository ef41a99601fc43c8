//! What time it is. Under test a thread can have a time of its own, in which a simulation runs years in a second.

use std::time::{Instant, SystemTime};

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Instant {
    #[cfg(test)]
    if let Some(played) = played::monotonic() {
        return played;
    }
    Instant::now()
}

/// CLOCK_REALTIME, which can be set.
pub fn wall() -> SystemTime {
    #[cfg(test)]
    if let Some(played) = played::wall() {
        return played;
    }
    SystemTime::now()
}

/// The time of this thread alone.
#[cfg(test)]
pub mod played {
    use std::cell::Cell;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    thread_local! {
        static NOW: Cell<Option<(Instant, Duration, i64)>> = const { Cell::new(None) };
    }

    /// This thread is a simulation.
    pub fn is_on() -> bool {
        NOW.get().is_some()
    }

    pub(super) fn monotonic() -> Option<Instant> {
        NOW.get().map(|(origin, run, _)| origin + run)
    }

    pub(super) fn wall() -> Option<SystemTime> {
        let (_, run, wall) = NOW.get()?;
        let run = i64::try_from(run.as_millis()).ok()?;
        Some(UNIX_EPOCH + Duration::from_millis((wall + run).max(0).unsigned_abs()))
    }

    /// A clock that stands still until it is moved. One a thread; its end gives the thread the kernel's time back.
    #[derive(Debug)]
    pub struct Clock(());

    impl Clock {
        /// At this Unix time in milliseconds.
        pub fn start(unix: u64) -> Self {
            NOW.set(Some((Instant::now(), Duration::ZERO, unix.cast_signed())));
            Self(())
        }

        /// Milliseconds since the start.
        pub fn run(&self) -> u64 {
            NOW.get().map_or(0, |(_, run, _)| u64::try_from(run.as_millis()).unwrap_or(u64::MAX))
        }

        /// The same of a time of this clock.
        pub fn of(&self, time: Instant) -> u64 {
            let since = NOW.get().map(|(origin, ..)| time.saturating_duration_since(origin));
            since.map_or(0, |since| u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
        }

        /// Time passes up to so many milliseconds since the start.
        pub fn advance_to(&self, run: u64) {
            let later = |(origin, before, wall)| (origin, Duration::from_millis(run).max(before), wall);
            NOW.set(NOW.get().map(later));
        }

        /// Somebody sets the wall clock, by so many milliseconds.
        pub fn set_wall(&self, by: i64) {
            NOW.set(NOW.get().map(|(origin, run, wall)| (origin, run, wall + by)));
        }
    }

    impl Drop for Clock {
        fn drop(&mut self) {
            NOW.set(None);
        }
    }
}
