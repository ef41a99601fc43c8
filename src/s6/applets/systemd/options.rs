//! Options as systemd's tools read them: getopt_long(3).

use super::WordsError;
use std::ffi::{OsStr, OsString};

/// Options as getopt_long(3) reads them, up to the first word that is none.
pub(super) struct Words<'a> {
    pub(super) rest: &'a [OsString],
}

pub(super) struct Opt<'a> {
    pub(super) name: &'a str,
    attached: Option<&'a str>,
}

impl<'a> Words<'a> {
    /// The next option. `None`: the next word is no option; a `--` is skipped.
    pub(super) fn option(&mut self) -> Result<Option<Opt<'a>>, WordsError> {
        let Some((word, rest)) = self.rest.split_first() else { return Ok(None) };
        if word == "--" {
            self.rest = rest;
            return Ok(None);
        }
        if !word.as_encoded_bytes().starts_with(b"-") || word == "-" {
            return Ok(None);
        }
        let text = utf8(word)?;
        self.rest = rest;
        Ok(Some(if text.starts_with("--") {
            match text.split_once('=') {
                Some((name, value)) => Opt { name, attached: Some(value) },
                None => Opt { name: text, attached: None },
            }
        } else {
            // A letter, and its value if something follows it at once.
            match text.char_indices().nth(2) {
                Some((at, _)) => Opt { name: &text[..at], attached: Some(&text[at..]) },
                None => Opt { name: text, attached: None },
            }
        }))
    }
}

impl<'a> Opt<'a> {
    /// It takes no value.
    pub(super) fn alone(self) -> Result<bool, WordsError> {
        match self.attached {
            None => Ok(true),
            Some(value) => Err(WordsError::Value { option: self.name.to_owned(), value: value.to_owned() }),
        }
    }

    pub(super) fn value(&self, words: &mut Words<'a>) -> Result<String, WordsError> {
        if let Some(value) = self.attached {
            return Ok(value.to_owned());
        }
        let missing = || WordsError::NoValue { option: self.name.to_owned() };
        let (word, rest) = words.rest.split_first().ok_or_else(missing)?;
        words.rest = rest;
        Ok(utf8(word)?.to_owned())
    }
}

fn utf8(word: &OsStr) -> Result<&str, WordsError> {
    word.to_str().ok_or_else(|| WordsError::WordNotUtf8(word.to_owned()))
}
