//! What callers ask to be done to services, or to be true of them.

use crate::containment::IncarnationId;
use crate::control::protocol::{Code, Outcome, Request};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::event::{Command, Ticket};
use crate::core::fleet::{ParallelStarts, ServiceId};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::words::State;
use crate::daemon::Commit;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::limits::Asked;
use crate::daemon::topics::requests::answers::not_restarted;
use crate::daemon::topics::requests::{Awaited, Of, PendingRequest, Requests, part};
use crate::daemon::view::View;
use crate::store::Change;
use std::collections::{BTreeSet, VecDeque};

impl Requests {
    /// Takes a request about the services `ids`, which are permitted, with the answers `complaints` for others that it names.
    /// `all`: it names nobody, but means all.
    pub fn serve(
        &mut self,
        incoming: &Incoming,
        ids: Vec<ServiceId>,
        complaints: Vec<Outcome>,
        all: bool,
        view: &View<'_>,
    ) -> Actions {
        let (conn, uid, request) = (incoming.id, incoming.peer.uid, &incoming.request);
        let mut actions: Actions = complaints.into_iter().map(|complaint| part(conn, complaint)).collect();
        let number = self.open(conn, deadline(request, ids.len(), all, view));
        actions.extend(match request {
            Request::Start { force, .. } => {
                self.command(number, uid, ids, Command::Start { force: *force }, all, view)
            }
            Request::Stop { .. } => self.command(number, uid, ids, Command::Stop, all, view),
            Request::Once { .. } => self.command(number, uid, ids, Command::Once, all, view),
            Request::Restart { rolling, .. } => self.restart(number, uid, ids, *rolling, all),
            Request::Unregister { .. } => self.unregister(number, uid, conn, ids, view),
            Request::Kill { signal, tree, .. } => self.kill(number, conn, ids, signal.0, *tree, view),
            Request::Freeze { .. } => self.freeze(number, conn, ids, true, all, view),
            Request::Thaw { .. } => self.freeze(number, conn, ids, false, all, view),
            Request::Wait { until, .. } => {
                for id in &ids {
                    self.issue(number, Of::Service(*id), Some(Awaited::State(*until)));
                }
                ids.into_iter().flat_map(|id| self.changed(id, view)).collect()
            }
            Request::Set { limits, persist, .. } => {
                let set = |id| {
                    let ticket = self.ticket(number, id);
                    Action::SetLimits(Asked { ticket, id, uid, limits: limits.clone(), persist: *persist })
                };
                ids.into_iter().map(set).collect()
            }
            // No other request is about named services and answered one by one.
            _ => Actions::new(),
        });
        actions.extend(self.end_if_over(number));
        actions
    }

    /// `unregister`, where some of what is meant are `records` that are no services.
    pub fn unregister_with(
        &mut self,
        incoming: &Incoming,
        ids: Vec<ServiceId>,
        complaints: Vec<Outcome>,
        records: Vec<ServiceName>,
        view: &View<'_>,
    ) -> Actions {
        let (conn, uid, request) = (incoming.id, incoming.peer.uid, &incoming.request);
        let mut actions: Actions = complaints.into_iter().map(|complaint| part(conn, complaint)).collect();
        let number = self.open(conn, deadline(request, ids.len(), false, view));
        for name in records {
            // There is nothing to stop.
            let ticket = self.registration(number, name.clone());
            let text = format!("{name}: its registration is dropped");
            actions.push(Action::Log(slog::Level::Info, text));
            let dropped = Commit::Dropped(name.clone(), ticket);
            actions.push(Action::Commit(dropped, vec![Change::Forget(name)]));
        }
        actions.extend(self.unregister(number, uid, conn, ids, view));
        actions.extend(self.end_if_over(number));
        actions
    }

    fn command(
        &mut self,
        number: u64,
        uid: u32,
        ids: Vec<ServiceId>,
        command: Command,
        in_turn: bool,
        view: &View<'_>,
    ) -> Actions {
        let together: BTreeSet<ServiceId> = ids.iter().copied().collect();
        let mut actions = self.overtake_turns(&together, command, view);
        actions.extend(self.command_of(number, uid, ids, command, together, in_turn));
        actions
    }

    /// Those of a rolling restart whose turn has yet to come are not restarted after something newer was asked of them.
    fn overtake_turns(&mut self, ids: &BTreeSet<ServiceId>, by: Command, view: &View<'_>) -> Actions {
        let mut actions = Actions::new();
        // They are to be up in the end, as these say too.
        if matches!(by, Command::Start { .. } | Command::Restart) {
            return actions;
        }
        let why = by.overtaking();
        for PendingRequest { conn, queue, .. } in self.requests.values_mut() {
            let (overtaken, left): (Vec<ServiceId>, Vec<ServiceId>) =
                std::mem::take(queue).into_iter().partition(|id| ids.contains(id));
            *queue = VecDeque::from(left);
            let told = overtaken.into_iter();
            actions.extend(told.filter_map(|id| not_restarted(*conn, id, Code::Failed, &why, view)));
        }
        actions
    }

    /// `together`: all that get it in the end.
    fn command_of(
        &mut self,
        number: u64,
        uid: u32,
        ids: Vec<ServiceId>,
        command: Command,
        together: BTreeSet<ServiceId>,
        in_turn: bool,
    ) -> Actions {
        self.callers.extend(ids.iter().map(|id| (*id, uid)));
        let tickets: Vec<(ServiceId, Ticket)> =
            ids.into_iter().map(|id| (id, self.ticket(number, id))).collect();
        vec![Action::Command { tickets, command, together, in_turn }]
    }

    fn restart(
        &mut self,
        number: u64,
        uid: u32,
        mut ids: Vec<ServiceId>,
        rolling: Option<u32>,
        all: bool,
    ) -> Actions {
        let at_once = rolling.map_or(ids.len(), |n| n.max(1) as usize).min(ids.len());
        let together: BTreeSet<ServiceId> = ids.iter().copied().collect();
        let rest = ids.split_off(at_once);
        self.callers.extend(rest.iter().map(|id| (*id, uid)));
        if let Some(request) = self.requests.get_mut(&number) {
            request.queue = rest.into();
            request.together.clone_from(&together);
        }
        // A rolling one has its own measure.
        self.command_of(number, uid, ids, Command::Restart, together, all && rolling.is_none())
    }

    fn unregister(
        &mut self,
        number: u64,
        uid: u32,
        conn: ConnId,
        ids: Vec<ServiceId>,
        view: &View<'_>,
    ) -> Actions {
        let is_registered =
            |id: &ServiceId| view.service(*id).is_some_and(|service| service.record.is_some());
        let (registered, others): (Vec<ServiceId>, Vec<ServiceId>) = ids.into_iter().partition(is_registered);
        let refused = |id: ServiceId| {
            let name = view.name(id)?.to_string();
            let message = format!(
                "'{name}' was not registered but comes from {}: remove that, then 'hermes-sup ctl reload'",
                view.origin(id)
            );
            Some(part(conn, Outcome::failed(name, Code::Failed, view.state(id), message)))
        };
        let mut actions: Actions = others.into_iter().filter_map(refused).collect();
        actions.extend(self.command(number, uid, registered, Command::Unregister, false, view));
        actions
    }

    fn kill(
        &mut self,
        number: u64,
        conn: ConnId,
        ids: Vec<ServiceId>,
        signal: Signal,
        tree: bool,
        view: &View<'_>,
    ) -> Actions {
        let mut actions = Actions::new();
        for id in ids {
            let Some((name, gateway)) = view.name(id).zip(view.fleet.gateway(id)) else { continue };
            let running = if tree { gateway.has_tree() } else { gateway.pid().is_some() };
            let life = view.life(id).filter(|_| running);
            let Some(life) = life else {
                let message = format!("'{name}' is not running");
                actions
                    .push(part(conn, Outcome::failed(name.as_str(), Code::Failed, view.state(id), message)));
                continue;
            };
            let was_frozen = view.trees.is_frozen(&life);
            let ticket = self.ticket(number, id);
            actions.push(Action::Kill(Kill { ticket, life, signal, tree, was_frozen }));
        }
        actions
    }

    /// The signal of `ctl kill` was sent, or could not be, and why.
    pub fn killed(&mut self, kill: Kill, error: Option<String>, view: &View<'_>) -> Actions {
        let Kill { ticket, life, signal, was_frozen, .. } = kill;
        let name = life.name.as_str();
        let state = view.fleet.id(name).and_then(|id| view.state(id));
        let outcome = match error {
            None => {
                let thawed = if was_frozen { " and thawed" } else { "" };
                Outcome::done(name, state.unwrap_or(State::Up), Some(format!("{signal} sent{thawed}")))
            }
            Some(error) => {
                Outcome::failed(name, Code::Failed, state, format!("'{name}' got no {signal}: {error}"))
            }
        };
        self.finish(ticket, outcome, view)
    }

    /// Stops trees where they are, or lets them go on; of `all`, those that are up.
    fn freeze(
        &mut self,
        number: u64,
        conn: ConnId,
        ids: Vec<ServiceId>,
        frozen: bool,
        all: bool,
        view: &View<'_>,
    ) -> Actions {
        let mut actions = Actions::new();
        let mut tickets = Vec::new();
        for id in ids {
            let Some((name, state)) = view.name(id).zip(view.state(id)) else { continue };
            match view.life(id).filter(|_| state.is_up()) {
                // All tickets first: an answer that comes at once must not end the request.
                Some(life) => {
                    let awaited = Some(Awaited::Frozen(frozen));
                    tickets.push((id, life, self.issue(number, Of::Service(id), awaited)));
                }
                None if all => {}
                None => {
                    let verb = if frozen { "freeze" } else { "thaw" };
                    let message = format!("'{name}' is {state}: only what is up can be told to {verb}");
                    actions
                        .push(part(conn, Outcome::failed(name.as_str(), Code::Failed, Some(state), message)));
                }
            }
        }
        for (id, life, ticket) in tickets {
            if view.trees.is_frozen(&life) != frozen {
                actions.push(Action::Freeze { life, frozen, ticket });
                continue;
            }
            let word = if frozen { "already frozen" } else { "not frozen" };
            let outcome =
                Outcome::done(life.name.as_str(), view.state(id).unwrap_or(State::Up), Some(word.to_owned()));
            if !frozen {
                // A freeze that is still under way is over.
                actions.push(Action::Thaw(life));
            }
            actions.extend(self.finish(ticket, outcome, view));
        }
        actions
    }

    /// A freeze or thaw was ordered, or could not be, and why.
    pub fn freeze_ordered(
        &mut self,
        life: &IncarnationId,
        frozen: bool,
        ticket: Ticket,
        error: Option<String>,
        view: &View<'_>,
    ) -> Actions {
        let id = view.fleet.id(life.name.as_str());
        match error {
            None => id.map(|id| self.changed(id, view)).unwrap_or_default(),
            Some(error) => {
                let verb = if frozen { "frozen" } else { "thawed" };
                let message = format!("'{}' cannot be {verb}: {error}", life.name);
                let state = id.and_then(|id| view.state(id));
                let outcome = Outcome::failed(life.name.as_str(), Code::Failed, state, message);
                self.finish(ticket, outcome, view)
            }
        }
    }
}

/// A signal that a caller sends to a service.
#[derive(Debug)]
pub struct Kill {
    pub ticket: Ticket,
    pub life: IncarnationId,
    pub signal: Signal,
    /// To every process.
    pub tree: bool,
    /// What is frozen goes on, so that it finds the signal.
    pub was_frozen: bool,
}

/// When the answer ends at the latest.
fn deadline(request: &Request, services: usize, all: bool, view: &View<'_>) -> Option<Tick> {
    let timeout = request.deadline().after(request.timeout())?;
    // One after the other may take as long as each alone.
    let turns = match request {
        Request::Restart { rolling: Some(at_once), .. } => services.div_ceil((*at_once).max(1) as usize),
        Request::Start { .. } | Request::Restart { .. } if all => match view.options.parallel_starts {
            ParallelStarts::Any => 1,
            ParallelStarts::AtMost(most) => services.div_ceil(most.max(1) as usize),
            ParallelStarts::Auto => services,
        },
        _ => 1,
    };
    let turns = u32::try_from(turns.max(1)).unwrap_or(u32::MAX);
    Some(view.now.after(timeout.saturating_mul(turns)))
}
