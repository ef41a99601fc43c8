//! Who is at the other end of a Unix stream socket.
//!
//! rustix's `socket_peercred` is not used: it hands the kernel's answer out with a non-zero pid type, and the pid of
//! a peer whose process is outside our pid namespace reads as 0 (pid_namespaces(7)), as with a socket that is bind
//! mounted into a container.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// The credentials of a peer when it connected (or, seen by a client, of the server when it began to listen).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// `None` for a process that our pid namespace does not contain. For messages only: a pid may be reused.
    pub pid: Option<u32>,
}

/// Reads `SO_PEERCRED` (unix(7)).
///
/// # Errors
/// Those of getsockopt(2); none is expected on a connected Unix socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Peer> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socketpair_names_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = credentials(&a).unwrap();
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }
}
