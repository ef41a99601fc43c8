//! The hot paths, each as one function over public interfaces, for the micro-benchmarks and for the counting of
//! instructions alike.

use hermes_sup::core::clock::Tick;
use hermes_sup::core::effect::Effect;
use hermes_sup::core::event::{Command, Event, Ticket};
use hermes_sup::core::exit::Exit;
use hermes_sup::core::fleet::{Fleet, FleetEffects, ServiceId};
use hermes_sup::core::gateway::{History, Restored};
use hermes_sup::core::name::ServiceName;
use hermes_sup::core::policy::Policy;
use hermes_sup::core::words::{Cause, Overflow, Want};
use hermes_sup::log::{Container, LogEvent, LogSpec, Logs, SourceId};
use hermes_sup::store::{self, Change, Store, StoreEvent, WantRow};
use hermes_sup::sys::credentials::Credentials;
use hermes_sup::sys::spawn::plan::{CapabilityMasks, ChildPlan};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn name(id: usize) -> ServiceName {
    ServiceName::new(&format!("s{id}")).expect("a name")
}

/// The core with N services, and a world in which everything that it asks for succeeds at once.
pub struct Core {
    fleet: Fleet,
    ids: Vec<ServiceId>,
    now: Tick,
    /// The life of each service, by number.
    lives: BTreeMap<ServiceId, u64>,
    tickets: u64,
}

impl Core {
    pub fn new(services: usize) -> Self {
        let mut fleet = Fleet::default();
        let ids: Vec<ServiceId> = (0..services)
            .map(|id| fleet.add(name(id), Policy::default(), Vec::new(), Vec::new(), 1))
            .collect();
        let mut core = Self { fleet, ids, now: Tick(0), lives: BTreeMap::new(), tickets: 0 };
        let rest = |id: &ServiceId| {
            (
                *id,
                Restored {
                    want: Want::Up,
                    recorded: true,
                    history: History::default(),
                    living: None,
                    finished: false,
                    needed: None,
                },
            )
        };
        let restored = core.ids.iter().map(rest).collect();
        let effects = core.fleet.boot(restored, core.now);
        core.settle(effects);
        assert_eq!(core.lives.len(), services, "all of them run");
        core
    }

    /// One service crashes after a good minute, and runs again.
    pub fn crash(&mut self) {
        self.now = self.now.after(Duration::from_secs(61));
        let id = self.ids[self.ids.len() / 2];
        let incarnation = self.lives[&id];
        self.step(id, Event::MainExited { incarnation, exit: Exit::Code(1) });
        assert!(self.lives[&id] > incarnation, "it runs again");
    }

    /// One service is stopped and started by an operator.
    pub fn stop_and_start(&mut self) {
        let id = self.ids[self.ids.len() / 2];
        for command in [Command::Stop, Command::Start { force: false }] {
            self.tickets += 1;
            self.step(id, Event::Command { ticket: Ticket(self.tickets), command });
        }
    }

    fn step(&mut self, id: ServiceId, event: Event) {
        let effects = self.fleet.step(id, event, self.now);
        self.settle(effects);
    }

    fn settle(&mut self, effects: FleetEffects) {
        let mut queue = VecDeque::from(effects);
        while let Some((id, effect)) = queue.pop_front() {
            let answers = match effect {
                Effect::Record { seq, .. } => vec![Event::Recorded { seq }],
                Effect::Spawn { incarnation } => {
                    self.lives.insert(id, incarnation);
                    vec![Event::Spawned { incarnation, pid: 1000 }]
                }
                Effect::SignalMain { incarnation, .. } => {
                    vec![Event::MainExited { incarnation, exit: Exit::Code(0) }]
                }
                Effect::KillTree { incarnation } => vec![Event::TreeEmpty { incarnation }],
                Effect::DrainLogs { incarnation } => vec![Event::LogsDrained { incarnation }],
                _ => Vec::new(),
            };
            for answer in answers {
                queue.extend(self.fleet.step(id, answer, self.now));
            }
        }
    }
}

/// What a start takes without the kernel: the plan of a child, in bytes for the process that clones, and read there.
pub struct Start {
    null: File,
    environment: Vec<(String, String)>,
}

impl Start {
    /// With as many variables as a container has.
    pub fn new() -> Self {
        let null = File::open("/dev/null").expect("/dev/null");
        let variable = |id| (format!("VARIABLE_{id}"), format!("/opt/data/of/some/length/{id}"));
        let path =
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        Self { null, environment: (0..24).map(variable).chain([path]).collect() }
    }

    pub fn plan(&self) {
        let null = || self.null.try_clone().expect("a descriptor").into();
        let variables = self.environment.iter().map(|(key, value)| (key, value));
        let argv = ["hermes", "-p", "coder", "gateway", "run", "--replace"];
        let home = Some(OsStr::new("/opt/data"));
        let mut plan = ChildPlan::new(&argv, variables, home, [null(), null(), null()]).expect("a plan");
        plan.set_env("HERMES_S6_SUPERVISED_CHILD", "1").expect("a variable");
        plan.identity = Some(Credentials::own());
        plan.no_new_privs = true;
        plan.capabilities = Some(CapabilityMasks { bounding: 0, ambient: 0 });
        plan.nofile = Some((1024, 1_048_576));
        let bytes = plan.encode();
        let read = ChildPlan::decode(&bytes, vec![null(), null(), null()]).expect("the same plan");
        assert_eq!(read.envp().len(), self.environment.len() + 1);
    }
}

/// The log room with one service, its output to /dev/null and into rotated files.
pub struct Room {
    logs: Logs,
    events: Receiver<LogEvent>,
    service: File,
    _dirs: [tempfile::TempDir; 2],
}

const SERVICE: SourceId = SourceId(1);

impl Room {
    pub fn new() -> Self {
        let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        let null = || File::options().write(true).open("/dev/null").expect("/dev/null").into();
        let container = Container::on([Some(null()), Some(null())]).expect("streams");
        let (notify, events) = channel();
        let notify = move |event| {
            let _ = notify.send(event);
        };
        let logs = Logs::start(dirs[0].path(), container, notify).expect("threads");
        let spec = LogSpec {
            name: name(1),
            home: dirs[1].path().to_owned(),
            dir: Path::new("logs/gateways/s1").to_owned(),
            max_size: 1_000_000,
            keep: 10,
            to_container: true,
            dress: hermes_sup::log::Dress::Plain,
            overflow: Overflow::Block,
            owner: Credentials::own(),
            readers: None,
            writer: Credentials::own(),
        };
        logs.open(SERVICE, spec).expect("FIFOs");
        logs.announce(false);
        let (service, _) = logs.child_ends(SERVICE).expect("the service's end");
        Self { logs, events, service: service.into(), _dirs: dirs }
    }

    /// That many bytes of lines of 100 bytes, until they are in the file.
    pub fn flood(&mut self, bytes: usize) {
        let mut block = Vec::with_capacity(8000);
        while block.len() < 8000 {
            block.extend_from_slice(&[b'x'; 99]);
            block.push(b'\n');
        }
        for _ in 0..bytes / block.len() {
            self.service.write_all(&block).expect("the FIFO is read");
        }
        let drained = self.logs.drain(SERVICE);
        while !drained
            && self.events.recv_timeout(Duration::from_secs(60)).expect("an event")
                != LogEvent::Drained(SERVICE)
        {}
    }
}

/// The database in a directory of its own.
pub struct Database {
    store: Store,
    events: Receiver<StoreEvent>,
    ticket: u64,
    _dir: tempfile::TempDir,
}

impl Database {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let options = store::Options {
            home: dir.path().to_owned(),
            dir: dir.path().join("supervisor"),
            gid: rustix::process::getegid().as_raw(),
            host: "bench".into(),
            patience: Duration::from_secs(60),
            gives_way: None,
            is_init: false,
        };
        let (notify, events) = channel();
        let notify = std::sync::Mutex::new(notify);
        let notify = move |event| {
            let _ = notify.lock().map(|notify| notify.send(event));
        };
        let (store, opened) = store::begin(options, notify)
            .and_then(|opening| opening.wait(|| true))
            .expect("a fresh database");
        assert_eq!(opened.volatile, None);
        Self { store, events, ticket: 0, _dir: dir }
    }

    /// `count` wants of different services in one commit, until it is on the disk.
    pub fn commit(&mut self, count: usize) {
        self.ticket += 1;
        let row = |want| WantRow {
            want,
            asked_by_uid: Some(0),
            asked_at_ms: self.ticket,
            cause: Cause::Operator,
            definition_hash: None,
        };
        let want = if self.ticket.is_multiple_of(2) { Want::Up } else { Want::Down };
        let changes = (0..count).map(|id| Change::Want(name(id), row(want))).collect();
        self.store.commit(self.ticket, changes);
        let ticket = self.ticket;
        while self.events.recv_timeout(Duration::from_secs(60)).expect("an event")
            != (StoreEvent::Committed { ticket })
        {}
    }
}
