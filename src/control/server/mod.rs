//! The server's end of the control socket: listener, connections, and the bytes between them and the daemon.
//!
//! Driven by the daemon's loop, never blocks, and every part is bounded so that no client can hold up another or
//! fill the memory:
//!
//! * one request of a connection is answered before the next is read, and one wake-up reads at most one frame of it;
//! * an answer that nobody reads is kept up to [`MAX_OUTPUT`] bytes, all together up to [`MAX_ALL_OUTPUT`]; then the
//!   connection is dropped;
//! * a stream loses parts where its reader is slow, and says how many: at most [`STREAM_OUTPUT`] bytes wait for it (`streams`);
//! * [`MAX_CONNECTIONS`] at once, [`MAX_PER_UID`] of each unprivileged uid, [`RESERVED`] for the operator. A newcomer takes the place of the
//!   connection that has been without a request for the longest time, then that of the oldest stream, which is told so; one
//!   with a command under way is never taken.
//!
//! Nothing here knows who may do what: it reads the peer's credentials at accept and hands them out.

mod admission;
mod connection;
mod listener;
#[cfg(test)]
mod stream_tests;
mod streams;
#[cfg(test)]
mod tests;

pub use crate::sys::peer::Peer;
pub use admission::{MAX_CONNECTIONS, MAX_PER_UID, RESERVED};
pub use listener::ListenError;
pub use streams::{ALL_STREAMS_OUTPUT, STREAM_OUTPUT, STREAM_SHARE};

use super::codec::MAX_FRAME;
use super::protocol::{Answer, Part, Reply, Request};
use crate::core::clock::Tick;
use crate::sys::pidfd::Pidfd;
use connection::{Connection, Next, Phase};
use listener::Listener;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Bytes of an answer that wait for one client.
pub const MAX_OUTPUT: usize = 4 << 20;
/// Bytes of all answers that wait for their clients.
pub const MAX_ALL_OUTPUT: usize = 16 << 20;
/// Open files that wait for their callers, all together.
pub const MAX_FILES: usize = 256;
/// An answer in many parts is sent in pieces of about this many bytes.
const PIECE: usize = MAX_FRAME;
/// The slot that stands for the listener in tokens; its generation is 0.
pub const LISTENER_SLOT: u32 = 0;

/// One connection, for as long as it lives: slots are used again, with another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub slot: u32,
    pub generation: u32,
}

/// What a wake-up said about one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    pub readable: bool,
    pub writable: bool,
    /// The other end is closed in both directions.
    pub hung_up: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Self {
        // mio: write_closed is EPOLLHUP (or an error); read_closed alone is a half-closed peer that still reads.
        Self {
            readable: event.is_readable(),
            writable: event.is_writable(),
            hung_up: event.is_write_closed(),
        }
    }
}

/// A request that waits for its answer: any number of parts, then an end, through [`Server::reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub id: ConnId,
    pub peer: Peer,
    pub request: Request,
}

/// A connection on its way from one server to the next.
#[derive(Debug)]
pub struct Carried {
    /// What it was called by the first of them.
    pub id: ConnId,
    pub stream: OwnedFd,
    /// It is owed an answer, of this kind.
    pub answering: Option<Answer>,
    /// It is to be closed once everything is sent.
    pub closing: bool,
    /// What came and was not looked at yet.
    pub input: Vec<u8>,
    /// What is still to be sent.
    pub output: Vec<u8>,
}

#[derive(Debug)]
pub struct Server {
    listener: Listener,
    own_uid: u32,
    token_for: fn(u32, u32) -> Token,
    /// Slot n is at n - 1.
    slots: Vec<Slot>,
    gone: Vec<ConnId>,
    abandoned: Vec<Abandoned>,
    /// Streams with something new to send.
    fresh: Vec<ConnId>,
    /// Counts what happens, to order connections by their silence without a clock.
    tick: u64,
    /// accept(2) failed: to be tried again when a connection ends, or at the time beside it. What waits already gives no other
    /// edge.
    accept_again: bool,
    accept_at: Option<Tick>,
    /// Why somebody was not let in, until it is told.
    turned_away: Option<Errno>,
}

/// A caller whose answer was cut short from this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    pub peer: Peer,
    /// As it continues "its answer was cut short: …".
    pub why: String,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Server {
    /// Makes the socket, as [`Listener::bind`] does.
    ///
    /// # Errors
    /// [`ListenError`], each with what to do.
    pub fn listen(path: &Path, mode: u32) -> Result<Self, ListenError> {
        Listener::bind(path, mode).map(Self::of)
    }

    /// Goes on with what an earlier server handed over, at the socket that it made.
    ///
    /// # Errors
    /// [`ListenError::Io`]: the socket's file is gone.
    pub fn resume(path: &Path, listener: OwnedFd) -> Result<Self, ListenError> {
        Listener::resume(path, listener).map(Self::of)
    }

    fn of(listener: Listener) -> Self {
        Self {
            listener,
            own_uid: rustix::process::geteuid().as_raw(),
            token_for: |slot, _| Token(slot as usize),
            slots: Vec::new(),
            gone: Vec::new(),
            abandoned: Vec::new(),
            fresh: Vec::new(),
            tick: 0,
            accept_again: false,
            accept_at: None,
            turned_away: None,
        }
    }

    /// Gives everything away: the listener and each connection. The socket stays where it is.
    ///
    /// # Errors
    /// As fcntl(2), F_DUPFD_CLOEXEC.
    pub fn hand_over(mut self) -> io::Result<(OwnedFd, Vec<Carried>)> {
        let listener = self.listener.give_away()?;
        let slots = std::mem::take(&mut self.slots);
        let carried = slots.into_iter().zip(1..).filter_map(|(slot, number)| {
            let mut connection = slot.connection?;
            connection.tell_lost();
            let _ = connection.send();
            Some(Carried {
                id: ConnId { slot: number, generation: slot.generation },
                answering: (connection.phase == Phase::Answering).then_some(connection.answer),
                closing: connection.phase == Phase::Closing,
                input: connection.input.unread().to_owned(),
                output: connection.output.split_off(connection.sent),
                stream: connection.stream,
            })
        });
        Ok((listener, carried.collect()))
    }

    /// Takes a connection that was handed over. One that was owed an answer still is: its number comes back.
    pub fn take_over(&mut self, registry: &Registry, carried: Carried) -> Option<ConnId> {
        let Carried { stream, input, output, answering, closing, .. } = carried;
        let id = self.admit(registry, stream)?;
        let connection = self.connection(id)?;
        let _all = connection.input.push(&input);
        connection.output = output;
        connection.phase = match (answering, closing) {
            (Some(answer), _) => {
                connection.answer = answer;
                Phase::Answering
            }
            (None, true) => Phase::Closing,
            // Also looks whether a next request is here already.
            (None, false) => Phase::Flushing,
        };
        self.flush(registry, id);
        answering.map(|_| id)
    }

    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Puts the listener into the loop. `token_for` makes the token of a slot and its generation.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn register(&mut self, registry: &Registry, token_for: fn(u32, u32) -> Token) -> io::Result<()> {
        self.token_for = token_for;
        let token = token_for(LISTENER_SLOT, 0);
        registry.register(&mut SourceFd(&self.listener.as_raw_fd()), token, Interest::READABLE)
    }

    /// Works on what became ready, and adds each complete request to `out`. Errors of the protocol are answered
    /// here; an event for a connection that is gone is ignored.
    pub fn ready(
        &mut self,
        registry: &Registry,
        slot: u32,
        generation: u32,
        readiness: Readiness,
        out: &mut Vec<Incoming>,
    ) {
        if slot == LISTENER_SLOT {
            self.accept(registry);
            return;
        }
        let id = ConnId { slot, generation };
        let Some(connection) = self.connection(id) else { return };
        if readiness.writable {
            connection.is_blocked = false;
            self.flush(registry, id);
        }
        let may_read = readiness.readable || readiness.writable || readiness.hung_up;
        if may_read && let Some(connection) = self.connection(id) {
            let (next, request) = connection.read();
            let peer = connection.peer;
            if let Some(request) = request {
                out.push(Incoming { id, peer, request });
            }
            match next {
                Next::Keep => self.flush(registry, id),
                Next::Drop => self.drop_connection(registry, id),
            }
        }
        // No later edge would tell of it. A request that came with it has been handed out and is carried out.
        if readiness.hung_up {
            self.drop_connection(registry, id);
        }
        if self.accept_again {
            self.accept(registry);
        }
    }

    /// When [`Self::pass_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.accept_at
    }

    /// Tries again to take those who wait, a while after that failed. Returns why it failed, once.
    pub fn pass_time(&mut self, registry: &Registry, now: Tick) -> Option<Errno> {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.accept(registry);
        }
        self.accept_at =
            self.accept_again.then(|| self.accept_at.unwrap_or_else(|| now.after(admission::PAUSE)));
        self.turned_away.take()
    }

    /// Adds `reply` to the answer of the request under way. A connection that is gone, or has no request under way,
    /// is ignored.
    pub fn reply(&mut self, registry: &Registry, id: ConnId, reply: &Reply) {
        let tick = self.next_tick();
        let last = !matches!(reply, Reply::Part(_));
        let Some(connection) = self.connection(id).filter(|c| c.phase == Phase::Answering) else { return };
        if connection.is_stream() && !last {
            return self.stream(&[id], reply);
        }
        connection.tell_lost();
        connection.say(reply);
        if last {
            connection.phase = Phase::Flushing;
            connection.silent_since = tick;
        }
        let awaited = connection.answer == Answer::Outcomes;
        if last || awaited || connection.unsent() >= PIECE {
            self.flush(registry, id);
        }
        self.bound_output(registry);
    }

    /// Adds a part that comes with an open file. What waits of those is bounded: the connection is dropped otherwise.
    pub fn reply_with(&mut self, registry: &Registry, id: ConnId, part: &Part, file: OwnedFd) {
        let waiting: usize = self.live().map(|(_, connection)| connection.files()).sum();
        let Some(connection) = self.connection(id).filter(|c| c.phase == Phase::Answering) else { return };
        if waiting >= MAX_FILES {
            return self.abandon(registry, id, "too many open files wait for their readers".to_owned());
        }
        connection.say_with(&Reply::Part(part.clone()), file);
        self.flush(registry, id);
        self.bound_output(registry);
    }

    /// Who is at the other end. `None`: nobody any more.
    pub fn peer(&mut self, id: ConnId) -> Option<Peer> {
        self.connection(id).map(|connection| connection.peer)
    }

    /// The process at the other end, for a request that is about the caller itself. `None`: it or its connection is gone.
    pub fn peer_process(&mut self, id: ConnId) -> Option<Pidfd> {
        crate::sys::peer::process(&self.connection(id)?.stream).ok()
    }

    /// Sends what can be sent at once, closes every connection, and removes the socket.
    pub fn close(&mut self) {
        for mut connection in std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.connection) {
            if connection.is_stream() {
                connection.tell_lost();
                connection.say(&Reply::End);
            }
            let _ = connection.send();
        }
        self.listener.remove();
    }

    /// The connections that ended while their request was under way, each once.
    pub fn take_gone(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.gone)
    }

    /// Those whose answer was cut short since it was last asked.
    pub fn take_abandoned(&mut self) -> Vec<Abandoned> {
        std::mem::take(&mut self.abandoned)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

impl Server {
    fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut((id.slot as usize).checked_sub(1)?)?;
        slot.connection.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn live(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.slots.iter().zip(1..).filter_map(|(slot, number)| {
            let id = ConnId { slot: number, generation: slot.generation };
            slot.connection.as_ref().map(|connection| (id, connection))
        })
    }

    /// Sends what can be sent, and sees that the next edge comes for what cannot.
    fn flush(&mut self, registry: &Registry, id: ConnId) {
        let token = (self.token_for)(id.slot, id.generation);
        let Some(connection) = self.connection(id) else { return };
        if connection.is_blocked
            || connection.phase == Phase::Listening
            || (connection.phase == Phase::Answering && connection.unsent() == 0)
        {
            return;
        }
        let mut interest = Interest::READABLE;
        let mut sent = connection.send();
        // There is room again for a reader that was slow.
        if connection.unsent() == 0 && connection.tell_lost() && sent.is_ok() {
            sent = connection.send();
        }
        if let Err(error) = sent {
            return match error {
                Errno::PIPE | Errno::CONNRESET => self.drop_connection(registry, id),
                _ => self.abandon(registry, id, format!("it cannot be sent: {error}")),
            };
        }
        if connection.unsent() > 0 {
            interest |= Interest::WRITABLE;
            connection.is_blocked = true;
        } else {
            match connection.phase {
                Phase::Listening | Phase::Answering => {}
                Phase::Closing => return self.drop_connection(registry, id),
                Phase::Flushing => {
                    connection.phase = Phase::Listening;
                    // A next request may be here already. It waits for the next wake-up, so that a client with many
                    // does not keep the loop: a socket that can be written to gives an edge at once.
                    if !connection.input.is_empty() {
                        interest |= Interest::WRITABLE;
                    }
                }
            }
        }
        // Registering again also brings back an edge for bytes that arrived while nothing was read.
        let registered = registry.reregister(&mut SourceFd(&connection.stream.as_raw_fd()), token, interest);
        if let Err(error) = registered {
            self.abandon(registry, id, format!("it cannot be watched: {error}"));
        }
    }

    fn bound_output(&mut self, registry: &Registry) {
        let (mut all, mut largest) = (0, None);
        for (id, connection) in self.live() {
            all += connection.unsent();
            largest = largest.max(Some((connection.unsent(), id.slot, id.generation)));
        }
        if let Some((bytes, slot, generation)) = largest
            && (bytes > MAX_OUTPUT || all > MAX_ALL_OUTPUT)
        {
            let id = ConnId { slot, generation };
            self.abandon(registry, id, format!("{bytes} bytes of it were not read"));
        }
    }

    /// Drops a connection that its client has not left. What it is owed is told to nobody.
    fn abandon(&mut self, registry: &Registry, id: ConnId, why: String) {
        let Some(connection) = self.connection(id) else { return };
        let peer = connection.peer;
        if connection.is_owed() {
            self.abandoned.push(Abandoned { peer, why });
        }
        self.drop_connection(registry, id);
    }

    fn drop_connection(&mut self, registry: &Registry, id: ConnId) {
        if self.connection(id).is_none() {
            return;
        }
        let Some(connection) = self.slots[id.slot as usize - 1].connection.take() else { return };
        let _ = registry.deregister(&mut SourceFd(&connection.stream.as_raw_fd()));
        if connection.phase == Phase::Answering {
            self.gone.push(id);
        }
    }
}
