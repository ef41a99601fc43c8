//! Services that are waited for until they answer, and those that stop doing so.

use crate::harness::layout::adversary_program;
use crate::harness::{End, Place, Rung, Setup, World, wait};
use crate::{on_every_rung, on_every_rung_as_a_child};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Command;

on_every_rung!(
    each_kind_of_readiness_is_heard,
    a_watchdog_that_falls_silent_and_a_probe_that_says_no_are_noticed,
    a_probe_that_hangs_is_ended_with_all_that_it_has_started,
);

on_every_rung_as_a_child!(
    only_the_services_own_processes_are_heard_on_its_notify_socket,
    in_quarantine_it_stands_still_with_its_processes_and_last_lines_until_it_is_thawed,
);

/// The database takes its time; a worker that is started before it accepts ends at once.
#[test]
fn a_worker_starts_when_what_it_requires_accepts_connections() {
    let mut world = World::new(Setup::plain());
    let address = World::free_address();
    let ready = format!("[ready]\nkind = \"tcp\"\naddress = \"{address}\"\ninterval = \"100ms\"");
    world.adversary("cache", &format!("serve {address} /tmp/open"), &ready);
    world.adversary("worker", "pause", "requires = [\"cache\"]");
    let supervisor = world.start();
    world.wait_log("cache", "ready");
    let cache = world.wait_state("cache", &["up"]);
    assert_eq!(cache["awaits_ready"], true);
    assert_eq!(world.status("worker")["reason"], "waits for 'cache'");
    world.write("/tmp/open", "");
    world.wait_state("worker", &["up"]);
    world.wait_log("cache", "listens");
    let cache = world.wait_state("cache", &["ready"]);
    assert_eq!(cache["reason"], serde_json::Value::Null);
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
}

fn each_kind_of_readiness_is_heard(setup: Setup) {
    let mut world = World::new(setup);
    let (http, unix) = (World::free_address(), "/tmp/there.sock");
    let kinds = [
        (
            "http",
            format!("serve {http}"),
            format!("kind = \"http\"\nurl = \"http://{http}/\"\ncontains = \"well\""),
        ),
        ("log", "pause".to_owned(), "kind = \"log\"\npattern = \"^ready p[a-z]+$\"".to_owned()),
        (
            "exec",
            "pause".to_owned(),
            "kind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"test -e /tmp/open\"]".to_owned(),
        ),
        ("unix", format!("impostor {unix}"), format!("kind = \"unix\"\npath = \"{unix}\"")),
        ("notify", "notifies STATUS=loading READY=1".to_owned(), "kind = \"notify\"".to_owned()),
    ];
    for (name, words, ready) in &kinds {
        world.adversary(name, words, &format!("[ready]\ninterval = \"100ms\"\n{ready}"));
    }
    world.adversary("never", "pause", "[ready]\nkind = \"log\"\npattern = \"absent\"\ntimeout = \"300ms\"");
    let supervisor = world.start();
    world.wait_state("log", &["ready"]);
    assert_eq!(world.state("exec"), "up", "its file is not there");
    world.write("/tmp/open", "");
    for (name, ..) in &kinds {
        world.wait_state(name, &["ready"]);
    }
    assert_eq!(world.status("notify")["reason"], "loading");
    let late = world.ctl(&["restart", "never"]).fails(1);
    assert!(late.contains("has not reported in its time that it is ready"), "{late}");
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}

/// What another service says, or what a process of nobody says, is not heard.
fn only_the_services_own_processes_are_heard_on_its_notify_socket(setup: Setup) {
    let mut world = World::new(setup);
    let quiet = "echo socket $NOTIFY_SOCKET.; exec /adversary pause";
    world.define(
        "quiet",
        &format!("command = [\"/bin/sh\", \"-c\", \"{quiet}\"]\n[ready]\nkind = \"notify\""),
    );
    world.adversary("own", "notifies MAINPID=1 FDSTORE=1 READY=1", "[ready]\nkind = \"notify\"");
    let supervisor = world.start();
    world.wait_state("own", &["ready"]);
    world.wait_stderr("own: MAINPID is not taken");
    world.wait_stderr("own: FDSTORE is not taken");
    world.wait_log("quiet", "ready pause");
    let log = world.log("quiet");
    let socket = log.split_once("socket ").and_then(|(_, rest)| rest.split_once(".\n"));
    let socket = format!("NOTIFY_SOCKET={}", socket.expect("a socket").0);
    let forged = ["/usr/bin/env", &socket, "/usr/bin/timeout", "2", "/adversary", "notifies", "READY=1"];
    world.exec(&supervisor, 0, &forged).fails(124);
    assert_eq!(world.state("quiet"), "up", "{}", world.stderr());
}

fn hanging_server(world: &World, action: &str) -> String {
    let address = World::free_address();
    let health = format!(
        "[health]\nkind = \"http\"\nurl = \"http://{address}/\"\ninterval = \"500ms\"\ntimeout = \"2s\"\n\
         failures = 2\nstart_period = \"0s\"\naction = \"{action}\""
    );
    world.adversary("web", &format!("serve {address}"), &health);
    address
}

#[test]
fn a_server_that_hangs_is_started_again_with_the_reason() {
    let mut world = World::new(Setup::plain());
    let address = hanging_server(&world, "restart");
    let supervisor = world.start();
    world.wait_log("web", "listens");
    let first = world.wait_health("web", "healthy");
    world.write("/tmp/hang", "");
    world.wait_stderr(&format!("web: unhealthy: http probe of http://{address}/: no answer within 2s"));
    std::fs::remove_file(world.path("/tmp/hang")).expect("the file");
    world.wait_log_times("web", "listens", 2);
    let again = world.wait_health("web", "healthy");
    assert_ne!(first["pid"], again["pid"]);
    assert!(again["restarts"].as_u64() >= Some(1), "{again}");
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
}

fn in_quarantine_it_stands_still_with_its_processes_and_last_lines_until_it_is_thawed(setup: Setup) {
    let mut world = World::new(setup);
    hanging_server(&world, "quarantine");
    let supervisor = world.start();
    world.wait_health("web", "healthy");
    world.write("/tmp/hang", "");
    world.wait_health("web", "unhealthy");
    world.wait_stderr("web: last line: listens");
    // With keepers the processes stop one after the other.
    world.wait_stderr("web: frozen");
    let ill = world.status("web");
    assert_eq!(
        (&ill["frozen"], &ill["state"]),
        (&serde_json::Value::Bool(true), &serde_json::json!("up")),
        "{ill}"
    );
    let quarantine = world.status("web")["health"]["quarantine"].to_string();
    assert!(quarantine.contains("/adversary serve") && quarantine.contains("listens"), "{quarantine}");
    assert!(
        ill["reason"].as_str().is_some_and(|reason| reason.contains("in quarantine, unhealthy: ")),
        "{ill}"
    );
    std::fs::remove_file(world.path("/tmp/hang")).expect("the file");
    world.ctl(&["thaw", "web"]).ok();
    let well = world.wait_health("web", "healthy");
    assert_eq!((&well["pid"], &well["restarts"]), (&ill["pid"], &serde_json::json!(0)));
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}

fn a_watchdog_that_falls_silent_and_a_probe_that_says_no_are_noticed(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("dog", "beats", "[health]\nkind = \"watchdog\"\ntimeout = \"1s\"\nstart_period = \"0s\"");
    let exec = "[health]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"! test -e /tmp/silent\"]\n\
                interval = \"200ms\"\nfailures = 1\nstart_period = \"0s\"\naction = \"mark\"";
    world.adversary("asked", "pause", exec);
    let file = "[health]\nkind = \"file-age\"\npath = \"/tmp/absent\"\nmax_age = \"1s\"\ninterval = \"200ms\"\n\
                failures = 1\nstart_period = \"0s\"\naction = \"mark\"";
    world.adversary("filed", "pause", file);
    let supervisor = world.start();
    world.wait_log("dog", "ready beats 1000000");
    world.wait_stderr("filed: unhealthy: file-age probe of /tmp/absent: no such file; it is left as it is");
    world.write("/tmp/silent", "");
    world.wait_stderr("dog: unhealthy: watchdog: no WATCHDOG=1 for 1s");
    world.wait_stderr("asked: unhealthy: exec probe /bin/sh: exited with code 1; it is left as it is");
    std::fs::remove_file(world.path("/tmp/silent")).expect("the file");
    world.wait_stderr("asked: healthy again");
    let told = world.events();
    let of_asked = |one: &&serde_json::Value| one["service"] == "asked" && one["event"] == "health";
    assert_eq!(told.iter().filter(of_asked).count(), 2, "{told:#?}");
    world.wait_log_times("dog", "ready beats", 2);
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}

/// What it has started has left its session and ignores every signal: it would otherwise be more with each probe, and each
/// would have the memory of the service.
fn a_probe_that_hangs_is_ended_with_all_that_it_has_started(setup: Setup) {
    let mut world = World::new(setup);
    let mark = world.mark.clone();
    let health = format!(
        "[health]\nkind = \"exec\"\ncommand = [\"/adversary\", \"tree\", \"5\", \"probing\", {mark:?}]\ninterval = \"500ms\"\n\
         timeout = \"3s\"\nfailures = 2\nstart_period = \"0s\"\naction = \"mark\""
    );
    world.adversary("web", "pause", &health);
    let supervisor = world.start();
    for _ in 0..2 {
        wait::until("a probe that hangs", &world.root, || (world.marked("probing").len() > 5).then_some(()));
        wait::until("its end", &world.root, || world.marked("probing").is_empty().then_some(()));
    }
    world.wait_stderr("web: unhealthy: exec probe /adversary: no answer within 3s; it is left as it is");
    assert_eq!(world.status("web")["restarts"], serde_json::json!(0));
    // One that hangs at the end of its service does not outlive that either.
    wait::until("a probe that hangs", &world.root, || (world.marked("probing").len() > 5).then_some(()));
    world.ctl(&["stop", "web"]).ok();
    world.assert_no_survivors("after the stop");
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
}

/// A supervisor that was stopped for longer than all timeouts restarts nothing when it goes on.
#[test]
fn time_in_which_the_supervisor_stood_still_makes_nobody_ill() {
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Child));
    hanging_server(&world, "restart");
    world.adversary("dog", "beats", "[health]\nkind = \"watchdog\"\ntimeout = \"2s\"\nstart_period = \"0s\"");
    let supervisor = world.start();
    world.wait_health("web", "healthy");
    world.wait_log("dog", "ready");
    let signal =
        |signal| kill_process(Pid::from_raw(supervisor.pid()).expect("a pid"), signal).expect("a signal");
    signal(Signal::STOP);
    let pause = Command::new(adversary_program()).args(["exit-after", "6000", "0"]).status();
    assert!(pause.expect("the pause").success());
    signal(Signal::CONT);
    world.wait_stderr("the supervisor did not run for");
    for name in ["web", "dog"] {
        let status = world.status(name);
        assert_eq!(
            (&status["restarts"], &status["state"]),
            (&serde_json::json!(0), &serde_json::json!("up")),
            "{status}"
        );
    }
    world.wait_health("web", "healthy");
    assert!(!world.stderr().contains("unhealthy"), "{}", world.stderr());
}

/// The real gateway writes its heartbeat from its loop: a loop that stands still lets it grow old. Off by default; three lines in
/// the template switch it on.
///
/// Contract: 108.
#[test]
fn a_gateway_whose_loop_stands_still_is_started_again() {
    let mut world = World::new(Setup::plain());
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    world.write_as_hermes("/opt/data/profiles/coder/state/README", "");
    let script = "echo ready; while :; do date >'{profile_home}/state/gateway.heartbeat'; sleep 0.1; done";
    let health = "[health]\nkind = \"file-age\"\npath = \"{profile_home}/state/gateway.heartbeat\"\nmax_age = \"1s\"\n\
                  interval = \"200ms\"\nfailures = 1\nstart_period = \"1s\"";
    world.define(
        "gateway",
        &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\nworking_dir = \"/tmp\"\n{health}"),
    );
    let supervisor = world.start();
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready");
    world.wait_health("coder", "healthy");
    world.ctl(&["kill", "coder", "STOP"]).ok();
    world.wait_stderr("coder: unhealthy: file-age probe of /opt/data/profiles/coder/state/gateway.heartbeat: not written for");
    world.wait_log_times("coder", "ready", 2);
    world.wait_health("coder", "healthy");
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
}
