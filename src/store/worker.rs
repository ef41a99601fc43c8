//! The store's thread: takes what is pending, commits it, answers, and finds its way back after trouble.
//!
//! `rows` is what was acknowledged, so it can fill a new file when the old one fails.

use super::disk::Wrap;
use super::engine::unless_it_panics;
use super::journal::Notes;
use super::lock::Lock;
use super::place::Lies;
use super::schema::{RowError, Rows, Write, encoded_stamp};
use super::session::{Loaded, Session, lock_home, locked_dirs};
use super::{
    Boot, DiskError, Locked, OpenError, Opened, Options, Shared, State, StoreEvent, Unwritten, Waited,
};
use crate::sys::time::monotonic;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long what nobody waits for gathers: lazy writes without a commit to join, and changes of wants for the mirror, as with
/// thousands of services each command would else wait for a file of all the others. One time for both: a mirror that came first
/// would take the lazy writes of a boot along, which is not over by then.
const LAZY_DELAY: Duration = Duration::from_secs(1);
/// While something is wrong it is tried again by itself, at growing distances. A commit tries at once.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

pub(super) fn run(options: Options, wrap: Wrap, shared: Arc<Shared>) {
    // Lives until everybody was told: the waiter for the end does not wait for memory to be given back.
    let mut worker = Worker::new(options, wrap, Arc::clone(&shared));
    // A turn that panics is survived; whatever else does ends the thread, and callers must still be answered.
    let ended = unless_it_panics(|| worker.serve()).unwrap_or(Err(Unwritten::ThreadFailed));
    let tickets = {
        let mut state = shared.state();
        if matches!(state.boot, Boot::Pending) && ended == Err(Unwritten::ThreadFailed) {
            let (path, reason) = (worker.options.dir.clone(), Unwritten::ThreadFailed.to_string());
            state.boot = Boot::Done(Box::new(Err(OpenError::Unknown { path, reason })));
        }
        state.ended = Some(ended.clone());
        state.busy_since = None;
        shared.changed.notify_all();
        std::mem::take(&mut state.tickets)
    };
    let reason = ended.err().unwrap_or(Unwritten::Closed);
    if reason == Unwritten::ThreadFailed {
        (shared.notify)(StoreEvent::Degraded { reason: reason.to_string() });
    }
    for ticket in tickets {
        (shared.notify)(StoreEvent::Failed { ticket, reason: reason.to_string() });
    }
}

/// What one commit carries.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<(Write, Waited)>,
    pub(super) tickets: Vec<u64>,
    pub(super) notes: Notes,
    pub(super) closing: bool,
}

pub(super) struct Worker {
    options: Options,
    wrap: Wrap,
    shared: Arc<Shared>,
    /// Directory and lock; `None` while they cannot be had.
    session: Option<Session>,
    /// Where the state lies elsewhere: the lock of home.
    home: Option<Lock>,
    /// What was acknowledged; `None` while the database could not be read.
    rows: Option<Rows>,
    mirror_stale: bool,
    /// When a stale mirror is to be written.
    mirror_due: Option<Instant>,
    /// When the file that was opened is to be written ahead: not while a start needs the disk and the processor.
    ahead_due: Option<Instant>,
    trouble: Option<Unwritten>,
    /// What was found at an opening that nobody waited for any more, until it is told.
    news: Option<Box<Opened>>,
    /// The state is new, and the boot went on before there was a file for it.
    went_on: bool,
    /// The warnings of the last attempt to open, so that they are not repeated with each.
    warned: Vec<String>,
    retry_after: Duration,
    retry_at: Instant,
}

impl Worker {
    pub(super) fn new(options: Options, wrap: Wrap, shared: Arc<Shared>) -> Self {
        Self {
            options,
            wrap,
            shared,
            session: None,
            home: None,
            rows: None,
            mirror_stale: true,
            mirror_due: None,
            ahead_due: None,
            trouble: None,
            news: None,
            went_on: false,
            warned: Vec::new(),
            retry_after: RETRY.0,
            retry_at: monotonic(),
        }
    }

    /// Until the store is closed. The error is what is left unwritten then.
    fn serve(&mut self) -> Result<(), Unwritten> {
        self.boot()?;
        loop {
            let batch = self.next();
            if let Some(ended) = self.turn(batch) {
                return ended;
            }
        }
    }

    /// Does what was asked for. After the last of it, how it ended.
    pub(super) fn turn(&mut self, mut batch: Batch) -> Option<Result<(), Unwritten>> {
        let closing = batch.closing;
        let (before, unasked) = (self.trouble.take(), batch.tickets.is_empty());
        if let Err(bug) = unless_it_panics(|| self.handle(&mut batch, before.is_some())) {
            self.met_a_bug(batch, bug);
        }
        self.report(before.as_ref(), unasked);
        self.shared.state().busy_since = None;
        closing.then(|| {
            // The database is left and the lock given back before anybody is told that we ended.
            self.abandon();
            self.trouble.take().map_or(Ok(()), Err)
        })
    }

    #[cfg(test)]
    pub(super) fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    #[cfg(test)]
    pub(super) fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// Leaves everything as it is.
    pub(super) fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            session.abandon();
        }
        self.home = None;
    }

    /// The first opening. If nobody waits for it any more, its result goes out as an event.
    pub(super) fn boot(&mut self) -> Result<(), OpenError> {
        let result = self.load();
        let failed = result.as_ref().err().cloned();
        {
            let mut state = self.shared.state();
            if matches!(state.boot, Boot::Pending) {
                state.boot = Boot::Done(Box::new(result));
                if failed.is_none() {
                    state.busy_since = None;
                }
                self.shared.changed.notify_all();
                return failed.map_or(Ok(()), Err);
            }
            state.busy_since = None;
        }
        // Too late to refuse to start. It stays volatile, and says why.
        let taken = if self.went_on { self.take_new(result) } else { self.take_late(result) };
        if let Err(reason) = taken {
            self.trouble = Some(reason);
        }
        self.report(None, false);
        Ok(())
    }

    /// Nothing is known in a new state, so nothing has to be waited for: its file is made beside the first starts, and a command
    /// waits for that as for any commit. Five syncs are not in the way of a container's first start then.
    fn go_on_without(&mut self, instance: &str, lies: Option<Lies>, warnings: Vec<String>) {
        let opened = Opened { instance: instance.to_owned(), lies, warnings, ..Opened::default() };
        let mut state = self.shared.state();
        if matches!(state.boot, Boot::Pending) {
            state.boot = Boot::Done(Box::new(Ok(opened)));
            self.went_on = true;
            self.shared.changed.notify_all();
        }
    }

    /// What came of the file of a new state: there is news only of trouble.
    fn take_new(&mut self, result: Result<Opened, OpenError>) -> Result<(), Unwritten> {
        let opened = result?;
        for text in opened.warnings {
            self.tell(StoreEvent::Warning { text });
        }
        opened.volatile.map_or(Ok(()), Err)
    }

    /// What [`super::open`] could not return is news for the loop, once it can be written too: until then it is read
    /// again with each attempt. The error is why it cannot.
    fn take_late(&mut self, result: Result<Opened, OpenError>) -> Result<(), Unwritten> {
        let opened = result.inspect_err(|error| {
            if matches!(error, OpenError::Held { .. }) {
                self.tell(StoreEvent::Held { reason: error.to_string() });
            }
        })?;
        let Some(reason) = opened.volatile.clone() else {
            self.news = Some(Box::new(opened));
            return Ok(());
        };
        self.rows = None;
        if self.warned != opened.warnings {
            for text in &opened.warnings {
                self.tell(StoreEvent::Warning { text: text.clone() });
            }
            self.warned = opened.warnings;
        }
        Err(reason)
    }

    /// Opens and reads everything. Afterwards `session`, `rows` and `trouble` say how far it came.
    fn load(&mut self) -> Result<Opened, OpenError> {
        let mut warnings = Vec::new();
        self.session = None;
        let session = Session::open(&self.options, &mut warnings)?;
        self.shared.locked(Locked::State);
        if self.home.is_none() && locked_dirs(&self.options).len() > 1 {
            self.home = lock_home(&self.options, &mut warnings)?;
        }
        self.shared.locked(Locked::All);
        let (mut lies, mut journal) = (None, Vec::new());
        let loaded = match session {
            Ok(mut session) => {
                lies = session.lies();
                session.note(&self.options.host);
                if self.options.is_init && session.is_new() {
                    self.go_on_without(session.instance(), lies, std::mem::take(&mut warnings));
                }
                let loaded = session.load(&self.wrap, &mut warnings)?;
                journal = session.read_journal(&mut warnings);
                self.session = Some(session);
                loaded
            }
            Err(error) => Loaded {
                rows: Rows { instance: super::session::new_instance(), ..Rows::default() },
                mirrored_at_ms: None,
                mirror_stale: true,
                known: false,
                volatile: Some(DiskError::new(&self.options.dir, &error).into()),
            },
        };
        let mut found = Opened::from_rows(&loaded.rows);
        (found.lies, found.journal) = (lies, journal);
        found.mirrored_at_ms = loaded.mirrored_at_ms;
        found.warnings = warnings;
        found.volatile.clone_from(&loaded.volatile);
        self.rows = loaded.known.then_some(loaded.rows);
        self.trouble = loaded.volatile;
        self.retry_at = monotonic() + self.retry_after;
        self.mirror_stale = loaded.mirror_stale;
        self.ahead_due = Some(monotonic() + LAZY_DELAY);
        if self.trouble.is_none() {
            self.refresh_mirror();
            found.warnings.extend(self.trouble.as_ref().map(Unwritten::to_string));
        }
        Ok(found)
    }

    /// Waits for something to do. Idle without a timeout while nothing is pending and nothing wrong.
    fn next(&self) -> Batch {
        let mut state = self.shared.state();
        loop {
            let due = match self.take(&mut state) {
                Ok(batch) => return batch,
                Err(due) => due,
            };
            state = match due {
                Some(due) => {
                    let wait = due.saturating_duration_since(monotonic());
                    self.shared.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// What there is to do now; else when there will be something, if nobody asks before.
    pub(super) fn take(&self, state: &mut State) -> Result<Batch, Option<Instant>> {
        let (due, now) = (self.due(state), monotonic());
        if !state.closing && state.tickets.is_empty() && due.is_none_or(|due| due > now) {
            return Err(due);
        }
        (state.lazy_since, state.is_urgent) = (None, false);
        state.busy_since = Some(now);
        let writes = std::mem::take(&mut state.pending).into_values().collect();
        let (tickets, notes) = (std::mem::take(&mut state.tickets), std::mem::take(&mut state.notes));
        Ok(Batch { writes, tickets, notes, closing: state.closing })
    }

    /// When there will be something to do that nobody waits for.
    pub(super) fn due(&self, state: &State) -> Option<Instant> {
        if self.trouble.is_some() {
            return Some(self.retry_at);
        }
        let delay = if state.is_urgent { Duration::ZERO } else { LAZY_DELAY };
        let lazy = state.lazy_since.map(|since| since + delay);
        lazy.into_iter().chain(self.mirror_due).chain(self.ahead_due).min()
    }

    /// `again`: something could not be written before.
    fn handle(&mut self, batch: &mut Batch, again: bool) {
        let done = self.reopen().and_then(|()| self.commit(&batch.writes, again));
        match done {
            Ok(()) => {
                for ticket in std::mem::take(&mut batch.tickets) {
                    self.tell(StoreEvent::Committed { ticket });
                }
                self.trouble = None;
                self.mirror_in_time(batch.closing || again);
            }
            Err(reason) => {
                self.refuse(&mut batch.tickets, &reason);
                self.put_back(std::mem::take(&mut batch.writes));
                self.trouble = Some(reason);
            }
        }
        self.keep_notes(std::mem::take(&mut batch.notes));
        if !batch.closing {
            self.write_ahead_in_time();
        }
    }

    fn refuse(&self, tickets: &mut Vec<u64>, reason: &Unwritten) {
        for ticket in std::mem::take(tickets) {
            self.tell(StoreEvent::Failed { ticket, reason: reason.to_string() });
        }
    }

    /// Nothing of the batch counts that was not acknowledged: the file is written anew, with what was. What nobody waited for is
    /// lost with it, as it may be what cannot be borne.
    fn met_a_bug(&mut self, mut batch: Batch, bug: Unwritten) {
        self.session.iter_mut().for_each(Session::distrust);
        self.refuse(&mut batch.tickets, &bug);
        self.trouble = Some(bug);
    }

    /// After an opening that came to nothing: opens again. What is known already is not read: it is put there.
    fn reopen(&mut self) -> Result<(), Unwritten> {
        let Some(rows) = &self.rows else {
            let result = self.load();
            return self.take_late(result);
        };
        if self.session.is_some() {
            return Ok(());
        }
        let mut warnings = Vec::new();
        let made = Session::made_again(&self.options, &rows.instance, &mut warnings);
        if let Err(Unwritten::Open(held @ OpenError::Held { .. })) = &made {
            self.tell(StoreEvent::Held { reason: held.to_string() });
        }
        self.session = Some(made?);
        self.mirror_stale = true;
        warnings.into_iter().for_each(|text| self.tell(StoreEvent::Warning { text }));
        Ok(())
    }

    /// `again`: something could not be written before.
    fn commit(&mut self, writes: &[(Write, Waited)], again: bool) -> Result<(), Unwritten> {
        let (Some(session), Some(rows)) = (&mut self.session, &mut self.rows) else {
            return Err(Unwritten::NotOpen);
        };
        let all = || writes.iter().map(|(write, _)| write);
        let wants_change = all().any(|write| matches!(write, Write::Want(..)));
        let stamp = rows.stamp.saturating_add(u64::from(wants_change));
        let encode = || {
            let mut encoded = all().map(Write::encoded).collect::<Result<Vec<_>, RowError>>()?;
            if wants_change {
                encoded.push(encoded_stamp(stamp)?);
            }
            Ok::<_, RowError>(encoded)
        };
        let encoded = encode()?;
        let after = || {
            let mut after = Rows { stamp, ..rows.clone() };
            all().for_each(|write| after.apply(write.clone()));
            after
        };
        let mut warnings = Vec::new();
        let mut done = session.commit(&self.wrap, &self.options.host, &encoded, &after, &mut warnings);
        // What is acknowledged must be where the next boot looks for it.
        let displaced = match &done {
            Ok(()) => (!encoded.is_empty() || again) && !session.is_in_place(),
            // Another disk may be there by now.
            Err(_) => session.is_displaced(),
        };
        if displaced && session.is_unmounted() {
            done = done.and(Err(Unwritten::Unmounted(self.options.dir.clone())));
        } else if displaced {
            warnings.push(format!(
                "{} was moved or removed while it was in use: it is made again, with all that is known",
                self.options.dir.display()
            ));
            self.session = None;
            done = Session::made_again(&self.options, &rows.instance, &mut warnings).and_then(|session| {
                let session = self.session.insert(session);
                session.commit(&self.wrap, &self.options.host, &encoded, &after, &mut warnings)?;
                let lost = || Unwritten::MovedAgain(self.options.dir.clone());
                session.is_in_place().then_some(()).ok_or_else(lost)
            });
            self.mirror_stale = true;
        }
        if done.is_ok() {
            rows.stamp = stamp;
            all().for_each(|write| rows.apply(write.clone()));
            self.mirror_stale |= wants_change || all().any(|write| matches!(write, Write::Instance(_)));
        }
        for text in warnings {
            self.tell(StoreEvent::Warning { text });
        }
        done
    }

    /// Lazy writes of a failed commit wait for the next one.
    fn put_back(&self, writes: Vec<(Write, Waited)>) {
        let mut state = self.shared.state();
        let left = writes.into_iter().filter_map(|(write, waited)| waited.left(write));
        left.for_each(|write| state.put_back(write));
    }

    /// What cannot be written waits for the next commit.
    fn keep_notes(&self, notes: Notes) {
        let kept = self.session.as_ref().is_some_and(|session| session.write_journal(&notes).is_ok());
        if !kept && !notes.is_empty() {
            self.shared.state().notes.put_back(notes);
        }
    }

    /// Writes the file ahead when its time has come. In trouble it may be another one soon.
    fn write_ahead_in_time(&mut self) {
        if self.trouble.is_none() && self.ahead_due.take_if(|due| *due <= monotonic()).is_some() {
            self.session.iter().for_each(Session::write_ahead);
        }
    }

    /// Brings the mirror up to date when its time has come, or `now`.
    fn mirror_in_time(&mut self, now: bool) {
        if self.mirror_stale {
            let due = *self.mirror_due.get_or_insert_with(|| monotonic() + LAZY_DELAY);
            if now || due <= monotonic() {
                self.refresh_mirror();
            }
        }
    }

    /// Brings the mirror up to date; what hinders it becomes the trouble.
    fn refresh_mirror(&mut self) {
        self.mirror_due = None;
        if let (true, Some(session), Some(rows)) = (self.mirror_stale, &self.session, &self.rows) {
            match session.write_mirror(rows) {
                Ok(()) => self.mirror_stale = false,
                Err(reason) => self.trouble = Some(reason),
            }
        }
    }

    /// Says what is new about trouble, and sets the time of the next attempt.
    fn report(&mut self, before: Option<&Unwritten>, unasked: bool) {
        // News does not wait for the mirror.
        let opened = self.news.take_if(|_| self.session.as_ref().is_some_and(Session::is_open));
        if opened.is_some() || (before.is_some() && self.trouble.is_none()) {
            self.tell(StoreEvent::Recovered { opened });
        }
        let Some(reason) = &self.trouble else { return };
        if before != Some(reason) {
            self.retry_after = RETRY.0;
            self.tell(StoreEvent::Degraded { reason: reason.to_string() });
        } else if unasked {
            self.retry_after = (self.retry_after * 2).min(RETRY.1);
        }
        self.retry_at = monotonic() + self.retry_after;
    }

    fn tell(&self, event: StoreEvent) {
        (self.shared.notify)(event);
    }
}
