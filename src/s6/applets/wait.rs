//! Waiting for descriptors, or for a moment.

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;
use std::time::Instant;

/// Waits until one of `fds` has something to tell; false when `until` has come before that. Without a moment: for ever.
pub fn any(fds: &mut [PollFd<'_>], until: Option<Instant>) -> bool {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(fds, left.as_ref()) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            // An error belongs to a descriptor and shows where that is read.
            Ok(_) | Err(_) => return true,
        }
    }
}
