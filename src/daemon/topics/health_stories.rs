//! Stories of services whose health is checked.

use super::*;
use crate::daemon::topics::probing::{Ask, Outcome};
use crate::daemon::topics::testing::World;
use std::io;
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);

struct Story {
    world: World,
    health: Health,
    id: ServiceId,
    life: IncarnationId,
    done: Actions,
}

impl Story {
    fn new(check: Check, action: Remedy) -> Self {
        let mut world = World::default();
        let id = world.gateway("coder");
        if let Some(service) = world.services.get_mut(&id) {
            service.definition.health = Some(Box::new(Definition {
                check,
                interval: SECOND * 10,
                timeout: SECOND * 2,
                failures: 2,
                start_period: Duration::ZERO,
                action,
            }));
        }
        let life = world.up(id, 77);
        let mut story = Self { world, health: Health::default(), id, life, done: Actions::new() };
        story.done = story.health.changed(id, &story.world.view());
        story
    }

    fn tcp(action: Remedy) -> Self {
        Self::new(Check::Probe(Arc::new(Probe::Tcp("127.0.0.1:1".parse().unwrap()))), action)
    }

    fn file() -> Self {
        let probe = Probe::FileAge { path: "/x".into(), max_age: SECOND * 25 };
        Self::new(Check::Probe(Arc::new(probe)), Remedy::Restart)
    }

    /// Time passes until the next thing is due, and what is due is done; the probe that begins, if one does.
    fn next(&mut self) -> Option<Ask> {
        let at = self.health.next_deadline().expect("something is due");
        self.world.now = self.world.now.max(at);
        self.done = self.health.pass_time(&self.world.view());
        self.done.iter().find_map(|action| match action {
            Action::Probe(ask, _) => Some(*ask),
            _ => None,
        })
    }

    fn says(&mut self, outcome: Outcome) {
        let ask = loop {
            if let Some(ask) = self.next() {
                break ask;
            }
        };
        self.done = self.health.answered(Answer { ask, outcome }, &self.world.view());
    }

    fn refuses(&mut self) {
        self.says(Err(Failure::Io(io::ErrorKind::ConnectionRefused.into())));
    }

    fn state(&self) -> (HealthState, u32) {
        let checked = self.health.of(self.id).expect("it is checked");
        (checked.state, checked.failures)
    }

    fn restarts(&self) -> Option<String> {
        self.done.iter().find_map(|action| match action {
            Action::Core(_, Event::Unhealthy { incarnation, reason }) if *incarnation == self.life.n => {
                Some(reason.clone())
            }
            _ => None,
        })
    }

    fn freezes(&self) -> bool {
        self.done.iter().any(|action| matches!(action, Action::Quarantine(_, life) if *life == self.life))
    }

    /// What the log says; an event is a line of it, too.
    fn told(&self) -> Vec<String> {
        let text = |action: &Action| match action {
            Action::Log(_, text) => Some(text.clone()),
            Action::Tell(event) => Some(event.to_string()),
            _ => None,
        };
        self.done.iter().filter_map(text).collect()
    }
}

#[test]
fn so_many_failures_in_a_row_end_it_with_the_reason() {
    let mut story = Story::tcp(Remedy::Restart);
    assert_eq!(story.state(), (HealthState::Starting, 0));
    story.says(Ok(None));
    assert_eq!(story.state(), (HealthState::Healthy, 0));
    story.refuses();
    assert_eq!((story.state(), story.restarts()), ((HealthState::Healthy, 1), None));
    story.says(Ok(None));
    story.refuses();
    assert_eq!((story.state(), story.restarts()), ((HealthState::Healthy, 1), None), "not in a row");
    story.refuses();
    let reason = "unhealthy: tcp probe of 127.0.0.1:1: connection refused";
    assert_eq!(story.restarts().as_deref(), Some(reason));
    assert_eq!(story.state(), (HealthState::Unhealthy, 2));
}

#[test]
fn a_server_that_hangs_is_found_within_two_intervals() {
    let mut story = Story::tcp(Remedy::Restart);
    story.says(Ok(None));
    let hangs_since = story.world.now;
    while story.restarts().is_none() {
        story.next();
    }
    assert!(story.world.now.since(hangs_since) <= SECOND * 22, "{:?}", story.world.now.since(hangs_since));
    assert_eq!(story.restarts().unwrap(), "unhealthy: tcp probe of 127.0.0.1:1: no answer within 2s");
}

#[test]
fn failures_of_the_start_do_not_count_until_it_was_well_once() {
    let mut story = Story::tcp(Remedy::Restart);
    if let Some(health) =
        story.world.services.get_mut(&story.id).and_then(|service| service.definition.health.as_mut())
    {
        health.start_period = SECOND * 60;
    }
    story.health.forget(story.id, &story.world.view());
    story.health.changed(story.id, &story.world.view());
    for _ in 0..5 {
        story.refuses();
    }
    assert_eq!((story.state(), story.restarts()), ((HealthState::Starting, 0), None));
    story.says(Ok(None));
    story.refuses();
    story.refuses();
    assert!(story.restarts().is_some(), "the first success ends the start period");
}

#[test]
fn what_is_only_marked_is_told_once_and_again_when_it_is_well() {
    let mut story = Story::tcp(Remedy::Mark);
    story.refuses();
    story.refuses();
    let line = "coder: unhealthy: tcp probe of 127.0.0.1:1: connection refused; it is left as it is";
    assert_eq!((story.told(), story.restarts()), (vec![line.to_owned()], None));
    story.refuses();
    assert!(story.told().is_empty());
    story.says(Ok(None));
    assert_eq!(story.told(), ["coder: healthy again"]);
}

#[test]
fn in_quarantine_nothing_is_asked_until_it_is_thawed_and_then_it_begins_anew() {
    let mut story = Story::tcp(Remedy::Quarantine);
    story.refuses();
    story.refuses();
    assert!(story.freezes() && story.restarts().is_none());
    assert_eq!(story.health.next_deadline(), None);
    story.world.trees.frozen.insert(story.life.clone());
    story.health.frozen(story.id, true, &story.world.view());
    let lines = vec!["process 77 (S): sh".to_owned()];
    story.done = story.health.snapshot(story.id, story.life.n, lines.clone(), &story.world.view());
    assert_eq!(story.told(), ["coder: process 77 (S): sh"]);
    assert_eq!(story.health.of(story.id).unwrap().quarantine, Some(lines));
    story.world.trees.frozen.clear();
    story.health.frozen(story.id, false, &story.world.view());
    assert_eq!(story.state(), (HealthState::Starting, 0));
    assert!(story.health.of(story.id).unwrap().quarantine.is_none());
    story.says(Ok(None));
    assert_eq!(story.state(), (HealthState::Healthy, 0));
}

#[test]
fn what_could_not_be_asked_says_nothing_of_the_service_and_is_told_once() {
    let mut story = Story::tcp(Remedy::Restart);
    for n in 0..5 {
        story.says(Err(Failure::NotAsked("too many open files".to_owned())));
        assert_eq!(story.told().len(), usize::from(n == 0));
    }
    assert_eq!(story.state(), (HealthState::Starting, 0));
}

/// The container was paused for longer than all timeouts.
#[test]
fn lost_time_restarts_nothing() {
    let mut story = Story::tcp(Remedy::Restart);
    story.says(Ok(None));
    assert!(story.next().is_some());
    story.world.after(SECOND * 3600);
    story.health.postpone(SECOND * 3600);
    story.done = story.health.pass_time(&story.world.view());
    assert!(story.done.is_empty(), "{:?}", story.done);
    assert_eq!(story.state(), (HealthState::Healthy, 0));
}

#[test]
fn a_file_is_as_old_as_it_was_seen_unchanged_whatever_the_clock_says() {
    let mut story = Story::file();
    let old = SystemTime::UNIX_EPOCH;
    story.says(Ok(Some(old)));
    assert_eq!(story.state(), (HealthState::Healthy, 0), "it may be of an earlier life");
    story.says(Ok(Some(old)));
    story.says(Ok(Some(old)));
    assert_eq!(story.state(), (HealthState::Healthy, 0));
    story.says(Ok(Some(old)));
    assert_eq!(story.state(), (HealthState::Healthy, 1));
    story.says(Ok(Some(old + SECOND)));
    assert_eq!(story.state(), (HealthState::Healthy, 0));
    for _ in 0..4 {
        story.says(Ok(Some(old + SECOND)));
    }
    assert_eq!(story.restarts().as_deref(), Some("unhealthy: file-age probe of /x: not written for 40s"));
}

#[test]
fn a_loop_that_hangs_at_any_moment_is_found_by_the_second_question() {
    for phase in 0..20 {
        let probe = Probe::FileAge { path: "/x".into(), max_age: SECOND * 9 };
        let mut story = Story::new(Check::Probe(Arc::new(probe)), Remedy::Restart);
        if let Some(service) = story.world.services.get_mut(&story.id) {
            service.definition.health.as_mut().expect("it has one").failures = 1;
        }
        story.says(Ok(Some(SystemTime::UNIX_EPOCH)));
        let hangs = story.world.now.after(SECOND * 10 * phase / 20);
        let last = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::from(phase));
        while story.restarts().is_none() {
            story.says(Ok(Some(last)));
        }
        assert!(story.world.now.since(hangs) <= SECOND * 20, "{phase}: {:?}", story.world.now.since(hangs));
    }
}

#[test]
fn silence_for_too_long_is_an_illness_and_a_sign_of_life_is_not() {
    let mut story = Story::new(Check::Watchdog, Remedy::Restart);
    if let Some(health) =
        story.world.services.get_mut(&story.id).and_then(|service| service.definition.health.as_mut())
    {
        health.failures = 1;
    }
    let alive = Message::parse(b"WATCHDOG=1");
    for _ in 0..5 {
        story.world.after(SECOND);
        story.done = story.health.notified(story.id, story.life.n, &alive, &story.world.view());
        assert!(story.health.pass_time(&story.world.view()).is_empty());
    }
    assert_eq!(story.state(), (HealthState::Healthy, 0));
    story.health.notified(
        story.id,
        story.life.n + 1,
        &Message::parse(b"WATCHDOG=trigger"),
        &story.world.view(),
    );
    assert_eq!(story.state(), (HealthState::Healthy, 0), "of another life");
    story.next();
    assert_eq!(story.restarts().as_deref(), Some("unhealthy: watchdog: no WATCHDOG=1 for 2s"));
}

#[test]
fn a_life_that_ends_is_checked_no_more() {
    let mut story = Story::tcp(Remedy::Restart);
    assert!(story.next().is_some());
    story.world.step(
        story.id,
        Event::MainExited { incarnation: story.life.n, exit: crate::core::exit::Exit::Code(1) },
    );
    story.done = story.health.changed(story.id, &story.world.view());
    assert!(matches!(story.done[..], [Action::EndProbe(_)]), "{:?}", story.done);
    assert!(story.health.of(story.id).is_none());
    assert_eq!(story.health.next_deadline(), None);
}
