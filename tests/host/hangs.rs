//! Services whose loop stands still, and worlds that do: the first are found, each time, and the second harm nobody.

use crate::harness::layout::adversary_program;
use crate::harness::{End, Place, Rung, Setup, World};
use jiff::Timestamp;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(2);
const TIMES: usize = 20;

#[test]
fn a_loop_that_hangs_is_found_within_two_intervals_on_cgroup() {
    a_loop_that_hangs_is_found_within_two_intervals(Setup::new(Rung::Cgroup, Place::Pid1));
}

#[test]
fn a_loop_that_hangs_is_found_within_two_intervals_on_keeper() {
    a_loop_that_hangs_is_found_within_two_intervals(Setup::new(Rung::Keeper, Place::Pid1));
}

/// A file that was not written between two questions: its loop was stopped, spins, or waits for ever. One that is late goes on.
fn a_loop_that_hangs_is_found_within_two_intervals(setup: Setup) {
    const HOW: [&str; 3] = ["stop", "spin", "wait"];
    let mut world = World::new(setup);
    let health = |file: &str| {
        format!(
            "[health]\nkind = \"file-age\"\npath = \"{file}\"\nmax_age = \"1900ms\"\ninterval = \"2s\"\nfailures = 1\n\
             start_period = \"0s\""
        )
    };
    for how in HOW {
        let file = format!("/tmp/{how}.{{instance}}");
        world.adversary(
            how,
            &format!("heart {file} {how}"),
            &format!("instances = {TIMES}\n{}", health(&file)),
        );
    }
    let late = "echo ready; while :; do date >/tmp/late; sleep 1; done";
    world.define("late", &format!("command = [\"/bin/sh\", \"-c\", \"{late}\"]\n{}", health("/tmp/late")));
    let supervisor = world.start();
    let names: Vec<String> =
        HOW.iter().flat_map(|how| (1..=TIMES).map(move |number| format!("{how}@{number}"))).collect();
    for name in names.iter().map(String::as_str).chain(["late"]) {
        world.wait_log(name, "ready");
        world.wait_health(name, "healthy");
    }

    for name in &names {
        world.ctl(&["kill", name, "USR1"]).ok();
    }
    for name in &names {
        world.wait_stderr(&format!("{name}: unhealthy: file-age probe of "));
    }
    let told = world.events();
    let when = |name: &str, event: &str| -> Timestamp {
        let found = told.iter().find(|told| told["service"] == name && told["event"] == event);
        found
            .and_then(|told| told["time"].as_str()?.parse().ok())
            .unwrap_or_else(|| panic!("no {event} of {name}"))
    };
    for name in &names {
        let took = when(name, "health").duration_since(when(name, "command")).unsigned_abs();
        // The second question after it hung finds it; half an interval is for a busy machine.
        assert!(took <= INTERVAL * 2 + INTERVAL / 2, "{name} was found after {took:?}: {}", world.stderr());
    }
    for name in &names {
        world.wait_log_times(name, "ready", 2);
        assert_eq!(world.wait_health(name, "healthy")["restarts"], json!(1), "{name}: {}", world.stderr());
    }
    assert_eq!(world.status("late")["restarts"], json!(0), "{}", world.stderr());
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}

#[test]
fn a_container_that_stood_still_restarts_nothing_on_cgroup() {
    a_container_that_stood_still_restarts_nothing(Setup::new(Rung::Cgroup, Place::Pid1));
}

#[test]
fn a_container_that_stood_still_restarts_nothing_on_keeper() {
    a_container_that_stood_still_restarts_nothing(Setup::new(Rung::Keeper, Place::Pid1));
}

/// `docker pause` for longer than all timeouts. The clock goes on meanwhile, and so does the age of files.
fn a_container_that_stood_still_restarts_nothing(setup: Setup) {
    const LONGER_THAN_ALL_MILLIS: &str = "6000";
    let mut world = World::new(setup);
    let checked = "interval = \"500ms\"\nfailures = 2\nstart_period = \"0s\"";
    let address = World::free_address();
    let web = format!("[health]\nkind = \"http\"\nurl = \"http://{address}/\"\ntimeout = \"1s\"\n{checked}");
    let heart = format!("[health]\nkind = \"file-age\"\npath = \"/tmp/heart\"\nmax_age = \"2s\"\n{checked}");
    world.adversary("web", &format!("serve {address}"), &web);
    world.adversary("heart", "heart /tmp/heart wait", &heart);
    world.adversary("dog", "beats", "[health]\nkind = \"watchdog\"\ntimeout = \"2s\"\nstart_period = \"0s\"");
    // Most of the time a probe is under way: it is frozen in the middle of one.
    let asks = "[\"/bin/sleep\", \"0.6\"]";
    let asked = format!("[health]\nkind = \"exec\"\ncommand = {asks}\ntimeout = \"3s\"\n{checked}");
    world.adversary("asked", "pause", &asked);
    let supervisor = world.start();
    let lives =
        ["web", "heart", "dog", "asked"].map(|name| world.wait_health(name, "healthy")["pid"].clone());

    world.freeze(true);
    let pause = Command::new(adversary_program()).args(["exit-after", LONGER_THAN_ALL_MILLIS, "0"]).status();
    assert!(pause.expect("the pause").success());
    world.freeze(false);
    world.wait_stderr("the supervisor did not run for");
    assert_eq!(world.status("web")["pid"], lives[0], "{}", world.stderr());

    // That one is found which hangs now shows that all have been asked since.
    world.write("/tmp/hang", "");
    world.wait_stderr("web: unhealthy: ");
    std::fs::remove_file(world.path("/tmp/hang")).expect("the file");
    let unhealthy: Vec<String> =
        world.stderr().lines().filter(|line| line.contains(": unhealthy: ")).map(str::to_owned).collect();
    assert!(unhealthy.iter().all(|line| line.contains("no answer within 1s")), "{unhealthy:#?}");
    for (name, life) in ["heart", "dog", "asked"].iter().zip(&lives[1..]) {
        let status = world.wait_health(name, "healthy");
        assert_eq!((&status["pid"], &status["restarts"]), (life, &json!(0)), "{}", world.stderr());
    }
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}
