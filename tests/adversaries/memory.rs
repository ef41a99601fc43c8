//! Programs that say what they may use, and programs that use more.

use crate::tools::{complain, forever, fork, reap, say};
use std::io::Write;

/// Prints its own limits, one `key soft hard` a line, and `oom_score_adj`.
pub fn print_limits() -> i32 {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    for (label, name) in
        [("Max open files", "nofile"), ("Max processes", "nproc"), ("Max core file size", "core")]
    {
        let rest = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
        let values: Vec<&str> = rest.split_whitespace().take(2).collect();
        say(&format!("{name} {}", values.join(" ")));
    }
    let adjustment = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    say(&format!("oom_score_adj {}", adjustment.trim()));
    say("ready print-limits");
    forever()
}

/// Takes and keeps so many MiB, every page of them written to.
fn take(mebibytes: u64) -> Vec<u8> {
    let size = usize::try_from(mebibytes << 20).unwrap_or(usize::MAX);
    let mut memory = Vec::with_capacity(size);
    // Not zeros, which the kernel would give without a page behind them.
    memory.resize(size, 0xa5);
    std::hint::black_box(memory)
}

/// The main process takes so many MiB, a child of it beside it; says so if it lives to.
pub fn eat(mebibytes: u64) -> i32 {
    fork(|| forever());
    say("ready eat");
    let memory = take(mebibytes);
    say(&format!("ate {}", memory.len() >> 20));
    forever()
}

/// A child takes so many MiB; the main process says how that child ended, and goes on.
pub fn child_eats(mebibytes: u64) -> i32 {
    say("ready child-eats");
    let child = fork(|| {
        // The first to be chosen, whatever else is in the cgroup (proc_pid_oom_score_adj(5)).
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let memory = take(mebibytes);
        say(&format!("ate {}", memory.len() >> 20));
        0
    });
    let status = reap(child);
    say(&format!("child ended by signal {}", status & 0x7f));
    forever()
}

/// Has so many MiB of a file in the kernel's cache that it never reads again.
pub fn read_once(path: &str, mebibytes: u64) -> i32 {
    let content = take(mebibytes);
    let written = std::fs::File::create(path).and_then(|mut file| {
        file.write_all(&content)?;
        // What is not on the disk yet cannot be taken back.
        file.sync_all()
    });
    drop(content);
    if let Err(error) = written {
        complain(&format!("adversary: {path}: {error}"));
        return 1;
    }
    say("ready read-once");
    forever()
}

/// Makes children until it may not, at most so many; says how many there are.
pub fn multiply(most: u64) -> i32 {
    let mut made = 0;
    while made < most && fork(|| forever()) > 0 {
        made += 1;
    }
    complain("adversary: no more");
    say(&format!("ready multiply {made}"));
    forever()
}

/// As a hook: says whose it is, who it is and where.
pub fn print_place() -> i32 {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // SAFETY: asks for a number.
    let uid = unsafe { libc::getuid() };
    let place = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let (hook, service) = (variable("HERMES_SUP_HOOK"), variable("HERMES_SUP_SERVICE"));
    say(&format!("hook {hook} of {service}: uid {uid} in {}", place.trim()));
    0
}

/// As a hook: signals the main process of its service.
pub fn signal_main(signal: &str) -> i32 {
    let number = if signal == "TERM" { libc::SIGTERM } else { libc::SIGUSR1 };
    let main = std::env::var("HERMES_SUP_MAIN_PID").ok().and_then(|pid| pid.parse().ok());
    // SAFETY: a number and a signal; 0 and -1, which would mean others, are sorted out.
    i32::from(main.filter(|pid| *pid > 1).is_none_or(|pid| unsafe { libc::kill(pid, number) } != 0))
}
