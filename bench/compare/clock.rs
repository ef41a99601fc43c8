//! The clock of the test service (CLOCK_MONOTONIC, ns), and the only way the harness lets time pass: a window on it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The moment that is so far away.
pub fn after(patience: Duration) -> u64 {
    now() + u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Waits until one of `fds` has something for `events`, or until the deadline (ns). The index of one that has.
pub fn wait_any(fds: &[BorrowedFd<'_>], events: PollFlags, deadline: u64) -> Option<usize> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, events)).collect();
    loop {
        let left = Duration::from_nanos(deadline.saturating_sub(now()));
        match poll(&mut polled, Some(&timespec(left))) {
            Ok(0) => return None,
            Ok(_) => return polled.iter().position(|fd| !fd.revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// A window of time during which the machine is watched; no measure of anything else.
pub fn window(length: Duration) {
    wait_any(&[], PollFlags::IN, after(length));
}
