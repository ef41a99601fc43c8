//! What has happened and is not dealt with yet: the one queue into the loop.
//!
//! Sources put their news at its end, and so does whatever is done about it. The loop takes one at a time, lets the core and the
//! topics decide, and acts on everything that they decided before it takes the next: nothing is dealt with in the middle of
//! something else.

use crate::containment::{self, IncarnationId};
use crate::control::protocol::Outcome;
use crate::control::server::{ConnId, Incoming};
use crate::core::event::{Event, Ticket};
use crate::core::fleet::ServiceId;
use crate::core::limits::{Inherited, NotInForce};
use crate::core::unit::ScopeName;
use crate::daemon::Notice;
use crate::daemon::topics::definitions::Report;
use crate::daemon::topics::limits;
use crate::daemon::topics::probing::Answer;
use crate::daemon::topics::requests::Kill;
use crate::daemon::topics::scopes::ScopeAnswer;
use crate::hermes::profile_watch;
use crate::sys::signal::Received;
use std::collections::VecDeque;

/// One piece of news.
#[derive(Debug)]
pub enum Input {
    /// For the core.
    Core(ServiceId, Event),
    Containment(containment::Event),
    Signal(Received),
    Notice(Notice),
    Request(Incoming),
    CallerGone(ConnId),
    /// The exec of the main program is decided.
    MainReported,
    /// Somebody has set the wall clock.
    ClockSet,
    /// Of the life with this number, in its lower half.
    Readiness(ServiceId, u32),
    /// The connection of a probe has news.
    Probe(u32),
    /// What became of a probe.
    Probed(Answer),
    ScanDirectory,
    /// Another container claims the state, or did before we listened.
    Claim,
    /// Something happened in `profiles/`.
    Profiles(Vec<profile_watch::Change>),
    /// Something happened in the directory of the root gateway's state file.
    RootDirectory,
    /// The answer to something that a topic other than the requests does.
    Answer(Ticket, Outcome),
    /// The signal of `ctl kill` was sent; why not, if it was not.
    Killed(Kill, Option<String>),
    /// A freeze or thaw was ordered; why not, if it was not.
    FreezeOrdered {
        life: IncarnationId,
        frozen: bool,
        ticket: Ticket,
        error: Option<String>,
    },
    /// What became of an order about a scope of this life.
    Scope(ConnId, IncarnationId, ScopeName, ScopeAnswer),
    /// What a caller wants to be set for a service.
    SetLimits(limits::Asked),
    /// Limits were put into force, but for those that are left.
    LimitsPut {
        life: IncarnationId,
        in_force: limits::InForce,
        left: Vec<NotInForce>,
    },
    /// What the main process of this life bears.
    ProcessLimits(IncarnationId, Inherited),
    /// All that a reload has to do with definitions is done.
    Reloaded(Report),
    /// Nothing is left of a service that is to be forgotten.
    Retired(ServiceId),
}

/// First in, first out.
#[derive(Debug, Default)]
pub struct Inbox(VecDeque<Input>);

impl Inbox {
    pub fn push(&mut self, input: Input) {
        self.0.push_back(input);
    }

    /// News for the core.
    pub fn core(&mut self, id: ServiceId, event: Event) {
        self.push(Input::Core(id, event));
    }

    /// The answer to what a ticket was for.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        self.push(Input::Answer(ticket, outcome));
    }

    pub fn next(&mut self) -> Option<Input> {
        self.0.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
