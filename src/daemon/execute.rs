//! Effects become system calls and messages; what helper threads and the containment answer becomes events.

use crate::containment::{self, IncarnationId};
use crate::control::protocol::{self, EventKind};
use crate::core::effect::{Effect, Outcome};
use crate::core::event::{Command, Event, Incarnation};
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Gateway, History, Phase, Runs};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::words::{Cause, State, Want};
use crate::daemon::clock::wall_seconds;
use crate::daemon::inbox::Input;
use crate::daemon::services::launch_error::LaunchError;
use crate::daemon::services::{Gone, Service, Told};
use crate::daemon::show::report;
use crate::daemon::view::{decide, view};
use crate::daemon::{Commit, STORE, Supervisor};
use crate::log::{LogEvent, SourceId};
use crate::store::{self, Change, FailedRow, LastExit, RunRow, RunsRow, StoreEvent, WantRow};

impl Supervisor {
    /// Carries out one thing that the core has decided.
    pub(super) fn act(&mut self, id: ServiceId, effect: Effect) {
        let Some(name) = self.fleet.name(id).cloned() else { return };
        let life = |n: Incarnation| IncarnationId { name: name.clone(), n };
        match effect {
            Effect::Record { seq, want } => {
                let row = self.want_row(id, want, Cause::Operator);
                let change = match self.is_off_record(id) {
                    true => Change::Forget(name),
                    false => Change::Want(name, row),
                };
                self.commit(Commit::Want(id, seq), vec![change]);
            }
            Effect::Erase { seq } => self.commit(Commit::Want(id, seq), vec![Change::Forget(name)]),
            Effect::SaveHistory if self.is_off_record(id) => {}
            Effect::SaveHistory => {
                if let Some(gateway) = self.fleet.gateway(id) {
                    let hash = self.services.get(&id).map(|service| service.definition.hash);
                    let rows = vec![Change::Run(
                        name,
                        run_row(gateway.history(), gateway.phase() == Phase::Finished, hash),
                    )];
                    let must_last = match gateway.state() {
                        State::Backoff => !gateway.waits_after_success(),
                        // What runs again anyway loses no more than how it ended.
                        State::Failed | State::Finished => !gateway.is_scheduled(),
                        State::Down
                        | State::Starting
                        | State::Up
                        | State::Ready
                        | State::Stopping
                        | State::Refused
                        | State::Served
                        | State::Parked => false,
                    };
                    if must_last {
                        // It was given up, has to wait or has nothing left to do, also when the power fails now.
                        self.store.commit_soon(rows);
                    } else {
                        self.store.commit_lazily(rows);
                    }
                }
            }
            Effect::Spawn { incarnation } | Effect::Prepare { incarnation } => {
                self.starts.push(id, incarnation);
            }
            Effect::RunHook { incarnation, hook } => self.run_core_hook(id, &life(incarnation), hook),
            Effect::EndHook { incarnation } => {
                self.containment.end_hook(&life(incarnation), self.clock.now())
            }
            Effect::Finish { incarnation, exit, pid } => self.launch_finish(id, incarnation, (exit, pid)),
            Effect::SignalMain { incarnation, signal, planned } => {
                // Only of a gateway something is written first, as the gateway user of now.
                let is_marked = |service: &Service| service.gateway_directory(&self.options.home).is_some();
                if planned && self.services.get(&id).is_some_and(|service| is_marked(service)) {
                    self.surroundings = self.surroundings_now();
                }
                decide!(self.planned.stop(id, incarnation, signal, planned));
            }
            Effect::SignalTree { incarnation, signal } => {
                self.containment.signal_tree(&life(incarnation), signal);
                self.containment.thaw(&life(incarnation));
                self.containment.signal_tree(&life(incarnation), Signal::CONT);
            }
            // Its env file is still being read.
            Effect::KillTree { incarnation } if self.containment.rung(&life(incarnation)).is_none() => {
                self.never_ran(id, incarnation, &LaunchError::Stopped);
            }
            Effect::KillTree { incarnation } => {
                self.containment.kill(&life(incarnation), self.clock.now());
            }
            Effect::DrainLogs { incarnation } => {
                let logs = self.services.get(&id).is_some_and(|service| service.logged.is_some());
                if !logs || self.logs.drain(SourceId(id.0)) {
                    self.inbox.core(id, Event::LogsDrained { incarnation });
                }
            }
            Effect::Release { incarnation } => {
                self.topics.planned.forget(id);
                self.containment.release(&life(incarnation), self.clock.now());
                self.beside.remove(&life(incarnation));
                decide!(self.scopes.released(&life(incarnation), true));
                self.retire_log(id);
            }
            Effect::Abandon { incarnation } => {
                self.topics.planned.forget(id);
                slog::warn!(self.log, "remains are left to themselves"; "service" => %name);
                self.containment.release(&life(incarnation), self.clock.now());
                self.beside.remove(&life(incarnation));
                decide!(self.scopes.released(&life(incarnation), false));
            }
            Effect::Reply { ticket, outcome } if self.topics.topology.holds_back(id, ticket, &outcome) => {}
            Effect::Reply { ticket, outcome } => {
                match (outcome, self.topics.topology.prepared_answer(id, ticket, &view!(self))) {
                    (Outcome::Done { unrecorded: None, .. }, Some(prepared)) => {
                        decide!(self.requests.finish(ticket, prepared));
                    }
                    (outcome, _) => decide!(self.requests.answer(id, ticket, outcome)),
                }
            }
            Effect::Changed => self.changed(id),
            Effect::Report(incident) => self.report(&name, &incident),
            Effect::Retired => self.retire(id),
        }
    }

    /// In a shutdown, as soon as the service has ended: what is to be done for each is done while others still end.
    fn retire_log(&mut self, id: ServiceId) {
        let is_over = self.fleet.gateway(id).is_some_and(|gateway| !gateway.has_tree());
        let farewell = self.farewell_of_names();
        if let (true, true, Some(service)) =
            (self.topics.shutdown.is_on(), is_over, self.services.get_mut(&id))
            && service.logged.take().is_some()
        {
            self.logs.retire(SourceId(id.0), farewell);
        }
    }

    fn changed(&mut self, id: ServiceId) {
        let Some((name, gateway)) = self.fleet.name(id).zip(self.fleet.gateway(id)) else { return };
        let life = IncarnationId { name: name.clone(), n: gateway.history().incarnation };
        let by_pipe = self.services.get(&id).is_some_and(|service| service.reports_by_pipe());
        let would_end = gateway.ready_since().is_none() && by_pipe;
        let definition = self.services.get(&id).and_then(|service| service.in_force);
        self.containment.record(&life, gateway.living().filter(|_| !would_end), definition);
        if let Err(error) = self.finished.set(name, gateway.phase() == Phase::Finished) {
            slog::warn!(self.log, "{name}: a successor would not know whether it has finished: {error}");
        }
        let now = Told { state: gateway.state(), reason: gateway.reason(), pid: gateway.pid() };
        // That its run was due is told already.
        let is_routine = gateway.waits_after_success() || (gateway.is_scheduled() && now.state == State::Up);
        let mut service = self.services.get_mut(&id);
        if let Some(service) = service.as_mut().filter(|_| !gateway.is_scheduled()) {
            service.first_start.changed(gateway.phase(), gateway.since(), gateway.ready_since());
        }
        // Being asked for what is so already changes nothing that a reader of the log does not know.
        if let Some(service) = service.filter(|service| service.told.as_ref() != Some(&now)) {
            let event = report::state(&now, is_routine).about(name);
            service.told = Some(now);
            self.happened(event);
        }
        self.mirror_at_rest(id);
        decide!(self.requests.changed(id));
        decide!(self.readiness.changed(id));
        decide!(self.health.changed(id));
        decide!(self.reclaiming.changed(id));
        self.replan(id);
        self.topics.topology.changed(id, &view!(self));
        self.check_essential(id);
        self.drop_if_gone(id);
    }

    /// When it runs next may be another time.
    pub(super) fn replan(&mut self, id: ServiceId) {
        let is_scheduled =
            self.services.get(&id).is_some_and(|service| service.definition.schedule.is_some());
        if is_scheduled || !self.topics.schedules.is_empty() {
            decide!(self.schedules.changed(id, wall_seconds()));
        }
    }

    /// A service that was unregistered and is empty: its log goes, then its callers are told, then it is no more.
    fn retire(&mut self, id: ServiceId) {
        match self.services.get_mut(&id) {
            Some(service) if service.logged.is_some() => self.logs.close(SourceId(id.0)),
            _ => self.inbox.push(Input::Retired(id)),
        }
    }

    /// The last trace of a service goes.
    pub(super) fn forget(&mut self, id: ServiceId) {
        decide!(self.requests.retired(id));
        decide!(self.readiness.forget(id));
        decide!(self.health.forget(id));
        self.topics.schedules.forget(id);
        self.topics.reclaiming.forget(id);
        self.topics.topology.forget(id);
        let removed = self.services.remove(&id);
        let returns = removed.as_ref().is_some_and(|service| service.gone == Gone::Returns);
        let effects = self.fleet.remove(id, self.clock.now());
        self.execute(effects);
        if let Some(service) = removed {
            // What is not there any more is in nobody's way.
            let _ = self.finished.set(&service.name, false);
            self.topics.limits.forget(id, &service.name);
            decide!(self.profiles.free(&service.name));
        }
        // Its slot may have come back while this one was leaving.
        decide!(self.scanning.scan());
        if returns {
            decide!(self.definitions.ask_reload(None));
        }
    }

    /// A service without a definition is dropped once it has stopped: first from the disk, so that nothing of what is not shown any
    /// more comes back with a definition of that name.
    pub(super) fn drop_if_gone(&mut self, id: ServiceId) {
        let Some(service) = self.services.get_mut(&id).filter(|service| service.gone == Gone::Yes) else {
            return;
        };
        if self.fleet.gateway(id).is_some_and(|gateway| !gateway.has_tree()) {
            service.gone = Gone::Dropped;
            let name = service.name.clone();
            self.commit(Commit::Erased(id), vec![Change::Forget(name)]);
            // That, and its log, may take a while: until then nobody, and no backoff that ends, starts it again.
            let effects = self.fleet.hold(id, "its definition is gone".to_owned(), self.clock.now());
            self.execute(effects);
        }
    }

    /// Its rows are not on the disk any more, or will not be when that can be written.
    fn erased(&mut self, id: ServiceId, refused: bool) {
        let Some(service) = self.services.get(&id).filter(|service| service.gone.is_off_record()) else {
            return;
        };
        if refused {
            self.store.commit_lazily(vec![Change::Forget(service.name.clone())]);
        }
        self.retire(id);
    }

    fn is_off_record(&self, id: ServiceId) -> bool {
        self.services.get(&id).is_some_and(|service| service.gone.is_off_record())
    }

    // ---- The store ------------------------------------------------------------------------------------------------

    pub(super) fn commit(&mut self, commit: Commit, changes: Vec<Change>) {
        self.next_commit += 1;
        self.commits.insert(self.next_commit, commit);
        self.store.commit(self.next_commit, changes);
    }

    pub(super) fn want_row(&self, id: ServiceId, want: Want, cause: Cause) -> WantRow {
        WantRow {
            want,
            asked_by_uid: self.topics.requests.last_caller(id),
            asked_at_ms: self.clock.now().0,
            cause,
            definition_hash: self.services.get(&id).map(|service| service.definition.hash),
        }
    }

    pub(super) fn take_store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Committed { ticket } => match self.commits.remove(&ticket) {
                Some(Commit::Want(id, seq)) => self.inbox.core(id, Event::Recorded { seq }),
                Some(Commit::Registration(registering)) => self.registered(*registering, None),
                Some(Commit::Erased(id)) => self.erased(id, false),
                Some(Commit::Limits(setting)) => decide!(self.limits.recorded(*setting, None)),
                Some(Commit::Dropped(name, ticket)) => {
                    self.topics.limits.forget_record(&name);
                    decide!(self.definitions.record_dropped(&name, ticket, None));
                }
                Some(Commit::Withdrawn(ticket, outcome)) => self.inbox.answer(ticket, *outcome),
                None => {}
            },
            StoreEvent::Failed { ticket, reason } => match self.commits.remove(&ticket) {
                Some(Commit::Want(id, seq)) => self.inbox.core(id, Event::NotRecorded { seq, reason }),
                Some(Commit::Registration(registering)) => self.registered(*registering, Some(reason)),
                Some(Commit::Erased(id)) => self.erased(id, true),
                Some(Commit::Limits(setting)) => {
                    decide!(self.limits.recorded(*setting, Some(reason)));
                }
                Some(Commit::Dropped(name, ticket)) => {
                    decide!(self.definitions.record_dropped(&name, ticket, Some(reason)));
                }
                Some(Commit::Withdrawn(ticket, outcome)) => self.inbox.answer(ticket, *outcome),
                None => {}
            },
            StoreEvent::Warning { text } => self.warn("state", text),
            StoreEvent::Degraded { reason } => {
                self.warnings.retain(|(topic, _)| *topic != STORE);
                self.warn(STORE, reason);
            }
            StoreEvent::Held { reason } => {
                let text = format!("{reason}; what was begun here is ended");
                self.happened(protocol::Event::error(EventKind::Shutdown, text));
                self.begin_shutdown(Some(1));
            }
            StoreEvent::Recovered { opened } => {
                self.warnings.retain(|(topic, _)| *topic != STORE);
                slog::info!(self.log, "wants are recorded again");
                self.record_since(opened.as_deref());
                if let Some(opened) = opened {
                    self.topics.events.remember(&opened.journal);
                    self.adopt_records(*opened);
                }
            }
        }
    }

    /// The database could not be read at boot and can be now: what it wants counts, but for services about which
    /// somebody has decided meanwhile.
    fn adopt_records(&mut self, opened: store::Opened) {
        self.topics.limits.recall(&opened.limits);
        decide!(self.definitions.recall(&opened));
        for (name, row) in &opened.wants {
            let Some(id) = self.fleet.id(name.as_str()) else { continue };
            let differs = |gateway: &Gateway| gateway.want() != row.want && !gateway.is_unrecorded();
            if self.fleet.gateway(id).is_some_and(differs) {
                let ticket = self.topics.requests.own_ticket();
                let command = match row.want {
                    Want::Up => Command::Start { force: false },
                    Want::Down => Command::Stop,
                };
                self.inbox.core(id, Event::Command { ticket, command });
            }
        }
    }

    /// The database was away and is back: it gets what was decided meanwhile. `opened`: what it holds, if nobody knew.
    fn record_since(&mut self, opened: Option<&store::Opened>) {
        let row = |id: ServiceId| {
            let (name, want) = (self.fleet.name(id)?, self.fleet.gateway(id)?.want());
            let held = &opened?.wants;
            let is_new = !held.is_empty() && !held.contains_key(name);
            is_new.then(|| Change::Want(name.clone(), self.want_row(id, want, Cause::FirstBoot)))
        };
        let rows: Vec<Change> = self.fleet.ids().filter_map(row).collect();
        // A stop that acted without the disk is recorded now, and says so no more.
        for id in self.fleet.unrecorded().collect::<Vec<_>>() {
            let ticket = self.topics.requests.own_ticket();
            self.inbox.core(id, Event::Command { ticket, command: Command::Stop });
        }
        self.store.commit_lazily(rows);
    }

    // ---- The log --------------------------------------------------------------------------------------------------

    pub(super) fn take_log_event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Drained(source) => {
                let id = ServiceId(source.0);
                if let Some(gateway) = self.fleet.gateway(id) {
                    let incarnation = gateway.history().incarnation;
                    self.inbox.core(id, Event::LogsDrained { incarnation });
                }
            }
            LogEvent::Matched { id, incarnation } => {
                decide!(self.readiness.matched(ServiceId(id.0), incarnation));
            }
            LogEvent::Closed(source) => self.forget(ServiceId(source.0)),
            LogEvent::Warning { id, text } => {
                let name = id.and_then(|id| self.fleet.name(ServiceId(id.0)));
                match name {
                    Some(name) => slog::warn!(self.log, "{name}: {text}"),
                    None => slog::warn!(self.log, "{text}"),
                }
            }
        }
    }

    // ---- The containment ------------------------------------------------------------------------------------------

    /// Something has happened to an incarnation.
    pub(super) fn take_containment_event(&mut self, event: containment::Event) {
        match event {
            containment::Event::Spawned { id: IncarnationId { name, n: incarnation }, pid } => {
                let life = IncarnationId { name: name.clone(), n: incarnation };
                decide!(self.limits.spawned(&life, pid));
                self.tell(&name, Event::Spawned { incarnation, pid });
            }
            containment::Event::SpawnFailed { id: IncarnationId { name, n: incarnation }, error } => {
                self.tell(&name, Event::SpawnFailed { incarnation, reason: error.to_string() });
                self.tell(&name, Event::TreeEmpty { incarnation });
            }
            containment::Event::ContainerOom { kills } => {
                let text =
                    format!("out of memory: the kernel killed processes of the container, {kills} in all");
                self.happened(protocol::Event::warning(EventKind::Oom, text));
            }
            containment::Event::MainExited { id: IncarnationId { name, n: incarnation }, exit } => {
                if !exit.is_success() {
                    let life = IncarnationId { name: name.clone(), n: incarnation };
                    decide!(self.limits.main_failed(&life));
                }
                self.tell(&name, Event::MainExited { incarnation, exit });
            }
            containment::Event::TreeEmpty { id: IncarnationId { name, n: incarnation } } => {
                self.tell(&name, Event::TreeEmpty { incarnation });
            }
            containment::Event::OomKilled { id, kills, main, shortage } => {
                decide!(self.limits.oom_killed(&id, kills, main, shortage));
            }
            containment::Event::MemoryHigh { id } => decide!(self.limits.memory_high(&id)),
            containment::Event::HookEnded { id, ended } => self.beside_ended(&id, &ended),
            containment::Event::Frozen { id, frozen } => self.frozen(&id.name, frozen),
            containment::Event::ScopeEnded { id, name, oom_kills } => {
                decide!(self.scopes.ended(id, name, oom_kills));
            }
            containment::Event::Degraded { id, text } => slog::warn!(self.log, "{}: {text}", id.name),
        }
    }

    fn tell(&mut self, name: &ServiceName, event: Event) {
        if let Some(id) = self.fleet.id(name.as_str()) {
            self.inbox.core(id, event);
        }
    }
}

/// History as the database keeps it. Ticks are Unix milliseconds.
pub(super) fn run_row(history: &History, finished: bool, definition_hash: Option<u64>) -> RunRow {
    RunRow {
        restarts: history.restarts,
        failures_in_row: history.row,
        failure_times_ms: history.failures.iter().map(|at| at.0).collect(),
        backoff_until_ms: history.backoff_until.map(|at| at.0),
        failed: history
            .failed
            .as_ref()
            .map(|(reason, at)| Box::new(FailedRow { reason: reason.clone(), at_ms: at.0, definition_hash })),
        finished,
        last_exit: history.last_exit.map(|(exit, at)| LastExit { exit, at_ms: at.0 }),
        start_error: history.start_error.clone(),
        incarnation: history.incarnation,
        runs: history
            .runs
            .as_ref()
            .map(|runs| Box::new(RunsRow { started_ms: runs.started.map(|at| at.0), skipped: runs.skipped })),
    }
}

/// What the database kept, for a service whose definition now has this hash: a changed definition ends `failed`.
pub(super) fn history(row: &RunRow, definition_hash: u64) -> History {
    use crate::core::clock::Tick;
    let same = |failed: &&FailedRow| failed.definition_hash.is_none_or(|hash| hash == definition_hash);
    let failed = row.failed.as_deref().filter(same);
    History {
        restarts: row.restarts,
        row: row.failures_in_row,
        failures: row.failure_times_ms.iter().map(|at| Tick(*at)).collect(),
        backoff_until: row.backoff_until_ms.map(Tick),
        failed: failed.map(|failed| (failed.reason.clone(), Tick(failed.at_ms))),
        last_exit: row.last_exit.map(|last| (last.exit, Tick(last.at_ms))),
        start_error: row.start_error.clone(),
        incarnation: row.incarnation,
        runs: row.runs.as_ref().map(|runs| {
            let started = runs.started_ms.map(Tick);
            Box::new(Runs { started, skipped: runs.skipped, in_row: 0 })
        }),
    }
}

/// The log directory of a service, relative to home.
pub(super) fn log_dir(service: &Service) -> std::path::PathBuf {
    std::path::Path::new("logs/gateways").join(service.name.as_str())
}
