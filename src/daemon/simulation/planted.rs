//! Bugs that are put into the supervisor, each of which some rule must catch. They are between what the core and the topics decide and
//! what is carried out, and between what has happened and those who deal with it. The shipped binary has no such place.

use super::callers::STRANGER;
use super::services::OWNERS;
use crate::containment;
use crate::control::protocol::Request;
use crate::core::effect::Effect;
use crate::core::event::{Command, Event};
use crate::core::fleet::{Place, ServiceId};
use crate::core::gateway::Elsewhere;
use crate::core::words::Want;
use crate::daemon::inbox::Input;
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::topics::scopes::ScopeAnswer;
use crate::daemon::topics::topology::About;
use crate::daemon::{Notice, Supervisor};
use crate::definition::resolved::RunAs;
use crate::hermes::gateway_socket::Answer;
use std::cell::Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// None: what a run with a bug is compared with.
    Nothing,
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
    /// Every caller is taken for root.
    AnybodyMay,
    /// A limit that is to last is put into force, and not written.
    LimitIsNotRecorded,
    /// All instances run the program of the first.
    InstancesAreOne,
    /// Gateways do not wait for the word of the root gateway.
    RootIsNotAwaited,
    /// A gateway whose profile the root gateway serves has a process of its own all the same.
    ServedRunsAlone,
    /// The root gateway is not told what is asked of a profile that it serves.
    RootIsNotTold,
    /// What the root gateway refuses is taken for done.
    RefusalTakenForDone,
    /// Every service runs as the gateway user.
    UsersAreForgotten,
    /// A user who owns a service is taken for one who owns none.
    OwnersAreStrangers,
    /// A user who owns a service is taken for root.
    OwnersAreRoot,
    /// That a scope is empty is not heard.
    ScopeEndIsIgnored,
    /// A scope that is to be ended is taken for one that has ended.
    ScopeTakenForEnded,
    /// A scope has no bound.
    ScopeBoundIsForgotten,
}

pub const ALL: [Bug; 32] = [
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
    Bug::AnybodyMay,
    Bug::LimitIsNotRecorded,
    Bug::InstancesAreOne,
    Bug::RootIsNotAwaited,
    Bug::ServedRunsAlone,
    Bug::RootIsNotTold,
    Bug::RefusalTakenForDone,
    Bug::UsersAreForgotten,
    Bug::OwnersAreStrangers,
    Bug::OwnersAreRoot,
    Bug::ScopeEndIsIgnored,
    Bug::ScopeTakenForEnded,
    Bug::ScopeBoundIsForgotten,
];

impl Bug {
    /// About services of other users, which only a supervisor of root has.
    pub fn is_of_root(self) -> bool {
        matches!(self, Self::UsersAreForgotten | Self::OwnersAreStrangers | Self::OwnersAreRoot)
    }
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// From now on the supervisors of this thread have this bug, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// What was read of definitions.
pub fn found(found: &mut Found) {
    let services = &mut found.loaded.services;
    match PLANTED.get() {
        Some(Bug::RequirementsAreForgotten) => {
            services.values_mut().for_each(|definition| definition.requires.clear());
        }
        Some(Bug::UsersAreForgotten) => {
            services.values_mut().for_each(|definition| definition.user = RunAs::Gateway);
        }
        Some(Bug::InstancesAreOne) => {
            let first = services.iter().find(|(name, _)| name.as_instance().is_some_and(|(_, n)| n == "1"));
            let command = first.map(|(_, definition)| definition.command.clone()).unwrap_or_default();
            let instances = services.iter_mut().filter(|(name, _)| name.as_instance().is_some());
            instances.for_each(|(_, definition)| definition.command.clone_from(&command));
        }
        _ => {}
    }
}

/// What is not asked of the root gateway, and taken for done.
pub fn conversation(about: &About) -> Option<Answer> {
    let is_not_told = PLANTED.get() == Some(Bug::RootIsNotTold)
        && matches!(about, About::Command { .. } | About::Leave { .. });
    is_not_told.then(Answer::default)
}

/// Where the work of a gateway is done.
pub fn place(place: Place) -> Place {
    match (PLANTED.get(), place) {
        (Some(Bug::RootIsNotAwaited), Place::Ask(_))
        | (Some(Bug::ServedRunsAlone), Place::Elsewhere(Elsewhere::Served { .. })) => Place::Own,
        (_, place) => place,
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
        (Bug::AnybodyMay, Input::Request(mut asked)) => {
            asked.peer.uid = 0;
            Some(Input::Request(asked))
        }
        (bug @ (Bug::OwnersAreStrangers | Bug::OwnersAreRoot), Input::Request(mut asked)) => {
            if OWNERS.contains(&asked.peer.uid) {
                asked.peer.uid = if bug == Bug::OwnersAreRoot { 0 } else { STRANGER };
            }
            Some(Input::Request(asked))
        }
        (Bug::RefusalTakenForDone, Input::Notice(Notice::GatewayConversed(mut conversed))) => {
            conversed.answer = conversed.answer.or_else(|_| Ok(Answer::default()));
            Some(Input::Notice(Notice::GatewayConversed(conversed)))
        }
        (Bug::LimitIsNotRecorded, Input::SetLimits(mut asked)) => {
            asked.persist = false;
            Some(Input::SetLimits(asked))
        }
        (Bug::ScopeEndIsIgnored, Input::Containment(containment::Event::ScopeEnded { .. })) => None,
        (Bug::ScopeTakenForEnded, Input::Scope(conn, id, name, answer @ ScopeAnswer::Ending(true))) => {
            let event = containment::Event::ScopeEnded { id: id.clone(), name: name.clone(), oom_kills: 0 };
            supervisor.inbox.push(Input::Containment(event));
            Some(Input::Scope(conn, id, name, answer))
        }
        (Bug::ScopeBoundIsForgotten, Input::Request(mut asked)) => {
            if let Request::Scope { memory_max, .. } = &mut asked.request {
                *memory_max = None;
            }
            Some(Input::Request(asked))
        }
        (Bug::RequestIsLost, Input::Request(asked)) if asked.request.targets().is_some() => None,
        (Bug::ReadyIsAssumed, Input::Core(id, event @ Event::Spawned { incarnation, .. })) => {
            supervisor.inbox.core(id, Event::ReadyReported { incarnation });
            Some(Input::Core(id, event))
        }
        (_, input) => Some(input),
    }
}
