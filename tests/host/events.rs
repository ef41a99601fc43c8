//! `ctl events`: what has happened and who asked for it, over restarts, and as it happens.

use crate::harness::setup::ALICE;
use crate::harness::{End, Setup, World};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

#[track_caller]
fn assert_told(events: &[Value], service: Value, event: &str, message: &str) {
    let found = events.iter().any(|one| {
        let told = one["message"].as_str().unwrap_or_default();
        one["service"] == service && one["event"] == event && told.starts_with(message)
    });
    assert!(found, "no {event} of {service} that begins with {message:?}: {events:#?}");
}

/// Nobody who came later could tell why a service was down: the log was gone with the container, or rotated.
#[test]
fn what_happened_is_told_with_its_cause_also_after_a_restart() {
    let mut world = World::new(Setup::plain());
    world.adversary("crasher", "pause", "");
    world.adversary("deaf", "ignore-term", "[stop]\ntimeout = \"50ms\"\n");
    world.define("bad", "command = 7\n");
    world.define(
        "nobody",
        "command = [\"/no/such/program\"]\n[restart]\nlimit = { burst = 1, interval = \"1h\" }\n",
    );
    let mut supervisor = world.start();
    world.wait_log("crasher", "ready");
    world.wait_log("deaf", "ready");
    world.ctl(&["wait", "crasher", "deaf", "--up"]).ok();
    world.ctl_as(&supervisor, 0, &["kill", "crasher", "SEGV"]).ok();
    world.wait_log_times("crasher", "ready", 2);
    world.ctl_as(&supervisor, 0, &["stop", "deaf"]).ok();
    world.ctl_as(&supervisor, 0, &["reload"]);
    world.wait_state("nobody", &["failed"]);
    let told = world.events();
    assert_told(&told, Value::Null, "started", "containment");
    assert_told(&told, json!("crasher"), "state", "up");
    assert_told(&told, json!("crasher"), "command", "kill (SIGSEGV) asked for by ");
    assert_told(&told, json!("crasher"), "exit", "killed by SIGSEGV unexpectedly");
    assert_told(&told, json!("deaf"), "command", "stop asked for by ");
    assert_told(&told, json!("deaf"), "killed", "did not stop within 50ms");
    assert_told(&told, json!("deaf"), "state", "down");
    assert_told(
        &told,
        json!("nobody"),
        "state",
        "failed: 2 failures within 60 min; the last: cannot execute",
    );
    assert_told(&told, Value::Null, "command", "reload asked for by ");
    assert_told(&told, Value::Null, "refused", "/etc/hermes-sup/services/bad.toml:1:");
    let exit =
        told.iter().find(|one| one["event"] == "exit" && one["service"] == "crasher").expect("found above");
    assert_eq!(exit["exit_code"], json!(128 + 11));
    let stop =
        told.iter().find(|one| one["message"].as_str().is_some_and(|text| text.starts_with("stop asked")));
    assert_eq!(stop.expect("found above")["by"]["uid"], json!(0));
    // The supervisor's log says the same in the same words, once.
    let stderr = world.stderr();
    for one in told.iter().filter(|one| one["event"] != "refused") {
        let (message, service) = (one["message"].as_str().expect("words"), one["service"].as_str());
        let line = service.map_or(message.to_owned(), |service| format!("{service}: {message}"));
        assert!(stderr.contains(&line), "{line:?} is not in the log:\n{stderr}");
    }
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());

    let supervisor = world.start();
    let later = world.events();
    assert_told(&later, json!("deaf"), "killed", "did not stop within 50ms");
    assert_told(&later, Value::Null, "shutdown", "SIGTERM from ");
    let starts = later.iter().filter(|one| one["event"] == "started").count();
    assert_eq!(starts, 2, "{later:#?}");
    let lines = world.ctl(&["events", "--since", "1h"]).ok();
    assert!(lines.contains(" deaf: did not stop within 50ms and is killed\n"), "{lines}");
    assert_eq!(world.ctl(&["events", "--since", "2100-01-01"]).ok(), "");
    world.ctl_as(&supervisor, ALICE, &["events"]).fails(6);
}

struct Follower {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    seen: Vec<Value>,
}

impl Follower {
    fn of(world: &World) -> Self {
        // A follower that is told nothing more ends all the same.
        let words = ["/usr/bin/timeout", "120", "/hermes-sup", "ctl", "events", "-f", "--json"];
        let mut command = world.inside_command(0, &words);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a follower");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Reads until this was told. It ends with the supervisor at the latest.
    #[track_caller]
    fn wait(&mut self, service: Value, message: &str) {
        for line in self.lines.by_ref().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).expect("a document a line");
            let found = event["service"] == service
                && event["message"].as_str().is_some_and(|text| text.starts_with(message));
            self.seen.push(event);
            if found {
                return;
            }
        }
        panic!("{message:?} of {service} was never told: {:#?}", self.seen);
    }
}

/// It stays through an upgrade, which it sees, holds nobody up, and ends well with the supervisor.
#[test]
fn who_follows_sees_it_happen_through_an_upgrade_to_the_end() {
    let mut world = World::new(Setup::plain());
    world.adversary("one", "pause", "autostart = false");
    world.adversary("two", "pause", "autostart = false");
    let mut supervisor = world.start();
    let mut follower = Follower::of(&world);
    follower.wait(Value::Null, "containment");
    world.ctl(&["start", "one"]).ok();
    follower.wait(json!("one"), "starting");
    follower.wait(json!("one"), "up");
    assert_eq!(world.ctl(&["upgrade"]).ok(), "upgraded\n");
    follower.wait(Value::Null, "goes on in another process image");
    world.ctl(&["start", "two"]).ok();
    follower.wait(json!("two"), "up");
    let ups =
        follower.seen.iter().filter(|event| event["service"] == "one" && event["message"] == "up").count();
    assert_eq!(ups, 1, "nothing is told twice: {:#?}", follower.seen);
    world.ctl(&["shutdown"]).ok();
    follower.wait(Value::Null, "shutdown asked for by ");
    follower.wait(json!("two"), "down");
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
    let rest: Vec<_> = follower.lines.by_ref().map_while(Result::ok).collect();
    assert!(follower.child.wait().expect("its end").success(), "{rest:?}");
}
