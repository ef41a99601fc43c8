//! What /proc says of processes: `walk.rs` follows trees and ends them, `leader.rs` ends a part of one, `usage.rs` shows them to
//! people, `tracers.rs` finds the processes that keep others from ending. Here: by what a process is known.

pub(super) mod leader;
pub(super) mod tracers;
pub(super) mod usage;
pub(super) mod walk;

use super::IncarnationId;
use procfs::process::{Process, Status};

/// The environment variable that names an incarnation to those who may read it; the tag of the rung without tags.
pub(super) const MARKER: &str = "HERMES_SUP_INCARNATION";

/// Where a program beside the main process, or after it, finds the number of that.
pub const MAIN_PID: &str = "HERMES_SUP_MAIN_PID";

/// `<instance>:<name>.<n>`
pub(super) fn marker(instance: &str, id: &IncarnationId) -> String {
    format!("{instance}:{id}")
}

fn status(pid: i32) -> Option<Status> {
    Process::new(pid).ok()?.status().ok()
}

/// The supplementary groups of a process, readable for everyone (proc_pid_status(5)); empty when it is gone.
pub(super) fn groups_of(pid: i32) -> Vec<u32> {
    status(pid).map(|status| status.groups).unwrap_or_default()
}

/// Its real uid.
pub(super) fn uid_of(pid: i32) -> Option<u32> {
    status(pid).map(|status| status.ruid)
}

/// Whether it is the first process of a PID namespace below ours.
pub(super) fn is_init(pid: i32) -> bool {
    let numbers = status(pid).and_then(|status| status.nspid).unwrap_or_default();
    matches!(numbers.as_slice(), [_, .., 1])
}

/// The marker of a process; `None` when it has none or we may not look.
pub(super) fn marker_of(pid: i32) -> Option<String> {
    let mut environment = Process::new(pid).ok()?.environ().ok()?;
    environment.remove(std::ffi::OsStr::new(MARKER))?.into_string().ok()
}

/// The path of its cgroup of version 2.
pub(super) fn cgroup_of(pid: i32) -> Option<String> {
    let cgroups = Process::new(pid).ok()?.cgroups().ok()?;
    cgroups.into_iter().find(|one| one.hierarchy == 0 && one.controllers.is_empty()).map(|one| one.pathname)
}

/// The children of this process, once every incarnation was released: they belong to no life.
pub fn children_of_ours() -> Vec<i32> {
    #[cfg(test)]
    if let Some(played) = crate::sys::reap::played::children() {
        return played;
    }
    walk::children(std::process::id().cast_signed())
}
