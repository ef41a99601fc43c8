//! The reference of the format: every key of a definition with its type, range, default, an example and a sentence.
//!
//! One table (`rows`), from which the page, the manual page and the schema are made. The tests hold it against the parser: it has
//! exactly the keys that the parser asks for, every example is accepted, every default and range is the parser's. A new key is
//! one row; the tests say what is missing or wrong.

#[cfg(test)]
mod page;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

pub use rows::{KEYS, SECTIONS};
pub use schema::schema;

use std::fmt;
use std::time::Duration;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// With its sections: `restart.backoff.initial`. `*` stands for names that the owner chooses.
    pub path: &'static str,
    pub kind: Type,
    pub default: Default,
    /// In TOML.
    pub example: &'static str,
    /// What else has to be written for the example to have an effect: dotted keys of TOML, one a line.
    pub with: &'static str,
    /// One or two sentences.
    pub what: &'static str,
}

/// A table of the format: what the page says at its head.
#[derive(Debug)]
pub struct Section {
    /// Empty for the definition itself.
    pub path: &'static str,
    pub what: &'static str,
}

/// What holds without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// There is no definition without it.
    Required,
    /// The same as with this value, in TOML.
    Value(&'static str),
    /// No value does the same; in words.
    Nothing(&'static str),
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Type {
    Text,
    /// An absolute path.
    Path,
    /// An absolute path; one with a `?` before it need not be there.
    EnvFile,
    /// Names that the owner chooses, with absolute paths.
    Paths,
    /// A program and its arguments.
    Command,
    Texts,
    /// Names of services.
    Services,
    /// Names of capabilities.
    Capabilities,
    /// Names and texts that the owner chooses.
    Variables,
    Boolean,
    Integer(u64, u64),
    Number(f64, f64),
    Duration(Duration, Duration),
    /// Bytes.
    Size(u64, u64),
    /// A text in a small language; what is allowed.
    Written(&'static str),
    /// The same, or a whole number.
    Word(&'static str),
    Choice(&'static [&'static str]),
    /// One word for each of the exit codes that are named.
    ExitCodes(&'static [&'static str]),
    /// The keys in it have rows of their own.
    Table,
    /// A table, or one of these words.
    TableOr(&'static [&'static str]),
    OneOrMore(&'static Type),
}

impl Key {
    /// The table that it stands in; empty for the definition itself.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Text | Self::Written(_) => "text",
            Self::Path | Self::EnvFile => "path",
            Self::Paths => "table of paths",
            Self::Command | Self::Texts | Self::Services | Self::Capabilities => "list of texts",
            Self::Variables => "table of texts",
            Self::Boolean => "boolean",
            Self::Integer(..) => "integer",
            Self::Number(..) => "number",
            Self::Duration(..) => "duration",
            Self::Size(..) => "size",
            Self::Word(_) => "text or integer",
            Self::Choice(_) => "word",
            Self::ExitCodes(_) => "table of words",
            Self::Table => "table",
            Self::TableOr(_) => "table or word",
            Self::OneOrMore(Self::Path | Self::EnvFile) => "path or list of paths",
            Self::OneOrMore(_) => "text or list of texts",
        }
    }

    /// What is allowed; `None` where the name of the type says all.
    pub fn allowed(self) -> Option<String> {
        let words =
            |words: &[&str]| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        Some(match self {
            Self::Path | Self::EnvFile | Self::Paths | Self::OneOrMore(Self::Path | Self::EnvFile) => {
                "absolute".to_owned()
            }
            Self::Command => "a program and its arguments; no shell".to_owned(),
            Self::Services => "names of services".to_owned(),
            Self::Capabilities => "names of capabilities(7), with or without `CAP_`, or \"ALL\"".to_owned(),
            Self::Integer(least, most) => format!("{least} to {most}"),
            Self::Number(least, most) => format!("{least} to {most}"),
            Self::Duration(least, most) => format!("{} to {}", Span(least), Span(most)),
            Self::Size(least, most) => format!("{least} to {most} bytes"),
            Self::Written(allowed) | Self::Word(allowed) => allowed.to_owned(),
            Self::Choice(choices) => words(choices),
            Self::ExitCodes(choices) => format!("for each of 0 to 255: {}", words(choices)),
            Self::TableOr(choices) => format!("a table, or {}", words(choices)),
            Self::Text | Self::Texts | Self::Variables | Self::Boolean | Self::Table | Self::OneOrMore(_) => {
                return None;
            }
        })
    }
}

/// A duration as a definition writes it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}
