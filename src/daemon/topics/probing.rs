//! Probes that are repeated: when the next one begins, that two of one service never overlap, that each has its time.
//!
//! What a service that is frozen does not answer counts for nothing, nor what a disk that hangs keeps back. Time in which we did
//! not run moves the end of a probe and the begin of the next.

use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::agenda::Agenda;
use crate::daemon::view::View;
use crate::definition::probes::Probe;
use crate::probe::Failure;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Which topic asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Ready,
    Health,
}

/// One probe of one life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    pub id: ServiceId,
    pub incarnation: Incarnation,
    pub purpose: Purpose,
    pub number: u32,
}

/// What became of a probe.
#[derive(Debug)]
pub struct Answer {
    pub ask: Ask,
    pub outcome: Outcome,
}

/// Yes, with the time of its last change if it was a file; or why not.
pub type Outcome = Result<Option<SystemTime>, Failure>;

/// How a service is asked.
#[derive(Debug, Clone)]
pub struct Manner {
    pub probe: Arc<Probe>,
    /// From the begin of one probe to the begin of the next.
    pub interval: Duration,
    /// Of one probe.
    pub timeout: Duration,
}

#[derive(Debug)]
struct Turn {
    incarnation: Incarnation,
    number: u32,
    /// When the probe that is under way began.
    began: Option<Tick>,
}

/// The probes of one topic.
#[derive(Debug)]
pub struct Probing {
    purpose: Purpose,
    turns: BTreeMap<ServiceId, Turn>,
    /// When the next probe begins, or the one under way is out of time.
    agenda: Agenda<ServiceId>,
}

impl Deadlines for Probing {
    fn next_deadline(&self) -> Option<Tick> {
        self.agenda.next()
    }

    fn postpone(&mut self, by: Duration) {
        self.agenda.postpone(by);
        self.turns.values_mut().filter_map(|turn| turn.began.as_mut()).for_each(|at| *at = at.after(by));
    }
}

impl Probing {
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, turns: BTreeMap::new(), agenda: Agenda::default() }
    }

    pub fn asks(&self, id: ServiceId, incarnation: Incarnation) -> bool {
        self.turns.get(&id).is_some_and(|turn| turn.incarnation == incarnation)
    }

    /// This life is asked from then on.
    pub fn begin(&mut self, id: ServiceId, incarnation: Incarnation, first: Tick) -> Actions {
        let actions = self.forget(id);
        self.turns.insert(id, Turn { incarnation, number: 0, began: None });
        self.agenda.set(id, first);
        actions
    }

    /// It is asked no more; what is under way is ended.
    pub fn forget(&mut self, id: ServiceId) -> Actions {
        let actions = self.cancel(id, None);
        self.turns.remove(&id);
        actions
    }

    /// What is under way counts for nothing; the next begins then, or when somebody says so.
    pub fn cancel(&mut self, id: ServiceId, next: Option<Tick>) -> Actions {
        let Some(turn) = self.turns.get_mut(&id) else { return Actions::new() };
        match next {
            Some(at) => self.agenda.set(id, at),
            None => self.agenda.remove(id),
        }
        let ask = Ask { id, incarnation: turn.incarnation, purpose: self.purpose, number: turn.number };
        turn.began.take().map(|_| Action::EndProbe(ask)).into_iter().collect()
    }

    /// Begins what is due, and ends what is out of time: those are returned.
    pub fn pass_time(
        &mut self,
        view: &View<'_>,
        manner: impl Fn(ServiceId) -> Option<Manner>,
    ) -> (Actions, Vec<Answer>) {
        let (mut actions, mut late) = (Actions::new(), Vec::new());
        while let Some(id) = self.agenda.take_due(view.now) {
            let (Some(turn), Some(manner)) = (self.turns.get_mut(&id), manner(id)) else {
                self.turns.remove(&id);
                continue;
            };
            let frozen = view.life(id).is_some_and(|life| view.trees.is_frozen(&life));
            let ask = |number| Ask { id, incarnation: turn.incarnation, purpose: self.purpose, number };
            if let Some(began) = turn.began.take() {
                let ask = ask(turn.number);
                actions.push(Action::EndProbe(ask));
                if !frozen {
                    late.push(Answer { ask, outcome: Err(Failure::TimedOut(manner.timeout)) });
                }
                self.agenda.set(id, next(began, manner.interval, view.now));
            } else if frozen {
                self.agenda.set(id, view.now.after(manner.interval));
            } else {
                turn.number = turn.number.wrapping_add(1);
                turn.began = Some(view.now);
                actions.push(Action::Probe(ask(turn.number), Arc::clone(&manner.probe)));
                // Of a disk that hangs there is an answer when it goes on.
                if !manner.probe.is_of_files() {
                    self.agenda.set(id, view.now.after(manner.timeout));
                }
            }
        }
        (actions, late)
    }

    /// Whether the answer is the one that is waited for; the next probe is arranged then.
    pub fn takes(&mut self, ask: Ask, interval: Duration, now: Tick) -> bool {
        let turn = self.turns.get_mut(&ask.id).filter(|turn| {
            (turn.incarnation, turn.number, self.purpose) == (ask.incarnation, ask.number, ask.purpose)
        });
        let Some(began) = turn.and_then(|turn| turn.began.take()) else { return false };
        self.agenda.set(ask.id, next(began, interval, now));
        true
    }
}

fn next(began: Tick, interval: Duration, now: Tick) -> Tick {
    began.after(interval).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::topics::testing::World;

    const SECOND: Duration = Duration::from_secs(1);

    fn manner(probe: Probe) -> Manner {
        Manner { probe: Arc::new(probe), interval: SECOND * 10, timeout: SECOND * 2 }
    }

    fn tcp() -> Manner {
        manner(Probe::Tcp("127.0.0.1:1".parse().unwrap()))
    }

    fn begun(actions: &Actions) -> Vec<u32> {
        let number = |action: &Action| match action {
            Action::Probe(ask, _) => Some(ask.number),
            _ => None,
        };
        actions.iter().filter_map(number).collect()
    }

    fn ended(actions: &Actions) -> usize {
        actions.iter().filter(|action| matches!(action, Action::EndProbe(_))).count()
    }

    #[test]
    fn probes_follow_each_other_in_their_interval_and_never_overlap() {
        let (mut world, mut probing) = (World::default(), Probing::new(Purpose::Health));
        let id = world.gateway("coder");
        let n = world.up(id, 77).n;
        let start = world.now;
        assert!(probing.begin(id, n, world.now).is_empty());
        let (actions, late) = probing.pass_time(&world.view(), |_| Some(tcp()));
        assert_eq!((begun(&actions), late.len()), (vec![1], 0));
        world.after(SECOND);
        assert!(begun(&probing.pass_time(&world.view(), |_| Some(tcp())).0).is_empty());
        world.after(SECOND);
        let (actions, late) = probing.pass_time(&world.view(), |_| Some(tcp()));
        assert_eq!((begun(&actions), ended(&actions), late.len()), (vec![], 1, 1), "it is out of time");
        assert_eq!(probing.next_deadline(), Some(start.after(SECOND * 10)));
        let ask = Ask { id, incarnation: n, purpose: Purpose::Health, number: 1 };
        assert!(!probing.takes(ask, SECOND * 10, world.now), "too late");
        world.after(SECOND * 8);
        assert_eq!(begun(&probing.pass_time(&world.view(), |_| Some(tcp())).0), [2]);
        let ask = Ask { number: 2, ..ask };
        assert!(!probing.takes(Ask { incarnation: n + 1, ..ask }, SECOND, world.now));
        assert!(probing.takes(ask, SECOND * 10, world.now));
        assert!(!probing.takes(ask, SECOND * 10, world.now), "once");
        assert_eq!(probing.next_deadline(), Some(start.after(SECOND * 20)));
    }

    #[test]
    fn a_frozen_service_is_not_asked_and_its_silence_counts_for_nothing() {
        let (mut world, mut probing) = (World::default(), Probing::new(Purpose::Health));
        let id = world.gateway("coder");
        let life = world.up(id, 77);
        probing.begin(id, life.n, world.now);
        assert_eq!(begun(&probing.pass_time(&world.view(), |_| Some(tcp())).0), [1]);
        world.trees.frozen.insert(life);
        world.after(SECOND * 2);
        let (actions, late) = probing.pass_time(&world.view(), |_| Some(tcp()));
        assert_eq!((ended(&actions), late.len()), (1, 0));
        world.after(SECOND * 8);
        assert!(probing.pass_time(&world.view(), |_| Some(tcp())).0.is_empty());
        world.trees.frozen.clear();
        world.after(SECOND * 10);
        assert_eq!(begun(&probing.pass_time(&world.view(), |_| Some(tcp())).0), [2]);
    }

    #[test]
    fn lost_time_is_nobodys_timeout_and_a_disk_has_all_the_time() {
        let (mut world, mut probing) = (World::default(), Probing::new(Purpose::Ready));
        let (id, on_disk) = (world.gateway("coder"), world.gateway("file"));
        for id in [id, on_disk] {
            let n = world.up(id, 77).n;
            probing.begin(id, n, world.now);
        }
        let file = manner(Probe::FileAge { path: "/x".into(), max_age: SECOND });
        let manner = |of: ServiceId| Some(if of == on_disk { file.clone() } else { tcp() });
        assert_eq!(begun(&probing.pass_time(&world.view(), manner).0), [1, 1]);
        world.after(SECOND * 3600);
        probing.postpone(SECOND * 3600);
        assert!(probing.pass_time(&world.view(), manner).1.is_empty());
        world.after(SECOND * 2);
        let (_, late) = probing.pass_time(&world.view(), manner);
        assert_eq!(late.iter().map(|answer| answer.ask.id).collect::<Vec<_>>(), [id]);
    }
}
