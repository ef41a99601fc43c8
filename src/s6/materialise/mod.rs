//! Makes what s6 and the Hermes CLI would have made: the scan directory, the supervisor's directories in a slot, and
//! the slot of a gateway.
//!
//! The scan directory belongs to the gateway user, so everything in it is made with that user's file credentials and
//! without following links: a planted link can at most make that user harm itself. A slot is built under a name that
//! begins with a dot and renamed into place, so no scan ever sees half of one.
//!
//! `scripts.rs` has the scripts of a gateway's slot, `files.rs` how files are made and removed.

mod files;
mod scripts;
#[cfg(test)]
mod tests;

use super::slot::{Run, SUPERVISOR_DIRS, SlotNameError, is_executable_file, slot_name, stat_beneath};
use crate::core::name::{GATEWAY_PREFIX, ServiceName};
use crate::sys::beneath::Beneath;
use crate::sys::bestow;
use crate::sys::credentials::Credentials;
use files::{directory, fifo, file};
pub use files::{remove, remove_anybodys};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use scripts::{FINISH, log_script, run_script};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// What a scan directory that is scanned has in it.
pub const CONTROL: &str = ".s6-svscan";
/// s6's own mode of a directory where anybody may plant a FIFO to be told of events, and nobody may remove another's.
const EVENT_MODE: u32 = 0o3730;

/// What `run`, `finish` and `log/run` of a gateway's slot depend on.
#[derive(Debug, Clone, Copy)]
pub struct GatewaySlot<'a> {
    /// The service that is the gateway.
    pub profile: &'a ServiceName,
    /// The directory that is HOME and where it starts.
    pub home: &'a Path,
    /// The gateway user's name, for those who run the script as root.
    pub user: &'a str,
    /// Whether there is a file `down`.
    pub down: bool,
}

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    New,
    /// There was something unusable of that name.
    Replaced,
    /// It was there; only its `down` was made to match.
    Kept,
}

/// Makes the scan directory `path` (0755, given to `owner`) with `.s6-svscan/control` (a FIFO, 0600) and
/// `.s6-svscan/lock` in it, owned by `owner`. Idempotent. One that somebody else made stays theirs, unless it is ours
/// and empty, as an interrupted call leaves it.
///
/// # Errors
/// As mkdirat(2), fchown(2), mknodat(2); ELOOP or ENOTDIR when the place is taken by a link or a file.
pub fn prepare(path: &Path, owner: &Credentials) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::fs::create_dir_all(parent)?;
    let parent = Beneath::open(parent)?;
    let mut scandir = parent.create_dirs(Path::new(name), 0o755)?;
    let stat = rustix::fs::fstat(&scandir)?;
    let own = Credentials::own();
    if stat.st_uid == own.uid && scandir.list()?.is_empty() {
        rustix::fs::fchmod(&scandir, Mode::from_raw_mode(0o755))?;
        if own.uid != owner.uid {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            match rustix::fs::fchown(&scandir, Some(uid), Some(gid)) {
                // Without CAP_CHOWN it is not given away, but made by its owner.
                Err(Errno::PERM) => {
                    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
                    scandir = bestow::directory(&parent, name, 0o755, owner, &own)?;
                }
                given => given?,
            }
        }
    }
    // In a scan directory of root's, the control directory is root's, too.
    let writer = if rustix::fs::fstat(&scandir)?.st_uid == owner.uid { owner } else { &own };
    writer.on_files(|| {
        let control = directory(&scandir, CONTROL, 0o755)?;
        fifo(&control, "control", 0o600)?;
        file(&control, "lock", b"", 0o644)
    })?
}

/// Makes `supervise` (0755) and `event` (03730) in a slot where they are missing: clients of s6 take a directory with
/// them for one that is supervised.
///
/// # Errors
/// As mkdirat(2).
pub fn make_supervise(slot: &Beneath, owner: &Credentials) -> io::Result<()> {
    owner.on_files(|| {
        directory(slot, "event", EVENT_MODE)?;
        directory(slot, "supervise", 0o755)?;
        Ok(())
    })?
}

/// Removes a slot that holds nothing but what [`make_supervise`] makes. False if it is there all the same.
pub fn remove_remains(scandir: &Beneath, slot: &OsStr, owner: &Credentials) -> bool {
    let removed = owner.on_files(|| -> io::Result<()> {
        let dir = scandir.dir(Path::new(slot))?;
        let names = dir.list()?;
        let ours = |name: &OsString| SUPERVISOR_DIRS.iter().any(|known| name == known);
        // An empty one is about to be filled.
        if names.is_empty() || !names.iter().all(ours) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        // Only empty ones are removed, in which nobody has put anything yet.
        for name in SUPERVISOR_DIRS {
            let _ = rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR);
        }
        Ok(rustix::fs::unlinkat(scandir, slot, AtFlags::REMOVEDIR)?)
    });
    matches!(removed, Ok(Ok(())))
}

/// Writes the slot `gateway-<profile>` as the Hermes CLI does. One that can be run is left as it is, but for its file
/// `down`; anything else of that name is replaced as a whole.
///
/// # Errors
/// As openat(2), write(2), renameat(2), and `InvalidInput` for too long a name. What is unfinished has a name with a dot in front,
/// and the next call removes it.
pub fn materialise(scandir: &Beneath, wanted: &GatewaySlot<'_>, owner: &Credentials) -> io::Result<Made> {
    let name = format!("{GATEWAY_PREFIX}{}", wanted.profile.profile());
    checked(&name)?;
    owner.on_files(|| {
        let there = exists(scandir, &name)?;
        if there && run_of(scandir, &name)? == Run::Executable {
            mark_down(&scandir.dir(Path::new(&name))?, wanted.down)?;
            return Ok(Made::Kept);
        }
        // Another name than the CLI's own, which may be building the same slot now.
        let building = format!(".{name}.new");
        remove(scandir, Path::new(&building))?;
        let slot = directory(scandir, &building, 0o755)?;
        fill(&slot, wanted)?;
        if there {
            remove(scandir, Path::new(&name))?;
        }
        match scandir.rename(Path::new(&building), Path::new(&name)) {
            Ok(()) => Ok(if there { Made::Replaced } else { Made::New }),
            Err(error) => {
                let _ = remove(scandir, Path::new(&building));
                // The CLI was faster, with the same slot.
                if run_of(scandir, &name).is_ok_and(|run| run == Run::Executable) {
                    mark_down(&scandir.dir(Path::new(&name))?, wanted.down)?;
                    return Ok(Made::Kept);
                }
                Err(error)
            }
        }
    })?
}

/// Makes or removes the file `down` of a slot.
///
/// # Errors
/// As openat(2) and unlinkat(2); `InvalidInput` for what is no name of a slot.
pub fn set_down(scandir: &Beneath, slot: &str, down: bool, owner: &Credentials) -> io::Result<()> {
    checked(slot)?;
    owner.on_files(|| mark_down(&scandir.dir(Path::new(slot))?, down))?
}

fn checked(slot: &str) -> io::Result<()> {
    let invalid = |error: SlotNameError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    slot_name(slot.as_ref()).map(drop).map_err(invalid)
}

fn fill(slot: &Beneath, wanted: &GatewaySlot<'_>) -> io::Result<()> {
    file(slot, "type", b"longrun\n", 0o644)?;
    file(slot, "run", &run_script(wanted), 0o755)?;
    file(slot, "finish", FINISH.as_bytes(), 0o755)?;
    let log = directory(slot, "log", 0o755)?;
    file(&log, "run", &log_script(wanted), 0o755)?;
    for dir in [slot, &log] {
        directory(dir, "event", EVENT_MODE)?;
        let supervise = directory(dir, "supervise", 0o755)?;
        directory(&supervise, "event", EVENT_MODE)?;
        fifo(&supervise, "control", 0o660)?;
    }
    mark_down(slot, wanted.down)
}

fn exists(dir: &Beneath, name: &str) -> io::Result<bool> {
    Ok(stat_beneath(dir, Path::new(name))?.is_some())
}

/// The state of `run` in `name`, which may not even be a directory.
fn run_of(scandir: &Beneath, name: &str) -> io::Result<Run> {
    let slot = match stat_beneath(scandir, Path::new(name))? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            scandir.dir(Path::new(name))?
        }
        Some(_) | None => return Ok(Run::Missing),
    };
    Ok(match stat_beneath(&slot, Path::new("run"))? {
        None => Run::Missing,
        Some(stat) if is_executable_file(&stat) => Run::Executable,
        Some(_) => Run::NotExecutable,
    })
}

fn mark_down(slot: &Beneath, down: bool) -> io::Result<()> {
    let name = Path::new("down");
    match stat_beneath(slot, name)? {
        // Whatever it is: s6 asks only whether it is there.
        Some(_) if down => Ok(()),
        None if !down => Ok(()),
        Some(_) => remove(slot, name),
        None => file(slot, "down", b"", 0o644),
    }
}
