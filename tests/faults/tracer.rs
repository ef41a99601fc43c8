//! Watches the system calls of the supervisor, its fork server and its keepers with ptrace(2), and lets one of them fail.
//!
//! A call is known by its thread, its name and what it is about ([`Site`]), and counted among its like: so the third write of
//! the store to its database is the same one in each run, whatever other threads do meanwhile. The call that is to fail is not
//! made (but close(2), of which the kernel always releases the descriptor), and its answer is the error.
//!
//! Not watched are services, from their exec on, and what the supervisor executes to play one (`keeper --rehearse`). What a
//! child of ours does between its clone and its exec is the supervisor's plan, and is watched as thread `child`.

use super::calls::{self, Call, Known, Shape};
use super::traced::{self, group_of, words};
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Calls that are alike: of one thread, of one name, about one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// `main`, a helper thread's name, `fork-server`, `keeper` or `child`.
    pub thread: String,
    pub call: &'static str,
    /// A path, or what is behind a descriptor, without the numbers in it.
    pub object: String,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}({})", self.thread, self.call, self.object)
    }
}

/// The `nth` call at a site answers `errno`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub site: Site,
    /// From 1 on.
    pub nth: u32,
    pub errno: Errno,
}

/// What was seen while it was armed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub sites: BTreeMap<Site, u32>,
    /// The fault took place.
    pub struck: bool,
    /// Numbers that the tables do not know.
    pub unheard: BTreeSet<i64>,
    /// What the tracer itself could not do.
    pub trouble: Vec<String>,
}

/// From when on calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The exec of the supervisor, which has not taken place yet.
    Exec,
    Now,
}

pub struct Tracer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    disarmed: AtomicBool,
    seen: Mutex<Seen>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracer {
    /// Returns when every thread of these processes is watched.
    pub fn begin(pids: Vec<i32>, from: From, fault: Option<Fault>) -> Self {
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut watch = Watch::new(theirs, from, fault, ready);
            watch.seize(&pids);
            watch.run();
        });
        // An error: the thread has ended, for there was nothing to watch.
        let _ = is_ready.recv();
        Self { shared, thread: Some(thread) }
    }

    /// What is called from now on does not count and does not fail.
    pub fn disarm(&self) {
        self.shared.disarmed.store(true, Ordering::SeqCst);
    }

    pub fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }

    /// Waits for the end of all that is watched.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.shared.seen().trouble.push("the tracer has panicked".to_owned());
        }
    }
}

/// Whose calls a process makes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Supervisor,
    /// By the name of its one thread.
    Helper(String),
    /// Between clone and exec.
    Child,
    /// On its way to become the supervisor.
    Launcher,
}

struct Task {
    process: i32,
    thread: String,
    /// Of the call it is in.
    inside: Option<i64>,
    /// The answer that call is to have.
    answer: Option<Errno>,
    /// It has not stopped for us yet.
    fresh: bool,
}

struct Watch {
    shared: Arc<Shared>,
    fault: Option<Fault>,
    /// How many calls at the site of the fault there were.
    passed: u32,
    waits_for_exec: bool,
    tasks: HashMap<i32, Task>,
    processes: HashMap<i32, Who>,
    ready: Option<mpsc::Sender<()>>,
}

const FOLLOW: Options = traced::FOLLOW.union(Options::PTRACE_O_TRACESYSGOOD);

/// A stop for a system call (PTRACE_O_TRACESYSGOOD).
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

impl Watch {
    fn new(shared: Arc<Shared>, from: From, fault: Option<Fault>, ready: mpsc::Sender<()>) -> Self {
        Self {
            shared,
            fault,
            passed: 0,
            waits_for_exec: from == From::Exec,
            tasks: HashMap::new(),
            processes: HashMap::new(),
            ready: Some(ready),
        }
    }

    fn trouble(&self, what: String) {
        self.shared.seen().trouble.push(what);
    }

    fn seize(&mut self, pids: &[i32]) {
        for &pid in pids {
            let who = if self.waits_for_exec { Who::Launcher } else { who_is(pid) };
            self.processes.insert(pid, who);
            // A thread may have been born while we looked; once its maker is watched, it is too.
            for _ in 0..2 {
                for tid in tasks_of(pid) {
                    if self.tasks.contains_key(&tid) {
                        continue;
                    }
                    match ptrace::seize(Pid::from_raw(tid), FOLLOW) {
                        Ok(()) => {
                            let _ = ptrace::interrupt(Pid::from_raw(tid));
                            self.add(tid, pid);
                        }
                        Err(nix::errno::Errno::ESRCH | nix::errno::Errno::EPERM) => {}
                        Err(error) => self.trouble(format!("ptrace of {tid}: {error}")),
                    }
                }
            }
            if self.waits_for_exec {
                // It has stopped itself, or is about to.
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGCONT);
            }
        }
    }

    fn add(&mut self, tid: i32, process: i32) {
        let thread = self.name(tid, process);
        self.tasks.insert(tid, Task { process, thread, inside: None, answer: None, fresh: true });
    }

    fn name(&self, tid: i32, process: i32) -> String {
        match self.processes.get(&process) {
            Some(Who::Supervisor) if tid == process => "main".to_owned(),
            Some(Who::Supervisor) => comm(tid),
            Some(Who::Helper(name)) => name.clone(),
            Some(Who::Child) => "child".to_owned(),
            Some(Who::Launcher) | None => String::new(),
        }
    }

    fn run(&mut self) {
        loop {
            if self.waits_for_exec || self.tasks.values().all(|task| !task.fresh) {
                self.ready.take();
            }
            let Some((tid, status)) = traced::next() else { return };
            self.changed(tid, status);
        }
    }

    fn changed(&mut self, tid: i32, status: i32) {
        if !libc::WIFSTOPPED(status) {
            self.tasks.remove(&tid);
            return;
        }
        if !self.tasks.contains_key(&tid) {
            // It was born, and stops before its maker tells of it.
            let process = group_of(tid).unwrap_or(tid);
            self.processes.entry(process).or_insert(Who::Child);
            self.add(tid, process);
        }
        let event = status >> 16;
        let signal = libc::WSTOPSIG(status);
        let mut pass = 0;
        match event {
            0 if signal == SYSCALL_STOP => self.at_syscall(tid),
            0 => pass = signal,
            libc::PTRACE_EVENT_EXEC if !self.executed(tid) => {
                self.tasks.remove(&tid);
                let _ = ptrace::detach(Pid::from_raw(tid), None::<nix::sys::signal::Signal>);
                return;
            }
            // A birth, an exec of ours, or a stop that we asked for.
            _ => {}
        }
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.fresh = false;
        }
        self.go_on(tid, pass);
    }

    fn go_on(&mut self, tid: i32, signal: i32) {
        let pid = Pid::from_raw(tid);
        let given = nix::sys::signal::Signal::try_from(signal).ok();
        if signal != 0 && given.is_none() {
            self.trouble(format!("signal {signal} was kept from {tid}"));
        }
        // The job-control stop by which a launcher waits for us has served its purpose.
        let given =
            given.filter(|signal| *signal != nix::sys::signal::Signal::SIGSTOP || !self.is_launcher(tid));
        let owes = self.tasks.get(&tid).is_some_and(|task| task.answer.is_some());
        let _ = if owes || !self.is_over() && !self.is_launcher(tid) {
            ptrace::syscall(pid, given)
        } else {
            ptrace::cont(pid, given)
        };
    }

    fn is_launcher(&self, tid: i32) -> bool {
        let process = self.tasks.get(&tid).and_then(|task| self.processes.get(&task.process));
        process == Some(&Who::Launcher)
    }

    /// Nothing is counted any more, nothing will fail any more.
    fn is_over(&self) -> bool {
        self.shared.disarmed.load(Ordering::SeqCst)
            || self.fault.as_ref().is_some_and(|fault| self.passed >= fault.nth)
    }

    /// False: it is none of ours any more.
    fn executed(&mut self, tid: i32) -> bool {
        let who = who_is(tid);
        if matches!(&who, Who::Child) {
            return false;
        }
        self.waits_for_exec = false;
        self.processes.insert(tid, who);
        self.add(tid, tid);
        if let Some(task) = self.tasks.get_mut(&tid) {
            // The exec itself is still to return.
            task.inside = Some(libc::SYS_execve);
        }
        true
    }

    fn at_syscall(&mut self, tid: i32) {
        let pid = Pid::from_raw(tid);
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        let number = registers.orig_rax.cast_signed();
        let result = registers.rax.cast_signed();
        let is_over = self.is_over();
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        // At an entry the kernel has put ENOSYS there; whatever else it is, we had missed the entry.
        let enters = task.inside.is_none() && result == -i64::from(libc::ENOSYS);
        if !enters {
            task.inside = None;
            if let Some(errno) = task.answer.take() {
                registers.rax = (-i64::from(errno.raw_os_error())).cast_unsigned();
                if ptrace::setregs(pid, registers).is_err() {
                    self.trouble(format!("{tid} did not take its answer"));
                }
            } else if number == libc::SYS_prctl && registers.rdi == libc::PR_SET_NAME as u64 {
                self.renamed(tid);
            }
            return;
        }
        task.inside = Some(number);
        if is_over || task.thread.is_empty() {
            return;
        }
        let call = match calls::known(number) {
            Known::Spared => return,
            Known::Unheard => {
                self.shared.seen().unheard.insert(number);
                return;
            }
            Known::Fails(call) => call,
        };
        let arguments = [registers.rdi, registers.rsi, registers.rdx];
        match &self.fault {
            None => {
                let site = Site {
                    thread: task.thread.clone(),
                    call: call.name,
                    object: object(tid, call, arguments),
                };
                *self.shared.seen().sites.entry(site).or_default() += 1;
            }
            Some(fault) if fault.site.call == call.name && fault.site.thread == task.thread => {
                if object(tid, call, arguments) != fault.site.object {
                    return;
                }
                self.passed += 1;
                if self.passed < fault.nth {
                    return;
                }
                if !calls::is_done_all_the_same(call) {
                    registers.orig_rax = u64::MAX;
                    if ptrace::setregs(pid, registers).is_err() {
                        let trouble = format!("{tid} went on with its call");
                        return self.shared.seen().trouble.push(trouble);
                    }
                }
                task.answer = Some(fault.errno);
                self.shared.seen().struck = true;
            }
            Some(_) => {}
        }
    }

    /// A helper that was forked, not executed, says who it is.
    fn renamed(&mut self, tid: i32) {
        let Some(process) = self.tasks.get(&tid).map(|task| task.process) else { return };
        if self.processes.get(&process) == Some(&Who::Child) {
            self.processes.insert(process, Who::Helper(helper(&comm(tid))));
        } else if let Some(Who::Helper(name)) = self.processes.get_mut(&process) {
            *name = helper(&comm(tid));
        }
        let thread = self.name(tid, process);
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.thread = thread;
        }
    }
}

fn tasks_of(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

fn comm(tid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
    name.trim_end().replace(' ', "-")
}

fn helper(comm: &str) -> String {
    match comm {
        "hermes-fork-srv" => "fork-server".to_owned(),
        "hermes-keeper" => "keeper".to_owned(),
        other => other.to_owned(),
    }
}

/// By its program and arguments; `Child`: somebody who is not to be watched, or who has not executed anything yet.
fn who_is(pid: i32) -> Who {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let words = words(pid);
    let word = |index| words.get(index).map_or("", String::as_str);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with("hermes-sup") {
        return Who::Child;
    }
    match (word(1), word(2)) {
        ("run" | "init", _) => Who::Supervisor,
        // A keeper that was forked by it has its command line, and a name of its own.
        ("fork-server", _) if comm(pid) == "hermes-keeper" => Who::Helper("keeper".to_owned()),
        ("fork-server", _) => Who::Helper("fork-server".to_owned()),
        ("keeper", "--rehearse" | "--linger" | "--try-parent") => Who::Child,
        ("keeper", "--mount") => Who::Helper("mounter".to_owned()),
        ("keeper", _) => Who::Helper("keeper".to_owned()),
        _ => Who::Child,
    }
}

/// What a call is about. Numbers are taken out, so that it is the same in every run.
fn object(tid: i32, call: &Call, arguments: [u64; 3]) -> String {
    let [first, second, third] = arguments;
    match call.shape {
        Shape::Bare => String::new(),
        Shape::Op => format!(",{first}"),
        Shape::Wait if third & libc::WNOHANG as u64 != 0 => calls::NONBLOCKING.to_string(),
        Shape::Wait => String::new(),
        Shape::Limit => if third == 0 { "read" } else { "set" }.to_owned(),
        Shape::Path => plain(&text(tid, first)),
        Shape::Fd => format!("{}{}", plain(&behind(tid, first)), manner(tid, first)),
        Shape::FdOp => format!("{},{second}", plain(&behind(tid, first))),
        Shape::At => plain(&place(tid, first, second)),
        Shape::Open => format!("{}{}", plain(&place(tid, first, second)), purpose(third)),
        Shape::OpenHow => {
            // The flags are the first word of the structure (openat2(2)).
            let mut flags = [0; 8];
            read_memory(tid, third, &mut flags);
            format!("{}{}", plain(&place(tid, first, second)), purpose(u64::from_le_bytes(flags)))
        }
    }
}

/// `+c`: it may be made. `+w`: it is written to.
fn purpose(flags: u64) -> &'static str {
    let flags = flags as i32;
    if flags & (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) != 0 {
        "+c"
    } else if flags & libc::O_ACCMODE != libc::O_RDONLY {
        "+w"
    } else {
        ""
    }
}

fn place(tid: i32, directory: u64, path: u64) -> String {
    let path = text(tid, path);
    if path.starts_with('/') || directory as i32 == libc::AT_FDCWD {
        return path;
    }
    let directory = behind(tid, directory);
    if path.is_empty() { directory } else { format!("{}/{path}", directory.trim_end_matches('/')) }
}

/// What is behind a descriptor, in the words of proc_pid_fd(5).
fn behind(tid: i32, fd: u64) -> String {
    let link =
        std::fs::read_link(format!("/proc/{tid}/fd/{}", fd as i32)).unwrap_or_else(|_| PathBuf::from("?"));
    link.to_string_lossy().into_owned()
}

/// Whether the descriptor can be written to, and whether it waits.
fn manner(tid: i32, fd: u64) -> &'static str {
    let info = std::fs::read_to_string(format!("/proc/{tid}/fdinfo/{}", fd as i32)).unwrap_or_default();
    let flags =
        info.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    let has = |bits| flags.is_some_and(|flags| flags & bits != 0);
    match (has(libc::O_WRONLY | libc::O_RDWR), has(libc::O_NONBLOCK)) {
        (false, false) => "",
        (false, true) => "!",
        (true, false) => "+w",
        (true, true) => "+w!",
    }
}

fn read_memory(tid: i32, address: u64, into: &mut [u8]) -> usize {
    File::open(format!("/proc/{tid}/mem")).and_then(|memory| memory.read_at(into, address)).unwrap_or(0)
}

fn text(tid: i32, address: u64) -> String {
    let mut bytes = [0; 256];
    // What lies before the end of its page can be read, whatever comes after it.
    let page = 4096 - (address as usize & 4095);
    let mut got = read_memory(tid, address, &mut bytes[..page.min(256)]);
    if got < 256 && !bytes[..got].contains(&0) {
        got += read_memory(tid, address + got as u64, &mut bytes[got..]);
    }
    let end = bytes[..got].iter().position(|byte| *byte == 0).unwrap_or(got);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Without what differs from run to run: numbers, ids and the names of temporary files.
fn plain(path: &str) -> String {
    let mut plain = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = if word == 0 { rest.split_at(first.len_utf8()) } else { rest.split_at(word) };
        let hexadecimal = word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hexadecimal {
            plain.push('#');
        } else {
            for c in word.chars() {
                match c {
                    '0'..='9' if plain.ends_with('#') => {}
                    '0'..='9' => plain.push('#'),
                    ' ' => plain.push('_'),
                    c => plain.push(c),
                }
            }
        }
        rest = after;
    }
    plain
}

/// The supervisor, its fork server and its keepers.
pub fn family(supervisor: i32) -> Vec<i32> {
    let mut found = vec![supervisor];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for tid in tasks_of(pid) {
            let children = std::fs::read_to_string(Path::new(&format!("/proc/{tid}/task/{tid}/children")));
            let children = children.unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                if matches!(who_is(child), Who::Helper(_)) && !found.contains(&child) {
                    found.push(child);
                }
            }
        }
    }
    found
}
