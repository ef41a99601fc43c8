//! What a tree uses and where it hangs, from /proc, for `status`. Never in the hot path.

use super::walk;

/// Figures of one incarnation. `None`: not known on this rung.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub procs: usize,
    pub memory_bytes: Option<u64>,
    pub memory_peak_bytes: Option<u64>,
    pub cpu_ms: Option<u64>,
    /// Bytes read and written.
    pub io: Option<(u64, u64)>,
    /// Of CPU, memory and I/O: the share of the last 10 s in which some of it waited, in percent.
    pub pressure: [Option<f64>; 3],
    /// Of this life.
    pub oom_kills: Option<u64>,
}

/// A process in uninterruptible sleep: what keeps a killed tree from ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub pid: i32,
    /// The kernel function it waits in, or empty where that is not shown.
    pub wchan: String,
}

/// Resident memory of all, in bytes: shared pages count once for each process.
pub fn resident(pids: &[i32]) -> u64 {
    let page = rustix::param::page_size() as u64;
    let one = |pid: &i32| -> Option<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    pids.iter().filter_map(one).sum::<u64>().saturating_mul(page)
}

/// User and system time of all and of the children they have reaped, in milliseconds.
pub fn cpu_ms(pids: &[i32]) -> u64 {
    let one = |pid: &i32| -> Option<u64> {
        let stat = procfs::process::Process::new(*pid).ok()?.stat().ok()?;
        let children = stat.cutime.saturating_add(stat.cstime).max(0).cast_unsigned();
        Some(stat.utime + stat.stime + children)
    };
    let ticks: u64 = pids.iter().filter_map(one).sum();
    ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1)
}

/// Those in state D.
pub fn stuck(pids: &[i32]) -> Vec<Stuck> {
    let in_d = pids.iter().copied().filter(|pid| walk::stat(*pid).is_some_and(|stat| stat.state == b'D'));
    in_d.map(|pid| {
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        Stuck { pid, wchan: if wchan == "0" { String::new() } else { wchan } }
    })
    .collect()
}
