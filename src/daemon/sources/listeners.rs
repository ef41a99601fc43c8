//! The descriptors over which services report: pipes that they were given, and watches of gateways' state files.
//!
//! What a report means is the matter of `topics::readiness`. A listener is ours from the spawn until the report, the end of the
//! file, or the end of that life; a service that is ready costs nothing more.

use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::daemon::Supervisor;
use crate::daemon::sources::readiness_token;
use crate::daemon::topics::readiness::Heard;
use crate::daemon::view::decide;
use crate::hermes::state_watch::StateWatch;
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
    StateFile(StateWatch),
}

impl Source {
    fn fd(&self) -> i32 {
        match self {
            Self::Pipe(pipe) => pipe.as_raw_fd(),
            Self::StateFile(watch) => watch.as_fd().as_raw_fd(),
        }
    }

    /// What there is to hear now, if anything.
    fn hear(&self) -> Option<Heard> {
        match self {
            Self::Pipe(pipe) => read_report(pipe),
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
