//! What the processes of a service can do to escape their end, and that they do not.

use super::{PATIENCE, World, kill_nine, on_every_rung};
use crate::containment::processes::walk;
use crate::containment::*;
use crate::core::exit::Exit;
use crate::core::limits::Limits;
use crate::core::signal::Signal;
use rustix::process::WaitOptions;
use std::time::Instant;

#[test]
fn a_tree_that_double_forked_and_ignores_every_signal_ends_whole() {
    isolated!("a_tree_that_double_forked_and_ignores_every_signal_ends_whole", || {
        on_every_rung(|world, rung| {
            world.start(1, "tree:50", rung);
            let id = world.id(1);
            assert_eq!(world.held.rung(&id), Some(rung));
            assert_eq!(world.held.usage(&id).procs, 101);
            world.held.signal_tree(&id, Signal::TERM);
            world.until("exited", |event| matches!(event, Event::MainExited { .. }).then_some(()));
            assert_eq!(world.held.processes(&id).len(), 100, "the leader obeyed, the others did not");
            world.end(1);
        });
    });
}

#[test]
fn comets_end() {
    isolated!("comets_end", || {
        on_every_rung(|world, rung| {
            world.start(1, "comet:5", rung);
            world.end(1);
        });
    });
}

#[test]
fn a_fork_storm_ends() {
    isolated!("a_fork_storm_ends", || {
        on_every_rung(|world, rung| {
            world.start(1, "storm:10", rung);
            world.end(1);
        });
    });
}

/// cgroup.kill leaves it alive on 6.18: the signal is pended on the dead leader.
#[test]
fn a_leader_that_exited_before_its_threads_ends() {
    isolated!("a_leader_that_exited_before_its_threads_ends", || {
        on_every_rung(|world, rung| {
            let pid = world.start(1, "zombie-leader", rung);
            let end = Instant::now() + PATIENCE;
            while walk::stat(pid).is_some_and(|stat| stat.state != b'Z') {
                assert!(Instant::now() < end);
                world.turn();
            }
            world.end(1);
        });
    });
}

#[test]
fn what_outlives_the_main_process_is_seen_and_ends_on_order() {
    isolated!("what_outlives_the_main_process_is_seen_and_ends_on_order", || {
        on_every_rung(|world, rung| {
            world.start(1, "leave:3", rung);
            let exit = world.until("exited", |event| match event {
                Event::MainExited { exit, .. } => Some(*exit),
                _ => None,
            });
            assert_eq!(exit, Exit::Code(3));
            assert!(!world.events.iter().any(|event| matches!(event, Event::TreeEmpty { .. })));
            world.end(1);
        });
    });
}

/// Ends that are reaped together are looked at together, where nothing lives in any tree.
#[test]
fn of_many_ends_at_once_only_those_are_over_that_left_nothing() {
    isolated!("of_many_ends_at_once_only_those_are_over_that_left_nothing", || {
        const MANY: u64 = 20;
        let mut world = World::new(Rung::Cgroup);
        for (from, last) in [(1, "leave:3"), (100, "sleep")] {
            let mut mains = Vec::new();
            for n in from..from + MANY {
                let role = if n + 1 == from + MANY { last } else { "sleep" };
                let argv: &[&str] = if role == "sleep" { &["sleep", "1000"] } else { &["/proc/self/exe"] };
                let (plan, _stdout) = world.plan(argv, role, Rung::Cgroup);
                world.held.spawn(&world.id(n), plan, None, &Limits::default()).unwrap();
                mains.push(match role {
                    "sleep" => world.spawned(),
                    _ => 0,
                });
                world.events.retain(|event| !matches!(event, Event::Spawned { .. }));
            }
            mains.iter().filter(|pid| **pid > 0).for_each(|pid| kill_nine(*pid));
            for _ in 0..MANY {
                let (pid, status) = rustix::process::wait(WaitOptions::empty()).unwrap().unwrap();
                world.held.reaped(pid.as_raw_nonzero().get(), status.as_raw(), world.now());
            }
            world.held.settle_reaped(world.now());
            world.hear();
            let mut over: Vec<u64> = world
                .events
                .iter()
                .filter_map(|event| match event {
                    Event::TreeEmpty { id } => Some(id.n),
                    _ => None,
                })
                .collect();
            over.sort_unstable();
            let left = if last == "sleep" { 0 } else { 1 };
            assert_eq!(over, (from..from + MANY - left).collect::<Vec<_>>());
            assert_eq!(world.survivors().len() as u64, left);
            for n in over {
                world.held.release(&world.id(n), world.now());
            }
            world.forget();
            if left > 0 {
                let (id, now) = (world.id(from + MANY - 1), world.now());
                world.held.kill(&id, now);
                world.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
                world.held.release(&id, world.now());
                world.forget();
            }
        }
        world.finish();
    });
}

#[test]
fn one_life_after_another_and_each_exit_code_is_the_services_own() {
    isolated!("one_life_after_another_and_each_exit_code_is_the_services_own", || {
        on_every_rung(|world, rung| {
            for n in 1..20 {
                let (plan, _stdout) = world.plan(&["/proc/self/exe"], &format!("exit:{n}"), rung);
                let id = world.id(n);
                world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
                world.until("empty", |event| matches!(event, Event::TreeEmpty { .. }).then_some(()));
                let exit = Exit::Code(n as u8);
                let expected = [
                    matches!(world.events[0], Event::Spawned { .. }),
                    world.events[1] == Event::MainExited { id: id.clone(), exit },
                    world.events[2] == Event::TreeEmpty { id: id.clone() },
                    world.events.len() == 3,
                ];
                assert_eq!(expected, [true; 4], "{:?}", world.events);
                world.empty(n);
            }
        });
    });
}

/// A kill that comes before the child has joined its cgroup, or before its exec, must not be outrun.
#[test]
fn a_kill_right_after_the_spawn_is_not_outrun() {
    isolated!("a_kill_right_after_the_spawn_is_not_outrun", || {
        on_every_rung(|world, rung| {
            for n in 1..30 {
                let (plan, _stdout) = world.plan(&["/proc/self/exe"], "tree:3", rung);
                let (id, now) = (world.id(n), world.now());
                world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
                world.held.kill(&id, now);
                world.until("over", |event| {
                    matches!(event, Event::TreeEmpty { .. } | Event::SpawnFailed { .. }).then_some(())
                });
                assert_eq!(world.survivors(), Vec::<i32>::new());
                world.held.release(&id, world.now());
                world.forget();
            }
        });
    });
}

/// A supervisor that was too busy with restarts to wait for anything removed no directory: there were more with each of them.
#[test]
fn directories_of_lives_that_are_over_are_bounded_however_busy_the_loop_is() {
    isolated!("directories_of_lives_that_are_over_are_bounded_however_busy_the_loop_is", || {
        for rung in [Rung::Cgroup, Rung::CgroupPrivate] {
            let mut world = World::new(rung);
            world.hurries = true;
            for n in 1..=30 {
                world.start(n, "obey", rung);
                world.end(n);
            }
            let dir = world.cgroup_dir().unwrap();
            let left =
                || std::fs::read_dir(&dir).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
            let end = Instant::now() + PATIENCE;
            // The supervisor's own is one more.
            while left() > 17 {
                assert!(Instant::now() < end, "{} directories are left", left());
                world.turn();
            }
            world.hurries = false;
            world.finish();
        }
    });
}

/// A tree that was thawed and frozen again at once looked as it was last said to be, and the second freeze was told to nobody.
#[test]
fn a_tree_that_is_frozen_again_before_anybody_has_looked_is_told_again() {
    isolated!("a_tree_that_is_frozen_again_before_anybody_has_looked_is_told_again", || {
        for rung in [Rung::Cgroup, Rung::CgroupPrivate] {
            let mut world = World::new(rung);
            world.start(1, "obey", rung);
            let id = world.id(1);
            let told = |world: &mut World, wanted| {
                let is_it =
                    |event: &Event| matches!(event, Event::Frozen { frozen, .. } if *frozen == wanted);
                world.until("what was ordered", |event| is_it(event).then_some(()));
                world.forget();
            };
            // Without a look at what the kernel says meanwhile.
            let order = |world: &mut World, frozen| {
                world.held.freeze(&id, frozen).unwrap();
                let end = Instant::now() + PATIENCE;
                while world.held.is_frozen(&id) != frozen {
                    assert!(Instant::now() < end, "frozen: {frozen}");
                    std::thread::yield_now();
                }
            };
            order(&mut world, true);
            told(&mut world, true);
            order(&mut world, false);
            order(&mut world, true);
            told(&mut world, true);
            order(&mut world, false);
            told(&mut world, false);
            world.end(1);
            world.finish();
        }
    });
}
