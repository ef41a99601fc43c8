//! From a service directory, as typed, to the name that the supervisor knows the slot by.
//!
//! A slot is an entry of the scan directory and is named by that entry: a link in it is not followed for its name
//! (`/run/service/dashboard` is the slot `dashboard`, wherever it leads). Any other path to the same directory means
//! the same slot. Whether the supervisor knows such a slot is the supervisor's answer; nothing has to exist here.

use crate::cli::settings::Env;
use crate::core::name::{GATEWAY_PREFIX, MAIN_HERMES};
use crate::s6::SCAN_DIRECTORY;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Names another one.
pub const SCAN_DIR_VARIABLE: &str = "HERMES_SUP_SCAN_DIR";

/// The scan directory, absolute and without a trailing slash.
pub fn scan_dir(env: &Env<'_>) -> PathBuf {
    let named = env(SCAN_DIR_VARIABLE).filter(|dir| !dir.is_empty());
    lexical(Path::new(&named.unwrap_or_else(|| SCAN_DIRECTORY.into())))
}

/// Whether `dir` is the scan directory, by name or by what it leads to.
pub fn is_scan_dir(dir: &Path, env: &Env<'_>) -> bool {
    let scan_dir = scan_dir(env);
    lexical(dir) == scan_dir || identity(dir).is_some_and(|found| Some(found) == identity(&scan_dir))
}

/// A directory is none of the slots.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no slot of {}", scan_dir.display())]
pub struct NoSlot {
    scan_dir: PathBuf,
}

/// A slot of the scan directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
}

impl Slot {
    /// The slot that `dir` is.
    ///
    /// # Errors
    /// [`NoSlot`].
    pub fn of(dir: &Path, env: &Env<'_>) -> Result<Self, NoSlot> {
        let scan_dir = scan_dir(env);
        let path = lexical(dir);
        let found = match path.file_name().filter(|_| path.parent() == Some(&scan_dir)) {
            Some(name) => Some(name.to_owned()),
            None => same_entry(&scan_dir, dir),
        };
        let name = found
            .as_deref()
            .and_then(OsStr::to_str)
            // As s6-svscan: what begins with a dot is not looked at.
            .filter(|name| !name.starts_with('.'))
            .map(str::to_owned);
        name.map(|name| Self { name }).ok_or(NoSlot { scan_dir })
    }

    /// It has nothing to do, and is up as long as the supervisor is.
    pub fn is_virtual(&self) -> bool {
        self.name == MAIN_HERMES
    }

    /// A gateway of a Hermes profile.
    pub fn is_gateway(&self) -> bool {
        self.name.starts_with(GATEWAY_PREFIX)
    }
}

/// The entry of the scan directory that leads to the same directory as `dir`: for `.`, and for paths through links.
fn same_entry(scan_dir: &Path, dir: &Path) -> Option<std::ffi::OsString> {
    let wanted = identity(dir)?;
    let entries = std::fs::read_dir(scan_dir).ok()?.flatten();
    entries.filter(|entry| identity(&entry.path()) == Some(wanted)).map(|entry| entry.file_name()).min()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Absolute, without `.`, `..` and trailing slashes, without a look at the disk.
fn lexical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::fs::symlink;

    fn name(dir: impl AsRef<Path>, scan_dir: &Path) -> Option<String> {
        let scan_dir = scan_dir.to_owned().into_os_string();
        let env = move |key: &str| (key == SCAN_DIR_VARIABLE).then(|| scan_dir.clone());
        Slot::of(dir.as_ref(), &env).ok().map(|slot| slot.name)
    }

    #[test]
    fn a_slot_is_named_by_its_entry_in_the_scan_directory() {
        let none = |_: &str| None::<OsString>;
        for (dir, named) in [
            ("/run/service/gateway-coder", Some("gateway-coder")),
            ("/run/service/gateway-coder/", Some("gateway-coder")),
            ("/run/service/./gateway-coder//", Some("gateway-coder")),
            ("/run/service/x/../dashboard", Some("dashboard")),
            ("/run/service", None),
            ("/run/service/coder/log", None),
            ("/tmp/gateway-coder", None),
            ("/run/service/.gateway-x.tmp", None),
            ("", None),
        ] {
            let found = Slot::of(Path::new(dir), &none);
            assert_eq!(found.as_ref().ok().map(|slot| slot.name.as_str()), named, "{dir}: {found:?}");
        }
        let wrong = Slot::of(Path::new("/tmp/gateway-coder"), &none).unwrap_err();
        assert_eq!(wrong.to_string(), "it is no slot of /run/service");
    }

    #[test]
    fn a_link_is_named_by_itself_and_what_it_leads_to_is_the_same_slot() {
        let place = tempfile::tempdir().unwrap();
        let scan = place.path().join("service");
        std::fs::create_dir_all(scan.join("coder")).unwrap();
        let elsewhere = place.path().join("servicedirs/dashboard");
        std::fs::create_dir_all(&elsewhere).unwrap();
        symlink(&elsewhere, scan.join("dashboard")).unwrap();
        symlink(&scan, place.path().join("link")).unwrap();
        assert_eq!(name(scan.join("dashboard"), &scan).as_deref(), Some("dashboard"));
        assert_eq!(name(&elsewhere, &scan).as_deref(), Some("dashboard"));
        assert_eq!(name(place.path().join("link/coder"), &scan).as_deref(), Some("coder"));
        assert_eq!(name(place.path().join("link/nobody"), &scan), None);
        assert_eq!(name(place.path(), &scan), None);
    }

    #[test]
    fn the_scan_directory_is_known_by_any_of_its_names() {
        let place = tempfile::tempdir().unwrap();
        let scan = place.path().join("service");
        std::fs::create_dir(&scan).unwrap();
        symlink(&scan, place.path().join("link")).unwrap();
        let value = scan.clone().into_os_string();
        let env = move |key: &str| (key == SCAN_DIR_VARIABLE).then(|| value.clone());
        for (dir, is_it) in
            [("service", true), ("service/", true), ("link", true), ("", false), ("no", false)]
        {
            assert_eq!(is_scan_dir(&place.path().join(dir), &env), is_it, "{dir}");
        }
        assert!(is_scan_dir(Path::new("/run/service/"), &|_| None), "it need not exist");
    }
}
