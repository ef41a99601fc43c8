//! What a supervisor uses while no service is up: what has to be the same after an hour as after a minute.

use super::harness::{Supervisor, World, process};
use std::fmt;
use std::path::{Path, PathBuf};

/// Each with its name, how much more than at first is no growth, and its unit.
const KINDS: [(&str, u64, &str); 8] = [
    // With the last thousand events, and what an allocator keeps for another time.
    ("memory", 2048, " kB"),
    ("memory of the fork server", 512, " kB"),
    ("descriptors", 3, ""),
    ("threads", 2, ""),
    ("cgroups", 0, ""),
    ("processes", 0, ""),
    ("files of the runtime directory", 4, ""),
    ("files beside the state", 4, ""),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures(pub [u64; KINDS.len()]);

impl Figures {
    /// `besides`: processes of the world that are ours.
    pub fn of(world: &World, supervisor: &Supervisor, besides: usize) -> Self {
        let pid = supervisor.pid();
        let all = world.processes(supervisor);
        let is_server =
            |pid: &i32| process::status(*pid, "Name").is_some_and(|name| name == "hermes-fork-srv");
        let server = all.iter().map(|process| process.outer).find(is_server);
        let threads = process::status(pid, "Threads").and_then(|text| text.parse().ok());
        let runtime = ["/run/hermes-sup", "/dev/shm"].map(|dir| files(&world.path(dir)));
        Self([
            process::anonymous_kb(pid),
            server.map_or(0, process::anonymous_kb),
            process::descriptors_but_of_logs(pid) as u64,
            threads.unwrap_or(0),
            cgroups(world).len() as u64,
            (all.len() - besides.min(all.len())) as u64,
            runtime.iter().sum(),
            files(&world.path("/opt/data/supervisor")),
        ])
    }

    /// No directory of a life is left. What there is of the supervisor's own depends on the rung.
    pub fn is_tidy(self) -> bool {
        self.0[4] <= 2
    }

    /// The larger of each.
    pub fn or_more(self, other: Self) -> Self {
        let mut both = self.0;
        both.iter_mut().zip(other.0).for_each(|(one, other)| *one = (*one).max(other));
        Self(both)
    }

    /// A line for each that is more than it was at most in `first`. `caches`: so many kB of memory may be for what was not full then.
    pub fn grown_since(self, first: Self, caches: u64) -> Vec<String> {
        let all = KINDS.iter().zip(first.0.iter().zip(self.0));
        let more = |name: &str| if name == KINDS[0].0 { caches } else { 0 };
        let grown = all.filter(|((name, slack, _), (first, now))| *now > **first + slack + more(name));
        grown
            .map(|((name, _, unit), (first, now))| {
                format!("{name} grow: {first}{unit} at first, now {now}{unit}")
            })
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((name, _, unit), now)) in KINDS.iter().zip(self.0).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{now}{unit} {name}")?;
        }
        Ok(())
    }
}

/// Directories of the supervisor's below the cgroup of the world.
pub fn cgroups(world: &World) -> Vec<PathBuf> {
    world.cgroups()
}

/// Whatever lies in a directory, and below.
fn files(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        1 + if is_dir { files(&entry.path()) } else { 0 }
    };
    entries.map(count).sum()
}
