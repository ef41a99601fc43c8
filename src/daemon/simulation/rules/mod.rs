//! What must be so, whatever happens. Safety at each step, with the books of the world alone: what the kernel had, what was on the
//! disk, what callers asked and heard. Liveness at the end, when nothing goes wrong any more.
//!
//! Here are the books. `starts` is about what the supervisor does to trees, `root` about the word of the root gateway, `scopes` about
//! those, `answers` about what callers hear, `successors` about what outlives a supervisor, `rest` about the end.

mod answers;
mod comings;
mod rest;
mod root;
mod scopes;
mod starts;
mod successors;

pub use rest::{at_rest, at_the_end};
pub use root::{begins, may_be_served, rested};
pub use scopes::{Before, before, ends_are_told, unit};
pub use starts::did;
pub use successors::{Heir, bequeath, inherit, nothing_is_left, recovered};

use super::callers::Caller;
use super::services::meaning;
use super::world::World;
use crate::containment::IncarnationId;
use crate::control::protocol::Request;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use answers::{asked_want, judge, look, persisted_limit};
use comings::Comings;
use root::{Root, Stops, Word};
use scopes::Scopes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use successors::Heirloom;

/// A want that somebody was told to be on the disk.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    want: Option<Want>,
}

/// What was seen of a service since a caller asked.
#[derive(Debug, Clone, Default)]
struct Seen {
    up: bool,
    empty: bool,
    /// The root gateway did not do its work.
    unserved: bool,
    wants: BTreeSet<Option<bool>>,
}

/// The books of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of each service, what the disk held when it was looked at last, and when it came to hold it.
    on_disk: BTreeMap<String, (Option<Want>, u64)>,
    /// What callers were told, until somebody asks for something else.
    acknowledged: BTreeMap<String, Acknowledged>,
    /// Which caller has asked last for a change of its want.
    asked: BTreeMap<String, usize>,
    /// What those who wait for an answer could see meanwhile, by caller and service.
    seen: BTreeMap<(usize, String), Seen>,
    judged: BTreeMap<usize, usize>,
    programs: BTreeMap<IncarnationId, String>,
    /// Oneshots that have succeeded since the last boot.
    succeeded: BTreeSet<ServiceName>,
    /// When a tree of it was last seen up.
    up_at: BTreeMap<ServiceName, u64>,
    /// Lives that have said that they are ready.
    pub ready: BTreeSet<IncarnationId>,
    /// What the next supervisor has to find as it was: lives that go on, and services that have failed.
    heirloom: Heirloom,
    /// The disk refused something since the supervisor began: what it wants may be in its memory alone.
    troubled: bool,
    pub shutting_down: bool,
    /// Their definitions were changed, which ends a failure.
    pub redefined: BTreeSet<ServiceName>,
    /// When the supervisor had heard of everything last.
    pub heard_all: u64,
    /// Who has asked last for limits that last, and what they were told.
    limits_asked: BTreeMap<String, usize>,
    limits: BTreeMap<String, u64>,
    /// What lives were ever given.
    limits_given: BTreeMap<ServiceName, BTreeSet<u64>>,
    comings: Comings,
    word: Option<Word>,
    root: Root,
    stops: Stops,
    scopes: Scopes,
    broken: Vec<String>,
}

fn word(want: Option<Want>) -> &'static str {
    match want {
        Some(Want::Up) => "up",
        Some(Want::Down) => "down",
        None => "nothing",
    }
}

fn is_up(want: Option<Want>) -> Option<bool> {
    want.map(|want| want == Want::Up)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Ledger {
    /// What the disk holds of the want of a service, when it was looked at last.
    pub fn on_disk(&self, name: &str) -> Option<Want> {
        self.on_disk.get(name)?.0
    }

    pub fn program(&self, id: &IncarnationId) -> Option<&str> {
        self.programs.get(id).map(String::as_str)
    }

    pub fn asked(&mut self, caller: &Caller) {
        let all = caller.names().is_none() && caller.request.targets().is_some();
        let mut names: Vec<String> = caller.names().unwrap_or_default().to_vec();
        if let Request::Register(registration) = &caller.request {
            names.push(registration.name.clone());
        }
        if all {
            names.extend(self.on_disk.keys().cloned());
        }
        names.retain(|name| caller.may_act_on(name));
        if persisted_limit(&caller.request).is_some() || asked_want(&caller.request) == Some(None) {
            for name in &names {
                self.limits_asked.insert(name.clone(), caller.number);
                self.limits.remove(name);
            }
        }
        if asked_want(&caller.request).is_some() {
            for name in names {
                self.asked.insert(name.clone(), caller.number);
                // Until it is answered, and for good if it never is, the disk may hold the one or the other.
                self.acknowledged.remove(&name);
                self.stops.end(&name);
            }
        }
    }

    /// Who has not been answered may have been heard.
    pub fn lost_supervisor(&mut self) {
        self.troubled = false;
        self.seen.clear();
        self.programs.clear();
    }

    fn broken(&mut self, what: impl Display) {
        self.broken.push(what.to_string());
    }
}

/// A main process has ended.
pub fn ended(world: &mut World, id: &IncarnationId, status: i32) {
    let is_service = world.ledger.program(id).and_then(meaning).is_some_and(|(_, hook)| hook.is_none());
    if is_service && status == 0 {
        world.ledger.succeeded.insert(id.name.clone());
    }
    let now = world.now();
    world.ledger.up_at.insert(id.name.clone(), now);
}

/// The disk may hold something else now.
pub fn committed(world: &mut World) {
    let Some(running) = &world.running else { return };
    let now = world.now();
    let mut names: BTreeSet<String> = world.specs.keys().cloned().collect();
    names.extend((0..world.registered).map(|n| format!("r{n}")));
    names.extend(world.ledger.comings.names());
    world.ledger.troubled |= running.hands.store.is_troubled();
    for name in names {
        let Ok(known) = ServiceName::new(&name) else { continue };
        let want = running.hands.store.want(&known);
        let held = world.ledger.on_disk.entry(name.clone()).or_insert((want, now));
        if held.0 != want {
            // What the definition says comes to the disk some time after it is in force.
            let since = if held.0.is_none() { held.1 } else { now };
            *held = (want, since);
        }
        for ((_, of), seen) in &mut world.ledger.seen {
            if *of == name {
                seen.wants.insert(is_up(want));
            }
        }
    }
}

/// The rules of safety.
///
/// # Errors
/// Which of them does not hold.
pub fn check(world: &mut World) -> Result<(), String> {
    let faults = world.kernel.take_faults();
    world.ledger.broken.extend(faults);
    look(world);
    comings::check(world);
    for index in 0..world.callers.len() {
        judge(world, index)?;
        scopes::judge(world, index)?;
    }
    match world.ledger.broken.first() {
        Some(broken) => Err(broken.clone()),
        None => Ok(()),
    }
}
