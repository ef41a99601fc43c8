//! One supervisor per state directory: flock(2) on the file `private/lock`, whose text says who has it.
//!
//! The kernel gives the lock back when its holder ends, however it ends, so a file that was left behind is no
//! obstacle. The file is never removed: a lock on a removed file would exclude nobody. It lies where only we can go:
//! a user that can open a file for reading can lock it, and the gateway user, who may read everything else here, must not
//! be able to keep the next supervisor out.

use super::place::{StateDir, Unopened};
use crate::sys::beneath::Beneath;
use rustix::event::Timespec;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often, and how far apart, a held lock is looked at before it counts as held: half a second altogether.
const LOOKS: u32 = 50;
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

pub(super) const PLACE: &str = "private";
pub(super) const NAME: &str = "lock";
pub(super) const MODE: u32 = 0o600;

/// Who holds a state directory, in the holder's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// In the holder's own pid namespace.
    pub pid: u32,
    pub host: String,
    /// RFC 3339.
    pub since: String,
    /// It gives the state up to who claims it (`claim`), within this time in milliseconds. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives_way_ms: Option<u64>,
    /// The path of the directory that is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quoted: the host name is another machine's text.
        write!(f, "pid {} on host {:?} since {:?}", self.pid, self.host, self.since)
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    place: StateDir,
    gives_way: Option<Duration>,
    noted: bool,
}

#[derive(Debug)]
pub(super) enum Taken {
    Ours(Lock),
    /// Somebody else's; `None` when their note cannot be read.
    Held(Option<Holder>),
}

impl Lock {
    /// Takes the lock without waiting. Where the filesystem has no locks it goes on with a warning. The note in it is for
    /// [`Self::note`]: a disk that does not take a write can be locked all the same. `gives_way` goes into it, see
    /// [`Holder::gives_way_ms`].
    ///
    /// # Errors
    /// [`Unopened`] when there is no lock file and none can be made, or it cannot be opened.
    pub(super) fn take(
        dir: &StateDir,
        gives_way: Option<Duration>,
        warnings: &mut Vec<String>,
    ) -> Result<Taken, Unopened> {
        let place = dir.private(PLACE, warnings)?;
        let mut file = open(&place, warnings)?;
        match lock_alone(&file) {
            Ok(true) => {}
            Ok(false) => return Ok(Taken::Held(read(&mut file))),
            // ENOLCK: NFS without its lock daemon; the others: no lock call at all.
            Err(error) => warnings.push(format!(
                "{} cannot be locked ({error}): nothing keeps a second supervisor from using this state",
                place.path_of(NAME).display()
            )),
        }
        Ok(Taken::Ours(Self { _file: file, place, gives_way, noted: false }))
    }

    /// Writes who we are, once. On a volume that was read-only when the lock was taken this is made up for later.
    pub(super) fn note(&mut self, host: &str) {
        if self.noted {
            return;
        }
        let since = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let gives_way_ms = self.gives_way.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let dir = Some(self.place.top().to_owned());
        let holder = Holder { pid: std::process::id(), host: host.to_owned(), since, gives_way_ms, dir };
        self.noted = write(&self.place, &holder).is_ok();
    }
}

/// Locks a file, for as long as it is open; false: somebody else has locked it. flock(2).
///
/// # Errors
/// Where the filesystem has no locks.
pub fn lock_alone(file: &File) -> io::Result<bool> {
    let mut looks = 0;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            // A child that a killed supervisor had cloned and that has not executed yet still holds its copy of the
            // lock's descriptor, for a moment: it ends when it notices.
            Err(Errno::WOULDBLOCK) if looks < LOOKS => {
                looks += 1;
                let _ = rustix::event::poll(&mut [], Some(&GLANCE));
            }
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the lock in this directory, which is ours alone, was left by a supervisor whose state was at `path`; `None`: somebody
/// has it. It is held for a moment, less than a supervisor waits for it.
pub(super) fn is_left_by(private: &Beneath, path: &Path) -> Option<bool> {
    let Ok(mut file) = private.open_file(Path::new(NAME), OFlags::RDONLY, 0) else { return Some(false) };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => None,
        // Nor does a filesystem without locks know of a holder.
        Ok(()) | Err(_) => Some(read(&mut file).is_some_and(|holder| holder.dir.as_deref() == Some(path))),
    }
}

pub(super) fn open(dir: &StateDir, warnings: &mut Vec<String>) -> io::Result<File> {
    let found = match dir.existing(NAME, OFlags::RDWR, MODE, warnings) {
        // A read-only volume can be locked all the same.
        Err(error) if error.raw_os_error() == Some(Errno::ROFS.raw_os_error()) => {
            dir.existing(NAME, OFlags::RDONLY, MODE, warnings)?
        }
        found => found?,
    };
    if let Some(file) = found {
        return Ok(file);
    }
    match dir.create(NAME, MODE) {
        // Another supervisor starts at the same moment: the lock decides between us.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            dir.existing(NAME, OFlags::RDWR, MODE, warnings)?.ok_or(error)
        }
        made => made,
    }
}

/// Overwrites before it cuts: in place it needs no space on a full disk, and a reader in between sees one whole line.
fn write(dir: &StateDir, holder: &Holder) -> io::Result<()> {
    let file = dir
        .existing(NAME, OFlags::RDWR, MODE, &mut Vec::new())?
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let line = serde_json::to_string(holder)? + "\n";
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text).ok()?;
    let line = text.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}
