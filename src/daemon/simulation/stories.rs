//! Stories of a supervisor at a chosen moment, where a random one seldom comes.

use super::callers::Heard;
use super::loads::{ask, recount};
use super::services::Group;
use super::world::{Happening, World};
use crate::control::protocol::{Program, Registration, Request, Targets};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::words::Want;
use crate::daemon::herald::Herald;
use crate::store::played::Mood;
use std::os::unix::net::UnixDatagram;

/// A world in which everything is as it is wanted, and nothing goes wrong.
fn at_rest(seed: u64) -> World {
    let mut world = World::new(seed, None);
    world.becalm();
    world.quiet = true;
    pass(&mut world, 900_000);
    world
}

/// The supervisor takes a turn for what was asked.
fn is_heard(world: &mut World) {
    world.later(0, Happening::Reads(usize::MAX));
}

/// What happens in so many milliseconds.
fn pass(world: &mut World, time: u64) {
    let end = world.now() + time;
    while world.step(end).unwrap() {}
}

/// The name of a service that is up and that nothing comes after.
fn last_that_is_up(world: &World) -> String {
    let supervisor = world.supervisor().unwrap();
    let is_up = |name: &&String| {
        let id = supervisor.fleet.id(name);
        let gateway = id.and_then(|id| supervisor.fleet.gateway(id)).unwrap();
        gateway.state().is_up() && gateway.want() == Want::Up
    };
    world.specs.keys().rev().find(is_up).cloned().unwrap_or_default()
}

/// The next supervisor, which has only the disk to go by, started what was stopped.
#[test]
fn a_stop_that_the_disk_did_not_take_outlives_an_upgrade() {
    let mut told = 0;
    for seed in 0..4 {
        let mut world = at_rest(seed);
        let name = last_that_is_up(&world);
        if name.is_empty() {
            continue;
        }
        world.later(0, Happening::DiskIs(Mood::Refuses(libc::ENOSPC)));
        pass(&mut world, 10);
        ask(&mut world, Request::Stop { targets: Targets::Names(vec![name.clone()]) });
        is_heard(&mut world);
        pass(&mut world, 60_000);
        let stop = world.callers.last().unwrap().outcomes.last().unwrap().1.clone();
        assert!(stop.message.unwrap().contains("is stopped, but not recorded"));
        ask(&mut world, Request::Upgrade { program: None });
        is_heard(&mut world);
        pass(&mut world, 60_000);
        assert_eq!(world.callers.last().unwrap().heard, Heard::End, "seed {seed}: it is upgraded");
        let lives = |world: &World| world.kernel.living().iter().any(|life| life.name.as_str() == name);
        assert!(!lives(&world), "seed {seed}: {name} runs");
        assert_eq!(world.ledger.on_disk(&name), Some(Want::Up), "the disk knows nothing of it");
        world.later(0, Happening::DiskIs(Mood::Works));
        pass(&mut world, 120_000);
        assert_eq!(world.ledger.on_disk(&name), Some(Want::Down), "seed {seed}");
        assert!(!lives(&world));
        told += 1;
    }
    assert!(told > 0);
}

/// After a disk that was full for a moment every limit that was set was forgotten, and came back with the next supervisor.
#[test]
fn a_limit_that_was_set_to_last_outlives_a_full_disk() {
    let mut told = 0;
    for seed in 0..4 {
        let mut world = at_rest(seed);
        let name = last_that_is_up(&world);
        if name.is_empty() {
            continue;
        }
        let targets = || Targets::Names(vec![name.clone()]);
        let limits = [("pids_max".to_owned(), "77".to_owned())].into();
        ask(&mut world, Request::Set { targets: targets(), limits, persist: true });
        is_heard(&mut world);
        pass(&mut world, 60_000);
        assert!(world.callers.last().unwrap().outcomes.last().unwrap().1.ok, "seed {seed}");
        world.later(0, Happening::DiskIs(Mood::Refuses(libc::ENOSPC)));
        pass(&mut world, 10);
        ask(&mut world, Request::Stop { targets: targets() });
        is_heard(&mut world);
        pass(&mut world, 60_000);
        world.later(0, Happening::DiskIs(Mood::Works));
        pass(&mut world, 120_000);
        // A rule looks at the limits of what is made.
        ask(&mut world, Request::Start { targets: targets(), timeout_ms: None, force: false });
        is_heard(&mut world);
        pass(&mut world, 60_000);
        assert!(world.callers.last().unwrap().outcomes.last().unwrap().1.ok, "seed {seed}");
        told += 1;
    }
    assert!(told > 0);
}

/// A caller heard that the supervisor was shutting down, and found its service after the next start.
#[test]
fn a_registration_in_a_shutdown_is_refused_only_if_nothing_of_it_is_on_record() {
    let (mut done, mut lost) = (0, 0);
    for after in 0..12 {
        let mut world = at_rest(after);
        let program = Program::Argv(vec!["/played/r0".to_owned()]);
        let (user, env) = Default::default();
        let down = after % 3 == 2;
        world.registered = 1;
        ask(&mut world, Request::Register(Registration { name: "r0".to_owned(), program, user, env, down }));
        is_heard(&mut world);
        world.later(after / 3, Happening::Signal(Signal::TERM));
        let end = world.now() + 60_000;
        while world.ended.is_none() && world.step(end).unwrap() {}
        let caller = world.callers.last().unwrap();
        match caller.outcomes.as_slice() {
            [] => {
                assert_eq!(caller.heard, Heard::Lost);
                lost += 1;
            }
            [(_, outcome)] => {
                let is_there = world.ledger.on_disk("r0").is_some();
                assert_eq!(outcome.ok, is_there, "after {after}: {outcome:?}");
                done += u64::from(outcome.ok);
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(done > 0, "{lost} were not answered");
}

/// Where nothing ran and nothing was to be written, the supervisor ended in the turn in which it was asked to, and did not tell.
#[test]
fn that_it_stops_is_told_however_soon_the_end_comes() {
    let mut world = at_rest(1);
    ask(&mut world, Request::Stop { targets: Targets::All });
    is_heard(&mut world);
    pass(&mut world, 60_000);
    assert!(world.kernel.living().is_empty(), "something runs");
    let path = world.stage.dir.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let mut environment = [("NOTIFY_SOCKET".into(), path.into())].into();
    world.running.as_mut().unwrap().supervisor.herald = Herald::take(&mut environment).unwrap();
    let steps = world.figures.steps;
    world.later(0, Happening::Signal(Signal::TERM));
    while world.ended.is_none() && world.step(world.now()).unwrap() {}
    assert_eq!((world.ended, world.figures.steps - steps), (Some(0), 1), "it ends at once");
    let mut words = [0; 512];
    let length = manager.recv(&mut words).unwrap();
    assert!(words[..length].starts_with(b"STOPPING=1\n"), "{}", String::from_utf8_lossy(&words[..length]));
}

/// The name, wanted how, and after how many restarts, as the supervisor that runs has it; `None`: it is not shown.
fn shown(world: &World, name: &str) -> Option<(Want, u64)> {
    let fleet = &world.supervisor()?.fleet;
    let gateway = fleet.gateway(fleet.id(name)?)?;
    Some((gateway.want(), gateway.history().restarts))
}

/// The supervisor is killed, and another one runs.
fn is_followed(world: &mut World) {
    world.kill_supervisor();
    while world.running.is_none() {
        assert!(world.step(world.now() + 60_000).unwrap());
    }
}

fn is_asked(world: &mut World, request: Request) {
    ask(world, request);
    is_heard(world);
}

/// What was written of it a little later was not written at all, and came back with a definition of its name.
#[test]
fn what_a_reload_has_dropped_is_forgotten_however_soon_the_supervisor_is_killed() {
    let mut told = 0;
    for seed in 0..6 {
        let mut world = at_rest(seed);
        let name = last_that_is_up(&world);
        if world.specs.get(&name).is_none_or(|spec| spec.group != Group::Alone || !spec.autostart) {
            continue;
        }
        is_asked(&mut world, Request::Stop { targets: Targets::Names(vec![name.clone()]) });
        pass(&mut world, 60_000);
        assert_eq!(world.ledger.on_disk(&name), Some(Want::Down), "seed {seed}");
        let file = world.stage.services().join(format!("{name}.toml"));
        std::fs::remove_file(&file).unwrap();
        world.ledger.is_meant_no_more(&ServiceName::new(&name).unwrap());
        is_asked(&mut world, Request::Reload { restart: false });
        while shown(&world, &name).is_some() {
            assert!(world.step(world.now() + 60_000).unwrap(), "seed {seed}: it stays");
        }
        world.kill_supervisor();
        world.define();
        is_followed(&mut world);
        assert_eq!(shown(&world, &name), Some((Want::Up, 0)), "seed {seed}: {name}");
        told += 1;
    }
    assert!(told > 0);
}

/// They were remembered for ever, and had their old wants and restarts when there were more of them again.
#[test]
fn instances_that_are_taken_away_while_nobody_supervises_are_forgotten() {
    let mut told = 0;
    for seed in 0..12 {
        let mut world = at_rest(seed);
        let Some(spec) = world.specs.get("w@2").cloned() else { continue };
        let want = if spec.autostart { Want::Up } else { Want::Down };
        let targets = Targets::Names(vec!["w@2".to_owned()]);
        let other = match want {
            Want::Up => Request::Stop { targets },
            Want::Down => Request::Start { targets, timeout_ms: None, force: false },
        };
        is_asked(&mut world, other);
        pass(&mut world, 60_000);
        assert_ne!(world.ledger.on_disk("w@2"), Some(want), "seed {seed}");
        world.kill_supervisor();
        recount(&mut world, "w", 1);
        world.define();
        is_followed(&mut world);
        assert_eq!(shown(&world, "w@2"), None, "seed {seed}");
        pass(&mut world, 10_000);
        recount(&mut world, "w", 3);
        world.define();
        // With a reload or with the next start.
        if seed % 2 == 0 {
            is_asked(&mut world, Request::Reload { restart: false });
            while shown(&world, "w@2").is_none() {
                assert!(world.step(world.now() + 60_000).unwrap());
            }
        } else {
            is_followed(&mut world);
        }
        assert_eq!(shown(&world, "w@2"), Some((want, 0)), "seed {seed}");
        told += 1;
    }
    assert!(told > 1);
}

/// A volume that was mounted after the start: what somebody had stopped was started by the reload that found it.
#[test]
fn what_was_away_at_a_start_is_wanted_as_it_was_when_a_reload_finds_it() {
    let mut told = 0;
    for seed in 0..6 {
        let mut world = at_rest(seed);
        let name = last_that_is_up(&world);
        if world.specs.get(&name).is_none_or(|spec| spec.group != Group::Alone || !spec.autostart) {
            continue;
        }
        is_asked(&mut world, Request::Stop { targets: Targets::Names(vec![name.clone()]) });
        pass(&mut world, 60_000);
        let before = shown(&world, &name);
        assert_eq!(before.map(|(want, _)| want), Some(Want::Down), "seed {seed}");
        world.kill_supervisor();
        std::fs::remove_file(world.stage.services().join(format!("{name}.toml"))).unwrap();
        is_followed(&mut world);
        pass(&mut world, 10_000);
        assert_eq!(shown(&world, &name), None, "seed {seed}");
        world.define();
        is_asked(&mut world, Request::Reload { restart: false });
        while shown(&world, &name).is_none() {
            assert!(world.step(world.now() + 60_000).unwrap());
        }
        assert_eq!(shown(&world, &name), before, "seed {seed}");
        told += 1;
    }
    assert!(told > 0);
}
