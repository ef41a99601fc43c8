//! A command takes this process's place: how the applets that only prepare something end.

use super::applet::{Call, USAGE};
use crate::definition::programs;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Executes `words` with `changes` to the environment; PATH is the changed one. Comes back only with the exit code for a
/// command that could not be executed: 127 when it is nowhere, else 126, as s6 and shells have it.
///
/// The command gets signals as a fresh process has them: SIGPIPE not ignored (this runtime does), none blocked.
pub fn exec(call: &mut Call<'_>, words: &[OsString], mut changes: Vec<(OsString, OsString)>) -> u8 {
    let Some((program, arguments)) = words.split_first() else {
        return call.fatal(USAGE, "there is no command to execute");
    };
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        // Of two changes to one variable the later holds.
        let changed = changes.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
        let path = changed.or_else(|| (call.env)("PATH")).unwrap_or_default();
        let path = programs::path_of(&path, 0);
        if !program.as_encoded_bytes().contains(&b'/') {
            let Some(file) = of_root(program, &path) else {
                let shown = program.display();
                let why = "it is in no directory of PATH that only root can write";
                return call.fatal(127, &format!("unable to exec {shown}: {why}: name it by its path"));
            };
            command = Command::new(file);
            command.arg0(program);
        }
        // What it executes in its turn is root's, too.
        changes.push(("PATH".into(), path));
    }
    let error = command.args(arguments).envs(changes).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    call.fatal(code, &format!("unable to exec {}: {error}", program.display()))
}

/// The first executable file of that name in a directory of root's PATH.
fn of_root(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|dir| dir.join(program)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn root_finds_programs_only_where_nobody_else_can_put_them() {
        let open = tempfile::tempdir().unwrap();
        for (name, mode) in [("sh", 0o755), ("data", 0o644)] {
            let file = open.path().join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        }
        let here = open.path().as_os_str();
        assert_eq!(of_root(OsStr::new("sh"), here), Some(open.path().join("sh")));
        assert_eq!(of_root(OsStr::new("data"), here), None, "it cannot be executed");
        // Below /tmp, which all can write, root looks nothing up.
        let path = std::env::join_paths([open.path(), Path::new("/usr/bin")]).unwrap();
        let found = of_root(OsStr::new("sh"), &programs::path_of(&path, 0));
        assert_eq!(found, Some(PathBuf::from("/usr/bin/sh")));
    }
}
