//! The rungs `keeper`, `keeper-same-uid` and `pidns`: makes keepers, and takes over lives whose keeper still runs.

use super::handle::{How, Keeper, KeeperHandle, Main};
use super::tags::Tags;
use super::wire::{self, Heard, KeeperMsg, SupervisorMsg};
use super::{keepers_dir, keepers_path};
use crate::containment::IncarnationId;
use crate::containment::event::{EventQueue, SpawnError};
use crate::containment::held::{Birth, CONTAINER_OOM, Held, Mechanism, Watcher};
use crate::containment::no_process;
use crate::containment::oom::ContainerOom;
use crate::containment::processes::{self, walk};
use crate::containment::rung::Rung;
use crate::containment::succession::adopt::{Gone, Process};
use crate::containment::succession::predecessor::{self, Patience, Predecessor};
use crate::containment::succession::record::AdoptionRecord;
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::farewell::Farewell;
use crate::core::limits::{Enforcer, Limits, NotInForce};
use crate::sys::peer;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::clone::{self, Apart, Child, Subject};
use rustix::event::PollFlags;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// What all keepers of this instance share.
#[derive(Debug)]
pub struct Keepers {
    instance: String,
    runtime_dir: PathBuf,
    dir: OwnedFd,
    null: OwnedFd,
    /// Opened with the first keeper: elsewhere the kernel tells of each life by itself.
    oom: RefCell<Option<ContainerOom>>,
    /// How many tags were handed out.
    tagged: Cell<u64>,
    /// Those of lives that were adopted.
    adopted_tags: RefCell<HashSet<u32>>,
}

/// One of the rungs.
#[derive(Debug)]
pub struct KeeperMechanism {
    keepers: Rc<Keepers>,
    rung: Rung,
    means: Means,
}

/// What is to be had here to hold a tree with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Means {
    /// Groups that this instance may hand out.
    pub tags: Option<Tags>,
    /// The keeper is to be the init of namespaces of its own.
    pub apart: Option<Apart>,
    /// A service of our own uid can be kept from signalling its keeper.
    pub scoped: bool,
}

impl Keepers {
    /// # Errors
    /// Those of mkdir(2) and open(2); the message names the path.
    pub fn open(instance: &str, runtime_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            instance: instance.to_owned(),
            runtime_dir: runtime_dir.to_owned(),
            dir: keepers_dir(runtime_dir).map_err(io::Error::other)?,
            null: super::null()?,
            oom: RefCell::new(None),
            tagged: Cell::new(0),
            adopted_tags: RefCell::default(),
        })
    }

    /// `<instance>:<name>.<n>`
    pub fn marker(&self, id: &IncarnationId) -> String {
        processes::marker(&self.instance, id)
    }

    /// How a main process ended for which no cgroup counts. `ours`: we may have sent it a SIGKILL.
    pub fn judge(&self, exit: Exit, ours: bool, now: Tick, events: &mut EventQueue) -> Exit {
        match &mut *self.oom.borrow_mut() {
            Some(oom) => oom.judge(exit, ours, now, events),
            None => exit,
        }
    }

    /// It was the tag of a life that is over.
    pub fn free_tag(&self, tag: u32) {
        self.adopted_tags.borrow_mut().remove(&tag);
    }

    fn open_oom(&self, watcher: &Watcher) {
        self.oom.borrow_mut().get_or_insert_with(|| ContainerOom::open(watcher));
    }

    /// The next tag by the count, but for those of adopted lives.
    fn next_tag(&self, tags: Tags) -> u32 {
        let adopted = self.adopted_tags.borrow();
        loop {
            let tag = tags.nth(self.tagged.replace(self.tagged.get() + 1));
            if !adopted.contains(&tag) || adopted.len() >= tags.count as usize {
                return tag;
            }
        }
    }
}

impl KeeperMechanism {
    pub fn new(keepers: Rc<Keepers>, rung: Rung, means: Means) -> Self {
        Self { keepers, rung, means }
    }

    /// Makes a keeper that has its order to start: a fork of the fork server where that works, else by an exec of our own program.
    fn make(&self, birth: &mut Birth<'_>) -> io::Result<(OwnedFd, Keeper)> {
        let (name, plan, dir) = (birth.id.to_string(), &*birth.plan, self.keepers.dir.as_fd());
        if self.means.apart.is_none() {
            let fds = wire::descriptors(plan, Some(dir))?;
            let say = |out: &mut Vec<u8>| wire::encode_plan(&name, plan, out);
            if let Some((socket, pid)) = birth.spawner.keeper(plan, say, &fds)? {
                // Until we know of it, it must not begin: it may be one that we have given up.
                started(&socket, wire::send_order(socket.as_fd(), SupervisorMsg::Start))?;
                return Ok((socket, Keeper { pid, pidfd: None, report: None, foreign: false }));
            }
        }
        let (socket, theirs) = wire::pair()?;
        let mut keeper = super::plan(&self.keepers.instance, self.keepers.null.as_fd(), theirs)?;
        let Child { pid, pidfd, report } = match self.means.apart {
            None => clone::spawn(&mut keeper, None)?,
            Some(apart) => clone::spawn_apart(&mut keeper, apart)?,
        };
        started(&socket, wire::send_start(socket.as_fd(), &name, plan, dir))?;
        Ok((socket, Keeper { pid, pidfd: Some(pidfd), report: Some(report), foreign: false }))
    }

    /// The keeper noticed that its supervisor was gone and listens, or is about to.
    fn take_over(&self, record: &AdoptionRecord, patience: &Patience) -> Result<KeeperHandle, Gone> {
        // Its main process is the one that was written down.
        drop(Process::find(record.living.pid, record.born)?);
        let silent = |what: &str| Gone(format!("its keeper {what}"));
        let parent = walk::stat(record.living.pid).map_or(0, |stat| stat.parent);
        let keeper = walk::stat(parent).filter(|_| predecessor::is_keeper(parent, &self.keepers.instance));
        let keeper = keeper.ok_or_else(|| silent("is not there"))?;
        let keeper = Process::find(parent, keeper.started)?;
        let path = keepers_path(&self.keepers.runtime_dir).join(record.id().to_string());
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
        if !answers || wire::send_order(socket.as_fd(), SupervisorMsg::Report).is_err() {
            return Err(silent("does not answer"));
        }
        // Others that do not answer may have used up what was for all.
        let patience = patience.at_least(Duration::from_millis(250));
        let main = hear_report(&socket, &patience).ok_or_else(|| silent("tells of no main process"))?;
        let how = self.how_held(record, parent);
        self.keepers.adopted_tags.borrow_mut().extend(record.tag);
        let keepers = Rc::clone(&self.keepers);
        Ok(KeeperHandle::adopt(keepers, record.id(), socket, keeper, (record.living.pid, main), how))
    }

    fn how_held(&self, record: &AdoptionRecord, keeper: i32) -> How {
        let uid = processes::uid_of(record.living.pid);
        let same_uid = uid.is_some() && uid == processes::uid_of(keeper);
        let is_init = processes::is_init(keeper);
        // A service that was started by the same binary on the same kernel has what we would give it.
        let scoped = same_uid && !is_init && self.means.scoped;
        How { tag: record.tag, same_uid, scoped, is_init }
    }
}

impl Mechanism for KeeperMechanism {
    fn spawn(&self, mut birth: Birth<'_>) -> Result<(Box<dyn Held>, Vec<NotInForce>), SpawnError> {
        let failed = |error: io::Error| SpawnError::Keeper(no_process::why(&error, no_process::around_us));
        let Means { tags, apart, scoped } = self.means;
        self.keepers.open_oom(birth.watcher);
        let same_uid = birth.is_owner();
        let tag = tags.map(|tags| self.keepers.next_tag(tags));
        let plan = &mut *birth.plan;
        let mut how = How { tag, same_uid, scoped: false, is_init: apart.is_some() };
        let confined = how.confine(plan);
        plan.scope_signals = confined && scoped;
        how.scoped = plan.scope_signals;
        let since = walk::ticks_since_boot();
        let (socket, keeper) = self.make(&mut birth).map_err(failed)?;
        let Birth { id, plan, limits, .. } = birth;
        let keepers = Rc::clone(&self.keepers);
        let handle = KeeperHandle::new(keepers, id.clone(), socket, (keeper, since), Subject::of(plan), how);
        Ok((Box::new(handle), without_cgroup(self.rung, limits)))
    }

    fn adopt(
        &self,
        _slot: u32,
        record: &AdoptionRecord,
        watcher: &Watcher,
        patience: &Patience,
    ) -> Option<Result<Box<dyn Held>, Gone>> {
        if self.means.apart.is_some() {
            // Whether the keeper is the init of a namespace is seen by the other rungs' mechanism.
            return None;
        }
        self.keepers.open_oom(watcher);
        Some(self.take_over(record, patience).map(|handle| Box::new(handle) as Box<dyn Held>))
    }

    fn ready(&self, which: u32, now: Tick, events: &mut EventQueue) -> Vec<u32> {
        if which == CONTAINER_OOM
            && let Some(oom) = &mut *self.keepers.oom.borrow_mut()
        {
            oom.look(now, events);
        }
        Vec::new()
    }

    fn describe(&self, note: &mut Predecessor) {
        note.tags = note.tags.or(self.means.tags);
    }

    fn close(&self, _farewell: Farewell) {
        let _ = rustix::fs::rmdir(keepers_path(&self.keepers.runtime_dir));
    }
}

/// Whether the order to start has gone out. Otherwise the keeper ends by itself: its socket is closed without one. Its reaping is no
/// news. One that could not begin has said why.
fn started(socket: &OwnedFd, sent: io::Result<()>) -> io::Result<()> {
    sent.map_err(|error| match wire::hear_keeper(socket.as_fd()) {
        Heard::Message(KeeperMsg::NotMade { errno }, _) => io::Error::from_raw_os_error(errno),
        _ => error,
    })
}

/// Limits that only a cgroup could enforce.
pub fn without_cgroup(rung: Rung, limits: &Limits) -> Vec<NotInForce> {
    let why = || {
        format!("containment '{rung}' has no cgroup for it ('hermes-sup doctor' tells what would give one)")
    };
    let of_cgroups = limits.iter().filter(|(key, _)| matches!(key.enforcer(), Enforcer::Controller(_)));
    of_cgroups.map(|(key, value)| NotInForce { key, value, why: why() }).collect()
}

/// The keeper has not come to it yet.
fn will_listen(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The main process, if its keeper says that it runs.
fn hear_report(socket: &OwnedFd, patience: &Patience) -> Option<Main> {
    loop {
        match wire::hear_keeper(socket.as_fd()) {
            Heard::Message(KeeperMsg::Spawned { pid, takes_hooks }, fds) => {
                let pidfd = fds.into_iter().next().map(Pidfd::from_fd)?;
                return Some(Main { pid, pidfd, takes_hooks });
            }
            Heard::Message(KeeperMsg::Frozen | KeeperMsg::Thawed, _) => {}
            Heard::Nothing if !patience.is_over() => {
                patience.wait(Some((socket, PollFlags::IN)), Duration::from_millis(100));
            }
            Heard::Nothing
            | Heard::End
            | Heard::Message(
                KeeperMsg::MainExited { .. }
                | KeeperMsg::Empty
                | KeeperMsg::NotMade { .. }
                | KeeperMsg::Failed { .. }
                | KeeperMsg::NoProc { .. }
                | KeeperMsg::Hook(_),
                _,
            ) => return None,
        }
    }
}
