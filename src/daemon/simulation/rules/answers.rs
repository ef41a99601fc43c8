//! What callers hear is true, and said once.

use super::comings::may_be_gone;
use super::root::is_served;
use super::{Acknowledged, is_up, word};
use crate::control::protocol::{Answer, Code, Outcome, Request, Right};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::simulation::callers::{Caller, Heard};
use crate::daemon::simulation::services::Kind;
use crate::daemon::simulation::world::World;
use crate::definition::template::DEFAULT_PROFILE;
use std::collections::BTreeSet;

/// The want that a request asks for; `None`: it leaves it as it is.
pub(super) fn asked_want(request: &Request) -> Option<Option<Want>> {
    match request {
        Request::Start { .. } | Request::Restart { .. } => Some(Some(Want::Up)),
        Request::Stop { .. } => Some(Some(Want::Down)),
        Request::Unregister { .. } => Some(None),
        Request::Register(registration) => Some(Some(if registration.down { Want::Down } else { Want::Up })),
        _ => None,
    }
}

/// The limit that a request asks for; with it, whether it is to last.
pub(super) fn asked_limit(request: &Request) -> Option<(u64, bool)> {
    let Request::Set { limits, persist, .. } = request else { return None };
    Some((limits.get("pids_max")?.parse().ok()?, *persist))
}

pub(super) fn persisted_limit(request: &Request) -> Option<u64> {
    asked_limit(request).filter(|(_, persist)| *persist).map(|(most, _)| most)
}

/// What can be seen of the services now is remembered for those who wait for an answer.
pub(super) fn look(world: &mut World) {
    let now = world.now();
    let mut up = BTreeSet::new();
    let mut living = BTreeSet::new();
    for id in world.kernel.living() {
        living.insert(id.name.clone());
        if world.kernel.tree(&id).is_some_and(|tree| tree.is_up()) {
            up.insert(id.name.clone());
        }
    }
    for name in &up {
        world.ledger.up_at.insert(name.clone(), now);
    }
    let waiting: Vec<(usize, Vec<String>)> = world
        .callers
        .iter()
        .filter(|caller| {
            let judged = world.ledger.judged.get(&caller.number).copied().unwrap_or_default();
            caller.waits() || caller.outcomes.len() > judged
        })
        .map(|caller| {
            let all = || world.ledger.on_disk.keys().cloned().collect();
            let named = caller.names().map_or_else(all, <[String]>::to_vec);
            let named = match &caller.request {
                Request::Register(registration) => vec![registration.name.clone()],
                _ => named,
            };
            (caller.number, named)
        })
        .collect();
    for (number, names) in waiting {
        for name in names {
            let want = world.ledger.on_disk.get(&name).and_then(|(want, _)| *want);
            let of = ServiceName::new(&name).ok();
            // That it has ended may not be heard yet, while the supervisor stands still.
            let was_up = of.as_ref().and_then(|name| world.ledger.up_at.get(name));
            let may_be_up = was_up.is_some_and(|at| *at >= world.ledger.heard_all);
            let is_served = is_served(world, &name);
            let seen = world.ledger.seen.entry((number, name)).or_default();
            // One whose own processes still end is not the root gateway's yet.
            let has_own = of.as_ref().is_some_and(|name| living.contains(name));
            seen.unserved |= !is_served || has_own;
            seen.wants.insert(is_up(want));
            seen.up |= may_be_up || of.as_ref().is_some_and(|name| up.contains(name));
            seen.empty |= of.as_ref().is_none_or(|name| !living.contains(name));
        }
    }
}

/// What a caller has heard is true, and nothing is said twice.
pub(super) fn judge(world: &mut World, index: usize) -> Result<(), String> {
    let caller = &world.callers[index];
    let number = caller.number;
    if let Some(excess) = &caller.excess {
        return Err(format!("caller {number} heard {excess} after its answer had ended"));
    }
    let from = world.ledger.judged.get(&number).copied().unwrap_or_default();
    let new: Vec<Outcome> = caller.outcomes.iter().skip(from).map(|(_, outcome)| outcome.clone()).collect();
    for outcome in new {
        world.figures.answers += 1;
        let caller = &world.callers[index];
        let twice = caller.outcomes.iter().filter(|(_, other)| other.name == outcome.name).count() > 1;
        if twice {
            return Err(format!("caller {number} was answered twice about {}", outcome.name));
        }
        world.story.did(&format!(
            "answers caller {number}: {} {}",
            outcome.name,
            outcome.message.clone().unwrap_or_else(|| format!("{:?}", outcome.state))
        ));
        if outcome.ok {
            is_true(world, index, &outcome)?;
        }
    }
    let caller = &world.callers[index];
    is_permitted(caller)?;
    world.ledger.judged.insert(number, caller.outcomes.len());
    let must_answer_each = caller.heard == Heard::End && caller.request.verb().answer == Answer::Outcomes;
    if must_answer_each && let Some(names) = caller.names() {
        for name in names {
            if !caller.outcomes.iter().any(|(_, outcome)| outcome.name == *name) {
                return Err(format!("the answer to caller {number} ended without a word about {name}"));
            }
        }
    }
    Ok(())
}

/// Who owns services has them acted on, and no others; who owns none has nothing done.
fn is_permitted(caller: &Caller) -> Result<(), String> {
    let Some(owns) = &caller.owns else { return Ok(()) };
    let (number, method, right) = (caller.number, caller.request.method(), caller.request.verb().right);
    let may_read = right == Right::Read && !owns.is_empty();
    let not_its_own = |outcome: &&Outcome| outcome.ok && !may_read && !caller.may_act_on(&outcome.name);
    let served = caller.heard == Heard::End
        && (right == Right::Administer || (right == Right::Read && owns.is_empty()));
    let outcomes = || caller.outcomes.iter().map(|(_, outcome)| outcome);
    if let Some(outcome) = outcomes().find(not_its_own) {
        return Err(format!(
            "caller {number} had '{method}' done to {}, which it does not own",
            outcome.name
        ));
    }
    if served {
        return Err(format!("caller {number} had '{method}' done, and may not"));
    }
    // Only root may raise a limit.
    let may_all = !matches!(caller.request, Request::Set { .. });
    let is_denied = |outcome: &Outcome| outcome.code == Code::NotPermitted && owns.contains(&outcome.name);
    let denied = |outcome: &&Outcome| may_all && is_denied(outcome);
    if let Some(outcome) = outcomes().find(denied) {
        return Err(format!("caller {number} was not permitted to {method} {}, and owns it", outcome.name));
    }
    match &caller.heard {
        Heard::Refused(text) if may_read && text.starts_with("not permitted") => {
            Err(format!("caller {number} was not permitted to {method}, and owns services: {text}"))
        }
        _ => Ok(()),
    }
}

/// What was said to be done is done.
fn is_true(world: &mut World, index: usize, outcome: &Outcome) -> Result<(), String> {
    let caller = &world.callers[index];
    let (number, name) = (caller.number, outcome.name.clone());
    let seen = world.ledger.seen.get(&(number, name.clone())).cloned().unwrap_or_default();
    let request = caller.request.clone();
    let lie = |what: &str| {
        Err(format!("caller {number} was told that {name} is done with '{}', but {what}", request.method()))
    };
    // A stop beside an unregistration is done with that.
    let is_gone = outcome.message.as_deref() == Some("unregistered");
    let wanted = asked_want(&request).map(|want| want.filter(|_| !is_gone));
    let wanted = wanted.filter(|_| !may_be_gone(world, &name));
    if let Some(want) = wanted {
        // Where nothing is on the disk, the next boot makes of the definition what this one has. To register what is registered
        // already changes no want.
        let first = world.specs.get(&name).map(|spec| Some(spec.autostart));
        let by_default = first == Some(is_up(want)) && seen.wants.contains(&None);
        let is_there = matches!(request, Request::Register(_)) && seen.wants.iter().any(Option::is_some);
        // What is stopped and unregistered in one breath is written once.
        let is_erased = matches!(request, Request::Stop { .. }) && !world.specs.contains_key(&name);
        let is_erased = is_erased && seen.wants.contains(&None);
        if !seen.wants.contains(&is_up(want)) && !by_default && !is_there && !is_erased {
            return lie(&format!("its want was never {} on the disk", word(want)));
        }
        let newest = world.ledger.asked.get(&name).is_none_or(|last| *last <= number);
        if newest && !by_default && !is_there && !is_erased {
            world.ledger.acknowledged.insert(name.clone(), Acknowledged { want });
        }
        if newest && matches!(request, Request::Stop { .. }) {
            world.ledger.stops.done(number, &name);
        }
    }
    if let (Some((most, persist)), Ok(known)) = (asked_limit(&request), ServiceName::new(&name)) {
        let given = world.ledger.limits_given.get(&known).is_some_and(|given| given.contains(&most));
        if !persist && !given {
            return lie("no life was given that limit");
        }
        let lasts = persist && !may_be_gone(world, &name);
        if lasts && world.ledger.limits_asked.get(&name) == Some(&number) {
            world.ledger.limits.insert(name.clone(), most);
        }
    }
    let spec = world.specs.get(&name);
    // Another gateway may do its work.
    let runs_at_times = spec.is_some_and(|spec| spec.kind != Kind::Daemon || spec.is_named_gateway());
    let stops_root = world.callers[index].is_about(DEFAULT_PROFILE);
    match &request {
        Request::Stop { .. } | Request::Unregister { .. } if !seen.empty => lie("its tree was never empty"),
        // Where the root gateway is stopped with it, that is when it ends.
        Request::Stop { .. } if !seen.unserved && !stops_root => {
            lie("the root gateway served it all the while")
        }
        Request::Start { .. } | Request::Restart { .. } | Request::Once { .. }
            if !seen.up && !runs_at_times =>
        {
            lie("it was never up")
        }
        _ => Ok(()),
    }
}
