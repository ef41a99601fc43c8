//! Finish programs, readiness, and the services around.

use super::*;

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
    // A caller who asks for a start, or for none, does not ask about the end before.
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
fn a_single_run_that_another_one_leaves_no_room_for_does_not_come_later() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Gate(Gate::Ask(other("default"))));
    story.command(1, Command::Once);
    assert_eq!(story.gateway.phase(), Phase::Held);
    story.feed(Event::Gate(served()));
    assert!(matches!(story.replies().as_slice(), [(1, Outcome::Failed(_))]), "{:?}", story.replies());
    story.feed(Event::Gate(Gate::Open));
    assert_eq!(story.gateway.phase(), Phase::Down);
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
