//! What happens after an end that nobody asked for.

use crate::harness::{End, Setup, World};
use serde_json::json;

crate::on_every_rung!(the_first_crash_restarts_at_once_and_the_next_waits);

/// s6 waits one second after each death, for ever. Here the first failure is restarted at once, and the further ones
/// wait longer and longer.
/// Contract: 91.
fn the_first_crash_restarts_at_once_and_the_next_waits(setup: Setup) {
    let mut world = World::new(setup);
    let slow = "[restart]\nbackoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }";
    world.adversary("coder", "pause", slow);
    let _supervisor = world.start();
    world.wait_log("coder", "ready");
    // A keeper's word of the start may come after the service's own.
    world.wait_state("coder", &["up"]);
    world.ctl(&["kill", "coder", "SEGV"]).ok();
    world.wait_log_times("coder", "ready", 2);
    let status = world.wait_state("coder", &["up"]);
    assert_eq!(status["restarts"], json!(1));
    assert_eq!(status["last_exit"]["signal"], json!("SIGSEGV"), "{status}");

    world.ctl(&["kill", "coder", "KILL"]).ok();
    let status = world.wait_state("coder", &["backoff"]);
    let next = status["next_retry_ms"].as_u64().unwrap_or(0);
    assert!((1..=3_600_000).contains(&next), "{status}");
    assert_eq!(status["pid"], json!(null));
    let card = world.ctl(&["status", "coder"]);
    assert_eq!(card.code, 3);
    assert!(card.out.contains("SIGKILL"), "the last exit in words: {}", card.out);
    world.assert_no_survivors("in backoff");

    world.ctl(&["start", "coder"]).ok();
    assert_eq!(world.state("coder"), "up", "an operator's start does not wait for the timer");
    world.ctl(&["kill", "coder", "KILL"]).ok();
    world.wait_state("coder", &["backoff", "up"]);
    world.ctl(&["stop", "coder"]).ok();
    assert_eq!(world.state("coder"), "down", "a want that is down beats every timer");
}

/// s6 restarts for ever.
/// Contract: 91, 107.
#[test]
fn too_many_failures_are_the_end_and_the_reason_is_kept() {
    let mut world = World::new(Setup::plain());
    let rule = "[restart]\nlimit = { burst = 3, interval = \"10m\" }\nbackoff = { initial = \"1ms\", max = \"5ms\" }";
    world.adversary("crasher", "torn-line", rule);
    let supervisor = world.start();
    let status = world.wait_state("crasher", &["failed"]);
    assert_eq!(status["want"], json!("up"), "a crash changes no want");
    assert_eq!(status["last_exit"]["code"], json!(1));
    assert_eq!(
        world.log("crasher").matches("ready").count(),
        4,
        "the first, and a restart for each of the burst"
    );
    let card = world.ctl(&["status", "crasher"]).out;
    assert!(card.contains("torn without end"), "the last lines: {card}");
    assert!(card.contains("failed"), "{card}");

    assert_eq!(supervisor.terminate(), End::Code(0));
    let _supervisor = world.start();
    assert_eq!(world.state("crasher"), "failed", "a restart of the container is no way around it");
    assert_eq!(world.log("crasher").matches("ready").count(), 4);
    world.ctl(&["start", "crasher"]).ok();
    world.wait_log_times("crasher", "ready", 5);
}

#[test]
fn backoff_outlives_the_supervisor() {
    let mut world = World::new(Setup::plain());
    world.adversary(
        "crasher",
        "exit 1",
        "[restart]\nbackoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }",
    );
    let supervisor = world.start();
    world.wait_state("crasher", &["backoff"]);
    let lives = world.log("crasher").matches("ready").count();
    assert_eq!(lives, 2);
    assert_eq!(supervisor.terminate(), End::Code(0));
    let _supervisor = world.start();
    let status = world.status("crasher");
    assert_eq!(status["state"], json!("backoff"), "{status}");
    assert!(
        status["next_retry_ms"].as_u64().is_some_and(|left| left > 3_000_000 && left <= 3_600_000),
        "{status}"
    );
    assert_eq!(world.log("crasher").matches("ready").count(), lives);
}

/// Contract: 63, 103.
#[test]
fn exit_codes_have_their_rules() {
    let rules = "[restart]\nexit_codes = { 0 = \"stop\", 75 = \"now\", 78 = \"failed\" }\n\
                 limit = { burst = 3, interval = \"10m\" }\nbackoff = { initial = \"1h\", max = \"1h\" }";
    let mut world = World::new(Setup::plain());
    world
        .adversary("stop", "exit 0", rules)
        .adversary("now", "exit 75", rules)
        .adversary("fatal", "exit 78", rules);
    world.adversary("on-failure", "exit 0", "[restart]\npolicy = \"on-failure\"");
    world.adversary("never", "exit 5", "[restart]\npolicy = \"never\"");
    world.adversary("oneshot", "exit 0", "type = \"oneshot\"");
    let _supervisor = world.start();
    let finished = world.wait_state("stop", &["finished"]);
    assert_eq!(finished["want"], json!("up"), "want unchanged");
    world.wait_state("fatal", &["failed"]);
    world.wait_state("now", &["failed"]);
    assert_eq!(world.log("now").matches("ready").count(), 4, "never waits, but counts");
    world.wait_state("on-failure", &["finished"]);
    world.wait_state("never", &["failed"]);
    world.wait_state("oneshot", &["finished"]);
    for name in ["stop", "fatal", "on-failure", "never", "oneshot"] {
        assert_eq!(world.log(name).matches("ready").count(), 1, "{name}");
    }
}

#[test]
fn leftovers_get_their_time_where_it_is_given() {
    let mut world = World::new(Setup::plain());
    // The child prints when TERM reaches it: it can only do so if it is not killed at once.
    let script =
        "(trap 'echo child got TERM; exit 0' TERM; sleep 1000 & echo ready; wait) & read x < /tmp/go; exit 1";
    let gate = world.path("/tmp/go");
    let any = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, any, 0).expect("a fifo");
    std::os::unix::fs::chown(&gate, Some(10000), None).expect("an owner");
    world.define(
        "parent",
        &format!("command = [\"/bin/bash\", \"-c\", {script:?}]\n[stop]\nleftovers = \"1h\"\n[restart]\npolicy = \"never\"\n"),
    );
    let _supervisor = world.start();
    world.wait_log("parent", "ready");
    std::fs::write(&gate, "go\n").expect("a word through the fifo");
    world.wait_log("parent", "child got TERM");
    world.wait_state("parent", &["failed"]);
}

/// Contract: 23, 99.
#[test]
fn after_and_requires_are_kept() {
    let mut world = World::new(Setup::plain());
    world.adversary("first", "pause", "");
    world.adversary("second", "pause", "after = [\"first\"]\nrequires = [\"first\"]");
    let supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    world.wait_log("second", "ready");
    let since = |name: &str| world.status(name)["since"].as_str().unwrap_or_default().to_owned();
    assert!(since("first") <= since("second"));
    assert_eq!(supervisor.terminate(), End::Code(0));
    world.assert_no_survivors("after the shutdown");
}

#[test]
fn an_essential_service_that_fails_ends_the_container_with_its_code() {
    let mut world = World::new(Setup::new(crate::harness::Rung::Cgroup, crate::harness::Place::Pid1));
    world.adversary("vital", "exit-after 300 33", "role = \"essential\"\n[restart]\npolicy = \"never\"");
    world.adversary("other", "tree 3", "[stop]\ntimeout = \"100ms\"");
    let mut process = world.launch();
    assert_eq!(process.wait(), End::Code(33), "{}", world.stderr());
    world.assert_no_survivors("after the container's end");
}

#[test]
fn a_failed_exec_is_said_in_words() {
    let mut world = World::new(Setup::plain());
    world.write("/tmp/not-executable", "text");
    world.define("absent", "command = [\"/no/such\"]\nautostart = false");
    world.define("text", "command = [\"/tmp/not-executable\"]\nautostart = false");
    world.define("nowhere", "command = [\"/bin/true\"]\nworking_dir = \"/no/such/dir\"\nautostart = false");
    world.define("nobody", "command = [\"/bin/true\"]\nuser = \"no-such-user\"\nautostart = false");
    let supervisor = world.start();
    for (name, word) in [
        ("absent", "/no/such"),
        ("text", "/tmp/not-executable"),
        ("nowhere", "/no/such/dir"),
        ("nobody", "no-such-user"),
    ] {
        let said = world.ctl(&["start", name]).fails(1);
        assert!(said.contains(word), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        world.ctl(&["stop", name]).ok();
    }
    world.assert_no_zombies(&supervisor);
}
