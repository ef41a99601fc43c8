//! What has happened in a run, what is wanted as far as the answers say it for certain, and what is wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Instant;

/// What can be wanted of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    Up,
    Down,
    /// There is no such service.
    Absent,
}

pub struct Ledger {
    began: Instant,
    story: VecDeque<String>,
    /// What can be, after the last command that was answered and those that were not.
    wishes: BTreeMap<String, BTreeSet<Wish>>,
    pub wrong: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// So many lines of the story are kept.
const STORY: usize = 300;

impl Ledger {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            story: VecDeque::new(),
            wishes: BTreeMap::new(),
            wrong: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub fn tell(&mut self, what: impl fmt::Display) {
        let line = format!("{:9.3} {what}", self.began.elapsed().as_secs_f64());
        self.story.push_back(line);
        if self.story.len() > STORY {
            self.story.pop_front();
        }
    }

    pub fn wrong(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(format_args!("WRONG: {what}"));
        self.wrong.push(what);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// It was acknowledged, or is so from the beginning.
    pub fn known(&mut self, name: &str, wish: Wish) {
        self.wishes.insert(name.to_owned(), [wish].into());
    }

    /// It was asked for and not acknowledged: it holds as a whole or not at all.
    pub fn possible(&mut self, name: &str, wish: Wish) {
        self.wishes.entry(name.to_owned()).or_default().insert(wish);
    }

    /// `found` is what the supervisor says now; no other wish is possible any more.
    pub fn found(&mut self, name: &str, found: Wish) {
        let possible = self.wishes.entry(name.to_owned()).or_default();
        if !possible.contains(&found) {
            let text = format!("{name} is wanted {found:?}, and what was acknowledged makes it {possible:?}");
            self.wrong(text);
        }
        self.known(name, found);
    }

    pub fn is_possible(&self, name: &str, wish: Wish) -> bool {
        self.wishes.get(name).is_some_and(|possible| possible.contains(&wish))
    }

    pub fn story(&self) -> String {
        self.story.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// `12 kills, 30 start`
    pub fn counted(&self) -> String {
        let words: Vec<_> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        words.join(", ")
    }
}
