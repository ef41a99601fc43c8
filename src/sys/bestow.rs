//! A directory of one user in a directory of another, without CAP_CHOWN and CAP_DAC_OVERRIDE: both take part in making it.
//!
//! Only its owner can make a directory that belongs to him, and only somebody who may write in the parent can put it there.
//! So the owner of the parent makes a passage in it that both can enter, the other makes the directory there, and the first
//! renames it into place. They meet in the group of the one whose directory it is to be.

use super::beneath::Beneath;
use super::credentials::Credentials;
use rustix::fs::{AtFlags, Gid, Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Makes the directory `name` with `mode` in `parent`, owned by `owner`, where `host` may write. Another of that name must
/// not be there, or be empty.
///
/// # Errors
/// As mkdirat(2), renameat(2); `PermissionDenied` without CAP_SETUID and CAP_SETGID. Nothing is left behind then.
pub fn directory(
    parent: &Beneath,
    name: &OsStr,
    mode: u32,
    owner: &Credentials,
    host: &Credentials,
) -> io::Result<Beneath> {
    let mut passage_name = std::ffi::OsString::from(".");
    passage_name.push(name);
    passage_name.push(".passage");
    let host = Credentials { gid: owner.gid, ..host.clone() };
    let in_passage = Path::new(&passage_name);
    let made = (|| {
        let passage = host.as_group(|| -> io::Result<OwnedFd> {
            match rustix::fs::mkdirat(parent, in_passage, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let passage = open(parent, in_passage)?;
            settle(&passage, owner.gid, 0o730)?;
            Ok(passage)
        })?;
        owner.as_group(|| -> io::Result<()> {
            rustix::fs::mkdirat(&passage, name, Mode::RWXU)?;
            settle(&open(&passage, Path::new(name))?, owner.gid, 0o770)
        })?;
        let dir = host.as_group(|| {
            rustix::fs::renameat(&passage, name, parent, name)?;
            parent.dir(Path::new(name))
        })?;
        owner.as_group(|| Ok(rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?))?;
        Ok(dir)
    })();
    let _ = host.as_group(|| {
        if let Ok(passage) = open(parent, in_passage) {
            let _ = rustix::fs::unlinkat(passage, name, AtFlags::REMOVEDIR);
        }
        Ok(rustix::fs::unlinkat(parent, in_passage, AtFlags::REMOVEDIR)?)
    });
    made
}

fn open(parent: impl std::os::fd::AsFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// A set-group-id parent gives its own group, and a umask takes bits away.
fn settle(dir: &OwnedFd, gid: u32, mode: u32) -> io::Result<()> {
    rustix::fs::fchown(dir, None, Some(Gid::from_raw(gid)))?;
    Ok(rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    /// On a thread that has lost what makes root mighty, as a container of `--cap-drop ALL` has.
    fn as_weak_root<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                use caps::{CapSet, Capability};
                let kept = [Capability::CAP_SETUID, Capability::CAP_SETGID].into_iter().collect();
                caps::set(None, CapSet::Effective, &kept).unwrap();
                caps::set(None, CapSet::Permitted, &kept).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn root_and_another_make_directories_in_each_others_without_the_capabilities_for_it() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can become somebody else; the host tier runs this as root.
        }
        let root = tempfile::tempdir_in("/run").unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (home, roots) = (root.path().join("home"), root.path().join("roots"));
        let user = Credentials { uid: 10000, gid: 10000, groups: [10000].into() };
        for (dir, uid, mode) in [(&home, 10000, 0o2700), (&roots, 0, 0o755)] {
            std::fs::create_dir(dir).unwrap();
            chown(dir, Some(uid), Some(uid)).unwrap();
            std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).unwrap();
        }
        let open = |dir: &Path| Beneath::open(dir).unwrap();
        let (home_dir, roots_dir) = (open(&home), open(&roots));
        let own = Credentials { gid: 10000, ..Credentials::own() };
        as_weak_root(|| {
            let plain = rustix::fs::mkdirat(&home_dir, "state", Mode::RWXU);
            assert_eq!(plain, Err(rustix::io::Errno::ACCESS), "the thread is weak");
            directory(&home_dir, OsStr::new("state"), 0o750, &own, &user).unwrap();
            directory(&roots_dir, OsStr::new("service"), 0o755, &user, &Credentials::own()).unwrap();
        });
        for (dir, uid, mode) in [(home.join("state"), 0, 0o750), (roots.join("service"), 10000, 0o755)] {
            let made = std::fs::metadata(&dir).unwrap();
            assert_eq!(
                (made.uid(), made.gid(), made.mode() & 0o777),
                (uid, 10000, mode),
                "{}",
                dir.display()
            );
        }
        for dir in [&home, &roots] {
            assert_eq!(
                std::fs::read_dir(dir).unwrap().count(),
                1,
                "the passage is gone from {}",
                dir.display()
            );
        }
        // What is in the way stays, and nothing else is left behind.
        std::fs::write(home.join("state/file"), "").unwrap();
        as_weak_root(|| directory(&home_dir, OsStr::new("state"), 0o750, &own, &user).unwrap_err());
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1);
        assert!(home.join("state/file").exists());
    }
}
