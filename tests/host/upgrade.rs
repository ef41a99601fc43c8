//! The supervisor becomes another program, on order or after a bug, and no service notices.

use crate::harness::process::descriptors_but_of_logs;
use crate::harness::setup::ALICE;
use crate::harness::{End, Place, Rung, Setup, Supervisor, World, wait};
use rustix::process::Signal;
use serde_json::json;

crate::on_every_rung!(
    an_upgrade_is_noticed_by_nobody,
    a_bug_is_survived_by_every_service,
    what_runs_beside_a_service_is_no_burden_to_an_upgrade,
);

const QUICK: &str = "[stop]\ntimeout = \"100ms\"";

/// When its present program began, as the kernel knows it: the place of its stack (proc_pid_stat(5)).
fn image(supervisor: &Supervisor) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", supervisor.pid())).expect("its line");
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(25))
        .expect("startstack")
        .to_owned()
}

/// Writes to a FIFO that a process of the world makes and reads.
fn tell(world: &World, fifo: &str, text: &str) {
    let fifo = world.path(fifo);
    wait::until("the fifo", &world.root, || fifo.exists().then_some(()));
    std::fs::write(fifo, text).expect("a reader");
}

#[track_caller]
fn assert_counted(world: &World, service: &str) {
    let log = world.log(service);
    let counted: Vec<u64> =
        log.lines().filter_map(|line| line.rsplit_once("tick ")?.1.trim().parse().ok()).collect();
    let expected: Vec<u64> = (1..=counted.len() as u64).collect();
    assert_eq!(counted, expected, "every line once, in order");
}

/// A probe that hangs is ended, a hook has its time.
fn what_runs_beside_a_service_is_no_burden_to_an_upgrade(setup: Setup) {
    let mut world = World::new(setup);
    let mark = world.mark.clone();
    let probe = format!("[\"/adversary\", \"tree\", \"2\", \"probing\", {mark:?}]");
    let asked =
        format!("[health]\nkind = \"exec\"\ncommand = {probe}\ntimeout = \"1h\"\ninterval = \"1h\"\n{QUICK}");
    world.adversary("asked", "pause", &asked);
    let hook =
        "[\"/bin/sh\", \"-c\", \"echo begun; while ! test -e /tmp/go; do sleep 0.01; done; echo done\"]";
    world.adversary("hooked", "pause", &format!("[hooks]\npost_start = {hook}\n{QUICK}"));
    let supervisor = world.start();
    wait::until("the probe", &world.root, || (world.marked("probing").len() > 2).then_some(()));
    world.wait_log("hooked", "begun");
    let pids = |world: &World| ["asked", "hooked"].map(|name| world.status(name)["pid"].clone());
    let before = pids(&world);
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| world.ctl(&["upgrade"]));
        wait::until("the end of the probe", &world.root, || world.marked("probing").is_empty().then_some(()));
        world.write("/tmp/go", "");
        assert_eq!(upgrade.join().expect("an answer").ok(), "upgraded\n");
    });
    assert_eq!(pids(&world), before);
    world.wait_log("hooked", "done");
    world.wait_stderr("hooked: its hook post_start has run");
    // It is asked anew.
    wait::until("the probe", &world.root, || (world.marked("probing").len() > 2).then_some(()));
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}

fn an_upgrade_is_noticed_by_nobody(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 20", QUICK).adversary("clock", "tick 1", QUICK);
    let command = [
        "/bin/sh",
        "-c",
        "mkfifo /tmp/go; printf begun; read -r x </tmp/go; echo \" and done\"; exec sleep 1000",
        &world.mark,
    ];
    world.define("writer", &format!("command = {command:?}\n{QUICK}"));
    world.adversary("rest", "pause", "autostart = false");
    world.define("once", "command = [\"/bin/true\"]\ntype = \"oneshot\"");
    let mut supervisor = world.start();
    world.wait_log("wood", "ready tree");
    world.ctl(&["wait", "clock", "writer", "--up"]).ok();
    let pids = |world: &World| ["wood", "clock", "writer"].map(|name| world.status(name)["pid"].clone());
    let before = pids(&world);
    let done = world.wait_state("once", &["finished"])["last_exit"].clone();
    let pid = supervisor.pid();
    std::thread::scope(|scope| {
        let world = &world;
        let waiting = scope.spawn(|| world.ctl(&["wait", "rest", "wood", "--up"]));
        let mut open = None;
        for round in 0..4 {
            let image_before = image(&supervisor);
            assert_eq!(world.ctl(&["upgrade"]).ok(), "upgraded\n");
            assert_ne!(image(&supervisor), image_before, "it is another image");
            assert_eq!(pids(world), before, "round {round}");
            assert_eq!(world.status("once")["last_exit"], done, "what is done is not done again");
            let ticks = world.log("clock").matches("tick").count();
            world.wait_log_times("clock", "tick", ticks + 10);
            // Of the log files only those are open that were written to, which is the clock's each time.
            let open = *open.get_or_insert_with(|| descriptors_but_of_logs(pid));
            wait::until("no more descriptors", &world.root, || {
                (descriptors_but_of_logs(pid) <= open).then_some(())
            });
        }
        assert_eq!(supervisor.pid(), pid);
        assert!(!waiting.is_finished(), "nobody has told it yet");
        world.ctl(&["start", "rest"]).ok();
        assert_eq!(waiting.join().expect("a caller").ok(), "wood: up\nrest: up\n");
    });
    // Nobody can know when it has been read, but that it has not been in the file yet.
    assert!(!world.log("writer").contains("begun"));
    tell(&world, "/tmp/go", "x\n");
    world.wait_log("writer", "begun and done");
    for name in ["wood", "clock", "writer"] {
        assert_eq!(world.status(name)["restarts"], json!(0));
    }
    assert_eq!(world.marked("20").len(), 21);
    world.ctl(&["restart", "wood"]).ok();
    world.wait_log_times("wood", "ready tree", 2);
    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
    world.assert_no_zombies(&supervisor);
    assert_counted(&world, "clock");
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
}

/// Somebody broke the file of a service that was up, and upgraded: the next supervisor did not know the service, and ended it.
#[test]
fn an_upgrade_that_would_end_a_service_is_refused() {
    let mut world = World::new(Setup::plain());
    world.adversary("clock", "tick 1", QUICK);
    let _supervisor = world.start();
    world.ctl(&["wait", "clock", "--up"]).ok();
    let pid = world.status("clock")["pid"].clone();
    world.define("clock", "command = [");
    let refused = world.ctl(&["upgrade"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("'clock' is up and would be ended"), "{refused:?}");
    assert!(refused.err.contains("/etc/hermes-sup/services/clock.toml:1:"), "{refused:?}");
    assert_eq!(world.status("clock")["pid"], pid);
    world.adversary("clock", "tick 1", QUICK);
    assert_eq!(world.ctl(&["upgrade"]).ok(), "upgraded\n");
    assert_eq!(world.status("clock")["pid"], pid);
}

fn a_bug_is_survived_by_every_service(setup: Setup) {
    let mut world = World::new(setup.env("HERMES_SUP_FAULT", "panic@60"));
    world.adversary("wood", "tree 20", QUICK).adversary("clock", "tick 1", QUICK);
    world.adversary("other", "pause", "autostart = false");
    let mut supervisor = world.start();
    world.wait_log("wood", "ready tree");
    world.ctl(&["wait", "clock", "wood", "--up"]).ok();
    let pids = |world: &World| ["wood", "clock"].map(|name| world.status(name)["pid"].clone());
    let (before, pid) = (pids(&world), supervisor.pid());
    // Effects, until there were as many as it takes.
    wait::until("the bug", &world.root, || {
        world.ctl(&["restart", "other"]);
        world.stderr().contains("asked for by HERMES_SUP_FAULT").then_some(())
    });
    wait::until("an answer", &world.root, || (world.ctl(&["list"]).code == 0).then_some(()));
    assert_eq!((pids(&world), supervisor.pid()), (before, pid));
    assert_eq!(world.status("wood")["restarts"], json!(0));
    world.ctl(&["wait", "other", "--up"]).ok();
    assert_eq!(world.marked("pause").len(), 1, "one copy of what was being restarted");
    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
    assert_counted(&world, "clock");
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
}

/// The main program is our child before and after, with its terminal, and its code is the container's.
#[test]
fn the_main_program_goes_on_and_its_code_is_the_containers() {
    let command = ["/bin/sh", "-c", "mkfifo /tmp/code; read -r code </tmp/code; exit $code"];
    let mut world = World::new(Setup::plain().main_program(&command));
    world.adversary("wood", "tree 5", QUICK);
    let mut supervisor = world.start();
    world.wait_log("wood", "ready tree");
    world.ctl(&["upgrade"]).ok();
    world.ctl(&["upgrade"]).ok();
    tell(&world, "/tmp/code", "7\n");
    assert_eq!(supervisor.ends(), End::Code(7), "{}", world.stderr());
    world.assert_no_survivors("after its end");
}

/// A bug on the way out: it ends all the same, with the code that it had.
#[test]
fn a_bug_in_the_middle_of_a_shutdown_does_not_stop_it() {
    for at in 30..36 {
        let fault = format!("panic@{at}");
        let mut world = World::new(Setup::plain().env("HERMES_SUP_FAULT", &fault));
        world.adversary("wood", "tree 5", "[stop]\ntimeout = \"50ms\"").adversary("one", "pause", QUICK);
        let mut supervisor = world.start();
        world.ctl(&["wait", "--all", "--up"]).ok();
        world.ctl(&["shutdown", "--code", "5"]).ok();
        assert_eq!(supervisor.ends(), End::Code(5), "{fault}: {}", world.stderr());
        world.assert_no_survivors("after the shutdown");
    }
}

/// Again and again the same bug: nothing is supervised any more, and nothing is left over.
#[test]
fn a_bug_that_comes_back_each_time_ends_everything() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Pid1).env("HERMES_SUP_FAULT", "panics@40"));
        world.adversary("wood", "tree 5", QUICK).adversary("forest", "tree 5", QUICK);
        let mut supervisor = world.start();
        wait::until("the last bug", &world.root, || {
            world.ctl(&["restart", "--all"]);
            (!supervisor.process.running()).then_some(())
        });
        assert_eq!(supervisor.ends(), End::Code(101), "{}", world.stderr());
        assert!(world.stderr().contains("nothing is supervised any more"), "{}", world.stderr());
        world.assert_no_survivors("after the last bug");
    }
}

#[test]
fn what_is_no_supervisor_is_not_become() {
    let mut world = World::new(Setup::plain());
    world.adversary("one", "pause", QUICK).adversary("stubborn", "tree 3", "[stop]\ntimeout = \"300ms\"");
    let supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    let before = image(&supervisor);
    for (program, why) in [
        ("/nonexistent", "No such file"),
        ("/etc/hermes-sup", "directory"),
        ("/etc/hermes-sup/services/one.toml", "not a program for this machine"),
        ("/bin/true", "does not say that it is a hermes-sup"),
    ] {
        let answer = world.ctl(&["upgrade", program]);
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(answer.err.contains(program) && answer.err.contains(why), "{answer:?}");
    }
    assert_eq!(image(&supervisor), before);
    let alice = world.ctl_as(&supervisor, ALICE, &["upgrade"]);
    assert_eq!(alice.code, 6, "{alice:?}");
    // What is under way comes to its end first, and what is asked meanwhile is answered by the next one.
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| world.ctl(&["stop", "stubborn"]));
        world.wait_state("stubborn", &["stopping"]);
        let upgrade = scope.spawn(|| world.ctl(&["upgrade"]));
        wait::until("the upgrade", &world.root, || {
            world.stderr().contains("upgrade asked for").then_some(())
        });
        world.ctl(&["restart", "one"]).ok();
        stop.join().expect("the stop").ok();
        upgrade.join().expect("the upgrade").ok();
    });
    assert_ne!(image(&supervisor), before);
    assert_eq!(world.status("stubborn")["state"], json!("down"));
}

/// Adoption and upgrades in turn: nothing comes twice, nothing is left over, nothing grows.
#[test]
fn a_hundred_services_outlive_many_supervisors() {
    let rounds = std::env::var("HERMES_SUP_CYCLES").ok().and_then(|count| count.parse().ok()).unwrap_or(6);
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(270);
        let mut world = World::new(Setup::new(rung, Place::Child));
        let services = if rounds > 100 { 10 } else { 100 };
        for number in 0..services {
            world.adversary(&format!("s{number}"), "pause", "");
        }
        world.adversary("clock", "tick 5", "");
        let mut supervisor = world.start();
        world.ctl(&["wait", "--all", "--up"]).ok();
        let pids = |world: &World| {
            let document = world.ctl(&["--json", "status"]).json();
            let services = document["services"].as_array().cloned().unwrap_or_default();
            services
                .into_iter()
                .map(|service| (service["pid"].clone(), service["restarts"].clone()))
                .collect::<Vec<_>>()
        };
        let before = pids(&world);
        let processes = world.marked("").len();
        world.ctl(&["upgrade"]).ok();
        let who = descriptors_but_of_logs(supervisor.pid());
        let mut done = 0;
        while done < rounds && std::time::Instant::now() < deadline {
            if done % 2 == 0 {
                world.ctl(&["upgrade"]).ok();
            } else {
                assert_eq!(supervisor.kill(), End::Signal(9));
                supervisor = world.start();
            }
            done += 1;
            if done % 100 == 0 || rounds < 100 {
                assert_eq!(pids(&world), before, "{rung:?}, round {done}");
            }
        }
        println_rounds(rung, done);
        assert_eq!(pids(&world), before, "{rung:?}");
        assert_eq!(world.marked("").len(), processes, "{rung:?}");
        // A main process that is not our child is watched by one more than a child is, on `cgroup`.
        world.ctl(&["upgrade"]).ok();
        let more = if rung == Rung::Cgroup { services + 1 } else { 0 };
        wait::until("no more descriptors than before", &world.root, || {
            (descriptors_but_of_logs(supervisor.pid()) <= who + more).then_some(())
        });
        world.ctl(&["stop", "--all"]).ok();
        world.assert_no_survivors("after all");
        supervisor.process.signal(Signal::TERM);
        assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
        for place in ["/run/hermes-sup", "/dev/shm"] {
            let left = std::fs::read_dir(world.path(place)).expect("a directory").count();
            assert_eq!(left, 0, "{place}: FIFOs, sockets and rosters go with the supervisor");
        }
    }
}

#[allow(clippy::disallowed_macros, reason = "the test harness captures it and shows it on demand")]
fn println_rounds(rung: Rung, rounds: usize) {
    println!("{rung:?}: {rounds} upgrades and adoptions");
}

/// A service was taken over with the definition of its start, and the one on disk had been changed meanwhile: nothing said so,
/// `reload --restart` found nothing to do, and the old definition ran on.
#[test]
fn what_was_taken_over_is_known_to_be_outdated() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        world.adversary("web", "pause", "").adversary("same", "pause", "");
        let mut supervisor = world.start();
        world.ctl(&["wait", "--all", "--up"]).ok();
        let before = world.status("web")["pid"].clone();
        let outdated = json!("its changed definition is not in force: restart it");
        world.adversary("web", "pause", "umask = \"0077\"\n");
        for way in ["killed", "upgraded", "killed"] {
            if way == "killed" {
                assert_eq!(supervisor.kill(), End::Signal(9));
                supervisor = world.start();
            } else {
                world.ctl(&["upgrade"]).ok();
            }
            let status = world.status("web");
            assert_eq!((&status["pid"], &status["reason"]), (&before, &outdated), "{rung:?}, {way}");
            assert_eq!(world.status("same")["reason"], json!(null), "{rung:?}, {way}");
        }
        let told = world.ctl(&["reload", "--restart"]).ok();
        assert_eq!(told, "web: changed: restarting\n", "{rung:?}");
        wait::until("its new life", &world.root, || (world.status("web")["pid"] != before).then_some(()));
        let status = world.wait_state("web", &["up"]);
        assert_eq!(status["reason"], json!(null), "{rung:?}: {status}");
    }
}
