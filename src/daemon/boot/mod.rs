//! The life of the process: a start as a pipeline of values (prepared → opened → contained → planned → running), the loop, the
//! end. Up to the loop, an error refuses to start with one line; from the loop on, nothing ends the process but its own orders.

mod alone;
mod bring_up;
pub(in crate::daemon) mod cmd;
mod demo;
pub(in crate::daemon) mod ownership;
pub(in crate::daemon) mod patience;
#[cfg(test)]
pub(in crate::daemon) mod played;
pub(in crate::daemon) mod preparation;
pub(in crate::daemon) mod reading;
pub(in crate::daemon) mod steps;

use crate::core::farewell::Farewell;
use crate::core::words::{LogFormat, Stream};
use crate::daemon::clock::Clock;
use crate::daemon::herald::Herald;
use crate::daemon::main_program::MainProgram;
use crate::daemon::sources::Notifier;
use crate::daemon::upgrade::handover::{Handover, OURSELVES};
use crate::daemon::{Mode, Notice, Options, Over, Supervisor, surface};
use crate::hermes::command::Command;
use crate::log::{Container, OwnLog};
use crate::store;
use crate::sys::signal::SignalFd;
use alone::alone;
use cmd::command_of;
use mio::Poll;
use preparation::Told;
use rustix::process::{Resource, Rlimit};
use slog::Drain;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use steps::contained::Contained;
use steps::opened::{Opened, Opening};
use steps::planned::Planned;
use steps::prepared::{Prepared, Preparing};
use steps::start_error::StartError;

/// How long the end waits for a disk or a reader to take the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Boots, supervises, ends; returns the exit code. Call it on the first thread, before there is another.
pub fn run(mut options: Options, mode: Mode) -> u8 {
    std::panic::set_hook(Box::new(|info| {
        // A damaged database may make its reader panic; that is caught and reported where it happens.
        if !store::panic_is_expected() {
            let _ = rustix::io::write(std::io::stderr(), format!("hermes-sup: bug: {info}\n").as_bytes());
            // The loop's own panics end the loop, and the store goes on.
            if !matches!(std::thread::current().name(), Some("main" | store::THREAD))
                && let Some(loop_of_ours) = ALARM.get()
            {
                loop_of_ours.send(Notice::Panicked);
            }
        }
    }));
    let former = Handover::take(&mut options.environment);
    let herald = Herald::take(&mut options.environment);
    // A stop signal that arrives from here on is kept until the loop reads it.
    let signals = match SignalFd::block() {
        Ok(signals) => signals,
        Err(error) => return refuse(None, &format!("failed to block signals: {error}")),
    };
    // What we were before we became this program has raised our own limit already.
    let nofile = prepare_process(&signals);
    let nofile = former.as_ref().map_or(nofile, |former| former.nofile);
    let container = match Container::start() {
        Ok(container) => container,
        Err(error) => return refuse(None, &format!("failed to start its threads: {error}")),
    };
    let demo = match options.demo.then(|| demo::prepare(&mut options)).transpose() {
        Ok(demo) => demo,
        Err(error) => return refuse(Some(&container), &format!("the demo cannot be set up: {error}")),
    };
    let log = logger(&options, &mode, &container);
    if former.is_some() && options.s6_surface {
        surface::resume(&mut options);
    } else if options.s6_surface {
        let say = |line: &str| container.line(Stream::Err, format!("{line}\n").as_bytes());
        let aside =
            matches!(&mode, Mode::Init { command } if command_of(command, &options) == Command::Hermes);
        let told = Told { say: &say, quiet: has_terminal(), aside };
        if let Err(code) = surface::prepare(&mut options, &signals, nofile, told) {
            container.finish(LAST_WORDS);
            return code;
        }
    }
    let bare = former.as_ref().map(Handover::bare);
    let is_demo = options.demo;
    let herald = herald.unwrap_or_else(|error| {
        slog::warn!(log, "{error}");
        Herald::default()
    });
    let given = Given { options, former, nofile, container: container.clone(), log: log.clone(), herald };
    let started = catch_unwind(AssertUnwindSafe(|| start(given, signals, &mode)));
    let started = match (started, bare) {
        (Ok(Err(error)), Some(mut bare)) => {
            slog::error!(log, "{error}");
            // We supervised a moment ago, and what we cannot do now may be possible in the next. The lives of services wait for us.
            if !bare.gives_up() && !matches!(error, StartError::ToldToEnd { .. }) {
                bare.panicked(Clock::start().now().0);
                return pass(bare, Path::new(OURSELVES), &[], &container);
            }
            // Nothing can be supervised any more, but the container is its main program.
            container.finish(LAST_WORDS);
            return bare.main.map_or_else(|| error.exit_code(), |main| main_alone(main, &log));
        }
        (Ok(started), _) => started,
        (Err(_), Some(mut bare)) => {
            bare.panicked(Clock::start().now().0);
            return pass(bare, Path::new(OURSELVES), &[], &container);
        }
        (Err(_), None) => return BUG,
    };
    let code = match started {
        Ok(Start::Supervise(mut supervisor, mut poll)) => {
            if let Some(demo) = &demo {
                container.line(Stream::Out, demo.welcome().as_bytes());
            }
            supervisor.serve_metrics();
            match catch_unwind(AssertUnwindSafe(|| supervisor.run(&mut poll))) {
                Ok(Over::Ended(code)) => {
                    supervisor.say_goodbye();
                    // What the services had in memory goes with the process: to give it back piece by piece takes 4 ms of a thousand.
                    Box::leak(supervisor);
                    code
                }
                Ok(Over::GivenUp) => {
                    let main = supervisor.main.take();
                    // The container goes on: nothing of ours stays in it.
                    supervisor.say_goodbye();
                    drop(supervisor);
                    match (main, SignalFd::block()) {
                        (Some(main), Ok(signals)) => alone(main, &signals, &log),
                        (None, _) | (_, Err(_)) => BUG,
                    }
                }
                Ok(Over::Replaced(program)) => {
                    let (handover, keep) = supervisor.hand_over(LAST_WORDS);
                    return pass(handover, &program, &keep, &container);
                }
                // What was told on the way is all that there is to tell.
                Err(_) if is_demo => BUG,
                Err(_) => {
                    let (handover, keep) = rescue(supervisor);
                    return pass(handover, Path::new(OURSELVES), &keep, &container);
                }
            }
        }
        Ok(Start::Alone(main, signals)) => alone(main, &signals, &log),
        Err(error) => {
            slog::error!(log, "{error}");
            error.exit_code()
        }
    };
    drop(demo);
    drop(log);
    container.finish(LAST_WORDS);
    code
}

/// Exit code of a Rust program that panicked.
const BUG: u8 = 101;

/// The loop, for threads that panic.
static ALARM: OnceLock<Notifier> = OnceLock::new();

/// Waits for a main program that was started before; returns its code.
fn main_alone(main: i32, log: &slog::Logger) -> u8 {
    match (MainProgram::adopt(main), SignalFd::block()) {
        (Ok(main), Ok(signals)) => alone(main, &signals, log),
        (Err(_), _) | (_, Err(_)) => BUG,
    }
}

/// After a panic nothing is believed but what has to survive. Callers lose their connections: one of their requests may
/// be what we cannot bear.
fn rescue(supervisor: Box<Supervisor>) -> (Handover, Vec<OwnedFd>) {
    let mut bare = supervisor.bare_handover();
    bare.panicked(supervisor.clock.now().0);
    slog::error!(supervisor.log, "a bug was met: going on in a fresh process image"; "within a minute" => bare.panics.len());
    match catch_unwind(AssertUnwindSafe(|| supervisor.hand_over(LAST_WORDS))) {
        Ok((handover, mut keep)) => {
            keep.retain(|fd| Some(fd.as_raw_fd()) == handover.listener);
            (Handover { listener: handover.listener, begun: handover.begun, ..bare }, keep)
        }
        Err(_) => (bare, Vec::new()),
    }
}

/// Becomes another program. Returns only when not even our own can be executed.
fn pass(handover: Handover, program: &Path, keep: &[OwnedFd], container: &Container) -> u8 {
    container.finish(LAST_WORDS);
    let error = handover.pass(program, keep);
    refuse(None, &format!("failed to execute ourselves: {error}"))
}

/// What a start is given.
struct Given {
    options: Options,
    /// What we were before we became this program.
    former: Option<Handover>,
    /// The soft and hard limit of open files that children get.
    nofile: Option<(u64, u64)>,
    container: Container,
    log: slog::Logger,
    herald: Herald,
}

enum Start {
    Supervise(Box<Supervisor>, Poll),
    /// Only the main program: the state is somebody else's.
    Alone(MainProgram, SignalFd),
}

fn refuse(container: Option<&Container>, line: &str) -> u8 {
    let text = format!("hermes-sup: {line}\n");
    match container {
        Some(container) => {
            container.line(Stream::Err, text.as_bytes());
            container.finish(LAST_WORDS);
        }
        None => drop(rustix::io::write(std::io::stderr(), text.as_bytes())),
    }
    1
}

/// So many descriptors fit into the table from the start: those of more than a thousand services, in 33 kB of the kernel's.
const ROOM: u64 = 4096;

/// What this process must be before it has children. Returns the limit of open files that children get back.
fn prepare_process(signals: &SignalFd) -> Option<(u64, u64)> {
    // Nobody of our uid may look into us or attach to us (ptrace(2)).
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // As PID 1 orphans come to us anyway; elsewhere this makes them (prctl(2), PR_SET_CHILD_SUBREAPER).
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    // A full table of descriptors is doubled, and where threads share it that waits for an RCU grace period (fs/file.c,
    // `expand_fdtable`): 5 to 20 ms in which the loop would stand still. There are no threads yet.
    let last = limit.maximum.map_or(ROOM, |most| ROOM.min(most)).saturating_sub(1);
    drop(rustix::io::fcntl_dupfd_cloexec(signals, i32::try_from(last).unwrap_or_default()));
    limit.current.zip(limit.maximum)
}

fn logger(options: &Options, mode: &Mode, container: &Container) -> slog::Logger {
    // While a main program has the terminal, only what it must not hide is written over it.
    let shares = matches!(mode, Mode::Init { .. }) && has_terminal();
    let level = if shares && options.log_level == slog::Level::Info {
        slog::Level::Warning
    } else {
        options.log_level
    };
    if options.log_format == LogFormat::Json {
        container.speak_json();
    }
    slog::Logger::root(OwnLog::new(container.clone(), level, options.log_format).fuse(), slog::o!())
}

/// The container was given a terminal, which then is the main program's.
pub(in crate::daemon) fn has_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal()
}

/// The steps of a start, each a value of its own type.
fn start(given: Given, signals: SignalFd, mode: &Mode) -> Result<Start, StartError> {
    let prepared = match Prepared::prepare(given, signals, mode)? {
        Preparing::GoesOn(prepared) => prepared,
        Preparing::Over(start) => return Ok(start),
    };
    let (mut prepared, mut opened, found) = match Opened::open(prepared)? {
        Opening::GoesOn(prepared, opened, found) => (prepared, opened, found),
        Opening::Over(start) => return Ok(start),
    };
    let mut contained = Contained::contain(&prepared, &mut opened, *found)?;
    if prepared.given.former.as_ref().is_some_and(Handover::gives_up) {
        slog::error!(
            prepared.given.log,
            "a bug was met again and again: everything was stopped, and nothing is supervised any more"
        );
        let main = contained.main.ok_or(StartError::PanicsAgain)?;
        return Ok(Start::Alone(main, prepared.wakeups.signals));
    }
    let planned = Planned::plan(&mut prepared, &opened, &mut contained);
    let (supervisor, poll) = Supervisor::running(*prepared, *opened, contained, planned)?;
    Ok(Start::Supervise(supervisor, poll))
}

impl Supervisor {
    /// What was told to gateways' state files on the way out; unknown, it would hide the next wish in them.
    pub(in crate::daemon) fn take_last_mirrors(&mut self) {
        while let Ok(notice) = self.wakeups.notices.try_recv() {
            if let Notice::Mirrored { id, name, written } = notice {
                self.mirrored(id, &name, written);
            }
        }
    }

    /// After the loop: what was written is written out, what was made is removed.
    fn say_goodbye(&mut self) {
        // The disk takes what is known of the last ends while the rest is done.
        self.store.hurry();
        if !self.logs.finish(LAST_WORDS) {
            slog::error!(self.log, "the last log lines could not be written");
        }
        self.take_last_mirrors();
        self.store.begin_to_close();
        self.containment.close();
        self.server.close();
        // Everything that wrote into the FIFOs has ended and was read.
        if self.farewell_of_names() == Farewell::Host
            && let Err(error) = std::fs::remove_dir_all(&self.runtime_dir)
        {
            slog::debug!(self.log, "the runtime directory stays"; "error" => %error);
        }
        if let Err(why) = self.store.close(LAST_WORDS) {
            slog::error!(self.log, "{why}");
        }
    }
}
