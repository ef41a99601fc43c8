//! Who is owed an answer, and what it is.
//!
//! One request can name many services. Each of them gets a ticket; the answer for a service is sent as soon as it is known, and
//! the request is over when no ticket is outstanding. A caller who goes away is owed nothing, but what was asked for is done all
//! the same: a gateway may restart itself from inside its own tree.
//!
//! Invariants, each a story in `stories`: every ticket is answered once, by the core, by what was waited for, or by the
//! deadline; an answer is never sent before it is true; the end of a request is sent once, after all its answers.

mod answers;
mod commands;
#[cfg(test)]
mod stories;

pub use commands::Kill;

use crate::control::protocol::{Outcome, Part, Reply, Until};
use crate::control::server::ConnId;
use crate::core::clock::Tick;
use crate::core::event::Ticket;
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// What is said of a registration that got on record while everything was about to end.
pub const REGISTERED_LATE: &str = "registered; this supervisor is shutting down, the next one starts it";

/// One request under way.
#[derive(Debug, Default)]
struct PendingRequest {
    /// `None`: the caller has gone.
    conn: Option<ConnId>,
    outstanding: BTreeSet<Ticket>,
    /// For `restart --rolling`: what comes next, when one of the first is up.
    queue: VecDeque<ServiceId>,
    /// For `restart --rolling`: those of all turns.
    together: BTreeSet<ServiceId>,
    deadline: Option<Tick>,
}

/// What a ticket stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stub {
    request: u64,
    of: Of,
    /// Waits for something to be so instead of a command.
    until: Option<Awaited>,
    /// It was for a registration, which is on record.
    registered: bool,
}

/// What a ticket is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    Service(ServiceId),
    /// A registration: the service is made when its record is on disk.
    Registration(ServiceName),
}

impl Of {
    fn service(&self) -> Option<ServiceId> {
        match self {
            Self::Service(id) => Some(*id),
            Self::Registration(_) => None,
        }
    }
}

/// What a ticket without a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    State(Until),
    /// That the tree stands still, or does not.
    Frozen(bool),
}

/// A request that does nothing but wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Targeted {
    pub conn: ConnId,
    pub ids: Vec<ServiceId>,
    pub until: Until,
    pub deadline: Option<Tick>,
}

/// All requests under way.
#[derive(Debug, Default)]
pub struct Requests {
    requests: BTreeMap<u64, PendingRequest>,
    tickets: HashMap<Ticket, Stub>,
    waiting: BTreeMap<ServiceId, BTreeSet<Ticket>>,
    deadlines: BTreeSet<(Tick, u64)>,
    next: u64,
    /// Who asked last, for the record.
    callers: BTreeMap<ServiceId, u32>,
    /// Answers to `unregister` that wait for the log to be closed.
    retiring: BTreeMap<ServiceId, Vec<Ticket>>,
}

impl Deadlines for Requests {
    fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn postpone(&mut self, by: Duration) {
        let later = std::mem::take(&mut self.deadlines).into_iter();
        self.deadlines = later.map(|(until, request)| (until.after(by), request)).collect();
        for deadline in self.requests.values_mut().filter_map(|request| request.deadline.as_mut()) {
            *deadline = deadline.after(by);
        }
    }
}

impl Requests {
    /// The uid that asked last for something to be done to this service.
    pub fn last_caller(&self, id: ServiceId) -> Option<u32> {
        self.callers.get(&id).copied()
    }

    /// A service that somebody has registered.
    pub fn asked_by(&mut self, id: ServiceId, uid: u32) {
        self.callers.insert(id, uid);
    }

    /// Something is asked for that has yet to be done: anything but waiting for a state.
    pub fn is_busy(&self) -> bool {
        let waits = |stub: &Stub| matches!(stub.until, Some(Awaited::State(_)));
        !self.retiring.is_empty()
            || !self.tickets.values().all(waits)
            || self.requests.values().any(|request| !request.queue.is_empty())
    }

    /// A registration of this name is under way.
    pub fn registers(&self, name: &ServiceName) -> bool {
        self.tickets.values().any(|stub| matches!(&stub.of, Of::Registration(other) if other == name))
    }

    /// Those that wait for a state, with what they still wait for.
    pub fn targeted(&self) -> Vec<Targeted> {
        let waits = |request: &PendingRequest| {
            let stubs = || request.outstanding.iter().filter_map(|ticket| self.tickets.get(ticket));
            let until = stubs().find_map(|stub| match stub.until {
                Some(Awaited::State(until)) => Some(until),
                Some(Awaited::Frozen(_)) | None => None,
            })?;
            let ids = stubs().filter_map(|stub| stub.of.service()).collect();
            Some(Targeted { conn: request.conn?, ids, until, deadline: request.deadline })
        };
        self.requests.values().filter_map(waits).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A ticket that nobody waits for.
    pub fn own_ticket(&mut self) -> Ticket {
        Ticket(self.number())
    }

    /// A new request of this caller.
    pub fn open(&mut self, conn: ConnId, deadline: Option<Tick>) -> u64 {
        let number = self.number();
        let request = PendingRequest { conn: Some(conn), deadline, ..PendingRequest::default() };
        self.requests.insert(number, request);
        self.deadlines.extend(deadline.map(|deadline| (deadline, number)));
        number
    }

    /// A ticket of this request for something that is done to the service.
    pub fn ticket(&mut self, request: u64, id: ServiceId) -> Ticket {
        self.issue(request, Of::Service(id), None)
    }

    /// A ticket of this request for a service that is being registered.
    pub fn registration(&mut self, request: u64, name: ServiceName) -> Ticket {
        self.issue(request, Of::Registration(name), None)
    }

    /// The service of a registration is there; the rest of the answer is about it.
    pub fn registered(&mut self, ticket: Ticket, id: ServiceId) {
        if let Some(stub) = self.tickets.get_mut(&ticket) {
            (stub.of, stub.registered) = (Of::Service(id), true);
        }
    }

    fn issue(&mut self, request: u64, of: Of, until: Option<Awaited>) -> Ticket {
        let ticket = Ticket(self.number());
        if let (Some(id), true) = (of.service(), until.is_some()) {
            self.waiting.entry(id).or_default().insert(ticket);
        }
        self.tickets.insert(ticket, Stub { request, of, until, registered: false });
        if let Some(request) = self.requests.get_mut(&request) {
            request.outstanding.insert(ticket);
        }
        ticket
    }

    /// The ticket is done with; returns its stub and who is to be told.
    fn close(&mut self, ticket: Ticket) -> Option<(Stub, Option<ConnId>)> {
        let stub = self.tickets.remove(&ticket)?;
        self.waits_no_more(&stub, ticket);
        let request = self.requests.get_mut(&stub.request)?;
        request.outstanding.remove(&ticket);
        let conn = request.conn;
        Some((stub, conn))
    }

    fn waits_no_more(&mut self, stub: &Stub, ticket: Ticket) {
        let Some(id) = stub.of.service() else { return };
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.remove(&ticket);
            if waiting.is_empty() {
                self.waiting.remove(&id);
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<PendingRequest> {
        let request = self.requests.remove(&number)?;
        if let Some(deadline) = request.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        Some(request)
    }

    /// Ends the request if nothing more is owed.
    pub fn end_if_over(&mut self, number: u64) -> Option<Action> {
        let request = self.requests.get(&number)?;
        if !request.outstanding.is_empty() || !request.queue.is_empty() {
            return None;
        }
        self.remove(number)?.conn.map(|conn| Action::Reply(conn, Reply::End))
    }
}

/// The answer for one service.
fn part(conn: ConnId, outcome: Outcome) -> Action {
    Action::Reply(conn, Reply::Part(Part::Outcome(outcome)))
}

/// The same, where there may be nobody to hear it.
fn part_for(conn: Option<ConnId>, outcome: Outcome) -> Actions {
    conn.map(|conn| part(conn, outcome)).into_iter().collect()
}
