//! The two FIFOs of a service, `<name>.out` and `<name>.err`, in a directory that only we can enter.
//!
//! Everybody opens them read-write (fifo(7), "Linux-specific"): the child, so that neither our death nor our
//! re-execution breaks its pipe; we, so that its death is no end of file that a level-triggered poll would spin on.
//! The FIFO belongs to the service's user, with mode 0600: a program that opens /dev/stdout again gets the same pipe,
//! past the closed directory, because /proc/self/fd is no path.
//!
//! To give a file away takes CAP_CHOWN, and to open another's CAP_DAC_OVERRIDE. So the user makes it, in a directory that is
//! open to all and lies in one that only we can enter, and the user's credentials open it.

use crate::core::name::ServiceName;
use crate::core::words::Stream;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// The directory of all FIFOs.
#[derive(Debug)]
pub(super) struct FifoDir(OwnedFd);

impl FifoDir {
    /// Opens or makes `<runtime>/log`. `runtime` is a directory that only we can enter, or others could plant FIFOs here.
    pub(super) fn open(runtime: &Path) -> io::Result<Self> {
        let path = runtime.join("log");
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())?;
        let is_closed =
            rustix::fs::fstat(rustix::fs::open(runtime, flags, Mode::empty())?)?.st_mode & 0o077 == 0;
        let mode = if is_closed { 0o733 } else { 0o700 };
        // Also past a umask, and when an earlier life left it otherwise. Not ours: refused here.
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
        Ok(Self(dir))
    }

    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Our ends of a service's FIFOs, made if they are not there. What is in them from an earlier life stays in them.
    pub(super) fn make(&self, name: &ServiceName, owner: &Credentials) -> io::Result<[OwnedFd; 2]> {
        let both = |found| -> io::Result<_> {
            Ok([self.make_one(name, Stream::Out, found)?, self.make_one(name, Stream::Err, found)?])
        };
        let make = |found| owner.on_files(|| both(found))?;
        match make(Found::Refused) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                for kind in [Stream::Out, Stream::Err] {
                    self.keep_or_remove(name, kind, owner)?;
                }
                make(Found::Taken)
            }
            made => made,
        }
    }

    /// As [`Self::make`], for a service that runs already with this main process. FIFOs of it that somebody has removed are still those
    /// that it writes into: they are what is read. Their names are free then, for the FIFOs of the next life.
    pub(super) fn take_over(
        &self,
        name: &ServiceName,
        owner: &Credentials,
        main: i32,
    ) -> io::Result<[OwnedFd; 2]> {
        let kinds = [Stream::Out, Stream::Err];
        // As the user, who may look at its own process: for root that takes CAP_SYS_PTRACE elsewhere.
        let nameless = owner.on_files(|| kinds.map(|kind| self.nameless(name, kind, main)))?;
        let mut ends = self.make(name, owner)?;
        for ((kind, end), nameless) in kinds.into_iter().zip(&mut ends).zip(nameless) {
            if let Some(nameless) = nameless {
                rustix::fs::unlinkat(&self.0, file_name(name, kind), AtFlags::empty())?;
                *end = nameless;
            }
        }
        Ok(ends)
    }

    /// The FIFO that this process has, if it is one of ours that has lost its name.
    fn nameless(&self, name: &ServiceName, kind: Stream, main: i32) -> Option<OwnedFd> {
        let number = match kind {
            Stream::Out => 1,
            Stream::Err => 2,
        };
        let path = format!("/proc/{main}/fd/{number}");
        let dir = std::fs::read_link(format!("/proc/self/fd/{}", self.0.as_raw_fd())).ok()?;
        // As proc_pid_fd(5) shows what was removed.
        let lost = format!("{}/{} (deleted)", dir.display(), file_name(name, kind));
        if std::fs::read_link(&path).ok()?.as_os_str() != lost.as_str() {
            return None;
        }
        let end =
            rustix::fs::open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let status = rustix::fs::fstat(&end).ok()?;
        let is_it = FileType::from_raw_mode(status.st_mode) == FileType::Fifo && status.st_nlink == 0;
        is_it.then_some(end)
    }

    /// One that an earlier life left for another user becomes this one's, or goes with what is in it.
    fn keep_or_remove(&self, name: &ServiceName, kind: Stream, owner: &Credentials) -> io::Result<()> {
        let file = file_name(name, kind);
        let status = match rustix::fs::statat(&self.0, file.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if (status.st_uid, status.st_gid) != (owner.uid, owner.gid) => status,
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::chownat(&self.0, file.as_bytes(), Some(uid), Some(gid), flags) {
            Err(Errno::PERM) if status.st_uid != owner.uid => {
                Ok(rustix::fs::unlinkat(&self.0, file.as_bytes(), AtFlags::empty())?)
            }
            // With another group it is still the user's.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives FIFOs that are in use to another user; false where that is not allowed, and then they stay as they are.
    pub(super) fn give(&self, name: &ServiceName, owner: &Credentials) -> bool {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        [Stream::Out, Stream::Err].into_iter().all(|kind| {
            let (file, flags) = (file_name(name, kind), AtFlags::SYMLINK_NOFOLLOW);
            rustix::fs::chownat(&self.0, file.as_bytes(), Some(uid), Some(gid), flags).is_ok()
        })
    }

    fn make_one(&self, name: &ServiceName, kind: Stream, found: Found) -> io::Result<OwnedFd> {
        let file = file_name(name, kind);
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mknodat(&self.0, &file, FileType::Fifo, mode, 0) {
            Ok(()) => {}
            Err(Errno::EXIST) if found == Found::Taken => {}
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
        Ok(fd)
    }

    /// Ends for the child: blocking, read-write. Of FIFOs that were made here for that user.
    pub(super) fn child_ends(
        &self,
        name: &ServiceName,
        owner: &Credentials,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        let open = |kind| self.open_end(&file_name(name, kind), OFlags::empty());
        owner.on_files(|| Ok((open(Stream::Out)?, open(Stream::Err)?)))?
    }

    pub(super) fn remove(&self, name: &ServiceName) {
        for kind in [Stream::Out, Stream::Err] {
            let _ = rustix::fs::unlinkat(&self.0, file_name(name, kind), AtFlags::empty());
        }
    }

    /// Removes those of all other names.
    pub(super) fn remove_others(&self, is_there: impl Fn(&ServiceName) -> bool) {
        let entries = rustix::fs::Dir::read_from(&self.0).into_iter().flatten().flatten();
        let files: Vec<String> =
            entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned)).collect();
        let name_of = |file: &str| {
            let kinds = [Stream::Out, Stream::Err].into_iter();
            let name = kinds.map(ending).find_map(|end| file.strip_suffix(end)?.strip_suffix('.'));
            ServiceName::of_slot(name?).ok()
        };
        for file in files.iter().filter(|file| name_of(file).is_some_and(|name| !is_there(&name))) {
            let _ = rustix::fs::unlinkat(&self.0, file.as_str(), AtFlags::empty());
        }
    }

    fn open_end(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, file, flags, Mode::empty())?)
    }
}

/// What becomes of a FIFO that is there already. Most are not, so nobody looks before one is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Its owner has not been checked.
    Refused,
    Taken,
}

fn file_name(name: &ServiceName, kind: Stream) -> String {
    format!("{name}.{}", ending(kind))
}

fn ending(kind: Stream) -> &'static str {
    match kind {
        Stream::Out => "out",
        Stream::Err => "err",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    #[test]
    fn a_fifo_outlives_our_end_and_keeps_what_was_written() {
        let runtime = tempfile::tempdir().unwrap();
        std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let name = ServiceName::new("coder").unwrap();
        let own = Credentials::own();
        let dir = FifoDir::open(runtime.path()).unwrap();
        let ours = dir.make(&name, &own).unwrap();
        let (child, _) = dir.child_ends(&name, &own).unwrap();
        drop((ours, dir));
        rustix::io::write(&child, b"still here\n").unwrap();

        let successor = FifoDir::open(runtime.path()).unwrap();
        let [ours, _] = successor.make(&name, &own).unwrap();
        let mut seen = [0; 64];
        let count = rustix::io::read(&ours, &mut seen).unwrap();
        assert_eq!(&seen[..count], b"still here\n");
        assert_eq!(rustix::io::read(&ours, &mut seen), Err(Errno::AGAIN));

        let path = runtime.path().join("log");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o733,
            "below a closed one"
        );
        let fifo = std::fs::metadata(path.join("coder.out")).unwrap();
        assert!(fifo.file_type().is_fifo());
        assert_eq!(fifo.permissions().mode() & 0o7777, 0o600);
        successor.remove(&name);
        assert!(!path.join("coder.out").exists());
        std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o755)).unwrap();
        FifoDir::open(runtime.path()).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o700,
            "below an open one"
        );
    }

    #[test]
    fn only_fifos_of_services_that_are_no_more_are_removed() {
        let runtime = tempfile::tempdir().unwrap();
        let dir = FifoDir::open(runtime.path()).unwrap();
        for name in ["a", "a.out", "gone", "gone.err"] {
            dir.make(&ServiceName::of_slot(name).unwrap(), &Credentials::own()).unwrap();
        }
        std::fs::write(runtime.path().join("log/other"), "").unwrap();
        dir.remove_others(|name| name.as_str().starts_with('a'));
        let entries = std::fs::read_dir(runtime.path().join("log")).unwrap();
        let mut left: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["a.err", "a.out", "a.out.err", "a.out.out", "other"]);
    }

    /// nginx and php-fpm open /dev/stderr by its name, as the user that they run as.
    #[test]
    fn a_fifo_belongs_to_the_service_user_also_when_that_is_another_by_now() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root has services of other users; the host tier runs this as root.
        }
        let runtime = tempfile::tempdir().unwrap();
        std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let name = ServiceName::new("web").unwrap();
        let dir = FifoDir::open(runtime.path()).unwrap();
        for uid in [0, 33, 65534] {
            let user = Credentials { uid, gid: uid, groups: [uid].into() };
            let [ours, _] = dir.make(&name, &user).unwrap();
            let owner = rustix::fs::fstat(&ours).unwrap();
            assert_eq!((owner.st_uid, owner.st_gid, owner.st_mode & 0o7777), (uid, uid, 0o600));
            let (child, _) = dir.child_ends(&name, &user).unwrap();
            let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&child));
            user.on_files(|| std::fs::OpenOptions::new().write(true).open(&again)).unwrap().unwrap();
        }
    }
}
