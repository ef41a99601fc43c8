//! `import`: definitions from what another supervisor was told: s6 service directories, supervisord programs, systemd units and
//! compose services.
//!
//! What is written passes `check`. What cannot be said in a definition is never dropped silently: it stands in a
//! comment of the file and on the error stream. Nothing is executed; files are read as the caller.

mod compose;
mod directory;
mod draft;
mod exec;
#[cfg(test)]
mod foreign_tests;
mod ini;
mod supervisord;
mod systemd;
#[cfg(test)]
mod tests;
mod unit;
mod yaml;

use crate::core::name::ServiceName;
use draft::{Draft, clean};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A variable of the environment, for `%(ENV_X)s` of supervisord and `${X}` of compose.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// One definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    pub name: ServiceName,
    /// TOML, with comments.
    pub text: String,
    /// Permission bits of the file: not more than what it was made from, for it may hold secrets.
    pub mode: u32,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub services: Vec<Imported>,
    /// What was not carried over, one sentence each.
    pub remarks: Vec<String>,
    /// What could not be imported at all, one sentence each.
    pub failures: Vec<String>,
}

/// What the readers gather before names are given.
#[derive(Debug, Default)]
struct Gathered {
    drafts: Vec<Draft>,
    remarks: Vec<String>,
    failures: Vec<String>,
}

impl Gathered {
    fn remark(&mut self, path: &Path, what: &str) {
        self.remarks.push(format!("{}: {}", path.display(), clean(what)));
    }

    fn fail(&mut self, path: &Path, what: &str) {
        self.failures.push(format!("{}: {}", path.display(), clean(what)));
    }
}

/// Reads every path: a directory is an s6 service directory, one of many, or one of units; a file is a unit or a compose file by its
/// name, and any other a supervisord.conf. Blocks on the file system.
pub fn import(paths: &[PathBuf], env: &Env<'_>) -> Outcome {
    let mut gathered = Gathered::default();
    for (scope, path) in paths.iter().enumerate() {
        let read = std::path::absolute(path).and_then(|path| Ok((std::fs::metadata(&path)?.is_dir(), path)));
        match read {
            Ok((true, path)) if systemd::directory(&path, &mut gathered) => {}
            Ok((true, path)) => directory::import(&path, scope, &mut gathered),
            Ok((false, path)) if systemd::is_unit(&path) => systemd::import(&path, &mut gathered),
            Ok((false, path)) if compose::is_compose(&path) => {
                compose::import(&path, scope, env, &mut gathered);
            }
            Ok((false, path)) => supervisord::import(&path, scope, env, &mut gathered),
            Err(error) => gathered.fail(path, &format!("cannot be read: {error}")),
        }
    }
    draft::finish(gathered)
}

/// Writes `NAME.toml` into `dir`, which is made if it is missing. Gives its path, and whether it was written now: the
/// same file may be there already.
///
/// # Errors
/// `AlreadyExists` for a different file of that name, which is left alone; otherwise as open(2) and write(2).
pub fn write(dir: &Path, service: &Imported) -> io::Result<(PathBuf, bool)> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{}.toml", service.name));
    match OpenOptions::new().write(true).create_new(true).mode(service.mode).open(&path) {
        Ok(mut file) => {
            let written = file.write_all(service.text.as_bytes());
            if written.is_err() {
                // Half a definition must not be taken for a whole one.
                let _ = std::fs::remove_file(&path);
            }
            written.map(|()| (path, true))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if crate::s6::bundle::text(&path).is_ok_and(|there| there == service.text) {
                return Ok((path, false));
            }
            let why = "is there already and differs; remove it, or choose another directory";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
        }
        Err(error) => Err(error),
    }
}
