//! `hermes-sup ctl`: asks, waits, shows one line for each service as its answer comes, and ends with the exit code
//! that says what came of it. Interrupted, it ends by the signal; what it asked for goes on without it.

use super::args::{Ctl, Verb};
use super::logs::{self, LogFiles};
use super::render::{Console, printable};
use super::status;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{
    Code, LogPlace, Outcome, Part, Refusal, RefusalKind, Request, ResultsDocument, ServiceStatus,
    StatusDocument, SupervisorStatus, VERSION,
};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// How long the supervisor may take for anything that it need not wait for itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the supervisor allows a start when the caller says nothing.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Log lines on a card.
const CARD_LINES: usize = 10;

/// Carries out one `ctl` command.
pub fn run(ctl: &Ctl, console: &mut Console<'_>, files: &dyn LogFiles) -> Code {
    let mut answer = Answer::default();
    let verb = &ctl.verb;
    let request = verb.request();
    let called = Client::connect(&ctl.search).and_then(|mut client| {
        client.call(&request, patience(&request), |part| {
            // The line for a service appears when its answer does; documents are shown as a whole at the end.
            if let Part::Outcome(outcome) = &part
                && (!outcome.ok || !ctl.json)
            {
                show_outcome(console, outcome);
            }
            answer.take(part);
        })
    });
    let connected = !matches!(called, Err(ClientError::NoSupervisor(_)));
    let mut codes: Vec<Code> = answer.results.iter().map(outcome_code).collect();
    if let Err(error) = &called {
        console.error(&error.to_string());
        codes.push(error.code());
    }
    if connected {
        codes.push(show(verb, ctl.json, called.is_ok(), answer, console, files));
    }
    if console.failed() {
        codes.push(Code::Failed);
    }
    Code::common(codes)
}

/// Everything that an answer can hold.
#[derive(Debug, Default)]
struct Answer {
    supervisor: Option<SupervisorStatus>,
    services: Vec<ServiceStatus>,
    results: Vec<Outcome>,
    names: Vec<String>,
    places: Vec<LogPlace>,
}

impl Answer {
    fn take(&mut self, part: Part) {
        match part {
            Part::Supervisor(supervisor) => self.supervisor = Some(*supervisor),
            Part::Service(service) => self.services.push(*service),
            Part::Outcome(outcome) => self.results.push(outcome),
            Part::Name(name) => self.names.push(name),
            Part::LogPlace(place) => self.places.push(place),
        }
    }
}

/// Shows what is left to show at the end. `complete`: the answer was.
fn show(
    verb: &Verb,
    json: bool,
    complete: bool,
    answer: Answer,
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    match verb {
        Verb::Status { names } => return show_status(names, json, complete, answer, console, files),
        Verb::Logs { .. } => return show_logs(verb, json, &answer.places, console, files),
        Verb::List if json => document(console, &NamesDocument { version: VERSION, names: answer.names }),
        Verb::List => {
            let lines: String = answer.names.iter().map(|name| format!("{}\n", printable(name))).collect();
            console.show(&lines);
        }
        _ if json => document(console, &ResultsDocument { version: VERSION, results: answer.results }),
        Verb::Reload { .. } if complete && answer.results.is_empty() => console.line("nothing changed"),
        Verb::Shutdown { .. } if complete => console.line("shutting down"),
        _ => {}
    }
    Code::Done
}

fn show_status(
    names: &[String],
    json: bool,
    complete: bool,
    answer: Answer,
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    let Some(supervisor) = answer.supervisor else {
        if complete {
            let refusal = Refusal::new(RefusalKind::Malformed, "the supervisor's answer has no status in it");
            console.error(&refusal.to_string());
            return Code::Failed;
        }
        return Code::Done;
    };
    let services = answer.services;
    let not_up = !names.is_empty() && services.iter().any(|service| !service.state.is_up());
    if json {
        document(console, &StatusDocument { version: VERSION, supervisor, services });
    } else {
        let mut text = status::header(&supervisor);
        match (names, &services[..]) {
            ([_], [service]) => {
                let tail = service.log.as_deref().map(|dir| files.tail(dir, CARD_LINES)).unwrap_or_default();
                text.push_str(&status::card(service, &tail, console.color));
            }
            // Named, and none found: the errors have said so.
            ([_, ..], []) => text.clear(),
            _ => text.push_str(&status::table(&services, console.color)),
        }
        console.show(&text);
    }
    if not_up { Code::NotUp } else { Code::Done }
}

fn show_logs(
    verb: &Verb,
    json: bool,
    places: &[LogPlace],
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    let Some(query) = verb.log_query(SystemTime::now()).filter(|_| !places.is_empty()) else {
        return Code::Done;
    };
    match logs::show(console, files, places, &query, json) {
        Ok(()) => Code::Done,
        Err(error) => {
            console.error(&format!("failed to read the log: {error}"));
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => Code::NotPermitted,
                _ => Code::Failed,
            }
        }
    }
}

#[derive(Serialize)]
struct NamesDocument {
    version: u32,
    names: Vec<String>,
}

fn document(console: &mut Console<'_>, document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(text) => console.show(&format!("{text}\n")),
        Err(error) => console.error(&format!("cannot be put into JSON: {error}")),
    }
}

fn show_outcome(console: &mut Console<'_>, outcome: &Outcome) {
    let name = &outcome.name;
    let state = outcome.state.map_or("done", |state| state.word());
    let words = outcome.message.as_deref().unwrap_or(state);
    if outcome.ok {
        console.line(&format!("{name}: {words}"));
    } else if words.contains(&format!("'{name}'")) {
        console.error(words);
    } else {
        console.error(&format!("{name}: {words}"));
    }
}

fn outcome_code(outcome: &Outcome) -> Code {
    match (outcome.ok, outcome.code) {
        (true, _) => Code::Done,
        (false, Code::Done) => Code::Failed,
        (false, code) => code,
    }
}

/// How long to bear the supervisor's silence. What ends when it ends (a stop, a wait without timeout) has no bound.
fn patience(request: &Request) -> Option<Duration> {
    let own = |timeout_ms: Option<u64>| timeout_ms.map(Duration::from_millis);
    match request {
        Request::Start { timeout_ms, .. } | Request::Once { timeout_ms, .. } => {
            Some(own(*timeout_ms).unwrap_or(START_TIMEOUT).saturating_add(PATIENCE))
        }
        Request::Register(_) => Some(START_TIMEOUT + PATIENCE),
        Request::Wait { timeout_ms, .. } => own(*timeout_ms).map(|timeout| timeout.saturating_add(PATIENCE)),
        // A reload that restarts what has changed waits for trees to end, as a stop does.
        Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Unregister { .. }
        | Request::Reload { restart: true } => None,
        Request::Status { .. }
        | Request::List {}
        | Request::Kill { .. }
        | Request::Reload { restart: false }
        | Request::Shutdown { .. }
        | Request::LogPlaces { .. } => Some(PATIENCE),
    }
}
