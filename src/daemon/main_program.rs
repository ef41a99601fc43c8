//! The container's CMD: our direct child with the terminal, without keeper or cgroup of its own.

use crate::core::exit::Exit;
use crate::core::signal::Signal;
use crate::daemon::services::launch::dev_null;
use crate::daemon::sources::{Room, plain_token};
use crate::daemon::{Options, Supervisor};
use crate::definition::users::{UserError, gateway_user};
use crate::sys::pidfd::Pidfd;
use crate::sys::reap::Reaped;
use crate::sys::spawn::clone::{self, Child, Progress, Report, Subject};
use crate::sys::spawn::plan::{ChildPlan, PlanError, Session, Stdio};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Exit codes of a shell for a program that is nowhere, and for one that cannot be executed (POSIX, "Exit Status").
pub const NOT_FOUND: u8 = 127;
pub const NOT_EXECUTABLE: u8 = 126;

/// The CMD while it runs.
#[derive(Debug)]
pub struct MainProgram {
    pid: i32,
    pidfd: Pidfd,
    /// Until its exec is decided.
    report: Option<(Report, Subject)>,
    /// Why it could not be executed, and the exit code for that.
    failed: Option<(String, u8)>,
}

/// Why the CMD is not started, in one line.
#[derive(Debug, thiserror::Error)]
pub enum MainProgramError {
    #[error("the main program cannot run: {0}")]
    User(#[from] UserError),
    #[error("the main program cannot run: {0}")]
    Plan(#[from] PlanError),
    #[error("failed to open /dev/null: {0}")]
    Null(io::Error),
    #[error("the main program cannot be started: {0}")]
    Clone(io::Error),
}

impl MainProgram {
    /// Starts `argv` as `user` (`None`: as we are) in the present directory with our environment, streams and
    /// terminal.
    ///
    /// # Errors
    /// An unknown user, an impossible command, or clone(2) failed.
    pub fn start(
        argv: &[OsString],
        options: &Options,
        nofile: Option<(u64, u64)>,
    ) -> Result<Self, MainProgramError> {
        let own_uid = rustix::process::geteuid().as_raw();
        // An image's default is no order to a container that was started as another user.
        let wanted = options.main_user.as_deref().filter(|_| own_uid == 0);
        let user = wanted.map(|name| gateway_user(Some(name))).transpose();
        let user = user?;
        let changed = user.filter(|user| user.uid != own_uid);
        let mut env = options.environment.clone();
        if let Some(user) = &changed {
            env.insert("HOME".into(), user.home.clone().into());
            env.insert("USER".into(), user.name.clone().into());
            env.insert("LOGNAME".into(), user.name.clone().into());
        }
        let null = || dev_null().map_err(MainProgramError::Null);
        let mut plan = ChildPlan::new(argv, env, None, [null()?, null()?, null()?])?;
        plan.stdin = Stdio::Inherit;
        plan.stdout = Stdio::Inherit;
        plan.stderr = Stdio::Inherit;
        plan.session = Session::Foreground { terminal: terminal() };
        plan.nofile = nofile;
        plan.identity = changed.map(|user| user.credentials());
        let subject = Subject::of(&plan);
        let child = clone::spawn(&mut plan, None).map_err(MainProgramError::Clone)?;
        let Child { pid, pidfd, report } = child;
        Ok(Self { pid, pidfd, report: Some((report, subject)), failed: None })
    }

    /// Goes on with a child that was started before we became another program.
    ///
    /// # Errors
    /// As pidfd_open(2): it is no child of ours.
    pub fn adopt(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, pidfd: Pidfd::open(pid)?, report: None, failed: None })
    }

    /// Puts the report of its exec into the loop.
    pub fn register(&self, registry: &Registry) -> io::Result<()> {
        let Some((report, _)) = &self.report else { return Ok(()) };
        let fd = report.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), plain_token(Room::MainProgram), Interest::PRIORITY)
    }

    /// Reads how far it has come; returns the line to show when it cannot be executed.
    pub fn reported(&mut self, registry: Option<&Registry>) -> Option<String> {
        let (report, _) = self.report.as_mut()?;
        let failure = match report.read() {
            Progress::Pending => return None,
            Progress::Failed(failure) => Some(failure),
            Progress::Executed | Progress::Killed => None,
        };
        let (report, subject) = self.report.take()?;
        if let Some(registry) = registry {
            let fd = report.as_fd().as_raw_fd();
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
        let failure = failure?;
        let words = subject.words(failure);
        let code = if failure.errno == libc_enoent() { NOT_FOUND } else { NOT_EXECUTABLE };
        self.failed = Some((words.clone(), code));
        Some(words)
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended in between: then its reaping is on the way.
        let _ = self.pidfd.send(signal);
    }

    /// What a reaped child means if it was this one: `None` it was not, `Some(None)` it was only stopped and goes on.
    pub fn ended(&mut self, reaped: Reaped, registry: Option<&Registry>) -> Option<Option<u8>> {
        if reaped.pid != self.pid {
            return None;
        }
        if reaped.is_stop() {
            // There is no shell that it could be brought back to the foreground from. The key stopped its whole group,
            // whose number cannot be another's while we have not reaped its leader.
            if let Some(group) = rustix::process::Pid::from_raw(self.pid) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::CONT);
            }
            return Some(None);
        }
        self.reported(registry);
        let exit = Exit::from_wait_status(reaped.status).unwrap_or(Exit::Unknown);
        Some(Some(self.failed.as_ref().map_or(exit.shell_code(), |(_, code)| *code)))
    }
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

/// The terminal that the main program gets as its own, if standard input is one.
fn terminal() -> Option<OwnedFd> {
    let stdin = io::stdin();
    stdin.is_terminal().then(|| stdin.as_fd().try_clone_to_owned().ok()).flatten()
}

/// Whether `program`, a name on this PATH or a path, is a file that somebody may execute.
pub fn executable(program: &OsStr, path: Option<&OsStr>) -> bool {
    let runs = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.as_bytes().contains(&b'/') {
        return runs(Path::new(program));
    }
    std::env::split_paths(path.unwrap_or_default()).any(|dir| runs(&dir.join(program)))
}

impl Supervisor {
    pub(super) fn main_reported(&mut self) {
        let registry = &self.wakeups.registry;
        if let Some(words) = self.main.as_mut().and_then(|main| main.reported(Some(registry))) {
            slog::error!(self.log, "{words}");
        }
    }

    /// True when the reaped child was the main program.
    pub(super) fn main_changed(&mut self, reaped: Reaped) -> bool {
        let registry = &self.wakeups.registry;
        let Some(change) = self.main.as_mut().and_then(|main| main.ended(reaped, Some(registry))) else {
            return false;
        };
        if let Some(code) = change {
            self.main = None;
            self.main_ended(code);
        }
        true
    }
}
