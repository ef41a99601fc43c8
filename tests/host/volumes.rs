//! The volume of the state disappears while it is in use, and comes back.

use crate::harness::{Setup, Supervisor, World, wait};
use serde_json::json;
use std::process::Command;

const HOME: &str = "/opt/data";
/// Where a test keeps hold of the volume.
const KEPT: &str = "/volume";

fn on_a_volume() -> (World, Supervisor) {
    let home = ["--tmpfs", HOME, "mode=755,uid=10000,gid=10000"];
    let mut world = World::new(Setup::plain().world_option(&home));
    world.adversary("one", "pause", "").adversary("two", "pause", "");
    world.adversary("idle", "pause", "autostart = false").adversary("over", "pause", "");
    let supervisor = world.start();
    world.ctl(&["wait", "one", "two", "over", "--up"]).ok();
    world.ctl(&["stop", "over"]).ok();
    (world, supervisor)
}

/// As root of the machine, who may mount, in the world.
fn mounts(world: &World, script: &str) {
    let holder = world.holder_pid().to_string();
    let words = ["--target", &holder, "--mount", "--pid", "--", "/bin/sh", "-ec", script, HOME, KEPT];
    let done = Command::new("nsenter").args(words).output().expect("nsenter(1)");
    assert!(done.status.success(), "{script}: {done:?}");
}

fn wants(world: &World) -> [String; 4] {
    ["one", "two", "idle", "over"].map(|name| world.want(name))
}

/// It was recorded on what lay below the volume, and acknowledged. After the next boot, with the volume again, it was lost.
#[test]
fn a_volume_that_is_unmounted_takes_nothing_and_has_what_was_acknowledged_when_it_is_back() {
    let (mut world, supervisor) = on_a_volume();
    mounts(&world, "mkdir $1; mount --bind $0 $1; umount -l $0");
    for (name, left) in [("one", 1), ("two", 0)] {
        let refused = world.ctl(&["stop", name]).fails(1);
        assert!(
            refused.contains("stopped, but not recorded") && refused.contains("is not mounted"),
            "{refused}"
        );
        assert_eq!(world.marked("pause").len(), left, "it is stopped all the same");
    }
    let refused = world.ctl(&["start", "idle"]).fails(1);
    assert!(refused.contains("is not mounted"), "{refused}");
    assert_eq!(world.state("idle"), "down", "what cannot be recorded is not begun");
    let status = world.ctl(&["--json", "status"]).json();
    assert_ne!(status["supervisor"]["warnings"], json!([]), "{status}");
    assert!(!world.path("/opt/data/supervisor").exists(), "nothing is left below the volume");
    mounts(&world, "mount --bind $1 $0");
    // It goes on by itself, with what was acknowledged.
    wait::until("a state that is recorded again", &world.root, || {
        let status = world.ctl(&["--json", "status"]).json();
        (status["supervisor"]["warnings"] == json!([])).then_some(())
    });
    world.ctl(&["start", "idle"]).ok();
    world.ctl(&["stop", "one"]).ok();
    mounts(&world, "umount $1");
    supervisor.kill();
    let _supervisor = world.start();
    // Stops that could not be recorded are recorded later.
    assert_eq!(wants(&world), ["down", "down", "up", "down"]);
}

/// Of a network share, or a disk that was away, every descriptor is of what it was before.
#[test]
fn a_volume_that_comes_back_as_another_mount_is_gone_on_with() {
    let (mut world, supervisor) = on_a_volume();
    mounts(
        &world,
        "mkdir $1; mount --bind $0 $1; umount -l $0; mount -t tmpfs new $0; chown 10000:10000 $0; cp -a $1/. $0; umount $1",
    );
    world.ctl(&["stop", "one"]).ok();
    world.ctl(&["start", "idle"]).ok();
    assert!(world.stderr().contains("was moved or removed while it was in use"), "{}", world.stderr());
    supervisor.kill();
    let _supervisor = world.start();
    assert_eq!(wants(&world), ["down", "up", "up", "down"]);
    assert!(!world.stderr().contains("set aside"), "{}", world.stderr());
}
