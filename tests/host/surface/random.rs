//! Slots that come and go in any order, while the tools of s6 are called: services are what slots there are.

use super::{services, setup};
use crate::harness::setup::HERMES;
use crate::harness::{Answer, Dice, End, Place, Rung, World, wait};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

const SLOTS: [&str; 5] = ["gateway-a", "gateway-b", "c", "d", "e"];
const RUNS: [&str; 5] = [
    "exec /adversary pause MARK",
    "exec /adversary tree 3 MARK",
    "exec /adversary leave-remains 0 MARK",
    "exit 1",
    "exit 0",
];
const FINISHES: [&str; 4] =
    ["exit 0", "exit 125", "exec /adversary pause MARK", "/adversary tree 2 MARK & exit 0"];

/// A slot comes, whole, under its name; not when there is one.
fn appear(world: &World, dice: &mut Dice, name: &str, thread: u64) {
    let scan = world.path("/run/service");
    let building = scan.join(format!(".{name}.{thread}"));
    let program = |file: &str, text: &str| {
        let path = building.join(file);
        std::fs::write(&path, format!("#!/bin/sh\n{}\n", text.replace("MARK", &world.mark))).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
    };
    // What a removal has left that was disturbed by a reading.
    let _ = std::fs::remove_dir_all(&building);
    std::fs::create_dir(&building).expect("a directory");
    program("run", dice.pick(&RUNS));
    if dice.pick(&[true, false]) {
        program("finish", dice.pick(&FINISHES));
        std::fs::write(building.join("timeout-finish"), "100").expect("a file");
    }
    std::fs::write(building.join("timeout-kill"), "100").expect("a file");
    if dice.pick(&[true, false]) {
        std::fs::write(building.join("down"), "").expect("a file");
    }
    for entry in std::fs::read_dir(&building).expect("a directory").flatten() {
        chown(entry.path(), Some(HERMES), Some(HERMES)).expect("an owner");
    }
    chown(&building, Some(HERMES), Some(HERMES)).expect("an owner");
    if std::fs::rename(&building, scan.join(name)).is_err() {
        std::fs::remove_dir_all(&building).expect("it is ours");
    }
}

fn disappear(world: &World, dice: &mut Dice, name: &str, thread: u64) {
    let slot = world.path(&format!("/run/service/{name}"));
    let aside = slot.with_file_name(format!(".{name}.{thread}"));
    // Piece by piece, as `rm -r` does it, or at once.
    let going = if dice.pick(&[true, false]) {
        slot
    } else {
        std::fs::rename(&slot, &aside).map_or(slot, |()| aside)
    };
    let _ = std::fs::remove_dir_all(going);
}

/// A tool of s6 from outside the world, which is faster, without a look at what it says.
fn tool(world: &World, name: &str, words: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hermes-sup"));
    command.arg0(name).args(words).env_clear().env("HERMES_SUP_SOCKET", world.socket());
    Answer::of(command, wait::PATIENCE)
}

fn random_steps(world: &World, seed: u64, thread: u64) {
    let mut dice = Dice::new(seed + thread);
    for _ in 0..14 {
        let name = dice.pick(&SLOTS);
        let slot = format!("/run/service/{name}");
        match dice.pick(&[0, 0, 0, 1, 1, 2, 3, 4, 4, 4]) {
            0 => appear(world, &mut dice, name, thread),
            1 => disappear(world, &mut dice, name, thread),
            2 => drop(tool(world, "s6-svscanctl", &["-a", "/run/service"])),
            3 => drop(tool(world, "s6-svscanctl", &["-an", "/run/service"])),
            _ => {
                drop(tool(world, "s6-svc", &[dice.pick(&["-u", "-d", "-o", "-r", "-k", "-t", "-uk"]), &slot]))
            }
        }
    }
}

// The test's own output is what a failure is repeated with.
#[allow(clippy::disallowed_macros)]
fn slots_are_services_and_nothing_else_is(rung: Rung) {
    let seed = std::env::var("SURFACE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260);
    println!("SURFACE_SEED={seed}");
    let mut world = World::new(setup(rung, Place::Pid1).main_program(&["/adversary", "hold"]));
    // A gateway has 75 s to end, and these do not obey.
    let template =
        "command = [\"hermes\", \"gateway\", \"run\"]\n[stop]\ntimeout = \"100ms\"\n[ready]\nkind = \"none\"";
    world.define("gateway", template);
    let supervisor = world.start();
    let idle = (world.processes(&supervisor).len(), world.cgroups());
    let agree = |expected: &[&str]| {
        let mut expected: Vec<&str> =
            expected.iter().map(|name| name.trim_start_matches("gateway-")).collect();
        expected.sort_unstable();
        wait::within(wait::PATIENCE, &world.path("/run/service"), || {
            (services(&world) == expected).then_some(())
        })
        .unwrap_or_else(|| {
            panic!("slots {expected:?}, services:\n{}\n{}", world.ctl(&["status"]).out, world.stderr())
        });
    };
    for round in 0..3 {
        std::thread::scope(|scope| {
            let world = &world;
            for thread in 0..3 {
                scope.spawn(move || random_steps(world, seed + 1000 * round, thread));
            }
        });
        tool(&world, "s6-svscanctl", &["-an", "/run/service"]).ok();
        let there = |name: &&str| world.path(&format!("/run/service/{name}")).exists();
        agree(&SLOTS.into_iter().filter(there).collect::<Vec<_>>());
    }
    for name in SLOTS {
        let _ = std::fs::remove_dir_all(world.path(&format!("/run/service/{name}")));
    }
    tool(&world, "s6-svscanctl", &["-an", "/run/service"]).ok();
    agree(&[]);
    world.assert_no_survivors("of slots that are gone");
    wait::until("the cgroups of nobody", &world.root, || (world.cgroups() == idle.1).then_some(()));
    wait::until("processes of nobody", &world.root, || {
        (world.processes(&supervisor).len() == idle.0).then_some(())
    });
    assert_eq!(supervisor.terminate(), End::Code(0));
}

#[test]
fn slots_are_services_on_cgroups() {
    slots_are_services_and_nothing_else_is(Rung::Cgroup);
}

#[test]
fn slots_are_services_under_keepers() {
    slots_are_services_and_nothing_else_is(Rung::Keeper);
}
