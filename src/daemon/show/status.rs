//! What `status` shows, from what everybody knows.

use crate::containment::Report;
use crate::control::protocol::{
    Health, Io, Kind, LastExit, Pressure, Schedule, ServiceStatus, State, SupervisorStatus, Utc,
};
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Elsewhere, Phase, Stage};
use crate::core::policy;
use crate::core::words::HealthState;
use crate::daemon::Supervisor;
use crate::daemon::clock::{wall, wall_now};
use crate::daemon::execute::log_dir;
use crate::daemon::services::Gone;
use crate::daemon::topics::schedules::Moment;
use crate::daemon::view::Trees;
use crate::definition::limits::inherited;
use crate::definition::resolved::Origin;
use crate::log::SourceId;
use crate::sys::localtime::Local;
use crate::sys::time::monotonic;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// How long a helper thread may be at one piece of work before `status` mentions it.
const BUSY: Duration = Duration::from_secs(2);

/// What was tried above the rung in force, and why it does not work.
pub(in crate::daemon) fn why_not_higher(report: &Report) -> Option<String> {
    let reasons: Vec<String> = report.refused_above().map(ToString::to_string).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// As the log has it.
fn local(time: Utc) -> String {
    let unix = time.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let local = i64::try_from(unix).ok().and_then(|unix| Local::at(unix).ok());
    local.map_or_else(|| time.to_string(), |local| local.to_string())
}

impl Supervisor {
    pub(in crate::daemon) fn state(&self, id: ServiceId) -> Option<State> {
        self.view().state(id)
    }

    pub(in crate::daemon) fn supervisor_status(&self) -> SupervisorStatus {
        let now = self.clock.now();
        let mut warnings: Vec<String> = self.warnings.iter().map(|(_, text)| text.clone()).collect();
        let slow = |what: &str, since: Duration| format!("{what} has not answered for {} s", since.as_secs());
        if let Some(since) = self
            .store
            .busy_since()
            .map(|since| monotonic().saturating_duration_since(since))
            .filter(|since| *since >= BUSY)
        {
            warnings.push(slow("the disk of the state", since));
        }
        let health = self.logs.overall();
        if let Some(since) = health.files_busy.filter(|since| *since >= BUSY) {
            warnings.push(slow("the disk under home", since));
        }
        for (name, stream) in [("stdout", &health.stdout), ("stderr", &health.stderr)] {
            if stream.dropped > 0 {
                warnings
                    .push(format!("{} lines were not shown on {name}: its reader is behind", stream.dropped));
            }
        }
        SupervisorStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: Utc(wall(self.clock.started())),
            uptime_ms: u64::try_from(now.since(self.clock.started()).as_millis()).unwrap_or(u64::MAX),
            containment: self.report.rung.to_string(),
            containment_reason: why_not_higher(&self.report),
            containment_flag: self.report.raise().map(ToOwned::to_owned),
            state_dir: self.options.state.clone(),
            stopping: self.topics.shutdown.is_on(),
            warnings,
        }
    }

    /// Of a running service those in force, else those of its next start; and a line for each that is not in force.
    pub(in crate::daemon) fn shown_limits(
        &self,
        id: ServiceId,
        running: bool,
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let limits = &self.topics.limits;
        match self.services.get(&id).filter(|_| !running) {
            Some(service) => (limits.of(service, &self.state_trust, inherited).0.shown(), Vec::new()),
            None => limits.shown(id),
        }
    }

    pub(in crate::daemon) fn service_status(&self, id: ServiceId) -> Option<ServiceStatus> {
        let (service, gateway) = (self.services.get(&id)?, self.fleet.gateway(id)?);
        let now = self.clock.now();
        let history = gateway.history();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let life = self.life(id);
        let usage = life.as_ref().map(|life| self.containment.usage(life));
        let mut reason = gateway.reason();
        let mut add = |text: String| {
            let separator = if reason.is_empty() { "" } else { "; " };
            reason = format!("{reason}{separator}{text}");
        };
        if let (Some(Stage::Stuck), Some(life)) = (gateway.stage(), &life)
            && let Some(hanging) = self.containment.hanging(life)
        {
            add(hanging);
        }
        if let Some(text) = self.topics.topology.unserved(id, &self.view()) {
            add(text);
        }
        let frozen = life.as_ref().is_some_and(|life| self.containment.is_frozen(life));
        if frozen {
            add("frozen".to_owned());
        }
        self.topics.readiness.words(id).for_each(|words| add(words.clone()));
        let checked = self.topics.health.of(id);
        if let Some(checked) = checked.filter(|checked| checked.state == HealthState::Unhealthy) {
            let why = checked.last.as_deref().unwrap_or_default();
            let quarantined = if checked.quarantine.is_some() { "in quarantine, " } else { "" };
            add(format!("{quarantined}unhealthy: {why}"));
        }
        let schedule = self.shown_schedule(id);
        let next_run = schedule.as_ref().and_then(|schedule| schedule.next_run);
        if let Some(next) = next_run.filter(|_| gateway.awaits_run()) {
            add(format!("next run at {}", local(next)));
        }
        if service.gone != Gone::No {
            add("definition gone".to_owned());
        }
        if let Some(why) = self.topics.definitions.refused_since(&service.name) {
            add(why);
        }
        if let Some(edited) = self.view().edited(id) {
            add(edited);
        }
        if self.is_not_in_force(id) {
            add("its changed definition is not in force: restart it".to_owned());
        }
        if let Some(kills) = usage.as_ref().and_then(|usage| usage.oom_kills).filter(|kills| *kills > 0) {
            add(format!("out of memory: the kernel killed {kills} of its processes"));
        }
        let high_at = life.as_ref().and(self.topics.limits.high_at(id)).map(|at| Utc(wall(at)));
        if let Some(at) = high_at {
            add(format!("its memory was at memory_high, last at {at}"));
        }
        let (limits, limits_not_in_force) = self.shown_limits(id, life.is_some());
        let log = self.logs.health(SourceId(id.0));
        if log.dropped_from_file + log.dropped_from_stream > 0 {
            add(format!(
                "log lines left out: {} of the file, {} of the container's stream",
                log.dropped_from_file, log.dropped_from_stream
            ));
        }
        if let Some(error) = log.file_error {
            add(format!("log not written: {error}"));
        }
        Some(ServiceStatus {
            name: service.name.to_string(),
            description: service.definition.description.clone(),
            kind: match (&service.definition.origin, gateway.policy().kind) {
                (Origin::Profile { .. }, _) => Kind::Gateway,
                (_, policy::Kind::Daemon) => Kind::Daemon,
                (_, policy::Kind::Oneshot | policy::Kind::Scheduled) => Kind::Oneshot,
            },
            want: gateway.want(),
            state: self.state(id)?,
            frozen,
            awaits_ready: gateway.state() == State::Up && gateway.policy().ready.is_some(),
            served_by: match gateway.elsewhere() {
                Some(Elsewhere::Served { by }) => Some(by.to_string()),
                Some(Elsewhere::Parked) | None => None,
            },
            reason: (!reason.is_empty()).then_some(reason),
            pid: gateway.pid().and_then(|pid| u32::try_from(pid).ok()),
            since: Some(Utc(wall(gateway.since()))),
            health: checked.map(|checked| Health {
                state: checked.state,
                failures: checked.failures,
                reason: checked.last.clone(),
                quarantine: checked.quarantine.clone(),
            }),
            ready_since: gateway.ready_since().map(|at| Utc(wall(at))),
            uptime_ms: matches!(gateway.phase(), Phase::Up).then(|| millis(now.since(gateway.since()))),
            restarts: history.restarts,
            next_retry_ms: match gateway.phase() {
                Phase::Backoff { until } => Some(millis(until.since(now))),
                _ => None,
            },
            last_exit: history.last_exit.map(|(exit, at)| LastExit::new(exit, Some(Utc(wall(at))))),
            containment: life
                .as_ref()
                .and_then(|life| self.containment.rung(life))
                .map(|rung| rung.to_string()),
            containment_weakness: life
                .as_ref()
                .and_then(|life| self.containment.weakness(life))
                .map(ToOwned::to_owned),
            procs: usage.as_ref().map(|usage| usage.procs as u64),
            memory_bytes: usage.as_ref().and_then(|usage| usage.memory_bytes),
            memory_peak_bytes: usage.as_ref().and_then(|usage| usage.memory_peak_bytes),
            cpu_ms: usage.as_ref().and_then(|usage| usage.cpu_ms),
            oom_kills: usage.as_ref().and_then(|usage| usage.oom_kills),
            memory_high_at: high_at,
            io: usage
                .as_ref()
                .and_then(|usage| usage.io)
                .map(|(read_bytes, write_bytes)| Io { read_bytes, write_bytes }),
            pressure: usage
                .as_ref()
                .map(|usage| usage.pressure)
                .filter(|all| all.iter().any(Option::is_some))
                .map(|[cpu, memory, io]| Pressure { cpu, memory, io }),
            log: Some(self.options.home.join(log_dir(service))),
            limits: (!limits.is_empty()).then_some(limits),
            limits_not_in_force,
            definition: Some(self.view().origin(id)),
            log_dropped: log.dropped_from_file + log.dropped_from_stream,
            starts_after: service.definition.after.iter().map(ToString::to_string).collect(),
            first_start: service.first_start.shown(self.clock.started()),
            schedule,
        })
    }

    fn shown_schedule(&self, id: ServiceId) -> Option<Schedule> {
        let when = self.services.get(&id)?.definition.schedule.as_ref()?.to_string();
        let runs = self.fleet.gateway(id)?.history().runs.as_ref();
        let next_run = self.topics.schedules.next(id).map(|next| match next {
            Moment::Tick(at) => wall_now() + self.clock.until(at),
            Moment::Wall(at) => UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or(0)),
        });
        Some(Schedule {
            when,
            last_run: runs.and_then(|runs| runs.started).map(|at| Utc(wall(at))),
            next_run: next_run.map(Utc),
            skipped: runs.map_or(0, |runs| runs.skipped),
        })
    }
}
