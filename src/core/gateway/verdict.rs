//! What comes after a life: another one, a wait, rest, or giving up.

use super::life::Life;
use super::{Ending, FINISH_GIVES_UP, Gate, Gateway, Phase};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects, Incident, Outcome};
use crate::core::event::Command;
use crate::core::exit::Exit;
use crate::core::policy::{LATER, RestartWhen, Verdict};
use crate::core::words::Want;
use std::time::Duration;

impl Gateway {
    /// The tree is empty and its log is read: what now?
    pub(super) fn settle(&mut self, now: Tick, out: &mut Effects) {
        let last = self.life.take().unwrap_or_default();
        let gives_up = self.ended.is_some() && last.exit == Some(Exit::Code(FINISH_GIVES_UP));
        let life = self.ended.take().map_or(last, |life| *life);
        let asked = matches!(self.phase, Phase::Ending(Ending { asked: true, .. }));
        out.push(Effect::Release { incarnation: self.history.incarnation });
        let aimed_up = self.want == Want::Up || self.needed.is_some();
        let condemned = self.condemned.take();
        let again = std::mem::take(&mut self.again);
        if !aimed_up || self.closing.is_some() {
            self.report_end(&life, now, out);
            out.push(Effect::SaveHistory);
            self.rest(false, now, out);
        } else if let Some(reason) = condemned {
            self.report_end(&life, now, out);
            self.give_up(reason, now, out);
        } else if asked && self.is_scheduled() && !again {
            self.report_end(&life, now, out);
            out.push(Effect::SaveHistory);
            self.await_run(false, now, out);
        } else if asked || again {
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
    pub(super) fn report_end(&self, life: &Life, now: Tick, out: &mut Effects) {
        let incident = match (life.unasked, &life.spawn_error, life.exit) {
            (true, Some(error), _) => Incident::NotStarted(error.clone()),
            (true, None, Some(exit)) => Incident::Ended { exit, ran: life.ran(now) },
            (true, None, None) | (false, _, _) => return,
        };
        out.push(Effect::Report(incident));
    }

    /// Decides about a service that ended unasked and is wanted up; `gives_up`: its finish program has decided.
    pub(super) fn judge(&mut self, life: &Life, gives_up: bool, now: Tick, out: &mut Effects) {
        let words = match (&life.unhealthy, &life.spawn_error, life.exit) {
            (Some(reason), _, _) | (None, Some(reason), _) => reason.clone(),
            (None, None, Some(exit)) => exit.to_string(),
            (None, None, None) => Exit::Unknown.to_string(),
        };
        if life.unhealthy.is_some() {
            // Its exit, which may be a clean one, does not say it.
            self.history.start_error = Some(words.clone());
        }
        let verdict = match (life.exit, self.policy.restart.when) {
            (Some(_), when) if life.unhealthy.is_some() => match when {
                RestartWhen::Always | RestartWhen::OnFailure if !gives_up => {
                    Verdict::Restart { skip_wait: false }
                }
                RestartWhen::Always | RestartWhen::OnFailure | RestartWhen::Never => Verdict::Failed,
            },
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
                self.orders.fail_starters(&words, out);
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
                self.orders.fail_starters(&format!("{words} before it was ready"), out);
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
        self.orders.fail_starters(words, out);
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

    /// A number in 0.0..1.0 that differs between services and failures but not between runs of a test.
    fn dice(&self) -> f64 {
        let mut x = self.seed ^ self.history.restarts.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Only what is wanted up and has work of its own is given up.
    pub(super) fn must_give_up(&mut self, reason: String, now: Tick, out: &mut Effects) {
        let is_wanted = self.want == Want::Up && self.closing.is_none() && !self.orders.retiring;
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
        self.orders.fail_starters(&reason, out);
        self.history.failed = Some((reason, now));
        self.enter(Phase::Failed, now, out);
        out.push(Effect::SaveHistory);
    }

    /// No process, nothing to do. `already`: it was so before.
    pub(super) fn rest(&mut self, already: bool, now: Tick, out: &mut Effects) {
        (self.once, self.again) = (false, false);
        self.unjudged = None;
        self.history.failed = None;
        self.enter(Phase::Down, now, out);
        let unrecorded = self.orders.unrecorded.clone();
        let closing = self.closing.is_some();
        self.orders.answer(out, |waiter| match waiter.command {
            Command::Stop | Command::Unregister => {
                Some(Outcome::Done { already, unrecorded: unrecorded.clone() })
            }
            Command::Start { .. } | Command::Restart | Command::Once => {
                let why =
                    if closing { "the supervisor is shutting down" } else { "it ended before it was up" };
                Some(Outcome::Failed(why.to_owned()))
            }
        });
        if self.orders.retiring {
            out.push(Effect::Retired);
        }
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
