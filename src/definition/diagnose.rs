//! What is wrong with a definition, where, and what would be right: `FILE:LINE:COLUMN: what is wrong; what is allowed`,
//! followed by the line and a caret.
//!
//! The text of a definition may come from somebody hostile and end in a terminal or a log, so what is shown of it is
//! free of control characters, cut to a window around the place, and limited in number.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// More of one file are not shown: enough to work on, and a bound on what a hostile file costs.
pub(super) const MOST: usize = 20;
/// Characters of the source line that are shown.
const WINDOW: usize = 96;

/// A text with the name that messages call it by.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// What a diagnostic is about, and so how serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The text is wrong wherever it lies: an error.
    Text,
    /// The text is right, but this file, at this place and of this owner, may not say it: an error at boot and on
    /// reload, and so in `check`.
    Place,
    /// The text is right, but this process, not being root, cannot do it: an error at boot and on reload; a warning in
    /// `check`, which anybody may run.
    Caller,
    /// It could not be read yet: it may be right.
    Late,
    /// The system did not give its text: it may be right. An error all the same.
    Unread,
    /// It names something that is not there (yet): a warning.
    Reference,
    /// It is right and has no effect: a warning.
    Effect,
}

/// One finding. `Display` gives the message, the source line and a caret; [`Diagnostic::headline`] the first line only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub path: PathBuf,
    pub about: About,
    pub message: String,
    spot: Option<Spot>,
}

/// A place in the text: line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    line: usize,
    column: usize,
    /// The part of the line that is shown, with `indent` characters before the caret and `width` carets.
    shown: String,
    indent: usize,
    width: usize,
}

impl Diagnostic {
    /// A finding about a place in the text. A span outside the text counts as its end.
    pub fn at(source: &Source, span: &Range<usize>, about: About, message: impl Into<String>) -> Self {
        let spot = Some(Spot::find(&source.text, span));
        Self { path: source.path.clone(), about, message: clean(&message.into()), spot }
    }

    /// A finding about the file as a whole.
    pub fn whole(path: &Path, about: About, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), about, message: clean(&message.into()), spot: None }
    }

    /// Nobody knows yet what it says.
    pub fn is_unread(&self) -> bool {
        matches!(self.about, About::Late | About::Unread)
    }

    /// One line: `FILE:LINE:COLUMN: message`.
    pub fn headline(&self) -> String {
        let path = clean(&self.path.display().to_string());
        match &self.spot {
            Some(spot) => format!("{path}:{}:{}: {}", spot.line, spot.column, self.message),
            None => format!("{path}: {}", self.message),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        let Some(spot) = &self.spot else { return Ok(()) };
        let number = spot.line.to_string();
        let (margin, indent) = (number.len(), spot.indent);
        write!(f, "\n  {number} | {}", spot.shown)?;
        write!(f, "\n  {:margin$} | {:indent$}{}", "", "", "^".repeat(spot.width))
    }
}

impl Spot {
    fn find(text: &str, span: &Range<usize>) -> Self {
        let start = boundary(text, span.start);
        let end = boundary(text, span.end).max(start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = text.get(line_start..).unwrap_or_default();
        let line_text = line_text.split(['\n', '\r']).next().unwrap_or_default();
        let column = text.get(line_start..start).unwrap_or_default().chars().count();
        let length = line_text.chars().count();
        // A long line is shown from a third of the window before the place.
        let from = if column > WINDOW * 2 / 3 { column - WINDOW / 3 } else { 0 };
        let to = (from + WINDOW).min(length);
        let spanned = text.get(start..end).unwrap_or_default().chars().count();
        let mut shown: String = line_text.chars().skip(from).take(WINDOW).map(printable).collect();
        let mut indent = column - from;
        if from > 0 {
            shown.insert_str(0, "...");
            indent += 3;
        }
        if to < length {
            shown.push_str("...");
        }
        let width = spanned.min(to.saturating_sub(column)).max(1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Self { line, column: column + 1, shown, indent, width }
    }
}

/// The nearest character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        // Bidirectional controls reorder what a terminal shows.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        c if c.is_control() => '?',
        c => c,
    }
}

fn clean(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// Quotes a piece of the file for a message, cut and without control characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("'{}'", clean(&shown))
}

/// Collects the findings of one file.
#[derive(Debug)]
pub(super) struct Report<'s> {
    pub source: &'s Source,
    found: Vec<Diagnostic>,
    left_out: bool,
    /// `None`: nobody wants them.
    remarks: Option<Vec<Diagnostic>>,
}

impl<'s> Report<'s> {
    /// `remarked`: what has no effect is of interest, as to a check and not to a start of thousands of services.
    pub(super) fn new(source: &'s Source, remarked: bool) -> Self {
        Self { source, found: Vec::new(), left_out: false, remarks: remarked.then(Vec::new) }
    }

    pub(super) fn wrong(&mut self, span: &Range<usize>, about: About, message: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push(Diagnostic::at(self.source, span, about, message));
        } else {
            self.left_out = true;
        }
    }

    /// What is right and has no effect. Each key is remarked on once at most, so there are few.
    pub(super) fn idle(&mut self, span: &Range<usize>, message: impl Into<String>) {
        if let Some(remarks) = &mut self.remarks {
            remarks.push(Diagnostic::at(self.source, span, About::Effect, message));
        }
    }

    pub(super) fn is_remarked(&self) -> bool {
        self.remarks.is_some()
    }

    pub(super) fn into_remarks(self) -> Vec<Diagnostic> {
        self.remarks.unwrap_or_default()
    }

    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// The findings in the order of the text.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|found| found.spot.as_ref().map(|spot| (spot.line, spot.column)));
        if self.left_out {
            let rest = format!("only the first {MOST} errors are shown");
            self.found.push(Diagnostic::whole(&self.source.path, About::Text, rest));
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(text: &str) -> Source {
        Source { path: PathBuf::from("/etc/hermes-sup/services/web.toml"), text: text.to_owned() }
    }

    #[test]
    fn the_place_is_shown_with_line_column_and_caret() {
        let source = source("command = [\"x\"]\n\tumask = \"99\"\n");
        let found = Diagnostic::at(&source, &(25..29), About::Text, "'99' is not octal");
        assert_eq!(
            found.to_string(),
            "/etc/hermes-sup/services/web.toml:2:10: '99' is not octal\n  \
             2 |  umask = \"99\"\n    |          ^^^^"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_place_and_control_characters_are_not_passed_on() {
        let text = format!("{}\u{1b}[2J{}BAD{}", "a".repeat(500), "b".repeat(10), "c".repeat(500));
        let at = text.find("BAD").unwrap();
        let found = Diagnostic::at(&source(&text), &(at..at + 3), About::Text, "x\u{1b}y").to_string();
        let lines: Vec<&str> = found.lines().collect();
        assert!(!found.contains('\u{1b}'), "{found:?}");
        assert!(lines[1].len() < 120, "{found}");
        let caret = lines[2].find('^').unwrap();
        assert_eq!(&lines[1][caret..caret + 3], "BAD");
        assert_eq!(&lines[2][caret..], "^^^");
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_has_a_place(text in "\\PC{0,200}|[\\n\\r\\ta ä€]{0,40}", a in 0usize..300, b in 0usize..300) {
            let found = Diagnostic::at(&source(&text), &(a..b), About::Text, "x");
            prop_assert!(found.to_string().contains('^'));
        }
    }
}
