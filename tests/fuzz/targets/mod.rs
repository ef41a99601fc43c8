//! What is fuzzed, and how an input becomes something to try.
//!
//! An input is the document itself (a frame, a definition, a directory as `files.rs` reads one). One that begins with a NUL byte is
//! a row of choices instead, by which the target's grammar makes a document: so what a fuzzer changes in it stays well formed, and
//! what is kept in `corpus/` can be read. Whatever the document, a target panics only if the product is wrong.

mod answers;
mod arguments;
mod bundle;
pub mod choices;
mod database;
mod definition;
mod files;
mod grammar;
mod import;
mod log;
mod protocol;
mod reports;
mod roster;
mod schema;
mod slots;
mod state;

use choices::Choices;
use grammar::Grammar;
use std::borrow::Cow;

/// One part of the product that reads what others wrote.
pub struct Target {
    pub name: &'static str,
    grammar: &'static str,
    try_out: fn(&[u8]),
}

macro_rules! targets {
    ($($name:literal: $run:path,)*) => {
        pub const ALL: &[Target] = &[$(Target {
            name: $name,
            grammar: include_str!(concat!("../grammars/", $name, ".txt")),
            try_out: $run,
        },)*];
    };
}

targets! {
    "protocol": protocol::run,
    "answers": answers::run,
    "definition": definition::run,
    "slots": slots::run,
    "bundle": bundle::run,
    "supervisord": import::supervisord,
    "units": import::units,
    "compose": import::compose,
    "state": state::run,
    "log": log::run,
    "roster": roster::run,
    "database": database::run,
    "arguments": arguments::run,
    "reports": reports::run,
}

/// A target with its grammar read.
pub struct Prepared {
    pub target: &'static Target,
    pub grammar: Grammar,
}

impl Target {
    pub fn prepare(&'static self) -> Prepared {
        Prepared { target: self, grammar: Grammar::read(self.grammar) }
    }
}

impl Prepared {
    /// What the input stands for.
    pub fn document<'a>(&self, input: &'a [u8]) -> Cow<'a, [u8]> {
        match input.split_first() {
            Some((0, choices)) => Cow::Owned(self.grammar.derive(&mut Choices::of(choices))),
            Some(_) | None => Cow::Borrowed(input),
        }
    }

    /// # Panics
    /// When the product does something with it that it must not do.
    pub fn run(&self, input: &[u8]) {
        (self.target.try_out)(&self.document(input));
    }
}

/// A text of ours that somebody reads on a terminal: it must not be able to steer it, nor look like two messages.
#[track_caller]
fn one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "more than a line: {text:?}");
}
