//! The runs of a scheduled service: they begin when they are due or asked for, and never beside one another.

use super::life::{History, Runs};
use super::{Gate, Gateway, Phase};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects, Incident, Outcome};
use crate::core::event::Command;
use crate::core::policy::Kind;
use crate::core::words::Want;

impl Gateway {
    /// It is wanted up and waits for its next run.
    pub fn awaits_run(&self) -> bool {
        let rests = matches!(self.phase, Phase::Down | Phase::Failed | Phase::Finished);
        self.is_scheduled() && self.want == Want::Up && rests && self.closing.is_none()
    }

    /// Its want alone does not start it.
    pub fn is_scheduled(&self) -> bool {
        self.policy.kind == Kind::Scheduled
    }

    /// It is time for the next run.
    pub(super) fn due(&mut self, now: Tick, out: &mut Effects) {
        if !self.is_scheduled() || self.want == Want::Down || self.closing.is_some() || self.orders.retiring {
            return;
        }
        let why_not = match (self.phase, &self.gate) {
            (
                Phase::Down | Phase::Failed | Phase::Finished | Phase::Backoff { .. },
                Gate::Refused(reason),
            ) => reason.clone(),
            (Phase::Down | Phase::Failed | Phase::Finished | Phase::Backoff { .. }, _) => {
                // What the run before it failed at is over.
                self.forgive(out);
                out.push(Effect::Report(Incident::RunDue));
                return self.begin_start(now, out);
            }
            (Phase::Held, _) => "the one before it still waits for its start".to_owned(),
            (Phase::Starting | Phase::Up | Phase::Ending(_), _) => {
                "the one before it has not ended".to_owned()
            }
        };
        self.skipped(why_not, out);
    }

    pub(super) fn skipped(&mut self, why: String, out: &mut Effects) {
        let runs = runs(&mut self.history);
        runs.skipped += 1;
        runs.in_row += 1;
        if runs.in_row == 1 {
            out.push(Effect::Report(Incident::RunSkipped(why)));
        }
    }

    /// A run begins.
    pub(super) fn note_run(&mut self, now: Tick) {
        self.again = false;
        if self.is_scheduled() {
            let runs = runs(&mut self.history);
            (runs.started, runs.in_row) = (Some(now), 0);
        }
    }

    /// It is wanted up and does not run; `now_too`: and is to run now.
    pub(super) fn ask_scheduled(&mut self, now_too: bool, was: Want, now: Tick, out: &mut Effects) {
        match (&mut self.phase, now_too) {
            (Phase::Ending(_), true) => self.again = true,
            (Phase::Ending(ending), false) => ending.asked = true,
            (Phase::Held, true) => {}
            (Phase::Down | Phase::Failed | Phase::Finished | Phase::Backoff { .. }, true) => {
                if let Gate::Refused(reason) = &self.gate {
                    return self.orders.fail_starters(&reason.clone(), out);
                }
                self.forgive(out);
                self.begin_start(now, out);
            }
            (Phase::Failed | Phase::Backoff { .. }, false) => self.await_run(false, now, out),
            (Phase::Down | Phase::Held | Phase::Finished | Phase::Starting | Phase::Up, _) => {
                self.await_run(was == Want::Up, now, out);
            }
        }
    }

    /// Runs are due from now on, which is all that a start asks for. `already`: they were before.
    pub(super) fn await_run(&mut self, already: bool, now: Tick, out: &mut Effects) {
        match self.phase {
            Phase::Failed | Phase::Backoff { .. } | Phase::Ending(_) => self.enter(Phase::Down, now, out),
            // A single run of before waits for its start, which is not what is asked for now.
            Phase::Held if !already => self.enter(Phase::Down, now, out),
            Phase::Down | Phase::Held | Phase::Starting | Phase::Up | Phase::Finished => {
                out.push(Effect::Changed);
            }
        }
        self.orders.answer(out, |waiter| match waiter.command {
            Command::Start { .. } | Command::Restart => Some(Outcome::Done { already, unrecorded: None }),
            Command::Once => Some(Outcome::Failed("it ended before it was up".to_owned())),
            Command::Stop | Command::Unregister => None,
        });
    }

    /// What it requires is missing, and it was to run.
    pub(super) fn refused_run(&mut self, reason: &str, now: Tick, out: &mut Effects) {
        if self.phase == Phase::Held {
            self.skipped(reason.to_owned(), out);
        }
        self.enter(Phase::Down, now, out);
    }
}

fn runs(history: &mut History) -> &mut Runs {
    history.runs.get_or_insert_default()
}
