//! What a supervisor finds around it: `--world` of `bench/run`. One run of the harness is in one of them.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// See [`Ground::TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ground {
    #[default]
    Memory,
    Disk,
    OneProcessor,
    Child,
    /// Nothing here differs from [`Ground::Memory`]: `bench/run` has put `--work` on such a disk.
    SlowDisk,
    Container,
    WritableCgroups,
}

impl Ground {
    /// With the word for the command line and what the report says.
    pub const TABLE: [(Self, &'static str, &'static str); 7] = [
        (Self::Memory, "memory", "namespaces, `/run` in memory, state on the disk"),
        (Self::Disk, "disk", "`/run` and state on a disk on which thousands of files were just removed"),
        (Self::OneProcessor, "one-processor", "as memory, everything on one processor"),
        (Self::Child, "child", "as memory, not PID 1 but the child of another init"),
        (Self::SlowDisk, "slow-disk", "as memory, each flush of the disk takes 10 ms more"),
        (
            Self::Container,
            "container",
            "a plain container of the engine: overlay, default profile, read-only cgroups",
        ),
        (Self::WritableCgroups, "writable-cgroups", "the same with `--security-opt writable-cgroups=true`"),
    ];

    /// # Errors
    /// The words that there are.
    pub fn parse(word: &str) -> Result<Self, String> {
        let known = Self::TABLE.iter().find(|(_, name, _)| *name == word);
        known.map(|(ground, ..)| *ground).ok_or_else(|| {
            let names: Vec<&str> = Self::TABLE.iter().map(|(_, name, _)| *name).collect();
            format!("{word} is no world: there are {}", names.join(", "))
        })
    }

    pub fn describe(self) -> &'static str {
        Self::TABLE.iter().find(|(ground, ..)| *ground == self).map_or("", |(_, _, text)| text)
    }

    /// An engine makes its worlds.
    pub fn is_container(self) -> bool {
        matches!(self, Self::Container | Self::WritableCgroups)
    }

    /// Does `spawn`, whose children run on one processor where that is the world.
    ///
    /// # Errors
    /// Those of `spawn`, and of sched_setaffinity(2).
    pub fn spawning<T>(self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self != Self::OneProcessor {
            return spawn();
        }
        let all = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)) {
            one.set(first);
        }
        sched_setaffinity(None, &one)?;
        let spawned = spawn();
        sched_setaffinity(None, &all)?;
        spawned
    }
}
