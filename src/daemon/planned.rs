//! An operator's stop of a gateway: the planned-stop marker goes into its home first, the signal follows.
//!
//! Invariants: the signal is sent once, when the marker is there, could not be written, or [`MARK_PATIENCE`] is over, the
//! disk may hang; it is never sent to another life than the one it was meant for. The stop timeout of the core runs
//! meanwhile, and its kill waits for nothing.

use super::clock::wall_now;
use super::{Notice, Supervisor};
use crate::containment::IncarnationId;
use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::core::signal::Signal;
use crate::hermes::planned_stop::{PlannedStop, start_time};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long a stop signal waits for the marker.
const MARK_PATIENCE: Duration = Duration::from_secs(1);

/// A stop signal that waits for its marker.
#[derive(Debug)]
struct Waiting {
    id: ServiceId,
    incarnation: Incarnation,
    signal: Signal,
    until: Tick,
}

/// The stop signals that wait for their markers.
#[derive(Debug, Default)]
pub struct PlannedStops {
    /// By their tickets. All wait equally long, so the first of them is due first.
    waiting: BTreeMap<u64, Waiting>,
    /// The ticket of each service tells its marker from an earlier one, which may come late.
    of: BTreeMap<ServiceId, u64>,
    tickets: u64,
}

impl PlannedStops {
    pub fn next_deadline(&self) -> Option<Tick> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.until)
    }

    /// Moves every deadline: for so long nobody could do anything.
    pub fn postpone(&mut self, by: Duration) {
        self.waiting.values_mut().for_each(|waiting| waiting.until = waiting.until.after(by));
    }

    /// That life is over: there is nobody to signal.
    pub fn forget(&mut self, id: ServiceId) {
        if let Some(ticket) = self.of.remove(&id) {
            self.waiting.remove(&ticket);
        }
    }

    fn add(&mut self, id: ServiceId, incarnation: Incarnation, signal: Signal, now: Tick) -> u64 {
        self.forget(id);
        self.tickets += 1;
        let until = now.after(MARK_PATIENCE);
        self.waiting.insert(self.tickets, Waiting { id, incarnation, signal, until });
        self.of.insert(id, self.tickets);
        self.tickets
    }

    /// What the marker with this ticket was waited for with, if it still is.
    fn take(&mut self, id: ServiceId, ticket: u64) -> Option<(Incarnation, Signal)> {
        if self.of.get(&id) != Some(&ticket) {
            return None;
        }
        self.of.remove(&id);
        self.waiting.remove(&ticket).map(|waiting| (waiting.incarnation, waiting.signal))
    }

    fn take_due(&mut self, now: Tick) -> Vec<(ServiceId, Incarnation, Signal)> {
        let mut due = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|first| first.get().until <= now) {
            let Waiting { id, incarnation, signal, .. } = first.remove();
            self.of.remove(&id);
            due.push((id, incarnation, signal));
        }
        due
    }
}

impl Supervisor {
    /// The stop signal, after the marker where an operator stops a gateway.
    pub(super) fn stop_main(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        signal: Signal,
        planned: bool,
    ) {
        let target = self.fleet.gateway(id).and_then(|gateway| u32::try_from(gateway.pid()?).ok());
        let directory =
            self.services.get(&id).and_then(|service| service.gateway_directory(&self.options.home));
        let (Some(pid), Some(directory), true) = (target, directory, planned) else {
            return self.signal_main(id, incarnation, signal);
        };
        let (home, user) = (self.options.home.clone(), self.surroundings_now().gateway.credentials());
        let stopper_pid = std::process::id();
        let mark = move || match start_time(pid) {
            Some(start_time) => {
                let marker = PlannedStop { pid, start_time, stopper_pid, written_at: wall_now() };
                Beneath::open(&home).and_then(|home| marker.write(&home, &user, &directory))
            }
            // It has ended meanwhile.
            None => Ok(()),
        };
        let ticket = self.planned.add(id, incarnation, signal, self.clock.now());
        let notifier = self.notifier.clone();
        let done = move |marked: io::Result<io::Result<()>>| {
            let error = marked.and_then(|marked| marked).err().map(|error| error.to_string());
            notifier.send(Notice::StopMarked { id, ticket, error });
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), mark, done) {
            self.stop_marked(id, ticket, Some(refused.to_string()));
        }
    }

    /// The marker is there, or is not going to be.
    pub(super) fn stop_marked(&mut self, id: ServiceId, ticket: u64, error: Option<String>) {
        let Some((incarnation, signal)) = self.planned.take(id, ticket) else { return };
        if let Some((name, error)) = self.fleet.name(id).zip(error) {
            slog::warn!(self.log, "{name}: it will take this stop for an accident: no marker: {error}");
        }
        self.signal_main(id, incarnation, signal);
    }

    /// Stops go on without the markers that take too long.
    pub(super) fn stop_unmarked(&mut self, now: Tick) {
        for (id, incarnation, signal) in self.planned.take_due(now) {
            if let Some(name) = self.fleet.name(id) {
                slog::warn!(
                    self.log,
                    "{name}: it may take this stop for an accident: the disk under home does not answer"
                );
            }
            self.signal_main(id, incarnation, signal);
        }
    }

    fn signal_main(&mut self, id: ServiceId, incarnation: Incarnation, signal: Signal) {
        let Some(name) = self.fleet.name(id).cloned() else { return };
        let life = IncarnationId { name, n: incarnation };
        // It may have ended meanwhile: then the news of that is on its way.
        let _ = self.containment.signal_main(&life, signal);
        // What is frozen finds the signal before it when it goes on, and not a moment of a life without one.
        self.containment.thaw(&life);
        let _ = self.containment.signal_main(&life, Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ServiceId = ServiceId(3);

    #[test]
    fn the_first_deadline_is_that_of_who_has_waited_longest() {
        let mut planned = PlannedStops::default();
        for (id, now) in [(7, 0), (2, 10), (5, 20)] {
            planned.add(ServiceId(id), 1, Signal::TERM, Tick(now));
        }
        planned.forget(ServiceId(7));
        assert_eq!(planned.next_deadline(), Some(Tick(1010)));
        // A second signal for the same life takes the place of the first.
        planned.add(ServiceId(2), 1, Signal::INT, Tick(30));
        assert_eq!(planned.next_deadline(), Some(Tick(1020)));
        let due = planned.take_due(Tick(1030));
        assert_eq!(due, [(ServiceId(5), 1, Signal::TERM), (ServiceId(2), 1, Signal::INT)]);
        assert_eq!(planned.next_deadline(), None);
    }

    #[test]
    fn each_signal_is_taken_once_by_its_own_marker_or_when_its_time_is_over() {
        let mut planned = PlannedStops::default();
        let first = planned.add(ID, 1, Signal::TERM, Tick(0));
        assert_eq!(planned.next_deadline(), Some(Tick(1000)));
        assert_eq!(planned.take(ID, first), Some((1, Signal::TERM)));
        assert_eq!(planned.take(ID, first), None);
        assert_eq!(planned.next_deadline(), None);
        // Its disk hung: the signal went without the marker, and the marker of the first life comes in the second.
        let late = planned.add(ID, 1, Signal::TERM, Tick(1000));
        assert_eq!(planned.take_due(Tick(1999)), []);
        assert_eq!(planned.take_due(Tick(2000)), [(ID, 1, Signal::TERM)]);
        let next = planned.add(ID, 2, Signal::INT, Tick(8000));
        assert_eq!(planned.take(ID, late), None);
        assert_eq!(planned.take(ID, next), Some((2, Signal::INT)));
        // It ended by itself.
        let ended = planned.add(ID, 3, Signal::TERM, Tick(8000));
        planned.forget(ID);
        assert_eq!((planned.take(ID, ended), planned.take_due(Tick(9000)).len()), (None, 0));
    }
}
