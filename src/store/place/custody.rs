//! Whether what lies on the disk is ours: its kind, its owner and its mode, as far as the filesystem keeps them.
//!
//! Some filesystems keep neither owners nor modes (a Windows or FUSE share). There, a thing is ours if it looks like a file that
//! we have just made.

use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{FileType, Gid, Mode, OFlags, Stat};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub(in crate::store) const DIR_MODE: u32 = 0o750;
pub(in crate::store) const PRIVATE_MODE: u32 = 0o700;
pub(in crate::store) const FILE_MODE: u32 = 0o640;
/// What a group may be allowed by `fsGroup`: reading, writing, searching, and its name on new files.
const GROUP_BITS: u32 = 0o2070;

/// What "as we left it" means on this filesystem.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Custody {
    pub uid: u32,
    /// The gateway user's group.
    pub gid: u32,
    /// Owners and modes stay as they are set.
    pub kept: bool,
}

impl Custody {
    /// Strict, unless `stat` is foreign by that measure and a file that we make now would be, too.
    pub(super) fn of(parent: &Beneath, stat: &Stat, gid: u32) -> Self {
        let strict = Self { uid: rustix::process::geteuid().as_raw(), gid, kept: true };
        match judge(stat, FileType::Directory, DIR_MODE, strict) {
            Judgement::Foreign(_) => Self::probe(parent, strict).unwrap_or(strict),
            Judgement::Ours | Judgement::Loose => strict,
        }
    }

    /// Looks at a file that we make. With O_EXCL it is ours in any directory.
    fn probe(parent: &Beneath, strict: Self) -> io::Result<Self> {
        let name = PathBuf::from(format!(".hermes-sup-probe-{}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = parent.open_file(&name, flags, FILE_MODE)?;
        let _ = parent.remove_file(&name);
        let _ = rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE));
        let stat = rustix::fs::fstat(&file)?;
        let kept = stat.st_uid == strict.uid && permissions(&stat) == FILE_MODE;
        Ok(Self { uid: stat.st_uid, kept, ..strict })
    }
}

/// Whose something is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Judgement {
    Ours,
    /// Ours, but the gateway user's own group has been given more than we gave it.
    Loose,
    /// Somebody else could have written it. The text is the end of a sentence that says why.
    Foreign(String),
}

pub(in crate::store) fn judge(stat: &Stat, kind: FileType, mode: u32, custody: Custody) -> Judgement {
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let wanted = if kind == FileType::Directory { "directory" } else { "regular file" };
        return Judgement::Foreign(format!("is not a {wanted}"));
    }
    if stat.st_uid != custody.uid {
        return Judgement::Foreign(format!("belongs to uid {}, not {}", stat.st_uid, custody.uid));
    }
    // Setgid comes from a parent directory that has it and gives nobody a right to write.
    let setgid = if kind == FileType::Directory { 0o2000 } else { 0 };
    let excess = permissions(stat) & !(mode | setgid);
    match excess {
        0 => Judgement::Ours,
        _ if !custody.kept => Judgement::Ours,
        _ if excess & !GROUP_BITS == 0 && stat.st_gid == custody.gid => Judgement::Loose,
        _ => Judgement::Foreign(format!("has mode {:04o}, not {mode:04o}", permissions(stat))),
    }
}

/// One warning, however many files are like that.
pub(super) fn warn_loose(top: &Path, warnings: &mut Vec<String>) {
    let warning = format!(
        "the default user's group could write in {} (fsGroup of Kubernetes makes it so): the modes are put right, what is \
         recorded there is believed",
        top.display()
    );
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

/// Corrects group and mode. What cannot be changed (no CAP_CHOWN, a read-only volume) stays: it already gives nobody more
/// than it should.
pub(super) fn put_right(fd: &impl AsFd, stat: &Stat, gid: u32, mode: u32) {
    if stat.st_gid != gid {
        let give = || Ok(rustix::fs::fchown(fd, None, Some(Gid::from_raw(gid)))?);
        if give().is_err() {
            // A process in that group can give the file to it without CAP_CHOWN.
            let _ = Credentials { gid, ..Credentials::own() }.as_group(give);
        }
    }
    if permissions(stat) != mode {
        let _ = rustix::fs::fchmod(fd, Mode::from_raw_mode(mode));
    }
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a filesystem cannot be mounted everywhere, so its custody is made by hand.
    #[test]
    fn where_no_modes_are_kept_only_kind_and_owner_count() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::chmod(dir.path(), Mode::from_raw_mode(0o777)).unwrap();
        let stat = rustix::fs::stat(dir.path()).unwrap();
        let ours = |kind, custody| judge(&stat, kind, DIR_MODE, custody) == Judgement::Ours;
        let strict = Custody { uid: stat.st_uid, gid: stat.st_gid, kept: true };
        let loose = Custody { kept: false, ..strict };
        assert!(!ours(FileType::Directory, strict));
        assert!(ours(FileType::Directory, loose));
        assert!(!ours(FileType::RegularFile, loose));
        assert!(!ours(FileType::Directory, Custody { uid: stat.st_uid + 1, ..loose }));
    }

    #[test]
    fn this_filesystem_keeps_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let strict = Custody { uid: rustix::process::geteuid().as_raw(), gid: 0, kept: true };
        let seen = Custody::probe(&Beneath::open(dir.path()).unwrap(), strict).unwrap();
        assert_eq!((seen.uid, seen.kept), (strict.uid, true));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
