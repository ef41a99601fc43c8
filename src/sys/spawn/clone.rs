//! Making a child: one clone, two pipes, no waiting.
//!
//! `clone(CLONE_PIDFD | SIGCHLD)` in its old form: it copies as fork does, so a child that hangs in an open or an exec
//! on a dead file system does not hold us (a vfork-like clone would), and no seccomp profile in use filters it, while
//! `clone3` is answered ENOSYS by Docker's.
//!
//! Into a cgroup a child is born or moves ([`Join`]). A move takes a lock that waits for an RCU grace period of 10 ms
//! and more, unless another process has just waited for it (kernel/cgroup/cgroup.c, `cgroup_attach_lock`): a fleet that
//! starts does not feel it, the restart of one service does. Birth there takes none, but needs `clone3`, and kernels
//! 6.14 to 7.2 kill a child at birth if its parent is in a cgroup that was ever killed: callers try it first.
//!
//! A child begins with a copy of our memory here; most children of the fork server do without one (`vfork_stack.rs`).
//!
//! What became of the child comes back through [`Report`]: an end-of-file is the exec.
#![allow(unsafe_code)]

use super::child::{self, Order, READY, RECORD, Step, Waits};
use super::plan::{ChildPlan, lift};
use crate::sys::pidfd::Pidfd;
use linux_raw_sys::general::{CLONE_INTO_CGROUP, CLONE_PARENT, CLONE_PIDFD, clone_args};
use rustix::pipe::PipeFlags;
use rustix::thread::{CapabilitySet, Gid};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// A child that has been made and told to go.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: Pidfd,
    pub report: Report,
}

/// The reading end of a child's report pipe.
///
/// Wait for it with an interest that names neither readable nor writable (`Interest::PRIORITY`): epoll always
/// reports the hang-up, which is all that matters, and so the child's own record wakes nobody.
#[derive(Debug)]
pub struct Report {
    pipe: OwnedFd,
    records: [u8; 2 * RECORD],
    filled: usize,
}

/// How far a child has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Still on its way.
    Pending,
    /// The program runs (or has already ended, which the reaping shows).
    Executed,
    Failed(Failure),
    /// It ended before it could exec, without a word: something killed it.
    Killed,
}

/// The step that failed and the kernel's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub errno: i32,
    /// Which of the plan's candidates was tried.
    pub candidate: usize,
}

impl Report {
    /// Never blocks.
    pub fn read(&mut self) -> Progress {
        loop {
            let room = self.records.get_mut(self.filled..).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            match rustix::io::read(&self.pipe, room) {
                Ok(0) => break,
                Ok(n) => self.filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Progress::Pending,
            }
        }
        self.judge()
    }

    /// At the end of the file, or after as many records as a child ever writes.
    fn judge(&self) -> Progress {
        let mut progress = Progress::Killed;
        for record in self.records.get(..self.filled).unwrap_or_default().chunks_exact(RECORD) {
            let &[step, c0, c1, c2, e0, e1, e2, e3] = record else { continue };
            progress = match Step::from_byte(step) {
                None if step == READY => Progress::Executed,
                None => Progress::Killed,
                Some(step) => Progress::Failed(Failure {
                    step,
                    errno: i32::from_le_bytes([e0, e1, e2, e3]),
                    candidate: usize::from(u16::from_le_bytes([c0, c1])) | usize::from(c2) << 16,
                }),
            };
        }
        progress
    }
}

/// Of our end of the pipe.
impl From<OwnedFd> for Report {
    fn from(pipe: OwnedFd) -> Self {
        Self { pipe, records: [0; 2 * RECORD], filled: 0 }
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// What a failure's words need to know of the plan.
#[derive(Debug, Clone)]
pub struct Subject {
    program: String,
    searched: bool,
    working_dir: String,
    uid: Option<u32>,
}

impl Subject {
    pub fn of(plan: &ChildPlan) -> Self {
        let text = |c: Option<&CString>| c.map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
        let program = text(plan.argv().first());
        Self {
            searched: !program.contains('/'),
            program,
            working_dir: text(plan.working_dir()),
            uid: plan.identity.as_ref().map(|who| who.uid),
        }
    }

    /// One lower-case sentence: what could not be done, and why.
    pub fn words(&self, failure: Failure) -> String {
        let reason = reason(failure.errno);
        let program = &self.program;
        match (failure.step, failure.errno) {
            (Step::Exec, libc::ENOENT) if self.searched => {
                format!("cannot execute '{program}': not found in PATH")
            }
            (Step::Exec, libc::ENOEXEC) => {
                format!(
                    "cannot execute '{program}': not a program for this machine (a script begins with '#!')"
                )
            }
            // A user's first instruction is when its number is asked for (execve(2)).
            (Step::Exec, libc::EAGAIN) => {
                format!(
                    "cannot execute '{program}': its user has as many processes as its limit nproc allows"
                )
            }
            (Step::Exec, _) => format!("cannot execute '{program}': {reason}"),
            (Step::Interpreter, _) => {
                format!("cannot execute '{program}': the interpreter or loader that it names does not exist")
            }
            (Step::WorkingDir, _) => {
                format!("cannot enter the working directory '{}': {reason}", self.working_dir)
            }
            (Step::Uid | Step::Gid | Step::Groups, _) => {
                let uid = self.uid.unwrap_or_default();
                format!("cannot become the user with uid {uid}: {reason}")
            }
            (Step::Join, _) => format!("cannot join its cgroup: {reason}"),
            (Step::Session, _) => format!("cannot start a session: {reason}"),
            (Step::Terminal, _) => format!("cannot take the terminal: {reason}"),
            (Step::Streams, _) => format!("cannot set up stdin, stdout and stderr: {reason}"),
            (Step::Limits, _) => format!("cannot set the limits of a process: {reason}"),
            (Step::Bounding | Step::Capabilities, _) => format!("cannot set capabilities: {reason}"),
            (Step::Signals, _) => format!("cannot be kept from signalling others: {reason}"),
            (Step::NoNewPrivs, _) => format!("cannot set no_new_privs: {reason}"),
        }
    }
}

/// The system's words for an errno, without the number that `std` adds.
pub fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Why there is no new process, as fork(2) has it.
pub fn fork_reason(errno: i32) -> String {
    match errno {
        libc::EAGAIN => "there may be no more processes or threads here (pids.max of a cgroup around, nproc of the user, or the \
                         machine's bound)"
            .to_owned(),
        errno => reason(errno),
    }
}

/// How a child comes into its cgroup, before anything else.
#[derive(Debug, Clone, Copy)]
pub enum Join<'a> {
    /// Into this directory, by `CLONE_INTO_CGROUP` (kernel 5.7).
    Born(BorrowedFd<'a>),
    /// By writing itself into this open `cgroup.procs`.
    Moves(BorrowedFd<'a>),
}

/// Makes a child from `plan` and lets it go, in the cgroup that `join` names.
///
/// Never waits for the child: ask [`Child::report`]. The plan can be used again.
///
/// # Errors
/// Those of pipe2(2) and clone(2): no descriptors, no memory, no process left (`EAGAIN`).
pub fn spawn(plan: &mut ChildPlan, join: Option<Join<'_>>) -> io::Result<Child> {
    let (child, go) = spawn_held(plan, join)?;
    go.give();
    Ok(child)
}

/// In which namespaces of its own a child begins, with all that it will ever start (pid_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// PID and mount namespaces: needs CAP_SYS_ADMIN.
    Privileged,
    /// The same in a user namespace in which every id means what it means outside: needs CAP_SETUID and CAP_SETGID
    /// (user_namespaces(7), "Defining user and group ID mappings").
    InUserNamespace,
}

impl Apart {
    fn flags(self) -> i32 {
        let both = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        match self {
            Self::Privileged => both,
            Self::InUserNamespace => both | libc::CLONE_NEWUSER,
        }
    }
}

/// As [`spawn`], as the first process of namespaces of its own. Its death is the death of all in them.
///
/// # Errors
/// As [`spawn`]; `EPERM` without the right, `ENOSPC` at the limits of namespaces(7).
pub fn spawn_apart(plan: &mut ChildPlan, apart: Apart) -> io::Result<Child> {
    let (child, go) = clone_held(plan, None, apart.flags())?;
    if apart == Apart::InUserNamespace {
        // Not told to go, it exits: dropping `go` is enough.
        for (own, its) in [("/proc/self/uid_map", "uid_map"), ("/proc/self/gid_map", "gid_map")] {
            let map = identity_map(&std::fs::read_to_string(own)?);
            std::fs::write(format!("/proc/{}/{its}", child.pid), map)?;
        }
    }
    go.give();
    Ok(child)
}

/// Every id that we have, for itself.
fn identity_map(own: &str) -> String {
    let ids = own.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (first, _, count) = (words.next()?, words.next()?, words.next()?);
        Some(format!("{first} {first} {count}\n"))
    });
    ids.collect()
}

/// The word for which a held child waits, all its other preparations done. Dropped unsaid, it makes the child exit.
#[derive(Debug)]
pub struct Go(OwnedFd);

impl Go {
    pub fn give(self) {
        // The child may have died already: that is its report's business (SIGPIPE is ignored or blocked).
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.0, b"g"));
    }
}

/// [`spawn`] without the go.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_held(plan: &mut ChildPlan, join: Option<Join<'_>>) -> io::Result<(Child, Go)> {
    clone_held(plan, join, 0)
}

/// `namespaces`: flags of clone(2) for new ones.
fn clone_held(plan: &mut ChildPlan, join: Option<Join<'_>>, namespaces: i32) -> io::Result<(Child, Go)> {
    let (talk, ends) = talk(plan)?;
    let mut pidfd: libc::c_int = -1;
    let parent = Parent::Us { pidfd: &mut pidfd, closes: &[talk.report.as_fd(), talk.go.as_fd()] };
    let pid = clone(plan, join, &ends, parent, namespaces)?;
    // SAFETY: the kernel has just put a new descriptor there, which is ours alone.
    let pidfd = Pidfd::from_fd(unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok(talk.with(pid, pidfd))
}

/// Our ends of what is said between us and a child on its way.
pub(super) struct Talk {
    report: OwnedFd,
    go: OwnedFd,
}

impl Talk {
    pub(super) fn with(self, pid: i32, pidfd: Pidfd) -> (Child, Go) {
        (Child { pid, pidfd, report: Report::from(self.report) }, Go(self.go))
    }
}

/// The child's ends.
pub(super) struct Ends {
    pub report: OwnedFd,
    /// `None`: it goes on by itself, see [`Waits::Parent`].
    pub go: Option<OwnedFd>,
}

/// Both pipes, their descriptors above those that a child of `plan` overwrites.
pub(super) fn talk(plan: &ChildPlan) -> io::Result<(Talk, Ends)> {
    let (report, report_end) = report_pipe(plan)?;
    let (go_end, go) = lifted_pipe(PipeFlags::CLOEXEC, plan.highest())?;
    Ok((Talk { report, go }, Ends { report: report_end, go: Some(go_end) }))
}

/// Our end and the child's.
pub(super) fn report_pipe(plan: &ChildPlan) -> io::Result<(OwnedFd, OwnedFd)> {
    lifted_pipe(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK, plan.highest())
}

/// Whose child it becomes.
pub(super) enum Parent<'a> {
    /// That of the caller, who gets a pidfd. The child closes its copies of the caller's ends, so that the caller's death is
    /// an end-of-file for it.
    Us { pidfd: &'a mut libc::c_int, closes: &'a [BorrowedFd<'a>] },
    /// That of the caller's own parent (`CLONE_PARENT`).
    Ours,
}

/// What a child of `plan` does, whose descriptors are lifted. It points to the strings of the plan.
pub(super) fn order<'a>(plan: &'a ChildPlan, join: Option<Join<'_>>, ends: &Ends) -> Order<'a> {
    Order {
        argv: table(plan.argv()),
        envp: table(plan.envp()),
        groups: plan
            .identity
            .as_ref()
            .map(|who| who.groups.iter().copied().map(Gid::from_raw).collect())
            .unwrap_or_default(),
        bounding_drop: bounding_to_drop(plan),
        dispositions_reset: child::dispositions_are_reset(),
        places: plan.places(),
        join: match join {
            Some(Join::Moves(procs)) => Some(procs.as_raw_fd()),
            Some(Join::Born(_)) | None => None,
        },
        report: ends.report.as_raw_fd(),
        go: ends
            .go
            .as_ref()
            .map_or_else(|| Waits::Parent(rustix::process::getpid()), |go| Waits::Word(go.as_raw_fd())),
        closes: Vec::new(),
        plan,
    }
}

/// Makes a child with a copy of our memory. Returns its pid.
pub(super) fn clone(
    plan: &mut ChildPlan,
    join: Option<Join<'_>>,
    ends: &Ends,
    parent: Parent<'_>,
    namespaces: i32,
) -> io::Result<i32> {
    plan.lift_descriptors()?;
    let mut order = order(plan, join, ends);
    let (flags, pidfd) = match parent {
        Parent::Us { pidfd, closes } => {
            order.closes = closes.iter().map(AsRawFd::as_raw_fd).collect();
            (CLONE_PIDFD, &raw mut *pidfd)
        }
        Parent::Ours => (CLONE_PARENT, std::ptr::null_mut()),
    };
    let pid = match join {
        Some(Join::Born(directory)) => {
            let args = clone_args {
                pidfd: pidfd.expose_provenance() as u64,
                // With CLONE_PARENT it is the caller's own, and must not be named (clone(2)).
                exit_signal: if flags == CLONE_PARENT { 0 } else { libc::SIGCHLD as u64 },
                ..born(directory, flags)
            };
            // SAFETY: as below; the kernel reads `args` and stores the pidfd where that says, and both live here.
            unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<clone_args>()) }
        }
        // SAFETY: no shared memory and no new stack, so the child returns here on its own copy of everything; the kernel
        // stores the pidfd, if it is asked for, through the parent_tid pointer (clone(2), CLONE_PIDFD). The other two pointers
        // are unused, which is why their order, different on each architecture, does not matter.
        Some(Join::Moves(_)) | None => unsafe {
            let flags = flags | (libc::SIGCHLD | namespaces).cast_unsigned();
            libc::syscall(libc::SYS_clone, libc::c_ulong::from(flags), 0, pidfd, 0, 0)
        },
    };
    match pid {
        // SAFETY: this is the new process, with one thread; `order` made the pointer tables as `run` wants them.
        0 => unsafe { child::run(&order) },
        -1 => Err(io::Error::last_os_error()),
        pid => i32::try_from(pid).map_err(io::Error::other),
    }
}

/// To be born in `directory`.
pub(super) fn born(directory: BorrowedFd<'_>, flags: u32) -> clone_args {
    clone_args {
        flags: u64::from(flags) | CLONE_INTO_CGROUP,
        cgroup: directory.as_raw_fd() as u64,
        // SAFETY: numbers only, of which zero means "not used".
        ..unsafe { std::mem::zeroed() }
    }
}

/// Pointers to the strings and a null at the end, as execve(2) wants them. They live as long as the plan.
fn table(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// A pipe whose descriptors are above those that the child overwrites.
fn lifted_pipe(flags: PipeFlags, highest: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut read, mut write) = rustix::pipe::pipe_with(flags)?;
    lift(&mut read, highest)?;
    lift(&mut write, highest)?;
    Ok((read, write))
}

/// What the bounding set has and the plan does not want. Without CAP_SETPCAP nothing can be dropped; a plan without
/// new privileges is just as tight then, because exec grants nothing that the permitted set lacks (prctl(2)).
fn bounding_to_drop(plan: &ChildPlan) -> u64 {
    let Some(masks) = plan.capabilities else { return 0 };
    let drop = own_bounding() & !masks.bounding;
    if drop != 0 && plan.no_new_privs && !may_drop_bounding() {
        return 0;
    }
    drop
}

/// Whether we have CAP_SETPCAP.
pub(super) fn may_drop_bounding() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SETPCAP))
}

/// Empties our own bounding set, as far as that is allowed: what is executed from now on gets no capability that is not
/// inheritable (capabilities(7)). Those that we have stay.
pub(super) fn drop_own_bounding() {
    for bit in (0..64).map(|n| 1u64 << n) {
        let one = CapabilitySet::from_bits_retain(bit);
        let _ = rustix::thread::remove_capability_from_bounding_set(one);
    }
}

/// fork(2), but for its parent: the child is that of our own parent (`CLONE_PARENT`). Only for a process with one thread.
/// `None` in the child.
pub(super) fn fork_beside() -> io::Result<Option<i32>> {
    // SAFETY: no shared memory and no new stack, as in `clone`; the child goes on alone on its copy of the only thread.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_ulong::from(CLONE_PARENT) | libc::SIGCHLD as u64, 0, 0, 0, 0)
    };
    match pid {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        pid => i32::try_from(pid).map(Some).map_err(io::Error::other),
    }
}

/// Our own bounding set, asked for once: it takes a call a capability, and only our children make theirs smaller.
pub(super) fn own_bounding() -> u64 {
    static OWN: OnceLock<u64> = OnceLock::new();
    let present = |bit: &u64| {
        let one = CapabilitySet::from_bits_retain(*bit);
        rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false)
    };
    *OWN.get_or_init(|| (0..64).map(|n| 1u64 << n).filter(present).fold(0, |a, b| a | b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Resource temporarily unavailable" tells nobody which resource.
    #[test]
    fn that_there_may_be_no_more_processes_is_named() {
        let subject =
            Subject { program: "web".into(), searched: true, working_dir: String::new(), uid: Some(1) };
        let words = subject.words(Failure { step: Step::Exec, errno: libc::EAGAIN, candidate: 0 });
        assert!(words.contains("as many processes as its limit nproc allows"), "{words}");
        assert!(fork_reason(libc::EAGAIN).contains("pids.max"));
        assert_eq!(fork_reason(libc::ENOMEM), reason(libc::ENOMEM));
    }

    #[test]
    fn every_id_is_mapped_to_itself() {
        let own = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity_map(own), "0 0 1\n1 1 65536\n");
    }
}
