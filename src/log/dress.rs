//! How the lines of a service look in the container's stream, where they stand among those of others: as they are, with the
//! service's name in front, or as a JSON document each.
//!
//! Invariant: what a stream gets are whole lines exactly where the service wrote whole lines, but that a JSON document is a whole
//! line always. A line that is as it is costs no copy.

use crate::core::name::ServiceName;
use crate::core::words::Stream;
use serde::Serialize;
use std::borrow::Cow;
use std::time::SystemTime;

/// What is made of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dress {
    /// Nothing.
    #[default]
    Plain,
    /// `name | line`; coloured by the name where the stream is a terminal.
    Prefix,
    /// `{"time":…,"service":…,"stream":"out","line":…}`. A line so long that it comes in pieces is several, all but the last with
    /// `"continues":true`.
    Json,
}

/// The lines of one service.
#[derive(Debug)]
pub(super) struct Dresser {
    name: ServiceName,
    is_json: bool,
}

impl Dresser {
    /// `None`: nothing is made of its lines.
    pub(super) fn new(name: &ServiceName, dress: Dress) -> Option<Self> {
        let is_json = match dress {
            Dress::Plain => return None,
            Dress::Prefix => false,
            Dress::Json => true,
        };
        Some(Self { name: name.clone(), is_json })
    }

    /// Appends `data` as it is to look. `goes_on`: it begins within a line. `color`: the stream shows colours.
    pub(super) fn add(&self, out: &mut Vec<u8>, data: &[u8], kind: Stream, goes_on: bool, color: bool) {
        if self.is_json {
            self.documents(out, data, kind, SystemTime::now());
        } else {
            self.prefixed(out, data, goes_on, color);
        }
    }

    fn prefixed(&self, out: &mut Vec<u8>, data: &[u8], goes_on: bool, color: bool) {
        let head = match color {
            true => format!("\x1b[{}m{} |\x1b[0m ", self.color(), self.name),
            false => format!("{} | ", self.name),
        };
        let mut within = goes_on;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !std::mem::replace(&mut within, false) {
                out.extend_from_slice(head.as_bytes());
            }
            out.extend_from_slice(line);
        }
    }

    /// One that can be told from red, which is for what is wrong, and is a name's own.
    fn color(&self) -> u8 {
        const COLORS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];
        let sum =
            self.name.as_str().bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        COLORS[sum % COLORS.len()]
    }

    fn documents(&self, out: &mut Vec<u8>, data: &[u8], stream: Stream, now: SystemTime) {
        #[derive(Serialize)]
        struct Document<'a> {
            time: &'a str,
            service: &'a str,
            stream: Stream,
            line: Cow<'a, str>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            continues: bool,
        }
        let time = humantime::format_rfc3339_millis(now).to_string();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let line = piece.strip_suffix(b"\n");
            let document = Document {
                time: &time,
                service: self.name.as_str(),
                stream,
                line: String::from_utf8_lossy(line.unwrap_or(piece)),
                continues: line.is_none(),
            };
            // Strings and a plain enum, into memory.
            let _ = serde_json::to_writer(&mut *out, &document);
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn dressed(dress: Dress, pieces: &[&[u8]], color: bool) -> String {
        let dresser = Dresser::new(&ServiceName::new("web").unwrap(), dress).unwrap();
        let (mut out, mut goes_on) = (Vec::new(), false);
        for piece in pieces {
            match dress {
                Dress::Json => {
                    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
                    dresser.documents(&mut out, piece, Stream::Err, now);
                }
                _ => dresser.add(&mut out, piece, Stream::Err, goes_on, color),
            }
            goes_on = piece.last() != Some(&b'\n');
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_line_has_its_name_once_however_it_comes() {
        assert_eq!(
            dressed(Dress::Prefix, &[b"a\nb\n", b"long", b" line\n\nc\n"], false),
            "web | a\nweb | b\nweb | long line\nweb | \nweb | c\n"
        );
        let colored = dressed(Dress::Prefix, &[b"a\n"], true);
        assert!(colored.starts_with("\x1b[") && colored.ends_with("mweb |\x1b[0m a\n"), "{colored:?}");
        assert!(Dresser::new(&ServiceName::new("web").unwrap(), Dress::Plain).is_none());
    }

    #[test]
    fn a_document_is_a_whole_line_whatever_is_in_it() {
        let documents = dressed(Dress::Json, &[b"a \"b\"\x1b\xff\n", b"long", b" line\n"], false);
        let lines: Vec<&str> = documents.lines().collect();
        assert_eq!(
            lines[0],
            "{\"time\":\"2023-11-14T22:13:20.123Z\",\"service\":\"web\",\"stream\":\"err\",\"line\":\"a \\\"b\\\"\\u001b\u{fffd}\"}"
        );
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert_eq!(
            (read(lines[1])["line"].as_str(), read(lines[1])["continues"].as_bool()),
            (Some("long"), Some(true))
        );
        assert_eq!(
            (read(lines[2])["line"].as_str(), &read(lines[2])["continues"]),
            (Some(" line"), &serde_json::Value::Null)
        );
        assert_eq!(lines.len(), 3);
    }
}
