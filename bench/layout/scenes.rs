//! What is recorded: a supervisor with some services on the rungs `cgroup` and `keeper`, as PID 1, from its start to its end.

use super::harness::wait::{self, PATIENCE};
use super::harness::{Place, Rung, Setup, World};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::Duration;

const SERVICES: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];

/// What people and scripts ask for all day.
pub const COMMANDS: [&[&str]; 7] = [
    &["ctl", "status", "s1"],
    &["ctl", "status"],
    &["ctl", "stop", "s1"],
    &["ctl", "start", "s1"],
    &["ctl", "restart", "s2"],
    &["ctl", "list"],
    &["healthcheck"],
];

/// For so long nothing is asked, and the supervisor comes to rest.
const REST: Duration = Duration::from_secs(6);

/// Of the parts, every second is that of a supervisor that has booted.
pub fn is_steady(part: usize) -> bool {
    part % 2 == 1
}

/// `next_part` is called after each boot, and after each end.
pub fn play(next_part: impl Fn()) {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Pid1));
        for name in SERVICES {
            world.adversary(name, &format!("pause {name}"), "");
        }
        let supervisor = world.start();
        for name in SERVICES {
            world.wait_state(name, &["up"]);
        }
        wait::within(REST, Path::new("/"), || None::<()>);
        next_part();
        for _ in 0..2 {
            for command in COMMANDS {
                let words: Vec<&str> = ["/hermes-sup"].iter().chain(command).copied().collect();
                world.inside_answer(&words).ok();
            }
            crash(&world, "s3");
        }
        wait::within(REST, Path::new("/"), || None::<()>);
        crash(&world, "s4");
        supervisor.terminate();
        next_part();
    }
}

/// Kills its process, and waits until another one is up.
fn crash(world: &World, name: &str) {
    let pids = || world.marked(name).into_iter().map(|process| process.outer).collect::<Vec<_>>();
    let before = pids();
    for pid in &before {
        kill_process(Pid::from_raw(*pid).expect("a pid"), Signal::KILL).expect("a kill");
    }
    let another = || pids().iter().any(|pid| !before.contains(pid)).then_some(());
    wait::within(PATIENCE, Path::new("/"), another).expect("another life");
    world.wait_state(name, &["up"]);
}
