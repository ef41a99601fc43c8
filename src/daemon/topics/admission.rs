//! How many starts may be under way at a time: the number that somebody gave, or as many as the machine takes.
//!
//! `auto` begins with a start for each processor and looks at the pressure (PSI, kernel 4.20) as long as services wait for their
//! turn: how much of the time since the last look something here waited for a processor or for memory. Where the kernel does not
//! tell, it stays with the processors. A start a processor is always under way unless memory is short: starts that share one take
//! no less time in turn, and one that waits for a file leaves its processor idle. And one is, whatever happens: a machine that is
//! busy with something else delays a boot and does not stop it.

use crate::core::clock::Tick;
use crate::core::fleet::{Fleet, ParallelStarts};
use crate::daemon::act::{Action, Actions};
use crate::daemon::view::View;
use std::time::Duration;

/// Between two looks.
const BEAT: Duration = Duration::from_millis(500);
/// Of the time, in hundredths: with less waiting for processors there is room for one more.
const CPU_LOW: u128 = 30;
/// With more there is one too many, if there are more than processors.
const CPU_HIGH: u128 = 60;
/// With more waiting for memory, starts go one by one.
const MEMORY_HIGH: u128 = 10;
/// As many for a processor at most, whatever they wait for.
const MOST: usize = 4;

/// For how long something has waited, since the kernel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    pub cpu: Duration,
    pub memory: Duration,
}

#[derive(Debug, Default)]
pub struct Admission {
    choice: ParallelStarts,
    processors: usize,
    places: usize,
    last: Option<(Tick, Stalled)>,
    next: Option<Tick>,
}

impl Admission {
    /// `processors`: that may be used here.
    pub fn new(choice: ParallelStarts, processors: usize) -> Self {
        Self { choice, processors, places: processors, ..Self::default() }
    }

    /// How many starts may be under way; `None`: any number.
    pub fn places(&self) -> Option<usize> {
        match self.choice {
            ParallelStarts::Any => None,
            ParallelStarts::AtMost(most) => Some(most as usize),
            ParallelStarts::Auto => Some(self.places.max(1)),
        }
    }

    /// When the pressure is to be looked at.
    pub fn next_tick(&self) -> Option<Tick> {
        self.next
    }

    /// The pressure is to be looked at now.
    pub fn is_due(&mut self, fleet: &Fleet, now: Tick) -> bool {
        if self.choice != ParallelStarts::Auto || !fleet.has_turns() {
            (self.last, self.next) = (None, None);
            return false;
        }
        self.next.is_none_or(|at| at <= now)
    }

    /// It was looked at; `None`: the kernel does not tell.
    pub fn looked(&mut self, stalled: Option<Stalled>, view: &View<'_>) -> Actions {
        self.next = Some(view.now.after(BEAT));
        let last = std::mem::replace(&mut self.last, stalled.map(|stalled| (view.now, stalled)));
        let places = match (stalled, last) {
            (None, _) => self.processors,
            (Some(_), None) => self.places,
            (Some(now), Some((at, before))) => {
                let time = view.now.since(at);
                let cpu = hundredths(now.cpu.saturating_sub(before.cpu), time);
                let memory = hundredths(now.memory.saturating_sub(before.memory), time);
                if memory >= MEMORY_HIGH {
                    1
                } else if cpu >= CPU_HIGH {
                    self.places.saturating_sub(1).max(self.processors.min(self.places))
                } else if cpu < CPU_LOW && view.fleet.is_full() {
                    (self.places + 1).min(self.processors.max(1) * MOST)
                } else {
                    self.places
                }
            }
        };
        let places = places.max(1);
        let changed = std::mem::replace(&mut self.places, places) != places;
        if changed { vec![Action::Places(places)] } else { Actions::new() }
    }
}

fn hundredths(part: Duration, whole: Duration) -> u128 {
    (part.as_micros() * 100).checked_div(whole.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Event;
    use crate::core::gateway::Restored;
    use crate::core::words::Want;
    use crate::daemon::topics::testing::World;
    use std::collections::BTreeMap;

    struct Story {
        world: World,
        admission: Admission,
        stalled: Stalled,
    }

    impl Story {
        /// Ten gateways that wait for their turns, on two processors.
        fn new(choice: ParallelStarts) -> Self {
            let mut world = World::default();
            let admission = Admission::new(choice, 2);
            world.fleet.limit_starts(admission.places());
            let ids: Vec<_> = (0..10).map(|n| world.gateway(&format!("g{n}"))).collect();
            let up = |id: &_| (*id, Restored::at_rest(Want::Up, true));
            let restored: BTreeMap<_, _> = ids.iter().map(up).collect();
            let _ = world.fleet.boot(restored, world.now);
            let _ = world.fleet.pass_time(world.now);
            let stalled = Stalled { cpu: Duration::from_secs(7), memory: Duration::ZERO };
            Self { world, admission, stalled }
        }

        /// Half a second later, in which so many hundredths of the time something waited.
        fn beat(&mut self, cpu: u32, memory: u32) -> usize {
            self.world.now = self.world.now.after(BEAT);
            self.stalled.cpu += BEAT * cpu / 100;
            self.stalled.memory += BEAT * memory / 100;
            let stalled = self.stalled;
            self.look(Some(stalled))
        }

        fn look(&mut self, stalled: Option<Stalled>) -> usize {
            assert!(self.admission.is_due(&self.world.fleet, self.world.now));
            for action in self.admission.looked(stalled, &self.world.view()) {
                let Action::Places(places) = action else { panic!("{action:?}") };
                self.world.fleet.limit_starts(Some(places));
                let _ = self.world.fleet.pass_time(self.world.now);
            }
            self.admission.places().unwrap()
        }
    }

    #[test]
    fn starts_become_more_while_processors_are_free_and_fewer_when_there_are_too_many() {
        let mut story = Story::new(ParallelStarts::Auto);
        let first = Some(story.stalled);
        assert_eq!(story.look(first), 2, "one a processor, and the first look only begins to count");
        assert!(!story.admission.is_due(&story.world.fleet, story.world.now), "looked at twice");
        assert_eq!([10, 10, 40, 40, 90, 90, 90, 90].map(|cpu| story.beat(cpu, 0)), [3, 4, 4, 4, 3, 2, 2, 2]);
        assert_eq!([0, 0, 0].map(|cpu| story.beat(cpu, 0)), [3, 4, 5]);
        assert_eq!(story.beat(0, 15), 1, "memory is short");
        assert_eq!(story.beat(90, 0), 1, "and processors are no more than before");
        let many: Vec<usize> = (0..10).map(|_| story.beat(0, 0)).collect();
        assert_eq!(many.last(), Some(&8), "four a processor at most");
    }

    #[test]
    fn there_is_not_one_more_while_places_are_free() {
        let mut story = Story::new(ParallelStarts::Auto);
        let first = Some(story.stalled);
        story.look(first);
        for id in story.world.fleet.ids().take(9).collect::<Vec<_>>() {
            let _ = story.world.fleet.hold(id, "held".to_owned(), story.world.now);
        }
        let full = story.world.fleet.is_full();
        assert_eq!((full, story.beat(0, 0)), (false, 2));
    }

    #[test]
    fn where_the_kernel_does_not_tell_it_is_one_a_processor() {
        let mut story = Story::new(ParallelStarts::Auto);
        assert_eq!(story.look(None), 2);
        story.world.now = story.world.now.after(BEAT);
        let first = Some(story.stalled);
        story.look(first);
        assert_eq!(story.beat(0, 0), 3);
        story.world.now = story.world.now.after(BEAT);
        assert_eq!(story.look(None), 2);
    }

    #[test]
    fn nobody_looks_where_a_number_was_given_or_nobody_waits() {
        let mut story = Story::new(ParallelStarts::AtMost(3));
        assert_eq!(story.admission.places(), Some(3));
        assert!(!story.admission.is_due(&story.world.fleet, story.world.now));
        let mut story = Story::new(ParallelStarts::Any);
        assert!(!story.admission.is_due(&story.world.fleet, story.world.now));
        assert_eq!((story.admission.places(), story.world.fleet.has_turns()), (None, false));
        let mut story = Story::new(ParallelStarts::Auto);
        let first = Some(story.stalled);
        story.look(first);
        assert_eq!(story.admission.next_tick(), Some(story.world.now.after(BEAT)));
        for id in story.world.fleet.ids().collect::<Vec<_>>() {
            let _ =
                story.world.fleet.step(id, Event::Shutdown { deadline: story.world.now }, story.world.now);
        }
        assert!(!story.admission.is_due(&story.world.fleet, story.world.now.after(BEAT)));
        assert_eq!(story.admission.next_tick(), None);
    }
}
