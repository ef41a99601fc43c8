//! Programs that end in a chosen way, or say which signal reached them.

use crate::tools::{forever, quit, say};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer descriptor that fires every `millis`.
pub fn timer(millis: u64) -> std::os::fd::OwnedFd {
    let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).expect("a timer");
    let every = Timespec { tv_sec: (millis / 1000) as i64, tv_nsec: (millis % 1000 * 1_000_000) as i64 };
    timerfd_settime(&fd, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })
        .expect("an armed timer");
    fd
}

pub fn exit(code: u64) -> i32 {
    say("ready exit");
    code as i32
}

/// `exit-after MILLIS CODE`
pub fn exit_after(millis: u64, code: u64) -> i32 {
    say("ready exit-after");
    let _ = rustix::io::read(timer(millis.max(1)), &mut [0u8; 8][..]);
    code as i32
}

/// Dies of a signal with its default action, without a core file.
pub fn crash_with(signal: u64) -> i32 {
    say("ready crash-with");
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one live struct; plain numbers.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal as i32, libc::SIG_DFL);
        libc::raise(signal as i32);
    }
    quit(1)
}

/// Waits for any signal, says which, exits 0.
pub fn wait_signal() -> i32 {
    let set = block_all();
    say("ready wait-signal");
    say(&format!("got signal {}", next_signal(&set)));
    0
}

/// Says every signal it gets; ends at USR2 with code 42. TERM does not end it.
pub fn echo_signals() -> i32 {
    let set = block_all();
    say("ready echo-signals");
    loop {
        let signal = next_signal(&set);
        say(&format!("got signal {signal}"));
        if signal == libc::SIGUSR2 {
            return 42;
        }
    }
}

fn block_all() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigfillset before use.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

fn next_signal(set: &libc::sigset_t) -> i32 {
    let mut signal = 0;
    // SAFETY: both live for the call.
    unsafe { libc::sigwait(set, &raw mut signal) };
    signal
}

pub fn announced_pause() -> i32 {
    say("ready pause");
    forever()
}

/// Uses all the processor time it gets.
pub fn spin() -> i32 {
    say("ready spin");
    loop {
        std::hint::spin_loop();
    }
}

/// `exchange A B`: swaps two directory entries (renameat2(2), RENAME_EXCHANGE) again and again, a million times at most.
/// Each name always leads somewhere, never twice to the same place.
pub fn exchange(names: &[String]) -> i32 {
    let [one, other, ..] = names else { return 2 };
    say("ready exchange");
    for _ in 0..1_000_000 {
        let swapped = rustix::fs::renameat_with(
            rustix::fs::CWD,
            one,
            rustix::fs::CWD,
            other,
            rustix::fs::RenameFlags::EXCHANGE,
        );
        if swapped.is_err() {
            return 1;
        }
    }
    0
}
