//! A mount of cgroup2 that only the supervisor sees, where the visible one is read-only.
//!
//! Whoever may make a user namespace may mount cgroup2 in it (cgroup_namespaces(7)), at the root of its own cgroup
//! namespace, and a descriptor of that mount works for whoever holds it: what may be written is still decided by the
//! owner of the directories. A process with threads cannot enter a user namespace (unshare(2)), so a helper does it,
//! which is ourselves again: it mounts, hands the descriptor over and ends. Services get neither.
//!
//! The mount has no path. It is reached through /proc/self/fd, whose links lead where the descriptor is open.

use crate::containment::keeper::wire::{self, Heard};
use crate::containment::keeper::{MOUNT, SOCKET};
use crate::containment::ladder::{plan_of_self, wait_exit, wait_readable};
use crate::core::signal::Signal;
use crate::sys::mount::{self, MountStep};
use crate::sys::posture;
use crate::sys::spawn::clone;
use crate::sys::spawn::plan::Pass;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// The mount, for as long as anything of it is used.
#[derive(Debug, Clone)]
pub struct PrivateMount(Arc<OwnedFd>);

impl PrivateMount {
    /// Has it made. Waits for the helper, at most as long as a probe waits.
    ///
    /// # Errors
    /// In words: which step is not allowed.
    pub fn make() -> Result<Self, String> {
        let (socket, theirs) = wire::pair().map_err(|error| format!("socketpair: {error}"))?;
        let mut plan = plan_of_self(&[MOUNT]).map_err(|error| format!("plan: {error}"))?;
        plan.pass = Some(Pass { fd: theirs, number: SOCKET });
        let helper = clone::spawn(&mut plan, None).map_err(|error| format!("clone: {error}"))?;
        // Only the helper has the other end now: its death is an end-of-file.
        drop(plan);
        let heard = loop {
            match wire::hear(socket.as_fd(), decode) {
                Heard::Message((0, _), fds) => break fds.into_iter().next().ok_or_else(silent),
                Heard::Message((step, errno), _) => break Err(refusal(step, errno)),
                Heard::End => break Err(silent()),
                Heard::Nothing if !wait_readable(socket.as_fd()) => break Err(silent()),
                Heard::Nothing => {}
            }
        };
        if heard.is_err() {
            let _ = helper.pidfd.send(Signal::KILL);
        }
        wait_exit(helper.pidfd.as_fd())?;
        Ok(Self(Arc::new(heard?)))
    }

    /// Its root directory, which is our own cgroup.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

fn silent() -> String {
    "the helper that mounts it ended without a word".to_owned()
}

fn refusal(step: u8, errno: i32) -> String {
    let what = MountStep::from_byte(step).map_or("mount", MountStep::words);
    let hint = match errno {
        libc::EPERM | libc::ENOSYS => ": a seccomp or AppArmor profile, or the host, forbids it",
        libc::ENOSPC => ": user.max_user_namespaces is 0 or used up",
        _ => "",
    };
    format!("{what}: {}{hint}", clone::reason(errno))
}

fn decode(bytes: &[u8]) -> Option<(u8, i32)> {
    let &[step, a, b, c, d] = bytes else { return None };
    Some((step, i32::from_le_bytes([a, b, c, d])))
}

/// The helper: mounts, says so, ends.
///
/// # Errors
/// Nobody is there to be told.
pub fn helper() -> io::Result<()> {
    let socket = posture::inherited(SOCKET)?;
    let say = |step: u8, errno: i32, fds: &[_]| {
        let [a, b, c, d] = errno.to_le_bytes();
        wire::send(socket.as_fd(), &[step, a, b, c, d], fds)
    };
    match mount::private_cgroup2() {
        Ok(fd) => say(0, 0, &[fd.as_fd()]),
        Err((step, errno)) => say(step as u8, errno, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_step_and_what_may_be_behind_it() {
        assert_eq!(
            refusal(MountStep::Namespaces as u8, libc::EPERM),
            "a user namespace: Operation not permitted: a seccomp or AppArmor profile, or the host, forbids it"
        );
        assert_eq!(refusal(99, libc::EINVAL), "mount: Invalid argument");
        assert_eq!(decode(&[2, 1, 0, 0, 0]), Some((2, 1)));
        assert_eq!(decode(b"xy"), None);
    }
}
