//! What each of our tracers does with ptrace(2).
//!
//! One thread does all of it: the kernel takes orders about a tracee from its tracer alone, and gives it, with `__WNOTHREAD`,
//! the news of its own tracees and not of what other threads wait for.

use nix::sys::ptrace::Options;
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::WaitOptions;

/// Whatever a tracee starts is one, too.
pub const FOLLOW: Options = Options::PTRACE_O_TRACECLONE
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACEEXEC)
    .union(Options::PTRACE_O_EXITKILL);

/// The next thread that has changed, and its wait status. `None`: no tracee is left.
pub fn next() -> Option<(i32, i32)> {
    let any = WaitOptions::from_bits_retain((libc::__WALL | libc::__WNOTHREAD).cast_unsigned());
    loop {
        match rustix::process::wait(any) {
            Ok(Some((pid, status))) => return Some((pid.as_raw_nonzero().get(), status.as_raw())),
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// PTRACE_LISTEN of ptrace(2), which nix does not have: what stopped it goes on to do so, and there is news once it is continued.
///
/// # Errors
/// Of ptrace(2).
#[allow(dead_code, unsafe_code)]
pub fn listen(tracee: Pid) -> nix::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: it takes numbers alone, and of this process changes nothing.
    let done = unsafe { libc::ptrace(libc::PTRACE_LISTEN, tracee.as_raw(), nothing, nothing) };
    nix::errno::Errno::result(done).map(drop)
}

pub fn words(pid: i32) -> Vec<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).split_terminator('\0').map(str::to_owned).collect()
}

/// The process of a thread.
pub fn group_of(tid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}
