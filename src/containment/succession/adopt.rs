//! Adoption: the lives that an earlier supervisor recorded go on under this one.
//!
//! It may have been killed, and then its processes are the children of the process that took its orphans; or it was this very
//! process before an execve(2), and then they are ours still. Runs before the loop and waits, bounded by the caller.

use super::predecessor::Patience;
use super::record::AdoptionRecord;
use crate::containment::hold::Containment;
use crate::containment::processes::walk;
use crate::sys::pidfd::Pidfd;

/// Why a life cannot be taken over; what is left of it has to be ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Gone(pub(in crate::containment) String);

/// A process that was there before us.
#[derive(Debug)]
pub(in crate::containment) struct Process {
    pub pid: i32,
    pub pidfd: Pidfd,
    /// Not our child: another process reaps it.
    pub foreign: bool,
}

impl Process {
    /// The process with this number and this [`birth`].
    pub fn find(pid: i32, born: u64) -> Result<Self, Gone> {
        let gone = || Gone("its main process has ended".to_owned());
        let pidfd = Pidfd::open(pid).map_err(|_| gone())?;
        let stat = walk::stat(pid).ok_or_else(gone)?;
        // An older kernel, or an older version of us, may have written down the start time.
        if born != stat.started && Some(born) != unique(&pidfd) {
            return Err(gone());
        }
        Ok(Self { pid, pidfd, foreign: stat.parent != own_pid() })
    }
}

/// What tells a process from all others of this boot that have its number at some time. Where the kernel has no number
/// for that, it is the start time in clock ticks since boot; that has to be asked of /proc, whose every answer costs twice:
/// when it is given, and when the process is reaped, with which all that /proc knew of it goes.
pub(in crate::containment) fn birth(pid: i32, pidfd: &Pidfd) -> Option<u64> {
    unique(pidfd).or_else(|| walk::stat(pid).map(|stat| stat.started))
}

/// Marked, so that it is not taken for a start time.
fn unique(pidfd: &Pidfd) -> Option<u64> {
    const MARK: u64 = 1 << 63;
    pidfd.unique().map(|number| number | MARK)
}

impl Containment {
    /// Takes over one life. `patience` is for all of them together.
    ///
    /// # Errors
    /// [`Gone`]: nothing has changed.
    pub fn adopt(&mut self, record: &AdoptionRecord, patience: &Patience) -> Result<(), Gone> {
        if self.slot(&record.id()).is_some() {
            return Err(Gone("another life of it was taken over".to_owned()));
        }
        let slot = self.free_slot();
        let watcher = &self.watcher;
        let taken = self.mechanisms().find_map(|mechanism| mechanism.adopt(slot, record, watcher, patience));
        match taken.unwrap_or_else(|| Err(Gone("nothing holds it".to_owned()))) {
            Ok(held) => {
                self.hold_adopted(slot, record, held);
                self.adopt_scopes(&record.id());
                Ok(())
            }
            Err(gone) => {
                self.give_back(slot);
                Err(gone)
            }
        }
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}
