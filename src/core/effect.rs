//! Everything that the supervisor does for one service, as data. What became of it comes back as an event.

use super::event::{Command, Incarnation, Ticket};
use super::exit::Exit;
use super::policy::Hook;
use super::signal::Signal;
use super::words::Want;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Put the want on disk, durably; answered by `Recorded` or `NotRecorded`.
    Record {
        seq: u64,
        want: Want,
    },
    /// Remove every row of the service from disk; answered likewise.
    Erase {
        seq: u64,
    },
    /// Put the history on disk when convenient; never answered.
    SaveHistory,
    /// Make the place, put the main process into it, execute.
    Spawn {
        incarnation: Incarnation,
    },
    /// Run the hook that comes before a start, in a place of its own: a life without a service, with the same events.
    Prepare {
        incarnation: Incarnation,
    },
    /// Run a hook beside the main process; answered by `HookEnded`, also where it cannot run.
    RunHook {
        incarnation: Incarnation,
        hook: Hook,
    },
    /// End that hook.
    EndHook {
        incarnation: Incarnation,
    },
    /// Run the finish program, told of this end, in a place of its own: a life without a service, with the same events.
    Finish {
        incarnation: Incarnation,
        exit: Exit,
        /// Of the main process that ended.
        pid: i32,
    },
    /// Thaw, then the signal to the main process, then SIGCONT.
    SignalMain {
        incarnation: Incarnation,
        signal: Signal,
        /// An operator's stop: not a restart, a shutdown or the loss of what it requires.
        planned: bool,
    },
    /// The signal to every process of the tree.
    SignalTree {
        incarnation: Incarnation,
        signal: Signal,
    },
    /// End every process of the tree; answered by `TreeEmpty`.
    KillTree {
        incarnation: Incarnation,
    },
    /// The tree is empty: read its log to the end; answered by `LogsDrained`.
    DrainLogs {
        incarnation: Incarnation,
    },
    /// Remove the place of an empty tree.
    Release {
        incarnation: Incarnation,
    },
    /// Leave a tree that cannot be ended to itself.
    Abandon {
        incarnation: Incarnation,
    },
    Reply {
        ticket: Ticket,
        outcome: Outcome,
    },
    /// Something that `status` shows is different now.
    Changed,
    /// Something for the log that the state alone does not tell.
    Report(Incident),
    /// Unregistered and empty: drop it.
    Retired,
}

/// What happened to a service without being asked for, where no state tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Incident {
    /// Its main process ended unasked after it had run for so long.
    Ended { exit: Exit, ran: Duration },
    /// There is no main process; why.
    NotStarted(String),
    /// The time to stop is over, and what is left is killed: the main process too, or only processes that it left.
    StopTimedOut { after: Duration, main: bool },
    /// A hook beside the main process is ended.
    HookTimedOut { hook: Hook },
    /// The finish program is killed.
    FinishTimedOut { after: Duration },
    /// A scheduled run begins.
    RunDue,
    /// A scheduled run does not take place, and why; told of the first in a row.
    RunSkipped(String),
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done {
        /// It was so before the command.
        already: bool,
        /// The wish acts but is not on disk; why.
        unrecorded: Option<String>,
    },
    Failed(String),
    Overtaken(Command),
}

/// The effects of one step, in the order in which they must be carried out.
#[derive(Debug, Default)]
#[must_use = "effects that are dropped never happen"]
pub struct Effects(Vec<Effect>);

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
