//! The pump: one thread that reads all FIFOs and hands lines to the container's streams and to the files thread.
//!
//! Invariants:
//!
//! * It waits for its poll only, and some milliseconds for the container's stream before it drops a line. So neither a disk nor a
//!   reader stops it.
//! * A service whose file is behind is not read (`block`) or loses counted lines (`drop`). No other service notices.
//! * Each turn makes one read of a service.
//! * The beginning of a line is kept back until its end comes, at most [`CARRY_MAX`] bytes.
//!
//! `remote.rs` is how other threads reach it, `source.rs` a service and its two FIFOs, `outlets.rs` where its lines go, `drains.rs`
//! what is read at the end of a life.

mod drains;
mod outlets;
mod remote;
mod source;

use super::backlog::Backlog;
use super::fifo::FifoDir;
use super::split::{CARRY_MAX, Weave};
use super::stamp::Stamp;
use super::stream::Container;
use super::{LogEvent, Notify, SourceId, THREAD_STACK};
use crate::core::farewell::Farewell;
use crate::core::words::Stream;
use drains::{After, Drain};
use foldhash::{HashMap, HashMapExt};
use outlets::Outlets;
pub(super) use remote::{Command, Remote, Watch};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use source::{Side, Source};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Bytes a read: what a pipe holds.
const READ: usize = 64 * 1024;
/// A drain that waits for the disk is given up after this long: `down` is not to wait for a hung volume.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Between attempts to watch what could not be watched.
const WATCH_AGAIN: Duration = Duration::from_millis(100);
const WAKE: u64 = u64::MAX;

/// What the thread has.
pub(super) struct Pump {
    epoll: OwnedFd,
    fifos: FifoDir,
    remote: Arc<Remote>,
    outlets: Outlets,
    notify: Notify,
    /// Boxed: a hash table keeps up to half of its places free.
    sources: HashMap<SourceId, Box<Source>>,
    paused: Vec<SourceId>,
    /// FIFOs that the kernel had no memory to watch.
    unwatched: Vec<(SourceId, Stream)>,
    /// Drains with something left to read.
    drains: Vec<Drain>,
    /// Drains whose mark is on its way through the files thread, in the order in which it takes them. So only the first is
    /// looked at.
    marked: VecDeque<Drain>,
    /// Holds one read, with the beginning of its first line before it.
    buffer: Box<[u8]>,
    finishing: bool,
    /// Who gets the beginnings of lines at the end.
    begun: Option<Sender<(String, [Vec<u8>; 2])>>,
}

impl Pump {
    pub(super) fn new(
        fifos: FifoDir,
        remote: Arc<Remote>,
        backlog: Arc<Backlog>,
        container: Container,
        notify: Notify,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &remote.event, EventData::new_u64(WAKE), EventFlags::IN)?;
        let outlets = Outlets { container, on: true, backlog, stamp: Stamp::default(), dressed: Vec::new() };
        Ok(Self {
            epoll,
            fifos,
            remote,
            outlets,
            notify,
            sources: HashMap::new(),
            paused: Vec::new(),
            unwatched: Vec::new(),
            drains: Vec::new(),
            marked: VecDeque::new(),
            buffer: vec![0; CARRY_MAX + READ].into_boxed_slice(),
            finishing: false,
            begun: None,
        })
    }

    /// Starts the thread; `alive` is dropped at its end.
    pub(super) fn start(mut self, alive: Sender<()>) -> io::Result<()> {
        std::thread::Builder::new().name("log-pump".to_owned()).stack_size(THREAD_STACK).spawn(
            move || {
                let _alive = alive;
                let mut events = Vec::with_capacity(64);
                while self.turn(&mut events, Self::time_left) {}
            },
        )?;
        Ok(())
    }

    /// Waits for something to do, as long as `patience` says if there is nothing now, and does it; false at the end.
    pub(super) fn turn(
        &mut self,
        events: &mut Vec<epoll::Event>,
        patience: impl Fn(&Self) -> Option<Timespec>,
    ) -> bool {
        self.watch_again();
        let room = self.resume();
        let timeout = if room { Some(Timespec::default()) } else { patience(self) };
        events.clear();
        if self.finishing {
            // The drains read what is there now; what comes later is for the next supervisor. The FIFOs stay open: the end
            // of the process closes thousands of them faster.
            let mut wake = [PollFd::new(&self.remote.event, PollFlags::IN)];
            let _ = poll(&mut wake, timeout.as_ref());
            self.obey();
        } else {
            let spare = rustix::buffer::spare_capacity(events);
            let _ = epoll::wait(&self.epoll, spare, timeout.as_ref());
        }
        for event in &*events {
            match event.data.u64() {
                WAKE => self.obey(),
                token => self.readable(token),
            }
        }
        self.advance();
        let goes_on = !(self.finishing && self.drains.is_empty() && self.marked.is_empty());
        if !goes_on {
            self.outlets.backlog.stop();
        }
        goes_on
    }

    /// Carries out what other threads have ordered.
    fn obey(&mut self) {
        for command in self.remote.take() {
            match command {
                Command::Open {
                    id,
                    name,
                    ends: Some(ends),
                    begun,
                    to_container,
                    dress,
                    overflow,
                    shared,
                } => {
                    let [out, err] = begun.map(Side::new);
                    let source = Source {
                        name,
                        shared,
                        ends,
                        to_container,
                        dress,
                        overflow,
                        out,
                        err,
                        weave: Weave::default(),
                        paused: false,
                        lost: 0,
                        watch: None,
                        matched: None,
                    };
                    self.add(id, source);
                }
                Command::Open { id, ends: None, to_container, dress, overflow, .. } => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        (source.to_container, source.overflow) = (to_container, overflow);
                        source.dress = dress;
                    }
                }
                Command::Renew(id, ends) => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        source.ends = ends;
                        self.register(id);
                    }
                }
                Command::Watch(id, watch) => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        source.watch = Some(Box::new(watch));
                    }
                }
                Command::Drain(id) => {
                    self.begin_drain(id, After::Drain, LogEvent::Drained(id), DRAIN_LIMIT);
                }
                Command::Close(id) => self.begin_drain(id, After::Close, LogEvent::Closed(id), DRAIN_LIMIT),
                Command::Retire { id, farewell } => {
                    let source = self.sources.get(&id);
                    // If the disk hangs, unread bytes stay in the FIFO for the shutdown or the next supervisor.
                    let is_over =
                        source.is_some_and(|source| source.ends.are_empty() && !source.is_within_a_line());
                    match (is_over, farewell) {
                        (true, Farewell::Host) => self.remove(id),
                        (true, Farewell::Container) => drop(self.sources.remove(&id)),
                        (false, _) => {}
                    }
                }
                Command::ContainerStream(on) => self.outlets.on = on,
                Command::Finish(limit, begun) => {
                    self.finishing = true;
                    self.begun = begun;
                    for id in self.sources.keys().copied().collect::<Vec<_>>() {
                        self.begin_drain(id, After::Finish, LogEvent::Drained(id), limit);
                    }
                }
            }
        }
    }

    fn add(&mut self, id: SourceId, source: Source) {
        self.sources.insert(id, Box::new(source));
        self.register(id);
    }

    /// Has the FIFOs of a service watched that were not.
    fn register(&mut self, id: SourceId) {
        let Some(source) = self.sources.get(&id) else { return };
        let flags = if source.paused { EventFlags::empty() } else { EventFlags::IN };
        for kind in [Stream::Out, Stream::Err] {
            let data = EventData::new_u64(token(id, kind));
            if let Err(error) = epoll::add(&self.epoll, source.ends.of(kind), data, flags) {
                let text =
                    format!("cannot watch the output of '{}': {error}: it is tried again", source.name);
                (self.notify)(LogEvent::Warning { id: Some(id), text });
                self.unwatched.push((id, kind));
            }
        }
    }

    /// A service whose output nobody reads stands still once its pipe is full.
    fn watch_again(&mut self) {
        let Self { unwatched, sources, epoll, .. } = self;
        unwatched.retain(|(id, kind)| {
            let Some(source) = sources.get(id) else { return false };
            let data = EventData::new_u64(token(*id, *kind));
            let flags = if source.paused { EventFlags::empty() } else { EventFlags::IN };
            epoll::add(epoll.as_fd(), source.ends.of(*kind), data, flags).is_err()
        });
    }

    fn readable(&mut self, token: u64) {
        let (id, kind) = source_of(token);
        let Some(source) = self.sources.get_mut(&id) else { return };
        if source.paused {
            return;
        }
        if source.must_wait(&self.outlets.backlog) {
            self.pause(id);
        } else {
            self.outlets.read(id, source, kind, &mut self.buffer, READ);
            if let Some(incarnation) = source.matched.take() {
                (self.notify)(LogEvent::Matched { id, incarnation });
            }
        }
    }

    fn pause(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id).filter(|source| !source.paused) {
            source.paused = true;
            self.paused.push(id);
            watch(&self.epoll, id, source, EventFlags::empty());
        }
    }

    /// Reads again what there is room for. True when something was resumed.
    fn resume(&mut self) -> bool {
        if self.paused.is_empty() {
            return false;
        }
        // Before looking: a piece written in between would otherwise wake nobody.
        self.outlets.backlog.wake_pump_at_next();
        let before = self.paused.len();
        let Self { paused, sources, outlets, epoll, .. } = self;
        paused.retain(|id| {
            let Some(source) = sources.get_mut(id) else { return false };
            let stays = source.must_wait(&outlets.backlog);
            if !stays {
                source.paused = false;
                watch(epoll, *id, source, EventFlags::IN);
            }
            stays
        });
        self.paused.len() < before
    }

    /// Closing our ends takes them out of the epoll set.
    fn remove(&mut self, id: SourceId) {
        if let Some(source) = self.sources.remove(&id) {
            self.fifos.remove(&source.name);
        }
    }
}

fn watch(epoll: &OwnedFd, id: SourceId, source: &Source, flags: EventFlags) {
    for kind in [Stream::Out, Stream::Err] {
        // Both are registered; what could fail here failed, and was reported, when they were added.
        let _ = epoll::modify(epoll, source.ends.of(kind), EventData::new_u64(token(id, kind)), flags);
    }
}

fn token(id: SourceId, kind: Stream) -> u64 {
    u64::from(id.0) << 1 | u64::from(kind == Stream::Err)
}

fn source_of(token: u64) -> (SourceId, Stream) {
    let kind = if token & 1 == 1 { Stream::Err } else { Stream::Out };
    (SourceId(u32::try_from(token >> 1).unwrap_or(u32::MAX)), kind)
}
