//! How long a machine is waited for: in its own time. Its processors are threads that may wait for one of ours behind others, and all
//! of it may be stopped for minutes. Neither is time that it had.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Beyond this a wait has failed. Generous: processors are emulated.
const ALL: Duration = Duration::from_secs(300);
/// So often it is looked at. A look that comes later than this is late because we did not run either.
pub const SLICE: Duration = Duration::from_millis(250);
/// A look that is so late was kept waiting by more than other processes: all of this was stopped.
const STILL: Duration = Duration::from_secs(10);

/// What is left of the patience with the machine that this process emulates.
pub struct Patience {
    pid: u32,
    left: Duration,
    looked: Instant,
    behind: HashMap<String, Duration>,
}

impl Patience {
    pub fn with(pid: u32) -> Self {
        Self { pid, left: ALL, looked: Instant::now(), behind: behind(pid) }
    }

    /// Looks again and again, each time for a [`SLICE`] at most, until there is something; `None`: it is over.
    pub fn until<T>(mut self, mut look: impl FnMut(Duration) -> Option<T>) -> Option<T> {
        loop {
            let found = look(SLICE);
            if found.is_some() || self.is_over() {
                return found;
            }
        }
    }

    /// To be asked at least once a [`SLICE`].
    pub fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut self.looked, now));
        if passed > STILL {
            STOOD_STILL.fetch_add(passed.as_secs(), Ordering::Relaxed);
        }
        let behind = behind(self.pid);
        let waited = behind
            .iter()
            .map(|(thread, now)| now.saturating_sub(self.behind.get(thread).copied().unwrap_or_default()));
        let had = own_time(passed, waited.max().unwrap_or_default(), is_stopped(self.pid));
        self.behind = behind;
        self.left = self.left.saturating_sub(had);
        self.left.is_zero()
    }
}

/// What a machine had of the time since the last look, of which it waited so long for a processor.
fn own_time(passed: Duration, waited: Duration, is_stopped: bool) -> Duration {
    if is_stopped { Duration::ZERO } else { passed.min(SLICE * 2).saturating_sub(waited) }
}

static STOOD_STILL: AtomicU64 = AtomicU64::new(0);

/// For so many seconds altogether, as far as anybody waited meanwhile, all of this was stopped. To a machine that is a leap of its
/// clock: whatever has a time-out there runs out.
pub fn stood_still() -> u64 {
    STOOD_STILL.load(Ordering::Relaxed)
}

/// How long each thread of a process has waited for a processor, ever (kernel, Documentation/scheduler/sched-stats.rst).
fn behind(pid: u32) -> HashMap<String, Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let nanoseconds = text.split_whitespace().nth(1)?.parse().ok()?;
        Some((thread.file_name().to_string_lossy().into_owned(), Duration::from_nanos(nanoseconds)))
    });
    waited.collect()
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

#[test]
fn time_in_which_a_machine_could_not_run_is_not_its_own() {
    let seconds = Duration::from_secs;
    let none = Duration::ZERO;
    assert_eq!(own_time(SLICE, none, false), SLICE, "it ran, or had nothing to do");
    assert_eq!(own_time(SLICE, SLICE / 2, false), SLICE / 2, "others had its processor");
    assert_eq!(own_time(seconds(480), none, false), SLICE * 2, "we did not run either");
    assert_eq!(own_time(SLICE, none, true), none, "it alone was stopped");
}

/// The process that is waited for is stopped: it has all the time that it takes.
#[test]
fn a_stopped_process_is_waited_for() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().expect("sleep(1)");
    let send = |signal| kill_process(Pid::from_child(&sleeper), signal).expect("a signal");
    let mut patience = Patience::with(sleeper.id());
    send(Signal::STOP);
    while !is_stopped(sleeper.id()) {
        std::thread::yield_now();
    }
    patience.looked -= seconds_ago();
    assert!(!patience.is_over() && patience.left == ALL, "{:?} is left", patience.left);
    send(Signal::CONT);
    while is_stopped(sleeper.id()) {
        std::thread::yield_now();
    }
    patience.left = SLICE;
    patience.looked -= seconds_ago();
    assert!(patience.is_over(), "of what goes on it has had enough");
    sleeper.kill().and_then(|()| sleeper.wait()).expect("its end");

    fn seconds_ago() -> Duration {
        Duration::from_secs(9)
    }
}
