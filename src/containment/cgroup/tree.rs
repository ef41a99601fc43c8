//! The directory of this instance, and the controllers above it.
//!
//! The supervisor stays where it is unless controllers are wanted: kill, freeze and events need none. For them it
//! must leave its own cgroup first, because one that has processes cannot hand domain controllers down
//! (cgroup-v2.rst, "No Internal Process Constraint"). It never writes a limit of that cgroup.

use super::discover::{self, OWN_LEAF, Place};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Those that limits and figures need, in the order of how much they matter.
const WANTED: [&str; 4] = ["memory", "pids", "cpu", "io"];

#[derive(Debug)]
pub struct Tree {
    dir: OwnedFd,
    path: PathBuf,
    cgroup: PathBuf,
    inode: u64,
    base: PathBuf,
    moved: bool,
    /// As [`Place::born`], until one did not live: we may have been moved since the probe.
    pub born: Cell<bool>,
    /// Lives may have a memory controller: none was seen that has not.
    pub memory: Cell<bool>,
    pub controllers: Vec<&'static str>,
    /// Why one that is there was not enabled.
    pub refused: Option<NoController>,
}

/// Why the directory of an instance cannot be had; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct NoTree {
    place: String,
    reason: String,
}

impl NoTree {
    pub fn new(place: &Place, name: &str, reason: &io::Error) -> Self {
        Self { place: place.shown(name), reason: reason.to_string() }
    }
}

/// Why a controller that is there was not enabled; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoController {
    #[error("{path}: {errno}")]
    NoLeaf { path: String, errno: Errno },
    /// A cgroup with processes in it hands no controllers down.
    #[error("{path} has other processes in it: {reason}")]
    Occupied { path: String, reason: String },
    #[error("{controller}: {reason}")]
    Refused { controller: &'static str, reason: String },
}

/// The name of an instance's directory.
pub fn directory_name(instance: &str) -> String {
    format!("hermes-sup.{instance}")
}

impl Tree {
    /// A plain directory in the place of cgroup2.
    #[cfg(test)]
    pub fn pretend(dir: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self {
            dir: rustix::fs::open(dir, flags, Mode::empty()).unwrap(),
            path: dir.to_owned(),
            cgroup: PathBuf::from("/pretend"),
            inode: 0,
            base: dir.to_owned(),
            moved: false,
            born: Cell::new(false),
            memory: Cell::new(true),
            controllers: Vec::new(),
            refused: None,
        }
    }

    /// Makes (or takes over) the instance's directory below `place`, enabling controllers if asked to.
    ///
    /// # Errors
    /// [`NoTree`], with the path.
    pub fn create(place: &Place, instance: &str, with_controllers: bool) -> Result<Self, NoTree> {
        let path = place.dir.join(directory_name(instance));
        let named = |errno: Errno| NoTree::new(place, &directory_name(instance), &errno.into());
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(named(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || {
            let dir = rustix::fs::open(&path, flags, Mode::empty())?;
            let inode = rustix::fs::fstat(&dir)?.st_ino;
            Ok((dir, inode))
        };
        let (dir, inode) = open().map_err(|errno| {
            // Nobody else would. One with lives in it stays.
            let _ = rustix::fs::rmdir(&path);
            named(errno)
        })?;
        let mut tree = Self {
            inode,
            dir,
            cgroup: place.cgroup.join(directory_name(instance)),
            path,
            base: place.dir.clone(),
            moved: false,
            born: Cell::new(place.born),
            memory: Cell::new(true),
            controllers: Vec::new(),
            refused: None,
        };
        if with_controllers {
            tree.enable_controllers(place);
        }
        Ok(tree)
    }

    /// The directory of an earlier supervisor, wherever it is, if it is not where ours would be: what lives there stays
    /// there. `None`: it is ours anyway, or cannot be used.
    pub fn inherit((cgroup, inode): &(PathBuf, u64), place: &Place) -> Option<Self> {
        let base = cgroup.parent()?;
        if base == place.cgroup {
            return None;
        }
        discover::visible(cgroup).into_iter().filter(|(_, private)| private.is_none()).find_map(
            |(path, _)| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
                // Another program may have made the same name since; an inode of cgroup2 is not used twice in a boot.
                let same = rustix::fs::fstat(&dir).ok()?.st_ino == *inode;
                let writable = rustix::fs::access(&path, Access::WRITE_OK).is_ok();
                let handed = std::fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
                let controllers =
                    WANTED.into_iter().filter(|name| handed.split_whitespace().any(|have| have == *name));
                (same && writable).then(|| Self {
                    dir,
                    base: path.parent().map(Path::to_owned).unwrap_or_default(),
                    path,
                    cgroup: cgroup.clone(),
                    inode: *inode,
                    // We live elsewhere.
                    moved: false,
                    born: Cell::new(place.born),
                    memory: Cell::new(true),
                    controllers: controllers.collect(),
                    refused: None,
                })
            },
        )
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of `leaf` for people: by its path, or where that leads nowhere for them, by its place in the
    /// hierarchy.
    pub fn shown(&self, leaf: &str) -> String {
        let at = if self.path.starts_with("/proc/self/fd") { &self.cgroup } else { &self.path };
        at.join(leaf).display().to_string()
    }

    /// The path in the hierarchy and the inode: what a successor looks for.
    pub fn identity(&self) -> (&Path, u64) {
        (&self.cgroup, self.inode)
    }

    /// Whether it is removed when we have ended, with all below it, by the engine that made our container: we are the first process
    /// there, and our own cgroup is the root of a cgroup namespace, but not the kernel's root. runc, crun and systemd remove
    /// the cgroups below that of a container, which may be anybody's (systemd in a container leaves them, too). The removal
    /// of two directories takes as long as the end of the process that was in them.
    pub fn goes_with_us(&self) -> bool {
        let at_root = self.cgroup.parent() == Some(Path::new("/"));
        std::process::id() == 1 && at_root && !discover::is_real_root(&self.base)
    }

    /// The directory, made again because another program has removed it; `None`: it is there.
    ///
    /// # Errors
    /// Those of mkdir(2) and open(2).
    pub fn made_again(&self) -> io::Result<Option<Self>> {
        if rustix::fs::stat(&self.path).is_ok_and(|stat| stat.st_ino == self.inode) {
            return Ok(None);
        }
        match rustix::fs::mkdir(&self.path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty())?;
        for name in &self.controllers {
            let _ = write(&self.path, "cgroup.subtree_control", &format!("+{name}"));
        }
        Ok(Some(Self {
            inode: rustix::fs::fstat(&dir)?.st_ino,
            dir,
            path: self.path.clone(),
            cgroup: self.cgroup.clone(),
            base: self.base.clone(),
            moved: self.moved,
            born: self.born.clone(),
            memory: self.memory.clone(),
            controllers: self.controllers.clone(),
            refused: self.refused.clone(),
        }))
    }

    /// Removes the directory if it is empty, and goes back to where we came from.
    pub fn remove(&self) -> io::Result<()> {
        rustix::fs::rmdir(&self.path)?;
        if self.moved {
            for controller in &self.controllers {
                let _ = write(&self.base, "cgroup.subtree_control", &format!("-{controller}"));
            }
            move_one(&self.base, std::process::id())?;
            let _ = rustix::fs::rmdir(self.base.join(OWN_LEAF));
        }
        Ok(())
    }

    fn enable_controllers(&mut self, place: &Place) {
        let there = std::fs::read_to_string(self.base.join("cgroup.controllers")).unwrap_or_default();
        let wanted: Vec<&'static str> =
            WANTED.into_iter().filter(|name| there.split_whitespace().any(|have| have == *name)).collect();
        if wanted.is_empty() {
            return;
        }
        if !place.is_real_root
            && let Err(reason) = self.leave_base(place, &wanted)
        {
            self.refused = Some(reason);
            return;
        }
        for name in wanted {
            let done = write(&self.base, "cgroup.subtree_control", &format!("+{name}"))
                .and_then(|()| write(&self.path, "cgroup.subtree_control", &format!("+{name}")));
            match done {
                Ok(()) => self.controllers.push(name),
                Err(error) => {
                    self.refused =
                        Some(NoController::Refused { controller: name, reason: error.to_string() });
                }
            }
        }
    }

    /// Moves us, and in a container everything else that is there, into a leaf. `docker exec` and health checks join
    /// the same cgroup at any moment, so both steps are tried together, a bounded number of times.
    fn leave_base(&mut self, place: &Place, wanted: &[&str]) -> Result<(), NoController> {
        const TRIES: usize = 50;
        let own_leaf = self.base.join(OWN_LEAF);
        match rustix::fs::mkdir(&own_leaf, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(NoController::NoLeaf { path: own_leaf.display().to_string(), errno });
            }
        }
        // Only in a cgroup namespace of our own is everybody here part of our container; on a host it may be a shell.
        let everybody = place.cgroup == Path::new("/");
        let mut last = String::new();
        for _ in 0..TRIES {
            let listed = std::fs::read_to_string(self.base.join("cgroup.procs")).unwrap_or_default();
            for pid in listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid > 0) {
                if everybody || pid == std::process::id() {
                    // A process that has just ended is no obstacle.
                    let _ = move_one(&own_leaf, pid);
                }
            }
            self.moved = true;
            let first = wanted.first().copied().unwrap_or_default();
            match write(&self.base, "cgroup.subtree_control", &format!("+{first}")) {
                Ok(()) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
            if !everybody {
                break;
            }
        }
        let _ = move_one(&self.base, std::process::id());
        let _ = rustix::fs::rmdir(&own_leaf);
        self.moved = false;
        Err(NoController::Occupied { path: self.base.display().to_string(), reason: last })
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn move_one(dir: &Path, pid: u32) -> io::Result<()> {
    write(dir, "cgroup.procs", &pid.to_string())
}

fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir.join(file), flags, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}
