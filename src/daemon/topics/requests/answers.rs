//! How each ticket is answered: by the core, by what it waits for, by the end of the service, or by its deadline.

use crate::control::protocol::{Code, FREEZE_TIMEOUT, Outcome, Reply, Until};
use crate::control::server::ConnId;
use crate::core::effect;
use crate::core::event::{Command, Event, Ticket};
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Gateway, Stage};
use crate::core::words::{State, Want};
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::requests::{
    Awaited, Of, PendingRequest, REGISTERED_LATE, Requests, Stub, part, part_for,
};
use crate::daemon::view::View;

impl Requests {
    /// The core answers a command.
    pub fn answer(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        outcome: effect::Outcome,
        view: &View<'_>,
    ) -> Actions {
        let retiring = self.tickets.contains_key(&ticket)
            && matches!(outcome, effect::Outcome::Done { .. })
            && view.service(id).is_some_and(|service| service.record.is_some())
            && view.fleet.gateway(id).is_some_and(Gateway::is_retiring);
        if retiring {
            // Told when its log is closed, too.
            self.retiring.entry(id).or_default().push(ticket);
            return Actions::new();
        }
        let Some((name, state)) = view.name(id).map(ToString::to_string).zip(view.state(id)) else {
            return Actions::new();
        };
        let outcome = match outcome {
            effect::Outcome::Done { already, unrecorded: None } => {
                let edited = view.edited(id).filter(|_| state.is_up());
                let is_scheduled = view.fleet.gateway(id).is_some_and(Gateway::awaits_run);
                let message = match (already, edited) {
                    (true, None) if is_scheduled => Some("already scheduled".to_owned()),
                    (false, None) if is_scheduled => Some("scheduled".to_owned()),
                    (true, None) => Some(format!("already {state}")),
                    (true, Some(edited)) => Some(format!("already {state}; {edited}")),
                    (false, Some(edited)) => Some(format!("{state}; {edited}")),
                    (false, None) => None,
                };
                Outcome::done(name, state, message)
            }
            effect::Outcome::Done { unrecorded: Some(why), .. } => {
                let message = format!("'{name}' is stopped, but not recorded: {why}");
                Outcome::failed(name, Code::Failed, Some(state), message)
            }
            effect::Outcome::Failed(_) if view.closing && self.is_registered(ticket) => {
                Outcome::done(name, state, Some(REGISTERED_LATE.to_owned()))
            }
            effect::Outcome::Failed(why) => {
                let is_stuck = view.fleet.gateway(id).is_some_and(|g| g.stage() == Some(Stage::Stuck));
                let hanging = view.life(id).filter(|_| is_stuck).and_then(|life| view.trees.hanging(&life));
                let hanging = hanging.map(|hanging| format!(": {hanging}")).unwrap_or_default();
                let message = format!("'{name}': {why}{hanging}");
                Outcome::failed(name, Code::Failed, Some(state), message)
            }
            effect::Outcome::Overtaken(by) => {
                let message = format!("'{name}': {}", by.overtaking());
                Outcome::failed(name, Code::Failed, Some(state), message)
            }
        };
        self.finish(ticket, outcome, view)
    }

    fn is_registered(&self, ticket: Ticket) -> bool {
        self.tickets.get(&ticket).is_some_and(|stub| stub.registered)
    }

    /// The answer for one ticket is known. What comes next in a rolling restart begins, or is given up.
    pub fn finish(&mut self, ticket: Ticket, outcome: Outcome, view: &View<'_>) -> Actions {
        let Some((Stub { request: number, .. }, conn)) = self.close(ticket) else { return Actions::new() };
        let failed = !outcome.ok;
        let mut actions = part_for(conn, outcome);
        let Some(request) = self.requests.get_mut(&number) else { return actions };
        if failed {
            let rest = std::mem::take(&mut request.queue);
            let why = "an earlier one failed";
            actions
                .extend(rest.into_iter().filter_map(|id| not_restarted(conn, id, Code::Failed, why, view)));
        } else if let Some(next) = request.queue.pop_front() {
            let together = request.together.clone();
            let tickets = vec![(next, self.ticket(number, next))];
            actions.push(Action::Command { tickets, command: Command::Restart, together, in_turn: false });
        }
        actions.extend(self.end_if_over(number));
        actions
    }

    /// A service that was unregistered is gone, log and all.
    pub fn retired(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some(name) = view.name(id).map(ToString::to_string) else { return Actions::new() };
        let mut actions = Actions::new();
        for ticket in self.retiring.remove(&id).unwrap_or_default() {
            let outcome = Outcome::done(name.clone(), State::Down, Some("unregistered".to_owned()));
            actions.extend(self.finish(ticket, outcome, view));
        }
        // Others that are still owed an answer about it: they wait, or were overtaken by its end.
        let owed = |(ticket, stub): (&Ticket, &Stub)| (stub.of == Of::Service(id)).then_some(*ticket);
        let mut owed: Vec<Ticket> = self.tickets.iter().filter_map(owed).collect();
        owed.sort();
        for ticket in owed {
            let message = format!("'{name}' was unregistered");
            let outcome = Outcome::failed(name.clone(), Code::NoSuchService, None, message);
            actions.extend(self.finish(ticket, outcome, view));
        }
        // Its number may be another's soon, who is not meant by a turn that is yet to come.
        for PendingRequest { conn, queue, .. } in self.requests.values_mut() {
            let before = queue.len();
            queue.retain(|next| *next != id);
            let told = (queue.len() < before)
                .then(|| not_restarted(*conn, id, Code::NoSuchService, "it is gone", view));
            actions.extend(told.flatten());
        }
        self.callers.remove(&id);
        actions
    }

    /// The service is in another state, or its tree stands still now: those who wait for that hear of it.
    pub fn changed(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some(waiting) = self.waiting.get(&id) else { return Actions::new() };
        let there = |ticket: &Ticket| {
            let awaited = self.tickets.get(ticket)?.until?;
            Some((*ticket, reached(awaited, id, view)?))
        };
        let there: Vec<(Ticket, Outcome)> = waiting.iter().filter_map(there).collect();
        there.into_iter().flat_map(|(ticket, outcome)| self.finish(ticket, outcome, view)).collect()
    }

    /// Requests whose time is over are answered with what is so now.
    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        let mut actions = Actions::new();
        while let Some((_, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= view.now) {
            let Some(request) = self.remove(number) else { break };
            for ticket in request.outstanding {
                let Some(stub) = self.tickets.remove(&ticket) else { continue };
                self.waits_no_more(&stub, ticket);
                actions.extend(timed_out(ticket, &stub, request.conn, view));
            }
            let why = "timed out before its turn";
            let rest = request.queue.into_iter();
            actions.extend(rest.filter_map(|id| not_restarted(request.conn, id, Code::TimedOut, why, view)));
            actions.extend(request.conn.map(|conn| Action::Reply(conn, Reply::End)));
        }
        actions
    }

    /// A connection ended before its answer: what it asked for goes on, what it waited for does not matter any more.
    pub fn caller_is_gone(&mut self, conn: ConnId) {
        let found = self.requests.iter_mut().find(|(_, request)| request.conn == Some(conn));
        let Some((number, request)) = found.map(|(number, request)| (*number, request)) else { return };
        request.conn = None;
        let waits = |ticket: &Ticket| self.tickets.get(ticket).is_some_and(|stub| stub.until.is_some());
        let waits: Vec<Ticket> = request.outstanding.iter().copied().filter(waits).collect();
        for ticket in waits {
            self.close(ticket);
        }
        // There is nobody to tell.
        let _ = self.end_if_over(number);
    }
}

/// The answer to one that waits, if what it waits for is so, or can no longer become so.
fn reached(awaited: Awaited, id: ServiceId, view: &View<'_>) -> Option<Outcome> {
    let (name, gateway) = view.name(id).zip(view.fleet.gateway(id))?;
    let state = gateway.state();
    match awaited {
        Awaited::State(until) => {
            let there = match until {
                Until::Up => state.does_its_work(),
                // Of a service without a way to report it, up is all that can be known.
                Until::Ready => {
                    let reports_nothing = gateway.policy().ready.is_none();
                    matches!(state, State::Ready | State::Served) || (reports_nothing && state.is_up())
                }
                Until::Down => match state {
                    State::Down | State::Failed | State::Finished | State::Parked => true,
                    // There is no process of it, and there is not to be one.
                    State::Served => gateway.want() == Want::Down,
                    State::Starting
                    | State::Up
                    | State::Ready
                    | State::Stopping
                    | State::Backoff
                    | State::Refused => false,
                },
            };
            there.then(|| Outcome::done(name.as_str(), state, None))
        }
        Awaited::Frozen(wanted) => {
            let word = if wanted { "frozen" } else { "thawed" };
            if !state.is_up() {
                let message = format!("'{name}' is {state} and was not {word}");
                return Some(Outcome::failed(name.as_str(), Code::Failed, Some(state), message));
            }
            let is_so = view.life(id).is_some_and(|life| view.trees.is_frozen(&life)) == wanted;
            is_so.then(|| Outcome::done(name.as_str(), state, Some(word.to_owned())))
        }
    }
}

/// A ticket is not waited for any longer.
fn timed_out(ticket: Ticket, stub: &Stub, conn: Option<ConnId>, view: &View<'_>) -> Actions {
    let mut actions = Actions::new();
    let (name, state, why) = match &stub.of {
        Of::Registration(name) => {
            let text =
                "timed out, the disk has not answered yet, 'status' will tell whether it is registered";
            (name.to_string(), None, text.to_owned())
        }
        Of::Service(id) => {
            actions.push(Action::Core(*id, Event::Forget(ticket)));
            let Some((name, state)) = view.name(*id).zip(view.state(*id)) else {
                let outcome = Outcome::failed("", Code::TimedOut, None, "timed out, the service is gone");
                actions.extend(part_for(conn, outcome));
                return actions;
            };
            let life = view.life(*id).filter(|_| stub.until == Some(Awaited::Frozen(true)));
            let why = match life {
                // A tree that does not come to a stand goes on: one that stands in part would be worse.
                Some(life) => {
                    let hangs = view.trees.hanging(&life).map(|hanging| format!(": {hanging}"));
                    let seconds = FREEZE_TIMEOUT.as_secs();
                    actions.push(Action::Thaw(life));
                    format!("did not stand still within {seconds} s and goes on{}", hangs.unwrap_or_default())
                }
                None => format!("timed out, it is {state}"),
            };
            (name.to_string(), Some(state), why)
        }
    };
    let message = match (&stub.until, &stub.of) {
        (Some(Awaited::Frozen(true)), Of::Service(_)) => format!("'{name}' {why}"),
        _ => format!("'{name}': {why}"),
    };
    actions.extend(conn.map(|conn| part(conn, Outcome::failed(name, Code::TimedOut, state, message))));
    actions
}

/// The answer for one that `restart --rolling` did not come to.
pub(super) fn not_restarted(
    conn: Option<ConnId>,
    id: ServiceId,
    code: Code,
    why: &str,
    view: &View<'_>,
) -> Option<Action> {
    let (conn, name) = conn.zip(view.name(id))?;
    let message = format!("'{name}' is not restarted: {why}");
    Some(part(conn, Outcome::failed(name.as_str(), code, view.state(id), message)))
}
