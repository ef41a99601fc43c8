//! What comes twice, too early, or when it means nothing any more.

use super::*;
use crate::core::policy::Hooks;

fn named(text: &str) -> Option<ServiceName> {
    Some(ServiceName::new(text).unwrap())
}

fn signals(effects: &[Effect]) -> Vec<&'static str> {
    let of = |effect: &Effect| match effect {
        Effect::SignalMain { .. } => Some("main"),
        Effect::SignalTree { .. } => Some("tree"),
        Effect::KillTree { .. } => Some("kill"),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn stop(timeout: u64, leftovers: u64) -> Policy {
    let mut policy = Policy::default();
    policy.stop.timeout = Duration::from_secs(timeout);
    policy.stop.leftovers = Duration::from_secs(leftovers);
    policy
}

/// That a tree is empty may be heard before the main process is reaped. Then there is nobody to signal or to kill.
#[test]
fn an_empty_tree_is_not_signalled_when_its_main_process_is_reaped() {
    for (leftovers, early, expected) in
        [(0, false, vec!["kill"]), (0, true, vec![]), (5, false, vec!["tree"]), (5, true, vec![])]
    {
        let mut story = Story::new(stop(10, leftovers));
        story.up();
        let incarnation = story.n();
        if early {
            assert_eq!(story.feed(Event::TreeEmpty { incarnation }), []);
        }
        let effects = story.feed(Event::MainExited { incarnation, exit: CRASH });
        assert_eq!(signals(&effects), expected, "{leftovers} s, empty: {early}");
        assert_eq!(effects.contains(&Effect::DrainLogs { incarnation }), early);
        if !early {
            let until = story.now.after(Duration::from_secs(if leftovers == 0 { 10 } else { leftovers }));
            assert_eq!(story.gateway.deadline(), Some(until));
        }
    }
    for (early, expected) in [(false, vec!["tree"]), (true, vec![])] {
        let mut story = Story::new(stop(10, 0));
        story.up();
        story.command(2, Command::Stop);
        let incarnation = story.n();
        if early {
            story.feed(Event::TreeEmpty { incarnation });
        }
        let effects = story.feed(Event::MainExited { incarnation, exit: Exit::Code(0) });
        assert_eq!(signals(&effects), expected, "empty: {early}");
    }
}

#[test]
fn what_ends_while_its_hook_runs_is_signalled_only_where_something_is_left() {
    for (early, expected) in [(false, vec!["tree"]), (true, vec![])] {
        let mut policy = stop(10, 0);
        policy.hooks = Hooks { pre_stop: Some(Duration::from_secs(5)), ..Hooks::default() };
        let mut story = Story::new(policy);
        story.up();
        story.command(2, Command::Stop);
        assert_eq!(story.gateway.stage(), Some(Stage::Hooked));
        let incarnation = story.n();
        if early {
            story.feed(Event::TreeEmpty { incarnation });
        }
        let effects = story.feed(Event::MainExited { incarnation, exit: Exit::Code(0) });
        assert_eq!(signals(&effects), expected, "empty: {early}");
        let stage = if early { Stage::Draining } else { Stage::Grace };
        assert_eq!(story.gateway.stage(), Some(stage));
    }
}

#[test]
fn a_finish_program_that_leaves_something_behind_is_killed_and_no_other_one_is() {
    for (early, expected) in [(false, vec!["kill"]), (true, vec![])] {
        let mut story = Story::new(Policy { finish: Some(Duration::from_secs(5)), ..Policy::default() });
        story.up();
        let incarnation = story.n();
        story.feed(Event::MainExited { incarnation, exit: CRASH });
        story.feed(Event::TreeEmpty { incarnation });
        assert_eq!(story.gateway.stage(), Some(Stage::Finishing));
        let incarnation = story.n();
        if early {
            story.feed(Event::TreeEmpty { incarnation });
        }
        let effects = story.feed(Event::MainExited { incarnation, exit: Exit::Code(0) });
        assert_eq!(signals(&effects), expected, "empty: {early}");
        assert_eq!(story.gateway.history().last_exit.map(|(exit, _)| exit), Some(CRASH), "not the program's");
    }
}

#[test]
fn more_time_is_for_what_may_still_end_by_itself() {
    let mut story = Story::new(stop(10, 0));
    story.up();
    story.command(2, Command::Stop);
    story.wait(10_000);
    assert_eq!(story.gateway.stage(), Some(Stage::Killing));
    let incarnation = story.n();
    let before = story.gateway.deadline();
    story.feed(Event::Extended { incarnation, by: Duration::from_secs(3600) });
    assert_eq!(story.gateway.deadline(), before, "a kill is waited for no longer");
}

#[test]
fn a_need_that_is_none_changes_nothing_and_one_that_goes_ends_what_it_kept_up() {
    // What is wanted up stays up, and is told when its state reads differently.
    let mut story = Story::new(Policy::default());
    story.up();
    assert_eq!(story.feed(Event::Needed(None)), []);
    assert_eq!(story.feed(Event::Needed(named("work"))), [Effect::Changed]);
    assert_eq!(story.feed(Event::Needed(named("work"))), []);
    assert_eq!(story.feed(Event::Needed(None)), [Effect::Changed]);
    assert_eq!((story.gateway.state(), story.gateway.needed_by()), (State::Up, None));

    let mut story = Story::new(Policy::default());
    story.feed(Event::Needed(named("work")));
    story.spawned();
    assert_eq!(story.feed(Event::Needed(named("play"))), [Effect::Changed], "another one needs it now");
    assert_eq!(signals(&story.feed(Event::Needed(None))), ["main"]);

    // While it waits for another service.
    for want in [Want::Down, Want::Up] {
        let mut story = Story::new(Policy::default());
        story.feed(Event::Gate(Gate::Wait("waits for 'redis'".to_owned())));
        if want == Want::Up {
            story.command(1, START);
        }
        story.feed(Event::Needed(named("work")));
        assert_eq!(story.gateway.phase(), Phase::Held);
        story.feed(Event::Needed(None));
        let rests = if want == Want::Up { Phase::Held } else { Phase::Down };
        assert_eq!(story.gateway.phase(), rests);
    }
}

#[test]
fn what_waits_for_another_try_rests_when_nobody_needs_it_any_more() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Needed(named("work")));
    for _ in 0..2 {
        story.spawned();
        story.ends(CRASH);
    }
    assert_eq!(story.gateway.state(), State::Backoff);
    story.feed(Event::Needed(named("play")));
    assert_eq!(story.gateway.state(), State::Backoff);
    story.feed(Event::Needed(None));
    assert_eq!((story.gateway.state(), story.gateway.history().backoff_until), (State::Down, None));

    // Its own want goes on waiting.
    let mut story = Story::new(Policy::default());
    story.up();
    story.ends(CRASH);
    story.spawned();
    story.ends(CRASH);
    assert_eq!(story.feed(Event::Needed(named("work"))), [Effect::Changed]);
    assert_eq!(story.feed(Event::Needed(None)), [Effect::Changed]);
    assert_eq!(story.gateway.state(), State::Backoff);
    assert!(story.gateway.history().backoff_until.is_some());
}

#[test]
fn nothing_is_needed_in_a_shutdown_nor_of_what_is_unregistered() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Shutdown { deadline: story.now.after(Duration::from_secs(9)) });
    assert_eq!(story.feed(Event::Needed(named("work"))), []);
    assert_eq!((story.gateway.state(), story.gateway.needed_by()), (State::Down, None));

    let mut story = Story::new(Policy::default());
    story.up();
    story.command(2, Command::Unregister);
    assert_eq!(story.feed(Event::Needed(named("work"))), []);
}

#[test]
fn whether_another_one_serves_it_is_seen_at_rest_too() {
    let served = || Gate::Elsewhere(Elsewhere::Served { by: ServiceName::new("default").unwrap() });
    let mut story = Story::new(Policy::default());
    assert_eq!(story.feed(Event::Gate(Gate::Open)), [], "it is so already");
    assert_eq!(story.feed(Event::Gate(served())), [Effect::Changed]);
    assert_eq!(story.gateway.state(), State::Served);
    assert_eq!(story.feed(Event::Gate(Gate::Open)), [Effect::Changed]);
    assert_eq!(story.gateway.state(), State::Down);
    assert_eq!(story.feed(Event::Gate(Gate::Wait("waits for 'redis'".to_owned()))), []);
}

#[test]
fn late_news_of_an_earlier_life_mean_nothing_to_the_next_one() {
    let mut policy = Policy { ready: Some(Duration::from_secs(20)), ..Policy::default() };
    policy.hooks = Hooks { post_start: Some(Duration::from_secs(30)), ..Hooks::default() };
    let news = |incarnation| {
        [
            Event::Spawned { incarnation, pid: 999 },
            Event::ReadyReported { incarnation },
            Event::Extended { incarnation, by: Duration::from_secs(3600) },
            Event::Unhealthy { incarnation, reason: "no answer".to_owned() },
            Event::SpawnFailed { incarnation, reason: "no such program".to_owned() },
            Event::MainExited { incarnation, exit: CRASH },
            Event::TreeEmpty { incarnation },
            Event::LogsDrained { incarnation },
            Event::HookEnded { incarnation },
        ]
    };
    let mut story = Story::new(policy);
    story.command(1, START);
    story.spawned();
    story.ends(CRASH);
    story.spawned();
    assert_eq!((story.n(), story.gateway.awaits_ready()), (2, true));
    let before = story.gateway.deadline();
    for event in news(1) {
        assert_eq!(story.feed(event.clone()), [], "{event:?} while it waits");
        assert_eq!((story.gateway.deadline(), story.gateway.pid()), (before, Some(100)), "{event:?}");
    }
    story.feed(Event::ReadyReported { incarnation: 2 });
    assert_eq!(story.gateway.hook(), Some(crate::core::policy::Hook::PostStart));
    for event in news(1) {
        assert_eq!(story.feed(event.clone()), [], "{event:?} while its hook runs");
        assert_eq!((story.gateway.state(), story.gateway.pid()), (State::Ready, Some(100)), "{event:?}");
        assert!(story.gateway.hook().is_some(), "{event:?}");
    }
    assert_eq!(story.feed(Event::Time), [], "the hook has time");
    assert_eq!(signals(&story.feed(Event::MainExited { incarnation: 2, exit: CRASH })), ["kill"]);
    for event in news(1) {
        assert_eq!(story.feed(event.clone()), [], "{event:?} while its tree ends");
    }
    story.feed(Event::TreeEmpty { incarnation: 2 });
    assert_eq!(story.gateway.stage(), Some(Stage::Draining));
    for event in news(1) {
        assert_eq!(story.feed(event.clone()), [], "{event:?} while its log is read");
    }
}

#[test]
fn who_is_gone_is_answered_no_more_and_the_others_are() {
    let mut story = Story::new(Policy::default());
    story.feed(Event::Command { ticket: Ticket(1), command: START });
    story.feed(Event::Command { ticket: Ticket(2), command: START });
    assert_eq!(story.feed(Event::Forget(Ticket(1))), []);
    story.feed(Event::Recorded { seq: 1 });
    story.spawned();
    assert_eq!(story.replies(), [(2, DONE)]);
}

/// What a later supervisor is told, and what `status` shows of a life while it goes on.
#[test]
fn a_life_is_seen_from_its_start_to_the_end_of_its_main_process() {
    let mut story = Story::new(Policy::default());
    assert_eq!((story.gateway.pid(), story.gateway.has_tree(), story.gateway.living()), (None, false, None));
    story.command(1, START);
    assert_eq!(
        (story.gateway.pid(), story.gateway.has_tree(), story.gateway.is_settled()),
        (None, true, false)
    );
    story.spawned();
    let living = story.gateway.living().expect("it lives");
    assert_eq!((living.incarnation, living.pid, living.since), (1, 100, story.now));
    assert_eq!((living.once, living.needed, living.readiness), (false, false, Readiness::Undefined));
    assert_eq!((story.gateway.pid(), story.gateway.since()), (Some(100), story.now));
    assert!(story.gateway.is_settled() && story.gateway.is_recorded() && !story.gateway.is_to_start());
    story.feed(Event::MainExited { incarnation: 1, exit: CRASH });
    assert_eq!((story.gateway.pid(), story.gateway.has_tree(), story.gateway.living()), (None, true, None));
    assert!(!story.gateway.is_settled());
}

#[test]
fn commands_of_one_aim_do_not_overtake_each_other_and_the_same_again_is_written_once() {
    for (first, second, written) in [
        (Command::Unregister, Command::Stop, 1),
        (Command::Unregister, Command::Unregister, 1),
        (Command::Stop, Command::Stop, 1),
        (Command::Stop, Command::Unregister, 2),
    ] {
        let mut story = Story::new(Policy::default());
        story.up();
        story.log.clear();
        story.feed(Event::Command { ticket: Ticket(2), command: first });
        story.feed(Event::Command { ticket: Ticket(3), command: second });
        assert_eq!(story.replies(), [], "{first:?}, {second:?}");
        let writes =
            story.log.iter().filter(|effect| matches!(effect, Effect::Record { .. } | Effect::Erase { .. }));
        assert_eq!(writes.count(), written, "{first:?}, {second:?}");
    }
}

#[test]
fn what_is_refused_and_what_is_not() {
    let says = |story: &mut Story, command: Command| match story
        .feed(Event::Command { ticket: Ticket(9), command })[..]
    {
        [Effect::Reply { outcome: Outcome::Failed(ref why), .. }] => why.clone(),
        _ => String::new(),
    };
    let starts = [START, Command::Restart, Command::Once];

    let mut story = Story::new(Policy::default());
    story.up();
    story.feed(Event::Shutdown { deadline: story.now.after(Duration::from_secs(9)) });
    for command in [START, Command::Restart, Command::Once, Command::Unregister] {
        assert_eq!(says(&mut story, command), "the supervisor is shutting down", "{command:?}");
    }
    assert_eq!(says(&mut story, Command::Stop), "");

    // From the moment when the disk is asked to forget it, to the end of its tree.
    let mut story = Story::new(Policy::default());
    story.up();
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Unregister });
    for command in starts {
        assert_eq!(says(&mut story, command), "it is being unregistered", "{command:?}");
    }
    story.feed(Event::Recorded { seq: 2 });
    for command in [START, Command::Restart, Command::Once, Command::Stop] {
        assert_eq!(says(&mut story, command), "it is being unregistered", "{command:?}");
    }
    assert_eq!(
        story.feed(Event::Command { ticket: Ticket(3), command: Command::Unregister }),
        [],
        "it joins"
    );

    // What is on its way to the disk is overtaken by another command, not refused.
    let mut story = Story::new(Policy::default());
    story.feed(Event::Command { ticket: Ticket(2), command: START });
    assert_eq!(says(&mut story, Command::Stop), "");

    let mut story = Story::new(Policy::default());
    story.up();
    for _ in 0..2 {
        story.ends(CRASH);
        story.spawned();
    }
    assert_eq!(story.gateway.state(), State::Backoff);
    assert_eq!(
        says(&mut story, Command::Once),
        "it is wanted up already; 'start' or 'restart' tries again now"
    );
    assert_eq!(says(&mut story, START), "");
}

#[test]
fn a_late_word_of_the_disk_is_about_the_newest_command_only() {
    // An unregistration that fails says nothing of the stop before it.
    let mut story = Story::new(Policy::default());
    story.up();
    story.command(2, Command::Stop);
    story.feed(Event::Command { ticket: Ticket(3), command: Command::Unregister });
    story.log.clear();
    story.feed(Event::NotRecorded { seq: 3, reason: "no space left".to_owned() });
    assert_eq!(story.replies(), [(3, Outcome::Failed("not recorded: no space left".to_owned()))]);

    // What was overtaken, or has been heard of already, changes nothing.
    let mut story = Story::new(Policy::default());
    story.feed(Event::Command { ticket: Ticket(2), command: START });
    story.feed(Event::Command { ticket: Ticket(3), command: Command::Stop });
    assert_eq!(story.feed(Event::Recorded { seq: 1 }), []);
    story.feed(Event::NotRecorded { seq: 2, reason: "no space left".to_owned() });
    assert!(story.gateway.is_unrecorded() && !story.gateway.is_recorded());
    assert_eq!(story.feed(Event::Recorded { seq: 1 }), []);
    assert!(story.gateway.is_unrecorded());

    let mut story = Story::new(Policy::default());
    story.command(1, START);
    assert!(story.gateway.is_recorded() && !story.gateway.is_unrecorded());
    assert_eq!(story.feed(Event::Recorded { seq: 1 }), []);
}

#[test]
fn a_start_forgives_a_single_crash_and_there_is_nothing_to_forgive_without_one() {
    let mut story = Story::new(Policy::default());
    story.up();
    assert!(!story.command(2, START).contains(&Effect::SaveHistory));
    story.ends(CRASH);
    story.spawned();
    assert_eq!(story.gateway.history().row, 1);
    assert!(story.command(3, START).contains(&Effect::SaveHistory));
    assert_eq!((story.gateway.history().row, story.gateway.history().failures.len()), (0, 0));
    story.command(4, Command::Stop);
    story.ends(Exit::Code(0));
    story.command(5, Command::Stop);
    assert_eq!(story.replies().last(), Some(&(5, ALREADY)));
}

#[test]
fn what_moves_is_not_settled() {
    let settled = |story: &Story| story.gateway.is_settled();
    let mut story = Story::new(Policy { ready: Some(Duration::from_secs(20)), ..stop(10, 0) });
    assert!(settled(&story) && !story.gateway.is_retiring() && !story.gateway.is_refused());
    story.feed(Event::Command { ticket: Ticket(1), command: START });
    assert!(!settled(&story) && story.gateway.is_to_start());
    story.feed(Event::Recorded { seq: 1 });
    assert!(!settled(&story), "it is being made");
    story.spawned();
    assert!(!settled(&story), "it has yet to say that it is ready");
    story.feed(Event::ReadyReported { incarnation: 1 });
    assert!(settled(&story));
    story.command(2, Command::Stop);
    assert!(!settled(&story));
    story.wait(10_000);
    story.wait(10_000);
    assert_eq!(story.gateway.stage(), Some(Stage::Stuck));
    assert!(settled(&story), "nothing happens by itself any more");
    story.command(3, Command::Unregister);
    assert!(!settled(&story) && story.gateway.is_retiring());

    let mut story = Story::new(Policy::default());
    story.feed(Event::Gate(Gate::Refused("requires 'redis', which is down".to_owned())));
    assert!(story.gateway.is_refused());
}

#[test]
fn of_a_scheduled_service_a_single_run_that_waits_makes_way_for_what_is_due() {
    let gate = || Event::Gate(Gate::Wait("waits for 'redis'".to_owned()));
    let mut story = Story::new(Policy { kind: Kind::Scheduled, ..Policy::default() });
    story.feed(gate());
    story.command(1, Command::Once);
    assert_eq!(story.gateway.phase(), Phase::Held);
    story.command(2, START);
    assert_eq!(story.gateway.phase(), Phase::Down, "it waits for its time from now on");
    story.command(3, Command::Once);
    assert_eq!(story.gateway.phase(), Phase::Held);
    story.command(4, START);
    assert_eq!(story.gateway.phase(), Phase::Held, "nothing new was asked for");
    story.feed(Event::Shutdown { deadline: story.now.after(Duration::from_secs(9)) });
    assert_eq!(story.feed(Event::Due), [], "nothing begins any more");
}

#[test]
fn the_reason_says_what_there_is_to_say_and_no_more() {
    let reason = |story: &Story| (story.gateway.state(), story.gateway.reason());
    let mut story = Story::new(Policy::default());
    story.command(1, START);
    assert_eq!(reason(&story), (State::Starting, String::new()), "nothing has failed before");

    let mut story = Story::new(Policy::default());
    story.command(1, Command::Once);
    story.spawned();
    assert_eq!(reason(&story), (State::Up, "runs once".to_owned()));

    let mut story = Story::new(Policy::default());
    story.feed(Event::Gate(Gate::Refused("requires 'redis', which is down".to_owned())));
    story.command(1, START);
    assert_eq!(reason(&story), (State::Down, "requires 'redis', which is down".to_owned()));

    let hooks = Hooks { pre_stop: Some(Duration::from_secs(5)), ..Hooks::default() };
    let mut story = Story::new(Policy { hooks, ..Policy::default() });
    story.up();
    story.feed(Event::Command { ticket: Ticket(2), command: Command::Stop });
    story.feed(Event::NotRecorded { seq: 2, reason: "no space left".to_owned() });
    assert_eq!(story.gateway.reason(), "its hook pre_stop runs; want not recorded: no space left");

    // Why it could not be started says nothing of what is wanted down.
    for (want, expected) in [(Want::Down, ""), (Want::Up, "no such program")] {
        let history = History {
            start_error: Some("no such program".to_owned()),
            failed: (want == Want::Up).then(|| ("no such program".to_owned(), Tick(1))),
            ..History::default()
        };
        let mut gateway = Gateway::new(Policy::default(), 1);
        let restored = Restored { history, ..Restored::at_rest(want, true) };
        drop(gateway.step(Event::Boot(restored), Tick(1_000_000)));
        assert_eq!(
            (gateway.reason().as_str(), gateway.history().start_error.is_some()),
            (expected, want == Want::Up)
        );
    }
}

#[test]
fn a_stop_of_what_is_ending_waits_and_of_what_does_not_die_says_so() {
    let mut story = Story::new(stop(10, 0));
    story.up();
    story.command(2, Command::Stop);
    story.command(3, Command::Stop);
    assert_eq!(story.replies().len(), 1, "the start alone");
    story.wait(10_000);
    story.wait(10_000);
    assert_eq!(story.gateway.stage(), Some(Stage::Stuck));
    story.log.clear();
    story.command(4, Command::Stop);
    let why = "killed, but processes of it do not end".to_owned();
    assert_eq!(story.replies(), [(4, Outcome::Failed(why))]);
}

#[test]
fn an_empty_tree_begins_no_life_while_the_one_that_is_made_has_not_ended() {
    let is_made = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. }));
    let mut story = Story::new(Policy::default());
    story.command(1, START);
    assert_eq!(story.feed(Event::TreeEmpty { incarnation: 1 }), []);

    let hooks = Hooks { pre_start: Some(Duration::from_secs(5)), ..Hooks::default() };
    let mut story = Story::new(Policy { hooks, ..Policy::default() });
    story.command(1, START);
    assert!(story.gateway.is_preparing());
    assert_eq!(story.feed(Event::TreeEmpty { incarnation: 1 }), [], "its hook has not been reaped");
    assert!(is_made(&story.feed(Event::MainExited { incarnation: 1, exit: Exit::Code(0) })));
}

#[test]
fn a_shutdown_gives_a_hook_half_of_what_is_left() {
    let mut policy = stop(10, 0);
    policy.hooks = Hooks { pre_stop: Some(Duration::from_secs(5)), ..Hooks::default() };
    let mut story = Story::new(policy);
    story.up();
    story.command(2, Command::Stop);
    assert_eq!(story.gateway.deadline(), Some(story.now.after(Duration::from_secs(5))));
    assert!(!story.gateway.is_ending_hook());
    story.feed(Event::Shutdown { deadline: story.now.after(Duration::from_secs(4)) });
    assert_eq!(story.gateway.deadline(), Some(story.now.after(Duration::from_secs(2))));
    story.wait(2_000);
    assert_eq!((story.gateway.stage(), story.gateway.is_ending_hook()), (Some(Stage::Grace), true));
    story.feed(Event::HookEnded { incarnation: 1 });
    assert!(!story.gateway.is_ending_hook());
}

#[test]
fn an_ill_service_whose_finish_program_gives_up_has_failed() {
    for (code, state) in [(0, State::Starting), (FINISH_GIVES_UP, State::Failed)] {
        let mut story = Story::new(Policy { finish: Some(Duration::from_secs(5)), ..Policy::default() });
        story.up();
        story.feed(Event::Unhealthy { incarnation: 1, reason: "no answer".to_owned() });
        story.feed(Event::MainExited { incarnation: 1, exit: Exit::Code(0) });
        story.feed(Event::TreeEmpty { incarnation: 1 });
        story.ends(Exit::Code(code));
        assert_eq!(story.gateway.state(), state, "{code}");
    }
}

#[test]
fn only_a_long_run_that_ends_well_ends_the_row() {
    for (ran, row) in [(59_999, 1), (60_000, 0)] {
        let mut story = Story::new(Policy::default());
        story.up();
        story.ends(CRASH);
        story.spawned();
        story.wait(ran);
        story.ends(Exit::Code(0));
        assert_eq!(story.gateway.history().row, row, "{ran} ms");
    }
}

#[test]
fn what_runs_once_is_not_given_up() {
    let mut story = Story::new(Policy::default());
    story.command(1, Command::Once);
    story.spawned();
    assert_eq!(story.feed(Event::GiveUp { reason: "fights with 'default'".to_owned() }), []);
    assert_eq!(story.gateway.state(), State::Up);
}
