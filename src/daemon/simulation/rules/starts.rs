//! What the supervisor does to trees: it starts what is wanted when it may be started, and ends nobody unasked.

use super::root::waits_for_the_root;
use super::scopes;
use crate::containment::IncarnationId;
use crate::containment::played::Deed;
use crate::control::protocol::Request;
use crate::core::model::rules::{Broken, Rule};
use crate::core::words::Want;
use crate::daemon::simulation::services::{Kind, Reports, meaning};
use crate::daemon::simulation::world::World;

/// The supervisor has done something.
pub fn did(world: &mut World, deed: &Deed) {
    match deed {
        Deed::Made { id, program, pids_max, uid, .. } => {
            runs_as_its_user(world, id, *uid);
            world.ledger.programs.insert(id.clone(), program.clone());
            let meant = meaning(program);
            if meant.is_none_or(|(name, _)| name != id.name.as_str()) {
                world.ledger.broken(format!("{} was made to run {program}", id.name));
            }
            if meant.is_some_and(|(_, hook)| hook.is_none()) {
                world.ledger.succeeded.remove(&id.name);
                starts_rightly(world, id);
                starts_within_limits(world, id, *pids_max);
                waits_for_the_root(world, id);
            }
        }
        Deed::Limited { id, pids_max } => {
            world.ledger.limits_given.entry(id.name.clone()).or_default().extend(pids_max);
        }
        Deed::Killed(id) => {
            let tree = world.kernel.tree(id).map(|tree| (tree.is_up(), tree.oom_kills()));
            let unasked = matches!(tree, Some((true, 0))) && !world.signalled.contains(id);
            let program = world
                .ledger
                .programs
                .get(id)
                .is_some_and(|program| meaning(program).is_some_and(|(_, hook)| hook.is_none()));
            if unasked && program && !world.ledger.shutting_down {
                world.ledger.broken(Broken::from(Rule::KilledUnasked).about(&id.name));
            }
        }
        Deed::Released { id, empty: false } => {
            let forced = world.callers.iter().any(|caller| {
                matches!(caller.request, Request::Start { force: true, .. })
                    && caller.is_about(id.name.as_str())
            });
            if !forced {
                world
                    .ledger
                    .broken(format!("life {} of {} was let go of with processes in it", id.n, id.name));
            }
        }
        Deed::Hook { id, uid, .. } => runs_as_its_user(world, id, *uid),
        Deed::Scoped { id, name, pid, memory_max } => scopes::opens(world, id, name, *pid, *memory_max),
        Deed::ScopeKilled { id, name } => scopes::kills(world, id, name),
        Deed::Released { .. }
        | Deed::Signalled { .. }
        | Deed::Froze { .. }
        | Deed::HookEnded(_)
        | Deed::Adopted(_) => {}
    }
}

/// What is executed for a service is so as its user.
fn runs_as_its_user(world: &mut World, id: &IncarnationId, uid: Option<u32>) {
    let own = rustix::process::geteuid().as_raw();
    let user = world.specs.get(id.name.as_str()).and_then(|spec| spec.user).unwrap_or(own);
    // Where we are not root, nobody becomes another user.
    if uid.is_some_and(|uid| uid != user) {
        world.ledger.broken(format!("{} was made to run as {uid:?}, and its user is {user}", id.name));
    }
}

/// A service is started: it is wanted, and what it requires is there.
fn starts_rightly(world: &mut World, id: &IncarnationId) {
    let name = id.name.as_str();
    if world.ledger.shutting_down {
        world.ledger.broken(Broken::from(Rule::StartedInShutdown).about(name));
    }
    let (want, since) = world.ledger.on_disk.get(name).copied().unwrap_or_default();
    // It may have come to the disk long after it was asked for.
    let last = world.ledger.asked.get(name).and_then(|last| world.callers.get(*last));
    let since = last.map_or(since, |caller| caller.asked.min(since));
    let asked = world.callers.iter().any(|caller| {
        let is_new = caller.asked >= since || caller.waits();
        starts(&caller.request) && caller.is_about(name) && is_new && !caller.was_refused(name)
    });
    if want == Some(Want::Down) && !asked && !world.ledger.troubled {
        world.ledger.broken(format!("{name} was started although it is wanted down"));
    }
    let requires = world.specs.get(name).map(|spec| spec.requires.clone()).unwrap_or_default();
    for required in requires {
        let is_there = match world.specs.get(required.as_str()).map(|spec| spec.kind) {
            Some(Kind::Daemon) => {
                let says = world.specs.get(required.as_str()).map(|spec| spec.reports);
                let waits = matches!(says, Some(Reports::Pipe | Reports::Line));
                let is_there = |id: &IncarnationId| {
                    let up = world.kernel.tree(id).is_some_and(|tree| tree.is_up());
                    id.name == required && up && (!waits || world.ledger.ready.contains(id))
                };
                // That it has ended since may not be heard yet.
                let heard = world.ledger.heard_all;
                let was_there = world.ledger.up_at.get(&required).is_some_and(|at| *at >= heard);
                let finished = world.ledger.succeeded.contains(&required);
                finished || was_there || world.kernel.living().iter().any(is_there)
            }
            Some(Kind::Oneshot | Kind::Scheduled) => world.ledger.succeeded.contains(&required),
            None => false,
        };
        if !is_there {
            world
                .ledger
                .broken(Broken::from(Rule::BeforeRequirement).about(format_args!("{required}, {name}")));
        }
    }
}

/// It may make a service run.
fn starts(request: &Request) -> bool {
    matches!(
        request,
        Request::Start { .. } | Request::Restart { .. } | Request::Once { .. } | Request::Register(_)
    )
}

/// What somebody was told to last holds from then on.
fn starts_within_limits(world: &mut World, id: &IncarnationId, pids_max: Option<u64>) {
    let set = world.ledger.limits.get(id.name.as_str()).copied();
    if set.is_some() && set != pids_max {
        let (name, set) = (&id.name, set.unwrap_or_default());
        world.ledger.broken(format!("{name} was started with pids_max {pids_max:?}, and {set} was set"));
    }
}
