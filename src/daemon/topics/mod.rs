//! One topic a file: what the supervisor does beside the life of each service, which is the core's.
//!
//! A topic owns its state. It is told what has happened, looks at the rest through a [`View`](super::view::View), and returns
//! what is to be done as [`Action`](super::act::Action)s. No topic knows another one, none does anything itself, so each is
//! tested without a kernel, a disk or a clock.

pub mod admission;
pub mod agenda;
pub mod definitions;
pub mod edits;
pub mod essential;
pub mod events;
pub mod health;
pub mod limits;
pub mod planned;
pub mod probing;
pub mod profiles;
pub mod readiness;
pub mod reclaiming;
pub mod requests;
pub mod scanning;
pub mod schedules;
pub mod scopes;
pub mod shutdown;
#[cfg(test)]
pub mod testing;
pub mod topology;
pub mod upgrade;

use crate::core::clock::Tick;
use crate::core::fleet::Fleet;
use std::time::Duration;

/// What gives somebody time.
pub trait Deadlines {
    /// When something has to be done, at the latest.
    fn next_deadline(&self) -> Option<Tick>;

    /// Moves every deadline: for so long nobody could do anything.
    fn postpone(&mut self, by: Duration);
}

impl Deadlines for Fleet {
    fn next_deadline(&self) -> Option<Tick> {
        Fleet::next_deadline(self)
    }

    fn postpone(&mut self, by: Duration) {
        Fleet::postpone(self, by);
    }
}

impl<T: Deadlines> Deadlines for Option<T> {
    fn next_deadline(&self) -> Option<Tick> {
        self.as_ref().and_then(T::next_deadline)
    }

    fn postpone(&mut self, by: Duration) {
        if let Some(topic) = self {
            topic.postpone(by);
        }
    }
}
