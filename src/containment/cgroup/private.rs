//! A mount of cgroup2 that only the supervisor sees, where the visible one is read-only.
//!
//! A process that may make a user namespace may mount cgroup2 in it (cgroup_namespaces(7)), at the root of its own cgroup
//! namespace. A descriptor of that mount works in any process: what may be written is still decided by the owner of the
//! directories. A process with threads cannot enter a user namespace (unshare(2)), so a helper does it,
//! which is ourselves again: it mounts, hands the descriptor over and ends. Services get neither.
//!
//! The mount has no path. It is reached through /proc/self/fd, whose links lead where the descriptor is open.

use crate::containment::keeper::wire::{self, Heard};
use crate::containment::keeper::{MOUNT, SOCKET, plan_of_self};
use crate::containment::ladder::{wait_exit, wait_readable};
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

/// Why there is no such mount; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMount {
    #[error("the helper that mounts it ended without a word")]
    Silent,
    #[error("{what}: {reason}{hint}", what = .step.map_or("mount", MountStep::words), reason = clone::reason(*.errno), hint = hint(*.errno))]
    Step { step: Option<MountStep>, errno: i32 },
    #[error("{what}: {why}")]
    Helper { what: &'static str, why: String },
}

impl PrivateMount {
    /// Has it made. Waits for the helper, at most as long as a probe waits.
    ///
    /// # Errors
    /// [`NoMount`]: the step that is not allowed.
    pub fn make() -> Result<Self, NoMount> {
        let failed = |what| move |error: io::Error| NoMount::Helper { what, why: error.to_string() };
        let (socket, theirs) = wire::pair().map_err(failed("socketpair"))?;
        let mut plan = plan_of_self(&[MOUNT]).map_err(failed("plan"))?;
        plan.pass = Some(Pass { fd: theirs, number: SOCKET });
        let helper = clone::spawn(&mut plan, None).map_err(failed("clone"))?;
        // Only the helper has the other end now: its death is an end-of-file.
        drop(plan);
        let heard = loop {
            match wire::hear(socket.as_fd(), decode) {
                Heard::Message((0, _), fds) => break fds.into_iter().next().ok_or(NoMount::Silent),
                Heard::Message((step, errno), _) => break Err(refusal(step, errno)),
                Heard::End => break Err(NoMount::Silent),
                Heard::Nothing if !wait_readable(socket.as_fd()) => break Err(NoMount::Silent),
                Heard::Nothing => {}
            }
        };
        if heard.is_err() {
            let _ = helper.pidfd.send(Signal::KILL);
        }
        let ended = wait_exit(helper.pidfd.as_fd());
        ended.map_err(|why| NoMount::Helper { what: "the helper that mounts it", why: why.to_string() })?;
        Ok(Self(Arc::new(heard?)))
    }

    /// Its root directory, which is our own cgroup.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

fn refusal(step: u8, errno: i32) -> NoMount {
    NoMount::Step { step: MountStep::from_byte(step), errno }
}

fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM | libc::ENOSYS => ": a seccomp or AppArmor profile, or the host, forbids it",
        libc::ENOSPC => ": user.max_user_namespaces is 0 or used up",
        _ => "",
    }
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
            refusal(MountStep::Namespaces as u8, libc::EPERM).to_string(),
            "a user namespace: Operation not permitted: a seccomp or AppArmor profile, or the host, forbids it"
        );
        assert_eq!(refusal(99, libc::EINVAL).to_string(), "mount: Invalid argument");
        assert_eq!(decode(&[2, 1, 0, 0, 0]), Some((2, 1)));
        assert_eq!(decode(b"xy"), None);
    }
}
