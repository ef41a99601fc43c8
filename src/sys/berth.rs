//! Berths: where children of the fork server live in its memory, from their clone to their exec.
//!
//! A fork copies the page tables, and then each side copies what the other may still see: that is half of what a start costs.
//! A child that shares our memory (`CLONE_VM`) has a berth instead: a stack of its own, and what it reads, which stays as it is
//! for as long as it is there. We go on meanwhile, whatever it hangs in; the kernel tells that it has left, be it by an exec or
//! by its end (`CLONE_CHILD_CLEARTID`), and then the berth is free for the next one.
//!
//! Only for a process that may be lost. Whoever is killed for want of memory takes all along who share theirs with it
//! (mm/oom_kill.c, `__oom_kill_process`), and an adjustment of how likely that is reaches them, too (fs/proc/base.c,
//! `__set_oom_adj`): a child of which either is to be expected is not for a berth. And nobody but root may trace us: with the
//! uid of a service a child would be traced by the other processes of that uid, and we with it, were our memory not marked as
//! not dumpable. The kernel marks it anew at each change of an id, as `fs.suid_dumpable` says, which therefore must not be 1.
//!
//! A child writes to nothing but its stack and never to `errno`, which it would share (`raw.rs`).
#![allow(unsafe_code)]

use super::child::{self, Order};
use super::clone::{self, Ends, Join};
use super::plan::ChildPlan;
use super::raw;
use linux_raw_sys::general::{CLONE_CHILD_CLEARTID, CLONE_PARENT, CLONE_VM, clone_args};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a stack, of which a child uses the last few thousand, and of the gap below it, which nobody may touch.
const STACK: usize = 64 << 10;
const GAP: usize = 16 << 10;

/// So many children at once may hang before their exec, in a file system that does not answer. The next ones are forked.
const MOST: usize = 64;

/// All berths of this process, to its end.
pub(super) struct Berths {
    /// Nobody traces us because of a child.
    safe: bool,
    berths: Vec<Berth>,
}

impl Berths {
    pub(super) fn open() -> &'static mut Self {
        let marked = std::fs::read_to_string("/proc/sys/fs/suid_dumpable");
        let safe = marked.is_ok_and(|value| matches!(value.trim(), "0" | "2"));
        // Never dropped: children may still be in theirs when we end.
        Box::leak(Box::new(Self { safe, berths: Vec::new() }))
    }

    /// One for a child of `plan`, if it may have one and there is one.
    pub(super) fn free(&mut self, plan: &ChildPlan) -> Option<&mut Berth> {
        if !self.safe || plan.scarce_memory || plan.oom_score_adj.is_some() {
            return None;
        }
        let index = match self.berths.iter().position(|berth| !berth.is_taken()) {
            Some(index) => index,
            None if self.berths.len() < MOST => {
                self.berths.push(Berth::new().ok()?);
                self.berths.len() - 1
            }
            None => return None,
        };
        self.berths.get_mut(index)
    }
}

pub(super) struct Berth {
    /// The lowest byte of its stack, which is never unmapped.
    stack: usize,
    /// Zero once nobody is here: the kernel writes that.
    taken: Box<AtomicU32>,
    /// What the child reads, with what that points to: dropped in this order.
    reads: Option<(Box<Order<'static>>, Rc<ChildPlan>)>,
}

impl Berth {
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

    /// Makes a child of `plan` here that is born in `directory` and becomes our parent's. Returns its pid. Its descriptors are
    /// no more ours.
    ///
    /// # Errors
    /// As clone3(2), and as fcntl(2) for want of descriptors; there is no child then.
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
        // SAFETY: nobody is here, so the stack is unused, and what the child reads is not touched until it has left.
        let made = unsafe { raw::clone_onto(&args, child::run, &**order) };
        if made.is_err() {
            self.taken.store(0, Ordering::Release);
        }
        i32::try_from(made?).map_err(io::Error::other)
    }
}
