//! What is done to a supervisor: its processes are killed, and its files are taken away or damaged.

use super::fleet::{self, CLOCK, FLEET, PROFILE};
use super::harness::World;
use super::harness::process::Process;
use super::harness::setup::HERMES;
use super::stage::{Stage, send};
use rustix::process::Signal;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

const STATE: &str = "/opt/data/supervisor";

/// One of all.
pub fn any(stage: &mut Stage) {
    match stage.dice.roll(20) {
        0..=5 => killed(stage),
        6 => {
            stage.site.ledger().count("shutdowns");
            stage.end(Signal::TERM);
        }
        7 => kill_one(stage, "hermes-fork-srv", "kills of a fork server"),
        8..=9 => kill_one(stage, "hermes-keeper", "kills of a keeper"),
        10 => kill_a_process(stage),
        11..=12 => stage.follow(),
        13..=15 => damage_logs(stage),
        16 => damage_fifo(stage),
        17 => damage_mirror(stage),
        _ => damage_gateway_state(stage),
    }
}

/// A supervisor that is killed, what of its files is damaged then, and the next ones that are killed while they start.
fn killed(stage: &mut Stage) {
    // Nobody reaches one whose socket is gone, so it goes first.
    let unreachable = stage.dice.roll(6) == 0;
    if unreachable {
        stage.tell("the control socket is taken away");
        let _ = std::fs::remove_file(stage.world.path("/run/hermes-sup/control.sock"));
    }
    stage.site.ledger().count("kills");
    stage.end(Signal::KILL);
    match stage.dice.roll(8) {
        0 => damage_roster(stage),
        1 => remove_sockets(stage),
        2 => stage.pause(200),
        _ => {}
    }
    while stage.dice.roll(3) == 0 {
        stage.interrupted_start();
    }
}

fn kill_one(stage: &mut Stage, name: &str, what: &'static str) {
    let all = stage.called(name);
    if let Some(pid) = all.get(stage.dice.roll(all.len().max(1) as u64) as usize) {
        stage.tell(format_args!("{name} {pid} is killed"));
        stage.site.ledger().count(what);
        send(*pid, Signal::KILL);
    }
}

/// The main process of a service that has no other. What is killed of a larger tree is not replaced while its main process lives.
fn kill_a_process(stage: &mut Stage) {
    let is_all = |process: &Process| {
        let name = fleet::service_of(process);
        name != fleet::PROBING && *fleet::copy_of(&name).end() == 1
    };
    let all: Vec<_> = stage.world.marked("").into_iter().filter(is_all).collect();
    if let Some(process) = all.get(stage.dice.roll(all.len().max(1) as u64) as usize) {
        stage.tell(format_args!("{} is killed", process.command));
        stage.site.ledger().count("kills of a process");
        send(process.outer, Signal::KILL);
    }
}

fn damage_logs(stage: &mut Stage) {
    let name = if stage.dice.roll(2) == 0 {
        CLOCK
    } else {
        FLEET[stage.dice.roll(FLEET.len() as u64) as usize].name
    };
    let dir = stage.world.log_dir(name);
    let how = match stage.dice.roll(4) {
        0 => {
            let _ = std::fs::remove_dir_all(&dir);
            "is removed"
        }
        1 => {
            let _ = std::fs::remove_dir_all(&dir);
            let _ = std::fs::write(&dir, "in the way");
            "is a file"
        }
        2 => {
            let _ = std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o000));
            "is closed"
        }
        _ => {
            let _ = std::fs::remove_file(dir.join("current"));
            let _ = std::fs::create_dir(dir.join("current"));
            "has a directory in the place of its file"
        }
    };
    stage.tell(format_args!("the log directory of {name} {how}"));
    stage.site.ledger().count("damaged log directories");
}

/// The directory of FIFOs, keepers' sockets and the roster.
fn runtime_dirs(world: &World) -> Vec<PathBuf> {
    let dirs = ["/run/hermes-sup", "/dev/shm"].map(|dir| world.path(dir));
    let below = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    below.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    // Their order is no decision of ours.
    files.sort();
    files
}

fn damage_fifo(stage: &mut Stage) {
    let all: Vec<PathBuf> =
        runtime_dirs(&stage.world).iter().flat_map(|dir| files_in(&dir.join("log"))).collect();
    if let Some(fifo) = all.get(stage.dice.roll(all.len().max(1) as u64) as usize) {
        stage.tell(format_args!("{} is removed", fifo.display()));
        stage.site.ledger().count("removed FIFOs");
        let _ = std::fs::remove_file(fifo);
    }
}

/// Those at which keepers wait for the next supervisor.
fn remove_sockets(stage: &mut Stage) {
    // They begin to listen when they notice that the last one is gone.
    stage.pause(100);
    let dirs = runtime_dirs(&stage.world);
    let all: Vec<PathBuf> = dirs.iter().flat_map(|dir| files_in(&dir.join("keepers"))).collect();
    for socket in all {
        if stage.dice.roll(2) == 0 {
            stage.tell(format_args!("{} is removed", socket.display()));
            stage.site.ledger().count("removed sockets of keepers");
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn damage_roster(stage: &mut Stage) {
    stage.site.ledger().count("damaged rosters");
    for roster in runtime_dirs(&stage.world).into_iter().map(|dir| dir.join("roster")) {
        let Ok(mut bytes) = std::fs::read(&roster) else { continue };
        let how = match stage.dice.roll(3) {
            0 => {
                let _ = std::fs::remove_file(&roster);
                "is removed"
            }
            1 => {
                bytes.truncate(stage.dice.roll(bytes.len().max(1) as u64) as usize);
                let _ = std::fs::write(&roster, &bytes);
                "is cut"
            }
            _ => {
                // A record of one life (`containment/succession/record.rs`), or a few of them.
                let from = stage.dice.roll(bytes.len().max(1) as u64) as usize / 512 * 512;
                let until = (from + 512 * (1 + stage.dice.roll(3) as usize)).min(bytes.len());
                bytes[from..until].iter_mut().for_each(|byte| *byte = 1 + stage.dice.roll(255) as u8);
                let _ = std::fs::write(&roster, &bytes);
                "has garbage in it"
            }
        };
        stage.tell(format_args!("the roster {how}"));
    }
}

fn damage_mirror(stage: &mut Stage) {
    let mirror = stage.world.path(&format!("{STATE}/wants"));
    let how = if stage.dice.roll(2) == 0 {
        let _ = std::fs::remove_file(&mirror);
        "is removed"
    } else {
        let _ = std::fs::write(&mirror, "wants\0nothing\n");
        "says nothing"
    };
    stage.tell(format_args!("the mirror of the wants {how}"));
    stage.site.ledger().count("damaged mirrors");
}

/// None of it says what is wanted.
fn damage_gateway_state(stage: &mut Stage) {
    let file = stage.world.path(&format!("{PROFILE}/gateway_state.json"));
    if file.is_dir() {
        let _ = std::fs::remove_dir_all(&file);
    }
    let how = match stage.dice.roll(4) {
        0 => {
            let _ = std::fs::remove_file(&file);
            "is removed"
        }
        1 => {
            let _ = std::fs::write(&file, "{\"desired_state\": \"run");
            "is cut"
        }
        2 => {
            let _ = std::fs::write(&file, [0xff; 64]);
            "is no text"
        }
        _ => {
            let _ = std::fs::remove_file(&file);
            let _ = std::fs::create_dir(&file);
            "is a directory"
        }
    };
    stage.tell(format_args!("gateway_state.json {how}"));
    stage.site.ledger().count("damaged gateway_state.json");
}

/// Whoever looks after the volume has put it in order again.
pub fn repair(world: &World) {
    let state = world.path(&format!("{PROFILE}/gateway_state.json"));
    if state.is_dir() {
        let _ = std::fs::remove_dir_all(&state);
    }
    for member in &FLEET {
        let dir = world.log_dir(member.name);
        if dir.is_file() {
            let _ = std::fs::remove_file(&dir);
        }
        if dir.join("current").is_dir() {
            let _ = std::fs::remove_dir_all(dir.join("current"));
        }
        if dir.is_dir() {
            let _ = std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755));
            let _ = chown(&dir, Some(HERMES), Some(HERMES));
        }
    }
}
