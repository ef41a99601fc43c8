//! Services that are about to be started: in order, and some at a time.
//!
//! A start takes a good part of a millisecond of the loop, and a boot or a bulk command is thousands of them. Between two
//! rows the loop does what else there is: signals, callers, the dead.

use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::daemon::Supervisor;
use crate::daemon::fault;
use std::collections::VecDeque;
use std::time::Duration;

/// How long one row of starts may last; the last one in it may be late.
const ROW: Duration = Duration::from_millis(5);

/// Those that wait.
#[derive(Debug, Default)]
pub struct Starts(VecDeque<(ServiceId, Incarnation)>);

impl Starts {
    pub fn push(&mut self, id: ServiceId, incarnation: Incarnation) {
        self.0.push_back((id, incarnation));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first, of a row that ends at `until`.
    fn next(&mut self, now: Tick, until: Tick) -> Option<(ServiceId, Incarnation)> {
        if now < until { self.0.pop_front() } else { None }
    }
}

impl Supervisor {
    /// Starts one row of those that wait. Returns whether there were any.
    pub(in crate::daemon) fn start_some(&mut self) -> bool {
        if self.starts.is_empty() {
            return false;
        }
        let until = self.clock.now().after(ROW);
        // Users and the directories of a PATH do not change within a row.
        let around = self.surroundings_now();
        self.programs.begin_row();
        while let Some((id, incarnation)) = self.starts.next(self.clock.now(), until) {
            self.prepare(id, incarnation, &around);
            fault::point();
        }
        self.programs.end_row();
        if self.starts.is_empty() {
            // What a boot has left behind is not kept for the next one.
            self.starts = Starts::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_in_order_and_ends_with_its_time_whatever_is_left() {
        let mut starts = Starts::default();
        for id in 0..1000 {
            starts.push(ServiceId(id), 1);
        }
        let mut order = Vec::new();
        let mut clock = Tick(1000);
        while !starts.is_empty() {
            let (until, before) = (clock.after(ROW), order.len());
            while let Some((ServiceId(id), _)) = starts.next(clock, until) {
                order.push(id);
                // Of each it takes a millisecond.
                clock = clock.after(Duration::from_millis(1));
            }
            assert_eq!(order.len() - before, 5);
        }
        assert!(order.iter().copied().eq(0..1000));
    }
}
