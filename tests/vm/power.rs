//! The power fails while the wants change: whatever was answered is there afterwards, whatever was not is there wholly or
//! not at all.

use crate::harness::{Machine, PATIENCE, Setup, Volume, figure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

const CUTS: usize = 6;
const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
/// Different in each run, so that the moments are; a failure names it.
const SEED: &str = "HERMES_SUP_VM_SEED";

fn setup() -> Setup {
    let mut setup = Setup::new();
    for service in SERVICES {
        setup = setup.adversary(service, "wait-signal", "autostart = false");
    }
    setup
}

/// What the next life may find of one service: what was answered last, and what was asked since.
#[derive(Debug, Clone, Default)]
struct Promise {
    answered: Value,
    asked: Option<Value>,
}

impl Promise {
    fn is_kept_by(&self, found: &Value) -> bool {
        found == &self.answered || self.asked.as_ref() == Some(found)
    }
}

type Promises = BTreeMap<String, Promise>;

/// Changes one want to and fro until the power fails; says on `answered` when a change was answered.
fn toggle(machine: &Machine, service: &str, promise: &mut Promise, answered: &Sender<()>) {
    loop {
        let (verb, want) = if promise.answered == "up" { ("stop", "down") } else { ("start", "up") };
        if !ask(machine, &[verb, service], promise, want) {
            return;
        }
        let _ = answered.send(());
    }
}

/// Registers one service after the other until the power fails.
fn register(machine: &Machine, cut: usize, promises: &mut Promises, answered: &Sender<()>) {
    for count in 0.. {
        let name = format!("r{cut}-{count}");
        let promise = promises.entry(name.clone()).or_default();
        if !ask(machine, &["register", &name, "--down", "--", "/adversary", "pause"], promise, "down") {
            return;
        }
        let _ = answered.send(());
    }
}

/// Gives one command. False when the power failed before it was answered.
fn ask(machine: &Machine, command: &[&str], promise: &mut Promise, want: &str) -> bool {
    promise.asked = Some(want.into());
    let Some(answer) = machine.send(&[&["/hermes-sup", "ctl"], command].concat()).wait() else {
        return false;
    };
    assert_eq!(answer.code, 0, "{answer:#?}\n{}", machine.console());
    *promise = Promise { answered: want.into(), asked: None };
    true
}

/// Has commands given from all sides and pulls the plug in the midst of them: `after` so many answers, and then some time.
/// Returns how many were answered.
fn disturb(machine: &Machine, promises: &mut Promises, cut: usize, after: usize, then: Duration) -> usize {
    let (sender, answers) = channel();
    let mut records = Promises::new();
    let mut count = 0;
    std::thread::scope(|scope| {
        for (service, promise) in promises.iter_mut().filter(|(name, _)| SERVICES.contains(&name.as_str())) {
            let sender = sender.clone();
            scope.spawn(move || toggle(machine, service, promise, &sender));
        }
        scope.spawn(|| register(machine, cut, &mut records, &sender));
        while count < after && answers.recv_timeout(PATIENCE).is_ok() {
            count += 1;
        }
        let deadline = Instant::now() + then;
        while answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {
            count += 1;
        }
        machine.cut();
    });
    promises.append(&mut records);
    // An answer that came out before the plug did is a promise like any other.
    count + answers.try_iter().count()
}

/// Compares what is there with what was promised; what is there is the promise from now on.
fn check(machine: &Machine, promises: &mut Promises) {
    let status = machine.status();
    assert_eq!(status["supervisor"]["warnings"], json!([]), "{status:#}\n{}", machine.console());
    let services = status["services"].as_array().expect("an array");
    for (service, promise) in promises.iter_mut() {
        let found = services
            .iter()
            .find(|each| each["name"] == *service)
            .map_or(Value::Null, |each| each["want"].clone());
        assert!(promise.is_kept_by(&found), "{service} is {found}, promised was {promise:?}\n{status:#}");
        *promise = Promise { answered: found, asked: None };
    }
    promises.retain(|_, promise| !promise.answered.is_null());
    for each in services {
        assert!(promises.contains_key(each["name"].as_str().unwrap_or_default()), "out of nothing: {each:#}");
    }
    let state = machine.show("/opt/data/supervisor");
    assert!(!state.contains("corrupt") && !state.contains("foreign"), "{state}");
    let mirror = machine.show("/opt/data/supervisor/wants");
    for (service, promise) in promises.iter() {
        let want = mirror.lines().map(str::split_whitespace).find_map(|mut words| {
            (words.next() == Some(service)).then(|| words.next().unwrap_or_default().to_owned())
        });
        assert_eq!(
            want.map(Value::from).as_ref(),
            Some(&promise.answered),
            "{service} in the mirror:\n{mirror}"
        );
    }
}

#[test]
fn what_was_answered_survives_power_cuts() {
    let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    figure(&format!("power cuts: {SEED}={seed}"));
    let volume = Volume::new(64);
    let mut promises = Promises::new();
    let mut machine = setup().boot(&volume);
    for service in SERVICES {
        promises.insert(service.into(), Promise { answered: json!("down"), asked: None });
    }
    let mut total = 0;
    for cut in 0..CUTS {
        // A linear congruential generator (Knuth) is random enough for a moment.
        let number = (seed + cut as u64)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
            >> 33;
        let then = Duration::from_millis(number / 8 % 300);
        total += disturb(&machine, &mut promises, cut, 1 + number as usize % 8, then);
        drop(machine);
        machine = setup().boot(&volume);
        check(&machine, &mut promises);
    }
    figure(&format!("power cuts: {CUTS}, {total} answers, {} records, nothing lost", promises.len()));
    // What is wanted up, runs.
    for service in SERVICES {
        if promises[service].answered == "up" {
            machine.await_state(service, "up");
        }
    }
    assert_eq!(machine.shutdown(0).code, 0);
}
