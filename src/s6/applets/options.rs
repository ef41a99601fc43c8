//! Options as getopt(3) reads them, POSIX order: single letters, several in one word, a value in the same word or the
//! next; the first word that is none, or `--`, ends them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Goes through the options of a command line.
#[derive(Debug)]
pub struct Options<'a> {
    /// The letters, each followed by `:` if it has a value.
    letters: &'static str,
    words: &'a [OsString],
    /// What is left of the word under the hand.
    rest: &'a [u8],
}

/// One option with its value.
pub type Found<'a> = Result<(char, Option<&'a OsStr>), UsageError>;

/// What is wrong with an option.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("unknown option '-{}'", .0.escape_default())]
    Unknown(char),
    /// It means something to s6 and nothing here.
    #[error("option '-{0}' is not supported")]
    Unsupported(char),
    #[error("option '-{letter}' needs {what}")]
    Needs { letter: char, what: &'static str },
    #[error("option '-{letter}' needs a whole number, not '{}'", text.escape_debug())]
    NeedsNumber { letter: char, text: String },
}

impl<'a> Options<'a> {
    pub fn new(letters: &'static str, words: &'a [OsString]) -> Self {
        Self { letters, words, rest: &[] }
    }

    /// What follows the options. Only once [`Options::next`] has said that there are no more.
    pub fn rest(&self) -> &'a [OsString] {
        self.words
    }

    fn take_word(&mut self) -> Option<&'a OsStr> {
        let (word, rest) = self.words.split_first()?;
        self.words = rest;
        Some(word)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if self.rest.is_empty() {
            let word = self.words.first()?.as_bytes();
            // A lone dash is a word like any other.
            self.rest = word.strip_prefix(b"-").filter(|letters| !letters.is_empty())?;
            self.take_word();
            if self.rest == b"-" {
                self.rest = &[];
                return None;
            }
        }
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        let letter = char::from(*first);
        let Some(after) = self.letters.split(letter).nth(1).filter(|_| letter != ':') else {
            return Some(Err(UsageError::Unknown(letter)));
        };
        if !after.starts_with(':') {
            return Some(Ok((letter, None)));
        }
        let value = match std::mem::take(&mut self.rest) {
            [] => self.take_word(),
            value => Some(OsStr::from_bytes(value)),
        };
        Some(value.map(|value| (letter, Some(value))).ok_or(UsageError::Needs { letter, what: "a value" }))
    }
}

/// A value that must be a whole number.
///
/// # Errors
/// [`UsageError::NeedsNumber`].
pub fn number<T: std::str::FromStr>(letter: char, value: Option<&OsStr>) -> Result<T, UsageError> {
    let text = value.and_then(OsStr::to_str).unwrap_or_default();
    text.parse().map_err(|_| UsageError::NeedsNumber { letter, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> String {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let mut options = Options::new("udw:T:", &words);
        let mut text = String::new();
        for option in options.by_ref() {
            match option {
                Ok((letter, None)) => text.push(letter),
                Ok((letter, Some(value))) => text += &format!("{letter}={};", value.display()),
                Err(error) => return error.to_string(),
            }
        }
        let rest: Vec<_> = options.rest().iter().map(|word| word.to_string_lossy()).collect();
        format!("{text} [{}]", rest.join(" "))
    }

    #[test]
    fn options_are_read_as_getopt_does() {
        for (words, read_as) in [
            ("", " []"),
            ("-u dir", "u [dir]"),
            ("-ud -u dir", "udu [dir]"),
            ("-uwD -T 50 dir", "uw=D;T=50; [dir]"),
            ("-T50 -w U dir dir", "T=50;w=U; [dir dir]"),
            ("-u -- -d", "u [-d]"),
            ("-u dir -d", "u [dir -d]"),
            ("-u -", "u [-]"),
            ("-x", "unknown option '-x'"),
            ("-u: dir", "unknown option '-:'"),
            ("--help", "unknown option '--'"),
            ("-uT", "option '-T' needs a value"),
        ] {
            assert_eq!(read(words), read_as, "{words}");
        }
    }

    #[test]
    fn a_number_is_whole() {
        assert_eq!(number::<u32>('t', Some(OsStr::new("12"))), Ok(12));
        for bad in ["", "-1", "1s", "99999999999"] {
            assert!(number::<u32>('t', Some(OsStr::new(bad))).is_err(), "{bad}");
        }
    }
}
