//! Says when a directory of `profiles/` comes, goes or changes its name (inotify(7)), so that no gateway goes on under a
//! name that is no more.
//!
//! A directory without a `SOUL.md` is no profile yet: it is watched until it has one. Where there is no `profiles/` the
//! home is watched for it, if anything is there that makes one. Otherwise there is no inotify: the end of a process that has one
//! waits for the kernel's SRCU grace period (fs/notify/mark.c, fsnotify_wait_marks_destroyed), some milliseconds.

use super::profiles::{DIRECTORY, MARK};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::AtFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{fmt, io};

/// Directories that are watched for a `SOUL.md`; the owner of `profiles/` could make any number.
const MOST_UNFINISHED: usize = 256;

/// What happened in `profiles/`. Names are those of entries, and may be no profile's.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Gone(OsString),
    Moved { from: OsString, to: OsString },
}

/// Told of a descriptor that is readable when something happened.
type Register = dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync;

/// The watch.
pub struct ProfileWatch {
    /// Made with the first watch.
    inotify: OnceLock<OwnedFd>,
    /// The watch on `profiles/`; -1: there is none.
    profiles: AtomicI32,
    /// A `profiles/` may come.
    is_expected: bool,
    register: Box<Register>,
}

impl fmt::Debug for ProfileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileWatch").field("inotify", &self.inotify).finish_non_exhaustive()
    }
}

impl ProfileWatch {
    /// `register`: called once, with the descriptor that is readable when something happened.
    pub fn new(
        is_expected: bool,
        register: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let register = Box::new(register);
        Self { inotify: OnceLock::new(), profiles: AtomicI32::new(-1), is_expected, register }
    }

    fn inotify(&self) -> io::Result<&OwnedFd> {
        if let Some(made) = self.inotify.get() {
            return Ok(made);
        }
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        (self.register)(made.as_fd())?;
        Ok(self.inotify.get_or_init(|| made))
    }

    /// Watches what there is now. What was done before is not reported: watch first, then look. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// As openat(2), inotify_init(2) and inotify_add_watch(2); those of the registration.
    pub fn arm(&self, home: &Beneath, user: &Credentials) -> io::Result<()> {
        user.on_files(|| {
            let directory = match home.dir(Path::new(DIRECTORY)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return match self.is_expected {
                        true => self.add(home, WatchFlags::CREATE | WatchFlags::MOVED_TO).map(drop),
                        false => Ok(()),
                    };
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
        Ok(inotify::add_watch(self.inotify()?, path, flags | WatchFlags::ONLYDIR)?)
    }

    /// Takes every event that waits. `None`: nothing of it is about profiles. Otherwise `profiles/` is to be looked at
    /// and watched again, after these changes.
    pub fn take(&self) -> Option<Vec<Change>> {
        let inotify = self.inotify.get()?;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(inotify, &mut space);
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
                    let _ = inotify::remove_watch(inotify, event.wd());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_tells_of_profiles_that_come_go_and_change_their_name() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let watch = ProfileWatch::new(true, |_| Ok(()));
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

    /// The end of every container took some milliseconds more.
    #[test]
    fn where_no_profile_is_or_is_expected_there_is_no_inotify() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let watch = ProfileWatch::new(false, |_| Ok(()));
        watch.arm(&beneath, &own).unwrap();
        assert!(watch.inotify.get().is_none() && watch.take().is_none());
        fs::create_dir(home.path().join("profiles")).unwrap();
        watch.arm(&beneath, &own).unwrap();
        fs::create_dir(home.path().join("profiles/a")).unwrap();
        assert_eq!(watch.take(), Some(vec![]), "it is watched from then on");
    }
}
