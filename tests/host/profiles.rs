//! A gateway lives as long as its profile does, under the profile's name, and only once.

use crate::harness::{End, Place, Setup, World, wait};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// `hermes [-p NAME] gateway run [--replace]`: holds its home as the real one does, by a record of itself in
/// `gateway.lock`. With `--replace` it ends who is in the record first, without it it leaves.
const HERMES: &str = r#"#!/bin/sh
home=$HERMES_HOME
[ "$1" = -p ] && { [ "$2" = default ] || home=$HERMES_HOME/profiles/$2; shift 2; }
cd "$home" || exit 9
start() { stat=$(cat "/proc/$1/stat" 2>/dev/null) || return; set -- ${stat##*) }; echo "${20}"; }
old=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' gateway.lock 2>/dev/null)
since=$(sed -n 's/.*"start_time":\([0-9]*\).*/\1/p' gateway.lock 2>/dev/null)
if [ -n "$old" ] && [ "$(start "$old")" = "$since" ]; then
    case $* in *--replace*) ;; *) echo "already running"; exit 1 ;; esac
    kill "$old" || exit 1
    while [ "$(start "$old")" = "$since" ]; do :; done
fi
echo "{\"pid\":$$,\"start_time\":$(start $$)}" >gateway.lock
echo "{\"pid\":$$,\"gateway_state\":\"running\"}" >gateway_state.json
echo "ready gateway $*"
exec sleep 100000
"#;

fn world(setup: Setup) -> World {
    let world = World::new(setup.env("PATH", "/opt/bin:/usr/bin:/bin").env("HERMES_HOME", "/opt/data"));
    let program = world.write("/opt/bin/hermes", HERMES);
    fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    world
}

#[track_caller]
fn await_list(world: &World, what: &str, is: impl Fn(&[&str]) -> bool) {
    wait::until(what, &world.outside("stderr"), || {
        let listed = world.ctl(&["list"]).ok();
        is(&listed.lines().collect::<Vec<_>>()).then_some(())
    });
}

/// The gateway went on under the old name, with the database of the new directory open: the restart after the CLI's kill
/// came before the CLI looked again.
#[test]
fn a_renamed_profile_takes_its_want_along_and_one_that_is_removed_ends() {
    let mut world = world(Setup::plain());
    let supervisor = world.start();
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready gateway");

    fs::rename(world.path("/opt/data/profiles/coder"), world.path("/opt/data/profiles/writer"))
        .expect("a move");
    world.wait_log("writer", "ready gateway");
    await_list(&world, "coder is gone", |names| !names.contains(&"coder"));
    assert_eq!((world.want("writer"), world.state("writer")), ("up".into(), "up".into()));
    assert_eq!(world.log("coder").matches("ready gateway").count(), 1, "it came back under its old name");

    fs::remove_dir_all(world.path("/opt/data/profiles/writer")).expect("removed");
    await_list(&world, "writer is gone", |names| !names.contains(&"writer"));
    assert_eq!(world.log("writer").matches("ready gateway").count(), 1, "it was started without a home");
    assert_eq!(supervisor.terminate(), End::Code(0));
    // Nothing of the old name is remembered: a new profile of that name is another one.
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    let _supervisor = world.start();
    assert_eq!(world.want("coder"), "down");
}

/// Profiles that were copied in from the host, imported or installed were unknown until somebody named them.
#[test]
fn a_profile_that_comes_is_known_at_once() {
    let mut world = world(Setup::plain());
    let _supervisor = world.start();
    // File by file, as an unpacked archive.
    world.write_as_hermes("/opt/data/profiles/late/gateway_state.json", r#"{"desired_state":"running"}"#);
    world.write_as_hermes("/opt/data/profiles/late/SOUL.md", "soul");
    world.wait_log("late", "ready gateway");
    assert_eq!(world.want("late"), "up");
}

/// From the second boot on a supervised gateway of the same profile ran beside that of the container's own command, because
/// that one's state file said `running`; with `--replace` they killed each other for ever.
#[test]
fn a_gateway_behind_a_wrapper_is_nobodys_wish() {
    let wrappers: [&[&str]; 3] = [
        &["sh", "-c", "hermes gateway run; exit"],
        &["env", "A=b", "hermes", "gateway", "run", "--replace"],
        &["sh", "-c", "hermes -p default gateway run --replace & wait"],
    ];
    for wrapper in wrappers {
        let mut setup = Setup::plain().main_program(wrapper);
        setup.place = Place::Pid1;
        let mut world = world(setup);
        for _ in 0..2 {
            let supervisor = world.start();
            world.wait_stdout("ready gateway");
            assert_eq!(
                (world.want("default"), world.state("default")),
                ("down".into(), "down".into()),
                "{wrapper:?}"
            );
            assert_eq!(supervisor.terminate(), End::Code(0));
        }
        assert_eq!(world.log("default"), "", "{wrapper:?}");
    }
}

/// Where the operator wants the same gateway up as well, the command's own one has it: ours is held down. That the command, a
/// script, runs one cannot be seen before it does.
#[test]
fn what_the_main_program_runs_itself_is_held_down() {
    let mut setup = Setup::plain().main_program(&["sh", "/start.sh"]);
    setup.place = Place::Pid1;
    let mut world = world(setup);
    world.write("/start.sh", "while [ ! -e /tmp/go ]; do :; done; hermes gateway run --replace & wait\n");
    let _supervisor = world.start();
    world.ctl(&["start", "default"]).ok();
    world.wait_log("default", "ready gateway");
    world.write("/tmp/go", "");
    world.wait_stdout("ready gateway");
    let status = world.wait_state("default", &["down"]);
    assert_eq!(status["want"], json!("up"), "{status}");
    assert!(
        status["reason"].as_str().is_some_and(|reason| reason.contains("main program runs this")),
        "{status}"
    );
    assert_eq!(world.log("default").matches("ready gateway").count(), 1, "they took turns");
    let refused = world.ctl(&["start", "default"]);
    assert_eq!(refused.code, 1, "{refused:?}");
}
