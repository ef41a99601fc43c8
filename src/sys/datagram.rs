//! A datagram and who sent it: `SCM_CREDENTIALS` of unix(7).
//!
//! rustix's `recvmsg` is not used: it hands out the sender's number in a non-zero type, and that of a process outside our pid
//! namespace reads as 0.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// The sender, as the kernel saw it when it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// `None` for a process that our pid namespace does not contain. The number may be another one's by now.
    pub pid: Option<i32>,
    pub uid: u32,
}

/// Room for one `SCM_CREDENTIALS`, aligned as a cmsghdr has to be. Descriptors that came with it find none: the kernel closes them.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// CMSG_SPACE of a `ucred` on every target that we have: a header of two words and 12 bytes, each rounded up to a word.
const CONTROL: usize = size_of::<libc::cmsghdr>() + 16;

/// Takes one datagram off a socket with `SO_PASSCRED`; what does not fit `buffer` is lost. Descriptors in it are closed.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<Sender>)> {
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid `msghdr` without a name, parts or control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `header` points to `part` and `control`, which live and are writable for the call with the sizes that it names.
    let count = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has set `msg_controllen` to what it wrote into `control`; the macro stays within that.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: `first` is null or points to a whole header within `control`.
    let first = unsafe { first.as_ref() };
    let is_sender = |head: &&libc::cmsghdr| {
        (head.cmsg_level, head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
    };
    let sender = first.filter(is_sender).map(|head| {
        // SAFETY: the kernel puts a whole `ucred` behind such a header, and there was room for it.
        let found = unsafe { libc::CMSG_DATA(head).cast::<libc::ucred>().read_unaligned() };
        Sender { pid: Some(found.pid).filter(|pid| *pid > 0), uid: found.uid }
    });
    Ok((count, sender))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_datagram_comes_with_its_sender_and_descriptors_in_it_are_closed() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::sockopt::set_socket_passcred(&ours, true).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(receive(&ours, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        rustix::net::send(&theirs, b"READY=1", rustix::net::SendFlags::empty()).unwrap();
        let (count, sender) = receive(&ours, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READY=1");
        let own = Sender { pid: Some(std::process::id() as i32), uid: rustix::process::getuid().as_raw() };
        assert_eq!(sender, Some(own));
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = rustix::net::SendAncillaryBuffer::new(&mut space);
        let passed = [writer.as_fd()];
        assert!(message.push(rustix::net::SendAncillaryMessage::ScmRights(&passed)));
        let text = [std::io::IoSlice::new(b"BARRIER=1")];
        rustix::net::sendmsg(&theirs, &text, &mut message, rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(receive(&ours, &mut buffer).unwrap().1, Some(own));
        drop(writer);
        assert_eq!(
            rustix::io::read(&reader, &mut buffer).unwrap(),
            0,
            "the kernel closed the one in the message"
        );
    }
}
