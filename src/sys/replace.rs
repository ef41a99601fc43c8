//! Becoming another program without becoming another process: children, signal mask and pending signals stay.
//!
//! `std` cannot do this: its `exec` empties the signal mask first, and a SIGTERM that was waiting for the loop would end
//! the supervisor in between.
#![allow(unsafe_code)]

use rustix::io::FdFlags;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Executes `program` in our place. The descriptors in `keep` stay open across it under their numbers; every other one of
/// ours is close-on-exec. Returns only when it failed, and then nothing has changed.
pub fn replace(
    program: &Path,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    keep: &[BorrowedFd<'_>],
) -> io::Error {
    let terminated = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::other);
    let strings = || -> io::Result<(CString, Vec<CString>, Vec<CString>)> {
        let argv = argv.into_iter().map(terminated).collect::<io::Result<_>>()?;
        let entry = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            terminated(name)
        };
        let env = env.into_iter().map(entry).collect::<io::Result<_>>()?;
        Ok((terminated(program.as_os_str().to_owned())?, argv, env))
    };
    let (program, argv, env) = match strings() {
        Ok(strings) => strings,
        Err(error) => return error,
    };
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(&argv), pointers(&env));
    let set = |flags| {
        for fd in keep {
            // They are open, which is all that this could complain about.
            let _ = rustix::io::fcntl_setfd(fd, flags);
        }
    };
    set(FdFlags::empty());
    // SAFETY: all three are null-ended and point to strings that live until after the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    let error = io::Error::last_os_error();
    set(FdFlags::CLOEXEC);
    error
}
