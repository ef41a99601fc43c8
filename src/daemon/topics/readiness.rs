//! When a service is ready: by a line on a pipe that it was given (`notification-fd` of s6), by what it says on its notify socket
//! or writes into its log, by its answer to a probe, or, of a Hermes gateway, by the state file of its profile.
//!
//! Invariant: only the life that is awaited can report; what an earlier one left in a file or a pipe counts for nothing.

use crate::core::clock::Tick;
use crate::core::event::{Event, Incarnation};
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::core::notify::Message;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::probing::{Answer, Ask, Manner, Probing, Purpose};
use crate::daemon::view::View;
use crate::definition::resolved::Ready;
use crate::hermes::state_json;
use crate::hermes::state_watch::StateWatch;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What a listener heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The service wrote its line.
    Line,
    /// It never will: its end of the pipe is closed.
    Closed,
    /// Its state file may be another one.
    FileChanged,
}

/// What was seen of a gateway's state file.
#[derive(Debug)]
pub struct Seen {
    pub id: ServiceId,
    pub incarnation: Incarnation,
    /// With the first look.
    pub watch: Option<StateWatch>,
    pub running: io::Result<bool>,
}

/// The services that have yet to say that they are ready, and what they say of themselves.
#[derive(Debug)]
pub struct Readiness {
    /// Those whose files, logs or notify sockets are attended to, with the life that is.
    attended: BTreeMap<ServiceId, Incarnation>,
    probing: Probing,
    /// The last failure of a probe.
    failures: BTreeMap<ServiceId, String>,
    /// What they said in words (`STATUS=`).
    said: BTreeMap<ServiceId, String>,
    /// A line about what is not taken from them was written, in this life.
    refused: BTreeSet<(ServiceId, &'static str)>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            attended: BTreeMap::new(),
            probing: Probing::new(Purpose::Ready),
            failures: BTreeMap::new(),
            said: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }
}

impl Deadlines for Readiness {
    fn next_deadline(&self) -> Option<Tick> {
        self.probing.next_deadline()
    }

    fn postpone(&mut self, by: Duration) {
        self.probing.postpone(by);
    }
}

impl Readiness {
    /// Nothing more is expected of this service.
    pub fn forget(&mut self, id: ServiceId, _: &View<'_>) -> Actions {
        self.attended.remove(&id);
        self.failures.remove(&id);
        self.said.remove(&id);
        self.refused.retain(|(of, _)| *of != id);
        let mut actions = self.probing.forget(id);
        actions.push(Action::StopListening(id));
        actions
    }

    /// What it says of itself, and why it is not ready, in words.
    pub fn words(&self, id: ServiceId) -> impl Iterator<Item = &String> {
        self.failures.get(&id).into_iter().chain(self.said.get(&id))
    }

    /// A listener has news of this life.
    pub fn heard(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        heard: Heard,
        view: &View<'_>,
    ) -> Actions {
        match heard {
            Heard::Line => self.ready(id, incarnation, view),
            Heard::Closed => self.forget(id, view),
            Heard::FileChanged => look(id, incarnation, false, view).into_iter().collect(),
        }
    }

    fn ready(&mut self, id: ServiceId, incarnation: Incarnation, view: &View<'_>) -> Actions {
        let talks_on = view.service(id).is_some_and(|service| service.definition.has_notify_socket());
        let mut actions = if talks_on {
            self.failures.remove(&id);
            self.probing.forget(id)
        } else {
            self.forget(id, view)
        };
        actions.push(Action::Core(id, Event::ReadyReported { incarnation }));
        actions
    }

    /// The log of this life is watched since before its first line.
    pub fn watches(&mut self, id: ServiceId, incarnation: Incarnation) {
        self.attended.insert(id, incarnation);
    }

    /// The service is in another state: one that runs is attended to from now on.
    pub fn changed(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some((service, gateway)) = view.service(id).zip(view.fleet.gateway(id)) else {
            return Actions::new();
        };
        let definition = &service.definition;
        let incarnation = gateway.history().incarnation;
        if !gateway.has_tree() {
            let attended = self.attended.contains_key(&id) || self.probing.asks(id, incarnation);
            return if attended { self.forget(id, view) } else { Actions::new() };
        }
        if gateway.phase() == Phase::Starting {
            // What an earlier life said.
            self.failures.remove(&id);
            self.said.remove(&id);
            self.refused.retain(|(of, _)| *of != id);
        }
        if gateway.phase() != Phase::Up {
            return self.probing.forget(id);
        }
        let (awaited, is_new) = (gateway.may_report(), self.attended.get(&id) != Some(&incarnation));
        let actions: Actions = match &definition.ready {
            Ready::GatewayState if awaited && is_new => {
                look(id, incarnation, true, view).into_iter().collect()
            }
            Ready::Log(pattern) if awaited && is_new => {
                vec![Action::WatchLog(id, incarnation, pattern.clone())]
            }
            Ready::Probe(_) if awaited && !self.probing.asks(id, incarnation) => {
                return self.probing.begin(id, incarnation, view.now);
            }
            _ if definition.has_notify_socket() && is_new => {
                vec![Action::ListenToNotify(id, incarnation)]
            }
            _ => Actions::new(),
        };
        if !actions.is_empty() {
            self.attended.insert(id, incarnation);
        }
        actions
    }

    /// A probe has an answer.
    pub fn answered(&mut self, answer: Answer, view: &View<'_>) -> Actions {
        let Some(manner) = manner(answer.ask.id, view) else { return Actions::new() };
        if !self.probing.takes(answer.ask, manner.interval, view.now) {
            return Actions::new();
        }
        self.judge(answer, view)
    }

    fn judge(&mut self, answer: Answer, view: &View<'_>) -> Actions {
        let Ask { id, incarnation, .. } = answer.ask;
        match answer.outcome {
            Ok(_) => self.ready(id, incarnation, view),
            Err(failure) => {
                let what = manner(id, view).map(|manner| manner.probe.to_string()).unwrap_or_default();
                let words = format!("not ready: {what}: {failure}");
                let is_new = self.failures.get(&id) != Some(&words);
                let tells = !failure.counts() && is_new;
                let line = format!("{}: {words}", view.name(id).map(ToString::to_string).unwrap_or_default());
                self.failures.insert(id, words);
                tells.then(|| Action::Log(slog::Level::Warning, line)).into_iter().collect()
            }
        }
    }

    /// What is due: the next probes.
    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        let (mut actions, late) = self.probing.pass_time(view, |id| manner(id, view));
        for answer in late {
            actions.extend(self.judge(answer, view));
        }
        actions
    }

    /// Its pattern matched a line of this life.
    pub fn matched(&mut self, id: ServiceId, incarnation: Incarnation, view: &View<'_>) -> Actions {
        let waits = view.service(id).is_some_and(|service| matches!(service.definition.ready, Ready::Log(_)));
        if waits { self.ready(id, incarnation, view) } else { Actions::new() }
    }

    /// It says something on its notify socket.
    pub fn notified(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        message: &Message,
        view: &View<'_>,
    ) -> Actions {
        let (Some(name), Some(service)) = (view.name(id), view.service(id)) else { return Actions::new() };
        let mut actions = Actions::new();
        let word = match (&message.status, message.stopping, message.reloading) {
            (Some(status), _, _) => Some(status.clone()),
            (None, true, _) => Some("it says that it is stopping".to_owned()),
            (None, false, true) => Some("it says that it is reloading".to_owned()),
            (None, false, false) => None,
        };
        if let Some(word) = word.filter(|word| !word.is_empty()) {
            self.said.insert(id, word);
        }
        if let Some(errno) = message.errno {
            let text =
                format!("{name}: it says that it failed: {}", std::io::Error::from_raw_os_error(errno));
            actions.push(Action::Log(slog::Level::Warning, text));
        }
        let main_pid = view.fleet.gateway(id).and_then(|gateway| gateway.pid());
        let refusals = [
            (message.store, "FDSTORE", "no descriptors are kept for it: they are closed"),
            (
                message.main_pid.is_some() && message.main_pid != main_pid,
                "MAINPID",
                "the process that was started stays its main process",
            ),
        ];
        for (is_asked, key, why) in refusals {
            if is_asked && self.refused.insert((id, key)) {
                actions.push(Action::Log(slog::Level::Warning, format!("{name}: {key} is not taken: {why}")));
            }
        }
        if let Some(by) = message.extend {
            actions.push(Action::Core(id, Event::Extended { incarnation, by }));
        }
        if message.ready && service.definition.ready == Ready::Notify {
            actions.extend(self.ready(id, incarnation, view));
        }
        actions
    }

    /// A state file was looked at.
    pub fn seen(&mut self, seen: Seen, view: &View<'_>) -> Actions {
        let Seen { id, incarnation, watch, running } = seen;
        if self.attended.get(&id) != Some(&incarnation) {
            return Actions::new();
        }
        let mut actions = Actions::new();
        match running {
            Ok(true) => return self.ready(id, incarnation, view),
            Ok(false) => {}
            Err(error) => {
                let name = view.name(id).map(ToString::to_string).unwrap_or_default();
                let text = format!("{name}: its gateway_state.json cannot tell that it is ready: {error}");
                actions.push(Action::Log(slog::Level::Warning, text));
            }
        }
        actions.extend(watch.map(|watch| Action::ListenToStateFile { id, incarnation, watch }));
        actions
    }
}

/// How long one probe of a service that starts may take.
const PROBE: Duration = Duration::from_secs(5);

fn manner(id: ServiceId, view: &View<'_>) -> Option<Manner> {
    match &view.service(id)?.definition.ready {
        Ready::Probe(asked) => {
            Some(Manner { probe: Arc::clone(&asked.probe), interval: asked.interval, timeout: PROBE })
        }
        Ready::None | Ready::Fd(_) | Ready::GatewayState | Ready::Notify | Ready::Log(_) => None,
    }
}

/// A look at the file, where it may hang; `first`: from then on it is watched.
fn look(id: ServiceId, incarnation: Incarnation, first: bool, view: &View<'_>) -> Option<Action> {
    let pid = u32::try_from(view.fleet.gateway(id)?.pid()?).ok()?;
    let directory = view.service(id)?.gateway_directory(&view.options.home)?;
    let (home, user) = (view.options.home.clone(), view.around.gateway.credentials());
    let work = move || -> io::Result<(Option<StateWatch>, bool)> {
        let home = Beneath::open(&home)?;
        // What was written before the watch is seen by the look, what comes later by the watch.
        let watch = first.then(|| StateWatch::new(&home, &user, &directory)).transpose()?;
        Ok((watch, state_json::says_running(&home, &user, &directory, pid)?))
    };
    let told = move |watch, running| Notice::Seen(Seen { id, incarnation, watch, running });
    Some(Action::Files(FileWork {
        credentials: Credentials::own(),
        work: Box::new(move || match work() {
            Ok((watch, running)) => told(watch, Ok(running)),
            Err(error) => told(None, Err(error)),
        }),
        refused: Arc::new(move |why| told(None, Err(why))),
    }))
}

#[cfg(test)]
#[path = "readiness_stories.rs"]
mod stories;
