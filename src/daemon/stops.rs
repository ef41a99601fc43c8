//! Stop signals that are about to be sent: in order, and some at a time.
//!
//! Who gets one obeys at once, and thousands who end at the same time leave the loop no share of the processors. So between
//! two rows those who have ended are reaped, whose processes are gone then, and the loop does what else there is: signals,
//! callers.

use super::Supervisor;
use super::fault;
use super::starts::ROW;
use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::core::signal::Signal;
use std::collections::VecDeque;

/// How many a row has at most, and how many services' ends are taken at once.
pub(super) const MOST: usize = 64;

/// One signal, as [`crate::core::effect::Effect::SignalMain`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    pub id: ServiceId,
    pub incarnation: Incarnation,
    pub signal: Signal,
    pub planned: bool,
}

/// Those that wait.
#[derive(Debug, Default)]
pub struct Stops {
    waiting: VecDeque<Stop>,
    /// What is left of the row.
    left: usize,
}

impl Stops {
    pub fn push(&mut self, stop: Stop) {
        self.waiting.push_back(stop);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn begin_row(&mut self) {
        self.left = MOST;
    }

    /// The first, of a row that ends at `until`.
    fn next(&mut self, now: Tick, until: Tick) -> Option<Stop> {
        if self.left == 0 || now >= until {
            return None;
        }
        self.left -= 1;
        self.waiting.pop_front()
    }
}

impl Supervisor {
    /// Sends one row of those that wait. Returns whether there were any.
    pub(super) fn stop_some(&mut self) -> bool {
        if self.stops.is_empty() {
            return false;
        }
        let until = self.clock.now().after(ROW);
        self.stops.begin_row();
        while let Some(stop) = self.stops.next(self.clock.now(), until) {
            self.stop_main(stop);
            fault::point();
        }
        if self.stops.is_empty() {
            // What a shutdown has left behind is not kept for the next one.
            self.stops = Stops::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// How long each row is when a signal takes so long, of a thousand that wait.
    fn rows(each: Duration) -> Vec<usize> {
        let mut stops = Stops::default();
        let of = |id| Stop { id: ServiceId(id), incarnation: 1, signal: Signal::TERM, planned: false };
        (0..1000).for_each(|id| stops.push(of(id)));
        let (mut order, mut rows, mut clock) = (Vec::new(), Vec::new(), Tick(1000));
        while !stops.is_empty() {
            let (until, before) = (clock.after(ROW), order.len());
            stops.begin_row();
            while let Some(stop) = stops.next(clock, until) {
                order.push(stop);
                clock = clock.after(each);
            }
            rows.push(order.len() - before);
        }
        assert!(order.iter().copied().eq((0..1000).map(of)), "in order, each once");
        rows
    }

    #[test]
    fn a_row_ends_with_its_number_or_its_time_whatever_is_left() {
        assert!(rows(Duration::ZERO).iter().all(|row| *row <= MOST));
        assert_eq!(rows(Duration::from_millis(1)), [5; 200]);
    }
}
