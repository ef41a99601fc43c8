//! The durable state: wants, registered services, restart history, the supervisor's own notes.
//!
//! ```text
//!   loop ──commit──▶ pending (merged by key) ──▶ thread "store": session ─▶ engine (redb) · mirror · lock
//!     ▲                                             │
//!     └───────────────── StoreEvent ◀───────────────┘
//! ```
//!
//! Invariants: a ticket is answered once, `Committed` only after the sync; a failed commit is not adopted, also if
//! its bytes reached the disk (a file whose sync failed is replaced by one with what was acknowledged). No method
//! waits for the disk except [`open`] and [`Store::close`], which wait no longer than they are told. What is asked
//! for while a commit runs shares the next one. With nothing pending and nothing wrong the thread sleeps without a
//! timeout.
//!
//! The store only keeps what it is told: it decides nothing about services, and it trusts no file that somebody else
//! could have written (`place`).
//!
//! # The format and its version
//!
//! A release can be rolled back: the previous one must be able to go on with the file. So the version has two parts, both in
//! the table `meta`.
//!
//! * `schema` is the incompatible part. A program refuses a file whose `schema` is greater than the newest it knows
//!   ([`NEWEST_SCHEMA`]), touches nothing of it, and says so. It rises only where an older program that went on with the file
//!   would do harm: a want, a row version or a key that changed its meaning. The release before the one that writes a new
//!   `schema` must read it already, so what is written ([`SCHEMA`]) may be less than what is read.
//! * `additions` is the compatible part: it counts what was added that an older program may ignore: a table (text to
//!   bytes), a key in `meta`, an optional field of a row (absent = null), a new word in a field that is not a want. A program
//!   that meets more additions than it knows reads the rest, skips a row that it does not understand with a warning, and
//!   carries along what it does not know, also when it has to write the file anew. It does not know when a row of an unknown
//!   table should go: an addition must bear rows of services that are no more, and fields that a rewritten row has lost.
//!
//! A file with fewer additions, or with another `schema` than is written, is written anew when it is opened.
//!
//! | `schema` | `additions` | since then |
//! |---|---|---|
//! | 1 | | wants, records, runs, meta |
//! | 2 | | mirrored |
//! | 3 | | limits; written by this program |
//! | 4 | | `ends` in meta, the last histories of all in one row: read, never written. Nothing but that row is different, so a file of 4 becomes one of 3 |
//! | 3 | 1 | `additions`, and `lies` in meta: where the state lay when it got its instance id |

mod astray;
pub mod claim;
mod disk;
mod engine;
mod journal;
mod lock;
mod mirror;
mod place;
#[cfg(test)]
pub mod played;
mod schema;
mod session;
#[cfg(test)]
mod tests;
mod unwritten;
mod worker;

pub use engine::panic_is_expected;
pub use lock::{Holder, lock_alone};
pub use place::Lies;
pub use schema::{
    FailedRow, LastExit, LimitsRow, MAX_FAILURE_TIMES, MirroredRow, NEWEST_SCHEMA, Program, RecordRow,
    RunRow, RunsRow, SCHEMA, WantRow,
};
pub use session::new_instance;
pub use unwritten::{DiskError, Unwritten};

use crate::core::name::ServiceName;
use crate::sys::time::monotonic;
pub use journal::Note;
use journal::Notes;
use schema::{Key, Rows, Write};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many changes may wait for the disk. Five thousand services asked for everything at once fill a third of it.
const MAX_PENDING: usize = 65_536;

/// The name of the store's thread. It survives its panics, and says what it has lost.
pub const THREAD: &str = "store";

/// Where the state is and for whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--home`: below it no link is followed on the way to `dir`.
    pub home: PathBuf,
    /// The state directory.
    pub dir: PathBuf,
    /// The gateway user's group, which may read everything.
    pub gid: u32,
    /// This machine's name, for the reader who finds the state locked.
    pub host: String,
    /// How long [`open`] waits for the disk before it goes on without.
    pub patience: Duration,
    /// The state is given up to who claims it, within this time ([`claim`]); `None`: it is kept.
    pub gives_way: Option<Duration>,
    /// We are process 1, and every service ends with us: no successor has to find by the id of a state what was begun before there
    /// was a file for it.
    pub is_init: bool,
}

/// One thing to remember.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Want(ServiceName, WantRow),
    Record(ServiceName, RecordRow),
    Run(ServiceName, RunRow),
    Mirrored(ServiceName, MirroredRow),
    /// What was set in place of the definition's limits; `None`: nothing any more.
    Limits(ServiceName, Option<LimitsRow>),
    /// All rows of the service.
    Forget(ServiceName),
    /// That it was registered.
    ForgetRecord(ServiceName),
    /// Its restart history.
    ForgetRun(ServiceName),
    /// The supervisor's note to its successor; opaque here.
    Boot(serde_json::Value),
    /// The instance id, and where the state lies that it is for.
    Identity(String, Option<Lies>),
}

/// What was found at opening.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Opened {
    /// 32 hexadecimal digits, made once for each state directory. In a copy it is that of the original.
    pub instance: String,
    /// Where the state lies, and where it lay when it got that id.
    pub lies: Option<Lies>,
    pub lay: Option<Lies>,
    pub wants: BTreeMap<ServiceName, WantRow>,
    pub records: BTreeMap<ServiceName, RecordRow>,
    pub runs: BTreeMap<ServiceName, RunRow>,
    pub mirrored: BTreeMap<ServiceName, MirroredRow>,
    pub limits: BTreeMap<ServiceName, LimitsRow>,
    pub boot: Option<serde_json::Value>,
    /// The newest lines of [`Store::note`], oldest first.
    pub journal: Vec<String>,
    /// When the mirror of the wants was last written, Unix time in milliseconds.
    pub mirrored_at_ms: Option<u64>,
    /// Lines for log and `status`: what was set aside, rebuilt, not locked. [`Self::unrecorded`] is not among them.
    pub warnings: Vec<String>,
    /// The lock of home was not had in time, which is that of its gateways. [`StoreEvent::Held`] may follow.
    pub home_unlocked: bool,
    /// Why nothing is recorded for now. Recovery is reported as [`StoreEvent::Recovered`].
    pub volatile: Option<Unwritten>,
}

/// What the store has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreEvent {
    /// On the disk.
    Committed { ticket: u64 },
    /// Not adopted. The reason is one line that says what to do.
    Failed { ticket: u64, reason: String },
    /// Something to say loudly that changes nothing else: a damaged file was replaced, a foreign one set aside.
    Warning { text: String },
    /// From now on something is not recorded, and why. Repeated when the reason changes.
    Degraded { reason: String },
    /// Another supervisor has the state, or supervises the gateways of the home: nothing of ours may go on. Only where it was
    /// begun while nobody could have had the lock, or without the gateways of the home.
    Held { reason: String },
    /// Commits are recorded again. `opened` is there, once, when [`open`] gave up waiting for the state or could not
    /// read it: what it holds was acknowledged in a former life and may differ from what the loop went on with.
    Recovered { opened: Option<Box<Opened>> },
}

/// Why the supervisor must not go on with this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{}{}", self.what(), advice(path))]
    Held { path: PathBuf, holder: Option<Holder> },
    #[error("whether another supervisor has {} cannot be told: {reason}", path.display())]
    Unknown { path: PathBuf, reason: String },
    #[error(
        "{} does not answer, so whether another supervisor has it cannot be told: nothing was started; check its volume",
        path.display()
    )]
    Silent { path: PathBuf },
    #[error(
        "{} was written by a newer hermes-sup (schema {found}, this one knows up to {NEWEST_SCHEMA}): \
         use that version, or choose another --state",
        path.display()
    )]
    NewerSchema { path: PathBuf, found: u32 },
}

impl OpenError {
    fn unknown(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Unknown { path: path.to_owned(), reason: DiskError::new(path, error).to_string() }
    }

    /// What is so, without what to do about it.
    pub fn what(&self) -> String {
        match self {
            Self::Held { path, holder } => {
                let holder = holder.as_ref().map_or("it left no note".to_owned(), Holder::to_string);
                format!("{} is in use by another supervisor ({holder})", path.display())
            }
            Self::Unknown { .. } | Self::Silent { .. } | Self::NewerSchema { .. } => self.to_string(),
        }
    }

    /// Somebody else may be supervising: a command can run beside that, gateways cannot.
    pub fn is_of_another(&self) -> bool {
        match self {
            Self::Held { .. } | Self::Unknown { .. } => true,
            // It was told to end while it waited.
            Self::Silent { .. } | Self::NewerSchema { .. } => false,
        }
    }
}

/// Another state of the same home would be a second supervisor of its gateways.
fn advice(path: &std::path::Path) -> &'static str {
    if path.file_name().is_some_and(|name| name == session::USUAL) {
        ", which supervises the services of this home: stop that one, or use another --home"
    } else {
        ": stop that one, or use another --state and another --home"
    }
}

/// The front of the store. Dropped without [`Store::close`] it still writes what is pending, unattended.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Something that nobody waits for is there, and the thread has not been told.
    unannounced: AtomicBool,
}

/// Begins to open the state; [`Opening::wait`] has what came of it. `notify` is called from the store's thread, and from
/// [`Store::commit`] when it refuses; it must not block.
///
/// # Errors
/// [`OpenError::Unknown`]: there is no thread for it.
pub fn begin(
    options: Options,
    notify: impl Fn(StoreEvent) + Send + Sync + 'static,
) -> Result<Opening, OpenError> {
    begin_on(options, Box::new(notify), disk::plain())
}

type Notify = Box<dyn Fn(StoreEvent) + Send + Sync>;

/// Of so much time at once a wait takes notice: while we were stopped, or the machine slept, the disk had no time either.
const SLICE: Duration = Duration::from_millis(100);

fn begin_on(options: Options, notify: Notify, wrap: disk::Wrap) -> Result<Opening, OpenError> {
    let (path, patience) = (options.dir.clone(), options.patience);
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), notify });
    let store = Store { shared: Arc::clone(&shared), unannounced: AtomicBool::new(false) };
    shared.state().busy_since = Some(monotonic());
    let thread =
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || worker::run(options, wrap, shared));
    match thread {
        Ok(_) => Ok(Opening { store, path, patience }),
        Err(error) => Err(OpenError::Unknown { path, reason: format!("there is no thread for it: {error}") }),
    }
}

/// A state that is being opened.
#[derive(Debug)]
pub struct Opening {
    store: Store,
    path: PathBuf,
    patience: Duration,
}

impl Opening {
    /// While it cannot be told whether another supervisor has the state this waits, past the patience, as long as `go_on` says
    /// so, which is asked every tenth of a second then.
    ///
    /// # Errors
    /// [`OpenError`] when another supervisor has it, or may have it, or a newer one wrote it. Everything else (read-only, full,
    /// broken, silent for longer than the patience once it is locked) is no error: what can be read is in [`Opened`], commits
    /// fail with the reason, and it recovers by itself.
    pub fn wait(self, mut go_on: impl FnMut() -> bool) -> Result<(Store, Opened), OpenError> {
        let Self { store, path, patience } = self;
        let mut waited = Duration::ZERO;
        let mut state = store.shared.state();
        loop {
            if let Boot::Done(result) = std::mem::replace(&mut state.boot, Boot::Pending) {
                state.boot = Boot::Over;
                drop(state);
                return Ok((store, (*result)?));
            }
            if waited >= patience {
                match state.locked {
                    Locked::Nothing => {
                        drop(state);
                        if !go_on() {
                            return Err(OpenError::Silent { path });
                        }
                        state = store.shared.state();
                        if matches!(state.boot, Boot::Done(_)) || state.locked != Locked::Nothing {
                            continue;
                        }
                    }
                    Locked::State | Locked::All => {
                        let opened = Opened {
                            instance: session::new_instance(),
                            home_unlocked: state.locked == Locked::State,
                            volatile: Some(Unwritten::Silent { path, patience }),
                            ..Opened::default()
                        };
                        state.boot = Boot::Over;
                        drop(state);
                        return Ok((store, opened));
                    }
                }
            }
            let slice = patience.saturating_sub(waited).clamp(Duration::from_millis(1), SLICE);
            let began = Instant::now();
            state = store.shared.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
            waited += began.elapsed().min(slice);
        }
    }
}

impl Opened {
    /// That nothing is recorded for now, for log and `status`.
    pub fn unrecorded(&self) -> Option<String> {
        let reason = self.volatile.as_ref()?;
        Some(format!("nothing is recorded, wants are kept in memory only: {reason}"))
    }
}

impl Store {
    /// Asks for these changes to be made durable, together. The answer is an event with this ticket. Never waits;
    /// refuses at once when too much waits for the disk already.
    pub fn commit(&self, ticket: u64, changes: Vec<Change>) {
        let refused = {
            let mut state = self.shared.state();
            if let Some(ended) = &state.ended {
                Some(ended.clone().err().unwrap_or(Unwritten::Closed))
            } else if state.pending.len() + state.tickets.len() + changes.len() > MAX_PENDING {
                Some(Unwritten::TooMany)
            } else {
                state.tickets.push(ticket);
                state.add(changes, true);
                self.shared.changed.notify_all();
                None
            }
        };
        if let Some(refused) = refused {
            (self.shared.notify)(StoreEvent::Failed { ticket, reason: refused.to_string() });
        }
    }

    /// Remembers these changes with the next commit, or a little later by themselves, once they are announced. Never answered.
    /// Only the newest for each row is kept, so what waits is bounded by the number of services.
    pub fn commit_lazily(&self, changes: Vec<Change>) {
        let mut state = self.shared.state();
        if state.ended.is_none() {
            let waited_for = state.lazy_since.is_some();
            state.add(changes, false);
            // The thread knows already when the first of them is due: a crash or an exit wakes it no further.
            if !waited_for {
                self.unannounced.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Tells the thread of what nobody waits for: once a turn of the loop, after its starts, for which the processors are needed.
    pub fn announce(&self) {
        if self.unannounced.swap(false, Ordering::Relaxed) {
            self.shared.changed.notify_all();
        }
    }

    /// Makes these changes durable at once. Never answered: what cannot be written now is written when it can be.
    pub fn commit_soon(&self, changes: Vec<Change>) {
        let mut state = self.shared.state();
        if state.ended.is_none() {
            state.add(changes, false);
            state.is_urgent = true;
            self.shared.changed.notify_all();
        }
    }

    /// Keeps a line of the journal, with the next commit or a little later, once it is announced. Never answered and never
    /// synced: after a power failure the newest lines may be missing. Of what cannot be written only the newest lines wait.
    pub fn note(&self, note: Arc<dyn Note>) {
        let mut state = self.shared.state();
        if state.ended.is_none() {
            let waited_for = state.lazy_since.is_some();
            state.lazy_since.get_or_insert_with(monotonic);
            state.notes.push(note);
            if !waited_for {
                self.unannounced.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Since when the disk has been at work without an answer; `None` when it owes nothing.
    pub fn busy_since(&self) -> Option<Instant> {
        self.shared.state().busy_since
    }

    /// What nobody waits for is written at once: beside other last things, as the close of the store would wait for it.
    pub fn hurry(&self) {
        self.shared.state().is_urgent = true;
        self.shared.changed.notify_all();
    }

    /// Begins to close: writes what is pending, closes the database, gives the lock back. Nothing is taken any more.
    pub fn begin_to_close(&self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
    }

    /// Waits for the end of that, which is begun here if it was not; at most so long.
    ///
    /// # Errors
    /// [`Unwritten::NotClosed`] when it did not end in time (it goes on unattended), or why something could not be written.
    pub fn close(&self, patience: Duration) -> Result<(), Unwritten> {
        self.begin_to_close();
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, patience, |state| state.ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.ended.clone().unwrap_or(Err(Unwritten::NotClosed(patience)))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.begin_to_close();
    }
}

/// What the loop's thread and the store's thread share. The mutex is held for moments only, never over I/O.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    notify: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Shared {
    fn locked(&self, locked: Locked) {
        self.state().locked = locked;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    /// The newest write for each row, and whether somebody waits for it.
    pending: BTreeMap<Key, (Write, Waited)>,
    tickets: Vec<u64>,
    notes: Notes,
    /// When the oldest lazy write was asked for.
    lazy_since: Option<Instant>,
    /// Some of what nobody waits for is not to wait either.
    is_urgent: bool,
    busy_since: Option<Instant>,
    closing: bool,
    /// The thread has ended, with everything written or not.
    ended: Option<Result<(), Unwritten>>,
    boot: Boot,
    locked: Locked,
}

/// What is known not to be another supervisor's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Locked {
    #[default]
    Nothing,
    State,
    /// The gateways of the home too.
    All,
}

#[derive(Debug)]
enum Waited {
    /// It has taken the place of what nobody waits for, and that is written should this one be refused.
    Yes(Option<Box<Write>>),
    No,
}

impl Waited {
    /// What is still to be written of a row when its commit has failed.
    fn left(self, write: Write) -> Option<Write> {
        match self {
            Self::Yes(before) => before.map(|before| *before),
            Self::No => Some(write),
        }
    }
}

#[derive(Debug, Default)]
enum Boot {
    #[default]
    Pending,
    Done(Box<Result<Opened, OpenError>>),
    /// Taken, or given up waiting for.
    Over,
}

impl State {
    fn add(&mut self, changes: Vec<Change>, waited: bool) {
        for write in changes.into_iter().flat_map(writes) {
            let waited = if waited {
                let before = self.pending.remove(&write.key());
                Waited::Yes(before.and_then(|(write, waited)| waited.left(write)).map(Box::new))
            } else {
                self.lazy_since.get_or_insert_with(monotonic);
                Waited::No
            };
            self.pending.insert(write.key(), (write, waited));
        }
    }

    /// Its commit has failed, and nobody waits for it: it is written with the next one, unless a newer one has come.
    fn put_back(&mut self, write: Write) {
        self.lazy_since.get_or_insert_with(monotonic);
        match self.pending.entry(write.key()) {
            Entry::Vacant(entry) => drop(entry.insert((write, Waited::No))),
            Entry::Occupied(mut entry) => {
                if let (_, Waited::Yes(before)) = entry.get_mut() {
                    before.get_or_insert_with(|| Box::new(write));
                }
            }
        }
    }
}

fn writes(change: Change) -> Vec<Write> {
    match change {
        Change::Want(name, row) => vec![Write::Want(name, Some(row))],
        Change::Record(name, row) => vec![Write::Record(name, Some(row))],
        Change::Run(name, mut row) => {
            let excess = row.failure_times_ms.len().saturating_sub(MAX_FAILURE_TIMES);
            row.failure_times_ms.drain(..excess);
            vec![Write::Run(name, Some(row))]
        }
        Change::Forget(name) => {
            vec![
                Write::Want(name.clone(), None),
                Write::Record(name.clone(), None),
                Write::Run(name.clone(), None),
                Write::Mirrored(name.clone(), None),
                Write::Limits(name, None),
            ]
        }
        Change::Mirrored(name, row) => vec![Write::Mirrored(name, Some(row))],
        Change::Limits(name, row) => vec![Write::Limits(name, row)],
        Change::ForgetRecord(name) => vec![Write::Record(name, None)],
        Change::ForgetRun(name) => vec![Write::Run(name, None)],
        Change::Boot(value) => vec![Write::Boot(Some(value))],
        Change::Identity(instance, lies) => {
            [Write::Instance(instance)].into_iter().chain(lies.map(Write::Lies)).collect()
        }
    }
}

impl Opened {
    fn from_rows(rows: &Rows) -> Self {
        let Rows {
            instance,
            stamp: _,
            wants,
            records,
            runs,
            mirrored,
            limits,
            boot,
            lies,
            additions: _,
            foreign: _,
        } = rows.clone();
        let runs = runs.into_iter().map(|(name, row)| (name, *row)).collect();
        Self { instance, wants, records, runs, mirrored, limits, boot, lay: lies, ..Self::default() }
    }
}
