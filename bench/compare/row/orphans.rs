//! `reap`: orphans that all end in one moment, and how many a second the world's PID 1 reaps.

use super::{Bench, started};
use crate::peer::Service;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use std::io;

const ORPHANS: u64 = 2000;
const ROUNDS: usize = 3;

pub fn run(bench: &mut Bench<'_>) {
    let service = Service::new("orphans", &["orphans", &ORPHANS.to_string(), &ROUNDS.to_string()]);
    let mut bare = world::service(&["reaper"]);
    bare.extend(service.argv());
    for _ in 0..if bench.options.quick { 2 } else { 5 } {
        for peer in bench.peers.iter().map(AsRef::as_ref) {
            // The orphans of a service fall to its keeper there, and PID 1 sees none.
            if peer.name().contains("keeper") {
                continue;
            }
            let world = started(bench.options, peer, std::slice::from_ref(&service));
            if let Err(error) = world.and_then(|world| rates(bench, peer.name(), world)) {
                bench.trouble(format!("orphans: {}: {error}", peer.name()));
            }
        }
        let floor = World::new(bench.options).and_then(|mut world| {
            world.start(&bare)?;
            rates(bench, FLOOR, world)
        });
        if let Err(error) = floor {
            bench.trouble(format!("orphans: floor: {error}"));
        }
    }
}

fn rates(bench: &mut Bench<'_>, name: &'static str, mut world: World) -> io::Result<()> {
    for _ in 0..ROUNDS {
        let record = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
        if record.status != 0 {
            return Err(io::Error::other("not every orphan was born"));
        }
        bench.results.add("reap", 0, name, ORPHANS as f64 / (record.value as f64 / 1e9));
    }
    Ok(())
}
