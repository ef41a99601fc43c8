//! Records which functions of a program run in which process, in the order of their first use.
//!
//! An `int3` is written over the first byte of every function, in each process that executes the program and in each that is
//! forked from one. Where a process traps, the function is noted and its byte put back. That costs no call more than once,
//! and needs nothing of the program but its symbols.

use super::script::Function;
use super::traced;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use procfs::process::Process;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// `int3`.
const TRAP: u8 = 0xcc;

/// What the watched program sends to itself when a part begins in which all uses count anew.
pub const NEXT_PART: rustix::process::Signal = rustix::process::Signal::USR1;

/// What one process did in one part.
#[derive(Debug)]
pub struct Run {
    pub words: Vec<String>,
    pub part: usize,
    /// Their addresses in the program, in the order of their first use.
    pub used: Vec<u64>,
}

/// Runs `command` to its end, with `program` recorded wherever it runs below it. It shall wait for the end of its standard
/// input before it starts anything.
///
/// # Errors
/// As of ptrace(2) and proc(5), and where the command fails.
pub fn record(program: &Path, functions: &[Function], mut command: Command) -> io::Result<Vec<Run>> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let root = child.id().cast_signed();
    ptrace::seize(Pid::from_raw(root), traced::FOLLOW)?;
    drop(child.stdin.take());
    let mut recorder = Recorder::new(program, functions, root)?;
    while let Some((tid, status)) = traced::next() {
        recorder.changed(tid, status)?;
    }
    if recorder.ended != Some(0) {
        return Err(io::Error::other("what was to be recorded did not end well"));
    }
    Ok(recorder.runs)
}

struct Recorder {
    /// The program is known by its size: a copy of it is as good.
    size: u64,
    entry: u64,
    /// Ascending.
    starts: Vec<u64>,
    end: u64,
    /// As it was before anything was written over it, from the first start on.
    text: Vec<u8>,
    root: i32,
    /// The wait status of the root.
    ended: Option<i32>,
    part: usize,
    /// Those that run the program.
    processes: HashMap<i32, Recorded>,
    runs: Vec<Run>,
}

struct Recorded {
    /// From an address in the file to one in memory.
    bias: u64,
    seen: Vec<bool>,
    run: Run,
}

/// What is done with a thread that has stopped.
enum Next {
    Continue(Option<Signal>),
    /// It is stopped by job control, and stays so.
    Listen,
    LetGo,
}

impl Recorder {
    fn new(program: &Path, functions: &[Function], root: i32) -> io::Result<Self> {
        let mut starts: Vec<u64> = functions.iter().map(|function| function.address).collect();
        starts.sort_unstable();
        starts.dedup();
        let ends = functions.iter().map(|function| function.address + function.size);
        let file = File::open(program)?;
        // `e_entry` of elf(5).
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, 24)?;
        Ok(Self {
            size: file.metadata()?.len(),
            entry: u64::from_le_bytes(entry),
            starts,
            end: ends.max().unwrap_or(0),
            text: Vec::new(),
            root,
            ended: None,
            part: 0,
            processes: HashMap::new(),
            runs: Vec::new(),
        })
    }

    fn changed(&mut self, tid: i32, status: i32) -> io::Result<()> {
        if !libc::WIFSTOPPED(status) {
            self.finish(tid);
            if tid == self.root {
                self.ended = Some(status);
            }
            return Ok(());
        }
        let tracee = Pid::from_raw(tid);
        let done = self.stopped(tid, status);
        let gone = match done {
            Ok(Next::Continue(signal)) => ptrace::cont(tracee, signal),
            Ok(Next::Listen) => traced::listen(tracee),
            Ok(Next::LetGo) => ptrace::detach(tracee, None),
            Err(_) => ptrace::cont(tracee, None),
        };
        match gone {
            // It was killed meanwhile, and nothing could be done with it.
            Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => done.map(|_| ()),
        }
    }

    fn stopped(&mut self, tid: i32, status: i32) -> io::Result<Next> {
        let signal = libc::WSTOPSIG(status);
        let is_ours = self.processes.contains_key(&tid);
        match status >> 16 {
            0 if signal == libc::SIGTRAP && self.trapped(tid)? => {}
            0 if signal == NEXT_PART.as_raw() && traced::group_of(tid) == Some(self.root) => {
                self.next_part()?;
            }
            0 => return Ok(Next::Continue(Signal::try_from(signal).ok())),
            libc::PTRACE_EVENT_EXEC => {
                self.finish(tid);
                self.look_at(tid)?;
                // A service is nothing to us.
                if is_ours && !self.processes.contains_key(&tid) {
                    return Ok(Next::LetGo);
                }
            }
            // It has to stay so until somebody continues it: a helper may play a service that is stopped.
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => return Ok(Next::Listen),
            // A birth: of a process, or of a thread of one.
            libc::PTRACE_EVENT_STOP if !is_ours && traced::group_of(tid) == Some(tid) => self.look_at(tid)?,
            _ => {}
        }
        Ok(Next::Continue(None))
    }

    /// Begins to record a process, if it runs the program.
    fn look_at(&mut self, pid: i32) -> io::Result<()> {
        let exe = std::fs::metadata(format!("/proc/{pid}/exe"));
        if exe.is_err() || exe?.len() != self.size {
            return Ok(());
        }
        let auxiliary = Process::new(pid).and_then(|process| process.auxv()).map_err(io::Error::other)?;
        let entry = auxiliary.get(&libc::AT_ENTRY).copied().unwrap_or(0);
        let run = Run { words: traced::words(pid), part: self.part, used: Vec::new() };
        let seen = vec![false; self.starts.len()];
        self.processes.insert(pid, Recorded { bias: entry - self.entry, seen, run });
        self.arm(pid)
    }

    fn memory(pid: i32) -> io::Result<File> {
        File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
    }

    fn arm(&mut self, pid: i32) -> io::Result<()> {
        let (Some(process), Some(first)) = (self.processes.get(&pid), self.starts.first()) else {
            return Ok(());
        };
        let memory = Self::memory(pid)?;
        if self.text.is_empty() {
            self.text = vec![0; (self.end - first) as usize];
            memory.read_exact_at(&mut self.text, first + process.bias)?;
        }
        let mut armed = self.text.clone();
        for start in &self.starts {
            armed[(start - first) as usize] = TRAP;
        }
        memory.write_all_at(&armed, first + process.bias)
    }

    /// False: the trap is none of ours.
    fn trapped(&mut self, tid: i32) -> io::Result<bool> {
        let pid = traced::group_of(tid).unwrap_or(tid);
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(false) };
        let mut registers = ptrace::getregs(Pid::from_raw(tid))?;
        let address = (registers.rip - 1).wrapping_sub(process.bias);
        let Ok(index) = self.starts.binary_search(&address) else { return Ok(false) };
        if !std::mem::replace(&mut process.seen[index], true) {
            process.run.used.push(address);
        }
        let byte = self.text[(address - self.starts[0]) as usize];
        Self::memory(tid)?.write_all_at(&[byte], registers.rip - 1)?;
        registers.rip -= 1;
        ptrace::setregs(Pid::from_raw(tid), registers)?;
        Ok(true)
    }

    fn next_part(&mut self) -> io::Result<()> {
        self.part += 1;
        let pids: Vec<i32> = self.processes.keys().copied().collect();
        for pid in pids {
            self.finish(pid);
            // One that is about to end is looked at in vain.
            let _ = self.look_at(pid);
        }
        Ok(())
    }

    /// False: it did not run the program.
    fn finish(&mut self, pid: i32) -> bool {
        let Some(process) = self.processes.remove(&pid) else { return false };
        if !process.run.used.is_empty() {
            self.runs.push(process.run);
        }
        true
    }
}
