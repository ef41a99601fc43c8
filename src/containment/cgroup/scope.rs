//! The directory of one scope, `<name>.<n>/scope-<unit>`, below that of its life.
//!
//! Bounds are written before anything joins. Killing, emptiness and removal are those of any leaf (`leaf.rs`).

use super::leaf::{self, read, write};
use super::mechanism::Site;
use super::stats;
use super::watch::Watched;
use crate::containment::processes::usage;
use crate::containment::retry::Retry;
use crate::containment::scopes::{FIRST_LOOK, Figures, HeldScope, ScopeError, ScopeLimits, ScopeRequest};
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

const PREFIX: &str = "scope-";

impl ScopeLimits {
    /// What is asked for, as systemd calls it, with the file that holds it and its content.
    fn files(self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let bound = |value: Option<u64>| value.map(|bytes| bytes.to_string());
        [
            bound(self.memory_max).map(|text| ("MemoryMax", "memory.max", text)),
            bound(self.swap_max).map(|text| ("MemorySwapMax", "memory.swap.max", text)),
            self.oom_group.then(|| ("OOMPolicy=kill", "memory.oom.group", "1".to_owned())),
        ]
        .into_iter()
        .flatten()
    }
}

/// A scope that is a directory.
#[derive(Debug)]
pub struct ScopeDirectory {
    site: Rc<Site>,
    path: String,
    _watched: Watched,
}

impl ScopeDirectory {
    /// Makes the directory with its watch and bounds below the life in `leaf`, and moves the caller into it.
    ///
    /// # Errors
    /// [`ScopeError`]; nothing is left behind then.
    pub fn open(
        site: &Rc<Site>,
        leaf: &str,
        request: &ScopeRequest<'_>,
    ) -> Result<(Self, Vec<String>), ScopeError> {
        let tree = site.tree.as_fd();
        let path = path(leaf, request.name);
        let failed = |reason: io::Error| ScopeError::Cgroup { path: site.tree.shown(&path), reason };
        leaf::create(tree, &path).map_err(failed)?;
        site.books.keep(&path);
        let watched = site.watch(&path, request.number).map_err(failed);
        let made = watched.and_then(|watched| {
            let has_memory = site.tree.controllers.contains(&"memory");
            let not_in_force = bound(tree, leaf, &path, request.limits, has_memory);
            let joined = match join(tree, &path, request.pid) {
                // If it has ended by now, its number may have been another's when it was used.
                Ok(()) if request.process.has_ended() => Err(ScopeError::Gone),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(ScopeError::Gone),
                joined => joined.map_err(failed),
            };
            let scope = Self { site: Rc::clone(site), path: path.clone(), _watched: watched };
            joined.map(|()| (scope, not_in_force))
        });
        if made.is_err() {
            remove(site, path);
        }
        made
    }

    /// Those of a life that was adopted: directories tell of them. Bounds that are not in force were named when they were made.
    pub fn find(
        site: &Rc<Site>,
        leaf: &str,
        number: &mut dyn FnMut() -> u32,
    ) -> Vec<(ScopeName, u32, Box<dyn HeldScope>)> {
        let below = std::fs::read_dir(site.tree.path().join(leaf)).into_iter().flatten().flatten();
        let names = below.filter_map(|entry| entry.file_name().to_str().and_then(of_directory));
        let scopes = names.filter_map(|name| {
            let (path, number) = (path(leaf, &name), number());
            let watched = site.watch(&path, number).ok()?;
            let scope: Box<dyn HeldScope> = Box::new(Self { site: Rc::clone(site), path, _watched: watched });
            Some((name, number, scope))
        });
        scopes.collect()
    }
}

impl HeldScope for ScopeDirectory {
    fn lives(&self) -> bool {
        leaf::populated(self.site.tree.as_fd(), &self.path).unwrap_or(true)
    }

    fn processes(&self) -> Vec<i32> {
        leaf::processes(self.site.tree.as_fd(), &self.path)
    }

    fn figures(&self) -> Figures {
        let pids = self.processes();
        let (memory_max, swap_max) = bounds(self.site.tree.as_fd(), &self.path);
        let (current, _) = stats::memory(self.site.tree.as_fd(), &self.path);
        Figures {
            cgroup: Some(self.site.tree.identity().0.join(&self.path)),
            procs: pids.len(),
            memory_bytes: current.or_else(|| Some(usage::resident(&pids))),
            memory_max,
            swap_max,
            adopt_orphans: false,
        }
    }

    fn end(&mut self) -> bool {
        let tree = self.site.tree.as_fd();
        let _ = leaf::kill(tree, &self.path);
        // What `cgroup.kill` leaves alive, or all of them where it does not work.
        leaf::signal_each(tree, &self.path, Signal::KILL);
        !self.lives()
    }

    fn release(self: Box<Self>) -> u64 {
        let oom_kills = oom_kills(self.site.tree.as_fd(), &self.path);
        remove(&self.site, self.path);
        oom_kills
    }
}

/// The kernel may call the directory of an empty scope busy for a while yet.
fn remove(site: &Site, path: String) {
    if leaf::remove(site.tree.as_fd(), &path).is_err() {
        site.books.remove_later(path, Retry::now(None, FIRST_LOOK));
    }
}

/// The directory's path below the instance's.
pub fn path(leaf: &str, name: &ScopeName) -> String {
    format!("{leaf}/{PREFIX}{}", name.stem())
}

/// The scope whose directory is called so.
pub fn of_directory(name: &str) -> Option<ScopeName> {
    ScopeName::new(name.strip_prefix(PREFIX)?).ok()
}

/// Writes the bounds into the scope at `path` of the incarnation `leaf`, and returns a line for each that is not in force.
pub fn bound(
    tree: BorrowedFd<'_>,
    leaf: &str,
    path: &str,
    limits: ScopeLimits,
    has_memory: bool,
) -> Vec<String> {
    if !has_memory {
        let without =
            |name| format!("{name} of scopes is not in force: their cgroup has no memory controller");
        return limits.bounds().map(without).collect();
    }
    let handed_down = leaf::hand_down(tree, leaf, "memory");
    let refused = |(name, file, text): (_, &str, String)| {
        let written = write(tree, &format!("{path}/{file}"), &text);
        // The file is missing because of this.
        let error = handed_down.as_ref().err().or(written.as_ref().err())?;
        Some(format!("{name} of scopes is not in force: {file}: {error}"))
    };
    limits.files().filter_map(refused).collect()
}

/// Moves a process, which must be ours to move, into the scope.
///
/// # Errors
/// `ESRCH` when it has ended.
pub fn join(tree: BorrowedFd<'_>, path: &str, pid: i32) -> io::Result<()> {
    write(tree, &format!("{path}/cgroup.procs"), &pid.to_string())
}

/// `memory.max` and `memory.swap.max` in force, in bytes.
pub fn bounds(tree: BorrowedFd<'_>, path: &str) -> (Option<u64>, Option<u64>) {
    let one = |file: &str| read(tree, &format!("{path}/{file}")).ok()?.trim().parse().ok();
    (one("memory.max"), one("memory.swap.max"))
}

/// How many of its processes the OOM killer has killed.
pub fn oom_kills(tree: BorrowedFd<'_>, path: &str) -> u64 {
    let text = read(tree, &format!("{path}/memory.events")).unwrap_or_default();
    let count = |line: &str| line.strip_prefix("oom_kill ")?.parse().ok();
    text.lines().find_map(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::{AsFd, OwnedFd};

    /// A plain directory in the place of cgroup2: what is written where.
    fn pretend(files: &[&str]) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let scope = dir.path().join("svc.1/scope-w");
        std::fs::create_dir_all(&scope).unwrap();
        std::fs::write(dir.path().join("svc.1/cgroup.subtree_control"), "").unwrap();
        for file in files {
            std::fs::write(scope.join(file), "").unwrap();
        }
        let fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, fd)
    }

    const ALL: ScopeLimits = ScopeLimits { memory_max: Some(1 << 30), swap_max: Some(0), oom_group: true };

    #[test]
    fn with_the_controller_every_bound_is_written_and_read_back() {
        let (dir, tree) = pretend(&["memory.max", "memory.swap.max", "memory.oom.group", "memory.events"]);
        assert_eq!(bound(tree.as_fd(), "svc.1", "svc.1/scope-w", ALL, true), Vec::<String>::new());
        let read = |file: &str| std::fs::read_to_string(dir.path().join("svc.1").join(file)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+memory");
        assert_eq!(read("scope-w/memory.oom.group"), "1");
        assert_eq!(bounds(tree.as_fd(), "svc.1/scope-w"), (Some(1 << 30), Some(0)));
        std::fs::write(dir.path().join("svc.1/scope-w/memory.events"), "oom 3\noom_kill 2\n").unwrap();
        assert_eq!(oom_kills(tree.as_fd(), "svc.1/scope-w"), 2);
    }

    #[test]
    fn each_bound_that_is_not_in_force_is_named() {
        let (_dir, tree) = pretend(&["memory.max", "memory.oom.group"]);
        let said = bound(tree.as_fd(), "svc.1", "svc.1/scope-w", ALL, true);
        assert!(matches!(&said[..], [one] if one.starts_with("MemorySwapMax of scopes is not in force")));
        let said = bound(tree.as_fd(), "svc.1", "svc.1/scope-w", ALL, false);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("no memory controller"), "{said:?}");
        let none = ScopeLimits { memory_max: None, swap_max: None, oom_group: true };
        assert_eq!(bound(tree.as_fd(), "svc.1", "svc.1/scope-w", none, false), Vec::<String>::new());
    }

    #[test]
    fn a_directory_names_its_scope() {
        let name = ScopeName::new("hermes-worker-1").unwrap();
        assert_eq!(path("coder.3", &name), "coder.3/scope-hermes-worker-1");
        assert_eq!(of_directory("scope-hermes-worker-1"), Some(name));
        assert_eq!(of_directory("main"), None);
        let longest = ScopeName::new(&"x".repeat(249)).unwrap();
        assert_eq!(path("c", &longest).len(), "c/".len() + 255, "as long as a file name may be");
    }
}
