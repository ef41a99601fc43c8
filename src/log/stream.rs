//! The container's stdout and stderr: a thread and a bounded buffer for each.
//!
//! Invariants: the giver of bytes never waits for the reader; past [`LIMIT`] whole lines are left out of this
//! stream only, counted, and the count is written where they are missing; a line of one writer is not broken by
//! another's (but for lines longer than the pump keeps together). The descriptor's flags are never changed, because
//! the main program shares them: the thread writes with plain blocking calls, and waits for POLLOUT where somebody else
//! made the descriptor non-blocking. A stuck reader therefore holds this thread and nobody else.

use super::busy::Busy;
use super::split::{Gate, count_lines, is_open};
use super::{SourceId, THREAD_STACK, lock};
use crate::core::words::Stream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Bytes a stream holds for a reader that is behind.
const LIMIT: usize = 1 << 20;
/// How long the pump waits for a reader that is alive, once per half of [`LIMIT`] read: on a loaded machine a thread
/// that was not scheduled for a moment is no stuck reader. A stuck one costs this once; a slow one slows what is written
/// to 10 MB/s and no further, the rest is dropped.
const PATIENCE: Duration = Duration::from_millis(50);
/// Buffers above this many bytes are given back when there is nothing more to write.
const KEEP: usize = 192 * 1024;
/// Bytes a write: as much as a pipe holds, so that progress is seen.
const SLICE: usize = 64 * 1024;

/// Who writes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Supervisor,
    Source(SourceId),
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Bytes in the thread's hand.
    writing: usize,
    /// Whose line the last byte of `pending` leaves open, and whether its rest was left out.
    open: Option<(Writer, bool)>,
    /// Lines left out since the last notice, and ever.
    lost: u64,
    lost_ever: u64,
    /// The last write failed: no notice of our own accord.
    broken: bool,
    waiting: bool,
    /// The supervisor is about to say more: its lines wake nobody.
    gathering: bool,
    /// The pump's patience is used up; it comes back when half of the buffer is written.
    impatient: bool,
    stop: bool,
    speaks_json: bool,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
    /// For the pump, when half of the buffer is written.
    room: Condvar,
    busy: Busy,
}

/// Both streams of the container. Clones share them.
#[derive(Debug, Clone)]
pub struct Container {
    streams: Arc<[Output; 2]>,
    /// Which of them are terminals that show colours.
    colors: [bool; 2],
    ended: Arc<Mutex<Receiver<()>>>,
}

/// How one stream of the container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamHealth {
    /// Lines left out since the start, all writers together.
    pub dropped: u64,
    /// How long the write in progress has lasted; `None` when nothing is to be written.
    pub busy: Option<Duration>,
}

impl Container {
    /// Starts the threads that write to descriptors 1 and 2. Signals must be blocked by now: threads inherit the mask.
    ///
    /// # Errors
    /// As pthread_create(3). A closed stdout or stderr is no error: it loses what it is given.
    pub fn start() -> io::Result<Self> {
        let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok();
        Self::on([copy(io::stdout().as_fd()), copy(io::stderr().as_fd())])
    }

    /// As [`Container::start`], with other descriptors for stdout and stderr.
    ///
    /// # Errors
    /// As pthread_create(3).
    pub fn on(sinks: [Option<OwnedFd>; 2]) -> io::Result<Self> {
        let (alive, ended) = channel();
        // no-color.org
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let colors = [0, 1].map(|index| wanted && sinks[index].as_ref().is_some_and(rustix::termios::isatty));
        let streams = Arc::new([Output::default(), Output::default()]);
        for (index, sink) in sinks.into_iter().enumerate() {
            let (streams, alive) = (Arc::clone(&streams), alive.clone());
            std::thread::Builder::new()
                .name(["log-stdout", "log-stderr"].get(index).copied().unwrap_or("log").to_owned())
                .stack_size(THREAD_STACK)
                .spawn(move || {
                    if let Some(stream) = streams.get(index) {
                        stream.run(sink, alive);
                    }
                })?;
        }
        Ok(Self { streams, colors, ended: Arc::new(Mutex::new(ended)) })
    }

    /// Streams that nobody reads and no thread writes.
    #[cfg(test)]
    pub fn mute() -> Self {
        let (_, ended) = channel();
        let streams = Arc::new([Output::default(), Output::default()]);
        Self { streams, colors: [false; 2], ended: Arc::new(Mutex::new(ended)) }
    }

    /// Notices of lines that are missing are JSON documents, as the supervisor's log is.
    pub fn speak_json(&self) {
        self.streams.iter().for_each(|stream| lock(&stream.state).speaks_json = true);
    }

    pub(super) fn has_colors(&self, kind: Stream) -> bool {
        let [out, err] = self.colors;
        match kind {
            Stream::Out => out,
            Stream::Err => err,
        }
    }

    /// Puts whole lines of the supervisor's own on a stream. Never waits.
    pub fn line(&self, kind: Stream, bytes: &[u8]) {
        let stream = self.stream(kind);
        stream.put(lock(&stream.state), Writer::Supervisor, &mut Gate::default(), bytes);
    }

    /// While `on`, lines of the supervisor's own wait until that is over, or one write is full, or for a line of a service: one
    /// turn of the loop may have thousands to say, and each would wake a thread that writes them faster than they come.
    pub fn gather(&self, on: bool) {
        for stream in &*self.streams {
            let mut state = lock(&stream.state);
            state.gathering = on;
            if !state.pending.is_empty() {
                stream.wake(state);
            }
        }
    }

    pub fn health(&self, kind: Stream) -> StreamHealth {
        let stream = self.stream(kind);
        StreamHealth { dropped: lock(&stream.state).lost_ever, busy: stream.busy.so_far() }
    }

    /// Writes out what is there and ends the threads; later lines are lost. Waits `limit` at most.
    ///
    /// Returns whether everything was written.
    pub fn finish(&self, limit: Duration) -> bool {
        for stream in &*self.streams {
            lock(&stream.state).stop = true;
            stream.changed.notify_all();
        }
        // Nobody sends: the channel ends when both threads have.
        lock(&self.ended).recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }

    /// Hands over lines of a service, whose `gate` for this stream it is, and waits for a reader that is a little
    /// behind. Returns how many lines were left out. For the pump's thread only.
    pub(super) fn push_patiently(&self, kind: Stream, id: SourceId, gate: &mut Gate, bytes: &[u8]) -> u64 {
        let stream = self.stream(kind);
        let mut state = lock(&stream.state);
        if state.is_full(bytes) && !state.impatient {
            let full = |state: &mut State| state.is_full(bytes) && !state.stop;
            let waited = stream.room.wait_timeout_while(state, PATIENCE, full);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.impatient = timeout.timed_out();
        }
        stream.put(state, Writer::Source(id), gate, bytes)
    }

    fn stream(&self, kind: Stream) -> &Output {
        let [out, err] = &*self.streams;
        match kind {
            Stream::Out => out,
            Stream::Err => err,
        }
    }
}

impl State {
    fn is_full(&self, more: &[u8]) -> bool {
        self.pending.len() + self.writing + more.len() > LIMIT
    }

    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        self.lost_ever += lines;
    }

    fn append(&mut self, writer: Writer, bytes: &[u8]) {
        if self.open.is_some_and(|(open, torn)| torn || open != writer) {
            self.pending.push(b'\n');
            self.open = None;
        }
        // Not in the middle of a line that goes on.
        if self.lost > 0 && self.open.is_none() {
            self.notice();
        }
        self.pending.extend_from_slice(bytes);
        self.open = is_open(bytes).then_some((writer, false));
    }

    fn notice(&mut self) {
        if self.open.take().is_some() {
            self.pending.push(b'\n');
        }
        let lost = mem::take(&mut self.lost);
        let text = format!("lines dropped here: {lost} (the reader was behind)");
        let line = match self.speaks_json {
            true => {
                let time = humantime::format_rfc3339_millis(SystemTime::now());
                format!("{{\"time\":\"{time}\",\"level\":\"warning\",\"message\":\"{text}\"}}\n")
            }
            false => format!("hermes-sup: {text}\n"),
        };
        self.pending.extend_from_slice(line.as_bytes());
    }
}

impl Output {
    fn put(&self, mut state: MutexGuard<'_, State>, writer: Writer, gate: &mut Gate, bytes: &[u8]) -> u64 {
        let (bytes, mut lost) = gate.admit(bytes);
        let full = state.stop || state.is_full(bytes);
        if full {
            lost += gate.refuse(bytes);
            if let Some((open, torn)) = &mut state.open {
                *torn |= *open == writer;
            }
        }
        state.lose(lost);
        if !full && !bytes.is_empty() {
            state.append(writer, bytes);
            if writer != Writer::Supervisor || !state.gathering || state.pending.len() > SLICE {
                self.wake(state);
            }
        }
        lost
    }

    /// The lock is given back first: who wakes up wants it. Who was woken is not woken again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakes = mem::take(&mut state.waiting);
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
    }

    fn run(&self, sink: Option<OwnedFd>, _alive: Sender<()>) {
        let mut buffer = Vec::new();
        while self.take(&mut buffer) {
            let mut done = 0;
            while let Some(slice) = buffer.get(done..).filter(|rest| !rest.is_empty()) {
                self.busy.begin();
                let slice = slice.get(..SLICE).unwrap_or(slice);
                match sink.as_ref().ok_or(Errno::BADF).and_then(|sink| write_some(sink, slice)) {
                    Ok(count) => done += count,
                    Err(_) => break,
                }
                self.progress(buffer.len() - done);
            }
            self.busy.end();
            let mut state = lock(&self.state);
            let rest = buffer.get(done..).unwrap_or_default();
            state.broken = !rest.is_empty();
            state.lose(count_lines(rest));
            state.writing = 0;
            drop(state);
            buffer.clear();
        }
    }

    fn progress(&self, left: usize) {
        let mut state = lock(&self.state);
        state.writing = left;
        if state.pending.len() + left <= LIMIT / 2 {
            state.impatient = false;
            self.room.notify_one();
        }
    }

    /// Waits for something to write and exchanges it for the empty `buffer`; false at the end.
    fn take(&self, buffer: &mut Vec<u8>) -> bool {
        let mut state = lock(&self.state);
        loop {
            let within_a_line = state.open.is_some_and(|(_, torn)| !torn);
            if state.pending.is_empty() && state.lost > 0 && !state.broken && !within_a_line {
                state.notice();
            }
            if !state.pending.is_empty() {
                mem::swap(&mut state.pending, buffer);
                state.writing = buffer.len();
                return true;
            }
            if state.stop {
                return false;
            }
            for idle in [&mut *buffer, &mut state.pending] {
                if idle.capacity() > KEEP {
                    *idle = Vec::new();
                }
            }
            state.waiting = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting = false;
        }
    }
}

fn write_some(sink: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::write(sink, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::from_borrowed_fd(sink.as_fd(), PollFlags::OUT)];
                let _ = poll(&mut ready, None);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    fn pipes() -> (Container, [std::io::PipeReader; 2]) {
        let (out, out_end) = std::io::pipe().unwrap();
        let (err, err_end) = std::io::pipe().unwrap();
        (Container::on([Some(out_end.into()), Some(err_end.into())]).unwrap(), [out, err])
    }

    const ONE: SourceId = SourceId(1);
    const TWO: SourceId = SourceId(2);

    #[test]
    fn behind_a_stuck_reader_lines_are_dropped_there_only_and_counted_where_they_are_missing() {
        let (container, [out, err]) = pipes();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let mut gate = Gate::default();
        let mut given = 0u64;
        while container.health(Stream::Out).dropped < 10 {
            container.push_patiently(Stream::Out, ONE, &mut gate, &line);
            given += 1;
        }
        container.line(Stream::Err, b"still here\n");
        let mut text = String::new();
        let mut err = BufReader::new(err);
        err.read_line(&mut text).unwrap();
        assert_eq!(text, "still here\n");
        assert!(container.health(Stream::Out).busy.is_some());

        // The reader comes back: all that was accepted, then the count, without another line being needed.
        let mut lines = BufReader::new(out).lines();
        let mut whole = 0u64;
        let notice = loop {
            let text = lines.next().unwrap().unwrap();
            if text.starts_with("hermes-sup: ") {
                break text;
            }
            assert_eq!(text.len(), 999);
            whole += 1;
        };
        assert_eq!(notice, "hermes-sup: lines dropped here: 10 (the reader was behind)");
        assert_eq!(whole + 10, given);
        container.push_patiently(Stream::Out, ONE, &mut gate, b"after\n");
        assert_eq!(lines.next().unwrap().unwrap(), "after");
        assert!(container.finish(Duration::from_secs(10)));
    }

    #[test]
    fn lines_of_two_writers_are_not_mixed_and_a_cut_line_is_ended() {
        let (container, [mut out, _err]) = pipes();
        let (mut a, mut b) = (Gate::default(), Gate::default());
        container.push_patiently(Stream::Out, ONE, &mut a, b"one ");
        container.push_patiently(Stream::Out, ONE, &mut a, b"line\nopen");
        container.push_patiently(Stream::Out, TWO, &mut b, b"other\n");
        container.push_patiently(Stream::Out, ONE, &mut a, b"rest");
        // Full for this piece: the rest of the line stays away, up to its end.
        container.push_patiently(Stream::Out, ONE, &mut a, &vec![b'y'; LIMIT + 1]);
        container.push_patiently(Stream::Out, ONE, &mut a, b"yy\nnext\n");
        assert!(container.finish(Duration::from_secs(10)));
        drop(container);
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        let notice = "hermes-sup: lines dropped here: 1 (the reader was behind)";
        assert_eq!(text, format!("one line\nopen\nother\nrest\n{notice}\nnext\n"));
    }

    #[test]
    fn own_lines_that_are_gathered_come_together_and_a_services_do_not_wait_for_them() {
        let (container, [out, err]) = pipes();
        let is_silent = |pipe: &std::io::PipeReader| {
            let mut ready = [PollFd::new(pipe, PollFlags::IN)];
            rustix::event::poll(&mut ready, Some(&rustix::event::Timespec::default())) == Ok(0)
        };
        let waits = |kind| lock(&container.stream(kind).state).waiting;
        while !waits(Stream::Err) || !waits(Stream::Out) {
            std::thread::yield_now();
        }
        container.gather(true);
        container.line(Stream::Err, b"one\n");
        container.line(Stream::Err, b"two\n");
        assert!(waits(Stream::Err) && is_silent(&err));
        container.push_patiently(Stream::Out, ONE, &mut Gate::default(), b"service\n");
        let (mut out, mut err) = (BufReader::new(out), BufReader::new(err));
        let mut text = String::new();
        out.read_line(&mut text).unwrap();
        assert_eq!(text, "service\n");
        container.gather(false);
        err.read_line(&mut text).unwrap();
        err.read_line(&mut text).unwrap();
        assert_eq!(text, "service\none\ntwo\n");
        // At the end nothing is kept back.
        container.gather(true);
        container.line(Stream::Err, b"three\n");
        assert!(container.finish(Duration::from_secs(10)));
        err.read_line(&mut text).unwrap();
        assert!(text.ends_with("three\n"));
    }

    #[test]
    fn a_reader_that_is_gone_holds_nobody_and_the_end_comes() {
        let (container, [out, _err]) = pipes();
        drop(out);
        container.line(Stream::Out, b"into the void\n");
        assert!(container.finish(Duration::from_secs(10)));
        assert_eq!(container.health(Stream::Out).dropped, 1);
    }

    #[test]
    fn a_non_blocking_descriptor_loses_nothing_and_stays_as_it_is() {
        let (mut out, out_end) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&out_end, true).unwrap();
        let shared = out_end.try_clone().unwrap();
        let container = Container::on([Some(out_end.into()), None]).unwrap();
        let data = [&[b'z'; 4095][..], b"\n"].concat().repeat(256);
        container.line(Stream::Out, &data);
        let mut seen = vec![0; data.len()];
        out.read_exact(&mut seen).unwrap();
        assert!(seen == data);
        let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        assert!(container.finish(Duration::from_secs(10)));
    }
}
