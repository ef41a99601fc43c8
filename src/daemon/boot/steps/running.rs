//! Last step: all services become known and go where the database wants them, and the main program starts.

use crate::control::protocol::{Event, EventKind};
use crate::core::clock::LostTime;
use crate::core::fleet::ParallelStarts;
use crate::daemon::boot::ownership::adoption::Inheritance;
use crate::daemon::boot::ownership::runtime_dir::goes_with_the_container;
use crate::daemon::boot::reading::late::Late;
use crate::daemon::boot::steps::contained::Contained;
use crate::daemon::boot::steps::opened::Opened;
use crate::daemon::boot::steps::planned::{Planned, first_line, note_is_kept};
use crate::daemon::boot::steps::prepared::Prepared;
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::inbox::Inbox;
use crate::daemon::serve::log_files::Handing;
use crate::daemon::services::launch::dev_null;
use crate::daemon::services::starts::Starts;
use crate::daemon::sources::listeners::Listeners;
use crate::daemon::sources::pressure::Pressure;
use crate::daemon::sources::probes::Probes;
use crate::daemon::sources::reaping::Unreaped;
use crate::daemon::sources::root_watch::RootWatch;
use crate::daemon::surface::slots::Supervised;
use crate::daemon::topics::admission::Admission;
use crate::daemon::topics::definitions::Definitions;
use crate::daemon::topics::definitions::found::{Found, Plan};
use crate::daemon::topics::limits::ServiceLimits;
use crate::daemon::topics::scanning::Scanning;
use crate::daemon::trace;
use crate::daemon::upgrade::handover::Handover;
use crate::daemon::view::decide;
use crate::daemon::{STORE, Supervisor, Topics};
use crate::definition::programs::Programs;
use crate::monitor::endpoint;
use crate::store;
use mio::Poll;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The topic of what is wrong with the endpoint.
const METRICS: &str = "metrics";

impl Supervisor {
    /// Begins to supervise.
    pub(in crate::daemon::boot) fn running(
        prepared: Prepared,
        opened: Opened,
        contained: Contained,
        planned: Planned,
    ) -> Result<(Box<Self>, Poll), StartError> {
        let Planned { reconciled, cmd } = planned;
        let (mut supervisor, parts) = Self::assemble(prepared, opened, contained)?;
        let Parts { poll, mut rows, found, plan, former, inheritance } = parts;
        let (goes_on, continued) = (inheritance.goes_on, inheritance.continued);
        let stopped = inheritance.stopped.clone();
        supervisor.topics.events.remember(&std::mem::take(&mut rows.journal));
        let begun = format!("{}, version {}", first_line(&supervisor.report), env!("CARGO_PKG_VERSION"));
        supervisor
            .happened(Event { pid: Some(std::process::id()), ..Event::info(EventKind::Started, begun) });
        let restored = supervisor.boot_services(plan, &rows, &found, &reconciled, inheritance, &cmd);
        let mut told = former.as_ref().map(|former| former.told.clone()).unwrap_or_default();
        for service in supervisor.services.values_mut() {
            service.told = told.remove(service.name.as_str());
        }
        if let Some(closing) = former.as_ref().and_then(|former| former.closing) {
            let farewell = supervisor.farewell_of_all();
            decide!(supervisor.shutdown.resume(closing, farewell));
        }
        supervisor.say_late(&found.late);
        let is_late = found.is_incomplete();
        let late = is_late.then(|| {
            Box::new(Late { opened: rows, cmd: cmd.clone(), goes_on, continued, stopped: stopped.clone() })
        });
        supervisor.late = late;
        // What was read is not needed any more: its memory is for what the services need.
        drop((found, reconciled));
        supervisor.boot_fleet(restored);
        supervisor.record_stops(&stopped);
        supervisor.deal();
        note_is_kept(&supervisor.wakeups);
        // The first of them before the main program; of a small fleet, all.
        supervisor.start_some();
        match former {
            None => supervisor.boot_main(cmd)?,
            Some(former) => supervisor.go_on(former),
        }
        // Somebody may have claimed the state before we listened.
        supervisor.claimed();
        // Of those that were taken over, or that fell to us, some may have ended before there was anybody to hear of it.
        supervisor.reap();
        Ok((supervisor, poll))
    }

    /// Where that cannot be, it is said, and supervision goes on.
    pub(in crate::daemon::boot) fn serve_metrics(&mut self) {
        let Some(address) = self.options.metrics else { return };
        match endpoint::start(address, &self.socket) {
            Ok(address) => slog::info!(self.log, "metrics are served at http://{address}/metrics"),
            Err(error) => {
                let text = format!("metrics are not served: {address}: {error}");
                slog::warn!(self.log, "{text}");
                self.warnings.push((METRICS, text));
            }
        }
    }

    fn assemble(
        prepared: Prepared,
        opened: Opened,
        contained: Contained,
    ) -> Result<(Box<Self>, Parts), StartError> {
        let given = prepared.given;
        let warnings = say_warnings(&opened.rows, &given.log);
        let inheritance = Inheritance {
            lives: contained.adopted,
            goes_on: contained.goes_on,
            continued: given.former.is_some(),
            stopped: given.former.iter().flat_map(Handover::stopped).collect(),
        };
        let template = contained.found.loaded.template.clone();
        let late = contained.found.is_incomplete();
        let topics = Topics {
            limits: ServiceLimits::from_rows(&opened.rows.limits),
            definitions: Definitions::at_start(template, &contained.plan, &opened.rows, late),
            scanning: Scanning::new(given.options.s6_surface),
            admission: Admission::new(given.options.parallel_starts, processors()),
            ..Topics::default()
        };
        let mut fleet = trace::fleet(&opened.identity.instance);
        fleet.limit_starts(topics.admission.places());
        let pressure = match given.options.parallel_starts {
            ParallelStarts::Auto => Pressure::open(),
            ParallelStarts::Any | ParallelStarts::AtMost(_) => Pressure::Unknown,
        };
        let supervisor = Self {
            options: given.options,
            log: given.log,
            clock: prepared.clock,
            lost_time: LostTime::default(),
            wakeups: prepared.wakeups,
            fleet,
            services: BTreeMap::new(),
            inbox: Inbox::default(),
            outbox: VecDeque::new(),
            starts: Starts::default(),
            unreaped: Unreaped::default(),
            surroundings: prepared.around,
            containment: contained.containment,
            finished: contained.finished,
            report: contained.report,
            container: given.container,
            logs: opened.logs,
            store: opened.store,
            commits: HashMap::new(),
            next_commit: 0,
            server: opened.server,
            topics,
            handing: Handing::default(),
            listeners: Listeners::default(),
            probes: Probes::default(),
            pressure,
            beside: BTreeMap::new(),
            main: contained.main,
            panics: given.former.as_ref().map(|former| former.panics.clone()).unwrap_or_default(),
            warnings,
            programs: Programs::default(),
            null: dev_null().map_err(StartError::kernel("open /dev/null"))?,
            nofile: given.nofile,
            instance: opened.identity.instance,
            _alive: opened.identity.alive,
            state_trust: contained.found.state_trust.clone(),
            names_go_with_us: goes_with_the_container(&opened.identity.runtime_dir),
            runtime_dir: opened.identity.runtime_dir,
            socket: opened.socket,
            has_hermes: prepared.has_hermes,
            scan_watch: prepared.scan_watch,
            supervised: Supervised::default(),
            late: None,
            busy: prepared.busy,
            giving_way: opened.giving_way,
            profile_watch: prepared.profile_watch,
            root_watch: RootWatch::default(),
            herald: given.herald,
        };
        let parts = Parts {
            poll: prepared.poll,
            rows: opened.rows,
            found: contained.found,
            plan: contained.plan,
            former: given.former,
            inheritance,
        };
        Ok((Box::new(supervisor), parts))
    }
}

/// That may be used here, a quota of the cgroup counted in.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the steps before know and the supervisor has no place for.
struct Parts {
    poll: Poll,
    rows: store::Opened,
    found: Found,
    plan: Plan,
    former: Option<Handover>,
    inheritance: Inheritance,
}

/// What is wrong with the state, by its topic: that nothing is recorded goes when the store recovers.
fn say_warnings(opened: &store::Opened, log: &slog::Logger) -> Vec<(&'static str, String)> {
    let lasting = opened.warnings.iter().map(|warning| ("state", warning.clone()));
    let warnings: Vec<_> = lasting.chain(opened.unrecorded().map(|line| (STORE, line))).collect();
    warnings.iter().for_each(|(_, warning)| slog::warn!(log, "{warning}"));
    warnings
}
