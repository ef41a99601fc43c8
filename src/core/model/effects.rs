//! What becomes of the machine's effects in the world, and the rules that no event may break.

use super::world::{Main, World};
use super::{Broken, Fault, Scope};
use crate::core::effect::{Effect, Outcome};
use crate::core::event::{Command, Event, Ticket};
use crate::core::exit::Exit;
use crate::core::gateway::{Phase, Stage};
use crate::core::words::Want;

impl World {
    /// Hands one event to the machine, takes its effects, and checks the rules.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), Broken> {
        let before = self.gateway.want();
        let failures = self.gateway.history().failures.len();
        let effects = self.gateway.step(event.clone(), self.now);
        if self.gateway.want() != before && !matches!(event, Event::Command { .. }) {
            let from_disk =
                matches!(event, Event::Recorded { .. } | Event::NotRecorded { .. } | Event::Boot(_));
            if !from_disk && event != Event::Time {
                return Err(format!("{event:?} changed the want").into());
            }
        }
        let counted = self.gateway.history().failures.len() > failures && !matches!(event, Event::Boot(_));
        if counted && self.ended == Some(Exit::Code(0)) && !self.unhealthy {
            return Err("a clean exit was counted as a failure".into());
        }
        // An operator's stop ends the need, too.
        self.needed &= self.gateway.is_needed();
        for effect in effects {
            self.carry_out(effect)?;
        }
        self.check()
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Record { seq, want } => {
                if self.fault == Fault::AcknowledgedBeforeTheCommit {
                    let ticket = self.tickets.keys().next_back().copied().ok_or("nobody asked")?;
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
            }
            Effect::RunHook { .. } if self.hook.is_some() => return Err("two hooks at a time".into()),
            Effect::RunHook { .. } if self.main != Main::Alive || self.preparing => {
                return Err("a hook beside no main process".into());
            }
            Effect::RunHook { hook, .. } => self.hook = Some(hook),
            Effect::EndHook { .. } => {}
            Effect::Spawn { incarnation } => {
                if self.scope == Scope::Hooks && !self.prepared {
                    return Err("the main process was made before its hook had succeeded".into());
                }
                self.spawn(incarnation)?;
                if self.fault == Fault::SpawnIsRepeated {
                    self.spawn(incarnation)?;
                }
            }
            Effect::SignalMain { .. } if self.main != Main::Alive => {
                return Err("a signal to no process".into());
            }
            Effect::SignalMain { planned: true, .. }
                if self.closing || self.gateway.want() == Want::Up || self.gateway.needed_by().is_some() =>
            {
                return Err("a stop that nobody planned".into());
            }
            Effect::SignalTree { .. } if self.tree_told => return Err("a signal to an empty tree".into()),
            Effect::SignalMain { .. } | Effect::SignalTree { .. } => {}
            Effect::KillTree { .. } => self.killed = self.fault != Fault::KillIsLost,
            Effect::DrainLogs { .. } if self.tree => return Err("the log of a living tree was closed".into()),
            Effect::DrainLogs { .. } => self.draining = true,
            Effect::Release { .. } if self.tree => {
                return Err("the place of a living tree was removed".into());
            }
            Effect::Release { .. } => {
                (self.main, self.hook) = (Main::None, None);
                self.draining = false;
            }
            Effect::Abandon { .. } => {
                if self.gateway.stage() == Some(Stage::Draining) {
                    return Err("an empty tree was abandoned".into());
                }
                (self.main, self.tree, self.hook) = (Main::None, false, None);
            }
            Effect::Reply { .. } if self.fault == Fault::ReplyIsLost => {}
            Effect::Reply { ticket, outcome } => self.reply(ticket, &outcome)?,
            Effect::Retired if self.tree => return Err("unregistered with a living tree".into()),
            Effect::Retired => self.gone = true,
        }
        Ok(())
    }

    fn spawn(&mut self, incarnation: u64) -> Result<(), Broken> {
        if self.gateway.want() == Want::Down && !self.gateway.is_once() && !self.needed {
            return Err("spawned against the want".into());
        }
        if self.elsewhere {
            return Err("spawned beside the service that does its work".into());
        }
        if self.given_up {
            return Err("spawned after it was given up".into());
        }
        let asked_for = self.tickets.values().any(|command| *command == Command::Once);
        let may_run = std::mem::take(&mut self.run_is_due) || asked_for || self.gateway.is_once();
        if self.scope == Scope::Scheduled && !may_run {
            return Err("a run that was neither due nor asked for".into());
        }
        self.place(incarnation)
    }

    fn place(&mut self, incarnation: u64) -> Result<(), Broken> {
        if self.tree || !matches!(self.main, Main::None) {
            return Err("spawned beside a living tree".into());
        }
        if incarnation != self.incarnation() {
            return Err("spawned under an old number".into());
        }
        (self.main, self.tree, self.tree_told, self.killed) = (Main::Making, true, false, false);
        (self.finishing, self.reported, self.preparing, self.prepared) = (false, false, false, false);
        self.unhealthy &= self.gateway.phase() != Phase::Starting;
        Ok(())
    }

    fn reply(&mut self, ticket: Ticket, outcome: &Outcome) -> Result<(), Broken> {
        let command = self.tickets.remove(&ticket).ok_or("answered twice")?;
        match (outcome, command) {
            (Outcome::Done { unrecorded: Some(_), .. }, Command::Stop) => {}
            (Outcome::Done { unrecorded: Some(_), .. }, _) => {
                return Err(format!("{command:?} acted unrecorded").into());
            }
            (Outcome::Done { .. }, Command::Start { .. } | Command::Restart) if self.on_disk != Want::Up => {
                return Err("start acknowledged before its commit".into());
            }
            (Outcome::Done { .. }, Command::Stop | Command::Unregister) if self.on_disk != Want::Down => {
                return Err("stop acknowledged before its commit".into());
            }
            (Outcome::Done { .. }, Command::Unregister) if self.registered => {
                return Err("unregister acknowledged before its commit".into());
            }
            (Outcome::Failed(_) | Outcome::Overtaken(_), Command::Unregister)
                if !self.registered && !self.gateway.is_retiring() =>
            {
                return Err("unregister refused, and its rows are gone".into());
            }
            _ => {}
        }
        if let Outcome::Done { .. } = outcome {
            let down = matches!(command, Command::Stop | Command::Unregister);
            if down && (self.tree || self.main == Main::Alive) {
                return Err("stop acknowledged with a living tree".into());
            }
            let waits = self.scope.reports() && !self.reported;
            if !down && (waits || self.finishing || self.preparing) && !self.elsewhere {
                return Err("start acknowledged before the service was ready".into());
            }
            let waits_for_its_time = self.scope == Scope::Scheduled && command != Command::Once;
            if !down && self.main != Main::Alive && !self.elsewhere && !waits_for_its_time {
                return Err("start acknowledged without a main process".into());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Broken> {
        let phase = self.gateway.phase();
        let wants_up = self.gateway.want() == Want::Up;
        if !self.registered && !self.gone && !self.gateway.is_retiring() {
            return Err("its rows are gone, and it is to stay".into());
        }
        match phase {
            Phase::Backoff { .. } | Phase::Failed | Phase::Finished if !wants_up && !self.needed => {
                Err("waits against the want".into())
            }
            Phase::Up if self.main == Main::Making => Err("up before exec".into()),
            Phase::Down if self.tree => Err("down with a living tree".into()),
            Phase::Ending(_) | Phase::Backoff { .. }
                if self.gateway.stage() != Some(Stage::Stuck) && self.gateway.deadline().is_none() =>
            {
                Err("waits for nothing".into())
            }
            _ => Ok(()),
        }
    }
}
