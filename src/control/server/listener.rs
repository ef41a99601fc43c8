//! The socket's file: made where nobody answers, with exactly its mode, and removed if it is still ours.

use crate::sys::peer;
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("a supervisor already answers at {0}: stop it, or choose another place with --socket")]
    InUse(PathBuf),
    #[error("{0} is in the way and is not a socket: remove it, or choose another place with --socket")]
    NotASocket(PathBuf),
    #[error("{0} is too long for a socket (107 bytes): choose a shorter place with --socket")]
    TooLong(PathBuf),
    #[error("failed to listen at {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The socket that callers connect to, for as long as it is ours.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the socket's file: only what we made is removed.
    pub file: (u64, u64),
}

impl Listener {
    /// Makes the socket at `path` with exactly `mode`, after a look at whether somebody answers there already: a
    /// socket that nobody serves is replaced.
    ///
    /// Changes the process's umask for the moment of bind(2): to be called before there are other threads.
    ///
    /// # Errors
    /// [`ListenError`], each with what to do.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let failed = |errno: Errno| ListenError::Io { path: path.to_owned(), source: errno.into() };
        let address = SocketAddrUnix::new(path).map_err(|_| ListenError::TooLong(path.to_owned()))?;
        make_room(path, &address)?;
        let listener = stream_socket().map_err(failed)?;
        // The kernel takes the mode of the socket's file from the socket itself, less the umask (Linux since 2.6;
        // net/unix/af_unix.c, unix_bind_bsd). A chmod by path afterwards could be led astray by a planted link.
        rustix::fs::fchmod(&listener, Mode::from_raw_mode(mode)).map_err(failed)?;
        let bound = {
            // Two that borrow it at once would leave it borrowed.
            static UMASK: Mutex<()> = Mutex::new(());
            let _one_at_a_time = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
            let umask = rustix::process::umask(Mode::empty());
            let bound = rustix::net::bind(&listener, &address);
            rustix::process::umask(umask);
            bound
        };
        match bound {
            Err(Errno::ADDRINUSE) => return Err(ListenError::InUse(path.to_owned())),
            other => other.map_err(failed)?,
        }
        let file = identity(path).map_err(failed)?;
        rustix::net::listen(&listener, 128).map_err(failed)?;
        Ok(Self { fd: listener, path: path.to_owned(), file })
    }

    /// Goes on with what an earlier one handed over.
    ///
    /// # Errors
    /// [`ListenError::Io`]: the socket's file is gone.
    pub fn resume(path: &Path, fd: OwnedFd) -> Result<Self, ListenError> {
        let file = identity(path)
            .map_err(|errno| ListenError::Io { path: path.to_owned(), source: errno.into() })?;
        Ok(Self { fd, path: path.to_owned(), file })
    }

    /// For the next one. The socket stays where it is.
    ///
    /// # Errors
    /// As fcntl(2), F_DUPFD_CLOEXEC.
    pub fn give_away(&mut self) -> io::Result<OwnedFd> {
        let fd = self.fd.try_clone()?;
        // What is not ours any more is not removed.
        self.file = (0, 0);
        Ok(fd)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the socket's file if it is still ours.
    pub fn remove(&self) {
        if identity(&self.path) == Ok(self.file) {
            let _ = rustix::fs::unlink(&self.path);
        }
    }

    /// The next caller, if there is one.
    pub fn accept(&self) -> Result<OwnedFd, Errno> {
        retry_on_intr(|| rustix::net::accept_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove();
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// Removes a socket that nobody serves.
fn make_room(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let failed = |errno: Errno| ListenError::Io { path: path.to_owned(), source: errno.into() };
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = stream_socket().map_err(failed)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(failed),
        // A child that a killed supervisor had cloned and that has not executed yet still holds a copy of its socket, for
        // a moment: the kernel connects callers, and nobody will answer them.
        Ok(()) if peer::has_ended(&probe) => rustix::fs::unlink(path).map_err(failed),
        // A full backlog is somebody, too.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse(path.to_owned())),
        Err(errno) => Err(failed(errno)),
    }
}

fn identity(path: &Path) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}
