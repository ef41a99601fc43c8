//! How a service reports that it is ready: over a pipe that it was given, as `notification-fd` of s6.
//!
//! The reading ends are ours from the spawn until the newline, the end of the file, or the end of that life; an idle
//! service costs nothing.

use super::Supervisor;
use super::sources::readiness_token;
use crate::core::event::{Event, Incarnation};
use crate::core::fleet::ServiceId;
use crate::sys::plan::Pass;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::pipe::PipeFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The pipes of services that have yet to report.
#[derive(Debug, Default)]
pub struct Readiness {
    pipes: BTreeMap<ServiceId, (Incarnation, OwnedFd)>,
}

impl Readiness {
    /// A pipe for a life that is about to begin; its writing end goes to the service under that number. The pipe of an
    /// earlier life is forgotten.
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
        self.forget(registry, id);
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The service's end blocks, as every descriptor that a program is given.
        rustix::fs::fcntl_setfl(&theirs, rustix::fs::OFlags::empty())?;
        let token = readiness_token(id.0, incarnation as u32);
        registry.register(&mut SourceFd(&ours.as_raw_fd()), token, Interest::READABLE)?;
        self.pipes.insert(id, (incarnation, ours));
        Ok(Pass { fd: theirs, number })
    }

    /// Nothing more is expected of this service.
    pub fn forget(&mut self, registry: &Registry, id: ServiceId) {
        if let Some((_, pipe)) = self.pipes.remove(&id) {
            let _ = registry.deregister(&mut SourceFd(&pipe.as_raw_fd()));
        }
    }
}

impl Supervisor {
    /// A service wrote to its pipe, or closed it. Only a newline counts (s6, "Service startup notifications").
    pub(super) fn hear_readiness(&mut self, id: ServiceId, generation: u32) {
        let Some((incarnation, pipe)) = self.readiness.pipes.get(&id) else { return };
        let incarnation = *incarnation;
        if incarnation as u32 != generation {
            return;
        }
        let mut text = [0u8; 256];
        loop {
            match rustix::io::read(pipe, &mut text) {
                Ok(0) => break,
                Ok(n) if text.get(..n).is_some_and(|text| text.contains(&b'\n')) => {
                    self.backlog.push_back((id, Event::ReadyReported { incarnation }));
                    break;
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        self.readiness.forget(&self.registry, id);
    }
}
