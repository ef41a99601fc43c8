//! The wants as a plain text file: for people to read, and for rebuilding the database when it is lost.
//!
//! Written soon after a commit that changed a want, by a temporary file and a rename, not synced: the database is the
//! truth, this is its shadow. It is believed only when the database is missing, damaged, or provably older (`change`,
//! the counter that both carry).

use super::place::{FILE_MODE, StateDir};
use super::schema::{Rows, WantRow};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most lines, and what comes before them, are no longer.
const LINE: usize = 96;
const HEAD: usize = 256;

pub(super) const NAME: &str = "wants";
const TEMPORARY: &str = "wants.tmp";
/// 64 times what a thousand services need.
const MAX_BYTES: u64 = 16 << 20;
/// From the year 10000 on, RFC 3339 has no words: such a time is written as a number.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// A mirror as read back. What could not be read is in `problems`, as the ends of sentences.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mirror {
    pub(super) instance: Option<String>,
    pub(super) stamp: u64,
    pub(super) wants: BTreeMap<ServiceName, WantRow>,
    pub(super) problems: Vec<String>,
    /// When it was last written, Unix time in milliseconds.
    pub(super) written_at_ms: Option<u64>,
}

impl Mirror {
    pub(super) fn agrees_with(&self, rows: &Rows) -> bool {
        self.problems.is_empty()
            && self.stamp == rows.stamp
            && self.instance.as_ref() == Some(&rows.instance)
            && self.wants == rows.wants
    }
}

/// Puts the wants of `rows` into place.
///
/// # Errors
/// As openat(2), write(2), renameat(2); the old mirror stays then.
pub(super) fn write(dir: &StateDir, rows: &Rows) -> io::Result<()> {
    let mut file = dir.create_anew(TEMPORARY)?;
    let written = file.write_all(render(rows).as_bytes()).and_then(|()| dir.rename(TEMPORARY, NAME));
    if written.is_err() {
        let _ = dir.remove(TEMPORARY);
    }
    written
}

/// The mirror, if there is one of ours.
///
/// # Errors
/// As openat(2) and read(2); `FileTooLarge`.
pub(super) fn read(dir: &StateDir, warnings: &mut Vec<String>) -> io::Result<Option<Mirror>> {
    let Some(file) = dir.existing(NAME, OFlags::RDONLY, FILE_MODE, warnings)? else { return Ok(None) };
    let written = file.metadata()?.modified().ok();
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut mirror = parse(&String::from_utf8_lossy(&bytes));
    mirror.written_at_ms = written
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok());
    Ok(Some(mirror))
}

pub(super) fn render(rows: &Rows) -> String {
    let mut text = String::with_capacity(HEAD + rows.wants.len() * LINE);
    text.push_str(
        "# What hermes-sup wants of each service, rewritten after changes. To change it use 'hermes-sup ctl'.\n",
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# instance {} change {}", rows.instance, rows.stamp);
    text.push_str("# name | want | asked at | by uid | definition | cause\n");
    for (name, row) in &rows.wants {
        let want = match row.want {
            Want::Up => "up",
            Want::Down => "down",
        };
        let _ = write!(text, "{name:<20} {want:<4} ");
        let _ = write_time(&mut text, row.asked_at_ms);
        let _ = match row.asked_by_uid {
            Some(uid) => write!(text, " {uid:>5}"),
            None => write!(text, " {:>5}", "-"),
        };
        let _ = match row.definition_hash {
            Some(hash) => write!(text, " {hash:016x}"),
            None => write!(text, " {:>16}", "-"),
        };
        let cause = serde_json::to_string(row.cause.as_str()).unwrap_or_default();
        let _ = writeln!(text, " {cause}");
    }
    let _ = writeln!(text, "# end of {} wants", rows.wants.len());
    text
}

pub(super) fn parse(text: &str) -> Mirror {
    let mut mirror = Mirror::default();
    let mut ended = None;
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["#", "instance", instance, "change", stamp] => {
                mirror.instance = Some(instance.to_owned()).filter(|text| is_instance(text));
                mirror.stamp = stamp.parse().unwrap_or(0);
            }
            ["#", "end", "of", count, "wants"] => ended = count.parse().ok(),
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            _ => match want(line) {
                Some((name, row)) => drop(mirror.wants.insert(name, row)),
                None => mirror.problems.push(format!("line {} is not a want", number + 1)),
            },
        }
    }
    if ended != Some(mirror.wants.len()) {
        mirror.problems.push("it is cut short or was edited".to_owned());
    }
    mirror
}

/// An instance id is ours if it is 128 bits in hexadecimal; it becomes part of directory names.
pub(super) fn is_instance(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn want(line: &str) -> Option<(ServiceName, WantRow)> {
    let mut rest = line;
    let mut word = || {
        let text = rest.trim_start();
        let (word, tail) = text.split_at(text.find(char::is_whitespace)?);
        rest = tail;
        Some(word)
    };
    let name = ServiceName::of_slot(word()?).ok()?;
    let want = match word()? {
        "up" => Want::Up,
        "down" => Want::Down,
        _ => return None,
    };
    let asked_at_ms = read_time(word()?)?;
    let asked_by_uid = optional(word()?, |text| text.parse().ok())?;
    let definition_hash = optional(word()?, |text| u64::from_str_radix(text, 16).ok())?;
    let cause = serde_json::from_slice(rest.trim().as_bytes()).ok()?;
    Some((name, WantRow { want, asked_by_uid, asked_at_ms, cause, definition_hash }))
}

/// `-` is an absent value; anything else must be readable.
fn optional<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "-" { Some(None) } else { read(text).map(Some) }
}

fn write_time(text: &mut String, ms: u64) -> fmt::Result {
    if ms < YEAR_10000_MS {
        write!(text, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)))
    } else {
        write!(text, "{ms}")
    }
}

fn read_time(text: &str) -> Option<u64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let time: SystemTime = humantime::parse_rfc3339(text).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_row() -> impl Strategy<Value = (ServiceName, WantRow)> {
        let name = "[a-z0-9][a-z0-9_-]{0,20}".prop_filter_map("reserved", |n| ServiceName::new(&n).ok());
        let row = (
            any::<bool>(),
            any::<Option<u32>>(),
            prop_oneof![any::<u64>(), 0..YEAR_10000_MS],
            any::<String>(),
            any::<Option<u64>>(),
        );
        (name, row).prop_map(|(name, (up, asked_by_uid, asked_at_ms, cause, definition_hash))| {
            let want = if up { Want::Up } else { Want::Down };
            (name, WantRow { want, asked_by_uid, asked_at_ms, cause: cause.into(), definition_hash })
        })
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(
            wants in proptest::collection::btree_map(any_row().prop_map(|r| r.0), any_row().prop_map(|r| r.1), 0..6),
            stamp: u64,
        ) {
            let rows = Rows { instance: "0123456789abcdef".repeat(2), stamp, wants, ..Rows::default() };
            let read = parse(&render(&rows));
            prop_assert_eq!(read.problems, Vec::<String>::new());
            prop_assert_eq!((read.instance, read.stamp, read.wants), (Some(rows.instance), stamp, rows.wants));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_cut_or_edited_mirror_gives_what_it_has_and_says_so() {
        let row = |cause: &str| WantRow {
            want: Want::Down,
            asked_by_uid: Some(0),
            asked_at_ms: 1_767_225_600_000,
            cause: cause.to_owned().into(),
            definition_hash: None,
        };
        let name = |text| ServiceName::new(text).unwrap();
        let wants = BTreeMap::from([(name("a"), row("operator")), (name("b"), row("operator"))]);
        let rows = Rows { instance: "f".repeat(32), stamp: 3, wants, ..Rows::default() };
        let text = render(&rows);
        assert!(
            text.contains(
                "a                    down 2026-01-01T00:00:00.000Z     0                - \"operator\"\n"
            ),
            "{text}"
        );
        let cut = parse(&text[..text.find("\nb").unwrap() + 9]);
        assert_eq!(cut.wants.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a"]);
        assert_eq!(cut.problems, ["line 5 is not a want", "it is cut short or was edited"]);
        assert_eq!(parse(&text.replace("ffff", "../f")).instance, None);
    }
}
