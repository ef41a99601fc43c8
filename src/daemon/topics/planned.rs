//! An operator's stop of a gateway: the planned-stop marker goes into its home first, the signal follows.
//!
//! Invariants: the signal is sent once, when the marker is there, could not be written, or [`MARK_PATIENCE`] is over, the
//! disk may hang; it is never sent to another life than the one it was meant for. The stop timeout of the core runs
//! meanwhile, and its kill waits for nothing.

use crate::containment::IncarnationId;
use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::core::signal::Signal;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::clock::wall_now;
use crate::daemon::topics::Deadlines;
use crate::daemon::view::View;
use crate::hermes::planned_stop::{PlannedStop, start_time};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::collections::BTreeMap;
use std::sync::Arc;
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

impl Deadlines for PlannedStops {
    fn next_deadline(&self) -> Option<Tick> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.until)
    }

    fn postpone(&mut self, by: Duration) {
        self.waiting.values_mut().for_each(|waiting| waiting.until = waiting.until.after(by));
    }
}

impl PlannedStops {
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

    /// The stop signal, after the marker where an operator stops a gateway.
    pub fn stop(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        signal: Signal,
        planned: bool,
        view: &View<'_>,
    ) -> Actions {
        let pid = view.fleet.gateway(id).and_then(|gateway| u32::try_from(gateway.pid()?).ok());
        let directory = view.service(id).and_then(|service| service.gateway_directory(&view.options.home));
        let (Some(pid), Some(directory), true) = (pid, directory, planned) else {
            return send(id, incarnation, signal, view).into_iter().collect();
        };
        let (home, user) = (view.options.home.clone(), view.around.gateway.credentials());
        let mark = move || match start_time(pid) {
            Some(start_time) => {
                let stopper_pid = std::process::id();
                let marker = PlannedStop { pid, start_time, stopper_pid, written_at: wall_now() };
                Beneath::open(&home).and_then(|home| marker.write(&home, &user, &directory))
            }
            // It has ended meanwhile.
            None => Ok(()),
        };
        let ticket = self.add(id, incarnation, signal, view.now);
        let told = move |error: Option<String>| Notice::StopMarked { id, ticket, error };
        vec![Action::Files(FileWork {
            credentials: Credentials::own(),
            work: Box::new(move || told(mark().err().map(|error| error.to_string()))),
            refused: Arc::new(move |why| told(Some(why.to_string()))),
        })]
    }

    /// The marker is there, or is not going to be, and why.
    pub fn marked(&mut self, id: ServiceId, ticket: u64, error: Option<String>, view: &View<'_>) -> Actions {
        let Some((incarnation, signal)) = self.take(id, ticket) else { return Actions::new() };
        let complain = |(name, error)| {
            let text = format!("{name}: it will take this stop for an accident: no marker: {error}");
            Action::Log(slog::Level::Warning, text)
        };
        let complaint = view.name(id).zip(error).map(complain);
        complaint.into_iter().chain(send(id, incarnation, signal, view)).collect()
    }

    /// Stops go on without the markers that take too long.
    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        let go_on = |(id, incarnation, signal)| {
            let text = "it may take this stop for an accident: the disk under home does not answer";
            let complain = |name| Action::Log(slog::Level::Warning, format!("{name}: {text}"));
            view.name(id).map(complain).into_iter().chain(send(id, incarnation, signal, view))
        };
        self.take_due(view.now).into_iter().flat_map(go_on).collect()
    }
}

fn send(id: ServiceId, incarnation: Incarnation, signal: Signal, view: &View<'_>) -> Option<Action> {
    let life = IncarnationId { name: view.name(id)?.clone(), n: incarnation };
    Some(Action::SignalMain(life, signal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::topics::testing::World;

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

    fn signals(actions: &Actions) -> Vec<(u64, Signal)> {
        let signal = |action: &Action| match action {
            Action::SignalMain(life, signal) => Some((life.n, *signal)),
            _ => None,
        };
        actions.iter().filter_map(signal).collect()
    }

    fn works(actions: &Actions) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Files(_))).count()
    }

    /// The marker tells a gateway that its stop was planned. Nothing else is stopped with one, and no stop waits longer than a
    /// second for it.
    #[test]
    fn only_the_stop_of_a_gateway_by_an_operator_waits_for_its_marker_and_not_for_long() {
        let mut world = World::default();
        let mut planned = PlannedStops::default();
        let id = world.gateway("coder");
        let life = world.up(id, 77);
        let unplanned = planned.stop(id, life.n, Signal::TERM, false, &world.view());
        assert_eq!((signals(&unplanned), works(&unplanned)), (vec![(life.n, Signal::TERM)], 0));

        let waits = planned.stop(id, life.n, Signal::TERM, true, &world.view());
        assert_eq!((signals(&waits), works(&waits)), (vec![], 1), "the marker first");
        let marked = planned.marked(id, 1, None, &world.view());
        assert_eq!(signals(&marked), [(life.n, Signal::TERM)]);
        assert!(planned.marked(id, 1, None, &world.view()).is_empty(), "it is sent once");

        planned.stop(id, life.n, Signal::TERM, true, &world.view());
        assert!(planned.pass_time(&world.view()).is_empty());
        world.after(MARK_PATIENCE);
        let late = planned.pass_time(&world.view());
        assert_eq!(signals(&late), [(life.n, Signal::TERM)]);
        assert!(matches!(&late[0], Action::Log(slog::Level::Warning, text) if text.contains("accident")));
        assert_eq!(planned.next_deadline(), None);
    }

    #[test]
    fn a_stop_whose_marker_cannot_be_written_acts_and_says_why() {
        let mut world = World::default();
        let mut planned = PlannedStops::default();
        let id = world.gateway("coder");
        let life = world.up(id, 77);
        planned.stop(id, life.n, Signal::INT, true, &world.view());
        let marked = planned.marked(id, 1, Some("read-only file system".to_owned()), &world.view());
        assert_eq!(signals(&marked), [(life.n, Signal::INT)]);
        assert!(
            matches!(&marked[0], Action::Log(_, text) if text.ends_with("no marker: read-only file system"))
        );
    }
}
