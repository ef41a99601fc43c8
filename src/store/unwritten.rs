//! Why something is not recorded. Each is shown as one line that says what to do.

use super::OpenError;
use super::schema::RowError;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a change is not on the disk, or the state not closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{} has not answered for {patience:?}: check its volume", path.display())]
    Silent { path: PathBuf, patience: Duration },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the volume of {} is not mounted any more: mount it there again, recording then goes on by itself",
        .0.display()
    )]
    Unmounted(PathBuf),
    #[error("{} was moved again", .0.display())]
    MovedAgain(PathBuf),
    #[error("the state is not open")]
    NotOpen,
    #[error(transparent)]
    Row(#[from] RowError),
    /// With what the system said. The database itself is up to date.
    #[error("the wants are recorded, but their readable copy {} is not: {error}", path.display())]
    Mirror { path: PathBuf, error: String },
    #[error("the disk does not keep up, too many changes wait for it: check the state volume")]
    TooMany,
    #[error("the state was not closed within {0:?}: its disk does not answer")]
    NotClosed(Duration),
    #[error("the store is closed")]
    Closed,
    #[error("the store's thread has failed: restart the supervisor")]
    ThreadFailed,
    /// With what the panic said.
    #[error("a bug was met while it was written ({0}): ask again, and please report it")]
    Bug(String),
}

/// What the disk refuses, and for which file or directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    #[error("no space for {}: free some on its volume, recording then goes on by itself", .0.display())]
    NoSpace(PathBuf),
    #[error(
        "{} is on a read-only volume: mount it writable, recording then goes on by itself",
        .0.display()
    )]
    ReadOnly(PathBuf),
    #[error("the disk of {} reports an error: check it, and the kernel's log", .0.display())]
    Broken(PathBuf),
    #[error(
        "no permission for {}: give its directory to uid {uid} or choose another with --state",
        path.display()
    )]
    NotPermitted { path: PathBuf, uid: u32 },
    /// With what the system said.
    #[error("{} cannot be used: {error}", path.display())]
    Other { path: PathBuf, error: String },
}

impl DiskError {
    pub(super) fn new(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace(path),
            Some(Errno::ROFS) => Self::ReadOnly(path),
            Some(Errno::IO) => Self::Broken(path),
            Some(Errno::ACCESS | Errno::PERM) => {
                Self::NotPermitted { path, uid: rustix::process::geteuid().as_raw() }
            }
            Some(_) | None => Self::Other { path, error: error.to_string() },
        }
    }
}
