//! One gateway or many, as stories: the root gateway says what a test wants it to say.

use super::*;
use crate::core::effect;
use crate::core::event::Command;
use crate::core::exit::Exit;
use crate::core::gateway::Elsewhere;
use crate::core::words::State;
use crate::daemon::topics::testing::World;
use crate::hermes::gateway_socket::{Answer, AskError};

/// EX_CONFIG of sysexits(3).
const REFUSED: Exit = Exit::Code(78);
const ROOT_PID: i32 = 100;

#[derive(Default)]
struct Story {
    world: World,
    topology: Topology,
    log: Vec<String>,
    /// What was told and asked.
    done: Vec<String>,
    /// Conversations that are under way.
    talks: Vec<About>,
    /// Looks that are under way.
    looks: usize,
}

fn named(names: &[&str]) -> BTreeSet<ServiceName> {
    names.iter().map(|name| ServiceName::new(name).unwrap()).collect()
}

impl Story {
    /// The root gateway and these, all wanted up and booted; the root gateway runs.
    fn booted<const N: usize>(names: [&str; N]) -> (Self, ServiceId, [ServiceId; N]) {
        let mut story = Self::default();
        let root = story.world.gateway(DEFAULT_PROFILE);
        let ids = names.map(|name| story.world.gateway(name));
        let all = ids.iter().chain([&root]).map(|id| (*id, Restored::at_rest(Want::Up, true)));
        let mut restored: BTreeMap<ServiceId, Restored> = all.collect();
        let (_, held) = story.topology.before_boot(&mut restored, false, &story.world.view());
        story.act(held);
        drop(story.world.fleet.boot(restored, story.world.now));
        story.spawn(root, ROOT_PID);
        story.settle();
        (story, root, ids)
    }

    fn spawn(&mut self, id: ServiceId, pid: i32) {
        let incarnation = self.world.fleet.gateway(id).unwrap().history().incarnation;
        self.step(id, Event::Spawned { incarnation, pid });
    }

    fn step(&mut self, id: ServiceId, event: Event) {
        if let Event::MainExited { incarnation, exit } = event {
            let judged = self.topology.exited(id, incarnation, exit, &self.world.view());
            self.act(judged);
        }
        drop(self.world.step(id, event));
        self.topology.changed(id, &self.world.view());
    }

    fn settle(&mut self) {
        let actions = self.topology.settle(&self.world.view());
        self.act(actions);
        let actions = self.topology.placed(&self.world.view());
        self.act(actions);
    }

    fn act(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Place(id, place) => drop(self.world.fleet.place(id, place, self.world.now)),
                Action::Core(id, event) => {
                    let name = self.world.fleet.name(id).unwrap();
                    self.done.push(match &event {
                        Event::Needed(by) => format!("{name} is needed by {by:?}"),
                        Event::GiveUp { reason } => format!("{name} {reason}"),
                        Event::Command { command, .. } => format!("{name} {command:?}"),
                        other => panic!("not expected: {other:?}"),
                    });
                    self.step(id, event);
                }
                Action::Log(_, text) => self.log.push(text),
                Action::Files(_) => self.looks += 1,
                Action::Converse { pid, about } => {
                    assert_eq!(pid, u32::try_from(ROOT_PID).ok());
                    self.talks.push(about);
                }
                Action::Answer(_, outcome) => {
                    self.done.push(format!("{} {}", outcome.name, outcome.message.unwrap_or_default()));
                }
                Action::TellBoot(lines) => self.done.extend(lines.into_iter().map(|(line, _)| line)),
                Action::UnwatchRoot => self.done.push("unwatch".to_owned()),
                Action::Command { tickets, command, together, in_turn: false } => {
                    for (id, ticket) in tickets {
                        let view = self.world.view();
                        let actions = self.topology.command(id, ticket, command, &together, &view);
                        self.act(actions);
                    }
                }
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    /// The root gateway's state file says that it serves these profiles, and these carry the mark of a parked one.
    fn says(&mut self, served: &[&str], parked: &[&str]) {
        let pid = u32::try_from(ROOT_PID).unwrap();
        let served = served.iter().map(|name| (*name).to_owned()).collect();
        let word = Word { pid, served, alone_because: None };
        let heard = Heard { pid, watch: None, read: Ok((Some(word), named(parked))) };
        let actions = self.topology.heard(heard, &self.world.view());
        self.act(actions);
        self.settle();
    }

    fn answers(&mut self, answer: Result<Answer, AskError>) {
        let about = self.talks.remove(0);
        let actions = self.topology.conversed(Conversed { about, answer }, &self.world.view());
        self.act(actions);
        self.settle();
    }

    fn command(&mut self, ids: &[ServiceId], command: Command) {
        for id in ids {
            let together = ids.iter().copied().collect();
            let actions = self.topology.command(*id, Ticket(1), command, &together, &self.world.view());
            self.act(actions);
        }
    }

    fn exits(&mut self, id: ServiceId, exit: Exit) {
        let incarnation = self.world.fleet.gateway(id).unwrap().history().incarnation;
        self.step(id, Event::MainExited { incarnation, exit });
        self.step(id, Event::TreeEmpty { incarnation });
        self.step(id, Event::LogsDrained { incarnation });
    }

    fn state(&self, id: ServiceId) -> State {
        self.world.view().state(id).unwrap()
    }

    fn place(&self, id: ServiceId) -> Option<&Elsewhere> {
        self.world.fleet.gateway(id).unwrap().elsewhere()
    }

    fn does(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.done), expected);
    }
}

fn done(served: &[&str]) -> Result<Answer, AskError> {
    let served = Some(served.iter().map(|name| (*name).to_owned()).collect());
    Ok(Answer { served, ..Answer::default() })
}

#[test]
fn named_gateways_wait_for_the_root_gateways_word_and_those_that_it_serves_get_no_process() {
    let (mut story, _, [a, b]) = Story::booted(["a", "b"]);
    assert_eq!((story.looks, story.state(a)), (1, State::Starting));
    assert!(story.world.fleet.gateway(a).unwrap().phase() == Phase::Held);
    story.says(&["default", "a"], &[]);
    assert_eq!((story.state(a), story.state(b)), (State::Served, State::Starting));
    assert!(story.world.fleet.gateway(b).unwrap().phase() == Phase::Starting);
    assert_eq!(story.log, ["default: it serves a, default"]);
    // Said again, it is no news.
    story.says(&["default", "a"], &[]);
    assert_eq!(story.log.len(), 1);
    assert_eq!(story.topology.next_deadline(), None);
}

#[test]
fn a_root_gateway_that_says_nothing_is_not_waited_for_longer_than_a_minute() {
    let (mut story, _, [a]) = Story::booted(["a"]);
    assert_eq!(story.topology.next_deadline(), Some(story.world.now.after(ROOT_PATIENCE)));
    story.topology.postpone(Duration::from_secs(5));
    story.world.after(ROOT_PATIENCE);
    story.settle();
    assert_eq!(
        story.world.fleet.gateway(a).unwrap().phase(),
        Phase::Held,
        "time that was lost is not its own"
    );
    story.world.after(Duration::from_secs(5));
    story.settle();
    assert_eq!(story.world.fleet.gateway(a).unwrap().phase(), Phase::Starting);
    assert!(story.log[0].starts_with("'default' has not said within 60 s"), "{:?}", story.log);
}

#[test]
fn the_word_of_another_life_is_nobodys() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    let stale = |pid, word_pid| {
        let word = Word { pid: word_pid, served: ["a".to_owned()].into(), alone_because: None };
        Heard { pid, watch: None, read: Ok((Some(word), BTreeSet::new())) }
    };
    for heard in [stale(99, 99), stale(100, 99)] {
        let actions = story.topology.heard(heard, &story.world.view());
        story.act(actions);
        story.settle();
        assert_eq!(story.world.fleet.gateway(a).unwrap().phase(), Phase::Held);
    }
    // It ends: what it said counts no more.
    story.says(&["default", "a"], &[]);
    assert_eq!(story.state(a), State::Served);
    story.command(&[root], Command::Stop);
    story.step(root, Event::Recorded { seq: 1 });
    story.exits(root, Exit::Code(0));
    story.settle();
    assert_eq!(story.world.fleet.gateway(a).unwrap().phase(), Phase::Starting);
}

#[test]
fn a_parked_profile_has_no_gateway_where_the_root_gateway_serves_others() {
    let (mut story, _, [a]) = Story::booted(["a"]);
    story.says(&["default"], &["a"]);
    assert_eq!((story.state(a), story.place(a)), (State::Parked, Some(&Elsewhere::Parked)));
    story.says(&[], &["a"]);
    assert_eq!(story.state(a), State::Starting, "it serves only its own profile: the mark means nothing");
}

#[test]
fn what_became_of_those_that_were_held_at_boot_is_told_when_it_is_known() {
    let (mut story, ..) = Story::booted(["a", "b"]);
    let line = |name: &str| (ServiceName::new(name).unwrap(), None, PriorExit::default());
    story.topology.tell_later(vec![line("a"), line("b")]);
    story.settle();
    story.does(&[]);
    story.says(&["default", "a"], &[]);
    assert_eq!(story.done.len(), 2);
    assert!(story.done[0].contains("profile=a") && story.done[1].contains("profile=b"), "{:?}", story.done);
    assert_ne!(story.done[0].replace("=a", "=b"), story.done[1], "one is served, the other started");
    story.done.clear();
    story.says(&["default", "a", "b"], &[]);
    story.does(&[]);
}

#[test]
fn a_new_profile_is_made_known_to_a_root_gateway_that_serves_others() {
    let (mut story, _, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    let b = story.world.gateway("b");
    let joined = story.topology.joined(b, &story.world.view());
    story.act(joined);
    assert!(matches!(story.talks[..], [About::Rescan(None)]));
    story.answers(done(&["default", "a", "b"]));
    assert!(matches!(story.place(b), Some(Elsewhere::Served { .. })));
    assert_eq!(story.state(a), State::Served);
}

#[test]
fn a_gateway_that_ends_with_78_is_no_failure_where_the_root_gateway_then_serves_its_profile() {
    for (served, state) in
        [(&["default", "a", "b"][..], State::Served), (&["default", "a"][..], State::Failed)]
    {
        let (mut story, _, [_, b]) = Story::booted(["a", "b"]);
        story.says(&["default", "a"], &[]);
        story.spawn(b, 200);
        story.exits(b, REFUSED);
        assert!(matches!(story.talks[..], [About::Rescan(Some(id))] if id == b));
        assert_ne!(story.state(b), State::Failed, "it is being found out");
        story.answers(done(served));
        if state == State::Served {
            assert_eq!(story.state(b), state);
        } else {
            assert!(story.place(b).is_none());
        }
    }
}

/// A version with one gateway for all profiles, and nobody wants the root gateway: it is started for the other, and its own
/// want stays.
#[test]
fn a_gateway_that_cannot_do_without_the_root_gateway_gets_it_until_nobody_needs_it() {
    let mut story = Story::default();
    let root = story.world.gateway(DEFAULT_PROFILE);
    let a = story.world.gateway("a");
    story.world.up(a, 200);
    story.exits(a, REFUSED);
    assert_eq!((story.looks, story.talks.len()), (1, 0));
    let ended = story.topology.ended(a, false, &story.world.view());
    story.act(ended);
    assert_eq!(story.log.len(), 1);
    let name = ServiceName::new("a").unwrap();
    story.does(&[&format!("default is needed by {:?}", Some(&name))]);
    assert_eq!(story.world.fleet.gateway(root).unwrap().want(), Want::Down);
    story.spawn(root, ROOT_PID);
    story.settle();
    story.says(&["default", "a"], &[]);
    assert_eq!(story.state(a), State::Served);
    // Nobody wants what it is kept up for: it is not asked to stop a profile, for it ends.
    story.command(&[a], Command::Stop);
    assert!(story.talks.is_empty());
    let outcome = story.topology.prepared_answer(a, Ticket(1), &story.world.view()).unwrap();
    assert_eq!(outcome.message.as_deref(), Some("'default' was up for it alone, and ends"));
}

#[test]
fn a_gateway_that_had_begun_to_work_has_ended_by_a_fault_of_its_own() {
    let mut story = Story::default();
    story.world.gateway(DEFAULT_PROFILE);
    let a = story.world.gateway("a");
    story.world.up(a, 200);
    story.exits(a, REFUSED);
    let ended = story.topology.ended(a, true, &story.world.view());
    story.act(ended);
    story.settle();
    story.does(&[]);
    assert!(story.topology.ended(a, false, &story.world.view()).is_empty(), "it was told");
}

#[test]
fn what_an_operator_asks_of_a_served_profile_is_asked_of_the_root_gateway() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.command(&[a], Command::Stop);
    story.does(&[]);
    story.answers(done(&["default"]));
    story.does(&["a Stop"]);
    assert_eq!(story.place(a), Some(&Elsewhere::Parked));
    assert!(story.topology.prepared_answer(a, Ticket(1), &story.world.view()).is_some());
    // Both at once: the core takes both.
    story.says(&["default", "a"], &[]);
    story.command(&[a, root], Command::Restart);
    assert!(story.talks.is_empty());
    story.does(&["a Restart", "default Restart"]);
}

#[test]
fn what_the_root_gateway_cannot_do_changes_nothing_and_is_told() {
    let (mut story, _, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.command(&[a], Command::Stop);
    story.answers(Err(AskError::NoSocket));
    assert_eq!(story.done.len(), 1);
    assert!(story.done[0].starts_with("a 'a' goes on: 'default' serves it"), "{:?}", story.done);
    assert_eq!(story.state(a), State::Served);
    assert!(story.topology.prepared_answer(a, Ticket(1), &story.world.view()).is_none());
}

#[test]
fn of_two_gateways_that_fight_the_root_gateway_stays() {
    let mut story = Story::default();
    let root = story.world.gateway(DEFAULT_PROFILE);
    let a = story.world.gateway("a");
    story.world.up(root, 1);
    for turn in 0..4 {
        story.world.after(Duration::from_secs(2));
        let (starts, ends) = if turn % 2 == 0 { (a, root) } else { (root, a) };
        story.world.up(starts, 10 + turn);
        story.world.after(Duration::from_secs(1));
        story.exits(ends, Exit::Code(0));
    }
    story.does(&["a fights with 'default': each start of the one ended the other"]);
}

#[test]
fn without_named_gateways_nobody_listens_to_the_root_gateway() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    let name = story.world.services.remove(&a).unwrap().name;
    drop(story.world.fleet.remove(a, story.world.now));
    story.topology.forget(a);
    story.topology.changed(root, &story.world.view());
    story.settle();
    story.does(&["unwatch"]);
    assert!(story.world.fleet.id(name.as_str()).is_none());
    assert_eq!(story.topology.next_deadline(), None);
}

impl Story {
    /// The mark of a parked profile is put or taken away, as the topic has asked.
    fn marked(&mut self, id: ServiceId, done: io::Result<()>) {
        let profile = named_profile(id, &self.world.view()).unwrap();
        let parked = *self.topology.stops.marking.get(&profile).expect("it is to be marked");
        let marked = Marked { id, profile, parked, done };
        let actions = self.topology.marked(marked, &self.world.view());
        self.act(actions);
        self.settle();
    }

    /// `stop`, whose want is on the disk at once; whether the caller is answered now.
    fn stop(&mut self, id: ServiceId) -> bool {
        self.command(&[id], Command::Stop);
        let name = self.world.fleet.name(id).unwrap();
        assert_eq!(self.done.pop(), Some(format!("{name} Stop")), "the core takes it");
        let seq = 1;
        let effects = self.world.step(id, Event::Recorded { seq });
        let replies: Vec<effect::Outcome> = effects
            .into_iter()
            .filter_map(|(_, effect)| match effect {
                effect::Effect::Reply { outcome, .. } => Some(outcome),
                _ => None,
            })
            .collect();
        let held = replies.iter().any(|outcome| self.topology.holds_back(id, Ticket(1), outcome));
        self.topology.changed(id, &self.world.view());
        self.settle();
        !replies.is_empty() && !held
    }

    /// The root gateway ends by itself, and is started again.
    fn root_restarts(&mut self, root: ServiceId) {
        self.exits(root, Exit::Code(1));
        self.settle();
        self.spawn(root, ROOT_PID);
        self.settle();
        self.does(&["unwatch"]);
    }
}

/// The root gateway served the profile on while its own gateway was still ending, and `stop` said "down".
#[test]
fn a_stop_while_its_own_processes_end_is_asked_of_the_root_gateway_that_serves_the_profile() {
    let (mut story, _, [a]) = Story::booted(["a"]);
    story.says(&["default"], &[]);
    story.spawn(a, 200);
    story.says(&["default", "a"], &[]);
    assert_eq!(story.state(a), State::Stopping, "it makes way");
    story.command(&[a], Command::Stop);
    assert!(matches!(story.talks[..], [About::Command { command: Command::Stop, .. }]), "{:?}", story.talks);
    story.answers(done(&["default"]));
    story.does(&["a Stop"]);
    story.step(a, Event::Recorded { seq: 1 });
    story.exits(a, Exit::Code(0));
    assert_eq!((story.place(a), story.state(a)), (Some(&Elsewhere::Parked), State::Parked));
    assert!(story.topology.prepared_answer(a, Ticket(1), &story.world.view()).is_some());
}

/// It left no mark, and the root gateway took the profile up again.
#[test]
fn a_stop_while_the_root_gateway_restarts_holds_for_it() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.root_restarts(root);
    assert!(!story.stop(a), "the root gateway may have looked before the mark was there");
    story.marked(a, Ok(()));
    story.does(&[]);
    // It had not.
    story.says(&["default"], &["a"]);
    story.does(&["a "]);
    assert_eq!((story.state(a), story.talks.len()), (State::Parked, 0));
    // A start takes the mark away.
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default"], &["a"]);
    story.root_restarts(root);
    story.command(&[a], Command::Start { force: false });
    story.marked(a, Ok(()));
    story.says(&["default", "a"], &[]);
    assert_eq!(story.state(a), State::Served);
}

#[test]
fn a_root_gateway_that_had_looked_before_the_mark_was_there_is_asked_to_leave_the_profile_out() {
    for answer in [done(&["default"]), Err(AskError::NoSocket)] {
        let (mut story, root, [a]) = Story::booted(["a"]);
        story.says(&["default", "a"], &[]);
        story.root_restarts(root);
        assert!(!story.stop(a));
        story.marked(a, Ok(()));
        story.says(&["default", "a"], &["a"]);
        assert!(matches!(story.talks[..], [About::Leave { .. }]), "{:?}", story.talks);
        story.does(&[]);
        let is_done = answer.is_ok();
        story.answers(answer);
        let told = story.done.remove(0);
        if is_done {
            assert_eq!((told.as_str(), story.state(a)), ("a ", State::Parked));
        } else {
            assert!(told.starts_with("a 'a' goes on: 'default' serves it"), "{told}");
            assert_eq!(story.state(a), State::Served);
        }
    }
}

/// A gateway that runs is stopped without delay, and what the root gateway says of it later is followed.
#[test]
fn a_stop_of_what_has_a_process_does_not_wait_for_the_root_gateway() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default"], &[]);
    story.spawn(a, 200);
    story.root_restarts(root);
    story.stop(a);
    story.exits(a, Exit::Code(0));
    assert_eq!(story.state(a), State::Down, "its answer is the core's");
    story.marked(a, Ok(()));
    story.says(&["default", "a"], &[]);
    assert!(matches!(story.talks[..], [About::Leave { .. }]), "{:?}", story.talks);
    story.answers(Err(AskError::NoSocket));
    assert!(story.log.last().unwrap().contains("'a' goes on: 'default' serves it"), "{:?}", story.log);
}

#[test]
fn where_the_root_gateway_waits_for_its_next_start_a_stop_is_answered_once_the_mark_is_there() {
    for (done, told) in [
        (Ok(()), "a "),
        (
            Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            "a 'a' is stopped, but 'default' may serve it when it runs: it cannot be marked as parked: read-only \
             filesystem or storage medium",
        ),
    ] {
        let (mut story, root, [a]) = Story::booted(["a"]);
        story.says(&["default", "a"], &[]);
        // The first failure restarts at once.
        story.root_restarts(root);
        story.exits(root, Exit::Code(1));
        assert!(matches!(story.world.fleet.gateway(root).unwrap().phase(), Phase::Backoff { .. }));
        story.settle();
        story.done.clear();
        assert!(!story.stop(a));
        story.does(&[]);
        story.marked(a, done);
        story.does(&[told]);
    }
}

/// The mark stays where it means nothing yet: another version, or another setting, may read it.
#[test]
fn a_stop_is_answered_when_the_root_gateway_serves_nobody_else_and_a_start_takes_the_mark_away() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.root_restarts(root);
    assert!(!story.stop(a));
    story.marked(a, Ok(()));
    story.says(&[], &["a"]);
    story.does(&["a "]);
    assert!(story.topology.stops.marking.is_empty());
    assert_eq!(story.state(a), State::Down);
    story.command(&[a], Command::Start { force: false });
    assert_eq!(story.topology.stops.marking.values().collect::<Vec<_>>(), [&false]);
    story.does(&["a Start { force: false }"]);
}

/// The start found the profile served, and the stop before it came into force after it.
#[test]
fn of_two_commands_the_newer_one_wins_whatever_the_root_gateway_is_being_asked() {
    let (mut story, _, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.command(&[a], Command::Stop);
    story.command(&[a], Command::Start { force: false });
    story.does(&[]);
    story.answers(done(&["default"]));
    assert!(matches!(story.talks[..], [About::Command { command: Command::Start { .. }, .. }]));
    story.does(&["a Stop"]);
    story.answers(done(&["default", "a"]));
    story.does(&["a Start { force: false }"]);
    assert_eq!(story.state(a), State::Served);
}

#[test]
fn who_waits_for_the_root_gateway_hears_of_a_newer_command_and_of_the_end() {
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.root_restarts(root);
    assert!(!story.stop(a));
    story.command(&[a], Command::Start { force: false });
    story.does(&["a 'a': overtaken by a newer 'start'", "a Start { force: false }"]);
    let (mut story, root, [a]) = Story::booted(["a"]);
    story.says(&["default", "a"], &[]);
    story.root_restarts(root);
    assert!(!story.stop(a));
    story.world.closing = true;
    story.settle();
    story.does(&["a "]);
}
