//! `ctl logs`: which files to read is the supervisor's answer, reading them is the client's own work, with the
//! caller's own rights. The reader itself is handed in ([`LogFiles`]); here is what is asked of it and how it looks.

use super::render::{Console, printable};
use crate::control::protocol::LogPlace;
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Out,
    Err,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Of each service, the last so many.
    pub last: Option<usize>,
    /// Written at or after this moment.
    pub since: Option<SystemTime>,
    pub stream: Option<Stream>,
    /// Go on with what is written from now on.
    pub follow: bool,
}

/// One line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// Which of the directories.
    pub source: usize,
    /// As the file has it; may be empty.
    pub time: &'a str,
    pub stream: Stream,
    /// Without the newline.
    pub text: &'a [u8],
}

/// The reader of log files.
pub trait LogFiles {
    /// The last lines as the file has them; what cannot be read is none.
    fn tail(&self, dir: &Path, lines: usize) -> Vec<String>;

    /// Hands the lines of all directories, merged in time order, to `each`, until there are no more or it fails.
    ///
    /// # Errors
    /// Of opening and reading; those of `each`, as they are.
    fn read(
        &self,
        dirs: &[PathBuf],
        query: &LogQuery,
        each: &mut dyn FnMut(LogLine<'_>) -> io::Result<()>,
    ) -> io::Result<()>;
}

/// `--since`: a moment, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    At(SystemTime),
    Ago(Duration),
}

impl Since {
    /// Reads `10m`, `90` (seconds) or `2026-01-31T12:00:00Z`.
    ///
    /// # Errors
    /// A line that says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_rfc3339_weak(text)
            .map(Self::At)
            .or_else(|_| super::settings::parse_duration(text).map(Self::Ago))
            .map_err(|_| {
                "use how long ago, as in 10m, or a time in UTC, as in 2026-01-31T12:00:00Z".to_owned()
            })
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

/// Shows the lines of `places`. Of several services each line begins with the name of its own.
///
/// # Errors
/// Of reading; the end of the output is none.
pub fn show(
    console: &mut Console<'_>,
    files: &dyn LogFiles,
    places: &[LogPlace],
    query: &LogQuery,
    json: bool,
) -> io::Result<()> {
    let dirs: Vec<PathBuf> = places.iter().map(|place| place.dir.clone()).collect();
    let width = places.iter().map(|place| place.name.len()).max().unwrap_or(0);
    let shown = files.read(&dirs, query, &mut |line| {
        let name = places.get(line.source).map_or("", |place| &place.name);
        let bytes = if json {
            json_line(name, line)
        } else {
            let prefix = if places.len() > 1 { format!("{name:width$} | ") } else { String::new() };
            text_line(&prefix, line, console.terminal)
        };
        console.show_bytes(&bytes);
        if console.has_ended() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    if console.has_ended() { Ok(()) } else { shown }
}

/// As the file has it; on a terminal with control characters escaped, elsewhere byte for byte.
fn text_line(prefix: &str, line: LogLine<'_>, terminal: bool) -> Vec<u8> {
    let mark = match line.stream {
        Stream::Out => "  ",
        Stream::Err => " !",
    };
    let mut shown = prefix.as_bytes().to_vec();
    if !line.time.is_empty() {
        shown.extend_from_slice(line.time.as_bytes());
        shown.extend_from_slice(mark.as_bytes());
    }
    if terminal {
        shown.extend_from_slice(printable(&String::from_utf8_lossy(line.text)).as_bytes());
    } else {
        shown.extend_from_slice(line.text);
    }
    shown.push(b'\n');
    shown
}

fn json_line(name: &str, line: LogLine<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Out<'a> {
        name: &'a str,
        time: Option<&'a str>,
        stream: Stream,
        line: &'a str,
    }
    let text = String::from_utf8_lossy(line.text);
    let time = Some(line.time).filter(|time| !time.is_empty());
    // Strings and a plain enum: there is nothing that JSON could refuse.
    let mut shown =
        serde_json::to_vec(&Out { name, time, stream: line.stream, line: &text }).unwrap_or_default();
    shown.push(b'\n');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<(usize, &'static str, Stream, &'static [u8])>);

    impl LogFiles for Fixed {
        fn tail(&self, _: &Path, _: usize) -> Vec<String> {
            Vec::new()
        }
        fn read(
            &self,
            _: &[PathBuf],
            _: &LogQuery,
            each: &mut dyn FnMut(LogLine<'_>) -> io::Result<()>,
        ) -> io::Result<()> {
            for (source, time, stream, text) in &self.0 {
                each(LogLine { source: *source, time, stream: *stream, text })?;
            }
            Ok(())
        }
    }

    fn shown(names: &[&str], terminal: bool, json: bool) -> Vec<u8> {
        let lines = Fixed(vec![
            (0, "2026-01-31 12:00:00.000000001", Stream::Out, b"a\x1b[2J"),
            (names.len() - 1, "2026-01-31 12:00:00.000000002", Stream::Err, b"b\xff"),
            (0, "", Stream::Out, b"torn"),
        ]);
        let places: Vec<_> =
            names.iter().map(|name| LogPlace { name: (*name).to_owned(), dir: "/l".into() }).collect();
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, io::sink());
        console.terminal = terminal;
        show(&mut console, &lines, &places, &LogQuery::default(), json).unwrap();
        drop(console);
        out
    }

    #[test]
    fn lines_are_those_of_the_file_and_harmless_on_a_terminal() {
        assert_eq!(
            shown(&["coder"], false, false),
            b"2026-01-31 12:00:00.000000001  a\x1b[2J\n2026-01-31 12:00:00.000000002 !b\xff\ntorn\n"
        );
        assert_eq!(
            String::from_utf8(shown(&["a", "coder"], true, false)).unwrap(),
            "a     | 2026-01-31 12:00:00.000000001  a\\u{1b}[2J\n\
             coder | 2026-01-31 12:00:00.000000002 !b\u{fffd}\n\
             a     | torn\n"
        );
    }

    #[test]
    fn json_is_one_document_a_line() {
        assert_eq!(
            String::from_utf8(shown(&["coder"], false, true)).unwrap(),
            concat!(
                r#"{"name":"coder","time":"2026-01-31 12:00:00.000000001","stream":"out","line":"a\u001b[2J"}"#,
                "\n",
                r#"{"name":"coder","time":"2026-01-31 12:00:00.000000002","stream":"err","line":"b"#,
                "\u{fffd}\"}\n",
                r#"{"name":"coder","time":null,"stream":"out","line":"torn"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn since_is_a_moment_or_how_long_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let moment = |text| Since::parse(text).map(|since| since.moment(now));
        assert_eq!(moment("10m"), Ok(now - Duration::from_secs(600)));
        assert_eq!(moment("90"), Ok(now - Duration::from_secs(90)));
        assert_eq!(moment("1970-01-01T00:00:05Z"), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(5)));
        assert_eq!(moment("300y"), Ok(SystemTime::UNIX_EPOCH), "before all time is its beginning");
        assert!(moment("yesterday").unwrap_err().starts_with("use how long ago"));
    }
}
