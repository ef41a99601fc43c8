//! What was read of files, and the services that it comes to: files before records before the image's, slots and profiles.

use crate::control::protocol;
use crate::core::name::ServiceName;
use crate::core::policy;
use crate::core::words::{Cause, Want};
use crate::daemon::boot::reading::finding::unknown_trust;
use crate::daemon::surface::slots::{self, Slots};
use crate::daemon::topics::definitions::record::{DefineError, define};
use crate::definition::diagnose::{About, Diagnostic};
use crate::definition::load::{LATE, Loaded, RefusedFile, load};
use crate::definition::resolved::{Origin, Slot};
use crate::definition::template::Profile;
use crate::definition::trust::Trust;
use crate::definition::{Definition, Surroundings};
use crate::hermes::{profiles, state_json};
use crate::s6::SCAN_DIRECTORY;
use crate::store::{self, RecordRow};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
#[cfg(test)]
use {crate::definition::template::DEFAULT_PROFILE, crate::sys::beneath::Beneath};

/// Everything that lies in files, read on a thread that may wait for them.
#[derive(Debug)]
pub struct Found {
    pub loaded: Loaded,
    pub profiles: Vec<ServiceName>,
    /// Those that are still being read.
    pub late_profiles: Vec<ServiceName>,
    /// They could not be read: those that are known stay.
    pub profiles_unread: bool,
    /// What each profile's `gateway_state.json` says.
    pub intents: BTreeMap<ServiceName, state_json::Intent>,
    pub warnings: Vec<String>,
    /// How far the place of the database may be believed.
    pub state_trust: Trust,
    /// The built-in dashboard, where it is switched on. It gives way to any other service of that name.
    pub dashboard: Option<Definition>,
    /// What the s6 surface adds.
    pub surface: Surface,
    /// What is still being read, by path.
    pub late: Vec<PathBuf>,
}

/// Services that lie where s6 would look for them.
#[derive(Debug, Default)]
pub struct Surface {
    /// Those that the image brings.
    pub image: BTreeMap<ServiceName, Definition>,
    /// `None`: there is no scan directory, or it could not be read: what is known stays.
    pub slots: Option<Slots>,
    /// It is there, and could not be read.
    pub unread: bool,
}

impl Surface {
    pub(in crate::daemon) fn read(
        around: &Surroundings,
        env: &Environment,
        warnings: &mut Vec<String>,
    ) -> Self {
        let (image, wrong) = slots::image_services(around, env);
        warnings.extend(wrong);
        let slots = Slots::read(around);
        let unread = slots.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        let slots = slots.map_err(|error| warnings.push(format!("no slots: {error}"))).ok();
        warnings.extend(slots.iter().flat_map(|slots| slots.warnings.iter().cloned()));
        Self { image, slots, unread }
    }

    /// A slot that is not among the services may be there all the same.
    pub(super) fn may_hold(&self, slot: &Slot) -> bool {
        self.slots.as_ref().is_none_or(|slots| slots.holds_unread(&slot.dir))
    }

    /// The slot of that name is there, as far as is known, and what it says is not.
    pub(in crate::daemon) fn unread_slot(&self, name: &str) -> Option<Slot> {
        let dir = Path::new(SCAN_DIRECTORY).join(name);
        let is_unread = self.slots.as_ref().map_or(self.unread, |slots| slots.holds_unread(&dir));
        is_unread.then(|| Slot { dir, name: name.to_owned(), rendered: false })
    }

    fn slot(&self, profile: &ServiceName) -> Option<&(Slot, bool)> {
        self.slots.as_ref().and_then(|slots| slots.gateways.get(profile))
    }
}

/// The variables of the container.
pub type Environment = BTreeMap<OsString, OsString>;

/// What services there are to be, by name: files before records before the image's, slots and profiles.
#[derive(Debug, Default)]
pub struct Plan {
    pub services: BTreeMap<ServiceName, (Definition, Option<RecordRow>)>,
    pub complaints: Vec<String>,
    /// What was meant to be a service and cannot be read, by name.
    pub refused: BTreeMap<String, Unreadable>,
}

/// A definition that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// A file, or in words.
    pub definition: String,
    /// In one line, with the place.
    pub why: String,
    /// It is still being read.
    pub late: bool,
    /// Nobody knows what it says: that, or the system did not give its text.
    pub unread: bool,
    pub kind: protocol::Kind,
    /// What would be wanted of it at first.
    pub autostart: bool,
}

impl Found {
    /// What there is when the disk under home hangs.
    pub fn without_home(dirs: &[PathBuf], around: &Surroundings) -> Self {
        Self {
            loaded: load(dirs, around),
            profiles: Vec::new(),
            late_profiles: Vec::new(),
            profiles_unread: true,
            intents: BTreeMap::new(),
            warnings: Vec::new(),
            state_trust: unknown_trust(),
            dashboard: None,
            surface: Surface::default(),
            late: Vec::new(),
        }
    }

    /// What there is in a simulation, whose disk is read at once. Wishes of others in state files are not among it.
    #[cfg(test)]
    pub fn at_once(dirs: &[PathBuf], around: &Surroundings) -> Self {
        let user = around.gateway.credentials();
        let entries = Beneath::open(&around.home).and_then(|home| profiles::entries(&home, &user));
        let mut named = Vec::new();
        if let Ok(Some((directory, names))) = entries {
            named.extend(names.iter().filter_map(|name| profiles::judge(&directory, &user, name).ok()?));
            named.extend(ServiceName::new(DEFAULT_PROFILE));
            named.sort();
        }
        Self { profiles: named, profiles_unread: false, ..Self::without_home(dirs, around) }
    }

    /// There may be services that are not among these, and whose wants are on record: directories are still being read, or could
    /// not be.
    pub fn is_incomplete(&self) -> bool {
        !self.late.is_empty() || !self.loaded.unread.is_empty()
    }

    /// Puts files, records and profiles together. The definitions of files go into the plan: there is one to be made.
    pub fn plan(&mut self, records: &BTreeMap<ServiceName, RecordRow>, around: &Surroundings) -> Plan {
        let mut complaints: Vec<String> = self.loaded.diagnostics.iter().map(Diagnostic::headline).collect();
        complaints.extend(self.warnings.iter().cloned());
        let mut refused: BTreeMap<String, Unreadable> =
            self.loaded.refused.iter().map(|(name, file)| (name.clone(), file.into())).collect();
        let of_files = std::mem::take(&mut self.loaded.services);
        let mut services: BTreeMap<ServiceName, (Definition, Option<RecordRow>)> =
            of_files.into_iter().map(|(name, definition)| (name, (definition, None))).collect();
        for (name, row) in records {
            if services.contains_key(name) {
                complaints
                    .push(format!("the registered '{name}' is hidden by a definition file of that name"));
                continue;
            }
            match define(name, row, self.loaded.template.as_ref(), &self.state_trust, around) {
                Ok(definition) => drop(services.insert(name.clone(), (definition, Some(row.clone())))),
                Err(error) => {
                    complaints.push(error.to_string());
                    refused.insert(name.to_string(), Unreadable::record(row, &error));
                }
            }
        }
        let slots = self.surface.slots.as_ref();
        let others = slots.into_iter().flat_map(|slots| slots.others.values());
        for definition in self.surface.image.values().chain(others) {
            services.entry(definition.name.clone()).or_insert_with(|| (definition.clone(), None));
        }
        let of_slots = slots.into_iter().flat_map(|slots| slots.gateways.keys());
        for name in &self.late_profiles {
            let definition = around.home.join(profiles::directory_of(name)).display().to_string();
            let why = format!("{definition}: {LATE}");
            if !services.contains_key(name) {
                let kind = protocol::Kind::Gateway;
                let unread = Unreadable { definition, why, late: true, unread: true, kind, autostart: false };
                refused.entry(name.to_string()).or_insert(unread);
            }
        }
        for name in self.profiles.iter().chain(of_slots) {
            if self.late_profiles.contains(name) {
                continue;
            }
            if services.contains_key(name) || self.loaded.broken.contains(name) {
                continue;
            }
            let Some(template) = &self.loaded.template else {
                let wrong = self.loaded.template_refused.as_ref();
                refused.extend(wrong.map(|wrong| (name.to_string(), Unreadable::gateway(wrong))));
                continue;
            };
            match template.gateway(name, &Profile::named(name), around) {
                Ok(mut definition) => {
                    if let Some((slot, down)) = self.surface.slot(name) {
                        slots::run_in(&mut definition, slot.clone());
                        definition.autostart = !down;
                        complaints.extend(slots::template_unused(&definition));
                    }
                    services.insert(name.clone(), (definition, None));
                }
                Err(diagnostics) => {
                    let first = diagnostics.first();
                    refused.extend(first.map(|wrong| (name.to_string(), Unreadable::gateway(wrong))));
                    complaints.extend(diagnostics.iter().map(Diagnostic::headline));
                }
            }
        }
        if let Some(dashboard) = &self.dashboard {
            services.entry(dashboard.name.clone()).or_insert_with(|| (dashboard.clone(), None));
        }
        let dangling = self.loaded.dangling(|name| services.contains_key(name));
        complaints.extend(dangling.iter().map(Diagnostic::headline));
        Plan { services, complaints, refused }
    }
}

impl From<&RefusedFile> for Unreadable {
    fn from(RefusedFile { wrong, says }: &RefusedFile) -> Self {
        let kind = match says.kind {
            policy::Kind::Daemon => protocol::Kind::Daemon,
            policy::Kind::Oneshot | policy::Kind::Scheduled => protocol::Kind::Oneshot,
        };
        Self { autostart: says.autostart, ..Self::of(wrong, kind) }
    }
}

impl Unreadable {
    fn of(wrong: &Diagnostic, kind: protocol::Kind) -> Self {
        let (definition, why) = (wrong.path.display().to_string(), wrong.headline());
        let late = wrong.about == About::Late;
        Self { definition, why, late, unread: wrong.is_unread(), kind, autostart: false }
    }

    /// Of a profile, because of the template.
    fn gateway(wrong: &Diagnostic) -> Self {
        Self::of(wrong, protocol::Kind::Gateway)
    }

    pub fn record(row: &RecordRow, error: &DefineError) -> Self {
        let kind = match row.program {
            store::Program::Profile(_) => protocol::Kind::Gateway,
            store::Program::Argv(_) => protocol::Kind::Daemon,
        };
        let (definition, why) = ("its registration".to_owned(), error.to_string());
        Self { definition, why, late: false, unread: false, kind, autostart: true }
    }
}

/// The want of a service that is seen for the first time, and why; `intent` is what its gateway's state file says.
pub fn first_want(definition: &Definition, intent: Option<&state_json::Intent>) -> (Want, Cause) {
    match intent {
        // The maker of the slot has looked at the intent already.
        _ if definition.slot.is_some() => {
            (if definition.autostart { Want::Up } else { Want::Down }, Cause::Slot)
        }
        Some(intent) if intent.state.is_some() => {
            (if intent.wants_up() { Want::Up } else { Want::Down }, Cause::GatewayState)
        }
        _ => (if definition.autostart { Want::Up } else { Want::Down }, Cause::FirstBoot),
    }
}

pub fn is_profile(definition: &Definition) -> bool {
    matches!(definition.origin, Origin::Profile { .. })
}
