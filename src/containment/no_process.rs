//! Why the kernel makes no process. `EAGAIN` of clone(2) has several causes, and "Resource temporarily unavailable" names none: the
//! bound that is reached is looked for at once, while it is.

use super::cgroup::discover;
use crate::sys::kernel_text;
use crate::sys::spawn::clone;
use rustix::process::{Resource, getrlimit, getuid};
use std::io;
use std::path::{Path, PathBuf};

/// The end of a sentence about a clone that failed with `error`. `cgroups`: the directories of cgroups that count the child, the
/// nearest first; asked for only if one of them may be the cause.
pub fn why(error: &io::Error, cgroups: impl FnOnce() -> Vec<PathBuf>) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            let limit = (!getuid().is_root()).then(|| getrlimit(Resource::Nproc).current).flatten();
            bound(&cgroups(), limit).unwrap_or_else(|| clone::fork_reason(libc::EAGAIN))
        }
        Some(errno) => clone::fork_reason(errno),
        None => error.to_string(),
    }
}

/// The cgroups that count our own children.
pub fn around_us() -> Vec<PathBuf> {
    discover::own_with("pids.max")
}

/// The cgroups that count a child in the one at `dir`.
pub fn above(dir: &Path) -> Vec<PathBuf> {
    dir.ancestors().map(Path::to_owned).collect()
}

/// The bound that is reached; `None`: none that can be seen. `nproc`: our own limit, where it holds for us; the kernel counts every
/// process of the user, which nobody can see from within a container, so that a cgroup's bound comes first.
fn bound(cgroups: &[PathBuf], nproc: Option<u64>) -> Option<String> {
    if let Some(most) = cgroups.iter().find_map(|dir| full(dir)) {
        return Some(format!(
            "there are as many processes and threads as pids.max={most} of this container, or of a cgroup around it, allows (raise \
             'docker run --pids-limit', or TasksMax of a unit)"
        ));
    }
    nproc.map(|most| {
        format!(
            "uid {} has as many processes and threads as its limit nproc={most} allows (raise 'docker run --ulimit nproc')",
            getuid().as_raw()
        )
    })
}

/// The bound of a cgroup that may have no process more.
fn full(dir: &Path) -> Option<u64> {
    let number =
        |file: &str| -> Option<u64> { kernel_text::read(dir.join(file).to_str()?).ok()?.trim().parse().ok() };
    number("pids.max").filter(|most| number("pids.current").is_some_and(|now| now >= *most))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup around this one is at its bound: the nearest has room.
    #[test]
    fn the_bound_that_is_reached_is_named_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let near = root.path().join("near");
        std::fs::create_dir(&near).unwrap();
        let write = |dir: &Path, most: &str, now: &str| {
            std::fs::write(dir.join("pids.max"), format!("{most}\n")).unwrap();
            std::fs::write(dir.join("pids.current"), format!("{now}\n")).unwrap();
        };
        write(&near, "max", "12");
        write(root.path(), "20", "19");
        let both = [near.clone(), root.path().to_owned()];
        assert_eq!(bound(&both, None), None);
        assert!(bound(&both, Some(64)).unwrap().contains("nproc=64"));
        write(root.path(), "20", "20");
        let words = bound(&both, Some(64)).unwrap();
        assert!(words.contains("pids.max=20") && !words.contains("nproc"), "{words}");
    }

    #[test]
    fn only_a_want_of_processes_is_looked_into() {
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        assert_eq!(why(&error, || panic!("not asked")), clone::reason(libc::ENOMEM));
    }
}
