//! What an image made for s6-overlay does before its services: the scripts of `/etc/cont-init.d`, one after the other.
//!
//! They run before anything is supervised, as we are, with the container's streams. Meanwhile this process is already
//! an init: it reaps, and a stop signal ends the script and then us. A script may take long (it changes the owner of a
//! whole volume), so there is no limit but the operator's patience.

use crate::containment;
use crate::core::clock::{LostTime, Tick};
use crate::core::exit::Exit;
use crate::core::signal::Signal;
use crate::daemon::Options;
use crate::daemon::clock::Clock;
use crate::daemon::main_program::{NOT_EXECUTABLE, NOT_FOUND};
use crate::daemon::services::launch::dev_null;
use crate::definition::programs;
use crate::s6::bundle;
use crate::sys::pidfd::Pidfd;
use crate::sys::reap::{self, Left};
use crate::sys::signal::SignalFd;
use crate::sys::spawn::clone::{self, Child, Progress, Subject};
use crate::sys::spawn::plan::{ChildPlan, PlanError, Stdio};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// What a failing script means (s6-overlay): 0 and 1 go on, 2 and more end the container with its exit code.
const IF_FAILS: &str = "S6_BEHAVIOUR_IF_STAGE2_FAILS";
/// How long what is killed at the end may take to vanish.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Where the lines about scripts go.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    pub say: &'a dyn Fn(&str),
    /// Only what is wrong is told: the rest would be in the way on a terminal.
    pub quiet: bool,
    /// What scripts print goes to stderr: stdout is the command's, and somebody may read it.
    pub aside: bool,
}

impl Told<'_> {
    fn info(self, text: &str) {
        if !self.quiet {
            (self.say)(&format!("cont-init: info: {text}"));
        }
    }

    fn error(self, text: &str) {
        (self.say)(&format!("cont-init: error: {text}"));
    }
}

/// Runs them all. `Err`: end now with this exit code; nothing that a script started is left then.
pub fn run_scripts(
    options: &Options,
    signals: &SignalFd,
    nofile: Option<(u64, u64)>,
    told: Told<'_>,
) -> Result<(), u8> {
    let strict = options
        .variable(IF_FAILS)
        .and_then(|value| value.to_str()?.trim().parse::<u32>().ok())
        .is_some_and(|behaviour| behaviour >= 2);
    let scripts = bundle::scripts(Path::new(bundle::CONT_INIT)).unwrap_or_else(|error| {
        told.error(&format!("{} cannot be read: {error}", bundle::CONT_INIT));
        Vec::new()
    });
    for script in scripts {
        let shown = script.display();
        told.info(&format!("running {shown}"));
        let ended = run(&script, options, signals, nofile, told.aside);
        let code = match ended {
            Ended::Code(code) => code,
            Ended::NotStarted { why, code } => {
                told.error(&format!("{shown} cannot be started: {why}"));
                code
            }
            Ended::AskedToStop => {
                end_the_rest(signals);
                return Err(0);
            }
        };
        told.info(&format!("{shown} exited {code}"));
        if code != 0 && strict {
            (told.say)("cont-init: fatal: stopping the container");
            end_the_rest(signals);
            return Err(code);
        }
    }
    Ok(())
}

/// What became of a script, with exit codes as a shell gives them.
enum Ended {
    Code(u8),
    NotStarted {
        why: String,
        code: u8,
    },
    /// It ended because the container is to.
    AskedToStop,
}

/// Why there is no process for a script.
#[derive(Debug, thiserror::Error)]
enum NotStarted {
    #[error("failed to open /dev/null: {0}")]
    Null(io::Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Clone(io::Error),
}

fn run(
    script: &Path,
    options: &Options,
    signals: &SignalFd,
    nofile: Option<(u64, u64)>,
    aside: bool,
) -> Ended {
    let (mut child, subject) = match start(script, options, nofile, aside) {
        Ok(started) => started,
        Err(error) => return Ended::NotStarted { why: error.to_string(), code: NOT_EXECUTABLE },
    };
    let Some(code) = wait(&child, options, signals) else { return Ended::AskedToStop };
    match child.report.read() {
        Progress::Failed(failure) => {
            let missing = failure.errno == rustix::io::Errno::NOENT.raw_os_error();
            let code = if missing { NOT_FOUND } else { NOT_EXECUTABLE };
            Ended::NotStarted { why: subject.words(failure), code }
        }
        Progress::Pending | Progress::Executed | Progress::Killed => Ended::Code(code),
    }
}

fn start(
    script: &Path,
    options: &Options,
    nofile: Option<(u64, u64)>,
    aside: bool,
) -> Result<(Child, Subject), NotStarted> {
    let null = || dev_null().map_err(NotStarted::Null);
    let mut argv = vec![script.as_os_str()];
    if is_plain_script(script) {
        argv.insert(0, OsStr::new("/bin/sh"));
    }
    let mut plan = ChildPlan::new(&argv, &options.environment, None, [null()?, null()?, null()?])?;
    if let (0, Some(path)) = (rustix::process::geteuid().as_raw(), options.variable("PATH")) {
        let path = programs::path_of(&path, 0);
        plan.set_env("PATH", &path.to_string_lossy())?;
    }
    let stderr = || rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 0);
    // Without a stderr there is nothing to put aside to.
    plan.stdout = aside.then(stderr).and_then(Result::ok).map_or(Stdio::Inherit, Stdio::Fd);
    plan.stderr = Stdio::Inherit;
    plan.nofile = nofile;
    let subject = Subject::of(&plan);
    let child = clone::spawn(&mut plan, None).map_err(NotStarted::Clone)?;
    Ok((child, subject))
}

/// Text without `#!`, which execve(2) refuses and execvp(3) gives to the shell.
fn is_plain_script(path: &Path) -> bool {
    let mut head = [0u8; 4];
    let executable = path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    executable && read.is_ok() && !head.starts_with(b"#!") && head != *b"\x7fELF"
}

/// Until the script has ended. Whatever else ends meanwhile is reaped. `None`: a stop signal came.
fn wait(child: &Child, options: &Options, signals: &SignalFd) -> Option<u8> {
    let clock = Clock::start();
    let mut killed_at = None;
    loop {
        while let Ok(reaped) = reap::next() {
            if reaped.pid == child.pid && !reaped.is_stop() {
                let exit = Exit::from_wait_status(reaped.status).unwrap_or(Exit::Unknown);
                return killed_at.is_none().then(|| exit.shell_code());
            }
        }
        if !signalled(signals, &clock, &mut killed_at) {
            let _ = child.pidfd.send(Signal::KILL);
        }
        while let Ok(Some(received)) = signals.read() {
            let stops =
                matches!(received.signal, Signal::TERM | Signal::INT | Signal::RTMIN_PLUS_3 | Signal::PWR);
            if stops {
                let _ = child.pidfd.send(if killed_at.is_some() { Signal::KILL } else { Signal::TERM });
                // A stopped one would not hear it.
                let _ = child.pidfd.send(Signal::CONT);
                killed_at.get_or_insert_with(|| clock.now().after(options.stop_budget));
            }
        }
    }
}

/// Kills what scripts left behind. As PID 1 our own end would do it; below another init they would stay.
fn end_the_rest(signals: &SignalFd) {
    let clock = Clock::start();
    let mut until = Some(clock.now().after(LAST_PATIENCE));
    loop {
        for pid in containment::children_of_ours() {
            if let Ok(orphan) = Pidfd::open(pid) {
                let _ = orphan.send(Signal::KILL);
            }
        }
        let left = loop {
            if let Err(left) = reap::next() {
                break left;
            }
        };
        if left != Left::Living || !signalled(signals, &clock, &mut until) {
            return;
        }
        while let Ok(Some(_)) = signals.read() {}
    }
}

/// Waits for a signal, also that of a child's end. False when it is `until`, which moves by the time in which we did not run.
fn signalled(signals: &SignalFd, clock: &Clock, until: &mut Option<Tick>) -> bool {
    let mut lost_time = LostTime::default();
    loop {
        let now = clock.now();
        if until.is_some_and(|until| until <= now) {
            return false;
        }
        let wake = lost_time.wait_until(now, *until).map(|wake| wake.since(now));
        let wake = wake.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        let mut ready = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        let is_ready = !rustix::event::poll(&mut ready, wake.as_ref()).is_ok_and(|ready| ready == 0);
        let lost = lost_time.found(clock.now());
        *until = until.map(|until| until.after(lost));
        if is_ready {
            return true;
        }
    }
}
