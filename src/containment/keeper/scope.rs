//! A scope on the keeper rungs: a process that has made itself a child subreaper, its leader, and all below it.
//!
//! It has no bound. It ends with its leader: what a leader that died leaves behind belongs to the service.

use crate::containment::processes::leader::Leader;
use crate::containment::processes::{usage, walk};
use crate::containment::scopes::{Figures, HeldScope, ScopeError, ScopeRequest};

#[derive(Debug)]
pub struct ScopeLeader(Leader);

impl ScopeLeader {
    /// # Errors
    /// [`ScopeError::Gone`].
    pub fn open(request: &ScopeRequest<'_>) -> Result<Self, ScopeError> {
        let leader = Leader::of(request.pid).ok_or(ScopeError::Gone)?;
        if request.process.has_ended() {
            return Err(ScopeError::Gone);
        }
        Ok(Self(leader))
    }
}

impl HeldScope for ScopeLeader {
    fn lives(&self) -> bool {
        self.0.lives()
    }

    fn processes(&self) -> Vec<i32> {
        if self.lives() { walk::descendants(vec![self.0.pid]) } else { Vec::new() }
    }

    fn figures(&self) -> Figures {
        let pids = walk::descendants(vec![self.0.pid]);
        Figures {
            procs: pids.len(),
            memory_bytes: Some(usage::resident(&pids)),
            adopt_orphans: true,
            ..Figures::default()
        }
    }

    fn is_led_by(&self, line: &[i32]) -> bool {
        line.contains(&self.0.pid) && self.lives()
    }

    fn end(&mut self) -> bool {
        self.0.end(false)
    }

    fn release(self: Box<Self>) -> u64 {
        0
    }
}
