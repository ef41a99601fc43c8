//! When there is something to read.

use super::service::{Log, Pending};
use crate::sys::beneath::Beneath;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// An inotify(7) watch on every log directory, and on the way to those that are not there.
pub(super) struct Watch {
    pub(super) fd: OwnedFd,
    pub(super) logs: HashMap<i32, Vec<usize>>,
    /// Logs whose files were handed in and cannot be watched: they are looked at again and again.
    pub(super) unwatched: BTreeSet<usize>,
}

/// How often that is.
pub(super) const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What a watch has told of logs, by their number.
pub(super) struct News {
    pub(super) changed: Vec<usize>,
    /// Their `current` may be another file by now.
    pub(super) moved: Vec<usize>,
    /// Something has come or gone on the way to them.
    pub(super) way: bool,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { fd, logs: HashMap::new(), unwatched: BTreeSet::new() })
    }

    pub(super) fn watch(&self, dir: &Beneath, flags: inotify::WatchFlags) -> io::Result<i32> {
        Ok(inotify::add_watch(&self.fd, format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()), flags)?)
    }

    /// The directory of the log of this number.
    pub(super) fn add(&mut self, dir: &Beneath, index: usize) -> io::Result<()> {
        use inotify::WatchFlags as Flags;
        let watch = self.watch(dir, Flags::MODIFY | Flags::CREATE | Flags::MOVED_TO)?;
        self.logs.entry(watch).or_default().push(index);
        Ok(())
    }

    /// The `current` of a log whose files were handed in.
    pub(super) fn add_handed(&mut self, log: &Log, index: usize) {
        use inotify::WatchFlags as Flags;
        let Some(Pending::Open(contents)) = log.files.back() else {
            self.unwatched.insert(index);
            return;
        };
        let path = format!("/proc/self/fd/{}", contents.file.as_raw_fd());
        // ATTRIB: its last name is removed.
        match inotify::add_watch(&self.fd, path, Flags::MODIFY | Flags::MOVE_SELF | Flags::ATTRIB) {
            Ok(watch) => {
                self.unwatched.remove(&index);
                let logs = self.logs.entry(watch).or_default();
                if !logs.contains(&index) {
                    logs.push(index);
                }
            }
            Err(_) => drop(self.unwatched.insert(index)),
        }
    }

    /// A directory in which what leads to a log may come into being, or be opened to us.
    pub(super) fn add_way(&self, dir: &Beneath) -> io::Result<()> {
        use inotify::WatchFlags as Flags;
        self.watch(dir, Flags::CREATE | Flags::MOVED_TO | Flags::ATTRIB).map(drop)
    }

    /// Waits for changes of `count` logs; `None` at the end.
    pub(super) fn wait(&self, end: Option<BorrowedFd<'_>>, count: usize) -> io::Result<Option<News>> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)];
        fds.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::empty())));
        match poll(&mut fds, (!self.unwatched.is_empty()).then_some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.get(1).is_some_and(|end| !end.revents().is_empty()) {
            return Ok(None);
        }
        let mut changed: Vec<usize> = self.unwatched.iter().copied().collect();
        let (mut moved, mut way) = (changed.clone(), false);
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.fd, &mut space);
        loop {
            match events.next() {
                Ok(event) => match self.logs.get(&event.wd()) {
                    Some(indices) => {
                        changed.extend_from_slice(indices);
                        if event
                            .events()
                            .intersects(inotify::ReadFlags::MOVE_SELF | inotify::ReadFlags::ATTRIB)
                        {
                            moved.extend_from_slice(indices);
                        }
                    }
                    // Something on the way to a log; or the queue overflowed, and any of them may have changed.
                    None => {
                        way = true;
                        changed.extend(0..count);
                    }
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        for indices in [&mut changed, &mut moved] {
            indices.sort_unstable();
            indices.dedup();
        }
        Ok(Some(News { changed, moved, way }))
    }
}
