//! First step: what the container's command asks for, who we are, a home, and a loop to be woken by.

use crate::daemon::boot::bring_up::say_first;
use crate::daemon::boot::cmd::{Claims, command_of};
use crate::daemon::boot::ownership::Gateways;
use crate::daemon::boot::ownership::places::{may_run_others, prepare_home};
use crate::daemon::boot::patience::with_patience;
use crate::daemon::boot::reading::Finding;
use crate::daemon::boot::reading::finding::{Busy, Sources};
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::boot::{ALARM, Given, Start};
use crate::daemon::clock::Clock;
use crate::daemon::main_program::MainProgram;
use crate::daemon::sources::scan_watch::ScanWatch;
use crate::daemon::sources::wall_timer::WallTimer;
use crate::daemon::sources::{Notifier, Room, Timer, Wakeups, plain_token, watch_profiles};
use crate::daemon::{Mode, Options};
use crate::definition::Surroundings;
use crate::hermes::boot_log;
use crate::hermes::command::Command;
use crate::hermes::profile_watch::ProfileWatch;
use crate::hermes::routing::{Route, route};
use crate::sys::signal::SignalFd;
use mio::unix::SourceFd;
use mio::{Interest, Poll};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd;
use std::sync::Arc;

pub(in crate::daemon::boot) struct Prepared {
    pub given: Given,
    pub clock: Clock,
    pub poll: Poll,
    pub wakeups: Wakeups,
    /// What the container's command is executed as; `None`: it has none.
    pub argv: Option<Vec<OsString>>,
    pub claims: Claims,
    pub around: Surroundings,
    pub has_hermes: bool,
    pub scan_watch: Option<ScanWatch>,
    pub profile_watch: Option<Arc<ProfileWatch>>,
    pub busy: Busy,
    /// Goes on while the database is opened.
    pub finding: Finding,
}

/// What becomes of a start.
pub(in crate::daemon::boot) enum Preparing {
    GoesOn(Box<Prepared>),
    /// There is nothing to prepare, as with [`Start::Alone`].
    Over(Start),
}

impl Prepared {
    pub fn prepare(mut given: Given, signals: SignalFd, mode: &Mode) -> Result<Preparing, StartError> {
        let clock = Clock::start();
        let argv = argv_of(mode, &given.options)?;
        let command = argv.as_deref().map(|argv| command_of(argv, &given.options));
        if let (Some(argv), Some(Command::Dashboard)) = (&argv, command) {
            say_first(&given.container, &boot_log::stdout_line(boot_log::DASHBOARD_CONTAINER));
            let main = MainProgram::start(argv, &given.options, given.nofile)?;
            return Ok(Preparing::Over(Start::Alone(main, signals)));
        }
        let gateways = Gateways::of(given.options.gateways != Gateways::Off, command);
        if (gateways, command) == (Gateways::Off, Some(Command::Gateway)) {
            return Err(StartError::GatewaysOff);
        }
        given.options.gateways = gateways;
        let options = &given.options;
        let around = Surroundings::now(options.home.clone(), options.gateway_user.as_deref())?;
        may_run_others(options, &around)?;
        let home = around.clone();
        match with_patience("home", move || prepare_home(&home)) {
            Some(prepared) => prepared?,
            None => slog::error!(given.log, "{} does not answer: its volume hangs", options.home.display()),
        }
        let (poll, wakeups) = wakeups(signals)?;
        // Watched before it is read, so that nothing is missed.
        let unwatched = |error: &std::io::Error| {
            slog::warn!(given.log, "the scan directory is not watched"; "error" => %error);
        };
        let watch_slots = || ScanWatch::begin(&wakeups.registry).inspect_err(unwatched).ok();
        let scan_watch = options.s6_surface.then(watch_slots).flatten();
        let has_hermes = options.executable(OsStr::new("hermes"));
        let unwatched = |error: &std::io::Error| {
            slog::warn!(given.log, "the home is not watched: what is moved or removed in it is seen at a reload"; "error" => %error);
        };
        let profile_watch = watch_profiles(&wakeups.registry, has_hermes).inspect_err(unwatched).ok();
        let busy = Busy::default();
        let sources = Sources::new(options, around.clone(), has_hermes, profile_watch.clone(), busy.clone());
        let finding = Finding::begin(sources, &wakeups.notifier)
            .map_err(StartError::kernel("start the reading of definitions"))?;
        let claims = Claims::of(command);
        Ok(Preparing::GoesOn(Box::new(Self {
            given,
            clock,
            poll,
            wakeups,
            argv,
            claims,
            around,
            has_hermes,
            scan_watch,
            profile_watch,
            busy,
            finding,
        })))
    }
}

fn wakeups(signals: SignalFd) -> Result<(Poll, Wakeups), StartError> {
    let make = || StartError::kernel("make its loop");
    let poll = Poll::new().map_err(make())?;
    let registry = poll.registry().try_clone().map_err(make())?;
    let (notifier, notices) = Notifier::new(&registry).map_err(make())?;
    let timer = Timer::new(&registry).map_err(StartError::kernel("make a timer"))?;
    registry
        .register(&mut SourceFd(&signals.as_raw_fd()), plain_token(Room::Signals), Interest::READABLE)
        .map_err(StartError::kernel("watch signals"))?;
    let _ = ALARM.set(notifier.clone());
    Ok((poll, Wakeups { registry, notifier, notices, timer, wall_timer: WallTimer::default(), signals }))
}

/// What the container's command is executed as.
fn argv_of(mode: &Mode, options: &Options) -> Result<Option<Vec<OsString>>, StartError> {
    let Mode::Init { command } = mode else { return Ok(None) };
    match route(command, |program| options.executable(program)) {
        Route::Exec(argv) => Ok(Some(argv)),
        Route::Nothing => Ok(None),
        Route::NotFound(program) => Err(StartError::NoCommand(program.display().to_string())),
    }
}
