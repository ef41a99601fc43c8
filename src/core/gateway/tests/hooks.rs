//! Hooks of start and stop: what they cost, and what becomes of one that hangs.

use super::*;
use crate::core::policy::{Hook, Hooks};

fn story(pre_start: u64, post_start: u64, pre_stop: u64) -> Story {
    let some = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
    let hooks = Hooks { pre_start: some(pre_start), post_start: some(post_start), pre_stop: some(pre_stop) };
    Story::new(Policy { hooks, ..Policy::default() })
}

fn has(effects: &[Effect], of: impl Fn(&Effect) -> bool) -> bool {
    effects.iter().any(of)
}

fn signals(effect: &Effect) -> bool {
    matches!(effect, Effect::SignalMain { .. })
}

#[test]
fn the_main_process_is_made_when_the_hook_has_succeeded_and_left_nothing() {
    let mut story = story(30, 0, 0);
    assert!(has(&story.command(1, START), |effect| matches!(effect, Effect::Prepare { incarnation: 1 })));
    story.spawned();
    assert_eq!((story.gateway.state(), story.gateway.pid()), (State::Starting, None));
    assert_eq!(story.gateway.reason(), "its hook pre_start runs");
    story.feed(Event::MainExited { incarnation: 1, exit: Exit::Code(0) });
    assert!(story.log.contains(&Effect::KillTree { incarnation: 1 }));
    let effects = story.feed(Event::TreeEmpty { incarnation: 1 });
    assert_eq!(effects, [Effect::Release { incarnation: 1 }, Effect::Spawn { incarnation: 2 }]);
    assert_eq!(story.gateway.history().last_exit, None, "it was no exit of the service");
    story.spawned();
    assert_eq!((story.gateway.state(), story.replies()), (State::Up, vec![(1, DONE)]));
}

#[test]
fn the_failure_of_the_hook_is_that_of_the_start() {
    let mut story = story(30, 0, 0);
    story.command(1, START);
    story.spawned();
    story.ends(Exit::Code(75));
    let words = "its hook pre_start exited with code 75";
    assert_eq!(story.replies(), [(1, Outcome::Failed(words.to_owned()))]);
    assert_eq!(story.gateway.state(), State::Backoff, "no rule for exit codes of the service counts");
    assert!(story.gateway.reason().starts_with(words), "{}", story.gateway.reason());
    assert_eq!(story.gateway.history().failures.len(), 1);
}

#[test]
fn a_hook_that_hangs_before_the_start_is_killed_in_its_time() {
    let mut story = story(30, 0, 0);
    story.command(1, START);
    story.spawned();
    story.wait(29_999);
    assert_eq!(story.gateway.state(), State::Starting);
    story.wait(1);
    assert!(story.log.contains(&Effect::KillTree { incarnation: 1 }));
    let words = "its hook pre_start did not end in its time and is killed";
    assert_eq!(story.replies(), [(1, Outcome::Failed(words.to_owned()))]);
    story.ends(Exit::Signal { signal: Signal::KILL, core: false });
    assert!(story.gateway.reason().starts_with(words), "{}", story.gateway.reason());
}

#[test]
fn a_stop_during_the_hook_before_a_start_ends_it_at_once() {
    let mut story = story(30, 0, 0);
    story.command(1, START);
    story.spawned();
    let effects = story.command(2, Command::Stop);
    assert!(effects.contains(&Effect::KillTree { incarnation: 1 }) && !has(&effects, signals), "{effects:?}");
    story.ends(Exit::Signal { signal: Signal::KILL, core: false });
    assert_eq!(story.gateway.state(), State::Down);
    assert_eq!(story.replies().last(), Some(&(2, DONE)));
}

/// The main process was made all the same, though what it required had crashed while the hook ran.
#[test]
fn what_is_required_is_looked_at_again_after_the_hook_before_a_start() {
    let mut story = story(30, 0, 0);
    story.command(1, START);
    story.spawned();
    story.feed(Event::Gate(Gate::Wait("waits for 'db'".to_owned())));
    story.feed(Event::MainExited { incarnation: 1, exit: Exit::Code(0) });
    let effects = story.feed(Event::TreeEmpty { incarnation: 1 });
    assert_eq!(effects.first(), Some(&Effect::Release { incarnation: 1 }));
    assert!(!has(&effects, |effect| matches!(effect, Effect::Spawn { .. })), "{effects:?}");
    assert_eq!(story.gateway.reason(), "waits for 'db'");
    assert!(story.feed(Event::Gate(Gate::Open)).contains(&Effect::Prepare { incarnation: 2 }));
    assert_eq!(story.replies(), [], "its start is under way");
}

#[test]
fn the_hook_after_a_start_waits_for_readiness_and_holds_nobody_up() {
    let hooks = Hooks { post_start: Some(Duration::from_secs(5)), ..Hooks::default() };
    let mut story = Story::new(Policy { hooks, ready: Some(Duration::from_secs(60)), ..Policy::default() });
    story.command(1, START);
    story.spawned();
    let runs = Effect::RunHook { incarnation: 1, hook: Hook::PostStart };
    assert!(!story.log.contains(&runs));
    assert!(story.feed(Event::ReadyReported { incarnation: 1 }).contains(&runs));
    assert_eq!(story.replies(), [(1, DONE)]);
    story.wait(5_000);
    assert!(story.log.contains(&Effect::EndHook { incarnation: 1 }));
    assert!(story.log.contains(&Effect::Report(Incident::HookTimedOut { hook: Hook::PostStart })));
    assert_eq!((story.gateway.state(), story.gateway.hook()), (State::Ready, Some(Hook::PostStart)));
    assert_eq!(story.gateway.deadline(), None, "it is ended once");
    story.feed(Event::HookEnded { incarnation: 1 });
    assert_eq!(story.gateway.hook(), None);
}

#[test]
fn a_hook_that_is_being_ended_is_waited_for_before_the_next_one() {
    let mut story = story(0, 5, 30);
    story.up();
    story.wait(5_000);
    let effects = story.command(2, Command::Stop);
    assert!(!has(&effects, |effect| matches!(effect, Effect::RunHook { .. } | Effect::EndHook { .. })));
    let runs = Effect::RunHook { incarnation: 1, hook: Hook::PreStop };
    let effects = story.feed(Event::HookEnded { incarnation: 1 });
    assert!(effects.contains(&runs) && !has(&effects, signals), "{effects:?}");
    assert!(has(&story.feed(Event::HookEnded { incarnation: 1 }), signals));

    // One that does not die costs the next one its turn, and the stop no more than half of its time.
    let mut stuck = self::story(0, 5, 30);
    stuck.up();
    stuck.command(2, Command::Stop);
    stuck.wait(4_999);
    assert!(!has(&stuck.log, signals));
    stuck.wait(1);
    assert!(has(&stuck.log, signals));
    assert!(stuck.feed(Event::HookEnded { incarnation: 1 }).is_empty());
}

#[test]
fn the_signal_waits_for_the_hook_before_a_stop_and_for_half_of_the_time_at_most() {
    let runs = Effect::RunHook { incarnation: 1, hook: Hook::PreStop };
    let mut quick = story(0, 0, 30);
    quick.up();
    let effects = quick.command(2, Command::Stop);
    assert!(effects.contains(&runs) && !has(&effects, signals), "{effects:?}");
    quick.wait(1_000);
    assert!(has(&quick.feed(Event::HookEnded { incarnation: 1 }), signals));
    // What is left of the ten seconds is all the service's.
    quick.wait(8_999);
    assert!(!quick.log.contains(&Effect::KillTree { incarnation: 1 }));
    quick.wait(1);
    assert!(quick.log.contains(&Effect::KillTree { incarnation: 1 }));

    let mut hung = story(0, 0, 30);
    hung.up();
    hung.command(2, Command::Stop);
    hung.wait(4_999);
    assert!(!has(&hung.log, signals));
    hung.wait(1);
    assert!(has(&hung.log, signals) && hung.log.contains(&Effect::EndHook { incarnation: 1 }));
    // Late news of it signals nobody twice.
    assert!(hung.feed(Event::HookEnded { incarnation: 1 }).is_empty());
}

#[test]
fn one_hook_runs_at_a_time_and_none_for_what_ends_by_itself() {
    let mut story = story(0, 30, 30);
    story.up();
    let effects = story.command(2, Command::Stop);
    assert!(effects.contains(&Effect::EndHook { incarnation: 1 }));
    assert!(!has(&effects, |effect| matches!(effect, Effect::RunHook { .. })));
    let runs = Effect::RunHook { incarnation: 1, hook: Hook::PreStop };
    assert!(story.feed(Event::HookEnded { incarnation: 1 }).contains(&runs));
    // It ended before anybody told it to.
    story.ends(Exit::Code(0));
    assert!(!has(&story.log, signals));
    assert_eq!(story.gateway.state(), State::Down);

    let mut crashed = self::story(0, 0, 30);
    crashed.up();
    crashed.ends(CRASH);
    assert!(!has(&crashed.log, |effect| matches!(effect, Effect::RunHook { .. })));
}
