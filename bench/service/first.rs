//! What runs before the supervisor: the launcher that notes the moment, and a first process for those that are none.

use crate::kernel::{code, execute, fork, now, tell};
use crate::record::Kind;
use std::ffi::CStr;

/// `launch CMD…`: notes the time and becomes the command.
pub fn launch(words: &[&CStr]) -> i32 {
    tell(Kind::Launch, 0, 0, now(), 0);
    execute(words)
}

/// `first CMD…`: runs the command as a child, reaps everything, and ends when nothing is left.
pub fn first(words: &[&CStr]) -> i32 {
    fork(|| launch(words));
    // SAFETY: no status wanted.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    0
}

/// `reaper CMD…`: the smallest loop that reaps, the floor of the row on orphans.
pub fn reaper(words: &[&CStr]) -> i32 {
    let child = fork(|| launch(words));
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid == child || pid < 0 {
            return code(status);
        }
    }
}

/// `bare N`: N units started as fast as that can be, and ended by SIGTERM: what the machine itself needs.
pub fn bare(count: u64) -> i32 {
    // SAFETY: the set is initialised before it is used.
    let stop = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    tell(Kind::Launch, 0, 0, now(), 0);
    for id in 0..count {
        fork(|| {
            // SAFETY: the set is initialised.
            unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const stop, std::ptr::null_mut()) };
            let id = std::ffi::CString::new(id.to_string()).unwrap_or_default();
            execute(&[c"/bench/service", c"unit", &id])
        });
    }
    let mut signal = 0;
    // SAFETY: live places; the set is initialised. PID 1 is spared by kill(-1).
    unsafe {
        libc::sigwait(&raw const stop, &raw mut signal);
        libc::kill(-1, libc::SIGTERM);
    }
    // SAFETY: no status wanted.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    0
}
