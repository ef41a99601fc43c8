//! The scan directory of the s6 surface: what is in it becomes services, and gateways are shown in it.
//!
//! A slot `gateway-X` is the gateway X: the template's user, policy and environment, with the slot's `run` as the
//! command. Any other slot is a service of its own. Slots of the image itself come from its bundle and are only shown.
//! When the directory is read is the matter of `topics::scanning`.
//!
//! Invariant: a slot runs as root only if nobody but root could have put it there. The owner of a scan directory can
//! rename in it, so there nothing runs as root, whatever the owner of the slot itself; and it is looked at again at each start.

use crate::core::fingerprint::fingerprint;
use crate::core::limits::Limits;
use crate::core::name::{DASHBOARD, GATEWAY_PREFIX, MAIN_HERMES, NameError, ServiceName};
use crate::core::policy::{Policy, StopPolicy};
use crate::core::words::Want;
use crate::daemon::surface::static_slots;
use crate::definition::resolved::{LogPolicy, Memory, Origin, Ready, RunAs, Security, Slot};
use crate::definition::{Definition, Surroundings};
use crate::s6::materialise::{self, GatewaySlot};
use crate::s6::scan::{Opened, ScanDir, SlotError};
use crate::s6::slot::{self, FinishTimeout, Run};
use crate::s6::{SCAN_DIRECTORY, bundle, script};
use crate::sys::beneath::{Beneath, Birth};
use crate::sys::credentials::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The command of a service that runs in its slot.
const RUN: &str = "./run";
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
    /// Directories that cannot be read now: likewise.
    pub unread: BTreeSet<PathBuf>,
    pub warnings: Vec<String>,
}

/// Slots that were made to look supervised to clients of s6, by name, and which directory each was. It is done once, as
/// s6-supervise does: what somebody removes piece by piece must not come back under their hands.
#[derive(Debug, Clone, Default)]
pub struct Supervised(Arc<Mutex<BTreeMap<OsString, Birth>>>);

impl Supervised {
    fn known(&self) -> MutexGuard<'_, BTreeMap<OsString, Birth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the new ones among `slots` look supervised, and forgets those that are gone. Blocks.
    fn mark(&self, scandir: &Beneath, slots: &mut Slots, owner: &Credentials) {
        let others = slots.others.values().filter_map(|definition| definition.slot.as_deref());
        let all = slots.gateways.values().map(|(slot, _)| slot).chain(others);
        let names: BTreeSet<OsString> = all.map(|slot| OsString::from(&slot.name)).collect();
        self.known().retain(|name, _| names.contains(name));
        for name in names {
            let Ok(dir) = scandir.dir(Path::new(&name)) else { continue };
            let Ok(birth) = dir.birth() else { continue };
            if self.known().get(&name) == Some(&birth) {
                continue;
            }
            let of_root = rustix::fs::fstat(&dir).is_ok_and(|stat| stat.st_uid == 0);
            let maker = if of_root { &Credentials::own() } else { owner };
            if materialise::make_supervise(&dir, maker).is_ok() {
                self.known().insert(name, birth);
            }
        }
        // Somebody who removed a slot while these directories were made in it was left with them.
        slots.incomplete.retain(|dir| {
            dir.file_name().is_none_or(|name| !materialise::remove_remains(scandir, name, owner))
        });
    }
}

/// Why a slot is no service, or is not started.
#[derive(Debug, thiserror::Error)]
pub enum SlotFault {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The directory that it is in.
    #[error(transparent)]
    Directory(#[from] io::Error),
    #[error(
        "{} is no longer root's alone: it does not run as root; 'hermes-sup ctl reload' reads it again", .0.display()
    )]
    NotRoots(PathBuf),
}

impl Slots {
    /// Reads it. Blocks.
    ///
    /// # Errors
    /// When the directory itself cannot be read.
    pub fn read(around: &Surroundings) -> io::Result<Self> {
        let scandir = ScanDir::open(Path::new(SCAN_DIRECTORY), around)?;
        let shown = static_slots().into_iter().map(OsString::from).collect();
        let scan = scandir.scan(&shown)?;
        let unread = scan.unread.iter().map(|name| Path::new(SCAN_DIRECTORY).join(name)).collect();
        let mut slots = Self { warnings: scan.warnings, unread, ..Self::default() };
        let owner = around.gateway.credentials();
        for (slot_name, read) in scan.slots {
            let service = slot::service_of(&slot_name).ok_or_else(|| NameError::Taken(slot_name.clone()));
            let name = match service.and_then(ServiceName::of_slot) {
                Ok(name) => name,
                Err(error) => {
                    slots.warnings.push(format!("{SCAN_DIRECTORY}/{slot_name} is skipped: {error}"));
                    continue;
                }
            };
            let dir = Path::new(SCAN_DIRECTORY).join(&slot_name);
            if read.run == Run::Missing {
                slots.incomplete.insert(dir);
                continue;
            }
            let is_gateway = slot_name.starts_with(GATEWAY_PREFIX);
            let rendered = is_gateway && script::is_rendered(&dir, &owner);
            let place = Slot { dir, name: slot_name, rendered };
            if is_gateway {
                slots.gateways.insert(name, (place, read.down));
            } else {
                slots.warnings.extend(unlogged(&place, &read));
                slots.others.insert(name.clone(), definition(name, place, &read, Vec::new(), around));
            }
        }
        Ok(slots)
    }

    /// A slot is there, and what it says is not known.
    pub fn holds_unread(&self, dir: &Path) -> bool {
        self.incomplete.contains(dir) || self.unread.contains(dir)
    }
}

/// The services that the image brings, as definitions, and what is wrong with them. Blocks.
pub fn image_services(
    around: &Surroundings,
    environment: &BTreeMap<OsString, OsString>,
) -> (BTreeMap<ServiceName, Definition>, Vec<String>) {
    let read = bundle::read(Path::new(bundle::SOURCES), Path::new(bundle::LEGACY));
    let (mut services, mut warnings) = (BTreeMap::new(), read.warnings);
    for member in read.members.into_iter().filter(|member| member.name != MAIN_HERMES) {
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
) -> Result<Definition, SlotFault> {
    let name = ServiceName::of_slot(&member.name)?;
    let opened = open_slot(&member.dir, around)?;
    let place = Slot { dir: member.dir.clone(), name: member.name.clone(), rendered: false };
    warnings.extend(opened.warnings);
    warnings.extend(unlogged(&place, &opened.slot));
    let after = member.depends_on.iter().filter_map(|name| ServiceName::of_slot(name).ok()).collect();
    Ok(definition(name, place, &opened.slot, after, around))
}

/// Opens a service directory where it lies, judged by all that leads to it.
fn open_slot(dir: &Path, around: &Surroundings) -> Result<Opened, SlotFault> {
    let parent = ScanDir::open(dir.parent().unwrap_or(Path::new("/")), around)?;
    Ok(parent.slot(&OsString::from(dir.file_name().unwrap_or_default()))?)
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
        description: None,
        command: vec![RUN.to_owned()],
        user: if as_root { RunAs::Named("0".to_owned()) } else { RunAs::Gateway },
        working_dir: place.dir.clone(),
        env: BTreeMap::new(),
        env_clear: false,
        env_files: Vec::new(),
        secrets: None,
        has_variables: false,
        umask: None,
        autostart: !read.down,
        hash: fingerprint([format!("{policy:?}").as_str(), &format!("{as_root} {after:?}")]),
        policy: Arc::new(policy),
        schedule: None,
        after,
        requires: Vec::new(),
        containment: None,
        ready: read.notification_fd.and_then(|fd| i32::try_from(fd).ok()).map_or(Ready::None, Ready::Fd),
        health: None,
        slot: Some(Box::new(place)),
        stamp: None,
        hooks: None,
        log: LogPolicy::default(),
        limits: Limits::default(),
        memory: Memory::default(),
        security: Security::INHERITED,
    }
}

/// Makes the slot's `run` the command of a gateway, unless the operator's template says what runs and nobody has written
/// anything of their own into the slot; and not of one whose template names somebody else than the gateway user, who owns
/// the slot.
pub fn run_in(definition: &mut Definition, slot: Slot) {
    if definition.user != RunAs::Gateway {
        return;
    }
    if !(slot.rendered && is_of_operator(definition)) {
        definition.command = vec![RUN.to_owned()];
        definition.working_dir.clone_from(&slot.dir);
    }
    definition.slot = Some(Box::new(slot));
}

/// It is made by the operator's `gateway.toml`.
fn is_of_operator(definition: &Definition) -> bool {
    matches!(definition.origin, Origin::Profile { template: Some(_) })
}

/// What is to be said where a slot is run, although there is a `gateway.toml`.
pub fn template_unused(definition: &Definition) -> Option<String> {
    let slot = definition.slot.as_ref().filter(|slot| is_of_operator(definition) && !slot.rendered)?;
    let (name, dir) = (&definition.name, slot.dir.display());
    Some(format!("'{name}' runs {dir}/run, which somebody has written, and not the command of gateway.toml"))
}

/// Whether what runs is the slot's `run`.
pub fn is_run(definition: &Definition) -> bool {
    definition.slot.is_some() && definition.command == [RUN]
}

/// Shows gateways as slots, each with its want as the file `down`, then reads the directory, and makes what is in it look
/// supervised. Blocks.
///
/// # Errors
/// As [`Slots::read`]; a gateway that cannot be shown is a warning.
pub fn show(
    gateways: &[(ServiceName, Want)],
    supervised: &Supervised,
    around: &Surroundings,
) -> io::Result<Slots> {
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
    supervised.mark(scandir.dir(), &mut slots, &owner);
    slots.warnings.extend(warnings);
    Ok(slots)
}

/// Whether it is a slot that runs as root.
pub fn runs_as_root(definition: &Definition, around: &Surroundings) -> bool {
    let gateway_is_root = around.own_uid == 0 && around.gateway.uid == 0;
    definition.slot.is_some() && (definition.user != RunAs::Gateway || gateway_is_root)
}

/// Whether it is a slot of root's own, not one of a gateway user that is root.
pub fn is_roots(definition: &Definition, around: &Surroundings) -> bool {
    around.own_uid == 0 && definition.slot.is_some() && definition.user != RunAs::Gateway
}

/// Looks again whether a slot may run as root, if it is to. Blocks.
///
/// # Errors
/// Why not.
pub fn check_root(definition: &Definition, around: &Surroundings) -> Result<(), SlotFault> {
    let Some(Slot { dir, .. }) = definition.slot.as_deref().filter(|_| runs_as_root(definition, around))
    else {
        return Ok(());
    };
    let opened = open_slot(dir, around)?;
    opened.slot.root_owned.then_some(()).ok_or_else(|| SlotFault::NotRoots(dir.clone()))
}
