//! `command-stop`, `command-start`: the whole command that a person types, until it says that the service is stopped or
//! started. Of the peers only hermes-sup has stored the wish on the disk by then.

use super::{Bench, all_up, milliseconds};
use crate::clock;
use crate::peer::{Peer, Service, Verb};
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use std::io::{self, Write};

/// Of each command in one visit.
const TIMES: usize = 3;

pub fn run(bench: &mut Bench<'_>) {
    let services = [Service::new("one", &["unit", "0"])];
    let mut worlds: Vec<(&dyn Peer, World)> = Vec::new();
    for peer in bench.supervisors() {
        match all_up(bench.options, peer, &services) {
            Ok(world) => worlds.push((peer, world)),
            Err(error) => bench.trouble(format!("commands: {}: {error}", peer.name())),
        }
    }
    for _ in 0..if bench.options.quick { 2 } else { 10 } {
        for (peer, world) in &mut worlds {
            if let Err(error) = visit(bench, *peer, world) {
                bench.trouble(format!("commands: {}: {error}", peer.name()));
            }
        }
        if let Err(error) = floor(bench) {
            bench.trouble(format!("commands: floor: {error}"));
        }
    }
}

fn visit(bench: &mut Bench<'_>, peer: &dyn Peer, world: &mut World) -> io::Result<()> {
    let mut words = world::service(&["stopwatch", &TIMES.to_string(), "--"]);
    words.extend(peer.control(Verb::Stop, "one"));
    words.push("--".into());
    words.extend(peer.control(Verb::Start, "one"));
    world.run(&words, PATIENCE)?;
    for _ in 0..2 * TIMES {
        let record = world.events.wait(Kind::Ran, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
        let row = if record.id == 0 { "command-stop" } else { "command-start" };
        if record.status == 0 {
            bench.results.add(row, 0, peer.name(), milliseconds(record.value));
        } else {
            bench.results.note(row, 0, peer.name(), format!("the command ended with {}", record.status));
        }
    }
    Ok(())
}

/// What storing anything costs on the file system of the worlds.
fn floor(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(&bench.options.work)?;
    for _ in 0..TIMES {
        let start = clock::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        let took = milliseconds(clock::now() - start);
        bench.results.add("command-stop", 0, FLOOR, took);
        bench.results.add("command-start", 0, FLOOR, took);
    }
    Ok(())
}
