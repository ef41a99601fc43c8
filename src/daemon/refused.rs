//! Definitions that cannot be read. Their services stay rows of `status` with file, line and sentence; one that runs on with
//! the definition before says so.

use super::Supervisor;
use crate::control::naming;
use crate::control::protocol::{Code, Outcome, ServiceStatus, State, Want};
use crate::core::fleet::ServiceId;
use std::collections::BTreeMap;

/// A service that somebody meant to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where: a file, or what else the definition comes from.
    pub definition: String,
    /// `FILE:LINE:COLUMN: what is wrong; what is allowed`.
    pub why: String,
    /// What was last wanted of it.
    pub want: Want,
    /// It is still being read.
    pub late: bool,
}

/// By name, which need not be one that a service may have.
pub type Refusals = BTreeMap<String, Refusal>;

impl Refusal {
    fn status(&self, name: &str) -> ServiceStatus {
        ServiceStatus {
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

impl Supervisor {
    /// Those that are no services: there is nothing else to show under their names.
    fn only_refused(&self) -> impl Iterator<Item = (&str, &Refusal)> {
        let refused = self.refused.iter().map(|(name, refusal)| (name.as_str(), refusal));
        refused.filter(|(name, _)| self.fleet.id(name).is_none())
    }

    /// The refused definition that a typed name means, if it means no service.
    fn find_refused(&self, typed: &str) -> Option<(&str, &Refusal)> {
        let name = naming::resolve(typed, |name| self.refused.contains_key(name))?;
        self.only_refused().find(|(refused, _)| *refused == name)
    }

    pub(super) fn is_refused(&self, typed: &str) -> bool {
        self.find_refused(typed).is_some()
    }

    /// The answer to a verb for a name whose definition is refused.
    pub(super) fn refused_outcome(&self, typed: &str) -> Option<Outcome> {
        self.find_refused(typed).map(|(name, refusal)| refusal.outcome(name))
    }

    /// The rows of those of `typed`, or of all.
    pub(super) fn refused_rows(&self, typed: Option<&[String]>) -> Vec<ServiceStatus> {
        let rows: BTreeMap<&str, &Refusal> = match typed {
            None => self.only_refused().collect(),
            Some(typed) => typed.iter().filter_map(|typed| self.find_refused(typed)).collect(),
        };
        rows.into_iter().map(|(name, refusal)| refusal.status(name)).collect()
    }

    /// All names that there is something to show of, in order.
    pub(super) fn shown_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.fleet.names().map(ToString::to_string).collect();
        names.extend(self.only_refused().map(|(name, _)| name.to_owned()));
        names.sort();
        names
    }

    /// That a service which goes on has a newer definition that is refused.
    pub(super) fn refused_since(&self, id: ServiceId) -> Option<String> {
        let refusal = self.refused.get(self.fleet.name(id)?.as_str())?;
        Some(format!("a definition of it is refused: {}", refusal.why))
    }
}
