//! Stories of a supervisor at a chosen moment, where a random one seldom comes.

use super::callers::Heard;
use super::loads::ask;
use super::world::{Happening, World};
use crate::control::protocol::{Program, Registration, Request};
use crate::core::signal::Signal;

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
