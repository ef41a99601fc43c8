//! The Hermes profiles of a home directory: the root profile `default`, which is the home itself, and each directory
//! of `profiles/` that holds a `SOUL.md`.

use crate::core::name::ServiceName;
use crate::definition::template::DEFAULT_PROFILE;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

pub const DIRECTORY: &str = "profiles";
/// What makes a directory a profile.
pub(super) const MARK: &str = "SOUL.md";
/// More warnings are counted, not listed: the directory's owner may be hostile.
const MOST_WARNINGS: usize = 20;

/// The profiles that there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Their services, sorted by profile, without the root profile, which is always there.
    pub named: Vec<ServiceName>,
    /// One line each, about what looks like a profile and is none.
    pub warnings: Vec<String>,
}

/// Looks through `<home>/profiles`. No such directory: no named profiles.
///
/// # Errors
/// As openat(2) and getdents64(2) for the directory itself; `PermissionDenied` when we cannot act as `user`.
pub fn discover(home: &Beneath, user: &Credentials) -> io::Result<Discovered> {
    user.on_files(|| {
        let directory = match home.dir(Path::new(DIRECTORY)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Discovered::default()),
            opened => opened?,
        };
        let mut found = Discovered::default();
        let mut left_out = 0usize;
        for name in directory.list()? {
            match look(&directory, &name) {
                Ok(Some(profile)) => found.named.push(profile),
                Ok(None) => {}
                Err(warning) if found.warnings.len() < MOST_WARNINGS => found.warnings.push(warning),
                Err(_) => left_out += 1,
            }
        }
        if left_out > 0 {
            found.warnings.push(format!("{left_out} more entries of {DIRECTORY}/ are no profiles"));
        }
        Ok(found)
    })?
}

/// Is there a profile `name` now?
///
/// # Errors
/// `PermissionDenied` when we cannot act as `user`.
pub fn exists(home: &Beneath, user: &Credentials, name: &ServiceName) -> io::Result<bool> {
    if name.as_str() == DEFAULT_PROFILE {
        return Ok(true);
    }
    user.on_files(|| {
        let directory = home.dir(Path::new(DIRECTORY));
        directory.is_ok_and(|directory| matches!(look(&directory, OsStr::new(name.profile())), Ok(Some(_))))
    })
}

/// The directory of the profile that the service of this name serves, relative to home.
pub fn directory_of(name: &ServiceName) -> PathBuf {
    match name.as_str() {
        DEFAULT_PROFILE => PathBuf::new(),
        _ => Path::new(DIRECTORY).join(name.profile()),
    }
}

/// Judges one entry: a profile, nothing, or something to warn about.
fn look(directory: &Beneath, name: &OsStr) -> Result<Option<ServiceName>, String> {
    let shown: String =
        name.to_string_lossy().chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    let profile = match directory.dir(Path::new(name)) {
        Ok(profile) => profile,
        Err(_) if rustix::fs::readlinkat(directory, name, Vec::new()).is_ok() => {
            return Err(format!("{DIRECTORY}/{shown} is a symbolic link, which is not followed: skipped"));
        }
        Err(error) => {
            return match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::NOENT) => Ok(None),
                _ => Err(format!("{DIRECTORY}/{shown} cannot be opened: {error}: skipped")),
            };
        }
    };
    if rustix::fs::statat(&profile, MARK, AtFlags::SYMLINK_NOFOLLOW).is_err() {
        return Ok(None);
    }
    match name.to_str().map(ServiceName::gateway_of) {
        Some(Ok(name)) if name.as_str() == DEFAULT_PROFILE => Err(format!(
            "{DIRECTORY}/{DEFAULT_PROFILE} is skipped: '{DEFAULT_PROFILE}' is the root profile, the home itself"
        )),
        Some(Ok(name)) => Ok(Some(name)),
        Some(Err(error)) => Err(format!("{DIRECTORY}/{shown} is skipped: {error}")),
        None => Err(format!("{DIRECTORY}/{shown} is skipped: its name is not UTF-8 text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(home: &Path, name: &str) -> PathBuf {
        let directory = home.join(DIRECTORY).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(MARK), "").unwrap();
        directory
    }

    fn found(home: &Path) -> Discovered {
        discover(&Beneath::open(home).unwrap(), &Credentials::own()).unwrap()
    }

    /// Upstream's reconciliation ends at a directory whose name is none; here that one is left out, with a warning.
    /// Contract: 47.
    #[test]
    fn profiles_are_the_sorted_directories_with_a_soul() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(found(home.path()), Discovered::default());
        for name in ["coder", "b", "default", "Big", "dashboard", "gateway-dashboard"] {
            profile(home.path(), name);
        }
        std::fs::create_dir(home.path().join("profiles/no-soul")).unwrap();
        std::fs::write(home.path().join("profiles/file"), "").unwrap();
        let found = found(home.path());
        assert_eq!(
            found.named.iter().map(ServiceName::as_str).collect::<Vec<_>>(),
            ["b", "coder", "gateway-dashboard"]
        );
        assert_eq!(found.warnings.len(), 3, "{found:?}");
        assert!(found.warnings[0].starts_with("profiles/Big is skipped: 'Big' is not a service name"));
        assert!(found.warnings[1].starts_with("profiles/default is skipped"));
        assert!(found.warnings[2].starts_with("profiles/gateway-dashboard is skipped: "), "{found:?}");
    }

    #[test]
    fn a_link_leads_nowhere() {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let target = profile(outside.path(), "x");
        std::fs::create_dir(home.path().join(DIRECTORY)).unwrap();
        std::os::unix::fs::symlink(&target, home.path().join("profiles/linked")).unwrap();
        let found = found(home.path());
        assert_eq!(found.named, []);
        assert_eq!(found.warnings, ["profiles/linked is a symbolic link, which is not followed: skipped"]);
        std::fs::remove_dir_all(home.path().join(DIRECTORY)).unwrap();
        std::os::unix::fs::symlink(outside.path().join(DIRECTORY), home.path().join(DIRECTORY)).unwrap();
        assert!(discover(&Beneath::open(home.path()).unwrap(), &Credentials::own()).is_err());
    }

    #[test]
    fn a_named_profile_is_looked_up_on_its_own() {
        let home = tempfile::tempdir().unwrap();
        profile(home.path(), "coder");
        let (home, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        for (name, there) in [("coder", true), ("default", true), ("typo", false)] {
            assert_eq!(exists(&home, &own, &ServiceName::new(name).unwrap()).unwrap(), there, "{name}");
        }
    }

    #[test]
    fn many_warnings_are_counted() {
        let home = tempfile::tempdir().unwrap();
        for n in 0..30 {
            profile(home.path(), &format!("X{n}"));
        }
        let found = found(home.path());
        assert_eq!(found.warnings.len(), MOST_WARNINGS + 1);
        assert_eq!(found.warnings.last().unwrap(), "10 more entries of profiles/ are no profiles");
    }
}
