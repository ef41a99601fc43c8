//! `--parallel-starts`: services that start some at a time.

use crate::harness::{Setup, World};
use rustix::fs::{CWD, FileType, Mode};
use std::path::PathBuf;

/// A service that is ready when somebody writes into its gate.
fn gated(world: &World, name: &str) -> PathBuf {
    let gate = world.path(&format!("/tmp/gate.{name}"));
    rustix::fs::mknodat(CWD, &gate, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("a FIFO");
    rustix::fs::chmod(&gate, Mode::from_raw_mode(0o666)).expect("its mode");
    let script = format!("read x </tmp/gate.{name}; echo >&3; exec /adversary pause");
    world.define(
        name,
        &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\n[ready]\nkind = \"fd\"\nfd = 3\ntimeout = \"5m\"\n"),
    );
    gate
}

/// Returns when the service reads.
fn open(gate: &PathBuf) {
    std::fs::write(gate, "go\n").expect("a reader");
}

/// Sixty gateways that start at once on two processors: the first answered when the last did.
#[test]
fn the_next_starts_when_one_is_ready_and_a_person_waits_for_nobody() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--parallel-starts", "1"]));
    let (first, second) = (gated(&world, "a"), gated(&world, "b"));
    world.adversary("c", "pause", "");
    let _supervisor = world.start();
    world.wait_state("a", &["up"]);
    for name in ["b", "c"] {
        let status = world.status(name);
        assert_eq!((&status["state"], &status["reason"]), (&"starting".into(), &"waits for its turn".into()));
    }
    world.ctl(&["start", "c"]).ok();
    assert_eq!((world.state("c").as_str(), world.state("b").as_str()), ("up", "starting"));
    open(&first);
    world.wait_state("a", &["ready"]);
    world.wait_state("b", &["up"]);
    open(&second);
    world.wait_state("b", &["ready"]);
}

/// As many as the machine takes, whatever its kernel tells of it.
#[test]
fn auto_starts_all_in_the_end() {
    let mut world = World::new(Setup::plain().env("HERMES_SUP_PARALLEL_STARTS", "auto"));
    for count in 0..12 {
        world.adversary(&format!("s{count}"), "pause", "");
    }
    let _supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    assert_eq!(world.marked("pause").len(), 12);
}
