//! Programs beside the main process, on every rung: they are of its tree, and are ended with all that they have started.

use super::{World, kill_nine, on_every_rung};
use crate::containment::processes::walk;
use crate::containment::*;
use crate::core::exit::Exit;
use crate::core::signal::Signal;
use std::io::Read;

fn run(world: &mut World, argv: &[&str], rung: Rung) -> Result<(), HookError> {
    let (plan, _stdout) = world.plan(argv, "", rung);
    world.held.run_hook(&world.id(1), plan)
}

/// Runs one of the hostile programs and waits until it says that it is in place.
fn play(world: &mut World, role: &str, rung: Rung) {
    let (plan, mut stdout) = world.plan(&["/proc/self/exe"], role, rung);
    world.held.run_hook(&world.id(1), plan).unwrap();
    assert_eq!(stdout.read(&mut [0]).unwrap(), 1, "{role} never came up");
}

fn ended(event: &Event) -> Option<Result<Exit, SpawnError>> {
    match event {
        Event::HookEnded { ended, .. } => Some(ended.clone()),
        _ => None,
    }
}

fn end(world: &mut World) -> Result<Exit, SpawnError> {
    let (id, now) = (world.id(1), world.now());
    world.held.end_hook(&id, now);
    let how = world.until("ended", ended);
    world.forget();
    how
}

/// What runs in the tree.
fn living(world: &World) -> Vec<i32> {
    let mut pids = world.held.processes(&world.id(1));
    pids.retain(|pid| walk::stat(*pid).is_some_and(|stat| !stat.is_dead()));
    pids.sort_unstable();
    pids
}

const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core: false };

#[test]
fn a_hook_is_of_the_tree_and_its_end_is_told() {
    isolated!("a_hook_is_of_the_tree_and_its_end_is_told", || {
        on_every_rung(|world, rung| {
            world.start(1, "tree:2", rung);
            let (id, procs) = (world.id(1), world.held.usage(&world.id(1)).procs);
            run(world, &["/bin/sh", "-c", "exit 3"], rung).unwrap();
            assert_eq!(world.until("ended", ended), Ok(Exit::Code(3)));
            world.forget();
            run(world, &["/no/such/program"], rung).unwrap();
            let words = "cannot execute '/no/such/program': No such file or directory";
            assert_eq!(
                world.until("ended", ended),
                Err(SpawnError::Child { words: words.to_owned(), errno: libc::ENOENT })
            );
            world.forget();
            // One that hangs is seen, stays alone, and ends with the rest.
            run(world, &["/bin/sleep", "1000"], rung).unwrap();
            while world.held.usage(&id).procs == procs {
                world.turn();
            }
            assert!(matches!(run(world, &["/bin/true"], rung), Err(HookError::Busy)));
            let now = world.now();
            world.held.kill(&id, now);
            assert!(matches!(run(world, &["/bin/true"], rung), Err(HookError::Busy | HookError::Ending)));
            assert!(world.until("ended", ended).is_ok());
            world.empty(1);
        });
    });
}

/// Also where its tree has a numbering of its own, and where the main process may signal only what it has started.
#[test]
fn a_hook_knows_the_main_process_and_can_signal_it() {
    isolated!("a_hook_knows_the_main_process_and_can_signal_it", || {
        on_every_rung(|world, rung| {
            world.start(1, "obey", rung);
            run(world, &["/bin/sh", "-c", "kill -INT $HERMES_SUP_MAIN_PID"], rung).unwrap();
            let exit = world.until("exited", |event| match event {
                Event::MainExited { exit, .. } => Some(*exit),
                _ => None,
            });
            assert_eq!(exit, Exit::Signal { signal: Signal::INT, core: false });
            assert_eq!(world.until("ended", ended), Ok(Exit::Code(0)));
            world.empty(1);
        });
    });
}

/// What it has started has left its session, ignores every signal, and hops from process to process.
#[test]
fn a_hook_that_is_ended_takes_with_it_what_it_has_started_and_nothing_else() {
    isolated!("a_hook_that_is_ended_takes_with_it_what_it_has_started_and_nothing_else", || {
        on_every_rung(|world, rung| {
            world.start(1, "tree:5", rung);
            let before = living(world);
            for role in ["pause", "tree:20", "comet:3", "storm:3"] {
                play(world, role, rung);
                assert!(living(world).len() > before.len(), "{role}");
                world.forget();
                assert_eq!(end(world), Ok(KILLED), "{role}");
                assert_eq!(living(world), before, "{role}");
            }
            world.end(1);
        });
    });
}

#[test]
fn a_hook_that_is_ended_in_a_tree_that_stands_still_ends_and_the_tree_stands_still() {
    isolated!("a_hook_that_is_ended_in_a_tree_that_stands_still_ends_and_the_tree_stands_still", || {
        on_every_rung(|world, rung| {
            world.start(1, "tree:5", rung);
            let (id, before) = (world.id(1), living(world));
            play(world, "tree:5", rung);
            world.held.freeze(&id, true).unwrap();
            world.until("frozen", |event| matches!(event, Event::Frozen { frozen: true, .. }).then_some(()));
            assert_eq!(end(world), Ok(KILLED));
            assert!(world.held.is_frozen(&id));
            assert_eq!(living(world), before);
            world.end(1);
        });
    });
}

#[test]
fn a_hook_whose_keeper_dies_ends_with_the_tree() {
    isolated!("a_hook_whose_keeper_dies_ends_with_the_tree", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid, Rung::Pidns] {
            let mut world = World::new(rung);
            let main = world.start(1, "obey", rung);
            play(&mut world, "tree:5", rung);
            kill_nine(walk::stat(main).unwrap().parent);
            assert_eq!(world.until("ended", ended), Ok(Exit::Unknown));
            assert!(matches!(run(&mut world, &["/bin/true"], rung), Err(HookError::Ending)));
            world.empty(1);
            world.finish();
        }
    });
}
