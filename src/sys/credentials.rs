//! Acting on files as somebody else, one thread at a time.
//!
//! The supervisor is often root and the volume belongs to the gateway user, who may have planted links and odd files
//! there. Such a file is touched with that user's file-system credentials, so that the kernel refuses
//! what the user could not have done.
//!
//! setfsuid(2), setfsgid(2) and the raw setgroups(2) act on the calling thread only; setting a non-zero fsuid also
//! takes CAP_DAC_OVERRIDE and its kin out of the effective set until the fsuid is 0 again (capabilities(7)).
#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;

/// Who touches a file: user, primary group and supplementary groups. Of a service it is kept in several places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Arc<[u32]>,
}

impl Credentials {
    /// Those of this process.
    pub fn own() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
        }
    }

    /// In one more group.
    pub fn join(&mut self, group: u32) {
        self.groups = self.groups.iter().copied().chain([group]).collect();
    }

    /// Runs `work` on this thread with these file-system credentials, and restores our own afterwards, on a panic too.
    ///
    /// Without the right to change (not root, and `self` is another user) nothing is run.
    ///
    /// # Errors
    /// `PermissionDenied` when the kernel does not let us act as that user.
    pub fn on_files<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        if rustix::process::geteuid().as_raw() == self.uid {
            return Ok(work());
        }
        let _guard = Borrowed::take(self)?;
        Ok(work())
    }

    /// The same with the group too where the user is our own: its files are made for that group, and what the group may
    /// do, it does.
    ///
    /// # Errors
    /// Those of `work`, and `PermissionDenied` as in [`Self::on_files`].
    pub fn as_group<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if fs_ids() == (self.uid, self.gid) {
            return work();
        }
        let own = Self::own();
        let groups = if own.uid == self.uid { own.groups } else { self.groups.clone() };
        let _guard = Borrowed::take(&Self { groups, ..self.clone() })?;
        work()
    }

    /// Becomes that user for good: this thread, and whatever it executes. For a process of one thread that is about to
    /// execute something.
    ///
    /// # Errors
    /// As setgroups(2), setresgid(2), setresuid(2), in this order: after an error the process is to end, unless it is
    /// `PermissionDenied` by the first, which has changed nothing.
    pub fn assume(&self) -> io::Result<()> {
        set_groups(&self.groups)?;
        let (uid, gid) = (rustix::process::Uid::from_raw(self.uid), rustix::process::Gid::from_raw(self.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
    }
}

/// Gives the thread the credentials back that it had, when dropped: its own, or those of another loan around this one.
struct Borrowed {
    before: Credentials,
}

impl Borrowed {
    fn take(wanted: &Credentials) -> io::Result<Self> {
        let (uid, gid) = fs_ids();
        let guard = Self { before: Credentials { uid, gid, ..Credentials::own() } };
        set_groups(&wanted.groups)?;
        set_fs_ids(wanted.uid, wanted.gid)?;
        Ok(guard)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Going back to what we were cannot be refused: the ids are our real, effective and saved ones, or we had the right
        // to take them.
        let _ = set_fs_ids(self.before.uid, self.before.gid);
        let _ = set_groups(&self.before.groups);
    }
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe one live slice of gid_t (u32); the raw call changes this thread only.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// setfsuid(2) reports no error: only a second call tells what is in force.
fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain integer arguments; both calls act on this thread and cannot fail in a way that matters here.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, libc::c_ulong::from(gid));
        libc::syscall(libc::SYS_setfsuid, libc::c_ulong::from(uid));
    }
    if fs_ids() == (uid, gid) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// The ids in force: an invalid one changes nothing.
fn fs_ids() -> (u32, u32) {
    const ASK: libc::c_ulong = libc::c_ulong::MAX;
    // SAFETY: as in `set_fs_ids`.
    let (uid, gid) =
        unsafe { (libc::syscall(libc::SYS_setfsuid, ASK), libc::syscall(libc::SYS_setfsgid, ASK)) };
    (uid as u32, gid as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_root_cannot_be_read_as_another_user_and_the_thread_comes_back() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can become somebody else; the host tier runs this as root.
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let nobody = Credentials { uid: 65534, gid: 65534, groups: [].into() };
        let seen = nobody.on_files(|| std::fs::read(&file).map_err(|e| e.kind())).unwrap();
        assert_eq!(seen, Err(io::ErrorKind::PermissionDenied));
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
        let panicked = std::panic::catch_unwind(|| nobody.on_files(|| panic!("inside")));
        assert!(panicked.is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
        // A loan within a loan ends where it began.
        let other = Credentials { uid: 65533, gid: 65533, groups: [].into() };
        let seen = nobody.on_files(|| {
            other.on_files(|| ()).unwrap();
            (fs_ids(), std::fs::read(&file).map_err(|e| e.kind()))
        });
        assert_eq!(seen.unwrap(), ((65534, 65534), Err(io::ErrorKind::PermissionDenied)));
    }

    #[test]
    fn who_has_become_somebody_else_stays_it() {
        if !rustix::process::geteuid().is_root() {
            return; // As above.
        }
        let nobody = Credentials { uid: 65534, gid: 65533, groups: [65532].into() };
        let (nobody, became, again) = std::thread::spawn(move || {
            nobody.assume().unwrap();
            let became = Credentials::own();
            (nobody, became, Credentials { uid: 0, gid: 0, groups: [].into() }.assume())
        })
        .join()
        .unwrap();
        assert_eq!(became, nobody);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
