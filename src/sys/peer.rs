//! Who is at the other end of a Unix stream socket.
//!
//! rustix's `socket_peercred` is not used: it hands the kernel's answer out with a non-zero pid type, and the pid of
//! a peer whose process is outside our pid namespace reads as 0 (pid_namespaces(7)), as with a socket that is bind
//! mounted into a container.
#![allow(unsafe_code)]

use super::pidfd::Pidfd;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// As in the kernel's asm-generic/socket.h, which x86 and Arm use; libc has no name for it on every target.
const SO_PEERPIDFD: libc::c_int = 77;

/// The credentials of a peer when it connected (or, seen by a client, of the server when it began to listen).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// `None` for a process that our pid namespace does not contain. For messages only: a pid may be reused. A
    /// reader who acts on the process asks [`process`] first.
    pub pid: Option<u32>,
}

/// Reads `SO_PEERCRED` (unix(7)).
///
/// # Errors
/// Those of getsockopt(2); none is expected on a connected Unix socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Peer> {
    #[cfg(test)]
    if let Some(peer) = played::peer_of(&socket) {
        return Ok(peer);
    }
    let mut got = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `got` and `len` are live and writable for the call, and `len` is the size of `got`; every bit pattern
    // is a valid `ucred`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut got).cast(),
            &raw mut len,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { uid: got.uid, gid: got.gid, pid: u32::try_from(got.pid).ok().filter(|pid| *pid != 0) })
}

/// The process that connected, held so that its number cannot come to mean another unnoticed.
///
/// `SO_PEERPIDFD` (Linux 6.5; include/uapi/asm-generic/socket.h) names exactly the one that connected. An older kernel
/// gives the one that has its number now, which is another only if the peer has ended since.
///
/// # Errors
/// When it has ended, or is outside our pid namespace.
pub fn process(socket: impl AsFd) -> io::Result<Pidfd> {
    let mut got: RawFd = -1;
    let mut len = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: `got` and `len` are live and writable for the call, and `len` is the size of `got`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut got).cast(),
            &raw mut len,
        )
    };
    if done == 0 && got >= 0 {
        // SAFETY: the kernel has just made this descriptor for us (close-on-exec), and nobody else knows it.
        return Ok(Pidfd::from_fd(unsafe { OwnedFd::from_raw_fd(got) }));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOPROTOOPT) {
        return Err(error);
    }
    let pid = credentials(socket)?.pid.and_then(|pid| i32::try_from(pid).ok());
    Pidfd::open(pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?)
}

/// Whether the process that connected has ended, reaped or not (seen by a client: the process that began to listen). One
/// outside our pid namespace may live.
pub fn has_ended(socket: impl AsFd) -> bool {
    match process(&socket) {
        Ok(process) => process.has_ended(),
        // Reaped: EINVAL before kernel 6.16 (kernel/fork.c, pidfd_prepare).
        Err(error) => {
            matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL))
                && credentials(&socket).is_ok_and(|peer| peer.pid.is_some())
        }
    }
}

/// Callers who are another user, which a test that is not root cannot be, or a process that is not there. Their socket has a name,
/// and that says who they are.
#[cfg(test)]
pub mod played {
    use super::Peer;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    const NAME: &str = "a caller of hermes-sup's tests";

    /// Connects as this user, in the process of this number if there is one.
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(path: &Path, uid: u32, pid: Option<u32>) -> io::Result<UnixStream> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME} {uid} {} {} {number}", pid.unwrap_or_default(), std::process::id());
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket.into())
    }

    pub(super) fn peer_of(socket: impl AsFd) -> Option<Peer> {
        let address = SocketAddrUnix::try_from(rustix::net::getpeername(socket).ok()??).ok()?;
        let name = std::str::from_utf8(address.abstract_name()?).ok()?;
        let mut words = name.strip_prefix(NAME)?.split(' ').skip(1);
        let uid = words.next()?.parse().ok()?;
        let pid = words.next()?.parse().ok().filter(|pid| *pid != 0);
        Some(Peer { uid, gid: uid, pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peers_process_is_known_until_it_has_ended() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(!process(&a).unwrap().has_ended(), "it is this process");
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let held = Pidfd::open(child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        assert!(held.has_ended());
    }

    #[test]
    fn a_socketpair_names_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = credentials(&a).unwrap();
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }

    #[test]
    fn a_played_caller_is_who_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for pid in [None, Some(4343)] {
            let _caller = played::connect(&path, 4242, pid).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(credentials(&accepted).unwrap(), Peer { uid: 4242, gid: 4242, pid });
        }
    }
}
