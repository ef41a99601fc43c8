//! Drains: what is in the pipes of a service is read to its end, and told when it is in the file.
//!
//! A drain is in `drains` while there is something left to read, and in `marked` while its mark is on its way through the files
//! thread. A drain whose time is over is announced with a warning.

use super::{Pump, READ, WATCH_AGAIN};
use crate::core::words::Stream;
use crate::log::backlog::{Announce, Item};
use crate::log::{LogEvent, SourceId};
use crate::sys::time::monotonic;
use rustix::event::Timespec;
use std::time::{Duration, Instant};

/// What comes after a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The service goes on.
    Drain,
    /// Its FIFOs and its file are closed.
    Close,
    /// The pump ends.
    Finish,
}

/// A drain under way.
pub(super) struct Drain {
    id: SourceId,
    after: After,
    deadline: Instant,
    announce: Announce,
}

impl Pump {
    /// Notes how much is in the pipes now. That is read by [`Pump::advance`]; `event` tells when it is done, or after `limit`.
    pub(super) fn begin_drain(&mut self, id: SourceId, after: After, event: LogEvent, limit: Duration) {
        let announce = Announce::new(event);
        let Some(source) = self.sources.get_mut(&id) else {
            if announce.claim() {
                (self.notify)(announce.event);
            }
            return;
        };
        for kind in [Stream::Out, Stream::Err] {
            // What ended processes have written is in the pipe by now. What others add is not waited for.
            let there = rustix::io::ioctl_fionread(source.ends.of(kind)).unwrap_or(0);
            source.side(kind).left = usize::try_from(there).unwrap_or(usize::MAX);
        }
        let deadline = monotonic() + limit;
        self.drains.push(Drain { id, after, deadline, announce });
    }

    /// How long the poll may wait: until the next drain is due, or what could not be watched is tried again.
    pub(super) fn time_left(&self) -> Option<Timespec> {
        let again = (!self.unwatched.is_empty()).then(|| monotonic() + WATCH_AGAIN);
        let drains = self.drains.iter().chain(self.marked.front()).map(|drain| drain.deadline);
        let next = drains.chain(again).min()?;
        // Rounded up: a poll that ends too early would find nothing due and spin.
        let wait = next.saturating_duration_since(monotonic()) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    /// When the first drain is given up.
    #[cfg(test)]
    pub(in crate::log) fn deadline(&self) -> Option<Instant> {
        self.drains.iter().chain(self.marked.front()).map(|drain| drain.deadline).min()
    }

    /// Takes the drains as far as they go now.
    pub(super) fn advance(&mut self) {
        for drain in std::mem::take(&mut self.drains) {
            if self.empty(drain.id) {
                self.mark(&drain);
                if drain.after != After::Finish {
                    self.marked.push_back(drain);
                }
            } else if monotonic() < drain.deadline {
                self.drains.push(drain);
            } else {
                if drain.after != After::Drain {
                    self.mark(&drain);
                }
                self.give_up(&drain);
            }
        }
        while let Some(drain) = self.marked.pop_front() {
            if drain.announce.is_done() {
                continue;
            }
            if monotonic() < drain.deadline {
                self.marked.push_front(drain);
                return;
            }
            self.give_up(&drain);
        }
    }

    /// Announces a drain that the files thread has not come to.
    fn give_up(&self, drain: &Drain) {
        if drain.after != After::Finish && drain.announce.claim() {
            let text = "the disk under the log does not keep up: the last output is not in its file yet";
            (self.notify)(LogEvent::Warning { id: Some(drain.id), text: text.to_owned() });
            (self.notify)(drain.announce.event.clone());
        }
    }

    /// Reads what is to be drained; false when it has to wait for the files thread.
    fn empty(&mut self, id: SourceId) -> bool {
        let Some(source) = self.sources.get_mut(&id) else { return true };
        for kind in [Stream::Out, Stream::Err] {
            while source.side(kind).left > 0 {
                if source.must_wait(&self.outlets.backlog) {
                    self.pause(id);
                    return false;
                }
                let max = source.side(kind).left.min(READ);
                let count = self.outlets.read(id, source, kind, &mut self.buffer, max);
                let side = source.side(kind);
                side.left = if count == 0 { 0 } else { side.left.saturating_sub(count) };
            }
        }
        true
    }

    /// Nothing more of this service comes before its mark.
    fn mark(&mut self, drain: &Drain) {
        if let Some(source) = self.sources.get_mut(&drain.id) {
            if let (After::Finish, Some(begun)) = (drain.after, &self.begun) {
                // Of a line so long that a piece of it is in the file already, the rest is a line of its own.
                let carried = [&mut source.out, &mut source.err]
                    .map(|side| if side.open { Vec::new() } else { std::mem::take(&mut side.carry) });
                let _ = begun.send((source.name.to_string(), carried));
            }
            self.outlets.flush(drain.id, source);
        }
        let announce = drain.announce.clone();
        match drain.after {
            // Nothing is on its way to the file.
            After::Drain if self.sources.get(&drain.id).is_none_or(|source| source.shared.is_written()) => {
                if announce.claim() {
                    (self.notify)(announce.event);
                }
            }
            After::Drain => self.outlets.backlog.push(Item::Mark(announce)),
            After::Close => {
                self.remove(drain.id);
                self.outlets.backlog.push(Item::Close(drain.id, announce));
            }
            After::Finish => {
                // What comes from now on is for the next supervisor.
                self.sources.remove(&drain.id);
            }
        }
    }
}
