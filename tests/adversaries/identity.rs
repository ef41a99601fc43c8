//! Programs that print what they were started with, one `key value` a line, then `ready` and wait to be stopped.

use crate::tools::{forever, say};

fn status_lines(keys: &[&str]) {
    for line in std::fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
        if let Some((key, value)) = line.split_once(':')
            && keys.contains(&key)
        {
            say(&format!("{key} {}", value.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
}

pub fn print_ids() -> i32 {
    status_lines(&[
        "Uid",
        "Gid",
        "Groups",
        "NoNewPrivs",
        "Umask",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
    ]);
    say(&format!("Cwd {}", std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default()));
    // SAFETY: plain numbers.
    let (session, group, own) = unsafe { (libc::getsid(0), libc::getpgrp(), libc::getpid()) };
    say(&format!("Session {}", if session == own { "own" } else { "shared" }));
    say(&format!("ProcessGroup {}", if group == own { "own" } else { "shared" }));
    say(&format!("OomScoreAdj {}", file("/proc/self/oom_score_adj")));
    for line in file("/proc/self/limits").lines().filter(|line| line.starts_with("Max open files")) {
        say(&line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    say("ready print-ids");
    forever()
}

pub fn print_mask() -> i32 {
    status_lines(&["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"]);
    say("ready print-mask");
    forever()
}

pub fn print_fds() -> i32 {
    let mut fds: Vec<(i32, String)> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    // The descriptor that reads the directory is our own.
    fds.retain(|(_, target)| !(target.starts_with("/proc/") && target.ends_with("/fd")));
    fds.sort();
    for (number, target) in fds {
        say(&format!("fd {number} {target}"));
    }
    say("ready print-fds");
    forever()
}

pub fn print_env() -> i32 {
    let mut variables: Vec<_> = std::env::vars_os().collect();
    variables.sort();
    for (key, value) in variables {
        say(&format!("env {}={}", key.to_string_lossy(), value.to_string_lossy()));
    }
    say("ready print-env");
    forever()
}

/// Says whether it is in the foreground of a terminal, and of what size; then waits.
pub fn print_tty() -> i32 {
    // SAFETY: plain numbers.
    let (foreground, group) = unsafe { (libc::tcgetpgrp(0), libc::getpgrp()) };
    say(&format!("tty foreground {}", if foreground == group { "yes" } else { "no" }));
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
        say(&format!("tty size {}x{}", size.ws_col, size.ws_row));
    }
    say("ready print-tty");
    forever()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}
