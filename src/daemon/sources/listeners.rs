//! The descriptors over which services report: pipes that they were given, notify sockets, and watches of gateways' state files.
//!
//! What a report means is the matter of `topics::readiness`. A listener is ours from the spawn until the report, the end of the
//! file, or the end of that life; a service that is ready costs nothing more.

use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::core::notify::Message;
use crate::daemon::Supervisor;
use crate::daemon::inbox::Input;
use crate::daemon::sources::readiness_token;
use crate::daemon::topics::readiness::Heard;
use crate::daemon::view::decide;
use crate::hermes::state_watch::StateWatch;
use crate::sys::datagram::{self, Sender};
use crate::sys::spawn::plan::Pass;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Bytes of one message on a notify socket.
const DATAGRAM: usize = 4096;
/// Messages of one service that are taken in a row.
const DATAGRAMS: usize = 16;

/// Where the report of one life comes from.
#[derive(Debug)]
enum Source {
    /// The reading end of the service's pipe.
    Pipe(OwnedFd),
    StateFile(StateWatch),
    /// Our end of the service's notify socket.
    Notify(OwnedFd),
}

impl Source {
    fn fd(&self) -> i32 {
        match self {
            Self::Pipe(fd) | Self::Notify(fd) => fd.as_raw_fd(),
            Self::StateFile(watch) => watch.as_fd().as_raw_fd(),
        }
    }

    /// What there is to hear now, if anything.
    fn hear(&self) -> Option<Heard> {
        match self {
            Self::Pipe(pipe) => read_report(pipe),
            Self::Notify(_) => None,
            Self::StateFile(watch) => watch.changed().then_some(Heard::FileChanged),
        }
    }
}

/// Those of all services, one each.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<ServiceId, (Incarnation, Source)>);

impl Listeners {
    /// A pipe for a life that is about to begin; its writing end goes to the service under that number.
    ///
    /// # Errors
    /// Those of pipe2(2) and epoll_ctl(2).
    pub fn pipe(
        &mut self,
        registry: &Registry,
        id: ServiceId,
        incarnation: Incarnation,
        number: i32,
    ) -> io::Result<Pass> {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The service's end blocks, as every descriptor that a program is given.
        rustix::fs::fcntl_setfl(&theirs, rustix::fs::OFlags::empty())?;
        self.listen(registry, id, incarnation, Source::Pipe(ours))?;
        Ok(Pass { fd: theirs, number })
    }

    /// A notify socket for this life, bound to `name` in the abstract namespace; nothing is done if it is there.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and epoll_ctl(2).
    pub fn notify(
        &mut self,
        registry: &Registry,
        id: ServiceId,
        incarnation: Incarnation,
        name: &str,
    ) -> io::Result<()> {
        if matches!(self.0.get(&id), Some((of, Source::Notify(_))) if *of == incarnation) {
            return Ok(());
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        self.listen(registry, id, incarnation, Source::Notify(socket))
    }

    /// The next datagram of a notify socket, with its sender.
    fn take(&self, id: ServiceId, generation: u32) -> Option<(Incarnation, Message, Option<Sender>)> {
        let (incarnation, source) = self.0.get(&id).filter(|(of, _)| *of as u32 == generation)?;
        let Source::Notify(socket) = source else { return None };
        let mut buffer = [0; DATAGRAM];
        let (count, sender) = datagram::receive(socket, &mut buffer).ok()?;
        Some((*incarnation, Message::parse(buffer.get(..count).unwrap_or_default()), sender))
    }

    /// Listens to a state file.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn state_file(
        &mut self,
        registry: &Registry,
        id: ServiceId,
        incarnation: Incarnation,
        watch: StateWatch,
    ) -> io::Result<()> {
        self.listen(registry, id, incarnation, Source::StateFile(watch))
    }

    fn listen(
        &mut self,
        registry: &Registry,
        id: ServiceId,
        incarnation: Incarnation,
        source: Source,
    ) -> io::Result<()> {
        self.forget(registry, id);
        let token = readiness_token(id.0, incarnation as u32);
        registry.register(&mut SourceFd(&source.fd()), token, Interest::READABLE)?;
        self.0.insert(id, (incarnation, source));
        Ok(())
    }

    /// Nothing more is expected of this service.
    pub fn forget(&mut self, registry: &Registry, id: ServiceId) {
        if let Some((_, source)) = self.0.remove(&id) {
            let _ = registry.deregister(&mut SourceFd(&source.fd()));
        }
    }

    /// What the listener with this token has to tell; its incarnation is known by the lower half.
    fn hear(&self, id: ServiceId, generation: u32) -> Option<(Incarnation, Heard)> {
        let (incarnation, source) = self.0.get(&id).filter(|(of, _)| *of as u32 == generation)?;
        Some((*incarnation, source.hear()?))
    }
}

impl Supervisor {
    /// A descriptor has news.
    pub(in crate::daemon) fn hear_readiness(&mut self, id: ServiceId, generation: u32) {
        if let Some((incarnation, heard)) = self.listeners.hear(id, generation) {
            decide!(self.readiness.heard(id, incarnation, heard));
        }
        // What says more than that lets others go first.
        for _ in 0..DATAGRAMS {
            let Some((incarnation, message, sender)) = self.listeners.take(id, generation) else { return };
            self.notified(id, incarnation, &message, sender);
        }
        self.inbox.push(Input::Readiness(id, generation));
    }

    /// Only processes of the life itself are heard, as far as its containment can tell.
    fn notified(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        message: &Message,
        sender: Option<Sender>,
    ) {
        let Some(life) = self.life(id).filter(|life| life.n == incarnation) else { return };
        let owner = sender.and_then(|sender| sender.pid).and_then(|pid| self.containment.owner(pid));
        if owner.as_ref() != Some(&life) {
            slog::debug!(
                self.log,
                "{}: a stranger, or a process that is gone, wrote to its notify socket",
                life.name
            );
            return;
        }
        decide!(self.readiness.notified(id, incarnation, message));
        decide!(self.health.notified(id, incarnation, message));
    }

    /// Where a life says what sd_notify(3) says. In the abstract namespace (unix(7)): whatever user the service has can reach it, it
    /// leaves no file behind, and a successor of ours finds the name again. Who writes is looked at.
    pub(in crate::daemon) fn notify_name(&self, id: ServiceId, incarnation: Incarnation) -> String {
        let name = self.fleet.name(id).map(ToString::to_string).unwrap_or_default();
        // An address has room for 107 bytes.
        let short: String = self.instance.chars().take(16).collect();
        format!("hermes-sup/{short}/{name}/{incarnation}").chars().take(100).collect()
    }

    /// Of a life that an earlier supervisor began.
    pub(in crate::daemon) fn listen_to_notify(&mut self, id: ServiceId, incarnation: Incarnation) {
        let name = self.notify_name(id, incarnation);
        if let Err(error) = self.listeners.notify(&self.wakeups.registry, id, incarnation, &name) {
            slog::warn!(self.log, "failed to make a notify socket"; "name" => name, "error" => %error);
        }
    }
}

/// What the service wrote: a newline (s6, "Service startup notifications"), or that it never will. `None`: not yet.
fn read_report(pipe: &OwnedFd) -> Option<Heard> {
    let mut text = [0u8; 256];
    loop {
        match rustix::io::read(pipe, &mut text) {
            Ok(0) => return Some(Heard::Closed),
            Ok(n) if text.get(..n).is_some_and(|text| text.contains(&b'\n')) => return Some(Heard::Line),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return None,
            Err(_) => return Some(Heard::Closed),
        }
    }
}
