//! A start in a simulation: the steps of a boot with the real ones' values, on a kernel, a disk and a clock that are played. Nothing
//! here has a thread, and nothing waits; what the threads would do is done by [`Hands`].

use super::Given;
use super::cmd::{Claims, Cmd};
use super::ownership::GivingWay;
use super::ownership::adoption::{Heritage, note_of};
use super::ownership::finished::Finished;
use super::ownership::identity::{Identity, Kinship};
use super::reading::Finding;
use super::reading::finding::Busy;
use super::reading::reconcile::Reconciled;
use super::steps::contained::Contained;
use super::steps::opened::Opened;
use super::steps::planned::{Planned, leave_note};
use super::steps::prepared::Prepared;
use super::steps::start_error::StartError;
use crate::containment::played::Kernel;
use crate::containment::{Begun, Home};
use crate::control::server::Server;
use crate::core::fleet::ParallelStarts;
use crate::daemon::clock::Clock;
use crate::daemon::herald::Herald;
use crate::daemon::simulation::planted;
use crate::daemon::sources::pressure::Pressure;
use crate::daemon::sources::wall_timer::WallTimer;
use crate::daemon::sources::{Notifier, Timer, Wakeups, containment_token, control_token};
use crate::daemon::topics::admission::Admission;
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::topics::testing::options;
use crate::daemon::upgrade::handover::Handover;
use crate::daemon::{Notice, Options, Supervisor};
use crate::definition::Surroundings;
use crate::log::Container;
use crate::log::played::{Hands as LogHands, make as make_logs};
use crate::store;
use crate::store::played::{Disk, Hand};
use crate::sys::posture;
use crate::sys::signal::SignalFd;
use mio::Poll;
use std::cell::Cell;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

/// Of every simulated machine.
const PROCESSORS: usize = 2;
/// Of every simulated state: what hangs on it, such as the jitter of a backoff, is the same in every run.
const INSTANCE: &str = "51517a1e51517a1e51517a1e51517a1e";

/// Where a supervisor starts.
#[derive(Debug)]
pub(in crate::daemon) struct Stage {
    /// In memory.
    pub dir: PathBuf,
    pub kernel: Kernel,
    pub disk: Disk,
    pub log: slog::Logger,
    pub parallel_starts: ParallelStarts,
}

/// A supervisor, and what its threads would do.
#[derive(Debug)]
pub(in crate::daemon) struct Hands {
    pub store: Hand,
    pub logs: LogHands,
}

pub(in crate::daemon) struct Running {
    pub supervisor: Box<Supervisor>,
    pub poll: Poll,
    pub hands: Hands,
}

impl Stage {
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub fn services(&self) -> PathBuf {
        self.dir.join("services")
    }

    pub fn database(&self) -> PathBuf {
        self.home().join("supervisor/state.redb")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Goes with the power.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn options(&self) -> Options {
        Options {
            services: vec![self.services()],
            socket: Some(self.socket()),
            gateway_user: Some(rustix::process::geteuid().as_raw().to_string()),
            parallel_starts: self.parallel_starts,
            ..options(self.home())
        }
    }

    /// Starts a supervisor, after what was left here. `former`: what the one before has handed over.
    ///
    /// # Errors
    /// As a start.
    pub fn start(&self, former: Option<Handover>) -> Result<Running, StartError> {
        let kernel = |what: &'static str| StartError::kernel(what);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.runtime_dir());
        made.map_err(kernel("make its runtime directory"))?;
        let prepared = self.prepare(former)?;
        let (mut opened, mut store, logs) = self.open(&prepared)?;
        let contained = self.contain(&prepared, &mut opened)?;
        leave_note(&prepared, &opened, &contained.containment);
        // Its answer is awaited before the first start.
        store.turn();
        let planned = Planned { reconciled: Reconciled::default(), cmd: Cmd::None };
        let (mut supervisor, poll) = Supervisor::running(prepared, opened, contained, planned)?;
        // Not those of this machine.
        supervisor.topics.admission = Admission::new(self.parallel_starts, PROCESSORS);
        supervisor.fleet.limit_starts(supervisor.topics.admission.places());
        supervisor.pressure = Pressure::Played(Cell::default());
        Ok(Running { supervisor, poll, hands: Hands { store, logs } })
    }

    fn prepare(&self, former: Option<Handover>) -> Result<Prepared, StartError> {
        let options = self.options();
        let around = Surroundings::now(options.home.clone(), options.gateway_user.as_deref())?;
        let (poll, wakeups) = wakeups().map_err(StartError::kernel("make its loop"))?;
        let (container, log, herald) = (Container::mute(), self.log.clone(), Herald::default());
        Ok(Prepared {
            given: Given { options, former, nofile: None, container, log, herald },
            clock: Clock::start(),
            poll,
            wakeups,
            argv: None,
            claims: Claims::Waits,
            around,
            has_hermes: false,
            scan_watch: None,
            profile_watch: None,
            busy: Busy::default(),
            finding: Finding::over(),
        })
    }

    fn open(&self, prepared: &Prepared) -> Result<(Opened, Hand, LogHands), StartError> {
        let Given { options, log, container, former, .. } = &prepared.given;
        let store_options = store::Options {
            home: options.home.clone(),
            dir: options.state.clone(),
            gid: rustix::process::getegid().as_raw(),
            host: "played".to_owned(),
            patience: Duration::ZERO,
            gives_way: None,
            is_init: false,
        };
        let notifier = prepared.wakeups.notifier.clone();
        let notify = move |event| notifier.send(Notice::Store(event));
        let (store, rows, hand) = store::played::open(store_options, &self.disk, notify)?;
        let listener = former.as_ref().and_then(|former| posture::take_over(former.listener?).ok());
        let mut server = match listener {
            Some(listener) => Server::resume(&self.socket(), listener)?,
            None => Server::listen(&self.socket(), 0o600)?,
        };
        let registry = &prepared.wakeups.registry;
        server.register(registry, control_token).map_err(StartError::kernel("watch its socket"))?;
        let note = note_of(&rows, log);
        let identity = Identity {
            instance: INSTANCE.to_owned(),
            runtime_dir: self.runtime_dir(),
            left: Vec::new(),
            alive: None,
            kinship: Kinship::Predecessor,
        };
        let notifier = prepared.wakeups.notifier.clone();
        let told = move |event| notifier.send(Notice::Log(event));
        let (logs, log_hands) = make_logs(&self.runtime_dir(), container.clone(), told)
            .map_err(StartError::kernel("start logging"))?;
        let (giving_way, socket, probing) = (GivingWay::default(), self.socket(), Begun::default());
        let opened = Opened { store, rows, giving_way, server, socket, identity, note, logs, probing };
        Ok((opened, hand, log_hands))
    }

    fn contain(&self, prepared: &Prepared, opened: &mut Opened) -> Result<Contained, StartError> {
        let Given { options, log, .. } = &prepared.given;
        let runtime_dir = self.runtime_dir();
        let heritage = Heritage::of(opened.note.take(), Kinship::Predecessor, &runtime_dir);
        let home = Home { instance: INSTANCE, runtime_dir: &runtime_dir, controllers: true };
        let tokens = prepared.wakeups.registry.try_clone().map_err(StartError::kernel("share its loop"))?;
        let report = self.kernel.report();
        let mut containment = self
            .kernel
            .contain(home, heritage.place(), tokens, containment_token)
            .map_err(|error| StartError::Possession { rung: report.rung, error })?;
        let mut found = Found::at_once(&options.services, &prepared.around);
        planted::found(&mut found);
        let plan = found.plan(&opened.rows.records, &prepared.around);
        let known = |name: &_| plan.services.contains_key(name) && !planted::nobody_is_adopted();
        let finished = Finished::take_over(&runtime_dir, heritage.goes_on, &opened.rows.runs)
            .map_err(StartError::kernel("note what has finished"))?;
        let adopted = heritage.claim(&mut containment, known, log)?;
        let goes_on = heritage.goes_on;
        Ok(Contained { containment, report, found, plan, adopted, goes_on, finished, main: None })
    }
}

fn wakeups() -> io::Result<(Poll, Wakeups)> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let (notifier, notices) = Notifier::new(&registry)?;
    let (timer, wall_timer, signals) = (Timer::new(&registry)?, WallTimer::default(), SignalFd::block()?);
    Ok((poll, Wakeups { registry, notifier, notices, timer, wall_timer, signals }))
}

impl Running {
    /// The end in order, as after the loop.
    ///
    /// # Errors
    /// What could not be written.
    pub fn say_goodbye(mut self) -> Result<(), store::Unwritten> {
        self.settle_hands();
        self.supervisor.take_last_mirrors();
        self.supervisor.store.begin_to_close();
        while self.hands.store.turn() {}
        let Supervisor { mut containment, store, server, runtime_dir, .. } = *self.supervisor;
        containment.close();
        drop(server);
        let _ = std::fs::remove_dir_all(runtime_dir);
        store.close(Duration::ZERO)
    }

    /// It becomes another program. What the next one is handed; the descriptors are its own from then on.
    pub fn hand_over(mut self) -> (Handover, Vec<OwnedFd>) {
        self.settle_hands();
        self.supervisor.store.begin_to_close();
        while self.hands.store.turn() {}
        self.supervisor.hand_over(Duration::ZERO)
    }

    /// What a SIGKILL does to it: its descriptors close, and nothing is said to anybody.
    pub fn kill(self) {
        self.hands.store.kill();
        // The listener's drop would remove the socket, which a killed process leaves behind; the next one makes it anew.
        drop(self.supervisor);
    }

    fn settle_hands(&mut self) {
        self.supervisor.logs.announce(false);
        self.hands.logs.pump();
        self.hands.logs.write();
        self.hands.logs.pump();
    }
}
