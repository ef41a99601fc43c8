//! An answer, gathered part by part as it comes, for what is shown when it is complete.

use crate::cli::tree;
use crate::control::protocol::{Audit, LogPlace, Outcome, Part, ServiceStatus, SupervisorStatus, Tree};

/// Everything that an answer can hold.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) supervisor: Option<SupervisorStatus>,
    pub(super) services: Vec<ServiceStatus>,
    pub(super) results: Vec<Outcome>,
    pub(super) names: Vec<String>,
    pub(super) places: Vec<LogPlace>,
    pub(super) trees: Vec<Tree>,
    pub(super) audits: Vec<Audit>,
}

impl Answer {
    pub(super) fn take(&mut self, part: Part) {
        match part {
            Part::Supervisor(supervisor) => self.supervisor = Some(*supervisor),
            Part::Service(service) => self.services.push(*service),
            Part::Outcome(outcome) => self.results.push(outcome),
            Part::Name(name) => self.names.push(name),
            Part::LogPlace(place) => self.places.push(place),
            Part::Tree(part) => tree::join(&mut self.trees, part),
            Part::Audit(audit) => self.audits.push(*audit),
            // Shown as they came.
            Part::Event(_) | Part::Lost(_) => {}
            // `logs` asks for it in a call of its own.
            Part::LogFile(_) => {}
            // No verb asks for one.
            Part::Scope(_) => {}
        }
    }
}
