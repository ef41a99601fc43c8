//! Limits: what a process is given, what cannot hold here and is said, what `set` changes and who may. Whether the kernel
//! enforces what is written is shown where there is a kernel with every controller (`tests/vm`).

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{End, Rung, Setup, World};
use serde_json::{Value, json};

crate::on_every_rung!(a_service_starts_within_its_limits_and_what_does_not_hold_is_said);

fn lines(status: &Value) -> Vec<String> {
    let all = status["limits_not_in_force"].as_array().cloned().unwrap_or_default();
    all.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect()
}

fn a_service_starts_within_its_limits_and_what_does_not_hold_is_said(setup: Setup) {
    let rung = setup.rung;
    let mut world = World::new(setup);
    world.adversary(
        "coder",
        "print-limits",
        "autostart = false\n[limits]\nnofile = 64\nnproc = 4000\ncore = 0\noom_score_adj = 500\nmemory_max = '64M'",
    );
    let _supervisor = world.start();
    let down = world.status("coder");
    assert_eq!((&down["limits"]["nofile"], lines(&down)), (&json!("64"), vec![]), "of its next start");

    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready print-limits");
    let log = world.log("coder");
    for expected in ["nofile 64 64", "nproc 4000 4000", "core 0 0"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let status = world.status("coder");
    let left = lines(&status);
    for (key, value) in [("nofile", "64"), ("nproc", "4000"), ("core", "0")] {
        assert_eq!(status["limits"][key], json!(value), "{status}");
    }
    // A process of the supervisor's own user that is not dumpable cannot write the file; then that is what is said.
    if rung == Rung::KeeperSameUid && !log.contains("oom_score_adj 500") {
        assert!(log.contains("oom_score_adj 0"), "{log}");
        assert!(
            left.iter().any(|line| line.starts_with("oom_score_adj=500 is not in force: it is 0")),
            "{left:?}"
        );
    } else {
        assert!(log.contains("oom_score_adj 500"), "{log}");
        assert_eq!(status["limits"]["oom_score_adj"], json!("500"));
    }
    let held = status["limits"]["memory_max"] == json!("64M");
    let said = left.iter().any(|line| line.starts_with("memory_max=64M is not in force: "));
    assert!(held != said, "it holds or it is said that it does not: {status}");
    if matches!(rung, Rung::Keeper | Rung::KeeperSameUid) {
        assert!(said && left.iter().any(|line| line.contains("has no cgroup for it")), "{left:?}");
        assert!(world.stderr().contains("coder: memory_max=64M is not in force"), "{}", world.stderr());
        assert!(world.ctl(&["status", "coder"]).ok().contains("memory_max=64M is not in force"));
    }
}

#[test]
fn a_limit_that_is_set_is_recorded_and_holds_at_each_start() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "print-limits", "autostart = false\n[limits]\nnofile = 128");
    let supervisor = world.start();
    let refused = world.ctl(&["set", "coder", "nofile=64"]).fails(1);
    assert!(refused.contains("nofile holds from a start on; add --persist"), "{refused}");
    let refused = world.ctl(&["set", "coder", "memory_max=64M"]).fails(1);
    assert!(refused.contains("not running; add --persist"), "{refused}");

    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "nofile 128 128");
    let said = world.ctl(&["set", "coder", "nofile=64", "core=0", "--persist"]).ok();
    assert_eq!(said, "coder: nofile=64 core=0 from its next start on\n");
    assert_eq!(world.status("coder")["limits"]["nofile"], json!("128"), "what it has, not what it will have");
    world.ctl(&["restart", "coder"]).ok();
    world.wait_log("coder", "nofile 64 64");
    assert_eq!(world.status("coder")["limits"], json!({"nofile": "64", "core": "0"}));

    assert_eq!(supervisor.terminate(), End::Code(0));
    let _supervisor = world.start();
    world.wait_state("coder", &["up"]);
    assert_eq!(world.status("coder")["limits"]["nofile"], json!("64"), "{}", world.stderr());
    world.ctl(&["set", "coder", "nofile=default", "--persist"]).ok();
    world.ctl(&["restart", "coder"]).ok();
    world.wait_state("coder", &["up"]);
    assert_eq!(world.status("coder")["limits"], json!({"nofile": "128", "core": "0"}));
}

/// Of a tree without the controller nothing can be set, and that is a failure of the command, not of the service.
#[test]
fn what_cannot_hold_now_is_no_success_unless_it_is_recorded() {
    let mut world = World::new(Setup::new(Rung::Keeper, crate::harness::Place::Child));
    world.adversary("coder", "pause", "");
    let _supervisor = world.start();
    world.wait_state("coder", &["up"]);
    let refused = world.ctl(&["set", "coder", "pids_max=10"]).fails(1);
    assert!(refused.contains("pids_max=10 is not in force: containment 'keeper' has no cgroup"), "{refused}");
    let said = world.ctl(&["set", "coder", "pids_max=10", "--persist"]).ok();
    assert!(said.contains("pids_max=10 is not in force"), "{said}");
    assert_eq!(world.status("coder")["state"], json!("up"));
}

#[test]
fn an_owner_tightens_and_only_root_raises() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "user = 'hermes'\n[limits]\nnofile = 128");
    world.adversary("other", "pause", "user = '10001'");
    let supervisor = world.start();
    world.wait_state("coder", &["up"]);
    let as_user = |uid: u32, word: &str| world.ctl_as(&supervisor, uid, &["set", "coder", word, "--persist"]);
    as_user(HERMES, "nofile=64").ok();
    let refused = as_user(HERMES, "nofile=256").fails(6);
    assert!(
        refused.contains("not permitted to give 'coder' more than nofile=128: you are uid 10000"),
        "{refused}"
    );
    assert!(as_user(HERMES, "cpu_weight=101").fails(6).contains("cpu_weight=100"));
    assert!(as_user(HERMES, "oom_score_adj=-1").fails(6).contains("only root may raise"));
    as_user(ALICE, "nofile=16").fails(6);
    // Root may, but what lies on the volume cannot say more than the definition: anybody could have written it there.
    let refused = world.ctl(&["set", "coder", "nofile=256", "--persist"]).fails(1);
    assert!(refused.contains("nofile cannot be recorded above what the definition gives"), "{refused}");
    world.ctl(&["restart", "coder"]).ok();
    assert_eq!(world.status("coder")["limits"]["nofile"], json!("64"));
    // What root has recorded binds the owner at once, though the running process has more.
    world.ctl(&["set", "coder", "nofile=32", "--persist"]).ok();
    assert!(as_user(HERMES, "nofile=64").fails(6).contains("nofile=32"));
    world.ctl(&["set", "coder", "nofile=100", "--persist"]).ok();

    // The definition has become tighter than the record.
    world.adversary("coder", "pause", "user = 'hermes'\n[limits]\nnofile = 50");
    world.ctl(&["reload", "--restart"]).ok();
    let status = world.wait_state("coder", &["up"]);
    assert_eq!(status["limits"]["nofile"], json!("50"), "{status}");
    let left = lines(&status);
    assert!(left[0].starts_with("nofile=100 is not in force: it was set, and would give more"), "{left:?}");
}

#[test]
fn what_was_typed_wrong_is_said_before_anybody_is_asked() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "");
    let _supervisor = world.start();
    for (word, expected) in [
        ("memory=1G", "there is no such limit; allowed: memory_max, "),
        ("memory_max=lots", "'lots' is not known here; allowed: a size"),
        ("cpu_weight=0", "allowed: 1 to 10000"),
        ("memory_max", "use NAME=VALUE"),
    ] {
        let said = world.ctl(&["set", "coder", word]).fails(2);
        assert!(said.contains(expected), "{word}: {said}");
    }
}

#[test]
fn below_home_nobody_gets_more_than_without_limits() {
    let mut world = World::new(Setup::plain());
    for (name, limit) in
        [("greedy", "oom_score_adj = -500"), ("heavy", "cpu_weight = 10000"), ("tight", "nofile = 32")]
    {
        world.write_as_hermes(
            &format!("/opt/data/services/{name}.toml"),
            format!("command = ['/adversary', 'print-limits']\n[limits]\n{limit}\n"),
        );
    }
    let _supervisor = world.start();
    world.wait_log("tight", "nofile 32 32");
    for (name, state) in [("greedy", "refused"), ("heavy", "refused")] {
        assert_eq!(world.state(name), state);
    }
    for key in ["oom_score_adj", "cpu_weight"] {
        let expected = format!(
            "only a root-owned definition outside --home may give more than a service has without '{key}'"
        );
        assert!(world.stderr().contains(&expected), "{}", world.stderr());
    }
}

/// A trusted definition may ask for more than the supervisor may give: the service starts with what there is.
#[test]
fn what_the_container_does_not_allow_does_not_keep_a_service_down() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "print-limits", "[limits]\nnofile = 2147483584\noom_score_adj = -900");
    let _supervisor = world.start();
    world.wait_log("coder", "ready print-limits");
    let status = world.status("coder");
    assert_eq!(status["state"], json!("up"));
    let left = lines(&status);
    for key in ["nofile=2147483584", "oom_score_adj=-900"] {
        let held = status["limits"].get(key.split('=').next().unwrap_or_default()).is_some();
        let said = left.iter().any(|line| line.starts_with(key) && line.contains("CAP_SYS_RESOURCE"));
        assert!(held != said, "{status}");
    }
    assert!(left.iter().any(|line| line.starts_with("nofile=")), "no kernel has so many: {left:?}");
}
