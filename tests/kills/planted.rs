//! Faults that are put in for the checks to find: a check that finds nothing here would find nothing elsewhere.

use super::callers::CALLERS;
use super::fleet::{self, CLOCK, LATER};
use super::harness::setup::HERMES;
use super::harness::{Dice, Rung, wait};
use super::ledger::Wish;
use super::stage::Stage;
use hermes_sup::control::protocol::Request;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

pub struct Planted {
    pub name: &'static str,
    rung: Rung,
    plant: fn(&mut Stage) -> Left,
    /// What has to be said of it.
    pub says: &'static str,
}

/// What a fault needs to stay.
#[derive(Default)]
struct Left {
    processes: Vec<Child>,
    connections: Vec<UnixStream>,
}

const fn planted(
    name: &'static str,
    rung: Rung,
    says: &'static str,
    plant: fn(&mut Stage) -> Left,
) -> Planted {
    Planted { name, rung, plant, says }
}

pub const ALL: [Planted; 12] = [
    planted("a second copy", Rung::Keeper, "clock is wanted up and has", |stage| impostor(stage, CLOCK)),
    planted("a copy of what is wanted down", Rung::Cgroup, "later is wanted down and has", |stage| {
        impostor(stage, LATER)
    }),
    planted("a process of no service", Rung::Keeper, "processes of nobody", |stage| {
        impostor(stage, "nobody")
    }),
    planted("a stop that is not true", Rung::Cgroup, "stop later was said to be done", |stage| {
        let left = impostor(stage, LATER);
        stage.site.stop(CALLERS, LATER);
        left
    }),
    planted("a want that is lost", Rung::Cgroup, "later is wanted Down", lost_want),
    planted("a want that nobody has", Rung::Keeper, "coder is wanted Up", |stage| {
        stage.site.command(CALLERS, "start", fleet::CODER, Some(Wish::Up), &start(fleet::CODER));
        stage.site.ledger().known(fleet::CODER, Wish::Down);
        Left::default()
    }),
    planted("a service that does not come up", Rung::Keeper, "stuck: clock is wanted Up", |stage| {
        stage.world.define(CLOCK, "command = [\"/nowhere\"]\n[restart]\nlimit = \"none\"");
        let reload = Request::Reload { restart: true };
        stage.site.command(CALLERS, "reload", CLOCK, None, &reload);
        Left::default()
    }),
    planted("a descriptor", Rung::Cgroup, "descriptors grow", |stage| connections(stage, 8, b"")),
    planted("memory", Rung::Keeper, "memory grow", |stage| connections(stage, 60, &[b' '; 60 << 10])),
    planted("a cgroup", Rung::Cgroup, "cgroups grow", |stage| {
        let ours = stage.world.cgroups().pop().expect("the instance's");
        std::fs::create_dir(ours.join("left")).expect("a cgroup");
        Left::default()
    }),
    planted("a process of the supervisor's", Rung::Keeper, "processes grow", |stage| {
        let mut command = stage.world.inside_command(0, &["/adversary", "pause", "helper"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let left = Left { processes: child.into_iter().collect(), ..Left::default() };
        wait::until("the helper", &stage.world.root, || {
            let all = stage.supervisor().map(|supervisor| stage.world.processes(supervisor));
            all.unwrap_or_default().iter().any(|process| process.command.contains("helper")).then_some(())
        });
        left
    }),
    planted("files of a runtime directory", Rung::Cgroup, "files of the runtime directory grow", |stage| {
        (0..16).for_each(|number| drop(stage.world.write(&format!("/run/hermes-sup/left/{number}"), "")));
        Left::default()
    }),
];

/// What was said; empty where it was not found.
pub fn find(planted: &Planted) -> Vec<String> {
    let mut stage = Stage::new(planted.rung, Dice::new(1));
    stage.ensure(false);
    stage.check();
    let counts_figures = planted.says.contains("grow");
    if counts_figures {
        (0..2).for_each(|_| stage.census());
    }
    let before = stage.site.ledger().wrong.clone();
    if !before.is_empty() {
        return before;
    }
    stage.patience = Duration::from_secs(2);
    let left = (planted.plant)(&mut stage);
    if !stage.is_wrong() {
        if counts_figures { stage.census() } else { stage.check() }
    }
    for mut process in left.processes {
        let _ = process.kill();
        let _ = process.wait();
    }
    drop(left.connections);
    stage.site.ledger().wrong.clone()
}

fn start(name: &str) -> Request {
    Request::Start { targets: super::asking::one(name), timeout_ms: None, force: false }
}

/// A process that looks like a copy of `name`.
fn impostor(stage: &mut Stage, name: &str) -> Left {
    let before = stage.site.processes(name);
    let mark = stage.site.mark.clone();
    let mut command = stage.world.inside_command(HERMES, &["/adversary", "pause", name, &mark]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    wait::until("the impostor", &stage.world.root, || (stage.site.processes(name) > before).then_some(()));
    Left { processes: child.into_iter().collect(), ..Left::default() }
}

/// The state of before a command comes back while no supervisor runs.
fn lost_want(stage: &mut Stage) -> Left {
    let state = stage.world.path("/opt/data/supervisor");
    stage.end(rustix::process::Signal::TERM);
    let kept = ["state.redb", "wants"].map(|file| (state.join(file), std::fs::read(state.join(file))));
    stage.ensure(false);
    stage.site.command(CALLERS, "start", LATER, Some(Wish::Up), &start(LATER));
    stage.end(rustix::process::Signal::KILL);
    for (file, content) in kept {
        std::fs::write(file, content.expect("it was there")).expect("our own file");
    }
    Left::default()
}

/// So many connections that begin a request and do not end it.
fn connections(stage: &Stage, count: usize, begun: &[u8]) -> Left {
    let connect = |_| {
        let mut stream = UnixStream::connect(stage.world.socket()).ok()?;
        stream.write_all(begun).ok()?;
        Some(stream)
    };
    Left { connections: (0..count).filter_map(connect).collect(), ..Left::default() }
}
