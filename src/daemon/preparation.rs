//! What an image made for s6-overlay does before its services: the scripts of `/etc/cont-init.d`, one after the other.
//!
//! They run before anything is supervised, as we are, with the container's streams. Meanwhile this process is already
//! an init: it reaps, and a stop signal ends the script and then us. A script may take long (it changes the owner of a
//! whole volume), so there is no limit but the operator's patience.

use super::Options;
use super::launch::dev_null;
use crate::core::exit::Exit;
use crate::core::signal::Signal;
use crate::s6::bundle;
use crate::sys::clone::{self, Child};
use crate::sys::plan::{ChildPlan, Stdio};
use crate::sys::reap;
use crate::sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// What a failing script means (s6-overlay): 0 and 1 go on, 2 and more end the container with its exit code.
const IF_FAILS: &str = "S6_BEHAVIOUR_IF_STAGE2_FAILS";
/// Runs them all. `Err`: end now with this exit code.
pub fn run_scripts(
    options: &Options,
    signals: &SignalFd,
    nofile: Option<(u64, u64)>,
    say: &dyn Fn(&str),
) -> Result<(), u8> {
    let strict = options
        .variable(IF_FAILS)
        .and_then(|value| value.to_str()?.trim().parse::<u32>().ok())
        .is_some_and(|behaviour| behaviour >= 2);
    let scripts = bundle::scripts(Path::new(bundle::CONT_INIT)).unwrap_or_else(|error| {
        say(&format!("cont-init: error: {} cannot be read: {error}", bundle::CONT_INIT));
        Vec::new()
    });
    for bundle::Script { path, .. } in scripts {
        let shown = path.display();
        say(&format!("cont-init: info: running {shown}"));
        let code = match start(&path, options, nofile) {
            Ok(child) => wait(&child, options, signals)?,
            Err(error) => {
                say(&format!("cont-init: error: {shown} cannot be started: {error}"));
                126
            }
        };
        say(&format!("cont-init: info: {shown} exited {code}"));
        if code != 0 && strict {
            say("cont-init: fatal: stopping the container");
            return Err(code);
        }
    }
    Ok(())
}

fn start(script: &Path, options: &Options, nofile: Option<(u64, u64)>) -> Result<Child, String> {
    let null = || dev_null().map_err(|error| format!("failed to open /dev/null: {error}"));
    let mut argv = vec![script.as_os_str()];
    if is_plain_script(script) {
        argv.insert(0, OsStr::new("/bin/sh"));
    }
    let mut plan = ChildPlan::new(&argv, &options.environment, None, [null()?, null()?, null()?])
        .map_err(|error| error.to_string())?;
    plan.stdout = Stdio::Inherit;
    plan.stderr = Stdio::Inherit;
    plan.nofile = nofile;
    clone::spawn(&mut plan, None).map_err(|error| error.to_string())
}

/// Text without `#!`, which execve(2) refuses and execvp(3) gives to the shell.
fn is_plain_script(path: &Path) -> bool {
    let mut head = [0u8; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && !head.starts_with(b"#!") && head != *b"\x7fELF"
}

/// Until the script has ended; returns its exit code as a shell would. Whatever else ends meanwhile is reaped.
fn wait(child: &Child, options: &Options, signals: &SignalFd) -> Result<u8, u8> {
    let mut asked = false;
    loop {
        while let Ok(reaped) = reap::next() {
            if reaped.pid == child.pid && !reaped.is_stop() {
                let exit = Exit::from_wait_status(reaped.status).unwrap_or(Exit::Unknown);
                return if asked { Err(0) } else { Ok(exit.shell_code()) };
            }
        }
        let patience = asked.then(|| Timespec {
            tv_sec: i64::try_from(options.stop_budget.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(options.stop_budget.subsec_nanos()),
        });
        let mut ready = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        if rustix::event::poll(&mut ready, patience.as_ref()).is_ok_and(|ready| ready == 0) {
            let _ = child.pidfd.send(Signal::KILL);
        }
        while let Ok(Some(received)) = signals.read() {
            let stops =
                matches!(received.signal, Signal::TERM | Signal::INT | Signal::RTMIN_PLUS_3 | Signal::PWR);
            if stops {
                let _ = child.pidfd.send(if asked { Signal::KILL } else { Signal::TERM });
                asked = true;
            }
        }
    }
}
