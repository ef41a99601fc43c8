//! Was it the OOM killer? The one place where that is judged: an exit that leaves the room is final.
//!
//! * A life with a memory controller of its own has its own counter ([`LifeOom`]): the kernel says how many of its processes it
//!   killed, and the main process is one of them if a SIGKILL that was not ours has hit it.
//! * Elsewhere only the container has a counter ([`ContainerOom`]). It says how many were killed, not which. So a SIGKILL that
//!   was not ours is probably one of those kills if there is one that explains no other exit yet; if there is none,
//!   another process sent it; and where no counter can be seen, that is not known.
//!
//! The kernel counts a kill before it sends the signal (mm/oom_kill.c, `__oom_kill_process`): a process that is seen dead is
//! counted, and when the counter rises the victim is dead or about to be.

use super::cgroup::discover;
use super::cgroup::limits::MemoryEvents;
use super::cgroup::watch::{Watch, Watched};
use super::event::{Event, EventQueue};
use super::held::{CONTAINER_OOM, Watcher};
use crate::core::clock::Tick;
use crate::core::exit::{Exit, Shortage};
use crate::core::signal::Signal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// What the memory controller of one life has told.
#[derive(Debug, Default)]
pub(super) struct LifeOom {
    seen: MemoryEvents,
    /// Why the last of them was killed.
    shortage: Shortage,
    /// The main process is one of those that were killed, or that were ended because of one.
    main: bool,
}

/// What is new since the last look at [`LifeOom`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct News {
    /// All kills so far, if there are more.
    pub kills: Option<u64>,
    /// The memory was held at `memory.high` again.
    pub high: bool,
}

impl LifeOom {
    /// For a life that was adopted: what was counted before is no news.
    pub fn adopted(seen: MemoryEvents) -> Self {
        Self { seen, ..Self::default() }
    }

    /// Takes what the kernel has counted by now. `main_is_killed`: a SIGKILL that was not ours has hit the main process, or is
    /// about to. `memory_max`: the limit of the life, in bytes. Both are asked only if there is a new kill.
    pub fn count(
        &mut self,
        counted: MemoryEvents,
        main_is_killed: impl FnOnce() -> bool,
        memory_max: impl FnOnce() -> Option<u64>,
    ) -> News {
        let before = std::mem::replace(&mut self.seen, counted);
        let high = counted.high > before.high;
        // Once the main process is among them the life is over, however many the kernel still takes with it, one by one.
        if counted.kills <= before.kills || self.main {
            // That it is at its limit may be counted a moment before the kill.
            self.seen.at_max = before.at_max;
            return News { kills: None, high };
        }
        self.shortage = if counted.at_max > before.at_max {
            memory_max().map_or(Shortage::Unknown, Shortage::MemoryMax)
        } else {
            Shortage::Outside
        };
        self.main = main_is_killed();
        News { kills: Some(counted.kills), high }
    }

    pub fn kills(&self) -> u64 {
        self.seen.kills
    }

    /// Why the last of them was killed.
    pub fn shortage(&self) -> Shortage {
        self.shortage
    }

    pub fn has_killed_main(&self) -> bool {
        self.main
    }

    /// The tree is ended because of a kill: that is how its main process will have ended.
    pub fn takes_all(&mut self) {
        self.main = true;
    }

    /// How the main process ended.
    pub fn judge(&self, exit: Exit) -> Exit {
        if self.main && is_kill(exit) { Exit::Oom(self.shortage) } else { exit }
    }
}

/// The counter of the nearest cgroup at or above ours that has one, and its kills that explain no exit yet.
#[derive(Debug)]
pub(super) struct ContainerOom {
    /// `None`: no such cgroup can be seen here.
    counter: Option<Counter>,
    unclaimed: Unclaimed,
}

#[derive(Debug)]
struct Counter {
    file: PathBuf,
    watch: Watch,
    _watched: Watched,
    seen: u64,
}

impl ContainerOom {
    pub fn open(watcher: &Watcher) -> Self {
        let counter = || {
            let file = discover::own_memory_events()?;
            let watch = Watch::new().ok()?;
            let watched = watch.add_file(&file, 0).ok()?;
            let mut counter = Counter { file, watch, _watched: watched, seen: 0 };
            counter.seen = counter.read();
            watcher.watch(counter.watch.as_fd(), CONTAINER_OOM).ok()?;
            Some(counter)
        };
        Self { counter: counter(), unclaimed: Unclaimed::default() }
    }

    /// Looks at the counter and says how many more there are.
    pub fn look(&mut self, now: Tick, events: &mut EventQueue) {
        let Some(counter) = &mut self.counter else { return };
        // Drained so that the next wait is for something new; what is true is read.
        drop(counter.watch.drain());
        let count = counter.read();
        let kills = count.saturating_sub(std::mem::replace(&mut counter.seen, count));
        if kills > 0 {
            self.unclaimed.add(kills, now);
            events.push(Event::ContainerOom { kills });
        }
    }

    /// How a main process ended for which nobody counts. `ours`: we may have sent it a SIGKILL.
    pub fn judge(&mut self, exit: Exit, ours: bool, now: Tick, events: &mut EventQueue) -> Exit {
        if ours || !is_kill(exit) {
            return exit;
        }
        self.look(now, events);
        match self.counter {
            Some(_) => self.unclaimed.explain(now),
            None => Exit::MaybeOom { likely: false },
        }
    }
}

impl Counter {
    fn read(&self) -> u64 {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        // What cannot be read any more has not changed.
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(self.seen)
    }
}

/// Kills in the container that explain no exit yet.
#[derive(Debug, Default)]
struct Unclaimed {
    kills: u64,
    at: Option<Tick>,
}

impl Unclaimed {
    /// How long a victim may take to be gone: it gives back its memory first.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn add(&mut self, kills: u64, now: Tick) {
        self.forget_old(now);
        self.kills += kills;
        self.at = Some(now);
    }

    /// A SIGKILL that was not ours: by one of these kills, or sent by another process.
    fn explain(&mut self, now: Tick) -> Exit {
        self.forget_old(now);
        if self.kills == 0 {
            return Exit::Signal { signal: Signal::KILL, core: false };
        }
        self.kills -= 1;
        Exit::MaybeOom { likely: true }
    }

    fn forget_old(&mut self, now: Tick) {
        if self.at.is_some_and(|at| now.since(at) > Self::PATIENCE) {
            *self = Self::default();
        }
    }
}

pub(super) fn is_kill(exit: Exit) -> bool {
    exit.signal() == Some(Signal::KILL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIKELY: Exit = Exit::MaybeOom { likely: true };
    const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core: false };

    #[test]
    fn each_kill_of_the_container_explains_one_exit_and_not_for_long() {
        let mut unclaimed = Unclaimed::default();
        let at = |seconds: u64| Tick(1_000_000 + seconds * 1000);
        assert_eq!(unclaimed.explain(at(0)), KILLED, "the kernel killed nobody");
        unclaimed.add(1, at(1));
        assert_eq!(unclaimed.explain(at(2)), LIKELY);
        assert_eq!(unclaimed.explain(at(2)), KILLED, "there was but one");
        unclaimed.add(2, at(3));
        assert_eq!(unclaimed.explain(at(14)), KILLED, "that was another process, long ago");
    }

    #[test]
    fn without_a_counter_nobody_knows_and_our_own_kills_are_ours() {
        let mut oom = ContainerOom { counter: None, unclaimed: Unclaimed::default() };
        let mut judge = |exit, ours| oom.judge(exit, ours, Tick(0), &mut EventQueue::default());
        assert_eq!(judge(KILLED, false), Exit::MaybeOom { likely: false });
        assert_eq!(judge(KILLED, true), KILLED);
        assert_eq!(judge(Exit::Code(1), false), Exit::Code(1));
    }

    /// A counter that rises at the very moment of the exit: the kill is said first, and the exit is final when it is said.
    #[test]
    fn a_kill_that_nobody_heard_of_yet_explains_the_exit_that_it_caused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let count = |kills: u64| std::fs::write(&file, format!("oom {kills}\noom_kill {kills}\n")).unwrap();
        count(3);
        // A plain file cannot be watched like one of the kernel's: the pipe stands for it and never speaks.
        let watch = Watch::new().unwrap();
        let (silent, _writer) = std::io::pipe().unwrap();
        let watched = watch.add_file(
            &PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&silent))),
            0,
        );
        let counter = Counter { file: file.clone(), watch, _watched: watched.unwrap(), seen: 3 };
        let mut oom = ContainerOom { counter: Some(counter), unclaimed: Unclaimed::default() };
        let mut events = EventQueue::default();
        assert_eq!(oom.judge(KILLED, false, Tick(0), &mut events), KILLED);
        assert_eq!(events.pop(), None);
        count(4);
        assert_eq!(oom.judge(KILLED, false, Tick(1), &mut events), LIKELY);
        assert_eq!(events.pop(), Some(Event::ContainerOom { kills: 1 }));
        std::fs::remove_file(&file).unwrap();
        oom.look(Tick(2), &mut events);
        assert_eq!(events.pop(), None, "what cannot be read has not changed");
    }

    #[test]
    fn a_life_with_a_counter_of_its_own_knows_whether_its_main_process_was_killed() {
        let counted = |kills, high| MemoryEvents { kills, high, at_max: kills };
        let max = || Some(512 << 20);
        let own = Exit::Oom(Shortage::MemoryMax(512 << 20));
        let mut oom = LifeOom::default();
        assert_eq!(oom.count(counted(0, 2), || unreachable!(), max), News { kills: None, high: true });
        assert_eq!(oom.count(counted(1, 2), || false, max), News { kills: Some(1), high: false });
        assert_eq!(oom.judge(KILLED), KILLED, "it was another process");
        assert_eq!(oom.count(counted(2, 2), || true, max), News { kills: Some(2), high: false });
        assert_eq!(oom.count(counted(9, 2), || unreachable!(), max), News::default(), "that life is over");
        assert_eq!((oom.judge(KILLED), oom.judge(Exit::Code(1))), (own, Exit::Code(1)));
        let mut adopted = LifeOom::adopted(counted(5, 5));
        assert_eq!(adopted.count(counted(5, 5), || unreachable!(), max), News::default());
        adopted.takes_all();
        assert_eq!(adopted.judge(KILLED), Exit::Oom(Shortage::Unknown));
    }

    /// A kill without the life's own limit having been reached is that of a cgroup around it or of the machine.
    #[test]
    fn a_kill_is_put_down_to_the_limit_that_was_reached() {
        let counted = |kills, at_max| MemoryEvents { kills, at_max, ..MemoryEvents::default() };
        let mut oom = LifeOom::default();
        let mut after = |kills, at_max, max| {
            oom.count(counted(kills, at_max), || false, || max);
            oom.shortage()
        };
        assert_eq!(after(1, 0, Some(1024)), Shortage::Outside);
        assert_eq!(after(1, 1, Some(1024)), Shortage::Outside, "nothing new was killed");
        assert_eq!(after(2, 1, Some(1024)), Shortage::MemoryMax(1024), "it was counted before the kill");
        assert_eq!(after(3, 2, None), Shortage::Unknown, "the limit was taken back since");
    }
}
