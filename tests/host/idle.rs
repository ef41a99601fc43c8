//! Costs nothing, loses nothing: the supervisor at rest, and after a thousand services have come and gone.
//!
//! Rest is measured by the kernel's count of context switches of all its threads: a thread that makes a system call
//! that waits, or is woken, adds to it. A window of time is what is measured here, so here alone time is waited for,
//! on a descriptor that never becomes readable.

use crate::harness::{Place, Rung, Setup, Supervisor, World, process, wait};
use std::os::fd::AsFd;
use std::time::Duration;

/// Lets `span` pass.
fn let_pass(span: Duration) {
    let (never, _held) = rustix::pipe::pipe().expect("a pipe");
    assert!(!wait::readable(never.as_fd(), span));
}

/// After some windows to settle in (what is written late is written by then), one more without a single wake-up of any
/// of these supervisors.
#[track_caller]
fn assert_idle(supervisors: &[&Supervisor]) {
    let pids = || supervisors.iter().map(|supervisor| supervisor.pid());
    let switches = || -> Vec<u64> { pids().map(process::context_switches).collect() };
    let rests = |span| {
        let before = switches();
        let_pass(span);
        before == switches()
    };
    let settled = (0..10).any(|_| rests(Duration::from_millis(2500)));
    assert!(settled, "never at rest");
    assert!(
        rests(Duration::from_secs(2)),
        "wakes up while nothing happens: {:#?}",
        pids().map(process::threads).collect::<Vec<_>>()
    );
}

#[test]
fn nothing_happens_while_nothing_happens() {
    let rungs = [Rung::Cgroup, Rung::CgroupPrivate, Rung::Pidns, Rung::Keeper, Rung::KeeperSameUid];
    // All at once, for what takes its time here is the windows.
    let scenes = rungs.map(|rung| {
        let mut world = World::new(Setup::new(rung, Place::Pid1));
        for count in 0..10 {
            world.adversary(&format!("quiet-{count}"), "pause", "");
        }
        world.adversary("mute", "closes-stdout", "").adversary("holder", "holds-fds 50", "");
        world.adversary("resting", "exit 1", "[restart]\nbackoff = { initial = \"1h\", max = \"1h\" }");
        let supervisor = world.start();
        world.wait_log("mute", "ready");
        world.wait_log("holder", "ready");
        world.wait_state("resting", &["backoff"]);
        // A client that has connected and says nothing is no work either.
        let silent = std::os::unix::net::UnixStream::connect(world.socket()).expect("a connection");
        (supervisor, world, silent)
    });
    assert_idle(&scenes.each_ref().map(|(supervisor, ..)| supervisor));
    for (supervisor, world, _) in &scenes {
        let is_server =
            |pid: &i32| process::status(*pid, "Name").is_some_and(|name| name == "hermes-fork-srv");
        let all = world.processes(supervisor).into_iter().map(|process| process.outer);
        let servers: Vec<i32> = all.filter(is_server).collect();
        assert_eq!(servers.len(), 1, "one fork server: {servers:?}");
        // 2.7 MB in a debug build.
        let private = process::anonymous_kb(servers[0]) + process::anonymous_kb(supervisor.pid());
        assert!(private <= 4096, "{private} kB of private memory for a dozen services");
    }
}

/// Counts that must come back to where they were.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    descriptors: usize,
    cgroups: usize,
    processes: usize,
}

fn footprint(world: &World, supervisor: &Supervisor) -> Footprint {
    Footprint {
        descriptors: process::descriptors(supervisor.pid()),
        cgroups: world.cgroups().len(),
        processes: world.processes(supervisor).len(),
    }
}

/// A directory's removal is tried again while the kernel still holds it, so the last ones go a moment after `stop`.
#[track_caller]
fn assert_footprint(world: &World, supervisor: &Supervisor, before: &Footprint) {
    let back =
        wait::within(wait::PATIENCE, &world.root, || (footprint(world, supervisor) == *before).then_some(()));
    assert!(back.is_some(), "{:?}, but before {before:?}", footprint(world, supervisor));
}

/// The footprint once no directory of a service is left.
fn settled_footprint(world: &World, supervisor: &Supervisor) -> Footprint {
    wait::until("the cgroups to be removed", &world.root, || (world.cgroups().len() <= 2).then_some(()));
    footprint(world, supervisor)
}

#[test]
fn a_thousand_services_start_rest_and_stop() {
    const SERVICES: usize = 1000;
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Pid1));
    for count in 0..SERVICES {
        world.adversary(&format!("s{count}"), "pause", "autostart = false");
    }
    let supervisor = world.start();
    let before = footprint(&world, &supervisor);
    let minute = Duration::from_secs(60);
    world.ctl_within(minute, &["start", "--all"]).ok();
    assert_eq!(world.marked("pause").len(), SERVICES);
    let used = process::descriptors(supervisor.pid()) - before.descriptors;
    // Beside three for each service a bounded number of log files is kept open.
    assert!(used <= 3 * SERVICES + 128, "at most three descriptors a service: {used}");
    assert_idle(&[&supervisor]);
    let memory = process::anonymous_kb(supervisor.pid());
    // Nine thousand with the allocator of this build, and the thousand events that are remembered.
    assert!(memory <= 11 * SERVICES as u64, "{memory} kB for {SERVICES} services");
    world.ctl_within(minute, &["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
    world.assert_no_zombies(&supervisor);
    let first = settled_footprint(&world, &supervisor);
    assert!(
        first.descriptors <= before.descriptors + 2 * SERVICES + 128,
        "what is stopped keeps its FIFOs at most"
    );
    let mut memory = 0;
    for round in 2..=6 {
        world.ctl_within(minute, &["start", "--all"]).ok();
        world.ctl_within(minute, &["stop", "--all"]).ok();
        assert_footprint(&world, &supervisor, &first);
        // The first rounds fill buffers and caches; from then on it must not grow.
        let now = process::anonymous_kb(supervisor.pid());
        if round <= 3 {
            memory = now;
        }
        assert!(now <= memory + 1024, "{now} kB in round {round}, {memory} kB in round 3");
    }
}

#[test]
fn ten_rounds_leak_nothing_on_cgroup() {
    ten_rounds_leak_nothing(Rung::Cgroup);
}

#[test]
fn ten_rounds_leak_nothing_on_keeper() {
    ten_rounds_leak_nothing(Rung::Keeper);
}

fn ten_rounds_leak_nothing(rung: Rung) {
    let mut world = World::new(Setup::new(rung, Place::Pid1));
    for count in 0..50 {
        world.adversary(&format!("s{count}"), "pause", "autostart = false");
    }
    let supervisor = world.start();
    let round = || {
        world.ctl(&["start", "--all"]).ok();
        world.ctl(&["restart", "--all"]).ok();
        world.ctl(&["stop", "--all"]).ok();
        world.assert_no_zombies(&supervisor);
        process::anonymous_kb(supervisor.pid())
    };
    // Two rounds to fill what is kept on purpose: caches, restart history, the allocator's lists.
    round();
    let memory = round();
    let before = settled_footprint(&world, &supervisor);
    let mut last = memory;
    for _ in 0..8 {
        last = round();
        assert_footprint(&world, &supervisor, &before);
    }
    assert!(last <= memory + 512, "memory grows: {memory} kB, then {last} kB");
}
