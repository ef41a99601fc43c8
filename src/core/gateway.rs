//! The life of one service: a pure state machine. Events in, effects out; no clock, descriptor or path.
//!
//! Total state is (want, phase):
//!
//! | phase    | want up                                        | want down                                      |
//! |----------|------------------------------------------------|------------------------------------------------|
//! | Down     | only while the supervisor shuts down           | at rest                                        |
//! | Held     | waits for what it requires or comes after, or  | `once` or *needed* waits likewise              |
//! |          | another service does its work ([`Elsewhere`])  |                                                |
//! | Starting | the main process is being made                 | `once` or *needed*                             |
//! | Up       | runs                                           | `once` or *needed*                             |
//! | Ending   | restart, crash, lost requirement, shutdown     | stop; a crash of what is *needed*              |
//! | Backoff  | waits before the next try                      | *needed*                                       |
//! | Failed   | given up until the operator says otherwise     | *needed*                                       |
//! | Finished | ended as it should, nothing left to do         | *needed*                                       |
//!
//! *Needed* ([`Event::Needed`]): another service that is wanted up cannot do without this one, so it is kept up although
//! its own want is down. It ends with an operator's stop.
//!
//! Invariants, searched exhaustively in `model`: nothing is spawned while an earlier tree lives, against the want, or
//! while another service does its work; no command is acknowledged before its commit; every phase can be left; every caller is answered exactly once.
//!
//! A want changes only by a command. It is adopted when its write is on disk, with one exception: a stop acts after
//! [`RECORD_PATIENCE`] or a failed write all the same, because the operator must be able to stop what fills the disk.

use super::clock::Tick;
use super::effect::{Effect, Effects, Incident, Outcome};
use super::event::{Command, Event, Incarnation, Ticket};
use super::exit::Exit;
use super::name::ServiceName;
use super::policy::{LATER, Policy, RestartWhen, Role, Verdict};
use super::words::{State, Want};
use std::sync::Arc;
use std::time::Duration;

/// How long a stop waits for the disk before it acts without it.
pub const RECORD_PATIENCE: Duration = Duration::from_secs(2);
/// How long a killed tree may take to be empty before the service is called stuck (a process in D state).
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Exit code by which a finish program says that the service shall not be restarted (s6-supervise, "finish").
pub const FINISH_GIVES_UP: u8 = 125;
/// How long the log of an empty tree may take to be read to its end before the service goes on without it.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// Whether the services around it let it start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Gate {
    Open,
    /// Not yet; for whom it waits.
    Wait(String),
    /// Not at all, and a running one must stop; which requirement is missing.
    Refused(String),
    /// Not before this service has said whether it does this one's work. One that runs may go on.
    Ask(ServiceName),
    /// Not at all, and a running one must stop, but nothing is missing.
    Elsewhere(Elsewhere),
}

/// Why a service that may be wanted up has no process of its own, and is no failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Elsewhere {
    /// This service does its work.
    Served { by: ServiceName },
    /// Its owner told the service that would do its work to leave it out.
    Parked,
}

impl Elsewhere {
    fn state(&self) -> State {
        match self {
            Self::Served { .. } => State::Served,
            Self::Parked => State::Parked,
        }
    }
}

/// What happened to the service so far, kept in the database.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Restarts that nobody asked for.
    pub restarts: u64,
    /// Failures in the present row.
    pub row: u32,
    /// When they happened, oldest first; at most the burst limit and one more.
    pub failures: Vec<Tick>,
    pub backoff_until: Option<Tick>,
    /// Why it was given up, and when.
    pub failed: Option<(String, Tick)>,
    pub last_exit: Option<(Exit, Tick)>,
    /// Why the last attempt to start it failed; `None` after one that did not.
    pub start_error: Option<String>,
    /// The number of the last life.
    pub incarnation: Incarnation,
}

/// What is known about a service when the supervisor starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    pub want: Want,
    /// The disk says so too. If not, the next command is recorded even if it changes nothing here.
    pub recorded: bool,
    pub history: History,
    /// A life that an earlier supervisor began and that goes on.
    pub living: Option<Living>,
    /// It ended as it should under a supervisor whose work goes on here: nothing is left to do.
    pub finished: bool,
    /// That life is kept up for this service, whatever the want.
    pub needed: Option<ServiceName>,
}

impl Restored {
    /// Nothing runs, and nothing is remembered but the want.
    pub fn at_rest(want: Want, recorded: bool) -> Self {
        Self { want, recorded, history: History::default(), living: None, finished: false, needed: None }
    }
}

/// A life in [`Phase::Up`], as a later supervisor has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Living {
    pub incarnation: Incarnation,
    pub pid: i32,
    pub since: Tick,
    pub readiness: Readiness,
    /// It runs although want is down.
    pub once: bool,
    /// It runs although want is down, for another service.
    pub needed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Down,
    Held,
    Starting,
    Up,
    Ending(Ending),
    Backoff { until: Tick },
    Failed,
    Finished,
}

/// The stop ladder: each stage has a deadline, after which the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ending {
    pub stage: Stage,
    until: Tick,
    /// We ended it: its exit is no failure.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The main process exists only halfway: the stop signal follows exec.
    Unsignalled,
    /// The stop signal was sent; the tree may end by itself.
    Grace,
    /// The tree was killed.
    Killing,
    /// It was killed and does not die.
    Stuck,
    /// It is empty; its finish program runs.
    Finishing,
    /// It is empty; its last log lines are being read.
    Draining,
}

/// What is known about the readiness of a life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readiness {
    /// The service has no way to report it.
    #[default]
    Undefined,
    /// Expected by then.
    Awaited(Tick),
    /// That time is over; it runs all the same, and may still report.
    Overdue,
    Reported(Tick),
}

/// One life of the service, from spawn to an empty tree.
#[derive(Debug, Clone, Default, PartialEq)]
struct Life {
    pid: Option<i32>,
    up_since: Option<Tick>,
    readiness: Readiness,
    exit: Option<Exit>,
    spawn_error: Option<String>,
    empty: bool,
    /// It ended, or could not begin, before anybody asked for its end.
    unasked: bool,
}

/// Of a start, when another service leaves it out on its owner's wish.
const PARKED: &str = "its owner parked it: nothing serves it";

fn served_by(name: &ServiceName) -> String {
    format!("'{name}' serves it")
}

/// Of a start, when the service runs and its time to report that it is ready is over.
const NOT_READY: &str = "it runs, but has not reported in its time that it is ready";

impl Life {
    fn ready_by(&self) -> Option<Tick> {
        match self.readiness {
            Readiness::Awaited(by) => Some(by),
            Readiness::Undefined | Readiness::Overdue | Readiness::Reported(_) => None,
        }
    }

    /// For how long it ran, if it did.
    fn ran(&self, now: Tick) -> Duration {
        self.up_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    fn main_is_gone(&self) -> bool {
        self.exit.is_some() || self.spawn_error.is_some()
    }
}

/// The newest command, waiting for the disk.
#[derive(Debug, Clone, PartialEq)]
struct Pending {
    seq: u64,
    command: Command,
    /// When a stop acts without the disk.
    patience: Option<Tick>,
}

#[derive(Debug, Clone, PartialEq)]
struct Waiter {
    ticket: Ticket,
    command: Command,
    seq: u64,
}

#[derive(Debug, Clone)]
pub struct Gateway {
    /// Most services of a fleet have the same.
    policy: Arc<Policy>,
    want: Want,
    phase: Phase,
    since: Tick,
    gate: Gate,
    life: Option<Life>,
    /// The life that is over and whose finish program is `life` now.
    ended: Option<Box<Life>>,
    history: History,
    pending: Option<Box<Pending>>,
    waiters: Vec<Waiter>,
    /// Number of the newest command.
    seq: u64,
    /// Number of the newest command that acts; its callers may be answered.
    acted: u64,
    /// Why the want in force is not on disk.
    unrecorded: Option<String>,
    /// The disk may say something else than `want`: a write failed, or is late.
    unsure: bool,
    /// Runs although want is down.
    once: bool,
    /// It is kept up for this service, whatever its own want.
    needed: Option<ServiceName>,
    /// A life that ended while it was not known whether another service does its work: a failure, if none does.
    unjudged: Option<Box<Life>>,
    /// It is given up when its tree has ended, for this reason.
    condemned: Option<String>,
    /// The supervisor shuts down; the end must be over by then.
    closing: Option<Tick>,
    retiring: bool,
    seed: u64,
}

impl Gateway {
    /// A service at rest. `seed` decides the jitter of its waits.
    pub fn new(policy: impl Into<Arc<Policy>>, seed: u64) -> Self {
        Self {
            policy: policy.into(),
            want: Want::Down,
            phase: Phase::Down,
            since: Tick::default(),
            gate: Gate::Open,
            life: None,
            ended: None,
            history: History::default(),
            pending: None,
            waiters: Vec::new(),
            seq: 0,
            acted: 0,
            unrecorded: None,
            unsure: false,
            once: false,
            needed: None,
            unjudged: None,
            condemned: None,
            closing: None,
            retiring: false,
            seed,
        }
    }

    /// Takes one event at `now` and returns what must be done about it.
    pub fn step(&mut self, event: Event, now: Tick) -> Effects {
        let mut out = Effects::default();
        match event {
            Event::Boot(restored) => self.boot(restored, now, &mut out),
            Event::Command { ticket, command } => self.command(ticket, command, now, &mut out),
            Event::Forget(ticket) => self.waiters.retain(|waiter| waiter.ticket != ticket),
            Event::Recorded { seq } => self.recorded(seq, None, now, &mut out),
            Event::NotRecorded { seq, reason } => self.recorded(seq, Some(reason), now, &mut out),
            Event::Spawned { incarnation, pid } if self.is_current(incarnation) => {
                self.spawned(pid, now, &mut out)
            }
            Event::ReadyReported { incarnation } if self.is_current(incarnation) => {
                self.ready_reported(now, &mut out)
            }
            Event::SpawnFailed { incarnation, reason } if self.is_current(incarnation) => {
                self.spawn_failed(reason, now, &mut out);
            }
            Event::MainExited { incarnation, exit } if self.is_current(incarnation) => {
                self.main_exited(exit, now, &mut out);
            }
            Event::TreeEmpty { incarnation } if self.is_current(incarnation) => {
                self.tree_empty(now, &mut out)
            }
            Event::LogsDrained { incarnation } if self.is_current(incarnation) => {
                if self.stage() == Some(Stage::Draining) {
                    self.settle(now, &mut out);
                }
            }
            // Late news of a life that is over or was given up.
            Event::Spawned { .. }
            | Event::ReadyReported { .. }
            | Event::SpawnFailed { .. }
            | Event::MainExited { .. }
            | Event::TreeEmpty { .. }
            | Event::LogsDrained { .. } => {}
            Event::Time => self.time(now, &mut out),
            Event::Gate(gate) => self.gate_moved(gate, now, &mut out),
            Event::Needed(by) => self.need_moved(by, now, &mut out),
            Event::GiveUp { reason } => self.must_give_up(reason, now, &mut out),
            Event::Shutdown { deadline } => self.shutdown(deadline, now, &mut out),
            Event::KillNow => {
                if matches!(self.stage(), Some(Stage::Unsignalled | Stage::Grace | Stage::Finishing)) {
                    self.kill(now, &mut out);
                }
            }
        }
        out
    }

    // ---- Commands -------------------------------------------------------------------------------------------------

    fn command(&mut self, ticket: Ticket, command: Command, now: Tick, out: &mut Effects) {
        if let Some(refusal) = self.refusal(command) {
            out.push(Effect::Reply { ticket, outcome: Outcome::Failed(refusal) });
            return;
        }
        self.overtake(command, out);
        // The same request again, while the first is still on its way, joins it.
        if let Some(pending) = self.pending.as_ref().filter(|pending| pending.command == command) {
            self.waiters.push(Waiter { ticket, command, seq: pending.seq });
            return;
        }
        // So does a restart while an earlier one still ends the old life, and a second unregister.
        let joins_restart = command == Command::Restart
            && self.pending.is_none()
            && !self.unsure
            && matches!(self.phase, Phase::Ending(_))
            && self.waiters.iter().any(|waiter| waiter.command == Command::Restart);
        if joins_restart || self.retiring {
            self.waiters.push(Waiter { ticket, command, seq: self.acted });
            return;
        }
        self.seq += 1;
        self.waiters.push(Waiter { ticket, command, seq: self.seq });
        let want = match command {
            Command::Start { .. } | Command::Restart => Want::Up,
            Command::Stop | Command::Unregister => Want::Down,
            Command::Once => self.want,
        };
        if command == Command::Unregister {
            out.push(Effect::Erase { seq: self.seq });
        } else if want == self.want && !self.unsure && self.pending.is_none() {
            self.act(command, self.seq, now, out);
            return;
        } else {
            out.push(Effect::Record { seq: self.seq, want });
        }
        let patience = (command == Command::Stop).then(|| now.after(RECORD_PATIENCE));
        self.pending = Some(Box::new(Pending { seq: self.seq, command, patience }));
    }

    fn refusal(&self, command: Command) -> Option<String> {
        let starts = matches!(command, Command::Start { .. } | Command::Restart | Command::Once);
        if self.closing.is_some() && command != Command::Stop {
            return Some("the supervisor is shutting down".to_owned());
        }
        let leaving = self.pending.as_ref().is_some_and(|pending| pending.command == Command::Unregister);
        // What fills the disk must be stoppable while the disk does not take the unregistration.
        if self.retiring || (leaving && command != Command::Stop) {
            return (command != Command::Unregister).then(|| "it is being unregistered".to_owned());
        }
        let stuck = self.stage() == Some(Stage::Stuck);
        if stuck && starts && command != (Command::Start { force: true }) {
            return Some(
                "remains of its last run cannot be killed; 'start --force' starts beside them".to_owned(),
            );
        }
        if command == Command::Once && self.want == Want::Up && self.phase != Phase::Up {
            return Some("it is wanted up already; 'start' or 'restart' tries again now".to_owned());
        }
        None
    }

    /// The newest wins: callers who wait for something else are told who overtook them.
    fn overtake(&mut self, by: Command, out: &mut Effects) {
        let aim = |command: Command| match command {
            Command::Start { .. } | Command::Restart => 0,
            Command::Stop | Command::Unregister => 1,
            Command::Once => 2,
        };
        self.waiters.retain(|waiter| {
            let overtaken = aim(waiter.command) != aim(by)
                || (waiter.command == Command::Unregister && by == Command::Stop && !self.retiring);
            if overtaken {
                out.push(Effect::Reply { ticket: waiter.ticket, outcome: Outcome::Overtaken(by) });
            }
            !overtaken
        });
    }

    fn recorded(&mut self, seq: u64, error: Option<String>, now: Tick, out: &mut Effects) {
        if seq == self.seq {
            self.unsure = error.is_some();
        }
        match self.pending.take_if(|pending| pending.seq == seq).map(|pending| pending.command) {
            Some(command) => match (error, command) {
                (None, _) => {
                    self.unrecorded = None;
                    self.act(command, seq, now, out);
                }
                (Some(reason), Command::Stop) => {
                    self.unrecorded = Some(reason);
                    self.act(command, seq, now, out);
                }
                (
                    Some(reason),
                    Command::Start { .. } | Command::Restart | Command::Once | Command::Unregister,
                ) => {
                    // Everybody who joined this write, directly or through one that it replaced.
                    let acted = self.acted;
                    self.answer(seq, out, |waiter| {
                        (waiter.seq > acted).then(|| Outcome::Failed(format!("not recorded: {reason}")))
                    });
                }
            },
            // It lost patience and acted before the disk answered, and nothing newer came.
            None if seq == self.acted && seq == self.seq && self.unrecorded.is_some() => {
                self.unrecorded = error;
                out.push(Effect::Changed);
            }
            None => {}
        }
    }

    /// Carries out a command whose want is decided.
    fn act(&mut self, command: Command, seq: u64, now: Tick, out: &mut Effects) {
        self.acted = seq;
        match command {
            Command::Start { force } => {
                self.want = Want::Up;
                self.once = false;
                self.forgive(out);
                if force && self.stage() == Some(Stage::Stuck) {
                    out.push(Effect::Abandon { incarnation: self.history.incarnation });
                    (self.life, self.ended) = (None, None);
                    self.begin_start(now, out);
                } else {
                    self.ask_up(now, out);
                }
            }
            Command::Restart => {
                self.want = Want::Up;
                self.once = false;
                self.forgive(out);
                match self.phase {
                    Phase::Up | Phase::Starting => self.begin_stop(now, out),
                    Phase::Down
                    | Phase::Held
                    | Phase::Ending(_)
                    | Phase::Backoff { .. }
                    | Phase::Failed
                    | Phase::Finished => self.ask_up(now, out),
                }
            }
            Command::Once => {
                self.once = self.want == Want::Down;
                self.ask_up(now, out);
            }
            Command::Stop => self.ask_down(now, out),
            Command::Unregister => {
                self.retiring = true;
                self.ask_down(now, out);
            }
        }
    }

    /// An operator's start ends the row of failures.
    fn forgive(&mut self, out: &mut Effects) {
        self.condemned = None;
        if self.history.row != 0 || self.history.failed.is_some() || self.history.backoff_until.is_some() {
            self.history.row = 0;
            self.history.failures.clear();
            self.history.failed = None;
            self.history.backoff_until = None;
            self.history.start_error = None;
            out.push(Effect::SaveHistory);
        }
    }

    fn ask_up(&mut self, now: Tick, out: &mut Effects) {
        self.unjudged = None;
        match &mut self.phase {
            Phase::Up => match self.readiness() {
                Readiness::Undefined | Readiness::Reported(_) => {
                    self.answer(self.acted, out, |_| Some(Outcome::Done { already: true, unrecorded: None }));
                    out.push(Effect::Changed);
                }
                Readiness::Awaited(_) => {}
                Readiness::Overdue => self.fail_starters(NOT_READY, out),
            },
            Phase::Starting => {}
            Phase::Ending(ending) => ending.asked = true,
            Phase::Down | Phase::Held | Phase::Backoff { .. } | Phase::Failed | Phase::Finished => {
                self.begin_start(now, out);
            }
        }
    }

    fn ask_down(&mut self, now: Tick, out: &mut Effects) {
        self.want = Want::Down;
        self.once = false;
        self.needed = None;
        self.history.backoff_until = None;
        self.history.start_error = None;
        match &mut self.phase {
            Phase::Up | Phase::Starting => self.begin_stop(now, out),
            Phase::Ending(ending) => {
                ending.asked = true;
                if ending.stage == Stage::Stuck {
                    self.answer_stuck(out);
                }
            }
            Phase::Down => self.rest(true, now, out),
            Phase::Held | Phase::Backoff { .. } | Phase::Failed | Phase::Finished => {
                self.rest(false, now, out)
            }
        }
    }

    // ---- Start ----------------------------------------------------------------------------------------------------

    fn begin_start(&mut self, now: Tick, out: &mut Effects) {
        if self.closing.is_some() {
            self.rest(false, now, out);
            return;
        }
        match &self.gate {
            Gate::Open => {
                self.history.incarnation += 1;
                self.history.backoff_until = None;
                self.life = Some(Life::default());
                self.enter(Phase::Starting, now, out);
                out.push(Effect::Spawn { incarnation: self.history.incarnation });
            }
            Gate::Wait(_) | Gate::Ask(_) => self.enter(Phase::Held, now, out),
            Gate::Refused(reason) => {
                let reason = reason.clone();
                self.refused(&reason, now, out);
            }
            Gate::Elsewhere(place) => {
                let place = place.clone();
                self.elsewhere_instead(&place, now, out);
            }
        }
    }

    /// Something it requires is missing: whoever waits is told; a want that is up goes on waiting.
    fn refused(&mut self, reason: &str, now: Tick, out: &mut Effects) {
        self.fail_starters(reason, out);
        if self.is_aimed_up() {
            self.enter(Phase::Held, now, out);
        } else {
            self.rest(false, now, out);
        }
    }

    /// Another service does its work: whoever asked for a start has what was asked for, unless its owner wants it to rest.
    fn elsewhere_instead(&mut self, place: &Elsewhere, now: Tick, out: &mut Effects) {
        // What it failed at before is done by the other one.
        self.forgive(out);
        if let Some(life) = self.unjudged.take() {
            self.report_end(&life, now, out);
        }
        match place {
            Elsewhere::Served { by } => {
                self.answer(self.acted, out, |waiter| match waiter.command {
                    Command::Start { .. } | Command::Restart => {
                        Some(Outcome::Done { already: true, unrecorded: None })
                    }
                    Command::Once => Some(Outcome::Failed(served_by(by))),
                    Command::Stop | Command::Unregister => None,
                });
            }
            Elsewhere::Parked => self.fail_starters(PARKED, out),
        }
        if self.is_aimed_up() {
            self.enter(Phase::Held, now, out);
        } else {
            self.rest(false, now, out);
        }
    }

    fn spawned(&mut self, pid: i32, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        life.pid = Some(pid);
        life.up_since = Some(now);
        if self.ended.is_none() {
            self.history.start_error = None;
        }
        if let (Readiness::Undefined, Some(patience)) = (life.readiness, self.policy.ready) {
            life.readiness = Readiness::Awaited(now.after(patience));
        }
        match &mut self.phase {
            Phase::Starting => {
                self.enter(Phase::Up, now, out);
                if !self.awaits_ready() {
                    self.answer_up(out);
                }
                out.push(Effect::SaveHistory);
            }
            Phase::Ending(ending) if ending.stage == Stage::Unsignalled => {
                ending.stage = Stage::Grace;
                self.signal_main(out);
            }
            Phase::Down
            | Phase::Held
            | Phase::Up
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed
            | Phase::Finished => {}
        }
    }

    fn ready_reported(&mut self, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        if !matches!(life.readiness, Readiness::Reported(_)) && self.policy.ready.is_some() {
            // It may come before the news that it was executed.
            life.readiness = Readiness::Reported(now);
            if self.phase == Phase::Up {
                self.answer_up(out);
                out.push(Effect::Changed);
            }
        }
    }

    fn spawn_failed(&mut self, reason: String, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        life.spawn_error = Some(reason.clone());
        if self.phase == Phase::Starting {
            life.unasked = true;
            self.history.start_error = Some(reason.clone());
            self.fail_starters(&reason, out);
            // Nothing of it ran; `TreeEmpty` follows, and the patience is for the bug that it does not.
            self.enter_ending(Stage::Killing, now.after(KILL_PATIENCE), false, now, out);
        }
        self.end_if_over(now, out);
    }

    // ---- End ------------------------------------------------------------------------------------------------------

    fn begin_stop(&mut self, now: Tick, out: &mut Effects) {
        let stage = if self.phase == Phase::Up { Stage::Grace } else { Stage::Unsignalled };
        self.enter_ending(stage, self.capped(now.after(self.policy.stop.timeout)), true, now, out);
        if stage == Stage::Grace {
            self.signal_main(out);
        }
    }

    /// The stop signal. Only a stop leaves a service with a want that is down and no leave to run once.
    fn signal_main(&self, out: &mut Effects) {
        let planned = !self.is_aimed_up() && self.closing.is_none();
        let (incarnation, signal) = (self.history.incarnation, self.policy.stop.signal);
        out.push(Effect::SignalMain { incarnation, signal, planned });
    }

    fn main_exited(&mut self, exit: Exit, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        life.exit = Some(exit);
        life.unasked = matches!(self.phase, Phase::Starting | Phase::Up);
        let empty = life.empty;
        if self.ended.is_none() {
            self.history.last_exit = Some((exit, now));
        }
        let incarnation = self.history.incarnation;
        let stop = self.policy.stop;
        match self.phase {
            Phase::Starting | Phase::Up if !empty && stop.leftovers.is_zero() => {
                self.enter_ending(Stage::Killing, now.after(KILL_PATIENCE), false, now, out);
                out.push(Effect::KillTree { incarnation });
            }
            Phase::Starting | Phase::Up => {
                self.enter_ending(Stage::Grace, self.capped(now.after(stop.leftovers)), false, now, out);
                if !empty {
                    out.push(Effect::SignalTree { incarnation, signal: stop.signal });
                }
            }
            // Leftovers get the signal and what is left of the same timeout.
            Phase::Ending(Ending { stage: Stage::Unsignalled | Stage::Grace, .. }) if !empty => {
                out.push(Effect::SignalTree { incarnation, signal: stop.signal });
            }
            // A finish program leaves nothing behind.
            Phase::Ending(Ending { stage: Stage::Finishing, .. }) if !empty => self.kill(now, out),
            Phase::Ending(_)
            | Phase::Down
            | Phase::Held
            | Phase::Backoff { .. }
            | Phase::Failed
            | Phase::Finished => {}
        }
        self.end_if_over(now, out);
    }

    fn tree_empty(&mut self, now: Tick, out: &mut Effects) {
        if let Some(life) = &mut self.life {
            // While it is up this only means that the main process is dead and not yet reaped.
            life.empty = true;
            self.end_if_over(now, out);
        }
    }

    fn end_if_over(&mut self, now: Tick, out: &mut Effects) {
        let over = self.life.as_ref().is_some_and(|life| life.main_is_gone() && life.empty);
        if !over || matches!(self.stage(), None | Some(Stage::Draining)) {
            return;
        }
        let ran = self.life.as_ref().is_some_and(|life| life.up_since.is_some());
        let (next, until) = match self.policy.finish {
            Some(patience) if ran && self.ended.is_none() => {
                self.begin_finish(out);
                (Stage::Finishing, self.capped(now.after(patience)))
            }
            Some(_) | None => {
                out.push(Effect::DrainLogs { incarnation: self.history.incarnation });
                (Stage::Draining, now.after(DRAIN_PATIENCE))
            }
        };
        if let Phase::Ending(ending) = &mut self.phase {
            ending.stage = next;
            ending.until = until;
        }
    }

    /// The finish program gets a number of its own: nothing of the old life's place is used again.
    fn begin_finish(&mut self, out: &mut Effects) {
        self.ended = self.life.replace(Life::default()).map(Box::new);
        let ended = self.ended.as_ref();
        let exit = ended.and_then(|life| life.exit).unwrap_or(Exit::Unknown);
        let pid = ended.and_then(|life| life.pid).unwrap_or_default();
        out.push(Effect::Release { incarnation: self.history.incarnation });
        self.history.incarnation += 1;
        out.push(Effect::Finish { incarnation: self.history.incarnation, exit, pid });
    }

    fn kill(&mut self, now: Tick, out: &mut Effects) {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.stage = Stage::Killing;
            ending.until = now.after(KILL_PATIENCE);
            out.push(Effect::KillTree { incarnation: self.history.incarnation });
        }
    }

    /// The tree is empty and its log is read: what now?
    fn settle(&mut self, now: Tick, out: &mut Effects) {
        let last = self.life.take().unwrap_or_default();
        let gives_up = self.ended.is_some() && last.exit == Some(Exit::Code(FINISH_GIVES_UP));
        let life = self.ended.take().map_or(last, |life| *life);
        let asked = matches!(self.phase, Phase::Ending(Ending { asked: true, .. }));
        out.push(Effect::Release { incarnation: self.history.incarnation });
        let aimed_up = self.want == Want::Up || self.needed.is_some();
        let condemned = self.condemned.take();
        if !aimed_up || self.closing.is_some() {
            self.report_end(&life, now, out);
            out.push(Effect::SaveHistory);
            self.rest(false, now, out);
        } else if let Some(reason) = condemned {
            self.report_end(&life, now, out);
            self.give_up(reason, now, out);
        } else if asked {
            self.report_end(&life, now, out);
            self.begin_start(now, out);
        } else if matches!(self.gate, Gate::Elsewhere(_)) {
            // It made way for the service that does its work.
            self.report_end(&life, now, out);
            out.push(Effect::SaveHistory);
            self.begin_start(now, out);
        } else if matches!(self.gate, Gate::Ask(_)) {
            // It may be that it could not live beside the one that does its work.
            self.unjudged = Some(Box::new(life));
            out.push(Effect::SaveHistory);
            self.enter(Phase::Held, now, out);
        } else {
            self.judge(&life, gives_up, now, out);
        }
    }

    /// For the log: how a life ended that nobody had asked to end. Not where the next state says it.
    fn report_end(&self, life: &Life, now: Tick, out: &mut Effects) {
        let incident = match (life.unasked, &life.spawn_error, life.exit) {
            (true, Some(error), _) => Incident::NotStarted(error.clone()),
            (true, None, Some(exit)) => Incident::Ended { exit, ran: life.ran(now) },
            (true, None, None) | (false, _, _) => return,
        };
        out.push(Effect::Report(incident));
    }

    /// Decides about a service that ended unasked and is wanted up; `gives_up`: its finish program has decided.
    fn judge(&mut self, life: &Life, gives_up: bool, now: Tick, out: &mut Effects) {
        let words = match (&life.spawn_error, life.exit) {
            (Some(error), _) => error.clone(),
            (None, Some(exit)) => exit.to_string(),
            (None, None) => Exit::Unknown.to_string(),
        };
        let verdict = match (life.exit, self.policy.restart.when) {
            (Some(exit), _) if gives_up && exit.is_success() => Verdict::Finished,
            (Some(_), _) if gives_up => Verdict::Failed,
            (Some(exit), _) => self.policy.judge(exit),
            (None, RestartWhen::Never) => Verdict::Failed,
            (None, RestartWhen::Always | RestartWhen::OnFailure) => Verdict::Restart { skip_wait: false },
        };
        match verdict {
            Verdict::Finished => {
                self.history.row = 0;
                self.enter(Phase::Finished, now, out);
                self.fail_starters(&words, out);
                out.push(Effect::SaveHistory);
            }
            Verdict::Failed => self.give_up(words, now, out),
            Verdict::Later => {
                self.history.restarts += 1;
                if life.ran(now) >= self.policy.restart.backoff.reset_after {
                    self.report_end(life, now, out);
                    self.begin_start(now, out);
                } else {
                    self.back_off(now.after(LATER), &words, now, out);
                }
                out.push(Effect::SaveHistory);
            }
            Verdict::Restart { skip_wait } => {
                self.count_failure(life.ran(now), now);
                if let Some(limit) = self.policy.restart.limit
                    && self.history.failures.len() > limit.burst as usize
                {
                    let interval = humantime_words(limit.interval);
                    self.give_up(
                        format!(
                            "{} failures within {interval}; the last: {words}",
                            self.history.failures.len()
                        ),
                        now,
                        out,
                    );
                    return;
                }
                // What could not even be executed is not worth an immediate second try.
                let row = self.history.row.max(if life.spawn_error.is_some() { 2 } else { 1 });
                let wait = if skip_wait {
                    Duration::ZERO
                } else {
                    self.policy.restart.backoff.wait(row, self.dice())
                };
                self.history.restarts += 1;
                if wait.is_zero() {
                    self.report_end(life, now, out);
                    self.begin_start(now, out);
                } else {
                    self.back_off(now.after(wait), &words, now, out);
                }
                out.push(Effect::SaveHistory);
            }
            Verdict::Again => {
                let ran = life.ran(now);
                if ran >= self.policy.restart.backoff.reset_after {
                    self.history.row = 0;
                }
                self.history.restarts += 1;
                self.fail_starters(&format!("{words} before it was ready"), out);
                self.report_end(life, now, out);
                // What ends well again and again is started once in this time.
                let wait = self.policy.restart.backoff.initial.saturating_sub(ran);
                if wait.is_zero() {
                    self.begin_start(now, out);
                } else {
                    self.enter(Phase::Backoff { until: now.after(wait) }, now, out);
                }
                out.push(Effect::SaveHistory);
            }
        }
    }

    /// Waits for the next try, across restarts of the supervisor.
    fn back_off(&mut self, until: Tick, words: &str, now: Tick, out: &mut Effects) {
        self.history.backoff_until = Some(until);
        self.enter(Phase::Backoff { until }, now, out);
        self.fail_starters(words, out);
    }

    fn count_failure(&mut self, ran: Duration, now: Tick) {
        if ran >= self.policy.restart.backoff.reset_after {
            self.history.row = 0;
        }
        self.history.row = self.history.row.saturating_add(1);
        let Some(limit) = self.policy.restart.limit else {
            return self.history.failures.clear();
        };
        // A time in the future comes from a clock that was set back between two runs: it counts as now.
        self.history.failures.retain(|at| now.since(*at) < limit.interval);
        self.history.failures.push(now);
        let excess = self.history.failures.len().saturating_sub(limit.burst as usize + 1);
        self.history.failures.drain(..excess);
    }

    /// Only what is wanted up and has work of its own is given up.
    fn must_give_up(&mut self, reason: String, now: Tick, out: &mut Effects) {
        let is_wanted = self.want == Want::Up && self.closing.is_none() && !self.retiring;
        if !is_wanted || matches!(self.gate, Gate::Elsewhere(_)) {
            return;
        }
        match self.phase {
            Phase::Up | Phase::Starting => {
                self.condemned = Some(reason);
                self.begin_stop(now, out);
            }
            Phase::Ending(_) => self.condemned = Some(reason),
            Phase::Held | Phase::Backoff { .. } => self.give_up(reason, now, out),
            Phase::Down | Phase::Failed | Phase::Finished => {}
        }
    }

    fn give_up(&mut self, reason: String, now: Tick, out: &mut Effects) {
        self.unjudged = None;
        self.fail_starters(&reason, out);
        self.history.failed = Some((reason, now));
        self.enter(Phase::Failed, now, out);
        out.push(Effect::SaveHistory);
    }

    /// No process, nothing to do. `already`: it was so before.
    fn rest(&mut self, already: bool, now: Tick, out: &mut Effects) {
        self.once = false;
        self.unjudged = None;
        self.history.failed = None;
        self.enter(Phase::Down, now, out);
        let unrecorded = self.unrecorded.clone();
        let closing = self.closing.is_some();
        self.answer(self.acted, out, |waiter| match waiter.command {
            Command::Stop | Command::Unregister => {
                Some(Outcome::Done { already, unrecorded: unrecorded.clone() })
            }
            Command::Start { .. } | Command::Restart | Command::Once => {
                let why =
                    if closing { "the supervisor is shutting down" } else { "it ended before it was up" };
                Some(Outcome::Failed(why.to_owned()))
            }
        });
        if self.retiring {
            out.push(Effect::Retired);
        }
    }

    // ---- The rest -------------------------------------------------------------------------------------------------

    fn boot(&mut self, restored: Restored, now: Tick, out: &mut Effects) {
        let Restored { want, recorded, history, living, finished, needed } = restored;
        self.want = want;
        self.unsure = !recorded;
        self.history = history;
        if want == Want::Down {
            self.history.start_error = None;
        }
        if let Some(living) = living {
            return self.adopt(living, needed, now, out);
        }
        if self.policy.role == Role::Essential {
            // Its failure ended the container; that somebody started the container again is the wish to try again.
            self.history.failed = None;
        }
        match (want, self.history.backoff_until, &self.history.failed) {
            (Want::Down, _, _) => self.enter(Phase::Down, now, out),
            (Want::Up, _, Some(_)) => self.enter(Phase::Failed, now, out),
            (Want::Up, Some(until), None) if until > now => {
                // Never longer than the policy allows, whatever the clock did between two runs.
                let until = until.min(now.after(self.policy.restart.backoff.max));
                self.enter(Phase::Backoff { until }, now, out);
            }
            (Want::Up, _, None) if finished && self.closing.is_none() => {
                self.enter(Phase::Finished, now, out)
            }
            (Want::Up, _, None) => self.begin_start(now, out),
        }
    }

    /// The life of an earlier supervisor is ours now, and stays if it is wanted.
    fn adopt(&mut self, living: Living, needed: Option<ServiceName>, now: Tick, out: &mut Effects) {
        let Living { incarnation, pid, since, readiness, once, needed: _ } = living;
        self.history.incarnation = incarnation;
        self.history.start_error = None;
        // It runs, so what was written down before it did is over.
        (self.history.failed, self.history.backoff_until) = (None, None);
        self.once = once && self.want == Want::Down;
        self.needed = needed;
        self.life = Some(Life { pid: Some(pid), up_since: Some(since), readiness, ..Life::default() });
        self.enter(Phase::Up, since, out);
        let wanted = self.is_aimed_up();
        let must_end = matches!(self.gate, Gate::Refused(_) | Gate::Elsewhere(_));
        if !wanted || self.closing.is_some() || must_end {
            self.begin_stop(now, out);
        }
    }

    fn time(&mut self, now: Tick, out: &mut Effects) {
        if let Some(pending) = self.pending.take_if(|pending| pending.patience.is_some_and(|at| at <= now)) {
            self.unrecorded = Some("the disk does not answer".to_owned());
            self.unsure = true;
            self.act(pending.command, pending.seq, now, out);
        }
        if let Some(life) = self.life.as_mut().filter(|life| life.ready_by().is_some_and(|by| by <= now)) {
            life.readiness = Readiness::Overdue;
            self.fail_starters(NOT_READY, out);
            out.push(Effect::Changed);
        }
        match self.phase {
            Phase::Backoff { until } if until <= now => self.begin_start(now, out),
            Phase::Ending(Ending { stage, until, .. }) if until <= now => match stage {
                Stage::Unsignalled | Stage::Grace => {
                    let main = self.life.as_ref().is_some_and(|life| !life.main_is_gone());
                    let after = until.since(self.since);
                    // Where a shutdown's budget is over, that is said of all.
                    if self.closing != Some(until) {
                        out.push(Effect::Report(Incident::StopTimedOut { after, main }));
                    }
                    self.kill(now, out);
                }
                Stage::Finishing => {
                    let after = self.policy.finish.unwrap_or_default();
                    out.push(Effect::Report(Incident::FinishTimedOut { after }));
                    self.kill(now, out);
                }
                Stage::Killing => {
                    if let Phase::Ending(ending) = &mut self.phase {
                        ending.stage = Stage::Stuck;
                    }
                    self.answer_stuck(out);
                    out.push(Effect::Changed);
                }
                Stage::Draining => self.settle(now, out),
                Stage::Stuck => {}
            },
            Phase::Down
            | Phase::Held
            | Phase::Starting
            | Phase::Up
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed
            | Phase::Finished => {}
        }
    }

    /// It is wanted up, by its own want or otherwise.
    fn is_aimed_up(&self) -> bool {
        self.want == Want::Up || self.once || self.needed.is_some()
    }

    fn need_moved(&mut self, by: Option<ServiceName>, now: Tick, out: &mut Effects) {
        if self.needed == by || self.closing.is_some() || self.retiring {
            return;
        }
        self.needed = by;
        if let Some(name) = &self.needed {
            let overtaken = format!("'{name}' cannot do without it");
            self.answer(self.acted, out, |waiter| match waiter.command {
                Command::Stop => Some(Outcome::Failed(overtaken.clone())),
                Command::Start { .. } | Command::Restart | Command::Once | Command::Unregister => None,
            });
        }
        let aimed_up = self.is_aimed_up();
        match self.phase {
            Phase::Down if aimed_up => self.begin_start(now, out),
            Phase::Up | Phase::Starting if !aimed_up => self.begin_stop(now, out),
            Phase::Held if !aimed_up => self.rest(false, now, out),
            // Nor does `once` wait for another try.
            Phase::Backoff { .. } | Phase::Failed | Phase::Finished
                if self.want == Want::Down && self.needed.is_none() =>
            {
                self.history.backoff_until = None;
                self.rest(false, now, out);
            }
            Phase::Down
            | Phase::Held
            | Phase::Starting
            | Phase::Up
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed
            | Phase::Finished => out.push(Effect::Changed),
        }
    }

    fn gate_moved(&mut self, gate: Gate, now: Tick, out: &mut Effects) {
        if self.gate == gate {
            return;
        }
        let was_elsewhere = matches!(self.gate, Gate::Elsewhere(_));
        self.gate = gate;
        match (&self.gate, self.phase) {
            (Gate::Open, Phase::Held) => {
                // Of what only runs once no end is judged.
                let kept_up = self.want == Want::Up || self.needed.is_some();
                match self.unjudged.take().filter(|_| kept_up) {
                    Some(life) => self.judge(&life, false, now, out),
                    None => self.begin_start(now, out),
                }
            }
            (Gate::Refused(reason), Phase::Held) => {
                let reason = reason.clone();
                self.refused(&reason, now, out);
            }
            (Gate::Refused(_) | Gate::Elsewhere(_), Phase::Up | Phase::Starting) => self.begin_stop(now, out),
            (Gate::Elsewhere(place), Phase::Held | Phase::Backoff { .. } | Phase::Failed) => {
                let place = place.clone();
                self.elsewhere_instead(&place, now, out);
            }
            // The state in words is another one.
            (Gate::Elsewhere(_), Phase::Down | Phase::Finished) => out.push(Effect::Changed),
            (
                Gate::Open | Gate::Wait(_) | Gate::Ask(_) | Gate::Refused(_),
                Phase::Down | Phase::Held | Phase::Finished,
            ) if was_elsewhere => out.push(Effect::Changed),
            (
                Gate::Open | Gate::Wait(_) | Gate::Ask(_) | Gate::Refused(_) | Gate::Elsewhere(_),
                Phase::Down
                | Phase::Held
                | Phase::Starting
                | Phase::Up
                | Phase::Ending(_)
                | Phase::Backoff { .. }
                | Phase::Failed
                | Phase::Finished,
            ) => {}
        }
    }

    fn shutdown(&mut self, deadline: Tick, now: Tick, out: &mut Effects) {
        self.closing = Some(deadline);
        match &mut self.phase {
            Phase::Up | Phase::Starting => self.begin_stop(now, out),
            Phase::Ending(ending) => {
                if matches!(ending.stage, Stage::Unsignalled | Stage::Grace | Stage::Finishing) {
                    ending.until = ending.until.min(deadline);
                }
            }
            Phase::Held | Phase::Backoff { .. } => {
                // The wait is kept in the history: the next boot waits the remainder.
                let failed = self.history.failed.take();
                self.rest(false, now, out);
                self.history.failed = failed;
            }
            Phase::Down | Phase::Failed | Phase::Finished => {}
        }
    }

    /// No stop may take longer than a shutdown that has begun.
    fn capped(&self, until: Tick) -> Tick {
        self.closing.map_or(until, |deadline| until.min(deadline))
    }

    fn enter_ending(&mut self, stage: Stage, until: Tick, asked: bool, now: Tick, out: &mut Effects) {
        self.enter(Phase::Ending(Ending { stage, until, asked }), now, out);
    }

    /// The single place where a phase begins.
    fn enter(&mut self, phase: Phase, now: Tick, out: &mut Effects) {
        self.phase = phase;
        self.since = now;
        out.push(Effect::Changed);
    }

    fn answer_up(&mut self, out: &mut Effects) {
        self.answer(self.acted, out, |waiter| match waiter.command {
            Command::Start { .. } | Command::Restart | Command::Once => {
                Some(Outcome::Done { already: false, unrecorded: None })
            }
            Command::Stop | Command::Unregister => None,
        });
    }

    fn answer_stuck(&mut self, out: &mut Effects) {
        self.answer(self.acted, out, |_| {
            Some(Outcome::Failed("killed, but processes of it do not end".to_owned()))
        });
    }

    fn fail_starters(&mut self, reason: &str, out: &mut Effects) {
        self.answer(self.acted, out, |waiter| match waiter.command {
            Command::Start { .. } | Command::Restart | Command::Once => {
                Some(Outcome::Failed(reason.to_owned()))
            }
            Command::Stop | Command::Unregister => None,
        });
    }

    /// Answers callers whose command acts (numbered up to `seq`) and for whom `outcome` has an answer.
    fn answer(&mut self, seq: u64, out: &mut Effects, outcome: impl Fn(&Waiter) -> Option<Outcome>) {
        self.waiters.retain(|waiter| match outcome(waiter).filter(|_| waiter.seq <= seq) {
            Some(outcome) => {
                out.push(Effect::Reply { ticket: waiter.ticket, outcome });
                false
            }
            None => true,
        });
    }

    fn is_current(&self, incarnation: Incarnation) -> bool {
        self.life.is_some() && incarnation == self.history.incarnation
    }

    /// A number in 0.0..1.0 that differs between services and failures but not between runs of a test.
    fn dice(&self) -> f64 {
        let mut x = self.seed ^ self.history.restarts.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Nobody could do anything for so long: no deadline comes nearer by it. What counts the past (a run, failures) stays.
    pub(super) fn postpone(&mut self, by: Duration) {
        let patience = self.pending.as_mut().and_then(|pending| pending.patience.as_mut());
        let readiness = self.life.as_mut().and_then(|life| match &mut life.readiness {
            Readiness::Awaited(until) => Some(until),
            Readiness::Undefined | Readiness::Overdue | Readiness::Reported(_) => None,
        });
        let phase = match &mut self.phase {
            Phase::Ending(ending) => Some(&mut ending.until),
            Phase::Backoff { until } => Some(until),
            Phase::Down | Phase::Held | Phase::Starting | Phase::Up | Phase::Failed | Phase::Finished => None,
        };
        let backoff = self.history.backoff_until.as_mut();
        let all = [patience, readiness, phase, backoff, self.closing.as_mut()];
        all.into_iter().flatten().for_each(|until| *until = until.after(by));
    }

    // ---- What others may see --------------------------------------------------------------------------------------

    pub fn want(&self) -> Want {
        self.want
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The disk says for certain what is wanted here.
    pub fn is_recorded(&self) -> bool {
        !self.unsure && self.unrecorded.is_none() && self.pending.is_none()
    }

    /// The want in force is not on disk.
    pub fn is_unrecorded(&self) -> bool {
        self.unrecorded.is_some()
    }

    /// It is being unregistered.
    pub fn is_retiring(&self) -> bool {
        self.retiring
    }

    /// Runs, or is about to, although want is down.
    pub fn is_once(&self) -> bool {
        self.once
    }

    /// The service that it is kept up for although its own want is down.
    pub fn needed_by(&self) -> Option<&ServiceName> {
        self.needed.as_ref().filter(|_| self.want == Want::Down)
    }

    /// It may not run at all, or not without something that is missing.
    pub fn is_refused(&self) -> bool {
        matches!(self.gate, Gate::Refused(_))
    }

    /// Where its work is done, while no process of its own is there.
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        match (&self.gate, self.phase) {
            (Gate::Elsewhere(place), Phase::Down | Phase::Held | Phase::Finished) => Some(place),
            (
                Gate::Open | Gate::Wait(_) | Gate::Ask(_) | Gate::Refused(_) | Gate::Elsewhere(_),
                Phase::Down
                | Phase::Held
                | Phase::Starting
                | Phase::Up
                | Phase::Ending(_)
                | Phase::Backoff { .. }
                | Phase::Failed
                | Phase::Finished,
            ) => None,
        }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes a changed definition; running processes keep what they were started with.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// It waits for its next start although it has not failed.
    pub fn waits_after_success(&self) -> bool {
        matches!(self.phase, Phase::Backoff { .. }) && self.history.backoff_until.is_none()
    }

    /// Since when it is in this phase.
    pub fn since(&self) -> Tick {
        self.since
    }

    pub fn stage(&self) -> Option<Stage> {
        match self.phase {
            Phase::Ending(ending) => Some(ending.stage),
            Phase::Down
            | Phase::Held
            | Phase::Starting
            | Phase::Up
            | Phase::Backoff { .. }
            | Phase::Failed
            | Phase::Finished => None,
        }
    }

    /// The main process, while it lives.
    pub fn pid(&self) -> Option<i32> {
        let life = self.life.as_ref().filter(|life| self.ended.is_none() && !life.main_is_gone());
        life.and_then(|life| life.pid)
    }

    fn readiness(&self) -> Readiness {
        self.life
            .as_ref()
            .filter(|_| self.ended.is_none())
            .map_or(Readiness::Undefined, |life| life.readiness)
    }

    /// It runs and has yet to say that it is ready, within its time.
    pub fn awaits_ready(&self) -> bool {
        self.phase == Phase::Up && matches!(self.readiness(), Readiness::Awaited(_))
    }

    /// Since when it is ready, where it can say so.
    pub fn ready_since(&self) -> Option<Tick> {
        match self.readiness() {
            Readiness::Reported(at) => Some(at),
            Readiness::Undefined | Readiness::Awaited(_) | Readiness::Overdue => None,
        }
    }

    /// What a later supervisor has to know to go on with this life; `None` while there is none that could go on.
    pub fn living(&self) -> Option<Living> {
        let life = self.life.as_ref().filter(|life| self.phase == Phase::Up && !life.main_is_gone())?;
        Some(Living {
            incarnation: self.history.incarnation,
            pid: life.pid?,
            since: life.up_since?,
            readiness: life.readiness,
            once: self.once,
            needed: self.needed_by().is_some(),
        })
    }

    /// Nothing of it is under way: it will stay as it is unless something happens.
    pub fn is_settled(&self) -> bool {
        let moving =
            matches!(self.phase, Phase::Starting | Phase::Ending(_)) && self.stage() != Some(Stage::Stuck);
        !moving && self.pending.is_none() && !self.awaits_ready() && !self.retiring
    }

    /// A tree exists or is being made.
    pub fn has_tree(&self) -> bool {
        self.life.is_some()
    }

    /// When `Event::Time` has something to do, at the latest.
    pub fn deadline(&self) -> Option<Tick> {
        let patience = self.pending.as_ref().and_then(|pending| pending.patience);
        let phase = match self.phase {
            Phase::Backoff { until } => Some(until),
            Phase::Ending(Ending { stage: Stage::Stuck, .. }) => None,
            Phase::Ending(Ending { until, .. }) => Some(until),
            Phase::Up => self.life.as_ref().and_then(Life::ready_by),
            Phase::Down | Phase::Held | Phase::Starting | Phase::Failed | Phase::Finished => None,
        };
        [patience, phase].into_iter().flatten().min()
    }

    pub fn state(&self) -> State {
        if let Some(place) = self.elsewhere() {
            return place.state();
        }
        match self.phase {
            Phase::Down => State::Down,
            Phase::Held if matches!(self.gate, Gate::Refused(_)) => State::Down,
            Phase::Held | Phase::Starting => State::Starting,
            Phase::Up if self.ready_since().is_some() => State::Ready,
            Phase::Up => State::Up,
            Phase::Ending(Ending { stage: Stage::Stuck, .. }) => State::Failed,
            Phase::Ending(_) => State::Stopping,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Failed => State::Failed,
            Phase::Finished => State::Finished,
        }
    }

    /// Why it is in this state; empty when there is nothing to say.
    pub fn reason(&self) -> String {
        let last = || match (&self.history.start_error, self.history.last_exit) {
            (Some(error), _) => error.clone(),
            (None, Some((exit, _))) => exit.to_string(),
            // Of a row that an earlier release wrote.
            (None, None) => "could not be started".to_owned(),
        };
        let text = match (self.phase, &self.gate) {
            (Phase::Held, Gate::Wait(reason) | Gate::Refused(reason)) => reason.clone(),
            (Phase::Held, Gate::Ask(name)) => format!("waits for '{name}' to say whether it serves it"),
            (Phase::Held | Phase::Down | Phase::Finished, Gate::Elsewhere(Elsewhere::Served { by })) => {
                served_by(by)
            }
            (Phase::Held | Phase::Down | Phase::Finished, Gate::Elsewhere(Elsewhere::Parked)) => {
                PARKED.to_owned()
            }
            (Phase::Ending(Ending { stage: Stage::Stuck, .. }), _) => {
                "killed, but processes of it do not end".to_owned()
            }
            (Phase::Ending(Ending { stage: Stage::Finishing, .. }), _) => {
                format!("{}; its finish program runs", last())
            }
            (Phase::Ending(Ending { asked: false, .. }), _) => format!("{}; ending what it left", last()),
            (Phase::Backoff { .. }, _) if self.waits_after_success() => format!("{}; started again", last()),
            (Phase::Backoff { .. }, _) if self.history.row == 0 => last(),
            (Phase::Backoff { .. }, _) => format!("{}; failure {} in a row", last(), self.history.row),
            (Phase::Starting, _) if self.history.start_error.is_some() => {
                format!("tried again after: {}", last())
            }
            (Phase::Failed, _) => {
                self.history.failed.as_ref().map_or_else(String::new, |(reason, _)| reason.clone())
            }
            (Phase::Finished, _) => last(),
            (Phase::Down, _) => self
                .history
                .start_error
                .as_ref()
                .map(|why| format!("could not be started: {why}"))
                .unwrap_or_default(),
            (Phase::Up, _) if self.readiness() == Readiness::Overdue => NOT_READY.to_owned(),
            (Phase::Up, _) if self.once => "runs once".to_owned(),
            (Phase::Up, _) if let Some(name) = self.needed_by() => format!("up for '{name}'"),
            (Phase::Held | Phase::Starting | Phase::Up | Phase::Ending(_), _) => String::new(),
        };
        match &self.unrecorded {
            Some(why) if text.is_empty() => format!("want not recorded: {why}"),
            Some(why) => format!("{text}; want not recorded: {why}"),
            None => text,
        }
    }
}

#[cfg(test)]
impl Gateway {
    pub(super) fn is_needed(&self) -> bool {
        self.needed.is_some()
    }

    /// For the exhaustive search: everything that decides what happens next, without absolute times and numbers.
    pub(super) fn fingerprint(&self) -> String {
        let waiters: Vec<_> = self.waiters.iter().map(|w| (w.command, self.fingerprint_seq(w.seq))).collect();
        let of = |life: Option<&Life>| {
            let readiness = |life: &Life| match life.readiness {
                Readiness::Awaited(_) => "awaited".to_owned(),
                Readiness::Reported(_) => "reported".to_owned(),
                other => format!("{other:?}"),
            };
            life.map(|l| (l.exit, l.spawn_error.is_some(), l.empty, l.up_since.is_some(), readiness(l)))
        };
        let life = (of(self.life.as_ref()), of(self.ended.as_deref()));
        format!(
            "{:?} {:?} {life:?} {:?} {waiters:?} {} {} {} {} {} {} {} {} {} {} {}",
            self.want,
            self.gate,
            self.pending.as_ref().map(|p| (p.command, p.patience.is_some())),
            self.unrecorded.is_some(),
            self.unsure,
            self.once,
            self.needed.is_some(),
            self.unjudged.is_some(),
            self.condemned.is_some(),
            self.closing.is_some(),
            self.retiring,
            self.history.row.min(2),
            self.history.failures.len(),
            self.seq == self.acted,
        )
    }

    pub(super) fn fingerprint_ending(&self) -> String {
        match self.phase {
            Phase::Ending(ending) => format!("{:?} asked={}", ending.stage, ending.asked),
            _ => String::new(),
        }
    }

    /// Where a number stands: newest command, newest that acts, or older.
    pub(super) fn fingerprint_seq(&self, seq: u64) -> (bool, bool, bool) {
        (seq == self.seq, seq <= self.acted, self.pending.as_ref().is_some_and(|p| p.seq == seq))
    }
}

fn humantime_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s} s"),
        (m, 0) => format!("{m} min"),
        (m, s) => format!("{m} min {s} s"),
    }
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
