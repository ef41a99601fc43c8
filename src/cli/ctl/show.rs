//! What of an answer is shown when it is complete: tables, cards, logs and documents.

use super::answer::Answer;
use super::{PATIENCE, document};
use crate::cli::args::{Ctl, Verb};
use crate::cli::logs::{self, LogFiles};
use crate::cli::render::{Console, printable};
use crate::cli::{audit, pattern, status, tree};
use crate::control::client::Client;
use crate::control::protocol::{
    AuditDocument, Code, LogPlace, Refusal, RefusalKind, ResultsDocument, ServiceStatus, StatusDocument,
    TreesDocument, VERSION,
};
use crate::monitor::{chart, prometheus, verdict};
use crate::sys::localtime::Zone;
use serde::Serialize;
use std::io;
use std::time::SystemTime;

/// Log lines on a card.
const CARD_LINES: usize = 10;

/// Shows what was not shown as it came. `complete`: whether the whole answer has come.
pub(super) fn show(
    ctl: &Ctl,
    complete: bool,
    mut answer: Answer,
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    let (verb, json) = (&ctl.verb, ctl.json);
    match verb {
        Verb::Status { names, failed } => {
            if *failed {
                answer.services.retain(verdict::has_failed);
            }
            return show_status(names, *failed, json, complete, answer, console, files);
        }
        Verb::Metrics => {
            if let Some(supervisor) = answer.supervisor.filter(|_| complete) {
                console.show(&prometheus::text(&supervisor, &answer.services));
            }
        }
        Verb::Boot { svg } => return show_boot(*svg, json, complete, &answer.services, console),
        Verb::Logs { .. } => return show_logs(ctl, &answer.places, console, files),
        Verb::Tree { .. } if json => {
            document(console, &TreesDocument { version: VERSION, services: answer.trees });
        }
        Verb::Tree { failed: true, .. } if answer.trees.is_empty() => console.line("nothing has failed"),
        Verb::Tree { .. } => console.show_rows(&tree::show(&answer.trees)),
        Verb::Audit { .. } if json => {
            document(console, &AuditDocument { version: VERSION, services: answer.audits });
        }
        Verb::Audit { .. } => console.show(&audit::show(&answer.audits, console.columns)),
        Verb::Events { .. } => {}
        Verb::List if json => document(console, &NamesDocument { version: VERSION, names: answer.names }),
        Verb::List => {
            let lines: String = answer.names.iter().map(|name| format!("{}\n", printable(name))).collect();
            console.show(&lines);
        }
        _ if json => document(console, &ResultsDocument { version: VERSION, results: answer.results }),
        Verb::Reload { .. } if complete && answer.results.is_empty() => console.line("nothing changed"),
        Verb::Shutdown { .. } if complete => console.line("shutting down"),
        Verb::Upgrade { .. } if complete => console.line("upgraded"),
        _ => {}
    }
    Code::Done
}

fn show_status(
    names: &[String],
    failed: bool,
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
    let not_up =
        !names.is_empty() && !failed && services.iter().any(|service| !service.state.does_its_work());
    if json {
        document(console, &StatusDocument { version: VERSION, supervisor, services });
    } else {
        let header = status::header(&supervisor);
        match (names, &services[..]) {
            ([name], [service]) if !pattern::is_pattern(name) => {
                let tail = service.log.as_deref().map(|dir| files.tail(dir, CARD_LINES)).unwrap_or_default();
                console.show_rows(&header);
                console.show(&status::card(service, &tail, console.color, Zone::own(), console.columns));
            }
            // Named, and none found: the errors have said so.
            ([_, ..], []) if !failed => {}
            (_, []) if failed => console.show_rows(&(header + "nothing has failed\n")),
            _ => console.show_rows(&(header + &status::table(&services, console.color, console.columns))),
        }
    }
    if not_up { Code::NotUp } else { Code::Done }
}

fn show_boot(
    svg: bool,
    json: bool,
    complete: bool,
    services: &[ServiceStatus],
    console: &mut Console<'_>,
) -> Code {
    match chart::chart(services) {
        _ if !complete => {}
        None => {
            console.error("this supervisor has not started any service");
            return Code::Failed;
        }
        Some(chart) if json => document(console, &BootDocument { version: VERSION, boot: &chart }),
        Some(chart) if svg => console.show(&chart::svg(&chart)),
        Some(chart) => console.show_rows(&chart::text(&chart)),
    }
    Code::Done
}

#[derive(Serialize)]
struct BootDocument<'a> {
    version: u32,
    #[serde(flatten)]
    boot: &'a chart::Chart<'a>,
}

fn show_logs(ctl: &Ctl, places: &[LogPlace], console: &mut Console<'_>, files: &dyn LogFiles) -> Code {
    let Some(query) = ctl.verb.log_query(SystemTime::now()).filter(|_| !places.is_empty()) else {
        return Code::Done;
    };
    // If a service's own user cannot reach the files, the supervisor opens them.
    let mut handed = |place: &LogPlace| {
        let mut client = Client::connect(&ctl.search).map_err(io::Error::other)?;
        client.log_files(&place.name, Some(PATIENCE)).map_err(io::Error::other)
    };
    let kind = match logs::show(console, files, places, &query, &mut handed, ctl.json) {
        Ok(None) => return Code::Done,
        Ok(Some(kind)) => kind,
        Err(error) => {
            console.error(&format!("failed to read the log: {error}"));
            error.kind()
        }
    };
    match kind {
        io::ErrorKind::PermissionDenied => Code::NotPermitted,
        _ => Code::Failed,
    }
}

#[derive(Serialize)]
struct NamesDocument {
    version: u32,
    names: Vec<String>,
}
