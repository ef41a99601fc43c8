//! The comparison: every supervisor that is installed, on the same test service, in one interleaved run. `bench/run`
//! builds what it needs and starts it; `bench/README.md` says what each row means.
#![allow(clippy::disallowed_macros)]

mod clock;
mod events;
mod ground;
mod machine;
mod options;
mod peer;
mod process;
#[path = "../record.rs"]
mod record;
mod report;
mod results;
mod row;
mod statistics;
mod trace;
mod world;

use ground::Ground;
use options::Options;
use results::Results;
use row::Bench;
use std::process::ExitCode;

/// Progress goes to the error stream, the report into files.
fn say(line: &str) {
    eprintln!("{line}");
}

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| compare(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    // For thousands of services: what the supervisors inherit.
    let most = rustix::process::Rlimit { current: Some(65_536), maximum: Some(65_536) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, most);
    let begun = clock::now();
    let peers = peer::all(options);
    for peer in &peers {
        say(&format!("{}: {}", peer.name(), peer.version()));
    }
    let mut bench = Bench { options, peers: &peers, results: Results::default(), troubles: Vec::new() };
    type Measure = fn(&mut Bench<'_>);
    let wants = |names: &[&str]| names.iter().any(|name| options.wants_row(name));
    // Where it runs changes what these cost; the others are of one world.
    let everywhere: [(&str, bool, Measure); 2] = [
        ("fleet", wants(&row::fleet::NAMES), row::fleet::run),
        ("commands", wants(&row::commands::NAMES), row::commands::run),
    ];
    let engine: [(&str, bool, Measure); 1] = [("engine", wants(&row::engine::NAMES), row::engine::run)];
    let all: [(&str, bool, Measure); 8] = [
        ("crash", wants(&["crash"]), row::crash::run),
        ("crash-heavy", wants(&["crash-heavy"]), row::crash::run_heavy),
        ("orphans", wants(&["reap"]), row::orphans::run),
        ("logs", wants(&["log", "log-cpu", "lost"]), row::logs::run),
        ("trees", wants(&["tree", "survivors"]), row::trees::run),
        ("fleet", wants(&row::fleet::NAMES), row::fleet::run),
        ("commands", wants(&row::commands::NAMES), row::commands::run),
        ("containers", options.image.is_some(), row::containers::run),
    ];
    let groups = match options.ground {
        Ground::Memory => &all[..],
        ground if ground.is_container() => &engine,
        _ => &everywhere,
    };
    for (name, wanted, measure) in groups {
        if *wanted {
            say(&format!("== {name} ({} s)", (clock::now() - begun) / 1_000_000_000));
            measure(&mut bench);
        }
    }
    let took = (clock::now() - begun) / 1_000_000_000;
    report::write(&bench, took).map_err(|error| format!("{}: {error}", options.results.display()))
}
