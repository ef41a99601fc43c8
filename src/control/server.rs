//! The server's end of the control socket: listener, connections, and the bytes between them and the daemon.
//!
//! Driven by the daemon's loop, never blocks, and every part is bounded so that no client can hold up another or
//! fill the memory:
//!
//! * one request of a connection is answered before the next is read, and one wake-up reads at most one frame of it;
//! * an answer that nobody reads is kept up to [`MAX_OUTPUT`] bytes, all together up to [`MAX_ALL_OUTPUT`]; then the
//!   connection is dropped;
//! * [`MAX_CONNECTIONS`] at once, [`MAX_PER_UID`] of each unprivileged uid, [`RESERVED`] for the operator. A newcomer takes the place of the
//!   connection that has been without a request for the longest time; one with a command under way is never taken.
//!
//! Nothing here knows who may do what: it reads the peer's credentials at accept and hands them out.

use super::codec::{self, FrameBuffer, MAX_FRAME};
use super::protocol::{Answer, Code, Outcome, Part, Refusal, RefusalKind, Reply, Request};
pub use crate::sys::peer::Peer;
use crate::sys::pidfd::Pidfd;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub const MAX_CONNECTIONS: usize = 256;
/// Of [`MAX_CONNECTIONS`], those that only root and our own uid may take: an operator always gets in.
pub const RESERVED: usize = 32;
pub const MAX_PER_UID: usize = 64;
/// Bytes of an answer that wait for one client.
pub const MAX_OUTPUT: usize = 4 << 20;
/// Bytes of all answers that wait for their clients.
pub const MAX_ALL_OUTPUT: usize = 16 << 20;
/// An answer in many parts is sent in pieces of about this many bytes.
const PIECE: usize = MAX_FRAME;
/// Connections taken in one wake-up.
const ACCEPTS: usize = 64;

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
    /// It is owed an answer.
    pub answering: bool,
    /// It is to be closed once everything is sent.
    pub closing: bool,
    /// What came and was not looked at yet.
    pub input: Vec<u8>,
    /// What is still to be sent.
    pub output: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("a supervisor already answers at {0}: stop it, or choose another place with --socket")]
    InUse(PathBuf),
    #[error("{0} is in the way and is not a socket: remove it, or choose another place with --socket")]
    NotASocket(PathBuf),
    #[error("{0} is too long for a socket (107 bytes): choose a shorter place with --socket")]
    TooLong(PathBuf),
    #[error("failed to listen at {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    path: PathBuf,
    /// Device and inode of the socket's file: only what we made is removed.
    file: (u64, u64),
    own_uid: u32,
    token_for: fn(u32, u32) -> Token,
    /// Slot n is at n - 1.
    slots: Vec<Slot>,
    gone: Vec<ConnId>,
    /// Counts what happens, to order connections by their silence without a clock.
    tick: u64,
    /// accept(2) failed for want of descriptors: to be tried again when a connection ends.
    accept_again: bool,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: OwnedFd,
    peer: Peer,
    input: FrameBuffer,
    output: Vec<u8>,
    sent: usize,
    phase: Phase,
    /// Of the request that is with the daemon.
    answer: Answer,
    /// When it was accepted or its last answer ended, in ticks.
    silent_since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Reads, until there is a whole request.
    Listening,
    /// A request is with the daemon; nothing is read meanwhile.
    Answering,
    /// The answer is complete but not sent; nothing is read meanwhile.
    Flushing,
    /// Closed as soon as the last words are sent.
    Closing,
}

/// What is to become of a connection after it was worked on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Keep,
    Drop,
}

impl Server {
    /// Makes the socket at `path` with exactly `mode`, after a look at whether somebody answers there already: a
    /// socket that nobody serves is replaced.
    ///
    /// Changes the process's umask for the moment of bind(2): to be called before there are other threads.
    ///
    /// # Errors
    /// [`ListenError`], each with what to do.
    pub fn listen(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let failed = |errno: Errno| ListenError::Io { path: path.to_owned(), source: errno.into() };
        let address = SocketAddrUnix::new(path).map_err(|_| ListenError::TooLong(path.to_owned()))?;
        make_room(path, &address)?;
        let listener = stream_socket().map_err(failed)?;
        // The kernel takes the mode of the socket's file from the socket itself, less the umask (Linux since 2.6;
        // net/unix/af_unix.c, unix_bind_bsd). A chmod by path afterwards could be led astray by a planted link.
        rustix::fs::fchmod(&listener, Mode::from_raw_mode(mode)).map_err(failed)?;
        let bound = {
            // Two that borrow it at once would leave it borrowed.
            static UMASK: Mutex<()> = Mutex::new(());
            let _one_at_a_time = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
            let umask = rustix::process::umask(Mode::empty());
            let bound = rustix::net::bind(&listener, &address);
            rustix::process::umask(umask);
            bound
        };
        match bound {
            Err(Errno::ADDRINUSE) => return Err(ListenError::InUse(path.to_owned())),
            other => other.map_err(failed)?,
        }
        let file = identity(path).map_err(failed)?;
        rustix::net::listen(&listener, 128).map_err(failed)?;
        Ok(Self::of(path, listener, file))
    }

    /// Goes on with what an earlier server handed over, at the socket that it made.
    ///
    /// # Errors
    /// [`ListenError::Io`]: the socket's file is gone.
    pub fn resume(path: &Path, listener: OwnedFd) -> Result<Self, ListenError> {
        let file = identity(path)
            .map_err(|errno| ListenError::Io { path: path.to_owned(), source: errno.into() })?;
        Ok(Self::of(path, listener, file))
    }

    fn of(path: &Path, listener: OwnedFd, file: (u64, u64)) -> Self {
        Self {
            listener,
            path: path.to_owned(),
            file,
            own_uid: rustix::process::geteuid().as_raw(),
            token_for: |slot, _| Token(slot as usize),
            slots: Vec::new(),
            gone: Vec::new(),
            tick: 0,
            accept_again: false,
        }
    }

    /// Gives everything away: the listener and each connection. The socket stays where it is.
    ///
    /// # Errors
    /// As fcntl(2), F_DUPFD_CLOEXEC.
    pub fn hand_over(mut self) -> io::Result<(OwnedFd, Vec<Carried>)> {
        let listener = self.listener.try_clone()?;
        // What is not ours any more is not removed.
        self.file = (0, 0);
        let slots = std::mem::take(&mut self.slots);
        let carried = slots.into_iter().zip(1..).filter_map(|(slot, number)| {
            let mut connection = slot.connection?;
            let _ = connection.send();
            Some(Carried {
                id: ConnId { slot: number, generation: slot.generation },
                answering: connection.phase == Phase::Answering,
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
            (true, _) => Phase::Answering,
            (false, true) => Phase::Closing,
            // Also looks whether a next request is here already.
            (false, false) => Phase::Flushing,
        };
        self.flush(registry, id);
        answering.then_some(id)
    }

    pub fn path(&self) -> &Path {
        &self.path
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
        if self.connection(id).is_none() {
            return;
        }
        if readiness.writable {
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

    /// Adds `reply` to the answer of the request under way. A connection that is gone, or has no request under way,
    /// is ignored.
    pub fn reply(&mut self, registry: &Registry, id: ConnId, reply: &Reply) {
        let tick = self.next_tick();
        let Some(connection) = self.connection(id).filter(|c| c.phase == Phase::Answering) else { return };
        connection.say(reply);
        let last = !matches!(reply, Reply::Part(_));
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

    /// Who is at the other end. `None`: nobody any more.
    pub fn peer(&mut self, id: ConnId) -> Option<Peer> {
        self.connection(id).map(|connection| connection.peer)
    }

    /// The process at the other end, for a request that is about the caller itself. `None`: it or its connection is gone.
    pub fn peer_process(&mut self, id: ConnId) -> Option<Pidfd> {
        crate::sys::peer::process(&self.connection(id)?.stream).ok()
    }

    /// The connections that ended while their request was under way, each once.
    pub fn take_gone(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.gone)
    }
}

impl Drop for Server {
    /// Sends what can be sent at once, closes everything and removes the socket.
    fn drop(&mut self) {
        for connection in self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut()) {
            let _ = connection.send();
        }
        if identity(&self.path) == Ok(self.file) {
            let _ = rustix::fs::unlink(&self.path);
        }
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

    fn accept(&mut self, registry: &Registry) {
        self.accept_again = false;
        for _ in 0..ACCEPTS {
            match retry_on_intr(|| {
                rustix::net::accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
            }) {
                Ok(stream) => drop(self.admit(registry, stream)),
                Err(Errno::AGAIN) => return,
                // Gone before we came: the next one.
                Err(Errno::CONNABORTED) => {}
                Err(_) => {
                    // Out of descriptors or memory. Whoever says nothing makes room, else it is tried again when a
                    // connection ends.
                    match self.longest_silent(|_| true) {
                        Some(id) => self.drop_connection(registry, id),
                        None => {
                            self.accept_again = true;
                            return;
                        }
                    }
                }
            }
        }
        // There may be more, and other work first: registering again gives another edge if so.
        let token = (self.token_for)(LISTENER_SLOT, 0);
        let _ = registry.reregister(&mut SourceFd(&self.listener.as_raw_fd()), token, Interest::READABLE);
    }

    fn admit(&mut self, registry: &Registry, stream: OwnedFd) -> Option<ConnId> {
        let peer = crate::sys::peer::credentials(&stream).ok()?;
        let privileged = peer.uid == 0 || peer.uid == self.own_uid;
        let same = |other: &Connection| other.peer.uid == peer.uid;
        let limit = if privileged { MAX_CONNECTIONS } else { MAX_CONNECTIONS - RESERVED };
        let live = || self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        let victim = if !privileged && live().filter(|c| same(c)).count() >= MAX_PER_UID {
            Some(self.longest_silent(same))
        } else if live().count() >= limit {
            Some(self.longest_silent(|_| true))
        } else {
            None
        };
        match victim {
            Some(Some(id)) => self.drop_connection(registry, id),
            Some(None) => {
                let refusal =
                    Refusal::new(RefusalKind::Busy, "too many commands are under way: try again later");
                if let Ok(frame) = codec::encode_reply(&Reply::Refused(refusal)) {
                    let _ = rustix::net::send(&stream, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                }
                return None;
            }
            None => {}
        }
        let index = self.slots.iter().position(|slot| slot.connection.is_none()).unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let silent_since = self.next_tick();
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let token = (self.token_for)(index as u32 + 1, slot.generation);
        if registry.register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE).is_err() {
            return None;
        }
        slot.connection = Some(Connection {
            stream,
            peer,
            input: FrameBuffer::default(),
            output: Vec::new(),
            sent: 0,
            phase: Phase::Listening,
            // Also that of a connection which is handed over with a request.
            answer: Answer::Outcomes,
            silent_since,
        });
        Some(ConnId { slot: index as u32 + 1, generation: slot.generation })
    }

    fn longest_silent(&self, eligible: impl Fn(&Connection) -> bool) -> Option<ConnId> {
        self.live()
            .filter(|(_, connection)| connection.phase != Phase::Answering && eligible(connection))
            .min_by_key(|(_, connection)| connection.silent_since)
            .map(|(id, _)| id)
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
        if connection.phase == Phase::Listening
            || (connection.phase == Phase::Answering && connection.unsent() == 0)
        {
            return;
        }
        let mut interest = Interest::READABLE;
        if connection.send() == Next::Drop {
            return self.drop_connection(registry, id);
        }
        if connection.unsent() > 0 {
            interest |= Interest::WRITABLE;
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
        if registered.is_err() {
            self.drop_connection(registry, id);
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
            self.drop_connection(registry, ConnId { slot, generation });
        }
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

impl Connection {
    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads until there is a whole request, at most one frame's worth.
    fn read(&mut self) -> (Next, Option<Request>) {
        if self.phase != Phase::Listening {
            return (Next::Keep, None);
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.input.next_frame() {
                Ok(Some(frame)) => {
                    let decoded = codec::decode_request(frame);
                    self.input.release();
                    return match decoded {
                        Ok(request) => {
                            (self.phase, self.answer) = (Phase::Answering, request.verb().answer);
                            (Next::Keep, Some(request))
                        }
                        Err(refusal) => (self.refuse(refusal), None),
                    };
                }
                Ok(None) => {}
                Err(codec::TooLarge) => return (self.refuse(codec::too_large()), None),
            }
            let want = chunk.len().min(self.input.room());
            match retry_on_intr(|| rustix::io::read(&self.stream, &mut chunk[..want])) {
                Ok(0) => return (Next::Drop, None),
                Ok(got) => {
                    let taken = self.input.push(&chunk[..got]);
                    debug_assert_eq!(taken, got, "no more was read than there was room for");
                }
                Err(Errno::AGAIN) => return (Next::Keep, None),
                Err(_) => return (Next::Drop, None),
            }
        }
    }

    /// Answers an error of the protocol, after which nothing more is read from this client.
    fn refuse(&mut self, refusal: Refusal) -> Next {
        self.say(&Reply::Refused(refusal));
        self.phase = Phase::Closing;
        Next::Keep
    }

    fn say(&mut self, reply: &Reply) {
        let frame = codec::encode_reply(reply).or_else(|refusal| {
            // What cannot be told (a path that is not UTF-8, say) must not hide the rest of the answer.
            codec::encode_reply(&match reply {
                Reply::Part(part) => {
                    let message = format!("a part of the answer is missing: {refusal}");
                    Reply::Part(Part::Outcome(Outcome::failed(part.name(), Code::Failed, None, message)))
                }
                Reply::End | Reply::Refused(_) => Reply::Refused(refusal),
            })
        });
        if let Ok(frame) = frame {
            self.output.extend_from_slice(&frame);
        }
    }

    fn send(&mut self) -> Next {
        while self.unsent() > 0 {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match retry_on_intr(|| rustix::net::send(&self.stream, &self.output[self.sent..], flags)) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => break,
                Err(_) => return Next::Drop,
            }
        }
        if self.unsent() == 0 {
            (self.output, self.sent) = (Vec::new(), 0);
        } else if self.sent > PIECE {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Next::Keep
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// Removes a socket that nobody serves.
fn make_room(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let failed = |errno: Errno| ListenError::Io { path: path.to_owned(), source: errno.into() };
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = stream_socket().map_err(failed)?;
    match rustix::net::connect(&probe, address) {
        // A full backlog is somebody, too.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse(path.to_owned())),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(failed),
        Err(errno) => Err(failed(errno)),
    }
}

fn identity(path: &Path) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::codec::{decode_reply, encode_request};
    use crate::control::protocol::{State, Targets, samples};
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server, its loop, and the clients of one test, in one thread: turns of the loop are taken by the test.
    struct Stage {
        server: Server,
        poll: mio::Poll,
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    fn token(slot: u32, generation: u32) -> Token {
        Token((slot as usize) << 32 | generation as usize)
    }

    impl Stage {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            let poll = mio::Poll::new().unwrap();
            let mut server = Server::listen(&path, 0o666).unwrap();
            server.register(poll.registry(), token).unwrap();
            Self { server, poll, path, _dir: dir }
        }

        fn client(&self) -> UnixStream {
            let stream = UnixStream::connect(&self.path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream
        }

        /// One wake-up of the loop, if anything happens within `wait`.
        fn turn(&mut self, wait: Duration) -> (usize, Vec<Incoming>) {
            let mut events = mio::Events::with_capacity(64);
            self.poll.poll(&mut events, Some(wait)).unwrap();
            let mut out = Vec::new();
            for event in &events {
                let (slot, generation) = ((event.token().0 >> 32) as u32, event.token().0 as u32);
                self.server.ready(self.poll.registry(), slot, generation, event.into(), &mut out);
            }
            (events.iter().count(), out)
        }

        /// Takes turns until `done`, which sees the requests so far.
        fn until(&mut self, mut done: impl FnMut(&Server, &[Incoming]) -> bool) -> Vec<Incoming> {
            let end = Instant::now() + PATIENCE;
            let mut all = Vec::new();
            while !done(&self.server, &all) {
                assert!(Instant::now() < end, "nothing came of it: {all:?}");
                all.extend(self.turn(Duration::from_millis(100)).1);
            }
            all
        }

        fn request(&mut self) -> Incoming {
            self.until(|_, all| !all.is_empty()).remove(0)
        }

        /// Takes turns as long as something happens at once.
        fn settle(&mut self) -> Vec<Incoming> {
            let mut all = Vec::new();
            loop {
                let (events, out) = self.turn(Duration::ZERO);
                all.extend(out);
                if events == 0 {
                    return all;
                }
            }
        }

        fn reply(&mut self, id: ConnId, reply: Reply) {
            self.server.reply(self.poll.registry(), id, &reply);
        }

        fn connections(&self) -> usize {
            self.server.live().count()
        }
    }

    fn list() -> Vec<u8> {
        encode_request(&Request::List {}).unwrap()
    }

    fn name(text: &str) -> Reply {
        Reply::Part(Part::Name(text.to_owned()))
    }

    /// Reads one answer to its end.
    fn answer(stream: &mut UnixStream) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let mut frame = Vec::new();
            let mut byte = [0];
            loop {
                stream.read_exact(&mut byte).unwrap();
                if byte[0] == 0 {
                    break;
                }
                frame.push(byte[0]);
            }
            let reply = decode_reply(&frame).unwrap();
            let last = !matches!(reply, Reply::Part(_));
            replies.push(reply);
            if last {
                return replies;
            }
        }
    }

    fn is_closed(stream: &mut UnixStream) -> bool {
        match stream.read(&mut [0; 16]) {
            Ok(got) => got == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    #[test]
    fn a_request_is_handed_out_with_its_caller_and_answered() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        for round in ["a", "b"] {
            client.write_all(&list()).unwrap();
            let incoming = stage.request();
            assert_eq!(incoming.request, Request::List {});
            assert_eq!(incoming.peer.uid, rustix::process::geteuid().as_raw());
            assert_eq!(incoming.peer.pid, Some(std::process::id()));
            stage.reply(incoming.id, name(round));
            stage.reply(incoming.id, Reply::End);
            stage.reply(incoming.id, name("after the end"));
            assert_eq!(answer(&mut client), [name(round), Reply::End]);
        }
        drop(client);
        stage.until(|server, _| server.live().count() == 0);
        assert_eq!(stage.server.take_gone(), [], "nothing was under way");
    }

    #[test]
    fn results_of_a_verb_arrive_one_by_one() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        client.write_all(&encode_request(&Request::Stop { targets: Targets::All }).unwrap()).unwrap();
        let id = stage.request().id;
        let first = Reply::Part(Part::Outcome(Outcome::done("a", State::Down, None)));
        stage.reply(id, first.clone());
        let mut got = [0; 500];
        let size = client.read(&mut got).unwrap();
        assert_eq!(decode_reply(&got[..size - 1]), Ok(first), "before the end of the answer");
    }

    #[test]
    fn a_request_in_single_bytes_and_two_in_one_piece() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        for byte in list() {
            assert_eq!(stage.settle(), []);
            client.write_all(&[byte]).unwrap();
        }
        let id = stage.request().id;
        stage.reply(id, Reply::End);
        answer(&mut client);

        client.write_all(&[list(), list()].concat()).unwrap();
        let id = stage.request().id;
        assert_eq!(stage.settle(), [], "the second waits for the answer of the first");
        stage.reply(id, name("first"));
        stage.reply(id, Reply::End);
        let id = stage.request().id;
        stage.reply(id, name("second"));
        stage.reply(id, Reply::End);
        assert_eq!(answer(&mut client), [name("first"), Reply::End]);
        assert_eq!(answer(&mut client), [name("second"), Reply::End]);
    }

    #[test]
    fn what_came_during_an_answer_is_read_after_it() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let id = stage.request().id;
        client.write_all(&list()).unwrap();
        assert_eq!(stage.settle(), []);
        stage.reply(id, Reply::End);
        stage.request();
    }

    #[test]
    fn garbage_is_answered_in_one_line_and_closed() {
        let mut stage = Stage::new();
        for (bytes, kind) in [
            (&b"GET / HTTP/1.1\r\n\r\n\0"[..], RefusalKind::Malformed),
            (b"\0", RefusalKind::Malformed),
            (b"\xff\xfe\0", RefusalKind::Malformed),
            (b"{\"method\":\"halt\"}\0", RefusalKind::UnknownMethod),
            (b"{\"version\":9,\"method\":\"list\"}\0", RefusalKind::WrongVersion),
        ] {
            let mut client = stage.client();
            client.write_all(bytes).unwrap();
            assert_eq!(stage.until(|server, _| server.tick > 0 && server.live().count() == 0), []);
            let replies = answer(&mut client);
            assert!(matches!(&replies[..], [Reply::Refused(refusal)] if refusal.kind == kind), "{replies:?}");
            assert!(is_closed(&mut client));
            stage.server.tick = 0;
        }
    }

    #[test]
    fn ten_megabytes_are_refused_after_the_first_64_kib() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        let writer = std::thread::spawn(move || {
            let written = client.write_all(&vec![b'x'; 10 << 20]);
            (client, written)
        });
        assert_eq!(stage.until(|server, _| server.tick > 0 && server.live().count() == 0), []);
        let (mut client, written) = writer.join().unwrap();
        assert!(written.is_err(), "the server went on reading");
        let replies = answer(&mut client);
        assert!(
            matches!(&replies[..], [Reply::Refused(refusal)] if refusal.kind == RefusalKind::TooLarge),
            "{replies:?}"
        );
    }

    #[test]
    fn five_hundred_silent_clients_do_no_harm() {
        let mut stage = Stage::new();
        let mut waiting = stage.client();
        waiting.write_all(&list()).unwrap();
        let waiting_id = stage.request().id;
        let mut silent = Vec::new();
        for _ in 0..500 {
            silent.push(stage.client());
            stage.settle();
        }
        assert_eq!(stage.connections(), MAX_CONNECTIONS);
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let id = stage.request().id;
        stage.reply(id, Reply::End);
        assert_eq!(answer(&mut client), [Reply::End]);
        stage.reply(waiting_id, Reply::End);
        assert_eq!(
            answer(&mut waiting),
            [Reply::End],
            "a command under way is not taken for a silent client"
        );
        assert!(is_closed(&mut silent[0]), "the longest silent one made room");
        let newest = silent.last_mut().unwrap();
        newest.write_all(&list()).unwrap();
        stage.request();
    }

    #[test]
    fn when_all_have_commands_under_way_a_newcomer_is_told_so() {
        let mut stage = Stage::new();
        let mut busy = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut client = stage.client();
            client.write_all(&list()).unwrap();
            busy.push((stage.request().id, client));
        }
        let mut client = stage.client();
        stage.settle();
        assert_eq!(
            answer(&mut client),
            [Reply::Refused(Refusal::new(
                RefusalKind::Busy,
                "too many commands are under way: try again later"
            ))]
        );
        assert!(is_closed(&mut client));
    }

    #[test]
    fn a_slow_reader_gets_its_whole_answer_and_holds_up_nobody() {
        let mut stage = Stage::new();
        let mut slow = stage.client();
        slow.write_all(&list()).unwrap();
        let id = stage.request().id;
        let parts = 2000;
        let service = Reply::Part(Part::Service(Box::new(samples::service("coder"))));
        for _ in 0..parts {
            stage.reply(id, service.clone());
        }
        stage.reply(id, Reply::End);

        let mut other = stage.client();
        other.write_all(&list()).unwrap();
        let other_id = stage.request().id;
        stage.reply(other_id, Reply::End);
        assert_eq!(answer(&mut other), [Reply::End]);
        assert_eq!(stage.settle(), [], "an unread answer does not keep the loop awake");

        slow.write_all(&list()).unwrap();
        let reader = std::thread::spawn(move || {
            let replies = answer(&mut slow);
            (slow, replies)
        });
        let next = stage.request().id;
        let (mut slow, replies) = reader.join().unwrap();
        assert_eq!(replies.len(), parts + 1);
        stage.reply(next, Reply::End);
        assert_eq!(answer(&mut slow), [Reply::End]);
    }

    #[test]
    fn an_answer_that_nobody_reads_is_bounded() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let id = stage.request().id;
        let part = name(&"x".repeat(50_000));
        for _ in 0..200 {
            stage.reply(id, part.clone());
            let held: usize = stage.server.live().map(|(_, connection)| connection.output.capacity()).sum();
            assert!(held <= 3 * MAX_OUTPUT, "{held}");
        }
        assert_eq!(stage.connections(), 0);
        assert_eq!(stage.server.take_gone(), [id]);
    }

    #[test]
    fn a_half_closed_client_is_still_answered() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let id = stage.request().id;
        stage.settle();
        assert_eq!(stage.server.take_gone(), []);
        stage.reply(id, name("a"));
        stage.reply(id, Reply::End);
        assert_eq!(answer(&mut client), [name("a"), Reply::End]);
        stage.until(|server, _| server.live().count() == 0);
        assert!(is_closed(&mut client));
    }

    #[test]
    fn a_client_that_hangs_up_is_reported_and_its_slot_is_another() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let old = stage.request().id;
        drop(client);
        stage.until(|server, _| server.live().count() == 0);
        assert_eq!(stage.server.take_gone(), [old]);

        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let new = stage.request().id;
        assert_eq!(new.slot, old.slot);
        stage.reply(old, name("for the one before"));
        stage.reply(old, Reply::End);
        stage.reply(new, Reply::End);
        assert_eq!(answer(&mut client), [Reply::End]);
        let stale = Readiness { readable: true, writable: true, hung_up: true };
        let mut out = Vec::new();
        stage.server.ready(stage.poll.registry(), old.slot, old.generation, stale, &mut out);
        assert_eq!(
            (stage.connections(), out),
            (1, vec![]),
            "an event of the one before is nothing to this one"
        );
    }

    #[test]
    fn a_request_whose_sender_left_at_once_is_still_carried_out() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        let stop = Request::Stop { targets: Targets::All };
        client.write_all(&encode_request(&stop).unwrap()).unwrap();
        drop(client);
        let incoming = stage.request();
        assert_eq!(incoming.request, stop);
        stage.until(|server, _| server.live().count() == 0);
        assert_eq!(stage.server.take_gone(), [incoming.id]);
    }

    #[test]
    fn a_part_that_cannot_be_told_does_not_hide_the_rest() {
        let mut stage = Stage::new();
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let id = stage.request().id;
        let mut service = samples::service("coder");
        // Of a reason there would be the beginning.
        service.definition = Some("x".repeat(MAX_FRAME));
        stage.reply(id, Reply::Part(Part::Service(Box::new(service))));
        stage.reply(id, name("b"));
        stage.reply(id, Reply::End);
        let replies = answer(&mut client);
        assert!(
            matches!(&replies[..], [Reply::Part(Part::Outcome(outcome)), b, Reply::End]
                if outcome.name == "coder" && !outcome.ok && *b == name("b")),
            "{replies:?}"
        );
    }

    #[test]
    fn the_socket_has_the_mode_asked_for_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o666, 0o660] {
            let path = dir.path().join(format!("{mode:o}"));
            let server = Server::listen(&path, mode).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            drop(server);
            assert!(!path.exists());
        }
    }

    #[test]
    fn only_a_socket_that_nobody_serves_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Server::listen(&path, 0o600).unwrap();
        let error = Server::listen(&path, 0o600).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)));
        assert_eq!(
            error.to_string(),
            format!(
                "a supervisor already answers at {}: stop it, or choose another place with --socket",
                path.display()
            )
        );
        // As after a crash: the socket's file is left, and nobody listens.
        let mut crashed = first;
        crashed.file = (0, 0);
        drop(crashed);
        assert!(path.exists());
        let second = Server::listen(&path, 0o600).unwrap();

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop(second);
        assert!(path.exists(), "what is not ours stays");
        assert!(matches!(Server::listen(&path, 0o600), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");

        let long = dir.path().join("x".repeat(108));
        assert!(matches!(Server::listen(&long, 0o600), Err(ListenError::TooLong(_))));
        assert!(matches!(Server::listen(&dir.path().join("no/s"), 0o600), Err(ListenError::Io { .. })));
    }

    /// Needs root, to let a thread be somebody else.
    #[test]
    fn an_unprivileged_user_takes_only_its_share() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut stage = Stage::new();
        let dir = stage.path.parent().unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut operator = stage.client();
        stage.settle();
        let path = stage.path.clone();
        let _crowd = std::thread::spawn(move || {
            let somebody = rustix::process::Uid::from_raw(54321);
            rustix::thread::set_thread_res_uid(somebody, somebody, somebody).unwrap();
            (0..MAX_PER_UID + 20).map(|_| UnixStream::connect(&path).unwrap()).collect::<Vec<_>>()
        })
        .join()
        .unwrap();
        stage.settle();
        let of = |stage: &Stage, uid| stage.server.live().filter(|(_, c)| c.peer.uid == uid).count();
        assert_eq!((of(&stage, 54321), of(&stage, 0)), (MAX_PER_UID, 1));
        operator.write_all(&list()).unwrap();
        assert_eq!(stage.request().peer.uid, 0);
    }
}
