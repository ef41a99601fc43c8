//! Real scopes on every rung: what a worker can do to escape its end, that it does not, and that nobody else is hit.

use super::{PATIENCE, World, kill_nine, on_every_rung};
use crate::containment::processes::walk;
use crate::containment::*;
use crate::core::limits::Limits;
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::sys::pidfd::Pidfd;
use std::fs::File;
use std::io::Read;
use std::time::Instant;

fn on_cgroup(rung: Rung) -> bool {
    matches!(rung, Rung::Cgroup | Rung::CgroupPrivate)
}

const LIMITS: ScopeLimits = ScopeLimits { memory_max: Some(1 << 30), swap_max: None, oom_group: true };

fn name(text: &str) -> ScopeName {
    ScopeName::new(text).unwrap()
}

/// A service with a worker that waits for its signal.
struct Shop {
    main: i32,
    worker: i32,
    stdout: File,
}

fn open_shop(world: &mut World, n: u64, role: &str, rung: Rung) -> Shop {
    let (plan, mut stdout) = world.plan(&["/proc/self/exe"], role, rung);
    let id = world.id(n);
    world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
    let main = world.spawned();
    assert_eq!(stdout.read(&mut [0u8; 1]).unwrap(), 1, "{role} never came up");
    world.forget();
    let [worker] = walk::children(main)[..] else { panic!("{:?}", walk::children(main)) };
    Shop { main, worker, stdout }
}

fn member(world: &World, pid: i32) -> Option<Member> {
    world.held.member(pid, Pidfd::open(pid).unwrap())
}

impl Shop {
    fn enter(&self, world: &mut World, unit: &str) -> ScopeInfo {
        let member = member(world, self.worker).expect("a process of the service");
        world.held.open_scope(&member, &name(unit), LIMITS).unwrap()
    }

    /// Lets the worker become what it is to be.
    fn work(&mut self) {
        Pidfd::open(self.worker).unwrap().send(Signal::TERM).unwrap();
        assert_eq!(self.stdout.read(&mut [0u8; 1]).unwrap(), 1, "the worker never came up");
    }
}

/// Turns until the process is over; its parent, which never reaps, is none of ours.
fn dead(world: &mut World, pid: i32) {
    let end = Instant::now() + PATIENCE;
    while walk::stat(pid).is_some_and(|stat| !stat.is_dead()) {
        assert!(Instant::now() < end, "{pid} lives");
        world.turn();
    }
}

fn scope_ended(world: &mut World) {
    world.until("over", |event| matches!(event, Event::ScopeEnded { .. }).then_some(()));
    world.forget();
}

/// No directory of a scope is left.
fn no_directory(world: &World, n: u64) -> bool {
    let Some(dir) = world.cgroup_dir() else { return true };
    !dir.join(world.id(n).to_string()).join("scope-w").exists()
}

#[test]
fn a_scope_ends_whole_and_alone() {
    isolated!("a_scope_ends_whole_and_alone", || {
        on_every_rung(|world, rung| {
            for (n, role) in (1..).zip(["foreman-tree:20", "foreman-comet:2", "foreman-storm:3"]) {
                let mut shop = open_shop(world, n, role, rung);
                let info = shop.enter(world, "w");
                assert_eq!(info.adopt_orphans, !on_cgroup(rung));
                assert_eq!(info.cgroup.is_some(), on_cgroup(rung));
                assert_eq!(info.memory_max.is_none(), !info.not_in_force.is_empty(), "{info:?}");
                shop.work();
                let (id, w, now) = (world.id(n), name("w"), world.now());
                let procs = world.held.scope(&id, &w).unwrap().procs;
                assert!(role != "foreman-tree:20" || procs == 41, "{procs} of 41");
                assert!(world.held.end_scope(&id, &w, now));
                assert!(world.held.scope(&id, &w).unwrap().ending);
                scope_ended(world);
                assert_eq!(world.survivors(), [shop.main], "{role} on {rung}");
                assert_eq!(world.held.scope(&id, &w), None);
                assert!(!world.held.end_scope(&id, &w, now), "a second time there is nothing");
                assert!(no_directory(world, n));
                world.end(n);
            }
        });
    });
}

/// The directory of a life has a shortened name where the service's is longer than a file name takes. Its processes were taken
/// for strangers', and got no scope.
#[test]
fn a_service_with_the_longest_name_has_scopes_like_any_other() {
    isolated!("a_service_with_the_longest_name_has_scopes_like_any_other", || {
        on_every_rung(|world, rung| {
            world.name = ServiceName::of_slot(&"long-".repeat(50)).unwrap();
            let shop = open_shop(world, 1, "foreman-tree:0", rung);
            assert_eq!(world.held.owner(shop.worker), Some(world.id(1)));
            shop.enter(world, "w");
            assert_eq!(world.held.scope(&world.id(1), &name("w")).unwrap().procs, 1);
            world.end(1);
        });
    });
}

#[test]
fn a_scope_goes_when_its_worker_is_done() {
    isolated!("a_scope_goes_when_its_worker_is_done", || {
        on_every_rung(|world, rung| {
            let shop = open_shop(world, 1, "foreman-tree:0", rung);
            shop.enter(world, "w");
            kill_nine(shop.worker);
            let end = Instant::now() + PATIENCE;
            while walk::stat(shop.worker).is_some_and(|stat| !stat.is_dead()) {
                assert!(Instant::now() < end);
            }
            // Asked before any news of it can have been heard.
            let id = world.id(1);
            assert_eq!(world.held.scope(&id, &name("w")), None);
            world.hear();
            let said = |event: &&Event| matches!(event, Event::ScopeEnded { .. });
            assert_eq!(world.events.iter().filter(said).count(), 1, "{:?}", world.events);
            world.turn();
            assert_eq!(world.events.iter().filter(said).count(), 1, "{:?}", world.events);
            assert!(no_directory(world, 1));
            // And once where nobody asks, where the kernel tells.
            if on_cgroup(rung) {
                world.forget();
                world.end(1);
                let shop = open_shop(world, 2, "foreman-tree:0", rung);
                shop.enter(world, "w");
                kill_nine(shop.worker);
                scope_ended(world);
                assert!(no_directory(world, 2));
                world.end(2);
            } else {
                world.forget();
                world.end(1);
            }
        });
    });
}

#[test]
fn the_end_of_the_incarnation_is_the_end_of_its_scopes() {
    isolated!("the_end_of_the_incarnation_is_the_end_of_its_scopes", || {
        on_every_rung(|world, rung| {
            let mut shop = open_shop(world, 1, "foreman-tree:5", rung);
            shop.enter(world, "w");
            shop.work();
            let id = world.id(1);
            kill_nine(shop.main);
            world.until("exited", |event| matches!(event, Event::MainExited { .. }).then_some(()));
            assert!(!world.events.iter().any(|event| matches!(event, Event::TreeEmpty { .. })));
            assert_eq!(world.held.processes(&id).len(), 11, "the worker's tree is still the service's");
            world.end(1);
            assert_eq!(world.held.scope(&id, &name("w")), None);
        });
    });
}

#[test]
fn who_is_no_process_of_a_service_gets_no_scope() {
    isolated!("who_is_no_process_of_a_service_gets_no_scope", || {
        on_every_rung(|world, rung| {
            let shop = open_shop(world, 1, "foreman-tree:0", rung);
            let own = std::process::id().cast_signed();
            assert!(member(world, own).is_none(), "the supervisor itself");
            assert!(member(world, 1).is_none());
            let mut other =
                std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
            assert!(
                member(world, other.id().cast_signed()).is_none(),
                "a child that is none of the service's"
            );
            other.kill().unwrap();
            other.wait().unwrap();
            // The number means another process than the one that asked.
            let ended = Pidfd::open(shop.worker).unwrap();
            kill_nine(shop.worker);
            dead(world, shop.worker);
            assert!(world.held.member(shop.main, ended).is_none());
            world.end(1);
        });
    });
}

#[test]
fn what_cannot_be_made_says_why_and_leaves_nothing() {
    isolated!("what_cannot_be_made_says_why_and_leaves_nothing", || {
        on_every_rung(|world, rung| {
            let shop = open_shop(world, 1, "foreman-tree:0", rung);
            let main = member(world, shop.main).unwrap();
            let worker = member(world, shop.worker).unwrap();
            assert_eq!((&main.id, &worker.id), (&world.id(1), &world.id(1)));
            shop.enter(world, "w");
            let refused = |world: &mut World, member: &Member, unit: &str| {
                world.held.open_scope(member, &name(unit), LIMITS).unwrap_err().to_string()
            };
            assert!(refused(world, &main, "w").contains("w.scope exists already"));
            let inside = member(world, shop.worker).unwrap();
            let said = refused(world, &inside, "x");
            assert!(said.contains("the caller is in w.scope already"), "{said}");
            kill_nine(shop.worker);
            dead(world, shop.worker);
            world.turn();
            assert!(refused(world, &worker, "w").contains("has ended"));
            assert!(no_directory(world, 1));
            world.forget();
            world.end(1);
        });
    });
}

#[test]
fn the_number_of_scopes_is_bounded() {
    isolated!("the_number_of_scopes_is_bounded", || {
        on_every_rung(|world, rung| {
            let shop = open_shop(world, 1, "foreman-tree:0", rung);
            // The same process again and again, which only a caller of this room can do.
            let worker = member(world, shop.worker).unwrap();
            for n in 0..1000 {
                world.held.open_scope(&worker, &name(&format!("w{n}")), ScopeLimits::default()).unwrap();
            }
            let more = world.held.open_scope(&worker, &name("more"), ScopeLimits::default());
            if on_cgroup(rung) {
                // It left each empty for the next one, and empty ones do not count.
                assert!(more.is_ok(), "{more:?}");
            } else {
                assert!(matches!(more, Err(ScopeError::TooMany)), "{more:?}");
            }
            // Room again once they are gone.
            kill_nine(shop.worker);
            dead(world, shop.worker);
            world.turn();
            let main = member(world, shop.main).unwrap();
            world.held.open_scope(&main, &name("more"), ScopeLimits::default()).unwrap();
            world.forget();
            world.end(1);
        });
    });
}
