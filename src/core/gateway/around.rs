//! What the services around it allow and need.

use super::{Gateway, Phase};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects, Outcome};
use crate::core::event::Command;
use crate::core::name::ServiceName;
use crate::core::words::{State, Want};
use serde::{Deserialize, Serialize};

/// Whether the services around it let it start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Gate {
    Open,
    /// Not yet; for whom it waits.
    Wait(String),
    /// Not before its turn: enough others are starting.
    Turn,
    /// Not at all, and a running one must stop; which requirement is missing.
    Refused(String),
    /// Not before this service has said whether it does this one's work. One that runs may go on.
    Ask(ServiceName),
    /// Not at all, and a running one must stop, but nothing is missing.
    Elsewhere(Elsewhere),
}

/// Why a service that may be wanted up has no process of its own, and is no failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Elsewhere {
    /// This service does its work.
    Served { by: ServiceName },
    /// Its owner told the service that would do its work to leave it out.
    Parked,
}

impl Elsewhere {
    pub(super) fn state(&self) -> State {
        match self {
            Self::Served { .. } => State::Served,
            Self::Parked => State::Parked,
        }
    }
}

/// Of a start, when another service leaves it out on its owner's wish.
pub(super) const PARKED: &str = "its owner parked it: nothing serves it";

pub(super) fn served_by(name: &ServiceName) -> String {
    format!("'{name}' serves it")
}

impl Gateway {
    /// Something it requires is missing: its callers are told; a want that is up goes on waiting.
    pub(super) fn refused(&mut self, reason: &str, now: Tick, out: &mut Effects) {
        self.orders.fail_starters(reason, out);
        // The caller who asked for one run knows that there is none.
        self.once = false;
        if self.is_scheduled() && self.want == Want::Up {
            self.refused_run(reason, now, out);
        } else if self.is_aimed_up() {
            self.enter(Phase::Held, now, out);
        } else {
            self.rest(false, now, out);
        }
    }

    /// Another service does its work: a caller of start has what was asked for, unless its owner wants it to rest.
    pub(super) fn elsewhere_instead(&mut self, place: &Elsewhere, now: Tick, out: &mut Effects) {
        // What it failed at before is done by the other one.
        self.forgive(out);
        if let Some(life) = self.unjudged.take() {
            self.report_end(&life, now, out);
        }
        match place {
            Elsewhere::Served { by } => {
                self.orders.answer(out, |waiter| match waiter.command {
                    Command::Start { .. } | Command::Restart => {
                        Some(Outcome::Done { already: true, unrecorded: None })
                    }
                    Command::Once => Some(Outcome::Failed(served_by(by))),
                    Command::Stop | Command::Unregister => None,
                });
            }
            Elsewhere::Parked => self.orders.fail_starters(PARKED, out),
        }
        self.once = false;
        if self.is_aimed_up() {
            self.enter(Phase::Held, now, out);
        } else {
            self.rest(false, now, out);
        }
    }

    pub(super) fn gate_moved(&mut self, gate: Gate, now: Tick, out: &mut Effects) {
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
                Gate::Open | Gate::Wait(_) | Gate::Turn | Gate::Ask(_) | Gate::Refused(_),
                Phase::Down | Phase::Held | Phase::Finished,
            ) if was_elsewhere => out.push(Effect::Changed),
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
            ) => {}
        }
    }

    pub(super) fn need_moved(&mut self, by: Option<ServiceName>, now: Tick, out: &mut Effects) {
        if self.needed == by || self.closing.is_some() || self.orders.retiring {
            return;
        }
        self.needed = by;
        if let Some(name) = &self.needed {
            let overtaken = format!("'{name}' cannot do without it");
            self.orders.answer(out, |waiter| match waiter.command {
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

    /// It is wanted up, by its own want or otherwise.
    pub(super) fn is_aimed_up(&self) -> bool {
        self.want == Want::Up || self.once || self.needed.is_some()
    }
}
