//! The life of one service: a pure state machine. Events in, effects out; no clock, descriptor or path.
//!
//! Total state is (want, phase):
//!
//! | phase    | want up                                        | want down                                      |
//! |----------|------------------------------------------------|------------------------------------------------|
//! | Down     | while the supervisor shuts down; *scheduled*   | at rest                                        |
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
//! A *scheduled* service ([`Kind::Scheduled`](super::policy::Kind)) that is wanted up waits for [`Event::Due`] in the phase that its
//! last run left it in: `Down` before the first one, `Finished`, or `Failed`.
//!
//! Invariants, searched exhaustively in `model`: nothing is spawned while an earlier tree lives, against the want, or
//! while another service does its work; no command is acknowledged before its commit; every phase can be left; every caller is answered exactly once.
//!
//! A want changes only by a command. It is adopted when its write is on disk, with one exception: a stop acts after
//! [`RECORD_PATIENCE`] or a failed write all the same, because the operator must be able to stop what fills the disk.

mod around;
mod ending;
#[cfg(test)]
mod fingerprint;
mod hooks;
mod life;
mod orders;
mod runs;
mod shown;
mod start;
#[cfg(test)]
mod tests;
mod verdict;

pub use around::{Elsewhere, Gate};
pub use life::{History, Living, Readiness, Restored, Runs};

use super::clock::Tick;
use super::effect::{Effect, Effects, Incident};
use super::event::{Event, Incarnation};
use super::name::ServiceName;
use super::policy::Policy;
use super::words::Want;
use life::{Life, NOT_READY};
use orders::Orders;
use serde::{Deserialize, Serialize};
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ending {
    pub stage: Stage,
    until: Tick,
    /// We ended it: its exit is no failure.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The main process exists only halfway: the stop signal follows exec.
    Unsignalled,
    /// A hook runs, and the stop signal follows.
    Hooked,
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
    orders: Orders,
    /// Runs although want is down.
    once: bool,
    /// Of a scheduled service: a run was asked for while the last one was ending.
    again: bool,
    /// It is kept up for this service, whatever its own want.
    needed: Option<ServiceName>,
    /// A life that ended while it was not known whether another service does its work: a failure, if none does.
    unjudged: Option<Box<Life>>,
    /// It is given up when its tree has ended, for this reason.
    condemned: Option<String>,
    /// The supervisor shuts down; the end must be over by then.
    closing: Option<Tick>,
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
            orders: Orders::default(),
            once: false,
            again: false,
            needed: None,
            unjudged: None,
            condemned: None,
            closing: None,
            seed,
        }
    }

    /// Takes one event at `now` and returns what must be done about it.
    pub fn step(&mut self, event: Event, now: Tick) -> Effects {
        let mut out = Effects::default();
        match event {
            Event::Boot(restored) => self.boot(restored, now, &mut out),
            Event::Command { ticket, command } => self.command(ticket, command, now, &mut out),
            Event::Forget(ticket) => self.orders.waiters.retain(|waiter| waiter.ticket != ticket),
            Event::Recorded { seq } => self.recorded(seq, None, now, &mut out),
            Event::NotRecorded { seq, reason } => self.recorded(seq, Some(reason), now, &mut out),
            Event::Spawned { incarnation, pid } if self.is_current(incarnation) => {
                self.spawned(pid, now, &mut out)
            }
            Event::ReadyReported { incarnation } if self.is_current(incarnation) => {
                self.ready_reported(now, &mut out)
            }
            Event::Extended { incarnation, by } if self.is_current(incarnation) => self.extended(by, now),
            Event::Unhealthy { incarnation, reason } if self.is_current(incarnation) => {
                self.unhealthy(reason, now, &mut out);
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
            Event::HookEnded { incarnation } if self.is_current(incarnation) => self.hook_ended(&mut out),
            // Late news of a life that is over or was given up.
            Event::Spawned { .. }
            | Event::ReadyReported { .. }
            | Event::Extended { .. }
            | Event::Unhealthy { .. }
            | Event::SpawnFailed { .. }
            | Event::MainExited { .. }
            | Event::TreeEmpty { .. }
            | Event::LogsDrained { .. }
            | Event::HookEnded { .. } => {}
            Event::Time => self.time(now, &mut out),
            Event::Due => self.due(now, &mut out),
            Event::Defined(policy) => self.defined(policy, now, &mut out),
            Event::Gate(gate) => self.gate_moved(gate, now, &mut out),
            Event::Needed(by) => self.need_moved(by, now, &mut out),
            Event::GiveUp { reason } => self.must_give_up(reason, now, &mut out),
            Event::Shutdown { deadline } => self.shutdown(deadline, now, &mut out),
            Event::KillNow => {
                let stage = self.stage();
                if matches!(stage, Some(Stage::Unsignalled | Stage::Hooked | Stage::Grace | Stage::Finishing))
                {
                    self.kill(now, &mut out);
                }
            }
        }
        out
    }

    fn time(&mut self, now: Tick, out: &mut Effects) {
        if let Some(pending) =
            self.orders.pending.take_if(|pending| pending.patience.is_some_and(|at| at <= now))
        {
            self.orders.unrecorded = Some("the disk does not answer".to_owned());
            self.orders.unsure = true;
            self.act(pending.command, pending.seq, now, out);
        }
        if let Some(life) = self.life.as_mut().filter(|life| life.ready_by().is_some_and(|by| by <= now)) {
            life.readiness = Readiness::Overdue;
            self.orders.fail_starters(NOT_READY, out);
            out.push(Effect::Changed);
        }
        let is_due = |life: &Life| life.hook_by().is_some_and(|by| by <= now);
        if self.phase == Phase::Up && self.life.as_ref().is_some_and(is_due) {
            self.hook_timed_out(out);
        }
        match self.phase {
            Phase::Backoff { until } if until <= now => self.begin_start(now, out),
            Phase::Starting
                if self.life.as_ref().is_some_and(|life| life.preparing.is_some_and(|by| by <= now)) =>
            {
                self.preparing_timed_out(now, out);
            }
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
                Stage::Hooked => {
                    self.hook_timed_out(out);
                    self.signal_after_hook(out);
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
                    // Who asked for it is told that it does not come.
                    self.again = false;
                    self.orders.answer_stuck(out);
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

    /// The single place where a phase begins.
    fn enter(&mut self, phase: Phase, now: Tick, out: &mut Effects) {
        self.phase = phase;
        self.since = now;
        out.push(Effect::Changed);
    }

    /// What waited for its next run, and has no schedule any more, has waited long enough.
    fn defined(&mut self, policy: Arc<Policy>, now: Tick, out: &mut Effects) {
        let waits = self.awaits_run() && self.phase == Phase::Down;
        self.policy = policy;
        if waits && !self.is_scheduled() {
            self.begin_start(now, out);
        }
    }

    fn is_current(&self, incarnation: Incarnation) -> bool {
        self.life.is_some() && incarnation == self.history.incarnation
    }

    /// Nobody could do anything for so long: no deadline comes nearer by it. What counts the past (a run, failures) stays.
    pub(super) fn postpone(&mut self, by: Duration) {
        let patience = self.orders.pending.as_mut().and_then(|pending| pending.patience.as_mut());
        if let Some(life) = &mut self.life {
            let readiness = match &mut life.readiness {
                Readiness::Awaited(until) => Some(until),
                Readiness::Undefined | Readiness::Overdue | Readiness::Reported(_) => None,
            };
            let hook = life.hook.as_mut().and_then(|(_, until)| until.as_mut());
            let all = [readiness, hook, life.preparing.as_mut()];
            all.into_iter().flatten().for_each(|until| *until = until.after(by));
        }
        let phase = match &mut self.phase {
            Phase::Ending(ending) => Some(&mut ending.until),
            Phase::Backoff { until } => Some(until),
            Phase::Down | Phase::Held | Phase::Starting | Phase::Up | Phase::Failed | Phase::Finished => None,
        };
        let backoff = self.history.backoff_until.as_mut();
        let all = [patience, phase, backoff, self.closing.as_mut()];
        all.into_iter().flatten().for_each(|until| *until = until.after(by));
    }

    /// When `Event::Time` has something to do, at the latest.
    pub fn deadline(&self) -> Option<Tick> {
        let patience = self.orders.pending.as_ref().and_then(|pending| pending.patience);
        let phase = match self.phase {
            Phase::Backoff { until } => Some(until),
            Phase::Ending(Ending { stage: Stage::Stuck, .. }) => None,
            Phase::Ending(Ending { until, .. }) => Some(until),
            Phase::Up => self
                .life
                .as_ref()
                .and_then(|life| [life.ready_by(), life.hook_by()].into_iter().flatten().min()),
            Phase::Starting => self.life.as_ref().and_then(|life| life.preparing),
            Phase::Down | Phase::Held | Phase::Failed | Phase::Finished => None,
        };
        [patience, phase].into_iter().flatten().min()
    }
}
