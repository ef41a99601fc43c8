//! `hermes-sup ctl`: asks, waits, shows one line for each service as its answer comes, and ends with the exit code
//! that says what came of it. Interrupted, it ends by the signal; what it asked for goes on without it.
//!
//! `request.rs` makes the request, `answer.rs` gathers the parts of the answer, `show.rs` shows it when it is complete.

mod answer;
mod request;
mod show;
#[cfg(test)]
mod tests;

use super::args::{Ctl, Verb};
use super::logs::LogFiles;
use super::pattern::PatternError;
use super::render::Console;
use super::{events, healthcheck, top};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Code, Outcome, Part};
use answer::Answer;
pub(super) use request::targets;
use request::{meant, patience};
use serde::Serialize;
use show::show;
use std::ops::ControlFlow;
use std::time::Duration;

/// How long the supervisor may take, beside what it has to wait for itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Carries out one `ctl` command.
pub fn run(ctl: &Ctl, console: &mut Console<'_>, files: &dyn LogFiles) -> Code {
    let mut answer = Answer::default();
    let verb = &ctl.verb;
    if let Verb::Healthcheck { asked } = verb {
        return healthcheck::run(ctl, &asked.names, asked.profile.as_deref(), console);
    }
    if let Verb::Top { once, interval } = verb {
        return top::run(ctl, *once, *interval, console, files);
    }
    let called = Client::connect(&ctl.search).map_err(Unanswered::from).and_then(|mut client| {
        let (request, unmatched) = meant(&mut client, verb)?;
        let mut take = |part: Part| {
            match &part {
                // The line for a service appears when its answer does; documents are shown as a whole at the end.
                Part::Outcome(outcome) if !outcome.ok || !ctl.json => show_outcome(console, outcome),
                Part::Event(event) => events::show(console, event, ctl.json),
                Part::Lost(lost) => events::show_lost(console, *lost, ctl.json),
                _ => {}
            }
            // Without a reader a stream ends. Other orders go on, and their result is waited for.
            let streams = matches!(part, Part::Event(_) | Part::Lost(_));
            answer.take(part);
            if streams && console.has_ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        for outcome in unmatched {
            let _ = take(Part::Outcome(outcome));
        }
        client.listen(&request, patience(&request), take)?;
        Ok(())
    });
    // Otherwise nothing was asked for, and there is nothing to show.
    let connected =
        !matches!(called, Err(Unanswered::Pattern(_) | Unanswered::Client(ClientError::NoSupervisor(_))));
    let mut codes: Vec<Code> = answer.results.iter().map(outcome_code).collect();
    if let Err(error) = &called {
        console.error(&error.to_string());
        codes.push(error.code());
    }
    if connected {
        codes.push(show(ctl, called.is_ok(), answer, console, files));
    }
    if console.failed() {
        codes.push(Code::Failed);
    }
    Code::common(codes)
}

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Unanswered {
    fn code(&self) -> Code {
        match self {
            Self::Client(error) => error.code(),
            Self::Pattern(error) => error.code(),
        }
    }
}

pub(super) fn document(console: &mut Console<'_>, document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(text) => console.show(&format!("{text}\n")),
        Err(error) => console.error(&format!("cannot be put into JSON: {error}")),
    }
}

fn show_outcome(console: &mut Console<'_>, outcome: &Outcome) {
    let name = &outcome.name;
    let state = outcome.state.map_or("done", |state| state.as_str());
    match (outcome.ok, outcome.message.as_deref()) {
        (true, words) => console.line(&format!("{name}: {}", words.unwrap_or(state))),
        // It names the service itself.
        (false, Some(sentence)) => console.error(sentence),
        (false, None) => console.error(&format!("'{name}': not done, it is {state}")),
    }
}

fn outcome_code(outcome: &Outcome) -> Code {
    match (outcome.ok, outcome.code) {
        (true, _) => Code::Done,
        (false, Code::Done) => Code::Failed,
        (false, code) => code,
    }
}
