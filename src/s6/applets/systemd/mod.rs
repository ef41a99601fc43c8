//! `systemd-run` and `systemctl`, as far as a gateway uses them: to put a background worker into a scope with a memory
//! bound of its own, and to end or look at such a scope.
//!
//! ```text
//! systemd-run --user --scope [--quiet] [--collect] --unit NAME [--description TEXT] [--property K=V]… [--] COMMAND…
//! systemctl --user stop UNIT
//! systemctl --user show UNIT [--property A,B]… [--value]
//! ```
//!
//! Everything else is refused in one line with exit code 1. So a caller that asks whether there is a systemd here
//! (`is-system-running`, a unit of another type) is told that there is none. Where a scope is refused, nothing is executed: the
//! caller goes on without a scope. Options and exit codes are those of systemd-run(1) and systemctl(1).

mod ctl;
mod options;
mod run;
#[cfg(test)]
mod tests;

use super::applet::Call;
use crate::control::client::{Client, ClientError, Search};
use crate::control::protocol::{Part, Request, ScopeStatus};
use crate::core::unit::ScopeNameError;
pub use ctl::systemctl;
pub use run::systemd_run;
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

/// How long a supervisor may take to make or show a scope.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exit code of everything else that fails.
const FAILED: u8 = 1;

/// Why what was asked for is not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Words(#[from] WordsError),
    #[error(transparent)]
    Supervisor(#[from] ClientError),
    #[error("the supervisor's answer has no scope in it")]
    NoScope,
    #[error("failed to become a child subreaper: {0}")]
    Subreaper(Errno),
    #[error("failed to execute {}: {error}", program.display())]
    Exec { program: OsString, error: io::Error },
    #[error("{unit} is not empty after {} s: the kernel is still ending it, ask again", after.as_secs())]
    NotEmpty { unit: String, after: Duration },
    #[error("failed to {verb} {unit}: {error}")]
    Unit { verb: &'static str, unit: String, error: ClientError },
}

/// What is wrong with the words that were typed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum WordsError {
    #[error(
        "{0} is not supported: hermes-sup stands in for systemd-run with --user --scope --quiet --collect --unit \
         --description --property only"
    )]
    Run(String),
    #[error("only 'systemd-run --user --scope --unit NAME -- COMMAND' is supported")]
    NotAScope,
    #[error("name the scope with --unit NAME")]
    NoUnit,
    #[error(transparent)]
    Name(#[from] ScopeNameError),
    #[error("property '{assignment}' is not supported: {allowed}")]
    Property { assignment: String, allowed: &'static str },
    #[error("the command is missing: add it after '--'")]
    NoCommand,
    #[error(
        "{0} is not supported: hermes-sup stands in for systemctl with '--user stop UNIT.scope' and \
         '--user show UNIT.scope [--property A,B] [--value]' only"
    )]
    Control(String),
    #[error("name one unit: 'systemctl --user {verb} UNIT.scope'")]
    NotOneUnit { verb: String },
    #[error("the arguments are not UTF-8")]
    NotUtf8,
    #[error("'{}' is not UTF-8", .0.display())]
    WordNotUtf8(OsString),
    #[error("{option} takes no value, but got '{value}'")]
    Value { option: String, value: String },
    #[error("{option} needs a value")]
    NoValue { option: String },
}

fn failed(call: &mut Call<'_>, error: &Failure) -> u8 {
    call.console.error(&error.to_string());
    FAILED
}

/// Asks the supervisor; the scope that the answer has in it, if any.
fn ask(search: &Search, request: &Request, patience: Duration) -> Result<Option<ScopeStatus>, ClientError> {
    let mut scope = None;
    Client::connect(search)?.call(request, Some(patience), |part| {
        if let Part::Scope(found) = part {
            scope = Some(*found);
        }
    })?;
    Ok(scope)
}
