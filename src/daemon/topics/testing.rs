//! A supervisor's world in memory, for tests of topics: a fleet that is really stepped, and trees that are as a test says.

use crate::containment::{IncarnationId, Rung};
use crate::core::clock::Tick;
use crate::core::event::Event;
use crate::core::fleet::{Fleet, FleetEffects, ParallelStarts, ServiceId};
use crate::core::gateway::{History, Restored};
use crate::core::name::ServiceName;
use crate::core::words::{LogFormat, Want};
use crate::daemon::services::{Service, Services};
use crate::daemon::view::{Trees, View};
use crate::daemon::{Gateways, Options};
use crate::definition::resolved::Definition;
use crate::definition::template::Profile;
use crate::definition::trust::Trust;
use crate::definition::{Surroundings, Template};
use crate::sys::users::nameless;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

pub const HOME: &str = "/opt/data";
/// Of the gateway user, whom all services here run as.
pub const GATEWAY_UID: u32 = 10000;

#[derive(Default)]
pub struct FakeTrees {
    pub frozen: BTreeSet<IncarnationId>,
    pub hanging: BTreeMap<IncarnationId, String>,
    pub held: BTreeSet<IncarnationId>,
    pub pids_refused: BTreeMap<IncarnationId, u64>,
}

impl Trees for FakeTrees {
    fn is_frozen(&self, life: &IncarnationId) -> bool {
        self.frozen.contains(life)
    }

    fn hanging(&self, life: &IncarnationId) -> Option<String> {
        self.hanging.get(life).cloned()
    }

    fn is_held(&self, life: &IncarnationId) -> bool {
        self.held.contains(life)
    }

    fn pids_refused(&self, life: &IncarnationId) -> u64 {
        self.pids_refused.get(life).copied().unwrap_or(0)
    }
}

pub struct World {
    pub now: Tick,
    pub fleet: Fleet,
    pub services: Services,
    pub options: Options,
    pub around: Surroundings,
    pub trees: FakeTrees,
    pub main: Option<i32>,
    pub trust: Trust,
    pub closing: bool,
}

/// Those of a supervisor with this home that nobody gave any.
pub fn options(home: PathBuf) -> Options {
    Options {
        state: home.join("supervisor"),
        home,
        services: Vec::new(),
        socket: None,
        rung: None::<Rung>,
        controllers: true,
        gateways: Gateways::Wanted,
        gateway_user: None,
        main_user: None,
        stop_budget: Duration::from_secs(9),
        s6_surface: false,
        public_status: false,
        metrics: None,
        demo: false,
        parallel_starts: ParallelStarts::Any,
        environment: BTreeMap::new(),
        log_level: slog::Level::Info,
        log_format: LogFormat::Text,
        log_prefix: false,
    }
}

impl Default for World {
    fn default() -> Self {
        let home = PathBuf::from(HOME);
        Self {
            now: Tick(1_000_000),
            fleet: Fleet::default(),
            services: Services::default(),
            around: Surroundings {
                home: home.clone(),
                gateway: nameless(GATEWAY_UID, GATEWAY_UID),
                own_uid: 0,
            },
            trees: FakeTrees::default(),
            main: None,
            trust: Trust::Trusted,
            closing: false,
            options: options(home),
        }
    }
}

impl World {
    pub fn view(&self) -> View<'_> {
        View {
            now: self.now,
            fleet: &self.fleet,
            services: &self.services,
            options: &self.options,
            around: &self.around,
            trees: &self.trees,
            main: self.main,
            trust: &self.trust,
            closing: self.closing,
        }
    }

    /// A Hermes gateway, at rest.
    pub fn gateway(&mut self, name: &str) -> ServiceId {
        let name = ServiceName::new(name).unwrap();
        let definition = Template::built_in().gateway(&name, &Profile::named(&name), &self.around).unwrap();
        self.add(definition)
    }

    /// Any other service, at rest.
    pub fn add(&mut self, definition: Definition) -> ServiceId {
        let (after, requires) = (definition.after.clone(), definition.requires.clone());
        let id = self.fleet.add(definition.name.clone(), definition.policy.clone(), after, requires, 0);
        self.services.insert(id, Box::new(Service::new(definition, None)));
        let rest = Restored {
            want: Want::Down,
            recorded: true,
            history: History::default(),
            living: None,
            finished: false,
            needed: None,
        };
        self.fleet.boot([(id, rest)].into(), self.now);
        id
    }

    pub fn step(&mut self, id: ServiceId, event: Event) -> FleetEffects {
        self.fleet.step(id, event, self.now)
    }

    pub fn after(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// The service runs, wanted up, with this pid.
    pub fn up(&mut self, id: ServiceId, pid: i32) -> IncarnationId {
        let history = self.fleet.gateway(id).map(|gateway| gateway.history().clone()).unwrap_or_default();
        let restored =
            Restored { want: Want::Up, recorded: true, history, living: None, finished: false, needed: None };
        self.fleet.boot([(id, restored)].into(), self.now);
        let n = self.fleet.gateway(id).unwrap().history().incarnation;
        self.step(id, Event::Spawned { incarnation: n, pid });
        self.view().life(id).unwrap()
    }
}
