//! Definitions, profiles and records become services: at boot, on `reload`, and when somebody names a new profile.

use crate::control::protocol::{self, Code, Outcome, Part, RefusalKind, Reply, State};
use crate::control::server::Incoming;
use crate::core::event::{Command, Event};
use crate::core::fingerprint::fingerprint;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Restored;
use crate::core::name::ServiceName;
use crate::core::policy;
use crate::core::words::{Cause, Want};
use crate::daemon::boot::finding::{self, Sources, unknown_trust};
use crate::daemon::boot::ownership::{Gateways, SWITCHED_OFF};
use crate::daemon::serve::Parked;
use crate::daemon::services::Service;
use crate::daemon::show::refused::{Refusal, dormant};
use crate::daemon::surface::slots::{self, Slots};
use crate::daemon::{Notice, Supervisor};
use crate::definition::diagnose::{About, Diagnostic};
use crate::definition::load::{LATE, Loaded, RefusedFile, load};
use crate::definition::resolved::{Origin, Record, Slot, check_variables};
use crate::definition::template::{Profile, Template};
use crate::definition::trust::Trust;
use crate::definition::{Definition, Surroundings};
use crate::hermes::{profiles, state_json};
use crate::store::{self, Change, RecordRow};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long a reload waits for what is slow.
const PATIENCE: Duration = Duration::from_secs(2);

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
}

impl Surface {
    pub(super) fn read(around: &Surroundings, env: &Environment, warnings: &mut Vec<String>) -> Self {
        let (image, wrong) = slots::image_services(around, env);
        warnings.extend(wrong);
        let slots = Slots::read(around).map_err(|error| warnings.push(format!("no slots: {error}"))).ok();
        warnings.extend(slots.iter().flat_map(|slots| slots.warnings.iter().cloned()));
        Self { image, slots }
    }

    /// A slot that is not among the services may be there all the same.
    fn may_hold(&self, slot: &Slot) -> bool {
        self.slots.as_ref().is_none_or(|slots| slots.incomplete.contains(&slot.dir))
    }

    fn slot(&self, profile: &ServiceName) -> Option<&(Slot, bool)> {
        self.slots.as_ref().and_then(|slots| slots.gateways.get(profile))
    }
}

/// The variables of the container.
pub type Environment = BTreeMap<OsString, OsString>;

/// What services there are to be, by name: files before records before the image's, slots and profiles.
#[derive(Debug)]
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
                Err(why) => {
                    complaints.push(why.clone());
                    refused.insert(name.to_string(), Unreadable::record(row, why));
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
                let unread = Unreadable { definition, why, late: true, kind, autostart: false };
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
            policy::Kind::Oneshot => protocol::Kind::Oneshot,
        };
        let late = wrong.about == About::Late;
        let (definition, why) = (wrong.path.display().to_string(), wrong.headline());
        Self { definition, why, late, kind, autostart: says.autostart }
    }
}

impl Unreadable {
    /// Of a profile, because of the template.
    fn gateway(wrong: &Diagnostic) -> Self {
        let late = wrong.about == About::Late;
        let (definition, why) = (wrong.path.display().to_string(), wrong.headline());
        Self { definition, why, late, kind: protocol::Kind::Gateway, autostart: false }
    }

    pub(super) fn record(row: &RecordRow, why: String) -> Self {
        let kind = match row.program {
            store::Program::Profile(_) => protocol::Kind::Gateway,
            store::Program::Argv(_) => protocol::Kind::Daemon,
        };
        Self { definition: "its registration".to_owned(), why, late: false, kind, autostart: true }
    }
}

/// The want of a service that is seen for the first time, and why; `intent` is what its gateway's state file says.
pub fn first_want(definition: &Definition, intent: Option<&state_json::Intent>) -> (Want, Cause) {
    match intent {
        // Whoever made the slot has looked at the intent already.
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

/// The definition that a record stands for.
fn define(
    name: &ServiceName,
    row: &RecordRow,
    template: Option<&Template>,
    trust: &Trust,
    around: &Surroundings,
) -> Result<Definition, String> {
    match &row.program {
        store::Program::Argv(argv) => {
            let record = Record { name, argv, env: &row.env, user: &row.user };
            Definition::from_record(record, trust, around).map_err(|error| error.to_string())
        }
        store::Program::Profile(directory) => {
            let profile = Profile::in_directory(Path::new(directory), &around.home)
                .ok_or_else(|| format!("'{name}': '{directory}' is not an absolute path of a profile"))?;
            let template = template.ok_or("the gateway template is malformed: see 'hermes-sup check'")?;
            check_variables(name, &row.env).map_err(|error| error.to_string())?;
            let mut definition = template
                .gateway(name, &profile, around)
                .map_err(|diagnostics| diagnostics.first().map_or_else(String::new, Diagnostic::headline))?;
            // The template says who runs it; the record says for whom it was made. Whoever wrote the one must not get the
            // other's rights.
            let asked = around.may_run_as(&row.user, trust).map_err(|error| format!("'{name}': {error}"))?;
            let uid_of =
                |who| around.lookup(who).map(|user| user.uid).map_err(|error| format!("'{name}': {error}"));
            if uid_of(&asked)? != uid_of(&definition.user)? {
                return Err(format!(
                    "'{name}': gateways do not run as '{}', for whom it is registered",
                    row.user
                ));
            }
            let mut parts = vec![definition.hash.to_string()];
            parts.extend(row.env.iter().flat_map(|(key, value)| [key.clone(), value.clone()]));
            definition.hash = fingerprint(parts.iter().map(String::as_str));
            definition.env.extend(row.env.clone());
            Ok(definition)
        }
    }
}

impl Supervisor {
    /// The definition of a record that is being made.
    pub(super) fn define_record(&self, name: &ServiceName, row: &RecordRow) -> Result<Definition, String> {
        define(name, row, self.template.as_ref(), &self.state_trust, &self.surroundings)
    }

    /// Reads all files again on the thread that may wait for them. False when that thread takes no more work.
    pub(super) fn look_again(&mut self) -> bool {
        if self.looking {
            return true;
        }
        self.surroundings = self.surroundings_now();
        let watch = self.profile_life.watch.clone();
        let around = self.surroundings.clone();
        let sources = Sources::new(&self.options, around, self.has_hermes, watch, self.busy.clone());
        let (first, later) = (self.wakeups.notifier.clone(), self.wakeups.notifier.clone());
        let first = move |found| first.send(Notice::Found(Box::new(found)));
        let scan = self.scan + 1;
        let later = move |found| later.send(Notice::Late { scan, found: Box::new(found) });
        // There is a state directory, or was.
        let (_, opened) = channel();
        match finding::read(sources, opened, PATIENCE, first, later) {
            Ok(()) => self.looking = true,
            Err(error) => slog::error!(self.log, "definitions are not read"; "error" => %error),
        }
        self.scan += u64::from(self.looking);
        self.looking
    }

    /// The number of the reading that will have seen what is on the disk now; starts it if need be.
    pub(super) fn next_scan(&mut self) -> Option<u64> {
        let under_way = self.looking;
        self.look_again().then(|| self.scan + u64::from(under_way))
    }

    /// The files were read: new profiles come in, a `reload` is carried out, parked requests are answered.
    pub(super) fn take_found(&mut self, mut found: Found) {
        self.looking = false;
        if self.topics.shutdown.is_on() {
            return self.found_nothing("the supervisor is shutting down");
        }
        self.say_late(&found.late);
        if self.topics.postponed.reload_on.is_some_and(|scan| scan <= self.scan) {
            self.topics.postponed.reload_on = None;
            let reloading = std::mem::take(&mut self.topics.postponed.reloading);
            self.reload(found, reloading);
        } else if self.late.is_some() {
            self.reload(found, Vec::new());
        } else {
            self.add_new_profiles(&mut found);
        }
        let scan = self.scan;
        let (served, later) =
            std::mem::take(&mut self.topics.postponed.parked).into_iter().partition(|p| p.scan <= scan);
        self.topics.postponed.parked = later;
        let served: Vec<Parked> = served;
        for parked in served {
            self.serve(parked.incoming);
        }
        // Asked for while this was being read: what was read may be older than the request.
        if (self.topics.postponed.reload_on.is_some() || !self.topics.postponed.parked.is_empty())
            && !self.look_again()
        {
            self.found_nothing("the disk under the home directory does not answer");
        }
    }

    pub(super) fn found_nothing(&mut self, reason: &str) {
        self.looking = false;
        self.topics.postponed.reload_on = None;
        for (incoming, _) in std::mem::take(&mut self.topics.postponed.reloading) {
            self.refuse(incoming.id, RefusalKind::Failed, format!("nothing was reloaded: {reason}"));
        }
        for parked in std::mem::take(&mut self.topics.postponed.parked) {
            self.serve(parked.incoming);
        }
    }

    fn add_new_profiles(&mut self, found: &mut Found) {
        let plan = found.plan(&BTreeMap::new(), &self.surroundings);
        let new = plan.services.into_values().filter(|(definition, _)| is_profile(definition));
        let new: Vec<Definition> = new.map(|(definition, _)| definition).collect();
        for definition in new {
            if self.fleet.id(definition.name.as_str()).is_none() {
                self.introduce_found(found, definition, None);
            }
        }
    }

    fn introduce_found(
        &mut self,
        found: &Found,
        definition: Definition,
        record: Option<RecordRow>,
    ) -> ServiceId {
        let unseen = is_profile(&definition) && definition.slot.is_none();
        let name = definition.name.clone();
        let recorded = self.refused.get(name.as_str()).and_then(Refusal::recorded);
        let intent = found.intent(&definition, record.as_ref(), &self.surroundings);
        let (want, id) = match recorded {
            Some(want) => (want, self.bring_back(definition, record, want)),
            None => {
                let (want, cause) = first_want(&definition, intent);
                (want, self.introduce(definition, record, (want, cause), intent))
            }
        };
        if unseen {
            self.show_gateway(name, want);
        } else {
            // Its slot may have gone since the files were read.
            self.scan(None);
        }
        id
    }

    /// A service that was not there before: its first want is recorded, and it starts if that is up.
    pub(super) fn introduce(
        &mut self,
        definition: Definition,
        record: Option<RecordRow>,
        (want, cause): (Want, Cause),
        intent: Option<&state_json::Intent>,
    ) -> ServiceId {
        let name = definition.name.clone();
        let moved = if is_profile(&definition) { self.moved_want(&name) } else { None };
        let (want, cause) = moved.map_or((want, cause), |(want, _)| (want, Cause::ProfileMoved));
        let free = moved.is_none_or(|(_, free)| free);
        let starts = want == Want::Up && free && !self.stays_down(&definition);
        let id = self.add_service(definition, record);
        let mut rows = vec![Change::Want(name.clone(), self.want_row(id, want, cause))];
        rows.extend(self.know_mirror(id, want, None, intent).map(|row| Change::Mirrored(name, row)));
        self.store.commit_lazily(rows);
        self.set_going(id, want, starts);
        id
    }

    /// A service whose definition was refused until now, with what is on record of it.
    fn bring_back(&mut self, definition: Definition, record: Option<RecordRow>, want: Want) -> ServiceId {
        let starts = want == Want::Up && !self.stays_down(&definition);
        let id = self.add_service(definition, record);
        self.set_going(id, want, starts);
        id
    }

    /// A service without a past, whose want is on record, goes where that is; or stays down for now.
    fn set_going(&mut self, id: ServiceId, want: Want, starts: bool) {
        let in_force = if starts { Want::Up } else { Want::Down };
        let restored = Restored::at_rest(in_force, in_force == want);
        let effects = self.fleet.boot(BTreeMap::from([(id, restored)]), self.clock.now());
        self.execute(effects);
    }

    /// A service becomes known, at rest.
    pub(super) fn add_service(&mut self, mut definition: Definition, record: Option<RecordRow>) -> ServiceId {
        // Of many, most have the policy of the one before.
        if let Some((_, other)) = self.services.last_key_value()
            && other.definition.policy == definition.policy
        {
            definition.policy = Arc::clone(&other.definition.policy);
        }
        let seed = fingerprint([definition.name.as_str(), &self.instance]);
        let id = self.fleet.add(
            definition.name.clone(),
            Arc::clone(&definition.policy),
            definition.after.clone(),
            definition.requires.clone(),
            seed,
        );
        let switched_off = self.options.gateways == Gateways::Off && is_profile(&definition);
        self.services.insert(id, Box::new(Service::new(definition, record)));
        if switched_off {
            let effects = self.fleet.hold(id, SWITCHED_OFF.to_owned(), self.clock.now());
            self.execute(effects);
        }
        self.place_new(id);
        id
    }

    /// A service has another definition from its next start on.
    pub(super) fn redefine(&mut self, id: ServiceId, definition: Definition) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let (policy, after, requires) =
            (Arc::clone(&definition.policy), definition.after.clone(), definition.requires.clone());
        if !matches!(definition.origin, Origin::Record) {
            service.record = None;
        }
        service.definition = definition;
        let effects = self.fleet.redefine(id, policy, after, requires, self.clock.now());
        self.execute(effects);
    }

    /// The definition of the gateway that serves a profile.
    ///
    /// # Errors
    /// What is wrong with the template, in one line.
    pub(super) fn gateway_of_template(&self, name: &ServiceName) -> Result<Definition, String> {
        let template =
            self.template.as_ref().ok_or("the gateway template is malformed: see 'hermes-sup check'")?;
        template
            .gateway(name, &Profile::named(name), &self.surroundings)
            .map_err(|diagnostics| diagnostics.first().map_or_else(String::new, Diagnostic::headline))
    }

    /// What is wrong with definitions from now on. What was wanted of them stays what it was.
    fn take_refusals(&mut self, refused: BTreeMap<String, Unreadable>) {
        let old = std::mem::take(&mut self.refused);
        let of_late = |name: &str| {
            let wants = &self.late.as_ref()?.opened.wants;
            wants.get(&ServiceName::new(name).ok()?).map(|row| row.want)
        };
        let refusal = |(name, unreadable): (String, Unreadable)| {
            let recorded = old.get(&name).and_then(Refusal::recorded).or_else(|| of_late(&name));
            (name, Refusal::new(unreadable, recorded))
        };
        self.refused = refused.into_iter().map(refusal).collect();
    }

    /// Takes what was found, for `callers` (and whether each wants what changed to be restarted), or because it came late.
    pub(super) fn reload(&mut self, mut found: Found, callers: Vec<(Incoming, bool)>) {
        let restart = callers.iter().any(|(_, restart)| *restart);
        let registered = self.services.values();
        let mut records: BTreeMap<ServiceName, RecordRow> = registered
            .filter_map(|service| Some((service.name.clone(), service.record.as_deref()?.clone())))
            .collect();
        records.append(&mut self.dormant);
        let plan = found.plan(&records, &self.surroundings);
        self.dormant = dormant(&records, &plan);
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut say = |name: &ServiceName, state: Option<State>, text: &str| {
            outcomes.push(Outcome::done(name.as_str(), state.unwrap_or(State::Down), Some(text.to_owned())));
        };
        let mut planned = plan.services;
        for id in self.fleet.ids().collect::<Vec<_>>() {
            let Some(service) = self.services.get_mut(&id) else { continue };
            let name = service.name.clone();
            let Some((mut definition, record)) = planned.remove(&name) else {
                let kept = service.record.is_some()
                    || found.loaded.broken.contains(&name)
                    || found.late_profiles.contains(&name)
                    || (is_profile(&service.definition)
                        && (found.profiles_unread || found.loaded.template.is_none()))
                    || service.definition.slot.as_ref().is_some_and(|slot| found.surface.may_hold(slot))
                    || matches!(&service.definition.origin, Origin::File(path)
                        if found.loaded.unread.iter().any(|dir| path.starts_with(dir)));
                if !kept && !service.gone {
                    service.gone = true;
                    let state = self.state(id);
                    say(&name, state, "definition gone: dropped once it is stopped");
                    self.drop_if_gone(id);
                }
                continue;
            };
            service.gone = false;
            service.record = record.map(Box::new);
            definition.command.extend(service.extra_args.iter().cloned());
            let changed =
                service.definition.hash != definition.hash || service.definition.origin != definition.origin;
            if changed {
                self.redefine(id, definition);
            } else {
                service.definition.stamp = definition.stamp;
            }
            if let Some(service) = self.services.get_mut(&id) {
                service.edited = None;
            }
            let pending = self.is_not_in_force(id);
            if !changed && !pending {
                continue;
            }
            let running = self.fleet.gateway(id).is_some_and(|gateway| gateway.has_tree());
            let failed = self.fleet.gateway(id).is_some_and(|gateway| gateway.state() == State::Failed);
            let state = self.state(id);
            let up = self.fleet.gateway(id).is_some_and(|gateway| gateway.want() == Want::Up);
            match (running && pending, restart && up) {
                (true, true) => say(&name, state, "changed: restarting"),
                (true, false) => say(&name, state, "changed: takes effect at its next start"),
                (false, _) => say(&name, state, "changed"),
            }
            let wanted = self.fleet.gateway(id).is_some_and(|gateway| gateway.want() == Want::Up);
            if wanted && ((running && pending && restart) || failed) {
                let ticket = self.topics.requests.own_ticket();
                self.inbox.core(id, Event::Command { ticket, command: Command::Restart });
            }
        }
        if let Some(template) = found.loaded.template.take() {
            self.template = Some(template);
        }
        self.state_trust = found.state_trust.clone();
        // Of what came late by itself, only what is new is said.
        let said: Vec<String> = match callers.is_empty() {
            true => self.refused.values().map(|refusal| refusal.why.clone()).collect(),
            false => Vec::new(),
        };
        for complaint in plan.complaints.iter().filter(|complaint| !said.contains(complaint)) {
            slog::warn!(self.log, "{complaint}");
        }
        if self.late.is_some() {
            planned.keys().for_each(|name| say(name, None, "added"));
            let plan = Plan { services: planned, complaints: Vec::new(), refused: BTreeMap::new() };
            self.boot_late(plan, &found);
        } else {
            for (definition, record) in planned.into_values() {
                let name = definition.name.clone();
                let id = self.introduce_found(&found, definition, record);
                say(&name, self.state(id), "added");
            }
        }
        // After those that are mended have got what was wanted of them.
        self.take_refusals(plan.refused);
        let live = |name: &ServiceName| self.fleet.id(name.as_str()).and_then(|id| self.services.get(&id));
        self.dormant.retain(|name, _| live(name).is_none_or(|service| service.record.is_none()));
        let malformed = plan.complaints.iter().map(|complaint| {
            let line = complaint.lines().next().unwrap_or_default();
            Outcome::failed("reload", Code::Failed, None, line.to_owned())
        });
        outcomes.extend(malformed);
        for (incoming, _) in callers {
            for outcome in &outcomes {
                self.reply(incoming.id, &Reply::Part(Part::Outcome(outcome.clone())));
            }
            self.reply(incoming.id, &Reply::End);
        }
    }
}
