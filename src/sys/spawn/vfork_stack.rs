//! Stacks for children that share the memory of the fork server, or of a keeper, from their clone to their exec, as after vfork(2).
//!
//! A fork copies the page tables, and then each side copies the pages that the other may still see: half of what a start costs.
//! With `CLONE_VM` nothing is copied. The child runs on a stack of its own and reads a plan that does not change while the child
//! is there. Unlike after vfork(2) the one who made it goes on meanwhile, whatever the child hangs in. When the child has left, by
//! its exec or its end, the kernel writes a zero (`CLONE_CHILD_CLEARTID`): the stack is free for the next child of the fork server, and
//! a keeper gives its one back.
//!
//! Rules, because the memory is shared:
//! * The OOM killer kills every process that shares its victim's memory (mm/oom_kill.c, `__oom_kill_process`), and writing
//!   `oom_score_adj` changes all of them (fs/proc/base.c, `__set_oom_adj`). So a child with little memory, or with an
//!   `oom_score_adj`, is forked instead. So is one whose memory the kernel is told something about (KSM, THP): that is told of all of it.
//!   And the supervisor never does this. The fork server may be lost. So may a keeper with its only child, its main process: hooks, which
//!   come later, are forked.
//! * A child that has become a service's user could be traced by other processes of that user, and who shares its memory with it. The
//!   kernel prevents that by marking the memory as not dumpable at each change of an id, unless `fs.suid_dumpable` is 1: then
//!   no child gets such a stack.
//! * The child writes to its stack only, never to `errno`, which would be that of the one who made it (`syscall.rs`).
#![allow(unsafe_code)]

use super::child::{self, Order};
use super::clone::{self, Child, Ends, Join, Parent, Report};
use super::plan::ChildPlan;
use super::syscall;
use crate::sys::pidfd::Pidfd;
use linux_raw_sys::general::{CLONE_CHILD_CLEARTID, CLONE_PARENT, CLONE_PIDFD, CLONE_VM, clone_args};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a stack (a child uses the last few thousand) and of the inaccessible gap below it.
const STACK: usize = 64 << 10;
const GAP: usize = 16 << 10;

const SHARES: u32 = CLONE_VM | CLONE_CHILD_CLEARTID;

/// Children that may hang before their exec at once, in a file system that does not answer. Further ones are forked.
const MOST: usize = 64;

/// Whether a child of `plan` may have our memory.
fn may_share(plan: &ChildPlan) -> bool {
    let of_memory = plan.oom_score_adj.is_some() || plan.ksm || plan.thp_disabled;
    !plan.scarce_memory && !of_memory && is_safe()
}

/// `fs.suid_dumpable` keeps other users from tracing us through a child. Asked once, by the fork server for all its keepers.
fn is_safe() -> bool {
    static SAFE: OnceLock<bool> = OnceLock::new();
    let marked = || std::fs::read_to_string("/proc/sys/fs/suid_dumpable");
    *SAFE.get_or_init(|| marked().is_ok_and(|value| matches!(value.trim(), "0" | "2")))
}

/// Makes a child of ours and lets it go, sharing our memory until its exec where it may. For a process with one thread that has
/// nothing to note before its child begins. The descriptors of the plan are closed here.
///
/// # Errors
/// As [`clone::spawn`].
pub fn spawn(mut plan: ChildPlan) -> io::Result<(Child, Lent)> {
    let (pipe, report) = clone::report_pipe(&plan)?;
    let ends = Ends { report, go: None };
    let mut lent = Lent(if may_share(&plan) { VforkStack::new().ok() } else { None });
    let mut pidfd: libc::c_int = -1;
    let pid = match &mut lent.0 {
        Some(stack) => stack.clone(plan, &ends, pipe.as_fd(), &mut pidfd)?,
        None => {
            let parent = Parent::Us { pidfd: &mut pidfd, closes: &[pipe.as_fd()] };
            clone::clone(&mut plan, None, &ends, parent, 0)?
        }
    };
    // SAFETY: the kernel has just put a new descriptor there, which is ours alone.
    let pidfd = Pidfd::from_fd(unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok((Child { pid, pidfd, report: Report::from(pipe) }, lent))
}

/// What a child uses of our memory. Given back when this is dropped, which is to be when the child has left.
pub struct Lent(Option<VforkStack>);

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.0.is_some()).finish()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self.0.take() {
            // It is still there, and uses it.
            Some(stack) if stack.is_taken() => {
                Box::leak(Box::new(stack));
            }
            // SAFETY: it was mapped for this, and nobody uses it any more.
            Some(stack) => unsafe {
                let lowest = std::ptr::with_exposed_provenance_mut::<libc::c_void>(stack.stack - GAP);
                libc::munmap(lowest, GAP + STACK);
            },
            None => {}
        }
    }
}

/// All stacks of the fork server. They live until it ends.
pub(super) struct VforkStacks(Vec<VforkStack>);

impl VforkStacks {
    pub(super) fn open() -> &'static mut Self {
        is_safe();
        // Never dropped: children may still use theirs when we end.
        Box::leak(Box::new(Self(Vec::new())))
    }

    /// A free stack for a child of `plan`; `None`: fork it instead.
    pub(super) fn free(&mut self, plan: &ChildPlan) -> Option<&mut VforkStack> {
        if !may_share(plan) {
            return None;
        }
        let Self(stacks) = self;
        let index = match stacks.iter().position(|stack| !stack.is_taken()) {
            Some(index) => index,
            None if stacks.len() < MOST => {
                stacks.push(VforkStack::new().ok()?);
                stacks.len() - 1
            }
            None => return None,
        };
        stacks.get_mut(index)
    }
}

pub(super) struct VforkStack {
    /// The lowest byte of its stack, which is never unmapped.
    stack: usize,
    /// Zero when no child uses the stack: the kernel writes that.
    taken: Box<AtomicU32>,
    /// What the child reads, and the plan that it points to. Fields of a tuple are dropped in order.
    reads: Option<(Box<Order<'static>>, Rc<ChildPlan>)>,
}

impl VforkStack {
    fn new() -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, of which only the gap is made unreachable.
        let lowest = unsafe {
            let gap = libc::mmap(std::ptr::null_mut(), GAP + STACK, prot, flags, -1, 0);
            if gap == libc::MAP_FAILED || libc::mprotect(gap, GAP, libc::PROT_NONE) < 0 {
                return Err(io::Error::last_os_error());
            }
            gap.byte_add(GAP)
        };
        Ok(Self { stack: lowest.expose_provenance(), taken: Box::default(), reads: None })
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire) != 0
    }

    /// Makes a child of `plan` on this stack. It is born in the cgroup `directory` and becomes a child of our parent. Returns its
    /// pid. The descriptors of the plan are closed here.
    ///
    /// # Errors
    /// Those of clone3(2), and of fcntl(2) when no descriptor is left; there is no child then.
    pub(super) fn clone_into(
        &mut self,
        plan: ChildPlan,
        directory: BorrowedFd<'_>,
        ends: &Ends,
    ) -> io::Result<i32> {
        let args = clone_args {
            stack: self.stack as u64,
            stack_size: STACK as u64,
            child_tid: self.taken.as_ptr().expose_provenance() as u64,
            ..clone::born(directory, CLONE_PARENT | SHARES)
        };
        let place = std::ptr::from_ref(&args).expose_provenance();
        let arguments = [place, size_of::<clone_args>(), 0, 0, 0];
        self.make(plan, Some(Join::Born(directory)), ends, &[], (libc::SYS_clone3, arguments))
    }

    /// The same as a child of ours, where we are, with its pidfd. It closes its copy of `our_end`. By the older call: container
    /// engines refuse the newer one.
    fn clone(
        &mut self,
        plan: ChildPlan,
        ends: &Ends,
        our_end: BorrowedFd<'_>,
        pidfd: &mut libc::c_int,
    ) -> io::Result<i32> {
        let flags = (SHARES | CLONE_PIDFD | libc::SIGCHLD.cast_unsigned()) as usize;
        let parent_tid = std::ptr::from_mut(pidfd).expose_provenance();
        let child_tid = self.taken.as_ptr().expose_provenance();
        let end = self.stack + STACK;
        // The order of the last two is that of the architecture (clone(2)).
        let arguments = if cfg!(target_arch = "x86_64") {
            [flags, end, parent_tid, child_tid, 0]
        } else {
            [flags, end, parent_tid, 0, child_tid]
        };
        self.make(plan, None, ends, &[our_end], (libc::SYS_clone, arguments))
    }

    /// By a call that names this stack.
    fn make(
        &mut self,
        mut plan: ChildPlan,
        join: Option<Join<'_>>,
        ends: &Ends,
        closes: &[BorrowedFd<'_>],
        (number, arguments): (libc::c_long, [usize; 5]),
    ) -> io::Result<i32> {
        plan.lift_descriptors()?;
        let places = plan.places();
        // Open until the child has its copies.
        let _descriptors = plan.take_descriptors();
        let plan = Rc::new(plan);
        // SAFETY: it stays where it is, unchanged, until `reads` is dropped, and the order with it.
        let lasting: &'static ChildPlan = unsafe { &*Rc::as_ptr(&plan) };
        let closes = closes.iter().map(AsRawFd::as_raw_fd).collect();
        let order = Order { places, closes, ..clone::order(lasting, join, ends) };
        let (order, _) = self.reads.insert((Box::new(order), plan));
        self.taken.store(1, Ordering::Release);
        // SAFETY: no child uses this stack, and what the child reads is not touched until the child has left.
        let made = unsafe { syscall::clone_onto(number, arguments, child::run, &**order) };
        if made.is_err() {
            self.taken.store(0, Ordering::Release);
        }
        i32::try_from(made?).map_err(io::Error::other)
    }
}
