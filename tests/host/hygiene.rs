//! What a service finds when it begins: nothing of ours.

use crate::harness::setup::HERMES;
use crate::harness::{Rung, Setup, World};
use std::os::unix::fs::PermissionsExt;

crate::on_every_rung!(a_service_starts_clean);

fn a_service_starts_clean(mut setup: Setup) {
    let rung = setup.rung;
    setup.launcher = vec!["--sigchld-ignored".into()];
    let mut world = World::new(setup);
    world.adversary("ids", "print-ids", "").adversary("mask", "print-mask", "").adversary(
        "fds",
        "print-fds",
        "",
    );
    world.adversary("other", "print-ids", "umask = \"0077\"\nworking_dir = \"/tmp\"");
    // A neighbour with open pipes and a descriptor or two in the supervisor: none of it may be passed on.
    world.adversary("neighbour", "pause", "");
    let _supervisor = world.start();
    for name in ["ids", "mask", "fds", "other"] {
        world.wait_log(name, "ready print");
    }

    let ids = world.log_lines("ids");
    let has = |line: &str| assert!(ids.iter().any(|each| each == line), "{line:?} in {ids:#?}");
    has("Uid 10000 10000 10000 10000");
    has("Gid 10000 10000 10000 10000");
    has("NoNewPrivs 1");
    has("Umask 0022");
    has("Cwd /opt/data");
    has("Session own");
    has("ProcessGroup own");
    has("OomScoreAdj 0");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        // Only CAP_SETPCAP may lower the bounding set; without it no_new_privs holds what it contains shut.
        if set != "CapBnd" || rung != Rung::KeeperSameUid {
            has(&format!("{set} 0000000000000000"));
        }
    }
    let groups = ids.iter().find_map(|line| line.strip_prefix("Groups")).unwrap_or_default();
    let groups: Vec<u32> = groups.split_whitespace().filter_map(|group| group.parse().ok()).collect();
    assert!(!groups.contains(&0), "{groups:?}");
    match rung {
        Rung::Cgroup | Rung::CgroupPrivate | Rung::Pidns => assert_eq!(groups, [HERMES, 20000]),
        // One more: the tag by which the keeper knows its own.
        Rung::Keeper => assert!(groups.len() == 3 && groups.contains(&20000), "{groups:?}"),
        Rung::KeeperSameUid => assert!(groups.iter().all(|group| *group == HERMES), "{groups:?}"),
    }

    let mask = world.log_lines("mask");
    for set in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        let line = format!("{set} 0000000000000000");
        assert!(mask.contains(&line), "{line:?} in {mask:#?}");
    }

    let fds = world.log_lines("fds");
    let fds: Vec<_> = fds.iter().filter(|line| line.starts_with("fd ")).collect();
    assert_eq!(fds.len(), 3, "{fds:#?}");
    assert_eq!(fds[0], "fd 0 /dev/null");

    let other = world.log_lines("other");
    assert!(other.contains(&"Umask 0077".to_owned()) && other.contains(&"Cwd /tmp".to_owned()), "{other:#?}");
}

#[test]
fn the_environment_is_the_supervisors_plus_its_own() {
    let mut world = World::new(Setup::plain().env("FROM_CONTAINER", "yes"));
    world.write_as_hermes("/opt/data/.env", "FROM_FILE=1\nQUOTED=\"two words\"\n# COMMENT=1\n");
    world.adversary("env", "print-env", "env = { OWN = \"blue\" }\nenv_file = \"/opt/data/.env\"");
    let _supervisor = world.start();
    world.wait_log("env", "ready");
    let lines = world.log_lines("env");
    for expected in ["FROM_CONTAINER=yes", "OWN=blue", "FROM_FILE=1", "QUOTED=two words"] {
        assert!(lines.contains(&format!("env {expected}")), "{expected}: {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("env PATH=")));
    assert!(!lines.iter().any(|line| line.contains("COMMENT")));
}

/// `docker run -e` reaches a service that wants nothing else of it, a secret of root's reaches one that is not root, and a start
/// that lacks a variable says so.
#[test]
fn a_cleared_environment_has_what_its_definition_takes_from_the_container() {
    let mut world = World::new(Setup::plain().env("PORT", "8080").env("OTHER", "no"));
    let token = world.write("/run/secrets/token", "s3cret\n");
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).expect("its mode");
    world.write("/etc/a.env", "A=1\nB=1\n");
    world.write("/etc/b.env", "B=2\n");
    let rest = "description = \"Says what it has\"\nuser = \"10001\"\nenv_clear = true\n\
                env_file = [\"/etc/a.env\", \"?/etc/none.env\", \"/etc/b.env\"]\n\
                env = { URL = \"http://${HOST:-localhost}:${PORT}/$${x}\" }\n\
                [secrets]\nTOKEN = \"/run/secrets/token\"";
    world.adversary("env", "print-env", rest);
    let slow = "[restart]\nbackoff = { initial = \"1h\", max = \"1h\" }";
    world.define("unset", &format!("command = [\"/adversary\", \"${{NOBODY}}\"]\n{slow}"));
    world.define("where", "command = [\"/adversary\", \"print-ids\"]\nworking_dir = \"${NOWHERE:-/tmp}\"");
    // Who owns the volume reads no secret of root's.
    world.write_as_hermes(
        "/opt/data/services/curious.toml",
        format!(
            "command = [\"/adversary\", \"print-env\"]\n[secrets]\nTOKEN = \"/run/secrets/token\"\n{slow}"
        ),
    );
    let _supervisor = world.start();
    world.wait_log("env", "ready");
    let lines = world.log_lines("env");
    for expected in ["A=1", "B=2", "URL=http://localhost:8080/${x}", "TOKEN=s3cret", "USER=alice"] {
        assert!(lines.contains(&format!("env {expected}")), "{expected}: {lines:#?}");
    }
    for absent in ["PORT=", "OTHER="] {
        assert!(!lines.iter().any(|line| line.contains(absent)), "{absent}: {lines:#?}");
    }
    world.wait_log("where", "Cwd /tmp");
    let reason =
        |name: &str| world.wait_state(name, &["backoff"])["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason("unset").contains("'command' needs the variable NOBODY"), "{}", reason("unset"));
    let why = reason("curious");
    assert!(why.contains("secret TOKEN: /run/secrets/token: Permission denied"), "{why}");
    assert_eq!(world.status("env")["description"], "Says what it has");
    let card = world.ctl(&["status", "env"]).ok();
    assert!(card.contains("description  Says what it has"), "{card}");
    // The card ends with what the service itself has printed; nothing of ours does.
    let ours = [world.ctl(&["--json", "status"]).out, world.ctl(&["audit", "env"]).ok(), world.stderr()];
    assert!(!ours.concat().contains("s3cret"), "{ours:?}");
}

/// A soft limit that the supervisor raises for itself must not reach the services.
#[test]
fn limits_are_those_that_were_handed_over() {
    let mut world = World::new(Setup::plain());
    world.adversary("ids", "print-ids", "");
    let supervisor = world.start();
    world.wait_log("ids", "ready");
    let own = world.exec(&supervisor, 0, &["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"]).ok();
    let own: Vec<_> = own.split_whitespace().collect();
    let lines = world.log_lines("ids");
    let line = lines.iter().find(|line| line.starts_with("Max open files")).cloned().unwrap_or_default();
    assert_eq!(line, format!("Max open files {} {} files", own[0], own[1]), "{lines:#?}");
}
