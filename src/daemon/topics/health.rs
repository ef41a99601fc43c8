//! Whether services that run do their work: probes and signs of life, and what is done about those that do not.
//!
//! Invariants: only the life that is checked can be called unhealthy; failures within the start period do not count, nor what could
//! not be asked, nor time in which the service was frozen or we did not run; a file is as old as we have seen it unchanged, so that
//! a clock that is set makes no file older.

use crate::containment::IncarnationId;
use crate::control::protocol::{Event as Told, EventKind};
use crate::core::clock::Tick;
use crate::core::event::{Event, Incarnation};
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::core::notify::Message;
use crate::core::words::HealthState;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::agenda::Agenda;
use crate::daemon::topics::probing::{Answer, Manner, Probing, Purpose};
use crate::daemon::view::View;
use crate::definition::probes::{Check, Health as Definition, Probe, Remedy};
use crate::probe::Failure;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// What is known of one life.
#[derive(Debug, Clone)]
pub struct Checked {
    pub incarnation: Incarnation,
    pub state: HealthState,
    /// In a row.
    pub failures: u32,
    /// The last failure, in words.
    pub last: Option<String>,
    /// It is frozen until an operator says otherwise; what its processes and last lines were.
    pub quarantine: Option<Vec<String>>,
    /// Failures count from then on.
    counts_from: Tick,
    /// When its file was last written, and when we saw that first.
    written: Option<(SystemTime, Tick)>,
    /// That it cannot be asked is told.
    told: bool,
}

/// The services that are checked.
#[derive(Debug)]
pub struct Health {
    probing: Probing,
    /// When silence is too long.
    silence: Agenda<ServiceId>,
    of: BTreeMap<ServiceId, Checked>,
}

impl Default for Health {
    fn default() -> Self {
        Self { probing: Probing::new(Purpose::Health), silence: Agenda::default(), of: BTreeMap::new() }
    }
}

impl Deadlines for Health {
    fn next_deadline(&self) -> Option<Tick> {
        [self.probing.next_deadline(), self.silence.next()].into_iter().flatten().min()
    }

    fn postpone(&mut self, by: Duration) {
        self.probing.postpone(by);
        self.silence.postpone(by);
        for checked in self.of.values_mut() {
            checked.counts_from = checked.counts_from.after(by);
            checked.written = checked.written.map(|(at, seen)| (at, seen.after(by)));
        }
    }
}

impl Health {
    /// What is known of this service, while it is checked.
    pub fn of(&self, id: ServiceId) -> Option<&Checked> {
        self.of.get(&id)
    }

    pub fn forget(&mut self, id: ServiceId, _: &View<'_>) -> Actions {
        self.silence.remove(id);
        self.of.remove(&id);
        self.probing.forget(id)
    }

    /// The service is in another state: one that runs and is ready, or late with that, is checked from now on.
    pub fn changed(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let definition = view.service(id).and_then(|service| service.definition.health.as_deref());
        let (Some(definition), Some(gateway)) = (definition, view.fleet.gateway(id)) else {
            return if self.of.contains_key(&id) { self.forget(id, view) } else { Actions::new() };
        };
        let incarnation = gateway.history().incarnation;
        match (self.of.get(&id), gateway.phase() == Phase::Up && !gateway.awaits_ready()) {
            (Some(checked), true) if checked.incarnation == incarnation => Actions::new(),
            (_, true) => self.begin(id, incarnation, definition, view.now),
            (Some(_), false) => self.forget(id, view),
            (None, false) => Actions::new(),
        }
    }

    fn begin(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        definition: &Definition,
        now: Tick,
    ) -> Actions {
        let checked = Checked {
            incarnation,
            state: HealthState::Starting,
            failures: 0,
            last: None,
            quarantine: None,
            counts_from: now.after(definition.start_period),
            written: None,
            told: false,
        };
        self.of.insert(id, checked);
        match definition.check {
            // What is healthy at once is seen at once.
            Check::Probe(_) => self.probing.begin(id, incarnation, now.after(FIRST.min(definition.interval))),
            Check::Watchdog => {
                self.silence.set(id, now.after(definition.timeout.max(definition.start_period)));
                Actions::new()
            }
        }
    }

    /// The tree stands still, or goes on: it is asked no more, or anew.
    pub fn frozen(&mut self, id: ServiceId, frozen: bool, view: &View<'_>) -> Actions {
        let definition = view.service(id).and_then(|service| service.definition.health.as_deref());
        let (Some(definition), Some(checked)) = (definition, self.of.get_mut(&id)) else {
            return Actions::new();
        };
        if frozen {
            self.silence.remove(id);
            return self.probing.cancel(id, None);
        }
        if checked.quarantine.is_some() {
            let incarnation = checked.incarnation;
            return self.begin(id, incarnation, definition, view.now);
        }
        checked.written = checked.written.map(|(at, _)| (at, view.now));
        match definition.check {
            Check::Probe(_) => self.probing.cancel(id, Some(view.now.after(definition.interval))),
            Check::Watchdog => {
                self.silence.set(id, view.now.after(definition.timeout));
                Actions::new()
            }
        }
    }

    /// Something was said on a notify socket.
    pub fn notified(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        message: &Message,
        view: &View<'_>,
    ) -> Actions {
        let silence = view.service(id).and_then(|service| service.definition.watchdog());
        let is_it = self.of.get(&id).is_some_and(|checked| checked.incarnation == incarnation);
        let Some(silence) = silence.filter(|_| is_it) else { return Actions::new() };
        if message.trigger {
            return self.failed(id, "watchdog", &Failure::Confessed, view);
        }
        if !message.watchdog {
            return Actions::new();
        }
        if self.silence.has(id) {
            self.silence.set(id, view.now.after(silence));
        }
        self.well(id, view)
    }

    /// A probe has an answer.
    pub fn answered(&mut self, answer: Answer, view: &View<'_>) -> Actions {
        let Some(manner) = manner(answer.ask.id, view) else { return Actions::new() };
        if !self.probing.takes(answer.ask, manner.interval, view.now) {
            return Actions::new();
        }
        self.judge(answer, &manner, view)
    }

    fn judge(&mut self, answer: Answer, manner: &Manner, view: &View<'_>) -> Actions {
        let id = answer.ask.id;
        let Some(checked) = self.of.get_mut(&id) else { return Actions::new() };
        let outcome = answer.outcome.and_then(|written| match (&*manner.probe, written) {
            (Probe::FileAge { max_age, .. }, Some(written)) => {
                let seen = checked.written.filter(|(at, _)| *at == written).map(|(_, seen)| seen);
                let seen = seen.unwrap_or(view.now);
                checked.written = Some((written, seen));
                let age = view.now.since(seen);
                if age > *max_age { Err(Failure::Old(age)) } else { Ok(()) }
            }
            _ => Ok(()),
        });
        match outcome {
            Ok(()) => self.well(id, view),
            Err(failure) => self.failed(id, &manner.probe.to_string(), &failure, view),
        }
    }

    /// What is due: probes, and those that were silent for too long.
    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        let (mut actions, late) = self.probing.pass_time(view, |id| manner(id, view));
        for answer in late {
            if let Some(manner) = manner(answer.ask.id, view) {
                actions.extend(self.judge(answer, &manner, view));
            }
        }
        while let Some(id) = self.silence.take_due(view.now) {
            let silence = view.service(id).and_then(|service| service.definition.watchdog());
            if let Some(silence) = silence.filter(|_| self.of.contains_key(&id)) {
                self.silence.set(id, view.now.after(silence));
                actions.extend(self.failed(id, "watchdog", &Failure::Silent(silence), view));
            }
        }
        actions
    }

    fn well(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some(checked) = self.of.get_mut(&id) else { return Actions::new() };
        let was = std::mem::replace(&mut checked.state, HealthState::Healthy);
        (checked.failures, checked.last) = (0, None);
        // The first success ends the start period.
        checked.counts_from = view.now.min(checked.counts_from);
        match (was, view.name(id)) {
            (HealthState::Unhealthy, Some(name)) => {
                vec![Action::Tell(Told::info(EventKind::Health, "healthy again").about(name))]
            }
            _ => Actions::new(),
        }
    }

    fn failed(&mut self, id: ServiceId, what: &str, failure: &Failure, view: &View<'_>) -> Actions {
        let definition = view.service(id).and_then(|service| service.definition.health.as_deref());
        let (Some(definition), Some(checked)) = (definition, self.of.get_mut(&id)) else {
            return Actions::new();
        };
        let Some(name) = view.name(id) else { return Actions::new() };
        let sentence = format!("{what}: {failure}");
        checked.last = Some(sentence.clone());
        if !failure.counts() {
            let told = std::mem::replace(&mut checked.told, true);
            let line = Action::Log(slog::Level::Warning, format!("{name}: {sentence}"));
            return if told { Actions::new() } else { vec![line] };
        }
        if view.now < checked.counts_from {
            return Actions::new();
        }
        checked.failures = checked.failures.saturating_add(1);
        if checked.failures < definition.failures {
            return Actions::new();
        }
        let was = std::mem::replace(&mut checked.state, HealthState::Unhealthy);
        let reason = format!("unhealthy: {sentence}");
        let incarnation = checked.incarnation;
        let tell = |what: &str| {
            Action::Tell(Told::warning(EventKind::Health, format!("{reason}; {what}")).about(name))
        };
        match definition.action {
            Remedy::Restart => {
                let mut actions = vec![tell("it is ended and started again")];
                actions.push(Action::Core(id, Event::Unhealthy { incarnation, reason }));
                actions
            }
            Remedy::Mark | Remedy::Quarantine if was == HealthState::Unhealthy => Actions::new(),
            Remedy::Mark => vec![tell("it is left as it is")],
            Remedy::Quarantine => {
                checked.quarantine = Some(Vec::new());
                let life = IncarnationId { name: name.clone(), n: incarnation };
                self.silence.remove(id);
                let mut actions = self.probing.cancel(id, None);
                actions.push(tell("it is frozen and waits for thaw, stop or restart"));
                actions.push(Action::Quarantine(id, life));
                actions
            }
        }
    }

    /// What the processes and last lines of a quarantined life were.
    pub fn snapshot(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        mut lines: Vec<String>,
        view: &View<'_>,
    ) -> Actions {
        let Some(checked) = self.of.get_mut(&id).filter(|checked| checked.incarnation == incarnation) else {
            return Actions::new();
        };
        let (Some(kept), Some(name)) = (&mut checked.quarantine, view.name(id)) else {
            return Actions::new();
        };
        let told =
            lines.iter().map(|line| Action::Log(slog::Level::Warning, format!("{name}: {line}"))).collect();
        kept.append(&mut lines);
        told
    }

    /// It could not be frozen: it goes on, and is asked again.
    pub fn not_quarantined(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let definition = view.service(id).and_then(|service| service.definition.health.as_deref());
        let (Some(definition), Some(checked)) = (definition, self.of.get_mut(&id)) else {
            return Actions::new();
        };
        checked.quarantine = None;
        match definition.check {
            Check::Probe(_) => self.probing.cancel(id, Some(view.now.after(definition.interval))),
            Check::Watchdog => {
                self.silence.set(id, view.now.after(definition.timeout));
                Actions::new()
            }
        }
    }
}

/// The first look at a service that has just started.
const FIRST: Duration = Duration::from_secs(1);

fn manner(id: ServiceId, view: &View<'_>) -> Option<Manner> {
    let health = view.service(id)?.definition.health.as_ref()?;
    match &health.check {
        Check::Probe(probe) => {
            Some(Manner { probe: probe.clone(), interval: health.interval, timeout: health.timeout })
        }
        Check::Watchdog => None,
    }
}

#[cfg(test)]
#[path = "health_stories.rs"]
mod stories;
