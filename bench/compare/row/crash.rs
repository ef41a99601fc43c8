//! `crash`: from the moment before a service kills itself to the first instruction of its successor, both told by the
//! service. All peers run side by side; each service has been up for two seconds when it crashes, as the peers treat a
//! service that dies young differently.

use super::{Bench, all_up, milliseconds};
use crate::clock;
use crate::peer::Service;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, CRASHERS, PATIENCE, World};
use std::io::{self, Write};
use std::time::Duration;

/// Of one peer in one round: the quick ones give more values in it.
const SLICE: u64 = 200_000_000;
pub(super) const UP_BEFORE: Duration = Duration::from_secs(2);

/// Of the service that is to be a burden, in MiB, and its children.
const HEAVY: [&str; 2] = ["300", "40"];

pub fn run(bench: &mut Bench<'_>) {
    measure(bench, "crash", (0..CRASHERS).map(service).collect());
}

/// `crash-heavy`: the same for one that has memory and children.
pub fn run_heavy(bench: &mut Bench<'_>) {
    let [memory, children] = HEAVY;
    measure(bench, "crash-heavy", vec![Service::new("s0", &["heavy", "0", memory, children])]);
}

fn measure(bench: &mut Bench<'_>, row: &'static str, services: Vec<Service>) {
    let mut worlds: Vec<(&'static str, World)> = Vec::new();
    for peer in bench.supervisors() {
        match all_up(bench.options, peer, &services) {
            Ok(world) => worlds.push((peer.name(), world)),
            Err(error) => bench.trouble(format!("{row}: {}: {error}", peer.name())),
        }
    }
    for _ in 0..if bench.options.quick { 5 } else { 25 } {
        clock::window(UP_BEFORE);
        fastrand::shuffle(&mut worlds);
        for (name, world) in &mut worlds {
            match crashes(world, services.len()) {
                Ok(values) => values.into_iter().for_each(|took| bench.results.add(row, 0, name, took)),
                Err(error) => bench.trouble(format!("{row}: {name}: {error}")),
            }
        }
        if let Some((_, world)) = worlds.first_mut() {
            match floor(world) {
                Ok(values) => values.into_iter().for_each(|took| bench.results.add(row, 0, FLOOR, took)),
                Err(error) => bench.trouble(format!("{row}: floor: {error}")),
            }
        }
    }
}

/// The one with this number, below [`CRASHERS`], can be made to crash.
pub(super) fn service(id: usize) -> Service {
    Service::new(&format!("s{id}"), &["crash", &id.to_string()])
}

/// As many of the first `most` services, one after the other, as crash in one slice of time; at least one.
///
/// # Errors
/// When one is not restarted.
pub(super) fn crashes(world: &mut World, most: usize) -> io::Result<Vec<f64>> {
    let until = clock::now() + SLICE;
    let mut values = Vec::new();
    for id in 0..most {
        if id > 0 && clock::now() > until {
            break;
        }
        let path = world.path(&format!("/bench/crash{id}"));
        std::fs::OpenOptions::new().read(true).write(true).open(path)?.write_all(b".")?;
        let crash = world.events.wait(Kind::Crash, PATIENCE);
        let next = world.events.wait(Kind::Started, PATIENCE);
        let (Some(crash), Some(next)) = (crash, next) else {
            return Err(io::Error::other("a service was not restarted"));
        };
        values.push(milliseconds(next.time.saturating_sub(crash.time)));
    }
    Ok(values)
}

/// In the world of a peer, so under the same conditions.
///
/// # Errors
/// When nothing can be run in it.
pub(super) fn floor(world: &mut World) -> io::Result<Vec<f64>> {
    let ran = world.stopwatch(8, PATIENCE, &[world::service(&["exit"])], PATIENCE)?;
    Ok(ran.into_iter().map(|record| milliseconds(record.value)).collect())
}
