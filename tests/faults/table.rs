//! What came of the runs: story × call × error.

use super::calls;
use super::judge::{Effect, Run};
use super::{Point, Rung};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Of one kind of run.
#[derive(Default)]
struct Counts {
    runs: usize,
    refused: usize,
    degraded: usize,
    failures: usize,
}

#[derive(Default)]
pub struct Table {
    /// Runs that could be made.
    pub possible: usize,
    rows: BTreeMap<(&'static str, &'static str, &'static str, &'static str), Counts>,
    missed: usize,
    baselines: usize,
    bad_baselines: usize,
    took: Duration,
}

impl Table {
    /// A run without a fault, in which nothing may be wrong.
    pub fn baseline(&mut self, story: &str, rung: &str, wrong: Vec<String>, log: &str) {
        self.baselines += 1;
        if !wrong.is_empty() {
            self.bad_baselines += 1;
            super::say(&format!("WRONG WITHOUT A FAULT: {story} on {rung}: {}\n{log}", wrong.join("\n  ")));
        }
    }

    /// The failure in words, if it is one.
    pub fn add(&mut self, point: &Point, run: &Run) -> Option<String> {
        self.took += run.took;
        if run.effect == Effect::Missed && run.wrong.is_empty() {
            self.missed += 1;
            return None;
        }
        let Point { story, rung, fault } = point;
        let key = (story.name, Rung::name(*rung), fault.site.call, calls::name(fault.errno));
        let counts = self.rows.entry(key).or_default();
        counts.runs += 1;
        counts.refused += usize::from(run.effect == Effect::Refused);
        counts.degraded += usize::from(run.effect == Effect::Degraded);
        if run.wrong.is_empty() {
            return None;
        }
        counts.failures += 1;
        let mut text = format!("FAILED {} ({} ms)\n", point.line(), run.took.as_millis());
        for line in &run.wrong {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&format!("    again: tests/run faults --replay '{}'", point.line()));
        Some(text)
    }

    fn sum(&self, of: fn(&Counts) -> usize) -> usize {
        self.rows.values().map(of).sum()
    }

    pub fn failed(&self) -> usize {
        self.sum(|counts| counts.failures) + self.bad_baselines
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["runs", "refused", "degraded", "failures"];
        writeln!(
            f,
            "\n{:56}{:>9}{:>9}{:>9}{:>9}",
            "story, rung, call, error", columns[0], columns[1], columns[2], columns[3]
        )?;
        let mut last = None;
        for ((story, rung, call, errno), Counts { runs, refused, degraded, failures }) in &self.rows {
            if last.replace((story, rung)) != Some((story, rung)) {
                writeln!(f, "{story}, {rung}")?;
            }
            writeln!(f, "    {call:26}{errno:26}{runs:>9}{refused:>9}{degraded:>9}{failures:>9}")?;
        }
        let runs = self.sum(|counts| counts.runs);
        let mean = self.took.as_millis() / (runs + self.missed).max(1) as u128;
        writeln!(
            f,
            "\n{runs} runs of {} that can be made, {} refused, {} degraded; in {} more the call was not made; {mean} ms each",
            self.possible,
            self.sum(|counts| counts.refused),
            self.sum(|counts| counts.degraded),
            self.missed
        )?;
        let failed = self.failed();
        let passed = runs + self.baselines - failed.min(runs + self.baselines);
        let word = if failed == 0 { "ok" } else { "FAILED" };
        write!(
            f,
            "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
        )
    }
}
