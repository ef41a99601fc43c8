//! The watch of the scan directory: what is renamed into it or removed from it.

use crate::daemon::sources::{Room, plain_token};
use crate::s6::SCAN_DIRECTORY;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

#[derive(Debug)]
pub struct ScanWatch(OwnedFd);

impl ScanWatch {
    /// Watches the directory.
    ///
    /// # Errors
    /// As inotify_init(2), inotify_add_watch(2), epoll_ctl(2).
    pub fn begin(registry: &Registry) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A directory that is made in place is still being filled: its maker says when it is ready.
        let flags = WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, SCAN_DIRECTORY, flags)?;
        let token = plain_token(Room::ScanDirectory);
        registry.register(&mut SourceFd(&watch.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self(watch))
    }

    /// Forgets what has happened.
    pub fn drain(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut space);
        while events.next().is_ok() {}
    }
}
