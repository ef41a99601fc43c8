//! The machine of orders: commands, the newest one on its way to disk, and who is owed an answer.

use super::life::{NOT_READY, Readiness};
use super::{Gateway, Phase, RECORD_PATIENCE, Stage};
use crate::core::clock::Tick;
use crate::core::effect::{Effect, Effects, Outcome};
use crate::core::event::{Command, Ticket};
use crate::core::words::Want;

/// The newest command about the want, waiting for the disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending {
    pub seq: u64,
    pub command: Command,
    /// When a stop acts without the disk.
    pub patience: Option<Tick>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiter {
    pub ticket: Ticket,
    pub command: Command,
    pub seq: u64,
}

/// What was asked of a service and is not answered yet, and how far the disk knows of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    pub pending: Option<Box<Pending>>,
    /// Number of an unregistration that the disk has not answered. A stop beside it writes nothing: the rows may be gone already,
    /// and that answer decides for it, too, unless its patience ends before.
    pub erasing: Option<u64>,
    pub waiters: Vec<Waiter>,
    /// Number of the newest command.
    pub seq: u64,
    /// Number of the newest command that acts; its callers may be answered.
    pub acted: u64,
    /// Why the want in force is not on disk.
    pub unrecorded: Option<String>,
    /// The disk may say something else than the want: a write failed, or is late.
    pub unsure: bool,
    /// It is being unregistered.
    pub retiring: bool,
}

impl Orders {
    /// The newest wins: callers who wait for something else are told who overtook them.
    pub(super) fn overtake(&mut self, by: Command, out: &mut Effects) {
        let aim = |command: Command| match command {
            Command::Start { .. } | Command::Restart => 0,
            Command::Stop | Command::Unregister => 1,
            Command::Once => 2,
        };
        self.waiters.retain(|waiter| {
            let overtaken = aim(waiter.command) != aim(by);
            if overtaken {
                out.push(Effect::Reply { ticket: waiter.ticket, outcome: Outcome::Overtaken(by) });
            }
            !overtaken
        });
    }

    pub(super) fn answer_up(&mut self, out: &mut Effects) {
        self.answer(out, |waiter| match waiter.command {
            Command::Start { .. } | Command::Restart | Command::Once => {
                Some(Outcome::Done { already: false, unrecorded: None })
            }
            Command::Stop | Command::Unregister => None,
        });
    }

    pub(super) fn answer_stuck(&mut self, out: &mut Effects) {
        self.answer(out, |_| Some(Outcome::Failed("killed, but processes of it do not end".to_owned())));
    }

    pub(super) fn fail_starters(&mut self, reason: &str, out: &mut Effects) {
        self.answer(out, |waiter| match waiter.command {
            Command::Start { .. } | Command::Restart | Command::Once => {
                Some(Outcome::Failed(reason.to_owned()))
            }
            Command::Stop | Command::Unregister => None,
        });
    }

    /// Answers callers whose command acts and for whom `outcome` has an answer. An unregistration acts when the disk has taken it,
    /// whatever has acted since it was asked for.
    pub(super) fn answer(&mut self, out: &mut Effects, outcome: impl Fn(&Waiter) -> Option<Outcome>) {
        let (acted, retiring) = (self.acted, self.retiring);
        self.answer_those(out, |waiter| {
            let acts = waiter.seq <= acted && (waiter.command != Command::Unregister || retiring);
            outcome(waiter).filter(|_| acts)
        });
    }

    /// Answers callers for whom `outcome` has an answer.
    fn answer_those(&mut self, out: &mut Effects, outcome: impl Fn(&Waiter) -> Option<Outcome>) {
        self.waiters.retain(|waiter| match outcome(waiter) {
            Some(outcome) => {
                out.push(Effect::Reply { ticket: waiter.ticket, outcome });
                false
            }
            None => true,
        });
    }
}

impl Gateway {
    pub(super) fn command(&mut self, ticket: Ticket, command: Command, now: Tick, out: &mut Effects) {
        if let Some(refusal) = self.refusal(command) {
            out.push(Effect::Reply { ticket, outcome: Outcome::Failed(refusal) });
            return;
        }
        self.orders.overtake(command, out);
        // The same request again, while the first is still on its way, joins it.
        if let Some(pending) = self.orders.pending.as_ref().filter(|pending| pending.command == command) {
            self.orders.waiters.push(Waiter { ticket, command, seq: pending.seq });
            return;
        }
        if let Some(seq) = self.orders.erasing {
            return self.beside_unregister(ticket, command, seq, now, out);
        }
        // So does a restart while an earlier one still ends the old life, and a second unregister.
        let joins_restart = command == Command::Restart
            && self.orders.pending.is_none()
            && !self.orders.unsure
            && matches!(self.phase, Phase::Ending(_))
            && self.orders.waiters.iter().any(|waiter| waiter.command == Command::Restart);
        if joins_restart || self.orders.retiring {
            self.orders.waiters.push(Waiter { ticket, command, seq: self.orders.acted });
            return;
        }
        self.orders.seq += 1;
        self.orders.waiters.push(Waiter { ticket, command, seq: self.orders.seq });
        let want = match command {
            Command::Start { .. } | Command::Restart => Want::Up,
            Command::Stop | Command::Unregister => Want::Down,
            Command::Once => self.want,
        };
        if command == Command::Unregister {
            // A stop that is on its way acts in its time; nothing else is wanted any more, though it may get to the disk.
            if self.orders.pending.as_ref().is_some_and(|pending| pending.command != Command::Stop) {
                self.orders.pending = None;
                self.orders.unsure = true;
            }
            self.orders.erasing = Some(self.orders.seq);
            out.push(Effect::Erase { seq: self.orders.seq });
            return;
        } else if want == self.want && !self.orders.unsure && self.orders.pending.is_none() {
            self.act(command, self.orders.seq, now, out);
            return;
        } else {
            out.push(Effect::Record { seq: self.orders.seq, want });
        }
        let patience = (command == Command::Stop).then(|| now.after(RECORD_PATIENCE));
        self.orders.pending = Some(Box::new(Pending { seq: self.orders.seq, command, patience }));
    }

    /// A command while the unregistration `seq` is on its way: a second one joins it, and a stop does not wait for it.
    fn beside_unregister(
        &mut self,
        ticket: Ticket,
        command: Command,
        seq: u64,
        now: Tick,
        out: &mut Effects,
    ) {
        if command != Command::Stop {
            self.orders.waiters.push(Waiter { ticket, command, seq });
            return;
        }
        self.orders.seq += 1;
        let seq = self.orders.seq;
        self.orders.waiters.push(Waiter { ticket, command, seq });
        let is_down = self.want == Want::Down && (!self.orders.unsure || self.orders.unrecorded.is_some());
        if is_down && self.orders.pending.is_none() {
            self.act(command, seq, now, out);
        } else {
            let patience = Some(now.after(RECORD_PATIENCE));
            self.orders.pending = Some(Box::new(Pending { seq, command, patience }));
        }
    }

    fn refusal(&self, command: Command) -> Option<String> {
        let starts = matches!(command, Command::Start { .. } | Command::Restart | Command::Once);
        if self.closing.is_some() && command != Command::Stop {
            return Some("the supervisor is shutting down".to_owned());
        }
        let leaving = self.orders.erasing.is_some();
        // What fills the disk must be stoppable while the disk does not take the unregistration.
        if self.orders.retiring || (leaving && command != Command::Stop) {
            return (command != Command::Unregister).then(|| "it is being unregistered".to_owned());
        }
        let stuck = self.stage() == Some(Stage::Stuck);
        if stuck && starts && command != (Command::Start { force: true }) {
            return Some(
                "remains of its last run cannot be killed; 'start --force' starts beside them".to_owned(),
            );
        }
        let runs = self.phase == Phase::Up || self.is_scheduled();
        if command == Command::Once && self.want == Want::Up && !runs {
            return Some("it is wanted up already; 'start' or 'restart' tries again now".to_owned());
        }
        None
    }

    pub(super) fn recorded(&mut self, seq: u64, error: Option<String>, now: Tick, out: &mut Effects) {
        if self.orders.erasing.take_if(|erasing| *erasing == seq).is_some() {
            return self.erased(seq, error, now, out);
        }
        if seq == self.orders.seq {
            self.orders.unsure = error.is_some();
        }
        match self.orders.pending.take_if(|pending| pending.seq == seq).map(|pending| pending.command) {
            Some(command) => match (error, command) {
                (None, _) => {
                    self.orders.unrecorded = None;
                    self.act(command, seq, now, out);
                }
                (Some(reason), Command::Stop) => {
                    self.orders.unrecorded = Some(reason);
                    self.act(command, seq, now, out);
                }
                (
                    Some(reason),
                    Command::Start { .. } | Command::Restart | Command::Once | Command::Unregister,
                ) => {
                    // Everybody who joined this write, directly or through one that it replaced.
                    let acted = self.orders.acted;
                    self.orders.answer_those(out, |waiter| {
                        let joined = waiter.seq > acted && waiter.seq <= seq;
                        joined.then(|| Outcome::Failed(format!("not recorded: {reason}")))
                    });
                }
            },
            // It lost patience and acted before the disk answered, and nothing newer came.
            None if seq == self.orders.acted
                && seq == self.orders.seq
                && self.orders.unrecorded.is_some() =>
            {
                self.orders.unrecorded = error;
                out.push(Effect::Changed);
            }
            None => {}
        }
    }

    /// The disk has answered an unregistration: the service goes, and a stop that came beside it is done with that; or nothing was
    /// erased, and the stop acts although the disk does not have it.
    fn erased(&mut self, seq: u64, error: Option<String>, now: Tick, out: &mut Effects) {
        let Some(reason) = error else {
            self.orders.pending = None;
            (self.orders.unrecorded, self.orders.unsure) = (None, false);
            return self.act(Command::Unregister, self.orders.seq, now, out);
        };
        self.orders.unsure = true;
        self.orders.answer_those(out, |waiter| {
            let asked = waiter.command == Command::Unregister;
            asked.then(|| Outcome::Failed(format!("not recorded: {reason}")))
        });
        match self.orders.pending.take_if(|pending| pending.seq > seq) {
            Some(pending) => {
                self.orders.unrecorded = Some(reason);
                self.act(pending.command, pending.seq, now, out);
            }
            None if self.orders.unrecorded.is_some() => {
                self.orders.unrecorded = Some(reason);
                out.push(Effect::Changed);
            }
            None => {}
        }
    }

    /// Carries out a command whose want is decided.
    pub(super) fn act(&mut self, command: Command, seq: u64, now: Tick, out: &mut Effects) {
        self.orders.acted = seq;
        let was = self.want;
        match command {
            Command::Start { force } => {
                self.want = Want::Up;
                self.once = false;
                self.forgive(out);
                if force && self.stage() == Some(Stage::Stuck) {
                    out.push(Effect::Abandon { incarnation: self.history.incarnation });
                    (self.life, self.ended) = (None, None);
                    match self.is_scheduled() {
                        true => self.await_run(false, now, out),
                        false => self.begin_start(now, out),
                    }
                } else {
                    self.ask_up(command, was, now, out);
                }
            }
            Command::Restart => {
                self.want = Want::Up;
                self.once = false;
                self.forgive(out);
                match self.phase {
                    Phase::Up | Phase::Starting => self.begin_stop(now, out),
                    Phase::Down
                    | Phase::Held
                    | Phase::Ending(_)
                    | Phase::Backoff { .. }
                    | Phase::Failed
                    | Phase::Finished => self.ask_up(command, was, now, out),
                }
            }
            Command::Once => {
                self.once = self.want == Want::Down;
                self.ask_up(command, was, now, out);
            }
            Command::Stop => self.ask_down(now, out),
            Command::Unregister => {
                self.orders.retiring = true;
                self.ask_down(now, out);
            }
        }
    }

    /// An operator's start ends the row of failures.
    pub(super) fn forgive(&mut self, out: &mut Effects) {
        self.condemned = None;
        if self.history.row != 0 || self.history.failed.is_some() || self.history.backoff_until.is_some() {
            self.history.row = 0;
            self.history.failures.clear();
            self.history.failed = None;
            self.history.backoff_until = None;
            self.history.start_error = None;
            out.push(Effect::SaveHistory);
        }
    }

    /// `was`: the want before this command.
    fn ask_up(&mut self, command: Command, was: Want, now: Tick, out: &mut Effects) {
        self.unjudged = None;
        let runs = matches!(self.phase, Phase::Up | Phase::Starting);
        if self.is_scheduled() && self.want == Want::Up && !runs {
            return self.ask_scheduled(command == Command::Once, was, now, out);
        }
        match &mut self.phase {
            Phase::Up => match self.readiness() {
                Readiness::Undefined | Readiness::Reported(_) => {
                    self.orders.answer(out, |_| Some(Outcome::Done { already: true, unrecorded: None }));
                    out.push(Effect::Changed);
                }
                Readiness::Awaited(_) => {}
                Readiness::Overdue => self.orders.fail_starters(NOT_READY, out),
            },
            Phase::Starting => {}
            Phase::Ending(ending) => ending.asked = true,
            Phase::Down | Phase::Held | Phase::Backoff { .. } | Phase::Failed | Phase::Finished => {
                self.begin_start(now, out);
            }
        }
    }

    fn ask_down(&mut self, now: Tick, out: &mut Effects) {
        let was = std::mem::replace(&mut self.want, Want::Down);
        (self.once, self.again) = (false, false);
        self.needed = None;
        self.history.backoff_until = None;
        self.history.start_error = None;
        match &mut self.phase {
            Phase::Up | Phase::Starting => self.begin_stop(now, out),
            Phase::Ending(ending) => {
                ending.asked = true;
                if ending.stage == Stage::Stuck {
                    self.orders.answer_stuck(out);
                }
            }
            Phase::Down => self.rest(was == Want::Down, now, out),
            Phase::Held | Phase::Backoff { .. } | Phase::Failed | Phase::Finished => {
                self.rest(false, now, out)
            }
        }
    }
}
