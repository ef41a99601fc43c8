//! Mount namespaces in which some mounts are read-only, for services that could write there otherwise.
//!
//! Mounts that are made outside still come in. A service in such a namespace cannot change it: that takes capabilities, and a
//! service that has them gets none. So all services that are kept from the same mounts share one namespace, and a process that
//! makes many children makes it once. A namespace of its own costs a child a copy of every mount when it starts, and when it ends
//! that copy again and a grace period of RCU (fs/namespace.c, `namespace_unlock`).
#![allow(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Goes into a new one. Only in a process of one thread. Where that is not allowed the service starts all the same, and
/// `status` looks at what it sees.
pub(super) fn raise(points: &[CString]) {
    if !points.is_empty() && apart().is_ok() {
        let _ = protect(points);
    }
}

fn apart() -> rustix::io::Result<()> {
    // SAFETY: the only thread of this process; a mount namespace does not change what its descriptors mean.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}

fn protect(points: &[CString]) -> rustix::io::Result<()> {
    // Without this the next step would reach everybody.
    rustix::mount::mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for point in points {
        let _ = rustix::mount::mount_remount(point.as_c_str(), flags, c"");
    }
    Ok(())
}

/// A way back into a mount namespace, and to what is the root directory there.
#[derive(Debug)]
struct Place {
    namespace: OwnedFd,
    root: OwnedFd,
}

impl Place {
    fn here() -> rustix::io::Result<Self> {
        let open = |path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
        let namespace = open("/proc/self/ns/mnt", OFlags::RDONLY)?;
        Ok(Self { namespace, root: open("/", OFlags::PATH | OFlags::DIRECTORY)? })
    }

    fn enter(&self) -> rustix::io::Result<()> {
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        // It has made the namespace's own root ours, above which ours may have been.
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")
    }
}

/// The namespaces of a process that makes children.
#[derive(Debug, Default)]
pub(super) struct Shields {
    /// With the list of its mounts; `Some(None)`: we could not come back from elsewhere.
    own: Option<Option<(Place, File)>>,
    /// What was made last, and for which mounts. It has what is mounted at home, as that was then.
    made: Option<(Vec<CString>, Place)>,
    /// We are not in our own.
    away: bool,
}

impl Shields {
    /// Goes where these mounts are read-only; home if there are none. Returns whether that is where we are now; if not, we are at
    /// home.
    ///
    /// # Errors
    /// We are somewhere where nobody must be made.
    pub(super) fn enter(&mut self, points: &[CString]) -> io::Result<bool> {
        if self.mounts_have_changed() {
            self.made = None;
        }
        match &self.made {
            _ if points.is_empty() => self.leave().map(|()| true),
            Some((of, _)) if of == points && self.away => Ok(true),
            Some((of, place)) if of == points => {
                place.enter()?;
                self.away = true;
                Ok(true)
            }
            Some(_) | None => {
                self.leave()?;
                self.make(points)
            }
        }
    }

    fn make(&mut self, points: &[CString]) -> io::Result<bool> {
        // Going to where we are takes the same rights as coming back.
        let own = || {
            let own = Place::here().ok().filter(|own| own.enter().is_ok())?;
            Some((own, File::open("/proc/self/mountinfo").ok()?))
        };
        if self.own.get_or_insert_with(own).is_none() {
            return Ok(false);
        }
        // From here on each further change counts.
        self.mounts_have_changed();
        if apart().is_err() {
            return Ok(false);
        }
        self.away = true;
        match protect(points).and_then(|()| Place::here()) {
            Ok(place) => self.made = Some((points.to_vec(), place)),
            Err(_) => self.leave()?,
        }
        Ok(self.away)
    }

    /// Since the last time that this was asked (proc(5), "/proc/pid/mounts"). Not every mount made at home comes in elsewhere.
    fn mounts_have_changed(&self) -> bool {
        let Some(Some((_, mounts))) = &self.own else { return false };
        let mut changed = [PollFd::new(mounts, PollFlags::PRI)];
        rustix::event::poll(&mut changed, Some(&Timespec::default())) != Ok(0)
    }

    fn leave(&mut self) -> io::Result<()> {
        if let (true, Some(Some((own, _)))) = (self.away, &self.own) {
            own.enter()?;
            self.away = false;
        }
        Ok(())
    }
}
