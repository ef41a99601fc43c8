//! Fleets of which only some may start at a time, with the real machine of each service.

use super::turns::{PATIENCE, SETTLED};
use super::*;
use crate::core::event::{Command, Ticket};
use crate::core::exit::Exit;
use crate::core::gateway::Phase;
use crate::core::policy::Role;
use proptest::prelude::*;

const NOW: Tick = Tick(1_000_000);

/// A fleet, and a kernel on which every exec succeeds when a test says so.
struct Story {
    fleet: Fleet,
    now: Tick,
    /// Spawned and not yet executed, in the order of their starts.
    made: VecDeque<(ServiceId, u64)>,
    begun: Vec<String>,
    /// Wants that are on their way to the disk.
    writes: VecDeque<(ServiceId, u64)>,
}

impl Story {
    fn new(places: usize) -> Self {
        let mut fleet = Fleet::default();
        fleet.limit_starts(Some(places));
        Self { fleet, now: NOW, made: VecDeque::new(), begun: Vec::new(), writes: VecDeque::new() }
    }

    fn add(&mut self, name: &str, requires: &[&str], change: impl FnOnce(&mut Policy)) -> ServiceId {
        let mut policy = Policy::default();
        change(&mut policy);
        let requires = requires.iter().map(|name| ServiceName::new(name).unwrap()).collect();
        self.fleet.add(ServiceName::new(name).unwrap(), policy, Vec::new(), requires, 1)
    }

    fn boot(&mut self) {
        let restored = self.fleet.ids().map(|id| (id, Restored::at_rest(Want::Up, true))).collect();
        let effects = self.fleet.boot(restored, self.now);
        self.take(effects);
        self.turn();
    }

    fn take(&mut self, effects: FleetEffects) {
        for (id, effect) in effects {
            match effect {
                Effect::Spawn { incarnation } => {
                    self.made.push_back((id, incarnation));
                    self.begun.push(self.fleet.name(id).unwrap().to_string());
                }
                Effect::Record { seq, .. } => self.writes.push_back((id, seq)),
                _ => {}
            }
        }
    }

    fn step(&mut self, id: ServiceId, event: Event) {
        let effects = self.fleet.step(id, event, self.now);
        self.take(effects);
    }

    /// What is due happens.
    fn turn(&mut self) {
        let effects = self.fleet.pass_time(self.now);
        self.take(effects);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.turn();
    }

    /// All that were made are executed.
    fn exec(&mut self) {
        while let Some((id, incarnation)) = self.made.pop_front() {
            self.step(id, Event::Spawned { incarnation, pid: 7 });
        }
        self.turn();
    }

    fn ready(&mut self, id: ServiceId) {
        let incarnation = self.fleet.gateway(id).unwrap().history().incarnation;
        self.step(id, Event::ReadyReported { incarnation });
        self.turn();
    }

    fn dies(&mut self, id: ServiceId) {
        let incarnation = self.fleet.gateway(id).unwrap().history().incarnation;
        self.step(id, Event::MainExited { incarnation, exit: Exit::Code(1) });
        self.step(id, Event::TreeEmpty { incarnation });
        self.step(id, Event::LogsDrained { incarnation });
        self.turn();
    }

    fn command(&mut self, id: ServiceId, command: Command, in_turn: bool) {
        let effects = match (command, in_turn) {
            (Command::Stop, _) => Vec::new(),
            (_, true) => self.fleet.in_turn([id].into_iter(), self.now),
            (_, false) => self.fleet.at_once([id].into_iter(), self.now),
        };
        self.take(effects);
        self.step(id, Event::Command { ticket: Ticket(1), command });
        while let Some((id, seq)) = self.writes.pop_front() {
            self.step(id, Event::Recorded { seq });
        }
    }

    fn begun(&mut self) -> Vec<String> {
        std::mem::take(&mut self.begun)
    }

    fn reason(&self, id: ServiceId) -> String {
        self.fleet.gateway(id).unwrap().reason()
    }
}

fn nothing(_: &mut Policy) {}

fn reports(policy: &mut Policy) {
    policy.ready = Some(Duration::from_secs(30));
}

#[test]
fn two_at_a_time_the_next_when_one_is_ready_or_has_run_for_a_moment() {
    let mut story = Story::new(2);
    let ids = [("a", true), ("b", false), ("c", true), ("d", true), ("e", true)]
        .map(|(name, ready)| story.add(name, &[], if ready { reports } else { nothing }));
    story.boot();
    assert_eq!(story.begun(), ["a", "b"]);
    assert_eq!(story.reason(ids[2]), "waits for its turn");
    assert!(story.fleet.has_turns() && story.fleet.is_full());
    story.exec();
    assert!(story.begun().is_empty(), "up is not ready");
    story.ready(ids[0]);
    assert_eq!(story.begun(), ["c"]);
    assert_eq!(story.fleet.next_deadline(), Some(NOW.after(SETTLED)), "b cannot say that it is ready");
    story.wait(SETTLED);
    assert_eq!(story.begun(), ["d"]);
    // One that never says it has its time, and no more.
    story.exec();
    story.wait(Duration::from_secs(29));
    assert!(story.begun().is_empty());
    story.wait(Duration::from_secs(1));
    assert_eq!(story.begun(), ["e"]);
    assert!(!story.fleet.has_turns() && !story.fleet.is_full(), "one of two places is taken");
}

#[test]
fn time_in_which_nothing_could_run_gives_no_place_back() {
    let mut story = Story::new(1);
    story.add("a", &[], nothing);
    story.add("b", &[], nothing);
    story.boot();
    story.exec();
    let hour = Duration::from_secs(3600);
    story.fleet.postpone(hour);
    story.wait(hour);
    assert_eq!(story.begun(), ["a"]);
    story.wait(SETTLED);
    assert_eq!(story.begun(), ["b"]);
}

/// It is no requirement of another one's, and becomes needed while it waits.
#[test]
fn one_that_has_to_say_something_first_comes_before_those_that_nobody_needs() {
    let mut story = Story::new(1);
    let a = story.add("a", &[], reports);
    let named = story.add("b-named", &[], reports);
    let late = story.add("c-late", &[], reports);
    story.add("z-root", &[], reports);
    story.fleet.note_use(late, Tick(2000));
    story.fleet.note_use(a, Tick(3000));
    story.boot();
    let effects = story.fleet.place(named, Place::Ask(ServiceName::new("z-root").unwrap()), story.now);
    story.take(effects);
    story.exec();
    story.ready(a);
    assert_eq!(story.begun(), ["a", "z-root"]);
}

#[test]
fn essential_ones_come_first_then_what_others_require_then_the_last_used() {
    let mut story = Story::new(1);
    let of_old = story.add("a-old", &[], nothing);
    let of_late = story.add("b-late", &[], nothing);
    story.add("c-unused", &[], nothing);
    story.add("d-needed", &[], nothing);
    story.add("e-base", &[], nothing);
    story.add("f-main", &["e-base"], |policy| policy.role = Role::Essential);
    story.add("g-web", &["d-needed"], nothing);
    story.fleet.note_use(of_old, Tick(1000));
    story.fleet.note_use(of_late, Tick(2000));
    story.boot();
    for _ in 0..7 {
        story.exec();
        story.wait(SETTLED);
    }
    let order = ["e-base", "f-main", "d-needed", "b-late", "a-old", "c-unused", "g-web"];
    assert_eq!(story.begun(), order);
}

#[test]
fn one_that_waits_for_another_service_has_no_place() {
    let mut story = Story::new(1);
    // The order of the names is against the requirements.
    story.add("a", &["b"], reports);
    let b = story.add("b", &["c"], reports);
    let c = story.add("c", &[], reports);
    story.boot();
    assert_eq!(story.begun(), ["c"]);
    story.exec();
    story.ready(c);
    story.exec();
    story.ready(b);
    assert_eq!(story.begun(), ["b", "a"]);
}

#[test]
fn a_persons_start_waits_for_no_turn_and_takes_along_what_it_requires() {
    let mut story = Story::new(1);
    story.add("a", &[], |policy| {
        reports(policy);
        policy.role = Role::Essential;
    });
    let base = story.add("y-base", &[], reports);
    let web = story.add("z-web", &["y-base"], reports);
    story.add("b", &[], reports);
    story.boot();
    assert_eq!(story.begun(), ["a"]);
    story.command(web, Command::Start { force: false }, false);
    story.turn();
    assert_eq!(story.begun(), ["y-base"]);
    story.exec();
    story.ready(base);
    assert_eq!(story.begun(), ["z-web"], "and b waits still");
}

#[test]
fn a_restart_after_a_failure_neither_waits_nor_takes_a_place() {
    let mut story = Story::new(1);
    let crashing = |policy: &mut Policy| {
        reports(policy);
        policy.restart.limit = None;
    };
    let a = story.add("a", &[], crashing);
    story.add("b", &[], reports);
    story.add("c", &[], reports);
    story.boot();
    story.exec();
    story.dies(a);
    assert_eq!(story.begun(), ["a", "a", "b"], "its place is free, and it is started again beside b");
    story.exec();
    story.dies(a);
    let until = story.fleet.next_deadline().unwrap();
    story.wait(until.since(story.now));
    assert_eq!(story.begun(), ["a"], "no place has become free for c");
    story.exec();
    story.dies(a);
    assert!(story.begun().is_empty());
}

#[test]
fn all_that_are_started_or_restarted_together_come_in_turn() {
    let mut story = Story::new(1);
    let ids = ["a", "b", "c"].map(|name| story.add(name, &[], reports));
    let restored = story.fleet.ids().map(|id| (id, Restored::at_rest(Want::Down, true))).collect();
    let effects = story.fleet.boot(restored, NOW);
    story.take(effects);
    for id in ids {
        story.command(id, Command::Start { force: false }, true);
    }
    story.turn();
    for id in ids {
        story.exec();
        story.ready(id);
    }
    assert_eq!(story.begun(), ["a", "b", "c"]);
    // Their want is up already: no write comes first.
    for id in ids {
        story.command(id, Command::Restart, true);
    }
    for id in ids {
        story.dies(id);
    }
    assert_eq!(story.begun(), ["a"]);
    assert_eq!(story.reason(ids[1]), "waits for its turn");
    // An operator's stop ends the wait, and one that is up already waits for nothing.
    story.command(ids[1], Command::Stop, false);
    story.exec();
    story.ready(ids[0]);
    assert_eq!(story.begun(), ["c"]);
    story.command(ids[0], Command::Start { force: false }, true);
    assert!(!story.fleet.has_turns());
}

#[test]
fn what_hangs_before_its_exec_keeps_its_place_for_a_minute() {
    let mut story = Story::new(1);
    story.add("a", &[], reports);
    story.add("b", &[], reports);
    story.boot();
    story.wait(PATIENCE - Duration::from_millis(1));
    assert_eq!(story.begun(), ["a"]);
    story.wait(Duration::from_millis(1));
    assert_eq!(story.begun(), ["b"]);
}

#[test]
fn a_shutdown_lets_nobody_begin_and_what_is_removed_waits_for_nothing() {
    let mut story = Story::new(1);
    let a = story.add("a", &[], reports);
    let b = story.add("b", &[], reports);
    story.boot();
    story.begun();
    let effects = story.fleet.remove(b, story.now);
    story.take(effects);
    assert!(!story.fleet.has_turns());
    story.add("c", &[], reports);
    story.exec();
    let effects = story.fleet.shutdown(NOW.after(Duration::from_secs(9)), story.now);
    story.take(effects);
    story.dies(a);
    assert!(story.begun().is_empty());
}

#[derive(Debug, Clone)]
struct Spec {
    requires: Vec<usize>,
    reports: bool,
    essential: bool,
    /// How often it ends before it is ready.
    failures: u32,
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let spec = (proptest::collection::vec(0..20usize, 0..3), any::<bool>(), 0..5u8, 0..3u32);
    let spec = spec.prop_map(|(requires, reports, role, failures)| Spec {
        requires,
        reports,
        essential: role == 0,
        failures,
    });
    proptest::collection::vec(spec, 1..20)
}

proptest! {
    /// Whatever they require and however often they fail: never more at a time than may be, and in the end all are up.
    #[test]
    fn no_order_and_no_failure_blocks_the_turns(specs in specs(), places in 1..4usize) {
        let mut story = Story::new(places);
        let name = |n: usize| format!("s{n:02}");
        let mut ids = Vec::new();
        for (n, spec) in specs.iter().enumerate() {
            // Of those before and after it in the alphabet, and in no circle.
            let requires: Vec<String> =
                spec.requires.iter().filter(|other| **other > n && **other < specs.len()).map(|n| name(*n)).collect();
            let requires: Vec<&str> = requires.iter().map(String::as_str).collect();
            ids.push(story.add(&name(n), &requires, |policy| {
                policy.ready = spec.reports.then_some(Duration::from_secs(30));
                policy.role = if spec.essential { Role::Essential } else { Role::Auxiliary };
            }));
        }
        story.boot();
        let mut failures: Vec<u32> = specs.iter().map(|spec| spec.failures).collect();
        for _ in 0..2000 {
            let under_way = ids.iter().filter(|id| {
                let gateway = story.fleet.gateway(**id).unwrap();
                // Restarts after a failure are not counted.
                gateway.history().restarts == 0 && (gateway.phase() == Phase::Starting || gateway.awaits_ready())
            });
            prop_assert!(under_way.count() <= places);
            if let Some((id, incarnation)) = story.made.pop_front() {
                story.step(id, Event::Spawned { incarnation, pid: 7 });
                let n = ids.iter().position(|other| *other == id).unwrap();
                if failures[n] > 0 {
                    failures[n] -= 1;
                    story.dies(id);
                } else {
                    story.ready(id);
                }
            } else if let Some(at) = story.fleet.next_deadline() {
                story.wait(at.since(story.now));
            } else {
                break;
            }
        }
        for id in ids {
            prop_assert_eq!(story.fleet.gateway(id).unwrap().phase(), Phase::Up);
        }
        prop_assert!(!story.fleet.has_turns());
    }
}
