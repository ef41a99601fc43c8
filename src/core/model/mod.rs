//! An abstract kernel, disk and set of callers around the state machine, searched exhaustively.
//!
//! Every reachable combination is visited once. In each one the safety rules hold, and from each one, without any
//! further command, a state can be reached in which every caller is answered. Seeded faults prove that the search
//! would notice: each is a change to the stream between machine and world that some rule must catch.
//!
//! `replay.rs` puts a trace of a real supervisor in the place of the search, `mutants.rs` shows that a trace can refute each rule.
//!
//! `rules.rs` names the rules, `world.rs` has the state of the world, `moves.rs` what it may do next, `effects.rs` what becomes of the machine's effects, with
//! the rules, and `search.rs` the search.

mod effects;
mod moves;
pub(crate) mod mutants;
pub(crate) mod replay;
pub(crate) mod rules;
mod search;
mod world;

use crate::core::gateway::Phase;
use search::verdict;
use std::collections::HashSet;

/// Deliberate bugs, for the proof that the search finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KillIsLost,
    RecordIsLost,
    AcknowledgedBeforeTheCommit,
    MainExitTakenForEmptyTree,
    StopTakenForRestart,
    ReplyIsLost,
    SpawnIsRepeated,
    ReadyIsAssumed,
    NobodyIsAdopted,
    CleanExitTakenForFailure,
    /// The news that another service does its work is lost.
    ElsewhereIsIgnored,
    /// The news that it is not needed any more is lost.
    NeedIsForever,
    /// A service that is to be given up is not.
    GivingUpIsIgnored,
    /// Every hook before a start is taken for a success.
    PreStartIsIgnored,
    /// A start of a scheduled service runs it.
    StartIsDue,
}

/// What is varied in one search. All of it in one would be too many states for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    TwoCallers,
    OneCallerAndGates,
    /// One caller, and other services that do this one's work or need it.
    OneCallerAndOthers,
    /// One caller, and a service that reports readiness and has a finish program.
    ReadyAndFinish,
    /// One caller, and a service with every hook.
    Hooks,
    /// One caller, and a oneshot with a hook before its start that runs when it is due, if what it requires lets it.
    Scheduled,
    /// As `ReadyAndFinish`, and a supervisor that is killed at any moment and has a successor.
    Crashes,
    /// What a trace tells of a real one.
    Traced,
}

impl Scope {
    fn reports(self) -> bool {
        matches!(self, Self::ReadyAndFinish | Self::Crashes)
    }
}

#[test]
fn every_reachable_state_keeps_the_rules_and_answers_everybody() {
    let phases = |scope: Scope| -> HashSet<Phase> {
        let found = verdict(Fault::None, scope).unwrap_or_else(|broken| panic!("{scope:?}: {broken}"));
        assert!(found.edges > 10_000, "{scope:?}: {} states, {} edges", found.states(), found.edges);
        found.phases
    };
    // The longest test there is: each search on a processor of its own.
    let seen: HashSet<Phase> = std::thread::scope(|threads| {
        let scopes = [
            Scope::TwoCallers,
            Scope::OneCallerAndGates,
            Scope::OneCallerAndOthers,
            Scope::ReadyAndFinish,
            Scope::Hooks,
            Scope::Scheduled,
            Scope::Crashes,
        ];
        let searches = scopes.map(|scope| threads.spawn(move || phases(scope)));
        searches.into_iter().flat_map(|search| search.join().unwrap()).collect()
    });
    // A search that reaches few states proves nothing: all phases must have been reached.
    for name in [
        "Down",
        "Held",
        "Starting",
        "Up",
        "Grace",
        "Hooked",
        "Unsignalled",
        "Killing",
        "Stuck",
        "Draining",
        "Finishing",
        "Backoff",
        "Failed",
        "Finished",
    ] {
        assert!(seen.iter().any(|phase| format!("{phase:?}").contains(name)), "{name} was never reached");
    }
}

#[test]
fn the_search_catches_every_seeded_fault() {
    for fault in [
        Fault::KillIsLost,
        Fault::RecordIsLost,
        Fault::AcknowledgedBeforeTheCommit,
        Fault::MainExitTakenForEmptyTree,
        Fault::StopTakenForRestart,
        Fault::ReplyIsLost,
        Fault::SpawnIsRepeated,
        Fault::CleanExitTakenForFailure,
    ] {
        assert!(verdict(fault, Scope::OneCallerAndGates).is_err(), "{fault:?} went unnoticed");
    }
    for fault in [Fault::ElsewhereIsIgnored, Fault::NeedIsForever, Fault::GivingUpIsIgnored] {
        assert!(verdict(fault, Scope::OneCallerAndOthers).is_err(), "{fault:?} went unnoticed");
    }
    assert!(verdict(Fault::PreStartIsIgnored, Scope::Hooks).is_err());
    assert!(verdict(Fault::StartIsDue, Scope::Scheduled).is_err());
    assert!(verdict(Fault::ReadyIsAssumed, Scope::ReadyAndFinish).is_err());
    assert!(verdict(Fault::NobodyIsAdopted, Scope::Crashes).is_err());
}
