//! What a reading of all files means for each service: the same, another definition, none any more, or a new one.

use crate::control::protocol::{Code, Event, EventKind, Outcome, Part, Reply};
use crate::control::server::ConnId;
use crate::core::event::Command;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Gateway;
use crate::core::name::ServiceName;
use crate::core::words::{Cause, State, Want};
use crate::daemon::act::{Action, Actions};
use crate::daemon::services::{Gone, Service};
use crate::daemon::topics::definitions::found::{Found, Plan, Unreadable, first_want};
use crate::daemon::topics::definitions::readings::Reloading;
use crate::daemon::topics::definitions::refused::Refusal;
use crate::daemon::topics::definitions::{Definitions, dormant, is_profile};
use crate::daemon::view::View;
use crate::definition::Definition;
use crate::definition::resolved::Origin;
use crate::definition::stamp::Stamp;
use crate::hermes::state_json::Intent;
use crate::store::{RecordRow, RunRow};
use std::collections::BTreeMap;
use std::path::Path;

/// What becomes of the definition of one service. `record`: its registration, if it is registered.
#[derive(Debug)]
pub enum Define {
    /// It says what it said. `stamp`: that of the file by now.
    Same {
        id: ServiceId,
        stamp: Option<Stamp>,
        record: Option<RecordRow>,
    },
    /// Another one, from the next start on.
    Changed {
        id: ServiceId,
        definition: Box<Definition>,
        record: Option<RecordRow>,
    },
    /// There is one again.
    Back(ServiceId),
    /// There is none any more: the service is dropped once it has stopped.
    Gone(ServiceId),
    /// Its file has fewer instances now: it is stopped and dropped.
    OneTooMany(ServiceId),
    New(Box<New>),
}

/// A service that was not there before.
#[derive(Debug)]
pub struct New {
    pub definition: Definition,
    pub record: Option<RecordRow>,
    pub first: First,
    /// What the state file of its gateway says.
    pub intent: Option<Intent>,
}

/// What is wanted of a new service, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Nothing is on record: this, because of that.
    Seen(Want, Cause),
    /// This is on record, from before its definition was refused or away, and how it fared then.
    Recorded(Want, Option<Box<RunRow>>),
    /// It stays down until somebody says otherwise; `recorded`: down is what is on record.
    Down { recorded: bool },
}

/// What is told of a reload when it is carried out.
#[derive(Debug, Default)]
pub struct Report {
    callers: Vec<ConnId>,
    said: Vec<Outcome>,
    added: Vec<ServiceName>,
    malformed: Vec<Outcome>,
}

impl Report {
    fn say(&mut self, name: &ServiceName, state: Option<State>, text: &str) {
        let state = state.unwrap_or(State::Down);
        self.said.push(Outcome::done(name.as_str(), state, Some(text.to_owned())));
    }
}

impl Definitions {
    /// Profiles that nobody knew become services; nothing else is touched.
    pub(super) fn new_profiles(&mut self, found: &mut Found, view: &View<'_>) -> Actions {
        let plan = found.plan(&BTreeMap::new(), view.around);
        let definitions = plan.services.into_values().map(|(definition, _)| definition);
        let unknown = |definition: &Definition| view.fleet.id(definition.name.as_str()).is_none();
        let new = definitions.filter(|definition| is_profile(definition) && unknown(definition));
        new.flat_map(|definition| self.introduce(definition, None, found, view)).collect()
    }

    fn introduce(
        &mut self,
        definition: Definition,
        record: Option<RecordRow>,
        found: &Found,
        view: &View<'_>,
    ) -> [Action; 2] {
        let intent = found.intent(&definition, record.as_ref(), view.around);
        let refused = self.refused.get(definition.name.as_str()).and_then(Refusal::recorded);
        let asleep = self.wake(&definition.name);
        // A profile that comes brings its want along.
        let recorded =
            refused.or_else(|| asleep.as_ref().filter(|_| !is_profile(&definition)).map(|row| row.want));
        let first = match recorded {
            Some(want) => First::Recorded(want, asleep.and_then(|asleep| asleep.run).map(Box::new)),
            None => {
                let (want, cause) = first_want(&definition, intent);
                First::Seen(want, cause)
            }
        };
        let unseen = is_profile(&definition) && definition.slot.is_none();
        let shown = match &first {
            First::Seen(want, _) | First::Recorded(want, _) if unseen => {
                Action::ShowGateway(definition.name.clone(), *want)
            }
            // Its slot may have gone since the files were read.
            First::Seen(..) | First::Recorded(..) | First::Down { .. } => Action::Scan,
        };
        let new = New { intent: intent.cloned(), first, definition, record };
        [Action::Define(Define::New(Box::new(new))), shown]
    }

    /// All records: of services, and those that are none.
    fn records(&self, view: &View<'_>) -> BTreeMap<ServiceName, RecordRow> {
        let of_service = |service: &Service| Some((service.name.clone(), service.record.as_deref()?.clone()));
        let of_services = view.services.values().filter_map(|service| of_service(service));
        let dormant = self.dormant.iter().map(|(name, row)| (name.clone(), row.clone()));
        of_services.chain(dormant).collect()
    }

    /// Takes what was found, for `callers`, or because it came late.
    pub(super) fn reload(&mut self, mut found: Found, callers: &[Reloading], view: &View<'_>) -> Actions {
        let restart = callers.iter().any(|by| by.restart);
        let records = self.records(view);
        let plan = found.plan(&records, view.around);
        self.dormant = dormant(&records, &plan);
        let Plan { services: mut planned, complaints, refused } = plan;
        let mut report = Report { callers: callers.iter().map(|by| by.conn).collect(), ..Report::default() };
        report.said.extend(self.vanished(&planned, &refused, &found, view));
        // What is too many ends when nobody needs it any more.
        let (mut actions, mut last) = (Actions::new(), Actions::new());
        for id in view.fleet.ids() {
            let Some(service) = view.service(id) else { continue };
            if let Some((definition, record)) = planned.remove(&service.name) {
                let again = Again { id, service, definition, record, restart };
                actions.extend(again.decide(&mut report, view));
                continue;
            }
            if service.record.is_some() {
                // Its record cannot be read now, and stays with the service.
                self.dormant.remove(&service.name);
            }
            if is_kept(service, &found) || service.gone != Gone::No {
                continue;
            }
            let of_file = counted(service);
            let is_there = |base| found.loaded.groups.contains_key(base) || planned.contains_key(base);
            if of_file.is_some_and(is_there) {
                report.say(&service.name, view.state(id), "one instance too many: stopped and dropped");
                last.push(Action::Define(Define::OneTooMany(id)));
            } else {
                report.say(&service.name, view.state(id), "definition gone: dropped once it is stopped");
                actions.push(Action::Define(Define::Gone(id)));
            }
        }
        actions.append(&mut last);
        if let Some(template) = found.loaded.template.take() {
            self.template = Some(template);
        }
        actions.push(Action::Trust(found.state_trust.clone()));
        // Of what came late by itself, only what is new is said.
        let known =
            |text: &String| callers.is_empty() && self.refused.values().any(|refusal| refusal.why == *text);
        let new = complaints.iter().filter(|complaint| !known(complaint));
        actions
            .extend(new.map(|complaint| Action::Tell(Event::warning(EventKind::Refused, complaint.clone()))));
        let malformed = |complaint: &String| {
            let line = complaint.lines().next().unwrap_or_default();
            Outcome::failed("reload", Code::Failed, None, line.to_owned())
        };
        report.malformed = complaints.iter().map(malformed).collect();
        if self.late.is_some() {
            planned.keys().for_each(|name| report.say(name, None, "added"));
            self.take_refusals(refused);
            if !found.is_incomplete() {
                self.late = None;
            }
            let plan = Plan { services: planned, complaints: Vec::new(), refused: BTreeMap::new() };
            actions.push(Action::BootLate(Box::new(plan), Box::new(found)));
        } else {
            for (definition, record) in planned.into_values() {
                report.added.push(definition.name.clone());
                actions.extend(self.introduce(definition, record, &found, view));
            }
            // After those that are mended have got what was wanted of them.
            self.take_refusals(refused);
        }
        actions.push(Action::Reloaded(report));
        actions
    }

    /// Definitions that could not be read, and are no more.
    fn vanished(
        &self,
        planned: &BTreeMap<ServiceName, (Definition, Option<RecordRow>)>,
        refused: &BTreeMap<String, Unreadable>,
        found: &Found,
        view: &View<'_>,
    ) -> Vec<Outcome> {
        let is_service = |name: &str| {
            let of_plan = |name: &ServiceName| {
                planned.contains_key(name) || found.loaded.groups.contains_key(name.as_str())
            };
            view.fleet.id(name).is_some() || ServiceName::new(name).is_ok_and(|name| of_plan(&name))
        };
        let is_unread = |refusal: &Refusal| {
            found.loaded.unread.iter().any(|dir| Path::new(&refusal.definition).starts_with(dir))
        };
        let gone = self.refused.iter().filter(|(name, refusal)| {
            !refused.contains_key(*name) && !is_service(name) && !is_unread(refusal)
        });
        let text = || Some("definition gone".to_owned());
        gone.map(|(name, _)| Outcome::done(name.as_str(), State::Down, text())).collect()
    }

    /// What is wrong with definitions from now on. What was wanted of them stays what it was.
    fn take_refusals(&mut self, refused: BTreeMap<String, Unreadable>) {
        let old = std::mem::take(&mut self.refused);
        let of_late = |name: &str| self.late.as_ref()?.get(&ServiceName::new(name).ok()?).copied();
        let refusal = |(name, unreadable): (String, Unreadable)| {
            let recorded = old.get(&name).and_then(Refusal::recorded).or_else(|| of_late(&name));
            (name, Refusal::new(unreadable, recorded))
        };
        self.refused = refused.into_iter().map(refusal).collect();
    }

    /// A reload is carried out: its caller hears what it came to.
    pub fn reloaded(&mut self, report: Report, view: &View<'_>) -> Actions {
        let Report { callers, mut said, added, malformed } = report;
        let state = |name: &ServiceName| view.fleet.id(name.as_str()).and_then(|id| view.state(id));
        said.extend(added.iter().map(|name| {
            Outcome::done(name.as_str(), state(name).unwrap_or(State::Down), Some("added".to_owned()))
        }));
        said.extend(malformed);
        let answer = |conn| {
            let parts =
                said.iter().map(move |one| Action::Reply(conn, Reply::Part(Part::Outcome(one.clone()))));
            parts.chain([Action::Reply(conn, Reply::End)])
        };
        callers.into_iter().flat_map(answer).collect()
    }
}

/// A service without a definition now: it may have one that could not be read.
fn is_kept(service: &Service, found: &Found) -> bool {
    let name = &service.name;
    service.record.is_some()
        || found.loaded.broken.contains(name)
        || counted(service).is_some_and(|base| found.loaded.broken.contains(base))
        || found.late_profiles.contains(name)
        || (is_profile(&service.definition) && (found.profiles_unread || found.loaded.template.is_none()))
        || service.definition.slot.as_ref().is_some_and(|slot| found.surface.may_hold(slot))
        || matches!(&service.definition.origin, Origin::File(path)
            if found.loaded.unread.iter().any(|dir| path.starts_with(dir)))
}

/// The name of the file of which the service is one of several instances.
fn counted(service: &Service) -> Option<&str> {
    let Origin::File(path) = &service.definition.origin else { return None };
    let (base, _) = service.name.as_instance()?;
    path.file_stem().is_some_and(|stem| stem == base).then_some(base)
}

/// A service that is defined again.
struct Again<'a> {
    id: ServiceId,
    service: &'a Service,
    definition: Definition,
    record: Option<RecordRow>,
    /// What is changed and runs is restarted.
    restart: bool,
}

impl Again<'_> {
    fn decide(self, report: &mut Report, view: &View<'_>) -> Actions {
        let Self { id, service, mut definition, record, restart } = self;
        definition.add_arguments(&service.extra_args);
        let old = &service.definition;
        let changed = old.hash != definition.hash || old.origin != definition.origin || old.is_unread();
        // There are more or fewer instances of what it comes after.
        let moved = old.after != definition.after || old.requires != definition.requires;
        let gateway = view.fleet.gateway(id);
        let runs = gateway.is_some_and(Gateway::has_tree);
        let pending = runs && service.in_force.is_some_and(|hash| hash != definition.hash);
        let define = match changed || moved {
            true => Define::Changed { id, definition: Box::new(definition), record },
            false => Define::Same { id, stamp: definition.stamp, record },
        };
        let back = (service.gone != Gone::No).then_some(Action::Define(Define::Back(id)));
        let mut actions: Actions = back.into_iter().chain([Action::Define(define)]).collect();
        if !changed && !pending {
            return actions;
        }
        let wanted = gateway.is_some_and(|gateway| gateway.want() == Want::Up);
        let restarts = pending && restart && wanted;
        let text = match (pending, restarts) {
            (true, true) => "changed: restarting",
            (true, false) => "changed: takes effect at its next start",
            (false, _) => "changed",
        };
        report.say(&service.name, view.state(id), text);
        if restarts || (wanted && view.state(id) == Some(State::Failed)) {
            actions.push(Action::OwnCommand(id, Command::Restart));
        }
        actions
    }
}
