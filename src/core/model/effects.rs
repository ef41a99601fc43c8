//! What becomes of the machine's effects in the world, and the rules that no event may break.

use super::Fault;
use super::rules::{Broken, Rule};
use super::world::{Main, World};
use crate::core::effect::{Effect, Outcome};
use crate::core::event::{Command, Event, Ticket};
use crate::core::exit::Exit;
use crate::core::gateway::{Phase, Stage};
use crate::core::trace::After;
use crate::core::words::Want;

impl World {
    /// Hands one event to the machine, takes its effects, and checks the rules.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), Broken> {
        let effects = self.gateway.step(event.clone(), self.now).into_iter().collect();
        let after = self.gateway.after();
        match self.take(&event, effects, after) {
            broken if broken.is_empty() => Ok(()),
            mut broken => Err(broken.swap_remove(0)),
        }
    }

    /// The machine has answered `event` with these effects, and is so now. Which rules this breaks.
    pub(super) fn take(&mut self, event: &Event, effects: Vec<Effect>, after: After) -> Vec<Broken> {
        let before = std::mem::replace(&mut self.after, after);
        let mut broken = Vec::new();
        let may_move = matches!(
            event,
            Event::Command { .. }
                | Event::Recorded { .. }
                | Event::NotRecorded { .. }
                | Event::Boot(_)
                | Event::Time
        );
        if self.after.want != before.want && !may_move {
            broken.push(Broken::from(Rule::WantMoved).about(format_args!("{event:?}")));
        }
        let counted = self.after.failures > before.failures && !matches!(event, Event::Boot(_));
        if counted && self.ended == Some(Exit::Code(0)) && !self.unhealthy {
            broken.push(Rule::CleanExitCounted.into());
        }
        // An operator's stop ends the need, too.
        self.needed &= self.gateway.is_needed();
        let results = effects.into_iter().map(|effect| self.carry_out(effect));
        broken.extend(results.filter_map(Result::err));
        self.run_is_due &= !matches!(self.after.phase, Phase::Down | Phase::Failed | Phase::Finished);
        broken.extend(self.check().err());
        broken
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Record { seq, want } => {
                if self.fault == Fault::AcknowledgedBeforeTheCommit {
                    let ticket = self.tickets.keys().next_back().copied().ok_or(Rule::AnsweredTwice)?;
                    self.carry_out(Effect::Reply {
                        ticket,
                        outcome: Outcome::Done { already: false, unrecorded: None },
                    })?;
                }
                if self.fault != Fault::RecordIsLost {
                    self.disk.push_back((seq, Some(want)));
                }
            }
            Effect::Erase { seq } => self.disk.push_back((seq, None)),
            Effect::SaveHistory | Effect::Changed | Effect::Report(_) => {}
            Effect::Finish { incarnation, .. } => {
                self.place(incarnation)?;
                self.finishing = true;
            }
            Effect::Prepare { incarnation } => {
                self.spawn(incarnation)?;
                self.preparing = true;
                // The run itself is still to come.
                self.run_is_due = true;
            }
            Effect::RunHook { .. } if self.hook.is_some() => return Err(Rule::TwoHooks.into()),
            Effect::RunHook { .. } if self.main != Main::Alive || self.preparing => {
                return Err(Rule::HookAlone.into());
            }
            Effect::RunHook { hook, .. } => self.hook = Some(hook),
            Effect::EndHook { .. } => {}
            Effect::Spawn { incarnation } => {
                if self.gateway.policy().hooks.pre_start.is_some() && !self.prepared {
                    return Err(Rule::Unprepared.into());
                }
                self.spawn(incarnation)?;
                if self.fault == Fault::SpawnIsRepeated {
                    self.spawn(incarnation)?;
                }
                self.run_is_due = false;
            }
            Effect::SignalMain { .. } if self.main != Main::Alive => {
                return Err(Rule::SignalToNobody.into());
            }
            Effect::SignalMain { planned: true, .. }
                if self.closing || self.after.want == Want::Up || self.gateway.needed_by().is_some() =>
            {
                return Err(Rule::UnplannedStop.into());
            }
            Effect::SignalTree { .. } if self.tree_told => return Err(Rule::SignalToEmptyTree.into()),
            Effect::SignalMain { .. } => self.signalled = true,
            Effect::SignalTree { .. } => {}
            Effect::KillTree { .. } if self.is_unasked() => return Err(Rule::KilledUnasked.into()),
            Effect::KillTree { .. } => self.killed = self.fault != Fault::KillIsLost,
            Effect::DrainLogs { .. } if self.tree => return Err(Rule::LogClosedEarly.into()),
            Effect::DrainLogs { .. } => self.draining = true,
            Effect::Release { .. } if self.tree => {
                return Err(Rule::ReleasedAlive.into());
            }
            Effect::Release { .. } => {
                self.is_over();
                self.draining = false;
            }
            Effect::Abandon { .. } => {
                if self.after.stage() == Some(Stage::Draining) {
                    return Err(Rule::AbandonedEmpty.into());
                }
                self.is_over();
                self.tree = false;
            }
            Effect::Reply { .. } if self.fault == Fault::ReplyIsLost => {}
            Effect::Reply { ticket, outcome } => self.reply(ticket, &outcome)?,
            Effect::Retired if self.tree => return Err(Rule::RetiredAlive.into()),
            Effect::Retired => self.gone = true,
        }
        Ok(())
    }

    fn spawn(&mut self, incarnation: u64) -> Result<(), Broken> {
        if self.after.want == Want::Down && !self.gateway.is_once() && !self.needed {
            return Err(Rule::AgainstTheWant.into());
        }
        if self.elsewhere {
            return Err(Rule::BesideElsewhere.into());
        }
        if self.given_up {
            return Err(Rule::AfterGivenUp.into());
        }
        let asked_for = self.tickets.values().any(|command| *command == Command::Once);
        if self.gateway.is_scheduled() && !self.run_is_due && !asked_for && !self.gateway.is_once() {
            return Err(Rule::NeitherDueNorAsked.into());
        }
        self.place(incarnation)
    }

    /// Of the main process nothing is left, whether it was the service, the hook before it, or the finish program.
    fn is_over(&mut self) {
        (self.main, self.hook, self.preparing, self.finishing) = (Main::None, None, false, false);
    }

    fn place(&mut self, incarnation: u64) -> Result<(), Broken> {
        if self.tree || !matches!(self.main, Main::None) {
            return Err(Rule::BesideLivingTree.into());
        }
        if incarnation != self.after.incarnation {
            return Err(Rule::OldNumber.into());
        }
        (self.main, self.tree, self.tree_told, self.killed) = (Main::Making, true, false, false);
        (self.finishing, self.reported, self.preparing, self.prepared) = (false, false, false, false);
        self.signalled = false;
        self.unhealthy &= self.after.phase != Phase::Starting;
        Ok(())
    }

    fn reply(&mut self, ticket: Ticket, outcome: &Outcome) -> Result<(), Broken> {
        let command = self.tickets.remove(&ticket).ok_or(Rule::AnsweredTwice)?;
        match (outcome, command) {
            (Outcome::Done { unrecorded: Some(_), .. }, Command::Stop) => {}
            (Outcome::Done { unrecorded: Some(_), .. }, _) => {
                return Err(Broken::from(Rule::ActedUnrecorded).about(format_args!("{command:?}")));
            }
            (Outcome::Done { .. }, Command::Start { .. } | Command::Restart) if self.on_disk != Want::Up => {
                return Err(Rule::StartBeforeCommit.into());
            }
            (Outcome::Done { .. }, Command::Unregister) if self.registered => {
                return Err(Rule::UnregisterBeforeCommit.into());
            }
            (Outcome::Done { .. }, Command::Stop | Command::Unregister) if self.on_disk != Want::Down => {
                return Err(Rule::StopBeforeCommit.into());
            }
            (Outcome::Failed(_) | Outcome::Overtaken(_), Command::Unregister)
                if !self.registered && !self.after.retiring =>
            {
                return Err(Rule::RefusedAndGone.into());
            }
            _ => {}
        }
        if let Outcome::Done { .. } = outcome {
            let down = matches!(command, Command::Stop | Command::Unregister);
            if down && (self.tree || self.main == Main::Alive) {
                return Err(Rule::StopWithTree.into());
            }
            // Whatever its last run is at.
            let waits_for_its_time = self.gateway.is_scheduled() && command != Command::Once;
            let is_to_run = !down && !waits_for_its_time && !self.elsewhere;
            let waits = self.reports && !self.reported;
            if is_to_run && (waits || self.finishing || self.preparing) {
                return Err(Rule::StartBeforeReady.into());
            }
            if is_to_run && self.main != Main::Alive {
                return Err(Rule::StartWithoutMain.into());
            }
        }
        Ok(())
    }

    /// The service runs, and was not asked to end; nor does anybody who ends everything want it gone now.
    fn is_unasked(&self) -> bool {
        self.main == Main::Alive && !self.signalled && !self.preparing && !self.finishing && !self.hurried
    }

    fn check(&self) -> Result<(), Broken> {
        let phase = self.after.phase;
        let wants_up = self.after.want == Want::Up;
        if !self.registered && !self.gone && !self.after.retiring {
            return Err(Rule::RowsGone.into());
        }
        match phase {
            Phase::Backoff { .. } | Phase::Failed | Phase::Finished if !wants_up && !self.needed => {
                Err(Rule::WaitsAgainstWant.into())
            }
            Phase::Up if self.main == Main::Making => Err(Rule::UpBeforeExec.into()),
            Phase::Down if self.tree => Err(Rule::DownWithTree.into()),
            Phase::Ending(_) | Phase::Backoff { .. }
                if self.after.stage() != Some(Stage::Stuck) && self.after.deadline.is_none() =>
            {
                Err(Rule::WaitsForNothing.into())
            }
            // Held, it waits for another service; stuck, for the kernel.
            Phase::Down | Phase::Up | Phase::Failed | Phase::Finished
                if !self.tickets.is_empty()
                    && self.disk.is_empty()
                    && self.after.deadline.is_none()
                    && !self.gone =>
            {
                Err(Rule::NobodyAnswers.into())
            }
            _ => Ok(()),
        }
    }
}
