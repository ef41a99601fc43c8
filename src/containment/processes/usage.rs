//! What a tree uses and where it hangs, from /proc, for `status` and `tree`.

use super::tracers::Traced;
use crate::containment::IncarnationId;
use crate::containment::hold::Containment;
use crate::core::unit::ScopeName;
use crate::sys::kernel_text;
use procfs::WithCurrentSystemInfo;
use procfs::process::{Process, Stat};
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

/// A process that keeps a killed tree from ending.
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
fn describe(pid: i32, scope: Option<ScopeName>) -> Option<ProcessInfo> {
    let process = Process::new(pid).ok()?;
    let (stat, status) = (process.stat().ok()?, process.status().ok()?);
    Some(ProcessInfo {
        pid,
        parent: stat.ppid,
        started: stat.starttime,
        uid: status.ruid,
        state: u8::try_from(stat.state).unwrap_or(b'?'),
        resident: stat.rss_bytes().get(),
        command: command(pid).unwrap_or_else(|| format!("[{}]", stat.comm)),
        scope,
    })
}

/// The arguments with spaces between them. By hand: the crate's `cmdline` shows nothing where one is not UTF-8, and reads
/// all of them, which a service can make megabytes.
fn command(pid: i32) -> Option<String> {
    /// More than is ever shown.
    const MOST: u64 = 4096;
    let mut line = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST), &mut line).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command = words.join(" ").trim_end().to_owned();
    (!command.is_empty()).then_some(command)
}

/// Resident memory of all, in bytes: shared pages count once for each process. By hand: `status` reads it of every process of
/// every service, and the crate opens two files for each.
pub fn resident(pids: &[i32]) -> u64 {
    let page = rustix::param::page_size() as u64;
    let one = |pid: &i32| -> Option<u64> {
        let statm = kernel_text::read(&format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    pids.iter().filter_map(one).sum::<u64>().saturating_mul(page)
}

fn stat(pid: i32) -> Option<Stat> {
    Process::new(pid).ok()?.stat().ok()
}

/// User and system time of all and of the children they have reaped, in milliseconds.
pub fn cpu_ms(pids: &[i32]) -> u64 {
    let one = |pid: &i32| -> Option<u64> {
        let stat = stat(*pid)?;
        let children = stat.cutime.saturating_add(stat.cstime).max(0).cast_unsigned();
        Some(stat.utime + stat.stime + children)
    };
    let ticks: u64 = pids.iter().filter_map(one).sum();
    ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1)
}

/// Those in state D.
fn in_kernel(pid: i32) -> Option<Stuck> {
    let process = Process::new(pid).ok()?;
    if process.stat().ok()?.state != 'D' {
        return None;
    }
    let wchan = process.wchan().unwrap_or_default();
    Some(Stuck::InKernel { pid, wchan: if wchan == "0" { String::new() } else { wchan } })
}

impl Containment {
    /// The live processes of the tree.
    pub fn processes(&self, id: &IncarnationId) -> Vec<i32> {
        self.held(id).map(|held| held.processes()).unwrap_or_default()
    }

    /// The processes of the tree with what /proc says of each, `most` at most; and how many were not looked at.
    pub fn members(&self, id: &IncarnationId, most: usize) -> (Vec<ProcessInfo>, usize) {
        let pids = self.processes(id);
        let mut scopes = self.scopes_of(id);
        let left_out = pids.len().saturating_sub(most);
        let members = pids.into_iter().take(most).filter_map(|pid| describe(pid, scopes.remove(&pid)));
        (members.collect(), left_out)
    }

    /// Those of the tree that hang in the kernel or are held by a tracer: why a killed tree does not end.
    pub fn stuck(&self, id: &IncarnationId) -> Vec<Stuck> {
        let mut stuck: Vec<Stuck> = self.processes(id).into_iter().filter_map(in_kernel).collect();
        stuck.extend(self.traced(id).into_iter().map(Stuck::Traced));
        stuck
    }

    pub fn usage(&self, id: &IncarnationId) -> Usage {
        self.held(id).map(|held| held.usage()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why the command line is read by hand.
    #[test]
    fn a_command_line_that_is_no_text_is_shown_as_far_as_it_goes() {
        use std::io::Read;
        use std::os::unix::ffi::OsStringExt;
        let odd = std::ffi::OsString::from_vec(b"1000\xff".to_vec());
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "echo; read line", "sh"])
            .arg(odd)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A vfork parent goes on within exec, before the new command line is there (fs/exec.c, `exec_mmap`).
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.id().cast_signed();
        let of_the_crate = Process::new(pid).unwrap().cmdline();
        let ours = describe(pid, None).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            of_the_crate.as_ref().map_or(true, Vec::is_empty),
            "the crate can read it now: {of_the_crate:?}"
        );
        assert_eq!(ours.command, "/bin/sh -c echo; read line sh 1000\u{fffd}");
        assert!(ours.resident > 0 && ours.parent == std::process::id().cast_signed());
    }
}
