//! One gateway or many, with a script for a gateway that behaves as the versions of Hermes do: it may serve other profiles,
//! says so in its state file, refuses to run beside one that does (exit code 78), and answers on its control socket.
//! The real versions: `tests/run topologies`.

use crate::harness::{End, Place, Rung, Setup, World, wait};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

/// The root gateway serves the profiles that `serves` in its home names (a JSON list), `work` not where that is parked, and runs
/// without that file as one that serves only itself. It says so when `wait` is not there. A named one ends with the code in
/// `refused`, if there is one; none ends by a signal while `slow` is there.
const HERMES: &str = r#"#!/bin/sh
home=$HERMES_HOME
echo "called $*"
[ "$1" = -p ] && { home=$HERMES_HOME/profiles/$2; shift 2; }
cd "$home" || exit 9
[ ! -e refused ] || exit "$(cat refused)"
wish=$(sed -n 's/.*"desired_state":"\([a-z]*\)".*/\1/p' gateway_state.json 2>/dev/null)
served() {
    [ ! -e profiles/work/gateway.parked ] || { echo '["default"]'; return; }
    cat serves 2>/dev/null || echo '[]'
}
tell() {
    echo "{\"pid\":$$,\"gateway_state\":\"$1\"${wish:+,\"desired_state\":\"$wish\"},\"served_profiles\":$(served)}" >.state.$$
    mv .state.$$ gateway_state.json
}
trap 'while [ -e slow ]; do sleep 0.02; done; tell stopped; exit 0' TERM
trap 'tell running; echo told again' USR2
echo begun
while [ -e wait ]; do sleep 0.02; done
tell running
echo "ready gateway"
while :; do sleep 100000 & wait $!; done
"#;

const HOME: &str = "/opt/data";
const WORK: &str = "/opt/data/profiles/work";

/// A world with the root profile and `work`, both wanted up where `up` names them.
fn world(up: &[&str]) -> World {
    let mut setup = Setup::new(Rung::Cgroup, Place::Child).env("PATH", "/opt/bin:/usr/bin:/bin");
    setup.verb = Some("run");
    let world = World::new(setup);
    let program = world.write("/opt/bin/hermes", HERMES);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    world.write_as_hermes(&format!("{WORK}/SOUL.md"), "soul");
    for (name, home) in [("default", HOME), ("work", WORK)] {
        if up.contains(&name) {
            let wish = r#"{"gateway_state":"running","desired_state":"running"}"#;
            world.write_as_hermes(&format!("{home}/gateway_state.json"), wish);
        }
    }
    world
}

fn remove(world: &World, path: &str) {
    std::fs::remove_file(world.path(path)).expect("it is there");
}

/// What two gateways for one profile came of: each bot answered twice, its jobs ran twice.
/// Contract: 50.
#[test]
fn a_profile_that_the_root_gateway_serves_has_no_process_of_its_own() {
    let mut world = world(&["default", "work"]);
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    // Left by an earlier life, which served nobody else: not this one's word.
    let stale = r#"{"pid":1,"gateway_state":"running","desired_state":"running","served_profiles":[]}"#;
    world.write_as_hermes(&format!("{HOME}/gateway_state.json"), stale);
    world.write_as_hermes(&format!("{HOME}/wait"), "");
    let supervisor = world.start();
    world.wait_log("default", "begun");
    let held = world.wait_state("work", &["starting"]);
    assert_eq!(held["reason"], json!("waits for 'default' to say whether it serves it"));
    remove(&world, &format!("{HOME}/wait"));

    let served = world.wait_state("work", &["served"]);
    assert_eq!((&served["want"], &served["served_by"]), (&json!("up"), &json!("default")));
    assert_eq!(
        (&served["restarts"], &served["last_exit"], &served["pid"]),
        (&json!(0), &json!(null), &json!(null))
    );
    assert_eq!(world.log("work"), "", "it was never started");
    world.ctl(&["wait", "work", "--up"]).ok();
    world.ctl(&["status", "work"]).ok();
    assert!(world.ctl(&["start", "work"]).ok().contains("already served"));
    wait::until("the boot log", &world.path("/opt/data/logs"), || {
        let log = world.read("/opt/data/logs/container-boot.log");
        log.contains("profile=work prior_state=running action=served").then_some(())
    });

    // It crashes and comes back: nothing happens to those that it serves.
    world.ctl(&["kill", "default", "KILL"]).ok();
    world.wait_log_times("default", "ready gateway", 2);
    let served = world.wait_state("work", &["served"]);
    assert_eq!(served["restarts"], json!(0));
    // Nor by a restart of everything, at once or in turns.
    for (again, times) in [(["restart", "--all"].as_slice(), 3), (&["restart", "--all", "--rolling", "1"], 4)]
    {
        world.ctl(again).ok();
        world.wait_log_times("default", "ready gateway", times);
        world.wait_state("work", &["served"]);
    }
    assert_eq!(world.log("work"), "");

    // Nobody serves it any more, so it runs itself.
    world.ctl(&["stop", "default"]).ok();
    world.wait_log("work", "ready gateway");
    assert_eq!(supervisor.terminate(), End::Code(0));
}

#[test]
fn what_the_root_gateway_serves_is_followed_while_it_runs() {
    let mut world = world(&["default", "work"]);
    let _supervisor = world.start();
    world.wait_log("work", "ready gateway");
    assert!(!world.log("work").contains("--replace"), "it takes over from nobody");
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    world.ctl(&["kill", "default", "USR2"]).ok();
    let served = world.wait_state("work", &["served"]);
    assert_eq!((&served["want"], &served["restarts"]), (&json!("up"), &json!(0)));
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default"]"#);
    world.ctl(&["kill", "default", "USR2"]).ok();
    world.wait_log_times("work", "ready gateway", 2);
}

/// Hermes 0.21.5 and later refuse a gateway to a named profile. Where only that was wanted, the container had none.
#[test]
fn the_root_gateway_is_started_for_a_named_one_that_gets_no_process() {
    let mut world = world(&["work"]);
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    world.write_as_hermes(&format!("{WORK}/refused"), "78");
    let supervisor = world.start();
    let served = world.wait_state("work", &["served"]);
    assert_eq!((&served["want"], &served["restarts"]), (&json!("up"), &json!(0)));
    let root = world.wait_state("default", &["up"]);
    assert_eq!((&root["want"], &root["reason"]), (&json!("down"), &json!("up for 'work'")));
    assert!(world.stderr().contains("'default' is started for it"), "{}", world.stderr());
    // It is kept up as any other, and no longer than it is needed.
    world.ctl(&["kill", "default", "KILL"]).ok();
    world.wait_log_times("default", "ready gateway", 2);
    world.wait_state("work", &["served"]);
    let said = world.ctl(&["stop", "work"]).ok();
    assert!(said.contains("'default' was up for it alone, and ends"), "{said}");
    world.wait_state("default", &["down"]);
    assert_eq!((world.want("work"), world.state("work")), ("down".to_owned(), "down".to_owned()));
    world.ctl(&["start", "work"]);
    world.wait_state("work", &["served"]);
    // An operator who stops it means it.
    world.ctl(&["stop", "default"]).ok();
    let failed = world.wait_state("work", &["failed"]);
    let reason = failed["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("no gateway serves it: try 'hermes-sup ctl start default'"), "{reason}");
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// The same exit code for what is the profile's own fault starts nothing.
#[test]
fn a_gateway_that_is_badly_configured_fails_alone() {
    let mut world = world(&[]);
    let text = HERMES.replacen("echo begun", "tell startup_failed; exit 78", 1);
    let program = world.write("/opt/bin/hermes", text);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    let _supervisor = world.start();
    world.ctl(&["start", "work"]);
    let failed = world.wait_state("work", &["failed"]);
    assert_eq!(failed["last_exit"]["code"], json!(78));
    assert_eq!((world.state("default"), world.log("default")), ("down".to_owned(), String::new()));
}

/// A root gateway that began alone serves nobody else until it is restarted, and a new profile gets no process beside it.
#[test]
fn a_profile_that_no_gateway_serves_says_what_helps() {
    let mut world = world(&["default"]);
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default"]"#);
    world.write_as_hermes(&format!("{WORK}/refused"), "78");
    let _supervisor = world.start();
    world.wait_log("default", "ready gateway");
    world.ctl(&["start", "work"]);
    let failed = world.wait_state("work", &["failed"]);
    let reason = failed["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("'default' does not serve it: try 'hermes-sup ctl restart default'"), "{reason}");
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    world.ctl(&["restart", "default"]).ok();
    world.wait_state("work", &["served"]);
}

/// `stop` said "already down" of a bot that went on answering. Of a gateway that cannot stop one profile alone it is refused, and
/// then nothing is different.
#[test]
fn what_cannot_be_done_for_a_served_profile_is_refused_and_changes_nothing() {
    let mut world = world(&["default", "work"]);
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    let supervisor = world.start();
    world.wait_state("work", &["served"]);
    let said = world.ctl(&["stop", "work"]).fails(1);
    assert!(
        said.contains("cannot stop it alone (it has no control socket)")
            && said.contains("'hermes-sup ctl stop work default' stops both"),
        "{said}"
    );
    assert_eq!((world.want("work"), world.state("work")), ("up".to_owned(), "served".to_owned()));
    assert!(!world.path(&format!("{WORK}/gateway.parked")).exists());
    // Said "already served" where it was not the first turn of a rolling restart.
    world.ctl(&["register", "web", "--", "/adversary", "pause"]).ok();
    for restart in [["restart", "work"].as_slice(), &["restart", "--rolling", "1", "web", "work"]] {
        let said = world.ctl(restart).fails(1);
        assert!(said.contains("'hermes-sup ctl restart default' restarts it"), "{said}");
    }
    // Together they go down, and stay there.
    world.ctl(&["stop", "--all"]).ok();
    assert_eq!((world.state("work"), world.state("default")), ("down".to_owned(), "down".to_owned()));
    assert_eq!(world.log("work"), "");
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// It was answered as done when the profile's own processes had ended, and the root gateway went on answering for it.
#[test]
fn a_stop_while_its_own_processes_end_is_a_stop_of_what_the_root_gateway_does() {
    let mut world = world(&["default", "work"]);
    let _supervisor = world.start();
    world.wait_log("work", "ready gateway");
    world.write_as_hermes(&format!("{WORK}/slow"), "");
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    world.ctl(&["kill", "default", "USR2"]).ok();
    world.wait_state("work", &["stopping"]);
    let said = world.ctl(&["stop", "work"]).fails(1);
    assert!(said.contains("'work' goes on: 'default' serves it"), "{said}");
    remove(&world, &format!("{WORK}/slow"));
    world.wait_state("work", &["served"]);
    assert_eq!(world.want("work"), "up");
}

/// It left no mark for the root gateway, which took the profile up again when it was back.
#[test]
fn a_stop_while_the_root_gateway_restarts_holds_for_it() {
    let mut world = world(&["default", "work"]);
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    let _supervisor = world.start();
    world.wait_state("work", &["served"]);
    world.write_as_hermes(&format!("{HOME}/wait"), "");
    world.ctl(&["kill", "default", "KILL"]).ok();
    world.wait_log_times("default", "begun", 2);
    let (world, mark) = (&world, world.path(&format!("{WORK}/gateway.parked")));
    let said = std::thread::scope(|threads| {
        let stop = threads.spawn(|| world.ctl(&["stop", "work"]));
        wait::until("the mark", &world.path(WORK), || mark.exists().then_some(()));
        assert!(!stop.is_finished(), "the root gateway may be serving it by now");
        remove(world, &format!("{HOME}/wait"));
        stop.join().expect("an answer").ok()
    });
    assert!(said.contains("work"), "{said}");
    assert_eq!((world.want("work"), world.state("work")), ("down".to_owned(), "parked".to_owned()));
    world.ctl(&["restart", "default"]).ok();
    world.wait_log_times("default", "ready gateway", 3);
    world.wait_state("work", &["parked"]);
    assert_eq!(world.log("work"), "");
}

/// Kept up for `work` against its own want, the root gateway was stopped by the next supervisor, and started again when `work`
/// had been refused once more.
#[test]
fn a_root_gateway_that_is_kept_up_for_another_one_goes_on_under_the_next_supervisor() {
    let mut world = world(&["work"]);
    world.write_as_hermes(&format!("{HOME}/serves"), r#"["default","work"]"#);
    world.write_as_hermes(&format!("{WORK}/refused"), "78");
    let supervisor = world.start();
    world.wait_state("work", &["served"]);
    let pid = world.wait_state("default", &["up"])["pid"].clone();
    let kept_up = |world: &World, after: &str| {
        world.wait_state("work", &["served"]);
        let root = world.status("default");
        assert_eq!(
            (&root["pid"], &root["want"], &root["reason"]),
            (&pid, &json!("down"), &json!("up for 'work'")),
            "after {after}"
        );
        assert_eq!(world.log("work").matches("called").count(), 1, "after {after}");
    };
    world.ctl(&["upgrade"]).ok();
    kept_up(&world, "an upgrade");
    supervisor.kill();
    let _supervisor = world.start();
    kept_up(&world, "a kill");
    // And no longer than it is needed.
    world.ctl(&["stop", "work"]).ok();
    world.wait_state("default", &["down"]);
}

/// Two gateways that take over from each other ended when the root gateway had used up its failures: then no bot answered.
#[test]
fn of_two_gateways_that_end_each_other_the_root_gateway_stays() {
    let mut world = world(&["default"]);
    // Each kills the other as soon as it has begun; one that is ended so calls it a failure, as Hermes does.
    let takes_over = r#"trap 'exit 1' TERM
echo $$ >pid
victim=$(cat victim 2>/dev/null) && [ -e "$victim" ] && kill -TERM "$(cat "$victim")"
echo begun"#;
    let program = world.write(
        "/opt/bin/hermes",
        HERMES.replacen("tell stopped; exit 0' TERM", "exit 1' TERM", 1).replacen(
            "echo begun",
            takes_over,
            1,
        ),
    );
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    world.write_as_hermes(&format!("{HOME}/victim"), format!("{WORK}/pid"));
    world.write_as_hermes(&format!("{WORK}/victim"), format!("{HOME}/pid"));
    let _supervisor = world.start();
    world.wait_log("default", "ready gateway");
    world.ctl(&["start", "work"]);
    let failed = world.wait_state("work", &["failed"]);
    let reason = failed["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("fights with 'default'"), "{reason}");
    let root = world.wait_state("default", &["up"]);
    assert!(root["restarts"].as_u64() <= Some(3), "{root}");
    // It stays so, and an operator may try again.
    world.ctl(&["restart", "default"]).ok();
    assert_eq!(world.state("work"), "failed");
    remove(&world, &format!("{WORK}/victim"));
    remove(&world, &format!("{HOME}/victim"));
    world.ctl(&["start", "work"]).ok();
    world.wait_state("work", &["up"]);
}
