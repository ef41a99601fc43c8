//! The pump: one thread that reads all FIFOs and hands lines to the container's streams and to the files thread.
//!
//! Invariants: it waits for nothing but its poll (and some milliseconds for the container's stream before it drops), so
//! neither a disk nor a reader stops it; a service whose file is
//! behind is not read (`block`) or loses counted lines (`drop`), and no other service notices; one read a service a
//! turn; a beginning of a line is kept back until its end comes, at most [`CARRY_MAX`] bytes.

use super::backlog::{Announce, Backlog, Item};
use super::dress::Dress;
use super::fifo::FifoDir;
use super::split::{CARRY_MAX, Gate, Weave, is_open, ready};
use super::stamp::Stamp;
use super::stream::Container;
use super::{Ends, LogEvent, Notify, Shared, SourceId, THREAD_STACK, lock};
use crate::core::farewell::Farewell;
use crate::core::name::ServiceName;
use crate::core::words::{Overflow, Stream};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes a read: what a pipe holds.
const READ: usize = 64 * 1024;
/// A drain that waits for the disk is given up after this long: `down` is not to wait for a hung volume.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Between attempts to watch what could not be watched.
const WATCH_AGAIN: Duration = Duration::from_millis(100);
const WAKE: u64 = u64::MAX;

#[derive(Debug)]
pub(super) enum Command {
    Open {
        id: SourceId,
        name: ServiceName,
        /// `None` for a service that is open already.
        ends: Option<Arc<Ends>>,
        /// Beginnings of lines that were read before.
        begun: [Vec<u8>; 2],
        to_container: bool,
        dress: Dress,
        overflow: Overflow,
        shared: Arc<Shared>,
    },
    Watch(SourceId, Watch),
    Drain(SourceId),
    Close(SourceId),
    /// Nothing more comes of it.
    Retire {
        id: SourceId,
        farewell: Farewell,
    },
    ContainerStream(bool),
    /// Beginnings of lines go to the sender if there is one, and to their files otherwise.
    Finish(Duration, Option<Sender<(String, [Vec<u8>; 2])>>),
}

/// A line that is waited for.
#[derive(Debug)]
pub(super) struct Watch {
    pub incarnation: u64,
    pub pattern: Arc<regex_lite::Regex>,
}

/// How other threads reach the pump.
#[derive(Debug)]
pub(super) struct Remote {
    letters: Mutex<Letters>,
    event: OwnedFd,
}

#[derive(Debug, Default)]
struct Letters {
    commands: Vec<Command>,
    /// The pump was told of them and has not come yet.
    announced: bool,
}

impl Remote {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { letters: Mutex::default(), event })
    }

    pub(super) fn send(&self, command: Command) {
        self.post(command);
        self.announce();
    }

    /// The same, for when more is to come: the pump is woken by [`Self::announce`].
    pub(super) fn post(&self, command: Command) {
        lock(&self.letters).commands.push(command);
    }

    /// Wakes the pump if it has not heard of everything.
    pub(super) fn announce(&self) {
        let mut letters = lock(&self.letters);
        if !letters.commands.is_empty() && !std::mem::replace(&mut letters.announced, true) {
            drop(letters);
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        // EAGAIN means that 2^64 wake-ups are pending: one is enough.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    fn take(&self) -> Vec<Command> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut *lock(&self.letters)).commands
    }
}

/// Starts the thread; `alive` is dropped at its end.
pub(super) fn start(
    fifos: FifoDir,
    remote: Arc<Remote>,
    backlog: Arc<Backlog>,
    container: Container,
    notify: Notify,
    alive: Sender<()>,
) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &remote.event, EventData::new_u64(WAKE), EventFlags::IN)?;
    let outlets = Outlets { container, on: true, backlog, stamp: Stamp::default(), dressed: Vec::new() };
    let mut pump = Pump {
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
    };
    std::thread::Builder::new().name("log-pump".to_owned()).stack_size(THREAD_STACK).spawn(move || {
        let _alive = alive;
        pump.run();
    })?;
    Ok(())
}

/// What came out of one FIFO.
#[derive(Debug)]
struct Side {
    /// The beginning of a line whose end has not come.
    carry: Vec<u8>,
    /// A piece of a long line has gone on without its end.
    open: bool,
    to_stream: Gate,
    to_file: Gate,
    /// Bytes still to be drained.
    left: usize,
}

impl Side {
    /// A line has begun whose end has not come.
    fn is_within_a_line(&self) -> bool {
        self.open || !self.carry.is_empty()
    }

    fn new(carry: Vec<u8>) -> Self {
        let (to_stream, to_file) = Default::default();
        Self { carry, open: false, to_stream, to_file, left: 0 }
    }
}

#[derive(Debug)]
struct Source {
    name: ServiceName,
    shared: Arc<Shared>,
    ends: Arc<Ends>,
    to_container: bool,
    /// What is made of lines for the container's stream.
    dress: Dress,
    overflow: Overflow,
    out: Side,
    err: Side,
    weave: Weave,
    paused: bool,
    /// Lines left out of the file since the last that went there.
    lost: u64,
    watch: Option<Box<Watch>>,
    /// The life whose line was found, until that is told.
    matched: Option<u64>,
}

impl Source {
    fn side(&mut self, kind: Stream) -> &mut Side {
        match kind {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn is_within_a_line(&self) -> bool {
        self.out.is_within_a_line() || self.err.is_within_a_line()
    }

    fn must_wait(&self, backlog: &Backlog) -> bool {
        self.overflow == Overflow::Block && !backlog.has_room(&self.shared, self.paused)
    }
}

/// Where lines go.
struct Outlets {
    container: Container,
    on: bool,
    backlog: Arc<Backlog>,
    stamp: Stamp,
    /// Of the last lines that were dressed, to be used again.
    dressed: Vec<u8>,
}

impl Outlets {
    fn deliver(&mut self, id: SourceId, source: &mut Source, kind: Stream, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let shared = Arc::clone(&source.shared);
        if source.watch.as_ref().is_some_and(|watch| has_line(data, &watch.pattern)) {
            source.matched = source.watch.take().map(|watch| watch.incarnation);
        }
        self.show(id, source, kind, data);
        let side = source.side(kind);
        let (data, mut lost) = side.to_file.admit(data);
        let full = source.overflow == Overflow::Drop && !self.backlog.has_room(&shared, false);
        if full && !data.is_empty() {
            lost += source.side(kind).to_file.refuse(data);
            source.weave.left_out(kind);
        }
        source.lost += lost;
        shared.dropped_from_file.fetch_add(lost, Ordering::Relaxed);
        if !full && !data.is_empty() {
            let mut lines = self.backlog.buffer();
            source.weave.add(&mut lines, data, kind, &self.stamp.now(kind));
            self.backlog.write(id, &shared, lines, std::mem::take(&mut source.lost));
        }
    }

    /// Puts lines on the container's stream, where they are wanted there.
    fn show(&mut self, id: SourceId, source: &mut Source, kind: Stream, data: &[u8]) {
        let (is_shown, dress) = (source.to_container && self.on, source.dress);
        let Source { name, shared, out, err, .. } = source;
        let side = match kind {
            Stream::Out => out,
            Stream::Err => err,
        };
        let mut goes_on = std::mem::replace(&mut side.open, is_open(data));
        if !is_shown {
            // A line that begins unseen is not continued when the stream is switched on.
            let (data, _) = side.to_stream.admit(data);
            side.to_stream.refuse(data);
            return;
        }
        let color = self.container.has_colors(kind);
        for piece in dress.pieces(data) {
            let shown = dress.put_on(&mut self.dressed, name, piece, kind, goes_on, color);
            let lost = self.container.push_patiently(kind, id, &mut side.to_stream, shown);
            shared.dropped_from_stream.fetch_add(lost, Ordering::Relaxed);
            goes_on = false;
        }
    }

    /// Hands on what is kept back, as a whole line.
    fn flush(&mut self, id: SourceId, source: &mut Source) {
        for kind in [Stream::Out, Stream::Err] {
            let side = source.side(kind);
            if side.is_within_a_line() {
                let mut line = std::mem::take(&mut side.carry);
                line.push(b'\n');
                self.deliver(id, source, kind, &line);
            }
        }
    }

    /// One read of at most `max` bytes; 0 when there was nothing.
    fn read(
        &mut self,
        id: SourceId,
        source: &mut Source,
        kind: Stream,
        buffer: &mut [u8],
        max: usize,
    ) -> usize {
        // Before the FIFO may be seen empty.
        source.shared.in_hand.store(true, Ordering::Release);
        let count = self.take(id, source, kind, buffer, max);
        source.shared.in_hand.store(source.is_within_a_line(), Ordering::Release);
        count
    }

    fn take(
        &mut self,
        id: SourceId,
        source: &mut Source,
        kind: Stream,
        buffer: &mut [u8],
        max: usize,
    ) -> usize {
        let carry = source.side(kind).carry.len();
        let (carried, space) = buffer.split_at_mut(carry);
        carried.copy_from_slice(&source.side(kind).carry);
        let Some(space) = space.get_mut(..max) else { return 0 };
        let count = loop {
            match rustix::io::read(source.ends.of(kind), &mut *space) {
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(_) => break 0,
            }
        };
        if count == 0 {
            return 0;
        }
        let length = carry + count;
        let side = source.side(kind);
        let data = buffer.get(..length).unwrap_or_default();
        let (now, later) = data.split_at(ready(data));
        side.carry.clear();
        side.carry.extend_from_slice(later);
        if side.carry.capacity() > 1024 + 4 * later.len() {
            side.carry.shrink_to_fit();
        }
        self.deliver(id, source, kind, now);
        count
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Drain,
    Close,
    Finish,
}

/// A drain under way.
struct Drain {
    id: SourceId,
    after: After,
    deadline: Instant,
    announce: Announce,
}

struct Pump {
    epoll: OwnedFd,
    fifos: FifoDir,
    remote: Arc<Remote>,
    outlets: Outlets,
    notify: Notify,
    /// Boxed: a hash table keeps up to half of its places free.
    sources: HashMap<SourceId, Box<Source>>,
    paused: Vec<SourceId>,
    /// Those that the kernel had no memory to watch.
    unwatched: Vec<(SourceId, Stream)>,
    /// Those with something left to read.
    drains: Vec<Drain>,
    /// Those whose mark is on its way through the files thread, which takes them in this order. Only the first is
    /// looked at, so a thousand at once cost no more each than one.
    marked: VecDeque<Drain>,
    /// Of one read, with the carried beginning before it.
    buffer: Box<[u8]>,
    finishing: bool,
    /// Who gets the beginnings of lines at the end.
    begun: Option<Sender<(String, [Vec<u8>; 2])>>,
}

impl Pump {
    fn run(&mut self) {
        let mut events = Vec::with_capacity(64);
        while !(self.finishing && self.drains.is_empty() && self.marked.is_empty()) {
            self.watch_again();
            let room = self.resume();
            let timeout = if room { Some(Timespec::default()) } else { self.time_left() };
            events.clear();
            if self.finishing {
                // What is to be read is read by the drains; what comes from now on is the successor's. Thousands of FIFOs
                // are closed by the end of the process, which takes less than doing it here first.
                let mut wake = [PollFd::new(&self.remote.event, PollFlags::IN)];
                let _ = poll(&mut wake, timeout.as_ref());
                self.obey();
            } else {
                let spare = rustix::buffer::spare_capacity(&mut events);
                let _ = epoll::wait(&self.epoll, spare, timeout.as_ref());
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => self.obey(),
                    token => self.readable(token),
                }
            }
            self.advance();
        }
        self.outlets.backlog.stop();
    }

    fn obey(&mut self) {
        for command in self.remote.take() {
            match command {
                Command::Open { id, name, ends, begun, to_container, dress, overflow, shared } => {
                    match ends {
                        Some(ends) => {
                            let [out, err] = begun.map(Side::new);
                            let (weave, paused, lost) = Default::default();
                            let source = Source {
                                name,
                                shared,
                                ends,
                                to_container,
                                dress,
                                overflow,
                                out,
                                err,
                                weave,
                                paused,
                                lost,
                                watch: None,
                                matched: None,
                            };
                            self.add(id, source);
                        }
                        None => {
                            if let Some(source) = self.sources.get_mut(&id) {
                                (source.to_container, source.overflow) = (to_container, overflow);
                                source.dress = dress;
                            }
                        }
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
                    // Of a disk that hangs there may be more: that is for the end, or for a successor.
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
        for kind in [Stream::Out, Stream::Err] {
            let data = EventData::new_u64(token(id, kind));
            if let Err(error) = epoll::add(&self.epoll, source.ends.of(kind), data, EventFlags::IN) {
                let text =
                    format!("cannot watch the output of '{}': {error}: it is tried again", source.name);
                (self.notify)(LogEvent::Warning { id: Some(id), text });
                self.unwatched.push((id, kind));
            }
        }
        self.sources.insert(id, Box::new(source));
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

    fn begin_drain(&mut self, id: SourceId, after: After, event: LogEvent, limit: Duration) {
        let announce = Announce::new(event);
        let Some(source) = self.sources.get_mut(&id) else {
            if announce.claim() {
                (self.notify)(announce.event);
            }
            return;
        };
        for kind in [Stream::Out, Stream::Err] {
            // What the dead have written is in the pipe by now; what a stranger adds is not waited for.
            let there = rustix::io::ioctl_fionread(source.ends.of(kind)).unwrap_or(0);
            source.side(kind).left = usize::try_from(there).unwrap_or(usize::MAX);
        }
        let deadline = Instant::now() + limit;
        self.drains.push(Drain { id, after, deadline, announce });
    }

    fn time_left(&self) -> Option<Timespec> {
        let again = (!self.unwatched.is_empty()).then(|| Instant::now() + WATCH_AGAIN);
        let drains = self.drains.iter().chain(self.marked.front()).map(|drain| drain.deadline);
        let next = drains.chain(again).min()?;
        // Rounded up: a poll that ends too early would find nothing due and spin.
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    /// Takes the drains as far as they go now.
    fn advance(&mut self) {
        for drain in std::mem::take(&mut self.drains) {
            if self.empty(drain.id) {
                self.mark(&drain);
                if drain.after != After::Finish {
                    self.marked.push_back(drain);
                }
            } else if Instant::now() < drain.deadline {
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
            if Instant::now() < drain.deadline {
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

    /// Closing our ends takes them out of the epoll set.
    fn remove(&mut self, id: SourceId) {
        if let Some(source) = self.sources.remove(&id) {
            self.fifos.remove(&source.name);
        }
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
            // With nothing on its way there is nothing to wait for.
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
                // What comes from now on is the successor's to read.
                self.sources.remove(&drain.id);
            }
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

/// Whether a line, or a piece of a long one, matches.
fn has_line(data: &[u8], pattern: &regex_lite::Regex) -> bool {
    data.split(|byte| *byte == b'\n').any(|line| pattern.is_match(&String::from_utf8_lossy(line)))
}
