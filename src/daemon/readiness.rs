//! How a service reports that it is ready: over a pipe that it was given (`notification-fd` of s6), or, as a Hermes
//! gateway, in the state file of its profile.
//!
//! What is listened to is ours from the spawn until the report, the end of the file, or the end of that life; a service
//! that is ready costs nothing more.

use super::sources::readiness_token;
use super::{Notice, Supervisor};
use crate::core::event::{Event, Incarnation};
use crate::core::fleet::ServiceId;
use crate::definition::resolved::Ready;
use crate::hermes::state_json;
use crate::hermes::state_watch::StateWatch;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::spawn::plan::Pass;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::pipe::PipeFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where the report of one life comes from.
#[derive(Debug)]
enum Source {
    /// The reading end of the service's pipe.
    Pipe(OwnedFd),
    /// The watch is being made, on the thread that may wait for files.
    Asked,
    StateFile(StateWatch),
}

impl Source {
    fn fd(&self) -> Option<i32> {
        match self {
            Self::Pipe(pipe) => Some(pipe.as_raw_fd()),
            Self::Asked => None,
            Self::StateFile(watch) => Some(watch.as_fd().as_raw_fd()),
        }
    }
}

/// What was seen of a gateway's state file.
#[derive(Debug)]
pub struct Seen {
    id: ServiceId,
    incarnation: Incarnation,
    /// With the first look.
    watch: Option<StateWatch>,
    running: io::Result<bool>,
}

/// The services that have yet to report.
#[derive(Debug, Default)]
pub struct Readiness {
    sources: BTreeMap<ServiceId, (Incarnation, Source)>,
}

impl Readiness {
    /// A pipe for a life that is about to begin; its writing end goes to the service under that number. The source of
    /// an earlier life is forgotten.
    ///
    /// # Errors
    /// Those of pipe2(2) and epoll_ctl(2).
    pub fn expect(
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

    fn listen(
        &mut self,
        registry: &Registry,
        id: ServiceId,
        incarnation: Incarnation,
        source: Source,
    ) -> io::Result<()> {
        self.forget(registry, id);
        if let Some(fd) = source.fd() {
            let token = readiness_token(id.0, incarnation as u32);
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        self.sources.insert(id, (incarnation, source));
        Ok(())
    }

    /// Nothing more is expected of this service.
    pub fn forget(&mut self, registry: &Registry, id: ServiceId) {
        if let Some(fd) = self.sources.remove(&id).and_then(|(_, source)| source.fd()) {
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
    }

    fn is_of(&self, id: ServiceId, incarnation: Incarnation) -> bool {
        self.sources.get(&id).is_some_and(|(of, _)| *of == incarnation)
    }
}

impl Supervisor {
    /// A descriptor has news.
    pub(super) fn hear_readiness(&mut self, id: ServiceId, generation: u32) {
        let Some((incarnation, source)) = self.readiness.sources.get(&id) else { return };
        let incarnation = *incarnation;
        if incarnation as u32 != generation {
            return;
        }
        match source {
            Source::Pipe(pipe) => match read_report(pipe) {
                Some(true) => self.is_ready(id, incarnation),
                Some(false) => self.readiness.forget(&self.registry, id),
                None => {}
            },
            Source::StateFile(watch) if watch.changed() => self.look_at_state(id, incarnation, false),
            Source::StateFile(_) | Source::Asked => {}
        }
    }

    fn is_ready(&mut self, id: ServiceId, incarnation: Incarnation) {
        self.readiness.forget(&self.registry, id);
        self.inbox.core(id, Event::ReadyReported { incarnation });
    }

    /// A gateway runs, and its state file will tell when it is ready.
    pub(super) fn await_state(&mut self, id: ServiceId) {
        let (Some(service), Some(gateway)) = (self.services.get(&id), self.fleet.gateway(id)) else { return };
        let incarnation = gateway.history().incarnation;
        let awaits = service.definition.ready == Ready::GatewayState && gateway.awaits_ready();
        if awaits && !self.readiness.is_of(id, incarnation) {
            self.look_at_state(id, incarnation, true);
        }
    }

    /// Looks at the file, where it may hang; with `first`, watches it from then on.
    fn look_at_state(&mut self, id: ServiceId, incarnation: Incarnation, first: bool) {
        let (Some(service), Some(gateway)) = (self.services.get(&id), self.fleet.gateway(id)) else { return };
        let pid = gateway.pid().and_then(|pid| u32::try_from(pid).ok());
        let (Some(directory), Some(pid)) = (service.gateway_directory(&self.options.home), pid) else {
            return;
        };
        if first && self.readiness.listen(&self.registry, id, incarnation, Source::Asked).is_err() {
            return;
        }
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        let work = move || {
            let home = Beneath::open(&home)?;
            // What was written before the watch is seen by the look, what comes later by the watch.
            let watch = first.then(|| StateWatch::new(&home, &user, &directory)).transpose()?;
            Ok((watch, state_json::says_running(&home, &user, &directory, pid)?))
        };
        let notifier = self.notifier.clone();
        let done = move |seen: io::Result<io::Result<(Option<StateWatch>, bool)>>| {
            let (watch, running) = match seen.and_then(|seen| seen) {
                Ok((watch, running)) => (watch, Ok(running)),
                Err(error) => (None, Err(error)),
            };
            notifier.send(Notice::Seen(Seen { id, incarnation, watch, running }));
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            self.take_seen(Seen { id, incarnation, watch: None, running: Err(io::Error::other(refused)) });
        }
    }

    pub(super) fn take_seen(&mut self, seen: Seen) {
        let Seen { id, incarnation, watch, running } = seen;
        if !self.readiness.is_of(id, incarnation) {
            return;
        }
        match running {
            Ok(true) => return self.is_ready(id, incarnation),
            Ok(false) => {}
            Err(error) => {
                let name = self.fleet.name(id).map(ToString::to_string).unwrap_or_default();
                slog::warn!(self.log, "{name}: its gateway_state.json cannot tell that it is ready: {error}");
            }
        }
        if let Some(watch) = watch
            && let Err(error) =
                self.readiness.listen(&self.registry, id, incarnation, Source::StateFile(watch))
        {
            slog::warn!(self.log, "failed to watch a state file"; "error" => %error);
        }
    }
}

/// What the service wrote: a newline (s6, "Service startup notifications"), or that it never will. `None`: not yet.
fn read_report(pipe: &OwnedFd) -> Option<bool> {
    let mut text = [0u8; 256];
    loop {
        match rustix::io::read(pipe, &mut text) {
            Ok(0) => return Some(false),
            Ok(n) if text.get(..n).is_some_and(|text| text.contains(&b'\n')) => return Some(true),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return None,
            Err(_) => return Some(false),
        }
    }
}
