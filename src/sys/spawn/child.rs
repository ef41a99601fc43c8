//! Everything a child does between clone and exec.
//!
//! The child is a copy of one thread of a process whose other threads may have held any lock, or it still shares the memory
//! of the process that made it (`vfork_stack.rs`): it calls the kernel on prepared memory and nothing else. No allocation, no panic
//! (the entry is `extern "C"`, where a panic aborts), no C library function that takes a lock, sets `errno` or keeps other
//! threads in step: rustix and [`syscall::call`] ask the kernel directly.
//!
//! Order, and why: into the cgroup first, so that no later step happens outside; its own view of the mounts, session and stdio while still
//! privileged; capabilities and ids; then the wait for "go"; the working directory after the ids, so that it is
//! entered with the service's rights; the signal mask last, so that nothing interrupts.
//!
//! Each failure is reported as one record over a close-on-exec pipe. A record `READY` goes ahead of the first exec,
//! so that a child which was killed before it got there is told apart from a program that died at once.
#![allow(unsafe_code)]

use super::landlock;
use super::plan::{ChildPlan, Session};
use super::shield;
use super::syscall;
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The step at which a child failed. The number is the byte on the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Join = 1,
    Session,
    Terminal,
    Streams,
    Limits,
    Bounding,
    Groups,
    Gid,
    Uid,
    Capabilities,
    NoNewPrivs,
    Signals,
    WorkingDir,
    Exec,
    /// Exec said "no such file" about a file that is there: its `#!` interpreter or loader is missing.
    Interpreter,
}

impl Step {
    const ALL: [Self; 15] = [
        Self::Join,
        Self::Session,
        Self::Terminal,
        Self::Streams,
        Self::Limits,
        Self::Bounding,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Signals,
        Self::WorkingDir,
        Self::Exec,
        Self::Interpreter,
    ];

    /// The step with this number; `None` for a byte that no child of ours writes.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == byte)
    }
}

/// First byte of the record that says "about to exec".
pub(super) const READY: u8 = 0xff;

/// Length of a record: step, three bytes of candidate index (little endian), four bytes of errno.
pub(super) const RECORD: usize = 8;

/// What the child sees: the plan, its pointer tables, its descriptors. These are numbers of its own table, a copy of its
/// maker's as that was at the clone.
pub(super) struct Order<'a> {
    pub plan: &'a ChildPlan,
    pub argv: Vec<*const libc::c_char>,
    pub envp: Vec<*const libc::c_char>,
    pub groups: Vec<Gid>,
    pub bounding_drop: u64,
    /// Every signal has its default disposition already.
    pub dispositions_reset: bool,
    /// What is put at which number.
    pub places: Vec<(RawFd, RawFd)>,
    pub join: Option<RawFd>,
    pub report: RawFd,
    pub go: Waits,
    /// Our copies of the parent's ends, closed so that its death is an end-of-file here.
    pub closes: Vec<RawFd>,
}

/// What has to be so before an instruction of the service runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waits {
    /// The supervisor has said one byte at the other end of this pipe: its books are in order. An end-of-file means that it is gone.
    Word(RawFd),
    /// The process that made us is our parent still, and alone answers for us: a keeper, which needs no books but the kernel's.
    Parent(Pid),
}

impl Order<'_> {
    fn report(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open in the child until its exec or exit.
        unsafe { BorrowedFd::borrow_raw(self.report) }
    }
}

/// A failed step.
struct Failure {
    step: Step,
    candidate: usize,
    errno: i32,
}

fn at(step: Step) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure { step, candidate: 0, errno: errno.raw_os_error() }
}

/// The life of a child. Never returns: it becomes the program or exits with 127.
///
/// # Safety
/// Only in a process that `clone` has just made, on that process's only thread; every pointer of `order` must point
/// to NUL-terminated strings, and the tables must end in a null pointer.
pub(super) unsafe extern "C" fn run(order: &Order<'_>) -> ! {
    for end in &order.closes {
        // SAFETY: this process's own copy; nothing here uses it again, and no destructor runs.
        let _ = unsafe { syscall::call(libc::SYS_close, [end.cast_unsigned() as usize, 0, 0, 0]) };
    }
    if let Err(failure) = steps(order) {
        let candidate = (failure.candidate as u32).to_le_bytes();
        let errno = failure.errno.to_le_bytes();
        let record = [
            failure.step as u8,
            candidate[0],
            candidate[1],
            candidate[2],
            errno[0],
            errno[1],
            errno[2],
            errno[3],
        ];
        let _ = rustix::io::write(order.report(), &record);
    }
    // SAFETY: ends this process without destructors or exit handlers, which belong to the parent.
    unsafe { libc::_exit(127) }
}

fn steps(order: &Order<'_>) -> Result<(), Failure> {
    let plan = order.plan;
    if let Some(procs) = order.join {
        // SAFETY: open in the child.
        let procs = unsafe { BorrowedFd::borrow_raw(procs) };
        // "0" is the writer itself (cgroups(7)); the right was checked when the parent opened the file.
        rustix::io::write(procs, b"0").map_err(at(Step::Join))?;
    }
    shield::raise(&plan.read_only);
    // All signals stay blocked until exec: SIGTTOU would stop us in tcsetpgrp(3), the rest has no business here.
    set_mask(u64::MAX);
    if !order.dispositions_reset {
        reset_dispositions();
    }
    session(plan)?;
    if plan.subreaper {
        // No kernel in use refuses it. Where a filter does, its orphans are its service's.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
    for (from, to) in &order.places {
        place(*from, *to).map_err(at(Step::Streams))?;
    }
    if let Some(mask) = plan.umask {
        rustix::process::umask(Mode::from_bits_truncate(mask));
    }
    let resources =
        [(Resource::Nofile, plan.nofile), (Resource::Nproc, plan.nproc), (Resource::Core, plan.core)];
    for (resource, limit) in resources {
        if let Some(limit) = limit {
            set_limit(resource, limit).map_err(at(Step::Limits))?;
        }
    }
    if let Some(adjustment) = plan.oom_score_adj {
        adjust_oom_score(adjustment);
    }
    advise_memory(plan);
    identity(order)?;
    if plan.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(at(Step::NoNewPrivs))?;
    }
    if plan.scope_signals {
        landlock::scope_signals().map_err(at(Step::Signals))?;
    }
    wait_for_go(order);
    if let Some(dir) = plan.working_dir() {
        rustix::process::chdir(dir.as_c_str()).map_err(at(Step::WorkingDir))?;
    }
    let passed = order.places.iter().fold(2, |most, (_, number)| most.max(number.cast_unsigned()));
    for (first, last) in [(3, passed - 1), (passed + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        let range = [first as usize, last as usize, libc::CLOSE_RANGE_CLOEXEC as usize, 0];
        // SAFETY: integers only. Marks these for closing at exec; the report pipe must live until then. Before kernel
        // 5.11 this fails with EINVAL, and everything of ours is close-on-exec anyway.
        let _ = unsafe { syscall::call(libc::SYS_close_range, range) };
    }
    let _ = rustix::io::write(order.report(), &[READY, 0, 0, 0, 0, 0, 0, 0]);
    set_mask(0);
    Err(execute(order))
}

/// Tries the candidates as execvp(3) does: a missing or forbidden one is passed over, any other error ends the search.
fn execute(order: &Order<'_>) -> Failure {
    let mut last = Failure { step: Step::Exec, candidate: 0, errno: libc::ENOENT };
    for (candidate, path) in order.plan.candidates().iter().enumerate() {
        let tables = [order.argv.as_ptr().expose_provenance(), order.envp.as_ptr().expose_provenance()];
        // SAFETY: path and tables are NUL-terminated and null-terminated, as `run` demands.
        let done = unsafe {
            syscall::call(libc::SYS_execve, [path.as_ptr().expose_provenance(), tables[0], tables[1], 0])
        };
        let errno = done.err().map_or(libc::EIO, Errno::raw_os_error);
        let step = match errno {
            libc::ENOENT if exists(path) => Step::Interpreter,
            _ => Step::Exec,
        };
        match (step, errno) {
            (Step::Exec, libc::ENOENT | libc::ENOTDIR) => {}
            (Step::Exec, libc::EACCES) => last = Failure { step, candidate, errno },
            _ => return Failure { step, candidate, errno },
        }
    }
    last
}

fn exists(path: &std::ffi::CStr) -> bool {
    rustix::fs::access(path, Access::EXISTS).is_ok()
}

/// More than we may have is cut to what we may: a service starts all the same, and the supervisor looks at what it has.
fn set_limit(resource: Resource, (soft, hard): (u64, u64)) -> Result<(), Errno> {
    let given = |amount: u64| (amount != u64::MAX).then_some(amount);
    let wanted = Rlimit { current: given(soft), maximum: given(hard) };
    match rustix::process::setrlimit(resource, wanted) {
        Err(Errno::PERM) => {
            let most = rustix::process::getrlimit(resource).maximum;
            let cut = |amount: u64| given(most.map_or(amount, |most| amount.min(most)));
            rustix::process::setrlimit(resource, Rlimit { current: cut(soft), maximum: cut(hard) })
        }
        done => done,
    }
}

/// To go below what we have takes CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)), and without it the file is root's while
/// we are not dumpable: then it stays as it is, which the supervisor sees.
fn adjust_oom_score(adjustment: i16) {
    let mut text = [0u8; 6];
    let mut at = text.len();
    let mut rest = adjustment.unsigned_abs();
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if adjustment < 0 {
        at -= 1;
        text[at] = b'-';
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&file, &text[at..]);
    }
}

/// Both are kept over execve(2), KSM from Linux 6.7 on. A kernel without them starts the service all the same; that it has none is
/// said by the supervisor.
fn advise_memory(plan: &ChildPlan) {
    if plan.ksm {
        let enable = [libc::PR_SET_MEMORY_MERGE.cast_unsigned() as usize, 1, 0, 0];
        // SAFETY: integers only.
        let _ = unsafe { syscall::call(libc::SYS_prctl, enable) };
    }
    if plan.thp_disabled {
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
}

/// Returns once it may go on. Its ids are the service's by now: a supervisor that takes over what its parent leaves finds it by them.
fn wait_for_go(order: &Order<'_>) {
    let go = match order.go {
        Waits::Parent(parent) if rustix::process::getppid() == Some(parent) => return,
        // SAFETY: as in `run`.
        Waits::Parent(_) => unsafe { libc::_exit(127) },
        // SAFETY: open in the child.
        Waits::Word(go) => unsafe { BorrowedFd::borrow_raw(go) },
    };
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(go, &mut byte) {
            Ok(1) => return,
            Err(Errno::INTR) => {}
            // SAFETY: as in `run`.
            Ok(_) | Err(_) => unsafe { libc::_exit(127) },
        }
    }
}

fn session(plan: &ChildPlan) -> Result<(), Failure> {
    match &plan.session {
        Session::New => {
            rustix::process::setsid().map_err(at(Step::Session))?;
        }
        Session::Foreground { terminal } => {
            rustix::process::setpgid(None, None).map_err(at(Step::Session))?;
            if let Some(terminal) = terminal {
                let own = rustix::process::getpid();
                rustix::termios::tcsetpgrp(terminal, own).map_err(at(Step::Terminal))?;
            }
        }
    }
    Ok(())
}

/// dup2(2) never leaves close-on-exec set on the copy; source and target differ because the plan was lifted.
fn place(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: dup3 on a live descriptor; the child has no use yet for what the target number was.
    unsafe {
        syscall::call(libc::SYS_dup3, [from.cast_unsigned() as usize, to.cast_unsigned() as usize, 0, 0])
    }
    .map(drop)
}

fn identity(order: &Order<'_>) -> Result<(), Failure> {
    let plan = order.plan;
    drop_bounding(order.bounding_drop)?;
    let ambient = plan.capabilities.map_or(0, |masks| masks.ambient);
    if ambient != 0 {
        // Otherwise leaving uid 0 empties the permitted set (capabilities(7)).
        rustix::thread::set_keep_capabilities(true).map_err(at(Step::Capabilities))?;
    }
    if let Some(who) = &plan.identity {
        rustix::thread::set_thread_groups(&order.groups).map_err(at(Step::Groups))?;
        let gid = Gid::from_raw(who.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::Gid))?;
        let uid = Uid::from_raw(who.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::Uid))?;
    }
    if let Some(masks) = plan.capabilities {
        capabilities(masks.bounding, ambient)?;
    }
    Ok(())
}

fn drop_bounding(mut mask: u64) -> Result<(), Failure> {
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        let one = CapabilitySet::from_bits_retain(lowest);
        rustix::thread::remove_capability_from_bounding_set(one).map_err(at(Step::Bounding))?;
        mask ^= lowest;
    }
    Ok(())
}

/// What is left: the ambient set for a non-root service, what the bounding set allows for a root one.
fn capabilities(bounding: u64, ambient: u64) -> Result<(), Failure> {
    let failed = || at(Step::Capabilities);
    rustix::thread::clear_ambient_capability_set().map_err(failed())?;
    let now = rustix::thread::capabilities(None).map_err(failed())?;
    let kept = if rustix::process::geteuid().is_root() { bounding } else { ambient };
    let kept = CapabilitySet::from_bits_retain(kept) & now.permitted;
    let raised = CapabilitySet::from_bits_retain(ambient);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: raised & kept };
    rustix::thread::set_capabilities(None, sets).map_err(failed())?;
    let mut rest = ambient;
    while rest != 0 {
        let lowest = rest & rest.wrapping_neg();
        let one = CapabilitySet::from_bits_retain(lowest);
        rustix::thread::configure_capability_in_ambient_set(one, true).map_err(failed())?;
        rest ^= lowest;
    }
    Ok(())
}

/// Raw, because the C library keeps two signals for itself and refuses to touch them.
fn set_mask(mask: u64) {
    let how = libc::SIG_SETMASK.cast_unsigned() as usize;
    // SAFETY: the mask is 8 bytes, as announced; nothing is written back.
    let _ = unsafe {
        syscall::call(
            libc::SYS_rt_sigprocmask,
            [how, (&raw const mask).expose_provenance(), 0, size_of::<u64>()],
        )
    };
}

/// Ignored signals stay ignored across exec (signal(7)): SIGPIPE of every Rust program, SIGCHLD of an odd parent.
pub(super) fn reset_dispositions() {
    // SIG_DFL, no flags, no restorer, empty mask, whatever the order of the fields on this architecture.
    let default = [0u64; 4];
    for number in 1..=64 {
        let action = default.as_ptr().expose_provenance();
        // SAFETY: the kernel reads a `struct sigaction` of at most 32 bytes; KILL and STOP answer EINVAL.
        let _ = unsafe { syscall::call(libc::SYS_rt_sigaction, [number, action, 0, size_of::<u64>()]) };
    }
    RESET.store(true, Ordering::Relaxed);
}

/// [`reset_dispositions`] was called in this process, or in the one that it is a fork of.
static RESET: AtomicBool = AtomicBool::new(false);

/// Whether our children have the default dispositions from their birth.
pub(super) fn dispositions_are_reset() -> bool {
    RESET.load(Ordering::Relaxed)
}
