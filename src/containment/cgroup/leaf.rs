//! The directory of one incarnation: make it, join it, end it, see it empty, remove it.
//!
//! Everything goes through the descriptor of the instance's directory, so that nothing else mounted or renamed along
//! the path can be hit.

use crate::core::signal::Signal;
use crate::sys::kernel_text;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::clone::{self, Join};
use cgroups_rs::fs::freezer::FreezerController;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The child of an incarnation's directory that its processes move to once a scope beside them is bounded: [`hand_down`].
const MAIN: &str = "main";

/// Processes that fork while they are moved are moved again, so often.
const MOVES: usize = 8;

/// Makes the directory of a life or of a scope in it, fresh.
///
/// # Errors
/// mkdir(2); `EAGAIN` means that `cgroup.max.descendants` or `.depth` is reached. `EBUSY` while an older directory of that
/// name is populated.
pub fn create(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(tree, leaf, mode) {
        Err(Errno::EXIST) => {
            // Left by an older one. It may have been killed or frozen: never used again.
            remove(tree, leaf)?;
            Ok(rustix::fs::mkdirat(tree, leaf, mode)?)
        }
        other => Ok(other?),
    }
}

/// Why a directory could not be made, for people.
pub fn create_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            "the limit on cgroups is reached (cgroup.max.descendants or cgroup.max.depth above us)".to_owned()
        }
        Some(errno) => clone::reason(errno),
        None => error.to_string(),
    }
}

/// Whether there is such a directory.
pub fn exists(tree: BorrowedFd<'_>, leaf: &str) -> bool {
    rustix::fs::statat(tree, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// What the first child of this incarnation comes in by: the directory in which it is `born`, or the `cgroup.procs` that it
/// writes itself into.
pub fn open(tree: BorrowedFd<'_>, leaf: &str, born: bool) -> io::Result<OwnedFd> {
    if !born {
        return open_procs(tree, leaf);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(tree, leaf, flags, Mode::empty())?)
}

/// The `cgroup.procs` that one more process of this incarnation writes itself into.
pub fn open_beside(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<OwnedFd> {
    match open_procs(tree, &format!("{leaf}/{MAIN}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open_procs(tree, leaf),
        main => main,
    }
}

fn open_procs(tree: BorrowedFd<'_>, dir: &str) -> io::Result<OwnedFd> {
    let path = format!("{dir}/cgroup.procs");
    Ok(rustix::fs::openat(tree, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What [`open`] or [`open_beside`] has, as the clone takes it.
pub fn join(entry: &OwnedFd, born: bool) -> Join<'_> {
    if born { Join::Born(entry.as_fd()) } else { Join::Moves(entry.as_fd()) }
}

/// Hands this controller down to the directories in `leaf`. A directory that hands controllers down may hold no processes
/// (cgroup-v2.rst, "No Internal Process Constraint"), so those of the life move one level down first.
///
/// # Errors
/// `EBUSY` while the life has processes that could not be moved: they fork faster, or are of a PID namespace above ours.
pub fn hand_down(tree: BorrowedFd<'_>, leaf: &str, controller: &str) -> io::Result<()> {
    let main = format!("{leaf}/{MAIN}");
    match rustix::fs::mkdirat(tree, &main, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    for _ in 0..MOVES {
        let direct = processes_in(tree, leaf);
        if direct.is_empty() {
            break;
        }
        for pid in direct {
            match write(tree, &format!("{main}/cgroup.procs"), &pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    write(tree, &format!("{leaf}/cgroup.subtree_control"), &format!("+{controller}"))
}

/// What `cgroup.events` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Any live process is below. Zombies do not count (cgroup-v2.rst, "[Un]populated Notification").
    pub populated: bool,
    /// Every process below stands still (kernel 5.2).
    pub frozen: bool,
}

/// As [`State::populated`].
///
/// # Errors
/// As [`state`].
pub fn populated(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<bool> {
    state(tree, leaf).map(|state| state.populated)
}

/// A directory that is gone is empty.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn state(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<State> {
    let mut buffer = [0u8; 128];
    let path = format!("{leaf}/cgroup.events");
    let read = rustix::fs::openat(tree, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut buffer));
    match read {
        Ok(length) => {
            let text = buffer.get(..length).unwrap_or_default();
            let says = |wanted: &[u8]| text.split(|byte| *byte == b'\n').any(|line| line == wanted);
            Ok(State { populated: !says(b"populated 0"), frozen: says(b"frozen 1") })
        }
        Err(Errno::NOENT | Errno::NODEV) => Ok(State { populated: false, frozen: false }),
        Err(error) => Err(error.into()),
    }
}

/// Kills what is below at one stroke (`cgroup.kill`, kernel 5.14), after closing the door where a pids controller is.
///
/// Not the whole truth: before 6.14 a fork can slip through, and on 6.18 a process whose leader thread has exited
/// while others run survives it. So the caller looks again and uses [`signal_each`].
pub fn kill(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<()> {
    let write = |file: &str, text: &[u8]| -> io::Result<()> {
        let path = format!("{leaf}/{file}");
        let file = rustix::fs::openat(tree, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text)?;
        Ok(())
    };
    // No such file without the controller.
    let _ = write("pids.max", b"0");
    write("cgroup.kill", b"1")
}

/// Stops everything below where it is, or lets it go on; `cgroup.events` tells when it is so (`cgroup.freeze`, kernel
/// 5.2). What is killed meanwhile dies.
///
/// Through cgroups-rs, but not its `state`, which tells what was ordered, not what is so.
///
/// # Errors
/// `EACCES` or `ENOENT` before kernel 5.2.
pub fn freeze(dir: &Path, frozen: bool) -> io::Result<()> {
    let freezer = FreezerController::new(dir.to_owned(), PathBuf::new(), true);
    if frozen { freezer.freeze() } else { freezer.thaw() }.map_err(|error| kernel_error(&error))
}

/// What the kernel has said, of what cgroups-rs says of it.
pub fn kernel_error(error: &cgroups_rs::fs::error::Error) -> io::Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

/// Signals every process listed below, each through a pidfd that was checked to still be one of ours.
///
/// Returns how many took it.
pub fn signal_each(tree: BorrowedFd<'_>, leaf: &str, signal: Signal) -> usize {
    let listed = processes(tree, leaf);
    listed.into_iter().filter(|pid| signal_one(*pid, leaf, signal).is_ok()).count()
}

fn signal_one(pid: i32, leaf: &str, signal: Signal) -> io::Result<()> {
    let process = Pidfd::open(pid)?;
    // The number may have been given to another process between the list and the open; from here on it cannot.
    let path = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let inside = path
        .lines()
        .filter_map(|line| line.strip_prefix("0::"))
        .any(|path| format!("{path}/").contains(&format!("/{leaf}/")));
    if !inside {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    process.send(signal)
}

/// The processes below, those of nested directories too. For people and for the slow path; never a proof.
pub fn processes(tree: BorrowedFd<'_>, leaf: &str) -> Vec<i32> {
    let mut pids: Vec<i32> = below(tree, leaf).iter().flat_map(|dir| processes_in(tree, dir)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn processes_in(tree: BorrowedFd<'_>, dir: &str) -> Vec<i32> {
    let text = read(tree, &format!("{dir}/cgroup.procs")).unwrap_or_default();
    // 0 stands for a process outside our PID namespace (traps of cgroup.procs): nobody we can name.
    text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect()
}

/// Removes the directory with all below it.
///
/// # Errors
/// `EBUSY` while something is populated, which on 6.19 and later can outlast the reaping: try again later.
pub fn remove(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<()> {
    // Most have none below.
    if rustix::fs::unlinkat(tree, leaf, AtFlags::REMOVEDIR).is_ok() {
        return Ok(());
    }
    for dir in below(tree, leaf).into_iter().rev() {
        match rustix::fs::unlinkat(tree, &dir, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The directory itself and all below it, parents before children. A service may have nested more than anyone wants
/// to walk: what is beyond the bound keeps the directory busy, which is seen and said.
fn below(tree: BorrowedFd<'_>, leaf: &str) -> Vec<String> {
    const MOST: usize = 10_000;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dirs = vec![leaf.to_owned()];
    let mut next = 0;
    while let Some(dir) = dirs.get(next).cloned() {
        next += 1;
        let Ok(fd) = rustix::fs::openat(tree, &dir, flags, Mode::empty()) else { continue };
        // Of a directory of cgroup2, two more links than directories in it (fs/kernfs/inode.c, kernfs_refresh_inode). Most have
        // none, and a list of all their files takes longer than anything else here.
        if rustix::fs::fstat(&fd).is_ok_and(|stat| stat.st_nlink == 2) {
            continue;
        }
        let Ok(entries) = rustix::fs::Dir::read_from(fd.as_fd()) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy();
            let is_dir = entry.file_type() == rustix::fs::FileType::Directory;
            if is_dir && name != "." && name != ".." && dirs.len() < MOST {
                dirs.push(format!("{dir}/{name}"));
            }
        }
    }
    dirs
}

/// Writes a file below the instance's directory.
///
/// Non-blocking: a `memory.max` or `memory.high` below what is used would otherwise reclaim, and kill, in this call, and
/// the loop would stand still for that long. The service then does so at its next charge (cgroup-v2.rst; kernel 6.16,
/// before which it cannot be helped).
pub fn write(tree: BorrowedFd<'_>, path: &str, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(tree, path, flags, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

/// Reads a file below the instance's directory.
pub fn read(tree: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    kernel_text::read_at(tree, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cgroups_rs::FreezerState;

    /// To write 0 would move the writer.
    #[test]
    fn processes_move_down_before_a_controller_is_handed_down_but_none_without_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join("svc.1").join(name);
        std::fs::create_dir_all(file("main")).unwrap();
        for (name, text) in
            [("cgroup.procs", "0\n12\n"), ("main/cgroup.procs", ""), ("cgroup.subtree_control", "")]
        {
            std::fs::write(file(name), text).unwrap();
        }
        let tree = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        hand_down(tree.as_fd(), "svc.1", "memory").unwrap();
        assert_eq!(std::fs::read_to_string(file("main/cgroup.procs")).unwrap(), "12");
        assert_eq!(std::fs::read_to_string(file("cgroup.subtree_control")).unwrap(), "+memory");
        // A hook is where they are.
        let entry = open_beside(tree.as_fd(), "svc.1").unwrap();
        rustix::io::write(&entry, b"34").unwrap();
        assert_eq!(std::fs::read_to_string(file("main/cgroup.procs")).unwrap(), "34");
    }

    /// Why only `cgroup.events` is believed about a freeze.
    #[test]
    fn the_freezer_of_the_crate_tells_what_was_ordered_and_its_errors_are_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("svc.1")).unwrap();
        let tree = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        std::fs::write(dir.path().join("svc.1/cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        freeze(&dir.path().join("svc.1"), true).unwrap();
        let freezer = FreezerController::new(dir.path().join("svc.1"), PathBuf::new(), true);
        assert!(matches!(freezer.state(), Ok(FreezerState::Frozen)), "the crate tells what is so now");
        assert_eq!(state(tree.as_fd(), "svc.1").unwrap(), State { populated: true, frozen: false });
        let error = freeze(&dir.path().join("none"), true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }
}
