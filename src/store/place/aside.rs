//! What is set aside: renamed out of the way and kept for people to look at, the newest few of each name.
//!
//! What is removed beside the state directory is removed with the rights of the owner of the directory that it lies in, and a
//! bounded amount of it at each start: the owner may have put anything there.

use super::look;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many damaged databases, and how many foreign things of one name, are kept for people to look at.
pub(super) const KEPT_ASIDE: usize = 3;
/// How many files are removed at one start at most, of what was set aside before.
const REMOVED_AT_ONCE: usize = 1000;

pub(in crate::store) fn set_aside(dir: &Beneath, name: &OsStr, kind: &str) -> io::Result<String> {
    let mut time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    loop {
        let mut to = OsString::from(name);
        to.push(format!(".{kind}-{time}"));
        if look(dir, &to)?.is_none() {
            dir.rename(Path::new(name), Path::new(&to))?;
            return Ok(to.to_string_lossy().into_owned());
        }
        time += 1;
    }
}

pub(super) fn not_ours(path: &Path, why: &str, kept: &str) -> String {
    format!(
        "{} is not as hermes-sup left it (it {why}): set aside as {kept}, nothing in it was believed; \
         if it was changed on purpose, give it back its owner and mode, and its name in the place of the one that is there now, \
         which must be removed",
        path.display()
    )
}

/// Removes all but the newest few of what was set aside as foreign under this name.
pub(super) fn thin_out(dir: &Beneath, name: &OsStr, warnings: &mut Vec<String>) {
    let prefix = format!("{}.foreign-", name.to_string_lossy());
    let names = dir.list().unwrap_or_default();
    let mut old: Vec<_> = names.iter().filter(|name| name.to_string_lossy().starts_with(&prefix)).collect();
    old.truncate(old.len().saturating_sub(KEPT_ASIDE));
    let Some(oldest) = old.first() else { return };
    let mut room = REMOVED_AT_ONCE;
    let mut remove = || old.iter().try_for_each(|name| remove_all(dir, Path::new(name), &mut room));
    // In our directory only we could put things. In another one they are removed with the rights of its owner, who could do so
    // himself.
    let removed = match owner(dir) {
        Some(owner) if owner.uid != rustix::process::geteuid().as_raw() => {
            owner.on_files(remove).unwrap_or_else(Err)
        }
        Some(_) | None => remove(),
    };
    if let Err(error) = removed {
        warnings.push(format!(
            "{} and what was set aside like it cannot be removed ({error}): look at it, and remove it",
            dir.path().join(oldest).display()
        ));
    }
}

fn owner(dir: &Beneath) -> Option<Credentials> {
    let stat = rustix::fs::fstat(dir).ok()?;
    Some(Credentials { uid: stat.st_uid, gid: stat.st_gid, groups: [].into() })
}

/// Removes a file, or a directory with what is in it, as far as `room` goes. No link is followed.
fn remove_all(dir: &Beneath, name: &Path, room: &mut usize) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {}
        done => return done,
    }
    let below = dir.dir(name)?;
    for entry in rustix::fs::Dir::read_from(&below)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        *room = room.checked_sub(1).ok_or_else(|| io::Error::other("there is too much in it"))?;
        remove_all(&below, Path::new(OsStr::from_bytes(entry.file_name().to_bytes())), room)?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_bounded_and_no_link_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("file"), "").unwrap();
        let home = tempfile::tempdir().unwrap();
        let aside = home.path().join("aside");
        std::fs::create_dir_all(aside.join("a/b")).unwrap();
        std::os::unix::fs::symlink(outside.path(), aside.join("a/link")).unwrap();
        for number in 0..5 {
            std::fs::write(aside.join(format!("a/b/{number}")), "").unwrap();
        }
        let dir = Beneath::open(home.path()).unwrap();
        assert!(remove_all(&dir, Path::new("aside"), &mut 3).is_err());
        assert!(aside.exists());
        remove_all(&dir, Path::new("aside"), &mut 20).unwrap();
        assert!(!aside.exists() && outside.path().join("file").exists());
    }
}
