//! Several of a kind from one file: `instances = 4`, and `NAME@ARGUMENT.toml`.

use crate::harness::{End, Setup, World, wait};

fn workers(world: &World, count: u32, rest: &str) {
    let mark = &world.mark;
    world.define(
        "worker",
        &format!("instances = {count}\ncommand = [\"/adversary\", \"pause\", \"{{instance}}\", \"{mark}\"]\n{rest}\n"),
    );
}

/// An instance that was taken away while nobody supervised came back with the want that it had had.
#[test]
fn instances_that_are_taken_away_between_two_starts_are_new_when_they_come_again() {
    let mut world = World::new(Setup::plain());
    workers(&world, 2, "");
    let supervisor = world.start();
    world.wait_state("worker@2", &["up"]);
    world.ctl(&["stop", "worker@2"]).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    workers(&world, 1, "");
    let supervisor = world.start();
    world.wait_state("worker@1", &["up"]);
    assert!(
        world.stderr().contains("worker@2: its definition has fewer instances now"),
        "{}",
        world.stderr()
    );
    assert_eq!(supervisor.terminate(), End::Code(0));
    workers(&world, 2, "");
    let _supervisor = world.start();
    world.wait_state("worker@2", &["up"]);
}

/// Four copies of a worker were four files that differed in a number.
#[test]
fn a_number_is_all_it_takes_and_reload_follows_it() {
    let mut world = World::new(Setup::plain());
    workers(&world, 3, "");
    world.define("mail@", "command = [\"/adversary\", \"pause\"]\nenv = { QUEUE = \"{instance}\" }\n");
    world.define("mail@high", "");
    world.adversary("front", "pause", "requires = [\"worker\"]");
    let _supervisor = world.start();
    for name in ["worker@1", "worker@2", "worker@3", "mail@high", "front"] {
        world.wait_state(name, &["up"]);
    }
    assert_eq!(world.ctl(&["list"]).ok(), "front\nmail@high\nworker@1\nworker@2\nworker@3\n");
    assert_eq!(world.marked("2").len(), 1);
    let first = world.status("worker@1")["pid"].clone();

    // Fewer: those that are too many end, and nobody else notices.
    workers(&world, 1, "");
    let told = world.ctl(&["reload"]).ok();
    assert!(
        told.contains("worker@3") && told.contains("one instance too many: stopped and dropped"),
        "{told}"
    );
    wait::until("both to be dropped", world.path("/run/hermes-sup").as_path(), || {
        (world.ctl(&["list"]).ok() == "front\nmail@high\nworker@1\n").then_some(())
    });
    assert!(!told.contains("worker@1"), "{told}");
    assert_eq!(world.status("worker@1")["pid"], first);
    assert_eq!(world.status("front")["state"], "up");

    // More again, though they were dropped.
    workers(&world, 2, "");
    world.ctl(&["reload"]).ok();
    world.wait_state("worker@2", &["up"]);

    // The name of all of them means all of them.
    let stopped = world.ctl(&["stop", "worker"]).ok();
    assert!(stopped.contains("worker@1") && stopped.contains("worker@2"), "{stopped}");
    for name in ["worker@1", "worker@2"] {
        assert_eq!(world.want(name), "down");
    }
    // A mistake drops none of them.
    workers(&world, 2, "umask = 22");
    world.ctl(&["reload"]).fails(1);
    assert_eq!(world.state("worker@2"), "down");
    let table = world.ctl(&["status", "worker"]).out;
    assert!(table.contains("refused") && table.contains("worker@1") && table.contains("umask"), "{table}");
}
