//! One inotify for every `cgroup.events` and `memory.events`: the kernel's file notification is an `IN_MODIFY` there (kernel 4.5 on).
//!
//! A wake names directories to look at again, never what has happened to them.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    slots: HashMap<i32, u32>,
}

/// What a wake says.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    Slots(Vec<u32>),
    /// The queue overflowed: anything may have changed.
    Anything,
}

impl Watch {
    /// # Errors
    /// `EMFILE` when the user has `fs.inotify.max_user_instances` of them already.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify, slots: HashMap::new() })
    }

    /// Watches `cgroup.events` in `dir` for `slot`; the answer is what `remove` takes.
    ///
    /// # Errors
    /// `ENOSPC` when the user has `fs.inotify.max_user_watches` of them already.
    pub fn add(&mut self, dir: &Path, slot: u32) -> io::Result<i32> {
        self.add_file(&dir.join("cgroup.events"), slot)
    }

    /// Watches `memory.events` likewise, which tells of kills for want of memory.
    ///
    /// # Errors
    /// As [`Self::add`]; `ENOENT` without the controller.
    pub fn add_memory(&mut self, dir: &Path, slot: u32) -> io::Result<i32> {
        self.add_file(&dir.join("memory.events"), slot)
    }

    /// Watches any such file.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_file(&mut self, file: &Path, slot: u32) -> io::Result<i32> {
        let watch = inotify::add_watch(&self.inotify, file, WatchFlags::MODIFY)?;
        self.slots.insert(watch, slot);
        Ok(watch)
    }

    pub fn remove(&mut self, watch: i32) {
        self.slots.remove(&watch);
        // The kernel may have dropped it with the directory.
        let _ = inotify::remove_watch(&self.inotify, watch);
    }

    /// Reads until nothing is left.
    pub fn drain(&mut self) -> Changed {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut slots = Vec::new();
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                return Changed::Anything;
            }
            slots.extend(self.slots.get(&event.wd()));
        }
        slots.sort_unstable();
        slots.dedup();
        Changed::Slots(slots)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
