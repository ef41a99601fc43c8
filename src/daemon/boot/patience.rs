//! Work of a start that may hang with a disk: it is waited for, and not for ever.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long a start waits for a disk before it goes on without what is on it.
pub(in crate::daemon) const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// Does `work`, which may hang with a disk, on a thread of its own. `None`: it did not end in time, and goes on alone.
pub(in crate::daemon) fn with_patience<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel();
    // Without such a thread nothing will ever be sent, and the end of the sender tells that.
    let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(sender.send(work())));
    wait_for(&receiver)
}

/// Waits for [`DISK_PATIENCE`] in which we run: while we were stopped, or the machine slept, the disk had no time either.
pub(in crate::daemon) fn wait_for<T>(what: &Receiver<T>) -> Option<T> {
    const SLICE: Duration = Duration::from_millis(100);
    for _ in 0..DISK_PATIENCE.as_millis() / SLICE.as_millis() {
        match what.recv_timeout(SLICE) {
            Err(RecvTimeoutError::Timeout) => {}
            answered => return answered.ok(),
        }
    }
    None
}
