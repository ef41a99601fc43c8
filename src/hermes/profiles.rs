//! The Hermes profiles of a home directory: the root profile `default`, which is the home itself, and each directory
//! of `profiles/` that holds a `SOUL.md`.

use crate::core::name::{NameError, ServiceName};
use crate::definition::template::DEFAULT_PROFILE;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

pub const DIRECTORY: &str = "profiles";
/// What makes a directory a profile.
pub(super) const MARK: &str = "SOUL.md";
/// More warnings are counted, not listed: the directory's owner may be hostile.
const MOST_WARNINGS: usize = 20;

/// Why what looks like a profile is none: one line, free of control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// With what the system said.
    #[error("{DIRECTORY}/ cannot be read: {0}")]
    Unread(String),
    #[error("{DIRECTORY}/{0} is a symbolic link, which is not followed: skipped")]
    Link(String),
    /// With what the system said.
    #[error("{DIRECTORY}/{name} cannot be opened: {error}: skipped")]
    Unopened { name: String, error: String },
    #[error(
        "{DIRECTORY}/{DEFAULT_PROFILE} is skipped: '{DEFAULT_PROFILE}' is the root profile, the home itself"
    )]
    Root,
    #[error("{DIRECTORY}/{name} is skipped: {error}")]
    Name { name: String, error: NameError },
    #[error("{DIRECTORY}/{0} is skipped: its name is not UTF-8 text")]
    NotText(String),
}

/// The profiles that there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Their services, sorted by profile, without the root profile, which is always there.
    pub named: Vec<ServiceName>,
    /// One line each, about what looks like a profile and is none.
    warnings: Vec<String>,
    /// More of them.
    left_out: usize,
}

impl Discovered {
    /// One entry more: a profile, nothing, or what is wrong with it.
    pub fn add(&mut self, judged: Result<Option<ServiceName>, ProfileError>) {
        match judged {
            Ok(profile) => self.named.extend(profile),
            Err(error) if self.warnings.len() < MOST_WARNINGS => self.warnings.push(error.to_string()),
            Err(_) => self.left_out += 1,
        }
    }

    /// One line each.
    pub fn into_warnings(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.warnings.push(format!("{} more entries of {DIRECTORY}/ are no profiles", self.left_out));
        }
        self.warnings
    }
}

/// `<home>/profiles` and the names in it, sorted. `None`: there is no such directory.
///
/// # Errors
/// As openat(2) and getdents64(2); `PermissionDenied` when we cannot act as `user`.
pub fn entries(home: &Beneath, user: &Credentials) -> io::Result<Option<(Beneath, Vec<OsString>)>> {
    user.on_files(|| match home.dir(Path::new(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.and_then(|directory| {
            let names = directory.list()?;
            Ok(Some((directory, names)))
        }),
    })?
}

/// The profile that one of the [`entries`] is, or nothing.
///
/// # Errors
/// [`ProfileError`].
pub fn judge(
    directory: &Beneath,
    user: &Credentials,
    name: &OsStr,
) -> Result<Option<ServiceName>, ProfileError> {
    let judged = user.on_files(|| look(directory, name));
    judged.unwrap_or_else(|error| Err(ProfileError::Unread(error.to_string())))
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
fn look(directory: &Beneath, name: &OsStr) -> Result<Option<ServiceName>, ProfileError> {
    let shown: String =
        name.to_string_lossy().chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    let profile = match directory.dir(Path::new(name)) {
        Ok(profile) => profile,
        Err(_) if rustix::fs::readlinkat(directory, name, Vec::new()).is_ok() => {
            return Err(ProfileError::Link(shown));
        }
        Err(error) => {
            return match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::NOENT) => Ok(None),
                _ => Err(ProfileError::Unopened { name: shown, error: error.to_string() }),
            };
        }
    };
    if rustix::fs::statat(&profile, MARK, AtFlags::SYMLINK_NOFOLLOW).is_err() {
        return Ok(None);
    }
    match name.to_str().map(ServiceName::gateway_of) {
        Some(Ok(name)) if name.as_str() == DEFAULT_PROFILE => Err(ProfileError::Root),
        Some(Ok(name)) => Ok(Some(name)),
        Some(Err(error)) => Err(ProfileError::Name { name: shown, error }),
        None => Err(ProfileError::NotText(shown)),
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
        let (home, own) = (Beneath::open(home).unwrap(), Credentials::own());
        let mut found = Discovered::default();
        if let Some((directory, names)) = entries(&home, &own).unwrap() {
            names.iter().for_each(|name| found.add(judge(&directory, &own, name)));
        }
        found
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
        assert!(entries(&Beneath::open(home.path()).unwrap(), &Credentials::own()).is_err());
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
        let warnings = found(home.path()).into_warnings();
        assert_eq!(warnings.len(), MOST_WARNINGS + 1);
        assert_eq!(warnings.last().unwrap(), "10 more entries of profiles/ are no profiles");
    }
}
