//! How lives end, and what comes after.

use super::*;

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

/// A wedged service that ends well on SIGTERM has failed all the same.
#[test]
fn what_is_unhealthy_is_ended_and_counts_as_a_failure_with_its_reason() {
    let mut story = Story::new(Policy::default());
    story.up();
    let unhealthy = |n| Event::Unhealthy { incarnation: n, reason: "unhealthy: no answer".to_owned() };
    assert!(story.feed(unhealthy(0)).is_empty(), "of another life");
    for failure in 1..=2 {
        let n = story.n();
        let effects = story.feed(unhealthy(n));
        let stop = Effect::SignalMain { incarnation: n, signal: Signal::TERM, planned: false };
        assert!(effects.contains(&stop), "{effects:?}");
        assert_eq!(story.gateway.reason(), "unhealthy: no answer; it is being ended");
        assert!(story.feed(unhealthy(n)).is_empty(), "it is being ended");
        story.ends(Exit::Code(0));
        assert_eq!(story.gateway.history().row, failure);
        if failure == 1 {
            assert_eq!(story.gateway.reason(), "tried again after: unhealthy: no answer");
            story.spawned();
            assert_eq!(story.gateway.reason(), "");
        }
    }
    assert_eq!(story.gateway.reason(), "unhealthy: no answer; failure 2 in a row");
}

#[test]
fn an_operators_stop_of_what_is_being_ended_as_unhealthy_is_a_stop() {
    let mut story = Story::new(Policy::default());
    story.up();
    let incarnation = story.n();
    story.feed(Event::Unhealthy { incarnation, reason: "unhealthy".to_owned() });
    story.command(2, Command::Stop);
    story.ends(Exit::Code(0));
    assert_eq!((story.gateway.state(), story.gateway.history().row), (State::Down, 0));
}

#[test]
fn more_time_moves_the_patience_for_readiness_and_for_an_end_but_not_a_shutdowns() {
    let patience = Duration::from_secs(10);
    let mut story = Story::new(Policy { ready: Some(patience), ..Policy::default() });
    story.command(1, START);
    story.spawned();
    let incarnation = story.n();
    story.feed(Event::Extended { incarnation, by: Duration::from_secs(60) });
    assert_eq!(story.gateway.deadline(), Some(story.now.after(Duration::from_secs(60))));
    story.feed(Event::Extended { incarnation, by: Duration::from_secs(1) });
    assert_eq!(story.gateway.deadline(), Some(story.now.after(Duration::from_secs(60))), "never less");
    story.command(2, Command::Stop);
    story.feed(Event::Extended { incarnation, by: Duration::from_secs(600) });
    assert_eq!(story.gateway.deadline(), Some(story.now.after(Duration::from_secs(600))));
    let deadline = story.now.after(Duration::from_secs(3));
    story.feed(Event::Shutdown { deadline });
    story.feed(Event::Extended { incarnation, by: Duration::from_secs(600) });
    assert_eq!(story.gateway.deadline(), Some(deadline));
}

fn limited(burst: u32, seconds: u64) -> Policy {
    let mut policy = Policy::default();
    policy.restart.limit = Some(BurstLimit { burst, interval: Duration::from_secs(seconds) });
    policy
}

#[test]
fn the_reason_has_the_interval_in_words() {
    for (seconds, words) in [(45, "45 s"), (60, "1 min"), (90, "1 min 30 s"), (600, "10 min")] {
        let mut story = Story::new(limited(1, seconds));
        story.up();
        story.ends(CRASH);
        story.spawned();
        story.ends(CRASH);
        let reason = format!("2 failures within {words}; the last: exited with code 1");
        assert_eq!((story.gateway.state(), story.gateway.reason()), (State::Failed, reason));
    }
}

#[test]
fn a_failure_counts_for_less_than_the_interval() {
    for (after, state) in [(44_999, State::Failed), (45_000, State::Backoff)] {
        let mut story = Story::new(limited(1, 45));
        story.up();
        story.ends(CRASH);
        story.spawned();
        story.wait(after);
        story.ends(CRASH);
        assert_eq!(story.gateway.state(), state, "{after} ms");
    }
}

#[test]
fn a_run_of_just_that_long_ends_the_row() {
    for (ran, row) in [(59_999, 2), (60_000, 1)] {
        let mut story = Story::new(Policy::default());
        story.up();
        story.ends(CRASH);
        story.spawned();
        story.wait(ran);
        story.ends(CRASH);
        assert_eq!(story.gateway.history().row, row, "{ran} ms");
    }
}

#[test]
fn no_more_failures_are_remembered_than_the_limit_needs() {
    let mut story = Story::new(limited(3, 600));
    story.gateway.history.failures = vec![story.now; 10];
    story.up();
    story.ends(CRASH);
    assert_eq!((story.gateway.history().failures.len(), story.gateway.state()), (4, State::Failed));
}

/// Services that crash together do not come back together.
#[test]
fn the_wait_differs_between_services_and_stays_within_its_tenth() {
    let wait = |seed| {
        let mut story = Story::new(Policy::default());
        story.gateway.seed = seed;
        story.up();
        story.ends(CRASH);
        story.spawned();
        story.ends(CRASH);
        story.gateway.deadline().unwrap().since(story.now).as_millis()
    };
    let mut waits: Vec<u128> = (0..64).map(wait).collect();
    waits.sort_unstable();
    assert!(waits[0] >= 90 && waits[63] <= 110, "{waits:?}");
    assert!(waits[8] < 96 && waits[55] > 104, "on both sides: {waits:?}");
}
