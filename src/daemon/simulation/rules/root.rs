//! The gateway of a named profile runs neither before the root gateway has spoken nor while that serves its profile.

use super::{Ledger, millis};
use crate::containment::IncarnationId;
use crate::control::protocol::{Request, Targets};
use crate::core::gateway::Phase;
use crate::daemon::simulation::services::Spec;
use crate::daemon::simulation::world::World;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::topology::ROOT_PATIENCE;
use std::collections::BTreeSet;

/// What the root gateway says of the profiles that it serves.
#[derive(Debug)]
pub(super) struct Word {
    life: IncarnationId,
    pub(super) served: BTreeSet<String>,
    /// The supervisor has had the time to read it.
    is_read: bool,
}

/// Stops of named gateways that hold for the root gateway as well.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// By caller and service: no process of its own was there, and the root gateway served it or had yet to speak.
    asked: BTreeSet<(usize, String)>,
    /// They were said to be done, and nobody has asked for anything else since.
    hold: BTreeSet<String>,
}

impl Stops {
    /// Somebody has asked for another want of it.
    pub(super) fn end(&mut self, name: &str) {
        self.hold.remove(name);
    }

    /// A stop was said to be done, and is the newest that was asked for.
    pub(super) fn done(&mut self, number: usize, name: &str) {
        if self.asked.remove(&(number, name.to_owned())) {
            self.hold.insert(name.to_owned());
        }
    }
}

/// Somebody is about to ask for something.
pub fn may_be_served(world: &mut World, number: usize, request: &Request) {
    let Request::Stop { targets: Targets::Names(names) } = request else { return };
    if names.iter().any(|name| name == DEFAULT_PROFILE) {
        return;
    }
    let living = world.kernel.living();
    let is_named = |name: &&String| world.specs.get(*name).is_some_and(Spec::is_named_gateway);
    for name in names.iter().filter(is_named) {
        let has_own = living.iter().any(|life| life.name.as_str() == name);
        if !has_own && (world.ledger.root.is_awaited || is_served(world, name)) {
            world.ledger.stops.asked.insert((number, name.clone()));
        }
    }
}

/// What the root gateway serves although somebody was told that it is stopped.
pub(super) fn served_on(world: &World) -> Option<String> {
    let served = &root_word(world)?.served;
    let name = world.ledger.stops.hold.iter().find(|name| served.contains(*name))?;
    Some(format!("{name} was stopped, and '{DEFAULT_PROFILE}' serves it"))
}

/// The root gateway, as far as others wait for it, when the supervisor was at rest last.
#[derive(Debug, Default)]
pub(super) struct Root {
    /// It is on its way, or has not spoken yet.
    is_awaited: bool,
    /// Since when it may be waited for.
    since: u64,
    /// What was being started then.
    starting: BTreeSet<String>,
}

impl Ledger {
    /// The root gateway has written which profiles it serves.
    pub fn spoken(&mut self, life: &IncarnationId, served: &[String]) {
        let served = served.iter().cloned().collect();
        self.word = Some(Word { life: life.clone(), served, is_read: false });
    }

    /// The profiles that this life of the root gateway serves; `None`: it has not spoken.
    pub fn served_by(&self, life: &IncarnationId) -> Option<&BTreeSet<String>> {
        self.word.as_ref().filter(|word| word.life == *life).map(|word| &word.served)
    }

    pub fn has_spoken(&self, life: &IncarnationId) -> bool {
        self.word.as_ref().is_some_and(|word| word.life == *life)
    }
}

/// The word of the root gateway, if it runs.
pub(super) fn root_word(world: &World) -> Option<&Word> {
    let word = world.ledger.word.as_ref()?;
    world.kernel.tree(&word.life).is_some_and(|tree| tree.is_up()).then_some(word)
}

/// The root gateway serves that profile, which the supervisor has had the time to read, and is not on its way out.
pub(super) fn is_served(world: &World, name: &str) -> bool {
    let goes_on = |word: &&Word| {
        let is_killed = world.kernel.tree(&word.life).is_some_and(|tree| tree.killed);
        word.is_read && !is_killed && !world.signalled.contains(&word.life)
    };
    root_word(world).filter(goes_on).is_some_and(|word| word.served.contains(name))
}

/// The gateway of a named profile is started: the root gateway does not serve it, and is not to be heard first.
pub(super) fn waits_for_the_root(world: &mut World, id: &IncarnationId) {
    let name = id.name.as_str();
    if !world.specs.get(name).is_some_and(Spec::is_named_gateway) {
        return;
    }
    let word = root_word(world);
    if word.is_some_and(|word| word.is_read && word.served.contains(name)) {
        return world.ledger.broken(format!("{name} was started although '{DEFAULT_PROFILE}' serves it"));
    }
    let has_spoken = word.is_some();
    let Root { is_awaited, since, starting } = &world.ledger.root;
    let is_early = world.now() < since + millis(ROOT_PATIENCE);
    if *is_awaited && is_early && !has_spoken && !starting.contains(name) && awaits_root(world) {
        world.ledger.broken(format!("{name} was started before '{DEFAULT_PROFILE}' had spoken"));
    }
}

/// The root gateway is on its way, for all that the supervisor knows.
fn awaits_root(world: &World) -> bool {
    let Some(supervisor) = world.supervisor() else { return false };
    let root = supervisor.fleet.id(DEFAULT_PROFILE).and_then(|id| supervisor.fleet.gateway(id));
    root.is_some_and(|root| match root.phase() {
        Phase::Held => !root.is_refused(),
        Phase::Starting | Phase::Backoff { .. } | Phase::Up => true,
        Phase::Ending(_) | Phase::Down | Phase::Failed | Phase::Finished => false,
    })
}

/// The supervisor begins: of the root gateway it knows what it has found.
pub fn begins(world: &mut World) {
    world.ledger.comings.begins();
    world.ledger.word.iter_mut().for_each(|word| word.is_read = false);
    world.ledger.root.is_awaited = awaits_root(world);
    world.ledger.root.starting.clear();
}

/// The supervisor has dealt with all that there was.
pub fn rested(world: &mut World) {
    let now = world.now();
    world.ledger.heard_all = now;
    if world.reads_files() {
        world.ledger.word.iter_mut().for_each(|word| word.is_read = true);
    }
    let is_awaited = awaits_root(world) && root_word(world).is_none();
    let mut starting = BTreeSet::new();
    if let Some(fleet) = world.supervisor().map(|supervisor| &supervisor.fleet) {
        let starts = |id| fleet.gateway(id).is_some_and(|gateway| gateway.phase() == Phase::Starting);
        let ids = fleet.ids().filter(|id| starts(*id));
        starting.extend(ids.filter_map(|id| Some(fleet.name(id)?.to_string())));
    }
    let since = if is_awaited { world.ledger.root.since } else { now };
    world.ledger.root = Root { is_awaited, since, starting };
}
