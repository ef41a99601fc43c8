//! What a service finds when it begins: nothing of ours.

use crate::harness::setup::HERMES;
use crate::harness::{Rung, Setup, World};

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
        Rung::Cgroup | Rung::CgroupPrivate => assert_eq!(groups, [HERMES, 20000]),
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
