//! The state directory: opened, made where it is missing, and believed only while it is as we left it.
//!
//! The volume often belongs to the gateway user, who may rename our directory and put another in its place. Therefore:
//!
//! * The directory and its files are opened without following links. After that everything goes through the open descriptor.
//! * What is not owned by us, or could have been written by somebody else (any permission beyond ours), is set aside as
//!   `<name>.foreign-<unix time>`. Nothing in it is believed.
//! * A mode that allows less than ours is corrected. So are bits for the group, and setgid, where the group is the gateway user's
//!   own: kubelet sets them at each start of a pod with `fsGroup`. One warning is given, and the content is believed.
//! * A directory that is moved to another parent must be writable for the user that moves it (rename(2)). So the gateway user can
//!   only give ours another name in the same parent, and that name to another directory of ours. `astray.rs` finds it there. What
//!   has our name and is no state, but something that root keeps to itself, is foreign: it is not opened for the gateway user's group.
//!
//! `custody.rs` decides what is ours, `aside.rs` sets aside, `unopened.rs` has the errors.

mod aside;
mod custody;
mod unopened;

use super::{astray, lock, mirror, session};
use crate::sys::beneath::{Beneath, Birth};
use crate::sys::bestow;
use crate::sys::credentials::Credentials;
pub(super) use aside::set_aside;
use aside::{KEPT_ASIDE, not_ours, thin_out};
pub(super) use custody::{Custody, DIR_MODE, FILE_MODE, Judgement, PRIVATE_MODE, judge};
use custody::{put_right, warn_loose};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
pub(super) use unopened::Unopened;
use unopened::is_missing;

/// The open state directory.
#[derive(Debug)]
pub(super) struct StateDir {
    dir: Beneath,
    path: PathBuf,
    /// The path of the state directory itself.
    top: PathBuf,
    /// What [`Self::is_in_place`] starts from.
    home: PathBuf,
    custody: Custody,
}

/// Where a state directory lies, which tells it from a copy. Device numbers are not part of it: they change with a remount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lies {
    pub inode: u64,
    /// When the directory was made, in nanoseconds since 1970; not every filesystem knows. statx(2).
    pub born_ns: Option<u64>,
}

impl Lies {
    /// Whether these are one place, as far as both know it.
    pub fn is_same(&self, other: &Self) -> bool {
        let born = self.born_ns.zip(other.born_ns);
        self.inode == other.inode && born.is_none_or(|(one, other)| one == other)
    }
}

impl StateDir {
    /// Opens `path`, making it and what leads to it if missing; group `gid`. Below `home` no link is followed; what
    /// precedes it (or, elsewhere, the parent directory) is the operator's choice and may contain links.
    ///
    /// # Errors
    /// [`Unopened`], of open(2), mkdir(2) and rename(2).
    pub(super) fn open(
        home: &Path,
        path: &Path,
        gid: u32,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Unopened> {
        let said = warnings.len();
        let opened = Self::reach(home, path, gid, None, warnings);
        let (Err(Unopened::Missing(error) | Unopened::Unknown(error)), Some(host)) =
            (&opened, host_of(home, gid))
        else {
            return opened;
        };
        if error.kind() != io::ErrorKind::PermissionDenied {
            return opened;
        }
        // Root without CAP_DAC_OVERRIDE may not write in the home, or not even enter it. Its owner may.
        warnings.truncate(said);
        let reached = host.on_files(|| Self::reach(home, path, gid, Some(&host), warnings))??;
        put_right(&reached.dir, &rustix::fs::fstat(&reached.dir)?, gid, DIR_MODE);
        Ok(reached)
    }

    /// `host`: the owner of the home, if this runs with its credentials. The directory is then made by it and given to us.
    fn reach(
        home: &Path,
        path: &Path,
        gid: u32,
        host: Option<&Credentials>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Unopened> {
        let make = |parent: &Beneath, name: &OsStr| match host {
            None => make(parent, name),
            Some(host) => {
                let own = Credentials { gid, ..Credentials::own() };
                bestow::directory(parent, name, DIR_MODE, &own, host)?;
                // As in `make`.
                let _ = rustix::fs::fsync(parent);
                Ok(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
            }
        };
        let (root, below) = split(home, path)?;
        let root = match Beneath::open(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(root);
                made.map_err(Unopened::Missing)?;
                Beneath::open(root)?
            }
            opened => opened?,
        };
        let parent = root.create_dirs(below.parent().unwrap_or(Path::new("")), 0o755)?;
        let name = below.file_name().ok_or_else(|| unusable(path))?;
        let mut stat = look(&parent, name)?;
        if astray::take_back(&parent, name, path, gid, stat.as_ref(), warnings) {
            stat = look(&parent, name)?;
        }
        let stat = match stat {
            Some(stat) => stat,
            None => make(&parent, name).map_err(Unopened::Missing)?,
        };
        let custody = Custody::of(&parent, &stat, gid);
        let named_by_others = !astray::is_ours_alone(&parent);
        let judged = match judge(&stat, FileType::Directory, DIR_MODE, custody) {
            Judgement::Ours | Judgement::Loose
                if named_by_others && !parent.dir(Path::new(name)).is_ok_and(|dir| is_state(&dir)) =>
            {
                Judgement::Foreign(NO_STATE.to_owned())
            }
            judged => judged,
        };
        match judged {
            Judgement::Ours => {}
            Judgement::Loose => warn_loose(path, warnings),
            Judgement::Foreign(why) => {
                let kept = set_aside(&parent, name, "foreign")?;
                warnings.push(not_ours(path, &why, &kept));
                thin_out(&parent, name, warnings);
                if !astray::take_back(&parent, name, path, gid, None, warnings) {
                    make(&parent, name).map_err(Unopened::Missing)?;
                }
            }
        }
        if !custody.kept {
            warnings.push(format!(
                "the filesystem of {} keeps no owners and modes: a user that can write there can change what is \
                 recorded; put --state on another volume",
                path.display()
            ));
        }
        let dir = parent.dir(Path::new(name))?;
        // Looked at again through the descriptor: between the look and the opening it may have been exchanged.
        let stat = rustix::fs::fstat(&dir)?;
        let why = match judge(&stat, FileType::Directory, DIR_MODE, custody) {
            Judgement::Foreign(why) => Some(why),
            Judgement::Ours | Judgement::Loose if named_by_others && !is_state(&dir) => {
                Some(NO_STATE.to_owned())
            }
            Judgement::Ours | Judgement::Loose => None,
        };
        if let Some(why) = why {
            let text = format!("{} was exchanged while it was opened: it {why}", path.display());
            return Err(Unopened::Missing(io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
        put_right(&dir, &stat, gid, DIR_MODE);
        Ok(Self { dir, path: path.to_owned(), top: path.to_owned(), home: home.to_owned(), custody })
    }

    /// Where it lies; `None` if that cannot be told.
    pub(super) fn lies(&self) -> Option<Lies> {
        let Birth { inode, born_ns } = self.dir.birth().ok()?;
        Some(Lies { inode, born_ns })
    }

    /// Whether the next boot will find this directory, and the file of that name in it, if one is asked about.
    ///
    /// # Errors
    /// As open(2) and stat(2).
    pub(super) fn is_in_place(&self, file: Option<(&str, (u64, u64))>) -> io::Result<bool> {
        let found = || -> io::Result<bool> {
            let (root, below) = split(&self.home, &self.top)?;
            let (root, last) = (Beneath::open(root)?, below.file_name().unwrap_or_default());
            let parent = match below.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => root.dir(parent)?,
                Some(_) | None => root,
            };
            let Some(there) = look(&parent, last)? else { return Ok(false) };
            let here = rustix::fs::fstat(&self.dir)?;
            let Some((name, file)) = file else { return Ok(identity(&there) == identity(&here)) };
            let inside = look(&self.dir, OsStr::new(name))?;
            Ok(identity(&there) == identity(&here) && inside.as_ref().map(identity) == Some(file))
        };
        let found_as_host = || match host_of(&self.home, self.custody.gid) {
            Some(host) => host.on_files(found)?,
            None => found(),
        };
        let found = match found() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found_as_host(),
            found => found,
        };
        match found {
            // Something on the way is missing, or a link.
            Err(error) if is_missing(&error) => Ok(false),
            found => found,
        }
    }

    /// Whether its path leads to another filesystem, as when its volume was unmounted, and there is no file of that name there.
    pub(super) fn is_unmounted(&self, name: &str) -> bool {
        let device = |stat: Stat| stat.st_dev;
        let there = self.top.ancestors().find_map(|place| rustix::fs::lstat(place).map(device).ok());
        let here = rustix::fs::fstat(&self.dir).map(device).ok();
        there != here && matches!(rustix::fs::lstat(self.top.join(name)), Err(Errno::NOENT))
    }

    /// A directory in it that nobody else may enter.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn private(&self, name: &str, warnings: &mut Vec<String>) -> Result<Self, Unopened> {
        let file_name = OsStr::new(name);
        let path = self.path_of(name);
        match look(&self.dir, file_name)? {
            None => drop(make(&self.dir, file_name).map_err(Unopened::Missing)?),
            Some(stat) => match judge(&stat, FileType::Directory, PRIVATE_MODE, self.custody) {
                Judgement::Ours => {}
                Judgement::Loose => warn_loose(&self.top, warnings),
                Judgement::Foreign(why) => {
                    let kept = set_aside(&self.dir, file_name, "foreign")?;
                    warnings.push(not_ours(&path, &why, &kept));
                    thin_out(&self.dir, file_name, warnings);
                    make(&self.dir, file_name)?;
                }
            },
        }
        // Nobody but us can exchange what is in our directory, so it is still what we looked at.
        let dir = self.dir.dir(Path::new(name))?;
        put_right(&dir, &rustix::fs::fstat(&dir)?, self.custody.gid, PRIVATE_MODE);
        Ok(Self { dir, path, top: self.top.clone(), home: self.home.clone(), custody: self.custody })
    }

    /// The path of the state directory that it is, or is in.
    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    /// The path of a file in it, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether there is something of this name.
    ///
    /// # Errors
    /// As fstatat(2).
    pub(super) fn has(&self, name: &str) -> io::Result<bool> {
        Ok(look(&self.dir, OsStr::new(name))?.is_some())
    }

    /// Opens a file that should be ours. `None`: there is none, or it was foreign and is set aside now.
    ///
    /// # Errors
    /// As openat(2), and renameat(2) for a foreign one.
    pub(super) fn existing(
        &self,
        name: &str,
        flags: OFlags,
        mode: u32,
        warnings: &mut Vec<String>,
    ) -> io::Result<Option<File>> {
        let Some(stat) = look(&self.dir, OsStr::new(name))? else { return Ok(None) };
        match judge(&stat, FileType::RegularFile, FILE_MODE, self.custody) {
            Judgement::Ours => {}
            Judgement::Loose => warn_loose(&self.top, warnings),
            Judgement::Foreign(why) => {
                let kept = set_aside(&self.dir, OsStr::new(name), "foreign")?;
                warnings.push(not_ours(&self.path_of(name), &why, &kept));
                thin_out(&self.dir, OsStr::new(name), warnings);
                return Ok(None);
            }
        }
        // Nobody but us can exchange what is in our directory, so it is still what we looked at.
        let file = self.dir.open_file(Path::new(name), flags, 0)?;
        put_right(&file, &stat, self.custody.gid, mode);
        Ok(Some(file))
    }

    /// Makes a new file; fails with `AlreadyExists`.
    ///
    /// # Errors
    /// As openat(2).
    pub(super) fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.dir.open_file(Path::new(name), flags, 0o600)?;
        put_right(&file, &rustix::fs::fstat(&file)?, self.custody.gid, mode);
        Ok(file)
    }

    /// Makes a new file in the place of what a crash may have left under this name.
    ///
    /// # Errors
    /// As openat(2) and unlinkat(2).
    pub(super) fn create_anew(&self, name: &str) -> io::Result<File> {
        match self.dir.remove_file(Path::new(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.create(name, FILE_MODE),
        }
    }

    /// # Errors
    /// As renameat(2).
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(Path::new(from), Path::new(to))
    }

    /// # Errors
    /// As unlinkat(2).
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove_file(Path::new(name))
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// As fsync(2), but for filesystems that cannot sync a directory.
    pub(super) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.dir) {
            Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a damaged file as `<name>.corrupt-<unix time>` and returns that name; only the newest few stay.
    ///
    /// # Errors
    /// As renameat(2).
    pub(super) fn set_aside_corrupt(&self, name: &str) -> io::Result<String> {
        let kept = set_aside(&self.dir, OsStr::new(name), "corrupt")?;
        let prefix = format!("{name}.corrupt-");
        let names = self.dir.list().unwrap_or_default();
        let mut old: Vec<_> = names.iter().filter(|n| n.to_string_lossy().starts_with(&prefix)).collect();
        old.truncate(old.len().saturating_sub(KEPT_ASIDE));
        for name in old {
            let _ = self.dir.remove_file(Path::new(name));
        }
        Ok(kept)
    }
}

/// The end of a sentence about a directory.
const NO_STATE: &str = "holds no state, but something else";

/// Whether a directory is a state, or is yet to become one: a file system of its own begins with `lost+found`.
fn is_state(dir: &Beneath) -> bool {
    let signs = [lock::PLACE, session::DATABASE, mirror::NAME];
    signs.iter().any(|name| matches!(look(dir, OsStr::new(name)), Ok(Some(_))))
        || dir.list().is_ok_and(|names| names.iter().all(|name| name == "lost+found"))
}

/// The owner of the home, with the gateway user's group. `None` if that is us.
fn host_of(home: &Path, gid: u32) -> Option<Credentials> {
    let uid = rustix::fs::stat(home).ok()?.st_uid;
    (uid != Credentials::own().uid).then(|| Credentials { uid, gid, groups: [gid].into() })
}

pub(super) fn look(dir: &Beneath, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory without rights for others. Owner and mode are corrected later.
fn make(parent: &Beneath, name: &OsStr) -> io::Result<Stat> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    // Otherwise a power cut could lose the whole directory with what was acknowledged in it. Filesystems that cannot sync a
    // directory keep its names durable by themselves.
    let _ = rustix::fs::fsync(parent);
    Ok(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Device and inode.
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// The directory to start from, and the way from there that must not contain links.
fn split<'a>(home: &'a Path, path: &'a Path) -> io::Result<(&'a Path, &'a Path)> {
    match path.strip_prefix(home) {
        Ok(below) if below.file_name().is_some() => Ok((home, below)),
        Ok(_) | Err(_) => {
            let name = path.file_name().ok_or_else(|| unusable(path))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok((parent.unwrap_or(Path::new(".")), Path::new(name)))
        }
    }
}

fn unusable(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("'{}' cannot be a state directory: name one with --state DIR", path.display()),
    )
}
