//! The request of a verb: patterns become names, and how long the answer may take.

use super::{PATIENCE, Unanswered};
use crate::cli::args::Verb;
use crate::cli::pattern::{self, Expanded};
use crate::control::client::Client;
use crate::control::protocol::{Deadline, Outcome, Part, Request, Targets};
use crate::monitor::verdict;
use std::time::Duration;

/// The request of a verb, with names for patterns; and the answer to each pattern that matches nothing.
pub(super) fn meant(client: &mut Client, verb: &Verb) -> Result<(Request, Vec<Outcome>), Unanswered> {
    let request = verb.request();
    let (request, unmatched) = match request.targets() {
        Some(Targets::Names(words)) => {
            let (targets, unmatched) = targets(client, words)?;
            (request.about(targets), unmatched)
        }
        Some(Targets::All) | None => (request, Vec::new()),
    };
    match verb {
        Verb::Tree { failed: true, .. } => {
            let mut names = Vec::new();
            let status = Request::Status { targets: request.targets().cloned().unwrap_or(Targets::All) };
            client.call(&status, Some(PATIENCE), |part| match part {
                Part::Service(service) if verdict::has_failed(&service) => names.push(service.name),
                _ => {}
            })?;
            Ok((request.about(Targets::Names(names)), unmatched))
        }
        _ => Ok((request, unmatched)),
    }
}

/// The services that these words name, and the answer to each pattern that matches nothing. The supervisor is asked only if
/// there is a pattern among them.
pub(in crate::cli) fn targets(
    client: &mut Client,
    words: &[String],
) -> Result<(Targets, Vec<Outcome>), Unanswered> {
    if !words.iter().any(|word| pattern::is_pattern(word)) {
        return Ok((Targets::Names(words.to_vec()), Vec::new()));
    }
    let mut known = Vec::new();
    client.call(&Request::List {}, Some(PATIENCE), |part| {
        if let Part::Name(name) = part {
            known.push(name);
        }
    })?;
    let Expanded { names, unmatched } = pattern::expand(words, &known)?;
    Ok((Targets::Names(names), unmatched))
}

/// How long the supervisor may be silent. It is longer than the supervisor waits itself, so that the supervisor gives up first
/// and says why. `None`: no bound, as for what ends when process trees end.
pub(super) fn patience(request: &Request) -> Option<Duration> {
    let waits = match request.deadline() {
        Deadline::AtOnce => Some(Duration::ZERO),
        Deadline::Never | Deadline::CallersEach(_) => None,
        deadline @ (Deadline::After(_) | Deadline::Callers(_)) => deadline.after(request.timeout()),
    };
    waits.map(|waits| waits.saturating_add(PATIENCE))
}
