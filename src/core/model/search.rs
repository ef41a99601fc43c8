//! The search: every reachable world once, and whether from each of them everybody can be answered.

use super::moves::Move;
use super::rules::{Broken, Rule};
use super::world::World;
use super::{Fault, Scope};
use crate::core::gateway::Phase;
use crate::core::words::Want;
use std::collections::{HashMap, HashSet, VecDeque};

pub(super) struct Search {
    /// Not the worlds themselves: there are more than a million, and each is needed until it was looked at.
    seen: Vec<Seen>,
    pub(super) phases: HashSet<Phase>,
    pub(super) edges: usize,
}

struct Seen {
    /// The world that it was first made of, and the step that made it.
    from: Option<(usize, Move)>,
    /// The worlds that the environment alone can make of it.
    onward: Vec<usize>,
    /// No caller waits in it.
    is_fine: bool,
}

impl Search {
    pub(super) fn states(&self) -> usize {
        self.seen.len()
    }

    fn see(&mut self, world: &World, from: Option<(usize, Move)>) {
        // A start that waits for another service is answered when that service moves, which is not a move of the environment.
        let is_fine = world.tickets.is_empty() || world.gateway.phase() == Phase::Held;
        self.phases.insert(world.gateway.fingerprint_phase());
        self.seen.push(Seen { from, onward: Vec::new(), is_fine });
    }

    /// The fewest steps that lead there.
    fn way(&self, mut at: usize) -> Vec<&Move> {
        let mut way = Vec::new();
        while let Some((from, step)) = &self.seen[at].from {
            way.push(step);
            at = *from;
        }
        way.reverse();
        way
    }
}

fn search(fault: Fault, scope: Scope) -> Result<Search, Broken> {
    let mut index: HashMap<u64, usize> = HashMap::new();
    let mut found = Search { seen: Vec::new(), phases: HashSet::new(), edges: 0 };
    // The first in is the first to be looked at, so the way to each is a shortest one.
    let mut waiting = VecDeque::new();
    for want in [Want::Down, Want::Up] {
        let world = World::new(fault, scope, want)?;
        index.insert(world.key(), found.seen.len());
        waiting.push_back((found.seen.len(), world.clone()));
        found.see(&world, None);
    }
    while let Some((at, world)) = waiting.pop_front() {
        let wishes = world.wishes().into_iter().map(|step| (step, false));
        let steps = wishes.chain(world.environment().into_iter().map(|step| (step, true)));
        for (step, environment) in steps {
            let mut after = world.clone();
            after
                .apply(&step)
                .map_err(|broken| broken.about(format_args!("{step:?} after {:?}", found.way(at))))?;
            found.edges += 1;
            let fresh = found.seen.len();
            let to = *index.entry(after.key()).or_insert(fresh);
            if to == fresh {
                found.see(&after, Some((at, step)));
                waiting.push_back((to, after));
            }
            if environment {
                found.seen[at].onward.push(to);
            }
        }
    }
    Ok(found)
}

/// A world from which the environment alone cannot reach one where no caller waits.
fn unanswerable(found: &Search) -> Option<Broken> {
    let mut inward = vec![Vec::new(); found.seen.len()];
    for (from, seen) in found.seen.iter().enumerate() {
        for to in &seen.onward {
            inward[*to].push(from);
        }
    }
    let mut good: Vec<bool> = found.seen.iter().map(|seen| seen.is_fine).collect();
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
    bad.map(|at| Broken::from(Rule::NobodyAnswers).about(format_args!("after {:?}", found.way(at))))
}

/// The search, or the first rule that does not hold.
pub(super) fn verdict(fault: Fault, scope: Scope) -> Result<Search, Broken> {
    let found = search(fault, scope)?;
    match unanswerable(&found) {
        Some(bad) => Err(bad),
        None => Ok(found),
    }
}
