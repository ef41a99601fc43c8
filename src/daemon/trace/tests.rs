//! What supervisors went through is replayed: of those in the simulator, or of real ones, whose traces lie below
//! `HERMES_SUP_TRACES` (`tests/run traces`).

use super::{keep, kept};
use crate::core::model::mutants;
use crate::core::model::replay::{Heritage, Replay};
use crate::core::model::rules::Rule;
use crate::core::trace::{Call, Step};
use crate::daemon::simulation;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Traces of supervisors one after another on the same state.
type Chain = Vec<Vec<Step>>;

/// So many recorded steps have a place for every rule but those that [`RARE`] has.
const CAMPAIGN: usize = 20_000;

/// What breaks these is not among the services of `tests/kills`.
const RARE: [(Rule, &str); 3] = [
    (Rule::NeitherDueNorAsked, "a scheduled service"),
    (Rule::Unprepared, "a hook before the start"),
    (Rule::StartBeforeReady, "a service that says when it is ready"),
];

#[allow(clippy::disallowed_macros, reason = "the figures are what it is run for")]
fn say(text: &str) {
    println!("{text}");
}

/// Those of forty runs, which are made once for all tests.
fn simulated() -> &'static [Chain] {
    static CHAINS: LazyLock<Vec<Chain>> = LazyLock::new(|| {
        let chain = |seed| {
            keep();
            simulation::play(seed);
            kept()
        };
        (0..40).map(chain).collect()
    });
    &CHAINS
}

/// All below a directory. The last line of a supervisor that was killed may be torn.
fn recorded(dir: &Path) -> Vec<Chain> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of traces") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "jsonl") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut chains: BTreeMap<PathBuf, Chain> = BTreeMap::new();
    for file in files {
        let text = std::fs::read(&file).expect("a trace");
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        lines.pop();
        let step = |line: &&[u8]| {
            serde_json::from_slice::<Step>(line).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        // The name without the time.
        let state = file.with_extension("").with_extension("");
        chains.entry(state).or_default().push(lines.iter().map(step).collect());
    }
    chains.into_values().collect()
}

#[test]
fn what_supervisors_did_the_core_does_again_and_every_rule_holds() {
    let dir = std::env::var_os("HERMES_SUP_TRACES");
    let recorded = dir.as_ref().map(|dir| recorded(Path::new(dir)));
    let chains = match &recorded {
        Some(recorded) => recorded.as_slice(),
        None => simulated(),
    };
    let traces = chains.iter().map(Vec::len).sum::<usize>();
    let steps = chains.iter().flatten().map(Vec::len).sum::<usize>();
    assert!(traces > 0 && steps > 0, "there are no traces");
    let (mut kinds, mut broken) = (BTreeSet::new(), Vec::new());
    for (at, chain) in chains.iter().enumerate() {
        let mut heritage = Heritage::default();
        for (nth, trace) in chain.iter().enumerate() {
            let mut replay = Replay::after(heritage);
            for (number, step) in trace.iter().enumerate() {
                let known = replay.broken.len();
                replay.take(step);
                let new = replay.broken[known..].iter();
                broken.extend(
                    new.map(|broken| format!("state {at}, supervisor {nth}, step {number}: {broken}")),
                );
            }
            kinds.append(&mut replay.kinds);
            heritage = replay.leave();
        }
    }
    let unrefuted: Vec<Rule> = Rule::ALL
        .iter()
        .copied()
        .filter(|rule| !chains.iter().any(|chain| mutants::refutes(chain, *rule)))
        .collect();
    say(&format!(
        "{traces} traces of supervisors on {} states, {steps} steps; {} kinds of events and effects: {}; {} of {} rules were \
         refuted by a changed trace, not {unrefuted:?}",
        chains.len(),
        kinds.len(),
        kinds.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        Rule::ALL.len() - unrefuted.len(),
        Rule::ALL.len(),
    ));
    assert!(
        broken.is_empty(),
        "{} rules did not hold:\n{}",
        broken.len(),
        broken[..broken.len().min(20)].join("\n")
    );
    let is_to_be = |rule: &Rule| match dir {
        None => true,
        Some(_) => steps > CAMPAIGN && RARE.iter().all(|(rare, _)| rare != rule),
    };
    let missing: Vec<Rule> = unrefuted.into_iter().filter(is_to_be).collect();
    assert!(missing.is_empty(), "no changed trace refutes {missing:?}");
}

/// One that was killed between reading its services and booting them was taken for one with all of them down.
#[test]
fn who_is_killed_before_its_boot_leaves_what_it_was_left() {
    for chain in simulated() {
        let mut heritage = Heritage::default();
        for trace in chain {
            let mut killed = Replay::after(heritage);
            let begun = trace.iter().take_while(|step| !matches!(step.call, Call::Boot(_)));
            begun.for_each(|step| killed.take(step));
            let mut replay = Replay::after(killed.leave());
            trace.iter().for_each(|step| replay.take(step));
            assert_eq!(replay.broken, []);
            heritage = replay.leave();
        }
    }
}
