//! When one service runs next.
//!
//! A line of crontab(5) goes by the wall clock, which everybody sees and somebody may set; an interval by the supervisor's own, which
//! nobody can. A run that nobody could begin in its time is not made up, but for [`LATE`].

use crate::core::clock::Tick;
use crate::core::schedule::{Cron, Schedule, Zone};
use std::sync::Arc;
use std::time::Duration;

/// A run that is noticed later than this does not take place: the machine slept, or there was no supervisor.
pub const LATE: Duration = Duration::from_secs(60);
/// A wall clock that is set back by less than this runs nothing a second time, as cron(8) has it.
const SET_BACK: i64 = 3 * 60 * 60;

/// What the clocks say.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    pub tick: Tick,
    /// Unix time in seconds.
    pub wall: i64,
    pub zone: &'a dyn Zone,
}

/// A moment on one of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Tick(Tick),
    /// Unix time in seconds.
    Wall(i64),
}

#[derive(Debug)]
pub struct Plan {
    schedule: Arc<Schedule>,
    /// `None`: the calendar has no such day any more.
    next: Option<Moment>,
    /// From when the interval counts.
    from: Tick,
    /// The last time of the line that has passed.
    passed: Option<i64>,
}

impl Plan {
    /// `started`: when the last run began, if one did. `resumed`: it was planned by the supervisor before us, so what became due a
    /// moment ago is still to run.
    pub fn new(schedule: Arc<Schedule>, started: Option<Tick>, resumed: bool, now: Now<'_>) -> Self {
        // A start in the future is one before the clock was set back.
        let started = started.map(|at| at.min(now.tick));
        let late = if resumed && started.is_some() { LATE } else { Duration::ZERO };
        let from = started.unwrap_or(now.tick);
        let next = match &*schedule {
            Schedule::Every(interval) => {
                let after = Tick(now.tick.0.saturating_sub(millis(late)));
                Some(Moment::Tick(on_the_beat(from, *interval, after)))
            }
            Schedule::Cron(line) => {
                let before = now.wall.saturating_sub(i64::try_from(late.as_secs()).unwrap_or(0));
                let last = started.map_or(before, |at| i64::try_from(at.0 / 1000).unwrap_or(0).min(now.wall));
                next_of(line, before.max(last), now)
            }
        };
        Self { schedule, next, from, passed: None }
    }

    pub fn is_of(&self, schedule: &Schedule) -> bool {
        *self.schedule == *schedule
    }

    /// When the last run began: an interval counts from then.
    pub fn started(&mut self, started: Option<Tick>, now: Now<'_>) {
        let Some(started) = started.map(|at| at.min(now.tick)).filter(|at| *at != self.from) else { return };
        self.from = started;
        if let Schedule::Every(interval) = *self.schedule {
            self.next = Some(Moment::Tick(on_the_beat(started, interval, now.tick)));
        }
    }

    pub fn next(&self) -> Option<Moment> {
        self.next
    }

    /// How late it is, when it is due.
    pub fn due(&self, now: Now<'_>) -> Option<Duration> {
        match self.next? {
            Moment::Tick(at) => (at <= now.tick).then(|| now.tick.since(at)),
            Moment::Wall(at) => {
                let late = now.wall.checked_sub(at).and_then(|late| u64::try_from(late).ok())?;
                Some(Duration::from_secs(late))
            }
        }
    }

    /// What is due is dealt with: on to the next.
    pub fn pass(&mut self, now: Now<'_>) {
        self.next = match (&*self.schedule, self.next) {
            (Schedule::Every(interval), _) => Some(Moment::Tick(on_the_beat(self.from, *interval, now.tick))),
            (Schedule::Cron(line), Some(Moment::Wall(at))) => {
                self.passed = Some(at);
                next_of(line, at.max(now.wall), now)
            }
            (Schedule::Cron(_), next) => next,
        };
    }

    /// The wall clock was set. What is due by it now stays due.
    pub fn clock_set(&mut self, now: Now<'_>) {
        let Schedule::Cron(line) = &*self.schedule else { return };
        if self.due(now).is_none() {
            let passed = self.passed.filter(|at| *at - now.wall < SET_BACK);
            self.next = next_of(line, passed.map_or(now.wall, |at| at.max(now.wall)), now);
        }
    }
}

fn next_of(line: &Cron, after: i64, now: Now<'_>) -> Option<Moment> {
    line.next(after, now.zone).map(Moment::Wall)
}

/// The first of the times `from` + n × `interval` that comes after `after`.
fn on_the_beat(from: Tick, interval: Duration, after: Tick) -> Tick {
    let interval = millis(interval).max(1);
    let beats = after.since(from).as_millis() / u128::from(interval) + 1;
    Tick(from.0.saturating_add(u64::try_from(beats).unwrap_or(u64::MAX).saturating_mul(interval)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Utc;

    impl Zone for Utc {
        fn east(&self, _: i64) -> i64 {
            0
        }

        fn next_change(&self, _: i64) -> Option<i64> {
            None
        }
    }

    /// 2026-11-29 12:00:00 UTC.
    const NOON: i64 = 1_795_953_600;

    fn now(tick: u64, wall: i64) -> Now<'static> {
        Now { tick: Tick(tick), wall, zone: &Utc }
    }

    fn cron(line: &str) -> Arc<Schedule> {
        Arc::new(Schedule::Cron(line.parse().unwrap()))
    }

    fn every(seconds: u64) -> Arc<Schedule> {
        Arc::new(Schedule::Every(Duration::from_secs(seconds)))
    }

    fn tick(millis: u64) -> Option<Moment> {
        Some(Moment::Tick(Tick(millis)))
    }

    fn wall(unix: i64) -> Option<Moment> {
        Some(Moment::Wall(unix))
    }

    #[test]
    fn an_interval_counts_from_the_last_start_and_keeps_its_beat() {
        let mut plan = Plan::new(every(10), None, true, now(5000, 0));
        assert_eq!((plan.next(), plan.due(now(14_999, 0))), (tick(15_000), None));
        assert_eq!(plan.due(now(15_002, 0)), Some(Duration::from_millis(2)));
        // It was skipped.
        plan.pass(now(15_002, 0));
        assert_eq!(plan.next(), tick(25_000));
        plan.started(Some(Tick(17_500)), now(17_500, 0));
        assert_eq!(plan.next(), tick(27_500), "a run that was asked for counts too");
        plan.started(Some(Tick(17_500)), now(20_000, 0));
        assert_eq!(plan.next(), tick(27_500));
        plan.pass(now(61_000, 0));
        assert_eq!(plan.next(), tick(67_500), "one run for all that was missed");
    }

    #[test]
    fn a_later_supervisor_keeps_the_beat_and_makes_up_only_for_the_last_minute() {
        let resumed = |started, at| Plan::new(every(600), Some(Tick(started)), true, now(at, 0));
        let minutes = |n: u64| n * 60_000;
        assert_eq!(resumed(0, minutes(4)).next(), tick(minutes(10)));
        let late = resumed(0, minutes(10) + 30_000);
        assert_eq!(late.due(now(minutes(10) + 30_000, 0)), Some(Duration::from_secs(30)));
        assert_eq!(resumed(0, minutes(25)).next(), tick(minutes(30)));
        assert_eq!(
            resumed(minutes(90), minutes(25)).next(),
            tick(minutes(35)),
            "the clock was set back meanwhile"
        );
        let begun = Plan::new(every(600), Some(Tick(0)), false, now(minutes(10) + 30_000, 0));
        assert_eq!(begun.next(), tick(minutes(20)), "somebody has only now asked for it");
    }

    #[test]
    fn a_line_goes_by_the_wall_clock() {
        let mut plan = Plan::new(cron("*/5 * * * *"), None, true, now(0, NOON));
        assert_eq!((plan.next(), plan.due(now(0, NOON + 299))), (wall(NOON + 300), None));
        assert_eq!(plan.due(now(0, NOON + 300)), Some(Duration::ZERO));
        plan.started(Some(Tick(7)), now(7, NOON + 300));
        plan.pass(now(7, NOON + 300));
        assert_eq!(plan.next(), wall(NOON + 600));
        plan.pass(now(7, NOON + 1700));
        assert_eq!(plan.next(), wall(NOON + 1800));
    }

    /// A container that is restarted just then runs its job all the same, and once.
    #[test]
    fn a_line_that_was_due_a_moment_ago_is_run_by_the_next_supervisor_unless_it_has_run() {
        let at = |seconds: i64| u64::try_from(NOON + seconds).unwrap() * 1000;
        let resumed = |started: i64, seconds: i64| {
            let now = now(at(seconds), NOON + seconds);
            let plan = Plan::new(cron("*/5 * * * *"), Some(Tick(at(started))), true, now);
            (plan.next(), plan.due(now))
        };
        assert_eq!(resumed(-300, 20), (wall(NOON), Some(Duration::from_secs(20))));
        assert_eq!(resumed(-300, 90), (wall(NOON + 300), None));
        assert_eq!(resumed(0, 20), (wall(NOON + 300), None), "it has run");
        assert_eq!(resumed(9000, 20), (wall(NOON + 300), None), "the clock was set back meanwhile");
    }

    #[test]
    fn a_clock_that_is_set_forward_misses_and_one_that_is_set_back_repeats_nothing() {
        let mut plan = Plan::new(cron("*/5 * * * *"), None, true, now(0, NOON));
        // By an hour, past one that is due: it is seen as late by that.
        plan.clock_set(now(1, NOON + 3610));
        assert_eq!(plan.due(now(1, NOON + 3610)), Some(Duration::from_secs(3310)));
        plan.pass(now(1, NOON + 3610));
        assert_eq!(plan.next(), wall(NOON + 3900));
        // Back by half an hour: what has passed by the clock before does not run again.
        plan.pass(now(2, NOON + 3900));
        plan.clock_set(now(2, NOON + 2100));
        assert_eq!(plan.next(), wall(NOON + 4200));
        // Back by a day, which is no correction but another time.
        plan.clock_set(now(3, NOON - 86_400));
        assert_eq!(plan.next(), wall(NOON - 86_100));
    }

    #[test]
    fn a_clock_that_is_set_moves_no_interval() {
        let mut plan = Plan::new(every(10), None, true, now(0, NOON));
        plan.clock_set(now(1, NOON + 86_400));
        assert_eq!(plan.next(), tick(10_000));
    }
}
