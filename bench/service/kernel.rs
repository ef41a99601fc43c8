//! The few system calls that the modes share, and the writing of records.

use crate::record::{Kind, Record};
use std::ffi::CStr;

const EVENTS: &CStr = c"/bench/events";

/// CLOCK_MONOTONIC in ns.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + (time.tv_nsec as u64)
}

/// Writes one record; nobody reading is nobody's problem.
pub fn tell(kind: Kind, id: u32, status: i32, time: u64, value: u64) {
    // SAFETY: a live C string; plain flags.
    let fd = unsafe { libc::open(EVENTS.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    // SAFETY: no memory involved.
    let pid = unsafe { libc::getpid() };
    let bytes = Record { kind, id, pid, status, time, value }.to_bytes();
    // SAFETY: a live buffer; the descriptor is ours.
    unsafe {
        libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        libc::close(fd);
    }
}

/// Forks; the child runs `body` and ends with what it returns. Every mode is single-threaded.
pub fn fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: single-threaded.
    match unsafe { libc::fork() } {
        0 => quit(body()),
        pid => pid,
    }
}

/// A daemon as the books make it: fork, setsid, fork, the middle one gone.
pub fn daemonise(body: impl FnOnce() -> i32) {
    let middle = fork(|| {
        // SAFETY: no memory involved.
        unsafe { libc::setsid() };
        if fork(body) < 0 { 1 } else { 0 }
    });
    wait_for(middle);
}

pub fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
    status
}

/// The exit code a shell would show.
pub fn code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

pub fn ignore_stop_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is no function of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

pub fn quit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

pub fn forever() -> ! {
    loop {
        // SAFETY: no memory involved.
        unsafe { libc::pause() };
    }
}

/// A pipe whose ends are passed on to every child, and not to what is executed.
pub fn pipe() -> [i32; 2] {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    ends
}

/// Reads `count` single bytes from `fd`: one each from as many writers. False when the writers are gone before.
pub fn roll_call(fd: i32, count: u64) -> bool {
    let mut byte = [0u8; 1];
    // SAFETY: a live buffer of one byte.
    (0..count).all(|_| unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) } == 1)
}

pub fn say_here(fd: i32) {
    // SAFETY: a live buffer of one byte.
    unsafe { libc::write(fd, b".".as_ptr().cast(), 1) };
}

pub fn close(fd: i32) {
    // SAFETY: a descriptor of ours that is not used again.
    unsafe { libc::close(fd) };
}

/// Replaces this process by `words`; returns only when that fails.
pub fn execute(words: &[&CStr]) -> i32 {
    let mut pointers: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let Some(program) = words.first() else { return 127 };
    // SAFETY: a NULL-ended vector of live C strings.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    127
}
