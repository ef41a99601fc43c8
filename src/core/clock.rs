//! Time as the core sees it: a number handed in with each event. The core never asks for the time.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds on the supervisor's own clock.
///
/// It starts at the wall clock's Unix time when the supervisor starts and from then on follows the monotonic clock,
/// so a clock that is set during the run moves no deadline, while ticks kept in the database stay comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
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

/// The holder of a deadline looks at the time after this part of what is left, and after [`BEAT`] at the earliest. A pause that
/// is shorter may go unnoticed.
const PART: u32 = 16;
const BEAT: Duration = Duration::from_secs(1);
/// A wake-up that is later than this was not merely delayed by a busy machine.
const LATE: Duration = Duration::from_secs(1);

/// Finds the time in which this process did not run: it was stopped (SIGSTOP), its container was paused, its virtual machine
/// stood still. Such time is nobody's timeout.
///
/// No clock tells: CLOCK_MONOTONIC leaves out only what a suspended machine slept (clock_gettime(2)). So the holder of a
/// deadline wakes up now and then until it is there, and a wake-up that comes much too late shows that nobody ran meanwhile.
/// Without a deadline there are no such beats, and nothing that could be lost.
#[derive(Debug, Default)]
pub struct LostTime {
    beat: Option<Tick>,
    /// By when [`Self::found`] is called again; `None`: at any time.
    due: Option<Tick>,
}

impl LostTime {
    /// To be called before a wait: until when to wait at the most, with a deadline at `deadline`.
    pub fn wait_until(&mut self, now: Tick, deadline: Option<Tick>) -> Option<Tick> {
        let Some(deadline) = deadline else {
            *self = Self::default();
            return None;
        };
        let next = now.after((deadline.since(now) / PART).max(BEAT));
        let beat = self.beat.filter(|beat| *beat > now).map_or(next, |beat| beat.min(next));
        self.beat = Some(beat);
        let until = deadline.min(beat);
        self.due = Some(until.max(now));
        Some(until)
    }

    /// To be called after each wait, before anything is made of the time: how much of it was lost. All deadlines are to be
    /// moved by that.
    pub fn found(&mut self, now: Tick) -> Duration {
        let late = self.due.replace(now).map_or(Duration::ZERO, |due| now.since(due));
        if late > LATE { late } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Tick {
        Tick(1_000_000 + (seconds * 1000.0) as u64)
    }

    #[test]
    fn a_deadline_is_waited_for_in_beats() {
        let mut lost = LostTime::default();
        let deadline = Some(at(2.5));
        let mut wakes = Vec::new();
        let mut now = at(0.0);
        while now < at(2.5) {
            now = lost.wait_until(now, deadline).unwrap();
            assert_eq!(lost.found(now), Duration::ZERO);
            wakes.push(now);
        }
        assert_eq!(wakes, [at(1.0), at(2.0), at(2.5)]);
        lost.wait_until(at(3.0), Some(at(9.0)));
        assert_eq!(
            lost.wait_until(at(3.4), Some(at(9.0))),
            Some(at(4.0)),
            "what else wakes us moves no beat"
        );
    }

    #[test]
    fn who_wakes_up_much_too_late_has_lost_the_time_since_the_beat() {
        let mut lost = LostTime::default();
        assert_eq!(lost.wait_until(at(0.0), Some(at(80.0))), Some(at(5.0)));
        assert_eq!(lost.found(at(6.0)), Duration::ZERO, "a busy machine");
        assert_eq!(lost.wait_until(at(6.0), Some(at(22.0))), Some(at(7.0)), "a nearer deadline");
        assert_eq!(lost.found(at(60.0)), Duration::from_secs(53));
        assert_eq!(lost.found(at(60.0)), Duration::ZERO, "found once");
        assert_eq!(lost.found(at(70.0)), Duration::from_secs(10), "it was stopped while it worked");
    }

    #[test]
    fn without_a_deadline_any_sleep_is_as_it_should_be() {
        let mut lost = LostTime::default();
        assert_eq!(lost.wait_until(at(0.0), None), None);
        assert_eq!(lost.found(at(3600.0)), Duration::ZERO);
        lost.wait_until(at(3600.0), Some(at(3700.0)));
        assert_eq!(lost.found(at(3601.0)), Duration::ZERO);
        assert_eq!(lost.wait_until(at(3601.0), None), None);
        assert_eq!(lost.found(at(7200.0)), Duration::ZERO);
    }

    #[test]
    fn a_deadline_that_is_past_is_not_lost_time() {
        let mut lost = LostTime::default();
        assert_eq!(lost.wait_until(at(10.0), Some(at(1.0))), Some(at(1.0)));
        assert_eq!(lost.found(at(10.1)), Duration::ZERO);
    }
}
