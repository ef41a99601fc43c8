//! Everything that can happen to one service.

use super::clock::Tick;
use super::exit::Exit;
use super::gateway::{Gate, Restored};
use super::name::ServiceName;
use super::policy::{self, Policy};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// One request of one caller, so that every caller gets its own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// What an operator asks of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// `force` gives up on remains that cannot be killed.
    Start {
        force: bool,
    },
    Stop,
    Restart,
    /// Runs it now; the want stays as it is.
    Once,
    /// Stop for good: the service is forgotten, on disk first.
    Unregister,
}

impl Command {
    /// What an older command is told: this one has come since.
    pub fn overtaking(self) -> String {
        let verb = match self {
            Self::Start { .. } => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Once => "once",
            Self::Unregister => "unregister",
        };
        format!("overtaken by a newer '{verb}'")
    }
}

/// A numbered life of a service. Events of a life that was given up are ignored.
pub type Incarnation = u64;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// What the database and the definition say, once, before anything else.
    Boot(Restored),
    Command {
        ticket: Ticket,
        command: Command,
    },
    /// The caller has gone or was told that time is up: owe it nothing.
    Forget(Ticket),
    /// The write numbered `seq` is on disk.
    Recorded {
        seq: u64,
    },
    /// The write numbered `seq` failed.
    NotRecorded {
        seq: u64,
        reason: String,
    },
    /// exec succeeded.
    Spawned {
        incarnation: Incarnation,
        pid: i32,
    },
    /// The service says that it is ready.
    ReadyReported {
        incarnation: Incarnation,
    },
    /// It has more time for what it is doing: to be ready, or to end. Nothing is shortened by it.
    Extended {
        incarnation: Incarnation,
        by: Duration,
    },
    /// It runs and does not do its work: this life ends, and that is a failure.
    Unhealthy {
        incarnation: Incarnation,
        reason: String,
    },
    /// There will be no main process; `TreeEmpty` follows.
    SpawnFailed {
        incarnation: Incarnation,
        reason: String,
    },
    MainExited {
        incarnation: Incarnation,
        exit: Exit,
    },
    TreeEmpty {
        incarnation: Incarnation,
    },
    LogsDrained {
        incarnation: Incarnation,
    },
    /// The hook beside its main process has ended, or does not run.
    HookEnded {
        incarnation: Incarnation,
    },
    /// Time passed. Harmless when nothing is due.
    Time,
    /// It is time for the next run of a scheduled service.
    Due,
    /// Its definition was changed; a running process keeps what it was started with.
    Defined(#[serde(with = "policy::shared")] Arc<Policy>),
    /// What the services before it in the order allow.
    Gate(Gate),
    /// This service, which is wanted up, cannot do without it: it is kept up whatever its own want; `None`: no longer.
    Needed(Option<ServiceName>),
    /// It does more harm than good beside another service: it ends, and is given up for this reason.
    GiveUp {
        reason: String,
    },
    /// End by `deadline`; want stays as it is and nothing starts any more.
    Shutdown {
        deadline: Tick,
    },
    /// No more patience: kill what is left, now.
    KillNow,
}
