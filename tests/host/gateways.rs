//! Gateways as the supervisor's own: their planned stops, the state file that tells their want, and what a boot does
//! about them. The gateway is a script that reads and writes the same files as the real one.

use crate::harness::{End, Place, Rung, Setup, World, wait};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// `hermes [-p NAME] gateway run …` and `hermes dashboard …`. At SIGTERM a gateway takes the marker of a planned stop for
/// its own if pid and start time are, and ends with 0, otherwise with 1. Its last write puts back the `desired_state`
/// that it read when it began: the update that two writers without a lock lose.
const HERMES: &str = r#"#!/bin/sh
home=$HERMES_HOME
[ "$1" = -p ] && { [ "$2" = default ] || home=$HERMES_HOME/profiles/$2; shift 2; }
cd "$home" || exit 9
case $1 in
dashboard) echo "ready $*"; exec sleep 100000 ;;
gateway) ;;
*) exit 64 ;;
esac
stat=$(cat /proc/$$/stat)
pid=$$
set -- ${stat##*) }
start=${20}
wish=$(sed -n 's/.*"desired_state":"\([a-z]*\)".*/\1/p' gateway_state.json 2>/dev/null)
tell() {
    echo "{\"pid\":$pid,\"gateway_state\":\"$1\",\"kept\":\"yes\"${wish:+,\"desired_state\":\"$wish\"}}" >.state.$$
    mv .state.$$ gateway_state.json
}
leave() {
    if grep -q "\"target_pid\":$pid,\"target_start_time\":$start," .gateway-planned-stop.json 2>/dev/null; then
        tell stopped; echo "stop was planned"; exit 0
    fi
    tell running; echo "stop was an accident"; exit 1
}
trap leave TERM
tell running
echo "ready gateway, file said ${wish:-nothing}"
if [ -e exit-with ]; then
    code=$(cat exit-with); rm exit-with; exit "$code"
fi
sleep 100000 &
wait
"#;

fn setup() -> Setup {
    Setup::plain().env("PATH", "/opt/bin:/usr/bin:/bin")
}

/// A world with the program and the profile `coder` beside the root one.
fn world(setup: Setup) -> World {
    let world = World::new(setup);
    let program = world.write("/opt/bin/hermes", HERMES);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    world
}

const CODER: &str = "/opt/data/profiles/coder";

fn state(world: &World, directory: &str) -> Value {
    serde_json::from_str(&world.read(&format!("{directory}/gateway_state.json"))).unwrap_or(Value::Null)
}

#[track_caller]
fn wait_desired(world: &World, directory: &str, expected: &str) {
    wait::until(&format!("desired_state {expected} in {directory}"), &world.path(directory), || {
        (state(world, directory)["desired_state"] == json!(expected)).then_some(())
    });
}

/// Upstream's CLI writes the marker of `stop --all` into its own home, and with s6 2.15 none at all.
/// Contract: 83, 104, 106.
#[test]
fn only_an_operators_stop_is_marked_and_in_the_home_of_that_profile() {
    for (rung, place) in [(Rung::Cgroup, Place::Pid1), (Rung::Keeper, Place::Child)] {
        let mut setup = Setup::new(rung, place).env("PATH", "/opt/bin:/usr/bin:/bin");
        setup.verb = Some("run");
        let mut world = world(setup);
        let supervisor = world.start();
        world.ctl(&["start", "coder", "default"]).ok();
        world.wait_log("coder", "ready gateway");
        world.wait_log("default", "ready gateway");

        world.ctl(&["restart", "default"]).ok();
        world.wait_log("default", "stop was an accident");
        world.wait_log_times("default", "ready gateway", 2);
        assert!(!world.path("/opt/data/.gateway-planned-stop.json").exists(), "a restart is no stop");

        world.ctl(&["stop", "coder"]).ok();
        assert!(world.log("coder").contains("stop was planned"), "{rung:?}: {}", world.stderr());
        assert_eq!(world.status("coder")["last_exit"]["code"], json!(0));
        let marker = std::fs::metadata(world.path(&format!("{CODER}/.gateway-planned-stop.json")));
        let marker = marker.expect("its marker");
        assert_eq!((marker.uid(), marker.mode() & 0o777), (crate::harness::setup::HERMES, 0o600));
        assert!(!world.path("/opt/data/.gateway-planned-stop.json").exists(), "another profile's home");

        assert_eq!(supervisor.terminate(), End::Code(0));
        assert_eq!(world.log("default").matches("stop was an accident").count(), 2, "nor is a shutdown");
        assert!(!world.path("/opt/data/.gateway-planned-stop.json").exists());
    }
}

/// Contract: 82, 105.
#[test]
fn a_want_is_told_before_the_start_and_after_the_last_word_of_the_gateway() {
    let mut world = world(setup());
    let supervisor = world.start();
    assert_eq!(state(&world, CODER), Value::Null, "what nobody asked for is not told");
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "file said running");
    world.ctl(&["stop", "coder"]).ok();
    wait_desired(&world, CODER, "stopped");
    let file = state(&world, CODER);
    assert_eq!(file["kept"], json!("yes"), "the other keys stay: {file}");
    assert!(file["updated_at"].is_u64(), "{file}");
    let meta = std::fs::metadata(world.path(&format!("{CODER}/gateway_state.json"))).expect("the file");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (crate::harness::setup::HERMES, 0o600));
    assert_eq!(state(&world, "/opt/data"), Value::Null, "the other profile's file");

    // A crash changes no want: the restart writes nothing.
    world.ctl(&["start", "coder"]).ok();
    world.wait_log_times("coder", "ready gateway", 2);
    let written = |world: &World| state(world, CODER)["updated_at"].clone();
    assert_eq!(written(&world), Value::Null, "the gateway has written since");
    world.ctl(&["kill", "coder", "KILL"]).ok();
    world.wait_log_times("coder", "ready gateway", 3);
    assert_eq!(written(&world), Value::Null);

    // Nor does a shutdown, and the next boot knows what it has written.
    assert_eq!(supervisor.terminate(), End::Code(0));
    assert_eq!(state(&world, CODER)["desired_state"], json!("running"));
    let _supervisor = world.start();
    world.wait_log_times("coder", "ready gateway", 4);
    assert_eq!(written(&world), Value::Null);
    assert_eq!(world.want("coder"), "up");
}

/// Contract: 48.
#[test]
fn a_wish_that_somebody_wrote_meanwhile_is_adopted_once() {
    let mut world = world(setup());
    let wish = |world: &World, wish: &str| {
        let text = format!("{{\"gateway_state\":\"stopped\",\"desired_state\":\"{wish}\"}}");
        world.write_as_hermes(&format!("{CODER}/gateway_state.json"), text);
    };
    let supervisor = world.start();
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready gateway");
    world.ctl(&["stop", "coder"]).ok();
    wait_desired(&world, CODER, "stopped");
    assert_eq!(supervisor.terminate(), End::Code(0));

    wish(&world, "running");
    let supervisor = world.start();
    world.wait_log_times("coder", "ready gateway", 2);
    assert_eq!(world.want("coder"), "up");
    world.wait_stderr("coder: its gateway_state.json was changed: it is wanted up from now on");
    assert_eq!(supervisor.terminate(), End::Code(0));
    assert!(world.read("/opt/data/supervisor/wants").contains("\"gateway-state\""), "and why is recorded");

    wish(&world, "stopped");
    let supervisor = world.start();
    assert_eq!((world.want("coder"), world.state("coder")), ("down".to_owned(), "down".to_owned()));
    // The operator's word is newer than the file's; what is found there at the next boot is the mirror of it.
    world.ctl(&["start", "coder"]).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    let _supervisor = world.start();
    assert_eq!(world.want("coder"), "up");
}

/// Another file in the place of ours that is older, or a gateway that began a new one, is no wish.
#[test]
fn what_is_no_wish_changes_nothing() {
    let mut world = world(setup());
    let supervisor = world.start();
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready gateway");
    assert_eq!(supervisor.terminate(), End::Code(0));
    world.write_as_hermes(&format!("{CODER}/gateway_state.json"), "{\"gateway_state\":\"starting\"}");
    let supervisor = world.start();
    world.wait_log_times("coder", "ready gateway", 2);
    assert_eq!(world.want("coder"), "up");
    wait_desired(&world, CODER, "running");
    assert_eq!(supervisor.terminate(), End::Code(0));
    std::fs::remove_file(world.path(&format!("{CODER}/gateway_state.json"))).expect("a file");
    let _supervisor = world.start();
    world.wait_log_times("coder", "ready gateway", 3);
    assert_eq!(world.want("coder"), "up");
}

/// The first boot of a volume that had another supervisor.
/// Contract: 47, 48, 54.
#[test]
fn the_first_want_is_what_the_state_file_says() {
    let states = [
        ("asked-down", r#"{"desired_state":"stopped","gateway_state":"running"}"#, "stopped", false),
        ("asked-up", r#"{"desired_state":"running","gateway_state":"stopped"}"#, "running", true),
        ("corrupt", "{\"gateway_state\":\"runn", "None", false),
        ("degraded", r#"{"desired_state":null,"gateway_state":"degraded"}"#, "running", true),
        ("draining", r#"{"gateway_state":"draining"}"#, "running", true),
        ("failed", r#"{"gateway_state":"startup_failed"}"#, "startup_failed", false),
        ("starting", r#"{"gateway_state":"starting"}"#, "starting", false),
        ("verbatim", r#"{"desired_state":"draining"}"#, "draining", false),
    ];
    let mut world = world(setup());
    for (profile, text, ..) in states {
        world.write_as_hermes(&format!("/opt/data/profiles/{profile}/SOUL.md"), "soul");
        world.write_as_hermes(&format!("/opt/data/profiles/{profile}/gateway_state.json"), text);
    }
    let _supervisor = world.start();
    let mut lines = vec!["reconcile: profile=default prior_state=None action=registered\n".to_owned()];
    for (profile, _, state, up) in states {
        let action = if up { "started" } else { "registered" };
        lines.push(format!("reconcile: profile={profile} prior_state={state} action={action}\n"));
        if up {
            world.wait_log(profile, "ready gateway");
        }
        assert_eq!(world.want(profile), if up { "up" } else { "down" }, "{profile}");
    }
    lines.insert(3, "reconcile: profile=coder prior_state=None action=registered\n".to_owned());
    world.wait_stdout(&lines.concat());
}

/// Contract: 47, 49, 54, 55.
#[test]
fn a_boot_removes_what_is_stale_and_says_how_the_last_life_ended() {
    let mut world = world(setup());
    for directory in ["/opt/data", CODER] {
        world.write_as_hermes(&format!("{directory}/gateway.pid"), "{\"pid\":1}");
        world.write_as_hermes(&format!("{directory}/processes.json"), "[]");
    }
    world.write_as_hermes(
        &format!("{CODER}/state/gateway.lifecycle.json"),
        "{\"phase\":\"running\",\"pid\":7}",
    );
    let _supervisor = world.start();
    for directory in ["/opt/data", CODER] {
        assert!(!world.path(&format!("{directory}/gateway.pid")).exists(), "{directory}");
        assert!(!world.path(&format!("{directory}/processes.json")).exists(), "{directory}");
    }
    let log = "/opt/data/logs/container-boot.log";
    wait::until("the boot log", &world.path("/opt/data/logs"), || {
        world.read(log).contains("coder").then_some(())
    });
    let text = world.read(log);
    assert!(text.contains("profile=coder prior_state=None action=registered prior_exit=unclean\n"), "{text}");
    assert!(
        text.contains("profile=default prior_state=None action=registered prior_exit=unknown\n"),
        "{text}"
    );
    let said = "reconcile: profile=default prior_state=None action=registered\n\
                reconcile: profile=coder prior_state=None action=registered\n";
    world.wait_stdout(said);
}

/// Contract: 51.
#[test]
fn a_home_from_before_supervision_is_taken_over_once() {
    let mut setup = setup().main_program(&["hermes", "gateway", "run"]);
    setup.place = Place::Pid1;
    let mut world = world(setup);
    let supervisor = world.start();
    world.wait_log("default", "ready gateway, file said running");
    let log = "/opt/data/logs/container-boot.log";
    wait::until("the boot log", &world.path("/opt/data/logs"), || {
        world.read(log).contains("default").then_some(())
    });
    assert!(
        world.read(log).contains("profile=default prior_state=running action=started"),
        "{}",
        world.read(log)
    );
    assert_eq!(supervisor.terminate(), End::Code(0));

    // Now there is a record: the file that is missing is nothing but missing.
    std::fs::remove_file(world.path("/opt/data/gateway_state.json")).expect("a file");
    let _supervisor = world.start();
    world.wait_log_times("default", "ready gateway", 2);
    assert!(world.read(log).contains("prior_state=None"), "{}", world.read(log));
}

/// Contract: 51, 84, 88.
#[test]
fn a_gateway_that_stays_in_the_foreground_is_not_taken_over() {
    let mut setup =
        setup().main_program(&["hermes", "gateway", "run"]).env("HERMES_GATEWAY_NO_SUPERVISE", "true");
    setup.place = Place::Pid1;
    setup.environment.push(("HERMES_HOME".into(), "/opt/data".into()));
    let mut world = world(setup);
    let _supervisor = world.start();
    world.wait_stdout("ready gateway, file said nothing");
    assert_eq!(world.want("default"), "down");
}

/// Contract: 63, 103.
#[test]
fn the_exit_codes_of_a_gateway_decide_what_comes_next() {
    let mut world = world(setup());
    let _supervisor = world.start();
    world.write_as_hermes(&format!("{CODER}/exit-with"), "75");
    world.ctl(&["start", "coder"]).ok();
    world.wait_log_times("coder", "ready gateway", 2);
    assert_eq!(world.wait_state("coder", &["up"])["restarts"], json!(1), "it was started again");
    for (code, state) in [("78", "failed"), ("0", "finished")] {
        world.write_as_hermes(&format!("{CODER}/exit-with"), code);
        world.ctl(&["restart", "coder"]);
        let status = world.wait_state("coder", &[state]);
        assert_eq!(
            (&status["want"], status["last_exit"]["code"].to_string()),
            (&json!("up"), code.to_owned())
        );
    }
}

/// Its state file tells it, with its own pid: no sd_notify is needed for that, and no heartbeat.
/// Contract: 105, 109.
#[test]
fn a_start_waits_for_the_gateways_own_word_where_that_is_asked_for() {
    let mut world = world(setup());
    // Says of itself that it starts, and that it runs when it is told to.
    let text =
        HERMES.replacen("tell running\necho", "tell starting\nread -r word <go\ntell running\necho", 1);
    let program = world.write("/opt/bin/hermes", text);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    let go = world.path(&format!("{CODER}/go"));
    rustix::fs::mknodat(rustix::fs::CWD, &go, rustix::fs::FileType::Fifo, 0o666.into(), 0).expect("a fifo");
    let template = "command = [\"hermes\", \"-p\", \"{profile}\", \"gateway\", \"run\"]\nautostart = false\n\
                    env = { HERMES_HOME = \"{home}\" }\n[ready]\nkind = \"gateway-state\"\ntimeout = \"1h\"";
    world.define("gateway", template);
    // What another process left there is not its word.
    let left = r#"{"pid":1,"gateway_state":"running","desired_state":"stopped"}"#;
    world.write_as_hermes(&format!("{CODER}/gateway_state.json"), left);
    let _supervisor = world.start();
    let late = world.ctl(&["start", "--timeout", "200ms", "coder"]);
    assert_ne!(late.code, 0, "{late:?}");
    wait::until("its first word", &world.path(CODER), || {
        (state(&world, CODER)["gateway_state"] == json!("starting")).then_some(())
    });
    world.wait_state("coder", &["up"]);
    std::fs::write(&go, "go\n").expect("a word through the fifo");
    world.ctl(&["wait", "coder", "--ready"]).ok();
    assert_eq!(world.state("coder"), "ready");
    world.ctl(&["start", "coder"]).ok();
}

/// s6 keeps no file of its output; here it has one as any service.
/// Contract: 59, 70.
#[test]
fn the_dashboard_is_a_service_where_it_is_switched_on() {
    let mut world = world(setup());
    let supervisor = world.start();
    world.ctl(&["status", "dashboard"]).fails(4);
    assert_eq!(supervisor.terminate(), End::Code(0));

    world.setup.environment.push(("HERMES_DASHBOARD".into(), "True".into()));
    world.setup.environment.push(("HERMES_DASHBOARD_PORT".into(), "8080".into()));
    let supervisor = world.start();
    world.wait_log("dashboard", "ready dashboard --host 0.0.0.0 --port 8080 --no-open");
    world.wait_stdout("\nready dashboard --host 0.0.0.0 --port 8080 --no-open\n");
    let taken = world.ctl(&["register", "dashboard", "--", "/bin/true"]);
    assert!(taken.fails(1).contains("reserved"));
    let dashboard = world.processes(&supervisor).into_iter().find(|each| each.command.starts_with("sleep"));
    assert_eq!(dashboard.expect("its process").uid, crate::harness::setup::HERMES);
    assert!(world.ctl(&["reload"]).ok().lines().all(|line| !line.contains("dashboard")));
    world.ctl(&["stop", "dashboard"]).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    let _supervisor = world.start();
    assert_eq!((world.want("dashboard"), world.state("dashboard")), ("down".to_owned(), "down".to_owned()));
}

/// Contract: 53.
#[test]
fn the_container_of_the_dashboard_leaves_the_gateways_alone() {
    let mut setup = setup().main_program(&["/bin/sh", "-c", "exit 3"]);
    setup.place = Place::Pid1;
    setup.environment.push(("HERMES_HOME".into(), "/opt/data".into()));
    setup.main_program = vec!["dashboard".into(), "--no-open".into()];
    let mut world = world(setup);
    let mut container = world.launch();
    world.wait_stdout("ready dashboard --no-open");
    let said = world.stdout();
    assert!(said.starts_with("reconcile: skipping (dashboard container"), "{said}");
    assert!(!world.path("/opt/data/logs/container-boot.log").exists());
    assert!(!world.path("/opt/data/supervisor").exists(), "the state is the other container's");
    container.signal(rustix::process::Signal::TERM);
    container.wait();
}
