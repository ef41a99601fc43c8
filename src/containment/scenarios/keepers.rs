//! Keepers that are killed or stopped, by their own service or by others.

use super::{World, kill_nine};
use crate::containment::processes::walk;
use crate::containment::*;
use crate::core::exit::Exit;
use crate::core::signal::Signal;

#[test]
fn a_killed_keeper_does_not_let_its_tree_go() {
    isolated!("a_killed_keeper_does_not_let_its_tree_go", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid] {
            for role in ["tree:20", "comet:3", "storm:3"] {
                let mut world = World::new(rung);
                // Another service, and a child that is none of ours, are to survive it.
                world.start(7, "obey", rung);
                world.forget();
                let main = world.start(1, role, rung);
                let keeper = walk::stat(main).unwrap().parent;
                kill_nine(keeper);
                let exit = world.until("exited", |event| match event {
                    Event::MainExited { exit, .. } => Some(*exit),
                    _ => None,
                });
                assert_eq!(exit, Exit::Unknown);
                world.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
                assert!(world.events.iter().any(|event| matches!(event, Event::Degraded { .. })));
                let id = world.id(7);
                let other = world.held.processes(&id);
                assert_eq!((other.len(), world.survivors()), (1, other), "only the other service is left");
                let id = world.id(1);
                world.held.release(&id, world.now());
                world.forget();
                world.end(7);
                world.finish();
            }
        }
    });
}

#[test]
fn a_service_that_kills_its_keeper_ends_and_counts_as_crashed() {
    isolated!("a_service_that_kills_its_keeper_ends_and_counts_as_crashed", || {
        let mut world = World::unscoped(Rung::KeeperSameUid);
        world.start(1, "parricide", Rung::KeeperSameUid);
        world.held.signal_main(&world.id(1), Signal::TERM).unwrap();
        world.empty(1);
        world.finish();
    });
}

/// The service's own uid is all it takes to stop a keeper; a stopped one is woken.
#[test]
fn a_stopped_keeper_still_ends_its_tree() {
    isolated!("a_stopped_keeper_still_ends_its_tree", || {
        let mut world = World::new(Rung::KeeperSameUid);
        let main = world.start(1, "pause", Rung::KeeperSameUid);
        let keeper = walk::stat(main).unwrap().parent;
        crate::sys::pidfd::Pidfd::open(keeper).unwrap().send(Signal::STOP).unwrap();
        world.end(1);
        world.finish();
    });
}
