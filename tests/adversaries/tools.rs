//! What the programs share: talking, forking, detaching, ignoring, waiting for ever.

use std::os::fd::OwnedFd;

/// One whole line to stdout in one write; nobody reading is nobody's problem.
pub fn say(line: &str) {
    write_all(libc::STDOUT_FILENO, format!("{line}\n").as_bytes());
}

pub fn complain(line: &str) {
    write_all(libc::STDERR_FILENO, format!("{line}\n").as_bytes());
}

/// Writes everything, waiting where the reader is slow; gives up on any other error.
pub fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are one live slice.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Forks; `child` runs in the new process, which then ends with its return value. Returns the pid of the child.
pub fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: every program here is single-threaded when it forks.
    match unsafe { libc::fork() } {
        -1 => {
            complain(&format!("adversary: fork: {}", std::io::Error::last_os_error()));
            -1
        }
        0 => quit(child()),
        pid => pid,
    }
}

/// A daemon as the books make it: fork, setsid, fork, the middle one gone. `body` runs in it.
pub fn daemonise(body: impl FnOnce() -> i32) {
    let middle = fork(|| {
        // SAFETY: no memory involved.
        unsafe { libc::setsid() };
        fork(body);
        0
    });
    reap(middle);
}

/// Ends this process without destructors or buffers, as a forked child must.
pub fn quit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Waits for one child and returns its wait status.
pub fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
    status
}

/// Ignores what a supervisor would politely send.
pub fn ignore_stop_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is no function of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Sleeps until killed.
pub fn forever() -> ! {
    loop {
        // SAFETY: no memory involved.
        unsafe { libc::pause() };
    }
}

pub fn stubborn() -> ! {
    ignore_stop_signals();
    forever()
}

/// A pipe over which children report that they are in place.
pub struct RollCall {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl RollCall {
    pub fn new() -> Self {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        Self { reader, writer }
    }

    /// Called by a child, once.
    pub fn here(&self) {
        let _ = rustix::io::write(&self.writer, b"x");
    }

    /// Returns when `count` children have called.
    pub fn wait_for(&self, count: u64) {
        let mut seen = 0;
        let mut buffer = [0; 256];
        while seen < count {
            match rustix::io::read(&self.reader, &mut buffer) {
                Ok(0) => return,
                Ok(more) => seen += more as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("roll call: {error}"),
            }
        }
    }
}
