//! The power fails while the wants change: whatever was answered is there afterwards, whatever was not is there wholly or
//! not at all.

use crate::harness::{Machine, Setup, Volume, figure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CUTS: usize = 10;
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

/// Gives commands for `span` and pulls the plug in the midst of them.
fn disturb(machine: Machine, promises: &mut Promises, cut: usize, span: Duration) -> usize {
    let start = Instant::now();
    let mut answered = 0;
    let mut round = 0;
    let mut under_way = Vec::new();
    while start.elapsed() < span {
        round += 1;
        for service in SERVICES {
            let up = promises[service].answered != "up";
            let pending = machine.send(&["/hermes-sup", "ctl", if up { "start" } else { "stop" }, service]);
            let promise = promises.get_mut(service).expect("one each");
            promise.asked = Some(json!(if up { "up" } else { "down" }));
            under_way.push((service.to_owned(), pending));
        }
        let record = format!("r{cut}-{round}");
        let register = ["/hermes-sup", "ctl", "register", &record, "--down", "--", "/adversary", "pause"];
        let pending = machine.send(&register);
        promises.insert(record.clone(), Promise { answered: Value::Null, asked: Some(json!("down")) });
        under_way.push((record, pending));
        // In the last round nobody waits any more.
        if start.elapsed() < span {
            for (service, pending) in under_way.drain(..) {
                let answer = pending.wait().expect("nobody has cut the power yet");
                assert_eq!(answer.code, 0, "{answer:#?}\n{}", machine.console());
                let promise = promises.get_mut(&service).expect("one each");
                promise.answered = promise.asked.take().expect("it was asked");
                answered += 1;
            }
        }
    }
    machine.cut();
    for (service, pending) in under_way {
        // An answer that came out before the plug did is a promise like any other.
        if pending.wait().is_some_and(|answer| answer.code == 0) {
            let promise = promises.get_mut(&service).expect("one each");
            promise.answered = promise.asked.take().expect("it was asked");
            answered += 1;
        }
    }
    answered
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
        // A linear congruential generator (Knuth) is random enough for a moment within one and a half seconds.
        let number = (seed + cut as u64)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        total += disturb(machine, &mut promises, cut, Duration::from_millis((number >> 33) % 1500));
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
