//! `log`, `log-cpu`: a service that writes lines of 100 bytes as fast as they are taken, into files of 1 MB of which ten
//! are kept, with a time at each line, and to the container's output as well where the peer can do both.

use super::{Bench, started};
use crate::peer::Service;
use crate::process;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use std::io;

pub fn run(bench: &mut Bench<'_>) {
    let bytes: u64 = if bench.options.quick { 64_000_000 } else { 256_000_000 };
    let mut service = Service::new("flood", &["flood", &bytes.to_string()]);
    service.logged = true;
    for _ in 0..if bench.options.quick { 1 } else { 5 } {
        for peer in bench.supervisors() {
            if !peer.logs() {
                bench.results.note("log", 0, peer.name(), "keeps no rotated files with times");
                continue;
            }
            let world = started(bench.options, peer, std::slice::from_ref(&service));
            if let Err(error) = world.and_then(|world| throughput(bench, peer.name(), world, bytes)) {
                bench.trouble(format!("logs: {}: {error}", peer.name()));
            }
        }
        let floor = World::new(bench.options).and_then(|mut world| {
            let line = format!("{0} flood {bytes} | {0} drain", world::SERVICE);
            world.start(&["/bin/sh".into(), "-c".into(), line])?;
            throughput(bench, FLOOR, world, bytes)
        });
        if let Err(error) = floor {
            bench.trouble(format!("logs: floor: {error}"));
        }
    }
}

fn throughput(bench: &mut Bench<'_>, name: &'static str, mut world: World, bytes: u64) -> io::Result<()> {
    world.events.wait(Kind::Started, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    let before = process::activity(&readers(&world, name));
    let done = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    // Up to a pipe's worth is still unread, of many megabytes.
    let after = process::activity(&readers(&world, name));
    if done.status != 0 {
        return Err(io::Error::other("the service could not write everything"));
    }
    bench.results.add("log", 0, name, bytes as f64 / (done.value as f64 / 1e9) / 1e6);
    bench.results.add("log-cpu", 0, name, after.cpu.saturating_sub(before.cpu) as f64 / bytes as f64);
    Ok(())
}

/// The processes that read what the service writes: the supervision, or for the floor the one that drains.
fn readers(world: &World, name: &str) -> Vec<i32> {
    if name != FLOOR {
        return process::supervision(&world.cgroup);
    }
    let drains = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0drain\0"))
    };
    process::pids(&world.cgroup).into_iter().filter(drains).collect()
}
