//! Random kills, and a very long run. `tests/run kills` runs them for as long as it is told to, the host tier for seconds.
//!
//! `--budget 60m`: for so long, on each rung (or on those that `--rung NAME` names), supervisors, fork servers, keepers and services
//! are killed at random, and files are taken away or damaged, while callers ask for whatever comes to their mind. In between
//! everything has to become as it was acknowledged, in one copy, and nothing may grow. `--seed S`: other decisions.
//!
//! `--restarts N --clients M`: one supervisor, so many restarts and so many clients, most of whom are slow or hostile
//! (`endurance.rs`); with `--budget`, no longer than that.
//!
//! `--planted`: puts in the faults that the checks have to find (`planted.rs`).

// The host tier's; this program needs only a part.
#[allow(dead_code, unused_imports)]
#[path = "../host/harness/mod.rs"]
mod harness;

#[path = "../lib/asking.rs"]
mod asking;

mod callers;
mod clients;
mod endurance;
mod figures;
mod fleet;
mod ledger;
mod mischief;
mod options;
mod planted;
mod stage;

use harness::{Dice, Rung};
use options::Options;
use stage::Stage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            say(&wrong);
            return ExitCode::from(2);
        }
    };
    let tally = Tally::default();
    if options.planted {
        // They wait more than they work.
        std::thread::scope(|scope| {
            for fault in &planted::ALL {
                scope.spawn(|| tally.add(is_found(fault)));
            }
        });
    }
    if options.is_endurance() {
        tally.add(endurance::run(&options));
    } else if let Some(budget) = options.budget {
        std::thread::scope(|scope| {
            for rung in options.rungs() {
                let (seed, tally) = (options.seed, &tally);
                scope.spawn(move || tally.add(kills(rung, seed, budget)));
            }
        });
    }
    let (passed, failed) = (tally.passed.into_inner(), tally.failed.into_inner());
    let word = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    passed: AtomicUsize,
    failed: AtomicUsize,
}

impl Tally {
    fn add(&self, is_good: bool) {
        let counter = if is_good { &self.passed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_found(fault: &planted::Planted) -> bool {
    let said = catch_unwind(AssertUnwindSafe(|| planted::find(fault)));
    let said = said.unwrap_or_else(|panic| vec![words(&*panic)]);
    let found = said.iter().any(|line| line.contains(fault.says));
    say(&format!("{}: {}: {said:?}", if found { "found" } else { "NOT FOUND" }, fault.name));
    found
}

/// A round, a check, and again; now and then a census.
fn kills(rung: Rung, seed: u64, budget: Duration) -> bool {
    /// Rounds between two censuses.
    const ROUNDS: u64 = 6;
    let began = Instant::now();
    let mut stage = Stage::new(rung, Dice::new(seed.wrapping_mul(31).wrapping_add(rung as u64)));
    let run = catch_unwind(AssertUnwindSafe(|| {
        stage.ensure(false);
        stage.check();
        stage.census();
        for round in 1.. {
            if stage.is_wrong() || (began.elapsed() >= budget && round > 2) {
                break;
            }
            stage.round();
            stage.check();
            if round % ROUNDS == 0 && !stage.is_wrong() {
                stage.census();
            }
        }
        if !stage.is_wrong() {
            stage.census();
            stage.finish();
        }
    }));
    if let Err(panic) = run {
        stage.wrong(words(&*panic));
    }
    let ledger = stage.site.ledger();
    let name = rung.name();
    say(&format!("{name}: {} s: {}\n{}", began.elapsed().as_secs(), ledger.counted(), stage.figures()));
    if ledger.wrong.is_empty() {
        return true;
    }
    let said = stage.world.stderr();
    let lines: Vec<&str> = said.lines().rev().take(60).collect();
    let last: String = lines.into_iter().rev().map(|line| format!("  {line}\n")).collect();
    say(&format!(
        "FAILED {name}, seed {seed}:\n{}\n  again: tests/run kills --rung {name} --seed {seed} --budget {}s\nwhat happened:\n\
         {}the supervisor's last lines:\n{last}",
        ledger.wrong.iter().map(|line| format!("    {line}\n")).collect::<String>(),
        budget.as_secs(),
        ledger.story()
    ));
    false
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[allow(clippy::disallowed_macros, reason = "this program is for people")]
pub fn say(text: &str) {
    println!("{text}");
}
