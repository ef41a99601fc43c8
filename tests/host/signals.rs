//! Signals to the supervisor, and the children that are nobody's.

use crate::harness::setup::HERMES;
use crate::harness::{End, Place, Rung, Setup, World, process, wait};
use rustix::process::Signal;
use std::time::{Duration, Instant};

crate::on_every_rung!(a_stop_signal_changes_no_want, a_hundred_orphans_leave_no_zombie);

fn a_stop_signal_changes_no_want(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("up", "pause", "").adversary("down", "pause", "");
    let supervisor = world.start();
    world.ctl(&["stop", "down"]).ok();
    world.ctl(&["wait", "up", "--up"]).ok();
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after SIGTERM");
    let _supervisor = world.start();
    world.ctl(&["wait", "up", "--up"]).ok();
    assert_eq!((world.want("up"), world.want("down")), ("up".into(), "down".into()));
    assert_eq!(world.marked("pause").len(), 1);
}

/// Contract: 94.
fn a_hundred_orphans_leave_no_zombie(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("maker", "orphan-maker 100", "");
    let supervisor = world.start();
    world.wait_log("maker", "orphaned");
    world.assert_no_zombies(&supervisor);
    wait::until("only the main process to be left", &world.root, || {
        (world.marked("").len() == 1).then_some(())
    });
}

/// Contract: 97, 101.
#[test]
fn each_stop_signal_shuts_down() {
    for place in [Place::Pid1, Place::Child] {
        // SIGRTMIN+3 is what systemd-aware engines send; the kernel's number with either C library.
        let halt = Signal::from_named_raw(37);
        for signal in [Some(Signal::TERM), Some(Signal::INT), Some(Signal::POWER), halt].into_iter().flatten()
        {
            let mut world = World::new(Setup::new(Rung::Cgroup, place));
            world.adversary("wood", "tree 3", "[stop]\ntimeout = \"50ms\"");
            let mut supervisor = world.start();
            world.wait_log("wood", "ready");
            supervisor.process.signal(signal);
            assert_eq!(supervisor.ends(), End::Code(0), "{signal:?} {place:?}: {}", world.stderr());
            world.assert_no_survivors("after the shutdown");
        }
    }
}

/// A service whose user may signal the supervisor ended the container with `kill 1`: with exit code 0, on which no restart policy
/// acts, and nobody was named.
/// On `pidns` no service sees the supervisor, and what shares its uid on the others may signal nobody outside (Landlock), but
/// where root's definition says otherwise or the kernel cannot do that (`--user`).
#[test]
fn a_service_that_stops_the_container_is_named_and_gives_it_a_code() {
    let mut without_landlock = Setup::new(Rung::KeeperSameUid, Place::Pid1);
    without_landlock.launcher.push("--no-landlock".to_owned());
    let root = "user = \"root\"\n";
    let inherits = "user = \"root\"\n[security]\nno_new_privs = false\ncapabilities = [\"ALL\"]\n";
    for (setup, who) in [
        (Setup::new(Rung::Cgroup, Place::Pid1), root),
        (Setup::new(Rung::CgroupPrivate, Place::Pid1), root),
        (Setup::new(Rung::Keeper, Place::Pid1), inherits),
        (without_landlock, ""),
    ] {
        let shown = format!("{setup:?}");
        let mut world = World::new(setup);
        // The shell's own kill, so that the sender lives while it is looked for; its name is another one by then.
        let command = r#"command = ["/bin/sh", "-c", "kill -TERM 1; exec /adversary pause"]"#;
        world.define("villain", &format!("{command}\nautostart = false\n{who}"));
        let mut supervisor = world.start();
        let answer = world.ctl(&["start", "villain"]);
        assert_eq!(supervisor.ends(), End::Code(128 + 15), "{shown}: {answer:?}\n{}", world.stderr());
        let said = world.stderr();
        assert!(said.contains("of service 'villain': shutting down with exit code 143"), "{shown}: {said}");
        world.assert_no_survivors("after the shutdown");
    }
    // Elsewhere under that uid it has no effect.
    let mut world = World::new(Setup::new(Rung::KeeperSameUid, Place::Pid1));
    world.define(
        "villain",
        r#"command = ["/bin/sh", "-c", "kill -TERM 1 || echo refused; exec /adversary pause"]"#,
    );
    let _supervisor = world.start();
    world.wait_log("villain", "refused");
    assert_eq!(world.state("villain"), "up");
}

#[test]
fn hangup_reloads() {
    let (world, supervisor) = World::started(Setup::plain());
    world.adversary("added", "pause", "");
    supervisor.process.signal(Signal::HUP);
    wait::until("the new service", &world.root, || (world.ctl(&["status", "added"]).code == 0).then_some(()));
}

/// The moment is known: as soon as the process has blocked SIGTERM, which it must do before anything else.
#[test]
fn a_stop_signal_before_the_loop_runs_is_not_lost() {
    for place in [Place::Pid1, Place::Child] {
        for _ in 0..10 {
            let mut world = World::new(Setup::new(Rung::Cgroup, place));
            world.adversary("early", "pause", "");
            let mut supervisor = world.launch();
            supervisor.wait_exec();
            let deadline = Instant::now() + wait::PATIENCE;
            while !blocks_term(supervisor.pid) {
                assert!(Instant::now() < deadline && supervisor.running(), "SIGTERM is never blocked");
                std::thread::yield_now();
            }
            supervisor.signal(Signal::TERM);
            assert_eq!(supervisor.wait(), End::Code(0), "{place:?}: {}", world.stderr());
            world.assert_no_survivors("after an early SIGTERM");
        }
    }
}

fn blocks_term(pid: i32) -> bool {
    let blocked = process::status(pid, "SigBlk").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    blocked.is_some_and(|mask| mask >> (15 - 1) & 1 == 1)
}

#[test]
fn a_second_stop_signal_goes_straight_to_the_kill() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--stop-budget", "1h"]));
    world.adversary("deaf", "tree 10", "[stop]\ntimeout = \"1h\"");
    let mut supervisor = world.start();
    world.wait_log("deaf", "ready");
    supervisor.process.signal(Signal::TERM);
    world.wait_state("deaf", &["stopping"]);
    assert!(supervisor.process.running());
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the second SIGTERM");
}

/// s6 gives everybody together 3 s, always in full. Here there is a budget, and it is over when all have ended.
/// Contract: 97, 98, 110.
#[test]
fn the_stop_budget_cuts_every_timeout_and_the_log_names_who_used_it() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--stop-budget", "500ms"]));
    world.adversary("deaf", "ignore-term", "[stop]\ntimeout = \"1h\"").adversary("good", "pause", "");
    let supervisor = world.start();
    world.wait_log("deaf", "ready");
    world.ctl(&["wait", "good", "--up"]).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    world.assert_no_survivors("after the budget");
    assert!(world.stderr().contains("deaf"), "{}", world.stderr());
}

#[test]
fn what_is_inherited_does_not_harm() {
    let mut setup = Setup::plain();
    setup.launcher = vec!["--sigchld-ignored".into()];
    let mut world = World::new(setup);
    world.adversary("short", "exit 7", "[restart]\npolicy = \"never\"");
    let supervisor = world.start();
    let status = world.wait_state("short", &["failed"]);
    assert_eq!(
        status["last_exit"]["code"],
        serde_json::json!(7),
        "with SIGCHLD ignored there would be no status"
    );
    world.assert_no_zombies(&supervisor);
}

/// As `docker exec … &` leaves it: a process that the supervisor never started falls to it and ends.
/// Contract: 94.
#[test]
fn a_strangers_orphan_is_reaped() {
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Pid1));
    let supervisor = world.start();
    world
        .exec(
            &supervisor,
            HERMES,
            &["/bin/sh", "-c", "(/adversary exit-after 50 0 &) ; (/bin/true &) ; true"],
        )
        .ok();
    world.assert_no_zombies(&supervisor);
    let left = wait::within(Duration::from_secs(10), &world.root, || {
        (world.processes(&supervisor).iter().all(|each| !each.command.contains("exit-after"))).then_some(())
    });
    assert!(left.is_some());
    world.assert_no_zombies(&supervisor);
}
