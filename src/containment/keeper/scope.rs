//! A scope on the keeper rungs: a process, its *leader*, that has made itself a child subreaper, and all below it.
//!
//! It has no bound. It ends with its leader: what a leader that died leaves behind belongs to the service. Orphans that the
//! leader does not reap stay zombies until it ends. To end the scope, the leader is stopped first and killed last, when what
//! is below it was twice found dead and the same: a process that hops by fork and exit would have left another dead process, and
//! only the stopped leader could have reaped it.

use crate::containment::processes::{usage, walk};
use crate::containment::scopes::{Figures, HeldScope, ScopeError, ScopeRequest};
use crate::core::signal::Signal;
use crate::sys::pidfd::Pidfd;

#[derive(Debug)]
pub struct ScopeLeader {
    pid: i32,
    /// In clock ticks since boot: with it the number means this process and no other.
    started: u64,
    /// What was below it at the last look, all of it dead.
    dead: Option<Vec<i32>>,
}

impl ScopeLeader {
    /// # Errors
    /// [`ScopeError::Gone`].
    pub fn open(request: &ScopeRequest<'_>) -> Result<Self, ScopeError> {
        let started = walk::stat(request.pid).ok_or(ScopeError::Gone)?.started;
        if request.process.has_ended() {
            return Err(ScopeError::Gone);
        }
        Ok(Self { pid: request.pid, started, dead: None })
    }
}

impl HeldScope for ScopeLeader {
    fn lives(&self) -> bool {
        walk::stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_dead())
    }

    fn processes(&self) -> Vec<i32> {
        if self.lives() { walk::descendants(vec![self.pid]) } else { Vec::new() }
    }

    fn figures(&self) -> Figures {
        let pids = walk::descendants(vec![self.pid]);
        Figures {
            procs: pids.len(),
            memory_bytes: Some(usage::resident(&pids)),
            adopt_orphans: true,
            ..Figures::default()
        }
    }

    fn is_led_by(&self, line: &[i32]) -> bool {
        line.contains(&self.pid) && self.lives()
    }

    fn end(&mut self) -> bool {
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
        let stands = walk::stat(leader).is_some_and(|stat| matches!(stat.state, b'T' | b't' | b'Z'));
        let dead = (stands && below.iter().all(is_dead)).then_some(below);
        if dead.is_some() && dead == self.dead {
            let _ = process.send(Signal::KILL);
            return !self.lives();
        }
        self.dead = dead;
        false
    }

    fn release(self: Box<Self>) -> u64 {
        0
    }
}
