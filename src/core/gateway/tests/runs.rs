//! A oneshot that runs when it is due.

use super::*;
use crate::core::policy::RestartWhen;

fn scheduled(when: RestartWhen) -> Story {
    let restart = RestartPolicy { when, ..Policy::default().restart };
    Story::new(Policy { kind: Kind::Scheduled, restart, ..Policy::default() })
}

/// Wanted up, between two runs.
fn wanted() -> Story {
    let mut story = scheduled(RestartWhen::Never);
    story.command(1, START);
    story
}

fn reports(effects: &[Effect]) -> Vec<&Incident> {
    fn report(effect: &Effect) -> Option<&Incident> {
        match effect {
            Effect::Report(incident) => Some(incident),
            _ => None,
        }
    }
    effects.iter().filter_map(report).collect()
}

fn spawns(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. }))
}

fn skipped(story: &Story) -> u64 {
    story.gateway.history().runs.as_ref().map_or(0, |runs| runs.skipped)
}

#[test]
fn a_start_is_done_at_once_and_the_run_comes_when_it_is_due() {
    let mut story = scheduled(RestartWhen::Never);
    assert!(!spawns(&story.command(1, START)));
    assert_eq!(story.replies(), [(1, DONE)]);
    assert_eq!((story.gateway.state(), story.gateway.want()), (State::Down, Want::Up));
    assert!(story.gateway.awaits_run());
    story.command(2, START);
    assert_eq!(story.replies().last(), Some(&(2, ALREADY)));
    let begun = story.feed(Event::Due);
    assert!(spawns(&begun) && reports(&begun) == [&Incident::RunDue], "{begun:?}");
    assert_eq!(story.gateway.history().runs.as_ref().and_then(|runs| runs.started), Some(story.now));
    story.spawned();
    story.ends(Exit::Code(0));
    assert_eq!((story.gateway.state(), story.gateway.deadline()), (State::Finished, None));
    assert!(story.gateway.awaits_run());
    assert!(spawns(&story.feed(Event::Due)));
}

#[test]
fn what_is_due_while_the_last_run_goes_on_is_skipped_counted_and_told_once() {
    let mut story = wanted();
    story.feed(Event::Due);
    story.spawned();
    let first = story.feed(Event::Due);
    assert_eq!(reports(&first), [&Incident::RunSkipped("the one before it has not ended".to_owned())]);
    let second = story.feed(Event::Due);
    assert!(!spawns(&first) && !spawns(&second) && reports(&second).is_empty(), "{second:?}");
    assert_eq!(skipped(&story), 2);
    story.ends(Exit::Code(0));
    assert!(
        !story.log.iter().rev().take(2).any(|effect| matches!(effect, Effect::Spawn { .. })),
        "not made up"
    );
    story.feed(Event::Due);
    story.spawned();
    assert_eq!(reports(&story.feed(Event::Due)).len(), 1, "a new row is told again");
}

/// As a unit of systemd that a timer starts: failed until the next run.
#[test]
fn a_run_that_failed_is_failed_until_the_next_one() {
    let mut story = wanted();
    story.feed(Event::Due);
    story.spawned();
    story.ends(CRASH);
    assert_eq!((story.gateway.state(), story.gateway.deadline()), (State::Failed, None));
    assert_eq!(story.gateway.reason(), "exited with code 1");
    assert!(spawns(&story.feed(Event::Due)));
    story.spawned();
    story.ends(Exit::Code(0));
    assert_eq!(story.gateway.state(), State::Finished);
    assert_eq!(story.gateway.history().failed, None);
}

#[test]
fn where_the_policy_says_so_a_run_is_tried_again_and_the_next_one_begins_anew() {
    let mut story = scheduled(RestartWhen::OnFailure);
    story.command(1, START);
    story.feed(Event::Due);
    story.spawned();
    story.ends(CRASH);
    assert_eq!(story.gateway.state(), State::Starting, "the first failure is tried again at once");
    story.spawned();
    story.ends(CRASH);
    assert_eq!((story.gateway.state(), story.gateway.history().row), (State::Backoff, 2));
    assert!(spawns(&story.feed(Event::Due)));
    assert_eq!((story.gateway.history().row, skipped(&story)), (0, 0));
}

#[test]
fn once_runs_it_now_and_the_schedule_goes_on() {
    let mut story = wanted();
    assert!(spawns(&story.command(2, Command::Once)));
    story.spawned();
    assert_eq!(story.replies().last(), Some(&(2, DONE)));
    assert!(story.gateway.history().runs.as_ref().is_some_and(|runs| runs.started.is_some()));
    story.command(3, Command::Once);
    assert_eq!(story.replies().last(), Some(&(3, ALREADY)));
    story.ends(CRASH);
    assert_eq!(story.gateway.state(), State::Failed);
    assert!(spawns(&story.command(4, Command::Once)), "also after a failure");
    story.spawned();
    // Asked for while the run before it is ending.
    let incarnation = story.n();
    story.feed(Event::MainExited { incarnation, exit: Exit::Code(0) });
    assert!(!spawns(&story.command(5, Command::Once)));
    story.feed(Event::TreeEmpty { incarnation });
    assert!(spawns(&story.feed(Event::LogsDrained { incarnation })));
    story.spawned();
    assert_eq!(story.replies().last(), Some(&(5, DONE)));
    story.ends(Exit::Code(0));
    assert_eq!(story.gateway.state(), State::Finished);
}

#[test]
fn while_it_is_wanted_down_nothing_is_due_and_once_is_once() {
    let mut story = wanted();
    story.command(2, Command::Stop);
    assert_eq!(story.replies().last(), Some(&(2, DONE)), "it was not down before");
    assert!(story.feed(Event::Due).is_empty());
    assert!(spawns(&story.command(3, Command::Once)));
    story.spawned();
    assert!(story.feed(Event::Due).is_empty());
    story.ends(Exit::Code(0));
    assert_eq!((story.gateway.state(), story.gateway.awaits_run()), (State::Down, false));
}

#[test]
fn a_stop_ends_the_run_and_a_restart_waits_for_the_next_one() {
    let mut story = wanted();
    story.feed(Event::Due);
    story.spawned();
    story.command(2, Command::Restart);
    assert_eq!(story.gateway.state(), State::Stopping);
    story.ends(Exit::Signal { signal: Signal::TERM, core: false });
    assert_eq!(story.replies().last(), Some(&(2, DONE)));
    assert_eq!((story.gateway.state(), story.gateway.awaits_run()), (State::Down, true));
    story.feed(Event::Due);
    story.spawned();
    story.command(3, Command::Stop);
    story.command(4, START);
    story.ends(Exit::Signal { signal: Signal::TERM, core: false });
    assert_eq!(story.replies().last(), Some(&(4, DONE)));
    assert_eq!((story.gateway.state(), story.gateway.awaits_run()), (State::Down, true));
}

#[test]
fn a_run_waits_for_what_comes_before_it_and_is_skipped_where_that_is_missing() {
    let mut story = wanted();
    story.feed(Event::Gate(Gate::Wait("waits for 'db'".to_owned())));
    story.feed(Event::Due);
    assert_eq!((story.gateway.state(), story.gateway.reason().as_str()), (State::Starting, "waits for 'db'"));
    let again = story.feed(Event::Due);
    assert_eq!(
        reports(&again),
        [&Incident::RunSkipped("the one before it still waits for its start".to_owned())]
    );
    story.feed(Event::Gate(Gate::Refused("requires 'db', which has failed".to_owned())));
    assert_eq!((story.gateway.state(), story.gateway.awaits_run(), skipped(&story)), (State::Down, true, 2));
    assert!(!spawns(&story.feed(Event::Due)));
    story.command(2, Command::Once);
    let failed = Outcome::Failed("requires 'db', which has failed".to_owned());
    assert_eq!(story.replies().last(), Some(&(2, failed)));
    story.feed(Event::Gate(Gate::Open));
    assert_eq!((story.gateway.state(), skipped(&story)), (State::Down, 3), "what was skipped is not made up");
    assert!(spawns(&story.feed(Event::Due)));
}

#[test]
fn what_has_no_schedule_any_more_waits_no_longer() {
    let mut story = wanted();
    let oneshot = Policy { kind: Kind::Oneshot, ..Policy::default() };
    assert!(spawns(&story.feed(Event::Defined(oneshot.clone().into()))));
    let mut story = wanted();
    story.command(2, Command::Stop);
    assert!(!spawns(&story.feed(Event::Defined(oneshot.into()))), "nobody wants it");
}

#[test]
fn a_later_supervisor_waits_for_the_next_run_and_knows_of_the_last() {
    let boot = |history: History, finished| {
        let mut gateway = Gateway::new(scheduled(RestartWhen::Never).gateway.policy().clone(), 1);
        let restored = Restored { finished, history, ..Restored::at_rest(Want::Up, true) };
        let effects: Vec<Effect> = gateway.step(Event::Boot(restored), Tick(2_000_000)).into_iter().collect();
        assert!(!spawns(&effects) && gateway.awaits_run(), "{effects:?}");
        gateway
    };
    assert_eq!(boot(History::default(), false).state(), State::Down);
    assert_eq!(boot(History::default(), true).state(), State::Finished);
    let runs = Some(Box::new(Runs { started: Some(Tick(7)), skipped: 2, in_row: 0 }));
    let failed = History {
        failed: Some(("exited with code 1".to_owned(), Tick(9))),
        runs: runs.clone(),
        ..History::default()
    };
    let gateway = boot(failed, false);
    assert_eq!((gateway.state(), &gateway.history().runs), (State::Failed, &runs));
}
