//! `log`, `log-cpu`: a service that writes lines of 100 bytes as fast as they are taken, into files of 1 MB of which ten
//! are kept, with a time at each line, and to the container's output as well where the peer can do both.
//!
//! `lost`: the same with a number in each line and so many files kept that all of them are there in the end. The peer is told
//! to end as soon as the service has written its last line; then every file is read.

use super::{Bench, started};
use crate::peer::{Peer, Service};
use crate::process;
use crate::record::{Kind, LINE, line};
use crate::results::FLOOR;
use crate::world::{self, PATIENCE, World};
use std::io;

pub fn run(bench: &mut Bench<'_>) {
    if bench.options.wants_row("lost") {
        completeness(bench);
    }
    if !["log", "log-cpu"].iter().any(|row| bench.options.wants_row(row)) {
        return;
    }
    let bytes: u64 = if bench.options.quick { 64_000_000 } else { 256_000_000 };
    let mut service = Service::new("flood", &["flood", &bytes.to_string()]);
    service.logged = Some(10);
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

fn completeness(bench: &mut Bench<'_>) {
    let lines: u64 = if bench.options.quick { 200_000 } else { 1_000_000 };
    let mut service = Service::new("lines", &["lines", &lines.to_string()]);
    service.logged = Some(1000);
    for _ in 0..if bench.options.quick { 1 } else { 3 } {
        for peer in bench.supervisors() {
            if let Err(error) = lost(bench, peer, &service, lines) {
                bench.trouble(format!("lost lines: {}: {error}", peer.name()));
            }
        }
    }
}

fn lost(bench: &mut Bench<'_>, peer: &dyn Peer, service: &Service, lines: u64) -> io::Result<()> {
    let mut world = started(bench.options, peer, std::slice::from_ref(service))?;
    let done = world.events.wait(Kind::Done, PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    if done.status != 0 {
        return Err(io::Error::other("the service could not write everything"));
    }
    peer.shut_down(&world);
    world.ended(PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    let files = peer.kept(&world, &service.name);
    if files.is_empty() {
        bench.results.note("lost", 0, peer.name(), "keeps no rotated files");
        return Ok(());
    }
    let mut text = Vec::new();
    for file in files {
        text.extend(std::fs::read(file)?);
    }
    let count = Count::of(&text);
    bench.results.add("lost", 0, peer.name(), lines.saturating_sub(count.found) as f64);
    if count.strange > 0 {
        return Err(io::Error::other(format!(
            "{} lines are torn, twice there or not in order",
            count.strange
        )));
    }
    Ok(())
}

/// The lines of the test service in the files of a peer, which may put what it likes before each.
#[derive(Default)]
struct Count {
    /// In order, each counted once.
    found: u64,
    /// What is no line of the service, or stands behind one with a higher number.
    strange: u64,
}

impl Count {
    fn of(text: &[u8]) -> Self {
        let mut count = Self::default();
        let mut next = 0;
        for written in text.split_inclusive(|byte| *byte == b'\n') {
            let number = written.len().checked_sub(LINE).and_then(|at| number(written.get(at..)?));
            match number {
                Some(number) if number >= next => {
                    count.found += 1;
                    next = number + 1;
                }
                _ => count.strange += 1,
            }
        }
        count
    }
}

/// The number of a line of the service, if it is whole.
fn number(written: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(written.get(..12)?).ok()?.parse().ok()?;
    (line(number) == written).then_some(number)
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
