//! The reading end of a world's FIFO.

use crate::clock;
use crate::record::{Kind, Record, SIZE};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

pub struct Events {
    fd: OwnedFd,
    unread: VecDeque<Record>,
}

impl Events {
    /// Makes the FIFO at `path`, with room for 32768 records, so that no service ever waits for the harness.
    pub fn make(path: &Path) -> io::Result<Self> {
        fifo(path)?;
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        rustix::pipe::fcntl_setpipe_size(&fd, 1 << 20)?;
        Ok(Self { fd, unread: VecDeque::new() })
    }

    /// The next record; `None` at the deadline (ns of the monotonic clock).
    pub fn next(&mut self, deadline: u64) -> Option<Record> {
        loop {
            if let Some(record) = self.unread.pop_front() {
                return Some(record);
            }
            let mut buffer = [0u8; 512 * SIZE];
            match rustix::io::read(&self.fd, &mut buffer[..]) {
                Ok(count) => {
                    let whole = buffer.get(..count).unwrap_or_default().chunks_exact(SIZE);
                    self.unread.extend(whole.filter_map(|one| Record::from_bytes(one.try_into().ok()?)));
                }
                Err(rustix::io::Errno::AGAIN) => {
                    clock::wait_any(&[self.fd.as_fd()], PollFlags::IN, deadline)?;
                }
                Err(_) => return None,
            }
        }
    }

    /// The next record of this kind within `patience`; others are dropped.
    pub fn wait(&mut self, kind: Kind, patience: Duration) -> Option<Record> {
        let deadline = clock::after(patience);
        loop {
            let record = self.next(deadline)?;
            if record.kind == kind {
                return Some(record);
            }
        }
    }

    /// Waits until `count` different services have said that they run; the time of the latest.
    pub fn all_started(&mut self, count: usize, patience: Duration) -> Option<u64> {
        let deadline = clock::after(patience);
        let mut seen = std::collections::HashSet::new();
        let mut latest = 0;
        while seen.len() < count {
            let record = self.next(deadline)?;
            if record.kind == Kind::Started && seen.insert(record.id) {
                latest = latest.max(record.time);
            }
        }
        Some(latest)
    }
}

pub fn fifo(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o666))?)
}
