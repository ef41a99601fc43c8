//! Trees that a killed supervisor has left, and that its successor ends.

use super::{PATIENCE, RUNGS, World, kill_nine};
use crate::containment::processes::walk;
use crate::containment::succession::predecessor::{Spared, end, is_keeper};
use crate::containment::*;
use crate::core::signal::Signal;
use crate::sys::pidfd::Pidfd;
use rustix::process::WaitOptions;
use std::time::{Duration, Instant};

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

/// The killed supervisor's keeper, with a tree under it. Returns what is known of that supervisor, and the keeper.
fn left_with_a_keeper(rung: Rung) -> (Predecessor, i32, tempfile::TempDir) {
    let mut world = World::new(rung);
    let main = world.start(1, "tree:10", rung);
    let keeper = walk::stat(main).unwrap().parent;
    let predecessor = world.held.predecessor();
    let World { held, poll, runtime, .. } = world;
    drop((held, poll));
    (predecessor, keeper, runtime)
}

/// The looks for it were counted, and on a busy machine fifty of them took longer than a start may take: it was refused.
#[test]
fn a_keeper_whose_socket_was_taken_away_is_ended_in_time_however_long_a_look_takes() {
    isolated!("a_keeper_whose_socket_was_taken_away_is_ended_in_time_however_long_a_look_takes", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid] {
            let (predecessor, _, runtime) = left_with_a_keeper(rung);
            let sockets = runtime.path().join("keepers");
            let end_of_wait = Instant::now() + PATIENCE;
            while std::fs::remove_file(sockets.join("svc.1")).is_err() {
                assert!(Instant::now() < end_of_wait, "it does not listen");
                std::thread::yield_now();
            }
            for n in 0..20_000 {
                let path = sockets.join(format!("slow.{n}"));
                let (socket, own) = (rustix::fs::FileType::Socket, rustix::fs::Mode::RWXU);
                rustix::fs::mknodat(rustix::fs::CWD, &path, socket, own, 0).unwrap();
            }
            let ended = end(&predecessor, &Spared::default(), Duration::from_secs(4)).unwrap();
            assert_eq!((ended.keepers, ended.silent), (1, 1));
            reap_all();
            let left = std::fs::read_dir(&sockets).unwrap().count();
            assert_eq!(left, 0, "sockets that nobody listens at are left");
        }
    });
}

/// It takes the call, as the kernel does that for it, and does not answer.
#[test]
fn a_stopped_keeper_of_a_killed_supervisor_is_ended() {
    isolated!("a_stopped_keeper_of_a_killed_supervisor_is_ended", || {
        for rung in [Rung::Keeper, Rung::KeeperSameUid] {
            let (predecessor, keeper, runtime) = left_with_a_keeper(rung);
            let end_of_wait = Instant::now() + PATIENCE;
            while !runtime.path().join("keepers/svc.1").exists() {
                assert!(Instant::now() < end_of_wait, "it does not listen");
                std::thread::yield_now();
            }
            Pidfd::open(keeper).unwrap().send(Signal::STOP).unwrap();
            let ended = end(&predecessor, &Spared::default(), Duration::from_secs(10)).unwrap();
            assert_eq!(ended.keepers, 1);
            reap_all();
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
