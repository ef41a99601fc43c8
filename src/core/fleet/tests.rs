//! Several services with the real machine, and the order between them.

use super::*;
use crate::core::event::{Command, Ticket};
use crate::core::exit::Exit;
use crate::core::policy::Kind;
use crate::core::words::Want;

const NOW: Tick = Tick(1000);

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn add(fleet: &mut Fleet, text: &str, after: &[&str], requires: &[&str]) -> ServiceId {
    let names = |texts: &[&str]| texts.iter().map(|text| name(text)).collect();
    fleet.add(name(text), Policy::default(), names(after), names(requires), 1)
}

fn boot_all(fleet: &mut Fleet, want: Want) -> FleetEffects {
    let restored = fleet
        .ids()
        .map(|id| {
            (
                id,
                Restored {
                    want,
                    recorded: true,
                    history: Default::default(),
                    living: None,
                    finished: false,
                    needed: None,
                },
            )
        })
        .collect();
    fleet.boot(restored, NOW)
}

fn spawned(effects: &FleetEffects) -> Vec<ServiceId> {
    effects.iter().filter(|(_, e)| matches!(e, Effect::Spawn { .. })).map(|(id, _)| *id).collect()
}

fn signalled(effects: &FleetEffects) -> Vec<ServiceId> {
    effects.iter().filter(|(_, e)| matches!(e, Effect::SignalMain { .. })).map(|(id, _)| *id).collect()
}

fn up(fleet: &mut Fleet, id: ServiceId) -> FleetEffects {
    fleet.step(id, Event::Spawned { incarnation: 1, pid: 7 }, NOW)
}

fn end(fleet: &mut Fleet, id: ServiceId) -> FleetEffects {
    end_with(fleet, id, Exit::Code(0))
}

fn end_with(fleet: &mut Fleet, id: ServiceId, exit: Exit) -> FleetEffects {
    let mut all = fleet.step(id, Event::MainExited { incarnation: 1, exit }, NOW);
    all.extend(fleet.step(id, Event::TreeEmpty { incarnation: 1 }, NOW));
    all.extend(fleet.step(id, Event::LogsDrained { incarnation: 1 }, NOW));
    all
}

/// Contract: 99.
#[test]
fn a_follower_starts_when_its_leader_is_up_and_ends_before_it() {
    let mut fleet = Fleet::default();
    // Named so that the alphabet is against the order.
    let follower = add(&mut fleet, "a", &["z"], &[]);
    let leader = add(&mut fleet, "z", &[], &[]);
    assert_eq!(spawned(&boot_all(&mut fleet, Want::Up)), [leader]);
    assert_eq!(spawned(&up(&mut fleet, leader)), [follower]);
    assert!(spawned(&up(&mut fleet, follower)).is_empty());
    let first = fleet.shutdown(NOW.after(Duration::from_secs(9)), NOW);
    assert_eq!(signalled(&first), [follower]);
    assert_eq!(signalled(&end(&mut fleet, follower)), [leader]);
    assert!(!fleet.is_empty_handed());
    end(&mut fleet, leader);
    assert!(fleet.is_empty_handed());
    assert_eq!(fleet.next_deadline(), None);
}

#[test]
fn a_requirement_that_is_down_refuses_and_one_that_stops_takes_its_followers_along() {
    let mut fleet = Fleet::default();
    let web = add(&mut fleet, "web", &[], &["db"]);
    let db = add(&mut fleet, "db", &[], &[]);
    boot_all(&mut fleet, Want::Down);
    let start = |fleet: &mut Fleet, id, ticket| {
        let command = Command::Start { force: false };
        let mut all = fleet.step(id, Event::Command { ticket: Ticket(ticket), command }, NOW);
        all.extend(fleet.step(id, Event::Recorded { seq: 1 }, NOW));
        all
    };
    let refused = start(&mut fleet, web, 1);
    assert!(
        refused
            .iter()
            .any(|(_, e)| format!("{e:?}").contains("requires 'db', which is down: start it first")),
        "{refused:?}"
    );
    // The want stands: when the requirement comes up, so does the service.
    start(&mut fleet, db, 2);
    assert_eq!(spawned(&up(&mut fleet, db)), [web]);
    up(&mut fleet, web);
    fleet.step(db, Event::Command { ticket: Ticket(3), command: Command::Stop }, NOW);
    let stopped = fleet.step(db, Event::Recorded { seq: 2 }, NOW);
    assert_eq!(signalled(&stopped), [db, web]);
    let ended = end(&mut fleet, web);
    assert!(spawned(&ended).is_empty());
    assert_eq!(fleet.gateway(web).unwrap().want(), Want::Up);
}

/// The page was left running without the web server: what that required was down, but it was still wanted up itself.
#[test]
fn a_stop_takes_along_whatever_requires_it_in_turn() {
    let mut fleet = Fleet::default();
    let page = add(&mut fleet, "a-page", &[], &["web"]);
    let web = add(&mut fleet, "web", &[], &["db"]);
    let db = add(&mut fleet, "db", &[], &[]);
    boot_all(&mut fleet, Want::Up);
    assert_eq!(spawned(&up(&mut fleet, db)), [web]);
    assert_eq!(spawned(&up(&mut fleet, web)), [page]);
    up(&mut fleet, page);
    fleet.step(db, Event::Command { ticket: Ticket(1), command: Command::Stop }, NOW);
    let stopped = fleet.step(db, Event::Recorded { seq: 1 }, NOW);
    assert_eq!(signalled(&stopped), [db, web, page]);
    for id in [page, web, db] {
        assert!(spawned(&end(&mut fleet, id)).is_empty());
    }
    assert_eq!(fleet.gateway(page).unwrap().reason(), "requires 'web', which is down: start it first");
    // All of it comes back with what was stopped.
    let start = Command::Start { force: false };
    fleet.step(db, Event::Command { ticket: Ticket(2), command: start }, NOW);
    assert_eq!(fleet.gateway(page).unwrap().reason(), "waits for 'web'");
    fleet.step(db, Event::Recorded { seq: 2 }, NOW);
    let again = |fleet: &mut Fleet, id| fleet.step(id, Event::Spawned { incarnation: 2, pid: 8 }, NOW);
    assert_eq!(spawned(&again(&mut fleet, db)), [web]);
    assert_eq!(spawned(&again(&mut fleet, web)), [page]);
}

/// It was answered that the run was refused, and ran hours later, when what it required was started for another reason.
#[test]
fn a_run_that_was_refused_does_not_come_later() {
    let mut fleet = Fleet::default();
    let job = add(&mut fleet, "job", &[], &["db"]);
    let db = add(&mut fleet, "db", &[], &[]);
    boot_all(&mut fleet, Want::Down);
    let once = fleet.step(job, Event::Command { ticket: Ticket(1), command: Command::Once }, NOW);
    assert!(once.iter().any(|(_, effect)| matches!(effect, Effect::Reply { .. })), "{once:?}");
    let start = Command::Start { force: false };
    fleet.step(db, Event::Command { ticket: Ticket(2), command: start }, NOW);
    fleet.step(db, Event::Recorded { seq: 1 }, NOW);
    assert!(spawned(&up(&mut fleet, db)).is_empty());
}

/// `ctl start db web`, after a stop of db had ended both. The want of web was up all the time, so its start does not wait for the
/// disk: it was refused, because db was down still.
#[test]
fn what_is_started_together_with_its_requirement_waits_for_it() {
    for recorded in [true, false] {
        let mut fleet = Fleet::default();
        let web = add(&mut fleet, "a-web", &[], &["db"]);
        let db = add(&mut fleet, "db", &[], &[]);
        boot_all(&mut fleet, Want::Up);
        up(&mut fleet, db);
        up(&mut fleet, web);
        fleet.step(db, Event::Command { ticket: Ticket(1), command: Command::Stop }, NOW);
        fleet.step(db, Event::Recorded { seq: 1 }, NOW);
        end(&mut fleet, web);
        end(&mut fleet, db);
        let mut tickets = [(web, Ticket(2)), (db, Ticket(3))];
        fleet.put_in_order(&mut tickets);
        assert_eq!(tickets, [(db, Ticket(3)), (web, Ticket(2))]);
        let mut said = Vec::new();
        for (id, ticket) in tickets {
            let command = Command::Start { force: false };
            said.extend(fleet.step(id, Event::Command { ticket, command }, NOW));
        }
        let replies = |effects: &FleetEffects| -> Vec<ServiceId> {
            effects.iter().filter(|(_, e)| matches!(e, Effect::Reply { .. })).map(|(id, _)| *id).collect()
        };
        assert_eq!(replies(&said), []);
        assert_eq!(fleet.gateway(web).unwrap().reason(), "waits for 'db'");
        if recorded {
            assert_eq!(spawned(&fleet.step(db, Event::Recorded { seq: 2 }, NOW)), [db]);
            let again = Event::Spawned { incarnation: 2, pid: 8 };
            assert_eq!(spawned(&fleet.step(db, again, NOW)), [web]);
        } else {
            let failed = Event::NotRecorded { seq: 2, reason: "the disk is full".to_owned() };
            assert_eq!(replies(&fleet.step(db, failed, NOW)), [db, web]);
        }
    }
}

#[test]
fn a_crash_of_a_requirement_that_restarts_stops_nobody() {
    let mut fleet = Fleet::default();
    let web = add(&mut fleet, "web", &[], &["db"]);
    let db = add(&mut fleet, "db", &[], &[]);
    boot_all(&mut fleet, Want::Up);
    up(&mut fleet, db);
    up(&mut fleet, web);
    let crash = end_with(&mut fleet, db, Exit::Code(1));
    assert_eq!(spawned(&crash), [db]);
    assert!(signalled(&crash).is_empty());
}

#[test]
fn a_follower_of_a_oneshot_waits_until_it_has_succeeded() {
    for (after, requires) in [(&["migrate"][..], &[][..]), (&[], &["migrate"])] {
        let mut fleet = Fleet::default();
        let policy = Policy { kind: Kind::Oneshot, ..Policy::default() };
        let migrate = fleet.add(name("migrate"), policy, Vec::new(), Vec::new(), 1);
        let web = add(&mut fleet, "web", after, requires);
        boot_all(&mut fleet, Want::Up);
        assert!(spawned(&up(&mut fleet, migrate)).is_empty(), "it works on it");
        assert_eq!(spawned(&end(&mut fleet, migrate)), [web]);
    }
}

/// `once migrate` runs a migration that is wanted down, and what requires it started in the middle of that.
#[test]
fn a_oneshot_that_runs_once_is_not_there_before_it_has_ended() {
    let mut fleet = Fleet::default();
    let policy = Policy { kind: Kind::Oneshot, ..Policy::default() };
    let migrate = fleet.add(name("migrate"), policy, Vec::new(), Vec::new(), 1);
    let web = add(&mut fleet, "web", &[], &["migrate"]);
    boot_all(&mut fleet, Want::Down);
    fleet.step(migrate, Event::Command { ticket: Ticket(1), command: Command::Once }, NOW);
    up(&mut fleet, migrate);
    let command = Command::Start { force: false };
    fleet.step(web, Event::Command { ticket: Ticket(2), command }, NOW);
    assert!(spawned(&fleet.step(web, Event::Recorded { seq: 1 }, NOW)).is_empty());
    assert_eq!(fleet.gateway(web).unwrap().reason(), "waits for 'migrate'");
    assert!(spawned(&end(&mut fleet, migrate)).is_empty());
    let reason = fleet.gateway(web).unwrap().reason();
    assert_eq!(reason, "requires 'migrate', which is down: start it first", "its success was for once");
}

/// A worker started without its database once that had been silent for the time that it may take.
#[test]
fn what_requires_a_service_that_is_late_waits_on_and_what_comes_after_it_does_not() {
    let mut fleet = Fleet::default();
    let policy = Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() };
    let redis = fleet.add(name("redis"), policy, Vec::new(), Vec::new(), 1);
    let worker = add(&mut fleet, "worker", &[], &["redis"]);
    let beside = add(&mut fleet, "beside", &["redis"], &[]);
    boot_all(&mut fleet, Want::Up);
    assert!(spawned(&up(&mut fleet, redis)).is_empty());
    let late = NOW.after(Duration::from_secs(20));
    assert_eq!(spawned(&fleet.pass_time(late)), [beside]);
    assert_eq!(fleet.gateway(worker).unwrap().reason(), "waits for 'redis'");
    let incarnation = fleet.gateway(redis).unwrap().history().incarnation;
    assert_eq!(spawned(&fleet.step(redis, Event::ReadyReported { incarnation }, late)), [worker]);
}

#[test]
fn time_in_which_nobody_could_act_moves_every_deadline_and_nothing_of_the_past() {
    let mut fleet = Fleet::default();
    let (slow, late) = (add(&mut fleet, "slow", &[], &[]), add(&mut fleet, "late", &[], &[]));
    let policy = Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() };
    fleet.redefine(late, policy.into(), Vec::new(), Vec::new(), NOW);
    boot_all(&mut fleet, Want::Up);
    up(&mut fleet, slow);
    up(&mut fleet, late);
    fleet.step(slow, Event::Command { ticket: Ticket(1), command: Command::Stop }, NOW);
    // The stop waits for the disk, then for the tree; the start of the other one for its readiness.
    let hour = Duration::from_secs(3600);
    fleet.postpone(hour);
    assert_eq!(fleet.next_deadline(), Some(NOW.after(hour + crate::core::gateway::RECORD_PATIENCE)));
    let thaw = NOW.after(hour);
    assert_eq!(fleet.pass_time(thaw), []);
    fleet.step(slow, Event::Recorded { seq: 1 }, thaw);
    fleet.postpone(hour);
    assert_eq!(fleet.next_deadline(), Some(thaw.after(hour + Duration::from_secs(10))));
    assert!(fleet.gateway(late).is_some_and(|late| late.awaits_ready() && late.since() == NOW));
    fleet.shutdown(thaw.after(Duration::from_secs(5)), thaw);
    fleet.postpone(hour);
    assert_eq!(fleet.next_deadline(), Some(thaw.after(hour + Duration::from_secs(5))));
}

#[test]
fn a_held_service_does_not_start_and_keeps_its_want() {
    let mut fleet = Fleet::default();
    let id = add(&mut fleet, "a", &[], &[]);
    assert!(fleet.hold(id, "it runs elsewhere".into(), NOW).is_empty());
    assert!(spawned(&boot_all(&mut fleet, Want::Up)).is_empty());
    let gateway = fleet.gateway(id).unwrap();
    assert_eq!((gateway.want(), gateway.reason().as_str()), (Want::Up, "it runs elsewhere"));
    assert_eq!(spawned(&fleet.unhold(id, NOW)), [id]);
    assert_eq!(fleet.unhold(id, NOW), [], "nothing holds it any more");
}

#[test]
fn what_another_one_serves_has_no_process_until_that_changes() {
    let mut fleet = Fleet::default();
    let (root, id) = (add(&mut fleet, "default", &[], &[]), add(&mut fleet, "work", &[], &[]));
    let served = Place::Elsewhere(Elsewhere::Served { by: name("default") });
    assert!(spawned(&fleet.place(id, served.clone(), NOW)).is_empty());
    assert_eq!(spawned(&boot_all(&mut fleet, Want::Up)), [root]);
    assert_eq!(fleet.place(id, served, NOW), [], "it is so already");
    assert_eq!(spawned(&fleet.place(id, Place::Own, NOW)), [id]);
}

#[test]
fn everything_is_killed_at_once_and_what_is_dropped_with_its_tree_counts_no_more() {
    let mut fleet = Fleet::default();
    let ids = [add(&mut fleet, "a", &[], &[]), add(&mut fleet, "b", &[], &["a"])];
    assert_eq!(fleet.names().collect::<Vec<_>>(), ids.map(|id| fleet.name(id).unwrap()));
    assert_eq!(ids.map(|id| fleet.name(id).unwrap().as_str()), ["a", "b"]);
    boot_all(&mut fleet, Want::Up);
    for id in ids {
        up(&mut fleet, id);
    }
    assert!(!fleet.is_empty_handed());
    let killed: Vec<ServiceId> = fleet
        .kill_all(NOW)
        .into_iter()
        .filter(|(_, effect)| matches!(effect, Effect::KillTree { .. }))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(killed, ids);
    end(&mut fleet, ids[1]);
    assert!(!fleet.is_empty_handed());
    fleet.remove(ids[0], NOW);
    assert!(fleet.is_empty_handed());
}

#[test]
fn numbers_of_removed_services_are_reused_and_their_deadlines_are_gone() {
    let mut fleet = Fleet::default();
    let id = add(&mut fleet, "a", &["b"], &[]);
    boot_all(&mut fleet, Want::Down);
    fleet.step(id, Event::Command { ticket: Ticket(1), command: Command::Stop }, NOW);
    fleet.remove(id, NOW);
    assert_eq!((fleet.next_deadline(), fleet.id("a")), (None, None));
    assert!(fleet.followers.is_empty());
    assert_eq!(add(&mut fleet, "c", &[], &[]), id);
}

/// A service that was unregistered and registered anew had its first life for the second time, and could be told of an end that was
/// not its own.
#[test]
fn a_number_of_a_life_is_never_used_again() {
    let mut fleet = Fleet::default();
    let lives = |effects: &FleetEffects| -> Vec<u64> {
        let life = |effect: &Effect| match effect {
            Effect::Spawn { incarnation } => Some(*incarnation),
            _ => None,
        };
        effects.iter().filter_map(|(_, effect)| life(effect)).collect()
    };
    let id = add(&mut fleet, "a", &[], &[]);
    assert_eq!(lives(&boot_all(&mut fleet, Want::Up)), [1]);
    up(&mut fleet, id);
    assert_eq!(lives(&end_with(&mut fleet, id, Exit::Code(1))), [2]);
    fleet.remove(id, NOW);
    assert_eq!(add(&mut fleet, "a", &[], &[]), id);
    assert_eq!(lives(&boot_all(&mut fleet, Want::Up)), [3]);
}
