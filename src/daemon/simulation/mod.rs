//! The whole supervisor in a simulator: the loop, the core, the topics, the store, the logs and the control socket as they ship, on a
//! played kernel, disk and clock, with played callers. No thread runs and nothing waits: what a helper thread does is done in its
//! place, at a moment that the dice choose. Everything follows from one seed.
//!
//! ```text
//!            agenda ──▶ World ──▶ Supervisor::turn ──deeds──▶ Kernel ──reactions──▶ agenda
//!               ▲         │            │    ▲
//!             loads     clock        store  callers          rules: after every step, and at rest
//! ```
//!
//! * `world` is the time and the order of things, `nature` what processes do, `loads` what is asked and what goes wrong, `scopes` what
//!   processes ask for themselves, `conversations` what the root gateway answers, `services` the fleets, `callers` who asks, `rules`
//!   what must be so, `story` what is told of it, `planted` the bugs that must be found.
//! * Played below the supervisor's own code: `containment::played` (a rung), `store::played` and `log::played` (their threads, and the
//!   disk), `sys::time` and `sys::reap`, and `boot::played` (the steps of a start).
//!
//! A run has three parts: everything goes wrong; nothing goes wrong any more, and what is wanted must become so; a shutdown.

mod callers;
pub(in crate::daemon) mod conversations;
mod dice;
mod loads;
mod nature;
pub(in crate::daemon) mod planted;
mod rules;
mod scopes;
mod services;
mod stories;
mod story;
mod world;

use crate::control::protocol::Request;
use crate::core::signal::Signal;
use planted::Bug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use world::{Figures, Happening, World};

/// How long things go wrong, how long it may take until all is as it is wanted, and a shutdown, in milliseconds.
const STORM: u64 = 120_000;
const CALM: u64 = 900_000;
const END: u64 = 60_000;

/// A rule did not hold.
#[derive(Debug)]
struct Failure {
    seed: u64,
    why: String,
    story: String,
}

/// One run. The story of a run that went well is told, too.
fn run(seed: u64, bug: Option<Bug>) -> Result<(Figures, String), Failure> {
    let mut world = World::new(seed, bug);
    let done = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let (mut figures, story) = (world.figures, world.story.text());
    figures.millis = world.now();
    planted::plant(None);
    let why = match done {
        Ok(Ok(())) => return Ok((figures, story)),
        Ok(Err(why)) => why,
        Err(panic) => {
            // What is half done is not to be ended in order.
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("a panic: {}", words.unwrap_or_default())
        }
    };
    Err(Failure { seed, why, story })
}

/// One run, of which only the traces count.
pub(in crate::daemon) fn play(seed: u64) {
    let _ = run(seed, None);
}

fn live(world: &mut World) -> Result<(), String> {
    let storm = world.dice.between(STORM / 4, STORM * 2);
    while world.step(storm)? {}
    world.becalm();
    world.quiet = true;
    if world.recounted {
        // Who asked for it last may not have been heard.
        loads::ask(world, Request::Reload { restart: false });
    }
    let calm = world.now() + CALM;
    while world.step(calm)? {}
    rules::at_rest(world)?;
    world.later(0, Happening::Signal(Signal::TERM));
    let end = world.now() + END;
    while world.ended.is_none() && world.step(end)? {}
    rules::at_the_end(world)
}

/// What is asked for by `tests/run simulate`: `--seed N`, `--runs N`, `--seconds N`.
struct Asked {
    seed: Option<u64>,
    runs: u64,
    time: Duration,
}

impl Asked {
    /// The short form, where nothing is.
    fn of(text: Option<&str>) -> Self {
        let mut asked = Self { seed: None, runs: u64::MAX, time: Duration::from_secs(4) };
        let mut words = text.unwrap_or_default().split_whitespace();
        while let Some(word) = words.next() {
            let number: u64 =
                words.next().and_then(|number| number.parse().ok()).expect("a number after an option");
            match word {
                "--seed" => asked.seed = Some(number),
                "--runs" => (asked.runs, asked.time) = (number, Duration::MAX),
                "--seconds" => asked.time = Duration::from_secs(number),
                _ => panic!("'{word}' is none of --seed, --runs, --seconds"),
            }
        }
        asked
    }
}

#[allow(clippy::disallowed_macros, reason = "the figures and the story are what it is run for")]
fn say(text: &str) {
    println!("{text}");
}

/// The short form; with `HERMES_SUP_SIMULATE` the long one, or a single run with its story.
#[test]
fn whatever_happens_the_rules_hold() {
    let text = std::env::var("HERMES_SUP_SIMULATE").ok();
    let asked = Asked::of(text.as_deref());
    if let Some(seed) = asked.seed {
        match run(seed, None) {
            Ok((_, story)) => say(&format!("{story}\nseed {seed}: every rule holds")),
            Err(Failure { why, story, .. }) => panic!("{story}\nseed {seed}: {why}"),
        }
        return;
    }
    let begun = Instant::now();
    let mut all = Figures::default();
    let mut failures = Vec::new();
    for seed in 0..asked.runs {
        if begun.elapsed() > asked.time {
            break;
        }
        match run(seed, None) {
            Ok((figures, _)) => all.add(&figures),
            Err(Failure { seed, why, .. }) => failures.push(format!("seed {seed}: {why}")),
        }
    }
    let Figures { runs, steps, faults, lives, answers, recoveries, millis } = all;
    say(&format!(
        "{runs} runs, {steps} steps, {lives} lives, {answers} answers, {faults} faults, {recoveries} recoveries, {} simulated hours, {} s",
        millis / 3_600_000,
        begun.elapsed().as_secs(),
    ));
    assert!(
        failures.is_empty(),
        "{} runs went wrong: tests/run simulate --seed N tells the story\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The rules would notice: each of these bugs breaks one of them within five runs.
#[test]
fn every_planted_bug_is_caught() {
    const SEEDS: u64 = 5;
    let caught = |bug| (1..=SEEDS).find_map(|seed| Some((seed, run(seed, Some(bug)).err()?)));
    if let Some((seed, Failure { why, story, .. })) = caught(Bug::Nothing) {
        panic!("{story}\nseed {seed}, without a bug: {why}");
    }
    let mut unnoticed = Vec::new();
    let is_root = rustix::process::geteuid().is_root();
    for bug in planted::ALL.into_iter().filter(|bug| is_root || !bug.is_of_root()) {
        match caught(bug) {
            Some((seed, Failure { why, .. })) => say(&format!("{bug:?}: seed {seed}: {why}")),
            None => unnoticed.push(bug),
        }
    }
    assert!(unnoticed.is_empty(), "unnoticed: {unnoticed:?}");
}

/// A seed is all that a run hangs on: otherwise none could be told again.
#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| match run(seed, None) {
        Ok((_, story)) | Err(Failure { story, .. }) => story,
    };
    for seed in 0..2 {
        let (one, other) = (story(seed), story(seed));
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}
