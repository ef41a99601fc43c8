//! Packets with descriptors between processes of ours (unix(7), SOCK_SEQPACKET): each arrives whole, nobody ever blocks.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// As many descriptors as a packet carries at most.
const MOST: usize = 7;

/// What is there to be read.
#[derive(Debug)]
pub enum Packet {
    /// Its length, and what came with it.
    Whole(usize, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The other side is gone, or has sent more than there was room for.
    End,
}

/// A connected pair, both close-on-exec.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends `parts` as one packet.
///
/// # Errors
/// Those of sendmsg(2): `EMSGSIZE` for more than the socket's buffer; `InvalidInput` for more than seven descriptors.
pub fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(socket, parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads the next packet into `bytes`.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Packet {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Packet::Nothing,
            Err(_) => return Packet::End,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if message.bytes == 0 || message.flags.contains(ReturnFlags::TRUNC) {
        return Packet::End;
    }
    Packet::Whole(message.bytes, fds)
}
