//! What the world may do next: an order of a caller, an end of a process, an answer of the disk, time that passes.

use super::rules::{Broken, Rule};
use super::world::{Main, World};
use super::{Fault, Scope};
use crate::core::event::{Command, Event, Ticket};
use crate::core::exit::Exit;
use crate::core::gateway::{Elsewhere, FINISH_GIVES_UP, Gate, Gateway, Phase, Restored, Stage};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use std::cmp::Ordering;
use std::time::Duration;

const FORCE: Command = Command::Start { force: true };

const COMMANDS: [Command; 6] = [
    Command::Start { force: false },
    FORCE,
    Command::Stop,
    Command::Restart,
    Command::Once,
    Command::Unregister,
];

/// The service that does this one's work, or needs it.
fn other() -> ServiceName {
    ServiceName::new("other").expect("a valid name")
}

/// A step of the world.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Move {
    Command(Command),
    Disk {
        works: bool,
    },
    Exec {
        works: bool,
    },
    Ready,
    Unhealthy,
    Extended,
    MainEnds(Exit, /* leaves processes */ bool),
    TreeEnds,
    Reaped(Exit),
    Drained,
    HookEnds,
    Time,
    Due,
    Gate(Gate),
    Needed(bool),
    GiveUp,
    /// A caller has gone.
    Forget(Ticket),
    Shutdown,
    /// The end of patience in a shutdown.
    KillNow,
    /// The supervisor is killed; what it was writing got to the disk or not.
    Crash {
        written: bool,
    },
}

impl World {
    /// What the world may do next.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = self.environment();
        moves.extend(self.wishes());
        moves
    }

    /// The moves that nobody may count on.
    pub(super) fn wishes(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.gone {
            return moves;
        }
        let callers = if self.scope == Scope::TwoCallers { 2 } else { 1 };
        if self.tickets.len() < callers && self.disk.len() < 2 {
            let stuck = self.gateway.stage() == Some(Stage::Stuck);
            moves.extend(COMMANDS.into_iter().filter(|c| stuck || *c != FORCE).map(Move::Command));
        }
        if self.scope == Scope::Scheduled {
            moves.push(Move::Due);
        }
        if matches!(self.scope, Scope::OneCallerAndGates | Scope::Scheduled) {
            let gates = [Gate::Open, Gate::Wait("a".into()), Gate::Turn, Gate::Refused("a".into())];
            moves.extend(gates.map(Move::Gate));
        }
        if self.scope == Scope::OneCallerAndOthers {
            let served = Gate::Elsewhere(Elsewhere::Served { by: other() });
            let gates = [Gate::Open, Gate::Ask(other()), served];
            moves.extend(gates.map(Move::Gate));
            moves.extend([false, true].map(Move::Needed));
            moves.push(Move::GiveUp);
        }
        // What is left may also end by itself, but nobody may count on that.
        if self.scope == Scope::Traced
            && self.tree
            && !self.tree_told
            && matches!(self.main, Main::Alive | Main::Dead)
        {
            moves.push(Move::TreeEnds);
        }
        let is_told = matches!(self.scope, Scope::ReadyAndFinish | Scope::Traced);
        if is_told && self.main == Main::Alive && !self.tree_told {
            moves.extend([Move::Unhealthy, Move::Extended]);
        }
        if self.scope == Scope::Crashes {
            moves.extend([false, true].map(|written| Move::Crash { written }));
        }
        if self.scope == Scope::Traced {
            moves.extend(self.tickets.keys().copied().map(Move::Forget));
        }
        if self.closing && self.scope == Scope::Traced {
            moves.push(Move::KillNow);
        }
        moves.push(Move::Shutdown);
        moves
    }

    /// The moves without a further command. They must suffice to answer every caller.
    pub(super) fn environment(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.gone {
            return moves;
        }
        if !self.disk.is_empty() {
            moves.push(Move::Disk { works: true });
            moves.push(Move::Disk { works: false });
        }
        if self.main == Main::Making {
            moves.push(Move::Exec { works: true });
            moves.push(Move::Exec { works: false });
        }
        if self.main == Main::Alive && !self.tree_told {
            for exit in [Exit::Code(0), Exit::Code(1)] {
                moves.push(Move::MainEnds(exit, true));
                moves.push(Move::MainEnds(exit, false));
            }
            if self.finishing {
                moves.push(Move::MainEnds(Exit::Code(FINISH_GIVES_UP), false));
            } else if self.reports && !self.reported {
                moves.push(Move::Ready);
            }
        }
        // Leftovers are hostile: only the kill ends them.
        if self.tree && self.main == Main::Dead && self.killed {
            moves.push(Move::TreeEnds);
        }
        // A killed tree may be seen empty before its main process is reaped.
        if self.tree && self.main == Main::Alive && self.killed {
            moves.push(Move::TreeEnds);
        }
        if self.main == Main::Alive && self.tree_told {
            moves.push(Move::Reaped(Exit::Code(1)));
        }
        if self.draining {
            moves.push(Move::Drained);
        }
        if self.hook.is_some() {
            moves.push(Move::HookEnds);
        }
        if self.gateway.deadline().is_some() {
            moves.push(Move::Time);
        }
        moves
    }

    pub(super) fn apply(&mut self, step: &Move) -> Result<(), Broken> {
        let incarnation = self.incarnation();
        match step.clone() {
            Move::Command(command) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.note(&Event::Command { ticket, command });
                let command = match (self.fault, command) {
                    (Fault::StopTakenForRestart, Command::Stop) => Command::Restart,
                    (_, command) => command,
                };
                self.feed(Event::Command { ticket, command })?;
                match (self.fault, command) {
                    (Fault::StartIsDue, Command::Start { .. }) => self.feed(Event::Due),
                    _ => Ok(()),
                }
            }
            Move::Disk { works } => {
                let (seq, want) = self.disk.pop_front().ok_or(Rule::NoSuchStep)?;
                if !works {
                    return self.feed(Event::NotRecorded { seq, reason: "full".into() });
                }
                self.write(want)?;
                self.feed(Event::Recorded { seq })
            }
            Move::Exec { works: true } => {
                self.main = Main::Alive;
                self.feed(Event::Spawned { incarnation, pid: 42 })?;
                match self.fault {
                    Fault::ReadyIsAssumed => self.feed(Event::ReadyReported { incarnation }),
                    _ => Ok(()),
                }
            }
            Move::Exec { works: false } => {
                (self.main, self.tree) = (Main::Dead, false);
                self.ended = None;
                self.feed(Event::SpawnFailed { incarnation, reason: "no such file".into() })?;
                self.tell_empty()
            }
            Move::Ready => {
                self.note(&Event::ReadyReported { incarnation });
                self.feed(Event::ReadyReported { incarnation })
            }
            Move::Unhealthy if self.gateway.phase() != Phase::Up => Ok(()),
            Move::Unhealthy => {
                let event = Event::Unhealthy { incarnation, reason: "no answer".into() };
                self.note(&event);
                self.feed(event)
            }
            Move::Extended => self.feed(Event::Extended { incarnation, by: Duration::from_secs(30) }),
            Move::MainEnds(exit, leaves) => {
                // A hook is one of the tree's processes.
                let leaves = leaves || self.hook.is_some();
                self.main_ends(exit);
                self.tree = leaves;
                let exit = match self.fault {
                    Fault::CleanExitTakenForFailure => Exit::Code(1),
                    Fault::PreStartIsIgnored if self.preparing => Exit::Code(0),
                    _ => exit,
                };
                self.feed(Event::MainExited { incarnation, exit })?;
                if leaves && self.fault != Fault::MainExitTakenForEmptyTree {
                    Ok(())
                } else {
                    self.tell_empty()
                }
            }
            Move::Reaped(exit) => {
                self.main_ends(exit);
                self.feed(Event::MainExited { incarnation, exit })
            }
            Move::HookEnds => {
                self.hook = None;
                self.feed(Event::HookEnded { incarnation })
            }
            Move::TreeEnds => {
                (self.tree, self.hook) = (false, None);
                self.tell_empty()
            }
            Move::Drained => {
                self.draining = false;
                self.feed(Event::LogsDrained { incarnation })
            }
            Move::Time => {
                self.now = self.gateway.deadline().ok_or(Rule::NoSuchStep)?.max(self.now);
                self.feed(Event::Time)
            }
            Move::Due => {
                self.note(&Event::Due);
                self.feed(Event::Due)
            }
            Move::Gate(gate) => {
                self.note(&Event::Gate(gate.clone()));
                let heard = !self.elsewhere || self.fault != Fault::ElsewhereIsIgnored;
                self.feed(Event::Gate(if heard { gate } else { Gate::Open }))
            }
            Move::Needed(needed) => {
                self.note(&Event::Needed(needed.then(other)));
                let heard = needed || self.fault == Fault::NeedIsForever;
                self.feed(Event::Needed(heard.then(other)))
            }
            Move::GiveUp => {
                let event = Event::GiveUp { reason: "fights".into() };
                self.note(&event);
                if self.fault == Fault::GivingUpIsIgnored {
                    return Ok(());
                }
                self.feed(event)
            }
            Move::Shutdown => {
                let event = Event::Shutdown { deadline: self.now.after(Duration::from_secs(9)) };
                self.note(&event);
                self.feed(event)
            }
            Move::Forget(ticket) => {
                self.note(&Event::Forget(ticket));
                self.feed(Event::Forget(ticket))
            }
            Move::KillNow => {
                self.note(&Event::KillNow);
                self.feed(Event::KillNow)
            }
            Move::Crash { written } => self.crash(written),
        }
    }

    /// What others want of the service, or say about it, is so from now on.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Command { ticket, command } => {
                self.given_up = false;
                self.tickets.insert(*ticket, *command);
            }
            Event::Forget(ticket) => drop(self.tickets.remove(ticket)),
            Event::ReadyReported { .. } => self.reported = true,
            Event::Unhealthy { .. } => self.unhealthy |= self.gateway.phase() == Phase::Up,
            Event::Due => self.run_is_due |= self.gateway.awaits_run(),
            Event::Gate(gate) => {
                self.elsewhere = matches!(gate, Gate::Elsewhere(_));
                // The reason for giving it up is gone.
                self.given_up &= !self.elsewhere;
            }
            Event::Needed(by) if !self.closing && !self.gateway.is_retiring() => self.needed = by.is_some(),
            Event::GiveUp { .. } => {
                // No command for a start is under way, and it wants to have a process.
                let heard = self.gateway.want() == Want::Up && !self.elsewhere && self.tickets.is_empty();
                let has_ended = matches!(self.gateway.phase(), Phase::Down | Phase::Finished);
                self.given_up |= heard && !has_ended && !self.closing && !self.gateway.is_retiring();
            }
            Event::Shutdown { .. } => self.closing = true,
            Event::KillNow => self.hurried = true,
            _ => {}
        }
    }

    /// Whether the world may do next what this event tells. News of a life that is over may come at any time.
    pub(super) fn may(&self, event: &Event) -> bool {
        let of_life = match event {
            Event::Spawned { incarnation, .. }
            | Event::SpawnFailed { incarnation, .. }
            | Event::ReadyReported { incarnation }
            | Event::Extended { incarnation, .. }
            | Event::Unhealthy { incarnation, .. }
            | Event::MainExited { incarnation, .. }
            | Event::TreeEmpty { incarnation }
            | Event::LogsDrained { incarnation }
            | Event::HookEnded { incarnation } => Some(*incarnation),
            _ => None,
        };
        match of_life.map(|of| of.cmp(&self.incarnation())) {
            Some(Ordering::Less) => return true,
            Some(Ordering::Greater) => return false,
            Some(Ordering::Equal) | None => {}
        }
        let first = self.disk.front().map(|(seq, _)| *seq);
        let tells = |next: &Move| match (next, event) {
            (Move::Disk { works: true }, Event::Recorded { seq })
            | (Move::Disk { works: false }, Event::NotRecorded { seq, .. }) => first == Some(*seq),
            (Move::Exec { works: true }, Event::Spawned { .. })
            | (Move::Exec { works: false }, Event::SpawnFailed { .. })
            | (Move::Ready, Event::ReadyReported { .. })
            | (Move::Unhealthy, Event::Unhealthy { .. })
            | (Move::Extended, Event::Extended { .. })
            | (Move::MainEnds(..) | Move::Reaped(_), Event::MainExited { .. })
            | (Move::Drained, Event::LogsDrained { .. })
            | (Move::HookEnds, Event::HookEnded { .. }) => true,
            _ => false,
        };
        match event {
            Event::Time => self.gateway.deadline().is_some_and(|at| at <= self.now),
            // Nobody says when they come, nor what of.
            Event::Command { .. }
            | Event::Forget(_)
            | Event::Due
            | Event::Defined(_)
            | Event::Gate(_)
            | Event::Needed(_)
            | Event::GiveUp { .. }
            | Event::Shutdown { .. }
            | Event::KillNow => true,
            // After a start that has failed, too.
            Event::TreeEmpty { .. } => !self.tree_told && matches!(self.main, Main::Alive | Main::Dead),
            Event::Boot(_) => self.gateway.phase() == Phase::Down && self.main == Main::None,
            _ => self.moves().iter().any(tells),
        }
    }

    /// The callers lose their connections. The successor adopts what it can, and has ended the rest before it decides
    /// anything.
    fn crash(&mut self, written: bool) -> Result<(), Broken> {
        if let Some((_, want)) = self.disk.pop_front().filter(|_| written) {
            self.write(want)?;
        }
        self.disk.clear();
        self.tickets.clear();
        let living = self.gateway.living().filter(|_| self.fault != Fault::NobodyIsAdopted);
        let history = self.gateway.history().clone();
        let finished = self.gateway.phase() == Phase::Finished;
        let kept = self.gateway.living().is_some();
        if !kept {
            (self.main, self.tree, self.draining, self.finishing) = (Main::None, false, false, false);
            (self.preparing, self.prepared, self.hook) = (false, false, None);
        }
        (self.killed, self.closing, self.signalled, self.hurried) = (false, false, false, false);
        // Nobody knows of it any more.
        self.gone = !self.registered;
        if self.gone {
            return Ok(());
        }
        self.gateway = Gateway::new(self.gateway.policy().clone(), 7);
        self.feed(Event::Boot(Restored {
            want: self.on_disk,
            recorded: true,
            history,
            living,
            finished,
            needed: None,
        }))
    }

    /// The disk has taken a want, or that there is no such service any more.
    pub(super) fn write(&mut self, want: Option<Want>) -> Result<(), Broken> {
        if want.is_some() && !self.registered {
            return Err(Rule::WantOfNobody.into());
        }
        (self.on_disk, self.registered) = (want.unwrap_or(Want::Down), want.is_some());
        Ok(())
    }

    pub(super) fn main_ends(&mut self, exit: Exit) {
        self.main = Main::Dead;
        if self.preparing {
            (self.ended, self.prepared) = (None, exit == Exit::Code(0));
        } else if !self.finishing {
            self.ended = Some(exit);
        }
    }

    fn tell_empty(&mut self) -> Result<(), Broken> {
        if self.tree_told {
            return Ok(());
        }
        self.tree_told = true;
        self.feed(Event::TreeEmpty { incarnation: self.incarnation() })
    }
}
