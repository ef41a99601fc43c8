//! The two FIFOs of a service, `<name>.out` and `<name>.err`, in a directory that only we can enter.
//!
//! Everybody opens them read-write (fifo(7), "Linux-specific"): the child, so that neither our death nor our
//! re-execution breaks its pipe; we, so that its death is no end of file that a level-triggered poll would spin on.
//! The FIFO belongs to the service's user, with mode 0600: a program that opens /dev/stdout again gets the same pipe,
//! past the closed directory, because /proc/self/fd is no path.

use super::Kind;
use crate::core::name::ServiceName;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The directory of all FIFOs.
#[derive(Debug)]
pub(super) struct FifoDir(OwnedFd);

impl FifoDir {
    /// Opens or makes `<runtime>/log`, mode 0700.
    pub(super) fn open(runtime: &Path) -> io::Result<Self> {
        let path = runtime.join("log");
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())?;
        // Also past a umask, and when an earlier life left it otherwise. Not ours: refused here.
        rustix::fs::fchmod(&dir, Mode::RWXU)?;
        Ok(Self(dir))
    }

    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Our end of a service's FIFO, made if it is not there. What is in it from an earlier life stays in it.
    pub(super) fn make(&self, name: &ServiceName, kind: Kind, owner: &Credentials) -> io::Result<OwnedFd> {
        let file = file_name(name, kind);
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mknodat(&self.0, &file, FileType::Fifo, mode, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let fd = self.open_end(&file, OFlags::NONBLOCK)?;
        let status = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::Fifo {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{file} is not a FIFO")));
        }
        // A umask took some away, or an earlier life left it otherwise.
        if Mode::from_raw_mode(status.st_mode) != mode {
            rustix::fs::fchmod(&fd, mode)?;
        }
        if status.st_uid != owner.uid || status.st_gid != owner.gid {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
        }
        Ok(fd)
    }

    /// An end for the child: blocking, read-write. Of a FIFO that was made here, in a directory that is ours alone.
    pub(super) fn child_end(&self, name: &ServiceName, kind: Kind) -> io::Result<OwnedFd> {
        self.open_end(&file_name(name, kind), OFlags::empty())
    }

    pub(super) fn remove(&self, name: &ServiceName) {
        for kind in [Kind::Out, Kind::Err] {
            let _ = rustix::fs::unlinkat(&self.0, file_name(name, kind), AtFlags::empty());
        }
    }

    fn open_end(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, file, flags, Mode::empty())?)
    }
}

fn file_name(name: &ServiceName, kind: Kind) -> String {
    format!("{name}.{}", ending(kind))
}

fn ending(kind: Kind) -> &'static str {
    match kind {
        Kind::Out => "out",
        Kind::Err => "err",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    #[test]
    fn a_fifo_outlives_our_end_and_keeps_what_was_written() {
        let runtime = tempfile::tempdir().unwrap();
        let name = ServiceName::new("coder").unwrap();
        let own = Credentials::own();
        let dir = FifoDir::open(runtime.path()).unwrap();
        let ours = dir.make(&name, Kind::Out, &own).unwrap();
        let child = dir.child_end(&name, Kind::Out).unwrap();
        drop((ours, dir));
        rustix::io::write(&child, b"still here\n").unwrap();

        let successor = FifoDir::open(runtime.path()).unwrap();
        let ours = successor.make(&name, Kind::Out, &own).unwrap();
        let mut seen = [0; 64];
        let count = rustix::io::read(&ours, &mut seen).unwrap();
        assert_eq!(&seen[..count], b"still here\n");
        assert_eq!(rustix::io::read(&ours, &mut seen), Err(Errno::AGAIN));

        let path = runtime.path().join("log");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        let fifo = std::fs::metadata(path.join("coder.out")).unwrap();
        assert!(fifo.file_type().is_fifo());
        assert_eq!(fifo.permissions().mode() & 0o7777, 0o600);
        successor.remove(&name);
        assert!(!path.join("coder.out").exists());
    }
}
