//! `ctl audit` tells what the kernel tells, and who may see it.

use crate::harness::setup::HERMES;
use crate::harness::{Rung, Setup, World};
use serde_json::{Value, json};

crate::on_every_rung!(what_a_service_may_do_is_told_as_the_kernel_has_it);

fn audited(world: &World, name: &str) -> Value {
    let document = world.ctl(&["--json", "audit", name]).json();
    assert_eq!((&document["version"], &document["services"][0]["name"]), (&json!(1), &json!(name)));
    document["services"][0].clone()
}

/// The mask with no bit set, of one line of /proc/PID/status.
fn is_empty(status: &str, label: &str) -> bool {
    status.lines().any(|line| line.strip_prefix(label).is_some_and(|mask| mask.trim() == "0000000000000000"))
}

fn what_a_service_may_do_is_told_as_the_kernel_has_it(setup: Setup) {
    let rung = setup.rung;
    let mut world = World::new(setup);
    world.adversary("coder", "pause", "autostart = false\n[limits]\nnofile = 64\npids_max = 50");
    world.adversary("other", "pause", "autostart = false");
    let supervisor = world.start();
    let down = audited(&world, "coder");
    assert_eq!(
        (&down["state"], &down["privileges"], &down["containment"]),
        (&json!("down"), &json!(null), &json!(null))
    );
    assert_eq!(down["limits"]["nofile"], json!("64"), "of its next start");

    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready");
    let up = audited(&world, "coder");
    let main = world.marked("pause").into_iter().next().expect("its main process");
    let status = std::fs::read_to_string(format!("/proc/{}/status", main.outer)).expect("its status");
    assert_eq!(up["containment"], json!(rung.name()));
    assert_eq!(up["privileges"]["no_new_privs"], json!(status.contains("NoNewPrivs:\t1")), "{status}");
    for (key, label) in [("capabilities", "CapEff:"), ("bounding", "CapBnd:")] {
        let told = up["privileges"][key].as_array().expect("names").is_empty();
        assert_eq!(told, is_empty(&status, label), "{key}: {up} {status}");
    }
    assert_eq!(
        up["uid"],
        if rung == Rung::KeeperSameUid { down["uid"].clone() } else { json!(HERMES) },
        "{up}"
    );
    assert_eq!(up["limits"]["nofile"], json!("64"));
    let tighter = up["tighter"].to_string();
    for (expected, is_said) in [
        ("memory_max is not in force", true),
        ("pids_max is not in force", up["limits"]["pids_max"] != json!("50")),
        ("shares its user with 'other'", up["uid"] != json!(0)),
        ("runs as root", up["uid"] == json!(0)),
    ] {
        assert_eq!(tighter.contains(expected), is_said, "{expected}: {up:#}");
    }
    let card = world.ctl(&["audit", "coder"]).ok();
    assert!(card.contains("no_new_privs on") && card.contains("tighter      "), "{card}");
    assert!(world.ctl(&["audit"]).ok().contains("\n\nother: down\n"), "all of them without a name");
    world.ctl(&["audit", "nobody"]).fails(4);
    if rung != Rung::KeeperSameUid {
        world.ctl_as(&supervisor, HERMES, &["audit", "coder"]).ok();
        let refused = world.ctl_as(&supervisor, 65534, &["audit", "coder"]).fails(6);
        assert!(refused.contains("not permitted to read"), "{refused}");
    }
}
