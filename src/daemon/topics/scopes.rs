//! Scopes of services, as their own processes ask for them: the answer, and the wait for an end.
//!
//! Making a scope is a few writes to the cgroup file system, and the end of one is an event. Scopes are no state of the service
//! and are not recorded: they end with their incarnation.

use crate::containment::{IncarnationId, Member, ScopeError, ScopeInfo, ScopeLimits};
use crate::control::permission::Facts;
use crate::control::protocol::{Event, EventKind, OomPolicy, Part, RefusalKind, Reply, Request, ScopeStatus};
use crate::control::server::{ConnId, Incoming};
use crate::core::unit::ScopeName;
use crate::daemon::act::{Action, Actions};
use crate::daemon::view::View;
use std::collections::BTreeMap;

/// What a caller wants of a scope of the service that it is part of.
#[derive(Debug)]
pub enum ScopeOrder {
    Open(Member, ScopeLimits),
    End(IncarnationId),
    Show(IncarnationId),
}

/// What the containment makes of an order.
#[derive(Debug)]
pub enum ScopeAnswer {
    Opened(Result<ScopeInfo, ScopeError>),
    /// It is being ended, or there is none of that name.
    Ending(bool),
    Shown(Option<ScopeInfo>),
}

/// The callers that wait for the end of a scope.
#[derive(Debug, Default)]
pub struct Scopes(BTreeMap<(IncarnationId, ScopeName), Vec<ConnId>>);

impl Scopes {
    /// Somebody waits.
    pub fn is_busy(&self) -> bool {
        !self.0.is_empty()
    }

    /// A caller that has gone is owed nothing; the scope ends all the same.
    pub fn caller_is_gone(&mut self, conn: ConnId) {
        self.0.retain(|_, callers| {
            callers.retain(|caller| *caller != conn);
            !callers.is_empty()
        });
    }

    /// A request of a process that is part of a service, or of none. Its uid gives no right here: all gateways share one.
    pub fn serve(&mut self, incoming: &Incoming, member: Option<Member>, view: &View<'_>) -> Actions {
        let (conn, request) = (incoming.id, &incoming.request);
        let refuse = |kind, text: String| vec![Action::refuse(conn, kind, text)];
        let facts = Facts { inside: member.is_some(), ..Facts::default() };
        if let Err(denied) = view.rules().judge(incoming.peer.uid, request, &facts) {
            return refuse(RefusalKind::NotPermitted, denied.to_string());
        }
        let Some(member) = member else {
            return refuse(RefusalKind::Failed, "the calling process has ended".to_owned());
        };
        let (unit, order) = match request {
            Request::Scope { .. } if view.closing => {
                return refuse(RefusalKind::Failed, "the supervisor is shutting down".to_owned());
            }
            Request::Scope { unit, memory_max, swap_max, oom } => {
                let limits = ScopeLimits {
                    memory_max: *memory_max,
                    swap_max: *swap_max,
                    oom_group: *oom == OomPolicy::Kill,
                };
                (unit, ScopeOrder::Open(member, limits))
            }
            Request::ScopeStop { unit } => (unit, ScopeOrder::End(member.id)),
            Request::ScopeShow { unit } => (unit, ScopeOrder::Show(member.id)),
            // No other request is about scopes.
            _ => return Actions::new(),
        };
        match ScopeName::new(unit) {
            Ok(name) => vec![Action::Scope(conn, name, order)],
            Err(error) => refuse(RefusalKind::Failed, error.to_string()),
        }
    }

    /// What became of an order.
    pub fn answered(
        &mut self,
        conn: ConnId,
        id: IncarnationId,
        name: ScopeName,
        answer: ScopeAnswer,
        _: &View<'_>,
    ) -> Actions {
        let missing = || {
            let text = format!("{name} is not loaded: '{}' has no such scope, or it has ended", id.name);
            vec![Action::refuse(conn, RefusalKind::NoSuchScope, text)]
        };
        match answer {
            ScopeAnswer::Opened(Ok(info)) => {
                let mut actions = vec![debug(&id, &name, "begins")];
                // The same text for every scope, so it is said once in the life of the supervisor.
                actions.extend(info.not_in_force.iter().map(|line| Action::Warn("scopes", line.clone())));
                actions.extend(show(conn, &id, info));
                actions
            }
            ScopeAnswer::Opened(Err(error)) => {
                let text = format!("no scope for a process of '{}': {error}", id.name);
                vec![Action::refuse(conn, RefusalKind::Failed, text)]
            }
            ScopeAnswer::Ending(true) => {
                let actions = vec![debug(&id, &name, "is ended on order")];
                self.0.entry((id, name)).or_default().push(conn);
                actions
            }
            ScopeAnswer::Shown(Some(info)) => show(conn, &id, info),
            ScopeAnswer::Ending(false) | ScopeAnswer::Shown(None) => missing(),
        }
    }

    /// A scope is empty.
    pub fn ended(&mut self, id: IncarnationId, name: ScopeName, oom_kills: u64, _: &View<'_>) -> Actions {
        let said = match oom_kills {
            0 => debug(&id, &name, "is over"),
            kills => {
                let text = format!("{name} went over its memory and was killed, {kills} times");
                Action::Tell(Event::warning(EventKind::Oom, text).about(&id.name))
            }
        };
        let callers = self.0.remove(&(id, name)).unwrap_or_default();
        std::iter::once(said).chain(callers.into_iter().map(|conn| Action::Reply(conn, Reply::End))).collect()
    }

    /// The incarnation is let go of, and with it its scopes. `empty`: nothing is left of them; otherwise remains were given up.
    pub fn released(&mut self, id: &IncarnationId, empty: bool, view: &View<'_>) -> Actions {
        let of_it = self.0.keys().filter(|(of, _)| of == id);
        let names: Vec<ScopeName> = of_it.map(|(_, name)| name.clone()).collect();
        let mut actions = Actions::new();
        for name in names {
            if empty {
                actions.extend(self.ended(id.clone(), name, 0, view));
                continue;
            }
            let text = format!("{name} was given up with the remains of '{}'", id.name);
            let callers = self.0.remove(&(id.clone(), name)).unwrap_or_default();
            let refuse = |conn| Action::refuse(conn, RefusalKind::Failed, text.clone());
            actions.extend(callers.into_iter().map(refuse));
        }
        actions
    }
}

fn debug(id: &IncarnationId, name: &ScopeName, what: &str) -> Action {
    Action::Log(slog::Level::Debug, format!("{}: {name} {what}", id.name))
}

fn show(conn: ConnId, id: &IncarnationId, info: ScopeInfo) -> Actions {
    let status = ScopeStatus {
        unit: info.name.to_string(),
        service: id.name.to_string(),
        stopping: info.ending,
        control_group: info.cgroup.map(|path| path.display().to_string()),
        procs: info.procs as u64,
        memory_bytes: info.memory_bytes,
        memory_max: info.memory_max,
        swap_max: info.swap_max,
        not_in_force: info.not_in_force,
        adopt_orphans: info.adopt_orphans,
    };
    vec![Action::Reply(conn, Reply::Part(Part::Scope(Box::new(status)))), Action::Reply(conn, Reply::End)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Refusal;
    use crate::core::name::ServiceName;
    use crate::daemon::topics::testing::World;
    use crate::sys::peer::Peer;

    const ONE: ConnId = ConnId { slot: 1, generation: 1 };
    const TWO: ConnId = ConnId { slot: 2, generation: 1 };

    fn life() -> IncarnationId {
        IncarnationId { name: ServiceName::new("coder").unwrap(), n: 3 }
    }

    fn name(text: &str) -> ScopeName {
        ScopeName::new(text).unwrap()
    }

    fn ends(actions: &Actions) -> Vec<ConnId> {
        let ended = |action: &Action| match action {
            Action::Reply(conn, Reply::End) => Some(*conn),
            _ => None,
        };
        actions.iter().filter_map(ended).collect()
    }

    fn refusals(actions: &Actions) -> Vec<(ConnId, RefusalKind)> {
        let refused = |action: &Action| match action {
            Action::Reply(conn, Reply::Refused(Refusal { kind, .. })) => Some((*conn, *kind)),
            _ => None,
        };
        actions.iter().filter_map(refused).collect()
    }

    fn stopped(scopes: &mut Scopes, conn: ConnId, unit: &str, world: &World) -> Actions {
        scopes.answered(conn, life(), name(unit), ScopeAnswer::Ending(true), &world.view())
    }

    #[test]
    fn everybody_who_ended_a_scope_hears_of_its_end_and_nobody_else() {
        let (world, mut scopes) = (World::default(), Scopes::default());
        assert!(ends(&stopped(&mut scopes, ONE, "a.scope", &world)).is_empty(), "it has not ended yet");
        stopped(&mut scopes, TWO, "a.scope", &world);
        stopped(&mut scopes, TWO, "b.scope", &world);
        assert_eq!(ends(&scopes.ended(life(), name("a.scope"), 0, &world.view())), [ONE, TWO]);
        assert!(scopes.is_busy());
        scopes.caller_is_gone(TWO);
        assert!(!scopes.is_busy());
        assert!(ends(&scopes.ended(life(), name("b.scope"), 2, &world.view())).is_empty());
    }

    #[test]
    fn who_waits_when_the_service_ends_is_told_whether_the_scope_did() {
        let world = World::default();
        for (empty, told) in [(true, (1, 0)), (false, (0, 1))] {
            let mut scopes = Scopes::default();
            stopped(&mut scopes, ONE, "a.scope", &world);
            let actions = scopes.released(&life(), empty, &world.view());
            assert_eq!((ends(&actions).len(), refusals(&actions).len()), told);
            assert!(!scopes.is_busy());
        }
    }

    #[test]
    fn what_is_not_there_and_who_is_nobody_is_refused() {
        let (world, mut scopes) = (World::default(), Scopes::default());
        for answer in [ScopeAnswer::Ending(false), ScopeAnswer::Shown(None)] {
            let actions = scopes.answered(ONE, life(), name("a.scope"), answer, &world.view());
            assert_eq!(refusals(&actions), [(ONE, RefusalKind::NoSuchScope)]);
        }
        let opened = ScopeAnswer::Opened(Err(ScopeError::TooMany));
        let actions = scopes.answered(ONE, life(), name("a.scope"), opened, &world.view());
        assert_eq!(refusals(&actions), [(ONE, RefusalKind::Failed)]);
        // Root is nobody inside a service either.
        let request = Request::ScopeShow { unit: "a.scope".to_owned() };
        let incoming = Incoming { id: ONE, peer: Peer { pid: Some(1), uid: 0, gid: 0 }, request };
        let actions = scopes.serve(&incoming, None, &world.view());
        assert_eq!(refusals(&actions), [(ONE, RefusalKind::NotPermitted)]);
    }
}
