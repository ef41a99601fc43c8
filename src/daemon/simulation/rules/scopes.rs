//! A scope has one end, its processes with it, and nobody ends it but the service that it belongs to.

use crate::containment::IncarnationId;
use crate::containment::played::Count;
use crate::control::protocol::{Request, Right};
use crate::core::unit::ScopeName;
use crate::daemon::simulation::callers::{Heard, Who};
use crate::daemon::simulation::world::World;
use std::collections::BTreeSet;

/// What is known of scopes beside what the kernel knows.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    /// Processes that were put into one.
    opened: BTreeSet<(IncarnationId, i32, ScopeName)>,
    /// Callers who have heard their answer.
    judged: BTreeSet<usize>,
}

/// What there was of a scope when a process asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    pub count: Count,
    /// With processes in it.
    pub lives: bool,
}

/// The scope that a request is about.
pub fn unit(request: &Request) -> Option<ScopeName> {
    match request {
        Request::Scope { unit, .. } | Request::ScopeStop { unit } | Request::ScopeShow { unit } => {
            ScopeName::new(unit).ok()
        }
        _ => None,
    }
}

/// What a process of a life finds when it asks.
pub fn before(world: &World, who: &Who, request: &Request) -> Option<Before> {
    let (Who::Inside(id, _), Some(name)) = (who, unit(request)) else { return None };
    let lives = world.kernel.tree(id).is_some_and(|tree| !tree.members.within(&name).is_empty());
    Some(Before { count: world.kernel.scope_count(id, &name), lives })
}

/// A process was put into a new scope: it has asked for that, and for this bound.
pub(super) fn opens(world: &mut World, id: &IncarnationId, name: &ScopeName, pid: i32, memory: Option<u64>) {
    let mut callers = world.callers.iter().rev();
    let is_asked = callers.any(|caller| {
        let inside = matches!(&caller.who, Who::Inside(of, by) if of == id && *by == pid);
        let bound = matches!(&caller.request, Request::Scope { memory_max, .. } if *memory_max == memory);
        inside && bound && unit(&caller.request).as_ref() == Some(name)
    });
    if !is_asked {
        let text =
            format!("process {pid} of {} was put into {name} within {memory:?} bytes, unasked", id.name);
        world.ledger.broken(text);
    }
    world.ledger.scopes.opened.insert((id.clone(), pid, name.clone()));
}

/// A scope is ended: one of its own service has asked for that since it was made.
pub(super) fn kills(world: &mut World, id: &IncarnationId, name: &ScopeName) {
    let opened = world.kernel.scope_count(id, name).opened;
    let is_asked = world.callers.iter().any(|caller| {
        let inside = matches!(&caller.who, Who::Inside(of, _) if of == id);
        let is_new = caller.waits() || caller.scope.is_some_and(|before| before.count.opened == opened);
        let stops = matches!(caller.request, Request::ScopeStop { .. });
        inside && is_new && stops && unit(&caller.request).as_ref() == Some(name)
    });
    if !is_asked {
        world.ledger.broken(format!("{name} of {} was ended unasked", id.name));
    }
}

/// What a caller was told of a scope is so.
pub(super) fn judge(world: &mut World, index: usize) -> Result<(), String> {
    let caller = &world.callers[index];
    let number = caller.number;
    if caller.waits() || caller.request.verb().right != Right::Inside {
        return Ok(());
    }
    let Some(name) = unit(&caller.request) else { return Ok(()) };
    if !world.ledger.scopes.judged.insert(number) {
        return Ok(());
    }
    world.story.did(&format!("caller {number} hears about {name}: {:?}", caller.heard));
    let (Who::Inside(id, pid), Some(before)) = (&caller.who, caller.scope) else {
        return match caller.heard {
            Heard::End => Err(format!("caller {number} was served about {name}, and is part of no service")),
            _ => Ok(()),
        };
    };
    let count = world.kernel.scope_count(id, &name);
    let tree = world.kernel.tree(id);
    let now_in = tree.as_ref().and_then(|tree| tree.members.scope_of(*pid));
    // It has ended since, or nobody holds its life.
    let is_gone = now_in.is_none();
    let was_put = world.ledger.scopes.opened.contains(&(id.clone(), *pid, name.clone()));
    let wrong = match (&caller.request, &caller.heard) {
        (Request::Scope { .. }, Heard::End) if !was_put => Some("it is in that scope, and was not put there"),
        (Request::Scope { .. }, Heard::Refused(_)) => {
            let is_in_one = now_in.flatten().is_some();
            let was_there = before.lives || count.opened > before.count.opened;
            let may_be_refused = is_in_one || was_there || is_gone || world.ledger.shutting_down;
            (!may_be_refused).then_some("it gets no scope, for no reason")
        }
        (Request::ScopeStop { .. }, Heard::End) if count.emptied == before.count.emptied => {
            Some("the scope has ended, and it has not")
        }
        (Request::ScopeStop { .. } | Request::ScopeShow { .. }, Heard::Refused(_)) => {
            let is_there = before.lives && count == before.count;
            (is_there && !is_gone).then_some("there is no such scope, and there is")
        }
        _ => None,
    };
    match wrong {
        Some(wrong) => Err(format!("caller {number} of {} was told that {wrong}: {name}", id.name)),
        None => Ok(()),
    }
}

/// The supervisor has dealt with all that there was: who waits for the end of a scope has heard of it.
pub fn ends_are_told(world: &mut World) {
    // During an upgrade nobody is heard.
    let hears = world.supervisor().is_some_and(|supervisor| !supervisor.topics.upgrade.is_asked());
    let waits_in_vain = world.insiders.iter().map(|number| &world.callers[*number]).find_map(|caller| {
        let (Who::Inside(id, _), Some(before)) = (&caller.who, caller.scope) else { return None };
        let name = unit(&caller.request)?;
        let is_over = world.kernel.scope_count(id, &name).emptied > before.count.emptied;
        let waits = caller.waits() && matches!(caller.request, Request::ScopeStop { .. });
        (hears && is_over && waits)
            .then(|| format!("caller {} of {} was not told that {name} has ended", caller.number, id.name))
    });
    if let Some(text) = waits_in_vain {
        world.ledger.broken(text);
    }
}

/// A scope that is kept although nothing is in it.
pub(super) fn forgotten(world: &World) -> Option<String> {
    let lives = world.kernel.living();
    lives.iter().find_map(|id| {
        let tree = world.kernel.tree(id)?;
        let name = tree.members.scopes().into_iter().find(|name| tree.members.within(name).is_empty())?;
        Some(format!("{name} of {} is empty, and the supervisor keeps it", id.name))
    })
}
