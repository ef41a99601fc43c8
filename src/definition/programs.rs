//! Where a user's programs are looked for: only in directories that nobody but root and that user can fill.
//!
//! The PATH of an image may hold directories of one user, as that of the Hermes image does (`/opt/data/.local/bin`). What
//! runs as somebody else, or as root, must find no program there that this user has put in.

use super::trust::is_filled_by;
use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What is left when no directory of a PATH counts.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directories of `path` that nobody but root and the user `uid` can fill, in their order. Relative ones are left
/// out. Never empty. Blocks on the file system.
pub fn path_of(path: &OsStr, uid: u32) -> OsString {
    let kept: Vec<PathBuf> = std::env::split_paths(path).filter(|dir| is_filled_by(dir, uid)).collect();
    let joined = std::env::join_paths(kept).unwrap_or_default();
    if joined.is_empty() { OsString::from(SYSTEM) } else { joined }
}

/// The last answer of [`path_of`], for a fleet that asks the same at each start. It holds while its directories are the same, and
/// within a row of starts they are looked at once.
#[derive(Debug, Default)]
pub struct Programs {
    last: RefCell<Option<Last>>,
    row: Cell<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Row {
    #[default]
    None,
    Begun,
    /// The directories of the last answer are those of this row.
    Looked,
}

#[derive(Debug)]
struct Last {
    path: OsString,
    uid: u32,
    marks: Vec<Mark>,
    answer: OsString,
}

impl Programs {
    /// From here to [`Self::end_row`] nobody changes a directory.
    pub fn begin_row(&self) {
        self.row.set(Row::Begun);
    }

    pub fn end_row(&self) {
        self.row.set(Row::None);
    }

    /// As [`path_of`].
    pub fn path_of(&self, path: &OsStr, uid: u32) -> OsString {
        let same = |last: &Last| last.path == path && last.uid == uid;
        if self.row.get() == Row::Looked
            && let Some(last) = self.last.borrow().as_ref().filter(|last| same(last))
        {
            return last.answer.clone();
        }
        let marks = marks(path);
        if self.row.get() == Row::Begun {
            self.row.set(Row::Looked);
        }
        if let Some(last) = self.last.borrow().as_ref().filter(|last| same(last) && last.marks == marks) {
            return last.answer.clone();
        }
        let answer = path_of(path, uid);
        self.last.replace(Some(Last { path: path.to_owned(), uid, marks, answer: answer.clone() }));
        answer
    }
}

/// What a directory is and who may write it: device, inode, mode, owner; `None` for one that is not there.
type Mark = Option<(u64, u64, u32, u32)>;

fn marks(path: &OsStr) -> Vec<Mark> {
    let mark = |dir: PathBuf| {
        let stat = rustix::fs::stat(&dir).ok()?;
        Some((stat.st_dev, stat.st_ino, stat.st_mode, stat.st_uid))
    };
    std::env::split_paths(path).map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn only_directories_that_nobody_else_can_fill_are_left() {
        if !rustix::process::geteuid().is_root() {
            return; // Such directories are root's to make; the host tier runs this as root.
        }
        let root = tempfile::tempdir_in("/run").unwrap();
        let dir = |name: &str, owner: u32, mode: u32| {
            let dir = root.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            chown(&dir, Some(owner), Some(owner)).unwrap();
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
            dir
        };
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (roots, his, open) = (dir("roots", 0, 0o755), dir("his", 10000, 0o755), dir("open", 0, 0o777));
        let below_his = his.join("bin");
        std::fs::create_dir(&below_his).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&his, &link).unwrap();
        let dirs = [&his, &below_his, &open, &link, &roots].map(|dir| dir.display().to_string());
        let path =
            OsString::from(format!("{}::bin:.:{his}/none:/usr/bin", dirs.join(":"), his = his.display()));
        let usable = |dirs: &[&PathBuf]| {
            let all = dirs.iter().map(|dir| dir.display().to_string());
            OsString::from(all.chain(["/usr/bin".to_owned()]).collect::<Vec<_>>().join(":"))
        };
        let programs = Programs::default();
        assert_eq!(programs.path_of(&path, 10001), usable(&[&roots]));
        assert_eq!(
            programs.path_of(&path, 10000),
            usable(&[&his, &below_his, &link, &roots, &his.join("none")]),
            "his own he may fill"
        );
        // Known again at once, and not believed once it has changed.
        assert_eq!(programs.path_of(&path, 0), usable(&[&roots]));
        assert_eq!(programs.path_of(&path, 0), usable(&[&roots]));
        chown(&roots, Some(10000), None).unwrap();
        assert_eq!(programs.path_of(&path, 0), "/usr/bin");
        // Within a row it is looked at once.
        programs.begin_row();
        assert_eq!(programs.path_of(&path, 0), "/usr/bin");
        chown(&roots, Some(0), None).unwrap();
        assert_eq!(programs.path_of(&path, 0), "/usr/bin");
        programs.end_row();
        assert_eq!(programs.path_of(&path, 0), usable(&[&roots]));
    }

    #[test]
    fn where_nothing_is_left_the_systems_directories_are_searched() {
        for path in ["", ".", "/tmp:bin"] {
            assert_eq!(path_of(OsStr::new(path), 0), SYSTEM, "{path:?}");
        }
    }
}
