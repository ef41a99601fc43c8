//! `tree`, `survivors`: the stop of a service whose main process obeys while N daemons in sessions of their own are deaf.
//!
//! The clock runs from the first of them that dies (up to 64 of them, evenly spread, are watched by pidfd) to the answer of
//! the peer's stop command, so that the time a peer waits politely is no part of it. Alive after that is a survivor.

use super::{Bench, milliseconds};
use crate::clock;
use crate::peer::{Peer, Service, Verb};
use crate::process;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use rustix::event::PollFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const WATCHED: usize = 64;

pub fn run(bench: &mut Bench<'_>) {
    let plan: &[(usize, usize)] = if bench.options.quick {
        &[(1, 1), (10, 1), (100, 1), (1000, 1)]
    } else {
        &[(1, 5), (10, 5), (100, 5), (1000, 3), (10_000, 1)]
    };
    for (size, rounds) in plan.iter().copied() {
        for round in 0..rounds {
            crate::say(&format!("  tree of {size}, round {} of {rounds}", round + 1));
            for peer in bench.supervisors() {
                if let Err(error) = visit(bench, peer, size) {
                    bench.trouble(format!("tree of {size}: {}: {error}", peer.name()));
                }
            }
            if let Err(error) = floor(bench, size) {
                bench.trouble(format!("tree of {size}: floor: {error}"));
            }
        }
    }
}

fn visit(bench: &mut Bench<'_>, peer: &dyn Peer, size: usize) -> io::Result<()> {
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
    let step = members.len().div_ceil(WATCHED);
    let watched: Vec<OwnedFd> = members.iter().step_by(step).filter_map(|pid| world.pidfd(*pid)).collect();
    let mut words = world::service(&["stopwatch", "1", "--"]);
    words.extend(peer.control(Verb::Stop, "tree"));
    let mut command = world.enter(&words)?;
    let fds: Vec<BorrowedFd<'_>> =
        watched.iter().map(AsFd::as_fd).chain(std::iter::once(world.events.as_fd())).collect();
    let first = clock::wait_any(&fds, PollFlags::IN, clock::after(PATIENCE));
    let first_death = first.filter(|index| *index < watched.len()).map(|_| clock::now());
    drop(fds);
    let answer = world.events.wait(Kind::Ran, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    let _ = command.wait();
    let survivors = members.iter().filter(|pid| process::alive(**pid)).count();
    bench.results.add("survivors", size, peer.name(), survivors as f64);
    match first_death {
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

fn floor(bench: &mut Bench<'_>, size: usize) -> io::Result<()> {
    let mut world = World::new(bench.options)?;
    world.start(&world::service(&["floor-kill", &size.to_string(), "/sys/fs/cgroup/floor"]))?;
    let record = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    bench.results.add("tree", size, FLOOR, milliseconds(record.value));
    Ok(())
}
