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
use std::time::{Duration, SystemTime};

pub(super) const CURRENT: &str = "current";

/// The label of an archive's file name: `@<TAI64N>.s`, or `.u` as s6-log leaves one that it did not finish.
pub(super) fn label_of(name: &str) -> Option<Label> {
    Label::parse(name.strip_suffix(".s").or_else(|| name.strip_suffix(".u"))?)
}

/// Entries of a log directory that are looked at. What its owner puts there beyond is not seen.
const MOST_ENTRIES: usize = 65_536;
/// Archives that are removed in one go; the rest goes the next time.
const MOST_REMOVED: usize = 1000;
/// A label further ahead than this is no clock's: an archive that somebody planted to be the newest for ever.
const HORIZON: Duration = Duration::from_secs(20 * 366 * 86_400);

/// The archives in `dir`, oldest first: regular files with a label that a clock may have given them by `now`.
pub(super) fn archives(dir: &Beneath, now: SystemTime) -> io::Result<Vec<(Label, String)>> {
    let horizon = Label::of(now + HORIZON);
    let mut found = Vec::new();
    dir.files(MOST_ENTRIES, |name| {
        found.extend(label_of(name).filter(|label| *label < horizon).map(|label| (label, name.to_owned())));
    })?;
    found.sort();
    Ok(found)
}

/// Makes `current` the newest archive and removes what is more than `keep` of them.
///
/// # Errors
/// As renameat2(2) and getdents64(2); `current` stays where it was then. A removal that fails is tried again the next
/// time.
pub(super) fn rotate(dir: &Beneath, keep: u32, now: SystemTime) -> io::Result<()> {
    let mut old = archives(dir, now)?;
    let mut label = Label::of(now);
    if let Some((newest, _)) = old.last() {
        label = label.max(newest.next());
    }
    let name = archive(dir, CURRENT, label)?;
    old.push((label, name));
    let surplus = old.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for (_, name) in old.iter().take(surplus.min(MOST_REMOVED)) {
        let _ = dir.remove_file(Path::new(name));
    }
    Ok(())
}

/// Renames to the name of `label`, or of the next one that is free: what is no file may have it.
fn archive(dir: &Beneath, from: &str, mut label: Label) -> io::Result<String> {
    const TRIES: usize = 100;
    for _ in 1..TRIES {
        let name = format!("{label}.s");
        match rename_new(dir, from, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => label = label.next(),
            done => return done.map(|()| name),
        }
    }
    let name = format!("{label}.s");
    rename_new(dir, from, &name).map(|()| name)
}

/// Puts what has the name of `current` and is no file out of the way, under a name that is free.
pub(super) fn set_aside(dir: &Beneath, now: SystemTime) -> io::Result<()> {
    rename_new(dir, CURRENT, &format!("{CURRENT}.not-a-file-{}", Label::of(now)))
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
    use std::time::UNIX_EPOCH;

    #[test]
    fn archives_keep_their_order_when_the_clock_is_set_back_and_the_oldest_go() {
        let home = tempfile::tempdir().unwrap();
        let dir = Beneath::open(home.path()).unwrap();
        for (round, seconds) in [(0, 2_000), (1, 1_000), (2, 1_000), (3, 3_000)] {
            std::fs::write(home.path().join(CURRENT), format!("{round}")).unwrap();
            rotate(&dir, 3, UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        let kept: Vec<_> = archives(&dir, UNIX_EPOCH)
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
        assert!(logs.join(planted).exists(), "a link is no archive and takes no archive's place");
        assert_eq!(archives(&dir, UNIX_EPOCH).unwrap().len(), 1);
        assert!(logs.join("@notes.s").exists());
    }

    /// What the owner of a log directory can put there: none of it ends rotation, takes the place of an archive or hides one.
    #[test]
    fn nothing_planted_ends_rotation() {
        let home = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let name = |seconds: u64| format!("{}.s", Label::of(UNIX_EPOCH + Duration::from_secs(seconds)));
        // The last label that there is, directories with the names of the newest archives and of the next one, and a crowd.
        std::fs::write(home.path().join("@7fffffffffffffff3b9ac9ff.s"), "").unwrap();
        for seconds in 2_000_000_000..2_000_000_010 {
            std::fs::create_dir(home.path().join(name(seconds))).unwrap();
        }
        for seconds in 0..1500 {
            std::fs::write(home.path().join(name(seconds)), "").unwrap();
        }
        let dir = Beneath::open(home.path()).unwrap();
        for round in 0..3 {
            std::fs::write(home.path().join(CURRENT), format!("{round}")).unwrap();
            rotate(&dir, 2, now).unwrap();
        }
        let kept: Vec<_> = archives(&dir, now)
            .unwrap()
            .into_iter()
            .map(|(_, name)| std::fs::read_to_string(home.path().join(name)).unwrap())
            .collect();
        assert_eq!(kept, ["1", "2"]);
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
