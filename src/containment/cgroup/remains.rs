//! The directory of a probe, and what becomes of it when its supervisor was killed meanwhile: the next one that probes there removes it.
//!
//! At that time nobody knows yet whose state this is, so others may be at it in the same place. The name says who made it: a process by
//! its number, its start and its PID namespace. Of another namespace it is not known who lives; what is empty there for so long
//! that no probe takes it any more is nobody's.

use super::leaf;
use super::tree::directory_name;
use crate::containment::processes::walk;
use crate::containment::succession::predecessor::{Patience, pid_namespace};
use crate::sys::time;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// The life in a probe's directory.
pub const PROBE: &str = "probe.0";
/// What comes between the instance and who made it.
const WORD: &str = ".probe.";
/// Many times what a probe may wait.
const OLD: Duration = Duration::from_secs(120);

/// What was killed in it has ended long before.
const END: Duration = Duration::from_millis(500);

/// Who makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Maker {
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
    /// Inode of its PID namespace.
    namespace: u64,
}

impl Maker {
    fn own() -> Self {
        let pid = std::process::id().cast_signed();
        Self { pid, started: walk::stat(pid).map_or(0, |stat| stat.started), namespace: pid_namespace() }
    }

    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split('.');
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let (pid, started, namespace) = (number()?, number()?, number()?);
        Some(Self { pid: i32::try_from(pid).ok()?, started, namespace })
    }

    /// `None`: that cannot be told from here.
    fn lives(self) -> Option<bool> {
        let is_here = self.namespace == pid_namespace();
        is_here.then(|| walk::stat(self.pid).is_some_and(|stat| stat.started == self.started))
    }
}

/// The name of a probe's directory, as that of an instance.
pub fn name(instance: &str) -> String {
    let Maker { pid, started, namespace } = Maker::own();
    format!("{instance}{WORD}{pid}.{started}.{namespace}")
}

/// Removes what probes below `place` have left.
pub fn remove(place: &Path) {
    let prefix = directory_name("");
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name();
        let Some((_, maker)) = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.split_once(WORD))
        else {
            continue;
        };
        let lives = Maker::read(maker).and_then(Maker::lives);
        if lives == Some(false) || (lives.is_none() && is_old(&entry.path())) {
            remove_one(&entry.path());
        }
    }
}

/// Nothing has changed in it for long.
fn is_old(path: &Path) -> bool {
    let changed = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    changed.and_then(|at| time::wall().duration_since(at).ok()).is_some_and(|age| age > OLD)
}

fn remove_one(path: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::open(path, flags, Mode::empty()) else { return };
    clear(dir.as_fd());
    // Where something lives in it after all, it stays.
    let _ = rustix::fs::rmdir(path);
}

/// Removes the life in a probe's directory. A process in it was never told to go; if it has not ended, it is killed.
pub fn clear(tree: BorrowedFd<'_>) {
    if leaf::remove(tree, PROBE).is_ok() {
        return;
    }
    let _ = leaf::kill(tree, PROBE);
    let patience = Patience::start(END);
    while leaf::populated(tree, PROBE).unwrap_or(false) && !patience.is_over() {
        patience.wait(None, Duration::from_millis(1));
    }
    let _ = leaf::remove(tree, PROBE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containment::cgroup::discover::own_place;

    /// It was left for ever, one more for each start that was killed then.
    #[test]
    fn what_a_probe_has_left_is_removed_when_its_maker_is_dead() {
        let Ok(place) = own_place() else { return };
        let own = Maker::own();
        let dead = Maker { started: own.started + 1, ..own };
        let elsewhere = Maker { namespace: own.namespace + 1, ..own };
        let at = |Maker { pid, started, namespace }: Maker| {
            place.dir.join(directory_name(&format!("tried{WORD}{pid}.{started}.{namespace}")))
        };
        let all = [dead, own, elsewhere].map(at);
        for path in &all {
            if std::fs::create_dir_all(path.join(PROBE).join("main")).is_err() {
                // Who may not make cgroups leaves none.
                return;
            }
        }
        remove(&place.dir);
        let left = all.clone().map(|path| path.exists());
        all.iter().for_each(|path| remove_one(path));
        assert_eq!(left, [false, true, true]);
        assert!(!all.iter().any(|path| path.exists()));
    }

    #[test]
    fn a_name_says_who_made_it() {
        let name = name("a1b2");
        let (instance, maker) = name.split_once(WORD).unwrap();
        assert_eq!((instance, Maker::read(maker)), ("a1b2", Some(Maker::own())));
        assert_eq!(Maker::own().lives(), Some(true));
        assert_eq!(Maker::read("42"), None, "of an earlier release");
    }
}
