//! Files below an open directory, made and removed without following links.

use crate::s6::slot::stat_beneath;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

/// Depth to which a slot is removed: each level costs a descriptor. Deeper is no slot.
const DEEPEST: usize = 64;

/// Makes a directory where it is missing, with exactly this mode whatever the umask.
pub(super) fn directory(parent: &Beneath, name: &str, mode: u32) -> io::Result<Beneath> {
    let name = Path::new(name);
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let dir = parent.dir(name)?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
            Ok(dir)
        }
        Err(Errno::EXIST) => parent.dir(name),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file that is not there yet; one that is there stays.
pub(super) fn file(dir: &Beneath, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    match dir.open_file(Path::new(name), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(mut file) => {
            file.write_all(content)?;
            Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn fifo(dir: &Beneath, name: &str, mode: u32) -> io::Result<()> {
    let path = Path::new(name);
    if let Some(stat) = stat_beneath(dir, path)? {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            return Ok(());
        }
        remove(dir, path)?;
    }
    rustix::fs::mknodat(dir, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)?;
    // The umask may have taken bits; an open for reading does not wait with O_NONBLOCK.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, path, flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
}

/// Removes whatever `name` is, links themselves and not what they lead to. Nothing there is no error.
///
/// # Errors
/// As unlinkat(2); EISDIR for a directory that is nested too deeply.
pub fn remove(dir: &Beneath, name: &Path) -> io::Result<()> {
    remove_tree(dir, name, 0)
}

/// [`remove`], where `name` may belong to somebody else. If our rights do not suffice (root without CAP_DAC_OVERRIDE), it is
/// removed with the rights of its owner.
///
/// # Errors
/// As [`remove`].
pub fn remove_anybodys(dir: &Beneath, name: &Path) -> io::Result<()> {
    let removed = remove(dir, name);
    if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
        return removed;
    }
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let parent = rustix::fs::fstat(dir)?;
    for owner in [&stat, &parent] {
        let owner = Credentials { uid: owner.st_uid, gid: owner.st_gid, groups: [owner.st_gid].into() };
        if owner.on_files(|| remove(dir, name)).is_ok_and(|removed| removed.is_ok()) {
            return Ok(());
        }
    }
    remove(dir, name)
}

fn remove_tree(dir: &Beneath, name: &Path, depth: usize) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // unlink(2) of a directory: EISDIR on Linux, EPERM in POSIX.
        Err(Errno::ISDIR | Errno::PERM) if depth < DEEPEST => {}
        Err(error) => return Err(error.into()),
    }
    let inside = dir.dir(name)?;
    let names: Vec<OsString> = inside.list()?;
    for entry in names {
        remove_tree(&inside, Path::new(&entry), depth + 1)?;
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
