//! Lives whose definitions cannot be read when they could be taken over: nobody has taken those away, so the lives go on as they are.
//! Each is a service that can be stopped, and is started again once its definition is read.

use crate::containment::AdoptionRecord;
use crate::control::protocol::Kind;
use crate::core::name::{GATEWAY_PREFIX, INSTANCE, ServiceName};
use crate::daemon::boot::ownership::adoption::Heritage;
use crate::daemon::show::first_of;
use crate::daemon::surface::slots::run_in;
use crate::daemon::topics::definitions::found::{Found, Plan, Unreadable};
use crate::definition::resolved::{Origin, RunAs};
use crate::definition::template::Profile;
use crate::definition::{Definition, Surroundings};
use crate::store::Opened;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// As many are named.
const MOST_NAMED: usize = 5;

/// What stands for the definitions of those lives, by name.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Unread(BTreeMap<ServiceName, Definition>);

impl Unread {
    pub fn of(heritage: &Heritage, found: &Found, plan: &Plan, rows: &Opened, around: &Surroundings) -> Self {
        let unread =
            |life: &AdoptionRecord| Some((life.name.clone(), define(life, found, plan, rows, around)?));
        Self(heritage.lives().iter().rev().filter_map(unread).collect())
    }

    pub fn contains(&self, name: &ServiceName) -> bool {
        self.0.contains_key(name)
    }

    /// Those of the `adopted` become services.
    pub fn join(
        mut self,
        adopted: &BTreeMap<ServiceName, AdoptionRecord>,
        plan: &mut Plan,
        log: &slog::Logger,
    ) {
        self.0.retain(|name, _| adopted.contains_key(name));
        if self.0.is_empty() {
            return;
        }
        slog::warn!(log, "definitions of services that run cannot be read: they are left running as they are";
            "services" => first_of(MOST_NAMED, self.0.keys()));
        let services = self.0.into_iter().map(|(name, definition)| (name, (definition, None)));
        plan.services.extend(services);
    }
}

/// `None`: it has a definition, or none any more.
fn define(
    life: &AdoptionRecord,
    found: &Found,
    plan: &Plan,
    rows: &Opened,
    around: &Surroundings,
) -> Option<Definition> {
    let name = &life.name;
    // What is nobody's any more has no want either.
    if plan.services.contains_key(name) || !rows.wants.contains_key(name) {
        return None;
    }
    let uid = life.uid()?;
    let user = if uid == around.gateway.uid { RunAs::Gateway } else { RunAs::Named(uid.to_string()) };
    let unread = |origin| {
        let definition = Definition::unread(name.clone(), origin, user.clone(), around);
        Definition { hash: life.definition.unwrap_or_default(), ..definition }
    };
    if let Some(refused) = refusals(name, plan).next() {
        let template = found.loaded.template_refused.as_ref().filter(|wrong| wrong.is_unread());
        return match (refused, template) {
            (Unreadable { kind: Kind::Gateway, .. }, Some(template)) => {
                Some(unread(Origin::Profile { template: Some(template.path.clone()) }))
            }
            _ => refusals(name, plan)
                .find(|refused| refused.unread)
                .map(|refused| unread(Origin::File(PathBuf::from(&refused.definition)))),
        };
    }
    if let Some(directory) = found.loaded.unread.first() {
        return Some(unread(Origin::File(directory.join(format!("{name}.toml")))));
    }
    let surface = &found.surface;
    if let Some(slot) = surface.unread_slot(name.as_str()) {
        let working_dir = slot.dir.clone();
        return Some(Definition { slot: Some(Box::new(slot)), working_dir, ..unread(Origin::Slot) });
    }
    // What a gateway is, the template says; where all slots could be read, it is a profile that could not.
    let slot = surface.unread_slot(&format!("{GATEWAY_PREFIX}{name}"));
    if slot.is_none() && !found.profiles_unread {
        return None;
    }
    let mut gateway = found.loaded.template.as_ref()?.gateway(name, &Profile::named(name), around).ok()?;
    slot.into_iter().for_each(|slot| run_in(&mut gateway, slot));
    Some(gateway)
}

/// What is said of the files that may define a service: its own, and where it is one of several, theirs.
fn refusals<'a>(name: &ServiceName, plan: &'a Plan) -> impl Iterator<Item = &'a Unreadable> {
    let base = name.as_instance().map(|(base, _)| base);
    let names =
        [Some(name.to_string()), base.map(str::to_owned), base.map(|base| format!("{base}{INSTANCE}"))];
    names.into_iter().flatten().filter_map(|name| plan.refused.get(&name))
}
