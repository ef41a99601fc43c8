//! Containment: how a service's whole tree is held from before its first instruction until it is proved empty.
//!
//! One front for all rungs: [`Containment`] in `hold.rs`. What went in ([`IncarnationId`]) comes out
//! as [`Event`]s in a fixed order: either `SpawnFailed`, and then nothing of it is left; or `Spawned`, later
//! `MainExited`, and last `TreeEmpty`. `Degraded` may come at any time and changes nothing but what we may promise.
//!
//! A rung is three things: a probe, a mechanism that begins lives, and a handle of one life (`held.rs` has the two traits).
//! `ladder.rs` has the table of the rungs.
//!
//! Invariants: no process is signalled by number; no rung is dropped silently; an exit is final when it leaves the room.
//!
//! What may block, each time with a bound: `ladder::begin` and `probe`, [`Containment::open`], `adopt` and `end_predecessor`, which run
//! before the loop does; and of what the loop calls, `spawn` and `run_hook`, for one second where the fork server
//! was stopped (`spawner.rs`). Nothing here sleeps.

mod cgroup;
mod event;
mod flags;
mod held;
mod hold;
pub mod keeper;
pub mod ladder;
mod no_process;
mod oom;
mod orders;
#[cfg(test)]
pub mod played;
mod processes;
mod retry;
mod rung;
#[cfg(test)]
mod scenarios;
mod scopes;
mod spawner;
mod succession;

pub use cgroup::discover::own_pressure;
pub use cgroup::reclaim::Reclaim;
pub use event::{Event, HookError, SpawnError};
pub use flags::flags;
pub use hold::{Containment, Home};
pub use ladder::{Begun, ProbeError, Refusal, Report, Wish, begin, probe};
pub use processes::usage::{ProcessInfo, Stuck, Usage};
pub use processes::{MAIN_PID, children_of_ours};
pub use rung::Rung;
pub use scopes::{Member, ScopeError, ScopeInfo, ScopeLimits};
pub use succession::adopt::Gone;
pub use succession::predecessor::{EndError, Ended, Patience, Predecessor};
pub use succession::record::{AdoptionRecord, AdoptionRecords};

use crate::core::fingerprint::fingerprint;
use crate::core::name::ServiceName;
use std::fmt;

/// Bytes of a name that fit into a file name together with the number of a life (NAME_MAX is 255).
const LONGEST_NAME: usize = 200;

/// One life of one service. A supervisor never uses `n` twice for a name. One that takes over from a killed one may use the number of
/// a life again that this one had not written down: what was left of that life is ended before.
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
