//! How a life ends: the stop ladder, from the signal to an empty tree.

use super::life::{Life, Readiness};
use super::{DRAIN_PATIENCE, Ending, Gateway, KILL_PATIENCE, Phase, Stage};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects};
use crate::core::exit::Exit;
use std::time::Duration;

impl Gateway {
    pub(super) fn begin_stop(&mut self, now: Tick, out: &mut Effects) {
        if self.is_preparing() {
            self.enter_ending(Stage::Killing, now.after(KILL_PATIENCE), true, now, out);
            out.push(Effect::KillTree { incarnation: self.history.incarnation });
            return;
        }
        if self.stops_by_hook(now, out) {
            return;
        }
        let stage = if self.phase == Phase::Up { Stage::Grace } else { Stage::Unsignalled };
        self.enter_ending(stage, self.capped(now.after(self.policy.stop.timeout)), true, now, out);
        if stage == Stage::Grace {
            self.signal_main(out);
        }
    }

    /// It does not do its work: it is ended as by a stop, and what comes after is that of a failure.
    pub(super) fn unhealthy(&mut self, reason: String, now: Tick, out: &mut Effects) {
        let Some(life) = self.life.as_mut().filter(|_| self.phase == Phase::Up) else { return };
        life.unhealthy = Some(reason);
        let until = self.capped(now.after(self.policy.stop.timeout));
        self.enter_ending(Stage::Grace, until, false, now, out);
        self.signal_main(out);
    }

    /// More time to be ready, or to end by itself; a shutdown gives nobody more than it has.
    pub(super) fn extended(&mut self, by: Duration, now: Tick) {
        let until = self.capped(now.after(by));
        match (&mut self.phase, self.life.as_mut().map(|life| &mut life.readiness)) {
            (Phase::Ending(ending), _) if ending.stage == Stage::Grace => {
                ending.until = ending.until.max(until)
            }
            (Phase::Up, Some(Readiness::Awaited(at))) => *at = until.max(*at),
            _ => {}
        }
    }

    /// The stop signal. Only a stop leaves a service with a want that is down and no leave to run once.
    pub(super) fn signal_main(&self, out: &mut Effects) {
        let planned = !self.is_aimed_up() && self.closing.is_none();
        let (incarnation, signal) = (self.history.incarnation, self.policy.stop.signal);
        out.push(Effect::SignalMain { incarnation, signal, planned });
    }

    pub(super) fn main_exited(&mut self, exit: Exit, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        if life.preparing.is_some() {
            return self.prepared(exit, now, out);
        }
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
            // There is nobody to signal any more.
            Phase::Ending(Ending { stage: Stage::Hooked, .. }) if !empty => {
                let until = self.capped(self.since.after(stop.timeout));
                if let Phase::Ending(ending) = &mut self.phase {
                    (ending.stage, ending.until) = (Stage::Grace, until);
                }
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

    pub(super) fn tree_empty(&mut self, now: Tick, out: &mut Effects) {
        if let Some(life) = &mut self.life {
            // While it is up this only means that the main process is dead and not yet reaped.
            life.empty = true;
            if self.is_prepared() {
                return self.begin_main(now, out);
            }
            self.end_if_over(now, out);
        }
    }

    pub(super) fn end_if_over(&mut self, now: Tick, out: &mut Effects) {
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

    pub(super) fn kill(&mut self, now: Tick, out: &mut Effects) {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.stage = Stage::Killing;
            ending.until = now.after(KILL_PATIENCE);
            out.push(Effect::KillTree { incarnation: self.history.incarnation });
        }
    }

    pub(super) fn shutdown(&mut self, deadline: Tick, now: Tick, out: &mut Effects) {
        self.closing = Some(deadline);
        match &mut self.phase {
            Phase::Up | Phase::Starting => self.begin_stop(now, out),
            Phase::Ending(ending) => match ending.stage {
                Stage::Unsignalled | Stage::Grace | Stage::Finishing => {
                    ending.until = ending.until.min(deadline);
                }
                Stage::Hooked => ending.until = ending.until.min(now.after(deadline.since(now) / 2)),
                Stage::Killing | Stage::Stuck | Stage::Draining => {}
            },
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
    pub(super) fn capped(&self, until: Tick) -> Tick {
        self.closing.map_or(until, |deadline| until.min(deadline))
    }

    pub(super) fn enter_ending(
        &mut self,
        stage: Stage,
        until: Tick,
        asked: bool,
        now: Tick,
        out: &mut Effects,
    ) {
        self.enter(Phase::Ending(Ending { stage, until, asked }), now, out);
    }
}
