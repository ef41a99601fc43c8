//! `boot`, `stop`, `restart`, `restart-10` of N services in containers of a real engine, where most users have them: the
//! definitions are in the image, so supervisor, programs and `/run` are on overlay.
//!
//! One container gives a value for each: run, stopped, started again ten times. How long the engine itself takes to make a
//! container is in no figure but `stop`.

use super::containers::{cgroup, docker, said};
use super::{Bench, fleet, milliseconds, patience};
use crate::clock;
use crate::events::Events;
use crate::ground::Ground;
use crate::options::Options;
use crate::peer::{Peer, Service};
use crate::record::Kind;
use crate::world::{Layout, PATIENCE, service};
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub const NAMES: [&str; 4] = ["boot", "stop", "restart", "restart-10"];
/// Starts after the first one.
const RESTARTS: usize = 10;

pub fn run(bench: &mut Bench<'_>) {
    let Some(image) = bench.options.image.clone() else {
        bench.trouble("this world needs an engine: bench/run --docker");
        return;
    };
    let plan: &[(usize, usize)] = if bench.options.quick { &[(100, 1)] } else { &[(100, 5), (1000, 3)] };
    for (size, rounds) in bench.options.sizes(plan) {
        let services = fleet::services(size);
        let mut fleets = Vec::new();
        for peer in bench.supervisors() {
            if let Err(why) = peer.runs_on(bench.options.ground) {
                NAMES.iter().for_each(|row| bench.results.note(row, size, peer.name(), why));
                continue;
            }
            if bench.too_many(peer, size, &NAMES) {
                continue;
            }
            match Fleet::build(bench.options, &image, peer, &services) {
                Ok(fleet) => fleets.push((peer, fleet)),
                Err(error) => bench.trouble(format!("{size} services: {}: {error}", peer.name())),
            }
        }
        for round in 0..rounds {
            crate::say(&format!("  {size} services, round {} of {rounds}", round + 1));
            fastrand::shuffle(&mut fleets);
            for (peer, fleet) in &mut fleets {
                if let Err(error) = visit(bench, *peer, fleet, size) {
                    bench.trouble(format!("{size} services: {}: {error}", peer.name()));
                }
            }
        }
    }
}

/// An image with one peer and its services in it.
struct Fleet {
    layout: Layout,
    events: Events,
    image: String,
    words: Vec<String>,
}

impl Fleet {
    fn build(options: &Options, base: &str, peer: &dyn Peer, services: &[Service]) -> io::Result<Self> {
        let layout = Layout::new(options)?;
        peer.prepare(&layout, services)?;
        let events = Events::make(&layout.outside("events"))?;
        layout.write("bench/events", "", 0o644)?;
        std::fs::write(layout.outside("Dockerfile"), format!("FROM {base}\nCOPY r/ /\n"))?;
        let image = format!("hermes-sup-bench-{}", unique());
        docker(
            Command::new("docker")
                .env("DOCKER_BUILDKIT", "0")
                .args(["build", "--quiet", "--network=none", "--tag", &image])
                .arg(layout.outside("")),
        )?;
        let mut words = service(&["launch"]);
        words.extend(peer.command(services));
        Ok(Self { layout, events, image, words })
    }

    /// Launched → all run, in ms. Before it, something has started the container.
    fn all_up(&mut self, size: usize, container: &str) -> io::Result<f64> {
        let silent = || io::Error::other(format!("not all services came up: {}", said(container)));
        let launched = self.events.wait(Kind::Launch, PATIENCE).ok_or_else(silent)?;
        let up = self.events.all_started(size, patience(size)).ok_or_else(silent)?;
        Ok(milliseconds(up.saturating_sub(launched.time)))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = docker(Command::new("docker").args(["image", "rm", "--force", &self.image]));
    }
}

/// Gone when it is dropped.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(Command::new("docker").args(["rm", "--force", "--volumes", &self.0]));
    }
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn visit(bench: &mut Bench<'_>, peer: &dyn Peer, fleet: &mut Fleet, size: usize) -> io::Result<()> {
    let container = Container(format!("hermes-sup-bench-{}", unique()));
    let (name, by) = (container.0.as_str(), peer.name());
    let rights: &[&str] = match bench.options.ground {
        Ground::WritableCgroups => &["--security-opt=writable-cgroups=true"],
        _ => &[],
    };
    let events = format!("--volume={}:/bench/events", fleet.layout.outside("events").display());
    let (program, words) = fleet.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    docker(
        Command::new("docker")
            .args(["run", "--detach", "--network=none", "--volume=/opt/data"])
            .args(["--name", name, &events, &format!("--entrypoint={program}")])
            .args(rights)
            .arg(&fleet.image)
            .args(words),
    )?;
    let up = fleet.all_up(size, name)?;
    bench.results.add("boot", size, by, up);
    for turn in 1..=RESTARTS {
        if turn == 1 {
            // Who stops a container does not wait for the moment in which its last service has come up.
            fleet::settle(&cgroup(name)?);
        }
        let asked = clock::now();
        docker(Command::new("docker").args(["stop", "--time=60", name]))?;
        if turn == 1 {
            bench.results.add("stop", size, by, milliseconds(clock::now() - asked));
        }
        docker(Command::new("docker").args(["start", name]))?;
        let up = fleet.all_up(size, name)?;
        match turn {
            1 => bench.results.add("restart", size, by, up),
            RESTARTS => bench.results.add("restart-10", size, by, up),
            _ => {}
        }
    }
    Ok(())
}
