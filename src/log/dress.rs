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

/// Lines are dressed about so many bytes at a time. A document is a hundred times its line where that is one character, and what a
/// stream cannot hold back is lost.
const PIECE: usize = 2048;

impl Dress {
    /// Whole lines of about [`PIECE`] bytes together, at least one; the last may lack its end. All of it where nothing is made
    /// of lines.
    pub(super) fn pieces(self, data: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut left = data;
        std::iter::from_fn(move || {
            if left.is_empty() {
                return None;
            }
            let length = match self {
                Self::Plain => left.len(),
                Self::Prefix | Self::Json => whole_lines(left),
            };
            let (piece, rest) = left.split_at(length);
            left = rest;
            Some(piece)
        })
    }

    /// `data` of the service as it is to look; what is made of it lies in `room`. `goes_on`: it begins within a line. `color`:
    /// the stream shows colours.
    pub(super) fn put_on<'a>(
        self,
        room: &'a mut Vec<u8>,
        name: &ServiceName,
        data: &'a [u8],
        kind: Stream,
        goes_on: bool,
        color: bool,
    ) -> &'a [u8] {
        room.clear();
        match self {
            Self::Plain => return data,
            Self::Prefix => prefixed(room, name, data, goes_on, color),
            Self::Json => documents(room, name, data, kind, SystemTime::now()),
        }
        room
    }
}

fn whole_lines(data: &[u8]) -> usize {
    let (near, far) = data.split_at(data.len().min(PIECE));
    match (memchr::memrchr(b'\n', near), memchr::memchr(b'\n', far)) {
        (Some(last), _) => last + 1,
        (None, Some(next)) => near.len() + next + 1,
        (None, None) => data.len(),
    }
}

fn prefixed(out: &mut Vec<u8>, name: &ServiceName, data: &[u8], goes_on: bool, color: bool) {
    let head = match color {
        true => format!("\x1b[{}m{} |\x1b[0m ", color_of(name), name),
        false => format!("{name} | "),
    };
    let mut within = goes_on;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if !std::mem::replace(&mut within, false) {
            out.extend_from_slice(head.as_bytes());
        }
        out.extend_from_slice(line);
    }
}

/// Not red: that is for what is wrong.
fn color_of(name: &ServiceName) -> u8 {
    const COLORS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];
    let sum = name.as_str().bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
    COLORS[sum % COLORS.len()]
}

fn documents(out: &mut Vec<u8>, name: &ServiceName, data: &[u8], stream: Stream, now: SystemTime) {
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
            service: name.as_str(),
            stream,
            line: String::from_utf8_lossy(line.unwrap_or(piece)),
            continues: line.is_none(),
        };
        // Strings and a plain enum, into memory.
        let _ = serde_json::to_writer(&mut *out, &document);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn dressed(dress: Dress, pieces: &[&[u8]], color: bool) -> String {
        let name = ServiceName::new("web").unwrap();
        let (mut out, mut goes_on) = (Vec::new(), false);
        for piece in pieces {
            match dress {
                Dress::Json => {
                    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
                    documents(&mut out, &name, piece, Stream::Err, now);
                }
                _ => {
                    let mut room = Vec::new();
                    out.extend_from_slice(dress.put_on(&mut room, &name, piece, Stream::Err, goes_on, color));
                }
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
        assert_eq!(dressed(Dress::Plain, &[b"a\n"], true), "a\n");
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

    #[test]
    fn pieces_are_whole_lines_and_miss_nothing() {
        let short = b"y\n".repeat(32 * 1024);
        let long = [&b"x".repeat(3 * PIECE)[..], b"\nshort\n", &b"z".repeat(2 * PIECE)].concat();
        for data in [&short, &long] {
            let pieces: Vec<&[u8]> = Dress::Json.pieces(data).collect();
            assert_eq!(&pieces.concat(), data);
            let (last, others) = pieces.split_last().unwrap();
            assert!(others.iter().all(|piece| piece.ends_with(b"\n")));
            let is_short = |piece: &&[u8]| piece.len() <= PIECE || !piece[..piece.len() - 1].contains(&b'\n');
            assert!(pieces.iter().all(is_short) && !last.is_empty());
            assert_eq!(Dress::Plain.pieces(data).count(), 1);
        }
    }
}
