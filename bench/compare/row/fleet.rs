//! `boot`, `stop`, `private`, `pss`, `processes`, `wakeups`, `idle-cpu`: the life of N services that do nothing.
//!
//! One world gives a value for each: launched (the moment is told by the launcher), all N up (the moment is told by the
//! latest of them), watched while idle, told to end, ended (PID 1 is gone).

use super::{Bench, milliseconds, patience, started};
use crate::clock;
use crate::options::Options;
use crate::peer::{Peer, Service};
use crate::process;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use std::io;
use std::path::Path;
use std::time::Duration;

pub const NAMES: [&str; 7] = ["boot", "stop", "private", "pss", "processes", "wakeups", "idle-cpu"];

/// A supervisor of which nothing ran for so long has nothing put off any more.
const QUIET: Duration = Duration::from_millis(2500);

pub fn run(bench: &mut Bench<'_>) {
    let plan: &[(usize, usize)] = if bench.options.quick {
        &[(1, 2), (10, 2), (100, 2), (1000, 1)]
    } else {
        &[(1, 7), (10, 7), (100, 5), (1000, 3), (5000, 2)]
    };
    for (size, rounds) in bench.options.sizes(plan) {
        let services = services(size);
        for round in 0..rounds {
            crate::say(&format!("  {size} services, round {} of {rounds}", round + 1));
            for peer in bench.supervisors() {
                if bench.too_many(peer, size, &NAMES) {
                    continue;
                }
                if let Err(error) = visit(bench, peer, &services, round == 0) {
                    bench.trouble(format!("{size} services: {}: {error}", peer.name()));
                }
            }
            match bare(bench.options, size) {
                Ok((up, down)) => {
                    bench.results.add("boot", size, FLOOR, up);
                    bench.results.add("stop", size, FLOOR, down);
                }
                Err(error) => bench.trouble(format!("{size} services: floor: {error}")),
            }
        }
    }
}

/// `s0`, `s1`, …: each says that it runs, and sleeps.
pub(super) fn services(size: usize) -> Vec<Service> {
    (0..size).map(|id| Service::new(&format!("s{id}"), &["unit", &id.to_string()])).collect()
}

fn visit(bench: &mut Bench<'_>, peer: &dyn Peer, services: &[Service], first: bool) -> io::Result<()> {
    let (size, name) = (services.len(), peer.name());
    let mut world = started(bench.options, peer, services)?;
    let launched = world.events.wait(Kind::Launch, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    let Some(up) = world.events.all_started(size, patience(size)) else {
        bench.results.note("boot", size, name, "not all of them came up in time");
        return Err(io::Error::other(format!("not all services came up: {}", world.said())));
    };
    bench.results.add("boot", size, name, milliseconds(up.saturating_sub(launched.time)));
    // What is put off, such as the history of starts, is written seconds after them, and is no part of rest or end: a container that is
    // stopped has run for longer.
    settle(&world.cgroup);
    let wanted = |rows: &[&str]| rows.iter().any(|row| bench.options.wants_row(row));
    let (weighed, watched) = (
        wanted(&["private", "pss", "processes"]),
        wanted(&["wakeups", "idle-cpu"]) && (size >= 100 || !bench.options.quick),
    );
    if first && watched {
        idle(bench, name, size, &world);
    }
    if first && (weighed || watched) {
        memory(bench, name, size, &world);
    }
    let asked = clock::now();
    peer.shut_down(&world);
    match world.ended(patience(size)) {
        Some(end) => bench.results.add("stop", size, name, milliseconds(end - asked)),
        None => bench.results.note("stop", size, name, "did not end in time"),
    }
    Ok(())
}

/// At rest: nothing of the supervision in `cgroup` was on a processor for [`QUIET`]; after four times that it is taken as
/// it is, for some wake up every second.
pub(super) fn settle(cgroup: &Path) {
    let mut before = process::activity(&process::supervision(cgroup));
    for _ in 0..4 {
        clock::window(QUIET);
        let after = process::activity(&process::supervision(cgroup));
        if after == before {
            return;
        }
        before = after;
    }
}

fn idle(bench: &mut Bench<'_>, name: &'static str, size: usize, world: &World) {
    let length = Duration::from_secs(match size {
        _ if bench.options.quick => 2,
        // What the budget asks for.
        1000 => 60,
        _ => 15,
    });
    let pids = process::supervision(&world.cgroup);
    let before = process::activity(&pids);
    clock::window(length);
    let after = process::activity(&pids);
    let per_minute = 60.0 / length.as_secs_f64();
    let wakeups = after.wakeups.saturating_sub(before.wakeups) as f64;
    bench.results.add("wakeups", size, name, wakeups * per_minute);
    bench.results.add(
        "idle-cpu",
        size,
        name,
        milliseconds(after.cpu.saturating_sub(before.cpu)) * per_minute,
    );
}

fn memory(bench: &mut Bench<'_>, name: &'static str, size: usize, world: &World) {
    let usage = process::memory(&process::supervision(&world.cgroup));
    bench.results.add("private", size, name, usage.private_dirty as f64 / 1e6);
    bench.results.add("pss", size, name, usage.pss as f64 / 1e6);
    bench.results.add("processes", size, name, usage.processes as f64);
}

/// The same N processes without any supervision: how long until they run, and until they are gone.
///
/// # Errors
/// When they do not come up.
pub(super) fn bare(options: &Options, size: usize) -> io::Result<(f64, f64)> {
    let mut world = World::new(options)?;
    world.start(&world::service(&["bare", &size.to_string()]))?;
    let launched = world.events.wait(Kind::Launch, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    let up = world.events.all_started(size, patience(size)).ok_or(io::ErrorKind::TimedOut)?;
    let asked = clock::now();
    world.signal(world.first, rustix::process::Signal::TERM);
    let end = world.ended(PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    Ok((milliseconds(up - launched.time), milliseconds(end - asked)))
}
