//! A command takes this process's place: how the applets that only prepare something end.

use super::applet::{Call, USAGE};
use crate::definition::trust::is_roots_alone;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Executes `words` with `changes` to the environment; PATH is the changed one. Comes back only with the exit code for a
/// command that could not be executed: 127 when it is nowhere, else 126, as s6 and shells have it.
///
/// The command gets signals as a fresh process has them: SIGPIPE not ignored (this runtime does), none blocked.
pub fn exec(call: &mut Call<'_>, words: &[OsString], changes: Vec<(OsString, OsString)>) -> u8 {
    let Some((program, arguments)) = words.split_first() else {
        return call.fatal(USAGE, "there is no command to execute");
    };
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() && !program.as_encoded_bytes().contains(&b'/') {
        // Of two changes to one variable the later holds.
        let changed = changes.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
        let path = changed.or_else(|| (call.env)("PATH")).unwrap_or_default();
        let Some(file) = of_root(program, &path, is_roots_alone) else {
            let shown = program.display();
            let why = "it is in no directory of PATH that only root can write";
            return call.fatal(127, &format!("unable to exec {shown}: {why}: name it by its path"));
        };
        command = Command::new(file);
        command.arg0(program);
    }
    let error = command.args(arguments).envs(changes).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    call.fatal(code, &format!("unable to exec {}: {error}", program.display()))
}

/// The first executable file of that name in a directory of PATH that counts. The PATH of the Hermes image begins with
/// one that the gateway user can write: root must find no `sh` there.
fn of_root(program: &OsStr, path: &OsStr, counts: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| (dir.join(program), dir))
        .find(|(file, dir)| runs(file) && counts(dir))
        .map(|(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_finds_programs_only_where_nobody_else_can_put_them() {
        let [open, closed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for dir in [&open, &closed] {
            let file = dir.path().join("sh");
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
        std::fs::write(closed.path().join("data"), "").unwrap();
        let path = std::env::join_paths([open.path(), closed.path()]).unwrap();
        let find = |name: &str| of_root(OsStr::new(name), &path, |dir| dir == closed.path());
        assert_eq!(find("sh"), Some(closed.path().join("sh")));
        assert_eq!(find("data"), None, "it cannot be executed");
        assert_eq!(of_root(OsStr::new("sh"), OsStr::new("."), |_| true), None, "where we happen to be");
        assert!(is_roots_alone(Path::new("/usr/bin")));
        assert!(!is_roots_alone(Path::new("/tmp")) && !is_roots_alone(open.path()));
    }
}
