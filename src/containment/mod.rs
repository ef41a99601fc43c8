//! Containment: how a service's whole tree is held from before its first instruction until it is proved empty.
//!
//! One file a rung below, one front for all: [`Containment`] in `hold.rs`. What went in ([`IncarnationId`]) comes out
//! as [`Event`]s in a fixed order: either `SpawnFailed`, and then nothing of it is left; or `Spawned`, later
//! `MainExited`, and last `TreeEmpty`. `Degraded` may come at any time and changes nothing but what we may promise.
//!
//! Invariants: no process is signalled by number; no rung is dropped silently; nothing here blocks or sleeps, except
//! `ladder::probe` and `predecessor::end`, which run before the loop does.

mod adopt;
mod cgroup;
mod forks;
mod hold;
mod hooks;
pub mod keeper;
pub mod ladder;
mod losses;
mod predecessor;
mod raise;
mod retry;
mod roster;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod scope_scenarios;
mod scopes;
mod tracers;
mod usage;
mod walk;

pub use adopt::Gone;
pub use cgroup::scope::ScopeLimits;
pub use hold::{Containment, Home};
pub use hooks::HookError;
pub use ladder::{Report, Wish, probe};
pub use predecessor::{Clock as Patience, Ended, Predecessor};
pub use raise::flags;
pub use roster::{Roster, Vouched};
pub use scopes::{Member, ScopeError, ScopeInfo};
pub use usage::{ProcessInfo, Stuck, Usage};

use crate::core::exit::Exit;
use crate::core::fingerprint::fingerprint;
use crate::core::name::ServiceName;
use crate::core::unit::ScopeName;
use crate::sys::spawn::plan::PlanError;
use std::fmt;

/// Bytes of a name that fit into a file name together with the number of a life (NAME_MAX is 255).
const LONGEST_NAME: usize = 200;

/// One life of one service. `n` is never used twice for a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IncarnationId {
    pub name: ServiceName,
    pub n: u64,
}

/// As a file name.
impl fmt::Display for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_str();
        if name.len() <= LONGEST_NAME {
            return write!(f, "{name}.{}", self.n);
        }
        let head = (0..LONGEST_NAME - 16).rev().find_map(|end| name.get(..end)).unwrap_or_default();
        write!(f, "{head}-{:016x}.{}", fingerprint([name]), self.n)
    }
}

/// The rungs of the ladder, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    Cgroup,
    CgroupPrivate,
    Pidns,
    Keeper,
    KeeperSameUid,
}

impl Rung {
    pub const ALL: [Self; 5] =
        [Self::Cgroup, Self::CgroupPrivate, Self::Pidns, Self::Keeper, Self::KeeperSameUid];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::CgroupPrivate => "cgroup-private",
            Self::Pidns => "pidns",
            Self::Keeper => "keeper",
            Self::KeeperSameUid => "keeper-same-uid",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == text)
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What has happened to an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Exec succeeded.
    Spawned { id: IncarnationId, pid: i32 },
    /// It never ran, and nothing of it is left.
    SpawnFailed { id: IncarnationId, error: SpawnError },
    /// `exit` is [`Exit::MaybeOom`] for a SIGKILL that was not ours, of what has no cgroup of its own.
    MainExited { id: IncarnationId, exit: Exit },
    /// Proved empty, main process reaped. Call `release` next.
    TreeEmpty { id: IncarnationId },
    /// The kernel has killed one of it for want of memory; `kills` so far in this life. `main`: the main process among them.
    OomKilled { id: IncarnationId, kills: u64, main: bool },
    /// The kernel has killed so many processes more of the container for want of memory, whosever they are. Only told of where
    /// services are held without a cgroup of their own, and ahead of a `MainExited` that may be one of them.
    Losses { kills: u64 },
    /// The kernel holds its memory at `memory.high`: it reclaims, and slows down who asks for more. Said each time that the
    /// kernel says so, which can be often.
    MemoryHigh { id: IncarnationId },
    /// A hook of it has ended; `Err`: it was never executed, and why.
    HookEnded { id: IncarnationId, ended: Result<Exit, String> },
    /// Every process of it stands still now, as was ordered; or none is kept from running any more.
    Frozen { id: IncarnationId, frozen: bool },
    /// A scope of it is empty, by itself or on order. One that is there when the incarnation is released ends unsaid.
    ScopeEnded {
        id: IncarnationId,
        name: ScopeName,
        /// How many of it the kernel killed for want of memory.
        oom_kills: u64,
    },
    /// Something weaker than promised is in force now; for the log and `status`.
    Degraded { id: IncarnationId, text: String },
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
    Rung(Rung, String),
    #[error("'{0}' is still held: its last tree has not been released")]
    Busy(IncarnationId),
}

/// The children of this process, once every incarnation was released: they belong to nobody.
pub fn children_of_ours() -> Vec<i32> {
    walk::children(rustix::process::getpid().as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_stay_file_names_and_apart() {
        let of =
            |text: &str| IncarnationId { name: ServiceName::of_slot(text).unwrap(), n: u64::MAX }.to_string();
        let (one, other) = (of(&"ä".repeat(125)), of(&format!("{}b", "ä".repeat(125))));
        assert!(one.len() <= 255 && other.len() <= 255, "{one}");
        assert_ne!(one, other);
        assert_eq!(of("coder"), format!("coder.{}", u64::MAX));
    }
}
