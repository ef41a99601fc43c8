//! Tests only: the test binary, started again as one of the programs that tests need.
//!
//! A keeper is `/proc/self/exe keeper`, and in a test that file is the test harness. A hook that the loader runs before
//! `main` turns it into the keeper, or into a hostile program named by an environment variable, so that the tests
//! need no interpreter and no helper binary.
#![allow(unsafe_code)]

use std::process::ExitCode;

/// Names the program, with a number after a colon where one is wanted: `tree:100`.
pub const ROLE: &str = "HERMES_SUP_TEST_ROLE";

#[used]
// SAFETY: the section holds pointers to functions that the loader calls once, before `main`.
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    // Not `std::env::args`: before `main` it is empty with musl, and then every keeper would be the whole harness again,
    // which starts keepers.
    let command = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).skip(1);
    let first = words.next();
    let code = if first.as_deref() == Some(crate::containment::keeper::ARGUMENT) {
        i32::from(crate::containment::keeper::main(words.next().as_deref()) != ExitCode::SUCCESS)
    } else if first.as_deref() == Some(super::spawn::fork_server::ARGUMENT) {
        i32::from(super::spawn::fork_server::main(crate::containment::keeper::serve) != ExitCode::SUCCESS)
    } else if let Ok(role) = std::env::var(ROLE) {
        let (name, number) = role.split_once(':').unwrap_or((&role, "0"));
        play(name, number.parse().unwrap_or(0))
    } else {
        return;
    };
    // SAFETY: ends the process before a harness that was never meant to run.
    unsafe { libc::_exit(code) }
}

fn play(role: &str, number: i32) -> i32 {
    match role {
        "exit" => return number,
        "pause" => ignore_signals(),
        "obey" => {}
        "tree" => tree(number),
        "comet" => (0..number).for_each(|_| comet()),
        "storm" => (0..number).for_each(|_| storm()),
        "zombie-leader" => {
            std::thread::spawn(pause);
            ready();
            // SAFETY: ends this thread only, which is the leader; the other one lives on.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        "leave" => {
            if fork() == 0 {
                // SAFETY: as above.
                unsafe { libc::setsid() };
                ignore_signals();
                pause();
            }
            ready();
            return number;
        }
        // Kills its parent, which is its keeper, at a SIGTERM, and stays.
        "parricide" => {
            wait_for_term();
            // SAFETY: plain system calls.
            unsafe { libc::kill(libc::getppid(), libc::SIGKILL) };
            pause();
        }
        // A service with a worker, which becomes what the rest of the name says at a SIGTERM.
        "foreman-tree" => foreman(|| tree(number)),
        "foreman-comet" => foreman(|| (0..number).for_each(|_| comet())),
        "foreman-storm" => foreman(|| (0..number).for_each(|_| storm())),
        _ => return 99,
    }
    ready();
    pause()
}

/// Tells the test, over stdout, that everything is in place.
fn ready() {
    let _ = rustix::io::write(std::io::stdout(), b"r");
}

fn fork() -> i32 {
    // SAFETY: these programs have one thread where they fork, and use what they inherit.
    unsafe { libc::fork() }
}

fn pause() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

fn ignore_signals() {
    for number in 1..32 {
        // SAFETY: a disposition without a handler.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Descendants that left their session, half of them without a parent, and ignore every signal; the leader obeys.
fn tree(number: i32) {
    let (read, write) = std::io::pipe().unwrap();
    for _ in 0..number {
        if fork() == 0 {
            // SAFETY: plain system calls.
            unsafe { libc::setsid() };
            ignore_signals();
            fork();
            let _ = rustix::io::write(&write, b"r");
            pause();
        }
    }
    let mut seen = 0;
    while seen < 2 * number {
        let mut byte = [0u8; 1];
        seen += i32::from(rustix::io::read(&read, &mut byte).is_ok_and(|n| n == 1));
    }
}

fn wait_for_term() {
    // SAFETY: the set is filled before it is used.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        ready();
        let mut number = 0;
        libc::sigwait(&raw const set, &raw mut number);
    }
}

/// Forks the worker and stays. The worker is ready before the signal and once more after it.
fn foreman(work: impl FnOnce()) -> ! {
    if fork() == 0 {
        wait_for_term();
        // What `systemd-run` does where nothing else holds a scope together.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        work();
        ready();
    } else {
        ignore_signals();
    }
    pause()
}

/// Forks and exits, for ever: never the same process twice.
fn comet() {
    if fork() != 0 {
        return;
    }
    // Whom it has left behind, dead. Where the oldest of them is still not reaped, its parent gets no processor,
    // and at full speed the whole machine would soon be out of pids.
    let (mut behind, mut hops) = ([0; 1024], 0);
    // SAFETY: plain system calls.
    unsafe {
        libc::setsid();
        loop {
            behind[hops % behind.len()] = libc::getpid();
            hops += 1;
            if libc::fork() > 0 {
                libc::_exit(0);
            }
            let oldest = behind[hops % behind.len()];
            if oldest > 0 && libc::kill(oldest, 0) == 0 {
                libc::poll(std::ptr::null_mut(), 0, 10);
            }
        }
    }
}

/// Keeps some thirty short-lived children about it.
fn storm() {
    if fork() != 0 {
        return;
    }
    ignore_signals();
    // SAFETY: plain system calls; with SIGCHLD ignored nobody has to reap.
    unsafe {
        libc::setsid();
        loop {
            if libc::fork() == 0 {
                libc::setsid();
                libc::poll(std::ptr::null_mut(), 0, 30);
                libc::_exit(0);
            }
            libc::poll(std::ptr::null_mut(), 0, 1);
        }
    }
}
