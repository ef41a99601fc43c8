//! The state directory: made ours, and believed only while it is.
//!
//! The volume often belongs to the gateway user, who may rename our directory and put another in its place. So the
//! directory and its files are opened without following links, and whatever is not owned by us, or could have been
//! written by somebody else (any permission beyond ours), is set aside as `<name>.foreign-<unix time>` and nothing in
//! it is believed. After opening, everything goes through the open descriptor. A mode that allows less than ours is
//! no sign of a stranger: it is put right.
//!
//! Some filesystems keep neither owners nor modes (a Windows or FUSE share). What a fresh file of ours looks like
//! there is then the measure, and a warning says what that is worth.

use crate::sys::beneath::Beneath;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DIR_MODE: u32 = 0o750;
const PRIVATE_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o640;
/// How many damaged databases are kept for people to look at.
const KEPT_CORRUPT: usize = 3;

/// The open state directory.
#[derive(Debug)]
pub(super) struct StateDir {
    dir: Beneath,
    path: PathBuf,
    custody: Custody,
    gid: u32,
}

/// What "as we left it" means on this filesystem.
#[derive(Debug, Clone, Copy)]
struct Custody {
    uid: u32,
    /// Owners and modes stay as they are set.
    kept: bool,
}

impl StateDir {
    /// Opens `path`, making it and what leads to it if missing; group `gid`. Below `home` no link is followed; what
    /// precedes it (or, elsewhere, the parent directory) is the operator's choice and may contain links.
    ///
    /// # Errors
    /// As open(2), mkdir(2) and rename(2).
    pub(super) fn open(home: &Path, path: &Path, gid: u32, warnings: &mut Vec<String>) -> io::Result<Self> {
        let (root, below) = split(home, path)?;
        let root = match Beneath::open(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(root)?;
                Beneath::open(root)?
            }
            opened => opened?,
        };
        let parent = root.create_dirs(below.parent().unwrap_or(Path::new("")), 0o755)?;
        let name = below.file_name().ok_or_else(|| unusable(path))?;
        let stat = match look(&parent, name)? {
            Some(stat) => stat,
            None => make(&parent, name)?,
        };
        let custody = Custody::of(&parent, &stat);
        if let Some(why) = foreign(&stat, FileType::Directory, DIR_MODE, custody) {
            let kept = set_aside(&parent, name, "foreign")?;
            warnings.push(not_ours(path, &why, &kept));
            make(&parent, name)?;
        }
        if !custody.kept {
            warnings.push(format!(
                "the filesystem of {} keeps no owners and modes: whoever can write there can change what is \
                 recorded; put --state on another volume",
                path.display()
            ));
        }
        let dir = parent.dir(Path::new(name))?;
        // Looked at again through the descriptor: between the look and the opening it may have been exchanged.
        let stat = rustix::fs::fstat(&dir)?;
        if let Some(why) = foreign(&stat, FileType::Directory, DIR_MODE, custody) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} was exchanged while it was opened: it {why}", path.display()),
            ));
        }
        put_right(&dir, &stat, gid, DIR_MODE);
        Ok(Self { dir, path: path.to_owned(), custody, gid })
    }

    /// A directory in it that nobody else may enter.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn private(&self, name: &str, warnings: &mut Vec<String>) -> io::Result<Self> {
        let file_name = OsStr::new(name);
        let path = self.path_of(name);
        match look(&self.dir, file_name)? {
            None => drop(make(&self.dir, file_name)?),
            Some(stat) => {
                if let Some(why) = foreign(&stat, FileType::Directory, PRIVATE_MODE, self.custody) {
                    let kept = set_aside(&self.dir, file_name, "foreign")?;
                    warnings.push(not_ours(&path, &why, &kept));
                    make(&self.dir, file_name)?;
                }
            }
        }
        // Nobody but us can exchange what is in a directory of ours, so the look still holds.
        let dir = self.dir.dir(Path::new(name))?;
        put_right(&dir, &rustix::fs::fstat(&dir)?, self.gid, PRIVATE_MODE);
        Ok(Self { dir, path, ..*self })
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
        if let Some(why) = foreign(&stat, FileType::RegularFile, FILE_MODE, self.custody) {
            let kept = set_aside(&self.dir, OsStr::new(name), "foreign")?;
            warnings.push(not_ours(&self.path_of(name), &why, &kept));
            return Ok(None);
        }
        // Nobody but us can exchange what is in a directory of ours, so the look still holds.
        let file = self.dir.open_file(Path::new(name), flags, 0)?;
        put_right(&file, &stat, self.gid, mode);
        Ok(Some(file))
    }

    /// Makes a new file; fails with `AlreadyExists`.
    ///
    /// # Errors
    /// As openat(2).
    pub(super) fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.dir.open_file(Path::new(name), flags, 0o600)?;
        put_right(&file, &rustix::fs::fstat(&file)?, self.gid, mode);
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
        old.truncate(old.len().saturating_sub(KEPT_CORRUPT));
        for name in old {
            let _ = self.dir.remove_file(Path::new(name));
        }
        Ok(kept)
    }
}

impl Custody {
    /// Ours strictly, unless `stat` is not and a fresh file of ours would not be either.
    fn of(parent: &Beneath, stat: &Stat) -> Self {
        let strict = Self { uid: rustix::process::geteuid().as_raw(), kept: true };
        match foreign(stat, FileType::Directory, DIR_MODE, strict) {
            Some(_) => Self::probe(parent, strict.uid).unwrap_or(strict),
            None => strict,
        }
    }

    /// What a file that we make shows. Opened with O_EXCL, so it is ours whoever owns the directory.
    fn probe(parent: &Beneath, uid: u32) -> io::Result<Self> {
        let name = PathBuf::from(format!(".hermes-sup-probe-{}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = parent.open_file(&name, flags, FILE_MODE)?;
        let _ = parent.remove_file(&name);
        let _ = rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE));
        let stat = rustix::fs::fstat(&file)?;
        Ok(Self { uid: stat.st_uid, kept: stat.st_uid == uid && permissions(&stat) == FILE_MODE })
    }
}

/// Why this is not as we left it, as the end of a sentence. `None`: it is ours.
fn foreign(stat: &Stat, kind: FileType, mode: u32, custody: Custody) -> Option<String> {
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let wanted = if kind == FileType::Directory { "directory" } else { "regular file" };
        return Some(format!("is not a {wanted}"));
    }
    if stat.st_uid != custody.uid {
        return Some(format!("belongs to uid {}, not {}", stat.st_uid, custody.uid));
    }
    // Setgid comes from a parent directory that has it and gives nobody a right to write.
    let setgid = if kind == FileType::Directory { 0o2000 } else { 0 };
    if custody.kept && permissions(stat) & !(mode | setgid) != 0 {
        return Some(format!("has mode {:04o}, not {mode:04o}", permissions(stat)));
    }
    None
}

fn not_ours(path: &Path, why: &str, kept: &str) -> String {
    format!(
        "{} is not as hermes-sup left it (it {why}): set aside as {kept}, nothing in it was believed; \
         if it was changed on purpose, give it back its owner and mode and rename it",
        path.display()
    )
}

/// Owner's group and mode as they should be. What cannot be changed (no CAP_CHOWN, a read-only volume) stays: it
/// already gives nobody more than it should.
fn put_right(fd: &impl AsFd, stat: &Stat, gid: u32, mode: u32) {
    if stat.st_gid != gid {
        let _ = rustix::fs::fchown(fd, None, Some(Gid::from_raw(gid)));
    }
    if permissions(stat) != mode {
        let _ = rustix::fs::fchmod(fd, Mode::from_raw_mode(mode));
    }
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn look(dir: &Beneath, name: &OsStr) -> io::Result<Option<Stat>> {
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

fn set_aside(dir: &Beneath, name: &OsStr, kind: &str) -> io::Result<String> {
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
        let judge = |kind, custody| foreign(&stat, kind, DIR_MODE, custody).is_none();
        let strict = Custody { uid: stat.st_uid, kept: true };
        let loose = Custody { uid: stat.st_uid, kept: false };
        assert!(!judge(FileType::Directory, strict));
        assert!(judge(FileType::Directory, loose));
        assert!(!judge(FileType::RegularFile, loose));
        assert!(!judge(FileType::Directory, Custody { uid: stat.st_uid + 1, kept: false }));
    }

    #[test]
    fn this_filesystem_keeps_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let seen = Custody::probe(&Beneath::open(dir.path()).unwrap(), uid).unwrap();
        assert_eq!((seen.uid, seen.kept), (uid, true));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
