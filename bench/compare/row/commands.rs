//! What happens to one service among N, and commands for all N: `crash-one`, `status`, `command-stop`, `command-start`,
//! `status-all`, `stop-all`, `start-all`.
//!
//! A command is timed whole, as a person types it, until it says that the service is stopped or started. Of the peers only
//! hermes-sup has stored the wish on the disk by then.

use super::{Bench, all_up, crash, fleet, milliseconds, patience};
use crate::clock;
use crate::peer::{All, Peer, Service, Verb};
use crate::record::Record;
use crate::results::FLOOR;
use crate::world::{self, CRASHERS, World};
use std::io::{self, Write};
use std::time::Duration;

pub const NAMES: [&str; 7] =
    ["crash-one", "status", "command-stop", "command-start", "status-all", "stop-all", "start-all"];

/// Of each command in one visit, if one round is not longer than this: the slow ones get one.
const TIMES: usize = 10;
const SLICE: Duration = Duration::from_secs(1);

pub fn run(bench: &mut Bench<'_>) {
    let plan: &[(usize, usize)] = if bench.options.quick {
        &[(1, 1), (10, 1), (100, 1), (1000, 1)]
    } else {
        &[(1, 5), (10, 3), (100, 3), (1000, 3), (5000, 2)]
    };
    for (size, rounds) in bench.options.sizes(plan) {
        let ordinary = |id: usize| Service::new(&format!("s{id}"), &["unit", &id.to_string()]);
        let services: Vec<Service> =
            (0..size).map(|id| if id < CRASHERS { crash::service(id) } else { ordinary(id) }).collect();
        for round in 0..rounds {
            crate::say(&format!("  one of {size} services, round {} of {rounds}", round + 1));
            for peer in bench.supervisors() {
                if bench.too_many(peer, size, &NAMES) {
                    continue;
                }
                if let Err(error) = visit(bench, peer, &services) {
                    bench.trouble(format!("one of {size} services: {}: {error}", peer.name()));
                }
            }
            if let Err(error) = floor(bench, size) {
                bench.trouble(format!("one of {size} services: floor: {error}"));
            }
        }
    }
}

fn visit(bench: &mut Bench<'_>, peer: &dyn Peer, services: &[Service]) -> io::Result<()> {
    let size = services.len();
    let mut world = all_up(bench.options, peer, services)?;
    if wants(bench, &["crash-one"]) {
        // The last one came up now.
        clock::window(crash::UP_BEFORE);
        for took in crash::crashes(&mut world, size.min(CRASHERS))? {
            bench.results.add("crash-one", size, peer.name(), took);
        }
        for took in crash::floor(&mut world)? {
            bench.results.add("crash-one", size, FLOOR, took);
        }
    }
    let one = format!("s{}", size / 2);
    if wants(bench, &["status"]) {
        let commands = [peer.control(Verb::Status, &one), world::service(&["exit"])];
        let ran = world.stopwatch(2 * TIMES, SLICE, &commands, patience(size))?;
        keep(bench, &world, size, &["status", "status"], &[peer.name(), FLOOR], &ran);
    }
    if wants(bench, &["command-stop", "command-start"]) {
        let commands = [peer.control(Verb::Stop, &one), peer.control(Verb::Start, &one)];
        let ran = world.stopwatch(TIMES, SLICE, &commands, patience(size))?;
        keep(bench, &world, size, &["command-stop", "command-start"], &[peer.name(); 2], &ran);
    }
    for (rows, verbs) in
        [(&["status-all"][..], &[All::Status][..]), (&["stop-all", "start-all"], &[All::Stop, All::Start])]
    {
        if !wants(bench, rows) {
            continue;
        }
        let commands: Option<Vec<_>> = verbs.iter().map(|verb| peer.control_all(*verb, services)).collect();
        let Some(commands) = commands else {
            rows.iter().for_each(|row| bench.results.note(row, size, peer.name(), "has no such command"));
            continue;
        };
        let ran = world.stopwatch(TIMES, SLICE, &commands, patience(size))?;
        keep(bench, &world, size, rows, &[peer.name(); 2], &ran);
    }
    Ok(())
}

fn wants(bench: &Bench<'_>, rows: &[&str]) -> bool {
    rows.iter().any(|row| bench.options.wants_row(row))
}

/// Each record's id says to which row and to whom it belongs.
fn keep(
    bench: &mut Bench<'_>,
    world: &World,
    size: usize,
    rows: &[&'static str],
    names: &[&'static str],
    records: &[Record],
) {
    for record in records {
        let (Some(row), Some(name)) = (rows.get(record.id as usize), names.get(record.id as usize)) else {
            continue;
        };
        if record.status == 0 {
            bench.results.add(row, size, name, milliseconds(record.value));
        } else {
            let note = format!("the command ended with {}", record.status);
            bench.trouble(format!("{row}, {size} services: {name}: {note}: {}", world.complaints()));
            bench.results.note(row, size, name, note);
        }
    }
}

/// What storing anything costs on the file system of the worlds, and what the same processes cost without supervision.
fn floor(bench: &mut Bench<'_>, size: usize) -> io::Result<()> {
    if wants(bench, &["command-stop", "command-start"]) {
        let mut file = tempfile::tempfile_in(&bench.options.work)?;
        for _ in 0..TIMES {
            let start = clock::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            let took = milliseconds(clock::now() - start);
            bench.results.add("command-stop", size, FLOOR, took);
            bench.results.add("command-start", size, FLOOR, took);
        }
    }
    if wants(bench, &["stop-all", "start-all"]) {
        let (up, down) = fleet::bare(bench.options, size)?;
        bench.results.add("start-all", size, FLOOR, up);
        bench.results.add("stop-all", size, FLOOR, down);
    }
    Ok(())
}
