//! Which rung is taken where, and that it is said.

use crate::harness::{End, Place, Rung, Setup, World, wait};
use rustix::process::Signal;
use serde_json::json;

/// What `status` says is in force, once a tree has been stopped on it.
fn rung_in_force(setup: Setup) -> (World, serde_json::Value) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 10", "[stop]\ntimeout = \"50ms\"");
    let _supervisor = world.start();
    world.wait_log("wood", "ready");
    let status = world.ctl(&["--json", "status"]).json();
    assert_eq!(status["services"][0]["containment"], status["supervisor"]["containment"]);
    world.ctl(&["stop", "wood"]).ok();
    world.assert_no_survivors("after stop");
    let supervisor = status["supervisor"].clone();
    (world, supervisor)
}

#[test]
fn each_container_gets_the_highest_rung_that_works() {
    let bare = |mount| Setup { bare: true, cgroup_mount: Some(mount), ..Setup::plain() };
    let filtered = |rung, mount| Setup { cgroup_mount: Some(mount), ..Setup::new(rung, Place::Pid1) };
    for (setup, expected) in [
        // A host, or --privileged: clone3 exists, nothing is filtered.
        (bare("rw"), "cgroup"),
        // CAP_SYS_ADMIN: read-only is mounted writable.
        (bare("ro"), "cgroup"),
        (filtered(Rung::Cgroup, "rw"), "cgroup"),
        // v2 beside v1, and one directory of the host's tree in the place of the whole.
        (filtered(Rung::Cgroup, "hybrid"), "cgroup"),
        (filtered(Rung::Cgroup, "subtree"), "cgroup"),
        (filtered(Rung::CgroupPrivate, "ro"), "cgroup-private"),
        // Not even a visible mount is needed.
        (filtered(Rung::CgroupPrivate, "absent"), "cgroup-private"),
        (filtered(Rung::Keeper, "ro"), "keeper"),
        (filtered(Rung::Keeper, "absent"), "keeper"),
        (filtered(Rung::KeeperSameUid, "absent"), "keeper-same-uid"),
        // The directory is root's, so a writable mount is of no use to another user.
        (filtered(Rung::KeeperSameUid, "rw"), "keeper-same-uid"),
    ] {
        let shown = format!("{setup:?}");
        let (world, supervisor) = rung_in_force(setup);
        assert_eq!(supervisor["containment"], json!(expected), "{shown}");
        let first = world.stderr().lines().next().unwrap_or_default().to_owned();
        assert!(first.contains(&format!("'{expected}'")), "the first log line says so: {first}");
        if expected.starts_with("keeper") {
            assert!(
                supervisor["containment_flag"].is_string() && first.contains("--"),
                "{supervisor} {first}"
            );
        }
    }
}

#[test]
fn a_rung_can_be_asked_for_and_is_refused_where_it_does_not_work() {
    let (_world, supervisor) = rung_in_force(Setup::plain().supervisor_option(&["--containment", "keeper"]));
    assert_eq!(supervisor["containment"], json!("keeper"));
    for (rung, word) in [
        ("cgroup", "read-only"),
        ("cgroup-private", "a user namespace: Operation not permitted"),
        (
            "pidns",
            "a PID namespace: Operation not permitted; in a user namespace: a PID namespace: Operation",
        ),
    ] {
        let setup = Setup::new(Rung::Keeper, Place::Child).supervisor_option(&["--containment", rung]);
        let mut world = World::new(setup);
        assert_ne!(world.launch().wait(), End::Code(0), "{}", world.stderr());
        assert!(world.stderr().contains(word), "{rung}: {}", world.stderr());
    }
}

/// What the supervisor has made for itself is nobody else's: no service has a descriptor of it or a way to write.
#[test]
fn services_see_nothing_of_the_private_mount() {
    for rung in [Rung::CgroupPrivate, Rung::Keeper] {
        let setup = Setup::new(rung, Place::Child);
        let mut world = World::new(setup);
        let look = "ls -l /proc/self/fd; grep cgroup2 /proc/self/mounts; mkdir /sys/fs/cgroup/mine; \
                    echo $$ >/sys/fs/cgroup/cgroup.procs; echo looked; exec /adversary pause $0";
        world.define("spy", &format!("command = {:?}\n", ["/bin/sh", "-c", look, &world.mark]));
        let _supervisor = world.start();
        world.wait_log("spy", "ready pause");
        let log = world.log("spy");
        assert!(!log.contains("cgroup.procs ->") && !log.contains("-> /\n"), "{log}");
        assert!(!log.contains(" cgroup2 rw,"), "{log}");
        assert!(log.contains(" cgroup2 ro,") && log.contains("Read-only file system"), "{log}");
        assert_eq!(world.status("spy")["containment_weakness"], json!(null), "another user's");
        world.ctl(&["stop", "spy"]).ok();
        world.assert_no_survivors("after stop");
    }
}

/// Root owns the directory of its cgroup. Without capabilities it cannot undo that it sees it read-only.
#[test]
fn a_service_of_root_sees_its_cgroup_read_only_or_status_says_that_it_could_leave_it() {
    let bare = |mount| Setup { bare: true, cgroup_mount: Some(mount), ..Setup::plain() };
    for setup in [bare("rw"), bare("ro"), bare("hybrid")] {
        let mut world = World::new(setup);
        world.adversary("prisoner", "cgroup-escaper", "user = \"root\"\n[stop]\ntimeout = \"50ms\"");
        let _supervisor = world.start();
        world.wait_log("prisoner", "ready cgroup-escaper");
        let log = world.log("prisoner");
        assert!(log.contains("escape refused") && log.contains("escape no"), "{log}");
        assert!(!log.contains("escape ok"), "{log}");
        let status = world.status("prisoner");
        assert_eq!(status["containment_weakness"], json!(null), "{status}");
        world.ctl(&["stop", "prisoner"]).ok();
        world.assert_no_survivors("after stop");
    }
    // Without CAP_SYS_ADMIN nobody gets mounts of his own.
    let mut world = World::new(Setup { cgroup_mount: Some("rw"), ..Setup::new(Rung::Cgroup, Place::Pid1) });
    world.adversary("owner", "pause", "user = \"root\"");
    let _supervisor = world.start();
    world.wait_log("owner", "ready");
    let weakness = world.status("owner")["containment_weakness"].to_string();
    assert!(weakness.contains("can move itself out"), "{weakness}");
}

/// A mount namespace of its own cost each service of root a copy of every mount at its start, and a grace period of RCU
/// before its end was told. They share one, which nobody in it can change, and which is made anew when a mount has changed.
#[test]
fn services_of_root_share_a_view_of_the_mounts_that_is_up_to_date_and_the_others_have_ours() {
    let mut world = World::new(Setup { bare: true, cgroup_mount: Some("rw"), ..Setup::plain() });
    let look = "echo in $(readlink /proc/self/ns/mnt) read-only $(grep -c ' /sys/fs/cgroup ro.* - cgroup2 ' \
                /proc/self/mountinfo) late $(grep -c ' late ' /proc/self/mountinfo) seen; exec /adversary pause";
    let command = format!("command = {:?}\n[stop]\ntimeout = \"50ms\"\n", ["/bin/sh", "-c", look]);
    for (name, rest) in [
        ("one", "user = \"root\"\n"),
        ("two", "user = \"root\"\n"),
        ("three", "user = \"root\"\nautostart = false\n"),
        ("other", ""),
    ] {
        world.define(name, &format!("{rest}{command}"));
    }
    let supervisor = world.start();
    let seen = |name: &str| {
        world.wait_log(name, " seen");
        let line = world.log_lines(name).into_iter().find(|line| line.contains(" seen")).unwrap();
        let after = |word: &str| {
            let rest =
                line.split_once(&format!("{word} ")).unwrap_or_else(|| panic!("no {word} in {line}")).1;
            rest.split(' ').next().unwrap().to_owned()
        };
        (after("in"), after("read-only"), after("late"))
    };
    let [one, two, other] = ["one", "two", "other"].map(seen);
    assert_eq!(one, two);
    assert_eq!((one.1.as_str(), other.1.as_str()), ("1", "0"));
    let ours = std::fs::read_link(format!("/proc/{}/ns/mnt", supervisor.pid())).unwrap();
    assert_eq!(other.0, ours.to_str().unwrap());
    assert_ne!(one.0, other.0);
    world.exec(&supervisor, 0, &["mount", "-t", "tmpfs", "late", "/tmp"]).ok();
    world.ctl(&["start", "three"]).ok();
    let three = seen("three");
    assert_eq!((three.1.as_str(), three.2.as_str()), ("1", "1"));
    world.ctl(&["restart", "one"]).ok();
    world.wait_log_times("one", " seen", 2);
    assert!(world.log("one").contains(&three.0), "they share the new one");
}

#[test]
fn a_definition_can_ask_for_a_private_mount_where_there_is_one() {
    let mut world = World::new(Setup::new(Rung::CgroupPrivate, Place::Child));
    world.adversary("wood", "tree 3", "containment = \"cgroup-private\"");
    let _supervisor = world.start();
    world.wait_log("wood", "ready");
    assert_eq!(world.status("wood")["containment"], json!("cgroup-private"));
    // Where the mount is writable for all, nothing would be private.
    let mut world = World::new(Setup::plain());
    world.adversary("wood", "tree 3", "autostart = false\ncontainment = \"cgroup-private\"");
    let _supervisor = world.start();
    let answer = world.ctl(&["start", "wood"]);
    assert!(answer.err.contains("the mount that everybody sees is writable"), "{answer:?}");
}

/// Asked for by one service, and made with and without CAP_SYS_ADMIN: it sees its own processes and nobody else's, and
/// nothing but its namespace is different.
#[test]
fn a_service_in_a_pid_namespace_sees_its_own_processes_only() {
    let bare = Setup { bare: true, ..Setup::plain() };
    for setup in [bare, Setup::new(Rung::CgroupPrivate, Place::Child)] {
        let mut world = World::new(setup);
        let look = "for p in /proc/[0-9]*; do echo process $(cat $p/comm); done; id -u; cat /proc/self/uid_map; \
                    echo looked; exec /adversary tree 5 $0";
        let command = ["/bin/sh", "-c", look, &world.mark];
        world.define(
            "apart",
            &format!("command = {command:?}\ncontainment = \"pidns\"\n[stop]\ntimeout = \"100ms\"\n"),
        );
        world.adversary("other", "pause", "");
        let _supervisor = world.start();
        world.wait_log("apart", "ready tree");
        world.wait_log("other", "ready pause");
        let lines = world.log_lines("apart");
        let seen: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("process ")).collect();
        assert!(seen.contains(&"hermes-keeper") && seen.len() <= 3, "{lines:?}");
        assert!(lines.iter().any(|line| line == "10000"), "{lines:?}");
        assert!(lines.iter().any(|line| line.split_whitespace().eq(["0", "0", "4294967295"])), "{lines:?}");
        assert_eq!(world.status("apart")["containment"], json!("pidns"));
        assert_eq!(world.status("apart")["containment_weakness"], json!(null));
        assert_ne!(world.status("other")["containment"], json!("pidns"), "nobody else asked for it");
        world.ctl(&["stop", "apart"]).ok();
        assert!(world.marked("tree").is_empty(), "after stop");
        assert_eq!(
            world.status("apart")["last_exit"]["signal"],
            json!("SIGKILL"),
            "it is deaf to anything else"
        );
    }
}

#[test]
fn doctor_names_the_rung_and_the_flag() {
    for rung in [Rung::Cgroup, Rung::CgroupPrivate, Rung::Keeper] {
        let (world, supervisor) = World::started(Setup::new(rung, Place::Child));
        let said = world.exec(&supervisor, 0, &["/hermes-sup", "doctor"]).ok();
        assert!(said.contains(rung.name()), "{said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("ksm: ")).count(), 1, "{said}");
        if rung == Rung::Keeper {
            for rung in ["cgroup", "cgroup-private", "pidns"] {
                let row = |line: &&str| line.split_whitespace().take(2).eq([rung, "no"]);
                assert!(said.lines().any(|line| row(&line)), "{rung}: {said}");
            }
            for flag in ["writable-cgroups=true", "seccomp=unconfined", "SYS_ADMIN", "cgroup_writable"] {
                assert!(said.contains(flag), "{flag}: {said}");
            }
            assert!(!said.contains("--cap-add SETUID"), "what works needs no flag: {said}");
        }
    }
}

#[test]
fn the_demo_runs_without_anything_and_leaves_nothing() {
    let mut setup = Setup::new(Rung::KeeperSameUid, Place::Child).supervisor_option(&["--demo"]);
    setup.verb = Some("run");
    let mut world = World::new(setup);
    let mut demo = world.launch();
    let line = wait::until("the line to try", &world.outside(""), || {
        world.stdout().lines().find(|line| line.contains(" ctl ")).map(str::to_owned)
    });
    let socket =
        line.split_whitespace().skip_while(|word| *word != "--socket").nth(1).expect("its socket").to_owned();
    let listed = wait::until("the demo to answer", &world.outside(""), || {
        let answer = world.inside_answer(&["/hermes-sup", "ctl", "--socket", &socket, "list"]);
        (answer.code == 0).then_some(answer.out)
    });
    assert!(listed.lines().count() >= 3, "{listed}");
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), End::Code(0), "{}", world.stderr());
    let left: Vec<_> =
        std::fs::read_dir(world.path("/tmp")).expect("/tmp").flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
