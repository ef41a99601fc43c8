//! The one place that reaps in the supervisor.
//!
//! SIGCHLD coalesces (a hundred exits can be one signal), so the caller loops until there is nothing left. Children
//! that nobody started by name are orphans that fell to us as PID 1 or as a subreaper: reaping them is all they need.

use rustix::process::{WaitOptions, wait};

/// A child that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    pub pid: i32,
    /// The status word of wait(2).
    pub status: i32,
}

impl Reaped {
    /// It was only stopped (job control), and lives.
    pub fn is_stop(self) -> bool {
        self.status & 0xff == 0x7f
    }
}

/// The next child that ended or was stopped, without waiting; `None` when there is none, `NoChildren` in `left`.
pub fn next() -> Result<Reaped, Left> {
    match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
        Ok(Some((pid, status))) => Ok(Reaped { pid: pid.as_raw_nonzero().get(), status: status.as_raw() }),
        Err(rustix::io::Errno::CHILD) => Err(Left::Nothing),
        Ok(None) | Err(_) => Err(Left::Living),
    }
}

/// What is left when nothing can be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Children that live.
    Living,
    /// No child at all (ECHILD).
    Nothing,
}
