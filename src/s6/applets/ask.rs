//! One question to the supervisor and its answer, in the terms that the tools of s6 distinguish.

use super::target::NoSlot;
use crate::control::client::{Client, ClientError, Search};
use crate::control::protocol::{
    Code, Outcome, Part, RefusalKind, Request, ServiceStatus, SupervisorStatus, Targets,
};
use std::time::{Duration, Instant};

/// How long the supervisor may take for what it need not wait for itself. It looks for new profiles, for two seconds
/// at most, before it says that it does not know a name.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What a question gets whose time is over before it is asked: what is known already still comes.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Why a question has no good answer. The text is one line, without the program's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nobody listens.
    NoSupervisor(String),
    /// The supervisor knows no such slot.
    NoSlot(String),
    /// The answer did not come in time.
    Late,
    /// It was tried and failed.
    Failed(String),
    /// Not permitted, or the connection broke.
    System(String),
}

impl Problem {
    pub fn text(&self) -> &str {
        match self {
            Self::NoSupervisor(text) | Self::NoSlot(text) | Self::Failed(text) | Self::System(text) => text,
            Self::Late => "timed out",
        }
    }

    /// The exit code of `s6-svc` and `s6-svwait`.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Late => 99,
            Self::NoSupervisor(_) | Self::NoSlot(_) => 102,
            Self::System(_) => 111,
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::NoSupervisor(_) => Self::NoSupervisor(text),
            ClientError::TimedOut { .. } => Self::Late,
            ClientError::Refused(refusal) if refusal.kind == RefusalKind::Failed => Self::Failed(text),
            ClientError::Refused(_) | ClientError::Ended { .. } | ClientError::Io { .. } => {
                Self::System(text)
            }
        }
    }
}

impl From<NoSlot> for Problem {
    fn from(error: NoSlot) -> Self {
        Self::NoSlot(error.to_string())
    }
}

impl From<Outcome> for Problem {
    fn from(outcome: Outcome) -> Self {
        let state = outcome.state.map_or("gone", |state| state.as_str());
        let text = outcome.message.unwrap_or_else(|| format!("it is {state}"));
        match outcome.code {
            Code::NoSuchService => Self::NoSlot(text),
            Code::NotPermitted => Self::System(text),
            Code::TimedOut => Self::Late,
            Code::NoSupervisor | Code::Done | Code::Failed | Code::Usage | Code::NotUp => Self::Failed(text),
        }
    }
}

/// Asks for what is not about one service; whatever parts the answer has are of no interest.
///
/// # Errors
/// [`Problem`].
pub fn ask(search: &Search, request: &Request) -> Result<(), Problem> {
    let mut client = Client::connect(search)?;
    Ok(client.call(request, Some(PATIENCE), drop)?)
}

/// Does `request` to the services that it names; the outcomes in the order in which they came. `until`: no longer;
/// without it as long as it takes.
///
/// # Errors
/// [`Problem`], [`Problem::Late`] when that moment has come; the supervisor goes on with what it was asked for.
pub fn act(search: &Search, request: &Request, until: Option<Instant>) -> Result<Vec<Outcome>, Problem> {
    let mut outcomes = Vec::new();
    let mut client = Client::connect(search)?;
    let silence = until.map(|until| until.saturating_duration_since(Instant::now()).max(AT_ONCE));
    client.call(request, silence, |part| {
        if let Part::Outcome(outcome) = part {
            outcomes.push(outcome);
        }
    })?;
    Ok(outcomes)
}

/// As [`act`], for a request that names one service: what became of it.
///
/// # Errors
/// [`Problem`], also for an outcome that is no success.
pub fn act_on_one(search: &Search, request: &Request, until: Option<Instant>) -> Result<Outcome, Problem> {
    let outcome = act(search, request, until)?.pop();
    match outcome.ok_or_else(|| Problem::System("the supervisor's answer has no outcome in it".to_owned()))? {
        done if done.ok => Ok(done),
        failed => Err(failed.into()),
    }
}

/// The status of one service. `patience`: how long the supervisor may take.
///
/// # Errors
/// [`Problem`].
pub fn service(search: &Search, name: &str, patience: Duration) -> Result<ServiceStatus, Problem> {
    let (mut found, mut problem) = (None, None);
    let mut client = Client::connect(search)?;
    client.call(&Request::Status { targets: only(name) }, Some(patience), |part| match part {
        Part::Service(status) => found = Some(*status),
        Part::Outcome(outcome) => problem = Some(Problem::from(outcome)),
        Part::Supervisor(_)
        | Part::Name(_)
        | Part::LogPlace(_)
        | Part::Scope(_)
        | Part::Tree(_)
        | Part::Audit(_)
        | Part::Event(_)
        | Part::Lost(_)
        | Part::LogFile(_) => {}
    })?;
    match (found, problem) {
        (Some(status), _) => Ok(status),
        (None, Some(problem)) => Err(problem),
        (None, None) => Err(Problem::System("the supervisor's answer has no status in it".to_owned())),
    }
}

/// The status of the supervisor itself.
///
/// # Errors
/// [`Problem`].
pub fn supervisor(search: &Search) -> Result<SupervisorStatus, Problem> {
    let mut found = None;
    let mut client = Client::connect(search)?;
    client.call(&Request::Status { targets: Targets::Names(Vec::new()) }, Some(PATIENCE), |part| {
        if let Part::Supervisor(status) = part {
            found = Some(*status);
        }
    })?;
    found.ok_or_else(|| Problem::System("the supervisor's answer has no status in it".to_owned()))
}

/// Somebody listens.
///
/// # Errors
/// [`Problem`].
pub fn anybody(search: &Search) -> Result<(), Problem> {
    Ok(Client::connect(search).map(drop)?)
}

/// The targets of a request about one slot.
pub fn only(name: &str) -> Targets {
    Targets::Names(vec![name.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Refusal, State};

    #[test]
    fn every_kind_of_failure_has_the_code_that_s6_gives_it() {
        let outcome = |code| Problem::from(Outcome::failed("x", code, Some(State::Down), "why"));
        for (problem, code) in [
            (outcome(Code::Failed), 1),
            (outcome(Code::NoSuchService), 102),
            (outcome(Code::NotPermitted), 111),
            (outcome(Code::TimedOut), 99),
            (Problem::from(ClientError::NoSupervisor("nobody".into())), 102),
            (Refusal::new(RefusalKind::NotPermitted, "no").into_problem(), 111),
            (Refusal::new(RefusalKind::Failed, "no").into_problem(), 1),
            (Refusal::new(RefusalKind::Busy, "no").into_problem(), 111),
            (Problem::from(ClientError::Ended { path: "/s".into() }), 111),
        ] {
            assert_eq!(problem.code(), code, "{problem:?}");
        }
    }

    impl Refusal {
        fn into_problem(self) -> Problem {
            ClientError::from(self).into()
        }
    }
}
