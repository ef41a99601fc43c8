//! What callers ask over the control socket: permission, commands to the core, and a truthful answer to each.
//!
//! One request can name many services. Each of them gets a ticket; the answer for a service is sent as soon as it is
//! known, the request is over when none is outstanding. A caller who goes away is owed nothing, but what was asked for
//! is done all the same: a gateway may restart itself from inside its own tree.

pub use registration::Registering;

pub(in crate::daemon) mod log_files;
pub(in crate::daemon) mod registration;

use crate::containment::Member;
use crate::control::naming;
use crate::control::permission::{Denied, Facts, Rules};
use crate::control::protocol::{
    Answer, Code, Event, EventKind, LogPlace, Outcome, Part, Refusal, RefusalKind, Reply, Request, Right,
    Targets,
};
use crate::control::server::{ConnId, Incoming};
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::daemon::Supervisor;
use crate::daemon::services::Service;
use crate::daemon::topics::definitions::Reloading;
use crate::daemon::view::decide;
use crate::definition::resolved::RunAs;
use std::collections::HashSet;

/// Suggestions cost a comparison with every name: only the first few unknown names of a request get one.
const SUGGESTIONS: usize = 3;

impl Supervisor {
    pub(in crate::daemon) fn rules(&self) -> Rules {
        self.view().rules()
    }

    pub(in crate::daemon) fn reply(&mut self, conn: ConnId, reply: &Reply) {
        self.server.reply(&self.wakeups.registry, conn, reply);
    }

    pub(in crate::daemon) fn part(&mut self, conn: ConnId, outcome: Outcome) {
        self.reply(conn, &Reply::Part(Part::Outcome(outcome)));
    }

    pub(in crate::daemon) fn refuse(&mut self, conn: ConnId, kind: RefusalKind, message: impl Into<String>) {
        self.reply(conn, &Reply::Refused(Refusal::new(kind, message)));
    }

    /// A request arrived. Names that nobody knows may be new profiles, so those are looked up before the answer.
    pub(in crate::daemon) fn take_request(&mut self, incoming: Incoming) {
        if let Some(held) = self.topics.upgrade.hold(&incoming) {
            return self.carry_out(held);
        }
        let unknown = match incoming.request.targets() {
            Some(Targets::Names(names)) => {
                let is_known = |name: &str| {
                    !self.view().meant(name).is_empty()
                        || self.topics.definitions.is_refused(name, &self.fleet)
                };
                names.iter().any(|name| !is_known(name))
            }
            Some(Targets::All) | None => false,
        };
        // A caller who may do nothing here shall not make us read the disk either.
        let trusted = self.rules().is_privileged(incoming.peer.uid) || self.owns_one(incoming.peer.uid);
        if unknown && trusted && !self.topics.shutdown.is_on() {
            return decide!(self.definitions.park(incoming));
        }
        if trusted {
            return decide!(self.edits.serve(incoming));
        }
        self.serve(incoming);
    }

    /// Not to be asked about who is privileged anyway. Services are many, their users are few.
    fn owns_one(&self, uid: u32) -> bool {
        let mut asked: HashSet<&RunAs> = HashSet::new();
        let mut services = self.services.values();
        services.any(|service| asked.insert(&service.definition.user) && self.runs_as(service) == Some(uid))
    }

    pub(in crate::daemon) fn resolve(&self, typed: &str) -> Option<ServiceId> {
        self.view().resolve(typed)
    }

    /// The same names, each once, with its instances in the place of one that is no service.
    fn with_instances(&self, names: &[String]) -> Vec<String> {
        let mut all = Vec::with_capacity(names.len());
        let mut seen = HashSet::new();
        for typed in names.iter().filter(|typed| seen.insert(*typed)) {
            let before = all.len();
            if self.resolve(typed).is_none() {
                all.extend(naming::instances(typed, self.fleet.names()).map(ToString::to_string));
            }
            if all.len() == before {
                all.push(typed.clone());
            }
        }
        all
    }

    /// Answers a request with what is known now.
    pub(in crate::daemon) fn serve(&mut self, incoming: Incoming) {
        let Incoming { id: conn, peer, ref request } = incoming;
        slog::debug!(self.log, "asked"; "method" => request.method(), "uid" => peer.uid, "pid" => peer.pid);
        if request.verb().right == Right::Administer
            && let Err(denied) = self.rules().judge(peer.uid, request, &Facts::default())
        {
            return self.refuse(conn, RefusalKind::NotPermitted, denied.to_string());
        }
        match request {
            Request::Register(registration) => self.register(conn, peer.uid, request, registration),
            Request::List {} => {
                if let Err(denied) = self.may_read(peer.uid, request) {
                    return self.refuse(conn, RefusalKind::NotPermitted, denied.to_string());
                }
                for name in self.topics.definitions.shown_names(&self.fleet) {
                    self.reply(conn, &Reply::Part(Part::Name(name)));
                }
                self.reply(conn, &Reply::End);
            }
            Request::Reload { restart } => {
                let restart = *restart;
                let words = if restart { "reload with restart" } else { "reload" };
                self.asked_of_us(words, &peer);
                decide!(self.definitions.ask_reload(Some(Reloading { conn, restart })));
            }
            Request::Shutdown { code } => {
                self.asked_of_us("shutdown", &peer);
                let code = *code;
                self.reply(conn, &Reply::End);
                self.begin_shutdown(code);
            }
            Request::Upgrade { .. } => {
                self.asked_of_us("upgrade", &peer);
                decide!(self.upgrade.begin(incoming));
            }
            Request::Events { .. } => {
                if let Err(denied) = self.may_read(peer.uid, request) {
                    return self.refuse(conn, RefusalKind::NotPermitted, denied.to_string());
                }
                let actions = self.topics.events.serve(&incoming);
                self.carry_out(actions);
            }
            Request::Rescan { nuke } => {
                let nuke = *nuke;
                self.surroundings = self.surroundings_now();
                let runs_as = Some(self.surroundings.gateway.uid);
                match self.rules().judge(peer.uid, request, &Facts { runs_as, ..Facts::default() }) {
                    Err(denied) => self.refuse(conn, RefusalKind::NotPermitted, denied.to_string()),
                    Ok(()) => decide!(self.scanning.rescan(conn, nuke)),
                }
            }
            Request::Scope { .. } | Request::ScopeStop { .. } | Request::ScopeShow { .. } => {
                let member = self.caller(&incoming);
                decide!(self.scopes.serve(&incoming, member));
            }
            Request::Start { targets, .. }
            | Request::Stop { targets }
            | Request::Restart { targets, .. }
            | Request::Once { targets, .. }
            | Request::Status { targets }
            | Request::Unregister { targets }
            | Request::Kill { targets, .. }
            | Request::Freeze { targets }
            | Request::Thaw { targets }
            | Request::Tree { targets }
            | Request::Audit { targets }
            | Request::Wait { targets, .. }
            | Request::Set { targets, .. }
            | Request::LogPlaces { targets }
            | Request::LogFiles { targets } => self.serve_named(&incoming, targets),
        }
    }

    /// The life that the caller is part of, by its process.
    fn caller(&mut self, incoming: &Incoming) -> Option<Member> {
        let pid = i32::try_from(incoming.peer.pid?).ok()?;
        let process = self.server.peer_process(incoming.id)?;
        self.containment.member(pid, process)
    }

    fn may_read(&self, uid: u32, request: &Request) -> Result<(), Denied> {
        let owns_one = !self.rules().is_privileged(uid) && self.owns_one(uid);
        let facts = Facts { owns_one, ..Facts::default() };
        self.rules().judge(uid, request, &facts)
    }

    pub(in crate::daemon) fn runs_as(&self, service: &Service) -> Option<u32> {
        self.surroundings.lookup(&service.definition.user).ok().map(|user| user.uid)
    }

    fn serve_named(&mut self, incoming: &Incoming, targets: &Targets) {
        let Incoming { id: conn, ref peer, ref request } = *incoming;
        let uid = peer.uid;
        if !self.rules().is_privileged(uid) {
            // Users may have been remapped since we started; without root nobody else counts anyway.
            self.surroundings = self.surroundings_now();
        }
        let reads = request.verb().right == Right::Read;
        if reads && let Err(denied) = self.may_read(uid, request) {
            return self.refuse(conn, RefusalKind::NotPermitted, denied.to_string());
        }
        let (ids, mut complaints) = self.select(uid, request, targets, reads);
        if let (Targets::All, true, [first, ..]) = (targets, ids.is_empty(), complaints.as_slice()) {
            // Nothing of `--all` is the caller's: one line, not one for each service.
            let message = first.message.clone().unwrap_or_default();
            return self.refuse(conn, RefusalKind::NotPermitted, message);
        }
        let all = matches!(targets, Targets::All);
        let records =
            self.topics.definitions.records_to_drop(uid, request, targets, &mut complaints, &self.view());
        if all {
            complaints.clear();
        }
        if let Request::LogFiles { .. } = request {
            return self.hand_out_logs(conn, &ids, complaints);
        }
        if !reads {
            let what = match request {
                Request::Kill { signal, .. } => format!("{} ({})", request.method(), signal.0),
                _ => request.method().to_owned(),
            };
            self.asked(&what, &ids, peer);
        }
        if !records.is_empty() {
            return decide!(self.requests.unregister_with(incoming, ids, complaints, records));
        }
        if request.verb().answer == Answer::Outcomes {
            return decide!(self.requests.serve(incoming, ids, complaints, all));
        }
        let named = match targets {
            Targets::All => None,
            Targets::Names(names) => Some(names.as_slice()),
        };
        if matches!(request, Request::Status { .. }) {
            // The supervisor comes first, as those who read the answer know it.
            let supervisor = self.supervisor_status();
            self.reply(conn, &Reply::Part(Part::Supervisor(Box::new(supervisor))));
        }
        let listed = self.list(request, ids, named);
        for part in complaints.into_iter().map(Part::Outcome).chain(listed) {
            self.reply(conn, &Reply::Part(part));
        }
        self.reply(conn, &Reply::End);
    }

    /// What there is to read about these services; `named`: what the caller has typed.
    fn list(&mut self, request: &Request, ids: Vec<ServiceId>, named: Option<&[String]>) -> Vec<Part> {
        match request {
            Request::Status { .. } => {
                let services = ids.into_iter().filter_map(|id| self.service_status(id));
                let rows = services.chain(self.topics.definitions.refused_rows(named, &self.fleet));
                rows.map(|row| Part::Service(Box::new(row))).collect()
            }
            Request::Tree { .. } => ids.into_iter().flat_map(|id| self.tree(id)).map(Part::Tree).collect(),
            Request::Audit { .. } => {
                // Users may have been remapped since we started.
                self.surroundings = self.surroundings_now();
                let audits = ids.into_iter().filter_map(|id| self.audit(id));
                audits.map(|audit| Part::Audit(Box::new(audit))).collect()
            }
            Request::LogPlaces { .. } => {
                let tz = std::env::var_os("TZ").map(|tz| tz.to_string_lossy().into_owned());
                let place = |id| {
                    let service = self.services.get(&id)?;
                    let dir = self.options.home.join(crate::daemon::execute::log_dir(service));
                    Some(Part::LogPlace(LogPlace { name: service.name.to_string(), dir, tz: tz.clone() }))
                };
                ids.into_iter().filter_map(place).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The services that are meant and permitted, and an answer for each name that is not.
    fn select(
        &self,
        uid: u32,
        request: &Request,
        targets: &Targets,
        reads: bool,
    ) -> (Vec<ServiceId>, Vec<Outcome>) {
        let mut complaints = Vec::new();
        let (mut ids, mut seen) = (Vec::new(), HashSet::new());
        let names = match targets {
            Targets::Names(names) => self.with_instances(names),
            Targets::All => self.fleet.names().map(ToString::to_string).collect(),
        };
        let mut suggestions = SUGGESTIONS;
        let refusals = &self.topics.definitions;
        let is_privileged = self.rules().is_privileged(uid);
        let may_read = self.may_read(uid, &Request::List {}).is_ok();
        for typed in &names {
            let Some((id, service)) = self.resolve(typed).and_then(|id| Some((id, self.services.get(&id)?)))
            else {
                if matches!(request, Request::Unregister { .. })
                    && refusals.refused_record(typed, &self.fleet).is_some()
                {
                    // It is answered when its record is dropped.
                    continue;
                }
                if let Some(refused) = refusals.refused_outcome(typed, &self.fleet).filter(|_| may_read) {
                    // `status` has a row for it.
                    if !matches!(request, Request::Status { .. }) {
                        complaints.push(refused);
                    }
                    continue;
                }
                let known =
                    self.fleet.names().map(ServiceName::as_str).filter(|_| suggestions > 0 && may_read);
                let message = naming::unknown(typed, known, self.has_hermes);
                suggestions = suggestions.saturating_sub(1);
                complaints.push(Outcome::failed(typed, Code::NoSuchService, None, message));
                continue;
            };
            let facts = Facts {
                name: service.name.as_str(),
                runs_as: if is_privileged { None } else { self.runs_as(service) },
                owns_one: true,
                ..Facts::default()
            };
            match self.rules().judge(uid, request, &facts) {
                Err(denied) if !reads => {
                    let state = self.state(id).filter(|_| may_read);
                    complaints.push(Outcome::failed(typed, Code::NotPermitted, state, denied.to_string()));
                }
                _ if !seen.insert(id) => {}
                _ => ids.push(id),
            }
        }
        (ids, complaints)
    }

    /// The life that a service is in, if it has a tree.
    pub(in crate::daemon) fn life(&self, id: ServiceId) -> Option<crate::containment::IncarnationId> {
        self.view().life(id)
    }

    /// A tree stands still, or goes on.
    pub(in crate::daemon) fn frozen(&mut self, name: &ServiceName, frozen: bool) {
        let word = if frozen { "frozen" } else { "thawed" };
        self.happened(Event::info(EventKind::Freeze, word).about(name));
        if let Some(id) = self.fleet.id(name.as_str()) {
            decide!(self.requests.changed(id));
            decide!(self.health.frozen(id, frozen));
        }
    }

    /// A connection ended before its answer.
    pub(in crate::daemon) fn caller_is_gone(&mut self, conn: ConnId) {
        self.topics.definitions.readings.caller_is_gone(conn);
        self.topics.edits.caller_is_gone(conn);
        self.topics.scopes.caller_is_gone(conn);
        self.topics.upgrade.caller_is_gone(conn);
        self.topics.requests.caller_is_gone(conn);
        self.topics.events.caller_is_gone(conn);
        self.handing.caller_is_gone(conn);
    }
}
