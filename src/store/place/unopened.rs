//! Why the state directory, or the lock in it, cannot be had.

use rustix::io::Errno;
use std::io;

/// Why a state directory, or the lock in it, cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Unopened {
    /// There is none, so nobody else can have it either, and none can be made.
    #[error("{0}")]
    Missing(#[source] io::Error),
    /// Somebody else may have it.
    #[error("{0}")]
    Unknown(#[source] io::Error),
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        if is_missing(&error) { Self::Missing(error) } else { Self::Unknown(error) }
    }
}

impl From<Unopened> for io::Error {
    fn from(error: Unopened) -> Self {
        match error {
            Unopened::Missing(error) | Unopened::Unknown(error) => error,
        }
    }
}

impl From<Errno> for Unopened {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Whether the error means that nothing of ours is there. An error without a number is our own, about something that is
/// not as we would make it.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error().is_none_or(|number| {
        matches!(
            Errno::from_raw_os_error(number),
            Errno::NOENT
                | Errno::ROFS
                | Errno::NOSPC
                | Errno::DQUOT
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::INVAL
                | Errno::BUSY
        )
    })
}
