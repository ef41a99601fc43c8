//! What the supervisor does when a keeper dies before its tree: the tree's orphans are its own children now.
//!
//! Ours to end are children that nobody knows: with a tag, those that carry it; without, those that are younger than
//! the keeper and do not name another incarnation. There is no `ECHILD` to prove the end, so it is two looks in a row
//! that find nothing, with no unknown child reaped since the first of them began: a process that hops by fork and exit
//! leaves a dead parent behind at each hop, and that is ours to reap.

use super::tags;
use crate::containment::retry::Retry;
use crate::containment::walk;
use crate::core::clock::Tick;
use std::time::Duration;

#[derive(Debug)]
pub struct Lost {
    pub retry: Retry,
    clean: u8,
    orphans: u64,
}

/// Who is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    pub tag: Option<u32>,
    pub same_uid: bool,
    /// `<instance>:<name>.<n>`
    pub marker: &'a str,
    pub keeper_started: u64,
    /// The keeper was not our child, so its orphans are not either: only tag and marker tell them.
    pub foreign: bool,
}

const FIRST_LOOK: Duration = Duration::from_millis(3);

impl Lost {
    pub fn begin(now: Option<Tick>) -> Self {
        Self { retry: Retry::now(now, FIRST_LOOK), clean: 0, orphans: 0 }
    }

    /// Looks, kills what it finds, and answers whether the tree is over. `orphans` counts the unknown children that the
    /// daemon has reaped so far.
    pub fn look(&mut self, own: i32, sought: Sought<'_>, known: &dyn Fn(i32) -> bool, orphans: u64) -> bool {
        let mut roots = || -> Vec<i32> {
            let candidates = if sought.foreign { walk::all_processes() } else { walk::children(own) };
            candidates.into_iter().filter(|pid| !known(*pid) && is_of_tree(*pid, sought)).collect()
        };
        let found = roots();
        if found.is_empty() {
            self.clean = if self.orphans == orphans { self.clean + 1 } else { 1 };
        } else {
            self.clean = 0;
            if sought.foreign {
                walk::strike(&found, &|pid| is_of_tree(pid, sought));
            } else {
                walk::end(own, &mut roots);
            }
        }
        self.orphans = orphans;
        self.clean >= 2
    }
}

fn is_of_tree(pid: i32, sought: Sought<'_>) -> bool {
    if sought.tag.is_some_and(|tag| tags::groups_of(pid).contains(&tag)) {
        // A zombie of somebody else's is not ours to reap.
        return !sought.foreign || walk::stat(pid).is_some_and(|stat| !stat.is_dead());
    }
    if sought.tag.is_some() && !sought.same_uid {
        return false;
    }
    if sought.foreign {
        let dead = || walk::stat(pid).is_none_or(|stat| stat.is_dead());
        return tags::marker_of(pid).is_some_and(|marker| marker == sought.marker) && !dead();
    }
    let younger = walk::stat(pid).is_some_and(|stat| stat.started >= sought.keeper_started);
    let named_otherwise = tags::marker_of(pid).is_some_and(|marker| marker != sought.marker);
    younger && !named_otherwise
}
