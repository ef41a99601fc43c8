//! `s6-log`: lines from stdin, with the time in front, to directories of rotated files and to stdout.
//!
//! The script is read as s6 reads it, as far as it tells where lines go and how files are kept; selecting lines and
//! processing archives are refused. `t` and `T` hold for the next destination only, the other settings from there on.
//!
//! Ends at the end of stdin, or on SIGTERM or SIGHUP when what was written until then is logged; a line that was begun
//! gets two seconds for its end. A line without its newline gets one.

use super::applet::{Call, SYSTEM};
use super::options::{self, Options, UsageError};
use super::wait;
use crate::core::signal::Signal;
use crate::log::{Clock, LogDir, Times};
use crate::sys::posture;
use crate::sys::signal::SignalFd;
use memchr::memchr;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const USAGE: &str =
    "s6-log [-bpqv] [-d FD] [-l LINELIMIT] [-t MS] DIRECTIVE... (1, 2, nN, sSIZE, t, T, pPREFIX, DIR)";

/// Figures of s6.
const LINE_LIMIT: usize = 8192;
const LEAST_LINE_LIMIT: usize = 48;
const LAST_LINE: Duration = Duration::from_millis(2000);
const KEEP: u32 = 10;
const SIZE: u64 = 99_999;
const LEAST_SIZE: u64 = 4096;
const LARGEST_SIZE: u64 = 268_435_455;
const ALERT: usize = 200;

/// What is still read after the signal to end, from a writer that does not stop.
const AFTERMATH: usize = 1 << 20;

/// Where a line goes, and what is put in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    kind: Kind,
    times: Times,
    prefix: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Stdout,
    Alert,
    Dir { path: PathBuf, size: u64, keep: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Script {
    destinations: Vec<Destination>,
    /// 0: none.
    line_limit: usize,
    /// How long a line that was begun may take after the signal to end; none: for ever.
    last_line: Option<Duration>,
    /// SIGTERM is not for us.
    protected: bool,
    ready: Option<i32>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ScriptError {
    #[error(transparent)]
    Option(#[from] UsageError),
    #[error("a line limit is at least {LEAST_LINE_LIMIT}, or 0 for none")]
    LineLimit,
    #[error("the directive '{}' needs a whole number", shown(.0))]
    NeedsNumber(OsString),
    #[error("a file size is {LEAST_SIZE} to {LARGEST_SIZE} bytes")]
    Size,
    #[error("the directive '{}' is not supported", shown(.0))]
    Unsupported(OsString),
    #[error("the script says nowhere to log to")]
    Nowhere,
}

fn shown(directive: &OsStr) -> String {
    directive.to_string_lossy().escape_debug().to_string()
}

pub fn main(call: &mut Call<'_>) -> u8 {
    let script = match Script::read(call.words) {
        Ok(script) => script,
        Err(error) => return call.usage(error, USAGE),
    };
    // Before anything is made: a signal that comes now still leaves whole lines behind.
    let signals = match SignalFd::block() {
        Ok(signals) => signals,
        Err(error) => return call.fatal(SYSTEM, &format!("unable to catch signals: {error}")),
    };
    let mut sinks = Vec::new();
    for destination in &script.destinations {
        let dir = match &destination.kind {
            Kind::Stdout | Kind::Alert => None,
            Kind::Dir { path, size, keep } => match LogDir::open(path, *size, *keep) {
                Ok((dir, warning)) => {
                    warn(call, warning);
                    Some(dir)
                }
                Err(error) => {
                    return call.fatal(SYSTEM, &format!("unable to open {}: {error}", path.display()));
                }
            },
        };
        sinks.push(Sink { destination, dir, buffer: Vec::new(), ended: false });
    }
    if let Some(Err(error)) = script.ready.map(tell_ready) {
        return call.fatal(SYSTEM, &format!("unable to tell that it is ready: {error}"));
    }
    let mut clock = Clock::default();
    let done = pump(&script, &signals, &mut |piece| {
        for sink in &mut sinks {
            match piece {
                Piece::Line(line) => sink.add(call, line, &mut clock),
                Piece::Pause => sink.flush(call),
            }
        }
    });
    match done {
        Ok(()) => 0,
        Err(error) => call.fatal(SYSTEM, &format!("unable to read stdin: {error}")),
    }
}

/// A newline on the descriptor says that lines are read from now on.
fn tell_ready(fd: i32) -> io::Result<()> {
    rustix::io::write(posture::inherited(fd)?, b"\n")?;
    Ok(())
}

fn warn(call: &mut Call<'_>, warning: Option<String>) {
    if let Some(warning) = warning {
        call.console.error(&format!("warning: {warning}"));
    }
}

impl Script {
    fn read(words: &[OsString]) -> Result<Self, ScriptError> {
        let mut options = Options::new("bpqvd:l:t:", words);
        let mut script = Self {
            destinations: Vec::new(),
            line_limit: LINE_LIMIT,
            last_line: Some(LAST_LINE),
            protected: false,
            ready: None,
        };
        for option in options.by_ref() {
            match option? {
                // How much is held in memory, and how much is said: there is one way here.
                ('b' | 'q' | 'v', _) => {}
                ('p', _) => script.protected = true,
                ('d', value) => script.ready = Some(options::number('d', value)?),
                ('t', value) => {
                    let millis: u32 = options::number('t', value)?;
                    script.last_line = (millis > 0).then(|| Duration::from_millis(millis.into()));
                }
                (letter, value) => {
                    script.line_limit = options::number(letter, value)?;
                    if (1..LEAST_LINE_LIMIT).contains(&script.line_limit) {
                        return Err(ScriptError::LineLimit);
                    }
                }
            }
        }
        script.direct(options.rest())?;
        Ok(script)
    }

    fn direct(&mut self, directives: &[OsString]) -> Result<(), ScriptError> {
        let (mut times, mut prefix, mut keep, mut size) = (Times::default(), Vec::new(), KEEP, SIZE);
        for directive in directives {
            let bytes = directive.as_bytes();
            let number = |digits: &[u8]| -> Result<u64, ScriptError> {
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                digits.parse().map_err(|_| ScriptError::NeedsNumber(directive.clone()))
            };
            let kind = match bytes {
                b"t" => {
                    times.tai64n = true;
                    continue;
                }
                b"T" => {
                    times.local = true;
                    continue;
                }
                [b'n', digits @ ..] => {
                    keep = u32::try_from(number(digits)?).unwrap_or(u32::MAX);
                    continue;
                }
                [b's', digits @ ..] => {
                    size = number(digits)?;
                    if !(LEAST_SIZE..=LARGEST_SIZE).contains(&size) {
                        return Err(ScriptError::Size);
                    }
                    continue;
                }
                // When to rotate below the size, and when to try again: the logger has its own way.
                [b'l' | b'r', digits @ ..] => {
                    number(digits)?;
                    continue;
                }
                [b'p', text @ ..] => {
                    prefix = if text.is_empty() { Vec::new() } else { [text, b" "].concat() };
                    continue;
                }
                b"1" => Kind::Stdout,
                b"2" => Kind::Alert,
                [b'/' | b'.', ..] => Kind::Dir { path: directive.into(), size, keep },
                _ => return Err(ScriptError::Unsupported(directive.clone())),
            };
            self.destinations.push(Destination {
                kind,
                times: std::mem::take(&mut times),
                prefix: prefix.clone(),
            });
        }
        if self.destinations.is_empty() {
            return Err(ScriptError::Nowhere);
        }
        Ok(())
    }
}

/// A destination at work.
#[derive(Debug)]
struct Sink<'a> {
    destination: &'a Destination,
    dir: Option<LogDir>,
    buffer: Vec<u8>,
    /// Nobody reads stdout any more.
    ended: bool,
}

impl Sink<'_> {
    /// Takes a line with its newline.
    fn add(&mut self, call: &mut Call<'_>, line: &[u8], clock: &mut Clock) {
        let line = match self.destination.kind {
            Kind::Alert => {
                self.buffer.extend_from_slice(b"alert: ");
                line.strip_suffix(b"\n").unwrap_or(line)
            }
            Kind::Stdout | Kind::Dir { .. } => line,
        };
        clock.head(&mut self.buffer, self.destination.times);
        self.buffer.extend_from_slice(&self.destination.prefix);
        match self.destination.kind {
            Kind::Alert => {
                self.buffer.extend_from_slice(line.get(..ALERT).unwrap_or(line));
                let text = String::from_utf8_lossy(&self.buffer).into_owned();
                self.buffer.clear();
                call.console.error(&text);
            }
            Kind::Stdout | Kind::Dir { .. } => self.buffer.extend_from_slice(line),
        }
    }

    fn flush(&mut self, call: &mut Call<'_>) {
        if self.buffer.is_empty() {
            return;
        }
        match &mut self.dir {
            Some(dir) => warn(call, dir.write(&self.buffer)),
            None if !self.ended => {
                let mut stdout = io::stdout().lock();
                self.ended = stdout.write_all(&self.buffer).and_then(|()| stdout.flush()).is_err();
            }
            None => {}
        }
        self.buffer.clear();
    }
}

/// What stdin is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// With its newline.
    Line(&'a [u8]),
    /// There may be nothing more for long: what was taken is to be written.
    Pause,
}

/// Reads stdin to its end or to a signal.
fn pump(script: &Script, signals: &SignalFd, each: &mut dyn FnMut(Piece<'_>)) -> io::Result<()> {
    let stdin = io::stdin();
    let mut lines = Lines::new(script.line_limit);
    let mut chunk = [0; 64 * 1024];
    let mut ending: Option<Ending> = None;
    loop {
        let until = match &ending {
            None => None,
            Some(ending) if lines.is_open() => ending.until,
            // No line is open: what is there now, and no more.
            Some(_) => Some(Instant::now()),
        };
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if !wait::any(&mut fds, until) {
            break;
        }
        let [readable, signalled] = fds.map(|fd| !fd.revents().is_empty());
        if signalled && is_the_end(signals, script.protected)? && ending.is_none() {
            let until = script.last_line.and_then(|last| Instant::now().checked_add(last));
            ending = Some(Ending { until, left: AFTERMATH });
        }
        if !readable {
            continue;
        }
        let data = match rustix::io::read(&stdin, &mut chunk) {
            Ok(0) => break,
            Ok(count) => chunk.get(..count).unwrap_or_default(),
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        };
        lines.add(data, &mut |line| each(Piece::Line(line)));
        each(Piece::Pause);
        if let Some(ending) = &mut ending {
            ending.left = ending.left.saturating_sub(data.len());
            if ending.left == 0 {
                break;
            }
        }
    }
    lines.finish(&mut |line| each(Piece::Line(line)));
    each(Piece::Pause);
    Ok(())
}

/// After the signal to end.
#[derive(Debug)]
struct Ending {
    /// How long a line that was begun may take.
    until: Option<Instant>,
    /// How many bytes may still come.
    left: usize,
}

/// Reads the signals that have come: one of them ends us.
fn is_the_end(signals: &SignalFd, protected: bool) -> io::Result<bool> {
    let mut end = false;
    while let Some(received) = signals.read()? {
        end |= received.signal == Signal::HUP || (received.signal == Signal::TERM && !protected);
    }
    Ok(end)
}

/// Cuts bytes into lines, and lines that are too long into several.
#[derive(Debug)]
struct Lines {
    limit: usize,
    open: Vec<u8>,
}

impl Lines {
    fn new(limit: usize) -> Self {
        Self { limit: if limit == 0 { usize::MAX } else { limit }, open: Vec::new() }
    }

    fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn add(&mut self, mut data: &[u8], each: &mut dyn FnMut(&[u8])) {
        while !data.is_empty() {
            let room = self.limit - self.open.len();
            match memchr(b'\n', data).filter(|at| *at <= room) {
                Some(at) => {
                    let (text, rest) = data.split_at(at);
                    self.open.extend_from_slice(text);
                    self.end(each);
                    data = rest.get(1..).unwrap_or_default();
                }
                // That the line is too long shows only with what comes after its limit.
                None if data.len() > room => {
                    let (text, rest) = data.split_at(room);
                    self.open.extend_from_slice(text);
                    self.end(each);
                    data = rest;
                }
                None => {
                    self.open.extend_from_slice(data);
                    return;
                }
            }
        }
    }

    /// A last line without its newline is a line.
    fn finish(&mut self, each: &mut dyn FnMut(&[u8])) {
        if self.is_open() {
            self.end(each);
        }
    }

    fn end(&mut self, each: &mut dyn FnMut(&[u8])) {
        self.open.push(b'\n');
        each(&self.open);
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;

    fn read(words: &str) -> Result<Script, ScriptError> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        Script::read(&words)
    }

    #[test]
    fn the_script_of_the_image() {
        let script = read("1 n10 s1000000 T /opt/data/logs/gateways/coder").unwrap();
        let plain = |kind| Destination { kind, times: Times::default(), prefix: Vec::new() };
        let dir = Kind::Dir { path: "/opt/data/logs/gateways/coder".into(), size: 1_000_000, keep: 10 };
        let stamped = Destination { times: Times { tai64n: false, local: true }, ..plain(dir) };
        assert_eq!(script.destinations, [plain(Kind::Stdout), stamped]);
        assert_eq!((script.line_limit, script.last_line), (8192, Some(Duration::from_secs(2))));
        assert!(!script.protected);
    }

    #[test]
    fn times_hold_once_and_the_rest_from_there_on() {
        let script = read("-bp -t 0 -l 0 -- t T pgw: 1 n3 s4096 ./a p 2 /b").unwrap();
        let seen: Vec<_> = script
            .destinations
            .iter()
            .map(|one| (one.times.tai64n, one.times.local, String::from_utf8_lossy(&one.prefix).into_owned()))
            .collect();
        let none = || (false, false, String::new());
        assert_eq!(
            seen,
            [(true, true, "gw: ".to_owned()), (false, false, "gw: ".to_owned()), none(), none()]
        );
        assert_eq!(script.destinations[3].kind, Kind::Dir { path: "/b".into(), size: 4096, keep: 3 });
        assert!(script.protected && script.last_line.is_none() && script.line_limit == 0);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (words, why) in [
            ("", "the script says nowhere to log to"),
            ("n10 T", "the script says nowhere to log to"),
            ("+error 1", "the directive '+error' is not supported"),
            ("-- -x 1", "the directive '-x' is not supported"),
            ("!gzip /a", "the directive '!gzip' is not supported"),
            ("S100 /a", "the directive 'S100' is not supported"),
            ("relative", "the directive 'relative' needs a whole number"),
            ("s100 /a", "a file size is 4096 to 268435455 bytes"),
            ("nx /a", "the directive 'nx' needs a whole number"),
            ("-l 5 1", "a line limit is at least 48, or 0 for none"),
            ("-z 1", "unknown option '-z'"),
        ] {
            assert_eq!(read(words).unwrap_err().to_string(), why, "{words}");
        }
        assert_eq!(told(main, "s6-log", &["n10"], &|_| None).0, 100);
    }

    #[test]
    fn lines_come_out_the_same_in_any_pieces_and_long_ones_are_cut() {
        let data = b"one\n\n0123456789\n0123456789abc\nlast";
        for size in 1..data.len() {
            let (mut lines, mut got) = (Lines::new(10), Vec::new());
            for piece in data.chunks(size) {
                lines.add(piece, &mut |line| got.push(String::from_utf8(line.to_vec()).unwrap()));
            }
            lines.finish(&mut |line| got.push(String::from_utf8(line.to_vec()).unwrap()));
            assert_eq!(got, ["one\n", "\n", "0123456789\n", "0123456789\n", "abc\n", "last\n"], "{size}");
        }
        let mut lines = Lines::new(0);
        lines.add(&[b'x'; 100_000], &mut |_| panic!("no line has ended"));
        lines.finish(&mut |line| assert_eq!(line.len(), 100_001));
    }
}
