//! Programs whose tree is hard to end.

use crate::tools::{
    RollCall, complain, daemonise, forever, fork, ignore_stop_signals, quit, reap, say, stubborn,
};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// `tree N`: the main process and N daemons, each in a session of its own, all deaf to TERM, INT, HUP and QUIT.
pub fn tree(count: u64) -> i32 {
    ignore_stop_signals();
    let roll = RollCall::new();
    for _ in 0..count {
        daemonise(|| {
            roll.here();
            stubborn()
        });
    }
    roll.wait_for(count);
    say("ready tree");
    forever()
}

/// `comet K`: K processes that do nothing but fork and exit, so that each pid lives for microseconds.
pub fn comet(count: u64) -> i32 {
    ignore_stop_signals();
    let roll = RollCall::new();
    for _ in 0..count {
        daemonise(|| {
            // Whom it has left behind, dead. Where the oldest of them is still not reaped, its parent gets no
            // processor, and at full speed the whole machine would soon be out of pids.
            let (mut behind, mut hops) = ([0; 1024], 0);
            loop {
                // SAFETY: no memory involved.
                behind[hops % behind.len()] = unsafe { libc::getpid() };
                // SAFETY: single-threaded; the parent ends at once and the child goes on.
                match unsafe { libc::fork() } {
                    0 => {
                        hops += 1;
                        if hops == 3 {
                            roll.here();
                        }
                        let oldest = behind[hops % behind.len()];
                        // SAFETY: no memory involved.
                        if oldest > 0 && unsafe { libc::kill(oldest, 0) } == 0 {
                            // SAFETY: waits, for no descriptors.
                            unsafe { libc::poll(std::ptr::null_mut(), 0, 10) };
                        }
                    }
                    -1 => {} // No pid free for a moment: a comet that gave up would prove nothing.
                    _ => quit(0),
                }
            }
        });
    }
    roll.wait_for(count);
    say("ready comet");
    forever()
}

/// `storm N`: every process forks as fast as it can until N forks have happened; all stay.
pub fn storm(bound: u64) -> i32 {
    ignore_stop_signals();
    // SAFETY: a fresh shared anonymous page; it is never unmapped.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert!(page != libc::MAP_FAILED, "a shared page");
    // SAFETY: the page is zeroed, aligned, and lives as long as every process of the storm.
    let forks: &AtomicU64 = unsafe { &*page.cast::<AtomicU64>() };
    say("ready storm");
    // SAFETY: no memory involved.
    let main_process = unsafe { libc::getpid() };
    loop {
        let turn = forks.fetch_add(1, Ordering::Relaxed);
        if turn >= bound {
            // SAFETY: no memory involved.
            if unsafe { libc::getpid() } == main_process {
                say("bound reached");
            }
            forever();
        }
        // SAFETY: single-threaded; child and parent both go round again.
        unsafe { libc::fork() };
    }
}

pub fn ignore_term() -> i32 {
    ignore_stop_signals();
    say("ready ignore-term");
    forever()
}

/// The main process ends at TERM as asked; its child, in the same process group, ignores it.
pub fn obey_but_child_ignores() -> i32 {
    let roll = RollCall::new();
    fork(|| {
        ignore_stop_signals();
        roll.here();
        forever()
    });
    roll.wait_for(1);
    say("ready obey-but-child-ignores");
    forever()
}

/// The first thread ends by itself while another lives on: the process looks like a zombie and is none.
pub fn zombie_leader() -> i32 {
    ignore_stop_signals();
    std::thread::spawn(|| {
        let leader = format!("/proc/{}/stat", std::process::id());
        // The state of the first thread follows the last ')' of its stat line; proc has no event for it.
        while !std::fs::read_to_string(&leader)
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
        {
            std::thread::yield_now();
        }
        say("ready zombie-leader");
        forever()
    });
    // SAFETY: ends this thread only; nothing on its stack is used by the other.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    quit(1)
}

/// The main process hangs in vfork, uninterruptible by anything but SIGKILL, because its child never execs.
pub fn vfork_child() -> i32 {
    extern "C" fn child(_: *mut libc::c_void) -> libc::c_int {
        ignore_stop_signals();
        say("ready vfork-child");
        forever()
    }
    ignore_stop_signals();
    let mut stack = vec![0u8; 256 * 1024];
    let top = stack.as_mut_ptr_range().end.map_addr(|address| address & !15);
    // SAFETY: the stack outlives the child because CLONE_VFORK holds us here until it is gone; the child shares our
    // memory and only makes system calls on lines of its own.
    unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        libc::clone(child, top.cast(), flags, std::ptr::null_mut());
    }
    forever()
}

/// A child that is stopped, and then the main process itself.
pub fn stopped() -> i32 {
    let child = fork(|| {
        ignore_stop_signals();
        // SAFETY: no memory involved.
        unsafe { libc::raise(libc::SIGSTOP) };
        forever()
    });
    wait_until_stopped(child);
    say("ready stopped");
    // SAFETY: no memory involved.
    unsafe { libc::raise(libc::SIGSTOP) };
    forever()
}

/// A child held in a ptrace stop by a tracer that never lets go.
pub fn ptraced() -> i32 {
    ignore_stop_signals();
    let child = fork(|| {
        // SAFETY: PTRACE_TRACEME takes no pointers.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
            complain("adversary: ptrace is refused here");
        }
        // SAFETY: no memory involved.
        unsafe { libc::raise(libc::SIGSTOP) };
        forever()
    });
    wait_until_stopped(child);
    say("ready ptraced");
    forever()
}

/// `tracer WORD`: attaches to every process that it can trace and whose command line has the word, as soon as there is one, and
/// never answers what it is told of them. A traced process that ends then waits for its tracer, and its parent for both.
pub fn tracer(word: &str) -> i32 {
    ignore_stop_signals();
    let own = std::process::id().to_string();
    let clock = crate::ends::timer(20);
    loop {
        let mut held = 0;
        for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let name = process.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<i32>() else { continue };
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if name == own || !String::from_utf8_lossy(&line).contains(word) {
                continue;
            }
            // SAFETY: PTRACE_SEIZE takes a number and options, no memory of ours.
            let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_TRACEEXIT) };
            held += usize::from(seized == 0);
        }
        if held > 0 {
            say(&format!("traces {held}"));
            forever();
        }
        let _ = rustix::io::read(&clock, &mut [0u8; 8][..]);
    }
}

fn wait_until_stopped(child: i32) {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status), "the child is stopped");
}

/// A child that becomes another user, where it may.
pub fn uid_changer() -> i32 {
    ignore_stop_signals();
    let roll = RollCall::new();
    fork(|| {
        // SAFETY: plain numbers.
        let changed = unsafe { libc::setgid(12345) == 0 && libc::setuid(12345) == 0 };
        say(if changed { "uid changed" } else { "uid change refused" });
        roll.here();
        stubborn()
    });
    roll.wait_for(1);
    say("ready uid-changer");
    forever()
}

/// Tries to move itself into every other cgroup it can see, also of version 1, and says what worked.
pub fn cgroup_escaper() -> i32 {
    ignore_stop_signals();
    let before = own_cgroups();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        if tail.starts_with("cgroup2 ") {
            let root = head.split(' ').nth(4).unwrap_or("/");
            let _ = std::fs::create_dir(format!("{root}/escaped"));
            try_every_directory(std::path::Path::new(root), 0);
        }
    }
    let after = own_cgroups();
    say(if before == after { "escape refused" } else { "escaped" });
    say("ready cgroup-escaper");
    forever()
}

fn own_cgroups() -> String {
    std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

fn try_every_directory(dir: &std::path::Path, depth: usize) {
    for file in ["cgroup.procs", "cgroup.threads"] {
        let path = dir.join(file);
        let done =
            std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut procs| procs.write_all(b"0"));
        match done {
            Ok(()) => say(&format!("escape ok {}", path.display())),
            Err(error) => say(&format!("escape no {} {}", path.display(), error.raw_os_error().unwrap_or(0))),
        }
    }
    if depth < 8 {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                try_every_directory(&entry.path(), depth + 1);
            }
        }
    }
}

/// Kills its parent, having left a deaf daemon behind first.
pub fn kill_keeper() -> i32 {
    ignore_stop_signals();
    let roll = RollCall::new();
    daemonise(|| {
        roll.here();
        stubborn()
    });
    roll.wait_for(1);
    // SAFETY: plain numbers.
    let refused = unsafe { libc::kill(libc::getppid(), libc::SIGKILL) } != 0;
    say(if refused { "parent kill refused" } else { "parent killed" });
    say("ready kill-keeper");
    forever()
}

/// `leave-remains CODE`: a deaf daemon and a deaf child stay behind, the main process exits.
pub fn leave_remains(code: u64) -> i32 {
    let roll = RollCall::new();
    daemonise(|| {
        roll.here();
        stubborn()
    });
    fork(|| {
        roll.here();
        stubborn()
    });
    roll.wait_for(2);
    say("ready leave-remains");
    code as i32
}

/// `orphan-maker K`: K daemons that end all at once, so that somebody else must reap them; then says `orphaned`.
pub fn orphan_maker(count: u64) -> i32 {
    let roll = RollCall::new();
    let (gate, opener) = rustix::pipe::pipe().expect("a pipe");
    for _ in 0..count {
        daemonise(|| {
            // SAFETY: closes this process's own copy, or the gate would never open.
            unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(&opener)) };
            roll.here();
            let _ = rustix::io::read(&gate, &mut [0u8; 1][..]);
            0
        });
    }
    roll.wait_for(count);
    say("ready orphan-maker");
    drop(opener);
    say("orphaned");
    forever()
}

/// `exclusive FILE`: holds a lock on FILE with its whole tree, so that a second copy beside any remains of the first is seen.
pub fn exclusive(path: &str) -> i32 {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let Ok(mut file) = file else {
        say("exclusive: cannot open");
        return 98;
    };
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let _ = file.write_all(b"OVERLAP\n");
        say("OVERLAP");
        return 99;
    }
    let _ = file.write_all(b"start\n");
    let roll = RollCall::new();
    let child = fork(|| {
        daemonise(|| {
            roll.here();
            stubborn()
        });
        0
    });
    reap(child);
    roll.wait_for(1);
    say("ready exclusive");
    forever()
}
