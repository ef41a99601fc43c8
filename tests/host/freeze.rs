//! Trees that are told to stand still: they do, wholly, and neither a stop nor a crash minds.

use crate::harness::hostile::name;
use crate::harness::setup::ALICE;
use crate::harness::{End, Rung, Setup, World, wait};
use rustix::process::Signal;
use serde_json::json;

crate::on_every_rung!(
    a_frozen_tree_stands_still_and_goes_on,
    whatever_is_frozen_ends_as_a_whole,
    a_stop_of_what_is_frozen_is_obeyed_and_not_enforced,
    a_crash_while_frozen_is_a_crash,
    a_shutdown_ends_what_is_frozen,
    a_tree_is_shown_with_every_process,
    a_signal_to_the_tree_reaches_every_process,
);

/// Every adversary that can come to a stand, and how its log says that it is in place. A storm that nobody ends stands
/// still once it is frozen, and a comet too.
const MATRIX: [(&str, &str); 10] = [
    ("tree 30", "ready tree"),
    ("comet 2", "ready comet"),
    ("storm 200", "ready storm"),
    ("ignore-term", "ready ignore-term"),
    ("obey-but-child-ignores", "ready obey"),
    ("zombie-leader", "ready zombie-leader"),
    ("vfork-child", "ready vfork-child"),
    ("stopped", "ready stopped"),
    ("uid-changer", "ready uid-changer"),
    ("cgroup-escaper", "ready cgroup-escaper"),
];

/// Waits until a service says so and the supervisor knows it.
#[track_caller]
fn up(world: &World, service: &str, ready: &str) {
    world.wait_log(service, ready);
    world.ctl(&["wait", service, "--up"]).ok();
}

fn a_frozen_tree_stands_still_and_goes_on(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("clock", "tick 1", "");
    let supervisor = world.start();
    up(&world, "clock", "tick 5");
    assert_eq!(world.ctl(&["freeze", "clock"]).ok(), "clock: frozen\n");
    assert_eq!(world.assert_stands("tick", "the clock").len(), 1);
    assert_eq!(world.ctl(&["freeze", "clock"]).ok(), "clock: already frozen\n");
    let status = world.status("clock");
    assert_eq!((&status["state"], &status["frozen"]), (&json!("up"), &json!(true)));
    assert_eq!(status["reason"], json!("frozen"));
    world.assert_stands("tick", "the clock");
    // With `--user` nobody else reaches the socket at all.
    if world.setup.rung != Rung::KeeperSameUid {
        assert_eq!(world.ctl_as(&supervisor, ALICE, &["thaw", "clock"]).code, 6);
    }
    assert_eq!(world.ctl(&["thaw", "clock"]).ok(), "clock: thawed\n");
    assert_eq!(world.status("clock")["frozen"], json!(false));
    let so_far = world.log("clock").matches("tick ").count();
    world.wait_log_times("clock", "tick ", so_far + 5);
    assert_eq!(world.ctl(&["thaw", "clock"]).ok(), "clock: not frozen\n");
    assert_eq!(world.status("clock")["restarts"], json!(0));
    // And again, in the same life.
    world.ctl(&["freeze", "clock"]).ok();
    world.ctl(&["stop", "clock"]).ok();
    world.assert_no_survivors("after stop");
    let down = world.ctl(&["freeze", "clock"]);
    assert_eq!(down.code, 1, "{down:?}");
    assert!(down.err.contains("'clock' is down: only what is up"), "{down:?}");
    assert_eq!(world.ctl(&["freeze", "--all"]).ok(), "", "of all, those that are up");
}

fn whatever_is_frozen_ends_as_a_whole(setup: Setup) {
    let mut world = World::new(setup);
    for (adversary, _) in MATRIX {
        world.adversary(name(adversary), adversary, "autostart = false\n[stop]\ntimeout = \"20ms\"");
    }
    let supervisor = world.start();
    for (adversary, ready) in MATRIX {
        let service = name(adversary);
        world.ctl(&["start", service]).ok();
        world.ctl(&["wait", service, "--up"]).ok();
        world.wait_log(service, ready);
        if stands_still(&world, adversary) {
            world.assert_stands(service, adversary);
            assert_eq!(world.status(service)["frozen"], json!(true), "{adversary}");
        }
        world.ctl(&["restart", service]).ok();
        world.wait_log_times(service, ready, 2);
        assert_eq!(world.status(service)["frozen"], json!(false), "a new life is not frozen");
        stands_still(&world, adversary);
        world.ctl(&["stop", service]).ok();
        world.assert_no_survivors(adversary);
    }
    world.assert_no_zombies(&supervisor);
}

/// Freezes it. What forks and exits without end may outrun every sweep where no cgroup holds it; then `freeze` says so, and
/// it goes on.
fn stands_still(world: &World, adversary: &str) -> bool {
    let answer = world.ctl(&["freeze", name(adversary)]);
    if answer.code == 7 && adversary.starts_with("comet") && !world.setup.rung.is_cgroup() {
        assert!(answer.err.contains("did not stand still"), "{answer:?}");
        return false;
    }
    answer.ok();
    true
}

fn a_stop_of_what_is_frozen_is_obeyed_and_not_enforced(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("polite", "wait-signal", "[stop]\ntimeout = \"30s\"");
    let _supervisor = world.start();
    up(&world, "polite", "ready");
    world.ctl(&["freeze", "polite"]).ok();
    world.ctl(&["stop", "polite"]).ok();
    world.wait_log("polite", "got signal 15");
    assert_eq!(world.status("polite")["last_exit"]["code"], json!(0));
}

fn a_crash_while_frozen_is_a_crash(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 5", "[restart]\nbackoff = { initial = \"1ms\" }");
    let _supervisor = world.start();
    up(&world, "wood", "ready");
    world.ctl(&["freeze", "wood"]).ok();
    let main = world.status("wood")["pid"].as_i64();
    let victim = world.marked("tree").into_iter().find(|process| Some(i64::from(process.inner)) == main);
    let victim = rustix::process::Pid::from_raw(victim.expect("the main process").outer).expect("a pid");
    rustix::process::kill_process(victim, Signal::KILL).expect("a kill");
    world.wait_log_times("wood", "ready", 2);
    let status = world.wait_state("wood", &["up"]);
    assert_eq!((&status["frozen"], &status["restarts"]), (&json!(false), &json!(1)));
    assert_eq!(world.marked("tree").len(), 6, "nothing of the first life is left");
}

fn a_shutdown_ends_what_is_frozen(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 10", "[stop]\ntimeout = \"20ms\"");
    world.adversary("polite", "wait-signal", "[stop]\ntimeout = \"30s\"");
    let mut supervisor = world.start();
    up(&world, "wood", "ready");
    up(&world, "polite", "ready");
    world.ctl(&["freeze", "--all"]).ok();
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after shutdown");
    assert!(world.log("polite").contains("got signal 15"), "{}", world.log("polite"));
}

fn a_tree_is_shown_with_every_process(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 40", "");
    world.adversary("idle", "pause", "autostart = false");
    let supervisor = world.start();
    up(&world, "wood", "ready");
    world.ctl(&["freeze", "wood"]).ok();
    let document = world.ctl(&["--json", "tree"]).json();
    assert_eq!(document["services"][0], json!({ "name": "idle", "processes": [], "left_out": 0 }));
    let shown = document["services"][1]["processes"].as_array().cloned().unwrap_or_default();
    let mut pids: Vec<i64> = shown.iter().filter_map(|process| process["pid"].as_i64()).collect();
    let mut expected: Vec<i64> =
        world.marked("tree").iter().map(|process| i64::from(process.inner)).collect();
    pids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pids, expected, "each once");
    let main = &world.status("wood")["pid"];
    let roots = shown.iter().filter(|process| process["parent"].is_null());
    assert!(roots.clone().any(|process| process["pid"] == *main), "the main process is a root: {shown:?}");
    assert!(shown.iter().all(|process| process["command"].as_str().is_some_and(|c| c.contains("tree 40"))));
    let stopped = if world.setup.rung.is_cgroup() { "S" } else { "T" };
    assert!(shown.iter().all(|process| process["state"] == json!(stopped)), "{shown:?}");
    let text = world.ctl(&["tree", "wood"]).ok();
    assert!(text.starts_with("wood\nPID"), "{text}");
    assert_eq!(text.lines().count(), 2 + expected.len(), "{text}");
    assert_eq!(world.ctl(&["tree", "nobody"]).code, 4);
    if world.setup.rung != Rung::KeeperSameUid {
        assert_eq!(world.ctl_as(&supervisor, ALICE, &["tree"]).code, 6);
    }
}

/// `kill --tree`, of what runs and of what is frozen: a signal that nobody handles ends all of it.
fn a_signal_to_the_tree_reaches_every_process(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 10", "[restart]\npolicy = \"never\"");
    let _supervisor = world.start();
    for (life, frozen) in [(1, false), (2, true)] {
        world.ctl(&["start", "wood"]).ok();
        world.wait_log_times("wood", "ready", life);
        if frozen {
            world.ctl(&["freeze", "wood"]).ok();
        }
        let said = world.ctl(&["kill", "wood", "USR1", "--tree"]).ok();
        let expected = if frozen { "wood: SIGUSR1 sent and thawed\n" } else { "wood: SIGUSR1 sent\n" };
        assert_eq!(said, expected);
        let status = world.wait_state("wood", &["failed"]);
        assert_eq!(status["last_exit"]["signal"], json!("SIGUSR1"));
        wait::until("the end of all", &world.outside(""), || world.marked("tree").is_empty().then_some(()));
    }
}
