//! What lies below home is hermes's: whatever its definitions say, nothing of them runs as somebody else, with a capability, with a
//! higher limit, or ends the container; nor does anything of root's with their help.

use crate::harness::process::status;
use crate::harness::setup::HERMES;
use crate::harness::{Setup, Supervisor, World};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

/// What a definition may want that is not hermes's to give; the word by which its refusal is known.
const WANTED: [(&str, &str, &str); 9] = [
    ("user", "user = \"root\"\n", "may name another user"),
    ("number", "user = \"0\"\n", "may name another user"),
    ("essential", "role = \"essential\"\n", "may be essential"),
    ("capable", "[security]\ncapabilities = [\"ALL\"]\n", "may name capabilities"),
    ("ambient", "[security]\nambient = [\"NET_ADMIN\"]\n", "may name capabilities"),
    ("gaining", "[security]\nno_new_privs = false\n", "may turn off no_new_privs"),
    ("sheltered", "[limits]\noom_score_adj = -500\n", "without 'oom_score_adj'"),
    ("heavy", "[limits]\ncpu_weight = 10000\n", "without 'cpu_weight'"),
    (
        "hooked",
        "user = \"root\"\n[limits]\nmemory_high = \"1M\"\n[hooks]\nmemory_high = [\"/adversary\", \"exit\"]\n",
        "may name",
    ),
];

/// Every process of a service of this world is hermes's, and may do nothing that hermes may not; returns how many there are. `confined`:
/// it cannot gain anything either, which gateways may, as under `docker exec`.
#[track_caller]
fn nobody_has_more(world: &World, confined: bool) -> usize {
    let processes = world.marked("");
    for process in &processes {
        let line = |key: &str| {
            let found = status(process.outer, key).unwrap_or_default();
            found.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let all = format!("{HERMES} {HERMES} {HERMES} {HERMES}");
        assert_eq!((line("Uid"), line("Gid")), (all.clone(), all), "{process:?}");
        for key in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(line(key), "0000000000000000", "{key} {process:?}");
        }
        if confined {
            assert_eq!((&*line("CapBnd"), &*line("NoNewPrivs")), ("0000000000000000", "1"), "{process:?}");
        }
        let file = format!("/proc/{}/oom_score_adj", process.outer);
        let adjustment = std::fs::read_to_string(file).expect("it stays up");
        assert!(!adjustment.starts_with('-'), "{process:?}: {adjustment}");
    }
    processes.len()
}

fn try_all(world: &World, supervisor: &Supervisor) {
    let _ = world.ctl(&["reload"]);
    for name in world.ctl(&["list"]).ok().lines() {
        // Refused, or started as what it is.
        let _ = world.ctl_as(supervisor, HERMES, &["start", name, "--timeout", "1s"]);
    }
}

#[test]
fn a_definition_below_home_gains_nothing() {
    let mut world = World::new(Setup::plain());
    let command = format!("command = [\"/adversary\", \"pause\", {:?}]\n", world.mark);
    for (name, wish, _) in WANTED {
        world.write_as_hermes(&format!("/opt/data/services/{name}.toml"), format!("{command}{wish}"));
    }
    // A hook is hermes's to have: as hermes.
    let hook = "[limits]\nmemory_high = \"64M\"\n[hooks]\nmemory_high = [\"/adversary\", \"exit\"]\n";
    world.write_as_hermes("/opt/data/services/told.toml", format!("{command}{hook}"));
    // Root's own definitions with the help of a file of hermes's: what it exports, and a program in a directory of hermes's.
    world.write_as_hermes("/opt/data/.env", "LD_PRELOAD=/opt/data/evil.so\nPATH=/opt/data/bin\n");
    world.define("preloaded", &format!("{command}user = \"root\"\nenv_file = \"/opt/data/.env\"\n"));
    let supervisor = world.start();
    try_all(&world, &supervisor);
    world.wait_state("told", &["up"]);
    for (name, _, sign) in WANTED {
        let row = world.status(name);
        assert_eq!(row["state"], json!("refused"), "{row}");
        let reason = row["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(sign) && reason.contains("below --home"), "{name}: {reason}");
    }
    let row = world.status("preloaded");
    assert!(row["reason"].as_str().unwrap_or_default().contains("env_file below --home"), "{row}");
    assert_eq!(nobody_has_more(&world, true), 1, "{}", world.stderr());

    // Nor by a command about the one that it may have.
    for word in ["oom_score_adj=-1", "cpu_weight=10000", "nofile=100000000"] {
        world.ctl_as(&supervisor, HERMES, &["set", "told", word, "--persist"]).fails(6);
    }
    world.ctl_as(&supervisor, HERMES, &["restart", "told"]).ok();
    assert_eq!(nobody_has_more(&world, true), 1);
}

/// The template of all gateways lies in the same directory as a service of hermes's own.
#[test]
fn a_template_below_home_gains_nothing() {
    let mut world = World::new(Setup::plain());
    let command = format!("command = [\"/adversary\", \"pause\", {:?}]\n", world.mark);
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    world.write_as_hermes("/opt/data/services/gateway.toml", &command);
    let supervisor = world.start();
    try_all(&world, &supervisor);
    world.wait_state("coder", &["up"]);
    let before = nobody_has_more(&world, false);
    assert!(before > 0, "{}", world.stderr());
    for (name, wish, sign) in WANTED.into_iter().filter(|(name, ..)| *name != "gaining") {
        world.write_as_hermes("/opt/data/services/gateway.toml", format!("{command}{wish}"));
        let told = world.ctl(&["reload", "--restart"]);
        assert!(told.code == 1 && told.err.contains(sign), "{name}: {told:?}");
        let _ = world.ctl_as(&supervisor, HERMES, &["restart", "coder", "--timeout", "1s"]);
        nobody_has_more(&world, false);
    }
    world.write_as_hermes("/opt/data/services/gateway.toml", &command);
    world.ctl(&["reload", "--restart"]).ok();
    world.wait_state("coder", &["up"]);
    assert_eq!(nobody_has_more(&world, false), before);
}

/// Hooks run with the rights of their service, and root's find no program of hermes's.
#[test]
fn a_hook_has_no_more_than_its_service_and_runs_nothing_of_anybody_elses() {
    let bin = "/opt/data/.local/bin";
    let mut world = World::new(Setup::plain().env("PATH", &format!("{bin}:/usr/bin:/bin")));
    let planted = world.write_as_hermes(&format!("{bin}/notify"), "#!/bin/sh\necho planted >>/tmp/proof\n");
    std::fs::set_permissions(&planted, PermissionsExt::from_mode(0o755)).expect("a mode");
    let tells = "while read -r line; do echo $line; done </proc/self/status; echo PATH $PATH";
    let hooks = |argv: &str| format!("[hooks]\npre_start = {argv}\npost_stop = {argv}\n");
    let command = format!("command = [\"/adversary\", \"pause\", {:?}]\n", world.mark);
    let own = hooks(&format!("[\"/bin/sh\", \"-c\", {tells:?}]"));
    world.write_as_hermes("/opt/data/services/own.toml", format!("{command}{own}"));
    let slow = "[restart]\nbackoff = { initial = \"1h\", max = \"1h\" }\n";
    world.define("roots", &format!("{command}user = \"root\"\n{slow}{}", hooks("[\"notify\"]")));
    let supervisor = world.start();
    world.wait_state("own", &["up"]);
    world.ctl_as(&supervisor, HERMES, &["stop", "own"]).ok();
    world.wait_log_times("own", "PATH", 2);
    let lines = world.log_lines("own");
    let ids = format!("{HERMES} {HERMES} {HERMES} {HERMES}");
    let none = "0000000000000000";
    for (key, value) in
        [("Uid", &*ids), ("Gid", &ids), ("CapEff", none), ("CapBnd", none), ("NoNewPrivs", "1")]
    {
        let expected = format!("{key}: {value}");
        assert_eq!(lines.iter().filter(|line| **line == expected).count(), 2, "{expected}: {lines:#?}");
    }
    let roots = world.wait_state("roots", &["backoff"]);
    let reason = roots["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("'notify': not found in PATH"), "{roots}");
    assert!(!world.path("/tmp/proof").exists());
}
