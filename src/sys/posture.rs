//! How a helper process of ours holds itself: signals, what it may be asked, whose orphans it takes.
#![allow(unsafe_code)]

use rustix::process::DumpableBehavior;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// Blocks every signal and returns a non-blocking descriptor that is readable when a child has changed state.
///
/// One record stands for any number of children (signal(7), standard signals do not queue): reap in a loop.
///
/// # Errors
/// Those of signalfd(2).
pub fn block_signals() -> io::Result<OwnedFd> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut child = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are filled by the calls before anything reads them; the flags make a new descriptor, ours alone.
    let fd = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
        // An inherited "ignore" would let children vanish without a trace (wait(2), NOTES).
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::sigemptyset(child.as_mut_ptr());
        libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD);
        libc::signalfd(-1, child.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Neither traced nor read by processes of the same uid (prctl(2), PR_SET_DUMPABLE), known by our name, and the
/// parent of every orphan below.
///
/// # Errors
/// Those of prctl(2); `PR_SET_CHILD_SUBREAPER` needs kernel 3.4.
pub fn guard(name: &std::ffi::CStr) -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Only for people who look at a process list.
    let _ = rustix::thread::set_name(name);
    Ok(())
}

/// A close-on-exec copy of a descriptor that our parent put at a known number.
///
/// # Errors
/// `EBADF` when it did not.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is only looked at by fcntl, which answers EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 4)?)
}

/// Closes a descriptor that was left open for us with the next execve(2). Whose it is stays open: the number is not taken.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn close_on_exec(number: i32) -> io::Result<()> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is only looked at by fcntl, which answers EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?)
}

/// Takes possession of a descriptor that was left open for us across an execve(2), and makes it close-on-exec again.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn take_over(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is only looked at by fcntl, which answers EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and it was opened by the program that we replaced.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
