//! The words of the control protocol, version 1: requests, the parts of an answer, and the status documents.
//!
//! A connection carries one request at a time: its answer is any number of parts and then [`Reply::End`] or
//! [`Reply::Refused`]. The documents here are also exactly what `--json` prints: every field is always present,
//! what is not known is null, times are RFC 3339 in UTC, durations whole milliseconds. A field may be added within
//! version 1; none may change its meaning or go away. No I/O, no policy.

mod events;
#[cfg(test)]
mod page;
mod replies;
mod requests;
#[cfg(test)]
pub(crate) mod samples;
mod status;
mod verbs;

pub use crate::core::words::{HealthState, State, Want};
pub use events::{Asker, Event, EventKind, Level};
pub use replies::{
    Audit, AuditDocument, Code, LogFile, LogPlace, Outcome, Part, Privileges, Process, Refusal, RefusalKind,
    Reply, ScopeStatus, Tree, TreesDocument,
};
pub use requests::{OomPolicy, Program, Registration, Request, SignalName, Targets, Until};
pub use status::{
    FirstStart, Health, Io, Kind, LastExit, Pressure, ResultsDocument, Schedule, ServiceStatus,
    StatusDocument, SupervisorStatus, Utc,
};
pub use verbs::{Answer, Deadline, FREEZE_TIMEOUT, Right, START_TIMEOUT, VERBS, Verb, methods};

/// Of the protocol and of every `--json` document.
pub const VERSION: u32 = 1;

/// Most names in one request. Bounds the work that one frame can ask for; `all` is not limited.
pub const MAX_NAMES: usize = 1024;
