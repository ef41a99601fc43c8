//! The watch of the root gateway's state file, while it runs and others depend on it.

use crate::daemon::sources::{Room, plain_token};
use crate::hermes::state_watch::StateWatch;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

#[derive(Debug, Default)]
pub struct RootWatch(Option<StateWatch>);

impl RootWatch {
    /// In the place of an earlier one.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn begin(&mut self, registry: &Registry, watch: StateWatch) -> io::Result<()> {
        self.end(registry);
        let fd = watch.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), plain_token(Room::Topology), Interest::READABLE)?;
        self.0 = Some(watch);
        Ok(())
    }

    pub fn end(&mut self, registry: &Registry) {
        if let Some(watch) = self.0.take() {
            let _ = registry.deregister(&mut SourceFd(&watch.as_fd().as_raw_fd()));
        }
    }

    /// The file may be another one.
    pub fn has_news(&self) -> bool {
        self.0.as_ref().is_some_and(StateWatch::changed)
    }
}
