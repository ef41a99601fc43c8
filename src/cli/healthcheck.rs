//! `healthcheck`: one line, and 0 or 1, as HEALTHCHECK of Docker and the exec probes of Kubernetes want it.

use super::args::Ctl;
use super::ctl::{PATIENCE, document, targets};
use super::render::Console;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{
    Code, Kind, Outcome, Part, Request, ServiceStatus, SupervisorStatus, Targets, VERSION,
};
use crate::monitor::verdict::{Fault, fault, judge};
use serde::Serialize;

/// Says whether all is well, or what was asked for by name is. Whatever keeps that from being known is no health either.
pub fn run(ctl: &Ctl, names: &[String], profile: Option<&str>, console: &mut Console<'_>) -> Code {
    let answer = match ask(ctl, names, profile) {
        Ok(answer) => answer,
        Err(error) => {
            console.error(&error.to_string());
            return Code::Failed;
        }
    };
    let asked_for = profile.is_some() || !names.is_empty();
    let stopping = answer.supervisor.is_some_and(|supervisor| supervisor.stopping);
    let verdict = judge(&answer.services, asked_for);
    let unknown = answer.complaints.iter().find_map(|outcome| outcome.message.clone());
    let no_gateway = || {
        let profile = profile?;
        let wrong = answer.services.iter().any(|one| one.kind != Kind::Gateway);
        wrong.then(|| format!("'{profile}' is no gateway of a profile"))
    };
    let (healthy, line) = match unknown.or_else(no_gateway) {
        Some(why) => (false, format!("unhealthy: {why}")),
        None if stopping => (false, "unhealthy: the supervisor is shutting down".to_owned()),
        None => (verdict.is_well(), verdict.to_string()),
    };
    if ctl.json {
        let faults = answer.services.iter().filter_map(|service| {
            Some(Faulty { name: &service.name, fault: fault(service, asked_for)?, status: service })
        });
        document(
            console,
            &HealthDocument { version: VERSION, healthy, line: &line, faults: faults.collect() },
        );
    } else {
        console.line(&line);
    }
    if healthy { Code::Done } else { Code::Failed }
}

#[derive(Serialize)]
struct HealthDocument<'a> {
    version: u32,
    healthy: bool,
    line: &'a str,
    faults: Vec<Faulty<'a>>,
}

#[derive(Serialize)]
struct Faulty<'a> {
    name: &'a str,
    fault: Fault,
    status: &'a ServiceStatus,
}

#[derive(Default)]
struct Answer {
    supervisor: Option<SupervisorStatus>,
    services: Vec<ServiceStatus>,
    complaints: Vec<Outcome>,
}

impl Answer {
    fn take(&mut self, part: Part) {
        match part {
            Part::Supervisor(supervisor) => self.supervisor = Some(*supervisor),
            Part::Service(service) => self.services.push(*service),
            Part::Outcome(outcome) => self.complaints.push(outcome),
            _ => {}
        }
    }
}

/// The status of what is asked for, and of the gateways that serve it in its place.
fn ask(ctl: &Ctl, names: &[String], profile: Option<&str>) -> Result<Answer, super::ctl::Unanswered> {
    let mut client = Client::connect(&ctl.search)?;
    let (typed, unmatched) = match profile {
        Some(profile) => (Targets::Names(vec![profile.to_owned()]), Vec::new()),
        None if names.is_empty() => (Targets::All, Vec::new()),
        None => targets(&mut client, names)?,
    };
    let mut answer = Answer { complaints: unmatched, ..Answer::default() };
    let mut status = |answer: &mut Answer, targets| -> Result<(), ClientError> {
        client.call(&Request::Status { targets }, Some(PATIENCE), |part| answer.take(part))
    };
    let all = typed == Targets::All;
    status(&mut answer, typed)?;
    let mut others: Vec<String> =
        answer.services.iter().filter_map(|service| service.served_by.clone()).collect();
    others.sort();
    others.dedup();
    others.retain(|name| answer.services.iter().all(|service| service.name != *name));
    if !all && !others.is_empty() {
        status(&mut answer, Targets::Names(others))?;
    }
    Ok(answer)
}
