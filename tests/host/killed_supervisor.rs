//! The supervisor is killed with SIGKILL, and another one takes its place.

use crate::harness::process::context_switches;
use crate::harness::{Dice, End, Place, Rung, Setup, Supervisor, World, wait};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// What is deaf to SIGTERM would keep each end waiting for ten seconds.
const SOON: &str = "[stop]\ntimeout = \"100ms\"";

crate::on_every_rung_as_a_child!(
    a_successor_goes_on_with_what_is_wanted,
    a_stop_that_was_cut_short_is_finished_by_the_successor,
    what_was_taken_over_crashes_like_anything_else,
    an_acknowledged_command_is_never_lost,
);

const STUBBORN: &str = "[stop]\ntimeout = \"1h\"";

fn lock_for_hermes(world: &World) {
    world.write_as_hermes("/opt/data/lock", "");
}

fn a_successor_goes_on_with_what_is_wanted(setup: Setup) {
    let mut world = World::new(setup);
    lock_for_hermes(&world);
    let quick = "[stop]\ntimeout = \"200ms\"";
    world.adversary("wood", "tree 20", quick).adversary("single", "exclusive /opt/data/lock", quick);
    world.adversary("rest", "pause", "autostart = false").adversary("gone", "tree 5", quick);
    world.adversary("clock", "tick 1", quick);
    let mut supervisor = world.start();
    world.wait_log("wood", "ready tree");
    world.wait_log("single", "ready exclusive");
    world.wait_log("gone", "ready tree");
    let pids = |world: &World| ["wood", "single", "clock"].map(|name| world.status(name)["pid"].clone());
    world.ctl(&["wait", "wood", "single", "clock", "gone", "--up"]).ok();
    let before = pids(&world);
    // A definition that is taken away leaves a tree behind all the same.
    std::fs::remove_file(world.path("/etc/hermes-sup/services/gone.toml")).expect("a definition");
    for round in 1..=4 {
        assert_eq!(supervisor.kill(), End::Signal(9));
        // A private mount shows its maker's own cgroup, and no other.
        if round == 2 && world.setup.rung != Rung::CgroupPrivate {
            world.move_to_cgroup("elsewhere");
        }
        // Nobody reads meanwhile what it writes.
        let clock = world.marked("tick").first().expect("the clock").outer;
        let turns = context_switches(clock);
        wait::until("fifty ticks", &world.root, || (context_switches(clock) > turns + 50).then_some(()));
        supervisor = world.start();
        assert_eq!(pids(&world), before, "the same processes, after the {round}. death");
        let ticks = world.log("clock").matches("tick").count();
        world.wait_log_times("clock", "tick", ticks + 5);
    }
    assert_eq!(world.status("wood")["restarts"], json!(0));
    assert_eq!(world.marked("20").len(), 21, "one copy of the tree");
    assert_eq!(world.marked("exclusive").len(), 2);
    assert_eq!(world.marked("5").len(), 0, "what nobody defines any more is ended");
    assert_eq!(world.marked("pause").len(), 0);
    assert_eq!(world.read("/opt/data/lock"), "start\n", "one life");
    // What was taken over is as good as what was started: it is restarted, and ends as a whole.
    world.ctl(&["restart", "wood", "single"]).ok();
    world.wait_log_times("wood", "ready tree", 2);
    world.wait_log_times("single", "ready exclusive", 2);
    assert_eq!(world.marked("20").len(), 21);
    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
    let log = world.log("clock");
    let counted: Vec<u64> =
        log.lines().filter_map(|line| line.rsplit_once("tick ")?.1.trim().parse().ok()).collect();
    assert!(counted.is_sorted_by(|one, next| one < next), "no line twice: {counted:?}");
    // What is in the FIFO at a death is there for the successor. What was on its way from there to the file is lost.
    let lost: Vec<u64> =
        counted.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|lost| *lost > 0).collect();
    assert!(lost.len() <= 4 && lost.iter().all(|lost| *lost < 25), "{lost:?}");
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0));
}

/// Its main process is killed, then its keeper where it has one: neither is a child of the supervisor that has them now.
fn what_was_taken_over_crashes_like_anything_else(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 20", &format!("{SOON}\n[restart]\nbackoff = {{ initial = \"1ms\" }}"));
    let mut supervisor = world.start();
    for round in 1..=2 {
        world.wait_log_times("wood", "ready tree", round);
        world.wait_state("wood", &["up"]);
        supervisor.kill();
        supervisor = world.start();
        let main = world.status("wood")["pid"].as_i64();
        let main = world.marked("tree").into_iter().find(|process| Some(i64::from(process.inner)) == main);
        let main = main.expect("the main process").outer;
        let victim = if round == 1 || world.setup.rung.is_cgroup() { main } else { parent(main) };
        let victim = rustix::process::Pid::from_raw(victim).expect("a pid");
        rustix::process::kill_process(victim, Signal::KILL).expect("a kill");
        world.wait_log_times("wood", "ready tree", round + 1);
        // The count of the round before may have been on its way to the disk.
        assert!(world.wait_state("wood", &["up"])["restarts"].as_u64() >= Some(1));
        assert_eq!(world.marked("tree").len(), 21, "nothing of the life before is left");
    }
    world.ctl(&["stop", "wood"]).ok();
    world.assert_no_survivors("after stop");
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0));
}

/// What a killed supervisor had cloned holds a copy of its socket until it executes: the next one was told that it is served.
#[test]
fn a_socket_of_which_a_copy_is_left_is_served_by_nobody() {
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Child));
    world.prepare();
    std::fs::create_dir(world.path("/run/hermes-sup")).expect("a directory");
    let mut dead = world.run_alone(&["/adversary", "leaves-socket", "/run/hermes-sup/control.sock"]);
    assert_eq!(dead.wait_within(wait::PATIENCE), Some(End::Code(0)));
    UnixStream::connect(world.socket()).expect("a connection: the copy is listened to");
    let refused = world.ctl(&["list"]);
    assert!(refused.err.contains("no supervisor answers"), "{refused:?}");
    let mut supervisor = world.start();
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0));
}

/// Nobody would hear of its end, and nobody end it at its timeout: its keeper ends it, or where there is none the successor, of whose
/// predecessors each had left one.
#[test]
fn a_probe_that_runs_ends_with_its_supervisor() {
    for rung in [Rung::Cgroup, Rung::CgroupPrivate, Rung::Keeper, Rung::KeeperSameUid, Rung::Pidns] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        let probe = format!("[\"/adversary\", \"tree\", \"2\", \"probing\", {:?}]", world.mark);
        let health =
            format!("[health]\nkind = \"exec\"\ncommand = {probe}\ntimeout = \"1h\"\ninterval = \"1h\"");
        world.adversary("web", "pause", &health);
        let supervisor = world.start();
        let probes = |world: &World| (world.marked("probing").len() > 2).then_some(());
        wait::until("a probe", &world.root, || probes(&world));
        let life = world.status("web")["pid"].clone();
        let first: Vec<i32> = world.marked("probing").iter().map(|process| process.outer).collect();
        supervisor.kill();
        if !rung.is_cgroup() {
            wait::until("its end", &world.root, || world.marked("probing").is_empty().then_some(()));
        }
        let mut supervisor = world.start();
        wait::until("its end", &world.root, || {
            let left = world.marked("probing").into_iter().any(|process| first.contains(&process.outer));
            (!left).then_some(())
        });
        wait::until("a probe of the successor", &world.root, || probes(&world));
        assert_eq!(world.status("web")["pid"], life);
        supervisor.process.signal(Signal::TERM);
        assert_eq!(supervisor.ends(), End::Code(0));
        world.assert_no_survivors("after the shutdown");
    }
}

/// What lies in a directory of the supervisor's runtime directory.
fn runtime_files(world: &World, dir: &str) -> Vec<PathBuf> {
    let roots = ["/run/hermes-sup", "/dev/shm"].map(|root| world.path(root));
    let below = |path: &PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let instances: Vec<PathBuf> = roots.iter().flat_map(below).map(|entry| entry.path()).collect();
    instances
        .iter()
        .map(|path| path.join(dir))
        .flat_map(|path| below(&path))
        .map(|entry| entry.path())
        .collect()
}

/// The start was refused on a busy machine, as it had looked too often, and too late.
#[test]
fn keepers_whose_sockets_were_removed_are_ended_and_their_services_begin_anew() {
    for rung in [Rung::Keeper, Rung::KeeperSameUid] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        lock_for_hermes(&world);
        world.adversary("wood", "tree 20", SOON).adversary("single", "exclusive /opt/data/lock", "");
        let supervisor = world.start();
        world.wait_log("wood", "ready tree");
        world.wait_log("single", "ready exclusive");
        supervisor.kill();
        wait::until("keepers that listen", &world.root, || {
            (runtime_files(&world, "keepers").len() == 2).then_some(())
        });
        for socket in runtime_files(&world, "keepers") {
            std::fs::remove_file(socket).expect("a socket");
        }
        let mut supervisor = world.start();
        world.wait_log_times("wood", "ready tree", 2);
        world.wait_log_times("single", "ready exclusive", 2);
        assert_eq!(
            (world.marked("tree").len(), world.marked("exclusive").len()),
            (21, 2),
            "one copy of each"
        );
        assert!(!world.read("/opt/data/lock").contains("OVERLAP"));
        let said =
            "the last supervisor was killed: ended what it left, also what keepers held that do not answer";
        assert_eq!(world.stderr().matches(said).count(), 1, "{}", world.stderr());
        supervisor.process.signal(Signal::TERM);
        assert_eq!(supervisor.ends(), End::Code(0));
        world.assert_no_survivors("after the shutdown");
    }
}

/// Its services were ended, although nobody had taken their definitions away.
#[test]
fn services_whose_definitions_cannot_be_read_go_on_as_they_are() {
    let mut world = World::new(Setup::plain());
    world.adversary("left", "pause left", "").adversary("stopped", "pause stopped", "");
    world.adversary("crashed", "pause crashed", "[restart]\nbackoff = { initial = \"1ms\", max = \"10ms\" }");
    world.adversary("gone", "pause gone", "");
    let supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    // With that the database has what is wanted of the others, too.
    world.ctl(&["stop", "gone"]).ok();
    let pid = world.status("left")["pid"].clone();
    supervisor.kill();
    let services = world.path("/etc/hermes-sup/services");
    let away = services.with_extension("away");
    std::fs::rename(&services, &away).expect("the directory");
    std::fs::write(&services, "in the way").expect("a file");
    let mut supervisor = world.start();
    world.wait_stderr("definitions of services that run cannot be read: they are left running as they are");
    assert_eq!(world.status("left")["pid"], pid);
    world.ctl(&["stop", "stopped"]).ok();
    assert_eq!(world.marked("stopped").len(), 0);
    let crashed = world.marked("crashed").first().expect("it runs").outer;
    let crashed = rustix::process::Pid::from_raw(crashed).expect("a pid");
    rustix::process::kill_process(crashed, Signal::KILL).expect("a kill");
    let reason = || world.status("crashed")["reason"].to_string();
    wait::until("its reason", &world.root, || {
        reason().contains("its definition cannot be read now").then_some(())
    });
    std::fs::remove_file(&services).expect("a file");
    std::fs::rename(&away, &services).expect("the directory");
    world.ctl(&["reload"]).ok();
    world.wait_state("crashed", &["up"]);
    assert_eq!(world.status("left")["pid"], pid);
    assert_eq!(["left", "stopped", "gone"].map(|name| world.want(name)), ["up", "down", "down"]);
    world.ctl(&["restart", "left"]).ok();
    world.ctl(&["start", "stopped"]).ok();
    assert_eq!((world.marked("left").len(), world.marked("stopped").len()), (1, 1));
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0));
}

/// The same of a single file: its service was ended.
#[test]
fn a_service_whose_file_cannot_be_read_goes_on_as_it_is() {
    let mut world = World::new(Setup::plain());
    let file = |name: &str, rest: &str| {
        let argv = ["/adversary", "pause", name, &world.mark];
        world.write_as_hermes(
            &format!("/opt/data/services/{name}.toml"),
            format!("command = {argv:?}\n{rest}"),
        )
    };
    let closed = [file("held", ""), file("many", "instances = 2\n")];
    let removed = file("removed", "");
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        closed.iter().for_each(|path| std::fs::set_permissions(path, mode.clone()).expect("a mode"));
    };
    let supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    // With these commits the database has what is wanted of the others, too.
    for verb in ["stop", "start"] {
        world.ctl(&[verb, "removed"]).ok();
    }
    let all = ["held", "many@1", "many@2"];
    let pids = |world: &World| all.map(|name| world.status(name)["pid"].clone());
    let before = pids(&world);
    supervisor.kill();
    mode(0);
    std::fs::remove_file(removed).expect("a file");
    let mut supervisor = world.start();
    world.wait_stderr("definitions of services that run cannot be read: they are left running as they are");
    assert_eq!(pids(&world), before, "{}", world.stderr());
    assert!(world.marked("removed").is_empty(), "its definition is gone");
    // To look again takes none of them away either.
    world.ctl(&["reload"]).fails(1);
    assert_eq!(pids(&world), before, "{}", world.stderr());
    mode(0o644);
    world.ctl(&["reload"]).ok();
    assert_eq!(pids(&world), before, "{}", world.stderr());
    world.ctl(&[&["restart"], &all[..]].concat()).ok();
    assert!(pids(&world).iter().zip(&before).all(|(now, before)| now != before));
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0));
    world.assert_no_survivors("after the shutdown");
}

/// A successor made new FIFOs and read those, while the service stood still before a full pipe.
#[test]
fn a_service_whose_fifo_was_removed_is_heard_by_a_successor() {
    for rung in [Rung::Cgroup, Rung::Keeper, Rung::KeeperSameUid, Rung::Pidns] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        world.adversary("clock", "tick 1", "");
        let supervisor = world.start();
        world.wait_log_times("clock", "tick", 5);
        let fifos = runtime_files(&world, "log");
        assert_eq!(fifos.len(), 2);
        fifos.iter().for_each(|fifo| std::fs::remove_file(fifo).expect("a FIFO"));
        supervisor.kill();
        let mut supervisor = world.start();
        let ticks = world.log("clock").matches("tick").count();
        world.wait_log_times("clock", "tick", ticks + 50);
        world.ctl(&["restart", "clock"]).ok();
        let ticks = world.log("clock").matches("tick").count();
        world.wait_log_times("clock", "tick", ticks + 50);
        assert_eq!(runtime_files(&world, "log").len(), 2, "those of the next life have names");
        supervisor.process.signal(Signal::TERM);
        assert_eq!(supervisor.ends(), End::Code(0));
    }
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).expect("a parent")
}

fn a_stop_that_was_cut_short_is_finished_by_the_successor(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("wood", "tree 20", STUBBORN);
    let supervisor = world.start();
    world.wait_log("wood", "ready tree");
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| world.ctl(&["stop", "wood"]));
        world.wait_state("wood", &["stopping"]);
        assert_eq!(supervisor.kill(), End::Signal(9));
        assert_ne!(stop.join().expect("the stop").code, 0, "nobody has answered it");
    });
    assert_eq!(world.marked("tree").len(), 21);
    let _successor = world.start();
    world.ctl(&["wait", "wood", "--down"]).ok();
    assert_eq!(world.want("wood"), "down");
    world.assert_no_survivors("once the successor has it down");
}

/// After every single effect of start, restart and stop, and between the steps of a boot, the supervisor is killed once.
fn killed_after_each_effect(rung: Rung) {
    let mut world = World::new(Setup::new(rung, Place::Child));
    lock_for_hermes(&world);
    world.adversary("one", "exclusive /opt/data/lock", "autostart = false\n[stop]\ntimeout = \"50ms\"");
    let start = |world: &mut World, fault: Option<u32>| {
        world.setup.environment.retain(|(key, _)| key != "HERMES_SUP_FAULT");
        let fault = fault.map(|at| ("HERMES_SUP_FAULT".to_owned(), format!("kill@{at}")));
        world.setup.environment.extend(fault);
        world.start_if_it_lives()
    };
    let (mut deaths, mut survived) = (0, 0);
    for at in 1.. {
        // Something is up, so that there is something to take over.
        let supervisor = start(&mut world, None).expect("a supervisor");
        world.ctl(&["start", "one"]).ok();
        supervisor.kill();
        let mut want = "up";
        let mut sure = true;
        let mut living = start(&mut world, Some(at));
        let mut died = living.is_none();
        for (verb, then) in [("restart", "up"), ("stop", "down"), ("start", "up")] {
            let Some(supervisor) = living.as_mut() else { break };
            let answer = world.ctl(&[verb, "one"]);
            if answer.code == 0 {
                want = then;
            } else {
                assert_eq!(supervisor.ends(), End::Signal(9), "{answer:?}");
                (sure, died, living) = (then == want, true, None);
            }
        }
        if let Some(mut supervisor) = living {
            // It may have died after its last answer, or be about to.
            died = !supervisor.process.running();
        }
        deaths += u32::from(died);
        let mut successor = start(&mut world, None).expect("a successor");
        let now = world.want("one");
        assert!(!sure || now == want, "after effect {at}: wanted {want}, recorded {now}");
        let (state, copies) = if now == "up" { ("--up", 2) } else { ("--down", 0) };
        world.ctl(&["wait", "one", state]).ok();
        wait::until("one copy", &world.root, || (world.marked("exclusive").len() == copies).then_some(()));
        assert!(!world.read("/opt/data/lock").contains("OVERLAP"), "two at once after effect {at}");
        world.ctl(&["stop", "one"]).ok();
        world.assert_no_survivors(&format!("after effect {at}"));
        successor.process.signal(Signal::TERM);
        assert_eq!(successor.ends(), End::Code(0));
        survived = if died { 0 } else { survived + 1 };
        if survived == 3 {
            break;
        }
    }
    assert!(deaths > 20, "there are more effects than that: {deaths}");
}

#[test]
fn a_supervisor_killed_after_any_effect_has_a_successor_cgroup() {
    killed_after_each_effect(Rung::Cgroup);
}

#[test]
fn a_supervisor_killed_after_any_effect_has_a_successor_keeper() {
    killed_after_each_effect(Rung::Keeper);
}

fn an_acknowledged_command_is_never_lost(setup: Setup) {
    const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
    let seed = u64::from(std::process::id()) << 16 | 1;
    println_seed(seed);
    let mut dice = Dice::new(seed);
    let mut world = World::new(setup);
    for name in NAMES {
        world.adversary(name, &format!("pause {name}"), "autostart = false");
    }
    let mut acknowledged = ["down"; 3];
    let mut supervisor: Supervisor = world.start();
    for round in 0..6 {
        for _ in 0..dice.roll(5) {
            let which = dice.roll(3) as usize;
            let verb = ["start", "stop"][dice.roll(2) as usize];
            if world.ctl(&[verb, NAMES[which]]).code == 0 {
                acknowledged[which] = if verb == "start" { "up" } else { "down" };
            }
        }
        // One more is under way when the supervisor dies: it may count or not, but wholly.
        let which = dice.roll(3) as usize;
        let verb = ["start", "stop"][dice.roll(2) as usize];
        let answer = std::thread::scope(|scope| {
            let cut = scope.spawn(|| world.ctl(&[verb, NAMES[which]]));
            if dice.roll(2) == 0 {
                wait::within(std::time::Duration::from_millis(dice.roll(6)), &world.root, || None::<()>);
            }
            supervisor.kill();
            cut.join().expect("ctl")
        });
        supervisor = world.start();
        for (name, expected) in NAMES.iter().zip(acknowledged) {
            let want = world.want(name);
            if *name == NAMES[which] && answer.code != 0 {
                continue;
            }
            let expected = match verb {
                _ if *name != NAMES[which] => expected,
                "start" => "up",
                _ => "down",
            };
            assert_eq!(want, expected, "{name} in round {round}, seed {seed}: {answer:?}");
        }
        for (index, name) in NAMES.iter().enumerate() {
            acknowledged[index] = if world.want(name) == "up" { "up" } else { "down" };
            let state = if acknowledged[index] == "up" { "--up" } else { "--down" };
            world.ctl(&["wait", name, state]).ok();
            let copies = world.marked(name).len();
            assert_eq!(
                copies,
                usize::from(acknowledged[index] == "up"),
                "{name} in round {round}, seed {seed}"
            );
        }
    }
}

#[allow(clippy::disallowed_macros, reason = "the test harness captures it and shows it on failure")]
fn println_seed(seed: u64) {
    println!("seed {seed}");
}

/// A child between its fork and its exec holds copies of all our descriptors, the lock of the state among them: it ends
/// by itself as soon as its supervisor is gone, and the successor must not take that moment for another supervisor.
#[test]
fn a_supervisor_killed_while_it_spawns_leaves_no_obstacle() {
    let mut world = World::new(Setup::plain());
    for count in 0..20 {
        world.adversary(&format!("s{count}"), "pause", "autostart = false");
    }
    for round in 0..15 {
        let supervisor = world.start();
        std::thread::scope(|scope| {
            let cut = scope.spawn(|| world.ctl(&["restart", "--all"]));
            wait::until("the first of them", &world.root, || {
                (world.marked("pause").len() > round).then_some(())
            });
            supervisor.kill();
            cut.join().expect("ctl");
        });
    }
    let _supervisor = world.start();
}

/// `docker kill` and `docker start`: the namespace dies with PID 1.
#[test]
fn a_killed_container_starts_again_with_what_was_wanted() {
    for rung in [Rung::Cgroup, Rung::CgroupPrivate, Rung::Pidns, Rung::Keeper, Rung::KeeperSameUid] {
        let mut world = World::new(Setup::new(rung, Place::Pid1));
        world.adversary("up", "tree 5", "").adversary("down", "pause", "");
        let supervisor = world.start();
        world.wait_log("up", "ready tree");
        world.ctl(&["stop", "down"]).ok();
        assert_eq!(supervisor.kill(), End::Signal(9));
        world.assert_no_survivors("the kernel ends them with PID 1");
        let _supervisor = world.start();
        world.wait_log_times("up", "ready tree", 2);
        assert_eq!(world.marked("tree").len(), 6);
        assert_eq!(world.status("down")["want"], json!("down"));
        assert_eq!(world.marked("pause").len(), 0);
    }
}
