//! Stories of single services: what the exhaustive search in `model` cannot see, times, counts and words.

use super::super::policy::{ExitRule, Kind, RestartPolicy};
use super::super::signal::Signal;
use super::*;
use crate::core::words::State;
use proptest::prelude::*;
use std::collections::BTreeMap;

const START: Command = Command::Start { force: false };

struct Story {
    gateway: Gateway,
    now: Tick,
    log: Vec<Effect>,
}

impl Story {
    fn new(policy: Policy) -> Self {
        let mut story = Self { gateway: Gateway::new(policy, 1), now: Tick(1_000_000), log: Vec::new() };
        story.feed(Event::Boot(Restored {
            want: Want::Down,
            recorded: true,
            history: History::default(),
            living: None,
            finished: false,
            needed: None,
        }));
        story
    }

    fn feed(&mut self, event: Event) -> Vec<Effect> {
        let effects: Vec<Effect> = self.gateway.step(event, self.now).into_iter().collect();
        self.log.extend(effects.clone());
        effects
    }

    fn wait(&mut self, millis: u64) {
        self.now = Tick(self.now.0 + millis);
        self.feed(Event::Time);
    }

    fn command(&mut self, ticket: u64, command: Command) -> Vec<Effect> {
        let mut effects = self.feed(Event::Command { ticket: Ticket(ticket), command });
        let seq = effects.iter().find_map(|effect| match effect {
            Effect::Record { seq, .. } | Effect::Erase { seq } => Some(*seq),
            _ => None,
        });
        if let Some(seq) = seq {
            effects.extend(self.feed(Event::Recorded { seq }));
        }
        effects
    }

    fn n(&self) -> u64 {
        self.gateway.history().incarnation
    }

    fn spawned(&mut self) {
        let incarnation = self.n();
        self.feed(Event::Spawned { incarnation, pid: 100 });
    }

    fn ends(&mut self, exit: Exit) {
        let incarnation = self.n();
        self.feed(Event::MainExited { incarnation, exit });
        self.feed(Event::TreeEmpty { incarnation });
        self.feed(Event::LogsDrained { incarnation });
    }

    fn up(&mut self) {
        self.command(1, START);
        self.spawned();
        assert_eq!(self.gateway.state(), State::Up);
    }

    fn replies(&self) -> Vec<(u64, Outcome)> {
        let reply = |effect: &Effect| match effect {
            Effect::Reply { ticket, outcome } => Some((ticket.0, outcome.clone())),
            _ => None,
        };
        self.log.iter().filter_map(reply).collect()
    }
}

const DONE: Outcome = Outcome::Done { already: false, unrecorded: None };
const ALREADY: Outcome = Outcome::Done { already: true, unrecorded: None };
const CRASH: Exit = Exit::Code(1);

#[test]
fn a_crash_is_restarted_at_once_and_the_second_one_after_a_wait() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.ends(CRASH);
    assert_eq!((story.gateway.state(), story.n()), (State::Starting, 2));
    story.spawned();
    story.ends(CRASH);
    assert_eq!(story.gateway.state(), State::Backoff);
    assert_eq!(story.gateway.reason(), "exited with code 1; failure 2 in a row");
    let wait = story.gateway.deadline().unwrap().since(story.now).as_millis();
    assert!((90..=110).contains(&wait), "{wait} ms is not 100 ms with a tenth of jitter");
    story.wait(111);
    assert_eq!((story.gateway.state(), story.n()), (State::Starting, 3));
}

/// What the log was told beside the states.
fn incidents(effects: &[Effect]) -> Vec<Incident> {
    let told = |effect: &Effect| match effect {
        Effect::Report(incident) => Some(incident.clone()),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

/// A queue worker that ends after each hundred jobs is no worker that fails: a week of that was `failed` once.
#[test]
fn a_clean_exit_counts_for_nothing_however_often_it_comes() {
    let mut story = Story::new(Policy::default());
    story.up();
    for n in 0..50 {
        story.wait(1_000);
        story.ends(Exit::Code(0));
        assert_eq!(
            (story.gateway.state(), story.n()),
            (State::Starting, n + 2),
            "it ran for longer than the wait"
        );
        story.spawned();
    }
    let history = story.gateway.history();
    assert_eq!((history.row, history.failures.len(), history.restarts), (0, 0, 50));
    // A crash after it is the first of its row.
    story.ends(CRASH);
    assert_eq!((story.gateway.state(), story.gateway.history().row), (State::Starting, 1));
}

/// A program that ends at once, well, again and again must not have a processor for itself.
#[test]
fn what_ends_well_at_once_is_started_no_more_often_than_the_first_wait() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.wait(30);
    story.log.clear();
    story.ends(Exit::Code(0));
    assert_eq!(story.gateway.state(), State::Backoff);
    assert_eq!(story.gateway.reason(), "exited with code 0; started again");
    assert_eq!(story.gateway.deadline().map(|at| at.since(story.now).as_millis()), Some(70));
    assert_eq!(story.gateway.history().backoff_until, None, "no write to the disk for each of them");
    let ran = Duration::from_millis(30);
    assert_eq!(incidents(&story.log), [Incident::Ended { exit: Exit::Code(0), ran }]);
    story.wait(70);
    assert_eq!((story.gateway.state(), story.n()), (State::Starting, 2));
}

#[test]
fn without_a_limit_it_is_tried_for_ever() {
    let mut policy = Policy::default();
    policy.restart.limit = None;
    let mut story = Story::new(policy);
    story.up();
    for _ in 0..100 {
        story.ends(CRASH);
        story.wait(33_000);
        assert_eq!(story.gateway.state(), State::Starting);
        story.spawned();
    }
    assert!(story.gateway.history().failures.is_empty(), "nothing is kept that nobody counts");
}

/// The first crash is restarted at once: no state shows it, so the log has to. A later one is the reason of its wait.
#[test]
fn the_first_crash_is_told_and_so_is_one_that_a_command_overtakes() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.wait(5_000);
    story.log.clear();
    story.ends(CRASH);
    let ran = Duration::from_secs(5);
    assert_eq!(incidents(&story.log), [Incident::Ended { exit: CRASH, ran }]);
    story.spawned();
    story.log.clear();
    story.ends(CRASH);
    assert_eq!((story.gateway.state(), incidents(&story.log).len()), (State::Backoff, 0));
    // The operator restarts it between its crash and the end of its tree.
    story.wait(40_000);
    story.spawned();
    let incarnation = story.n();
    story.feed(Event::MainExited { incarnation, exit: CRASH });
    story.command(5, Command::Restart);
    story.log.clear();
    story.feed(Event::TreeEmpty { incarnation });
    story.feed(Event::LogsDrained { incarnation });
    assert_eq!(incidents(&story.log), [Incident::Ended { exit: CRASH, ran: Duration::ZERO }]);
    // An exit that was asked for is no incident.
    story.spawned();
    story.command(6, Command::Stop);
    story.log.clear();
    story.ends(Exit::Code(0));
    assert_eq!(incidents(&story.log), []);
}

#[test]
fn why_a_start_failed_is_the_reason_until_one_succeeds() {
    let fails = |story: &mut Story| {
        let incarnation = story.n();
        story.feed(Event::SpawnFailed { incarnation, reason: "there is no program 'x'".into() });
        story.feed(Event::TreeEmpty { incarnation });
        story.feed(Event::LogsDrained { incarnation });
    };
    let mut story = Story::new(Policy::default());
    // It ran before: the old exit is not why it waits now.
    story.up();
    story.ends(CRASH);
    fails(&mut story);
    assert_eq!(story.gateway.reason(), "there is no program 'x'; failure 2 in a row");
    story.wait(111);
    assert_eq!(story.gateway.state(), State::Starting);
    assert_eq!(story.gateway.reason(), "tried again after: there is no program 'x'");
    story.spawned();
    assert_eq!((story.gateway.state(), story.gateway.reason().as_str()), (State::Up, ""));
    story.command(2, Command::Stop);
    story.ends(Exit::Code(0));
    // `once` has no second try: the failure is told, and stays to be seen.
    story.command(3, Command::Once);
    story.log.clear();
    fails(&mut story);
    assert_eq!(incidents(&story.log), [Incident::NotStarted("there is no program 'x'".into())]);
    assert_eq!(story.gateway.state(), State::Down);
    assert_eq!(story.gateway.reason(), "could not be started: there is no program 'x'");
    story.command(4, Command::Stop);
    assert_eq!(story.gateway.reason(), "");
}

#[test]
fn a_long_run_ends_the_row_of_failures() {
    let mut story = Story::new(Policy::default());
    story.up();
    for _ in 0..3 {
        story.wait(60_000);
        story.ends(CRASH);
        assert_eq!(story.gateway.state(), State::Starting);
        story.spawned();
    }
}

#[test]
fn more_failures_than_the_burst_end_in_failed_with_the_reason_and_start_forgives() {
    let mut story = Story::new(Policy::default());
    story.up();
    while story.gateway.state() != State::Failed {
        story.ends(CRASH);
        story.wait(30_000);
        if story.gateway.state() == State::Starting {
            story.spawned();
        }
    }
    assert_eq!(story.gateway.reason(), "11 failures within 10 min; the last: exited with code 1");
    assert_eq!(story.gateway.history().restarts, 10);
    assert_eq!(story.gateway.want(), Want::Up);
    story.command(2, START);
    assert_eq!((story.gateway.state(), story.gateway.history().row), (State::Starting, 0));
}

#[test]
fn the_exit_code_table_decides_before_the_policy() {
    let mut policy = Policy::default();
    policy.restart.exit_codes =
        BTreeMap::from([(0, ExitRule::Stop), (75, ExitRule::Now), (78, ExitRule::Failed)]);
    let mut story = Story::new(policy);
    story.up();
    for _ in 0..5 {
        story.ends(Exit::Code(75));
        assert_eq!(story.gateway.state(), State::Starting, "75 skips the wait");
        story.spawned();
    }
    story.ends(Exit::Code(0));
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Finished, Want::Up));
    story.command(2, START);
    story.spawned();
    story.ends(Exit::Code(78));
    assert_eq!(
        (story.gateway.state(), story.gateway.reason().as_str()),
        (State::Failed, "exited with code 78")
    );
}

#[test]
fn leftovers_of_a_crash_are_killed_before_the_restart() {
    let mut story = Story::new(Policy::default());
    story.up();
    let effects = story.feed(Event::MainExited { incarnation: 1, exit: CRASH });
    assert!(effects.contains(&Effect::KillTree { incarnation: 1 }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
    let effects = story.feed(Event::TreeEmpty { incarnation: 1 });
    assert_eq!(effects, [Effect::DrainLogs { incarnation: 1 }]);
    let effects = story.feed(Event::LogsDrained { incarnation: 1 });
    assert!(effects.contains(&Effect::Spawn { incarnation: 2 }));
}

/// Contract: 93, 98.
#[test]
fn a_stop_signals_once_waits_for_the_whole_tree_and_kills_at_the_timeout() {
    let mut story = Story::new(Policy::default());
    story.up();
    let effects = story.command(2, Command::Stop);
    assert_eq!(signalled(&effects), [true]);
    story.wait(4_000);
    let effects = story.feed(Event::MainExited { incarnation: 1, exit: Exit::Code(0) });
    assert!(
        effects.contains(&Effect::SignalTree { incarnation: 1, signal: crate::core::signal::Signal::TERM })
    );
    assert_eq!(
        story.gateway.deadline().map(|at| at.since(story.now).as_secs()),
        Some(6),
        "the rest of the timeout"
    );
    story.log.clear();
    story.wait(6_000);
    // Only the main process had obeyed.
    let late = Incident::StopTimedOut { after: Duration::from_secs(10), main: false };
    assert_eq!(story.log, [Effect::Report(late), Effect::KillTree { incarnation: 1 }]);
    story.feed(Event::TreeEmpty { incarnation: 1 });
    assert!(story.replies().is_empty(), "not before the log is read");
    story.feed(Event::LogsDrained { incarnation: 1 });
    assert_eq!(story.replies(), [(2, DONE)]);
    assert_eq!(story.gateway.history().row, 0, "an exit after our own signal is no failure");
}

/// For each stop signal among the effects, whether it was planned.
fn signalled(effects: &[Effect]) -> Vec<bool> {
    let planned = |effect: &Effect| match effect {
        Effect::SignalMain { planned, .. } => Some(*planned),
        _ => None,
    };
    effects.iter().filter_map(planned).collect()
}

/// Contract: 83, 106.
#[test]
fn only_an_operators_stop_is_planned() {
    let refused = || Event::Gate(Gate::Refused("db".into()));
    let shutdown = |story: &Story| Event::Shutdown { deadline: story.now.after(Duration::from_secs(9)) };
    for (command, planned) in [(Command::Stop, true), (Command::Unregister, true), (Command::Restart, false)]
    {
        let mut story = Story::new(Policy::default());
        story.up();
        assert_eq!(signalled(&story.command(2, command)), [planned], "{command:?}");
        // The same while it is being made: the signal follows exec.
        let mut story = Story::new(Policy::default());
        story.command(1, START);
        story.command(2, command);
        story.log.clear();
        story.spawned();
        assert_eq!(signalled(&story.log), [planned], "{command:?} before exec");
    }
    let mut story = Story::new(Policy::default());
    story.up();
    let event = shutdown(&story);
    assert_eq!(signalled(&story.feed(event)), [false]);
    // What runs once has a want that is down from the beginning.
    let once = || {
        let mut story = Story::new(Policy::default());
        story.command(1, Command::Once);
        story.spawned();
        story
    };
    assert_eq!(signalled(&once().feed(refused())), [false], "a lost requirement");
    assert_eq!(signalled(&once().command(2, Command::Stop)), [true]);
    // A shutdown overtakes a stop whose signal waits for exec.
    let mut story = Story::new(Policy::default());
    story.command(1, START);
    story.command(2, Command::Stop);
    let event = shutdown(&story);
    story.feed(event);
    story.log.clear();
    story.spawned();
    assert_eq!(signalled(&story.log), [false]);
}

/// Down for this boot although the disk says up: what an operator says is recorded, also if it changes nothing now.
#[test]
fn a_want_that_is_not_the_disks_is_recorded_with_the_next_command() {
    for (command, want) in [(Command::Stop, Want::Down), (START, Want::Up)] {
        let mut gateway = Gateway::new(Policy::default(), 1);
        let restored = Restored {
            want: Want::Down,
            recorded: false,
            history: History::default(),
            living: None,
            finished: false,
            needed: None,
        };
        let _ = gateway.step(Event::Boot(restored), Tick(1));
        assert!(!gateway.is_recorded());
        let effects = gateway.step(Event::Command { ticket: Ticket(1), command }, Tick(2));
        assert!(effects.into_iter().any(|effect| effect == Effect::Record { seq: 1, want }), "{command:?}");
        let _ = gateway.step(Event::Recorded { seq: 1 }, Tick(3));
        assert!(gateway.is_recorded());
    }
}

#[test]
fn a_stop_acts_without_the_disk_after_two_seconds_and_says_so() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.log.clear();
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Stop });
    story.wait(1_999);
    assert_eq!(story.gateway.state(), State::Up);
    story.wait(1);
    story.ends(Exit::Code(0));
    let why = Some("the disk does not answer".to_owned());
    assert_eq!(story.replies(), [(2, Outcome::Done { already: false, unrecorded: why })]);
    assert_eq!(story.gateway.reason(), "want not recorded: the disk does not answer");
    // The disk answers late: the warning goes.
    story.feed(Event::Recorded { seq: 2 });
    assert_eq!(story.gateway.reason(), "");
}

#[test]
fn a_start_that_cannot_be_recorded_fails_and_changes_nothing() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Command { ticket: Ticket(1), command: START });
    story.feed(Event::NotRecorded { seq: 1, reason: "no space left".into() });
    assert_eq!(story.replies(), [(1, Outcome::Failed("not recorded: no space left".into()))]);
    assert_eq!((story.gateway.want(), story.gateway.state()), (Want::Down, State::Down));
}

#[test]
fn a_start_overtaken_by_a_stop_says_so() {
    let mut story = Story::new(Policy::default());
    story.command(1, START);
    story.command(2, Command::Stop);
    assert_eq!(story.replies(), [(1, Outcome::Overtaken(Command::Stop))]);
    story.spawned();
    assert!(matches!(story.log.last(), Some(Effect::SignalMain { .. })), "the stop signal follows exec");
    story.ends(Exit::Code(0));
    assert_eq!(story.replies()[1..], [(2, DONE)]);
}

#[test]
fn seventy_seven_restarts_at_once_are_one() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.log.clear();
    for ticket in 10..87 {
        story.command(ticket, Command::Restart);
    }
    story.ends(Exit::Code(0));
    story.spawned();
    assert_eq!(story.n(), 2);
    assert_eq!(story.replies().len(), 77);
    assert!(story.replies().iter().all(|(_, outcome)| *outcome == DONE));
}

#[test]
fn what_is_so_already_is_answered_at_once() {
    let mut story = Story::new(Policy::default());
    story.command(1, Command::Stop);
    story.up();
    story.command(3, START);
    assert_eq!(story.replies(), [(1, ALREADY), (1, DONE), (3, ALREADY)]);
}

#[test]
fn once_runs_without_changing_the_want_and_is_not_restarted() {
    let mut story = Story::new(Policy::default());
    story.command(1, Command::Once);
    story.spawned();
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Up, Want::Down));
    story.ends(CRASH);
    assert_eq!((story.gateway.state(), story.n()), (State::Down, 1));
    assert_eq!(story.gateway.history().last_exit.map(|(exit, _)| exit), Some(CRASH));
}

/// Contract: 91.
#[test]
fn exec_that_fails_is_told_to_the_caller_and_tried_again_after_a_wait() {
    let mut story = Story::new(Policy::default());
    story.command(1, START);
    story.feed(Event::SpawnFailed { incarnation: 1, reason: "cannot execute '/x': no such file".into() });
    assert_eq!(story.replies(), [(1, Outcome::Failed("cannot execute '/x': no such file".into()))]);
    story.feed(Event::TreeEmpty { incarnation: 1 });
    story.feed(Event::LogsDrained { incarnation: 1 });
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Backoff, Want::Up));
}

#[test]
fn a_boot_keeps_failed_waits_the_rest_of_a_backoff_and_never_longer_than_the_policy() {
    let boot = |want, history| {
        let mut gateway = Gateway::new(Policy::default(), 1);
        let _ = gateway.step(
            Event::Boot(Restored {
                want,
                recorded: true,
                history,
                living: None,
                finished: false,
                needed: None,
            }),
            Tick(1_000_000),
        );
        gateway
    };
    let failed = History { failed: Some(("gave up".into(), Tick(5))), ..History::default() };
    assert_eq!(boot(Want::Up, failed.clone()).state(), State::Failed);
    assert_eq!(boot(Want::Down, failed).state(), State::Down);
    let waiting = |until| History { backoff_until: Some(Tick(until)), ..History::default() };
    assert_eq!(boot(Want::Up, waiting(1_005_000)).deadline(), Some(Tick(1_005_000)));
    assert_eq!(boot(Want::Up, waiting(999_999)).state(), State::Starting);
    assert_eq!(boot(Want::Up, waiting(u64::MAX)).deadline(), Some(Tick(1_030_000)));
}

/// Contract: 97, 98.
#[test]
fn a_shutdown_cuts_every_timeout_to_its_own_and_changes_no_want() {
    let mut policy = Policy::default();
    policy.stop.timeout = Duration::from_secs(75);
    let mut story = Story::new(policy);
    story.up();
    story.feed(Event::Shutdown { deadline: story.now.after(Duration::from_secs(9)) });
    assert_eq!(story.gateway.deadline(), Some(story.now.after(Duration::from_secs(9))));
    story.ends(Exit::Code(1));
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Down, Want::Up));
    assert!(!story.log.iter().any(|effect| matches!(effect, Effect::Record { want: Want::Down, .. })));
}

#[test]
fn remains_that_do_not_die_are_said_and_force_starts_beside_them() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.command(2, Command::Stop);
    story.wait(10_000);
    story.wait(10_000);
    assert_eq!(story.gateway.state(), State::Failed);
    let why = Outcome::Failed("killed, but processes of it do not end".into());
    assert_eq!(story.replies().last(), Some(&(2, why)));
    story.command(3, START);
    assert!(matches!(story.replies().last(), Some((3, Outcome::Failed(why))) if why.contains("--force")));
    let effects = story.command(4, Command::Start { force: true });
    assert!(effects.contains(&Effect::Abandon { incarnation: 1 }));
    assert!(effects.contains(&Effect::Spawn { incarnation: 2 }));
    assert!(story.feed(Event::TreeEmpty { incarnation: 1 }).is_empty(), "news of the life given up");
}

#[test]
fn a_oneshot_is_finished_when_it_succeeds_and_unregister_ends_it_for_good() {
    let mut story = Story::new(Policy { kind: Kind::Oneshot, ..Policy::default() });
    story.up();
    story.ends(Exit::Code(0));
    assert_eq!(story.gateway.state(), State::Finished);
    let effects = story.command(2, Command::Unregister);
    assert_eq!(effects.last(), Some(&Effect::Retired));
}

proptest! {
    /// Any sequence of events, in any order and number, sensible or not: nothing panics, and the two rules that the
    /// outside relies on hold.
    #[test]
    fn no_sequence_of_events_breaks_it(events in proptest::collection::vec((0u8..16, 0u64..40_000, 0u8..4), 0..200)) {
        let mut story = Story::new(Policy::default());
        let mut alive = false;
        for (index, (kind, millis, choice)) in events.into_iter().enumerate() {
            let incarnation = story.n();
            let seq = story.gateway.seq;
            let ticket = Ticket(index as u64);
            let command = [START, Command::Stop, Command::Restart, Command::Once][usize::from(choice)];
            let event = match kind {
                0..=4 => Event::Command { ticket, command },
                5 | 6 => Event::Recorded { seq },
                7 => Event::NotRecorded { seq, reason: "full".into() },
                8 => Event::Spawned { incarnation, pid: 9 },
                9 => Event::SpawnFailed { incarnation, reason: "none".into() },
                10 | 11 => Event::MainExited { incarnation, exit: Exit::Code(choice) },
                12 => Event::TreeEmpty { incarnation },
                13 => Event::LogsDrained { incarnation },
                14 => Event::Gate([Gate::Open, Gate::Wait("x".into()), Gate::Refused("x".into()), Gate::Open][usize::from(choice)].clone()),
                _ => { story.wait(millis); continue }
            };
            if matches!(event, Event::TreeEmpty { .. }) {
                alive = false;
            }
            for effect in story.feed(event) {
                if matches!(effect, Effect::Spawn { .. }) {
                    prop_assert!(!alive, "spawned beside a living tree");
                    prop_assert!(story.gateway.want() == Want::Up || story.gateway.is_once());
                    alive = true;
                }
            }
        }
    }
}

fn with_finish() -> Policy {
    Policy { finish: Some(Duration::from_secs(5)), ..Policy::default() }
}

/// Contract: 90.
#[test]
fn a_finish_program_runs_after_every_end_in_a_place_of_its_own_and_its_exit_is_not_the_services() {
    let mut story = Story::new(with_finish());
    story.command(1, START);
    story.spawned();
    let incarnation = story.n();
    story.feed(Event::MainExited { incarnation, exit: Exit::Code(3) });
    let after = story.feed(Event::TreeEmpty { incarnation });
    let finish = Effect::Finish { incarnation: incarnation + 1, exit: Exit::Code(3), pid: 100 };
    assert_eq!(after, [Effect::Release { incarnation }, finish]);
    assert_eq!((story.gateway.state(), story.gateway.pid()), (State::Stopping, None));
    story.spawned();
    assert_eq!(story.gateway.pid(), None, "the finish program is not the service");
    story.ends(Exit::Code(0));
    assert_eq!(story.gateway.state(), State::Starting);
    assert_eq!(story.gateway.history().last_exit.map(|(exit, _)| exit), Some(Exit::Code(3)));
}

/// Contract: 90.
#[test]
fn exit_125_of_the_finish_program_ends_the_restarts_and_the_service_says_how_it_ended() {
    for (exit, state) in [(Exit::Code(0), State::Finished), (Exit::Code(78), State::Failed)] {
        let mut story = Story::new(with_finish());
        story.command(1, START);
        story.spawned();
        story.ends(exit);
        story.spawned();
        story.ends(Exit::Code(FINISH_GIVES_UP));
        assert_eq!((story.gateway.state(), story.gateway.reason()), (state, exit.to_string()));
        assert_eq!(story.gateway.want(), Want::Up);
    }
}

#[test]
fn a_finish_program_that_hangs_is_killed_and_a_stop_waits_for_that() {
    let mut story = Story::new(with_finish());
    story.command(1, START);
    story.spawned();
    story.command(2, Command::Stop);
    story.ends(Exit::Code(0));
    story.spawned();
    assert!(!story.log.iter().any(|e| matches!(e, Effect::Reply { ticket: Ticket(2), .. })));
    story.wait(5000);
    assert_eq!(story.log.last(), Some(&Effect::KillTree { incarnation: story.n() }));
    story.ends(Exit::Signal { signal: Signal::KILL, core: false });
    let done =
        Effect::Reply { ticket: Ticket(2), outcome: Outcome::Done { already: false, unrecorded: None } };
    assert!(story.log.contains(&done));
    assert_eq!(story.gateway.state(), State::Down);
}

#[test]
fn what_was_never_executed_has_no_finish() {
    let mut story = Story::new(with_finish());
    story.command(1, START);
    let incarnation = story.n();
    story.feed(Event::SpawnFailed { incarnation, reason: "no such file".into() });
    story.feed(Event::TreeEmpty { incarnation });
    assert!(!story.log.iter().any(|effect| matches!(effect, Effect::Finish { .. })));
}

#[test]
fn a_start_is_answered_when_the_service_reports_that_it_is_ready() {
    let policy = Policy { ready: Some(Duration::from_secs(60)), ..Policy::default() };
    let mut story = Story::new(policy);
    story.command(1, START);
    story.spawned();
    let answered = |story: &Story| story.log.iter().any(|effect| matches!(effect, Effect::Reply { .. }));
    assert!(!answered(&story));
    assert_eq!(story.gateway.state(), State::Up);
    let incarnation = story.n();
    story.feed(Event::ReadyReported { incarnation });
    assert!(answered(&story));
    assert_eq!((story.gateway.state(), story.gateway.ready_since()), (State::Ready, Some(story.now)));
    assert_eq!(story.gateway.deadline(), None, "nothing wakes a service that is ready");
}

#[test]
fn a_service_that_is_not_ready_in_time_runs_on_and_the_start_says_so() {
    let policy = Policy { ready: Some(Duration::from_secs(60)), ..Policy::default() };
    let mut story = Story::new(policy);
    story.command(1, START);
    story.spawned();
    story.wait(60_000);
    let failed = Outcome::Failed(NOT_READY.to_owned());
    assert!(story.log.contains(&Effect::Reply { ticket: Ticket(1), outcome: failed.clone() }));
    assert_eq!((story.gateway.state(), story.gateway.reason().as_str()), (State::Up, NOT_READY));
    assert!(
        story.command(2, START).contains(&Effect::Reply { ticket: Ticket(2), outcome: failed }),
        "and so does the next one"
    );
    let incarnation = story.n();
    story.feed(Event::ReadyReported { incarnation });
    assert_eq!(story.gateway.state(), State::Ready);
}

fn other(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn served() -> Gate {
    Gate::Elsewhere(Elsewhere::Served { by: other("default") })
}

/// Hermes 0.21.4 and later: a named gateway is refused (78) because the root gateway serves its profile. That was `failed` at
/// every boot, for a bot that answered.
#[test]
fn a_gateway_whose_work_another_one_does_is_served_however_its_own_process_ended() {
    for code in [78, 75, 1] {
        let mut story = Story::new(Policy {
            restart: RestartPolicy {
                exit_codes: BTreeMap::from([(78, ExitRule::Failed), (75, ExitRule::Later)]),
                ..Policy::default().restart
            },
            ..Policy::default()
        });
        story.up();
        story.feed(Event::Gate(Gate::Ask(other("default"))));
        assert_eq!(story.gateway.state(), State::Up, "one that runs may go on until the other has spoken");
        story.ends(Exit::Code(code));
        assert_eq!(
            (story.gateway.state(), story.gateway.phase()),
            (State::Starting, Phase::Held),
            "exit code {code}"
        );
        story.feed(Event::Gate(served()));
        assert_eq!(story.gateway.state(), State::Served);
        assert_eq!(story.gateway.reason(), "'default' serves it");
        assert_eq!((story.gateway.want(), story.gateway.history().failures.len()), (Want::Up, 0));
        assert_eq!(story.gateway.history().restarts, 0);
    }
}

#[test]
fn an_end_whose_meaning_was_asked_for_is_a_failure_where_no_other_one_does_its_work() {
    let mut story = Story::new(Policy {
        restart: RestartPolicy {
            exit_codes: BTreeMap::from([(78, ExitRule::Failed)]),
            ..Policy::default().restart
        },
        ..Policy::default()
    });
    story.up();
    story.feed(Event::Gate(Gate::Ask(other("default"))));
    story.ends(Exit::Code(78));
    assert_eq!(story.gateway.state(), State::Starting);
    story.feed(Event::Gate(Gate::Open));
    assert_eq!((story.gateway.state(), story.n()), (State::Failed, 1), "without another try");
    // Whoever asks for a start, or for none, does not ask about the end before.
    for (command, state) in [(START, State::Starting), (Command::Stop, State::Down)] {
        let mut story = Story::new(Policy::default());
        story.up();
        story.feed(Event::Gate(Gate::Ask(other("default"))));
        story.ends(Exit::Code(1));
        story.command(2, command);
        story.feed(Event::Gate(Gate::Open));
        assert_eq!((story.gateway.state(), story.gateway.history().failures.len()), (state, 0));
    }
}

#[test]
fn what_was_given_up_before_is_no_failure_once_another_one_does_its_work() {
    let mut story = Story::new(Policy {
        restart: RestartPolicy {
            exit_codes: BTreeMap::from([(78, ExitRule::Failed)]),
            ..Policy::default().restart
        },
        ..Policy::default()
    });
    story.up();
    story.ends(Exit::Code(78));
    assert_eq!(story.gateway.state(), State::Failed);
    story.feed(Event::Gate(served()));
    assert_eq!((story.gateway.state(), story.gateway.history().failed.is_none()), (State::Served, true));
    let done = story.command(2, START);
    assert!(done.contains(&Effect::Reply {
        ticket: Ticket(2),
        outcome: Outcome::Done { already: true, unrecorded: None }
    }));
    // It is left out on its owner's wish, and then nobody does its work.
    story.feed(Event::Gate(Gate::Elsewhere(Elsewhere::Parked)));
    assert_eq!(story.gateway.state(), State::Parked);
    story.feed(Event::Gate(Gate::Open));
    assert_eq!(story.gateway.state(), State::Starting);
}

#[test]
fn one_that_runs_makes_way_for_the_one_that_does_its_work_now() {
    let mut story = Story::new(Policy::default());
    story.up();
    let stops = story.feed(Event::Gate(served()));
    assert!(matches!(stops[..], [Effect::Changed, Effect::SignalMain { planned: false, .. }]), "{stops:?}");
    story.ends(Exit::Signal { signal: Signal::TERM, core: false });
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Served, Want::Up));
    story.command(2, Command::Stop);
    assert_eq!(
        (story.gateway.state(), story.gateway.want()),
        (State::Served, Want::Down),
        "its bot still answers"
    );
}

#[test]
fn a_service_that_another_one_needs_is_up_against_its_own_want_until_an_operator_stops_it() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Needed(Some(other("work"))));
    story.spawned();
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Up, Want::Down));
    assert_eq!(story.gateway.reason(), "up for 'work'");
    story.ends(Exit::Signal { signal: Signal::KILL, core: false });
    assert_eq!(story.gateway.state(), State::Starting, "a crash ends no need");
    story.spawned();
    story.command(2, Command::Stop);
    story.ends(Exit::Code(0));
    assert_eq!((story.gateway.state(), story.gateway.needed_by()), (State::Down, None));
    story.feed(Event::Needed(Some(other("work"))));
    story.spawned();
    story.feed(Event::Needed(None));
    story.ends(Exit::Code(0));
    assert_eq!(story.gateway.state(), State::Down, "nobody needs it any more");
}

/// Two gateways that end each other: one of them has to go, whatever it does at that moment.
#[test]
fn what_is_to_be_given_up_ends_and_stays_failed_until_an_operator_starts_it() {
    let give_up = || Event::GiveUp { reason: "fights with 'default'".to_owned() };
    let fails = |story: &Story, while_it: &str| {
        assert_eq!(
            (story.gateway.state(), story.gateway.reason().as_str()),
            (State::Failed, "fights with 'default'"),
            "given up {while_it}"
        );
        assert_eq!(story.gateway.want(), Want::Up);
    };
    let mut story = Story::new(Policy::default());
    story.up();
    let stops = story.feed(give_up());
    assert!(matches!(stops[..], [Effect::Changed, Effect::SignalMain { planned: false, .. }]), "{stops:?}");
    story.ends(Exit::Code(0));
    fails(&story, "while it ran");
    story.wait(3_600_000);
    fails(&story, "while it ran");
    story.command(2, START);
    assert_eq!(story.gateway.state(), State::Starting);

    let mut story = Story::new(Policy::default());
    story.up();
    story.ends(Exit::Code(1));
    story.spawned();
    story.ends(Exit::Code(1));
    assert_eq!(story.gateway.state(), State::Backoff);
    story.feed(give_up());
    fails(&story, "while it waited");

    // A start that comes while it ends is a new try; a stop is a stop.
    for (command, state) in
        [(START, State::Starting), (Command::Restart, State::Starting), (Command::Stop, State::Down)]
    {
        let mut story = Story::new(Policy::default());
        story.up();
        story.feed(give_up());
        story.command(2, command);
        story.ends(Exit::Code(0));
        assert_eq!(story.gateway.state(), state, "{command:?}");
    }
    // What has no work of its own, or is not wanted, is not given up.
    for gate in [Gate::Open, served()] {
        let mut story = Story::new(Policy::default());
        if gate != Gate::Open {
            story.up();
            story.feed(Event::Gate(gate));
            story.ends(Exit::Code(0));
        }
        let state = story.gateway.state();
        story.feed(give_up());
        assert_eq!(story.gateway.state(), state);
    }
}

/// EX_TEMPFAIL of a gateway that finds another one in its place: 11 tries within a second ended in `failed`.
#[test]
fn later_waits_some_seconds_and_counts_for_nothing() {
    let mut story = Story::new(Policy {
        restart: RestartPolicy {
            exit_codes: BTreeMap::from([(75, ExitRule::Later)]),
            ..Policy::default().restart
        },
        ..Policy::default()
    });
    story.up();
    for restarts in 1..40 {
        story.ends(Exit::Code(75));
        assert_eq!(
            (story.gateway.state(), story.gateway.reason().as_str()),
            (State::Backoff, "exited with code 75")
        );
        story.wait(4_999);
        assert_eq!(story.gateway.state(), State::Backoff);
        story.wait(1);
        assert_eq!((story.gateway.state(), story.gateway.history().restarts), (State::Starting, restarts));
        story.spawned();
    }
    story.wait(60_000);
    story.ends(Exit::Code(75));
    assert_eq!(
        story.gateway.state(),
        State::Starting,
        "a planned restart of one that ran is not kept waiting"
    );
}
