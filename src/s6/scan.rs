//! A scan directory: which slots it holds, and how far they may be believed.
//!
//! Where anybody but root can write, no slot is root's, whatever its own files look like ([`Slot::root_owned`] is then
//! false): the owner of the directory can rename a slot of root's and plant another. Such a directory is read with the
//! owner's file credentials, and a slot of a third user is refused, for it would run with the owner's rights.

use super::slot::{self, Slot, SlotNameError};
use crate::definition::trust::{Place, Trust};
use crate::definition::users::Surroundings;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Most slots of one scan directory.
pub const MOST_SLOTS: usize = 10_000;
/// Most warnings of one scan; the rest is counted.
const MOST_WARNINGS: usize = 100;

/// An open scan directory.
#[derive(Debug)]
pub struct ScanDir {
    dir: Beneath,
    path: PathBuf,
    trust: Trust,
    surroundings: Surroundings,
}

/// One slot, opened once: what is executed relative to `dir` is what was judged.
#[derive(Debug)]
pub struct Opened {
    pub dir: Beneath,
    pub slot: Slot,
    /// What in it is malformed, one sentence a file.
    pub warnings: Vec<String>,
}

/// What a scan directory holds. No descriptor is kept.
#[derive(Debug, Default)]
pub struct Scan {
    pub slots: BTreeMap<String, Slot>,
    /// Those that the system does not let us read now.
    pub unread: BTreeSet<String>,
    /// At most a hundred sentences, and then one that counts the rest.
    pub warnings: Vec<String>,
}

/// Why there is no slot of that name.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error(transparent)]
    Name(#[from] SlotNameError),
    #[error("{path}: is not a slot: it is no directory", path = .0.display())]
    NotADirectory(PathBuf),
    #[error("{path}: is a symbolic link, which counts only where nobody but root can write: {reason}", path = .path.display())]
    Link { path: PathBuf, reason: String },
    #[error("{path}: belongs to uid {uid}, not to '{owner}' nor to root: chown it, if you trust it", path = .path.display())]
    Stranger { path: PathBuf, uid: u32, owner: String },
    #[error("{path}: somebody else than root can change it, and here it would run as root: chown it and chmod go-w it, if you trust it, or name another --gateway-user", path = .0.display())]
    NotRoots(PathBuf),
    #[error("{path}: {error}", path = .path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl ScanDir {
    /// Opens the scan directory `path` (absolute), whose slots run as the gateway user of `surroundings` unless only
    /// root can write it.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open(path: &Path, surroundings: &Surroundings) -> io::Result<Self> {
        // Only root counts here, not our own user: the question is what may run as root.
        let judge = Surroundings { own_uid: 0, ..surroundings.clone() };
        let place = Place::open(path, &judge)?;
        let trust = place.trust().clone();
        refuse_for_root(&trust, surroundings)?;
        Ok(Self { dir: place.into_dir()?, path: path.to_owned(), trust, surroundings: surroundings.clone() })
    }

    /// Nobody but root can change it, nor any directory on the way to it.
    pub fn is_root_only(&self) -> bool {
        self.trust == Trust::Trusted
    }

    pub fn dir(&self) -> &Beneath {
        &self.dir
    }

    /// Every slot, in the order of their names. Names that begin with a dot, and those of `others`, are skipped silently;
    /// what is no slot is a warning. Blocks on the file system, never on a FIFO.
    ///
    /// # Errors
    /// When the directory itself cannot be read.
    pub fn scan(&self, others: &BTreeSet<OsString>) -> io::Result<Scan> {
        let mut names = self.act(|| self.dir.list())?;
        names.retain(|name| !name.as_encoded_bytes().starts_with(b".") && !others.contains(name));
        let mut scan = Scan::default();
        let mut untold = 0;
        let mut warn = |warning: String| match scan.warnings.len() {
            0..MOST_WARNINGS => scan.warnings.push(warning),
            _ => untold += 1,
        };
        if names.len() > MOST_SLOTS {
            let count = names.len();
            warn(format!(
                "{}: holds {count} entries; only the first {MOST_SLOTS} are read",
                self.path.display()
            ));
            names.truncate(MOST_SLOTS);
        }
        for name in names {
            match self.slot(&name) {
                Ok(opened) => {
                    opened.warnings.into_iter().for_each(&mut warn);
                    // The name was checked by `slot`.
                    scan.slots.insert(name.to_string_lossy().into_owned(), opened.slot);
                }
                // It was removed since the names were read.
                Err(SlotError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // An error without a number is our own judgement.
                    if matches!(&error, SlotError::Io { error, .. } if error.raw_os_error().is_some()) {
                        scan.unread.insert(name.to_string_lossy().into_owned());
                    }
                    warn(error.to_string());
                }
            }
        }
        if untold > 0 {
            scan.warnings.push(format!("{}: {untold} more warnings", self.path.display()));
        }
        Ok(scan)
    }

    /// Opens and reads one slot.
    ///
    /// # Errors
    /// [`SlotError`]; its `Io` with `NotFound` when there is none of that name.
    pub fn slot(&self, name: &OsString) -> Result<Opened, SlotError> {
        slot::slot_name(name)?;
        let path = self.path.join(name);
        let failed = |error| SlotError::Io { path: path.clone(), error };
        let name = Path::new(name);
        let stat = self
            .act(|| Ok(rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
            .map_err(failed)?;
        let (dir, trust) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (self.act(|| self.dir.dir(name)).map_err(failed)?, self.trust.clone()),
            FileType::Symlink => self.linked(&path)?,
            _ => return Err(SlotError::NotADirectory(path)),
        };
        if trust != Trust::Trusted {
            self.refuse_stranger(&dir, &path)?;
        }
        let (mut slot, warnings) = self.act(|| slot::read(&dir)).map_err(failed)?;
        // Where the gateway user is root, whatever is run is run as root.
        if self.surroundings.gateway.uid == 0 && !slot.root_owned {
            return Err(SlotError::NotRoots(path));
        }
        slot.root_owned &= trust == Trust::Trusted;
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok(Opened { dir, slot, warnings })
    }

    /// Follows a link that only root can have put there; where it leads is judged anew.
    fn linked(&self, path: &Path) -> Result<(Beneath, Trust), SlotError> {
        if let Some(reason) = self.trust.reason() {
            return Err(SlotError::Link { path: path.to_owned(), reason: reason.to_owned() });
        }
        let judge = Surroundings { own_uid: 0, ..self.surroundings.clone() };
        let place =
            Place::open(path, &judge).map_err(|error| SlotError::Io { path: path.to_owned(), error })?;
        let trust = place.trust().clone();
        let failed = |error| SlotError::Io { path: path.to_owned(), error };
        refuse_for_root(&trust, &self.surroundings).map_err(failed)?;
        Ok((place.into_dir().map_err(failed)?, trust))
    }

    /// In a directory that several can write, the slot and its `run` must be the gateway user's, root's or ours.
    fn refuse_stranger(&self, dir: &Beneath, path: &Path) -> Result<(), SlotError> {
        let gateway = &self.surroundings.gateway;
        let failed = |error| SlotError::Io { path: path.to_owned(), error };
        let own = |stat: &Stat| stat.st_uid == gateway.uid || self.surroundings.is_trusted_owner(stat.st_uid);
        let stranger = |stat: &Stat, path: PathBuf| {
            let owner = gateway.name.clone();
            Err(SlotError::Stranger { path, uid: stat.st_uid, owner })
        };
        let stat = rustix::fs::fstat(dir).map_err(|error| failed(error.into()))?;
        if !own(&stat) {
            return stranger(&stat, path.to_owned());
        }
        for file in ["run", "finish"] {
            let found = self.act(|| slot::stat_beneath(dir, Path::new(file))).map_err(failed)?;
            if let Some(stat) = found.filter(|stat| !own(stat)) {
                return stranger(&stat, path.join(file));
            }
        }
        Ok(())
    }

    /// With our own credentials where only root can write, else with the owner's: the kernel then refuses us what the
    /// owner could not have done either.
    fn act<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.trust {
            Trust::Trusted => work(),
            Trust::Untrusted(_) | Trust::Stranger(_) => self.owner().on_files(work)?,
        }
    }

    fn owner(&self) -> Credentials {
        self.surroundings.gateway.credentials()
    }
}

/// Where the gateway user is root, a directory that a stranger can change is none to take slots from.
fn refuse_for_root(trust: &Trust, surroundings: &Surroundings) -> io::Result<()> {
    match trust {
        Trust::Stranger(reason) if surroundings.gateway.uid == 0 => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("somebody else can put services there, and here they would run as root: {reason}"),
        )),
        Trust::Trusted | Trust::Untrusted(_) | Trust::Stranger(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::users::nameless;
    use rustix::fs::{CWD, Mode};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// The gateway user is the user of the test.
    fn surroundings() -> Surroundings {
        let own_uid = rustix::process::geteuid().as_raw();
        Surroundings {
            home: PathBuf::from("/nonexistent-home"),
            gateway: nameless(own_uid, own_uid),
            own_uid,
        }
    }

    fn slot_dir(root: &Path, name: &str) -> PathBuf {
        let dir = root.join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("run"), "").unwrap();
        for path in [&dir, &dir.join("run")] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        dir
    }

    #[test]
    fn slots_are_listed_and_everything_else_is_skipped_or_named() {
        let root = tempfile::tempdir().unwrap();
        slot_dir(root.path(), "web");
        slot_dir(root.path(), "gateway-coder");
        slot_dir(root.path(), ".gateway-new.tmp");
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), root.path().join("link")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        rustix::fs::mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::create_dir(root.path().join(OsString::from_vec(b"a\xff".to_vec()))).unwrap();
        let scan = ScanDir::open(root.path(), &surroundings()).unwrap();
        assert!(!scan.is_root_only(), "/tmp can be written by all");
        let found = scan.scan(&BTreeSet::new()).unwrap();
        assert_eq!(found.slots.keys().collect::<Vec<_>>(), ["gateway-coder", "web"]);
        assert!(found.slots.values().all(|slot| !slot.root_owned));
        assert_eq!(found.warnings.len(), 4, "{:#?}", found.warnings);
        for word in ["link: is a symbolic link", "file: is not a slot", "fifo: is not a slot", "not UTF-8"] {
            assert!(found.warnings.iter().any(|line| line.contains(word)), "{word}");
        }
        let missing = scan.slot(&OsString::from("nothing")).unwrap_err();
        assert!(matches!(missing, SlotError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound));
        for bad in ["..", "a/b", ""] {
            assert!(matches!(scan.slot(&OsString::from(bad)), Err(SlotError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn where_only_root_can_write_links_count_and_slots_may_be_roots() {
        if !is_root() {
            return; // Such a directory is root's to make; the host tier runs this as root.
        }
        // /run, unlike /tmp, is root's alone.
        let root = tempfile::tempdir_in("/run").unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (scandir, servicedirs) = (root.path().join("service"), root.path().join("servicedirs"));
        std::fs::create_dir(&scandir).unwrap();
        std::fs::create_dir(&servicedirs).unwrap();
        slot_dir(&scandir, "plain");
        slot_dir(&servicedirs, "linked");
        symlink("../servicedirs/linked", scandir.join("linked")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(slot_dir(elsewhere.path(), "loose"), scandir.join("loose")).unwrap();
        symlink("nowhere", scandir.join("dangling")).unwrap();
        let scan = ScanDir::open(&scandir, &surroundings()).unwrap();
        assert!(scan.is_root_only());
        let found = scan.scan(&BTreeSet::new()).unwrap();
        let roots: Vec<(&str, bool)> =
            found.slots.iter().map(|(name, slot)| (name.as_str(), slot.root_owned)).collect();
        assert_eq!(roots, [("linked", true), ("loose", false), ("plain", true)]);
        // The same slots are nobody's in particular once somebody else owns the scan directory.
        chown(&scandir, Some(65534), None).unwrap();
        let others = Surroundings { gateway: nameless(65534, 65534), ..surroundings() };
        let found = ScanDir::open(&scandir, &others).unwrap().scan(&BTreeSet::new()).unwrap();
        assert!(!found.slots["plain"].root_owned);
        assert_eq!(found.slots.len(), 1, "links no longer count");
    }

    #[test]
    fn a_slot_of_a_third_user_is_refused_and_what_the_owner_cannot_read_is_not_read() {
        if !is_root() {
            return; // Only root can give files away; the host tier runs this as root.
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let theirs = slot_dir(root.path(), "theirs");
        chown(&theirs, Some(12345), None).unwrap();
        let run = slot_dir(root.path(), "run-is-theirs").join("run");
        chown(run, Some(12345), None).unwrap();
        let secret = slot_dir(root.path(), "secret").join("timeout-kill");
        std::fs::write(&secret, "7").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        let gateway = Surroundings { gateway: nameless(65534, 65534), ..surroundings() };
        let found = ScanDir::open(root.path(), &gateway).unwrap().scan(&BTreeSet::new()).unwrap();
        assert_eq!(found.slots.keys().collect::<Vec<_>>(), ["secret"]);
        assert_eq!(found.slots["secret"].timeout_kill, None);
        assert_eq!(found.warnings.len(), 3, "{:#?}", found.warnings);
        assert!(found.warnings.iter().any(|line| line.contains("belongs to uid 12345")));
    }

    #[test]
    fn warnings_are_bounded_and_counted() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..MOST_WARNINGS + 5 {
            std::fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        let found = ScanDir::open(root.path(), &surroundings()).unwrap().scan(&BTreeSet::new()).unwrap();
        assert_eq!(found.warnings.len(), MOST_WARNINGS + 1);
        assert!(found.warnings[MOST_WARNINGS].ends_with(": 5 more warnings"));
    }
}
