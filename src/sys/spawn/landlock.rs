//! Landlock's signal scope: a process may signal only what it and its like have started (landlock(7), ABI 6, kernel 6.12).
//!
//! Called in the child between clone and exec (`child.rs`): no allocation, no panic, raw system calls.
#![allow(unsafe_code)]

use super::syscall;
use rustix::io::Errno;

/// `struct landlock_ruleset_attr` of ABI 6: nothing is handled, signals are scoped.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// LANDLOCK_SCOPE_SIGNAL of include/uapi/linux/landlock.h.
const SIGNAL: u64 = 1 << 1;

/// From here on this process and all it starts can signal only each other. Nobody is kept from signalling them.
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` without Landlock, `E2BIG` before ABI 6, `EPERM` without no_new_privs.
pub(super) fn scope_signals() -> Result<(), Errno> {
    let ruleset = Ruleset { handled_access_fs: 0, handled_access_net: 0, scoped: SIGNAL };
    let place = (&raw const ruleset).expose_provenance();
    // SAFETY: a live struct with its size; no flags. The answer is a new descriptor or an error.
    let made =
        unsafe { syscall::call(libc::SYS_landlock_create_ruleset, [place, size_of::<Ruleset>(), 0, 0]) }?;
    // SAFETY: plain numbers. The descriptor is close-on-exec, and exec or exit is what follows.
    unsafe { syscall::call(libc::SYS_landlock_restrict_self, [made, 0, 0, 0]) }.map(drop)
}
