//! Trees that do not want to end: each, on every rung and wherever the supervisor stands, ends wholly.

use crate::harness::hostile::{HOSTILE, name};
use crate::harness::{End, Place, Rung, Setup, World, wait};

const IMPATIENT: &str = "autostart = false\n[stop]\ntimeout = \"20ms\"";

crate::on_every_rung!(
    stop_leaves_no_survivor,
    nothing_of_a_crashed_tree_is_left_when_the_next_life_begins,
    shutdown_leaves_no_survivor,
    a_service_that_kills_its_keeper_gains_nothing,
);

crate::on_every_rung_as_a_child!(no_life_begins_beside_a_tree_whose_keeper_was_killed);

/// By somebody with the right to: on `cgroup` there is no keeper, so there its main process is killed.
fn no_life_begins_beside_a_tree_whose_keeper_was_killed(setup: Setup) {
    let mut world = World::new(setup);
    world.write_as_hermes("/opt/data/lock", "");
    world.adversary(
        "single",
        "exclusive /opt/data/lock",
        "[stop]\ntimeout = \"100ms\"\n[restart]\nbackoff = { initial = \"1ms\", max = \"1ms\" }",
    );
    let mut supervisor = world.start();
    for life in 1..=4 {
        world.wait_log_times("single", "ready exclusive", life);
        let main = main_process(&world);
        let victim = if main.parent == supervisor.pid() { main.outer } else { main.parent };
        let victim = rustix::process::Pid::from_raw(victim).expect("a pid");
        rustix::process::kill_process(victim, rustix::process::Signal::KILL).expect("a kill");
    }
    world.wait_log_times("single", "ready exclusive", 5);
    assert_eq!(world.read("/opt/data/lock"), "start\n".repeat(5));
    assert_eq!(world.marked("exclusive").len(), 2);
    assert_eq!(world.status("single")["restarts"], serde_json::json!(4), "each counts as a crash");
    assert!(supervisor.process.running());
    world.ctl(&["stop", "single"]).ok();
    world.assert_no_survivors("after stop");
    world.assert_no_zombies(&supervisor);
}

/// The one whose pid inside is what `status` calls the main process.
fn main_process(world: &World) -> crate::harness::process::Process {
    // It can have spoken before the supervisor knows that it is there.
    let pid = world.wait_state("single", &["up"])["pid"].as_i64();
    let main = world.marked("exclusive").into_iter().find(|process| Some(i64::from(process.inner)) == pid);
    main.expect("the main process")
}

#[test]
fn a_frozen_tree_is_stopped_all_the_same() {
    let mut world = World::new(Setup::plain());
    world.adversary("wood", "tree 10", IMPATIENT);
    let _supervisor = world.start();
    world.ctl(&["start", "wood"]).ok();
    world.wait_log("wood", "ready");
    let dir = world.cgroups().into_iter().find(|dir| is_incarnation_of(dir, "wood")).expect("its cgroup");
    std::fs::write(dir.join("cgroup.freeze"), "1").expect("a freeze");
    crate::harness::wait::until("the tree to be frozen", &dir, || {
        let events = std::fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
        events.contains("frozen 1").then_some(())
    });
    world.ctl(&["restart", "wood"]).ok();
    world.wait_log_times("wood", "ready", 2);
    world.ctl(&["stop", "wood"]).ok();
    world.assert_no_survivors("after stop");
}

fn is_incarnation_of(dir: &std::path::Path, service: &str) -> bool {
    dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{service}.")))
}

/// The process of another service of the same user attached to one of a tree as a debugger does, and never answered: a traced
/// process that ends waits for its tracer, and a dead one cannot be reaped, so a stop never came to its end.
#[test]
fn a_tracer_in_another_service_keeps_no_tree_from_ending() {
    for rung in [Rung::Cgroup, Rung::CgroupPrivate, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Pid1));
        world.adversary("victim", "echo-signals", "[stop]\ntimeout = \"100ms\"");
        world.adversary("spy", "tracer echo-sig", "");
        let _supervisor = world.start();
        world.wait_log("spy", "traces 1");
        world.ctl(&["stop", "victim"]).ok();
        world.assert_no_survivors_named("echo-signals");
        let said = world.stderr();
        assert!(said.contains("of 'spy', which keeps it from ending: killed that tracer"), "{said}");
        assert!(said.contains("victim: pid ") && said.contains("is traced by pid "), "{said}");
        world.wait_state("spy", &["up"]);
        let exit = &world.status("spy")["last_exit"];
        assert_eq!((&exit["signal"], &exit["oom"]), (&"SIGKILL".into(), &false.into()), "{exit}");
    }
}

/// A process of no service is not ours to end: it is named where the stop fails.
#[test]
fn a_tracer_that_is_of_no_service_is_named() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let setup = Setup::new(rung, Place::Pid1).main_program(&["/adversary", "tracer", "echo-sig"]);
        let setup = setup.supervisor_option(&["--main-user", "hermes"]);
        let mut world = World::new(setup);
        world.adversary("victim", "echo-signals", "[stop]\ntimeout = \"100ms\"");
        let _supervisor = world.start();
        world.wait_stdout("traces 1");
        let failed = world.ctl(&["stop", "victim"]).fails(1);
        assert!(failed.contains("is traced by pid ") && failed.contains("(adversary)"), "{failed}");
        let reason = world.status("victim")["reason"].to_string();
        assert!(reason.contains("is traced by pid "), "{reason}");
    }
}

fn stop_leaves_no_survivor(setup: Setup) {
    let mut world = World::new(setup);
    for (adversary, _) in HOSTILE {
        world.adversary(name(adversary), adversary, IMPATIENT);
    }
    let supervisor = world.start();
    for (adversary, ready) in HOSTILE {
        let service = name(adversary);
        world.ctl(&["start", service]).ok();
        world.wait_log(service, ready);
        world.ctl(&["stop", service]).ok();
        world.assert_no_survivors(adversary);
        assert_eq!(world.state(service), "down");
    }
    assert!(!world.log("cgroup-escaper").contains("escaped\n"), "{}", world.log("cgroup-escaper"));
    world.assert_no_zombies(&supervisor);
    let left = || world.cgroups().into_iter().find(|dir| !is_of_the_supervisor(dir));
    wait::until("cgroups of services to be removed", &world.path("/tmp"), || left().is_none().then_some(()));
}

/// The supervisor's own leaf and parents stay; an incarnation is `<name>.<n>`.
fn is_of_the_supervisor(dir: &std::path::Path) -> bool {
    let services = HOSTILE.map(|(adversary, _)| format!("{}.", name(adversary)));
    !dir.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        services.iter().any(|service| part.starts_with(service.as_str()))
    })
}

fn nothing_of_a_crashed_tree_is_left_when_the_next_life_begins(setup: Setup) {
    let mut world = World::new(setup);
    // Each life and all its remains hold a lock on the file: a second one beside them writes OVERLAP.
    world.write("/tmp/lock", "");
    std::os::unix::fs::chown(world.path("/tmp/lock"), Some(10000), Some(10000)).expect("an owner");
    world.adversary(
        "exclusive",
        "exclusive /tmp/lock",
        "[restart]\nbackoff = { initial = \"1ms\", max = \"1ms\" }",
    );
    world.adversary("remains", "leave-remains 3", "[restart]\nlimit = { burst = 3, interval = \"10m\" }\nbackoff = { initial = \"1ms\", max = \"1ms\" }");
    let supervisor = world.start();
    for life in 1..=5 {
        world.wait_log_times("exclusive", "ready exclusive", life);
        // It may write before its exec is known.
        world.ctl(&["wait", "exclusive", "--up"]).ok();
        world.ctl(&["kill", "exclusive", "KILL"]).ok();
    }
    world.wait_log_times("exclusive", "ready exclusive", 6);
    assert_eq!(world.read("/tmp/lock"), "start\n".repeat(6));
    assert_eq!(world.marked("exclusive").len(), 2, "main process and its daemon");
    world.wait_state("remains", &["failed"]);
    assert!(world.marked("leave-remains").is_empty(), "what a crash leaves is ended");
    assert_eq!(world.ctl(&["status", "exclusive"]).code, 0);
    world.assert_no_zombies(&supervisor);
}

fn shutdown_leaves_no_survivor(setup: Setup) {
    let mut world = World::new(setup);
    for (adversary, _) in HOSTILE {
        world.adversary(name(adversary), adversary, "[stop]\ntimeout = \"50ms\"");
    }
    let supervisor = world.start();
    for (adversary, ready) in HOSTILE {
        world.wait_log(name(adversary), ready);
    }
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after SIGTERM to the supervisor");
}

fn a_service_that_kills_its_keeper_gains_nothing(setup: Setup) {
    let (log, _) = a_service_kills_its_keeper(setup);
    // Another user's, another namespace's, none at all; or, under its own uid, out of its Landlock domain.
    assert!(log.contains("parent kill refused"), "{log}");
}

/// A kernel before 6.12 has nothing that would keep a service from its own uid's keeper: then that is said.
#[test]
fn without_landlock_a_keeper_can_be_killed_and_status_says_so() {
    let mut setup = Setup::new(Rung::KeeperSameUid, Place::Child);
    setup.launcher.push("--no-landlock".to_owned());
    let (log, weakness) = a_service_kills_its_keeper(setup);
    assert!(log.contains("parent killed"), "{log}");
    assert_eq!(weakness, serde_json::json!("a hostile service can kill its keeper"));
    let (_, weakness) = a_service_kills_its_keeper(Setup::new(Rung::KeeperSameUid, Place::Child));
    assert_eq!(weakness, serde_json::Value::Null);
}

/// What the service says of it, and what is said of its containment.
fn a_service_kills_its_keeper(setup: Setup) -> (String, serde_json::Value) {
    let mut world = World::new(setup);
    world.adversary("killer", "kill-keeper", IMPATIENT).adversary("bystander", "pause", "");
    let mut supervisor = world.start();
    world.ctl(&["wait", "bystander", "--up"]).ok();
    let bystander = world.status("bystander")["pid"].clone();
    world.ctl(&["start", "killer"]);
    world.wait_log("killer", "ready kill-keeper");
    assert!(supervisor.process.running());
    let weakness = world.status("bystander")["containment_weakness"].clone();
    world.ctl(&["stop", "killer"]).ok();
    assert!(world.marked("kill-keeper").is_empty());
    assert_eq!(world.status("bystander")["pid"], bystander, "nobody else was touched");
    world.assert_no_zombies(&supervisor);
    (world.log("killer"), weakness)
}
