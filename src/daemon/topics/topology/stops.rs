//! Stops that come while it is not known whether the root gateway serves the profile: it is on its way, has yet to speak, or is
//! looking at the profiles again.
//!
//! * The core takes such a stop at once, and it holds for the root gateway, too: the profile gets the mark of a parked one, which a
//!   root gateway reads when it starts. One that serves the profile all the same, since it had looked before, is asked to leave it
//!   out as soon as it says so.
//! * Where no process of its own ends, only the root gateway can be at work. So the caller is answered when that one has spoken, or
//!   has no process.
//! * A start takes the mark away again.

use super::{About, Topology, has_root, named_profile, root_gateway};
use crate::control::protocol::{Code, Outcome, State};
use crate::core::effect;
use crate::core::event::{Command, Ticket};
use crate::core::fleet::{Place, ServiceId};
use crate::core::gateway::{Elsewhere, Gateway};
use crate::core::name::ServiceName;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::view::View;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::errand::{Errand, Verdict};
use crate::hermes::gateway_socket::{Answer, AskError};
use crate::hermes::topology::{self, Root};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// The stop of one gateway.
#[derive(Debug, Default)]
struct Stop {
    /// Whose answers wait for the root gateway.
    callers: BTreeSet<Ticket>,
    /// Of those, whom the core has answered, and whether with "already".
    answered: BTreeMap<Ticket, bool>,
    /// Why the mark is not there.
    unmarked: Option<String>,
    /// The root gateway is being asked.
    asked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Stops {
    by_service: BTreeMap<ServiceId, Stop>,
    /// Marks that are being put or taken away: what is read meanwhile is no news of them.
    pub(super) marking: BTreeMap<ServiceName, bool>,
}

impl Stops {
    pub(super) fn forget(&mut self, id: ServiceId) {
        self.by_service.remove(&id);
    }

    pub(super) fn contains(&self, id: ServiceId) -> bool {
        self.by_service.contains_key(&id)
    }

    /// Profiles with a mark, by what was read and what is under way.
    pub(super) fn correct(&self, read: &mut BTreeSet<ServiceName>) {
        for (profile, parked) in &self.marking {
            if *parked {
                read.insert(profile.clone());
            } else {
                read.remove(profile);
            }
        }
    }
}

/// What became of a profile's mark.
#[derive(Debug)]
pub struct Marked {
    pub(super) id: ServiceId,
    pub(super) profile: ServiceName,
    pub(super) parked: bool,
    pub(super) done: io::Result<()>,
}

impl Topology {
    /// It is not known whether the root gateway serves this profile.
    fn is_in_doubt(&self, id: ServiceId, view: &View<'_>) -> bool {
        self.asking.contains(&id) || matches!(self.root(view), Root::Coming | Root::Late)
    }

    /// A command that the core takes: what is to be done beside it.
    pub(super) fn beside_core(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        command: Command,
        together: &BTreeSet<ServiceId>,
        view: &View<'_>,
    ) -> Actions {
        let Some(profile) = named_profile(id, view) else { return Actions::new() };
        let mut actions = match command {
            Command::Stop => Actions::new(),
            Command::Start { .. } | Command::Restart | Command::Once | Command::Unregister => {
                self.overtake_stop(id, command, view)
            }
        };
        match command {
            Command::Stop
                if self.is_in_doubt(id, view)
                    && !has_root(together, view)
                    && !self.is_needed_only_by(together, view) =>
            {
                let has_tree = view.fleet.gateway(id).is_some_and(Gateway::has_tree);
                let stop = self.stops.by_service.entry(id).or_default();
                stop.callers.extend((!has_tree).then_some(ticket));
                actions.push(self.mark(id, profile, true, view));
            }
            Command::Start { .. } | Command::Restart
                if !matches!(self.root(view), Root::Runs(_)) || self.parked.contains(&profile) =>
            {
                actions.push(self.mark(id, profile, false, view));
            }
            Command::Start { .. }
            | Command::Stop
            | Command::Restart
            | Command::Once
            | Command::Unregister => {}
        }
        actions
    }

    /// Something newer is asked for.
    fn overtake_stop(&mut self, id: ServiceId, by: Command, view: &View<'_>) -> Actions {
        let Some((stop, name)) = self.stops.by_service.remove(&id).zip(view.name(id)) else {
            return Actions::new();
        };
        let message = format!("'{name}': {}", by.overtaking());
        let outcome = Outcome::failed(name.as_str(), Code::Failed, view.state(id), message);
        stop.answered.into_keys().map(|ticket| Action::Answer(ticket, outcome.clone())).collect()
    }

    fn mark(&mut self, id: ServiceId, profile: ServiceName, parked: bool, view: &View<'_>) -> Action {
        self.stops.marking.insert(profile.clone(), parked);
        self.stops.correct(&mut self.parked);
        let (home, user) = (view.options.home.clone(), view.around.gateway.credentials());
        let told = move |profile, done| Notice::ProfileMarked(Marked { id, profile, parked, done });
        let of_refused = profile.clone();
        Action::Files(FileWork {
            credentials: Credentials::own(),
            work: Box::new(move || {
                let done = Beneath::open(&home)
                    .and_then(|home| topology::mark_parked(&home, &user, &profile, parked));
                told(profile, done.map(drop))
            }),
            refused: Arc::new(move |error| told(of_refused.clone(), Err(error))),
        })
    }

    /// A mark was put or taken away, or could not be.
    pub fn marked(&mut self, marked: Marked, view: &View<'_>) -> Actions {
        let Marked { id, profile, parked, done } = marked;
        if self.stops.marking.get(&profile) == Some(&parked) {
            self.stops.marking.remove(&profile);
        }
        self.moved = true;
        // Without a directory there is nothing to serve.
        let Some(error) = done.err().filter(|error| error.kind() != io::ErrorKind::NotFound) else {
            return Actions::new();
        };
        if let Some(stop) = self.stops.by_service.get_mut(&id).filter(|_| parked) {
            stop.unmarked = Some(error.to_string());
        }
        if parked {
            self.parked.remove(&profile);
        }
        let Some(name) = view.name(id) else { return Actions::new() };
        let what = if parked { "marked as parked" } else { "freed of the mark of a parked profile" };
        vec![Action::Log(slog::Level::Warning, format!("{name}: it cannot be {what}: {error}"))]
    }

    /// Whether the core's answer to a stop has to wait for the root gateway.
    pub fn holds_back(&mut self, id: ServiceId, ticket: Ticket, outcome: &effect::Outcome) -> bool {
        let Some(stop) = self.stops.by_service.get_mut(&id) else { return false };
        match outcome {
            effect::Outcome::Done { already, unrecorded: None } if stop.callers.remove(&ticket) => {
                stop.answered.insert(ticket, *already);
                self.moved = true;
                true
            }
            effect::Outcome::Done { .. } | effect::Outcome::Failed(_) | effect::Outcome::Overtaken(_) => {
                stop.callers.remove(&ticket);
                false
            }
        }
    }

    /// The root gateway has spoken, or is not going to: stops that wait for that go on.
    pub(super) fn settle_stops(&mut self, view: &View<'_>) -> Actions {
        let mut actions = Actions::new();
        for id in self.stops.by_service.keys().copied().collect::<Vec<_>>() {
            let profile = named_profile(id, view);
            let is_moving = profile.as_ref().is_some_and(|profile| self.stops.marking.contains_key(profile));
            let is_settled = view.fleet.gateway(id).is_none_or(Gateway::is_settled);
            let waits = |stop: &Stop| stop.asked || (!stop.callers.is_empty() && !is_settled);
            let waits = self.stops.by_service.get(&id).is_some_and(waits);
            if (is_moving || waits) && !view.closing {
                continue;
            }
            let place = profile.as_ref().and_then(|profile| self.place_of(id, profile, view));
            match (place, profile) {
                (Some(Place::Elsewhere(served @ Elsewhere::Served { .. })), Some(profile))
                    if !view.closing =>
                {
                    let errand = Errand::of(&served, Command::Stop, &profile);
                    self.stops.by_service.get_mut(&id).into_iter().for_each(|stop| stop.asked = true);
                    actions.extend(errand.map(|errand| self.converse(About::Leave { id, errand })));
                }
                (Some(Place::Ask(_)), _) if !view.closing => {
                    if !self.root_has_process(view) {
                        actions.extend(self.answer_stop(id, view));
                    }
                }
                // Late, it may still speak.
                _ if matches!(self.root(view), Root::Late) && !view.closing => {
                    actions.extend(self.answer_stop(id, view));
                }
                _ => {
                    // One that runs has said that it does not serve it.
                    if matches!(self.root(view), Root::Runs(_)) {
                        self.stops.by_service.get_mut(&id).into_iter().for_each(|stop| stop.unmarked = None);
                    }
                    actions.extend(self.answer_stop(id, view));
                    self.stops.by_service.remove(&id);
                }
            }
        }
        actions
    }

    fn root_has_process(&self, view: &View<'_>) -> bool {
        let root = root_gateway(view).and_then(|id| view.fleet.gateway(id));
        self.foreground || root.is_some_and(Gateway::has_tree)
    }

    /// Who waited hears that it is stopped.
    fn answer_stop(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some((stop, name)) = self.stops.by_service.get_mut(&id).zip(view.name(id)) else {
            return Actions::new();
        };
        let unmarked = stop.unmarked.clone();
        let answered = std::mem::take(&mut stop.answered).into_iter();
        let state = view.state(id).unwrap_or(State::Down);
        let answer = |(ticket, already): (Ticket, bool)| {
            let outcome = match &unmarked {
                Some(why) => {
                    let message = format!(
                        "'{name}' is stopped, but '{DEFAULT_PROFILE}' may serve it when it runs: it cannot be \
                         marked as parked: {why}"
                    );
                    Outcome::failed(name.as_str(), Code::Failed, Some(state), message)
                }
                None => Outcome::done(name.as_str(), state, already.then(|| format!("already {state}"))),
            };
            Action::Answer(ticket, outcome)
        };
        answered.map(answer).collect()
    }

    /// The root gateway was asked to leave out a profile whose gateway had been stopped before it spoke.
    pub(super) fn left_out(
        &mut self,
        id: ServiceId,
        errand: &Errand,
        answer: Result<&Answer, &AskError>,
        view: &View<'_>,
    ) -> Actions {
        let Some((name, profile)) = view.name(id).zip(named_profile(id, view)) else {
            return Actions::new();
        };
        self.moved = true;
        if answer.is_ok() {
            self.parked.insert(profile);
        }
        let Some(stop) = self.stops.by_service.remove(&id) else { return Actions::new() };
        let state = match answer {
            Ok(_) => State::Parked,
            Err(_) => view.state(id).unwrap_or(State::Down),
        };
        let outcome = match errand.verdict(name, DEFAULT_PROFILE, answer) {
            Verdict::Done(message) => Outcome::done(name.as_str(), state, message),
            Verdict::Unfinished(why) => Outcome::failed(name.as_str(), Code::TimedOut, Some(state), why),
            Verdict::Refused(why) => Outcome::failed(name.as_str(), Code::Failed, Some(state), why),
        };
        let warning = outcome.message.as_ref().filter(|_| !outcome.ok);
        let warning = warning.map(|why| Action::Log(slog::Level::Warning, why.clone()));
        let tickets = stop.answered.into_keys();
        tickets.map(|ticket| Action::Answer(ticket, outcome.clone())).chain(warning).collect()
    }
}
