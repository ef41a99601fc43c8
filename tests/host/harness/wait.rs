//! Waiting with a deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that should take milliseconds: dozens of busy neighbours may share the machine. Times that must
/// not be waited for are hours in the stories.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where there is no event for a change (a foreign process's /proc entry, a state inside the supervisor), it is looked
/// at again this often. Never the whole of a wait: each look can end it.
const GLANCE: Duration = Duration::from_millis(15);

/// A look that takes long, such as one through all processes, is a load for the neighbours: between two of them passes so many times
/// as much.
const REST: u32 = 4;

/// A longer wait looks at the time so often.
const BEAT: Duration = Duration::from_secs(1);

/// Who wakes up so much later than it wanted did not run meanwhile, nor did its neighbours: that is no delay of theirs.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Waits until `fd` is readable or hung up. False at the deadline.
pub fn readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut deadline = Instant::now() + patience;
    loop {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now).min(BEAT);
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) => deadline += stood_still(now, left),
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// How much longer a wait took than it was to take, if nobody can have run meanwhile.
fn stood_still(since: Instant, wanted: Duration) -> Duration {
    let late = since.elapsed().saturating_sub(wanted);
    if late > STANDSTILL { late } else { Duration::ZERO }
}

/// Looks again after every change in `dir`, and now and then, until `look` finds something.
///
/// # Panics
/// At the deadline, saying what was waited for.
pub fn until<T>(what: &str, dir: &Path, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, dir, look).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// As [`until`], with its own deadline and without the panic.
pub fn within<T>(patience: Duration, dir: &Path, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut deadline = Instant::now() + patience;
    let watch =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
    let events = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE;
    // A directory that is not there yet is only glanced at.
    let _ = inotify::add_watch(&watch, dir, events);
    loop {
        let begun = Instant::now();
        if let Some(found) = look() {
            return Some(found);
        }
        let now = Instant::now();
        if now >= deadline {
            return None;
        }
        let glance = GLANCE.max((now - begun) * REST).min(BEAT);
        readable(watch.as_fd(), glance);
        deadline += stood_still(now, glance);
        let mut events = [0u8; 4096];
        while rustix::io::read(&watch, &mut events).is_ok_and(|count| count > 0) {}
    }
}

/// Waits for the end of a process that need not be our child. False at the deadline.
pub fn gone(pid: i32, patience: Duration) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return true };
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(fd) => readable(fd.as_fd(), patience),
        Err(_) => true,
    }
}
