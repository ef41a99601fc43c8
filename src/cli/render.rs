//! How things are shown: one writer for both streams, and the small conversions from numbers to words.
//!
//! A reader that went away (`ctl logs | head`) is no error and silences the rest. Whatever comes from elsewhere goes
//! through [`printable`]: no text of a service reaches the terminal as a control sequence.

use crate::control::protocol::State;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Where the command line writes to.
pub struct Console<'a> {
    out: Box<dyn Write + 'a>,
    err: Box<dyn Write + 'a>,
    /// The output is a terminal.
    pub terminal: bool,
    /// Colours are wanted.
    pub color: bool,
    /// Of the terminal.
    pub columns: Option<usize>,
    /// What stands before an error.
    program: &'static str,
    /// Why nothing more is written.
    ended: Option<io::Error>,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("terminal", &self.terminal).field("ended", &self.ended).finish()
    }
}

impl Console<'static> {
    /// The process's own streams; colours if it is a terminal and `NO_COLOR` is unset or empty.
    pub fn stdio(env: &super::settings::Env<'_>) -> Self {
        let terminal = io::stdout().is_terminal();
        let color = terminal
            && env("NO_COLOR").is_none_or(|v| v.is_empty())
            && env("TERM").is_none_or(|v| v != "dumb");
        let columns = terminal.then(|| {
            let size = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
            columns(size, env("COLUMNS").as_deref())
        });
        Self { terminal, color, columns, ..Self::new(io::stdout(), io::stderr()) }
    }
}

/// Of a terminal of this `size`. Docker tells it that of the person's terminal a moment after it has begun: before that it is 0, and
/// lines that were made for any width broke where the terminal ends.
fn columns(size: u16, said: Option<&OsStr>) -> usize {
    const USUAL: usize = 80;
    let said = || said.and_then(|said| said.to_str()?.parse().ok()).filter(|columns| *columns > 0);
    if size > 0 { size.into() } else { said().unwrap_or(USUAL) }
}

impl<'a> Console<'a> {
    /// Plain output to anywhere.
    pub fn new(out: impl Write + 'a, err: impl Write + 'a) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            terminal: false,
            color: false,
            columns: None,
            program: "hermes-sup",
            ended: None,
        }
    }

    /// The same, for a program of another name.
    #[must_use]
    pub fn called(self, program: &'static str) -> Self {
        Self { program, ..self }
    }

    /// Writes `text` as it is: whole lines, control characters already escaped.
    pub fn show(&mut self, text: &str) {
        self.show_bytes(text.as_bytes());
    }

    pub fn show_bytes(&mut self, bytes: &[u8]) {
        if self.ended.is_none() {
            self.ended = self.out.write_all(bytes).and_then(|()| self.out.flush()).err();
        }
    }

    /// Lines of which each is one thing's: on a terminal they are [`cut`] to its width.
    pub fn show_rows(&mut self, text: &str) {
        match self.columns {
            Some(columns) => self.show(&cut(text, columns)),
            None => self.show(text),
        }
    }

    /// One line, escaped.
    pub fn line(&mut self, text: &str) {
        self.show(&format!("{}\n", printable(text)));
    }

    /// One line on the error stream, with the program's name in front, escaped.
    pub fn error(&mut self, message: &str) {
        // Where errors cannot be told, there is nobody to tell that.
        let _ = self.err.write_all(format!("{}: {}\n", self.program, printable(message)).as_bytes());
    }

    /// The reader is gone, or the output failed: more of it is in vain.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Says so if the output failed otherwise than by a reader that went away, and is then `true`.
    pub fn failed(&mut self) -> bool {
        match self.ended.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.error(&format!("failed to write the output: {error}"));
                true
            }
            Some(_) | None => false,
        }
    }
}

/// The text with every control character as an escape, and also what changes the direction of writing.
pub fn printable(text: &str) -> Cow<'_, str> {
    let unsafe_char = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(unsafe_char) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if unsafe_char(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The two largest units: `3d4h`, `2h13m`, `5m12s`, `42s`, and below ten seconds `1.5s`.
pub fn duration(millis: u64) -> String {
    let duration = Duration::from_millis(millis);
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// In the largest binary unit, one decimal: `512B`, `1.5K`, `12.3M`.
pub fn bytes(count: u64) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if count < 1024 {
        return format!("{count}B");
    }
    let mut unit = 0;
    let mut rest = count;
    // The comparison is with what would round up to 1024.0 of the smaller unit.
    while rest >= 1024 * 1024 - 51 && unit < UNITS.len() - 1 {
        rest /= 1024;
        unit += 1;
    }
    let tenths = (u128::from(rest) * 10 + 512) / 1024;
    format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
}

/// The word for a state, padded to `width`, with its colour if asked for.
pub fn state(state: State, width: usize, color: bool) -> String {
    let word = format!("{state:<width$}");
    let code = match state {
        State::Up | State::Ready | State::Served => "32",
        State::Failed | State::Refused => "31",
        State::Starting | State::Stopping | State::Backoff => "33",
        State::Down | State::Finished | State::Parked => "2",
    };
    if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word }
}

/// Every line in at most `columns` characters, the last of them `…` where something is left out. Colours take no room, and those
/// that were begun are ended.
pub fn cut(text: &str, columns: usize) -> String {
    let mut fitting = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        let shown = shown_chars(content).filter(|(_, shown)| *shown).count();
        let room = if shown > columns { columns.saturating_sub(1) } else { columns };
        let mut used = 0;
        for (c, is_shown) in shown_chars(content) {
            if !is_shown {
                fitting.push(c);
            } else if used < room {
                used += 1;
                fitting.push(c);
            } else if used == room && shown > columns && columns > 0 {
                used += 1;
                fitting.push('…');
            }
        }
        fitting.push_str(end);
    }
    fitting
}

/// The characters of one line, and whether each takes room: those of a colour do not.
fn shown_chars(line: &str) -> impl Iterator<Item = (char, bool)> {
    let mut in_color = false;
    line.chars().map(move |c| {
        in_color |= c == '\x1b';
        let is_shown = !in_color;
        in_color &= c != 'm';
        (c, is_shown)
    })
}

/// Appends one `label  value` line of a card, as [`hanging`] does.
pub fn field(card: &mut String, label: &str, value: &str, columns: Option<usize>) {
    hanging(card, &format!("  {label:<12} "), value, columns);
}

/// Appends `value` behind `lead`. With `columns`, the width of a terminal, it goes on below itself, between words where there are
/// any: nothing is left out.
pub fn hanging(text: &mut String, lead: &str, value: &str, columns: Option<usize>) {
    let value = printable(value);
    let margin = lead.chars().count();
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(margin).max(1));
    text.push_str(lead);
    let mut used = 0;
    for word in value.split_inclusive(' ') {
        let mut length = word.trim_end().chars().count();
        if used > 0 && used + length > room {
            next_line(text, margin, &mut used);
        }
        let mut word = word;
        while length > room {
            let at = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
            let (first, rest) = word.split_at(at);
            text.push_str(first);
            next_line(text, margin, &mut used);
            (word, length) = (rest, length - room);
        }
        text.push_str(word);
        used += word.chars().count();
    }
    end_line(text);
}

fn next_line(text: &mut String, margin: usize, used: &mut usize) {
    end_line(text);
    let _ = write!(text, "{:margin$}", "");
    *used = 0;
}

/// No line ends with the space between two words.
fn end_line(card: &mut String) {
    card.truncate(card.trim_end_matches(' ').len());
    card.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_the_rest_is_not_touched() {
        assert!(matches!(printable("plain ä 漢"), Cow::Borrowed(_)));
        assert_eq!(
            printable("a\x1b[31mb\n\t\u{9b}\x7f\u{202e}"),
            "a\\u{1b}[31mb\\n\\t\\u{9b}\\u{7f}\\u{202e}"
        );
    }

    #[test]
    fn a_terminal_that_does_not_say_how_wide_it_is_is_the_usual_one() {
        let of = |size, said: Option<&str>| columns(size, said.map(OsStr::new));
        assert_eq!((of(200, Some("7")), of(0, Some("100")), of(0, None)), (200, 100, 80));
        assert_eq!((of(0, Some("0")), of(0, Some("wide"))), (80, 80));
    }

    #[test]
    fn rows_are_cut_to_the_width_and_colours_take_none_of_it() {
        assert_eq!(cut("abcdef\nabc\n\nä漢ä漢", 4), "abc…\nabc\n\nä漢ä漢");
        assert_eq!(cut("\x1b[32mup\x1b[0m  abcdef\n", 6), "\x1b[32mup\x1b[0m  a…\n");
        assert_eq!(cut("\x1b[32mready\x1b[0m\n", 3), "\x1b[32mre…\x1b[0m\n");
        assert_eq!(cut("abc\n", 1), "…\n");
    }

    #[test]
    fn a_field_goes_on_below_itself_and_loses_nothing() {
        /// Characters before the value.
        const MARGIN: usize = 15;
        let fields = |value: &str, columns| {
            let mut card = String::new();
            field(&mut card, "could gain", value, columns);
            card
        };
        assert_eq!(fields("CAP_CHOWN CAP_KILL", None), "  could gain   CAP_CHOWN CAP_KILL\n");
        let folded = "  could gain   CAP_CHOWN\n               CAP_KILL\n";
        assert_eq!(fields("CAP_CHOWN CAP_KILL", Some(30)), folded);
        let path = "  could gain   /a/lon\n               g/path\n               b\n";
        assert_eq!(fields("/a/long/path b", Some(21)), path);
        for columns in 1..60 {
            let text = fields("one two-and-three four", Some(columns));
            let value: String =
                text.lines().map(|line| line.chars().skip(MARGIN).collect::<String>()).collect();
            assert_eq!(value.replace(' ', ""), "onetwo-and-threefour", "{columns}");
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(columns <= MARGIN || longest <= Some(columns), "{columns}: {text}");
        }
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        for (millis, text) in [
            (0, "0.0s"),
            (1_560, "1.5s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (59_999, "59s"),
            (60_000, "1m0s"),
            (3_599_000, "59m59s"),
            (7_980_000, "2h13m"),
            (86_400_000, "1d0h"),
            (u64::MAX, "213503982334d14h"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn bytes_show_one_decimal_of_the_largest_unit() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (12_900_000, "12.3M"),
            (1024 * 1024 - 1, "1.0M"),
            (1 << 30, "1.0G"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        struct Failing(io::ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (kind, told) in
            [(io::ErrorKind::BrokenPipe, ""), (io::ErrorKind::StorageFull, "hermes-sup: failed")]
        {
            let mut err = Vec::new();
            let mut console = Console::new(Failing(kind), &mut err);
            console.line("a");
            assert!(console.has_ended());
            assert_eq!(console.failed(), !told.is_empty());
            drop(console);
            assert!(String::from_utf8(err).unwrap().starts_with(told));
        }
    }
}
