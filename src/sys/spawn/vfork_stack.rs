//! Stacks for children that share the fork server's memory from their clone to their exec, as after vfork(2).
//!
//! A fork copies the page tables, and then each side copies the pages that the other may still see: half of what a start costs.
//! With `CLONE_VM` nothing is copied. The child runs on a stack of its own and reads a plan that does not change while the child
//! is there. Unlike after vfork(2) the fork server goes on meanwhile, whatever the child hangs in. When the child has left, by
//! its exec or its end, the kernel writes a zero (`CLONE_CHILD_CLEARTID`), and the stack is free for the next child.
//!
//! Rules, because the memory is shared:
//! * The OOM killer kills every process that shares its victim's memory (mm/oom_kill.c, `__oom_kill_process`), and writing
//!   `oom_score_adj` changes all of them (fs/proc/base.c, `__set_oom_adj`). So a child with little memory, or with an
//!   `oom_score_adj`, is forked instead. So is one whose memory the kernel is told something about (KSM, THP): that is told of all of it. And only the fork server does this, never the supervisor: it may be lost.
//! * A child that has become a service's user could be traced by other processes of that user, and the fork server with it. The
//!   kernel prevents that by marking the memory as not dumpable at each change of an id, unless `fs.suid_dumpable` is 1: then
//!   no child gets such a stack.
//! * The child writes to its stack only, never to `errno`, which would be the fork server's (`syscall.rs`).
#![allow(unsafe_code)]

use super::child::{self, Order};
use super::clone::{self, Ends, Join};
use super::plan::ChildPlan;
use super::syscall;
use linux_raw_sys::general::{CLONE_CHILD_CLEARTID, CLONE_PARENT, CLONE_VM, clone_args};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a stack (a child uses the last few thousand) and of the inaccessible gap below it.
const STACK: usize = 64 << 10;
const GAP: usize = 16 << 10;

/// Children that may hang before their exec at once, in a file system that does not answer. Further ones are forked.
const MOST: usize = 64;

/// All stacks of this process. They live until it ends.
pub(super) struct VforkStacks {
    /// `fs.suid_dumpable` keeps other users from tracing us through a child.
    safe: bool,
    stacks: Vec<VforkStack>,
}

impl VforkStacks {
    pub(super) fn open() -> &'static mut Self {
        let marked = std::fs::read_to_string("/proc/sys/fs/suid_dumpable");
        let safe = marked.is_ok_and(|value| matches!(value.trim(), "0" | "2"));
        // Never dropped: children may still use theirs when we end.
        Box::leak(Box::new(Self { safe, stacks: Vec::new() }))
    }

    /// A free stack for a child of `plan`; `None`: fork it instead.
    pub(super) fn free(&mut self, plan: &ChildPlan) -> Option<&mut VforkStack> {
        let of_memory = plan.oom_score_adj.is_some() || plan.ksm || plan.thp_disabled;
        if !self.safe || plan.scarce_memory || of_memory {
            return None;
        }
        let index = match self.stacks.iter().position(|stack| !stack.is_taken()) {
            Some(index) => index,
            None if self.stacks.len() < MOST => {
                self.stacks.push(VforkStack::new().ok()?);
                self.stacks.len() - 1
            }
            None => return None,
        };
        self.stacks.get_mut(index)
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
    pub(super) fn clone(
        &mut self,
        mut plan: ChildPlan,
        directory: BorrowedFd<'_>,
        ends: &Ends,
    ) -> io::Result<i32> {
        plan.lift_descriptors()?;
        let places = plan.places();
        // Open until the child has its copies.
        let _descriptors = plan.take_descriptors();
        let plan = Rc::new(plan);
        // SAFETY: it stays where it is, unchanged, until `reads` is dropped, and the order with it.
        let lasting: &'static ChildPlan = unsafe { &*Rc::as_ptr(&plan) };
        let order = clone::order(lasting, Some(Join::Born(directory)), ends);
        let order = Order { places, dispositions_reset: true, ..order };
        let (order, _) = self.reads.insert((Box::new(order), plan));
        let args = clone_args {
            stack: self.stack as u64,
            stack_size: STACK as u64,
            child_tid: self.taken.as_ptr().expose_provenance() as u64,
            ..clone::born(directory, CLONE_PARENT | CLONE_VM | CLONE_CHILD_CLEARTID)
        };
        self.taken.store(1, Ordering::Release);
        // SAFETY: no child uses this stack, and what the child reads is not touched until the child has left.
        let made = unsafe { syscall::clone_onto(&args, child::run, &**order) };
        if made.is_err() {
            self.taken.store(0, Ordering::Release);
        }
        i32::try_from(made?).map_err(io::Error::other)
    }
}
