//! What has been measured: every value of every cell, kept as it was taken.

use std::collections::BTreeMap;

/// A figure of the comparison.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    /// What stands beside it as this machine's floor; empty for none.
    pub floor: &'static str,
}

const fn row(name: &'static str, title: &'static str, unit: &'static str, floor: &'static str) -> Row {
    Row { name, title, unit, floor }
}

/// In the order of the report.
pub const ROWS: [Row; 28] = [
    row("crash", "crash → new process runs", "ms", "clone + exec + wait of the same program"),
    row(
        "crash-one",
        "crash of one of N services → new process runs",
        "ms",
        "clone + exec + wait of the same program",
    ),
    row(
        "crash-heavy",
        "the same of a service with 300 MiB and 40 children",
        "ms",
        "clone + exec + wait of the same program",
    ),
    row("boot", "boot: launch → all N services run", "ms", "a loop of fork + exec"),
    row("stop", "shutdown: signal → everything ended", "ms", "kill(-1) + reap"),
    row("restart", "boot after `docker restart`: launch → all N services run", "ms", ""),
    row("restart-10", "the same after the tenth", "ms", ""),
    row("private", "private memory of supervision", "MB", ""),
    row("pss", "the same with its share of mapped files, PSS", "MB", ""),
    row("processes", "processes of supervision", "", ""),
    row("wakeups", "wakeups of supervision, idle, per minute", "", ""),
    row("idle-cpu", "processor time of supervision, idle, per minute", "ms", ""),
    row("status", "status of one of N services, whole command", "ms", "clone + exec + wait"),
    row("command-stop", "stop of one of N services, whole command", "ms", "write + fdatasync of 4 KiB"),
    row("command-start", "start of one of N services, whole command", "ms", "write + fdatasync of 4 KiB"),
    row("status-all", "status of all N services, whole command", "ms", ""),
    row("stop-all", "stop of all N services, whole command", "ms", "kill(-1) + reap"),
    row("start-all", "start of all N services, whole command", "ms", "a loop of fork + exec"),
    row("tree", "stop of a hostile tree of N: first kill → answered", "ms", "cgroup.kill + reap"),
    row("survivors", "processes of that tree alive after the answer", "", ""),
    row("reap", "orphans reaped as PID 1, per second", "1/s", "a loop of waitpid"),
    row("log", "one service's output into rotated files with times", "MB/s", "a reader that throws it away"),
    row("log-cpu", "processor time of supervision for that", "ns/byte", "a reader that throws it away"),
    row("lost", "lines of that output that are not in the files after a shutdown", "", ""),
    row("container-start", "docker run → the service runs", "ms", "no first process"),
    row("container-stop", "docker stop → exited", "ms", "docker stop --time 0"),
    row("gateway-start", "docker run → the Hermes gateway runs", "ms", ""),
    row("gateway-stop", "docker stop → its container has exited", "ms", ""),
];

pub const FLOOR: &str = "floor";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub row: &'static str,
    /// 0 where the row has no sizes.
    pub size: usize,
    pub peer: &'static str,
}

#[derive(Debug, Default)]
pub struct Results {
    pub cells: BTreeMap<Key, Vec<f64>>,
    /// Why a cell is empty, or what is to be known about it.
    pub notes: BTreeMap<Key, String>,
}

impl Results {
    pub fn add(&mut self, row: &'static str, size: usize, peer: &'static str, value: f64) {
        self.cells.entry(Key { row, size, peer }).or_default().push(value);
    }

    pub fn note(&mut self, row: &'static str, size: usize, peer: &'static str, note: impl Into<String>) {
        self.notes.insert(Key { row, size, peer }, note.into());
    }

    pub fn values(&self, row: &'static str, size: usize, peer: &'static str) -> &[f64] {
        self.cells.get(&Key { row, size, peer }).map_or(&[], Vec::as_slice)
    }

    pub fn sizes(&self, row: &str) -> Vec<usize> {
        let mut sizes: Vec<usize> = self
            .cells
            .keys()
            .chain(self.notes.keys())
            .filter(|key| key.row == row)
            .map(|key| key.size)
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}
