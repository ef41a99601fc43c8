//! A command takes this process's place: how the applets that only prepare something end.

use super::applet::{Call, USAGE};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Executes `words` with `changes` to the environment; PATH is the changed one. Comes back only with the exit code for a
/// command that could not be executed: 127 when it is nowhere, else 126, as s6 and shells have it.
///
/// The command gets signals as a fresh process has them: SIGPIPE not ignored (this runtime does), none blocked.
pub fn exec(call: &mut Call<'_>, words: &[OsString], changes: Vec<(OsString, OsString)>) -> u8 {
    let Some((program, arguments)) = words.split_first() else {
        return call.fatal(USAGE, "there is no command to execute");
    };
    // Of two changes to one variable the later holds.
    let error = Command::new(program).args(arguments).envs(changes).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    call.fatal(code, &format!("unable to exec {}: {error}", program.display()))
}
