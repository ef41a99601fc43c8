//! A handle of one process that can never come to mean another: what we signal instead of a number.
//!
//! `pidfd_open` needs kernel 5.3, `pidfd_send_signal` 5.1 (man pages of the same names). A handle taken from an
//! unreaped child of our own, or by `clone(CLONE_PIDFD)`, is free of races; one taken from a number read in /proc is
//! not, and its user must look again at who that is *after* opening it.
#![allow(unsafe_code)]

use crate::core::signal::Signal;
use linux_raw_sys::general::PID_FS_MAGIC;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// One process, from the moment this exists until it is dropped. Close-on-exec.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// # Errors
    /// `ESRCH` (as `NotFound` is not what the kernel says, the raw error is kept) when no such process exists.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Takes over a descriptor that the kernel or a peer handed out as a pidfd.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Its number as we see it, whatever it is called in its own namespace (pidfd_open(2), NOTES on fdinfo). `None`: it
    /// is reaped, or nothing we could see.
    pub fn pid(&self) -> Option<i32> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd())).ok()?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
        (pid > 0).then_some(pid)
    }

    /// A number that no other process of this boot has, had or will have: the inode of its pidfd (kernel 6.9, fs/pidfs.c).
    /// `None`: before that all pidfds had one and the same.
    pub fn unique(&self) -> Option<u64> {
        // Of the kernel, and so of all of them.
        static IS_PIDFS: OnceLock<bool> = OnceLock::new();
        let is_pidfs =
            || rustix::fs::fstatfs(&self.0).is_ok_and(|fs| u32::try_from(fs.f_type) == Ok(PID_FS_MAGIC));
        IS_PIDFS
            .get_or_init(is_pidfs)
            .then(|| rustix::fs::fstat(&self.0).map(|status| status.st_ino).ok())
            .flatten()
    }

    /// Signals the process as a whole. Real-time signals are why this is not rustix: its `Signal` has no safe value
    /// for them.
    ///
    /// # Errors
    /// `ESRCH` once the process is reaped (a zombie still takes signals), `EPERM` without the right.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: integers and a null siginfo only; the descriptor is live for the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal.number(),
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The wait status of a process that is somebody else's child, which that parent has reaped: the kernel keeps it for
    /// those who hold a pidfd (kernel 6.15, `PIDFD_INFO_EXIT`). `None`: not reaped yet, or an older kernel.
    pub fn exit_status(&self) -> Option<i32> {
        // SAFETY: the structure is plain integers, for which all zeroes is a value.
        let mut info = unsafe { std::mem::zeroed::<libc::pidfd_info>() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: the kernel writes at most the size that is part of the request's number, which is that of `info`.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        (done == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code)
    }

    /// Whether the process is over, reaped or not (a pidfd is readable then; pidfd_open(2)). While this says no, its
    /// number means this process.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
