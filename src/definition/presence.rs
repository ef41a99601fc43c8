//! Whether what a definition names outside itself exists here: its user, program, directory and env file.
//!
//! For `check`, which may run elsewhere or before the image is complete: a warning, never an error. What we may not look at is
//! taken to be there.

use super::environment::has_variables;
use super::parse::Mentioned;
use super::resolved::{Definition, EnvFile};
use super::users::{Surroundings, UserError};
use rustix::fs::{Access, AtFlags, CWD};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The sentence about what does not exist, or `None`. `search` is the PATH of a service whose definition has none. Blocks.
pub(super) fn absent(
    what: &Mentioned,
    definition: &Definition,
    search: &OsStr,
    surroundings: &Surroundings,
) -> Option<String> {
    // What it is to be only the environment of a supervisor says.
    let is_open = |text: &str| definition.has_variables && has_variables(text) != Ok(false);
    match what {
        Mentioned::Service { .. } => None,
        Mentioned::User => match surroundings.lookup(&definition.user) {
            Err(error @ UserError::Unknown(_)) => Some(error.to_string()),
            Err(UserError::NotRoot { .. } | UserError::NotTrusted { .. } | UserError::Database(_))
            | Ok(_) => None,
        },
        Mentioned::WorkingDir if is_open(&definition.working_dir.to_string_lossy()) => None,
        Mentioned::WorkingDir => match std::fs::metadata(&definition.working_dir) {
            Ok(found) if found.is_dir() => None,
            Ok(_) => Some(format!("'{}' is not a directory", definition.working_dir.display())),
            Err(error) => is_missing(&error)
                .then(|| format!("there is no directory '{}'", definition.working_dir.display())),
        },
        Mentioned::EnvFile(number) => {
            let EnvFile { path, optional: false } = definition.env_files.get(*number)? else { return None };
            let error = std::fs::metadata(path).err()?;
            is_missing(&error).then(|| format!("there is no file '{}'", path.display()))
        }
        Mentioned::Program => {
            let own = definition.env.get("PATH").map(OsString::from);
            let search = own.as_deref().unwrap_or(search);
            let program = definition.command.first().filter(|program| !is_open(program))?;
            if is_open(&search.to_string_lossy()) || is_open(&definition.working_dir.to_string_lossy()) {
                return None;
            }
            no_program(program, search, &definition.working_dir)
        }
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// As execvp(3) looks for it: a name with a slash is a path from the working directory, any other is searched for.
fn no_program(program: &str, search: &OsStr, working_dir: &Path) -> Option<String> {
    if program.contains('/') {
        let path = working_dir.join(program);
        return match std::fs::metadata(&path) {
            Err(error) => is_missing(&error).then(|| format!("there is no program '{}'", path.display())),
            Ok(found) if found.is_dir() => Some(format!("'{}' is a directory", path.display())),
            Ok(_) => (!is_executable(&path)).then(|| format!("'{}' is not executable", path.display())),
        };
    }
    let mut candidates = std::env::split_paths(search).map(|dir| working_dir.join(dir).join(program));
    let found = |path: PathBuf| path.is_file() && is_executable(&path);
    (!candidates.any(found))
        .then(|| format!("there is no program '{program}' in PATH ({})", search.to_string_lossy()))
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_the_kernel_will() {
        let path = OsStr::new("/nowhere:/bin:/usr/bin");
        let root = Path::new("/");
        assert_eq!(no_program("sh", path, root), None);
        assert_eq!(no_program("/bin/sh", path, root), None);
        assert_eq!(no_program("bin/sh", path, root), None);
        assert_eq!(
            no_program("sh", OsStr::new("/nowhere"), root).unwrap(),
            "there is no program 'sh' in PATH (/nowhere)"
        );
        assert_eq!(
            no_program("bin/sh", path, Path::new("/proc")).unwrap(),
            "there is no program '/proc/bin/sh'"
        );
        assert_eq!(no_program("/etc", path, root).unwrap(), "'/etc' is a directory");
        assert_eq!(no_program("/proc/version", path, root).unwrap(), "'/proc/version' is not executable");
    }
}
