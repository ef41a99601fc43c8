//! What is asked of the root gateway, and what its answers mean for those who wait.

use super::{Topology, has_root, named_profile, root_gateway};
use crate::control::protocol::{Code, Outcome, State};
use crate::core::event::{Command, Event, Ticket};
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::daemon::act::{Action, Actions};
use crate::daemon::view::View;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::errand::{self, Errand, Verdict};
use crate::hermes::gateway_socket::{self, Answer, AskError, Verb};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::collections::BTreeSet;

/// What a conversation with the root gateway is about.
#[derive(Debug, Clone)]
pub enum About {
    /// A profile that it does not serve; this gateway ended because it does not get a process of its own.
    Rescan(Option<ServiceId>),
    /// An operator's command for a profile that it serves, or that is parked.
    Command { id: ServiceId, ticket: Ticket, command: Command, errand: Errand },
    /// A profile that it serves, whose gateway was stopped before it said so.
    Leave { id: ServiceId, errand: Errand },
}

impl About {
    /// Talks to the root gateway, which is process `pid`. Blocks, for seconds.
    ///
    /// # Errors
    /// As [`gateway_socket::ask`] and [`Errand::run`].
    pub fn talk(&self, home: &Beneath, user: &Credentials, pid: u32) -> Result<Answer, AskError> {
        match self {
            Self::Rescan(_) => gateway_socket::ask(home, user, pid, &Verb::RescanProfiles, errand::PATIENCE),
            Self::Command { errand, .. } | Self::Leave { errand, .. } => errand.run(home, user, pid),
        }
    }
}

/// A command for a profile about which the root gateway is being asked: its turn comes when that has answered.
#[derive(Debug)]
pub(super) struct Queued {
    ticket: Ticket,
    command: Command,
    together: BTreeSet<ServiceId>,
}

/// What came of a conversation with the root gateway.
#[derive(Debug)]
pub struct Conversed {
    pub about: About,
    pub answer: Result<Answer, AskError>,
}

impl Queued {
    fn action(self, id: ServiceId) -> Action {
        let Self { ticket, command, together } = self;
        Action::Command { tickets: vec![(id, ticket)], command, together, in_turn: false }
    }
}

impl Topology {
    pub(super) fn converse(&mut self, about: About) -> Action {
        if let About::Command { id, .. } | About::Leave { id, .. } = about {
            self.talks.entry(id).or_default();
        }
        Action::Converse { pid: self.word().map(|word| word.pid), about }
    }

    /// It has answered, or is not going to.
    pub fn conversed(&mut self, conversed: Conversed, view: &View<'_>) -> Actions {
        let Conversed { about, answer } = conversed;
        if let (Ok(Answer { served: Some(served), .. }), Some(followed)) = (&answer, &mut self.followed)
            && let Some(word) = followed.word.as_mut().filter(|word| word.multiplexes())
        {
            // Its state file says so in a moment, too.
            word.served.clone_from(served);
            self.moved = true;
        }
        let id = match about {
            About::Command { id, .. } | About::Leave { id, .. } => Some(id),
            About::Rescan(_) => None,
        };
        let queued = id.and_then(|id| Some((id, self.talks.remove(&id)?)));
        let mut actions = self.outcome_of(about, answer, view);
        if let Some((id, queue)) = queued {
            actions.extend(queue.into_iter().map(|next| next.action(id)));
        }
        actions
    }

    fn outcome_of(&mut self, about: About, answer: Result<Answer, AskError>, view: &View<'_>) -> Actions {
        match about {
            About::Rescan(None) => Actions::new(),
            About::Rescan(Some(id)) => {
                self.moved |= self.asking.remove(&id);
                Actions::new()
            }
            About::Command { id, ticket, command, errand } => {
                self.answer(id, ticket, command, &errand, answer.as_ref(), view)
            }
            About::Leave { id, errand } => self.left_out(id, &errand, answer.as_ref(), view),
        }
    }

    /// An operator's command. For a profile that is served or parked it is asked of the root gateway, unless that one is told
    /// the same (`together`) or it comes to the same; the core takes any other.
    pub fn command(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        command: Command,
        together: &BTreeSet<ServiceId>,
        view: &View<'_>,
    ) -> Actions {
        if let Some(queue) = self.talks.get_mut(&id) {
            // The newest wins, whichever the root gateway hears of first.
            queue.push(Queued { ticket, command, together: together.clone() });
            return Actions::new();
        }
        if let Some(errand) = self.errand(id, ticket, command, together, view) {
            return vec![self.converse(About::Command { id, ticket, command, errand })];
        }
        let mut actions = self.beside_core(id, ticket, command, together, view);
        actions.push(Action::Core(id, Event::Command { ticket, command }));
        actions
    }

    fn errand(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        command: Command,
        together: &BTreeSet<ServiceId>,
        view: &View<'_>,
    ) -> Option<Errand> {
        self.operator_asked(id, command, view);
        let place = view.fleet.gateway(id).and_then(|gateway| gateway.placed_elsewhere())?;
        let profile = named_profile(id, view)?;
        if has_root(together, view) {
            return None;
        }
        if command == Command::Stop && self.is_needed_only_by(together, view) {
            let message = format!("'{DEFAULT_PROFILE}' was up for it alone, and ends");
            let name = view.name(id).map(ServiceName::as_str).unwrap_or_default();
            self.answers.insert(ticket, Outcome::done(name, State::Down, Some(message)));
            return None;
        }
        Errand::of(place, command, &profile)
    }

    /// Nobody wants the root gateway, and it is kept up for no service but these.
    pub(super) fn is_needed_only_by(&self, ids: &BTreeSet<ServiceId>, view: &View<'_>) -> bool {
        let root = root_gateway(view).and_then(|id| view.fleet.gateway(id));
        root.is_some_and(|root| root.needed_by().is_some()) && self.folded.is_subset(ids)
    }

    /// What an operator's command says about what was found out before.
    fn operator_asked(&mut self, id: ServiceId, command: Command, view: &View<'_>) {
        match command {
            Command::Start { .. } | Command::Restart => self.fold_refused = false,
            Command::Stop => {
                let needed = view.fleet.gateway(id).is_some_and(|gateway| gateway.needed_by().is_some());
                if needed {
                    self.fold_refused = true;
                    self.folded.clear();
                }
            }
            Command::Once | Command::Unregister => {}
        }
    }

    fn answer(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        command: Command,
        errand: &Errand,
        answer: Result<&Answer, &AskError>,
        view: &View<'_>,
    ) -> Actions {
        let Some((name, profile)) = view.name(id).zip(named_profile(id, view)) else {
            return Actions::new();
        };
        if answer.is_ok() && errand.parks() {
            self.parked.insert(profile);
        } else if answer.is_ok() {
            self.parked.remove(&profile);
        }
        self.moved = true;
        // What the core makes of the command depends on the place.
        let mut actions = self.settle(view);
        let state = view.state(id).unwrap_or(State::Down);
        let outcome = match errand.verdict(name, DEFAULT_PROFILE, answer) {
            Verdict::Done(message) => Outcome::done(name.as_str(), state, message),
            Verdict::Unfinished(message) => {
                Outcome::failed(name.as_str(), Code::TimedOut, Some(state), message)
            }
            Verdict::Refused(message) => {
                let outcome = Outcome::failed(name.as_str(), Code::Failed, Some(state), message);
                actions.push(Action::Answer(ticket, outcome));
                return actions;
            }
        };
        // It counts once it is recorded.
        self.answers.insert(ticket, outcome);
        let command = match command {
            Command::Restart => Command::Start { force: false },
            command @ (Command::Start { .. } | Command::Stop | Command::Once | Command::Unregister) => {
                command
            }
        };
        actions.push(Action::Core(id, Event::Command { ticket, command }));
        actions
    }

    /// The answer to a command that was asked of the root gateway, once its want is recorded.
    pub fn prepared_answer(&mut self, id: ServiceId, ticket: Ticket, view: &View<'_>) -> Option<Outcome> {
        let mut outcome = self.answers.remove(&ticket)?;
        outcome.state = view.state(id);
        Some(outcome)
    }
}
