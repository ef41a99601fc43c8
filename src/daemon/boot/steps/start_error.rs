//! Why a supervisor does not start: one line that says what to do, and an exit code.

use crate::containment::{EndError, ProbeError, Rung};
use crate::control::server::ListenError;
use crate::core::signal::Signal;
use crate::daemon::main_program::{MainProgramError, NOT_FOUND};
use crate::definition::users::UserError;
use crate::store::{Holder, OpenError};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum StartError {
    #[error("there is no program '{0}' here")]
    NoCommand(String),
    #[error("HERMES_SUP_GATEWAYS=off and 'gateway run' contradict each other: leave one of them out")]
    GatewaysOff,
    #[error(transparent)]
    User(#[from] UserError),
    #[error(
        "root cannot run anything as '{user}' here: start the container with {}, or with --user {uid}:{gid}",
        missing.join(" ")
    )]
    Powerless { user: String, missing: Vec<String>, uid: u32, gid: u32 },
    #[error("{} is not a directory: name another --home", home.display())]
    HomeIsNoDirectory { home: PathBuf },
    #[error(
        "{home} belongs to uid {owner}, but services run as '{user}' (uid {uid}): 'chown -R {uid}:{gid} {home}' once, or \
         name its owner with --gateway-user"
    )]
    ForeignHome { home: String, owner: u32, user: String, uid: u32, gid: u32 },
    #[error(
        "{home} belongs to uid {owner} and cannot be written by uid {uid}: 'chown -R {uid} {home}' once, or start as its \
         owner"
    )]
    ClosedHome { home: String, owner: u32, uid: u32 },
    #[error("{} cannot be {what}: {error}: name another --home", home.display())]
    Home { home: PathBuf, what: &'static str, error: io::Error },
    #[error("failed to {what}: {error}")]
    Kernel { what: &'static str, error: io::Error },
    #[error(transparent)]
    State(#[from] OpenError),
    #[error("{} is in use by another supervisor ({holder}) and cannot be claimed: {error}", path.display())]
    Unclaimable { path: PathBuf, holder: Box<Holder>, error: io::Error },
    #[error("{} is claimed by another container with 'gateway run' already", .0.display())]
    Claimed(PathBuf),
    #[error(
        "{} is in use by another supervisor ({holder}), which was asked to give it up and has not within {patience:?}: \
         stop that container",
        path.display()
    )]
    NotGivenUp { path: PathBuf, holder: Box<Holder>, patience: Duration },
    /// No failure: somebody did not want to wait.
    #[error("{signal} received while waiting for {}", path.display())]
    ToldToEnd { signal: Signal, path: PathBuf },
    #[error(transparent)]
    Socket(#[from] ListenError),
    #[error(
        "{} is in use by another supervisor{}, although nothing has it locked: stop that one first",
        state.display(),
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Unlocked { state: PathBuf, pid: Option<i32> },
    #[error("{} cannot be {what}: {error}: choose a place with --socket", dir.display())]
    RuntimeDirectory { dir: PathBuf, what: &'static str, error: io::Error },
    #[error("{} is in the way: remove it, or choose another place with --socket", .0.display())]
    InTheWay(PathBuf),
    #[error(transparent)]
    Containment(#[from] ProbeError),
    #[error("failed to take possession of containment '{rung}': {error}")]
    Possession { rung: Rung, error: io::Error },
    #[error(transparent)]
    Predecessor(#[from] EndError),
    #[error(transparent)]
    MainProgram(#[from] MainProgramError),
    #[error("start it again, and report what was said above")]
    PanicsAgain,
}

impl StartError {
    /// Of a call to the kernel; `what` follows "failed to".
    pub(in crate::daemon) fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Kernel { what, error }
    }

    pub(in crate::daemon) fn exit_code(&self) -> u8 {
        match self {
            Self::NoCommand(_) => NOT_FOUND,
            Self::ToldToEnd { .. } => 0,
            Self::PanicsAgain => crate::daemon::boot::BUG,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_what_to_do_and_only_some_have_a_code_of_their_own() {
        let home = "/opt/data".to_owned();
        let foreign = StartError::ForeignHome {
            home: home.clone(),
            owner: 7,
            user: "hermes".to_owned(),
            uid: 10000,
            gid: 10001,
        };
        assert_eq!(
            foreign.to_string(),
            "/opt/data belongs to uid 7, but services run as 'hermes' (uid 10000): 'chown -R 10000:10001 /opt/data' once, \
             or name its owner with --gateway-user"
        );
        let missing = vec!["--cap-add SETUID".to_owned(), "--cap-add KILL".to_owned()];
        let powerless = StartError::Powerless { user: "hermes".to_owned(), missing, uid: 1, gid: 2 };
        assert!(powerless.to_string().ends_with("with --cap-add SETUID --cap-add KILL, or with --user 1:2"));
        let unlocked = StartError::Unlocked { state: home.clone().into(), pid: Some(9) };
        assert!(
            unlocked.to_string().starts_with("/opt/data is in use by another supervisor (pid 9), although")
        );
        let ended = StartError::ToldToEnd { signal: Signal::TERM, path: home.into() };
        let codes =
            [ended, StartError::NoCommand("x".to_owned()), StartError::GatewaysOff, StartError::PanicsAgain];
        assert_eq!(codes.map(|error| error.exit_code()), [0, 127, 1, 101]);
    }
}
