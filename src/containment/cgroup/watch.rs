//! One descriptor for the news of any number of `cgroup.events` and `memory.events`: an epoll of its own, which the loop's
//! epoll watches in turn.
//!
//! What the kernel has to say of such a file is a POLLPRI on an open one (cgroup-v2.rst; fs/kernfs/file.c,
//! `kernfs_generic_poll`; kernel 4.5). inotify(7) tells it as well and needs no descriptor for each. But a mark of it is freed
//! behind an SRCU grace period, and the close of an inotify waits for the last of its marks (fs/notify/mark.c,
//! `fsnotify_wait_marks_destroyed`): 6 to 20 ms on 6.18, also at the end of the process that held it.
//!
//! A wake names slots to look at again, never what has happened to them.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

#[derive(Debug)]
pub struct Watch(OwnedFd);

/// A file that is watched, until this is dropped.
#[derive(Debug)]
pub struct Watched {
    /// Closing the last descriptor of an open file takes it out of the epoll (epoll(7)).
    _file: OwnedFd,
}

impl Watch {
    /// # Errors
    /// As epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Watches `cgroup.events` in `dir` for `slot`. What is true has to be looked at once more after this.
    ///
    /// # Errors
    /// As open(2) and epoll_ctl(2).
    pub fn add(&self, dir: &Path, slot: u32) -> io::Result<Watched> {
        self.add_file(&dir.join("cgroup.events"), slot)
    }

    /// Watches `memory.events` likewise, which tells of OOM kills.
    ///
    /// # Errors
    /// As [`Self::add`]; `ENOENT` without the controller.
    pub fn add_memory(&self, dir: &Path, slot: u32) -> io::Result<Watched> {
        self.add_file(&dir.join("memory.events"), slot)
    }

    /// Watches any such file.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_file(&self, path: &Path, slot: u32) -> io::Result<Watched> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // Edge-triggered: otherwise each file would have to be read by this very descriptor to fall silent.
        let flags = EventFlags::PRI | EventFlags::ET;
        epoll::add(&self.0, &file, EventData::new_u64(slot.into()), flags)?;
        Ok(Watched { _file: file })
    }

    /// The slots to look at again: all there is to tell.
    pub fn drain(&self) -> Vec<u32> {
        const AT_ONCE: usize = 64;
        let mut slots = Vec::new();
        let mut events = Vec::with_capacity(AT_ONCE);
        loop {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            // It does not wait, so no signal can interrupt it.
            let told = epoll::wait(&self.0, room, Some(&Timespec::default())).unwrap_or(0);
            slots.extend(events.iter().filter_map(|event| u32::try_from(event.data.u64()).ok()));
            if told < AT_ONCE {
                break;
            }
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
