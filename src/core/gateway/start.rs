//! How a life begins: at boot, by adoption, by a start, up to the report that it is ready.

use super::hooks::PRE_START;
use super::life::{Life, Living, Readiness, Restored};
use super::{Gate, Gateway, KILL_PATIENCE, Phase, Stage};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects};
use crate::core::name::ServiceName;
use crate::core::policy::Role;
use crate::core::words::Want;

impl Gateway {
    pub(super) fn boot(&mut self, restored: Restored, now: Tick, out: &mut Effects) {
        let Restored { want, recorded, history, living, finished, needed } = restored;
        self.want = want;
        self.orders.unsure = !recorded;
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
            (Want::Up, _, None) if self.is_scheduled() => self.enter(Phase::Down, now, out),
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

    pub(super) fn begin_start(&mut self, now: Tick, out: &mut Effects) {
        if self.closing.is_some() {
            self.rest(false, now, out);
            return;
        }
        match &self.gate {
            Gate::Open => {
                self.history.incarnation += 1;
                self.history.backoff_until = None;
                self.note_run(now);
                self.enter(Phase::Starting, now, out);
                let incarnation = self.history.incarnation;
                if let Some(patience) = self.policy.hooks.pre_start {
                    self.life = Some(Life { preparing: Some(now.after(patience)), ..Life::default() });
                    out.push(Effect::Prepare { incarnation });
                } else {
                    self.life = Some(Life::default());
                    out.push(Effect::Spawn { incarnation });
                }
            }
            Gate::Wait(_) | Gate::Turn | Gate::Ask(_) => self.enter(Phase::Held, now, out),
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

    pub(super) fn spawned(&mut self, pid: i32, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        life.pid = Some(pid);
        if life.preparing.is_some() {
            return;
        }
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
                    self.is_up(now, out);
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

    pub(super) fn ready_reported(&mut self, now: Tick, out: &mut Effects) {
        let Some(life) = self.life.as_mut().filter(|life| life.preparing.is_none()) else { return };
        if !matches!(life.readiness, Readiness::Reported(_)) && self.policy.ready.is_some() {
            // It may come before the news that it was executed.
            life.readiness = Readiness::Reported(now);
            if self.phase == Phase::Up {
                self.is_up(now, out);
                out.push(Effect::Changed);
            }
        }
    }

    pub(super) fn spawn_failed(&mut self, reason: String, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        let reason = if life.preparing.is_some() { format!("{PRE_START}: {reason}") } else { reason };
        life.spawn_error = Some(reason.clone());
        if self.phase == Phase::Starting {
            life.unasked = true;
            self.history.start_error = Some(reason.clone());
            self.orders.fail_starters(&reason, out);
            // Nothing of it ran; `TreeEmpty` follows, and the patience is for the bug that it does not.
            self.enter_ending(Stage::Killing, now.after(KILL_PATIENCE), false, now, out);
        }
        self.end_if_over(now, out);
    }
}
