//! What is read of a cgroup for people, through cgroups-rs.
//!
//! The crate's own hierarchies are not used: `auto()` picks v1 on a hybrid host, `V2` has its mount point hard-coded
//! and leaves files there. Ours is only where we tell it. Memory is read directly, because the crate answers 0 for
//! what it could not read.

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::{Cgroup, Hierarchy, Subsystem};
use std::path::{Path, PathBuf};

/// The part of the hierarchy that the supervisor owns.
#[derive(Debug, Clone)]
struct Owned(PathBuf);

impl Hierarchy for Owned {
    fn subsystems(&self) -> Vec<Subsystem> {
        // `cpu.stat` is there without the controller too (cgroup-v2.rst, "CPU Interface Files").
        vec![Subsystem::Cpu(CpuController::new(self.0.clone(), PathBuf::new(), true))]
    }

    fn root(&self) -> PathBuf {
        self.0.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    fn parent_control_group(&self, path: &str) -> Cgroup {
        let parent = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
        Cgroup::load(Box::new(self.clone()), parent)
    }

    fn v2(&self) -> bool {
        true
    }
}

/// CPU time of everything that ever ran below, in milliseconds.
pub fn cpu_ms(tree: &Path, leaf: &str) -> Option<u64> {
    let cgroup = Cgroup::load(Box::new(Owned(tree.to_owned())), leaf);
    let stat = cgroup.controller_of::<CpuController>()?.cpu().stat;
    let micros: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
    Some(micros / 1000)
}

/// `memory.current` and `memory.peak` in bytes; `None` without the controller, the peak also before kernel 5.19.
pub fn memory(tree: &Path, leaf: &str) -> (Option<u64>, Option<u64>) {
    let read = |file: &str| -> Option<u64> {
        std::fs::read_to_string(tree.join(leaf).join(file)).ok()?.trim().parse().ok()
    };
    (read("memory.current"), read("memory.peak"))
}
