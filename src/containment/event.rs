//! What the room has to say: events in the order in which they happened, and why something could not be begun.

use super::{IncarnationId, Rung};
use crate::containment::ladder::Refusal;
use crate::core::exit::{Exit, Shortage};
use crate::core::unit::ScopeName;
use crate::sys::spawn::plan::PlanError;
use std::collections::VecDeque;

/// What has happened to an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Exec succeeded.
    Spawned { id: IncarnationId, pid: i32 },
    /// It never ran, and nothing of it is left.
    SpawnFailed { id: IncarnationId, error: SpawnError },
    /// How the main process ended. Final: nothing that comes later changes it.
    MainExited { id: IncarnationId, exit: Exit },
    /// The tree is proved empty and the main process reaped. Call `release` next.
    TreeEmpty { id: IncarnationId },
    /// The OOM killer has killed a process of it; `kills` so far in this life. `main`: the main process among them.
    OomKilled { id: IncarnationId, kills: u64, main: bool, shortage: Shortage },
    /// The OOM killer has killed `kills` more processes of the container, of any service or of none. For the log: an exit that
    /// this explains says so itself. Only where a service is held without a cgroup of its own.
    ContainerOom { kills: u64 },
    /// The kernel holds its memory at `memory.high`: it reclaims, and slows down the process that asks for more. Said each time
    /// that the kernel says so, which can be often.
    MemoryHigh { id: IncarnationId },
    /// A hook of it has ended; `Err`: it was never executed, and why.
    HookEnded { id: IncarnationId, ended: Result<Exit, SpawnError> },
    /// Every process of it stands still now, as was ordered; or none is kept from running any more.
    Frozen { id: IncarnationId, frozen: bool },
    /// A scope of it is empty, by itself or on order. A scope that is there when the incarnation is released ends unsaid.
    ScopeEnded {
        id: IncarnationId,
        name: ScopeName,
        /// How many of its processes the OOM killer has killed.
        oom_kills: u64,
    },
    /// Something weaker than promised is in force now; for the log and `status`.
    Degraded { id: IncarnationId, text: String },
}

/// Events that nobody has taken yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct EventQueue(VecDeque<Event>);

impl EventQueue {
    pub fn push(&mut self, event: Event) {
        self.0.push_back(event);
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}

/// Why an incarnation never ran; a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The child told us which step failed.
    #[error("{words}")]
    Child { words: String, errno: i32 },
    #[error("killed before it could be executed")]
    Killed,
    #[error("cannot create {path}: {reason}")]
    Cgroup { path: String, reason: String },
    #[error("cannot make a process: {0}")]
    Clone(String),
    #[error("cannot start its keeper: {0}")]
    Keeper(String),
    #[error("containment '{0}' does not work here: {1}")]
    Rung(Rung, Refusal),
    #[error("'{0}' is still held: its last tree has not been released")]
    Busy(IncarnationId),
}

/// Why a hook does not run; the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the one before still runs")]
    Busy,
    #[error("its service is ending")]
    Ending,
    #[error("cannot make a process: {0}")]
    Clone(String),
    /// It was made by an earlier version of this program.
    #[error("its keeper is of an earlier version, which runs no programs: restart the service once")]
    OldKeeper,
    #[error("its keeper cannot be told: {0}")]
    Keeper(String),
}
