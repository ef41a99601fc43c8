//! Instances come and go as their file says. What is not shown any more is forgotten, and what comes back then is new.

use super::{Ledger, word};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::simulation::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of instances that their file did not make at some time.
#[derive(Debug, Default)]
pub(super) struct Comings {
    /// Whether the supervisor that runs has shown it.
    shown: BTreeMap<ServiceName, bool>,
    /// It is not shown, and nothing of it is on the disk.
    dropped: BTreeSet<ServiceName>,
}

impl Comings {
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.shown.keys().map(ToString::to_string)
    }

    /// Another supervisor.
    pub(super) fn begins(&mut self) {
        self.shown.values_mut().for_each(|shown| *shown = false);
    }
}

impl Ledger {
    /// Its file does not make it any more: what was asked of it counts no more.
    pub fn is_meant_no_more(&mut self, name: &ServiceName) {
        self.comings.shown.entry(name.clone()).or_default();
        self.acknowledged.remove(name.as_str());
        self.limits.remove(name.as_str());
        self.limits_asked.remove(name.as_str());
    }
}

/// A service that its file did not make at some time.
pub(super) fn may_be_gone(world: &World, name: &str) -> bool {
    !world.specs.contains_key(name) && world.ledger.comings.shown.keys().any(|known| known.as_str() == name)
}

/// The rules of comings and goings.
pub(super) fn check(world: &mut World) {
    let Some(running) = &world.running else { return };
    let (fleet, store) = (&running.supervisor.fleet, &running.hands.store);
    let Comings { shown, dropped } = &mut world.ledger.comings;
    let mut broken = Vec::new();
    for (name, shown) in shown.iter_mut() {
        let gateway = fleet.id(name.as_str()).and_then(|id| fleet.gateway(id));
        let held = store.want(name);
        let Some(gateway) = gateway else {
            if held.is_none() {
                dropped.insert(name.clone());
            } else if *shown && !world.ledger.troubled {
                broken
                    .push(format!("{name} is not shown any more, and the disk has it wanted {}", word(held)));
            }
            continue;
        };
        *shown = true;
        let Some(spec) = world.specs.get(name.as_str()).filter(|_| dropped.remove(name)) else { continue };
        let first = if spec.autostart { Want::Up } else { Want::Down };
        let (want, restarts) = (gateway.want(), gateway.history().restarts);
        if (want, restarts) != (first, 0) {
            broken.push(format!("{name} is new, and is wanted {want} after {restarts} restarts"));
        }
    }
    broken.into_iter().for_each(|what| world.ledger.broken(what));
}
