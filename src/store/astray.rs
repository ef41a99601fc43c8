//! A state directory that is not where it was left: another name was given to it, or its name to another one.
//!
//! The owner of the home can do both, where the directory of the home is its own: with a directory of root's that it finds there,
//! such as a copy that root once made of the state, it would undo what root has stopped since. So of all that lie beside each other
//! and were left by a supervisor of this path the one that was written last counts. Who wants an older one back removes the newer.

use super::place::{Custody, DIR_MODE, Judgement, PRIVATE_MODE, judge, look, set_aside};
use crate::sys::beneath::Beneath;
use rustix::fs::{FileType, Stat};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// When the database of a state was last written, in seconds and nanoseconds since 1970.
type Written = (i64, i64);

/// What a directory beside the state is.
enum Seen {
    /// A supervisor runs on it.
    Held,
    /// A supervisor of our path has left it.
    Left(Written),
    /// Neither.
    Nothing,
}

/// Gives the state directory that was used last its name back, `there` being what has the name now; false: nothing was renamed.
///
/// However many names there are beside it, all are looked at: what was given up would be hidden. That costs one stat(2) for a
/// directory, and only where somebody else can rename what is ours.
pub(super) fn take_back(
    parent: &Beneath,
    name: &OsStr,
    path: &Path,
    gid: u32,
    there: Option<&Stat>,
    warnings: &mut Vec<String>,
) -> bool {
    let custody = Custody { uid: rustix::process::geteuid().as_raw(), gid, kept: true };
    let mut newest: Option<(Written, OsString)> = None;
    if let Some(there) = there {
        if is_ours_alone(parent) || !is_ours(there, DIR_MODE, custody) {
            return false;
        }
        match seen(parent, name, path, custody) {
            Seen::Held => return false,
            Seen::Left(written) => newest = Some((written, name.to_owned())),
            Seen::Nothing => {}
        }
    }
    let Ok(entries) = rustix::fs::Dir::read_from(parent) else { return false };
    for entry in entries.flatten() {
        let found = OsStr::from_bytes(entry.file_name().to_bytes());
        if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) || found == name {
            continue;
        }
        let Ok(Some(stat)) = look(parent, found) else { continue };
        if !is_ours(&stat, DIR_MODE, custody) {
            continue;
        }
        if let Seen::Left(written) = seen(parent, found, path, custody)
            && newest.as_ref().is_none_or(|(newest, _)| written > *newest)
        {
            newest = Some((written, found.to_owned()));
        }
    }
    match newest {
        Some((_, found)) if found != name => give_name(parent, &found, name, path, there.is_some(), warnings),
        Some(_) | None => false,
    }
}

/// Renames `found` to `name`, which something else `is_taken` by.
fn give_name(
    parent: &Beneath,
    found: &OsStr,
    name: &OsStr,
    path: &Path,
    is_taken: bool,
    warnings: &mut Vec<String>,
) -> bool {
    let (path, shown) = (path.display(), parent.path().join(found));
    let shown = shown.display();
    let aside = is_taken.then(|| set_aside(parent, name, "older")).transpose();
    let done = aside.and_then(|aside| parent.rename(Path::new(found), Path::new(name)).map(|()| aside));
    warnings.push(match &done {
        Ok(None) => format!(
            "{path} was missing: somebody had renamed it to {shown}; it has its name again, and what is recorded in it is believed"
        ),
        Ok(Some(aside)) => format!(
            "{path} was not the state that was used last: somebody had renamed that to {shown}; it has its name again, and what is \
             recorded in it is believed; the other one is kept as {aside} (to go back to an older state, remove the newer one)"
        ),
        Err(error) => format!("{path} is missing; {shown} is it, but cannot be renamed: {error}"),
    });
    done.is_ok()
}

/// Nobody else can rename what is in this directory.
pub(super) fn is_ours_alone(dir: &Beneath) -> bool {
    let own = rustix::process::geteuid().as_raw();
    rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_uid == own && stat.st_mode & 0o022 == 0)
}

fn is_ours(stat: &Stat, mode: u32, custody: Custody) -> bool {
    !matches!(judge(stat, FileType::Directory, mode, custody), Judgement::Foreign(_))
}

fn seen(parent: &Beneath, name: &OsStr, path: &Path, custody: Custody) -> Seen {
    let left = || -> Option<Seen> {
        let dir = parent.dir(Path::new(name)).ok()?;
        let stat = look(&dir, OsStr::new(super::lock::PLACE)).ok()??;
        if !is_ours(&stat, PRIVATE_MODE, custody) {
            return None;
        }
        let private = dir.dir(Path::new(super::lock::PLACE)).ok()?;
        match super::lock::is_left_by(&private, path) {
            None => return Some(Seen::Held),
            Some(false) => return None,
            Some(true) => {}
        }
        let stat = look(&dir, OsStr::new(super::session::DATABASE)).ok()??;
        // Their types are those of the C library or of the kernel.
        Some(Seen::Left((stat.st_mtime as i64, stat.st_mtime_nsec as i64)))
    };
    left().unwrap_or(Seen::Nothing)
}
