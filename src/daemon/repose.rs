//! When the loop has had nothing to do for so long that it rests ([`crate::sys::resident`]).
//!
//! An idle system is not woken for it: what was done is looked back on after [`QUIET`], as often as something was done meanwhile,
//! and no more once it rests. Nothing is armed for each turn of the loop.

use crate::core::clock::Tick;
use std::time::Duration;

/// Without anything to do. To come back from a rest costs some tens of microseconds, and memory is of no use to others
/// for a shorter time.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Repose {
    worked: Tick,
    /// `None`: nothing was done since the last rest.
    look: Option<Tick>,
}

impl Repose {
    /// Something was done at `now`, unless it was only time to look.
    pub fn turn(&mut self, now: Tick, only_time: bool) {
        if !only_time || self.look.is_none_or(|look| now < look) {
            self.worked = now;
            self.look.get_or_insert(now.after(QUIET));
        }
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.look
    }

    /// Whether it is time to rest; true once for all that was done.
    pub fn is_due(&mut self, now: Tick) -> bool {
        if self.look.is_none_or(|look| now < look) {
            return false;
        }
        let quiet = self.worked.after(QUIET);
        self.look = (now < quiet).then_some(quiet);
        self.look.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_work_is_followed_by_one_rest_and_then_by_nothing() {
        let mut repose = Repose::default();
        assert_eq!(repose.next_deadline(), None);
        repose.turn(Tick(5000), false);
        repose.turn(Tick(5400), false);
        assert!(!repose.is_due(Tick(5400)));
        assert_eq!(repose.next_deadline(), Some(Tick(7000)));
        repose.turn(Tick(7000), true);
        assert!(!repose.is_due(Tick(7000)));
        assert_eq!(repose.next_deadline(), Some(Tick(7400)));
        repose.turn(Tick(7400), true);
        assert!(repose.is_due(Tick(7400)));
        assert!(!repose.is_due(Tick(7500)));
        assert_eq!(repose.next_deadline(), None);
    }

    #[test]
    fn a_deadline_of_somebody_else_is_work() {
        let mut repose = Repose::default();
        repose.turn(Tick(5000), true);
        repose.turn(Tick(5900), true);
        repose.turn(Tick(7000), true);
        assert!(!repose.is_due(Tick(7000)));
        assert_eq!(repose.next_deadline(), Some(Tick(7900)));
    }
}
