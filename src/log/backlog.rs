//! What waits for the files thread: formatted output in order, and other work under `--home`.
//!
//! Invariants: the lock is held for some instructions only, never over a system call; bytes are bounded per service and
//! together (one read of the pump may exceed the bound); other work is bounded by number.

use super::busy::Busy;
use super::logfile::LogFile;
use super::pump::Remote;
use super::{LogEvent, Shared, SourceId, lock};
use crate::sys::credentials::Credentials;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes on their way to one file.
const SOURCE_LIMIT: usize = 384 * 1024;
/// Bytes on their way to all files.
const TOTAL_LIMIT: usize = 8 << 20;
/// Pieces up to this size join the piece before them, so that many short lines make one write.
const JOIN: usize = 4096;
const JOINED_MAX: usize = 64 * 1024;
/// Closures that wait. A thousand gateways that start or stop at once ask for at most four things each (preparation,
/// readiness, the marker of a stop, the state file), which is half of it: a refusal is for a disk that does not keep up.
const JOBS: usize = 8192;
/// After this long at one piece of work the thread counts as stuck, and further work is refused.
const STUCK: Duration = Duration::from_secs(10);
/// Buffers kept for the next read, and how large they may be.
const SPARE: usize = 4;
const SPARE_MAX: usize = 256 * 1024;
/// Room for so many pieces is kept while nothing is to be done; a boot needs it for thousands.
const ROOM: usize = 64;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// An event that two threads may report and one does.
#[derive(Debug, Clone)]
pub(super) struct Announce {
    pub(super) event: LogEvent,
    done: Arc<AtomicBool>,
}

impl Announce {
    pub(super) fn new(event: LogEvent) -> Self {
        Self { event, done: Arc::default() }
    }

    /// True for the first caller only.
    pub(super) fn claim(&self) -> bool {
        !self.done.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

pub(super) enum Item {
    Open(SourceId, Box<LogFile>),
    /// Lines with their heads, and how many were left out before them.
    Write {
        id: SourceId,
        bytes: Vec<u8>,
        lost: u64,
    },
    /// Everything before this is written.
    Mark(Announce),
    Close(SourceId, Announce),
    Run(Job),
}

/// What the files thread is to do next.
pub(super) enum Work {
    Item(Item),
    /// Nothing is asked for: there is time for what is not.
    Spare,
    End,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    outstanding: usize,
    jobs: usize,
    spare: Vec<Vec<u8>>,
    files_wait: bool,
    pump_waits: bool,
    /// Services are being started: nothing that can wait is done now.
    rush: bool,
    stop: bool,
}

pub(super) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
    busy: Busy,
    pump: Arc<Remote>,
}

impl Backlog {
    pub(super) fn new(pump: Arc<Remote>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), busy: Busy::default(), pump }
    }

    pub(super) fn busy(&self) -> Option<Duration> {
        self.busy.so_far()
    }

    pub(super) fn push(&self, item: Item) {
        let mut state = lock(&self.state);
        state.items.push_back(item);
        self.wake(state);
    }

    /// The same for what has time until something else comes or the [`Self::rush`] is over.
    pub(super) fn push_leisurely(&self, item: Item) {
        lock(&self.state).items.push_back(item);
    }

    /// Whether more services are about to be started, for which the processors are wanted.
    pub(super) fn rush(&self, on: bool) {
        let mut state = lock(&self.state);
        state.rush = on;
        if !on {
            self.wake(state);
        }
    }

    /// Room for another read of this service. `again` after a pause: then half must be free, so that the pump does not
    /// go on and off with every write.
    pub(super) fn has_room(&self, shared: &Shared, again: bool) -> bool {
        let part = if again { 2 } else { 1 };
        shared.backlog.load(Ordering::Relaxed) < SOURCE_LIMIT / part
            && lock(&self.state).outstanding < TOTAL_LIMIT / part
    }

    /// An empty buffer for [`Backlog::write`].
    pub(super) fn buffer(&self) -> Vec<u8> {
        lock(&self.state).spare.pop().unwrap_or_default()
    }

    pub(super) fn write(&self, id: SourceId, shared: &Shared, bytes: Vec<u8>, lost: u64) {
        let mut state = lock(&self.state);
        state.outstanding += bytes.len();
        shared.backlog.fetch_add(bytes.len(), Ordering::Relaxed);
        match state.items.back_mut() {
            Some(Item::Write { id: last, bytes: joined, .. })
                if *last == id && lost == 0 && bytes.len() <= JOIN && joined.len() < JOINED_MAX =>
            {
                joined.extend_from_slice(&bytes);
                state.recycle(bytes);
            }
            _ => state.items.push_back(Item::Write { id, bytes, lost }),
        }
        self.wake(state);
    }

    /// Asks for a wake-up of the pump at the next piece written. Look for room again after this call, then sleep.
    pub(super) fn wake_pump_at_next(&self) {
        lock(&self.state).pump_waits = true;
    }

    /// # Errors
    /// [`Refused`] when the thread has enough to do or hangs; `job` is dropped unrun.
    pub(super) fn run(&self, job: Job) -> Result<(), Refused> {
        if let Some(busy) = self.busy().filter(|busy| *busy >= STUCK) {
            return Err(Refused::Stuck(busy));
        }
        let mut state = lock(&self.state);
        if state.stop {
            return Err(Refused::Ended);
        }
        if state.jobs >= JOBS {
            return Err(Refused::Full);
        }
        state.jobs += 1;
        state.items.push_back(Item::Run(job));
        self.wake(state);
        Ok(())
    }

    /// No more will come; the thread ends once everything is done.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stop = true;
        self.wake(state);
    }

    /// Waits for the next piece of work. `spare`: there is something to do that can wait.
    pub(super) fn next(&self, spare: bool) -> Work {
        self.busy.end();
        let mut state = lock(&self.state);
        loop {
            if let Some(work) = self.take(&mut state, spare) {
                return work;
            }
            state.items.shrink_to(ROOM);
            state.files_wait = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.files_wait = false;
        }
    }

    /// The next piece of work, if there is one now.
    fn take(&self, state: &mut State, spare: bool) -> Option<Work> {
        if let Some(item) = state.items.pop_front() {
            if matches!(item, Item::Run(_)) {
                state.jobs -= 1;
            }
            self.busy.begin();
            return Some(Work::Item(item));
        }
        if spare && (state.stop || !state.rush) {
            self.busy.begin();
            return Some(Work::Spare);
        }
        state.stop.then_some(Work::End)
    }

    /// As [`Self::next`] for who does not wait: then there is nothing to do for now.
    #[cfg(test)]
    pub(super) fn next_at_once(&self, spare: bool) -> Work {
        self.busy.end();
        self.take(&mut lock(&self.state), spare).unwrap_or(Work::End)
    }

    /// A piece handed out by [`Backlog::next`] has been dealt with.
    pub(super) fn written(&self, shared: &Shared, bytes: Vec<u8>) {
        let mut state = lock(&self.state);
        state.outstanding = state.outstanding.saturating_sub(bytes.len());
        shared.backlog.fetch_sub(bytes.len(), Ordering::Release);
        state.recycle(bytes);
        if std::mem::take(&mut state.pump_waits) {
            drop(state);
            self.pump.wake();
        }
    }

    /// Announced something the pump may be waiting for.
    pub(super) fn wake_pump(&self) {
        self.pump.wake();
    }

    /// The lock is given back first: who wakes up wants it. Who was woken is not woken again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakes = std::mem::take(&mut state.files_wait);
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
    }
}

impl State {
    fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE && bytes.capacity() <= SPARE_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").field("outstanding", &lock(&self.state).outstanding).finish_non_exhaustive()
    }
}

/// Why work was not taken. It was dropped unrun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("too much work waits for the disk under the home directory")]
    Full,
    #[error("the disk under the home directory has not answered for {} s", .0.as_secs())]
    Stuck(Duration),
    #[error("the supervisor is ending")]
    Ended,
}

/// Runs closures on the thread that may wait for disks. Clones share it.
#[derive(Debug, Clone)]
pub struct FilesHandle(Arc<Backlog>);

impl FilesHandle {
    pub(super) fn new(backlog: Arc<Backlog>) -> Self {
        Self(backlog)
    }

    /// Runs `work` with the file credentials of `who`, then `done` with our own and the answer, both on that thread.
    /// `done` gets `PermissionDenied` when we may not act as `who` (then `work` did not run), and `Other` when `work`
    /// panicked.
    ///
    /// # Errors
    /// [`Refused`]: at once, and neither closure runs.
    pub fn run<T>(
        &self,
        who: Credentials,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(io::Result<T>) + Send + 'static,
    ) -> Result<(), Refused> {
        self.0.run(Box::new(move || {
            let work = std::panic::AssertUnwindSafe(|| who.on_files(work));
            let answer = std::panic::catch_unwind(work)
                .unwrap_or_else(|_| Err(io::Error::other("a bug ended the work on a file")));
            done(answer);
        }))
    }
}
