//! Scopes of services, as their own processes ask for them: who is asking, the answer, and the wait for an end.
//!
//! The loop never waits: making a scope is a few writes to the cgroup file system, and the end of one is an event.
//! Scopes are no state of the service and are not recorded: they end with their incarnation.

use super::Supervisor;
use crate::containment::{IncarnationId, Member, ScopeInfo, ScopeLimits};
use crate::control::permission::Facts;
use crate::control::protocol::{OomPolicy, Part, RefusalKind, Reply, Request, ScopeStatus};
use crate::control::server::{ConnId, Incoming};
use crate::core::unit::ScopeName;
use std::collections::BTreeMap;

/// Callers that wait for the end of a scope.
#[derive(Debug, Default)]
pub struct Waiting(BTreeMap<(IncarnationId, ScopeName), Vec<ConnId>>);

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A caller that has gone is owed nothing; the scope ends all the same.
    pub fn caller_is_gone(&mut self, conn: ConnId) {
        self.0.retain(|_, callers| {
            callers.retain(|caller| *caller != conn);
            !callers.is_empty()
        });
    }
}

impl Supervisor {
    pub(super) fn serve_scope(&mut self, incoming: &Incoming) {
        let (conn, uid) = (incoming.id, incoming.peer.uid);
        let member = self.caller(incoming);
        let inside = member.is_some();
        let judged = self.rules().judge(uid, &incoming.request, &Facts { inside, ..Facts::default() });
        let member = match (judged, member) {
            (Ok(()), Some(member)) => member,
            (Err(denied), _) => return self.refuse(conn, RefusalKind::NotPermitted, denied.to_string()),
            (Ok(()), None) => return self.refuse(conn, RefusalKind::Failed, "the calling process has ended"),
        };
        let (Request::Scope { unit, .. } | Request::ScopeStop { unit } | Request::ScopeShow { unit }) =
            &incoming.request
        else {
            return;
        };
        let name = match ScopeName::new(unit) {
            Ok(name) => name,
            Err(error) => return self.refuse(conn, RefusalKind::Failed, error.to_string()),
        };
        match &incoming.request {
            Request::Scope { memory_max, swap_max, oom, .. } => {
                let limits = ScopeLimits {
                    memory_max: *memory_max,
                    swap_max: *swap_max,
                    oom_group: *oom == OomPolicy::Kill,
                };
                self.open_scope(conn, &member, &name, limits);
            }
            Request::ScopeStop { .. } => {
                let there = self.containment.end_scope(&member.id, &name, self.clock.now());
                self.take_news();
                if !there {
                    return self.no_such_scope(conn, &member, &name);
                }
                slog::debug!(self.log, "{}: {name} is ended on order", member.id.name);
                self.scopes.0.entry((member.id, name)).or_default().push(conn);
            }
            _ => {
                let found = self.containment.scope(&member.id, &name);
                self.take_news();
                match found {
                    Some(info) => self.show_scope(conn, &member.id, info),
                    None => self.no_such_scope(conn, &member, &name),
                }
            }
        }
    }

    /// The incarnation that the caller is part of. Its uid says nothing here: all gateways share one.
    fn caller(&mut self, incoming: &Incoming) -> Option<Member> {
        let pid = i32::try_from(incoming.peer.pid?).ok()?;
        let process = self.server.peer_process(incoming.id)?;
        self.containment.member(pid, process)
    }

    fn open_scope(&mut self, conn: ConnId, member: &Member, name: &ScopeName, limits: ScopeLimits) {
        if self.closing.is_some() {
            return self.refuse(conn, RefusalKind::Failed, "the supervisor is shutting down");
        }
        let opened = self.containment.open_scope(member, name, limits);
        self.take_news();
        match opened {
            Ok(info) => {
                slog::debug!(self.log, "{}: {name} begins", member.id.name);
                // The same text for every scope, so it is said once in the life of the supervisor.
                for line in &info.not_in_force {
                    self.warn("scopes", line.clone());
                }
                self.show_scope(conn, &member.id, info);
            }
            Err(error) => {
                let message = format!("no scope for a process of '{}': {error}", member.id.name);
                self.refuse(conn, RefusalKind::Failed, message);
            }
        }
    }

    fn no_such_scope(&mut self, conn: ConnId, member: &Member, name: &ScopeName) {
        let message =
            format!("{name} is not loaded: '{}' has no such scope, or it has ended", member.id.name);
        self.refuse(conn, RefusalKind::NoSuchScope, message);
    }

    fn show_scope(&mut self, conn: ConnId, id: &IncarnationId, info: ScopeInfo) {
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
        self.reply(conn, &Reply::Part(Part::Scope(Box::new(status))));
        self.reply(conn, &Reply::End);
    }

    /// A scope is empty.
    pub(super) fn scope_ended(&mut self, id: IncarnationId, name: ScopeName, oom_kills: u64) {
        match oom_kills {
            0 => slog::debug!(self.log, "{}: {name} is over", id.name),
            _ => slog::warn!(self.log, "{}: {name} went over its memory and was killed", id.name;
                "oom_kills" => oom_kills),
        }
        for conn in self.scopes.0.remove(&(id, name)).unwrap_or_default() {
            self.reply(conn, &Reply::End);
        }
    }

    /// The incarnation is let go of, and with it its scopes. `empty`: nothing is left of them; otherwise remains were
    /// given up.
    pub(super) fn scopes_released(&mut self, id: &IncarnationId, empty: bool) {
        let names: Vec<ScopeName> =
            self.scopes.0.keys().filter(|(of, _)| of == id).map(|(_, name)| name.clone()).collect();
        for name in names {
            if empty {
                self.scope_ended(id.clone(), name, 0);
                continue;
            }
            for conn in self.scopes.0.remove(&(id.clone(), name.clone())).unwrap_or_default() {
                let message = format!("{name} was given up with the remains of '{}'", id.name);
                self.refuse(conn, RefusalKind::Failed, message);
            }
        }
    }
}
