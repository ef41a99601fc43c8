//! A process that has made itself a child subreaper, its *leader*, and all below it: ended as a whole, from outside.
//!
//! What a leader that died leaves behind belongs to its service. Orphans that it does not reap stay zombies until it ends. To
//! end all of it, the leader is stopped first and killed last, when what is below it was twice found dead and the same: a
//! process that hops by fork and exit would have left another dead process, and only the stopped leader could have reaped it.

use super::walk;
use crate::core::signal::Signal;
use crate::sys::pidfd::Pidfd;

#[derive(Debug)]
pub struct Leader {
    pub pid: i32,
    /// In clock ticks since boot: with it the number means this process and no other.
    started: u64,
    /// What was below it at the last look, all of it dead.
    dead: Option<Vec<i32>>,
}

impl Leader {
    /// `None`: there is no such process.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: walk::stat(pid)?.started, dead: None })
    }

    pub fn lives(&self) -> bool {
        walk::stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_dead())
    }

    /// One step towards the end. Returns whether it is over; if not, call again a little later. `frozen`: none of it can run,
    /// which stopped processes do not show.
    pub fn end(&mut self, frozen: bool) -> bool {
        let Ok(process) = Pidfd::open(self.pid) else { return !self.lives() };
        // Looked at behind the pidfd: the number may have changed hands before.
        if !self.lives() {
            return true;
        }
        let _ = process.send(Signal::STOP);
        let leader = self.pid;
        walk::end(leader, &mut || walk::children(leader));
        let mut below = walk::children(leader);
        below.sort_unstable();
        let is_dead = |pid: &i32| walk::stat(*pid).is_none_or(|stat| stat.is_dead());
        // A process whose first thread has ended shows that, not whether the others stand still.
        let is_stopped = || walk::stat(leader).is_some_and(|stat| matches!(stat.state, b'T' | b't' | b'Z'));
        let stands = frozen || is_stopped();
        let dead = (stands && below.iter().all(is_dead)).then_some(below);
        if dead.is_some() && dead == self.dead {
            let _ = process.send(Signal::KILL);
            return !self.lives();
        }
        self.dead = dead;
        false
    }
}
