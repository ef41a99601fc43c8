//! What a tree uses and where it hangs, from /proc, for `status`. Never in the hot path.

use super::keeper::tags;
use super::tracers::Traced;
use super::walk;
use crate::core::unit::ScopeName;
use crate::sys::kernel_text;
use std::fmt;

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
pub enum Stuck {
    /// In state D.
    InKernel {
        pid: i32,
        /// The kernel function it waits in, or empty where that is not shown.
        wchan: String,
    },
    /// A process outside the tree does not let it go.
    Traced(Traced),
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InKernel { pid, wchan } if wchan.is_empty() => write!(f, "pid {pid} hangs in the kernel"),
            Self::InKernel { pid, wchan } => write!(f, "pid {pid} hangs in the kernel ({wchan})"),
            Self::Traced(traced) => traced.fmt(f),
        }
    }
}

/// One process of a tree, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: i32,
    pub parent: i32,
    pub started: u64,
    pub uid: u32,
    /// As in proc_pid_stat(5).
    pub state: u8,
    /// In bytes, shared pages included.
    pub resident: u64,
    /// The arguments with spaces between them, or the name in brackets.
    pub command: String,
    pub scope: Option<ScopeName>,
}

/// `None` when it is gone, or hidden from us.
pub fn describe(pid: i32, scope: Option<ScopeName>) -> Option<ProcessInfo> {
    /// More than is ever shown.
    const MOST: u64 = 4096;
    let stat = walk::stat(pid)?;
    let mut line = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST), &mut line).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let mut command = words.join(" ").trim_end().to_owned();
    if command.is_empty() {
        let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        command = format!("[{}]", String::from_utf8_lossy(&name).trim_end());
    }
    Some(ProcessInfo {
        pid,
        parent: stat.parent,
        started: stat.started,
        uid: tags::uid_of(pid)?,
        state: stat.state,
        resident: resident(&[pid]),
        command,
        scope,
    })
}

/// Resident memory of all, in bytes: shared pages count once for each process.
pub fn resident(pids: &[i32]) -> u64 {
    let page = rustix::param::page_size() as u64;
    let one = |pid: &i32| -> Option<u64> {
        let statm = kernel_text::read(&format!("/proc/{pid}/statm")).ok()?;
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
        Stuck::InKernel { pid, wchan: if wchan == "0" { String::new() } else { wchan } }
    })
    .collect()
}
