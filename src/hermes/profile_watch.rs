//! Says when a directory of `profiles/` comes, goes or changes its name (inotify(7)), so that no gateway goes on under a
//! name that is no more.
//!
//! A directory without a `SOUL.md` is no profile yet: it is watched until it has one. Where there is no `profiles/` the
//! home is watched for it.

use super::profiles::{DIRECTORY, MARK};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::AtFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

/// Directories that are watched for a `SOUL.md`; the owner of `profiles/` could make any number.
const MOST_UNFINISHED: usize = 256;

/// What happened in `profiles/`. Names are those of entries, and may be no profile's.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Gone(OsString),
    Moved { from: OsString, to: OsString },
}

/// The watch. Its descriptor is readable when something happened.
#[derive(Debug)]
pub struct ProfileWatch {
    inotify: OwnedFd,
    /// The watch on `profiles/`; -1: there is none.
    profiles: AtomicI32,
}

impl ProfileWatch {
    /// # Errors
    /// As inotify_init(2).
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, profiles: AtomicI32::new(-1) })
    }

    /// Watches what there is now. What was done before is not reported: watch first, then look. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// As openat(2) and inotify_add_watch(2).
    pub fn arm(&self, home: &Beneath, user: &Credentials) -> io::Result<()> {
        user.on_files(|| {
            let directory = match home.dir(Path::new(DIRECTORY)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.add(home, WatchFlags::CREATE | WatchFlags::MOVED_TO).map(drop);
                }
                opened => opened?,
            };
            let flags = WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE_SELF;
            self.profiles.store(self.add(&directory, flags)?, Ordering::Relaxed);
            let unfinished = directory.list()?.into_iter().filter_map(|name| {
                let entry = directory.dir(Path::new(&name)).ok()?;
                rustix::fs::statat(&entry, MARK, AtFlags::SYMLINK_NOFOLLOW).is_err().then_some(entry)
            });
            for entry in unfinished.take(MOST_UNFINISHED) {
                self.add(&entry, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
                // It may have come in between.
                if rustix::fs::statat(&entry, MARK, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    continue;
                }
            }
            Ok(())
        })?
    }

    /// A watch on what was opened, however it is renamed. The same one again where there is one.
    fn add(&self, directory: &Beneath, flags: WatchFlags) -> io::Result<i32> {
        let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        Ok(inotify::add_watch(&self.inotify, path, flags | WatchFlags::ONLYDIR)?)
    }

    /// Takes every event that waits. `None`: nothing of it is about profiles. Otherwise `profiles/` is to be looked at
    /// and watched again, after these changes.
    pub fn take(&self) -> Option<Vec<Change>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut space);
        let (mut changes, mut left, mut any) = (Vec::new(), Vec::<(u32, OsString)>::new(), false);
        // The end is EAGAIN.
        while let Ok(event) = events.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                any = true;
                continue;
            }
            let Some(name) = name else {
                any |= flags.contains(ReadFlags::MOVE_SELF);
                continue;
            };
            if event.wd() != self.profiles.load(Ordering::Relaxed) {
                if name == MARK || name == DIRECTORY {
                    any = true;
                    let _ = inotify::remove_watch(&self.inotify, event.wd());
                }
                continue;
            }
            any = true;
            if flags.contains(ReadFlags::MOVED_FROM) {
                left.push((event.cookie(), name));
            } else if flags.contains(ReadFlags::MOVED_TO) {
                if let Some(at) = left.iter().position(|(cookie, _)| *cookie == event.cookie()) {
                    changes.push(Change::Moved { from: left.swap_remove(at).1, to: name });
                }
            } else if flags.contains(ReadFlags::DELETE) {
                changes.push(Change::Gone(name));
            }
        }
        changes.extend(left.into_iter().map(|(_, name)| Change::Gone(name)));
        any.then_some(changes)
    }
}

impl AsFd for ProfileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_tells_of_profiles_that_come_go_and_change_their_name() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let watch = ProfileWatch::new().unwrap();
        let arm = || watch.arm(&beneath, &own).unwrap();
        arm();
        fs::write(home.path().join("state.db"), "x").unwrap();
        assert_eq!(watch.take(), None, "not about profiles");
        let profiles = home.path().join("profiles");
        fs::create_dir(&profiles).unwrap();
        assert_eq!(watch.take(), Some(vec![]));
        arm();
        fs::create_dir(profiles.join("a")).unwrap();
        assert_eq!(watch.take(), Some(vec![]));
        arm();
        fs::write(profiles.join("a/config.yaml"), "x").unwrap();
        assert_eq!(watch.take(), None, "still being filled");
        fs::write(profiles.join("a/SOUL.md"), "x").unwrap();
        assert_eq!(watch.take(), Some(vec![]));
        arm();
        fs::write(profiles.join("a/gateway.pid"), "x").unwrap();
        assert_eq!(watch.take(), None, "what a profile holds");
        fs::rename(profiles.join("a"), profiles.join("b")).unwrap();
        assert_eq!(watch.take(), Some(vec![Change::Moved { from: "a".into(), to: "b".into() }]));
        fs::rename(profiles.join("b"), home.path().join("away")).unwrap();
        assert_eq!(watch.take(), Some(vec![Change::Gone("b".into())]));
        fs::rename(home.path().join("away"), profiles.join("c")).unwrap();
        assert_eq!(watch.take(), Some(vec![]));
        fs::remove_dir_all(profiles.join("c")).unwrap();
        assert_eq!(watch.take(), Some(vec![Change::Gone("c".into())]));
    }
}
