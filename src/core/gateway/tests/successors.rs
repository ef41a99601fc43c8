//! What a later supervisor makes of what an earlier one left, and news that come at an odd moment of a start.

use super::*;

const BEGAN: Tick = Tick(500_000);

/// A service that was up under the earlier supervisor, and the effects of its boot.
fn adopted(want: Want, once: bool, needed: Option<&str>, before: Option<Event>) -> (Story, Vec<Effect>) {
    let mut story = Story {
        gateway: Gateway::new(Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() }, 1),
        now: Tick(1_000_000),
        log: Vec::new(),
    };
    if let Some(event) = before {
        story.feed(event);
    }
    let living = Living {
        incarnation: 7,
        pid: 42,
        since: BEGAN,
        readiness: Readiness::Awaited(Tick(1_005_000)),
        once,
        needed: needed.is_some(),
    };
    let effects = story.feed(Event::Boot(Restored {
        living: Some(living),
        needed: needed.map(|name| ServiceName::new(name).unwrap()),
        ..Restored::at_rest(want, true)
    }));
    (story, effects)
}

fn is_ended(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::SignalMain { incarnation: 7, .. }))
}

#[test]
fn what_is_still_wanted_goes_on_as_it_was() {
    for (want, once, needed) in [
        (Want::Up, false, None),
        (Want::Up, true, None),
        (Want::Down, true, None),
        (Want::Down, false, Some("work")),
    ] {
        let (story, effects) = adopted(want, once, needed, None);
        assert!(!is_ended(&effects), "{want:?}, once: {once}, needed: {needed:?}");
        let gateway = &story.gateway;
        assert_eq!((gateway.state(), gateway.pid(), gateway.since()), (State::Up, Some(42), BEGAN));
        assert_eq!((gateway.history().incarnation, gateway.deadline()), (7, Some(Tick(1_005_000))));
        assert_eq!(gateway.is_once(), once && want == Want::Down);
        assert_eq!(gateway.needed_by().map(ServiceName::as_str), needed);
        let living = gateway.living().expect("it lives");
        assert_eq!((living.pid, living.since, living.once), (42, BEGAN, once && want == Want::Down));
    }
}

#[test]
fn what_is_not_wanted_or_may_not_run_is_ended() {
    let refused = Event::Gate(Gate::Refused("requires 'redis', which is down".to_owned()));
    let served = Elsewhere::Served { by: ServiceName::new("default").unwrap() };
    for (want, before) in [
        (Want::Down, None),
        (Want::Up, Some(refused)),
        (Want::Up, Some(Event::Gate(Gate::Elsewhere(served)))),
        (Want::Up, Some(Event::Shutdown { deadline: Tick(1_009_000) })),
    ] {
        let (story, effects) = adopted(want, false, None, before.clone());
        assert!(is_ended(&effects), "{want:?}, {before:?}");
        assert_eq!((story.gateway.state(), story.gateway.living()), (State::Stopping, None));
    }
}

#[test]
fn a_wait_that_is_just_over_is_over() {
    for (until, state) in [(1_000_000, State::Starting), (1_000_001, State::Backoff)] {
        let history = History { backoff_until: Some(Tick(until)), row: 2, ..History::default() };
        let mut gateway = Gateway::new(Policy::default(), 1);
        let restored = Restored { history, ..Restored::at_rest(Want::Up, true) };
        drop(gateway.step(Event::Boot(restored), Tick(1_000_000)));
        assert_eq!(gateway.state(), state);
    }
}

#[test]
fn what_was_killed_before_it_was_executed_is_not_signalled_when_it_is() {
    let mut story = Story::new(Policy::default());
    story.command(1, START);
    story.command(2, Command::Stop);
    assert_eq!(story.gateway.stage(), Some(Stage::Unsignalled));
    story.feed(Event::KillNow);
    assert_eq!(story.gateway.stage(), Some(Stage::Killing));
    assert_eq!(story.feed(Event::Spawned { incarnation: 1, pid: 100 }), []);
    assert_eq!(story.gateway.stage(), Some(Stage::Killing));
}

#[test]
fn a_report_counts_once_and_only_where_one_is_asked_for() {
    let mut story = Story::new(Policy::default());
    story.up();
    assert_eq!(story.feed(Event::ReadyReported { incarnation: 1 }), []);
    assert_eq!((story.gateway.state(), story.gateway.ready_since()), (State::Up, None));

    let mut story = Story::new(Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() });
    story.command(1, START);
    story.spawned();
    let first = story.now;
    story.feed(Event::ReadyReported { incarnation: 1 });
    story.wait(1_000);
    assert_eq!(story.feed(Event::ReadyReported { incarnation: 1 }), []);
    assert_eq!((story.gateway.state(), story.gateway.ready_since()), (State::Ready, Some(first)));
}
