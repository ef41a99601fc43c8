//! Signals as descriptors: blocked first thing, then read from a signalfd(2) by the loop.
//!
//! Blocking comes before everything else, because as PID 1 a stop signal that arrives earlier is lost for good: the
//! kernel drops what the init of a PID namespace neither handles nor blocks (pid_namespaces(7)).
#![allow(unsafe_code)]

use crate::core::signal::Signal;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals that mean something to the supervisor, or that would end or stop it if they were not caught.
const OURS: [Signal; 13] = [
    Signal::CHLD,
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::PWR,
    Signal::RTMIN_PLUS_3,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
];

/// A signal that arrived, and who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub signal: Signal,
    pub pid: u32,
    pub uid: u32,
}

/// The supervisor's signals, as a descriptor that becomes readable. Non-blocking, close-on-exec.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks the supervisor's signals for this thread and all that it starts, gives SIGCHLD its default disposition
    /// back (an inherited SIG_IGN would make the kernel reap behind our back, wait(2)) and opens the descriptor.
    ///
    /// # Errors
    /// As sigprocmask(2), sigaction(2), signalfd(2).
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that the other calls read; all pointers are to live locals; SIGCHLD
        // gets its default action, which is no code of ours.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in OURS {
                libc::sigaddset(set.as_mut_ptr(), signal.number());
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()))?;
            let mut default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            default.sa_sigaction = libc::SIG_DFL;
            check(libc::sigaction(libc::SIGCHLD, &raw const default, std::ptr::null_mut()))?;
            check(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?
        };
        // SAFETY: signalfd has just given us this descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal, or `None` when there is none for now.
    ///
    /// # Errors
    /// As read(2).
    pub fn read(&self) -> io::Result<Option<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut record = [0u8; SIZE];
        match rustix::io::read(&self.0, &mut record) {
            Ok(SIZE) => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // SAFETY: the kernel filled the whole record, and every bit pattern of this plain struct is valid.
        let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(record.as_ptr().cast()) };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(Signal::from_number);
        Ok(signal.map(|signal| Received { signal, pid: info.ssi_pid, uid: info.ssi_uid }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
