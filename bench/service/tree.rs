//! A hostile tree: a leader that ends as soon as it is asked to, and daemons in sessions of their own which nothing but
//! SIGKILL ends.

use crate::kernel::{
    close, code, daemonise, forever, fork, ignore_stop_signals, now, pipe, quit, roll_call, say_here, tell,
    wait_for,
};
use crate::record::{DAEMON, Kind};
use std::ffi::CStr;

/// `tree N`: says `Done` once all N daemons are in place.
pub fn tree(count: u64) -> i32 {
    let standing = grow(count);
    tell(Kind::Done, 0, i32::from(!standing), now(), count);
    forever()
}

/// N daemons; true once they all stand and are deaf.
fn grow(count: u64) -> bool {
    let [here, roll] = pipe();
    for _ in 0..count {
        daemonise(|| {
            ignore_stop_signals();
            // SAFETY: a live C string. By this name the kernel's trace knows them.
            unsafe { libc::prctl(libc::PR_SET_NAME, DAEMON.as_ptr()) };
            say_here(roll);
            close(roll);
            close(here);
            forever()
        });
    }
    close(roll);
    roll_call(here, count)
}

/// `floor-kill N CGROUP`: what the kernel itself needs for such a tree: a child writes to `cgroup.kill`, reaps the daemons, which
/// it inherits, and ends; `Done` is told when it has been reaped, as any command is timed.
pub fn floor(count: u64, cgroup: Option<&CStr>) -> i32 {
    let Some(Ok(cgroup)) = cgroup.map(CStr::to_str) else { return 2 };
    let status = wait_for(fork(|| kill_all(count, cgroup)));
    tell(Kind::Done, 0, code(status), now(), 0);
    0
}

fn kill_all(count: u64, cgroup: &str) -> i32 {
    let ready = pipe();
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    if std::fs::create_dir(cgroup).is_err() {
        return 1;
    }
    let leader = fork(|| {
        if std::fs::write(format!("{cgroup}/cgroup.procs"), "0").is_err() || !grow(count) {
            quit(1);
        }
        say_here(ready[1]);
        forever()
    });
    close(ready[1]);
    if !roll_call(ready[0], 1) {
        return code(wait_for(leader));
    }
    if std::fs::write(format!("{cgroup}/cgroup.kill"), "1").is_err() {
        return 1;
    }
    // SAFETY: no status wanted.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    i32::from(std::fs::remove_dir(cgroup).is_err())
}
