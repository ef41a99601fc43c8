//! Stops, commands and their answers.

use super::*;

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

/// What was asked of the disk.
fn written(story: &Story) -> Vec<Effect> {
    let writes = |effect: &&Effect| matches!(effect, Effect::Record { .. } | Effect::Erase { .. });
    story.log.iter().filter(writes).cloned().collect()
}

/// Runs, and an unregistration is on its way to the disk, with a stop after it.
fn stopped_while_unregistered() -> Story {
    let mut story = Story::new(Policy::default());
    story.up();
    story.log.clear();
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Unregister });
    story.feed(Event::Command { ticket: Ticket(3), command: Command::Stop });
    story
}

/// A stop took the place of an unregistration that the disk had not answered: its caller was told so, the service stayed, and its
/// rows were gone all the same, but for a want of what was no service any more.
#[test]
fn a_stop_takes_nothing_back_from_an_unregistration_that_is_on_its_way() {
    let mut story = stopped_while_unregistered();
    assert_eq!((written(&story), story.replies()), (vec![Effect::Erase { seq: 2 }], vec![]));
    story.feed(Event::Recorded { seq: 2 });
    story.ends(Exit::Code(0));
    assert_eq!(story.replies(), [(2, DONE), (3, DONE)]);
    assert_eq!(story.log.last(), Some(&Effect::Retired));
}

#[test]
fn a_stop_does_not_wait_for_an_unregistration_that_the_disk_does_not_answer() {
    let late = || Some("the disk does not answer".to_owned());
    let waited = || {
        let mut story = stopped_while_unregistered();
        story.wait(2_000);
        story.ends(Exit::Code(0));
        assert_eq!(story.replies(), [(3, Outcome::Done { already: false, unrecorded: late() })]);
        // A second one is told the same, and what is wanted back is refused as long as it may be gone.
        story.feed(Event::Command { ticket: Ticket(4), command: Command::Stop });
        assert_eq!(story.replies()[1..], [(4, Outcome::Done { already: true, unrecorded: late() })]);
        story.feed(Event::Command { ticket: Ticket(5), command: START });
        assert_eq!(story.replies()[2..], [(5, Outcome::Failed("it is being unregistered".into()))]);
        assert_eq!(written(&story), [Effect::Erase { seq: 2 }]);
        story
    };
    let mut story = waited();
    story.feed(Event::Recorded { seq: 2 });
    assert_eq!(story.replies()[3..], [(2, ALREADY)]);
    assert_eq!(story.log.last(), Some(&Effect::Retired));
    let mut story = waited();
    story.feed(Event::NotRecorded { seq: 2, reason: "full".into() });
    assert_eq!(story.replies()[3..], [(2, Outcome::Failed("not recorded: full".into()))]);
    assert_eq!(story.gateway.reason(), "want not recorded: full");
    // It is there still, and a stop is recorded with the next command.
    story.command(6, Command::Stop);
    assert_eq!(written(&story)[1..], [Effect::Record { seq: 5, want: Want::Down }]);
    assert_eq!(story.replies()[4..], [(6, ALREADY)]);
}

#[test]
fn an_unregistration_that_fails_leaves_the_stop_beside_it_to_act() {
    let mut story = stopped_while_unregistered();
    story.feed(Event::NotRecorded { seq: 2, reason: "full".into() });
    assert_eq!(story.replies(), [(2, Outcome::Failed("not recorded: full".into()))]);
    story.ends(Exit::Code(0));
    let unrecorded = Some("full".to_owned());
    assert_eq!(story.replies()[1..], [(3, Outcome::Done { already: false, unrecorded })]);
}

#[test]
fn a_stop_of_what_is_down_asks_nothing_of_an_unregistration_that_is_on_its_way() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Command { ticket: Ticket(1), command: Command::Unregister });
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Stop });
    assert_eq!(story.replies(), [(2, ALREADY)]);
}

#[test]
fn an_unregistration_that_fails_leaves_a_want_on_disk_that_was_there() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Unregister });
    story.feed(Event::NotRecorded { seq: 2, reason: "full".into() });
    assert_eq!(story.replies()[1..], [(2, Outcome::Failed("not recorded: full".into()))]);
    assert!(!story.gateway.is_unrecorded());
    assert_eq!(story.gateway.reason(), "");
}

/// The stop was taken for a part of the unregistration, and its caller waited for the disk as long as that.
#[test]
fn a_stop_keeps_its_patience_when_an_unregistration_comes_after_it() {
    let mut story = Story::new(Policy::default());
    story.up();
    story.log.clear();
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Stop });
    story.feed(Event::Command { ticket: Ticket(3), command: Command::Unregister });
    story.wait(2_000);
    story.ends(Exit::Code(0));
    let late = Some("the disk does not answer".to_owned());
    assert_eq!(story.replies(), [(2, Outcome::Done { already: false, unrecorded: late })]);
    story.feed(Event::Recorded { seq: 2 });
    story.feed(Event::Recorded { seq: 3 });
    assert_eq!(story.replies()[1..], [(3, ALREADY)]);
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
            let seq = story.gateway.orders.seq;
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
