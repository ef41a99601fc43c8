//! `ctl logs`: which files to read is the supervisor's answer, reading them is the client's own work, with the
//! caller's own rights. The reader itself is handed in ([`LogFiles`]); here is what is asked of it and how it looks.

use super::render::{Console, printable};
use crate::control::protocol::LogPlace;
use crate::core::line::Line;
use crate::core::words::Stream;
use crate::sys::localtime::{Civil, Zone, parse_rfc3339, rfc3339};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

impl ValueEnum for Stream {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Out, Self::Err]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Of each service, the last so many.
    pub last: Option<usize>,
    /// Written at or after this moment.
    pub since: Option<SystemTime>,
    /// Written at or before this moment.
    pub until: Option<SystemTime>,
    pub stream: Option<Stream>,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Nothing is said of a service that has no lines: it was not named.
    pub all: bool,
}

/// Why there is nothing to read of a service.
pub type Absent = crate::core::line::Absent<io::Error>;

/// An open log file with its name.
pub type Handed = (String, OwnedFd);

/// The reader of log files.
pub trait LogFiles {
    /// The last lines as the file has them, long ones cut; what cannot be read is none.
    fn tail(&self, dir: &Path, lines: usize) -> Vec<String>;

    /// Hands the lines of all places, merged in time order, to `each`, until there are no more or it fails. Of which places
    /// there is nothing is said first. `handed` gives the open files of a place that the caller's own rights do not lead to.
    ///
    /// # Errors
    /// Of reading; those of `each`, as they are.
    fn read(
        &self,
        places: &[LogPlace],
        query: &LogQuery,
        handed: &mut dyn FnMut(usize) -> io::Result<Vec<Handed>>,
        absent: &mut dyn FnMut(usize, Absent),
        each: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
    ) -> io::Result<()>;
}

/// The text is no moment. The message says what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "use how long ago, as in 10m, a day, as in 2026-01-31, a local time, as in '2026-01-31 12:00' or 12:00 for today, or \
     2026-01-31T12:00:00Z"
)]
pub struct NoMoment;

/// `--since` and `--until`: a moment, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(SystemTime),
    Ago(Duration),
}

impl When {
    /// Reads `10m`, `90` (seconds), `2026-01-31`, `2026-01-31 12:00`, `12:00` (today), all local, or
    /// `2026-01-31T12:00:00Z`.
    ///
    /// # Errors
    /// [`NoMoment`].
    pub fn parse(text: &str) -> Result<Self, NoMoment> {
        Self::parse_in(text, SystemTime::now(), Zone::own())
    }

    fn parse_in(text: &str, now: SystemTime, zone: &Zone) -> Result<Self, NoMoment> {
        let local = |civil: Civil| zone.moment(civil, None);
        super::settings::parse_duration(text)
            .map(Self::Ago)
            .ok()
            .or_else(|| parse_rfc3339(text).map(Self::At))
            .or_else(|| text.parse().ok().and_then(local).map(Self::At))
            .or_else(|| Civil::today(text, now, zone).and_then(local).map(Self::At))
            .ok_or(NoMoment)
    }

    pub fn moment(self, now: SystemTime) -> SystemTime {
        match self {
            Self::At(moment) => moment,
            Self::Ago(ago) => {
                now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH)
            }
        }
    }
}

/// The zone of the times in these logs: all are one supervisor's.
pub fn zone(places: &[LogPlace]) -> Zone {
    let tz = places.first().and_then(|place| place.tz.as_deref());
    Zone::of(tz.map(OsStr::new), std::env::var_os("TZDIR").as_deref())
}

/// Shows the lines of `places`. Of several services each line begins with the name of its own. What could not be read of
/// some is said, and answered with.
///
/// # Errors
/// Of reading; the end of the output is none.
pub fn show(
    console: &mut Console<'_>,
    files: &dyn LogFiles,
    places: &[LogPlace],
    query: &LogQuery,
    handed: &mut dyn FnMut(&LogPlace) -> io::Result<Vec<Handed>>,
    json: bool,
) -> io::Result<Option<io::ErrorKind>> {
    let mut shape = Shape::new(places, json, console.terminal);
    let mut unreadable = None;
    // Both closures write, one after the other.
    let console = &RefCell::new(console);
    let shown = files.read(
        places,
        query,
        &mut |source| handed(places.get(source).ok_or(io::ErrorKind::NotFound)?),
        &mut |source, why| {
            let name = places.get(source).map_or("", |place| &place.name);
            let note = match why {
                Absent::NoLog | Absent::Empty if query.all => return,
                Absent::NoLog => format!("{name}: has no log yet: it was never started"),
                Absent::Empty => format!("{name}: has written nothing yet"),
                Absent::Unreadable(error) => {
                    unreadable = unreadable.or(Some(error.kind()));
                    format!("{name}: its log cannot be read: {error}")
                }
            };
            console.borrow_mut().error(&note);
        },
        &mut |line| {
            let mut console = console.borrow_mut();
            console.show_bytes(&shape.piece(line));
            if console.has_ended() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        },
    );
    let mut console = console.borrow_mut();
    if console.has_ended() {
        return Ok(None);
    }
    console.show_bytes(&shape.end());
    shown.map(|()| unreadable)
}

/// How lines look: as the file has them, or one JSON document each.
struct Shape<'a> {
    places: &'a [LogPlace],
    json: bool,
    terminal: bool,
    width: usize,
    zone: Zone,
    /// Of each place, the time of the line before.
    times: Vec<Option<SystemTime>>,
    /// Whose line has begun and not ended.
    open: Option<usize>,
}

impl<'a> Shape<'a> {
    fn new(places: &'a [LogPlace], json: bool, terminal: bool) -> Self {
        let width = places.iter().map(|place| place.name.len()).max().unwrap_or(0);
        let zone = if json { zone(places) } else { Zone::utc() };
        Self { places, json, terminal, width, zone, times: vec![None; places.len()], open: None }
    }

    fn piece(&mut self, line: Line<'_>) -> Vec<u8> {
        let mut shown = Vec::with_capacity(line.text.len() + 64);
        if line.begins || self.open != Some(line.source) {
            shown = self.end();
            if self.json { self.begin_json(&mut shown, line) } else { self.begin_text(&mut shown, line) }
        }
        let text = String::from_utf8_lossy(line.text);
        if self.json {
            // A string: there is nothing that JSON could refuse.
            let quoted = serde_json::to_string(&text).unwrap_or_default();
            shown.extend_from_slice(
                quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().as_bytes(),
            );
        } else if self.terminal {
            shown.extend_from_slice(printable(&text).as_bytes());
        } else {
            shown.extend_from_slice(line.text);
        }
        self.open = Some(line.source);
        if line.ends {
            shown.append(&mut self.end());
        }
        shown
    }

    /// Ends a line that has begun.
    fn end(&mut self) -> Vec<u8> {
        match (self.open.take(), self.json) {
            (None, _) => Vec::new(),
            (Some(_), true) => b"\"}\n".to_vec(),
            (Some(_), false) => b"\n".to_vec(),
        }
    }

    fn name(&self, source: usize) -> &'a str {
        self.places.get(source).map_or("", |place| &place.name)
    }

    /// As the file has it; on a terminal with control characters escaped, elsewhere byte for byte.
    fn begin_text(&self, shown: &mut Vec<u8>, line: Line<'_>) {
        if self.places.len() > 1 {
            shown.extend_from_slice(
                format!("{:width$} | ", self.name(line.source), width = self.width).as_bytes(),
            );
        }
        if !line.time.is_empty() {
            shown.extend_from_slice(line.time.as_bytes());
            shown.extend_from_slice(match line.stream {
                Stream::Out => b"  ",
                Stream::Err => b" !",
            });
        }
    }

    fn begin_json(&mut self, shown: &mut Vec<u8>, line: Line<'_>) {
        #[derive(Serialize)]
        struct Out<'a> {
            name: &'a str,
            time: Option<String>,
            stream: Stream,
            line: &'a str,
        }
        let before = self.times.get_mut(line.source);
        let time = line
            .time
            .parse()
            .ok()
            .and_then(|civil| self.zone.moment(civil, before.as_ref().and_then(|before| **before)));
        if let (Some(before), Some(time)) = (before, time) {
            *before = Some(time);
        }
        let time = time.and_then(rfc3339);
        let out = Out { name: self.name(line.source), time, stream: line.stream, line: "" };
        // Strings and a plain enum.
        let mut document = serde_json::to_vec(&out).unwrap_or_default();
        // What follows is the text, a piece at a time.
        document.truncate(document.len().saturating_sub(2));
        shown.append(&mut document);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source, time, stream, text, whether it begins a line and ends one.
    type Piece = (usize, &'static str, Stream, &'static [u8], bool, bool);

    struct Fixed(Vec<Piece>);

    impl LogFiles for Fixed {
        fn tail(&self, _: &Path, _: usize) -> Vec<String> {
            Vec::new()
        }
        fn read(
            &self,
            places: &[LogPlace],
            _: &LogQuery,
            _: &mut dyn FnMut(usize) -> io::Result<Vec<Handed>>,
            absent: &mut dyn FnMut(usize, Absent),
            each: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
        ) -> io::Result<()> {
            for (source, place) in places.iter().enumerate() {
                match place.name.as_str() {
                    "never" => absent(source, Absent::NoLog),
                    "silent" => absent(source, Absent::Empty),
                    "secret" => absent(source, Absent::Unreadable(io::ErrorKind::PermissionDenied.into())),
                    _ => {}
                }
            }
            for (source, time, stream, text, begins, ends) in &self.0 {
                each(Line { source: *source, time, stream: *stream, text, begins: *begins, ends: *ends })?;
            }
            Ok(())
        }
    }

    fn none(_: &LogPlace) -> io::Result<Vec<Handed>> {
        Ok(Vec::new())
    }

    fn places(names: &[&str]) -> Vec<LogPlace> {
        let tz = Some("CET-1CEST,M3.5.0,M10.5.0/3".to_owned());
        let place = |name: &&str| LogPlace { name: (*name).to_owned(), dir: "/l".into(), tz: tz.clone() };
        names.iter().map(place).collect()
    }

    fn shown(names: &[&str], terminal: bool, json: bool) -> Vec<u8> {
        let lines = Fixed(vec![
            (0, "2026-01-31 12:00:00.000000001", Stream::Out, b"a\x1b[2J", true, true),
            (names.len() - 1, "2026-01-31 12:00:00.000000002", Stream::Err, b"b\xff", true, true),
            (0, "2026-01-31 12:00:00.000000003", Stream::Out, b"long \"", true, false),
            (0, "2026-01-31 12:00:00.000000003", Stream::Out, b" line", false, true),
            (0, "", Stream::Out, b"torn", true, true),
        ]);
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, io::sink());
        console.terminal = terminal;
        assert_eq!(
            show(&mut console, &lines, &places(names), &LogQuery::default(), &mut none, json).unwrap(),
            None
        );
        drop(console);
        out
    }

    #[test]
    fn lines_are_those_of_the_file_and_harmless_on_a_terminal() {
        assert_eq!(
            shown(&["coder"], false, false),
            b"2026-01-31 12:00:00.000000001  a\x1b[2J\n2026-01-31 12:00:00.000000002 !b\xff\n\
              2026-01-31 12:00:00.000000003  long \" line\ntorn\n"
        );
        assert_eq!(
            String::from_utf8(shown(&["a", "coder"], true, false)).unwrap(),
            "a     | 2026-01-31 12:00:00.000000001  a\\u{1b}[2J\n\
             coder | 2026-01-31 12:00:00.000000002 !b\u{fffd}\n\
             a     | 2026-01-31 12:00:00.000000003  long \" line\n\
             a     | torn\n"
        );
    }

    /// The times were those of the file, which programs take for UTC.
    #[test]
    fn json_is_one_document_a_line_with_times_in_utc() {
        let documents = String::from_utf8(shown(&["coder"], false, true)).unwrap();
        assert_eq!(
            documents,
            concat!(
                r#"{"name":"coder","time":"2026-01-31T11:00:00.000000001Z","stream":"out","line":"a\u001b[2J"}"#,
                "\n",
                r#"{"name":"coder","time":"2026-01-31T11:00:00.000000002Z","stream":"err","line":"b"#,
                "\u{fffd}\"}\n",
                r#"{"name":"coder","time":"2026-01-31T11:00:00.000000003Z","stream":"out","line":"long \" line"}"#,
                "\n",
                r#"{"name":"coder","time":null,"stream":"out","line":"torn"}"#,
                "\n"
            )
        );
        assert!(documents.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    /// The rest of a line that another service's line came between.
    #[test]
    fn a_line_that_is_interrupted_is_ended_first() {
        let lines = Fixed(vec![
            (0, "", Stream::Out, b"begin", true, false),
            (1, "", Stream::Out, b"other", true, true),
            (0, "", Stream::Out, b"rest", false, true),
            (0, "", Stream::Out, b"open", true, false),
        ]);
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, io::sink());
        show(&mut console, &lines, &places(&["a", "b"]), &LogQuery::default(), &mut none, false).unwrap();
        drop(console);
        assert_eq!(String::from_utf8(out).unwrap(), "a | begin\nb | other\na | rest\na | open\n");
    }

    /// `logs a b` showed nothing at all where b had no log, and an error number where b could not be read.
    #[test]
    fn a_service_without_lines_is_named_and_the_others_are_shown() {
        let lines = Fixed(vec![(3, "", Stream::Out, b"here", true, true)]);
        let told = |all| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut console = Console::new(&mut out, &mut err);
            let query = LogQuery { all, ..LogQuery::default() };
            let places = places(&["never", "silent", "secret", "coder"]);
            let kind = show(&mut console, &lines, &places, &query, &mut none, false).unwrap();
            drop(console);
            assert_eq!((kind, out), (Some(io::ErrorKind::PermissionDenied), b"coder  | here\n".to_vec()));
            String::from_utf8(err).unwrap()
        };
        let secret = "hermes-sup: secret: its log cannot be read: permission denied\n";
        let others = "hermes-sup: never: has no log yet: it was never started\n\
                      hermes-sup: silent: has written nothing yet\n";
        assert_eq!(told(false), format!("{others}{secret}"));
        assert_eq!(told(true), secret);
    }

    #[test]
    fn a_time_is_how_long_ago_a_day_a_local_time_or_one_that_says_its_zone() {
        let zone = Zone::of(Some(OsStr::new("CET-1CEST,M3.5.0,M10.5.0/3")), None);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        // 2026-01-31 13:00 there.
        let now = at(1_769_860_800);
        let moment = |text| When::parse_in(text, now, &zone).map(|when| when.moment(now));
        assert_eq!(moment("10m"), Ok(now - Duration::from_secs(600)));
        assert_eq!(moment("90"), Ok(now - Duration::from_secs(90)));
        assert_eq!(moment("1970-01-01T00:00:05Z"), Ok(at(5)));
        assert_eq!(moment("1970-01-01T01:00:05+01:00"), Ok(at(5)));
        assert_eq!(moment("2026-01-31"), Ok(at(1_769_814_000)));
        for noon in ["2026-01-31 12:00", "2026-01-31T12:00:00", "12:00", "12:00:00"] {
            assert_eq!(moment(noon), Ok(at(1_769_857_200)), "{noon}");
        }
        assert_eq!(moment("300y"), Ok(SystemTime::UNIX_EPOCH), "before all time is its beginning");
        assert!(moment("yesterday").unwrap_err().to_string().starts_with("use how long ago"));
    }
}
