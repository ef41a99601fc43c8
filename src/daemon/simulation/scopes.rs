//! Scopes at random: processes of services ask for them, end them, and leave them by ending. With dice of their own: what else a seed
//! says is not moved by it.

use super::callers::Who;
use super::loads::ask_as;
use super::services::meaning;
use super::world::{Happening, World};
use crate::containment::IncarnationId;
use crate::control::protocol::{OomPolicy, Request};
use crate::core::unit::ScopeName;

/// The same in each service: a name says nothing about whose it is.
const NAMES: [&str; 3] = ["build", "worker-1", "worker-2"];

/// A process of a service does something about scopes; and the time of the next one that does.
pub fn load(world: &mut World) {
    if world.quiet || world.ended.is_some() {
        return;
    }
    let pause = world.scope_dice.delay(5000, 60_000);
    world.later(pause, Happening::Scopes);
    let lives: Vec<IncarnationId> = world.kernel.living().into_iter().filter(|id| runs(world, id)).collect();
    let Some(id) = world.scope_dice.pick(&lives) else { return };
    let (members, scopes) = {
        let Some(tree) = world.kernel.tree(&id) else { return };
        (tree.members.processes(), tree.members.scopes())
    };
    let dice = &mut world.scope_dice;
    let mut unit = NAMES[dice.index(NAMES.len())].to_owned();
    let (what, is_there) = (dice.between(0, 99), dice.chance(80));
    if what >= 50
        && is_there
        && let Some(scope) = dice.pick(&scopes)
    {
        unit = scope.to_string();
    }
    if what >= 95 {
        return ask_as(world, Who::Ours, Request::ScopeStop { unit });
    }
    // One that is in a scope gets no second one.
    let one_that_is_there = if dice.chance(15) { dice.pick(&members) } else { None };
    let Some(pid) = one_that_is_there.or_else(|| world.kernel.fork_member(&id)) else { return };
    let dice = &mut world.scope_dice;
    let life = dice.delay(3000, 90_000);
    // Most that ask for an end wait for it, and then end themselves.
    let is_mortal = what < 50 || dice.chance(20);
    let request = match what {
        0..=49 => {
            let memory_max = dice.chance(50).then(|| dice.between(1, 1 << 30));
            let forks: Vec<u64> = (0..dice.index(3)).map(|_| dice.between(1, 2000)).collect();
            if let Ok(name) = ScopeName::new(&unit) {
                forks.iter().for_each(|at| world.later(*at, Happening::ScopeForks(id.clone(), name.clone())));
            }
            Request::Scope { unit, memory_max, swap_max: None, oom: OomPolicy::default() }
        }
        50..=84 => Request::ScopeStop { unit },
        _ => Request::ScopeShow { unit },
    };
    if is_mortal {
        world.later(life, Happening::MemberEnds(id.clone(), pid));
    }
    ask_as(world, Who::Inside(id, pid), request);
}

/// A program of a service is at work there, and no hook.
fn runs(world: &World, id: &IncarnationId) -> bool {
    let is_service = world.ledger.program(id).and_then(meaning).is_some_and(|(_, hook)| hook.is_none());
    is_service && world.kernel.tree(id).is_some_and(|tree| tree.is_up() && !tree.frozen && !tree.killed)
}

/// A process that has ended waits for nothing, and one that has its answer does not stay; but where it was put into a scope, that is
/// where it works.
pub fn hang_up_with_the_dead(world: &mut World) {
    let World { insiders, callers, kernel, .. } = world;
    let mut served = Vec::new();
    insiders.retain(|number| {
        let caller = &mut callers[*number];
        let Who::Inside(id, pid) = &caller.who else { return false };
        let lives = kernel.tree(id).is_some_and(|tree| tree.members.scope_of(*pid).is_some());
        if !lives {
            caller.hang_up();
        } else if !caller.waits() && !matches!(caller.request, Request::Scope { .. }) {
            served.push(Happening::MemberEnds(id.clone(), *pid));
        }
        caller.waits()
    });
    served.into_iter().for_each(|ends| world.later(5, ends));
}
