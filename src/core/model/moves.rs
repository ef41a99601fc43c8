//! What the world may do next: an order of a caller, an end of a process, an answer of the disk, time that passes.

use super::world::{Main, World};
use super::{Broken, Fault, Scope};
use crate::core::event::{Command, Event, Ticket};
use crate::core::exit::Exit;
use crate::core::gateway::{Elsewhere, FINISH_GIVES_UP, Gate, Gateway, Phase, Restored, Stage};
use crate::core::name::ServiceName;
use crate::core::words::Want;
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

/// What the world may do next.
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
    Shutdown,
    /// The supervisor is killed; what it was writing got to the disk or not.
    Crash {
        written: bool,
    },
}

impl World {
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.gone {
            return moves;
        }
        let callers = if self.scope == Scope::TwoCallers { 2 } else { 1 };
        if self.tickets.len() < callers && self.disk.len() < 2 {
            let stuck = self.gateway.stage() == Some(Stage::Stuck);
            moves.extend(COMMANDS.into_iter().filter(|c| stuck || *c != FORCE).map(Move::Command));
        }
        moves.extend(self.environment());
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
        if self.scope == Scope::ReadyAndFinish && self.main == Main::Alive && !self.tree_told {
            moves.extend([Move::Unhealthy, Move::Extended]);
        }
        if self.scope == Scope::Crashes {
            moves.extend([false, true].map(|written| Move::Crash { written }));
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
            } else if self.scope.reports() && !self.reported {
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
                self.given_up = false;
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.tickets.insert(ticket, command);
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
                let (seq, want) = self.disk.pop_front().ok_or("no write")?;
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
                self.reported = true;
                self.feed(Event::ReadyReported { incarnation })
            }
            Move::Unhealthy if self.gateway.phase() != Phase::Up => Ok(()),
            Move::Unhealthy => {
                self.unhealthy = true;
                self.feed(Event::Unhealthy { incarnation, reason: "no answer".into() })
            }
            Move::Extended => self.feed(Event::Extended { incarnation, by: Duration::from_secs(30) }),
            Move::MainEnds(exit, leaves) => {
                self.main = Main::Dead;
                // A hook is one of the tree's processes.
                let leaves = leaves || self.hook.is_some();
                self.tree = leaves;
                self.note_end(exit);
                if self.preparing {
                    (self.ended, self.prepared) = (None, exit == Exit::Code(0));
                }
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
                self.main = Main::Dead;
                self.note_end(exit);
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
                self.now = self.gateway.deadline().ok_or("no deadline")?.max(self.now);
                self.feed(Event::Time)
            }
            Move::Due => {
                let rests = self.gateway.awaits_run();
                self.run_is_due |= rests;
                self.feed(Event::Due)
            }
            Move::Gate(gate) => {
                self.elsewhere = matches!(gate, Gate::Elsewhere(_));
                // The reason for giving it up is gone.
                self.given_up &= !self.elsewhere;
                let heard = !self.elsewhere || self.fault != Fault::ElsewhereIsIgnored;
                self.feed(Event::Gate(if heard { gate } else { Gate::Open }))
            }
            Move::Needed(needed) => {
                if !self.closing && !self.gateway.is_retiring() {
                    self.needed = needed;
                }
                let heard = needed || self.fault == Fault::NeedIsForever;
                self.feed(Event::Needed(heard.then(other)))
            }
            Move::GiveUp => {
                // No command for a start is under way, and it wants to have a process.
                let heard = self.gateway.want() == Want::Up && !self.elsewhere && self.tickets.is_empty();
                let has_ended = matches!(self.gateway.phase(), Phase::Down | Phase::Finished);
                self.given_up |= heard && !has_ended && !self.closing && !self.gateway.is_retiring();
                if self.fault == Fault::GivingUpIsIgnored {
                    return Ok(());
                }
                self.feed(Event::GiveUp { reason: "fights".into() })
            }
            Move::Shutdown => {
                self.closing = true;
                self.feed(Event::Shutdown { deadline: self.now.after(Duration::from_secs(9)) })
            }
            Move::Crash { written } => self.crash(written),
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
        (self.killed, self.closing) = (false, false);
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
    fn write(&mut self, want: Option<Want>) -> Result<(), Broken> {
        if want.is_some() && !self.registered {
            return Err("a want of what is not registered any more was written".into());
        }
        (self.on_disk, self.registered) = (want.unwrap_or(Want::Down), want.is_some());
        Ok(())
    }

    fn note_end(&mut self, exit: Exit) {
        if !self.finishing {
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
