//! The dead are reaped: who is named at once, the others as often as a look at all children is worth it.
//!
//! A SIGCHLD names one child and can stand for the ends of any number. To find the others the kernel goes through all children
//! (kernel/exit.c, `do_wait_thread`), 0.13 µs each; when thousands end, each end among those who still live, that would take
//! longer than everything else.

use crate::core::clock::Tick;
use crate::daemon::Supervisor;
use crate::sys::reap::{self, Left, Reaped};
use std::time::Duration;

/// Among so many children, after a look at all of them, it is a millisecond to the next: less than a tenth of the time is looked.
const A_MILLISECOND: usize = 500;

/// So many services' ends are taken at once, between which the loop does what else there is: signals, callers.
const MOST: usize = 64;

/// Whether there may be dead who have not been reaped, and when they are looked for.
#[derive(Debug, Default)]
pub struct Unreaped {
    any: bool,
    look: Tick,
}

impl Unreaped {
    /// A look found some, and did not get to the end of all children.
    fn more(&mut self, now: Tick) {
        *self = Self { any: true, look: now };
    }

    /// A look found all there were, at the cost of one at each of so many children who live.
    fn none(&mut self, now: Tick, children: usize) {
        let pause = u64::try_from(children / A_MILLISECOND).unwrap_or_default();
        *self = Self { any: false, look: now.after(Duration::from_millis(pause)) };
    }

    pub fn is_due(&self, now: Tick) -> bool {
        self.any && self.look <= now
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.any.then_some(self.look)
    }
}

impl Supervisor {
    /// Reaps the child that a SIGCHLD names. It can stand for any number of ends, so the others are looked for as well, but
    /// only when this one has been seen to: to find that there are none takes the kernel a look at each child.
    pub(in crate::daemon) fn reap_told(&mut self, pid: u32) {
        if let Some(reaped) = i32::try_from(pid).ok().and_then(reap::one) {
            self.take_reaped(reaped);
            self.containment.settle_reaped(self.clock.now());
        }
        self.unreaped.any = true;
    }

    /// For whom it is time may be dead.
    pub(in crate::daemon) fn reap_before_the_late(&mut self) {
        if self.unreaped.any {
            self.reap();
        }
    }

    /// Reaps one row of services, and all others that have ended: one SIGCHLD can stand for any number of ends. Those that are left
    /// then follow in the next turn of the loop, which does not sleep before it.
    pub(in crate::daemon) fn reap(&mut self) {
        let mut row = 0;
        let left = loop {
            if row == MOST {
                break Left::Living;
            }
            match reap::next() {
                Ok(reaped) => row += usize::from(self.take_reaped(reaped)),
                Err(left) => break left,
            }
        };
        let now = self.clock.now();
        if row == MOST {
            self.unreaped.more(now);
        } else {
            self.unreaped.none(now, self.containment.children());
        }
        self.containment.settle_reaped(now);
        self.topics.shutdown.children(left == Left::Living);
    }

    /// Returns whether it was of a service.
    fn take_reaped(&mut self, reaped: Reaped) -> bool {
        if self.main_changed(reaped) || reaped.is_stop() {
            return false;
        }
        let is_known = self.containment.reaped(reaped.pid, reaped.status, self.clock.now());
        if !is_known {
            slog::debug!(self.log, "reaped an orphan"; "pid" => reaped.pid);
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_children_there_are_the_less_often_all_are_looked_at() {
        let now = Tick(1000);
        let next = |children| {
            let mut unreaped = Unreaped::default();
            unreaped.none(now, children);
            assert_eq!(unreaped.next_deadline(), None, "nobody is known to have died");
            unreaped.any = true;
            assert!(unreaped.is_due(unreaped.look));
            unreaped.next_deadline()
        };
        assert_eq!([10, 499, 1000, 5000].map(next), [1000, 1000, 1002, 1010].map(|at| Some(Tick(at))));
        let mut unreaped = Unreaped::default();
        unreaped.none(now, 5000);
        unreaped.more(now);
        assert!(unreaped.is_due(now), "where some were found the rest is not waited for");
    }
}
