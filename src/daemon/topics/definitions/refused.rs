//! Definitions that cannot be read. Their services stay rows of `status` with file, line and sentence; one that runs on with
//! the definition before says so.

use crate::control::naming;
use crate::control::permission::Facts;
use crate::control::protocol::{Code, Kind, Outcome, Request, ServiceStatus, State, Targets};
use crate::core::event::Ticket;
use crate::core::fleet::Fleet;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::definitions::Definitions;
use crate::daemon::topics::definitions::found::{Plan, Unreadable};
use crate::daemon::view::View;
use crate::store::RecordRow;
use crate::sys::users;
use std::collections::BTreeMap;

/// A service that somebody meant to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where: a file, or what else the definition comes from.
    pub definition: String,
    /// `FILE:LINE:COLUMN: what is wrong; what is allowed`.
    pub why: String,
    /// It is still being read.
    late: bool,
    kind: Kind,
    /// What is wanted of it.
    want: Want,
    /// That is on record; otherwise it is what its definition says.
    is_recorded: bool,
}

/// By name, which need not be one that a service may have.
pub type Refusals = BTreeMap<String, Refusal>;

/// The records that are no services: their definition is refused, or a file of their name comes first.
pub fn dormant(records: &BTreeMap<ServiceName, RecordRow>, plan: &Plan) -> BTreeMap<ServiceName, RecordRow> {
    let is_service = |name| plan.services.get(name).is_some_and(|(_, record)| record.is_some());
    let dormant = records.iter().filter(|(name, _)| !is_service(*name));
    dormant.map(|(name, row)| (name.clone(), row.clone())).collect()
}

impl Refusal {
    /// `recorded`: what the database wants of it.
    pub fn new(unreadable: Unreadable, recorded: Option<Want>) -> Self {
        let Unreadable { definition, why, late, unread: _, kind, autostart } = unreadable;
        let want = recorded.unwrap_or(if autostart { Want::Up } else { Want::Down });
        Self { definition, why, late, kind, want, is_recorded: recorded.is_some() }
    }

    /// What was wanted of it before its definition was refused.
    pub fn recorded(&self) -> Option<Want> {
        self.is_recorded.then_some(self.want)
    }

    fn status(&self, name: &str) -> ServiceStatus {
        ServiceStatus {
            kind: self.kind,
            want: self.want,
            state: State::Refused,
            reason: Some(self.why.clone()),
            definition: Some(self.definition.clone()),
            ..ServiceStatus::down(name)
        }
    }

    fn outcome(&self, name: &str) -> Outcome {
        let message = match self.late {
            true => format!("'{name}' is not there yet: {}", self.why),
            false => format!("'{name}' is refused: {}; correct it, then 'hermes-sup ctl reload'", self.why),
        };
        Outcome::failed(name, Code::Failed, Some(State::Refused), message)
    }
}

impl Definitions {
    /// Those that are no services: there is nothing else to show under their names.
    fn only_refused(&self, fleet: &Fleet) -> impl Iterator<Item = (&str, &Refusal)> {
        let refused = self.refused.iter().map(|(name, refusal)| (name.as_str(), refusal));
        refused.filter(|(name, _)| fleet.id(name).is_none())
    }

    /// The refused definition that a typed name means, if it means no service.
    fn find_refused(&self, typed: &str, fleet: &Fleet) -> Option<(&str, &Refusal)> {
        let name = naming::resolve(typed, |name| self.refused.contains_key(name))?;
        let (name, refusal) = self.refused.get_key_value(name)?;
        fleet.id(name).is_none().then_some((name.as_str(), refusal))
    }

    pub fn is_refused(&self, typed: &str, fleet: &Fleet) -> bool {
        self.find_refused(typed, fleet).is_some()
    }

    /// The answer to a verb for a name whose definition is refused.
    pub fn refused_outcome(&self, typed: &str, fleet: &Fleet) -> Option<Outcome> {
        self.find_refused(typed, fleet).map(|(name, refusal)| refusal.outcome(name))
    }

    /// The record that a typed name means, if it means no service but a refused record.
    pub fn refused_record(&self, typed: &str, fleet: &Fleet) -> Option<(&ServiceName, &RecordRow)> {
        let (name, _) = self.find_refused(typed, fleet)?;
        self.dormant.get_key_value(&ServiceName::new(name).ok()?)
    }

    /// The refused records among those that `unregister` means, where it is permitted; an answer for each other one.
    pub fn records_to_drop(
        &self,
        uid: u32,
        request: &Request,
        targets: &Targets,
        complaints: &mut Vec<Outcome>,
        view: &View<'_>,
    ) -> Vec<ServiceName> {
        let all: Vec<String>;
        let typed = match (request, targets) {
            (Request::Unregister { .. }, Targets::Names(names)) => names,
            (Request::Unregister { .. }, Targets::All) => {
                all = self.only_refused(view.fleet).map(|(name, _)| name.to_owned()).collect();
                &all
            }
            _ => return Vec::new(),
        };
        let records: BTreeMap<&ServiceName, &RecordRow> =
            typed.iter().filter_map(|typed| self.refused_record(typed, view.fleet)).collect();
        let permitted = |(name, row): (&ServiceName, &RecordRow)| {
            let runs_as = users::resolve(&row.user).ok().flatten().map(|user| user.uid);
            let facts = Facts { name: name.as_str(), runs_as, owns_one: true, ..Facts::default() };
            match view.rules().judge(uid, request, &facts) {
                Ok(()) => Some(name.clone()),
                Err(denied) => {
                    let (code, state) = (Code::NotPermitted, Some(State::Refused));
                    complaints.push(Outcome::failed(name.as_str(), code, state, denied.to_string()));
                    None
                }
            }
        };
        records.into_iter().filter_map(permitted).collect()
    }

    /// A refused record is gone from the disk, or could not be removed.
    pub fn record_dropped(
        &mut self,
        name: &ServiceName,
        ticket: Ticket,
        error: Option<String>,
        _: &View<'_>,
    ) -> Actions {
        let outcome = match error {
            Some(why) => {
                let message = format!("'{name}' is not unregistered: {why}");
                Outcome::failed(name.as_str(), Code::Failed, Some(State::Refused), message)
            }
            None => {
                self.dormant.remove(name);
                self.refused.remove(name.as_str());
                Outcome::done(name.as_str(), State::Down, Some("unregistered".to_owned()))
            }
        };
        vec![Action::Answer(ticket, outcome)]
    }

    /// The rows of those of `typed`, or of all.
    pub fn refused_rows(&self, typed: Option<&[String]>, fleet: &Fleet) -> Vec<ServiceStatus> {
        let rows: BTreeMap<&str, &Refusal> = match typed {
            None => self.only_refused(fleet).collect(),
            Some(typed) => typed.iter().filter_map(|typed| self.find_refused(typed, fleet)).collect(),
        };
        rows.into_iter().map(|(name, refusal)| refusal.status(name)).collect()
    }

    /// All names that there is something to show of, in order.
    pub fn shown_names(&self, fleet: &Fleet) -> Vec<String> {
        let mut names: Vec<String> = fleet.names().map(ToString::to_string).collect();
        names.extend(self.only_refused(fleet).map(|(name, _)| name.to_owned()));
        names.sort();
        names
    }

    /// That a service which goes on has a newer definition that is refused.
    pub fn refused_since(&self, name: &ServiceName) -> Option<String> {
        let refusal = self.refused.get(name.as_str())?;
        Some(format!("a definition of it is refused: {}", refusal.why))
    }
}
