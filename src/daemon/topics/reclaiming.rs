//! `reclaim_after` of `[memory]`: once in each life, when what a start needs once is done with, the kernel takes back what the
//! service does not use.

use crate::core::clock::Tick;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::agenda::Agenda;
use crate::daemon::view::View;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Reclaiming {
    due: Agenda<ServiceId>,
    /// The lives for which a time was set.
    known: BTreeMap<ServiceId, Incarnation>,
}

impl Deadlines for Reclaiming {
    fn next_deadline(&self) -> Option<Tick> {
        self.due.next()
    }

    fn postpone(&mut self, by: Duration) {
        self.due.postpone(by);
    }
}

impl Reclaiming {
    /// A service is in another state.
    pub fn changed(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let after = view.service(id).and_then(|service| service.definition.memory.reclaim_after);
        let Some((after, gateway)) = after.zip(view.fleet.gateway(id)) else { return Actions::new() };
        if gateway.phase() != Phase::Up {
            self.due.remove(id);
        } else if !gateway.awaits_ready() {
            let life = gateway.history().incarnation;
            let at = gateway.ready_since().unwrap_or(gateway.since()).after(after);
            // Of a life that an earlier supervisor began, it may have been long ago.
            if self.known.insert(id, life) != Some(life) && at > view.now {
                self.due.set(id, at);
            }
        }
        Actions::new()
    }

    pub fn forget(&mut self, id: ServiceId) {
        self.due.remove(id);
        self.known.remove(&id);
    }

    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        let due = std::iter::from_fn(|| self.due.take_due(view.now));
        due.filter_map(|id| view.life(id)).map(Action::Reclaim).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{Command, Event, Ticket};
    use crate::daemon::topics::testing::World;
    use std::sync::Arc;

    const AFTER: Duration = Duration::from_secs(30);

    struct Story {
        world: World,
        id: ServiceId,
        reclaiming: Reclaiming,
    }

    impl Story {
        fn new(reports: bool) -> Self {
            let mut world = World::default();
            let id = world.gateway("coder");
            let service = world.services.get_mut(&id).unwrap();
            service.definition.memory.reclaim_after = Some(AFTER);
            let mut policy = (*service.definition.policy).clone();
            policy.ready = reports.then_some(Duration::from_secs(60));
            let _ = world.fleet.redefine(id, Arc::new(policy), Vec::new(), Vec::new(), world.now);
            let mut story = Self { world, id, reclaiming: Reclaiming::default() };
            story.step(Event::Command { ticket: Ticket(1), command: Command::Start { force: false } });
            story.step(Event::Recorded { seq: 1 });
            story.step(Event::Spawned { incarnation: 1, pid: 7 });
            story
        }

        fn step(&mut self, event: Event) {
            let _ = self.world.fleet.step(self.id, event, self.world.now);
            assert!(self.reclaiming.changed(self.id, &self.world.view()).is_empty());
        }

        /// For how many lives it is time then.
        fn wait(&mut self, time: Duration) -> usize {
            self.world.now = self.world.now.after(time);
            let actions = self.reclaiming.pass_time(&self.world.view());
            assert!(actions.iter().all(|action| matches!(action, Action::Reclaim(life) if life.n == 1)));
            actions.len()
        }
    }

    #[test]
    fn it_is_once_in_a_life_from_when_the_service_can_be_used() {
        let mut story = Story::new(true);
        assert_eq!((story.reclaiming.next_deadline(), story.wait(AFTER)), (None, 0), "it is not ready yet");
        story.step(Event::ReadyReported { incarnation: 1 });
        assert_eq!(story.wait(AFTER - Duration::from_secs(1)), 0);
        story.reclaiming.postpone(Duration::from_secs(5));
        assert_eq!([1, 5].map(|seconds| story.wait(Duration::from_secs(seconds))), [0, 1]);
        story.step(Event::Time);
        assert_eq!(story.wait(AFTER), 0);
    }

    #[test]
    fn one_that_ends_before_is_left_alone() {
        let mut story = Story::new(false);
        assert!(story.reclaiming.next_deadline().is_some());
        story.step(Event::Command { ticket: Ticket(2), command: Command::Stop });
        story.step(Event::Recorded { seq: 2 });
        assert_eq!((story.reclaiming.next_deadline(), story.wait(AFTER)), (None, 0));
        let mut story = Story::new(false);
        story.reclaiming.forget(story.id);
        assert_eq!(story.wait(AFTER), 0);
    }
}
