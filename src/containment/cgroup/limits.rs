//! Limits of one incarnation, in the files of its directory `<name>.<n>`, and what the kernel did because of them.
//!
//! Written before anything can be in it, again whenever one is set, and only ever below the instance's own
//! directory. A limit that cannot be put into force is told with its reason and hinders nothing: the service starts.
//!
//! `pids.max` and `cpu.max` through cgroups-rs. By hand: `memory.max` and `memory.high`, which must not block (`leaf::write`);
//! `io.weight`, for which the crate writes `io.bfq.weight`; `memory.swap.max`, `memory.oom.group` and `cpu.weight`, where a missing
//! file has to be told from a refusal, while the crate opens every file as if to create it.

use super::leaf::{kernel_error, read, write};
use super::tree::Tree;
use crate::core::limits::{Enforcer, Key, Limits, NotInForce, Oom, Value};
use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::pid::PidController;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// Puts limits into force in the directory `leaf`, as far as the controllers that are handed down to it allow; returns those
/// that are not.
pub fn apply(tree: &Tree, leaf: &str, limits: &Limits) -> Vec<NotInForce> {
    let one = |(key, value): (Key, Value)| {
        let Enforcer::Controller(controller) = key.enforcer() else { return None };
        let why = if !tree.controllers.contains(&controller) {
            let because = tree.refused.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("its cgroup has no {controller} controller{because}")
        } else {
            let error = put(tree, leaf, key, value).err()?;
            format!("{}: {}", file(key), words(&error))
        };
        Some(NotInForce { key, value, why })
    };
    limits.iter().filter_map(one).collect()
}

fn put(tree: &Tree, leaf: &str, key: Key, value: Value) -> io::Result<()> {
    let dir = || tree.path().join(leaf);
    let done = match (key, value) {
        (Key::PidsMax, Value::Max) => pids(dir(), MaxValue::Max),
        (Key::PidsMax, Value::Amount(most)) => pids(dir(), MaxValue::Value(most.cast_signed())),
        (Key::CpuMax, Value::Cpu { quota, period }) => {
            let cpu = CpuController::new(dir(), PathBuf::new(), true);
            cpu.set_cfs_quota_and_period(Some(quota.cast_signed()), Some(period))
        }
        _ => return write(tree.as_fd(), &format!("{leaf}/{}", file(key)), &content(value)),
    };
    done.map_err(|error| kernel_error(&error))
}

fn pids(dir: PathBuf, most: MaxValue) -> cgroups_rs::fs::error::Result<()> {
    PidController::new(dir, PathBuf::new(), true).set_pid_max(most)
}

fn words(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "this kernel has no such file".to_owned(),
        _ => error.to_string(),
    }
}

/// The file of a key (cgroup-v2.rst). Those that the process itself bears have none.
fn file(key: Key) -> &'static str {
    match key {
        Key::MemoryMax => "memory.max",
        Key::MemoryHigh => "memory.high",
        Key::SwapMax => "memory.swap.max",
        Key::PidsMax => "pids.max",
        Key::CpuMax => "cpu.max",
        Key::CpuWeight => "cpu.weight",
        Key::IoWeight => "io.weight",
        Key::Oom => "memory.oom.group",
        Key::Nofile | Key::Nproc | Key::Core | Key::OomScoreAdj => "",
    }
}

fn content(value: Value) -> String {
    match value {
        Value::Max => "max".to_owned(),
        Value::Amount(amount) => amount.to_string(),
        Value::Cpu { quota, period } => format!("{quota} {period}"),
        Value::Oom(Oom::Service) => "1".to_owned(),
        Value::Oom(Oom::Process) => "0".to_owned(),
        Value::Adjustment(adjustment) => adjustment.to_string(),
    }
}

/// What the memory controller has counted for `leaf` itself, its scopes not counted: these have bounds of their own, and
/// their end tells of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Processes that the OOM killer has killed.
    pub kills: u64,
    /// How often it held the memory at `memory.high`.
    pub high: u64,
    /// How often its memory was at `memory.max` and could not be made less, and the kernel looked for one to kill.
    pub at_max: u64,
}

/// Reads them (`memory.events.local`, kernel 5.2; before that scopes count too).
///
/// A kill counts where its victim is charged, which is `main` once memory is handed down for a scope and `leaf` before;
/// `high` and `oom` count where the bound is, which is `leaf`; `oom` before the kill (mm/memcontrol.c, `mem_cgroup_oom`).
pub fn memory_events(tree: BorrowedFd<'_>, leaf: &str) -> MemoryEvents {
    let text = |file: &str| read(tree, &format!("{leaf}/{file}"));
    let count = |text: &str, key: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
    };
    let (own, handed_down) = match text("memory.events.local") {
        Ok(own) => (own, text("main/memory.events").unwrap_or_default()),
        Err(_) => (text("memory.events").unwrap_or_default(), String::new()),
    };
    let kills = |text: &str| count(text, "oom_kill ");
    MemoryEvents {
        kills: kills(&own) + kills(&handed_down),
        high: count(&own, "high "),
        at_max: count(&own, "oom "),
    }
}

/// How often the kernel refused `leaf` a process or thread because of `pids.max`. Counted where the bound is, and before kernel
/// 6.11 where the fork was, which is `main` once the controller is handed down for a scope.
pub fn pids_refused(tree: BorrowedFd<'_>, leaf: &str) -> u64 {
    let count = |file: &str| -> Option<u64> {
        let text = read(tree, &format!("{leaf}/{file}")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok())
    };
    count("pids.events").max(count("main/pids.events")).unwrap_or(0)
}

/// `memory.max` of `leaf` in bytes; `None`: there is none.
pub fn memory_max(tree: BorrowedFd<'_>, leaf: &str) -> Option<u64> {
    read(tree, &format!("{leaf}/memory.max")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containment::cgroup::tree::NoController;

    /// A plain directory in the place of cgroup2: what is written where.
    fn pretend(files: &[&str]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("svc.1/main")).unwrap();
        for file in files {
            // As the kernel has it where nothing was set.
            let text = if *file == "cpu.max" { "max 100000\n" } else { "" };
            std::fs::write(dir.path().join("svc.1").join(file), text).unwrap();
        }
        let tree = Tree::pretend(dir.path());
        (dir, tree)
    }

    fn limits() -> Limits {
        [
            (Key::MemoryMax, "512M"),
            (Key::MemoryHigh, "max"),
            (Key::SwapMax, "0"),
            (Key::PidsMax, "64"),
            (Key::CpuMax, "150%"),
            (Key::CpuWeight, "50"),
            (Key::IoWeight, "200"),
            (Key::Oom, "service"),
            (Key::Nofile, "64"),
            (Key::OomScoreAdj, "500"),
        ]
        .map(|(key, text)| (key, key.parse(text).unwrap()))
        .into_iter()
        .collect()
    }

    const ALL: [&str; 4] = ["memory", "pids", "cpu", "io"];

    #[test]
    fn each_key_is_written_in_the_kernels_words_and_what_processes_bear_nowhere() {
        let files = [
            ("memory.max", "536870912"),
            ("memory.high", "max"),
            ("memory.swap.max", "0"),
            ("pids.max", "64"),
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "50"),
            ("io.weight", "200"),
            ("memory.oom.group", "1"),
        ];
        let (dir, mut tree) = pretend(&files.map(|(file, _)| file));
        tree.controllers = ALL.to_vec();
        assert_eq!(apply(&tree, "svc.1", &limits()), []);
        for (file, expected) in files {
            assert_eq!(
                std::fs::read_to_string(dir.path().join("svc.1").join(file)).unwrap(),
                expected,
                "{file}"
            );
        }
        let there = std::fs::read_dir(dir.path().join("svc.1")).unwrap().count();
        assert_eq!(there, files.len() + 1, "no other file was made");
    }

    #[test]
    fn what_is_not_in_force_is_named_with_its_reason() {
        let (_dir, mut tree) = pretend(&["pids.max", "cpu.max"]);
        let said = |tree: &Tree| -> Vec<String> {
            apply(tree, "svc.1", &limits()).iter().map(ToString::to_string).collect()
        };
        tree.controllers = vec!["pids"];
        let reason = "Device or resource busy".to_owned();
        tree.refused = Some(NoController::Refused { controller: "memory", reason });
        let without = said(&tree);
        assert_eq!(without.len(), 7, "{without:?}");
        assert_eq!(
            without[0],
            "memory_max=512M is not in force: its cgroup has no memory controller (memory: Device or resource busy)"
        );
        tree.controllers = ALL.to_vec();
        let without = said(&tree);
        assert!(
            without.contains(
                &"io_weight=200 is not in force: io.weight: this kernel has no such file".to_owned()
            )
        );
    }

    /// Why a weight of I/O is written by hand: the crate writes another file, and makes it where it is missing.
    #[test]
    fn the_crate_has_another_file_for_the_weight_of_io() {
        use cgroups_rs::fs::blkio::BlkIoController;
        let (dir, _tree) = pretend(&["io.weight"]);
        let dir = dir.path().join("svc.1");
        BlkIoController::new(dir.clone(), PathBuf::new(), true).set_weight(200).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("io.weight")).unwrap(), "", "the crate writes it now");
        assert_eq!(std::fs::read_to_string(dir.join("io.bfq.weight")).unwrap(), "200");
    }

    #[test]
    fn kills_in_scopes_are_not_those_of_the_service() {
        let (dir, tree) = pretend(&["memory.events", "memory.events.local", "main/memory.events"]);
        let write =
            |file: &str, text: &str| std::fs::write(dir.path().join("svc.1").join(file), text).unwrap();
        write("memory.events", "oom 9\noom_kill 9\n");
        write("memory.events.local", "high 7\noom 1\noom_kill 1\noom_group_kill 0\n");
        let counted = || memory_events(tree.as_fd(), "svc.1");
        assert_eq!(counted(), MemoryEvents { kills: 1, high: 7, at_max: 1 });
        write("main/memory.events", "high 5\noom 2\noom_kill 2\n");
        assert_eq!(counted(), MemoryEvents { kills: 3, high: 7, at_max: 1 });
        std::fs::remove_file(dir.path().join("svc.1/memory.events.local")).unwrap();
        assert_eq!(counted(), MemoryEvents { kills: 9, high: 0, at_max: 9 });
        assert_eq!(memory_events(tree.as_fd(), "none"), MemoryEvents::default());
    }

    #[test]
    fn refused_processes_are_counted_at_the_bound_or_at_the_fork() {
        let (dir, tree) = pretend(&["pids.events"]);
        let refused = || pids_refused(tree.as_fd(), "svc.1");
        assert_eq!(refused(), 0, "without the controller, or nothing was refused");
        std::fs::write(dir.path().join("svc.1/pids.events"), "max 0\n").unwrap();
        std::fs::write(dir.path().join("svc.1/main/pids.events"), "max 3\n").unwrap();
        assert_eq!(refused(), 3);
    }

    #[test]
    fn the_limit_in_force_is_read_where_there_is_one() {
        let (dir, tree) = pretend(&[]);
        for (text, bytes) in [("536870912\n", Some(512 << 20)), ("max\n", None)] {
            std::fs::write(dir.path().join("svc.1/memory.max"), text).unwrap();
            assert_eq!(memory_max(tree.as_fd(), "svc.1"), bytes);
        }
        assert_eq!(memory_max(tree.as_fd(), "none"), None);
    }
}
