//! A trace in which something is changed, for each rule: it must no longer hold then. So it is shown that a trace can refute it.

use super::replay::{Heritage, Replay};
use super::rules::Rule;
use crate::core::effect::{Effect, Outcome};
use crate::core::event::Event;
use crate::core::exit::Exit;
use crate::core::gateway::{Elsewhere, Gate, Phase};
use crate::core::name::ServiceName;
use crate::core::policy::Hook;
use crate::core::signal::Signal;
use crate::core::trace::{Call, Step, Told};
use crate::core::words::Want;
use std::collections::BTreeSet;

/// What is changed, at each place where that can be.
#[derive(Clone, Copy)]
enum Change {
    /// One answer of one service. `false`: there is nothing to be changed in it.
    Told(fn(&mut Told) -> bool),
    /// A service hears of this first.
    Before(fn(&Told) -> Option<Event>),
    /// A call, in a fleet with these services.
    Call(fn(&mut Call, &BTreeSet<ServiceName>) -> bool),
    /// In the place of a step there are others.
    Steps(fn(&Step) -> Option<Vec<Step>>),
    /// A caller is answered at an earlier step of the service.
    Earlier,
}

/// For each rule, what breaks it.
const CHANGES: &[(Rule, Change)] = &[
    (
        Rule::WantMoved,
        Change::Told(|told| {
            told.after.want = if told.after.want == Want::Up { Want::Down } else { Want::Up };
            matches!(told.event, Event::MainExited { .. })
        }),
    ),
    (
        Rule::CleanExitCounted,
        Change::Told(|told| match &mut told.event {
            Event::MainExited { exit, .. } => std::mem::replace(exit, Exit::Code(0)) != Exit::Code(0),
            _ => false,
        }),
    ),
    (Rule::TwoHooks, Change::Told(|told| again(told, |effect| matches!(effect, Effect::RunHook { .. })))),
    (
        Rule::HookAlone,
        Change::Told(|told| {
            with(told, is_release, |incarnation| Effect::RunHook { incarnation, hook: Hook::PostStart })
        }),
    ),
    (
        Rule::Unprepared,
        Change::Told(|told| match &mut told.event {
            Event::MainExited { exit, .. } => std::mem::replace(exit, Exit::Code(1)) == Exit::Code(0),
            _ => false,
        }),
    ),
    (
        Rule::SignalToNobody,
        Change::Told(|told| {
            with(told, is_release, |incarnation| Effect::SignalMain {
                incarnation,
                signal: Signal::TERM,
                planned: false,
            })
        }),
    ),
    (
        Rule::UnplannedStop,
        Change::Told(|told| {
            let planned = told.effects.iter_mut().find_map(|effect| match effect {
                Effect::SignalMain { planned, .. } => Some(planned),
                _ => None,
            });
            planned.is_some_and(|planned| !std::mem::replace(planned, true))
        }),
    ),
    (
        Rule::SignalToEmptyTree,
        Change::Told(|told| {
            let incarnation = told.after.incarnation;
            told.effects.insert(0, Effect::SignalTree { incarnation, signal: Signal::TERM });
            matches!(told.event, Event::TreeEmpty { .. })
        }),
    ),
    (
        Rule::KilledUnasked,
        Change::Told(|told| {
            let signal = told.effects.iter_mut().find(|effect| matches!(effect, Effect::SignalMain { .. }));
            let incarnation = told.after.incarnation;
            signal.map(|effect| *effect = Effect::KillTree { incarnation }).is_some()
        }),
    ),
    (
        Rule::LogClosedEarly,
        Change::Told(|told| up_with(told, |incarnation| Effect::DrainLogs { incarnation })),
    ),
    (Rule::ReleasedAlive, Change::Told(|told| up_with(told, |incarnation| Effect::Release { incarnation }))),
    (
        Rule::AbandonedEmpty,
        Change::Told(|told| {
            with(
                told,
                |effect| matches!(effect, Effect::DrainLogs { .. }),
                |incarnation| Effect::Abandon { incarnation },
            )
        }),
    ),
    (Rule::RetiredAlive, Change::Told(|told| up_with(told, |_| Effect::Retired))),
    (
        Rule::AgainstTheWant,
        Change::Told(|told| {
            told.after.want = Want::Down;
            told.effects.iter().any(is_start)
        }),
    ),
    (
        Rule::BesideElsewhere,
        Change::Before(|told| {
            told.effects.iter().any(is_start).then_some(Event::Gate(Gate::Elsewhere(Elsewhere::Parked)))
        }),
    ),
    (
        Rule::AfterGivenUp,
        Change::Before(|told| {
            told.effects.iter().any(is_start).then(|| Event::GiveUp { reason: "fights".into() })
        }),
    ),
    (
        Rule::NeitherDueNorAsked,
        Change::Told(|told| {
            told.effects.iter().any(is_start) && std::mem::replace(&mut told.event, Event::Time) == Event::Due
        }),
    ),
    (Rule::BesideLivingTree, Change::Told(|told| again(told, is_start))),
    (Rule::OldNumber, Change::Told(number_of_before)),
    (Rule::NumberUsedTwice, Change::Told(number_of_before)),
    (Rule::AnsweredTwice, Change::Told(|told| again(told, |effect| matches!(effect, Effect::Reply { .. })))),
    (
        Rule::ActedUnrecorded,
        Change::Told(|told| {
            let outcome = told.effects.iter_mut().find_map(outcome);
            outcome.is_some_and(|outcome| match outcome {
                Outcome::Done { unrecorded, .. } => unrecorded.replace("the disk is full".into()).is_none(),
                _ => false,
            })
        }),
    ),
    (Rule::StartBeforeCommit, Change::Told(answered_at_once)),
    (Rule::StopBeforeCommit, Change::Told(answered_at_once)),
    (Rule::UnregisterBeforeCommit, Change::Told(answered_at_once)),
    (
        Rule::RefusedAndGone,
        Change::Told(|told| {
            let outcome = told.effects.iter_mut().find_map(outcome);
            outcome.map(|outcome| *outcome = Outcome::Failed("no".into())).is_some()
                && std::mem::take(&mut told.after.retiring)
        }),
    ),
    (Rule::StopWithTree, Change::Earlier),
    (Rule::StartBeforeReady, Change::Earlier),
    (Rule::StartWithoutMain, Change::Earlier),
    (
        Rule::RowsGone,
        Change::Told(|told| {
            matches!(told.event, Event::Recorded { .. }) && std::mem::take(&mut told.after.retiring)
        }),
    ),
    (
        Rule::WantOfNobody,
        Change::Steps(|step| {
            const SEQ: u64 = 1_000_000;
            let at = step
                .told
                .iter()
                .position(|told| matches!(told.event, Event::Recorded { .. }) && told.after.retiring)?;
            let mut step = step.clone();
            step.told[at].effects.push(Effect::Record { seq: SEQ, want: Want::Up });
            let later =
                Told { event: Event::Recorded { seq: SEQ }, effects: Vec::new(), ..step.told[at].clone() };
            step.told.insert(at + 1, later);
            Some(vec![step])
        }),
    ),
    (
        Rule::WaitsAgainstWant,
        Change::Told(|told| {
            told.after.phase = Phase::Failed;
            told.after.want == Want::Down
        }),
    ),
    (
        Rule::UpBeforeExec,
        Change::Told(|told| {
            told.after.phase = Phase::Up;
            told.effects.iter().any(is_start)
        }),
    ),
    (
        Rule::DownWithTree,
        Change::Told(|told| std::mem::replace(&mut told.after.phase, Phase::Down) == Phase::Up),
    ),
    (
        Rule::WaitsForNothing,
        Change::Told(|told| {
            told.after.deadline.take().is_some()
                && matches!(told.after.phase, Phase::Backoff { .. } | Phase::Ending(_))
        }),
    ),
    (
        Rule::NobodyAnswers,
        Change::Told(|told| {
            let all = told.effects.len();
            told.effects.retain(|effect| !matches!(effect, Effect::Reply { .. }));
            told.effects.len() < all
        }),
    ),
    (Rule::OtherEffects, Change::Told(|told| told.effects.pop().is_some())),
    (
        Rule::NoSuchStep,
        Change::Steps(|step| match &step.call {
            Call::Step { event: Event::MainExited { .. } | Event::Spawned { .. }, .. } => {
                Some(vec![step.clone(), step.clone()])
            }
            _ => None,
        }),
    ),
    (
        Rule::StartedInShutdown,
        Change::Steps(|step| {
            let shutdown = Step { at: step.at, call: Call::Shutdown { deadline: step.at }, told: Vec::new() };
            let starts = step.told.iter().flat_map(|told| &told.effects).any(is_start);
            starts.then(|| vec![shutdown, step.clone()])
        }),
    ),
    (
        Rule::BeforeRequirement,
        Change::Call(|call, _| match call {
            Call::Add { requires, .. } => {
                requires.extend(ServiceName::new("nobody"));
                true
            }
            _ => false,
        }),
    ),
    (
        Rule::EndedBeforeFollowers,
        Change::Call(|call, all| match call {
            Call::Add { name, after, .. } => {
                after.extend(all.iter().filter(|other| *other != name).cloned());
                true
            }
            _ => false,
        }),
    ),
    (
        Rule::TooManyStarts,
        Change::Call(|call, _| match call {
            Call::Places(Some(places)) => {
                *places = usize::from(*places > 1);
                true
            }
            _ => false,
        }),
    ),
    (
        Rule::WantIsLost,
        Change::Told(|told| match &mut told.event {
            Event::Boot(restored) => {
                restored.want = if restored.want == Want::Up { Want::Down } else { Want::Up };
                true
            }
            _ => false,
        }),
    ),
];

fn is_start(effect: &Effect) -> bool {
    matches!(effect, Effect::Spawn { .. } | Effect::Prepare { .. })
}

fn is_release(effect: &Effect) -> bool {
    matches!(effect, Effect::Release { .. })
}

fn outcome(effect: &mut Effect) -> Option<&mut Outcome> {
    match effect {
        Effect::Reply { outcome, .. } => Some(outcome),
        _ => None,
    }
}

/// The first such effect comes twice.
fn again(told: &mut Told, which: fn(&Effect) -> bool) -> bool {
    let found = told.effects.iter().find(|effect| which(effect)).cloned();
    let is_there = found.is_some();
    told.effects.extend(found);
    is_there
}

/// Another effect comes after such a one.
fn with(told: &mut Told, which: fn(&Effect) -> bool, other: fn(u64) -> Effect) -> bool {
    let at = told.effects.iter().position(which);
    at.map(|at| told.effects.insert(at + 1, other(told.after.incarnation))).is_some()
}

/// Another effect comes when the main process has just been made.
fn up_with(told: &mut Told, other: fn(u64) -> Effect) -> bool {
    told.effects.push(other(told.after.incarnation));
    matches!(told.event, Event::Spawned { .. }) && told.after.phase == Phase::Up
}

fn number_of_before(told: &mut Told) -> bool {
    told.effects.iter_mut().any(|effect| match effect {
        Effect::Spawn { incarnation } | Effect::Prepare { incarnation } => {
            *incarnation -= 1;
            true
        }
        _ => false,
    })
}

/// A caller is told that all is done while it is being written.
fn answered_at_once(told: &mut Told) -> bool {
    let Event::Command { ticket, .. } = told.event else { return false };
    let outcome = Outcome::Done { already: false, unrecorded: None };
    let writes = |effect: &Effect| matches!(effect, Effect::Record { .. } | Effect::Erase { .. });
    told.effects.push(Effect::Reply { ticket, outcome });
    told.effects.iter().any(writes)
}

/// So many places are tried in a trace.
const PLACES: usize = 40;

/// Every trace that `change` makes of this one.
fn changed(steps: &[Step], change: Change) -> Box<dyn Iterator<Item = Vec<Step>> + '_> {
    let places = move |most: usize| (0..most).step_by(most.div_ceil(PLACES * 8).max(1));
    let replaced = move |at: usize, by: Vec<Step>| [&steps[..at], &by, &steps[at + 1..]].concat();
    let each_told = (0..steps.len()).flat_map(|at| (0..steps[at].told.len()).map(move |told| (at, told)));
    match change {
        Change::Told(change) => Box::new(each_told.filter_map(move |(at, which)| {
            let mut step = steps[at].clone();
            change(&mut step.told[which]).then(|| replaced(at, vec![step]))
        })),
        Change::Before(change) => Box::new(each_told.filter_map(move |(at, which)| {
            let event = change(&steps[at].told[which])?;
            let mut step = steps[at].clone();
            let told = Told { event, effects: Vec::new(), ..step.told[which].clone() };
            step.told.insert(which, told);
            Some(replaced(at, vec![step]))
        })),
        Change::Call(change) => {
            let all: BTreeSet<ServiceName> = steps.iter().filter_map(added).collect();
            Box::new((0..steps.len()).filter_map(move |at| {
                let mut step = steps[at].clone();
                change(&mut step.call, &all).then(|| replaced(at, vec![step]))
            }))
        }
        Change::Steps(change) => {
            Box::new((0..steps.len()).filter_map(move |at| Some(replaced(at, change(&steps[at])?))))
        }
        Change::Earlier => Box::new(places(steps.len()).flat_map(move |at| earlier(steps, at))),
    }
}

fn added(step: &Step) -> Option<ServiceName> {
    match &step.call {
        Call::Add { name, .. } => Some(name.clone()),
        _ => None,
    }
}

/// The first answer of this step is given at one of the steps before it in which the service was told something.
fn earlier(steps: &[Step], at: usize) -> Vec<Vec<Step>> {
    let is_reply = |effect: &Effect| matches!(effect, Effect::Reply { outcome: Outcome::Done { .. }, .. });
    let mut without = steps.to_vec();
    let found = without[at].told.iter_mut().find_map(|told| {
        let reply = told.effects.iter().position(is_reply)?;
        Some((told.id, told.effects.remove(reply)))
    });
    let Some((id, reply)) = found else { return Vec::new() };
    let before = (0..at).rev().filter_map(|step| {
        let told = steps[step].told.iter().position(|told| told.id == id)?;
        let mut steps = without.clone();
        steps[step].told[told].effects.push(reply.clone());
        Some(steps)
    });
    before.take(6).collect()
}

/// Whether some change of one of these traces breaks `rule`. The traces are in the order in which their supervisors ran on one state.
pub fn refutes(chain: &[Vec<Step>], rule: Rule) -> bool {
    let mut heritage = Heritage::default();
    for steps in chain {
        for (_, change) in CHANGES.iter().filter(|(of, _)| *of == rule) {
            for changed in changed(steps, *change).take(PLACES) {
                let mut replay = Replay::after(heritage.clone());
                let is_broken = |step| {
                    replay.take(step);
                    replay.broken.drain(..).any(|broken| broken.rule == rule)
                };
                if changed.iter().any(is_broken) {
                    return true;
                }
            }
        }
        let mut replay = Replay::after(heritage);
        steps.iter().for_each(|step| replay.take(step));
        heritage = replay.leave();
    }
    false
}
