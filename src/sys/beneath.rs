//! Files below a directory that somebody else can rearrange while we look.
//!
//! Paths are walked one component at a time with O_NOFOLLOW from an open directory, so neither a planted symbolic
//! link nor a rename can lead outside: the guarantee of openat2(2) with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, on
//! every kernel and under seccomp profiles that do not know that call. What is opened must be a regular file: a
//! planted FIFO or device would block or do worse.
//!
//! Callers choose whose credentials apply: `Credentials::on_files`.

use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// An open directory and the path that messages call it by.
#[derive(Debug)]
pub struct Beneath {
    root: OwnedFd,
    path: PathBuf,
}

/// Which directory it is, also where a later one has got the number of one that was removed. Device numbers are not part
/// of it: they change with a remount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970; not every filesystem knows. statx(2).
    pub born_ns: Option<u64>,
}

impl Beneath {
    /// Opens the starting directory. The path itself is the operator's and may contain links. Root without
    /// CAP_DAC_OVERRIDE opens one that only its owner may enter as its owner.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(path, flags, Mode::empty());
        let root = match open() {
            Err(Errno::ACCESS) if rustix::process::geteuid().is_root() => {
                let stat = rustix::fs::stat(path)?;
                let owner = Credentials { uid: stat.st_uid, gid: stat.st_gid, groups: [stat.st_gid].into() };
                owner.on_files(open)??
            }
            opened => opened?,
        };
        Ok(Self { root, path: path.to_owned() })
    }

    /// The same for who may only pass through the directory, not list it.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_to_pass(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which directory this is.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn birth(&self) -> io::Result<Birth> {
        match rustix::fs::statx(&self.root, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME) {
            Ok(stat) => {
                let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
                let time = stat.stx_btime;
                let born_ns = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
                Ok(Birth { inode: stat.stx_ino, born_ns: u64::try_from(born_ns).ok().filter(|_| known) })
            }
            // Filtered, or a kernel without it.
            Err(_) => Ok(Birth { inode: rustix::fs::fstat(&self.root)?.st_ino, born_ns: None }),
        }
    }

    /// The directory `relative`, without following links.
    ///
    /// # Errors
    /// As openat(2); `InvalidInput` for an absolute path or one with `..`; ELOOP or ENOTDIR at a link.
    pub fn dir(&self, relative: &Path) -> io::Result<Self> {
        let names = components(relative)?;
        let mut at = None;
        for (number, name) in names.iter().enumerate() {
            // On the way it is enough that one may pass.
            let access = if number + 1 == names.len() { OFlags::RDONLY } else { OFlags::PATH };
            at = Some(open_dir(at.as_ref().unwrap_or(&self.root), name, access)?);
        }
        self.below(at, relative)
    }

    /// As [`Beneath::dir`], making what is missing with `mode`.
    ///
    /// # Errors
    /// As mkdirat(2) and [`Beneath::dir`].
    pub fn create_dirs(&self, relative: &Path, mode: u32) -> io::Result<Self> {
        let mut at = None;
        for name in components(relative)? {
            let parent = at.as_ref().unwrap_or(&self.root);
            match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = Some(open_dir(parent, &name, OFlags::RDONLY)?);
        }
        self.below(at, relative)
    }

    /// What was reached on the way `relative`; `None`: it leads nowhere but here.
    fn below(&self, reached: Option<OwnedFd>, relative: &Path) -> io::Result<Self> {
        let root = match reached {
            Some(root) => root,
            None => self.root.try_clone()?,
        };
        Ok(Self { root, path: self.path.join(relative) })
    }

    /// Opens the regular file `relative` with `flags`, creating it with `mode` if the flags say so.
    ///
    /// # Errors
    /// As openat(2); `InvalidInput` when it is not a regular file.
    pub fn open_file(&self, relative: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
        self.open_known_file(relative, flags, mode).map(|(file, _)| file)
    }

    /// The same, with what fstat(2) says of it.
    ///
    /// # Errors
    /// As [`Beneath::open_file`].
    pub fn open_known_file(&self, relative: &Path, flags: OFlags, mode: u32) -> io::Result<(File, Stat)> {
        let (above, name) = self.parent(relative)?;
        let dir = above.as_ref().unwrap_or(self);
        // O_NONBLOCK: opening a planted FIFO must not wait for its other end. It has no effect on a regular file.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&dir.root, &name, flags, Mode::from_raw_mode(mode))?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let shown = self.path.join(relative);
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a regular file", shown.display()),
            ));
        }
        Ok((File::from(fd), stat))
    }

    /// The whole file, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Beneath::open_file`]; `FileTooLarge` past the limit.
    pub fn read(&self, relative: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_file(relative, OFlags::RDONLY, 0)?;
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            let shown = self.path.join(relative);
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} is larger than {limit} bytes", shown.display()),
            ));
        }
        Ok(bytes)
    }

    /// Puts `bytes` in the place of `relative` by a temporary file and a rename. Not synced.
    ///
    /// # Errors
    /// As openat(2), write(2), renameat(2); the old file stays then.
    pub fn replace(&self, relative: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (above, name) = self.parent(relative)?;
        let dir = above.as_ref().unwrap_or(self);
        let mut temporary = name.clone();
        temporary.push(".tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let written = dir
            .open_file(Path::new(&temporary), flags, mode)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| Ok(rustix::fs::renameat(&dir.root, &temporary, &dir.root, &name)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&dir.root, &temporary, AtFlags::empty());
        }
        written
    }

    /// Renames within the directory itself: both names are single components.
    ///
    /// # Errors
    /// As renameat(2).
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from) = self.parent(from)?;
        let (to_dir, to) = self.parent(to)?;
        let (from_dir, to_dir) = (from_dir.as_ref().unwrap_or(self), to_dir.as_ref().unwrap_or(self));
        Ok(rustix::fs::renameat(&from_dir.root, &from, &to_dir.root, &to)?)
    }

    /// # Errors
    /// As unlinkat(2).
    pub fn remove_file(&self, relative: &Path) -> io::Result<()> {
        let (above, name) = self.parent(relative)?;
        let dir = above.as_ref().unwrap_or(self);
        Ok(rustix::fs::unlinkat(&dir.root, &name, AtFlags::empty())?)
    }

    /// Names in this directory, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// As getdents64(2).
    pub fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.root)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Shows the names of regular files here to `each`, in no order. Ends after `most` entries of whatever kind: the owner of
    /// the directory may have made millions.
    ///
    /// # Errors
    /// As getdents64(2).
    pub fn files(&self, most: usize, mut each: impl FnMut(&str)) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.root)?.take(most) {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let kind = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            if kind == FileType::RegularFile {
                each(name);
            }
        }
        Ok(())
    }

    /// The directory that `relative` lies in, `None` for this one, and its name there.
    fn parent(&self, relative: &Path) -> io::Result<(Option<Self>, OsString)> {
        let mut names = components(relative)?;
        let name = names.pop().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        if names.is_empty() {
            return Ok((None, name));
        }
        let parent: PathBuf = names.iter().collect();
        Ok((Some(self.dir(&parent)?), name))
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn open_dir(at: &OwnedFd, name: &OsString, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn components(relative: &Path) -> io::Result<Vec<OsString>> {
    relative
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Ok(name.to_owned()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} leads out of its directory", relative.display()),
                ))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_link_or_fifo_is_refused_at_every_place_of_the_path() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("target"), "secret").unwrap();
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), home.path().join("dir")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("target"), home.path().join("file")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, home.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        let beneath = Beneath::open(home.path()).unwrap();
        for path in ["dir/target", "file", "fifo", "../target", "/etc/passwd"] {
            assert!(beneath.read(Path::new(path), 100).is_err(), "{path}");
        }
        assert!(beneath.create_dirs(Path::new("dir/new"), 0o755).is_err());
        assert!(beneath.replace(Path::new("dir/target"), b"x", 0o644).is_err());
        // A rename replaces the link itself, never what it points to.
        beneath.replace(Path::new("file"), b"ours", 0o644).unwrap();
        assert_eq!(std::fs::read(outside.path().join("target")).unwrap(), b"secret");
        assert_eq!(beneath.read(Path::new("file"), 100).unwrap(), b"ours");
    }

    #[test]
    fn a_file_past_the_limit_is_refused_rather_than_cut() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("f"), "12345").unwrap();
        let beneath = Beneath::open(home.path()).unwrap();
        assert_eq!(beneath.read(Path::new("f"), 5).unwrap(), b"12345");
        assert_eq!(beneath.read(Path::new("f"), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
