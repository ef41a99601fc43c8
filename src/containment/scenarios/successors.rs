//! Trees that a killed supervisor has left, and that its successor ends.

use super::{PATIENCE, RUNGS, World, kill_nine};
use crate::containment::processes::walk;
use crate::containment::succession::predecessor::{Spared, end, is_keeper};
use crate::containment::*;
use rustix::process::WaitOptions;
use std::time::Instant;

#[test]
fn a_killed_supervisor_leaves_trees_that_its_successor_ends() {
    isolated!("a_killed_supervisor_leaves_trees_that_its_successor_ends", || {
        for rung in RUNGS {
            let mut world = World::new(rung);
            world.start(1, "tree:10", rung);
            let record = serde_json::to_string(&world.held.predecessor()).unwrap();
            let (instance, _runtime) = (world.instance.clone(), world.runtime);
            // What a SIGKILL does to a supervisor: every descriptor closes, nothing is said to anyone.
            drop(world.held);
            drop(world.poll);
            let predecessor: Predecessor = serde_json::from_str(&record).unwrap();
            let ended = end(&predecessor, &Spared::default(), PATIENCE).unwrap();
            let expected = match rung {
                Rung::Cgroup | Rung::CgroupPrivate => (1, 0, 0),
                _ => (0, 1, 0),
            };
            assert_eq!((ended.cgroups, ended.keepers, ended.strays), expected);
            reap_all();
            let mut world = World::with_instance(rung, instance);
            assert_eq!(world.survivors(), Vec::<i32>::new());
            // The same numbers again, in a life that knows nothing of the first.
            world.start(1, "obey", rung);
            world.forget();
            world.end(1);
            world.finish();
        }
    });
}

/// It has the arguments of a predecessor's keepers that were forked: it was waited for, a second, and then killed.
#[test]
fn a_successor_does_not_take_its_own_fork_server_for_a_keeper() {
    isolated!("a_successor_does_not_take_its_own_fork_server_for_a_keeper", || {
        let mut world = World::new(Rung::KeeperSameUid);
        // The server has been executed when it has made a life.
        world.start(1, "obey", Rung::KeeperSameUid);
        world.end(1);
        let server = world.held.spawner.pid().unwrap();
        assert!(is_keeper(server, &world.instance), "it looks like one");
        let ended = world.held.end_predecessor(&world.held.predecessor(), PATIENCE).unwrap();
        assert_eq!(ended, Ended::default());
        assert!(is_keeper(server, &world.instance), "it lives");
        world.finish();
    });
}

#[test]
fn a_successor_finds_strays_whose_keeper_was_killed_too() {
    isolated!("a_successor_finds_strays_whose_keeper_was_killed_too", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid] {
            let mut world = World::new(rung);
            let main = world.start(1, "tree:10", rung);
            let keeper = walk::stat(main).unwrap().parent;
            let predecessor = world.held.predecessor();
            kill_nine(keeper);
            let World { held, poll, runtime, .. } = world;
            drop((held, poll));
            let ended = end(&predecessor, &Spared::default(), PATIENCE).unwrap();
            assert_eq!((ended.keepers, ended.strays), (0, 21));
            reap_all();
            drop(runtime);
            let again = end(&predecessor, &Spared::default(), PATIENCE).unwrap();
            assert_eq!(again, Ended::default(), "a second time there is nothing");
        }
    });
}

fn reap_all() {
    let end = Instant::now() + PATIENCE;
    while !matches!(rustix::process::wait(WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD)) {
        assert!(Instant::now() < end, "children are left");
        std::thread::yield_now();
    }
}
