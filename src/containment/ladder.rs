//! The ladder: which rungs work here, found out by doing, and what would raise the best of them.
//!
//! [`probe`] runs once, before the loop, and may wait: each wait is a poll with a bound. Nothing it makes is used again, for a
//! cgroup that was killed once is not as good as new. What can be tried before it is known who we are, [`begin`] tries.

use super::cgroup;
use super::cgroup::mechanism::CgroupMechanism;
use super::event::SpawnError;
use super::flags::flags;
use super::held::{Mechanism, Watcher};
use super::hold::Home;
use super::keeper;
use super::keeper::mechanism::{KeeperMechanism, Keepers, Means};
use super::rung::Rung;
use super::succession::predecessor::Predecessor;
use crate::sys::mount;
use crate::sys::spawn::clone;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{WaitId, WaitIdOptions};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;

/// One rung of the ladder.
struct Row {
    rung: Rung,
    probe: fn(&Wish<'_>, &[Attempt]) -> Tried,
    /// A rung that works wherever this one does, because it is the same mechanism with less.
    implies: Option<Rung>,
}

const TABLE: [Row; 5] = [
    Row { rung: Rung::Cgroup, probe: cgroup::probe::visible, implies: None },
    Row { rung: Rung::CgroupPrivate, probe: cgroup::probe::private, implies: None },
    Row { rung: Rung::Pidns, probe: keeper::probe::pidns, implies: None },
    Row { rung: Rung::Keeper, probe: keeper::probe::other_uid, implies: Some(Rung::KeeperSameUid) },
    Row { rung: Rung::KeeperSameUid, probe: keeper::probe::same_uid, implies: None },
];

/// What is to be found out.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// `None`: the best that works.
    pub wanted: Option<Rung>,
    /// Rungs that single services ask for.
    pub also: &'a [Rung],
    pub instance: &'a str,
    pub runtime_dir: &'a Path,
    /// The user that services will run as; the keeper rung is tried with that uid if it is not ours.
    pub service_uid: u32,
}

/// A rung that was tried.
pub(super) type Attempt = (Rung, Tried);

/// What came of it.
pub(super) type Tried = Result<Rc<dyn Proof>, Refusal>;

/// What was found. The first line of the log, `status` and `doctor` are made of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// In force for services that do not ask for one.
    pub rung: Rung,
    /// Every rung that was looked at, best first.
    pub(super) attempts: Vec<Attempt>,
}

/// A rung works here.
pub(super) trait Proof: fmt::Debug {
    /// What can be said of it.
    fn remark(&self, rung: Rung) -> &'static str;

    /// What it does not promise.
    fn weakness(&self, _rung: Rung) -> Option<&'static str> {
        None
    }

    /// Takes possession.
    ///
    /// # Errors
    /// What was possible and now is not; the message names the path.
    fn open(&self, rung: Rung, ground: &mut Ground<'_>) -> io::Result<Rc<dyn Mechanism>>;

    /// The same on a kernel without Landlock's signal scope.
    #[cfg(test)]
    fn unscoped(&self) -> Option<Rc<dyn Proof>> {
        None
    }
}

/// What rungs need to take possession, and what they share then.
pub(super) struct Ground<'a> {
    pub(super) home: Home<'a>,
    pub(super) inherited: Option<&'a Predecessor>,
    pub(super) watcher: &'a Watcher,
    pub(super) keepers: Rc<Keepers>,
    /// Both cgroup rungs see the same directory: it is opened once.
    pub(super) cgroups: Option<Rc<CgroupMechanism>>,
}

/// Why a rung does not work here; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it was not tried at start")]
    NotTried,
    /// A call of the probe failed.
    #[error("{what}: {why}")]
    Call { what: &'static str, why: String },
    #[error("a killed process did not end")]
    DidNotEnd,
    #[error(transparent)]
    Cgroup(#[from] cgroup::probe::Refusal),
    #[error(transparent)]
    Keeper(#[from] keeper::probe::Refusal),
}

impl Refusal {
    /// For `map_err`.
    pub(super) fn of(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Call {
            what,
            why: error.raw_os_error().map_or_else(|| error.to_string(), clone::reason),
        }
    }
}

/// No rung, or not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("containment '{0}' does not work here: {1}")]
    Refused(Rung, Refusal),
    #[error("no containment works here: {0}")]
    Nothing(String),
}

impl Report {
    fn attempt(&self, rung: Rung) -> Option<&Tried> {
        self.attempts.iter().find(|(one, _)| *one == rung).map(|(_, result)| result)
    }

    /// Every rung that was looked at, best first, with what can be said of it, or why it does not work.
    pub fn attempts(&self) -> impl Iterator<Item = (Rung, Result<&'static str, &Refusal>)> {
        self.attempts.iter().map(|(rung, result)| (*rung, result.as_ref().map(|proof| proof.remark(*rung))))
    }

    /// The rung for a service: its own wish, or the one in force.
    pub(super) fn choose(&self, wanted: Option<Rung>) -> Result<Rung, SpawnError> {
        let Some(wanted) = wanted else { return Ok(self.rung) };
        match self.attempt(wanted) {
            Some(Ok(_)) => Ok(wanted),
            Some(Err(refusal)) => Err(SpawnError::Rung(wanted, refusal.clone())),
            None => Err(SpawnError::Rung(wanted, Refusal::NotTried)),
        }
    }

    /// The rungs above the one in force that were tried, with why they do not work; those that nobody gets unasked are left out.
    pub fn refused_above(&self) -> impl Iterator<Item = &Refusal> {
        let above = self.attempts.iter().filter(|(rung, _)| *rung < self.rung && !rung.on_request());
        above.filter_map(|(_, result)| result.as_ref().err())
    }

    /// Docker's option for the best rung; `None` where the kernel holds trees already, and outside of containers.
    pub fn raise(&self) -> Option<&'static str> {
        let best = matches!(self.rung, Rung::Cgroup | Rung::CgroupPrivate);
        let flags = if best || !mount::in_container() { &[][..] } else { flags(Rung::Cgroup) };
        flags.first().map(|(_, flag)| *flag)
    }

    /// What the rung in force does not promise.
    pub fn weakness(&self) -> Option<&'static str> {
        self.attempt(self.rung)?.as_ref().ok()?.weakness(self.rung)
    }
}

/// What was tried before all of a [`Wish`] was known.
#[derive(Debug, Default)]
pub struct Begun(Vec<Attempt>);

/// Tries the highest rung, if that is not out of the question: it takes no more than a name that nobody else has.
pub fn begin(wanted: Option<Rung>, name: &str) -> Begun {
    let asked = wanted.is_none_or(|wanted| wanted == Rung::Cgroup);
    Begun(asked.then(|| (Rung::Cgroup, cgroup::probe::visible_as(name))).into_iter().collect())
}

/// Goes down the ladder, from where it was begun.
///
/// # Errors
/// [`ProbeError`] when the wish cannot be had; the text says why.
pub fn probe(wish: &Wish<'_>, Begun(mut attempts): Begun) -> Result<Report, ProbeError> {
    for row in TABLE {
        let found = attempts.iter().any(is_good);
        let asked = wish.also.contains(&row.rung)
            || wish.wanted.map_or(!found && !row.rung.on_request(), |wanted| wanted == row.rung);
        let known = attempts.iter().any(|(rung, _)| *rung == row.rung);
        if !asked || known {
            continue;
        }
        let result = (row.probe)(wish, &attempts);
        let implied = row.implies.zip(result.clone().ok()).map(|(rung, proof)| (rung, Ok(proof)));
        attempts.push((row.rung, result));
        attempts.extend(implied);
    }
    let best = attempts.iter().find(|attempt| is_good(attempt)).map(|(rung, _)| *rung);
    let rung = match (wish.wanted, best) {
        (Some(wanted), _) => match attempts.iter().find(|(rung, _)| *rung == wanted) {
            Some((_, Err(refusal))) => return Err(ProbeError::Refused(wanted, refusal.clone())),
            Some((_, Ok(_))) | None => wanted,
        },
        (None, Some(best)) => best,
        (None, None) => {
            let reason = |(rung, result): &Attempt| Some(format!("{rung}: {}", result.as_ref().err()?));
            let reasons: Vec<String> = attempts.iter().filter_map(reason).collect();
            return Err(ProbeError::Nothing(reasons.join("; ")));
        }
    };
    Ok(Report { rung, attempts })
}

/// It works, and is taken without being asked for.
fn is_good((rung, result): &Attempt) -> bool {
    result.is_ok() && !rung.on_request()
}

impl<'a> Ground<'a> {
    pub(super) fn new(
        home: Home<'a>,
        inherited: Option<&'a Predecessor>,
        watcher: &'a Watcher,
    ) -> io::Result<Self> {
        let keepers = Rc::new(Keepers::open(home.instance, home.runtime_dir)?);
        Ok(Self { home, inherited, watcher, keepers, cgroups: None })
    }

    /// What holds lives on each rung that works, best first. The lowest rung always comes last: an earlier supervisor may have had
    /// keepers where this one has none.
    pub(super) fn open(mut self, report: &Report) -> io::Result<Vec<(Rung, Rc<dyn Mechanism>)>> {
        let mut attempts: Vec<&Attempt> = report.attempts.iter().collect();
        // The first cgroup rung to be opened decides on which mount the directory is used.
        attempts.sort_by_key(|(rung, _)| *rung != report.rung);
        let mut opened: Vec<(Rung, Rc<dyn Mechanism>)> = Vec::new();
        for (rung, result) in attempts {
            if let Ok(proof) = result {
                opened.push((*rung, proof.open(*rung, &mut self)?));
            }
        }
        if !opened.iter().any(|(rung, _)| *rung == Rung::KeeperSameUid) {
            let lowest = KeeperMechanism::new(self.keepers, Rung::KeeperSameUid, Means::default());
            opened.push((Rung::KeeperSameUid, Rc::new(lowest)));
        }
        opened.sort_by_key(|(rung, _)| *rung);
        Ok(opened)
    }
}

// ---- for probes ----

/// The bound of each wait of a probe.
pub(super) const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Whether something can be read in time.
pub(super) fn wait_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&PATIENCE))).unwrap_or(0) > 0
}

/// Waits for a child of ours and reaps it. Returns its exit status, `None` if a signal ended it.
pub(super) fn wait_exit(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Refusal> {
    if !wait_readable(pidfd) {
        return Err(Refusal::DidNotEnd);
    }
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
        Ok(status) => Ok(status.and_then(|status| status.exit_status())),
        Err(errno) => Err(Refusal::of("waitid")(errno.into())),
    }
}
