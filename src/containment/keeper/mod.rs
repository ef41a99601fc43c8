//! The rungs `keeper`, `keeper-same-uid` and `pidns`: one small process for each incarnation, which is the parent of its
//! tree. On `pidns` it is also the first process of a PID namespace.
//!
//! `process.rs` is that process, `hook.rs` a program that it runs beside the main one, `wire.rs` the messages between it and the
//! supervisor. On the supervisor's side: `probe.rs` tries the rungs, `mechanism.rs` makes keepers, `handle.rs` is one life under a
//! keeper, `scope.rs` a scope in it, `lost.rs` what happens when a keeper dies first, `tags.rs` the groups by which a tree is known.

mod handle;
mod hook;
mod lost;
pub(super) mod mechanism;
pub(super) mod probe;
mod process;
mod scope;
pub(super) mod tags;
pub(super) mod wire;

pub use process::{ARGUMENT, main, serve};
pub(super) use process::{MOUNT, SOCKET};

use crate::sys::spawn::plan::{ChildPlan, Pass};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The keepers' directory cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {errno}")]
pub struct NoDirectory {
    path: String,
    errno: Errno,
}

/// Where keepers without a supervisor listen.
pub(super) fn keepers_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("keepers")
}

/// Makes and opens it: mode 0700, ours.
pub(super) fn keepers_dir(runtime_dir: &Path) -> Result<OwnedFd, NoDirectory> {
    let path = keepers_path(runtime_dir);
    let named = |errno| NoDirectory { path: path.display().to_string(), errno };
    match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(named(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(named)
}

/// /dev/null, open for both.
fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// How a keeper is made: our own program again, no environment, nothing open but its socket. The instance is in its arguments
/// for a successor to see; the service is not, for others not to.
fn plan(instance: &str, null: BorrowedFd<'_>, socket: OwnedFd) -> io::Result<ChildPlan> {
    let copy = || rustix::io::fcntl_dupfd_cloexec(null, 4);
    let none: [(&str, &str); 0] = [];
    let mut plan =
        ChildPlan::new(&["hermes-sup", ARGUMENT, instance], none, None, [copy()?, copy()?, copy()?])
            .map_err(io::Error::other)?;
    plan.set_program(c"/proc/self/exe".to_owned());
    plan.pass = Some(Pass { fd: socket, number: SOCKET });
    Ok(plan)
}

/// Our own program again, as a helper with these arguments.
pub(super) fn plan_of_self(arguments: &[&str]) -> io::Result<ChildPlan> {
    let none: [(&str, &str); 0] = [];
    let argv: Vec<&str> = ["hermes-sup", ARGUMENT].into_iter().chain(arguments.iter().copied()).collect();
    let mut plan =
        ChildPlan::new(&argv, none, None, [null()?, null()?, null()?]).map_err(io::Error::other)?;
    plan.set_program(c"/proc/self/exe".to_owned());
    Ok(plan)
}
