//! `ctl events`: what has happened, a line each, as it comes.

use super::render::{Console, printable};
use crate::control::protocol::{Event, Level};
use crate::sys::localtime::Zone;
use serde::Serialize;
use std::time::SystemTime;

/// Shows one event: its document, or a line with the local time.
pub fn show(console: &mut Console<'_>, event: &Event, json: bool) {
    if json {
        return super::ctl::document(console, event);
    }
    let line = line(event, Zone::own());
    let color = match event.level {
        Level::Warning => "33",
        Level::Error => "31",
        Level::Debug => "2",
        Level::Info => "",
    };
    if console.color && !color.is_empty() {
        console.show(&format!("\x1b[{color}m{line}\x1b[0m\n"));
    } else {
        console.show(&format!("{line}\n"));
    }
}

/// Says that some are missing here.
pub fn show_lost(console: &mut Console<'_>, lost: u64, json: bool) {
    #[derive(Serialize)]
    struct Lost {
        lost: u64,
    }
    if json {
        super::ctl::document(console, &Lost { lost });
    } else {
        console.line(&format!("{lost} events are missing here: they came faster than they were read"));
    }
}

/// `2026-01-31 12:00:00.123 web: up`, in local time.
fn line(event: &Event, zone: &Zone) -> String {
    let since = event.time.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let local = i64::try_from(since.as_secs()).ok().and_then(|unix| zone.at(unix));
    let time =
        local.map_or_else(|| event.time.to_string(), |local| format!("{local}.{:03}", since.subsec_millis()));
    format!("{time} {}", printable(&event.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples;
    use std::ffi::OsStr;

    fn shown(color: bool, json: bool) -> String {
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, std::io::sink());
        console.color = color;
        show(&mut console, &samples::event("web\x1b"), json);
        show_lost(&mut console, 7, json);
        drop(console);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_the_local_time_and_is_harmless() {
        let zone = Zone::of(Some(OsStr::new("CET-1CEST,M3.5.0,M10.5.0/3")), None);
        assert_eq!(
            line(&samples::event("web\x1b"), &zone),
            "2023-11-14 23:13:25.000 web\\u{1b}: out of memory"
        );
        let lines = shown(true, false);
        assert!(
            lines.starts_with("\x1b[33m") && lines.contains("\x1b[0m\n7 events are missing here"),
            "{lines:?}"
        );
    }

    #[test]
    fn json_is_a_document_a_line() {
        let documents: Vec<serde_json::Value> =
            shown(true, true).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&documents[0]["event"], &documents[0]["by"]["user"]), (&"oom".into(), &"root".into()));
        assert_eq!(documents[1]["lost"], 7);
    }
}
