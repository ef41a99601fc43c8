//! The files thread: takes the backlog's work in order and may wait for a disk as long as it takes.

use super::backlog::{Announce, Backlog, Item, Work};
use super::logfile::{LogFile, Way};
use super::stamp::Stamp;
use super::{LogEvent, Notify, SourceId, THREAD_STACK};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Log files held open at a time. The others are opened again at their next line.
const OPEN_MAX: usize = 64;

pub(super) struct Files {
    backlog: Arc<Backlog>,
    notify: Notify,
    logs: HashMap<SourceId, Box<LogFile>>,
    /// Those that may be open, [`OPEN_MAX`] at most, the one written to last at the end.
    open: Vec<SourceId>,
    /// Those that may have no file yet: it is made when there is nothing else to do, or when there is something to write.
    bare: VecDeque<SourceId>,
    /// The way there, while one is made after the other.
    way: Option<Way>,
    stamp: Stamp,
}

impl Files {
    pub(super) fn new(backlog: Arc<Backlog>, notify: Notify) -> Self {
        let (logs, open, bare, way, stamp) = Default::default();
        Self { backlog, notify, logs, open, bare, way, stamp }
    }

    /// Starts the thread; `alive` is dropped at its end.
    pub(super) fn start(mut self, alive: Sender<()>) -> io::Result<()> {
        std::thread::Builder::new().name("log-files".to_owned()).stack_size(THREAD_STACK).spawn(
            move || {
                let _alive = alive;
                while self.turn(Backlog::next) {}
            },
        )?;
        Ok(())
    }

    /// One piece of work, as `next` gives it; false at the end.
    pub(super) fn turn(&mut self, next: impl Fn(&Backlog, bool) -> Work) -> bool {
        match next(&self.backlog, !self.bare.is_empty()) {
            Work::Item(item) => self.process(item),
            Work::Spare => self.prepare_one(),
            Work::End => return false,
        }
        true
    }

    fn process(&mut self, item: Item) {
        self.way = None;
        match item {
            Item::Open(id, mut log) => {
                if let Some(old) = self.logs.remove(&id) {
                    log.succeed(*old);
                }
                self.logs.insert(id, log);
                self.bare.push_back(id);
            }
            Item::Write { id, bytes, lost } => self.write(id, bytes, lost),
            Item::Mark(announce) => self.announce(&announce),
            Item::Close(id, announce) => {
                self.logs.remove(&id);
                self.announce(&announce);
            }
            Item::Run(job) => {
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    let text = "a bug ended some work on files; the thread goes on".to_owned();
                    (self.notify)(LogEvent::Warning { id: None, text });
                }
            }
        }
    }

    fn prepare_one(&mut self) {
        if let Some(id) = self.bare.pop_front()
            && let Some(log) = self.logs.get_mut(&id)
        {
            let warning = log.prepare(&mut self.way);
            self.warn(id, warning);
        }
        if self.bare.is_empty() {
            (self.bare, self.way) = Default::default();
        }
    }

    fn write(&mut self, id: SourceId, bytes: Vec<u8>, lost: u64) {
        self.make_room(id);
        let Some(log) = self.logs.get_mut(&id) else { return };
        let warning = log.write(&bytes, lost, &mut self.stamp);
        // Before the bytes count as written, after which a drain may be announced.
        self.warn(id, warning);
        if let Some(log) = self.logs.get(&id) {
            self.backlog.written(log.shared(), bytes);
        }
    }

    /// Closes the file that was not used for longest when too many are open.
    fn make_room(&mut self, id: SourceId) {
        if self.open.last() == Some(&id) {
            return;
        }
        self.open.retain(|open| *open != id);
        if self.open.len() == OPEN_MAX
            && let Some(log) = self.logs.get_mut(&self.open.remove(0))
        {
            log.rest();
        }
        self.open.push(id);
    }

    fn announce(&self, announce: &Announce) {
        if announce.claim() {
            (self.notify)(announce.event.clone());
            self.backlog.wake_pump();
        }
    }

    fn warn(&self, id: SourceId, text: Option<String>) {
        if let Some(text) = text {
            (self.notify)(LogEvent::Warning { id: Some(id), text });
        }
    }
}
