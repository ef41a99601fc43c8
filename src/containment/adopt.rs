//! Adoption: the lives that an earlier supervisor vouched for go on under this one.
//!
//! It may have been killed, and then its processes are the children of whoever took its orphans; or it was this very
//! process before an execve(2), and then they are ours still. Runs before the loop and may wait, bounded by the caller.

use super::cgroup::cage::Cage;
use super::cgroup::leaf;
use super::hold::{Containment, On, keepers_path};
use super::keeper::tags;
use super::keeper::ward::{How, Ward};
use super::keeper::wire::{self, Heard, Order, Word};
use super::predecessor::{self, Clock};
use super::roster::Vouched;
use super::walk;
use crate::sys::peer;
use crate::sys::pidfd::Pidfd;
use rustix::event::PollFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Why a life cannot be taken over; what is left of it has to be ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Gone(pub(super) String);

/// A process that was there before us.
#[derive(Debug)]
pub(super) struct Process {
    pub pid: i32,
    pub pidfd: Pidfd,
    /// Not our child: somebody else reaps it.
    pub foreign: bool,
}

impl Process {
    /// The process with this number and this [`birth`].
    pub(super) fn find(pid: i32, born: u64) -> Result<Self, Gone> {
        let gone = || Gone("its main process has ended".to_owned());
        let pidfd = Pidfd::open(pid).map_err(|_| gone())?;
        let stat = walk::stat(pid).ok_or_else(gone)?;
        // Who wrote it down may have known no better than an older kernel, or an older version of us.
        if born != stat.started && Some(born) != unique(&pidfd) {
            return Err(gone());
        }
        Ok(Self { pid, pidfd, foreign: stat.parent != own_pid() })
    }
}

/// What tells a process from all others of this boot that have its number at some time. Where the kernel has no number
/// for that, it is the start time in clock ticks since boot; that has to be asked of /proc, whose every answer costs twice:
/// when it is given, and when the process is reaped, with which all that /proc knew of it goes.
pub(super) fn birth(pid: i32, pidfd: &Pidfd) -> Option<u64> {
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
    pub fn adopt(&mut self, vouched: &Vouched, patience: &Clock) -> Result<(), Gone> {
        let id = vouched.id();
        if self.by_id.contains_key(&id) {
            return Err(Gone("another life of it was taken over".to_owned()));
        }
        let main = Process::find(vouched.living.pid, vouched.born)?;
        let slot = self.free_slot();
        let taken = match &self.cgroups {
            Some(cgroups) if leaf::exists(cgroups.tree.as_fd(), &id.to_string()) => {
                Cage::adopt(cgroups.site(slot), id.to_string(), main).map(On::Cgroup)
            }
            _ => self.adopt_ward(vouched, patience).map(|ward| On::Keeper(Box::new(ward))),
        };
        match taken {
            Ok(on) => {
                self.settle_in(slot, vouched, on);
                Ok(())
            }
            Err(gone) => {
                self.give_back(slot);
                Err(gone)
            }
        }
    }

    /// The keeper noticed that its supervisor was gone and listens, or is about to.
    fn adopt_ward(&self, vouched: &Vouched, patience: &Clock) -> Result<Ward, Gone> {
        let silent = |what: &str| Gone(format!("its keeper {what}"));
        let parent = walk::stat(vouched.living.pid).map_or(0, |stat| stat.parent);
        let keeper = walk::stat(parent).filter(|_| predecessor::is_keeper(parent, self.instance()));
        let keeper = keeper.ok_or_else(|| silent("is not there"))?;
        let keeper = Process::find(parent, keeper.started)?;
        let path = keepers_path(self.runtime_dir()).join(vouched.id().to_string());
        let socket = loop {
            match predecessor::call(&path) {
                Ok(socket) => break socket,
                Err(error) if !will_listen(&error) || patience.is_over() || keeper.pidfd.has_ended() => {
                    return Err(silent("does not answer"));
                }
                Err(_) => patience.wait(None, Duration::from_millis(1)),
            }
        };
        let answers = peer::credentials(&socket).is_ok_and(|peer| peer.pid == u32::try_from(keeper.pid).ok());
        if !answers || wire::send_order(socket.as_fd(), Order::Report).is_err() {
            return Err(silent("does not answer"));
        }
        let main = hear_report(&socket, patience).ok_or_else(|| silent("tells of no main process"))?;
        Ok(Ward::adopt(socket, keeper, (vouched.living.pid, main), self.how_held(vouched, parent)))
    }

    fn how_held(&self, vouched: &Vouched, keeper: i32) -> How {
        let uid = tags::uid_of(vouched.living.pid);
        let same_uid = uid.is_some() && uid == tags::uid_of(keeper);
        let is_init = tags::is_init(keeper);
        // Who was started by the same binary on the same kernel has what we would give it.
        let scoped = same_uid && !is_init && self.report().scoped;
        How { tag: vouched.tag, same_uid, scoped, is_init }
    }
}

/// It has not come to it yet.
fn will_listen(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The main process, if its keeper says that it runs.
fn hear_report(socket: &OwnedFd, patience: &Clock) -> Option<Pidfd> {
    loop {
        match wire::hear_word(socket.as_fd()) {
            Heard::Message(Word::Spawned { .. }, fds) => {
                return fds.into_iter().next().map(Pidfd::from_fd);
            }
            Heard::Message(Word::Frozen | Word::Thawed, _) => {}
            Heard::Nothing if !patience.is_over() => {
                patience.wait(Some((socket, PollFlags::IN)), Duration::from_millis(100));
            }
            Heard::Nothing
            | Heard::End
            | Heard::Message(
                Word::MainExited { .. }
                | Word::Empty
                | Word::NotMade { .. }
                | Word::Failed { .. }
                | Word::NoProc { .. },
                _,
            ) => return None,
        }
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}
