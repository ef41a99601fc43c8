//! Whether the keeper rungs work here: a real keeper with a real tree. Its main process leaves a daemon behind; the keeper has
//! to end that and see nothing left.

use super::mechanism::{KeeperMechanism, Means};
use super::process::{REHEARSE, TRY_PARENT};
use super::tags::Tags;
use super::wire::{self, Heard, KeeperMsg, SupervisorMsg};
use super::{NoDirectory, keepers_dir, null, plan, plan_of_self};
use crate::containment::held::Mechanism;
use crate::containment::ladder::{
    Attempt, Ground, Proof, Refusal as Why, Tried, Wish, wait_exit, wait_readable,
};
use crate::containment::rung::Rung;
use crate::core::signal::Signal;
use crate::sys::credentials::Credentials;
use crate::sys::spawn::child::Step;
use crate::sys::spawn::clone::{self, Apart, Child};
use crate::sys::spawn::plan::ChildPlan;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

/// Why a keeper rung does not work here; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Directory(#[from] NoDirectory),
    #[error("{privileged}; in a user namespace: {unprivileged}")]
    NoNamespace { privileged: Box<Why>, unprivileged: Box<Why> },
    /// The main process never ran.
    #[error("{0}")]
    NotExecuted(String),
    #[error("mount of its /proc: {0}")]
    NoProc(String),
    #[error("a keeper said {said:?} instead of {wanted}")]
    Unexpected { said: KeeperMsg, wanted: &'static str },
    #[error("a keeper died")]
    Died,
    #[error("a keeper did not answer")]
    Silent,
    /// Most likely CAP_KILL: the keeper may not signal another user's process.
    #[error("a keeper cannot end its tree ({0})")]
    CannotEnd(Box<Why>),
    #[error("a service can signal its keeper")]
    Unprotected,
}

/// How keepers can be had here.
#[derive(Debug, Clone, Copy)]
struct KeeperProof {
    means: Means,
}

impl Proof for KeeperProof {
    fn remark(&self, rung: Rung) -> &'static str {
        match (rung, self.means) {
            (Rung::Pidns, Means { apart: Some(Apart::InUserNamespace), .. }) => {
                "works here in a user namespace, for services with containment = \"pidns\""
            }
            (Rung::Pidns, _) => "works here, for services with containment = \"pidns\"",
            (Rung::KeeperSameUid, Means { scoped: true, .. }) => {
                "works here; Landlock keeps services from signalling their keeper"
            }
            (Rung::KeeperSameUid, _) => {
                "works here; a hostile service can kill its keeper: what helps is Landlock of kernel 6.12 or later"
            }
            (_, _) => "works here; a stop converges instead of being atomic",
        }
    }

    fn weakness(&self, rung: Rung) -> Option<&'static str> {
        match rung {
            Rung::Pidns => None,
            Rung::KeeperSameUid if !self.means.scoped => Some("a hostile service can kill its keeper"),
            _ => Some("a stop converges instead of being atomic"),
        }
    }

    fn open(&self, rung: Rung, ground: &mut Ground<'_>) -> io::Result<Rc<dyn Mechanism>> {
        Ok(Rc::new(KeeperMechanism::new(Rc::clone(&ground.keepers), rung, self.means)))
    }

    #[cfg(test)]
    fn unscoped(&self) -> Option<Rc<dyn Proof>> {
        Some(Rc::new(Self { means: Means { scoped: false, ..self.means } }))
    }
}

/// A main process of another user. A service of our own uid is held as on the rung below.
pub fn other_uid(wish: &Wish<'_>, _before: &[Attempt]) -> Tried {
    let own = Credentials::own();
    let uid = if wish.service_uid == own.uid { NOBODY } else { wish.service_uid };
    let who = || Credentials { uid, gid: own.gid, groups: [].into() };
    let tree = || {
        if let Some(tags) = tags(wish)
            && try_tree(wish, Some(with_tag(who(), tags)), None).is_ok()
        {
            return Ok(Some(tags));
        }
        try_tree(wish, Some(who()), None).map(|()| None)
    };
    keepers(tree)
}

/// A main process of our own user.
pub fn same_uid(wish: &Wish<'_>, _before: &[Attempt]) -> Tried {
    keepers(|| {
        // Without the right to set groups there are none; with it they help even here.
        let tags = tags(wish);
        if try_tree(wish, tags.map(|tags| with_tag(Credentials::own(), tags)), None).is_ok() {
            return Ok(tags);
        }
        try_tree(wish, None, None).map(|()| None)
    })
}

/// A keeper that is the init of its namespaces.
pub fn pidns(wish: &Wish<'_>, _before: &[Attempt]) -> Tried {
    let own = Credentials::own();
    let who = (wish.service_uid != own.uid).then(|| Credentials {
        uid: wish.service_uid,
        gid: own.gid,
        groups: [].into(),
    });
    let proof = |apart| -> Rc<dyn Proof> {
        Rc::new(KeeperProof { means: Means { apart: Some(apart), ..Means::default() } })
    };
    let privileged = match try_tree(wish, who.clone(), Some(Apart::Privileged)) {
        Ok(()) => return Ok(proof(Apart::Privileged)),
        Err(why) => Box::new(why),
    };
    match try_tree(wish, who, Some(Apart::InUserNamespace)) {
        Ok(()) => Ok(proof(Apart::InUserNamespace)),
        Err(why) => Err(Refusal::NoNamespace { privileged, unprivileged: Box::new(why) }.into()),
    }
}

/// What is to be had beside a tree that `try_tree` tries, with these tags. The scope is tried meanwhile.
fn keepers(try_tree: impl FnOnce() -> Result<Option<Tags>, Why>) -> Tried {
    let scope = begin_scope();
    let tags = try_tree();
    let scoped = scope.and_then(|child| end_scope(&child)).is_ok();
    Ok(Rc::new(KeeperProof { means: Means { tags: tags?, apart: None, scoped } }))
}

fn tags(wish: &Wish<'_>) -> Option<Tags> {
    let gid_map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    Tags::choose(&gid_map, wish.instance)
}

const NOBODY: u32 = 65534;

fn with_tag(mut who: Credentials, tags: Tags) -> Credentials {
    who.join(tags.nth(u64::MAX));
    who
}

/// A process of our own uid, as a service would be, finds out whether it can signal us, as it would its keeper.
fn begin_scope() -> Result<Child, Why> {
    let mut plan = plan_of_self(&[TRY_PARENT]).map_err(Why::of("plan"))?;
    plan.no_new_privs = true;
    plan.scope_signals = true;
    clone::spawn(&mut plan, None).map_err(Why::of("clone"))
}

fn end_scope(child: &Child) -> Result<(), Why> {
    match wait_exit(child.pidfd.as_fd())? {
        Some(0) => Ok(()),
        _ => Err(Refusal::Unprotected.into()),
    }
}

const PROBE: &str = "probe.0";

fn try_tree(wish: &Wish<'_>, identity: Option<Credentials>, apart: Option<Apart>) -> Result<(), Why> {
    let mut service = plan_of_self(&[REHEARSE]).map_err(Why::of("plan"))?;
    service.identity = identity;
    let dir = keepers_dir(wish.runtime_dir).map_err(Refusal::from)?;
    let null = null().map_err(Why::of("/dev/null"))?;
    let (socket, theirs) = wire::pair().map_err(Why::of("socketpair"))?;
    let mut keeper = plan(wish.instance, null.as_fd(), theirs).map_err(Why::of("plan"))?;
    let child = match apart {
        None => clone::spawn(&mut keeper, None).map_err(Why::of("clone"))?,
        Some(apart) => clone::spawn_apart(&mut keeper, apart).map_err(Why::of("a PID namespace"))?,
    };
    drop(keeper);
    let result = wire::send_start(socket.as_fd(), PROBE, &service, dir.as_fd())
        .map_err(Why::of("start order"))
        .and_then(|()| rehearse(socket.as_fd(), &service));
    if result.is_err() {
        let _ = child.pidfd.send(Signal::KILL);
    }
    wait_exit(child.pidfd.as_fd()).and(result)
}

fn rehearse(socket: BorrowedFd<'_>, service: &ChildPlan) -> Result<(), Why> {
    match next_message(socket)? {
        KeeperMsg::Spawned { .. } => {}
        KeeperMsg::Failed { step, errno } if step == Step::Exec as u8 && errno == libc::EACCES => {
            // Our own file is closed to that user, so nothing can be rehearsed; but becoming that user worked.
            return Ok(());
        }
        KeeperMsg::Failed { step, errno } => {
            let subject = clone::Subject::of(service);
            let words =
                Step::from_byte(step).map(|step| subject.words(clone::Failure { step, errno, candidate: 0 }));
            return Err(Refusal::NotExecuted(words.unwrap_or_else(|| clone::reason(errno))).into());
        }
        KeeperMsg::NoProc { errno } => return Err(Refusal::NoProc(clone::reason(errno)).into()),
        said => return Err(Refusal::Unexpected { said, wanted: "making a process" }.into()),
    }
    match next_message(socket)? {
        KeeperMsg::MainExited { status: 0 } => {}
        said => return Err(Refusal::Unexpected { said, wanted: "a clean exit" }.into()),
    }
    wire::send_order(socket, SupervisorMsg::Kill).map_err(Why::of("kill order"))?;
    match next_message(socket) {
        Ok(KeeperMsg::Empty) => Ok(()),
        Ok(said) => Err(Refusal::Unexpected { said, wanted: "the end" }.into()),
        Err(why) => Err(Refusal::CannotEnd(Box::new(why)).into()),
    }
}

fn next_message(socket: BorrowedFd<'_>) -> Result<KeeperMsg, Why> {
    loop {
        match wire::hear_keeper(socket) {
            Heard::Message(message, _) => return Ok(message),
            Heard::End => return Err(Refusal::Died.into()),
            Heard::Nothing => {}
        }
        if !wait_readable(socket) {
            return Err(Refusal::Silent.into());
        }
    }
}
