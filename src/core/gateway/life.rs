//! One life of a service, and what is remembered of its lives.

use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::exit::Exit;
use crate::core::name::ServiceName;
use crate::core::policy::Hook;
use crate::core::words::Want;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What happened to the service so far, kept in the database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Restarts that nobody asked for.
    pub restarts: u64,
    /// Failures in the present row.
    pub row: u32,
    /// When they happened, oldest first; at most the burst limit and one more.
    pub failures: Vec<Tick>,
    pub backoff_until: Option<Tick>,
    /// Why it was given up, and when.
    pub failed: Option<(String, Tick)>,
    pub last_exit: Option<(Exit, Tick)>,
    /// Why the last attempt to start it failed, or its last life was ended as unhealthy; `None` after a start that succeeded.
    pub start_error: Option<String>,
    /// The number of the last life.
    pub incarnation: Incarnation,
    /// Of a scheduled service.
    pub runs: Option<Box<Runs>>,
}

/// The runs of a scheduled service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// When the last one began, also one that was asked for.
    pub started: Option<Tick>,
    /// Runs that were due and did not take place.
    pub skipped: u64,
    /// So many of them since the last one that did.
    pub in_row: u64,
}

/// What is known about a service when the supervisor starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    pub want: Want,
    /// The disk says so too. If not, the next command is recorded even if it changes nothing here.
    pub recorded: bool,
    pub history: History,
    /// A life that an earlier supervisor began and that goes on.
    pub living: Option<Living>,
    /// It ended as it should under a supervisor whose work goes on here: nothing is left to do.
    pub finished: bool,
    /// That life is kept up for this service, whatever the want.
    pub needed: Option<ServiceName>,
}

impl Restored {
    /// Nothing runs, and nothing is remembered but the want.
    pub fn at_rest(want: Want, recorded: bool) -> Self {
        Self { want, recorded, history: History::default(), living: None, finished: false, needed: None }
    }
}

/// A life in [`Phase::Up`], as a later supervisor has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Living {
    pub incarnation: Incarnation,
    pub pid: i32,
    pub since: Tick,
    pub readiness: Readiness,
    /// It runs although want is down.
    pub once: bool,
    /// It runs although want is down, for another service.
    pub needed: bool,
}

/// What is known about the readiness of a life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Readiness {
    /// The service has no way to report it.
    #[default]
    Undefined,
    /// Expected by then.
    Awaited(Tick),
    /// That time is over; it runs all the same, and may still report.
    Overdue,
    Reported(Tick),
}

/// One life of the service, from spawn to an empty tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Life {
    pub pid: Option<i32>,
    pub up_since: Option<Tick>,
    pub readiness: Readiness,
    pub exit: Option<Exit>,
    pub spawn_error: Option<String>,
    pub empty: bool,
    /// It is the hook before a start, not the service, and may take until then.
    pub preparing: Option<Tick>,
    /// Why that hook is ended, told when it has.
    pub doomed: Option<String>,
    /// The hook beside the main process, and until when it may run; `None`: it is being ended.
    pub hook: Option<(Hook, Option<Tick>)>,
    /// It ended, or could not begin, before anybody asked for its end.
    pub unasked: bool,
    /// Why it was ended although it ran: a failure, however it ends.
    pub unhealthy: Option<String>,
}

/// Of a start, when the service runs and its time to report that it is ready is over.
pub(super) const NOT_READY: &str = "it runs, but has not reported in its time that it is ready";

impl Life {
    pub(super) fn ready_by(&self) -> Option<Tick> {
        match self.readiness {
            Readiness::Awaited(by) => Some(by),
            Readiness::Undefined | Readiness::Overdue | Readiness::Reported(_) => None,
        }
    }

    pub(super) fn hook_by(&self) -> Option<Tick> {
        self.hook.and_then(|(_, until)| until)
    }

    /// For how long it ran, if it did.
    pub(super) fn ran(&self, now: Tick) -> Duration {
        self.up_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(super) fn main_is_gone(&self) -> bool {
        self.exit.is_some() || self.spawn_error.is_some()
    }
}
