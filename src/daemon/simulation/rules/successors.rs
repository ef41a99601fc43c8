//! What a supervisor leaves is what the next one finds.

use super::comings::may_be_gone;
use super::{committed, millis, word};
use crate::containment::IncarnationId;
use crate::core::name::ServiceName;
use crate::core::words::{State, Want};
use crate::daemon::simulation::services::Reports;
use crate::daemon::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct Heirloom {
    lives: Vec<IncarnationId>,
    failed: Vec<ServiceName>,
}

/// Who comes after a supervisor: another one, or itself as another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    Successor,
    Upgrade,
}

/// So long ago that a failure is on the disk, unless that hung.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(2);

/// So long ago that all of it is on the disk.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(5);

/// The supervisor is about to be killed or replaced, while its processes go on. What was so for a while is so for the next one.
pub fn bequeath(world: &mut World, heir: Heir) {
    let Some(supervisor) = world.supervisor() else { return };
    let now = supervisor.clock.now();
    let is_late = world.now() < world.disk_hangs_until() + millis(AT_ONCE);
    let mut heirloom = Heirloom::default();
    for (id, gateway) in supervisor.fleet.ids().filter_map(|id| Some((id, supervisor.fleet.gateway(id)?))) {
        let Some(name) = supervisor.fleet.name(id).filter(|name| !may_be_gone(world, name.as_str())) else {
            continue;
        };
        let lasted = now.since(gateway.since()) > A_WHILE && !world.ledger.troubled;
        let is_written = now.since(gateway.since()) > AT_ONCE && !world.ledger.troubled;
        let wanted = world.ledger.on_disk.get(name.as_str()).is_some_and(|(want, _)| *want == Some(Want::Up));
        match gateway.state() {
            // Over a pipe it could not report any more; an upgrade waits for that.
            State::Up | State::Ready if lasted && wanted && gateway.want() == Want::Up => {
                let life = IncarnationId { name: name.clone(), n: gateway.history().incarnation };
                let by_pipe =
                    world.specs.get(name.as_str()).is_some_and(|spec| spec.reports == Reports::Pipe);
                if !by_pipe || gateway.state() == State::Ready || heir == Heir::Upgrade {
                    heirloom.lives.push(life);
                }
            }
            State::Failed if is_written && !is_late && !world.ledger.redefined.contains(name) => {
                heirloom.failed.push(name.clone())
            }
            _ => {}
        }
    }
    world.ledger.heirloom = heirloom;
}

/// A supervisor is about to start: of what goes on, what has ended meanwhile is no heirloom.
pub fn inherit(world: &mut World) {
    let kernel = world.kernel.clone();
    world.ledger.heirloom.lives.retain(|id| kernel.tree(id).is_some_and(|tree| tree.is_up()));
}

/// A supervisor runs again: what was acknowledged must be there.
///
/// # Errors
/// It is not.
pub fn recovered(world: &mut World) -> Result<(), String> {
    let Some(running) = &world.running else { return Ok(()) };
    for (name, told) in &world.ledger.acknowledged {
        let Ok(known) = ServiceName::new(name) else { continue };
        let want = running.hands.store.want(&known);
        if want != told.want {
            let (told, found) = (word(told.want), word(want));
            return Err(format!("{name} was acknowledged to be wanted {told}, and the disk says {found}"));
        }
    }
    committed(world);
    inherited(world)
}

/// What a supervisor that is no more has left, and the next one did not take over, has ended.
///
/// # Errors
/// Something of it goes on.
pub fn nothing_is_left(world: &World) -> Result<(), String> {
    match world.kernel.unheld() {
        Some(id) => Err(format!("life {} of {} goes on, and nobody holds it", id.n, id.name)),
        None => Ok(()),
    }
}

fn inherited(world: &mut World) -> Result<(), String> {
    let heirloom = std::mem::take(&mut world.ledger.heirloom);
    for life in heirloom.lives.iter().filter(|life| !may_be_gone(world, life.name.as_str())) {
        if world.kernel.tree(life).is_none() {
            return Err(format!(
                "life {} of {}, which was up and wanted, was not taken over",
                life.n, life.name
            ));
        }
    }
    let Some(supervisor) = world.supervisor() else { return Ok(()) };
    // A definition that was changed while nobody supervised ends a failure, too.
    for name in heirloom.failed.iter().filter(|name| !world.ledger.redefined.contains(*name)) {
        let gateway = supervisor.fleet.id(name.as_str()).and_then(|id| supervisor.fleet.gateway(id));
        if let Some(gateway) = gateway.filter(|gateway| gateway.state() != State::Failed) {
            return Err(format!("{name} had failed, and is {} for the next supervisor", gateway.state()));
        }
    }
    Ok(())
}
