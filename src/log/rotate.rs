//! From `current` to an archive, and the end of the oldest archives.
//!
//! Invariants: an archive is never overwritten; names sort in the order they were made, also when the clock is set
//! back; nothing is touched but regular names in the directory given. The caller has put on the owner's credentials.

use super::tai64n::Label;
use crate::sys::beneath::Beneath;
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::time::SystemTime;

pub(super) const CURRENT: &str = "current";

/// The label of an archive's file name: `@<TAI64N>.s`, or `.u` as s6-log leaves one that it did not finish.
pub(super) fn label_of(name: &str) -> Option<Label> {
    Label::parse(name.strip_suffix(".s").or_else(|| name.strip_suffix(".u"))?)
}

/// The archives in `dir`, oldest first.
pub(super) fn archives(dir: &Beneath) -> io::Result<Vec<(Label, String)>> {
    let mut found: Vec<_> = dir
        .list()?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter_map(|name| Some((label_of(&name)?, name)))
        .collect();
    found.sort();
    Ok(found)
}

/// Makes `current` the newest archive and removes what is more than `keep` of them.
///
/// # Errors
/// As renameat2(2) and getdents64(2); `current` stays where it was then. A removal that fails is tried again the next
/// time.
pub(super) fn rotate(dir: &Beneath, keep: u32, now: SystemTime) -> io::Result<()> {
    let mut old = archives(dir)?;
    let mut label = Label::of(now);
    if let Some((newest, _)) = old.last() {
        label = label.max(newest.next());
    }
    let name = format!("{label}.s");
    rename_new(dir, CURRENT, &name)?;
    old.push((label, name));
    let surplus = old.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for (_, name) in old.iter().take(surplus) {
        let _ = dir.remove_file(Path::new(name));
    }
    Ok(())
}

/// A rename that refuses to replace. Some file systems (NFS, older virtiofs) do not know RENAME_NOREPLACE.
fn rename_new(dir: &Beneath, from: &str, to: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            match rustix::fs::statat(dir, to, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => dir.rename(Path::new(from), Path::new(to)),
                Ok(_) => Err(Errno::EXIST.into()),
                Err(error) => Err(error.into()),
            }
        }
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn archives_keep_their_order_when_the_clock_is_set_back_and_the_oldest_go() {
        let home = tempfile::tempdir().unwrap();
        let dir = Beneath::open(home.path()).unwrap();
        for (round, seconds) in [(0, 2_000), (1, 1_000), (2, 1_000), (3, 3_000)] {
            std::fs::write(home.path().join(CURRENT), format!("{round}")).unwrap();
            rotate(&dir, 3, UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        let kept: Vec<_> = archives(&dir)
            .unwrap()
            .into_iter()
            .map(|(_, name)| std::fs::read_to_string(home.path().join(name)).unwrap())
            .collect();
        assert_eq!(kept, ["1", "2", "3"]);
        assert!(!home.path().join(CURRENT).exists());
    }

    #[test]
    fn other_names_and_planted_ones_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        std::fs::write(&outside, "precious").unwrap();
        let logs = home.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        let planted = format!("{}.s", Label::of(UNIX_EPOCH + Duration::from_secs(9)));
        std::os::unix::fs::symlink(&outside, logs.join(&planted)).unwrap();
        std::fs::write(logs.join("@notes.s"), "mine").unwrap();
        std::fs::write(logs.join(CURRENT), "line\n").unwrap();
        let dir = Beneath::open(&logs).unwrap();
        rotate(&dir, 1, UNIX_EPOCH + Duration::from_secs(5)).unwrap();
        assert_eq!(std::fs::read_to_string(outside).unwrap(), "precious");
        assert!(!logs.join(planted).exists(), "the link itself is the surplus archive");
        assert_eq!(archives(&dir).unwrap().len(), 1);
        assert!(logs.join("@notes.s").exists());
    }

    #[test]
    fn a_target_that_exists_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("a"), "a").unwrap();
        std::fs::write(home.path().join("b"), "b").unwrap();
        let dir = Beneath::open(home.path()).unwrap();
        assert_eq!(rename_new(&dir, "a", "b").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(home.path().join("b")).unwrap(), "b");
    }
}
