//! `crash`: from the moment before a service kills itself to the first instruction of its successor, both told by the
//! service. All peers run side by side; each service has been up for two seconds when it crashes, as the peers treat a
//! service that dies young differently.

use super::{Bench, all_up, milliseconds};
use crate::clock;
use crate::peer::Service;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, CRASHERS, PATIENCE, World};
use std::io::Write;
use std::time::Duration;

/// Of one peer in one round: the quick ones give more values in it.
const SLICE: u64 = 200_000_000;
const UP_BEFORE: Duration = Duration::from_secs(2);

pub fn run(bench: &mut Bench<'_>) {
    let services: Vec<Service> =
        (0..CRASHERS).map(|id| Service::new(&format!("crash{id}"), &["crash", &id.to_string()])).collect();
    let mut worlds: Vec<(&'static str, World)> = Vec::new();
    for peer in bench.supervisors() {
        match all_up(bench.options, peer, &services) {
            Ok(world) => worlds.push((peer.name(), world)),
            Err(error) => bench.trouble(format!("crash: {}: {error}", peer.name())),
        }
    }
    for _ in 0..if bench.options.quick { 5 } else { 25 } {
        clock::window(UP_BEFORE);
        for (name, world) in &mut worlds {
            let until = clock::now() + SLICE;
            for id in 0..CRASHERS {
                if id > 0 && clock::now() > until {
                    break;
                }
                match once(world, id) {
                    Some(took) => bench.results.add("crash", 0, name, milliseconds(took)),
                    None => bench.trouble(format!("crash: {name}: a service was not restarted")),
                }
            }
        }
        if let Some((_, world)) = worlds.first_mut() {
            floor(bench, world);
        }
    }
}

fn once(world: &mut World, id: usize) -> Option<u64> {
    let path = world.path(&format!("/bench/crash{id}"));
    let mut gate = std::fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
    gate.write_all(b".").ok()?;
    let crash = world.events.wait(Kind::Crash, PATIENCE)?;
    let next = world.events.wait(Kind::Started, PATIENCE)?;
    Some(next.time.saturating_sub(crash.time))
}

/// In the world of a peer, so under the same conditions.
fn floor(bench: &mut Bench<'_>, world: &mut World) {
    let words = world::service(&["stopwatch", "8", "--", world::SERVICE, "exit"]);
    if let Err(error) = world.run(&words, PATIENCE) {
        return bench.trouble(format!("crash: floor: {error}"));
    }
    for _ in 0..8 {
        if let Some(record) = world.events.wait(Kind::Ran, PATIENCE) {
            bench.results.add("crash", 0, FLOOR, milliseconds(record.value));
        }
    }
}
