//! Grammars, and documents made by them.
//!
//! A line of a grammar's file is `RULE: TEXT`, one of the alternatives of the rule (`RULE:` is nothing); the first rule is the start.
//! In a text `<RULE>` is what that rule gives, `<@NAME>` what [`schema`] makes, and `\n`, `\0`, `\xHH` and a backslash before anything else mean what
//! they mean in Rust. `common.txt` is part of every grammar. Decisions that are left out take the first alternative, so that one
//! must come to an end.

use super::choices::Choices;
use super::schema;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Bytes of a document, beyond which every rule takes its first alternative.
const MOST: usize = 32 * 1024;
const COMMON: &str = include_str!("../grammars/common.txt");

pub struct Grammar {
    start: String,
    rules: BTreeMap<String, Vec<Vec<Piece>>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Bytes(Vec<u8>),
    Rule(String),
    Made(schema::Kind),
}

impl Grammar {
    /// # Panics
    /// At a mistake in the grammar.
    pub fn read(text: &str) -> Self {
        let mut rules: BTreeMap<String, Vec<Vec<Piece>>> = BTreeMap::new();
        let mut start = None;
        let lines = text.lines().chain(COMMON.lines());
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, text) = line.split_once(':').unwrap_or_else(|| panic!("no alternative: {line}"));
            let text = text.strip_prefix(' ').unwrap_or(text);
            start.get_or_insert_with(|| name.to_owned());
            rules.entry(name.to_owned()).or_default().push(pieces(text));
        }
        let grammar = Self { start: start.expect("a rule"), rules };
        for name in grammar.rules.keys() {
            grammar.comes_to_an_end(name, &mut Vec::new());
        }
        grammar
    }

    fn comes_to_an_end<'a>(&'a self, name: &'a str, way: &mut Vec<&'a str>) {
        assert!(!way.contains(&name), "the first alternatives of {name} never end");
        way.push(name);
        for piece in &self.alternatives(name)[0] {
            if let Piece::Rule(name) = piece {
                self.comes_to_an_end(name, way);
            }
        }
        way.pop();
    }

    fn alternatives(&self, name: &str) -> &[Vec<Piece>] {
        self.rules.get(name).unwrap_or_else(|| panic!("there is no rule {name}"))
    }

    pub fn derive(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let mut document = Vec::new();
        let start = Piece::Rule(self.start.clone());
        let mut left = vec![&start];
        while let Some(piece) = left.pop() {
            match piece {
                Piece::Bytes(bytes) => document.extend_from_slice(bytes),
                Piece::Made(kind) => kind.make(choices, &mut document),
                Piece::Rule(name) => {
                    let alternatives = self.alternatives(name);
                    let chosen = if document.len() > MOST { 0 } else { choices.pick(alternatives.len()) };
                    left.extend(alternatives[chosen].iter().rev());
                }
            }
        }
        document
    }

    /// Every word of the grammar, as AFL++ reads a dictionary.
    ///
    /// # Errors
    /// As write(2).
    pub fn dictionary(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut words: Vec<&[u8]> = Vec::new();
        for piece in self.rules.values().flatten().flatten() {
            if let Piece::Bytes(bytes) = piece {
                words
                    .extend(bytes.split(|byte| *byte == b'\n').filter(|word| (2..=64).contains(&word.len())));
            }
        }
        words.sort_unstable();
        words.dedup();
        for word in words {
            let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            writeln!(out, "\"{escaped}\"")?;
        }
        Ok(())
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('n') => bytes.push(b'\n'),
                Some('t') => bytes.push(b'\t'),
                Some('r') => bytes.push(b'\r'),
                Some('0') => bytes.push(0),
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
                }
                Some(other) => bytes.extend(other.to_string().bytes()),
                None => panic!("a backslash at the end: {text}"),
            },
            '<' => {
                let name: String = rest.by_ref().take_while(|c| *c != '>').collect();
                pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                pieces.push(match name.strip_prefix('@') {
                    Some(kind) => Piece::Made(schema::Kind::named(kind)),
                    None => Piece::Rule(name),
                });
            }
            other => bytes.extend(other.to_string().bytes()),
        }
    }
    pieces.push(Piece::Bytes(bytes));
    pieces.retain(|piece| *piece != Piece::Bytes(Vec::new()));
    pieces
}
