//! The end of a predecessor that was killed: every tree it held ends before anything of ours starts.
//!
//! Runs before the loop and may wait: each wait is a poll, bounded by the caller's deadline.

use super::adopt::{self, birth};
use crate::containment::cgroup::{discover, leaf};
#[cfg(test)]
use crate::containment::held::Mechanism;
use crate::containment::hold::Containment;
use crate::containment::keeper::tags::Tags;
use crate::containment::keeper::wire::{self, SupervisorMsg};
use crate::containment::keeper::{ARGUMENT, keepers_path};
use crate::containment::processes::{self, walk};
use crate::core::signal::Signal;
use crate::sys::peer;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::fork_server;
use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is known of a supervisor, stored once in each of its lives.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Predecessor {
    pub boot_id: String,
    /// Inode of its PID namespace.
    pub pid_namespace: u64,
    pub instance: String,
    pub runtime_dir: PathBuf,
    /// The path of its directory in the cgroup hierarchy and that directory's inode; `None` on the keeper rungs.
    pub cgroup: Option<(PathBuf, u64)>,
    pub tags: Option<Tags>,
    /// The supervisor itself, with its [`birth`]; absent in notes of version 0.1.0, like `state`.
    #[serde(default)]
    pub pid: Option<(i32, u64)>,
    /// The path of its state directory.
    #[serde(default)]
    pub state: Option<PathBuf>,
}

/// What was found and ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Another boot: there was nothing to look for.
    pub other_boot: bool,
    /// Trees in cgroups.
    pub cgroups: usize,
    /// Trees under keepers that were still there.
    pub keepers: usize,
    /// Those of them whose keeper did not answer, and was killed.
    pub silent: usize,
    /// Processes that had lost their keeper and were found by tag or marker.
    pub strays: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum EndError {
    #[error(
        "the earlier supervisor's processes did not end in time: {0}; they must be gone before anything starts"
    )]
    Alive(String),
    #[error("cannot look for the earlier supervisor's processes: {0}")]
    Io(#[from] io::Error),
}

impl Predecessor {
    /// Its processes, if there are any, are among those that we see.
    pub fn is_here(&self) -> bool {
        self.boot_id == boot_id() && self.pid_namespace == pid_namespace()
    }

    /// It runs, and it is not we: this process may have been it before an execve(2).
    pub fn lives(&self) -> bool {
        let Some((pid, born)) = self.pid.filter(|(pid, _)| self.is_here() && *pid != own_pid()) else {
            return false;
        };
        adopt::Process::find(pid, born).is_ok_and(|process| !process.pidfd.has_ended())
    }

    pub(in crate::containment) fn of_this_boot(instance: &str, runtime_dir: &Path) -> Self {
        Self {
            boot_id: boot_id(),
            pid_namespace: pid_namespace(),
            instance: instance.to_owned(),
            runtime_dir: runtime_dir.to_owned(),
            cgroup: None,
            tags: None,
            pid: Pidfd::open(own_pid()).ok().and_then(|own| Some((own_pid(), birth(own_pid(), &own)?))),
            state: None,
        }
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Inode of ours.
pub(in crate::containment) fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map(|meta| meta.ino()).unwrap_or_default()
}

impl Containment {
    /// Ends every tree of `who` that was not taken over, on every rung, wherever our own cgroup is now, and removes what
    /// it left.
    ///
    /// # Errors
    /// [`EndError::Alive`] at the deadline, naming what is left: starting anything beside it is out of the question.
    pub fn end_predecessor(&self, who: &Predecessor, patience: Duration) -> Result<Ended, EndError> {
        #[cfg(test)]
        if let Some(ended) = self.mechanisms().find_map(Mechanism::end_predecessor) {
            return Ok(ended);
        }
        end(who, &self.spared(), patience)
    }
}

/// What is held here now, and no remains of anybody.
#[derive(Debug, Default)]
pub(in crate::containment) struct Spared {
    pub lives: HashSet<String>,
    pub tags: HashSet<u32>,
    pub keepers: HashSet<i32>,
    /// The inode of the directory that all our own cgroups are in.
    pub tree: Option<u64>,
}

pub(in crate::containment) fn end(
    who: &Predecessor,
    spared: &Spared,
    patience: Duration,
) -> Result<Ended, EndError> {
    let mut ended = Ended::default();
    if who.boot_id != boot_id() {
        ended.other_boot = true;
        return Ok(ended);
    }
    let patience = Patience::start(patience);
    end_cgroups(who, spared, &patience, &mut ended)?;
    // Processes of a PID namespace that is gone ended with it, and numbers of another one mean nothing here.
    if who.pid_namespace == pid_namespace() {
        end_keepers(who, spared, &patience, &mut ended)?;
        // What a keeper has left that was killed last of all.
        end_strays(who, spared, &patience.at_least(GRACE), &mut ended)?;
    }
    Ok(ended)
}

/// The deadline. Boot is the one place of this room where time is asked for rather than handed in.
#[derive(Debug)]
pub struct Patience(Instant);

impl Patience {
    pub fn start(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    pub(in crate::containment) fn is_over(&self) -> bool {
        self.0 <= Instant::now()
    }

    /// Until half of what is left now is over.
    fn half(&self) -> Self {
        let now = Instant::now();
        Self(now + self.0.saturating_duration_since(now) / 2)
    }

    /// The same, but at least `least` from now on.
    pub(in crate::containment) fn at_least(&self, least: Duration) -> Self {
        Self(self.0.max(Instant::now() + least))
    }

    /// Waits for `fd` (or nothing) at most `most`, and not past the deadline.
    pub(in crate::containment) fn wait(&self, fd: Option<(&OwnedFd, PollFlags)>, most: Duration) {
        let left = self.0.saturating_duration_since(Instant::now()).min(most);
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds: Vec<PollFd<'_>> = fd.into_iter().map(|(fd, flags)| PollFd::new(fd, flags)).collect();
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }
}

const GLANCE: Duration = Duration::from_millis(20);

fn end_cgroups(
    who: &Predecessor,
    spared: &Spared,
    patience: &Patience,
    ended: &mut Ended,
) -> Result<(), EndError> {
    let Some((cgroup, inode)) = &who.cgroup else { return Ok(()) };
    for (path, _mount) in discover::visible(cgroup) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(dir) = rustix::fs::open(&path, flags, Mode::empty()) else { continue };
        // Another program may have made the same name since; an inode of cgroup2 is not used twice in a boot.
        if rustix::fs::fstat(&dir).map_err(io::Error::from)?.st_ino != *inode {
            continue;
        }
        for name in leaves(&dir)?.into_iter().filter(|name| !spared.lives.contains(name)) {
            if leaf::populated(dir.as_fd(), &name)? {
                ended.cgroups += 1;
            }
            end_leaf(&dir, &name, patience)?;
        }
        if spared.tree != Some(*inode) {
            let _ = rustix::fs::rmdir(&path);
        }
    }
    Ok(())
}

fn leaves(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let entries = rustix::fs::Dir::read_from(dir)?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type() == rustix::fs::FileType::Directory)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "." && name != "..")
        .collect())
}

fn end_leaf(dir: &OwnedFd, name: &str, patience: &Patience) -> Result<(), EndError> {
    let path = format!("{name}/cgroup.events");
    let events = rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    loop {
        if !leaf::populated(dir.as_fd(), name)? {
            match leaf::remove(dir.as_fd(), name).map_err(|error| error.raw_os_error()) {
                // Where nothing can be written, an empty directory is all there is to be had.
                Ok(()) | Err(Some(libc::EROFS)) => return Ok(()),
                Err(_) => {}
            }
        }
        if patience.is_over() {
            return Err(EndError::Alive(format!("{name} holds {:?}", leaf::processes(dir.as_fd(), name))));
        }
        if leaf::kill(dir.as_fd(), name).is_err() {
            leaf::signal_each(dir.as_fd(), name, Signal::KILL);
        }
        patience.wait(events.as_ref().ok().map(|fd| (fd, PollFlags::PRI)), GLANCE);
        // A process that is still listed is one that cgroup.kill does not reach, or not yet.
        leaf::signal_each(dir.as_fd(), name, Signal::KILL);
    }
}

/// How long a keeper may take until it listens, which it does within moments of its supervisor's death. By time: a look at all
/// processes takes a while on a busy machine.
const GRACE: Duration = Duration::from_secs(1);

/// Keepers that can be reached end their trees. One that cannot, because its socket is gone, is killed with its tree; so is one that
/// has its order and is not done with it when half of the time is over.
fn end_keepers(
    who: &Predecessor,
    spared: &Spared,
    patience: &Patience,
    ended: &mut Ended,
) -> Result<(), EndError> {
    let (grace, half) = (Patience::start(GRACE), patience.half());
    let mut called = HashMap::new();
    let mut killed = HashSet::new();
    let (mut is_first, mut is_last) = (true, false);
    loop {
        call_keepers(who, spared, &mut called)?;
        let alive = left_keepers(who, spared);
        if alive.is_empty() {
            break;
        }
        // One that was stopped would not hear us.
        if std::mem::take(&mut is_first) {
            alive.iter().for_each(|pid| signal_keeper(*pid, who, Signal::CONT));
        }
        for pid in &alive {
            let late = if called.contains_key(pid) { &half } else { &grace };
            if late.is_over() {
                // What of it is not seen here is a stray then.
                walk::end(*pid, &mut || walk::children(*pid));
                signal_keeper(*pid, who, Signal::KILL);
                killed.insert(*pid);
            }
        }
        // Once more, for those that were killed just now.
        if patience.is_over() && std::mem::replace(&mut is_last, true) {
            return Err(EndError::Alive(format!("keepers {alive:?}")));
        }
        patience.wait(None, GLANCE);
    }
    ended.silent = killed.len();
    ended.keepers = called.into_keys().chain(killed).collect::<HashSet<_>>().len();
    remove_sockets(who, spared)
}

/// By its arguments and our own uid; what only looks like one is no worse off than the tree it belongs to. Most have those
/// of the fork server that they were forked from, which itself is gone when they are looked for.
pub(in crate::containment) fn is_keeper(pid: i32, instance: &str) -> bool {
    let line = Process::new(pid).and_then(|process| process.cmdline()).unwrap_or_default();
    let wanted = |word: &str| line == ["hermes-sup", word, instance];
    (wanted(ARGUMENT) || wanted(fork_server::ARGUMENT))
        && processes::uid_of(pid) == Some(rustix::process::geteuid().as_raw())
        && !is_zombie(pid)
}

/// Processes that are keepers of `who` and hold nothing of ours.
fn left_keepers(who: &Predecessor, spared: &Spared) -> Vec<i32> {
    let left = |pid: &i32| !spared.keepers.contains(pid) && is_keeper(*pid, &who.instance);
    walk::all_processes().into_iter().filter(left).collect()
}

fn signal_keeper(pid: i32, who: &Predecessor, signal: Signal) {
    // Looked at again behind a pidfd: the number may have changed hands.
    if let Some(keeper) = Pidfd::open(pid).ok().filter(|_| is_keeper(pid, &who.instance)) {
        let _ = keeper.send(signal);
    }
}

/// Orders those that listen to end their trees. `called`: who has the order, with the socket that it came by: without that it would
/// listen anew.
fn call_keepers(
    who: &Predecessor,
    spared: &Spared,
    called: &mut HashMap<i32, OwnedFd>,
) -> Result<(), EndError> {
    for socket in sockets(who, spared)? {
        // Bound but not listening yet, or its keeper is gone.
        let Ok(keeper) = call(&socket) else { continue };
        let pid = peer::credentials(&keeper).ok().and_then(|peer| i32::try_from(peer.pid?).ok());
        // Where it has ended meanwhile, or will not talk to us, what is alive is found otherwise.
        if let Some(pid) = pid
            && wire::send_order(keeper.as_fd(), SupervisorMsg::Kill).is_ok()
        {
            called.insert(pid, keeper);
        }
    }
    Ok(())
}

/// Nobody listens there any more, and nobody will.
fn remove_sockets(who: &Predecessor, spared: &Spared) -> Result<(), EndError> {
    for socket in sockets(who, spared)? {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

fn sockets(who: &Predecessor, spared: &Spared) -> Result<Vec<PathBuf>, EndError> {
    let path = keepers_path(&who.runtime_dir);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::open(&path, flags, Mode::empty()) else { return Ok(Vec::new()) };
    let entries = rustix::fs::Dir::read_from(&dir).map_err(io::Error::from)?.flatten();
    let sockets = entries.filter(|entry| entry.file_type() == rustix::fs::FileType::Socket);
    let names = sockets.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| !spared.lives.contains(name)).map(|name| path.join(name)).collect())
}

pub(in crate::containment) fn call(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The full path may be longer than an address takes (unix(7)).
    let (above, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = rustix::fs::open(above, open, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(above.as_raw_fd().to_string()).join(name);
    rustix::net::connect(&socket, &SocketAddrUnix::new(short)?)?;
    Ok(socket)
}

/// Two clean looks in a row: the strays are not our children, so we cannot wait for their end.
fn end_strays(
    who: &Predecessor,
    spared: &Spared,
    patience: &Patience,
    ended: &mut Ended,
) -> Result<(), EndError> {
    let own = own_pid();
    let mut clean = 0;
    let mut known = HashSet::new();
    while clean < 2 {
        let strays: Vec<i32> = walk::all_processes()
            .into_iter()
            .filter(|pid| *pid != own && is_stray(*pid, who, spared))
            .collect();
        clean = if strays.is_empty() { clean + 1 } else { 0 };
        if patience.is_over() && !strays.is_empty() {
            return Err(EndError::Alive(format!("processes {strays:?}")));
        }
        known.extend(walk::strike(&strays, &|pid| is_stray(pid, who, spared)));
        if !strays.is_empty() {
            patience.wait(None, Duration::from_millis(2));
        }
    }
    ended.strays = known.len();
    Ok(())
}

/// A zombie is over: its parent, not we, has to reap it.
fn is_stray(pid: i32, who: &Predecessor, spared: &Spared) -> bool {
    let tag = || {
        let ours = |gid: &u32| who.tags.is_some_and(|tags| tags.contains(*gid));
        processes::groups_of(pid).into_iter().find(ours)
    };
    let life =
        || processes::marker_of(pid)?.strip_prefix(&who.instance)?.strip_prefix(':').map(str::to_owned);
    let stray = match (tag(), life()) {
        // The marker can be forged, the tag cannot.
        (Some(tag), _) => !spared.tags.contains(&tag),
        (None, Some(life)) => !spared.lives.contains(&life),
        (None, None) => false,
    };
    stray && !is_zombie(pid)
}

fn is_zombie(pid: i32) -> bool {
    walk::stat(pid).is_none_or(|stat| stat.state == b'Z') && walk::children(pid).is_empty()
}
