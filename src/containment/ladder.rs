//! The ladder: which rungs work here, found out by doing, and what would raise the best of them.
//!
//! Runs once, before the loop, and may wait: each wait is a poll with a bound. Nothing it makes is used again, for a
//! cgroup that was killed once is not as good as new.

use super::cgroup::discover::{self, Place};
use super::cgroup::tree::Tree;
use super::cgroup::watch::Watch;
use super::cgroup::{leaf, tree};
use super::hold::keepers_dir;
use super::keeper::tags::Tags;
use super::keeper::ward::keeper_plan;
use super::keeper::wire::{self, Heard, Order, Word};
use super::keeper::{ARGUMENT, REHEARSE, TRY_PARENT};
use super::{Rung, SpawnError, flags};
use crate::core::signal::Signal;
use crate::sys::credentials::Credentials;
use crate::sys::mount;
use crate::sys::spawn::child::Step;
use crate::sys::spawn::clone::{self, Apart};
use crate::sys::spawn::plan::ChildPlan;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What is to be found out.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// `None`: the best that works.
    pub wanted: Option<Rung>,
    /// Rungs that single services ask for.
    pub also: &'a [Rung],
    pub instance: &'a str,
    pub runtime_dir: &'a Path,
    /// Whom services will run as; the keeper rung is tried with that uid if it is not ours.
    pub service_uid: u32,
}

/// What was found. The first line of the log, `status` and `doctor` are made of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// In force for services that do not ask for one.
    pub rung: Rung,
    /// Every rung that was looked at, best first, with why it does not work.
    pub attempts: Vec<(Rung, Result<(), String>)>,
    place: Option<Place>,
    tags: Option<Tags>,
    /// A service of our own uid can be kept from signalling its keeper.
    pub(super) scoped: bool,
    /// How PID namespaces are made here.
    apart: Option<Apart>,
}

/// No rung, or not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("containment '{0}' does not work here: {1}")]
    Refused(Rung, String),
    #[error("no containment works here: {0}")]
    Nothing(String),
}

impl Report {
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    pub(super) fn apart(&self) -> Option<Apart> {
        self.apart
    }

    pub(super) fn tags(&self) -> Option<Tags> {
        self.tags
    }

    /// The rung for a service: its own wish, or the one in force.
    pub(super) fn choose(&self, wanted: Option<Rung>) -> Result<Rung, SpawnError> {
        let Some(wanted) = wanted else { return Ok(self.rung) };
        match self.attempts.iter().find(|(rung, _)| *rung == wanted) {
            Some((rung, Ok(()))) => Ok(*rung),
            Some((rung, Err(reason))) => Err(SpawnError::Rung(*rung, reason.clone())),
            None => Err(SpawnError::Rung(wanted, "it was not tried at start".to_owned())),
        }
    }

    /// Docker's option for the best rung; `None` where the kernel holds trees already, and outside of containers.
    pub fn raise(&self) -> Option<&'static str> {
        let best = matches!(self.rung, Rung::Cgroup | Rung::CgroupPrivate);
        let flags = if best || !mount::in_container() { &[][..] } else { flags(Rung::Cgroup) };
        flags.first().map(|(_, flag)| *flag)
    }

    /// What can be said of a rung that was tried and works.
    pub fn remark(&self, rung: Rung) -> &'static str {
        match rung {
            Rung::Cgroup => "works here",
            Rung::CgroupPrivate => "works here; no service of another user can reach its cgroup",
            Rung::Pidns if self.apart == Some(Apart::InUserNamespace) => {
                "works here in a user namespace, for services with containment = \"pidns\""
            }
            Rung::Pidns => "works here, for services with containment = \"pidns\"",
            Rung::Keeper => "works here; a stop converges instead of being atomic",
            Rung::KeeperSameUid if self.scoped => {
                "works here; Landlock keeps services from signalling their keeper"
            }
            Rung::KeeperSameUid => {
                "works here; a hostile service can kill its keeper: what helps is Landlock of kernel 6.12 or later"
            }
        }
    }

    /// What the rung in force does not promise.
    pub fn weakness(&self) -> Option<&'static str> {
        match self.rung {
            Rung::Cgroup | Rung::CgroupPrivate | Rung::Pidns => None,
            Rung::Keeper => Some("a stop converges instead of being atomic"),
            Rung::KeeperSameUid if self.scoped => Some("a stop converges instead of being atomic"),
            Rung::KeeperSameUid => Some("a hostile service can kill its keeper"),
        }
    }
}

/// Goes down the ladder.
///
/// # Errors
/// [`ProbeError`] when the wish cannot be had; the text says why.
pub fn probe(wish: &Wish<'_>) -> Result<Report, ProbeError> {
    let mut report = Report {
        rung: Rung::KeeperSameUid,
        attempts: Vec::new(),
        place: None,
        tags: None,
        scoped: false,
        apart: None,
    };
    for rung in Rung::ALL {
        let found = report.attempts.iter().any(is_good);
        let asked = wish.also.contains(&rung)
            || wish.wanted.map_or(!found && rung != Rung::Pidns, |wanted| wanted == rung);
        if !asked {
            continue;
        }
        let result = match rung {
            Rung::Cgroup => try_cgroup(wish).map(|place| report.place = Some(place)),
            Rung::CgroupPrivate if found && wish.wanted != Some(rung) => {
                Err("the mount that everybody sees is writable: containment 'cgroup' is in force".to_owned())
            }
            Rung::CgroupPrivate => try_private(wish).map(|place| report.place = Some(place)),
            Rung::Pidns => try_apart(wish).map(|apart| report.apart = Some(apart)),
            Rung::Keeper => try_keeper(wish, true).map(|tags| report.tags = tags),
            Rung::KeeperSameUid => try_keeper(wish, false).map(|tags| report.tags = report.tags.or(tags)),
        };
        report.attempts.push((rung, result));
    }
    // On `keeper` a service of our own uid is held as on the rung below, which is the same mechanism with less.
    if report.attempts.iter().any(|(rung, result)| *rung == Rung::Keeper && result.is_ok())
        && !report.attempts.iter().any(|(rung, _)| *rung == Rung::KeeperSameUid)
    {
        report.attempts.push((Rung::KeeperSameUid, Ok(())));
    }
    if report.attempts.iter().any(|(rung, result)| *rung == Rung::KeeperSameUid && result.is_ok()) {
        report.scoped = try_scope().is_ok();
    }
    let refusal = |rung: Rung| {
        let found = report.attempts.iter().find(|(one, _)| *one == rung);
        found.and_then(|(_, result)| result.clone().err())
    };
    let best = report.attempts.iter().find(|attempt| is_good(attempt)).map(|(rung, _)| *rung);
    match (wish.wanted, best) {
        (Some(wanted), _) => match refusal(wanted) {
            None => report.rung = wanted,
            Some(reason) => return Err(ProbeError::Refused(wanted, reason)),
        },
        (None, Some(best)) => report.rung = best,
        (None, None) => {
            let reasons: Vec<String> = report
                .attempts
                .iter()
                .filter_map(|(rung, result)| Some(format!("{rung}: {}", result.as_ref().err()?)))
                .collect();
            return Err(ProbeError::Nothing(reasons.join("; ")));
        }
    }
    Ok(report)
}

/// It works, and is taken without being asked for.
fn is_good((rung, result): &(Rung, Result<(), String>)) -> bool {
    result.is_ok() && *rung != Rung::Pidns
}

/// The bound of each wait of the probe.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

fn say(what: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {}", words(&error))
}

fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), clone::reason)
}

fn try_cgroup(wish: &Wish<'_>) -> Result<Place, String> {
    try_place(wish, discover::own_place().map_err(|error| error.to_string())?)
}

fn try_private(wish: &Wish<'_>) -> Result<Place, String> {
    let place = discover::private_place()?;
    // Its path says nothing to anybody.
    let shown = place.dir.display().to_string();
    try_place(wish, place).map_err(|error| error.replace(&shown, "its own mount of cgroup2"))
}

/// A directory, a child that comes into it and lives, the kill, the notification, the removal; and whether a child can
/// also be born there.
fn try_place(wish: &Wish<'_>, mut place: Place) -> Result<Place, String> {
    let name = format!("{}.probe.{}", wish.instance, std::process::id());
    let tree = Tree::create(&place, &name, false).map_err(|error| error.to_string())?;
    place.born = try_birth(&tree);
    let result = try_leaf(&tree, place.born);
    let _ = leaf::remove(tree.as_fd(), PROBE);
    let removed = tree.remove().map_err(|error| format!("{}: {error}", tree::directory_name(&name)));
    result.and(removed).map(|()| place)
}

const PROBE: &str = "probe.0";

/// Whether a child that is born in its cgroup gets as far as its exec.
fn try_birth(tree: &Tree) -> bool {
    let report = || -> io::Result<clone::Progress> {
        leaf::create(tree.as_fd(), PROBE)?;
        let main = leaf::open_main(tree.as_fd(), PROBE, true)?;
        let mut plan = plan_of_self(&[])?;
        // Nothing that can be executed: what it says of that is its sign of life, and its end.
        plan.set_program(c"/".to_owned());
        let mut child = clone::spawn(&mut plan, Some(leaf::join(&main, true)))?;
        wait_exit(child.pidfd.as_fd()).map_err(io::Error::other)?;
        Ok(child.report.read())
    };
    let born = matches!(report(), Ok(clone::Progress::Failed(failure)) if failure.step == Step::Exec);
    let _ = leaf::remove(tree.as_fd(), PROBE);
    born
}

/// The way in is the one that lives will take: a move would wait for an RCU grace period.
fn try_leaf(tree: &Tree, born: bool) -> Result<(), String> {
    leaf::create(tree.as_fd(), PROBE).map_err(say("mkdir"))?;
    let watch = Watch::new().map_err(say("epoll"))?;
    let _watched = watch.add(&tree.path().join(PROBE), 1).map_err(say("epoll"))?;
    let main = leaf::open_main(tree.as_fd(), PROBE, born).map_err(say("cgroup.procs"))?;
    let mut plan = plan_of_self(&[]).map_err(say("plan"))?;
    // Never told to go: it stays where it is, in the cgroup, short of exec.
    let (mut child, go) =
        clone::spawn_held(&mut plan, Some(leaf::join(&main, born))).map_err(say("clone"))?;
    let entered = wait_populated(tree, &watch, true).and_then(|()| match child.report.read() {
        clone::Progress::Pending => Ok(()),
        clone::Progress::Failed(failure) => {
            Err(format!("a process cannot join: {}", clone::reason(failure.errno)))
        }
        clone::Progress::Executed | clone::Progress::Killed => Err("a process did not survive".to_owned()),
    });
    let killed = leaf::kill(tree.as_fd(), PROBE).map_err(say("cgroup.kill"));
    if entered.is_err() || killed.is_err() {
        let _ = child.pidfd.send(Signal::KILL);
    }
    let reaped = wait_exit(child.pidfd.as_fd());
    drop(go);
    entered?;
    killed?;
    reaped?;
    wait_populated(tree, &watch, false)
}

fn wait_populated(tree: &Tree, watch: &Watch, wanted: bool) -> Result<(), String> {
    loop {
        if leaf::populated(tree.as_fd(), PROBE).map_err(say("cgroup.events"))? == wanted {
            return Ok(());
        }
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&PATIENCE)).unwrap_or(0) == 0 {
            return Err(format!("cgroup.events never said populated {}", u8::from(wanted)));
        }
        // So that the next poll waits for something new.
        drop(watch.drain());
    }
}

/// Whether something can be read in time.
pub(super) fn wait_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&PATIENCE)).unwrap_or(0) > 0
}

/// Waits for a child of ours and reaps it. Returns its exit status, `None` if a signal ended it.
pub(super) fn wait_exit(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, String> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = rustix::event::poll(&mut fds, Some(&PATIENCE)).unwrap_or(0) > 0;
    if !ended {
        return Err("a killed process did not end".to_owned());
    }
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
        Ok(status) => Ok(status.and_then(|status| status.exit_status())),
        Err(error) => Err(format!("waitid: {error}")),
    }
}

/// A real keeper with a real tree: the main process, as another user and with a tag, leaves a daemon behind; the
/// keeper has to end it and see nothing left.
fn try_keeper(wish: &Wish<'_>, other_uid: bool) -> Result<Option<Tags>, String> {
    let own = Credentials::own();
    let gid_map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let mut tags = Tags::choose(&gid_map, wish.instance);
    if !other_uid {
        // Without the right to set groups there are none; with it they help even here.
        if try_tree(wish, tags.map(|tags| with_tag(own, tags)), None).is_ok() {
            return Ok(tags);
        }
        return try_tree(wish, None, None).map(|()| None);
    }
    let uid = if wish.service_uid == own.uid { NOBODY } else { wish.service_uid };
    let mut who = Credentials { uid, gid: own.gid, groups: Vec::new() };
    if let Some(tags) = tags {
        who = with_tag(who, tags);
    }
    let first = try_tree(wish, Some(who.clone()), None);
    if first.is_err() && tags.is_some() {
        who.groups.clear();
        tags = None;
        return try_tree(wish, Some(who), None).map(|()| tags);
    }
    first.map(|()| tags)
}

const NOBODY: u32 = 65534;

fn with_tag(mut who: Credentials, tags: Tags) -> Credentials {
    who.groups.push(tags.nth(u64::MAX));
    who
}

/// A process of our own uid, as a service would be, finds out whether it can signal us, as it would its keeper.
fn try_scope() -> Result<(), String> {
    let mut plan = plan_of_self(&[TRY_PARENT]).map_err(say("plan"))?;
    plan.no_new_privs = true;
    plan.scope_signals = true;
    let child = clone::spawn(&mut plan, None).map_err(say("clone"))?;
    match wait_exit(child.pidfd.as_fd())? {
        Some(0) => Ok(()),
        _ => Err("a service can signal its keeper".to_owned()),
    }
}

/// A keeper that is the init of its namespaces, with a real tree as above.
fn try_apart(wish: &Wish<'_>) -> Result<Apart, String> {
    let own = Credentials::own();
    let identity = (wish.service_uid != own.uid).then(|| Credentials {
        uid: wish.service_uid,
        gid: own.gid,
        groups: Vec::new(),
    });
    let privileged = match try_tree(wish, identity.clone(), Some(Apart::Privileged)) {
        Ok(()) => return Ok(Apart::Privileged),
        Err(reason) => reason,
    };
    match try_tree(wish, identity, Some(Apart::InUserNamespace)) {
        Ok(()) => Ok(Apart::InUserNamespace),
        Err(reason) => Err(format!("{privileged}; in a user namespace: {reason}")),
    }
}

fn try_tree(wish: &Wish<'_>, identity: Option<Credentials>, apart: Option<Apart>) -> Result<(), String> {
    let mut plan = plan_of_self(&[REHEARSE]).map_err(say("plan"))?;
    plan.identity = identity;
    let dir = keepers_dir(wish.runtime_dir).map_err(|error| error.to_string())?;
    let null = null().map_err(say("/dev/null"))?;
    let (socket, theirs) = wire::pair().map_err(say("socketpair"))?;
    let mut keeper_plan = keeper_plan(wish.instance, null.as_fd(), theirs).map_err(say("plan"))?;
    let keeper = match apart {
        None => clone::spawn(&mut keeper_plan, None).map_err(say("clone"))?,
        Some(apart) => clone::spawn_apart(&mut keeper_plan, apart).map_err(say("a PID namespace"))?,
    };
    drop(keeper_plan);
    let result = wire::send_start(socket.as_fd(), PROBE, &plan, dir.as_fd())
        .map_err(say("start order"))
        .and_then(|()| rehearse(socket.as_fd(), &plan));
    if result.is_err() {
        let _ = keeper.pidfd.send(Signal::KILL);
    }
    wait_exit(keeper.pidfd.as_fd()).and(result)
}

fn rehearse(socket: BorrowedFd<'_>, plan: &ChildPlan) -> Result<(), String> {
    match next_word(socket)? {
        Word::Spawned { .. } => {}
        Word::Failed { step, errno } if step == Step::Exec as u8 && errno == libc::EACCES => {
            // Our own file is closed to that user, so nothing can be rehearsed; but becoming that user worked.
            return Ok(());
        }
        Word::Failed { step, errno } => {
            let subject = clone::Subject::of(plan);
            let words =
                Step::from_byte(step).map(|step| subject.words(clone::Failure { step, errno, candidate: 0 }));
            return Err(words.unwrap_or_else(|| clone::reason(errno)));
        }
        Word::NoProc { errno } => return Err(format!("mount of its /proc: {}", clone::reason(errno))),
        other => return Err(format!("a keeper said {other:?} instead of making a process")),
    }
    match next_word(socket)? {
        Word::MainExited { status: 0 } => {}
        other => return Err(format!("a keeper said {other:?} instead of a clean exit")),
    }
    wire::send_order(socket, Order::Kill).map_err(say("kill order"))?;
    match next_word(socket) {
        Ok(Word::Empty) => Ok(()),
        Ok(other) => Err(format!("a keeper said {other:?} instead of the end")),
        // Most likely CAP_KILL: the keeper may not signal another user's process.
        Err(reason) => Err(format!("a keeper cannot end its tree ({reason})")),
    }
}

fn next_word(socket: BorrowedFd<'_>) -> Result<Word, String> {
    loop {
        match wire::hear_word(socket) {
            Heard::Message(word, _) => return Ok(word),
            Heard::End => return Err("a keeper died".to_owned()),
            Heard::Nothing => {}
        }
        if !wait_readable(socket) {
            return Err("a keeper did not answer".to_owned());
        }
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Ourselves again, as a keeper's helper.
pub(super) fn plan_of_self(arguments: &[&str]) -> io::Result<ChildPlan> {
    let none: [(&str, &str); 0] = [];
    let argv: Vec<&str> = ["hermes-sup", ARGUMENT].into_iter().chain(arguments.iter().copied()).collect();
    let mut plan =
        ChildPlan::new(&argv, none, None, [null()?, null()?, null()?]).map_err(io::Error::other)?;
    plan.set_program(c"/proc/self/exe".to_owned());
    Ok(plan)
}
