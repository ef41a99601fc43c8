//! The search: every reachable world once, and whether from each of them everybody can be answered.

use super::rules::{Broken, Rule};
use super::world::World;
use super::{Fault, Scope};
use crate::core::gateway::Phase;
use crate::core::words::Want;
use std::collections::HashMap;

pub(super) struct Search {
    pub(super) worlds: Vec<World>,
    /// For each world, the worlds that the environment alone can make of it.
    onward: Vec<Vec<usize>>,
    pub(super) edges: usize,
}

fn search(fault: Fault, scope: Scope) -> Result<Search, Broken> {
    let mut index: HashMap<u64, usize> = HashMap::new();
    let mut found = Search { worlds: Vec::new(), onward: Vec::new(), edges: 0 };
    for want in [Want::Down, Want::Up] {
        let world = World::new(fault, scope, want)?;
        index.insert(world.key(), found.worlds.len());
        found.worlds.push(world);
        found.onward.push(Vec::new());
    }
    let mut next = 0;
    while next < found.worlds.len() {
        let world = found.worlds[next].clone();
        let wishes = world.wishes().into_iter().map(|step| (step, false));
        let steps = wishes.chain(world.environment().into_iter().map(|step| (step, true)));
        for (step, environment) in steps {
            let mut after = world.clone();
            after
                .apply(&step)
                .map_err(|broken| broken.about(format_args!("{step:?} in {:?}", world.fingerprint())))?;
            found.edges += 1;
            let fresh = found.worlds.len();
            let at = *index.entry(after.key()).or_insert(fresh);
            if at == fresh {
                found.worlds.push(after);
                found.onward.push(Vec::new());
            }
            if environment {
                found.onward[next].push(at);
            }
        }
        next += 1;
    }
    Ok(found)
}

/// A world from which the environment alone cannot reach one where no caller waits.
fn unanswerable(found: &Search) -> Option<Broken> {
    let mut inward = vec![Vec::new(); found.worlds.len()];
    for (from, tos) in found.onward.iter().enumerate() {
        for to in tos {
            inward[*to].push(from);
        }
    }
    // A start that waits for another service is answered when that service moves, which is not a move of the environment.
    let fine = |world: &World| world.tickets.is_empty() || world.gateway.phase() == Phase::Held;
    let mut good: Vec<bool> = found.worlds.iter().map(fine).collect();
    let mut queue: Vec<usize> = (0..good.len()).filter(|at| good[*at]).collect();
    while let Some(at) = queue.pop() {
        for from in &inward[at] {
            if !good[*from] {
                good[*from] = true;
                queue.push(*from);
            }
        }
    }
    let bad = good.iter().position(|good| !good);
    bad.map(|at| {
        Broken::from(Rule::NobodyAnswers).about(format_args!("{:?}", found.worlds[at].fingerprint()))
    })
}

/// The search, or the first rule that does not hold.
pub(super) fn verdict(fault: Fault, scope: Scope) -> Result<Search, Broken> {
    let found = search(fault, scope)?;
    match unanswerable(&found) {
        Some(bad) => Err(bad),
        None => Ok(found),
    }
}
