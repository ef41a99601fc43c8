//! The state directory: made ours, and believed only while it is.
//!
//! The volume often belongs to the gateway user, who may rename our directory and put another in its place. So the
//! directory and its files are opened without following links, and whatever is not owned by us, or could have been
//! written by somebody else (any permission beyond ours), is set aside as `<name>.foreign-<unix time>` and nothing in
//! it is believed. After opening, everything goes through the open descriptor. A mode that allows less than ours is
//! no sign of a stranger: it is put right. Nor are bits for the group, and setgid, where the group is the gateway user's
//! own: kubelet sets them at each start of a pod with `fsGroup`. They are taken back with one warning, and the content is
//! believed.
//!
//! A directory that is moved to another parent must be writable for the user that moves it (rename(2)), so the gateway user can only
//! give ours another name beside its own, and that name to another directory of ours. `astray.rs` finds it there.
//!
//! Only the newest few of what was set aside stay. What is removed beside the state directory is removed with the rights of the
//! owner of the directory that it lies in, and a bounded amount of it at each start: the owner may have put anything there.
//!
//! Some filesystems keep neither owners nor modes (a Windows or FUSE share). What a fresh file of ours looks like
//! there is then the measure, and a warning says what that is worth.

use super::astray;
use crate::sys::beneath::{Beneath, Birth};
use crate::sys::bestow;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const DIR_MODE: u32 = 0o750;
pub(super) const PRIVATE_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o640;
/// How many damaged databases, and how many foreign things of one name, are kept for people to look at.
const KEPT_ASIDE: usize = 3;
/// How many files are removed at one start at most, of what was set aside before.
const REMOVED_AT_ONCE: usize = 1000;
/// What a group may be allowed by `fsGroup`: reading, writing, searching, and its name on new files.
const GROUP_BITS: u32 = 0o2070;

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

/// What "as we left it" means on this filesystem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Custody {
    pub uid: u32,
    /// The gateway user's group.
    pub gid: u32,
    /// Owners and modes stay as they are set.
    pub kept: bool,
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

/// Why a state directory, or the lock in it, cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unopened {
    /// There is none, so nobody else can have it either, and none can be made.
    #[error("{0}")]
    Missing(#[source] io::Error),
    /// Somebody else may have it.
    #[error("{0}")]
    Unknown(#[source] io::Error),
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        if is_missing(&error) { Self::Missing(error) } else { Self::Unknown(error) }
    }
}

impl From<Unopened> for io::Error {
    fn from(error: Unopened) -> Self {
        match error {
            Unopened::Missing(error) | Unopened::Unknown(error) => error,
        }
    }
}

impl From<Errno> for Unopened {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// The answer of a disk on which there is nothing of ours. An error without a number is our own, about something that is
/// not what we would make.
fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error().is_none_or(|number| {
        matches!(
            Errno::from_raw_os_error(number),
            Errno::NOENT
                | Errno::ROFS
                | Errno::NOSPC
                | Errno::DQUOT
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::INVAL
                | Errno::BUSY
        )
    })
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

    /// With a `host`, the owner of the home: with its credentials, and it makes room for what is ours.
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
        match judge(&stat, FileType::Directory, DIR_MODE, custody) {
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
        if let Judgement::Foreign(why) = judge(&stat, FileType::Directory, DIR_MODE, custody) {
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

    /// Whether the next boot will find this directory, and `file` as the one of that name in it.
    ///
    /// # Errors
    /// As open(2) and stat(2).
    pub(super) fn is_in_place(&self, name: &str, file: (u64, u64)) -> io::Result<bool> {
        let found = || -> io::Result<bool> {
            let (root, below) = split(&self.home, &self.top)?;
            let (root, last) = (Beneath::open(root)?, below.file_name().unwrap_or_default());
            let parent = match below.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => root.dir(parent)?,
                Some(_) | None => root,
            };
            let Some(there) = look(&parent, last)? else { return Ok(false) };
            let here = rustix::fs::fstat(&self.dir)?;
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
        // Nobody but us can exchange what is in a directory of ours, so the look still holds.
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
        // Nobody but us can exchange what is in a directory of ours, so the look still holds.
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

impl Custody {
    /// Ours strictly, unless `stat` is not and a fresh file of ours would not be either.
    fn of(parent: &Beneath, stat: &Stat, gid: u32) -> Self {
        let strict = Self { uid: rustix::process::geteuid().as_raw(), gid, kept: true };
        match judge(stat, FileType::Directory, DIR_MODE, strict) {
            Judgement::Foreign(_) => Self::probe(parent, strict).unwrap_or(strict),
            Judgement::Ours | Judgement::Loose => strict,
        }
    }

    /// What a file that we make shows. Opened with O_EXCL, so it is ours, in any directory.
    fn probe(parent: &Beneath, strict: Self) -> io::Result<Self> {
        let name = PathBuf::from(format!(".hermes-sup-probe-{}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = parent.open_file(&name, flags, FILE_MODE)?;
        let _ = parent.remove_file(&name);
        let _ = rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE));
        let stat = rustix::fs::fstat(&file)?;
        let kept = stat.st_uid == strict.uid && permissions(&stat) == FILE_MODE;
        Ok(Self { uid: stat.st_uid, kept, ..strict })
    }
}

/// The owner of the home, with the gateway user's group, where that is somebody else than we.
fn host_of(home: &Path, gid: u32) -> Option<Credentials> {
    let uid = rustix::fs::stat(home).ok()?.st_uid;
    (uid != Credentials::own().uid).then(|| Credentials { uid, gid, groups: [gid].into() })
}

/// Whose something is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Ours,
    /// Ours, but the gateway user's own group has been given more than we gave it.
    Loose,
    /// Somebody else could have written it; the end of a sentence says why.
    Foreign(String),
}

pub(super) fn judge(stat: &Stat, kind: FileType, mode: u32, custody: Custody) -> Judgement {
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let wanted = if kind == FileType::Directory { "directory" } else { "regular file" };
        return Judgement::Foreign(format!("is not a {wanted}"));
    }
    if stat.st_uid != custody.uid {
        return Judgement::Foreign(format!("belongs to uid {}, not {}", stat.st_uid, custody.uid));
    }
    // Setgid comes from a parent directory that has it and gives nobody a right to write.
    let setgid = if kind == FileType::Directory { 0o2000 } else { 0 };
    let excess = permissions(stat) & !(mode | setgid);
    match excess {
        0 => Judgement::Ours,
        _ if !custody.kept => Judgement::Ours,
        _ if excess & !GROUP_BITS == 0 && stat.st_gid == custody.gid => Judgement::Loose,
        _ => Judgement::Foreign(format!("has mode {:04o}, not {mode:04o}", permissions(stat))),
    }
}

/// Once, however much of it is so.
fn warn_loose(top: &Path, warnings: &mut Vec<String>) {
    let warning = format!(
        "the default user's group could write in {} (fsGroup of Kubernetes makes it so): the modes are put right, what is \
         recorded there is believed",
        top.display()
    );
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

fn not_ours(path: &Path, why: &str, kept: &str) -> String {
    format!(
        "{} is not as hermes-sup left it (it {why}): set aside as {kept}, nothing in it was believed; \
         if it was changed on purpose, give it back its owner and mode, and its name in the place of the one that is there now, \
         which must be removed",
        path.display()
    )
}

/// Owner's group and mode as they should be. What cannot be changed (no CAP_CHOWN, a read-only volume) stays: it
/// already gives nobody more than it should.
fn put_right(fd: &impl AsFd, stat: &Stat, gid: u32, mode: u32) {
    if stat.st_gid != gid {
        let give = || Ok(rustix::fs::fchown(fd, None, Some(Gid::from_raw(gid)))?);
        if give().is_err() {
            // In that group, root can give it to it without CAP_CHOWN.
            let _ = Credentials { gid, ..Credentials::own() }.as_group(give);
        }
    }
    if permissions(stat) != mode {
        let _ = rustix::fs::fchmod(fd, Mode::from_raw_mode(mode));
    }
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

pub(super) fn look(dir: &Beneath, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Made with no rights for others until owner and mode are what they should be.
fn make(parent: &Beneath, name: &OsStr) -> io::Result<Stat> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    // Without it a power cut could take the whole directory along with what was acknowledged in it. Filesystems
    // that cannot sync a directory keep its names durable by themselves.
    let _ = rustix::fs::fsync(parent);
    Ok(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn set_aside(dir: &Beneath, name: &OsStr, kind: &str) -> io::Result<String> {
    let mut time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    loop {
        let mut to = OsString::from(name);
        to.push(format!(".{kind}-{time}"));
        if look(dir, &to)?.is_none() {
            dir.rename(Path::new(name), Path::new(&to))?;
            return Ok(to.to_string_lossy().into_owned());
        }
        time += 1;
    }
}

/// Device and inode.
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Removes all but the newest few of what was set aside as foreign under this name.
fn thin_out(dir: &Beneath, name: &OsStr, warnings: &mut Vec<String>) {
    let prefix = format!("{}.foreign-", name.to_string_lossy());
    let names = dir.list().unwrap_or_default();
    let mut old: Vec<_> = names.iter().filter(|name| name.to_string_lossy().starts_with(&prefix)).collect();
    old.truncate(old.len().saturating_sub(KEPT_ASIDE));
    let Some(oldest) = old.first() else { return };
    let mut room = REMOVED_AT_ONCE;
    let mut remove = || old.iter().try_for_each(|name| remove_all(dir, Path::new(name), &mut room));
    // In a directory of ours only we could put things there; elsewhere its owner removes what he could remove himself.
    let removed = match owner(dir) {
        Some(owner) if owner.uid != rustix::process::geteuid().as_raw() => {
            owner.on_files(remove).unwrap_or_else(Err)
        }
        Some(_) | None => remove(),
    };
    if let Err(error) = removed {
        warnings.push(format!(
            "{} and what was set aside like it cannot be removed ({error}): look at it, and remove it",
            dir.path().join(oldest).display()
        ));
    }
}

fn owner(dir: &Beneath) -> Option<Credentials> {
    let stat = rustix::fs::fstat(dir).ok()?;
    Some(Credentials { uid: stat.st_uid, gid: stat.st_gid, groups: [].into() })
}

/// Removes a file, or a directory with what is in it, as far as `room` goes. No link is followed.
fn remove_all(dir: &Beneath, name: &Path, room: &mut usize) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {}
        done => return done,
    }
    let below = dir.dir(name)?;
    for entry in rustix::fs::Dir::read_from(&below)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        *room = room.checked_sub(1).ok_or_else(|| io::Error::other("there is too much in it"))?;
        remove_all(&below, Path::new(OsStr::from_bytes(entry.file_name().to_bytes())), room)?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a filesystem cannot be mounted everywhere, so its custody is made by hand.
    #[test]
    fn where_no_modes_are_kept_only_kind_and_owner_count() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::chmod(dir.path(), Mode::from_raw_mode(0o777)).unwrap();
        let stat = rustix::fs::stat(dir.path()).unwrap();
        let ours = |kind, custody| judge(&stat, kind, DIR_MODE, custody) == Judgement::Ours;
        let strict = Custody { uid: stat.st_uid, gid: stat.st_gid, kept: true };
        let loose = Custody { kept: false, ..strict };
        assert!(!ours(FileType::Directory, strict));
        assert!(ours(FileType::Directory, loose));
        assert!(!ours(FileType::RegularFile, loose));
        assert!(!ours(FileType::Directory, Custody { uid: stat.st_uid + 1, ..loose }));
    }

    #[test]
    fn this_filesystem_keeps_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let strict = Custody { uid: rustix::process::geteuid().as_raw(), gid: 0, kept: true };
        let seen = Custody::probe(&Beneath::open(dir.path()).unwrap(), strict).unwrap();
        assert_eq!((seen.uid, seen.kept), (strict.uid, true));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_is_removed_is_bounded_and_no_link_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("file"), "").unwrap();
        let home = tempfile::tempdir().unwrap();
        let aside = home.path().join("aside");
        std::fs::create_dir_all(aside.join("a/b")).unwrap();
        std::os::unix::fs::symlink(outside.path(), aside.join("a/link")).unwrap();
        for number in 0..5 {
            std::fs::write(aside.join(format!("a/b/{number}")), "").unwrap();
        }
        let dir = Beneath::open(home.path()).unwrap();
        assert!(remove_all(&dir, Path::new("aside"), &mut 3).is_err());
        assert!(aside.exists());
        remove_all(&dir, Path::new("aside"), &mut 20).unwrap();
        assert!(!aside.exists() && outside.path().join("file").exists());
    }
}
