//! What the supervisor does when a keeper dies before its tree: the orphans of the tree are the supervisor's children now.
//!
//! They are found among the children that belong to no life: with a tag, those that carry it; without, those that are younger
//! than the keeper and do not name another incarnation. There is no `ECHILD` to prove the end, so it is proved by two looks in a
//! row that find nothing, with no unknown child reaped since the first look began: a process that hops by fork and exit leaves a
//! dead parent behind at each hop, and we reap that one.

use crate::containment::processes::{self, walk};
use crate::containment::retry::Retry;
use crate::core::clock::Tick;
use std::time::Duration;

#[derive(Debug)]
pub struct Lost {
    pub retry: Retry,
    clean: u8,
    orphans: u64,
}

/// What is looked for.
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
    pub fn begin(now: Tick) -> Self {
        Self { retry: Retry::now(Some(now), FIRST_LOOK), clean: 0, orphans: 0 }
    }

    /// Looks, kills what it finds, and answers whether the tree is over. `orphans` counts the unknown children that the
    /// daemon has reaped so far.
    pub fn look(&mut self, sought: Sought<'_>, known: &dyn Fn(i32) -> bool, orphans: u64) -> bool {
        let own = std::process::id().cast_signed();
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
    if sought.tag.is_some_and(|tag| processes::groups_of(pid).contains(&tag)) {
        // A zombie that is not our child is not ours to reap.
        return !sought.foreign || walk::stat(pid).is_some_and(|stat| !stat.is_dead());
    }
    if sought.tag.is_some() && !sought.same_uid {
        return false;
    }
    if sought.foreign {
        let dead = || walk::stat(pid).is_none_or(|stat| stat.is_dead());
        return processes::marker_of(pid).is_some_and(|marker| marker == sought.marker) && !dead();
    }
    let younger = walk::stat(pid).is_some_and(|stat| stat.started >= sought.keeper_started);
    let named_otherwise = processes::marker_of(pid).is_some_and(|marker| marker != sought.marker);
    younger && !named_otherwise
}
