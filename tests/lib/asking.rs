//! What is asked of a supervisor by a program that speaks to its socket itself, and what it was told.

use super::harness::World;
use hermes_sup::control::client::{Client, ClientError, Search};
use hermes_sup::control::protocol::{
    Part, Program, Registration, Request, ServiceStatus, SupervisorStatus, Targets,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A service of hermes's that does nothing; `mark` tells its processes from all others.
pub fn pausing(name: &str, mark: &str) -> Registration {
    Registration {
        name: name.to_owned(),
        user: Some("hermes".to_owned()),
        env: BTreeMap::new(),
        down: false,
        program: Program::Argv(["/adversary", "pause", name, mark].map(str::to_owned).to_vec()),
    }
}

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Done,
    /// With the reason.
    Failed(String),
    /// The connection ended, or there was none.
    Lost(String),
    /// Nothing at all, for all our patience.
    Silence,
}

/// Where a supervisor may listen: in `/run`, or beside its state.
#[derive(Debug, Clone)]
pub struct Sockets([PathBuf; 2]);

impl Sockets {
    pub fn of(world: &World) -> Self {
        Self(["/run/hermes-sup/control.sock", "/opt/data/supervisor/control.sock"].map(|at| world.path(at)))
    }

    /// As [`Client::connect`].
    pub fn client(&self) -> Result<Client, ClientError> {
        let connect = |socket: &PathBuf| {
            Client::connect(&Search { explicit: Some(socket.clone()), state: socket.clone() })
        };
        connect(&self.0[0]).or_else(|_| connect(&self.0[1]))
    }

    /// What it says of itself and of all services.
    pub fn status(
        &self,
        patience: Duration,
    ) -> Result<(Option<SupervisorStatus>, BTreeMap<String, ServiceStatus>), ClientError> {
        let (mut supervisor, mut services) = (None, BTreeMap::new());
        let request = Request::Status { targets: Targets::All };
        self.client()?.call(&request, Some(patience), |part| match part {
            Part::Supervisor(status) => supervisor = Some(*status),
            Part::Service(service) => drop(services.insert(service.name.clone(), *service)),
            _ => {}
        })?;
        Ok((supervisor, services))
    }
}

/// The same request for one service.
pub fn one(name: &str) -> Targets {
    Targets::Names(vec![name.to_owned()])
}

/// Asks for something for services: what was answered for each, or under an empty name where it names none.
pub fn ask(
    client: Result<Client, ClientError>,
    names: &[&str],
    request: &Request,
    patience: Duration,
) -> BTreeMap<String, Told> {
    let mut outcomes = Vec::new();
    let answer = client.and_then(|mut client| {
        client.call(request, Some(patience), |part| {
            if let Part::Outcome(outcome) = part {
                outcomes.push(outcome);
            }
        })
    });
    let otherwise = match answer {
        // It said it is done, and nothing of some: what is not told of cannot be relied on.
        Ok(()) if names.is_empty() => Told::Done,
        Ok(()) => Told::Lost("the answer does not speak of it".to_owned()),
        Err(ClientError::Refused(refusal)) => Told::Failed(refusal.message),
        Err(ClientError::TimedOut { .. }) => Told::Silence,
        Err(error) => Told::Lost(error.to_string()),
    };
    let mut told: BTreeMap<String, Told> =
        names.iter().map(|name| ((*name).to_owned(), otherwise.clone())).collect();
    if names.is_empty() {
        told.insert(String::new(), otherwise);
    }
    for outcome in outcomes {
        let message = outcome.message.unwrap_or_default();
        told.insert(outcome.name, if outcome.ok { Told::Done } else { Told::Failed(message) });
    }
    told
}
