//! `tree`, `survivors`: the stop of a service whose main process obeys while N daemons in sessions of their own are deaf.
//!
//! The clock runs from the first signal to one of them that cannot be ignored, as the kernel notes it, so that the time a peer
//! waits politely is no part of it, to the end of the peer's stop command. Alive after that is a survivor.

use super::{Bench, milliseconds};
use crate::peer::{Peer, Service, Verb};
use crate::process;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::trace::Trace;
use crate::world::{self, PATIENCE, World};
use std::io;

pub fn run(bench: &mut Bench<'_>) {
    let trace = Trace::new();
    if let Err(error) = &trace {
        bench.trouble(format!("trees: survivors are counted, but nothing is timed: {error}"));
    }
    let trace = trace.ok();
    let plan: &[(usize, usize)] = if bench.options.quick {
        &[(1, 1), (10, 1), (100, 1), (1000, 1)]
    } else {
        &[(1, 5), (10, 5), (100, 5), (1000, 3), (10_000, 2)]
    };
    for (size, rounds) in bench.options.sizes(plan) {
        for round in 0..rounds {
            crate::say(&format!("  tree of {size}, round {} of {rounds}", round + 1));
            for peer in bench.supervisors() {
                if let Err(error) = visit(bench, trace.as_ref(), peer, size) {
                    bench.trouble(format!("tree of {size}: {}: {error}", peer.name()));
                }
            }
            let floor = trace.as_ref().map_or(Ok(()), |trace| floor(bench, trace, size));
            if let Err(error) = floor {
                bench.trouble(format!("tree of {size}: floor: {error}"));
            }
        }
    }
}

fn visit(bench: &mut Bench<'_>, trace: Option<&Trace>, peer: &dyn Peer, size: usize) -> io::Result<()> {
    let service = Service::new("tree", &["tree", &size.to_string()]);
    let mut world = super::started(bench.options, peer, std::slice::from_ref(&service))?;
    let standing = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    if standing.status != 0 {
        return Err(io::Error::other("the tree did not grow"));
    }
    let members = members(&world, standing.pid);
    if members.len() != size {
        return Err(io::Error::other(format!("{} of {size} stand", members.len())));
    }
    trace.map_or(Ok(()), Trace::clear)?;
    let stop = peer.control(Verb::Stop, "tree");
    let ran = world.stopwatch(1, PATIENCE, &[stop], PATIENCE)?;
    let answer = ran.first().ok_or(io::ErrorKind::TimedOut)?;
    let first_kill = trace.and_then(Trace::first_kill);
    let survivors = members.iter().filter(|pid| process::alive(**pid)).count();
    bench.results.add("survivors", size, peer.name(), survivors as f64);
    match first_kill {
        Some(first) if survivors == 0 => {
            let took = (answer.time + answer.value).saturating_sub(first);
            bench.results.add("tree", size, peer.name(), milliseconds(took));
        }
        _ => bench.results.note("tree", size, peer.name(), format!("{survivors} survive")),
    }
    Ok(())
}

/// The daemons of the tree: the processes of the service but for its leader, and a first process of ours.
fn members(world: &World, leader: i32) -> Vec<i32> {
    process::pids(&world.cgroup)
        .into_iter()
        .filter(|pid| *pid != world.first && process::is_ours(*pid))
        .filter(|pid| process::inner_pid(*pid) != Some(leader))
        .collect()
}

fn floor(bench: &mut Bench<'_>, trace: &Trace, size: usize) -> io::Result<()> {
    let mut world = World::new(bench.options)?;
    trace.clear()?;
    world.start(&world::service(&["floor-kill", &size.to_string(), "/sys/fs/cgroup/floor"]))?;
    let done = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    let first = trace.first_kill().filter(|_| done.status == 0);
    let first = first.ok_or_else(|| io::Error::other("the tree was not killed"))?;
    bench.results.add("tree", size, FLOOR, milliseconds(done.time.saturating_sub(first)));
    Ok(())
}
