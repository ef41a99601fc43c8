//! `reap`: orphans that all end in one moment, and how many a second the world's PID 1 reaps.

use super::{Bench, started};
use crate::peer::{Peer, Service};
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use std::io;

const ORPHANS: u64 = 2000;
const ROUNDS: usize = 3;
/// A peer that needs longer for one round (ns) has shown what it can: it is not asked again.
const ENOUGH: u64 = 3_000_000_000;

pub fn run(bench: &mut Bench<'_>) {
    let service = Service::new("orphans", &["orphans", &ORPHANS.to_string(), &ROUNDS.to_string()]);
    let mut bare = world::service(&["reaper"]);
    bare.extend(service.argv());
    let mut peers: Vec<&dyn Peer> = bench.peers.iter().map(AsRef::as_ref).collect();
    // The orphans of a service fall to its keeper there, and PID 1 sees none.
    peers.retain(|peer| !peer.name().contains("keeper"));
    for _ in 0..if bench.options.quick { 2 } else { 5 } {
        peers.retain(|peer| {
            let world = started(bench.options, *peer, std::slice::from_ref(&service));
            match world.and_then(|world| rates(bench, peer.name(), world)) {
                Ok(slowest) => slowest < ENOUGH,
                Err(error) => {
                    bench.trouble(format!("orphans: {}: {error}", peer.name()));
                    false
                }
            }
        });
        let floor = World::new(bench.options).and_then(|mut world| {
            world.start(&bare)?;
            rates(bench, FLOOR, world)
        });
        if let Err(error) = floor {
            bench.trouble(format!("orphans: floor: {error}"));
        }
    }
}

/// The ns of the slowest round.
fn rates(bench: &mut Bench<'_>, name: &'static str, mut world: World) -> io::Result<u64> {
    let mut slowest = 0;
    for _ in 0..ROUNDS {
        let record = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
        if record.status != 0 {
            return Err(io::Error::other("not every orphan was born"));
        }
        bench.results.add("reap", 0, name, ORPHANS as f64 / (record.value as f64 / 1e9));
        slowest = slowest.max(record.value);
        if slowest > ENOUGH {
            break;
        }
    }
    Ok(slowest)
}
