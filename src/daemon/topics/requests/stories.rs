//! What callers hear, as stories: the table of requests and the real core, on a kernel and a disk that do as they are told.

use crate::containment::IncarnationId;
use crate::control::protocol::{Outcome, Part, Reply, Request, SignalName, Targets, Until};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::effect::Effect;
use crate::core::event::Event;
use crate::core::exit::Exit;
use crate::core::fleet::{FleetEffects, ServiceId};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::words::{State, Want};
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::requests::{Requests, Targeted};
use crate::daemon::topics::testing::{GATEWAY_UID, World};
use crate::definition::resolved::Ready;
use crate::sys::peer::Peer;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Default)]
struct Story {
    world: World,
    requests: Requests,
    /// What callers heard, as `CONN: NAME WORDS` and `CONN: end`.
    heard: Vec<String>,
    /// What was done to trees.
    done: Vec<String>,
    /// The turns of commands: who got it, and all who get it in the end.
    turns: Vec<(Vec<ServiceId>, BTreeSet<ServiceId>)>,
    /// Why nothing can be put on disk.
    disk_fails: Option<String>,
    /// Main processes that are not made yet.
    slow: BTreeSet<ServiceId>,
    /// Those that cannot be made.
    broken: BTreeSet<ServiceId>,
    /// Those that do not end when they are asked to.
    deaf: BTreeSet<ServiceId>,
}

impl Story {
    fn service(&mut self, name: &str) -> ServiceId {
        let name = ServiceName::new(name).unwrap();
        let argv = ["sleep".to_owned()];
        let env = Default::default();
        let record =
            crate::definition::resolved::Record { name: &name, argv: &argv, env: &env, user: "10000" };
        let trust = crate::definition::trust::Trust::Untrusted("a test".to_owned());
        let definition = crate::definition::Definition::from_record(record, &trust, &self.world.around);
        self.world.add(definition.unwrap())
    }

    fn services<const N: usize>(&mut self, names: [&str; N]) -> [ServiceId; N] {
        names.map(|name| self.service(name))
    }

    /// Up, without anybody having asked for it just now.
    fn up(&mut self, id: ServiceId) -> IncarnationId {
        self.world.up(id, 100)
    }

    fn ask(&mut self, conn: u32, request: Request, ids: &[ServiceId]) {
        self.ask_for(conn, request, ids, false);
    }

    fn ask_for(&mut self, conn: u32, request: Request, ids: &[ServiceId], all: bool) {
        let peer = Peer { pid: Some(1), uid: GATEWAY_UID, gid: GATEWAY_UID };
        let incoming = Incoming { id: ConnId { slot: conn, generation: 0 }, peer, request };
        let actions = self.requests.serve(&incoming, ids.to_vec(), Vec::new(), all, &self.world.view());
        self.act(actions);
    }

    /// Answers go out at once; what comes of the rest is news for later, as in the loop.
    fn act(&mut self, actions: Actions) {
        let mut rest = Actions::new();
        for action in actions {
            match action {
                Action::Reply(conn, Reply::Part(Part::Outcome(outcome))) => {
                    self.heard.push(format!("{}: {}", conn.slot, words(&outcome)));
                }
                Action::Reply(conn, Reply::End) => self.heard.push(format!("{}: end", conn.slot)),
                other => rest.push(other),
            }
        }
        rest.into_iter().for_each(|action| self.act_later(action));
    }

    fn act_later(&mut self, action: Action) {
        match action {
            Action::Core(id, event) => self.tell(id, event),
            Action::Command { tickets, command, together, .. } => {
                self.turns.push((tickets.iter().map(|(id, _)| *id).collect(), together));
                for (id, ticket) in tickets {
                    self.tell(id, Event::Command { ticket, command });
                }
            }
            Action::Freeze { life, frozen, ticket } => {
                self.done.push(format!("{} {}", if frozen { "freeze" } else { "thaw" }, life.name));
                let told = self.requests.freeze_ordered(&life, frozen, ticket, None, &self.world.view());
                self.act(told);
            }
            Action::Thaw(life) => self.done.push(format!("let go {}", life.name)),
            Action::Kill(kill) => {
                self.done.push(format!("{} to {}", kill.signal, kill.life.name));
                let told = self.requests.killed(kill, None, &self.world.view());
                self.act(told);
            }
            other => panic!("not expected: {other:?}"),
        }
    }

    fn tell(&mut self, id: ServiceId, event: Event) {
        let effects = self.world.step(id, event);
        self.execute(effects);
    }

    fn execute(&mut self, effects: FleetEffects) {
        for (id, effect) in effects {
            match effect {
                Effect::Record { seq, .. } | Effect::Erase { seq } => self.tell(
                    id,
                    match self.disk_fails.clone() {
                        None => Event::Recorded { seq },
                        Some(reason) => Event::NotRecorded { seq, reason },
                    },
                ),
                Effect::Spawn { incarnation } if self.broken.contains(&id) => {
                    self.tell(id, Event::SpawnFailed { incarnation, reason: "no such file".to_owned() });
                    self.tell(id, Event::TreeEmpty { incarnation });
                }
                Effect::Spawn { .. } if self.slow.contains(&id) => {}
                Effect::Spawn { incarnation } => self.tell(id, Event::Spawned { incarnation, pid: 200 }),
                Effect::SignalMain { .. } if self.deaf.contains(&id) => {}
                Effect::SignalMain { incarnation, .. } | Effect::KillTree { incarnation } => {
                    self.tell(id, Event::MainExited { incarnation, exit: Exit::Code(0) });
                    self.tell(id, Event::TreeEmpty { incarnation });
                }
                Effect::DrainLogs { incarnation } => self.tell(id, Event::LogsDrained { incarnation }),
                Effect::Reply { ticket, outcome } => {
                    let told = self.requests.answer(id, ticket, outcome, &self.world.view());
                    self.act(told);
                }
                Effect::Changed => {
                    let told = self.requests.changed(id, &self.world.view());
                    self.act(told);
                }
                Effect::SaveHistory
                | Effect::Finish { .. }
                | Effect::Prepare { .. }
                | Effect::RunHook { .. }
                | Effect::EndHook { .. }
                | Effect::SignalTree { .. }
                | Effect::Release { .. }
                | Effect::Abandon { .. }
                | Effect::Report(_)
                | Effect::Retired => {}
            }
        }
    }

    fn after(&mut self, time: Duration) {
        self.world.after(time);
        let due = self.world.fleet.pass_time(self.world.now);
        self.execute(due);
        let told = self.requests.pass_time(&self.world.view());
        self.act(told);
    }

    fn spawned(&mut self, id: ServiceId) {
        let incarnation = self.world.fleet.gateway(id).unwrap().history().incarnation;
        self.tell(id, Event::Spawned { incarnation, pid: 200 });
    }

    fn frozen(&mut self, life: &IncarnationId, frozen: bool) {
        if frozen {
            self.world.trees.frozen.insert(life.clone());
        } else {
            self.world.trees.frozen.remove(life);
        }
        let id = self.world.fleet.id(life.name.as_str()).unwrap();
        let told = self.requests.changed(id, &self.world.view());
        self.act(told);
    }

    fn hears(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.heard), expected);
    }

    fn state(&self, id: ServiceId) -> State {
        self.world.fleet.gateway(id).unwrap().state()
    }
}

fn words(outcome: &Outcome) -> String {
    let said = match (&outcome.message, outcome.state) {
        (Some(message), _) => message.clone(),
        (None, Some(state)) => state.to_string(),
        (None, None) => String::new(),
    };
    let verdict = if outcome.ok { String::new() } else { format!("[{:?}] ", outcome.code) };
    format!("{} {verdict}{said}", outcome.name)
}

fn all() -> Targets {
    Targets::All
}

fn start() -> Request {
    Request::Start { targets: all(), timeout_ms: None, force: false }
}

fn stop() -> Request {
    Request::Stop { targets: all() }
}

fn wait(until: Until) -> Request {
    Request::Wait { targets: all(), until, timeout_ms: None }
}

fn rolling(at_once: u32) -> Request {
    Request::Restart { targets: all(), timeout_ms: Some(10_000), rolling: Some(at_once) }
}

#[test]
fn a_start_is_answered_when_exec_has_succeeded_and_says_what_was_so_already() {
    let mut story = Story::default();
    let [a, b] = story.services(["a", "b"]);
    story.slow.insert(a);
    story.up(b);
    story.ask(1, start(), &[a, b]);
    story.hears(&["1: b already up"]);
    story.spawned(a);
    story.hears(&["1: a up", "1: end"]);
    assert!(!story.requests.is_busy());
}

#[test]
fn a_start_that_fails_says_why() {
    let mut story = Story::default();
    let a = story.service("a");
    story.broken.insert(a);
    story.ask(1, start(), &[a]);
    story.hears(&["1: a [Failed] 'a': no such file", "1: end"]);
}

#[test]
fn a_stop_is_answered_when_the_tree_is_empty() {
    let mut story = Story::default();
    let a = story.service("a");
    let life = story.up(a);
    story.deaf.insert(a);
    story.ask(1, stop(), &[a]);
    story.hears(&[]);
    story.tell(a, Event::MainExited { incarnation: life.n, exit: Exit::Code(0) });
    story.hears(&[]);
    story.tell(a, Event::TreeEmpty { incarnation: life.n });
    story.hears(&["1: a down", "1: end"]);
}

#[test]
fn a_stop_acts_without_the_disk_and_a_start_does_not() {
    let mut story = Story::default();
    let [a, b] = story.services(["a", "b"]);
    story.up(a);
    story.disk_fails = Some("no space left on device".to_owned());
    story.ask(1, stop(), &[a]);
    story.hears(&["1: a [Failed] 'a' is stopped, but not recorded: no space left on device", "1: end"]);
    assert_eq!(story.state(a), State::Down);
    story.ask(1, start(), &[b]);
    assert_eq!(story.state(b), State::Down);
    assert!(story.heard[0].contains("no space left on device"), "{:?}", story.heard);
}

#[test]
fn a_command_that_a_newer_one_overtakes_is_answered_at_once() {
    let mut story = Story::default();
    let a = story.service("a");
    story.slow.insert(a);
    story.ask(1, start(), &[a]);
    story.ask(2, stop(), &[a]);
    assert_eq!(story.heard[..2], ["1: a [Failed] 'a': overtaken by a newer 'stop'", "1: end"]);
}

#[test]
fn the_time_of_a_request_ends_its_answer_and_not_what_it_asked_for() {
    let mut story = Story::default();
    let a = story.service("a");
    story.slow.insert(a);
    story.ask(1, Request::Start { targets: all(), timeout_ms: Some(2000), force: false }, &[a]);
    assert_eq!(story.requests.next_deadline(), Some(story.world.now.after(Duration::from_secs(2))));
    story.after(Duration::from_secs(2));
    story.hears(&["1: a [TimedOut] 'a': timed out, it is starting", "1: end"]);
    story.spawned(a);
    story.hears(&[]);
    assert_eq!((story.state(a), story.requests.next_deadline()), (State::Up, None));
}

#[test]
fn time_that_the_supervisor_lost_is_not_the_callers() {
    let mut story = Story::default();
    let a = story.service("a");
    story.slow.insert(a);
    story.ask(1, Request::Start { targets: all(), timeout_ms: Some(2000), force: false }, &[a]);
    story.requests.postpone(Duration::from_secs(60));
    story.after(Duration::from_secs(61));
    story.hears(&[]);
    story.after(Duration::from_secs(1));
    assert_eq!(story.heard.len(), 2);
}

#[test]
fn those_who_wait_hear_when_it_is_so_and_at_once_if_it_is_so_already() {
    let mut story = Story::default();
    let [a, b] = story.services(["a", "b"]);
    story.up(b);
    story.ask(1, wait(Until::Up), &[a, b]);
    story.hears(&["1: b up"]);
    story.ask(2, wait(Until::Down), &[a]);
    story.hears(&["2: a down", "2: end"]);
    story.ask(3, start(), &[a]);
    assert_eq!(story.heard.iter().filter(|line| line.starts_with("1: ")).count(), 2, "{:?}", story.heard);
    story.heard.clear();
    // Of a service that cannot report it, up is as ready as can be known.
    story.ask(4, wait(Until::Ready), &[a]);
    story.hears(&["4: a up", "4: end"]);
}

#[test]
fn who_waits_for_ready_is_not_content_with_up_where_more_can_be_known() {
    let mut story = Story::default();
    let a = story.world.gateway("coder");
    if let Some(service) = story.world.services.get_mut(&a) {
        service.definition.ready = Ready::GatewayState;
    }
    let policy = crate::core::policy::Policy { ready: Some(Duration::from_secs(60)), ..Default::default() };
    let now = story.world.now;
    story.world.fleet.redefine(a, policy.into(), Vec::new(), Vec::new(), now);
    let life = story.up(a);
    story.ask(1, wait(Until::Ready), &[a]);
    story.hears(&[]);
    story.tell(a, Event::ReadyReported { incarnation: life.n });
    story.hears(&["1: coder ready", "1: end"]);
}

#[test]
fn a_caller_that_is_gone_is_owed_nothing_and_what_it_asked_for_is_done() {
    let mut story = Story::default();
    let [a, b] = story.services(["a", "b"]);
    story.slow.insert(a);
    story.ask(1, start(), &[a]);
    story.ask(2, wait(Until::Up), &[a, b]);
    for slot in [1, 2] {
        story.requests.caller_is_gone(ConnId { slot, generation: 0 });
    }
    assert!(story.requests.targeted().is_empty(), "nothing waits any more");
    story.spawned(a);
    story.hears(&[]);
    assert_eq!((story.state(a), story.requests.is_busy()), (State::Up, false));
}

#[test]
fn a_rolling_restart_goes_on_when_one_is_up_again() {
    let mut story = Story::default();
    let ids = story.services(["a", "b", "c"]);
    ids.into_iter().for_each(|id| drop(story.up(id)));
    story.slow.extend(ids);
    story.ask(1, rolling(1), &ids);
    assert_eq!(ids.map(|id| story.state(id)), [State::Starting, State::Up, State::Up]);
    story.spawned(ids[0]);
    story.hears(&["1: a up"]);
    assert_eq!(ids.map(|id| story.state(id)), [State::Up, State::Starting, State::Up]);
    story.spawned(ids[1]);
    story.spawned(ids[2]);
    story.hears(&["1: b up", "1: c up", "1: end"]);
}

/// What a served profile is asked goes by way of the root gateway, unless that one gets the same command. That is for each turn
/// as for a command to all at once.
#[test]
fn each_turn_of_a_rolling_restart_is_a_command_that_knows_the_others() {
    let mut story = Story::default();
    let ids = story.services(["a", "b", "c"]);
    ids.into_iter().for_each(|id| drop(story.up(id)));
    story.ask(1, rolling(2), &ids);
    let [a, b, c] = ids;
    let all = BTreeSet::from(ids);
    assert_eq!(story.turns, [(vec![a, b], all.clone()), (vec![c], all)]);
    story.hears(&["1: a up", "1: c up", "1: b up", "1: end"]);
}

/// A service was stopped, its caller told so, and the turn of an older rolling restart started it again.
#[test]
fn a_newer_stop_overtakes_the_turn_of_a_rolling_restart() {
    let mut story = Story::default();
    let ids = story.services(["a", "b", "c"]);
    ids.into_iter().for_each(|id| drop(story.up(id)));
    story.slow.extend(ids);
    story.ask(1, rolling(1), &ids);
    story.ask(2, Request::Stop { targets: all() }, &[ids[1]]);
    story.hears(&["1: b [Failed] 'b' is not restarted: overtaken by a newer 'stop'", "2: b down", "2: end"]);
    story.spawned(ids[0]);
    story.hears(&["1: a up"]);
    story.spawned(ids[2]);
    story.hears(&["1: c up", "1: end"]);
    assert_eq!(story.state(ids[1]), State::Down);
}

#[test]
fn a_rolling_restart_ends_at_the_first_that_fails() {
    let mut story = Story::default();
    let ids = story.services(["a", "b", "c"]);
    ids.into_iter().for_each(|id| drop(story.up(id)));
    story.broken.insert(ids[0]);
    story.ask(1, rolling(1), &ids);
    let heard = std::mem::take(&mut story.heard);
    assert!(heard[0].starts_with("1: a [Failed]"), "{heard:?}");
    let rest =
        ["b", "c"].map(|name| format!("1: {name} [Failed] '{name}' is not restarted: an earlier one failed"));
    assert_eq!(heard[1..], [rest[0].clone(), rest[1].clone(), "1: end".to_owned()]);
    assert_eq!(story.state(ids[1]), State::Up, "it was not touched");
}

/// Each turn has the time of one restart, and who did not come to its turn is told so.
#[test]
fn the_time_of_a_rolling_restart_is_that_of_all_its_turns() {
    let mut story = Story::default();
    let ids = story.services(["a", "b", "c"]);
    ids.into_iter().for_each(|id| drop(story.up(id)));
    story.slow.extend(ids);
    let until = story.world.now.after(Duration::from_secs(20));
    story.ask(1, rolling(2), &ids);
    assert_eq!(story.requests.next_deadline(), Some(until), "two turns of ten seconds");
    story.after(Duration::from_secs(20));
    story.hears(&[
        "1: a [TimedOut] 'a': timed out, it is starting",
        "1: b [TimedOut] 'b': timed out, it is starting",
        "1: c [TimedOut] 'c' is not restarted: timed out before its turn",
        "1: end",
    ]);
}

#[test]
fn a_freeze_is_answered_when_every_process_stands_still() {
    let mut story = Story::default();
    let [a, b] = story.services(["a", "b"]);
    let life = story.up(a);
    story.ask(1, Request::Freeze { targets: all() }, &[a, b]);
    story.hears(&["1: b [Failed] 'b' is down: only what is up can be told to freeze"]);
    assert_eq!(story.done, ["freeze a"]);
    story.frozen(&life, true);
    story.hears(&["1: a frozen", "1: end"]);
    story.ask(2, Request::Freeze { targets: all() }, &[a]);
    story.hears(&["2: a already frozen", "2: end"]);
    // Of all, only those that are up are meant.
    story.ask_for(3, Request::Thaw { targets: all() }, &[a, b], true);
    story.hears(&[]);
    story.frozen(&life, false);
    story.hears(&["3: a thawed", "3: end"]);
}

#[test]
fn a_tree_that_does_not_come_to_a_stand_goes_on_and_the_answer_says_what_hangs() {
    let mut story = Story::default();
    let a = story.service("a");
    let life = story.up(a);
    story.world.trees.hanging.insert(life, "pid 7 (dd) in D state".to_owned());
    story.ask(1, Request::Freeze { targets: all() }, &[a]);
    story.after(Duration::from_secs(10));
    story.hears(&[
        "1: a [TimedOut] 'a' did not stand still within 10 s and goes on: pid 7 (dd) in D state",
        "1: end",
    ]);
    assert_eq!(story.done, ["freeze a", "let go a"]);
}

#[test]
fn who_waits_for_a_freeze_hears_that_the_service_has_ended() {
    let mut story = Story::default();
    let a = story.service("a");
    story.up(a);
    story.ask(1, Request::Freeze { targets: all() }, &[a]);
    story.ask(2, stop(), &[a]);
    assert!(
        story.heard[0].starts_with("1: a [Failed] 'a' is stopping and was not frozen"),
        "{:?}",
        story.heard
    );
}

#[test]
fn a_signal_goes_to_what_runs_and_lets_a_frozen_tree_go_on() {
    let mut story = Story::default();
    let [a, b] = story.services(["a", "b"]);
    let life = story.up(a);
    story.world.trees.frozen.insert(life);
    let kill = Request::Kill { targets: all(), signal: SignalName(Signal::USR1), tree: false };
    story.ask(1, kill, &[a, b]);
    story.hears(&["1: b [Failed] 'b' is not running", "1: a SIGUSR1 sent and thawed", "1: end"]);
    assert_eq!(story.done, ["SIGUSR1 to a"]);
}

/// `unregister` is answered when nothing is left, the log included. Others who wait for the service are told, too.
#[test]
fn unregister_is_answered_when_the_service_is_gone() {
    let mut story = Story::default();
    let [a, file] = story.services(["a", "web"]);
    story.up(a);
    let record = crate::store::RecordRow {
        registrant_uid: GATEWAY_UID,
        user: GATEWAY_UID.to_string(),
        program: crate::store::Program::Argv(vec!["sleep".to_owned()]),
        env: Default::default(),
        registered_at_ms: 0,
    };
    story.world.services.get_mut(&a).unwrap().record = Some(Box::new(record));
    story.ask(1, wait(Until::Ready), &[file]);
    story.ask(2, Request::Unregister { targets: all() }, &[a, file]);
    let heard = std::mem::take(&mut story.heard);
    assert!(
        heard.len() == 1 && heard[0].starts_with("2: web [Failed] 'web' was not registered"),
        "{heard:?}"
    );
    assert!(story.requests.is_busy());
    story.ask(3, wait(Until::Up), &[a]);
    let told = story.requests.retired(a, &story.world.view());
    story.act(told);
    story.hears(&["2: a unregistered", "2: end", "3: a [NoSuchService] 'a' was unregistered", "3: end"]);
}

/// An upgrade hands over those that do nothing but wait; a command has to come to its end first.
#[test]
fn only_those_that_wait_for_a_state_outlive_an_upgrade() {
    let mut story = Story::default();
    let a = story.service("a");
    story.slow.insert(a);
    story.ask(1, wait(Until::Up), &[a]);
    assert!(!story.requests.is_busy());
    let conn = ConnId { slot: 1, generation: 0 };
    let waits = Targeted { conn, ids: vec![a], until: Until::Up, deadline: None };
    assert_eq!(story.requests.targeted(), [waits]);
    story.ask(2, start(), &[a]);
    assert!(story.requests.is_busy());
    story.spawned(a);
    assert!(!story.requests.is_busy() && story.requests.targeted().is_empty());
}

#[test]
fn a_registration_whose_disk_does_not_answer_says_how_to_find_out() {
    let mut story = Story::default();
    let name = ServiceName::new("new").unwrap();
    let conn = ConnId { slot: 1, generation: 0 };
    let deadline = Some(story.world.now.after(Duration::from_secs(30)));
    let request = story.requests.open(conn, deadline);
    let ticket = story.requests.registration(request, name.clone());
    assert!(story.requests.registers(&name) && story.requests.is_busy());
    story.after(Duration::from_secs(30));
    assert_eq!(story.heard.len(), 2);
    assert!(story.heard[0].contains("'status' will tell whether it is registered"), "{:?}", story.heard);
    assert!(!story.requests.registers(&name));
    // It came to the disk after all.
    let late = story.requests.finish(ticket, Outcome::done("new", State::Down, None), &story.world.view());
    assert!(late.is_empty());
}

#[test]
fn the_record_names_who_asked_last() {
    let mut story = Story::default();
    let a = story.service("a");
    assert_eq!(story.requests.last_caller(a), None);
    story.ask(1, start(), &[a]);
    assert_eq!(story.requests.last_caller(a), Some(GATEWAY_UID));
    assert_eq!(story.world.fleet.gateway(a).unwrap().want(), Want::Up);
    assert_eq!(story.world.now, Tick(1_000_000), "nothing here takes time");
}
