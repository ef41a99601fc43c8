//! Who supervises where several containers share a volume, by their commands: see `hermes::command`.
//!
//! A container with `gateway run` claims a state whose holder gives it up, and waits for that; the holder ends its
//! services, closes the state, and goes on as a plain init.

pub(in crate::daemon) mod adoption;
pub(in crate::daemon) mod finished;
pub(in crate::daemon) mod identity;
pub(in crate::daemon) mod places;
pub(in crate::daemon) mod runtime_dir;

use crate::control::protocol::{Event, EventKind};
use crate::core::signal::Signal;
use crate::daemon::boot::cmd::Claims;
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::sources::{Room, plain_token};
use crate::daemon::view::decide;
use crate::daemon::{Notice, Supervisor};
use crate::definition::Definition;
use crate::hermes::command::Command;
use crate::store::claim::{Bell, Claim, claimant};
use crate::store::{self, Holder, OpenError, Opened, Store, StoreEvent};
use crate::sys::credentials::Credentials;
use crate::sys::signal::SignalFd;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Which gateways run in this container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateways {
    /// Those that are wanted up.
    Wanted,
    /// Those that somebody starts here: the container is there for another command.
    Asked,
    /// None.
    Off,
}

impl Gateways {
    /// In a container with this command; `None`: without one.
    pub fn of(on: bool, command: Option<Command>) -> Self {
        match command {
            _ if !on => Self::Off,
            Some(Command::Hermes | Command::Dashboard) => Self::Asked,
            Some(Command::Gateway | Command::Program) | None => Self::Wanted,
        }
    }
}

/// What a service is told that may not run here.
pub(in crate::daemon) const SWITCHED_OFF: &str =
    "gateways are switched off in this container: HERMES_SUP_GATEWAYS=off";

/// How long a claimant waits beyond the time that the holder gives itself: it may be at its own start.
const GRACE: Duration = Duration::from_secs(10);
/// So often the state may have gone to another holder that gives it up, in the moment in which it was free.
const MOST_CLAIMS: usize = 3;

/// Waits for the state that is being opened; claims and awaits it where `claims` says so and its holder gives it up.
/// `Ok(Err(…))`: it is held, and stays so.
///
/// # Errors
/// Why this container does not start.
pub(in crate::daemon) fn open_state(
    mut opening: Result<store::Opening, OpenError>,
    options: &store::Options,
    claims: Claims,
    signals: &SignalFd,
    log: &slog::Logger,
    notify: impl Fn(StoreEvent) + Clone + Send + Sync + 'static,
) -> Result<Result<(Store, Opened), OpenError>, StartError> {
    let mut claims_left = if claims == Claims::Insists { MOST_CLAIMS } else { 0 };
    // Held until the state is ours, so that there is one claimant at a time.
    let mut claim = None;
    let mut waiting = WaitForLock { signals, state: &options.dir, log, told: false };
    loop {
        let (path, holder) = match opening.and_then(|opening| opening.wait(|| waiting.goes_on())) {
            Ok(opened) => return Ok(Ok(opened)),
            Err(OpenError::Held { path, holder }) => (path, holder),
            Err(error) => return Ok(Err(error)),
        };
        let gives_way = holder.as_ref().and_then(|holder| Some((holder, holder.gives_way_ms?)));
        let Some((known, time)) = gives_way.filter(|_| claims_left > 0) else {
            return Ok(Err(OpenError::Held { path, holder }));
        };
        claims_left -= 1;
        slog::warn!(
            log,
            "{} is in use by a container with another command ({known}): it is asked to end its gateways, and this \
             one waits for that",
            path.display()
        );
        // It has to ring again where the state went to another one meanwhile.
        drop(claim.take());
        let patience = Duration::from_millis(time).saturating_add(GRACE);
        claim = Some(await_state(options, &path, known, patience, signals)?);
        opening = store::begin(options.clone(), notify.clone());
    }
}

/// A start that waits because it cannot tell whether another supervisor has the state.
struct WaitForLock<'a> {
    signals: &'a SignalFd,
    state: &'a Path,
    log: &'a slog::Logger,
    told: bool,
}

impl WaitForLock<'_> {
    /// Until somebody wants us to end. There are no services and no main program yet that a signal could be for.
    fn goes_on(&mut self) -> bool {
        if !self.told {
            self.told = true;
            slog::error!(
                self.log,
                "{} does not answer, so it cannot be told whether another supervisor has it: nothing is started until it \
                 answers; check its volume",
                self.state.display()
            );
        }
        while let Ok(Some(received)) = self.signals.read() {
            if matches!(received.signal, Signal::TERM | Signal::INT | Signal::PWR | Signal::RTMIN_PLUS_3) {
                return false;
            }
        }
        true
    }
}

/// Rings, and waits until the state is free.
fn await_state(
    options: &store::Options,
    path: &Path,
    holder: &Holder,
    patience: Duration,
    signals: &SignalFd,
) -> Result<Claim, StartError> {
    let failed = |error: io::Error| StartError::Unclaimable {
        path: path.to_owned(),
        holder: Box::new(holder.clone()),
        error,
    };
    // Its end is closed when the thread has said what came of it.
    let (ended, ends) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let (sender, receiver) = channel();
    let (options, dir) = (options.clone(), path.to_owned());
    let work = move || {
        let claim = Claim::make(&options, &dir).and_then(|claim| match claim {
            Some(claim) => claim.wait().map(|()| Some(claim)),
            None => Ok(None),
        });
        drop(sender.send(claim));
        drop(ends);
    };
    std::thread::Builder::new().name("claim".to_owned()).spawn(work).map_err(failed)?;
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut ready =
            [PollFd::new(&ended, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        let _ = rustix::event::poll(&mut ready, Some(&wait));
        if let Ok(claim) = receiver.try_recv() {
            return claim.map_err(failed)?.ok_or_else(|| StartError::Claimed(path.to_owned()));
        }
        while let Ok(Some(received)) = signals.read() {
            if matches!(received.signal, Signal::TERM | Signal::INT | Signal::RTMIN_PLUS_3 | Signal::PWR) {
                return Err(StartError::ToldToEnd { signal: received.signal, path: path.to_owned() });
            }
        }
        if left.is_zero() {
            let (path, holder) = (path.to_owned(), Box::new(holder.clone()));
            return Err(StartError::NotGivenUp { path, holder, patience });
        }
    }
}

/// What a holder that gives way listens to.
#[derive(Debug, Default)]
pub struct GivingWay {
    bell: Option<Bell>,
    /// The thread that may wait for files looks who it is.
    looking: bool,
    again: bool,
}

impl GivingWay {
    pub(in crate::daemon) fn listen(bell: Bell, registry: &Registry) -> io::Result<Self> {
        registry.register(
            &mut SourceFd(&bell.as_fd().as_raw_fd()),
            plain_token(Room::Claims),
            Interest::READABLE,
        )?;
        Ok(Self { bell: Some(bell), ..Self::default() })
    }
}

impl Supervisor {
    /// Somebody has rung, or may have before we listened.
    pub(in crate::daemon) fn claimed(&mut self) {
        let Some(bell) = &self.giving_way.bell else { return };
        bell.heard();
        if std::mem::replace(&mut self.giving_way.looking, true) {
            self.giving_way.again = true;
            return;
        }
        let files = bell.files();
        let notifier = self.wakeups.notifier.clone();
        let work = move || files.ok().and_then(claimant);
        let done = move |found: io::Result<Option<Holder>>| {
            notifier.send(Notice::Claimed(found.unwrap_or_default()))
        };
        if self.logs.files().run(Credentials::own(), work, done).is_err() {
            self.giving_way.looking = false;
        }
    }

    /// Who has rung is known: nobody, if it is gone already.
    pub(in crate::daemon) fn take_claim(&mut self, claimant: Option<Holder>) {
        self.giving_way.looking = false;
        if std::mem::take(&mut self.giving_way.again) {
            return self.claimed();
        }
        if let (Some(claimant), false) = (claimant, self.topics.shutdown.is_on()) {
            let text = format!(
                "a container with 'gateway run' ({claimant}) takes over: ending the services here; the command goes on \
                 without a supervisor"
            );
            self.happened(Event::warning(EventKind::Shutdown, text));
            decide!(self.shutdown.give_way());
        }
    }

    /// What does not start by itself here, whatever it wants.
    pub(in crate::daemon) fn is_not_for_here(&self, definition: &Definition) -> bool {
        self.options.gateways != Gateways::Wanted
            && crate::daemon::topics::definitions::found::is_profile(definition)
    }
}
