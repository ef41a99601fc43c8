//! Whether the cgroup rungs work here: a directory, a child that comes into it and lives, the kill, the notification, the
//! removal; and whether a child can also be born there.

use super::discover::{self, NoPlace, Place};
use super::leaf;
use super::mechanism::CgroupMechanism;
use super::private::NoMount;
use super::remains::{self, PROBE};
use super::tree::{self, NoTree, Tree};
use super::watch::Watch;
use crate::containment::held::Mechanism;
use crate::containment::keeper::plan_of_self;
use crate::containment::ladder::{Attempt, Ground, PATIENCE, Proof, Refusal as Why, Tried, Wish, wait_exit};
use crate::containment::rung::Rung;
use crate::core::signal::Signal;
use crate::sys::spawn::child::Step;
use crate::sys::spawn::clone;
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

/// Why a cgroup rung does not work here; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error(transparent)]
    Mount(#[from] NoMount),
    #[error(transparent)]
    Tree(#[from] NoTree),
    #[error("the mount that everybody sees is writable: containment 'cgroup' is in force")]
    NotNeeded,
    #[error("a process cannot join: {0}")]
    CannotJoin(String),
    #[error("a process did not survive")]
    DidNotSurvive,
    #[error("cgroup.events never said populated {0}")]
    Silent(u8),
}

/// Where the directory of this instance can be.
#[derive(Debug)]
struct CgroupProof {
    place: Place,
}

impl Proof for CgroupProof {
    fn remark(&self, rung: Rung) -> &'static str {
        match rung {
            Rung::CgroupPrivate => "works here; no service of another user can reach its cgroup",
            _ => "works here",
        }
    }

    fn open(&self, _rung: Rung, ground: &mut Ground<'_>) -> io::Result<Rc<dyn Mechanism>> {
        let mechanism = match &ground.cgroups {
            Some(opened) => Rc::clone(opened),
            None => {
                let home = ground.home;
                Rc::new(CgroupMechanism::open(
                    &self.place,
                    home.instance,
                    home.controllers,
                    ground.inherited,
                    ground.watcher,
                )?)
            }
        };
        ground.cgroups = Some(Rc::clone(&mechanism));
        Ok(mechanism)
    }
}

/// The mount that everybody sees.
pub fn visible(wish: &Wish<'_>, _before: &[Attempt]) -> Tried {
    visible_as(wish.instance)
}

/// The same; nobody else has the name `instance`.
pub fn visible_as(instance: &str) -> Tried {
    try_place(instance, discover::own_place().map_err(Refusal::from)?)
}

/// A mount that only we see.
pub fn private(wish: &Wish<'_>, before: &[Attempt]) -> Tried {
    let visible_works = before.iter().any(|(rung, result)| *rung == Rung::Cgroup && result.is_ok());
    if visible_works && wish.wanted != Some(Rung::CgroupPrivate) {
        return Err(Refusal::NotNeeded.into());
    }
    try_place(wish.instance, discover::private_place()?)
}

fn try_place(instance: &str, mut place: Place) -> Tried {
    remains::remove(&place.dir);
    let name = remains::name(instance);
    let tree = Tree::create(&place, &name, false).map_err(Refusal::from)?;
    place.born = try_birth(&tree);
    let result = try_leaf(&tree, place.born);
    let removed = leave(&tree)
        .map_err(|error| Refusal::from(NoTree::new(&place, &tree::directory_name(&name), &error)));
    result?;
    removed?;
    Ok(Rc::new(CgroupProof { place }))
}

/// Removes what was made for the probe. Where one of its waits has failed, something lives in it still.
fn leave(tree: &Tree) -> io::Result<()> {
    remains::clear(tree.as_fd());
    tree.remove()
}

/// Whether a child that is born in its cgroup gets as far as its exec.
fn try_birth(tree: &Tree) -> bool {
    let report = || -> io::Result<clone::Progress> {
        leaf::create(tree.as_fd(), PROBE)?;
        let entry = leaf::open(tree.as_fd(), PROBE, true)?;
        let mut plan = plan_of_self(&[])?;
        // Nothing that can be executed: what it says of that is its sign of life, and its end.
        plan.set_program(c"/".to_owned());
        let mut child = clone::spawn(&mut plan, Some(leaf::join(&entry, true)))?;
        wait_exit(child.pidfd.as_fd()).map_err(io::Error::other)?;
        Ok(child.report.read())
    };
    let born = matches!(report(), Ok(clone::Progress::Failed(failure)) if failure.step == Step::Exec);
    remains::clear(tree.as_fd());
    born
}

/// The way in is the one that lives will take: a move would wait for an RCU grace period.
fn try_leaf(tree: &Tree, born: bool) -> Result<(), Why> {
    leaf::create(tree.as_fd(), PROBE).map_err(Why::of("mkdir"))?;
    let watch = Watch::new().map_err(Why::of("epoll"))?;
    let _watched = watch.add(&tree.path().join(PROBE), 1).map_err(Why::of("epoll"))?;
    let entry = leaf::open(tree.as_fd(), PROBE, born).map_err(Why::of("cgroup.procs"))?;
    let mut plan = plan_of_self(&[]).map_err(Why::of("plan"))?;
    // Never told to go: it stays where it is, in the cgroup, short of exec.
    let (mut child, go) =
        clone::spawn_held(&mut plan, Some(leaf::join(&entry, born))).map_err(Why::of("clone"))?;
    let entered = wait_populated(tree, &watch, true).and_then(|()| match child.report.read() {
        clone::Progress::Pending => Ok(()),
        clone::Progress::Failed(failure) => Err(Refusal::CannotJoin(clone::reason(failure.errno)).into()),
        clone::Progress::Executed | clone::Progress::Killed => Err(Refusal::DidNotSurvive.into()),
    });
    let killed = leaf::kill(tree.as_fd(), PROBE).map_err(Why::of("cgroup.kill"));
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

fn wait_populated(tree: &Tree, watch: &Watch, wanted: bool) -> Result<(), Why> {
    loop {
        if leaf::populated(tree.as_fd(), PROBE).map_err(Why::of("cgroup.events"))? == wanted {
            return Ok(());
        }
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&PATIENCE)));
        if ready.unwrap_or(0) == 0 {
            return Err(Refusal::Silent(u8::from(wanted)).into());
        }
        // So that the next poll waits for something new.
        drop(watch.drain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Its directory stayed for ever, and the next probe of the same process found it there.
    #[test]
    fn a_probe_whose_child_was_not_seen_to_end_leaves_nothing() {
        let Ok(place) = discover::own_place() else { return };
        let name = remains::name("living");
        // Who may not make cgroups probes none.
        let Ok(tree) = Tree::create(&place, &name, false) else { return };
        leaf::create(tree.as_fd(), PROBE).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let procs = tree.path().join(PROBE).join("cgroup.procs");
        let joined = std::fs::write(&procs, child.id().to_string());
        let left = leave(&tree);
        let _ = child.kill();
        child.wait().unwrap();
        if left.is_err() {
            leave(&tree).unwrap();
        }
        joined.unwrap();
        left.unwrap();
    }
}
