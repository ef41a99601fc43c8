//! What callers ask over the control socket: permission, commands to the core, and a truthful answer to each.
//!
//! One request can name many services. Each of them gets a ticket; the answer for a service is sent as soon as it is
//! known, the request is over when none is outstanding. A caller who goes away is owed nothing, but what was asked for
//! is done all the same: a gateway may restart itself from inside its own tree.

mod registration;

pub use registration::Registering;

use super::Supervisor;
use super::edits::Looking;
use super::services::Service;
use crate::control::naming;
use crate::control::permission::{Facts, Rules};
use crate::control::protocol::{
    Code, FREEZE_TIMEOUT, LogPlace, Outcome, Part, Refusal, RefusalKind, Reply, Request, Right, State,
    Targets, Until,
};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::effect;
use crate::core::event::{Command, Event, Ticket};
use crate::core::fleet::ServiceId;
use crate::core::gateway;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::definition::resolved::RunAs;
use crate::sys::peer::Peer;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// How long a request with an unknown name waits for the profiles to be read.
const PARKED: Duration = Duration::from_secs(2);
/// Suggestions cost a comparison with every name: only the first few unknown names of a request get one.
const SUGGESTIONS: usize = 3;

/// One request under way.
#[derive(Debug)]
struct Ask {
    /// `None`: the caller has gone.
    conn: Option<ConnId>,
    outstanding: BTreeSet<Ticket>,
    /// For `restart --rolling`: who comes next, when one of the first is up.
    queue: VecDeque<ServiceId>,
    /// It is a registration, of this name.
    registers: Option<ServiceName>,
    deadline: Option<Tick>,
}

/// What a ticket stands for.
#[derive(Debug, Clone, Copy)]
struct Stub {
    ask: u64,
    id: ServiceId,
    /// Waits for something to be so instead of a command.
    until: Option<Awaited>,
}

/// What a ticket without a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    State(Until),
    /// That the tree stands still, or does not.
    Frozen(bool),
}

/// A request that does nothing but wait.
#[derive(Debug)]
pub struct Targeted {
    pub conn: ConnId,
    pub ids: Vec<ServiceId>,
    pub until: Until,
    pub deadline: Option<Tick>,
}

/// A request that waits for a reading of the profiles, but not for ever: the disk may hang.
#[derive(Debug)]
pub struct Parked {
    pub incoming: Incoming,
    /// The reading that will have seen what is on the disk now.
    pub scan: u64,
    pub until: Tick,
}

/// All requests under way.
#[derive(Debug, Default)]
pub struct Requests {
    asks: BTreeMap<u64, Ask>,
    tickets: HashMap<Ticket, Stub>,
    waiting: BTreeMap<ServiceId, BTreeSet<Ticket>>,
    deadlines: BTreeSet<(Tick, u64)>,
    next: u64,
    /// Who asked last, for the record.
    callers: BTreeMap<ServiceId, u32>,
    /// Answers to `unregister` that wait for the log to be closed.
    retiring: BTreeMap<ServiceId, Vec<Ticket>>,
    /// Names that are being registered.
    registering: BTreeSet<ServiceName>,
    /// Requests that name something unknown, until the profiles were looked at again.
    pub(super) parked: Vec<Parked>,
    /// Requests that wait until definition files were looked at.
    pub(super) looking: Vec<Looking>,
    /// Requests to reload, until everything was read again.
    pub(super) reloading: Vec<(Incoming, bool)>,
    /// The reading that is for a reload, not only for new profiles.
    pub(super) reload_on: Option<u64>,
}

impl Requests {
    pub fn last_caller(&self, id: ServiceId) -> Option<u32> {
        self.callers.get(&id).copied()
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        let parked = self.parked.iter().map(|parked| parked.until).min();
        let looking = self.looking.iter().map(|looking| looking.until).min();
        self.deadlines.first().map(|(at, _)| *at).into_iter().chain(parked).chain(looking).min()
    }

    /// Moves every deadline: for so long nobody could do anything.
    pub fn postpone(&mut self, by: Duration) {
        self.parked.iter_mut().for_each(|parked| parked.until = parked.until.after(by));
        self.deadlines = std::mem::take(&mut self.deadlines)
            .into_iter()
            .map(|(until, ask)| (until.after(by), ask))
            .collect();
        for deadline in self.asks.values_mut().filter_map(|ask| ask.deadline.as_mut()) {
            *deadline = deadline.after(by);
        }
    }

    /// Something is asked for that has yet to be done: anything but waiting.
    pub fn is_busy(&self) -> bool {
        let waits = |stub: &Stub| matches!(stub.until, Some(Awaited::State(_)));
        !self.parked.is_empty()
            || !self.looking.is_empty()
            || !self.reloading.is_empty()
            || !self.retiring.is_empty()
            || !self.registering.is_empty()
            || !self.tickets.values().all(waits)
            || self.asks.values().any(|ask| !ask.queue.is_empty())
    }

    /// Those that wait, with what they still wait for.
    pub fn targeted(&self) -> Vec<Targeted> {
        let waits = |ask: &Ask| {
            let stubs = || ask.outstanding.iter().filter_map(|ticket| self.tickets.get(ticket));
            let until = stubs().find_map(|stub| match stub.until {
                Some(Awaited::State(until)) => Some(until),
                Some(Awaited::Frozen(_)) | None => None,
            })?;
            let ids = stubs().map(|stub| stub.id).collect();
            Some(Targeted { conn: ask.conn?, ids, until, deadline: ask.deadline })
        };
        self.asks.values().filter_map(waits).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A ticket that nobody waits for.
    pub fn own_ticket(&mut self) -> Ticket {
        Ticket(self.number())
    }

    fn open(&mut self, conn: ConnId, deadline: Option<Tick>) -> u64 {
        let ask = self.number();
        let entry = Ask {
            conn: Some(conn),
            outstanding: BTreeSet::new(),
            queue: VecDeque::new(),
            registers: None,
            deadline,
        };
        self.asks.insert(ask, entry);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, ask));
        }
        ask
    }

    pub(super) fn ticket(&mut self, ask: u64, id: ServiceId, until: Option<Awaited>) -> Ticket {
        let ticket = Ticket(self.number());
        self.tickets.insert(ticket, Stub { ask, id, until });
        if let Some(ask) = self.asks.get_mut(&ask) {
            ask.outstanding.insert(ticket);
        }
        if until.is_some() {
            self.waiting.entry(id).or_default().insert(ticket);
        }
        ticket
    }

    /// The ticket is done with; returns its stub and who is to be told.
    fn close(&mut self, ticket: Ticket) -> Option<(Stub, Option<ConnId>)> {
        let stub = self.tickets.remove(&ticket)?;
        if let Some(waiting) = self.waiting.get_mut(&stub.id) {
            waiting.remove(&ticket);
            if waiting.is_empty() {
                self.waiting.remove(&stub.id);
            }
        }
        let ask = self.asks.get_mut(&stub.ask)?;
        ask.outstanding.remove(&ticket);
        Some((stub, ask.conn))
    }

    fn is_over(&self, ask: u64) -> bool {
        self.asks.get(&ask).is_some_and(|ask| ask.outstanding.is_empty() && ask.queue.is_empty())
    }

    fn remove(&mut self, ask: u64) -> Option<Ask> {
        let entry = self.asks.remove(&ask)?;
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, ask));
        }
        Some(entry)
    }
}

impl Supervisor {
    pub(super) fn rules(&self) -> Rules {
        Rules { supervisor_uid: self.surroundings.own_uid, public_status: self.options.public_status }
    }

    pub(super) fn reply(&mut self, conn: ConnId, reply: &Reply) {
        self.server.reply(&self.registry, conn, reply);
    }

    fn part(&mut self, conn: ConnId, outcome: Outcome) {
        self.reply(conn, &Reply::Part(Part::Outcome(outcome)));
    }

    pub(super) fn refuse(&mut self, conn: ConnId, kind: RefusalKind, message: impl Into<String>) {
        self.reply(conn, &Reply::Refused(Refusal::new(kind, message)));
    }

    /// A request arrived. Names that nobody knows may be new profiles, so those are looked up before the answer.
    pub(super) fn take_request(&mut self, incoming: Incoming) {
        if self.waits_for_upgrade(&incoming) {
            return;
        }
        let unknown = match incoming.request.targets() {
            Some(Targets::Names(names)) => {
                names.iter().any(|name| self.resolve(name).is_none() && !self.is_refused(name))
            }
            Some(Targets::All) | None => false,
        };
        // Whoever may do nothing here shall not make us read the disk either.
        let trusted = self.rules().is_privileged(incoming.peer.uid) || self.owns_one(incoming.peer.uid);
        let scan = if unknown && trusted && self.closing.is_none() { self.next_scan() } else { None };
        match scan {
            Some(scan) => {
                let until = self.clock.now().after(PARKED);
                self.requests.parked.push(Parked { incoming, scan, until });
            }
            None if trusted && self.looks_first(&incoming) => {}
            None => self.serve(incoming),
        }
    }

    /// Not to be asked about who is privileged anyway. Services are many, their users are few.
    fn owns_one(&self, uid: u32) -> bool {
        let mut asked: HashSet<&RunAs> = HashSet::new();
        let mut services = self.services.values();
        services.any(|service| asked.insert(&service.definition.user) && self.runs_as(service) == Some(uid))
    }

    pub(super) fn resolve(&self, typed: &str) -> Option<ServiceId> {
        naming::resolve(typed, |name| self.fleet.id(name).is_some()).and_then(|name| self.fleet.id(name))
    }

    /// Answers a request with what is known now.
    pub(super) fn serve(&mut self, incoming: Incoming) {
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
                    return self.refuse(conn, RefusalKind::NotPermitted, denied);
                }
                for name in self.shown_names() {
                    self.reply(conn, &Reply::Part(Part::Name(name)));
                }
                self.reply(conn, &Reply::End);
            }
            Request::Reload { restart } => {
                let restart = *restart;
                if self.closing.is_some() {
                    return self.refuse(conn, RefusalKind::Failed, "the supervisor is shutting down");
                }
                let words = if restart { "reload with restart" } else { "reload" };
                slog::info!(self.log, "{words} asked for"; "uid" => peer.uid, "pid" => peer.pid);
                self.requests.reloading.push((incoming, restart));
                self.requests.reload_on = self.next_scan();
                if self.requests.reload_on.is_none() {
                    self.found_nothing("the disk under the home directory does not answer");
                }
            }
            Request::Shutdown { code } => {
                slog::info!(self.log, "shutdown asked for"; "uid" => peer.uid, "pid" => peer.pid);
                let code = *code;
                self.reply(conn, &Reply::End);
                self.begin_shutdown(code);
            }
            Request::Upgrade { .. } => self.begin_upgrade(incoming),
            Request::Rescan { nuke } => {
                let nuke = *nuke;
                self.surroundings = self.surroundings_now();
                let runs_as = Some(self.surroundings.gateway.uid);
                match self.rules().judge(peer.uid, request, &Facts { runs_as, ..Facts::default() }) {
                    Err(denied) => self.refuse(conn, RefusalKind::NotPermitted, denied.to_string()),
                    Ok(()) if self.rescan(conn, nuke) => {}
                    Ok(()) => {
                        let text = "there is no scan directory: start with --s6-surface";
                        self.refuse(conn, RefusalKind::Failed, text);
                    }
                }
            }
            Request::Scope { .. } | Request::ScopeStop { .. } | Request::ScopeShow { .. } => {
                self.serve_scope(&incoming);
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
            | Request::LogPlaces { targets } => self.serve_named(conn, &peer, request, targets),
        }
    }

    fn may_read(&self, uid: u32, request: &Request) -> Result<(), String> {
        let owns_one = !self.rules().is_privileged(uid) && self.owns_one(uid);
        let facts = Facts { owns_one, ..Facts::default() };
        self.rules().judge(uid, request, &facts).map_err(|denied| denied.to_string())
    }

    pub(super) fn runs_as(&self, service: &Service) -> Option<u32> {
        self.surroundings.lookup(&service.definition.user).ok().map(|user| user.uid)
    }

    fn serve_named(&mut self, conn: ConnId, peer: &Peer, request: &Request, targets: &Targets) {
        let uid = peer.uid;
        if !self.rules().is_privileged(uid) {
            // Users may have been remapped since we started; without root nobody else counts anyway.
            self.surroundings = self.surroundings_now();
        }
        let reads = request.verb().right == Right::Read;
        if reads && let Err(denied) = self.may_read(uid, request) {
            return self.refuse(conn, RefusalKind::NotPermitted, denied);
        }
        let (ids, mut complaints) = self.select(uid, request, targets, reads);
        if let (Targets::All, true, [first, ..]) = (targets, ids.is_empty(), complaints.as_slice()) {
            // Nothing of `--all` is the caller's: one line, not one for each service.
            let message = first.message.clone().unwrap_or_default();
            return self.refuse(conn, RefusalKind::NotPermitted, message);
        }
        if matches!(targets, Targets::All) {
            complaints.clear();
        }
        let now = self.clock.now();
        let timeout = request.deadline().after(request.timeout());
        // One after the other may take as long as each alone.
        let turns = match request {
            Request::Restart { rolling: Some(at_once), .. } => ids.len().div_ceil((*at_once).max(1) as usize),
            _ => 1,
        };
        let turns = u32::try_from(turns.max(1)).unwrap_or(u32::MAX);
        let ask = self.requests.open(conn, timeout.map(|timeout| now.after(timeout.saturating_mul(turns))));
        if let Request::Status { .. } = request {
            let status = Box::new(self.supervisor_status());
            self.reply(conn, &Reply::Part(Part::Supervisor(status)));
        }
        for complaint in complaints {
            self.part(conn, complaint);
        }
        if !reads {
            self.asked(request.method(), &ids, peer);
        }
        match request {
            Request::Start { force, .. } => self.command_all(ask, uid, ids, Command::Start { force: *force }),
            Request::Stop { .. } => self.command_all(ask, uid, ids, Command::Stop),
            Request::Once { .. } => self.command_all(ask, uid, ids, Command::Once),
            Request::Restart { rolling, .. } => self.restart_all(ask, uid, ids, *rolling),
            Request::Unregister { .. } => self.unregister_all(ask, uid, conn, ids),
            Request::Status { .. } => {
                for id in ids {
                    if let Some(status) = self.service_status(id) {
                        self.reply(conn, &Reply::Part(Part::Service(Box::new(status))));
                    }
                }
                let named = match targets {
                    Targets::All => None,
                    Targets::Names(names) => Some(names.as_slice()),
                };
                for row in self.refused_rows(named) {
                    self.reply(conn, &Reply::Part(Part::Service(Box::new(row))));
                }
            }
            Request::Tree { .. } => {
                for id in ids {
                    for part in self.tree(id) {
                        self.reply(conn, &Reply::Part(Part::Tree(part)));
                    }
                }
            }
            Request::Audit { .. } => {
                // Users may have been remapped since we started.
                self.surroundings = self.surroundings_now();
                for audit in ids.into_iter().filter_map(|id| self.audit(id)).collect::<Vec<_>>() {
                    self.reply(conn, &Reply::Part(Part::Audit(Box::new(audit))));
                }
            }
            Request::LogPlaces { .. } => {
                for id in ids {
                    if let Some(service) = self.services.get(&id) {
                        let dir = self.options.home.join(super::execute::log_dir(service));
                        let tz = std::env::var_os("TZ").map(|tz| tz.to_string_lossy().into_owned());
                        let place = LogPlace { name: service.name.to_string(), dir, tz };
                        self.reply(conn, &Reply::Part(Part::LogPlace(place)));
                    }
                }
            }
            Request::Kill { signal, tree, .. } => {
                for id in ids {
                    let outcome = self.kill_service(id, signal.0, *tree);
                    self.part(conn, outcome);
                }
            }
            Request::Set { limits, persist, .. } => {
                for id in ids {
                    if let Some(outcome) = self.set_limits(ask, uid, id, limits, *persist) {
                        self.part(conn, outcome);
                    }
                }
            }
            Request::Freeze { .. } | Request::Thaw { .. } => {
                let frozen = matches!(request, Request::Freeze { .. });
                let all = matches!(targets, Targets::All);
                self.freeze_all(ask, conn, ids, frozen, all);
            }
            Request::Wait { until, .. } => {
                for id in &ids {
                    self.requests.ticket(ask, *id, Some(Awaited::State(*until)));
                }
                for id in ids {
                    self.tell_waiting(id);
                }
            }
            Request::List {}
            | Request::Register(_)
            | Request::Reload { .. }
            | Request::Shutdown { .. }
            | Request::Upgrade { .. }
            | Request::Rescan { .. }
            | Request::Scope { .. }
            | Request::ScopeStop { .. }
            | Request::ScopeShow { .. } => {}
        }
        self.end_if_over(ask);
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
        let all: Vec<String>;
        let names = match targets {
            Targets::Names(names) => names,
            Targets::All => {
                all = self.fleet.names().map(ToString::to_string).collect();
                &all
            }
        };
        let mut suggestions = SUGGESTIONS;
        let is_privileged = self.rules().is_privileged(uid);
        let may_read = self.may_read(uid, &Request::List {}).is_ok();
        for typed in names {
            let Some((id, service)) = self.resolve(typed).and_then(|id| Some((id, self.services.get(&id)?)))
            else {
                if let Some(refused) = self.refused_outcome(typed).filter(|_| may_read) {
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

    fn command_all(&mut self, ask: u64, uid: u32, ids: Vec<ServiceId>, command: Command) {
        // All tickets first: an answer that comes at once must not end a request whose other half is not asked yet.
        let tickets: Vec<(ServiceId, Ticket)> =
            ids.into_iter().map(|id| (id, self.requests.ticket(ask, id, None))).collect();
        let together: BTreeSet<ServiceId> = tickets.iter().map(|(id, _)| *id).collect();
        for (id, ticket) in tickets {
            self.requests.callers.insert(id, uid);
            if !self.ask_root(id, ticket, command, &together) {
                self.inbox.core(id, Event::Command { ticket, command });
            }
        }
    }

    fn restart_all(&mut self, ask: u64, uid: u32, mut ids: Vec<ServiceId>, rolling: Option<u32>) {
        let at_once = rolling.map_or(ids.len(), |n| n.max(1) as usize).min(ids.len());
        let rest = ids.split_off(at_once);
        for id in &rest {
            self.requests.callers.insert(*id, uid);
        }
        if let Some(ask) = self.requests.asks.get_mut(&ask) {
            ask.queue = rest.into();
        }
        self.command_all(ask, uid, ids, Command::Restart);
    }

    fn unregister_all(&mut self, ask: u64, uid: u32, conn: ConnId, ids: Vec<ServiceId>) {
        let is_registered =
            |id: &ServiceId| self.services.get(id).is_some_and(|service| service.record.is_some());
        let (registered, others): (Vec<ServiceId>, Vec<ServiceId>) = ids.into_iter().partition(is_registered);
        for id in others {
            let Some(service) = self.services.get(&id) else { continue };
            let (name, state) = (service.name.to_string(), self.state(id));
            let message = format!(
                "'{name}' was not registered but comes from {}: remove that, then 'hermes-sup ctl reload'",
                self.origin(id)
            );
            self.part(conn, Outcome::failed(name, Code::Failed, state, message));
        }
        self.command_all(ask, uid, registered, Command::Unregister);
    }

    fn kill_service(&mut self, id: ServiceId, signal: crate::core::signal::Signal, tree: bool) -> Outcome {
        let Some((name, gateway)) = self.fleet.name(id).zip(self.fleet.gateway(id)) else {
            return Outcome::failed("", Code::NoSuchService, None, "the service is gone");
        };
        let (name, state) = (name.clone(), self.state(id));
        let running = if tree { gateway.has_tree() } else { gateway.pid().is_some() };
        if !running {
            return Outcome::failed(name.as_str(), Code::Failed, state, format!("'{name}' is not running"));
        }
        let life = crate::containment::IncarnationId { name: name.clone(), n: gateway.history().incarnation };
        let was_frozen = self.containment.is_frozen(&life);
        if tree {
            self.containment.signal_tree(&life, signal);
        } else if let Err(error) = self.containment.signal_main(&life, signal) {
            return Outcome::failed(
                name.as_str(),
                Code::Failed,
                state,
                format!("'{name}' got no {signal}: {error}"),
            );
        }
        self.containment.thaw(&life);
        let thawed = if was_frozen { " and thawed" } else { "" };
        Outcome::done(name.as_str(), state.unwrap_or(State::Up), Some(format!("{signal} sent{thawed}")))
    }

    /// Stops trees where they are, or lets them go on; of `all`, those that are up.
    fn freeze_all(&mut self, ask: u64, conn: ConnId, ids: Vec<ServiceId>, frozen: bool, all: bool) {
        let mut tickets = Vec::new();
        for id in ids {
            if self.state(id).is_some_and(State::is_up) {
                tickets.push((id, self.requests.ticket(ask, id, Some(Awaited::Frozen(frozen)))));
            } else if let (Some(name), false) = (self.fleet.name(id), all) {
                let (name, state) = (name.to_string(), self.state(id));
                let word = state.map_or("gone", State::as_str);
                let verb = if frozen { "freeze" } else { "thaw" };
                let message = format!("'{name}' is {word}: only what is up can be told to {verb}");
                self.part(conn, Outcome::failed(name, Code::Failed, state, message));
            }
        }
        for (id, ticket) in tickets {
            let Some(life) = self.life(id) else { continue };
            if self.containment.is_frozen(&life) == frozen {
                let word = if frozen { "already frozen" } else { "not frozen" };
                if !frozen {
                    // A freeze that is still under way is over.
                    self.containment.thaw(&life);
                }
                let state = self.state(id).unwrap_or(State::Up);
                self.finish(ticket, Outcome::done(life.name.as_str(), state, Some(word.to_owned())));
            } else if let Err(error) = self.containment.freeze(&life, frozen) {
                let verb = if frozen { "frozen" } else { "thawed" };
                let message = format!("'{}' cannot be {verb}: {error}", life.name);
                let outcome = Outcome::failed(life.name.as_str(), Code::Failed, self.state(id), message);
                self.finish(ticket, outcome);
            } else {
                self.tell_waiting(id);
            }
        }
    }

    /// The life that a service is in, if it has a tree.
    pub(super) fn life(&self, id: ServiceId) -> Option<crate::containment::IncarnationId> {
        let (name, gateway) = self.fleet.name(id).zip(self.fleet.gateway(id))?;
        let n = gateway.history().incarnation;
        gateway.has_tree().then(|| crate::containment::IncarnationId { name: name.clone(), n })
    }

    /// A tree stands still, or goes on.
    pub(super) fn frozen(&mut self, name: &ServiceName, frozen: bool) {
        slog::info!(self.log, "{name}: {}", if frozen { "frozen" } else { "thawed" });
        if let Some(id) = self.fleet.id(name.as_str()) {
            self.tell_waiting(id);
        }
    }

    // ---- Answers --------------------------------------------------------------------------------------------------

    /// The core answers a command.
    pub(super) fn answer(&mut self, id: ServiceId, ticket: Ticket, outcome: effect::Outcome) {
        let retiring = self.requests.tickets.contains_key(&ticket)
            && matches!(outcome, effect::Outcome::Done { .. })
            && self.services.get(&id).is_some_and(|service| service.record.is_some())
            && self.fleet.gateway(id).is_some_and(crate::core::gateway::Gateway::is_retiring);
        if retiring {
            self.requests.retiring.entry(id).or_default().push(ticket);
            return;
        }
        let Some(name) = self.fleet.name(id).map(ToString::to_string) else { return };
        let state = self.state(id);
        let prepared = self.prepared_answer(ticket);
        let outcome = match outcome {
            effect::Outcome::Done { unrecorded: None, .. } if let Some(prepared) = prepared => prepared,
            effect::Outcome::Done { already, unrecorded: None } => {
                let word = state.map_or("down", State::as_str);
                let edited = self.edited(id).filter(|_| state.is_some_and(State::is_up));
                let message = match (already, edited) {
                    (true, None) => Some(format!("already {word}")),
                    (true, Some(edited)) => Some(format!("already {word}; {edited}")),
                    (false, Some(edited)) => Some(format!("{word}; {edited}")),
                    (false, None) => None,
                };
                Outcome::done(name, state.unwrap_or(State::Down), message)
            }
            effect::Outcome::Done { unrecorded: Some(why), .. } => {
                let message = format!("'{name}' is stopped, but not recorded: {why}");
                Outcome::failed(name, Code::Failed, state, message)
            }
            effect::Outcome::Failed(why) => {
                let is_stuck =
                    self.fleet.gateway(id).is_some_and(|g| g.stage() == Some(gateway::Stage::Stuck));
                let hanging = self.life(id).filter(|_| is_stuck).and_then(|life| self.hanging(&life));
                let hanging = hanging.map(|hanging| format!(": {hanging}")).unwrap_or_default();
                let message = format!("'{name}': {why}{hanging}");
                Outcome::failed(name, Code::Failed, state, message)
            }
            effect::Outcome::Overtaken(by) => {
                let by = match by {
                    Command::Start { .. } => "start",
                    Command::Stop => "stop",
                    Command::Restart => "restart",
                    Command::Once => "once",
                    Command::Unregister => "unregister",
                };
                let message = format!("'{name}': overtaken by a newer '{by}'");
                Outcome::failed(name, Code::Failed, state, message)
            }
        };
        self.finish(ticket, outcome);
    }

    pub(super) fn finish(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some((stub, conn)) = self.requests.close(ticket) else { return };
        let outcome_ok = outcome.ok;
        if let Some(conn) = conn {
            self.part(conn, outcome);
        }
        let failed = !outcome_ok;
        let rest = self
            .requests
            .asks
            .get_mut(&stub.ask)
            .filter(|_| failed)
            .map(|ask| std::mem::take(&mut ask.queue));
        for left in rest.into_iter().flatten() {
            self.not_restarted(conn, left, Code::Failed, "an earlier one failed");
        }
        let next = self.requests.asks.get_mut(&stub.ask).and_then(|ask| ask.queue.pop_front());
        if let Some(next) = next {
            let ticket = self.requests.ticket(stub.ask, next, None);
            self.inbox.core(next, Event::Command { ticket, command: Command::Restart });
        }
        self.end_if_over(stub.ask);
    }

    /// The answer for one that `restart --rolling` did not come to.
    fn not_restarted(&mut self, conn: Option<ConnId>, id: ServiceId, code: Code, why: &str) {
        let Some((conn, name)) = conn.zip(self.fleet.name(id).map(ToString::to_string)) else { return };
        let (state, message) = (self.state(id), format!("'{name}' is not restarted: {why}"));
        self.part(conn, Outcome::failed(name, code, state, message));
    }

    fn end_if_over(&mut self, ask: u64) {
        if self.requests.is_over(ask)
            && let Some(Ask { conn: Some(conn), .. }) = self.requests.remove(ask)
        {
            self.reply(conn, &Reply::End);
        }
    }

    /// A service that was unregistered is gone, log and all.
    pub(super) fn answer_retired(&mut self, id: ServiceId) {
        let Some(name) = self.fleet.name(id).map(ToString::to_string) else { return };
        for ticket in self.requests.retiring.remove(&id).unwrap_or_default() {
            self.finish(ticket, Outcome::done(name.clone(), State::Down, Some("unregistered".to_owned())));
        }
        // Whoever else is still owed an answer about it: waiting, or overtaken by its end.
        let owed = |(ticket, stub): (&Ticket, &Stub)| (stub.id == id).then_some(*ticket);
        let waiting: Vec<Ticket> = self.requests.tickets.iter().filter_map(owed).collect();
        for ticket in waiting {
            let message = format!("'{name}' was unregistered");
            self.finish(ticket, Outcome::failed(name.clone(), Code::NoSuchService, None, message));
        }
        self.requests.callers.remove(&id);
    }

    /// Callers of `wait` hear when the service is where they want it.
    pub(super) fn tell_waiting(&mut self, id: ServiceId) {
        let Some(waiting) = self.requests.waiting.get(&id) else { return };
        let Some((state, name)) = self.state(id).zip(self.fleet.name(id).map(ToString::to_string)) else {
            return;
        };
        // Of a service without a way to report it, up is all that can be known.
        let reports_nothing = self.fleet.gateway(id).is_some_and(|gateway| gateway.policy().ready.is_none());
        let wanted_down = self.fleet.gateway(id).is_some_and(|gateway| gateway.want() == Want::Down);
        let life = self.life(id);
        let mut done = Vec::new();
        for ticket in waiting {
            let outcome = match self.requests.tickets.get(ticket).and_then(|stub| stub.until) {
                Some(Awaited::State(until)) => {
                    let there = match until {
                        Until::Up => state.does_its_work(),
                        Until::Ready => {
                            matches!(state, State::Ready | State::Served)
                                || (reports_nothing && state.is_up())
                        }
                        Until::Down => match state {
                            State::Down | State::Failed | State::Finished | State::Parked => true,
                            // There is no process of it, and there is not to be one.
                            State::Served => wanted_down,
                            State::Starting
                            | State::Up
                            | State::Ready
                            | State::Stopping
                            | State::Backoff
                            | State::Refused => false,
                        },
                    };
                    there.then(|| Outcome::done(name.clone(), state, None))
                }
                Some(Awaited::Frozen(wanted)) if state.is_up() => {
                    let is_so = life.as_ref().is_some_and(|life| self.containment.is_frozen(life)) == wanted;
                    let word = if wanted { "frozen" } else { "thawed" };
                    is_so.then(|| Outcome::done(name.clone(), state, Some(word.to_owned())))
                }
                Some(Awaited::Frozen(wanted)) => {
                    let word = if wanted { "frozen" } else { "thawed" };
                    let message = format!("'{name}' is {state} and was not {word}");
                    Some(Outcome::failed(name.clone(), Code::Failed, Some(state), message))
                }
                None => None,
            };
            done.extend(outcome.map(|outcome| (*ticket, outcome)));
        }
        for (ticket, outcome) in done {
            self.finish(ticket, outcome);
        }
    }

    pub(super) fn time_out_requests(&mut self, now: Tick) {
        let (due, waiting) =
            std::mem::take(&mut self.requests.parked).into_iter().partition(|p| p.until <= now);
        self.requests.parked = waiting;
        let due: Vec<Parked> = due;
        for parked in due {
            self.serve(parked.incoming);
        }
        while let Some((_, number)) = self.requests.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(ask) = self.requests.remove(number) else { return };
            for ticket in ask.outstanding {
                let Some(stub) = self.requests.tickets.remove(&ticket) else { continue };
                if let Some(waiting) = self.requests.waiting.get_mut(&stub.id) {
                    waiting.remove(&ticket);
                }
                self.inbox.core(stub.id, Event::Forget(ticket));
                let state = self.state(stub.id);
                let not_frozen =
                    (stub.until == Some(Awaited::Frozen(true))).then(|| self.freeze_took_too_long(stub.id));
                let (name, message) = match (self.fleet.name(stub.id), &ask.registers) {
                    (Some(name), _) if let Some(why) = not_frozen => {
                        (name.to_string(), format!("'{name}' {why}"))
                    }
                    (Some(name), _) => {
                        let word = state.map_or("gone", State::as_str);
                        (name.to_string(), format!("'{name}': timed out, it is {word}"))
                    }
                    (None, Some(name)) => {
                        let text =
                            "the disk has not answered yet, 'status' will tell whether it is registered";
                        (name.to_string(), format!("'{name}': timed out, {text}"))
                    }
                    (None, None) => (String::new(), "timed out, the service is gone".to_owned()),
                };
                if let Some(conn) = ask.conn {
                    self.part(conn, Outcome::failed(name, Code::TimedOut, state, message));
                }
            }
            for left in ask.queue {
                self.not_restarted(ask.conn, left, Code::TimedOut, "timed out before its turn");
            }
            if let Some(conn) = ask.conn {
                self.reply(conn, &Reply::End);
            }
        }
    }

    /// A tree that does not come to a stand goes on: one that stands in part would be worse. Returns why.
    fn freeze_took_too_long(&mut self, id: ServiceId) -> String {
        let Some(life) = self.life(id) else { return "is gone".to_owned() };
        let hangs = self.hanging(&life).map(|hanging| format!(": {hanging}"));
        self.containment.thaw(&life);
        let seconds = FREEZE_TIMEOUT.as_secs();
        format!("did not stand still within {seconds} s and goes on{}", hangs.unwrap_or_default())
    }

    /// A connection ended before its answer: what it asked for goes on, what it waited for does not matter any more.
    pub(super) fn caller_is_gone(&mut self, conn: ConnId) {
        self.requests.parked.retain(|parked| parked.incoming.id != conn);
        self.requests.looking.retain(|looking| looking.incoming.id != conn);
        self.scopes.caller_is_gone(conn);
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.forget(conn);
        }
        let found = self.requests.asks.iter_mut().find(|(_, ask)| ask.conn == Some(conn));
        let Some((number, ask)) = found.map(|(number, ask)| (*number, ask)) else { return };
        ask.conn = None;
        let waits: Vec<Ticket> = ask
            .outstanding
            .iter()
            .copied()
            .filter(|ticket| self.requests.tickets.get(ticket).is_some_and(|stub| stub.until.is_some()))
            .collect();
        for ticket in waits {
            self.requests.close(ticket);
        }
        if self.requests.is_over(number) {
            self.requests.remove(number);
        }
    }

    /// Where the definition of a service comes from, in words.
    pub(super) fn origin(&self, id: ServiceId) -> String {
        use crate::definition::{dashboard, resolved::Origin};
        self.services.get(&id).map_or_else(String::new, |service| match &service.definition.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Profile { .. } => format!("the profile '{}'", service.name),
            Origin::Record => "its registration".to_owned(),
            Origin::BuiltIn => format!("{}, which is set", dashboard::SWITCH),
            Origin::Slot => service
                .definition
                .slot
                .as_ref()
                .map_or_else(String::new, |slot| slot.dir.display().to_string()),
        })
    }
}
