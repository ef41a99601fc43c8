//! The scan directory of the s6 surface: what is in it becomes services, and gateways are shown in it.
//!
//! A slot `gateway-X` is the gateway X: the template's user, policy and environment, with the slot's `run` as the
//! command. Any other slot is a service of its own. The directory is read when something is renamed into it or removed,
//! and when `s6-svscanctl` asks, on the thread that may wait for files; a directory that is still being filled is
//! nobody's business before that. Slots of the image itself come from its bundle and are only shown.
//!
//! Invariant: a slot runs as root only if nobody but root could have put it there. Whoever owns a scan directory can
//! rename in it, so there nothing runs as root, whoever owns the slot itself; and it is looked at again at each start.

use super::sources::{Room, plain_token};
use super::surface::{SCAN_DIRECTORY, static_slots};
use super::{Notice, Supervisor};
use crate::control::protocol::{Refusal, RefusalKind, Reply};
use crate::control::server::ConnId;
use crate::core::event::{Command, Event};
use crate::core::fingerprint::fingerprint;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Want;
use crate::core::name::{DASHBOARD, ServiceName};
use crate::core::policy::{Policy, StopPolicy};
use crate::definition::resolved::{ContainmentChoice, LogPolicy, Origin, Ready, RunAs, Security, Slot};
use crate::definition::{Definition, Surroundings};
use crate::s6::bundle;
use crate::s6::materialise::{self, GatewaySlot};
use crate::s6::scan::{Opened, ScanDir};
use crate::s6::slot::{self, FinishTimeout, GATEWAY_PREFIX, Run};
use crate::sys::credentials::Credentials;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A slot of the image that has no process: it is there because an s6 bundle must not be empty.
const VIRTUAL: &str = "main-hermes";
/// The patience of a service that reports readiness.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Variables on which the image's dashboard depends: another value is another definition.
const DASHBOARD_VARIABLES: &str = "HERMES_DASHBOARD";

/// What the scan directory holds.
#[derive(Debug, Default)]
pub struct Slots {
    /// By profile: its slot, and whether that says `down`.
    pub gateways: BTreeMap<ServiceName, (Slot, bool)>,
    pub others: BTreeMap<ServiceName, Definition>,
    /// Directories without a `run`: still being filled, or being removed. They make no service and end none.
    pub incomplete: BTreeSet<PathBuf>,
    pub warnings: Vec<String>,
}

impl Slots {
    /// Reads it. Blocks.
    ///
    /// # Errors
    /// When the directory itself cannot be read.
    pub fn read(around: &Surroundings) -> io::Result<Self> {
        let scandir = ScanDir::open(Path::new(SCAN_DIRECTORY), around)?;
        let shown: BTreeSet<OsString> = static_slots().into_iter().map(OsString::from).collect();
        let scan = scandir.scan(&shown)?;
        let mut slots = Self { warnings: scan.warnings, ..Self::default() };
        let (own, owner) = (Credentials::own(), around.gateway.credentials());
        for (slot_name, read) in scan.slots {
            let name = match ServiceName::of_slot(slot::service_of(&slot_name)) {
                Ok(name) => name,
                Err(error) => {
                    slots.warnings.push(format!("{SCAN_DIRECTORY}/{slot_name} is skipped: {error}"));
                    continue;
                }
            };
            let dir = Path::new(SCAN_DIRECTORY).join(&slot_name);
            if read.run == Run::Missing {
                // Somebody who removed it while we made these directories was left with them.
                if !materialise::remove_remains(scandir.dir(), &slot_name, &owner) {
                    slots.incomplete.insert(dir);
                }
                continue;
            }
            if let Ok(dir) = scandir.dir().dir(Path::new(&slot_name)) {
                // Clients of s6 take these directories for the sign of a supervised slot; none of ours needs them.
                let of_root = rustix::fs::fstat(&dir).is_ok_and(|stat| stat.st_uid == 0);
                let _ = materialise::make_supervise(&dir, if of_root { &own } else { &owner });
            }
            let place = Slot { dir, name: slot_name };
            if place.name.starts_with(GATEWAY_PREFIX) {
                slots.gateways.insert(name, (place, read.down));
            } else {
                slots.warnings.extend(unlogged(&place, &read));
                slots.others.insert(name.clone(), definition(name, place, &read, Vec::new(), around));
            }
        }
        Ok(slots)
    }
}

/// The services that the image brings, as definitions, and what is wrong with them. Blocks.
pub fn image_services(
    around: &Surroundings,
    environment: &BTreeMap<OsString, OsString>,
) -> (BTreeMap<ServiceName, Definition>, Vec<String>) {
    let read = bundle::read(Path::new(bundle::SOURCES), Path::new(bundle::LEGACY));
    let (mut services, mut warnings) = (BTreeMap::new(), read.warnings);
    for member in read.members.into_iter().filter(|member| member.name != VIRTUAL) {
        match image_service(&member, around, &mut warnings) {
            Ok(mut service) => {
                if service.name.as_str() == DASHBOARD {
                    become_dashboard(&mut service, environment);
                }
                services.insert(service.name.clone(), service);
            }
            Err(error) => warnings.push(format!("{} is skipped: {error}", member.dir.display())),
        }
    }
    (services, warnings)
}

fn image_service(
    member: &bundle::Member,
    around: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<Definition, String> {
    let name = ServiceName::of_slot(&member.name).map_err(|error| error.to_string())?;
    let opened = open_slot(&member.dir, around)?;
    let place = Slot { dir: member.dir.clone(), name: member.name.clone() };
    warnings.extend(opened.warnings);
    warnings.extend(unlogged(&place, &opened.slot));
    let after = member.depends_on.iter().filter_map(|name| ServiceName::of_slot(name).ok()).collect();
    Ok(definition(name, place, &opened.slot, after, around))
}

/// Opens a service directory where it lies, judged by all that leads to it.
fn open_slot(dir: &Path, around: &Surroundings) -> Result<Opened, String> {
    let parent = ScanDir::open(dir.parent().unwrap_or(Path::new("/")), around).map_err(|e| e.to_string())?;
    parent.slot(&OsString::from(dir.file_name().unwrap_or_default())).map_err(|error| error.to_string())
}

/// Nothing in the dashboard needs root, and the gateway user is to control it. Its variables are its definition.
fn become_dashboard(service: &mut Definition, environment: &BTreeMap<OsString, OsString>) {
    service.user = RunAs::Gateway;
    let of_it = environment
        .iter()
        .filter(|(key, _)| key.to_str().is_some_and(|key| key.starts_with(DASHBOARD_VARIABLES)));
    let values: Vec<_> =
        of_it.flat_map(|(key, value)| [key.to_string_lossy(), value.to_string_lossy()]).collect();
    service.hash = fingerprint(values.iter().map(|value| &**value));
}

/// What is to be said of a logger that has nothing to do here.
fn unlogged(place: &Slot, read: &slot::Slot) -> Option<String> {
    let dir = place.dir.display();
    read.logger
        .then(|| format!("{dir}/log/run is not executed: the supervisor writes the log of '{}'", place.name))
}

/// The service that a slot is when it is no gateway.
fn definition(
    name: ServiceName,
    place: Slot,
    read: &slot::Slot,
    after: Vec<ServiceName>,
    around: &Surroundings,
) -> Definition {
    let default = Policy::default();
    let policy = Policy {
        stop: StopPolicy {
            signal: read.down_signal.unwrap_or(default.stop.signal),
            // Without a limit of its own it gets ours: a stop ends.
            timeout: read.timeout_kill.unwrap_or(default.stop.timeout),
            ..default.stop
        },
        ready: read.notification_fd.map(|_| READY_TIMEOUT),
        finish: read.finish.map(|limit| match limit {
            FinishTimeout::After(limit) => limit,
            FinishTimeout::Never => Duration::MAX,
        }),
        ..default
    };
    let as_root = read.root_owned && around.own_uid == 0;
    Definition {
        name,
        origin: Origin::Slot,
        command: vec!["./run".to_owned()],
        user: if as_root { RunAs::Named("0".to_owned()) } else { RunAs::Gateway },
        working_dir: place.dir.clone(),
        env: BTreeMap::new(),
        env_file: None,
        umask: None,
        autostart: !read.down,
        hash: fingerprint([format!("{policy:?}").as_str(), &format!("{as_root} {after:?}")]),
        policy,
        after,
        requires: Vec::new(),
        containment: ContainmentChoice::Auto,
        ready: read.notification_fd.and_then(|fd| i32::try_from(fd).ok()).map_or(Ready::None, Ready::Fd),
        slot: Some(place),
        log: LogPolicy::default(),
        security: Security::INHERITED,
    }
}

/// Makes the slot's `run` the command of a gateway.
pub fn run_in(definition: &mut Definition, slot: Slot) {
    definition.command = vec!["./run".to_owned()];
    definition.working_dir.clone_from(&slot.dir);
    definition.slot = Some(slot);
}

/// Shows gateways as slots, each with its want as the file `down`, then reads the directory. Blocks.
///
/// # Errors
/// As [`Slots::read`]; a gateway that cannot be shown is a warning.
pub fn show(gateways: &[(ServiceName, Want)], around: &Surroundings) -> io::Result<Slots> {
    let owner = around.gateway.credentials();
    let scandir = ScanDir::open(Path::new(SCAN_DIRECTORY), around)?;
    let mut warnings = Vec::new();
    for (profile, want) in gateways {
        let down = *want == Want::Down;
        let wanted = GatewaySlot { profile, home: &around.home, user: &around.gateway.name, down };
        if let Err(error) = materialise::materialise(scandir.dir(), &wanted, &owner) {
            warnings
                .push(format!("the slot of '{profile}' cannot be made, 'hermes' will not see it: {error}"));
        }
    }
    let mut slots = Slots::read(around)?;
    slots.warnings.extend(warnings);
    Ok(slots)
}

/// Whether it is a slot that runs as root.
pub fn runs_as_root(definition: &Definition) -> bool {
    definition.slot.is_some() && definition.user != RunAs::Gateway
}

/// Looks again whether a slot may run as root, if it is to. Blocks.
///
/// # Errors
/// Why not, in words.
pub fn check_root(definition: &Definition, around: &Surroundings) -> Result<(), String> {
    let Some(Slot { dir, .. }) = definition.slot.as_ref().filter(|_| runs_as_root(definition)) else {
        return Ok(());
    };
    let opened = open_slot(dir, around)?;
    if opened.slot.root_owned {
        return Ok(());
    }
    let shown = dir.display();
    Err(format!(
        "{shown} is no longer root's alone: it does not run as root; 'hermes-sup ctl reload' reads it again"
    ))
}

// ---- While it is supervised -------------------------------------------------------------------------------------------

/// Who waits for a reading of the scan directory.
#[derive(Debug, Default)]
pub struct Scanning {
    watch: Option<OwnedFd>,
    under_way: bool,
    /// Waits for the reading that is under way.
    now: Vec<Caller>,
    /// Came later, and waits for the next one.
    next: Vec<Caller>,
    again: bool,
    /// Gateways to be shown with the next reading.
    show: Vec<(ServiceName, Want)>,
    /// What was complained about already.
    told: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Caller {
    conn: ConnId,
    /// Services whose slot is gone are stopped too.
    nuke: bool,
}

impl Scanning {
    /// Watches the directory.
    ///
    /// # Errors
    /// As inotify_init(2), inotify_add_watch(2), epoll_ctl(2).
    pub fn watch(registry: &Registry) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A directory that is made in place is still being filled: its maker says when it is ready.
        let flags = WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, SCAN_DIRECTORY, flags)?;
        let token = plain_token(Room::ScanDirectory);
        registry.register(&mut SourceFd(&watch.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { watch: Some(watch), ..Self::default() })
    }
}

impl Supervisor {
    /// Something was renamed into the scan directory, or removed from it.
    pub(super) fn scan_directory_changed(&mut self) {
        let Some(watch) = self.scanning.as_ref().and_then(|scanning| scanning.watch.as_ref()) else { return };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut space);
        while events.next().is_ok() {}
        self.scan(None);
    }

    /// `s6-svscanctl` asks for a reading; answered when it is acted on. False without a scan directory.
    pub(super) fn rescan(&mut self, conn: ConnId, nuke: bool) -> bool {
        if self.scanning.is_some() {
            self.scan(Some(Caller { conn, nuke }));
        }
        self.scanning.is_some()
    }

    /// Shows a gateway that has come to be known.
    pub(super) fn show_gateway(&mut self, profile: ServiceName, want: Want) {
        if let Some(scanning) = &mut self.scanning {
            scanning.show.push((profile, want));
            self.scan(None);
        }
    }

    /// Reads the scan directory, if there is one.
    pub(super) fn scan(&mut self, caller: Option<Caller>) {
        let Some(scanning) = &mut self.scanning else { return };
        if scanning.under_way {
            scanning.again = true;
            scanning.next.extend(caller);
            return;
        }
        scanning.now.append(&mut scanning.next);
        scanning.now.extend(caller);
        scanning.under_way = true;
        scanning.again = false;
        let gateways = std::mem::take(&mut scanning.show);
        let around = self.surroundings_now();
        let notifier = self.notifier.clone();
        let work = move || show(&gateways, &around);
        let done = move |slots: io::Result<io::Result<Slots>>| {
            notifier.send(Notice::Slots(slots.and_then(|slots| slots).map(Box::new)));
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            self.take_slots(Err(io::Error::other(refused)));
        }
    }

    /// The scan directory was read.
    pub(super) fn take_slots(&mut self, slots: io::Result<Box<Slots>>) {
        let Some(scanning) = &mut self.scanning else { return };
        scanning.under_way = false;
        let callers = std::mem::take(&mut scanning.now);
        let again = scanning.again;
        let answer = match slots {
            Ok(slots) if self.closing.is_none() => {
                self.adopt_slots(*slots, callers.iter().any(|caller| caller.nuke));
                Reply::End
            }
            Ok(_) => Reply::End,
            Err(error) => {
                let text = format!("{SCAN_DIRECTORY} was not read: {error}");
                self.tell_once(text.clone());
                Reply::Refused(Refusal::new(RefusalKind::Failed, text))
            }
        };
        for caller in callers {
            self.reply(caller.conn, &answer);
        }
        if again {
            self.scan(None);
        }
    }

    fn tell_once(&mut self, text: String) {
        let Some(scanning) = &mut self.scanning else { return };
        if scanning.told.insert(text.clone()) {
            slog::warn!(self.log, "{text}");
        }
    }

    fn adopt_slots(&mut self, slots: Slots, nuke: bool) {
        self.surroundings = self.surroundings_now();
        let Slots { gateways, others, incomplete, warnings } = slots;
        for warning in warnings {
            self.tell_once(warning);
        }
        let mut seen = incomplete;
        for (name, (slot, down)) in gateways {
            seen.insert(slot.dir.clone());
            match self.slot_gateway(&name, slot) {
                Ok(definition) => self.adopt_slot(definition, down),
                Err(complaint) => self.tell_once(complaint),
            }
        }
        for definition in others.into_values() {
            seen.extend(definition.slot.as_ref().map(|slot| slot.dir.clone()));
            let down = !definition.autostart;
            self.adopt_slot(definition, down);
        }
        let lost = |service: &super::services::Service| {
            let slot = service.definition.slot.as_ref();
            slot.is_some_and(|slot| slot.dir.starts_with(SCAN_DIRECTORY) && !seen.contains(&slot.dir))
        };
        let lost: Vec<ServiceId> =
            self.services.iter().filter(|(_, service)| lost(service)).map(|(id, _)| *id).collect();
        for id in lost {
            self.slot_is_gone(id, nuke);
        }
    }

    /// The definition of a gateway that has a slot.
    fn slot_gateway(&self, name: &ServiceName, slot: Slot) -> Result<Definition, String> {
        let mut definition = self.gateway_of_template(name)?;
        run_in(&mut definition, slot);
        Ok(definition)
    }

    fn adopt_slot(&mut self, definition: Definition, down: bool) {
        let Some(id) = self.fleet.id(definition.name.as_str()) else {
            let want = if down { Want::Down } else { Want::Up };
            self.introduce(definition, want, "slot", None);
            return;
        };
        let Some(service) = self.services.get_mut(&id) else { return };
        service.gone &= service.definition.slot.is_none();
        let old = &service.definition;
        if old.origin != definition.origin {
            let name = service.name.clone();
            let origin = self.origin(id);
            return self.tell_once(format!("the slot of '{name}' is ignored: {origin} comes first"));
        }
        if old.slot != definition.slot || old.hash != definition.hash {
            self.redefine(id, definition);
        }
    }

    fn slot_is_gone(&mut self, id: ServiceId, nuke: bool) {
        let Some(service) = self.services.get_mut(&id) else { return };
        service.gone = true;
        if nuke && self.fleet.gateway(id).is_some_and(|gateway| gateway.has_tree()) {
            let ticket = self.requests.own_ticket();
            self.backlog.push_back((id, Event::Command { ticket, command: Command::Stop }));
        }
        self.drop_if_gone(id);
    }
}
