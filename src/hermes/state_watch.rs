//! Says when a profile's `gateway_state.json` has been written, for readiness: a descriptor for the loop instead of
//! looking again and again.

use super::state_json::FILE;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A watch on one profile's directory (inotify(7)). Its descriptor is readable when [`StateWatch::changed`] has something
/// to say. Other files of that directory wake it too, so drop it once the gateway is ready.
#[derive(Debug)]
pub struct StateWatch(OwnedFd);

impl StateWatch {
    /// Watches the profile in `directory` (relative to home). Blocks on the file system. What was written before is not
    /// reported: make the watch first, then look at the file.
    ///
    /// # Errors
    /// As openat(2) and inotify_add_watch(2); ENOSPC and EMFILE at the limits of `/proc/sys/fs/inotify`.
    pub fn new(home: &Beneath, user: &Credentials, directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        user.on_files(|| {
            let opened = home.dir(directory)?;
            // There is no watch on a descriptor; its link in /proc names exactly what was opened, however it is renamed.
            let path = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
            // A file that is replaced arrives by a rename; one that is written in place is closed.
            inotify::add_watch(&watch, path, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE)?;
            io::Result::Ok(())
        })??;
        Ok(Self(watch))
    }

    /// Takes every event that waits; true when one of them is about the file, or some were lost.
    pub fn changed(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut changed = false;
        // The end is EAGAIN.
        while let Ok(event) = reader.next() {
            let named = event.file_name().is_some_and(|name| name.to_bytes() == FILE.as_bytes());
            changed |= named || event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        }
        changed
    }
}

impl AsFd for StateWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(watch: &StateWatch) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    #[test]
    fn it_tells_the_writing_and_the_replacing_of_that_file_only() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("profiles/coder");
        std::fs::create_dir_all(&directory).unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let watch = StateWatch::new(&beneath, &own, Path::new("profiles/coder")).unwrap();
        assert!(!readable(&watch) && !watch.changed());
        std::fs::write(directory.join("other"), "x").unwrap();
        assert!(readable(&watch), "it is woken");
        assert!(!watch.changed() && !readable(&watch), "and has nothing to say");
        std::fs::write(directory.join(FILE), "{}").unwrap();
        assert!(watch.changed() && !watch.changed());
        std::fs::write(home.path().join("new"), "{}").unwrap();
        std::fs::rename(home.path().join("new"), directory.join(FILE)).unwrap();
        assert!(watch.changed());
        assert!(StateWatch::new(&beneath, &own, Path::new("profiles/gone")).is_err());
        std::os::unix::fs::symlink(&directory, home.path().join("profiles/link")).unwrap();
        assert!(StateWatch::new(&beneath, &own, Path::new("profiles/link")).is_err());
    }
}
