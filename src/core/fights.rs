//! Services that end each other: each start of one is followed by the end of the other, over and over, and both come back.
//!
//! Two gateways that take over from each other do this for as long as both are restarted. An end counts as a blow of another
//! service's where that one started during the life that ended, shortly before its end, and still runs. Any other end of a
//! service is its own, and takes it out of every fight. So services that crash side by side do not fight: with both down at
//! once, neither ended the other.

use super::clock::Tick;
use super::fleet::ServiceId;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time between the start of one service and the end of the other that it counts for.
const SOON: Duration = Duration::from_secs(15);
/// So many blows in turn are a fight: each has ended the other twice.
const BLOWS: u32 = 4;
/// The longest time between two blows of a fight.
const PAUSE: Duration = Duration::from_secs(300);

/// One blow after the other between two services.
#[derive(Debug)]
struct Row {
    /// Whom the last blow ended.
    ended: ServiceId,
    at: Tick,
    blows: u32,
}

/// The rows of blows between any two services, by both, the smaller id first.
#[derive(Debug, Default)]
pub struct Fights {
    rows: BTreeMap<(ServiceId, ServiceId), Row>,
}

impl Fights {
    /// `id` ended although nobody had asked it to, after a life that began at `since`. `others`: the services that run, and
    /// since when. Returns the one that it fights with, once that is certain.
    pub fn ended(
        &mut self,
        id: ServiceId,
        since: Tick,
        others: impl IntoIterator<Item = (ServiceId, Tick)>,
        now: Tick,
    ) -> Option<ServiceId> {
        let came = |start: Tick| start > since && now.since(start) <= SOON;
        let by: Vec<ServiceId> = others
            .into_iter()
            .filter(|(other, start)| *other != id && came(*start))
            .map(|(other, _)| other)
            .collect();
        self.rows.retain(|(a, b), row| {
            let other = if *a == id { *b } else { *a };
            now.since(row.at) <= PAUSE && ((*a != id && *b != id) || by.contains(&other))
        });
        let mut opponent = None;
        for other in by {
            let pair = (id.min(other), id.max(other));
            let blows = self.rows.get(&pair).filter(|row| row.ended == other).map_or(0, |row| row.blows) + 1;
            self.rows.insert(pair, Row { ended: id, at: now, blows });
            if blows >= BLOWS {
                opponent = Some(other);
            }
        }
        if let Some(other) = opponent {
            self.rows.remove(&(id.min(other), id.max(other)));
        }
        opponent
    }

    /// A service is no more.
    pub fn forget(&mut self, id: ServiceId) {
        self.rows.retain(|(a, b), _| *a != id && *b != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ServiceId = ServiceId(1);
    const B: ServiceId = ServiceId(2);
    const C: ServiceId = ServiceId(3);

    /// Services that start and end at seconds; the outcome of each end.
    #[derive(Default)]
    struct Story {
        fights: Fights,
        up: BTreeMap<ServiceId, Tick>,
    }

    fn at(seconds: f64) -> Tick {
        Tick(1_000_000 + (seconds * 1000.0) as u64)
    }

    impl Story {
        fn starts(&mut self, id: ServiceId, seconds: f64) {
            self.up.insert(id, at(seconds));
        }

        fn ends(&mut self, id: ServiceId, seconds: f64) -> Option<ServiceId> {
            let since = self.up.remove(&id).expect("it runs");
            self.fights.ended(id, since, self.up.clone(), at(seconds))
        }
    }

    #[test]
    fn two_that_end_each_other_in_turn_fight() {
        let mut story = Story::default();
        story.starts(A, 0.0);
        story.starts(B, 60.0);
        assert_eq!(story.ends(A, 63.0), None);
        story.starts(A, 63.1);
        assert_eq!(story.ends(B, 66.0), None);
        story.starts(B, 67.0);
        assert_eq!(story.ends(A, 70.0), None);
        // The waits between tries grow.
        story.starts(A, 130.0);
        assert_eq!(story.ends(B, 134.0), Some(A));
        // It is said once, and begins anew.
        story.starts(B, 140.0);
        assert_eq!(story.ends(A, 144.0), None);
    }

    #[test]
    fn a_third_one_that_runs_all_the_while_has_nothing_to_do_with_it() {
        let mut story = Story::default();
        story.starts(C, 0.0);
        story.starts(A, 0.0);
        let mut found = Vec::new();
        for turn in 0..4 {
            let (comes, goes) = if turn % 2 == 0 { (B, A) } else { (A, B) };
            let start = 10.0 + f64::from(turn) * 5.0;
            story.starts(comes, start);
            found.push(story.ends(goes, start + 3.0));
        }
        assert_eq!(found, [None, None, None, Some(A)]);
        assert_eq!(story.ends(C, 40.0), None);
    }

    /// Both fail for a reason that they share, such as a network that is away.
    #[test]
    fn of_two_that_came_at_the_same_moment_neither_has_ended_the_other() {
        let mut story = Story::default();
        story.starts(A, 0.0);
        story.starts(B, 0.0);
        let mut found = vec![story.ends(A, 2.0)];
        for (comes, goes, start) in [(A, B, 3.0), (B, A, 6.0), (A, B, 9.0), (B, A, 12.0)] {
            story.starts(comes, start);
            found.push(story.ends(goes, start + 2.0));
        }
        assert_eq!(found, [None, None, None, None, Some(B)]);
    }

    /// Of the one that has the smaller number as of the other.
    #[test]
    fn an_end_of_its_own_takes_it_out_of_the_fight_and_nobody_elses_does() {
        for (own, other) in [(A, B), (B, A)] {
            let mut story = Story::default();
            story.starts(own, 0.0);
            for (comes, goes, start) in [(other, own, 5.0), (own, other, 10.0)] {
                story.starts(comes, start);
                assert_eq!(story.ends(goes, start + 2.0), None);
            }
            story.starts(C, 13.0);
            assert_eq!(story.ends(C, 14.0), None);
            assert_eq!(story.fights.rows.len(), 1, "of C");
            story.starts(other, 20.0);
            assert_eq!(story.ends(other, 22.0), None, "{own:?} was there before");
            assert!(story.fights.rows.is_empty(), "of {other:?}");
        }
    }

    /// Fifteen seconds are soon, and five minutes no pause.
    #[test]
    fn the_bounds_belong_to_the_fight() {
        let mut story = Story::default();
        story.starts(A, 0.0);
        let mut found = Vec::new();
        for (comes, goes, start, end) in
            [(B, A, 10.0, 25.0), (A, B, 310.0, 325.0), (B, A, 610.0, 625.0), (A, B, 910.0, 925.0)]
        {
            story.starts(comes, start);
            found.push(story.ends(goes, end));
        }
        assert_eq!(found, [None, None, None, Some(A)]);
    }

    #[test]
    fn two_that_crash_side_by_side_do_not_fight() {
        for (first, second) in [(2.0, 2.1), (8.0, 8.3), (3.0, 5.0), (1.0, 6.0)] {
            let mut story = Story::default();
            let mut next = BTreeMap::from([(A, (0.0, first, 0u32)), (B, (0.1, second, 0u32))]);
            story.starts(A, 0.0);
            story.starts(B, 0.1);
            for _ in 0..40 {
                // The earliest end or start of both; a restart waits 0, 1, 2, 4 … 60 s.
                let due =
                    |(start, life, _): &(f64, f64, u32), up: bool| if up { start + life } else { *start };
                let (id, when) = next
                    .iter()
                    .map(|(id, one)| (*id, due(one, story.up.contains_key(id))))
                    .min_by(|a, b| a.1.total_cmp(&b.1))
                    .expect("two");
                if story.up.contains_key(&id) {
                    assert_eq!(story.ends(id, when), None, "lives of {first} and {second} s, at {when}");
                    let one = next.get_mut(&id).expect("one of two");
                    one.0 =
                        when + if one.2 == 0 { 0.0 } else { f64::from(1u32 << (one.2 - 1).min(6)).min(60.0) };
                    one.2 += 1;
                } else {
                    story.starts(id, when);
                }
            }
        }
    }

    #[test]
    fn one_that_always_gives_way_does_not_fight() {
        let mut story = Story::default();
        story.starts(A, 0.0);
        for turn in 0..10 {
            let start = 10.0 + f64::from(turn) * 20.0;
            story.starts(B, start);
            assert_eq!(story.ends(A, start + 2.0), None, "{turn}");
            story.up.remove(&B);
            story.starts(A, start + 4.0);
        }
    }

    #[test]
    fn an_end_of_its_own_a_long_pause_or_a_late_end_begin_anew() {
        let mut story = Story::default();
        let mut time = 0.0;
        let mut blow = |story: &mut Story, comes, goes, wait: f64| {
            time += wait;
            story.starts(comes, time);
            time += 2.0;
            story.ends(goes, time)
        };
        story.starts(A, -10.0);
        for (comes, goes, wait) in [(B, A, 1.0), (A, B, 1.0), (B, A, 1.0)] {
            assert_eq!(blow(&mut story, comes, goes, wait), None);
        }
        assert_eq!(blow(&mut story, A, B, 299.0), None, "the last blow is over five minutes old");
        assert_eq!(blow(&mut story, B, A, 1.0), None);
        assert_eq!(blow(&mut story, A, B, 1.0), None);
        // B crashes by itself: A had been there before.
        story.starts(B, 330.0);
        assert_eq!(story.ends(A, 350.0), None, "too late to be its doing");
        assert!(story.fights.rows.is_empty());
        story.starts(A, 351.0);
        assert_eq!(story.ends(B, 353.0), None);
        story.fights.forget(C);
        assert_eq!(story.fights.rows.len(), 1, "it has nothing to do with it");
        story.fights.forget(A);
        assert!(story.fights.rows.is_empty());
    }
}
