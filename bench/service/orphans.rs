//! Orphans for the first process of a world: N processes that all end in the same moment, after their parent has.

use crate::kernel::{close, forever, fork, now, pipe, roll_call, say_here, tell, wait_for};
use crate::record::Kind;

/// `orphans N ROUNDS`: in each round N orphans end; `Done` says in how many ns all of them had been reaped. Then it waits, so
/// that a supervisor that restarts what ends does not repeat it.
///
/// Whether one has been reaped is seen by its pid being nobody's (kill(2), ESRCH); there is no event for it on all
/// kernels, so this process looks and yields.
pub fn orphans(count: u64, rounds: u64) -> i32 {
    for round in 0..rounds {
        let [here, roll] = pipe();
        let [gate, latch] = pipe();
        let [pids_in, pids_out] = pipe();
        let mother = fork(|| {
            for _ in 0..count {
                let child = fork(|| {
                    close(latch);
                    say_here(roll);
                    roll_call(gate, 1);
                    0
                });
                let bytes = child.to_ne_bytes();
                // SAFETY: a live buffer.
                unsafe { libc::write(pids_out, bytes.as_ptr().cast(), bytes.len()) };
            }
            0
        });
        close(roll);
        close(pids_out);
        // The mother writes at most what the pipe holds: 4 bytes a child.
        wait_for(mother);
        let standing = roll_call(here, count);
        let mut pids = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let mut bytes = [0u8; 4];
            // SAFETY: a live buffer.
            unsafe { libc::read(pids_in, bytes.as_mut_ptr().cast(), bytes.len()) };
            pids.push(i32::from_ne_bytes(bytes));
        }
        let start = now();
        close(latch);
        while let Some(pid) = pids.last().copied() {
            // SAFETY: signal 0 only asks.
            let gone = pid <= 0 || unsafe { libc::kill(pid, 0) } < 0;
            if gone {
                pids.pop();
            } else {
                // SAFETY: no memory involved.
                unsafe { libc::sched_yield() };
            }
        }
        tell(Kind::Done, round as u32, i32::from(!standing), start, now() - start);
        for fd in [here, gate, pids_in] {
            close(fd);
        }
    }
    forever()
}
