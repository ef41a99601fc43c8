//! Bugs that are put into the supervisor, each of which some rule must catch. They are between what the core and the topics decide and
//! what is carried out, and between what has happened and those who deal with it. The shipped binary has no such place.

use crate::core::effect::Effect;
use crate::core::event::{Command, Event};
use crate::core::fleet::ServiceId;
use crate::core::words::Want;
use crate::daemon::Supervisor;
use crate::daemon::inbox::Input;
use crate::daemon::topics::definitions::found::Found;
use std::cell::Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A kill is forgotten.
    KillIsLost,
    /// A process is not made.
    SpawnIsLost,
    /// A want is said to be on the disk before it is.
    AcknowledgedBeforeTheCommit,
    /// A want that could not be written is taken for one that was.
    FailedCommitTakenForDone,
    /// Every want is written as up.
    DownIsRecordedAsUp,
    /// What is unregistered stays on the disk.
    RowsAreKept,
    /// How a service has fared is not written.
    HistoryIsNotSaved,
    /// A caller is never answered.
    ReplyIsLost,
    /// A caller is not heard.
    RequestIsLost,
    /// The end of the main process is taken for that of its tree.
    MainExitTakenForEmptyTree,
    /// That a tree is empty is not heard.
    EmptyTreeIsIgnored,
    /// A service is killed at once where it should be asked to end.
    StopIsAKill,
    /// A stop is taken for a start.
    StopTakenForStart,
    /// That a start could not be made is not heard.
    FailedStartIsIgnored,
    /// A tree is let go of while it ends.
    ReleasedTooEarly,
    /// What runs is taken to be ready.
    ReadyIsAssumed,
    /// What a service requires is not read.
    RequirementsAreForgotten,
    /// Lives that could go on are ended by the next supervisor.
    NobodyIsAdopted,
    /// What a killed supervisor has left is not ended by the next one.
    RemainsAreLeft,
}

pub const ALL: [Bug; 19] = [
    Bug::KillIsLost,
    Bug::SpawnIsLost,
    Bug::AcknowledgedBeforeTheCommit,
    Bug::FailedCommitTakenForDone,
    Bug::DownIsRecordedAsUp,
    Bug::RowsAreKept,
    Bug::HistoryIsNotSaved,
    Bug::ReplyIsLost,
    Bug::RequestIsLost,
    Bug::MainExitTakenForEmptyTree,
    Bug::EmptyTreeIsIgnored,
    Bug::StopIsAKill,
    Bug::StopTakenForStart,
    Bug::FailedStartIsIgnored,
    Bug::ReleasedTooEarly,
    Bug::ReadyIsAssumed,
    Bug::RequirementsAreForgotten,
    Bug::NobodyIsAdopted,
    Bug::RemainsAreLeft,
];

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// From now on the supervisors of this thread have this bug, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// What was read of definitions.
pub fn found(found: &mut Found) {
    if PLANTED.get() == Some(Bug::RequirementsAreForgotten) {
        found.loaded.services.values_mut().for_each(|definition| definition.requires.clear());
    }
}

pub fn nobody_is_adopted() -> bool {
    PLANTED.get() == Some(Bug::NobodyIsAdopted)
}

/// What is carried out in the place of this effect.
pub fn effect(supervisor: &mut Supervisor, id: ServiceId, effect: Effect) -> Option<Effect> {
    let Some(bug) = PLANTED.get() else { return Some(effect) };
    match (bug, effect) {
        (Bug::KillIsLost, Effect::KillTree { .. })
        | (Bug::SpawnIsLost, Effect::Spawn { .. })
        | (Bug::HistoryIsNotSaved, Effect::SaveHistory)
        | (Bug::ReplyIsLost, Effect::Reply { .. }) => None,
        (Bug::RowsAreKept, Effect::Erase { seq }) => {
            supervisor.inbox.core(id, Event::Recorded { seq });
            None
        }
        (Bug::AcknowledgedBeforeTheCommit, effect @ Effect::Record { seq, .. }) => {
            supervisor.inbox.core(id, Event::Recorded { seq });
            Some(effect)
        }
        (Bug::DownIsRecordedAsUp, Effect::Record { seq, .. }) => Some(Effect::Record { seq, want: Want::Up }),
        (Bug::StopIsAKill, Effect::SignalMain { incarnation, planned: true, .. }) => {
            Some(Effect::KillTree { incarnation })
        }
        (Bug::ReleasedTooEarly, effect @ Effect::SignalMain { incarnation, .. }) => {
            supervisor.outbox.push_back((id, Effect::Release { incarnation }));
            Some(effect)
        }
        (_, effect) => Some(effect),
    }
}

/// What is dealt with in the place of this news.
pub fn input(supervisor: &mut Supervisor, input: Input) -> Option<Input> {
    let Some(bug) = PLANTED.get() else { return Some(input) };
    match (bug, input) {
        (Bug::FailedCommitTakenForDone, Input::Core(id, Event::NotRecorded { seq, .. })) => {
            Some(Input::Core(id, Event::Recorded { seq }))
        }
        (Bug::MainExitTakenForEmptyTree, Input::Core(id, event @ Event::MainExited { incarnation, .. })) => {
            supervisor.inbox.core(id, Event::TreeEmpty { incarnation });
            Some(Input::Core(id, event))
        }
        (Bug::EmptyTreeIsIgnored, Input::Core(_, Event::TreeEmpty { .. }))
        | (Bug::FailedStartIsIgnored, Input::Core(_, Event::SpawnFailed { .. })) => None,
        (Bug::StopTakenForStart, Input::Core(id, Event::Command { ticket, command: Command::Stop })) => {
            let command = Command::Start { force: false };
            Some(Input::Core(id, Event::Command { ticket, command }))
        }
        (Bug::RequestIsLost, Input::Request(asked)) if asked.request.targets().is_some() => None,
        (Bug::ReadyIsAssumed, Input::Core(id, event @ Event::Spawned { incarnation, .. })) => {
            supervisor.inbox.core(id, Event::ReadyReported { incarnation });
            Some(Input::Core(id, event))
        }
        (_, input) => Some(input),
    }
}
