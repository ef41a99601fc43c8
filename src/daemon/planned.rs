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
    /// Tells it from an earlier one of the same service, whose marker may come late.
    ticket: u64,
    incarnation: Incarnation,
    signal: Signal,
    until: Tick,
}

/// The stop signals that wait for their markers.
#[derive(Debug, Default)]
pub struct PlannedStops {
    waiting: BTreeMap<ServiceId, Waiting>,
    tickets: u64,
}

impl PlannedStops {
    pub fn next_deadline(&self) -> Option<Tick> {
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    /// That life is over: there is nobody to signal.
    pub fn forget(&mut self, id: ServiceId) {
        self.waiting.remove(&id);
    }

    fn add(&mut self, id: ServiceId, incarnation: Incarnation, signal: Signal, until: Tick) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.waiting.insert(id, Waiting { ticket, incarnation, signal, until });
        ticket
    }

    /// What the marker with this ticket was waited for with, if it still is.
    fn take(&mut self, id: ServiceId, ticket: u64) -> Option<(Incarnation, Signal)> {
        let is_it = self.waiting.get(&id).is_some_and(|waiting| waiting.ticket == ticket);
        let waiting = if is_it { self.waiting.remove(&id) } else { None };
        waiting.map(|waiting| (waiting.incarnation, waiting.signal))
    }

    fn take_due(&mut self, now: Tick) -> Vec<(ServiceId, Incarnation, Signal)> {
        let due: Vec<ServiceId> =
            self.waiting.iter().filter(|(_, waiting)| waiting.until <= now).map(|(id, _)| *id).collect();
        due.into_iter()
            .filter_map(|id| {
                self.waiting.remove(&id).map(|waiting| (id, waiting.incarnation, waiting.signal))
            })
            .collect()
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
        let until = self.clock.now().after(MARK_PATIENCE);
        let ticket = self.planned.add(id, incarnation, signal, until);
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
    fn each_signal_is_taken_once_by_its_own_marker_or_when_its_time_is_over() {
        let mut planned = PlannedStops::default();
        let first = planned.add(ID, 1, Signal::TERM, Tick(1000));
        assert_eq!(planned.next_deadline(), Some(Tick(1000)));
        assert_eq!(planned.take(ID, first), Some((1, Signal::TERM)));
        assert_eq!(planned.take(ID, first), None);
        assert_eq!(planned.next_deadline(), None);
        // Its disk hung: the signal went without the marker, and the marker of the first life comes in the second.
        let late = planned.add(ID, 1, Signal::TERM, Tick(2000));
        assert_eq!(planned.take_due(Tick(1999)), []);
        assert_eq!(planned.take_due(Tick(2000)), [(ID, 1, Signal::TERM)]);
        let next = planned.add(ID, 2, Signal::INT, Tick(9000));
        assert_eq!(planned.take(ID, late), None);
        assert_eq!(planned.take(ID, next), Some((2, Signal::INT)));
        // It ended by itself.
        let ended = planned.add(ID, 3, Signal::TERM, Tick(9000));
        planned.forget(ID);
        assert_eq!((planned.take(ID, ended), planned.take_due(Tick(9000)).len()), (None, 0));
    }
}
