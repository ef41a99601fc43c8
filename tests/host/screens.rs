//! What an operator looks at: `healthcheck`, `status` and `tree` of some of many.

use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Setup, World};
use serde_json::json;
use std::num::NonZero;
use std::path::Path;

/// A wait that no test outlives.
const SLOW: &str = "[restart]\nbackoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }\n";

/// A HEALTHCHECK made of `status NAME…` had to list every service, and each oneshot that was done broke it.
#[test]
fn healthcheck_is_one_line_and_0_or_1() {
    let mut world = World::new(Setup::plain());
    world.adversary("web", "pause", "");
    world.adversary("spare", "pause", "autostart = false");
    world.adversary("migrate", "exit 0", "type = \"oneshot\"");
    let supervisor = world.start();
    world.wait_state("web", &["up"]);
    world.wait_state("migrate", &["finished"]);
    let check =
        |words: &[&str]| world.exec(&supervisor, 0, &[&["/hermes-sup", "healthcheck"], words].concat());
    assert_eq!(check(&[]).ok(), "healthy: 3 services\n");
    assert_eq!(world.ctl(&["healthcheck", "web", "migrate"]).ok(), "healthy: 2 services\n");
    let spare = check(&["spare"]);
    assert_eq!((spare.code, spare.out.as_str()), (1, "unhealthy: spare: down\n"), "asked for by name");
    for words in [&["nobody"][..], &["--profile", "nobody"], &["--socket", "/none"]] {
        let answer = check(words);
        assert_eq!(answer.code, 1, "Docker knows 0 and 1: {answer:?}");
        assert_eq!(answer.out.lines().chain(answer.err.lines()).count(), 1, "{answer:?}");
    }

    world.adversary("broken", "exit 3", SLOW);
    world.ctl(&["reload"]).ok();
    world.wait_state("broken", &["backoff"]);
    let sick = check(&[]);
    assert_eq!((sick.code, sick.err.as_str()), (1, ""), "{sick:?}");
    assert!(sick.out.starts_with("unhealthy: broken: backoff, exited with code 3"), "{sick:?}");
    let document = check(&["--json"]).json();
    assert_eq!((&document["healthy"], &document["faults"][0]["name"]), (&json!(false), &json!("broken")));

    world.ctl(&["stop", "broken"]).ok();
    assert_eq!(check(&[]).ok(), "healthy: 4 services\n", "what nobody wants is no fault");
    world.ctl(&["freeze", "web"]).ok();
    assert_eq!(check(&[]).out, "unhealthy: web: up, frozen\n");
}

#[test]
fn a_pattern_stands_for_names_wherever_one_is_accepted() {
    let mut world = World::new(Setup::plain());
    for name in ["worker-1", "worker-2", "web"] {
        world.adversary(name, "pause", "autostart = false");
    }
    let _supervisor = world.start();
    let lines = world.ctl(&["start", "worker-*"]).ok();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(["worker-1", "worker-2", "web"].map(|name| world.state(name)), ["up", "up", "down"]);
    world.ctl(&["stop", "w*-[1]", "w?b"]).ok();
    assert_eq!(["worker-1", "worker-2", "web"].map(|name| world.state(name)), ["down", "up", "down"]);
    let table = world.ctl(&["status", "worker-*"]).out;
    assert_eq!(table.lines().filter(|line| line.starts_with("worker-")).count(), 2, "{table}");
    world.ctl(&["logs", "worker-*"]).ok();
    let none = world.ctl(&["restart", "x*"]).fails(4);
    assert_eq!(none, "hermes-sup: no service matches 'x*': see 'hermes-sup ctl list'\n");
    // The others are done all the same.
    let one = world.ctl(&["start", "x*", "web", "worker-*"]);
    assert_eq!((one.code, one.err.as_str()), (4, none.as_str()), "{one:#?}");
    assert_eq!(["worker-1", "worker-2", "web"].map(|name| world.state(name)), ["up", "up", "up"]);
    let document = world.ctl(&["--json", "stop", "x*", "web"]).json();
    let codes = document["results"].as_array().expect("results").iter().map(|one| one["code"].clone());
    assert_eq!(codes.collect::<Vec<_>>(), [json!(4), json!(0)], "{document:#}");
    assert!(world.ctl(&["healthcheck", "x*", "worker-1"]).fails(1).is_empty(), "that is no health");
    assert!(world.ctl(&["restart", "[x"]).fails(2).contains("is no pattern"));
}

#[test]
fn only_what_has_failed_is_shown_where_that_is_asked_for() {
    let mut world = World::new(Setup::plain());
    world.adversary("fine", "pause", "");
    let _supervisor = world.start();
    world.wait_state("fine", &["up"]);
    assert!(world.ctl(&["status", "--failed"]).ok().ends_with("nothing has failed\n"));
    assert_eq!(world.ctl(&["tree", "--failed"]).ok(), "nothing has failed\n");
    world.adversary("broken", "exit 3", SLOW);
    world.ctl(&["reload"]).ok();
    world.wait_state("broken", &["backoff"]);
    let table = world.ctl(&["status", "--failed"]).ok();
    assert!(table.contains("\nbroken") && !table.contains("\nfine"), "{table}");
    assert_eq!(world.ctl(&["tree", "--failed"]).ok(), "broken: no processes\n");
    assert_eq!(table.lines().take_while(|line| !line.starts_with("NAME")).count(), 1, "one line: {table}");
}

/// Driven as a person would, on a terminal: what is seen, and that the keys do it.
#[test]
fn top_shows_and_obeys_on_a_terminal() {
    let mut world = World::new(Setup::plain());
    world.adversary("busy", "tick 10", "");
    world.adversary("quiet", "pause", "autostart = false");
    let _supervisor = world.start();
    world.wait_state("busy", &["up"]);
    let once = world.ctl(&["top", "--once"]).ok();
    assert!(once.starts_with("hermes-sup up ") && once.contains("2 services, 1 up, 0 failed"), "{once}");
    assert!(once.lines().any(|line| line.contains("quiet") && line.contains("down")), "{once}");

    let script = "stty rows 24 cols 80; /hermes-sup ctl top --interval 100ms; echo it ended with $?";
    let mut command = world.inside_command(0, &["/bin/sh", "-c", script]);
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command);
    terminal.press("", &["hermes-sup up ", "busy", "quiet", "CPU%"]);
    terminal.press("/qui", &["filter: qui"]);
    terminal.press("\r", &["filter 'qui'", "> quiet"]);
    terminal.press("s", &["quiet: up"]);
    assert_eq!(world.state("quiet"), "up");
    terminal.press("t", &["processes of quiet", "/adversary pause"]);
    terminal.press("q", &["> quiet"]);
    terminal.press("f", &["freeze quiet? y/n"]);
    terminal.press("y", &["quiet: frozen", "> quiet     frozen"]);
    terminal.press("f", &["quiet: thawed"]);
    terminal.press("x", &["stop quiet? y/n"]);
    terminal.press("y", &["quiet: down"]);
    assert_eq!(world.state("quiet"), "down");
    terminal.press("/", &["filter: qui"]);
    terminal.press("\x1b", &["busy"]);
    terminal.press("gl", &["log of busy", "tick "]);
    terminal.press("\x1b", &["NAME"]);
    terminal.press("q", &["it ended with 0"]);
}

/// A program on a terminal of 80 columns, and what its user sees there.
struct Terminal {
    session: rexpect::session::PtySession,
    screen: vt100::Parser,
}

impl Terminal {
    fn start(command: std::process::Command) -> Self {
        let session = rexpect::session::spawn_command(command, None).expect("a pty");
        let size = |cells| NonZero::new(cells).expect("some");
        Self { session, screen: vt100::Parser::new(size(24), size(80), 0) }
    }

    /// Types these keys, and waits until all of that is to be seen.
    #[track_caller]
    fn press(&mut self, keys: &str, texts: &[&str]) {
        self.session.send(keys).and_then(|_| self.session.flush()).expect("typed");
        let seen = wait::within(PATIENCE, Path::new("/"), || {
            // It makes a character of each byte.
            while let Some(byte) = self.session.try_read().and_then(|byte| u8::try_from(byte).ok()) {
                self.screen.process(&[byte]);
            }
            let shown = self.screen.screen().contents();
            texts.iter().all(|text| shown.contains(text)).then_some(())
        });
        assert!(seen.is_some(), "after {keys:?} no {texts:?}:\n{}", self.screen.screen().contents());
    }
}
