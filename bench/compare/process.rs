//! What /proc says about the processes of a world: memory, wakeups, processor time. Read from outside.

use std::path::Path;

/// The processes of a supervisor, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub processes: usize,
    /// Bytes, proportional shares of what is shared.
    pub pss: u64,
    /// Bytes that only this process has and that the kernel cannot read again from a file: its `Private_Dirty`.
    pub private_dirty: u64,
    /// Times that some thread was put on a processor again after it had waited.
    pub wakeups: u64,
    /// On a processor, ns.
    pub cpu: u64,
}

/// The pids in `cgroup` and below, as seen outside.
pub fn pids(cgroup: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(self::pids(&entry.path()));
        }
    }
    pids
}

/// Runs the test service, in whatever mode, so it is no part of the supervision.
pub fn is_ours(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.ends_with("bench/service"))
}

/// Its pid in the world's pid namespace, the next one below ours.
pub fn inner_pid(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// There, and no zombie. The state follows the last ')' of the line, as a name may hold anything (proc_pid_stat(5)).
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z") && !rest.starts_with(" X"))
}

/// The processes of the world that supervise.
pub fn supervision(cgroup: &Path) -> Vec<i32> {
    pids(cgroup).into_iter().filter(|pid| !is_ours(*pid)).collect()
}

pub fn memory(pids: &[i32]) -> Usage {
    let mut usage = Usage { processes: pids.len(), ..Usage::default() };
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
                })
                .unwrap_or(0)
                * 1024
        };
        usage.pss += value("Pss:");
        usage.private_dirty += value("Private_Dirty:");
    }
    usage
}

/// Wakeups and processor time of all threads so far.
pub fn activity(pids: &[i32]) -> Usage {
    let mut usage = Usage { processes: pids.len(), ..Usage::default() };
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.wakeups += switches.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
            // On the processor, ns; waiting for it, ns; times it got one (Documentation/scheduler/sched-stats.rst).
            let schedule = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            usage.cpu += schedule.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    usage
}
