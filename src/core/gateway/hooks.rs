//! Hooks: one before the main process is made, in a tree of its own, and two beside it.
//!
//! A hook that hangs is ended with its time, and nothing waits for it any longer. The one after the end is the finish
//! program ([`Stage::Finishing`]).

use super::{Ending, Gate, Gateway, KILL_PATIENCE, Life, Phase, Stage};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects, Incident};
use crate::core::exit::Exit;
use crate::core::policy::Hook;

/// How messages call it.
pub(super) const PRE_START: &str = "its hook pre_start";

impl Gateway {
    /// The hook beside the main process, also while it is being ended.
    pub fn hook(&self) -> Option<Hook> {
        self.life.as_ref()?.hook.map(|(hook, _)| hook)
    }

    /// Its time is over, or something else comes after it.
    pub fn is_ending_hook(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.hook.is_some_and(|(_, until)| until.is_none()))
    }

    /// What is being made or runs is the hook before a start.
    pub fn is_preparing(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.preparing.is_some())
    }

    // ---- before the start ----

    /// The hook before a start has ended.
    pub(super) fn prepared(&mut self, exit: Exit, now: Tick, out: &mut Effects) {
        let starts = self.phase == Phase::Starting;
        let Some(life) = &mut self.life else { return };
        let doomed = life.doomed.take();
        if starts && exit.is_success() {
            life.exit = Some(exit);
            if life.empty {
                return self.begin_main(now, out);
            }
            // Nothing of it goes on beside the service.
            life.preparing = Some(now.after(KILL_PATIENCE));
            out.push(Effect::KillTree { incarnation: self.history.incarnation });
            return;
        }
        // How a hook ends is no exit of the service.
        let words = doomed.unwrap_or_else(|| format!("{PRE_START} {exit}"));
        life.spawn_error = Some(words.clone());
        if starts {
            self.not_prepared(words, now, out);
        }
        self.end_if_over(now, out);
    }

    /// Its tree is empty, and the main process may be made, unless what it requires has ended meanwhile: then all of it is done again.
    pub(super) fn begin_main(&mut self, now: Tick, out: &mut Effects) {
        out.push(Effect::Release { incarnation: self.history.incarnation });
        if matches!(self.gate, Gate::Wait(_) | Gate::Ask(_)) {
            self.life = None;
            return self.begin_start(now, out);
        }
        self.history.incarnation += 1;
        self.life = Some(Life::default());
        out.push(Effect::Spawn { incarnation: self.history.incarnation });
    }

    /// Whether what was the hook before a start has left nothing.
    pub(super) fn is_prepared(&self) -> bool {
        let is_done = |life: &Life| life.preparing.is_some() && life.empty && life.exit.is_some();
        self.phase == Phase::Starting && self.life.as_ref().is_some_and(is_done)
    }

    /// The hook before a start takes too long.
    pub(super) fn preparing_timed_out(&mut self, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        let words = if life.exit.take().is_some() {
            let words = format!("processes that {PRE_START} has left do not end");
            life.spawn_error = Some(words.clone());
            words
        } else {
            let words = format!("{PRE_START} did not end in its time and is killed");
            life.doomed = Some(words.clone());
            words
        };
        self.not_prepared(words, now, out);
        self.end_if_over(now, out);
    }

    fn not_prepared(&mut self, words: String, now: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        life.unasked = true;
        let leaves = !life.empty;
        self.history.start_error = Some(words.clone());
        self.orders.fail_starters(&words, out);
        self.enter_ending(Stage::Killing, now.after(KILL_PATIENCE), false, now, out);
        if leaves {
            out.push(Effect::KillTree { incarnation: self.history.incarnation });
        }
    }

    // ---- beside the main process ----

    /// It is up, and ready where it can say so.
    pub(super) fn is_up(&mut self, now: Tick, out: &mut Effects) {
        self.orders.answer_up(out);
        if let Some(patience) = self.policy.hooks.post_start {
            self.run_hook(Hook::PostStart, now.after(patience), out);
        }
    }

    fn run_hook(&mut self, hook: Hook, until: Tick, out: &mut Effects) {
        let Some(life) = &mut self.life else { return };
        life.hook = Some((hook, Some(until)));
        out.push(Effect::RunHook { incarnation: self.history.incarnation, hook });
    }

    /// One at a time: the next one runs when this one has ended.
    fn end_hook(&mut self, out: &mut Effects) -> Option<Hook> {
        let (hook, until) = self.life.as_mut()?.hook.as_mut()?;
        until.take()?;
        out.push(Effect::EndHook { incarnation: self.history.incarnation });
        Some(*hook)
    }

    /// Its end begins with a hook. Returns whether there is one.
    pub(super) fn stops_by_hook(&mut self, now: Tick, out: &mut Effects) -> bool {
        let Some(patience) = self.policy.hooks.pre_stop.filter(|_| self.phase == Phase::Up) else {
            return false;
        };
        let whole = self.capped(now.after(self.policy.stop.timeout)).since(now);
        let until = now.after(patience.min(whole / 2));
        self.enter_ending(Stage::Hooked, until, true, now, out);
        match self.hook() {
            Some(_) => {
                self.end_hook(out);
            }
            None => self.run_hook(Hook::PreStop, until, out),
        }
        true
    }

    /// A hook has ended, well or not; the log knows.
    pub(super) fn hook_ended(&mut self, out: &mut Effects) {
        let Some((hook, _)) = self.life.as_mut().and_then(|life| life.hook.take()) else { return };
        match (self.phase, hook) {
            (Phase::Ending(Ending { stage: Stage::Hooked, until, .. }), Hook::PostStart) => {
                self.run_hook(Hook::PreStop, until, out);
            }
            (Phase::Ending(Ending { stage: Stage::Hooked, .. }), Hook::PreStop) => {
                self.signal_after_hook(out);
            }
            _ => {}
        }
    }

    /// A hook takes too long.
    pub(super) fn hook_timed_out(&mut self, out: &mut Effects) {
        if let Some(hook) = self.end_hook(out) {
            out.push(Effect::Report(Incident::HookTimedOut { hook }));
        }
    }

    /// Whether it has ended or not.
    pub(super) fn signal_after_hook(&mut self, out: &mut Effects) {
        let until = self.capped(self.since.after(self.policy.stop.timeout));
        if let Phase::Ending(Ending { stage, until: ends, .. }) = &mut self.phase {
            (*stage, *ends) = (Stage::Grace, until);
            self.signal_main(out);
        }
    }
}
