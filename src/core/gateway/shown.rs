//! What others may see of a service.

use super::around::{PARKED, served_by};
use super::life::{History, Living, NOT_READY, Readiness};
use super::{Elsewhere, Ending, Gate, Gateway, Phase, Stage};
use crate::core::clock::Tick;
use crate::core::event::Command;
use crate::core::name::ServiceName;
use crate::core::policy::Policy;
use crate::core::words::{State, Want};

impl Gateway {
    pub fn want(&self) -> Want {
        self.want
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The disk says for certain what is wanted here.
    pub fn is_recorded(&self) -> bool {
        let is_moving = self.orders.pending.is_some() || self.orders.erasing.is_some();
        !self.orders.unsure && self.orders.unrecorded.is_none() && !is_moving
    }

    /// The want in force is not on disk.
    pub fn is_unrecorded(&self) -> bool {
        self.orders.unrecorded.is_some()
    }

    /// It is being unregistered, or will be as soon as that is on the disk.
    pub fn is_leaving(&self) -> bool {
        self.orders.retiring || self.orders.erasing.is_some()
    }

    /// It is being unregistered.
    pub fn is_retiring(&self) -> bool {
        self.orders.retiring
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

    /// It is to start, and waits for nothing but its turn.
    pub fn awaits_turn(&self) -> bool {
        self.phase == Phase::Held && self.gate == Gate::Turn
    }

    /// Where its work is done, though processes of its own may still end.
    pub fn placed_elsewhere(&self) -> Option<&Elsewhere> {
        match &self.gate {
            Gate::Elsewhere(place) => Some(place),
            Gate::Open | Gate::Wait(_) | Gate::Turn | Gate::Ask(_) | Gate::Refused(_) => None,
        }
    }

    /// Where its work is done, while no process of its own is there.
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        match (&self.gate, self.phase) {
            (Gate::Elsewhere(place), Phase::Down | Phase::Held | Phase::Finished) => Some(place),
            (
                Gate::Open
                | Gate::Wait(_)
                | Gate::Turn
                | Gate::Ask(_)
                | Gate::Refused(_)
                | Gate::Elsewhere(_),
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
        let is_main = self.ended.is_none() && !self.is_preparing();
        let life = self.life.as_ref().filter(|life| is_main && !life.main_is_gone());
        life.and_then(|life| life.pid)
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.life
            .as_ref()
            .filter(|_| self.ended.is_none())
            .map_or(Readiness::Undefined, |life| life.readiness)
    }

    /// It runs and has yet to say that it is ready, within its time.
    pub fn awaits_ready(&self) -> bool {
        self.phase == Phase::Up && matches!(self.readiness(), Readiness::Awaited(_))
    }

    /// It runs and may still say that it is ready, in its time or late.
    pub fn may_report(&self) -> bool {
        self.phase == Phase::Up && matches!(self.readiness(), Readiness::Awaited(_) | Readiness::Overdue)
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
        let ordered = self.orders.pending.is_some() || self.orders.erasing.is_some() || self.orders.retiring;
        !moving && !ordered && !self.awaits_ready()
    }

    /// A start of it is on its way to the disk.
    pub fn is_to_start(&self) -> bool {
        let pending = self.orders.pending.as_ref().map(|pending| pending.command);
        matches!(pending, Some(Command::Start { .. } | Command::Restart))
    }

    /// A tree exists or is being made.
    pub fn has_tree(&self) -> bool {
        self.life.is_some()
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
            (Phase::Held, Gate::Turn) => "waits for its turn".to_owned(),
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
            (Phase::Ending(Ending { stage: Stage::Hooked, .. }), _) => "its hook pre_stop runs".to_owned(),
            (Phase::Ending(Ending { asked: false, .. }), _)
                if let Some(reason) = self.life.as_ref().and_then(|life| life.unhealthy.as_ref()) =>
            {
                format!("{reason}; it is being ended")
            }
            (Phase::Ending(Ending { asked: false, .. }), _) => format!("{}; ending what it left", last()),
            (Phase::Backoff { .. }, _) if self.waits_after_success() => format!("{}; started again", last()),
            (Phase::Backoff { .. }, _) if self.history.row == 0 => last(),
            (Phase::Backoff { .. }, _) => format!("{}; failure {} in a row", last(), self.history.row),
            (Phase::Starting, _) if self.is_preparing() => "its hook pre_start runs".to_owned(),
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
        match &self.orders.unrecorded {
            Some(why) if text.is_empty() => format!("want not recorded: {why}"),
            Some(why) => format!("{text}; want not recorded: {why}"),
            None => text,
        }
    }
}
