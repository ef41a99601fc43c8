//! Stories of services that have yet to say that they are ready.

use super::*;
use crate::core::policy::Policy;
use crate::daemon::topics::testing::World;

/// A gateway that runs and has yet to say that it is ready.
fn awaited(world: &mut World) -> (ServiceId, Incarnation) {
    let id = world.gateway("coder");
    if let Some(service) = world.services.get_mut(&id) {
        service.definition.ready = Ready::GatewayState;
    }
    let policy = Policy { ready: Some(Duration::from_secs(60)), ..Policy::default() };
    world.fleet.redefine(id, policy.into(), Vec::new(), Vec::new(), world.now);
    let life = world.up(id, 77);
    (id, life.n)
}

fn says(id: ServiceId, incarnation: Incarnation, running: io::Result<bool>) -> Seen {
    Seen { id, incarnation, watch: None, running }
}

fn reported(actions: &Actions) -> Option<Incarnation> {
    actions.iter().find_map(|action| match action {
        Action::Core(_, Event::ReadyReported { incarnation }) => Some(*incarnation),
        _ => None,
    })
}

fn looks(actions: &Actions) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Files(_))).count()
}

#[test]
fn a_gateway_is_looked_at_once_and_again_whenever_its_file_changes_until_it_says_that_it_runs() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let (id, n) = awaited(&mut world);
    assert_eq!(looks(&readiness.changed(id, &world.view())), 1);
    assert_eq!(looks(&readiness.changed(id, &world.view())), 0, "it is being looked at");
    assert_eq!(reported(&readiness.seen(says(id, n, Ok(false)), &world.view())), None);
    assert_eq!(looks(&readiness.heard(id, n, Heard::FileChanged, &world.view())), 1);
    let ready = readiness.seen(says(id, n, Ok(true)), &world.view());
    assert_eq!(reported(&ready), Some(n));
    assert!(matches!(ready[0], Action::StopListening(of) if of == id));
    assert!(readiness.seen(says(id, n, Ok(true)), &world.view()).is_empty(), "it is said once");
}

#[test]
fn what_is_seen_of_another_life_counts_for_nothing() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let (id, n) = awaited(&mut world);
    readiness.changed(id, &world.view());
    assert!(readiness.seen(says(id, n + 1, Ok(true)), &world.view()).is_empty());
    readiness.forget(id, &world.view());
    assert!(readiness.seen(says(id, n, Ok(true)), &world.view()).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_looked_at_again() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let (id, n) = awaited(&mut world);
    readiness.changed(id, &world.view());
    let told = readiness.seen(says(id, n, Err(io::Error::other("permission denied"))), &world.view());
    assert!(matches!(&told[0], Action::Log(_, text) if text.ends_with("permission denied")), "{told:?}");
    assert_eq!(looks(&readiness.heard(id, n, Heard::FileChanged, &world.view())), 1);
}

#[test]
fn a_line_on_the_pipe_is_the_report_and_its_end_is_not() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let id = world.gateway("coder");
    let life = world.up(id, 77);
    let closed = readiness.heard(id, life.n, Heard::Closed, &world.view());
    assert_eq!((reported(&closed), closed.len()), (None, 1));
    assert_eq!(reported(&readiness.heard(id, life.n, Heard::Line, &world.view())), Some(life.n));
    assert!(readiness.changed(id, &world.view()).is_empty(), "it has no state file to look at");
}

/// A service that runs, has yet to say that it is ready, and says so like this.
fn that_says_so_by(world: &mut World, ready: Ready) -> (ServiceId, Incarnation) {
    let (id, n) = awaited(world);
    if let Some(service) = world.services.get_mut(&id) {
        service.definition.ready = ready;
    }
    (id, n)
}

#[test]
fn a_service_is_asked_again_and_again_until_it_answers() {
    use crate::definition::probes::{Asked, Probe};
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let probe = Arc::new(Probe::Tcp("127.0.0.1:6379".parse().unwrap()));
    let interval = Duration::from_millis(500);
    let (id, n) = that_says_so_by(&mut world, Ready::Probe(Asked { probe, interval }));
    assert!(readiness.changed(id, &world.view()).is_empty());
    let mut last = None;
    for number in 1..=3 {
        assert_eq!(readiness.next_deadline(), Some(world.now));
        let begun = readiness.pass_time(&world.view());
        let [Action::Probe(ask, _)] = &begun[..] else { panic!("{begun:?}") };
        assert_eq!((ask.incarnation, ask.number), (n, number));
        last = Some(*ask);
        if number < 3 {
            let outcome = Err(crate::probe::Failure::Io(io::ErrorKind::ConnectionRefused.into()));
            assert!(readiness.answered(Answer { ask: *ask, outcome }, &world.view()).is_empty());
            let words: Vec<_> = readiness.words(id).collect();
            assert_eq!(words, ["not ready: tcp probe of 127.0.0.1:6379: connection refused"]);
            world.after(interval);
        }
    }
    let answer = Answer { ask: last.unwrap(), outcome: Ok(None) };
    assert_eq!(reported(&readiness.answered(answer, &world.view())), Some(n));
    assert_eq!((readiness.next_deadline(), readiness.words(id).count()), (None, 0));
}

#[test]
fn what_it_says_on_its_notify_socket_is_heard_for_its_whole_life() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let (id, n) = that_says_so_by(&mut world, Ready::Notify);
    let begun = readiness.changed(id, &world.view());
    assert!(matches!(begun[..], [Action::ListenToNotify(of, life)] if (of, life) == (id, n)), "{begun:?}");
    assert!(readiness.changed(id, &world.view()).is_empty(), "once");
    let mut says =
        |text: &[u8], world: &World| readiness.notified(id, n, &Message::parse(text), &world.view());
    let extended = says(b"EXTEND_TIMEOUT_USEC=5000000\nSTATUS=loading", &world);
    assert!(
        matches!(&extended[..], [Action::Core(_, Event::Extended { by, .. })] if *by == Duration::from_secs(5))
    );
    let ready = says(b"READY=1\nMAINPID=4711\nFDSTORE=1", &world);
    assert_eq!(reported(&ready), Some(n));
    assert!(!ready.iter().any(|action| matches!(action, Action::StopListening(_))));
    let refused = |actions: &Actions| {
        actions
            .iter()
            .filter(|action| matches!(action, Action::Log(_, text) if text.contains("not taken")))
            .count()
    };
    assert_eq!(refused(&ready), 2);
    assert_eq!(refused(&says(b"MAINPID=4711\nFDSTORE=1", &world)), 0, "said once");
    assert_eq!(refused(&says(b"MAINPID=77", &world)), 0, "it is the main process");
    assert_eq!(readiness.words(id).collect::<Vec<_>>(), ["loading"]);
}

#[test]
fn a_line_of_its_log_is_the_report_where_that_is_asked_for() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let (id, n) = that_says_so_by(
        &mut world,
        Ready::Log(crate::definition::resolved::Pattern(regex_lite::Regex::new("ready").unwrap().into())),
    );
    let begun = readiness.changed(id, &world.view());
    assert!(matches!(begun[..], [Action::WatchLog(of, life, _)] if (of, life) == (id, n)), "{begun:?}");
    assert_eq!(reported(&readiness.matched(id, n, &world.view())), Some(n));
    let other = world.gateway("other");
    assert!(readiness.matched(other, 1, &world.view()).is_empty());
}

/// It was armed a second time when the service ran, and stayed so for the whole life where the line had come before.
#[test]
fn a_log_that_is_watched_since_the_start_is_not_watched_again() {
    let (mut world, mut readiness) = (World::default(), Readiness::default());
    let pattern = crate::definition::resolved::Pattern(regex_lite::Regex::new("ready").unwrap().into());
    let (id, n) = that_says_so_by(&mut world, Ready::Log(pattern));
    readiness.watches(id, n);
    assert!(readiness.changed(id, &world.view()).is_empty());
    assert_eq!(reported(&readiness.matched(id, n, &world.view())), Some(n));
}
