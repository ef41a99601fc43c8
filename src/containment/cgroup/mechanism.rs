//! The rungs `cgroup` and `cgroup-private`: begins and adopts lives in the instance's directory, and removes what they leave.

use super::discover::Place;
use super::handle::CgroupHandle;
use super::leaf;
use super::limits;
use super::scope;
use super::tree::Tree;
use super::watch::{Watch, Watched};
use crate::containment::event::{EventQueue, SpawnError};
use crate::containment::held::{Birth, CGROUPS, Held, Mechanism, Watcher, own_uid};
use crate::containment::no_process;
use crate::containment::processes;
use crate::containment::processes::leader::Leader;
use crate::containment::retry::Retry;
use crate::containment::rung::Rung;
use crate::containment::succession::adopt::{Gone, Process};
use crate::containment::succession::predecessor::{Patience, Predecessor, Spared};
use crate::containment::succession::record::AdoptionRecord;
use crate::core::clock::Tick;
use crate::core::farewell::Farewell;
use crate::core::limits::{Key, Limits, NotInForce, Value};
use crate::core::unit::ScopeName;
use crate::sys::mount::Mounts;
use crate::sys::spawn::clone::{Child, Subject};
use crate::sys::spawn::plan::ChildPlan;
use foldhash::HashMap;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Delay before rmdir. It takes longer than to end the process that was in the directory, so it must not delay a restart or the
/// other ends of a moment in which many end.
const RMDIR_DELAY: Duration = Duration::from_millis(100);

/// Between two looks at a process that is being ended before its life is taken over.
const ENDING_LOOKS: Duration = Duration::from_millis(2);

/// So many directories are removed before the loop does something else, at some 30 µs each.
const REMOVED_AT_ONCE: usize = 64;

/// A loop that always has more urgent things to do removes directories from so many on: services that are restarted without end
/// must not leave them without bound. More than end in a shutdown.
const TOO_MANY: usize = if cfg!(test) { 16 } else { 1024 };

/// Lives in cgroups of this instance.
#[derive(Debug)]
pub struct CgroupMechanism {
    /// Replaced when another program has removed the instance's directory. Lives keep the one in which they began.
    site: RefCell<Rc<Site>>,
    made_again: Cell<bool>,
}

/// The directory that lives are in, with what watches it and what is known of its entries.
#[derive(Debug)]
pub struct Site {
    pub tree: Tree,
    pub books: Rc<Books>,
}

/// What outlives the directory of an instance.
#[derive(Debug)]
pub struct Books {
    pub watch: Watch,
    pub rung: Rung,
    /// Directories still to be removed, with when to try next.
    leftovers: RefCell<Vec<(String, Retry)>>,
    /// The slots of lives by their directories.
    slots: RefCell<HashMap<Rc<str>, u32>>,
    mounts: RefCell<Mounts>,
}

impl CgroupMechanism {
    /// Takes possession: the instance's directory (where `inherited` has it, if lives there are to be taken over) and the watch.
    ///
    /// # Errors
    /// What the probe found possible and now is not; the message names the path.
    pub fn open(
        place: &Place,
        instance: &str,
        controllers: bool,
        inherited: Option<&Predecessor>,
        watcher: &Watcher,
    ) -> io::Result<Self> {
        let tree = match inherited.and_then(|from| Tree::inherit(from.cgroup.as_ref()?, place)) {
            Some(tree) => tree,
            None => Tree::create(place, instance, controllers).map_err(io::Error::other)?,
        };
        let watch = Watch::new()?;
        watcher.watch(watch.as_fd(), CGROUPS)?;
        let books = Books {
            watch,
            rung: if place.private.is_some() { Rung::CgroupPrivate } else { Rung::Cgroup },
            leftovers: RefCell::default(),
            slots: RefCell::default(),
            mounts: RefCell::default(),
        };
        Ok(Self {
            site: RefCell::new(Rc::new(Site { tree, books: Rc::new(books) })),
            made_again: Cell::new(false),
        })
    }

    fn site(&self) -> Rc<Site> {
        Rc::clone(&self.site.borrow())
    }

    /// Makes the instance's directory again if another program has removed it, which is possible while nothing lives in it.
    fn make_again(&self) -> bool {
        let site = self.site();
        let Ok(Some(tree)) = site.tree.made_again() else { return false };
        *self.site.borrow_mut() = Rc::new(Site { tree, books: Rc::clone(&site.books) });
        self.made_again.set(true);
        true
    }
}

impl Mechanism for CgroupMechanism {
    fn spawn(&self, birth: Birth<'_>) -> Result<(Box<dyn Held>, Vec<NotInForce>), SpawnError> {
        let Birth { slot, id, plan, limits, spawner, .. } = birth;
        let owner = plan.identity.as_ref().is_none_or(|who| who.uid == own_uid());
        self.site().books.shield(plan);
        plan.scarce_memory = limits.get(Key::MemoryMax).is_some_and(is_scarce);
        let leaf = id.to_string();
        let mut make = || self.site().make(&leaf, plan, limits, spawner);
        let mut made = make();
        // Where there are as many directories as there may be, those of lives that are over make room.
        if matches!(made, Err(SpawnError::Cgroup { .. })) && self.site().remove_leftovers(|_| true) {
            made = make();
        }
        if matches!(made, Err(SpawnError::Cgroup { .. })) && self.make_again() {
            made = make();
        }
        let (child, not_in_force) = made?;
        let handle = CgroupHandle::new(self.site(), slot, id.clone(), owner, child, Subject::of(plan));
        Ok((Box::new(handle), not_in_force))
    }

    fn adopt(
        &self,
        slot: u32,
        record: &AdoptionRecord,
        _watcher: &Watcher,
        patience: &Patience,
    ) -> Option<Result<Box<dyn Held>, Gone>> {
        let (site, id) = (self.site(), record.id());
        if !leaf::exists(site.tree.as_fd(), &id.to_string()) {
            return None;
        }
        let owner = processes::uid_of(record.living.pid) == Some(own_uid());
        let main = match Process::find(record.living.pid, record.born) {
            Ok(main) => main,
            Err(gone) => return Some(Err(gone)),
        };
        let beside = record.beside.and_then(|(pid, born)| Process::find(pid, born).ok());
        beside.into_iter().for_each(|process| site.end_beside(&id.to_string(), &process, patience));
        Some(CgroupHandle::adopt(site, slot, id, owner, main).map(|handle| Box::new(handle) as Box<dyn Held>))
    }

    fn ready(&self, which: u32, _now: Tick, _events: &mut EventQueue) -> Vec<u32> {
        if which == CGROUPS { self.site().books.watch.drain() } else { Vec::new() }
    }

    fn is_empty(&self) -> bool {
        leaf::populated(self.site().tree.as_fd(), ".").is_ok_and(|populated| !populated)
    }

    fn slot_of(&self, pid: i32) -> Option<(u32, Option<ScopeName>)> {
        let site = self.site();
        let cgroup = processes::cgroup_of(pid)?;
        let (own, _) = site.tree.identity();
        let mut below = Path::new(&cgroup).strip_prefix(own).ok()?.iter().map(|part| part.to_str());
        let slot = *site.books.slots.borrow().get(below.next()??)?;
        Some((slot, below.next().flatten().and_then(scope::of_directory)))
    }

    fn ends_with_us(&self) -> bool {
        self.site().tree.goes_with_us()
    }

    fn describe(&self, note: &mut Predecessor) {
        let site = self.site();
        let (path, inode) = site.tree.identity();
        note.cgroup = Some((path.to_owned(), inode));
    }

    fn was_made_again(&self) -> bool {
        self.made_again.take()
    }

    fn spare(&self, spared: &mut Spared) {
        spared.tree = Some(self.site().tree.identity().1);
    }

    fn next_deadline(&self) -> Option<Tick> {
        self.site().books.leftovers.borrow().iter().map(|(_, retry)| retry.next).min()
    }

    fn tidy(&self, now: Tick, hurries: bool) {
        if hurries && self.site().books.leftovers.borrow().len() <= TOO_MANY {
            return;
        }
        let mut left = REMOVED_AT_ONCE;
        self.site().remove_leftovers(|retry| {
            let wanted = left > 0 && retry.due(now);
            left -= usize::from(wanted);
            wanted
        });
    }

    #[cfg(test)]
    fn directory(&self) -> Option<std::path::PathBuf> {
        Some(self.site().tree.path().to_owned())
    }

    fn close(&self, farewell: Farewell) {
        if farewell == Farewell::Host {
            let site = self.site();
            site.remove_leftovers(|_| true);
            let _ = site.tree.remove();
        }
    }
}

impl Site {
    /// Makes the directory, puts the limits into force there and makes the child in it.
    fn make(
        &self,
        leaf: &str,
        plan: &mut ChildPlan,
        limits: &Limits,
        spawner: &mut crate::containment::spawner::Spawner,
    ) -> Result<(Child, Vec<NotInForce>), SpawnError> {
        let tree = &self.tree;
        let failed = |error: io::Error| SpawnError::Cgroup {
            path: tree.shown(leaf),
            reason: leaf::create_words(&error),
        };
        leaf::create(tree.as_fd(), leaf).map_err(failed)?;
        let not_in_force = self.apply(leaf, limits);
        let born = tree.born.get();
        let child = leaf::open(tree.as_fd(), leaf, born).map_err(failed).and_then(|entry| {
            let join = leaf::join(&entry, born);
            let why =
                |error: io::Error| no_process::why(&error, || no_process::above(&tree.path().join(leaf)));
            spawner.spawn(plan, Some(join)).map_err(|error| SpawnError::Clone(why(error)))
        });
        match child {
            Ok(child) => Ok((child, not_in_force)),
            Err(error) => {
                // A child of which we could not have a handle is in it for a moment still.
                if leaf::remove(tree.as_fd(), leaf).is_err() {
                    self.books.remove_later(leaf.to_owned(), Retry::now(None, RMDIR_DELAY));
                }
                Err(error)
            }
        }
    }

    /// Ends what ran beside a main process when our predecessor died, with all that it has started: nobody waits for it, nor would
    /// anybody end it at its timeout. Done before the life is taken over, or a successor of ours would not find it any more.
    fn end_beside(&self, leaf: &str, process: &Process, patience: &Patience) {
        let Some(mut leader) = Leader::of(process.pid) else { return };
        let frozen = leaf::state(self.tree.as_fd(), leaf).is_ok_and(|state| state.frozen);
        while !leader.end(frozen) && !patience.is_over() {
            patience.wait(None, ENDING_LOOKS);
        }
    }

    pub fn apply(&self, leaf: &str, limits: &Limits) -> Vec<NotInForce> {
        limits::apply(&self.tree, leaf, limits)
    }

    /// Watches `cgroup.events` of a directory below for `number`.
    ///
    /// # Errors
    /// As [`Watch::add`].
    pub fn watch(&self, path: &str, number: u32) -> io::Result<Watched> {
        self.books.watch.add(&self.tree.path().join(path), number)
    }

    /// Watches `memory.events` of a life; `None`: it has no memory controller.
    pub fn watch_memory(&self, leaf: &str, slot: u32) -> Option<Watched> {
        if !self.tree.memory.get() {
            return None;
        }
        let watched = self.books.watch.add_memory(&self.tree.path().join(leaf), slot);
        self.tree.memory.set(!watched.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        watched.ok()
    }

    /// Removes those of the directories that are left whose turn it is; whether one went.
    fn remove_leftovers(&self, mut wanted: impl FnMut(&mut Retry) -> bool) -> bool {
        let mut leftovers = self.books.leftovers.borrow_mut();
        let before = leftovers.len();
        leftovers
            .retain_mut(|(name, retry)| !wanted(retry) || leaf::remove(self.tree.as_fd(), name).is_err());
        leftovers.len() < before
    }
}

impl Books {
    /// The directory `leaf` is that of the life in `slot`.
    pub fn enter(&self, leaf: &Rc<str>, slot: u32) {
        self.slots.borrow_mut().insert(Rc::clone(leaf), slot);
    }

    /// The life in `leaf` is over, and its directory goes some time later.
    pub fn leave(&self, leaf: &str, now: Tick, farewell: Farewell) {
        self.slots.borrow_mut().remove(leaf);
        match farewell {
            Farewell::Host => self.remove_later(leaf.to_owned(), Retry::first(now, RMDIR_DELAY)),
            Farewell::Container => {}
        }
    }

    pub fn remove_later(&self, path: String, retry: Retry) {
        self.leftovers.borrow_mut().push((path, retry));
    }

    /// It is used again.
    pub fn keep(&self, path: &str) {
        self.leftovers.borrow_mut().retain(|(left, _)| left != path);
    }

    /// A service that runs as the owner of its cgroup could write there. It sees every mount of cgroup2 read-only, if it cannot
    /// undo that, which takes capabilities.
    pub fn shield(&self, plan: &mut ChildPlan) {
        let owner = plan.identity.as_ref().is_none_or(|who| who.uid == own_uid());
        let powerless = plan.capabilities.is_some_and(|masks| masks.bounding == 0 && masks.ambient == 0);
        if owner && powerless && self.rung == Rung::Cgroup {
            let mut mounts = self.mounts.borrow_mut();
            let writable = mounts.now().unwrap_or_default().iter().filter(|mount| !mount.read_only);
            plan.read_only =
                writable.filter_map(|mount| CString::new(mount.point.as_os_str().as_bytes()).ok()).collect();
        }
    }
}

/// So little that a child could use it up before its exec, which takes it less than a megabyte: argument list, page tables,
/// credentials.
fn is_scarce(memory: Value) -> bool {
    const ENOUGH: u64 = 16 << 20;
    matches!(memory, Value::Amount(amount) if amount < ENOUGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_child_could_use_up_before_its_exec_is_scarce() {
        let scarce =
            [Value::Amount(0), Value::Amount(1 << 20), Value::Amount(64 << 20), Value::Max].map(is_scarce);
        assert_eq!(scarce, [true, true, false, false]);
    }
}
