//! Why a service, its finish program or its hook is not started: one line.

use crate::containment::{HookError, SpawnError};
use crate::daemon::services::privileges::PrivilegeError;
use crate::daemon::surface::slots::SlotFault;
use crate::daemon::topics::profiles::WontStart;
use crate::definition::environment::{EnvFileError, ExpandError};
use crate::definition::users::UserError;
use crate::log::Refused;
use crate::sys::spawn::plan::PlanError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the service is gone")]
    Gone,
    #[error("its definition cannot be read now")]
    Unread,
    #[error("stopped before it was started")]
    Stopped,
    #[error(transparent)]
    Profile(#[from] WontStart),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Slot(#[from] SlotFault),
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// The thread that looks at files takes no more work.
    #[error(transparent)]
    Busy(#[from] Refused),
    /// The files could not be looked at.
    #[error(transparent)]
    Files(io::Error),
    #[error("failed to make the pipes of its log in {}: {}", dir.display(), full(error))]
    Pipes { dir: PathBuf, error: io::Error },
    #[error("failed to open its log: {0}")]
    Log(io::Error),
    #[error("failed to open /dev/null: {0}")]
    Null(io::Error),
    #[error(transparent)]
    Variable(#[from] ExpandError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error("failed to make its readiness pipe: {0}")]
    ReadinessPipe(io::Error),
    #[error("failed to make its notify socket: {0}")]
    NotifySocket(io::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// The pipes that a service writes into are files.
fn full(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "there is no space or no inode left".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_failed_and_where() {
        let error = io::Error::from(rustix::io::Errno::NOSPC);
        let pipes = LaunchError::Pipes { dir: "/run/x".into(), error };
        let said = "failed to make the pipes of its log in /run/x: there is no space or no inode left";
        assert_eq!(pipes.to_string(), said);
        let null = LaunchError::Null(io::Error::other("no luck"));
        assert_eq!(null.to_string(), "failed to open /dev/null: no luck");
    }
}
