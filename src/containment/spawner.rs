//! Makes the processes of lives: through a fork server as long as there is one, else by our own clone.
//!
//! May wait: a fork server that was stopped is given one second to answer, then it is killed, and we make the child ourselves.

use crate::sys::packet;
use crate::sys::spawn::clone::{self, Child, Join};
use crate::sys::spawn::fork_server::{ForkServer, Refused};
use crate::sys::spawn::plan::ChildPlan;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// After so many servers that broke, something keeps breaking them.
const MOST: u32 = 5;

#[derive(Debug)]
pub struct Spawner {
    instance: String,
    server: Option<ForkServer>,
    broken: u32,
}

impl Spawner {
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), server: ForkServer::start(instance).ok(), broken: 0 }
    }

    /// Without a server.
    #[cfg(test)]
    pub fn alone() -> Self {
        Self { instance: String::new(), server: None, broken: MOST }
    }

    /// The pid of the server, which is a child of ours.
    pub fn pid(&self) -> Option<i32> {
        self.server.as_ref().map(ForkServer::pid)
    }

    /// The server has been reaped.
    pub fn lost(&mut self, pid: i32) {
        if self.pid() == Some(pid) {
            self.renew();
        }
    }

    /// As [`clone::spawn`].
    ///
    /// # Errors
    /// As there.
    pub fn spawn(&mut self, plan: &mut ChildPlan, join: Option<Join<'_>>) -> io::Result<Child> {
        match self.server.as_mut().map(|server| server.spawn(plan, join)) {
            Some(Ok(child)) => Ok(child),
            Some(Err(Refused::Clone(error))) => Err(error),
            Some(Err(Refused::Broken(_))) => {
                self.renew();
                clone::spawn(plan, join)
            }
            Some(Err(Refused::Unfit)) | None => clone::spawn(plan, join),
        }
    }

    /// A keeper for a child by `plan` that is a fork of the server and has what `say` writes and `fds`, with our end of its socket;
    /// `None`: it has to be executed. A fork that is made all the same finds the socket closed, and ends.
    ///
    /// # Errors
    /// Those of socketpair(2) and clone(2).
    pub fn keeper(
        &mut self,
        plan: &ChildPlan,
        say: impl FnOnce(&mut Vec<u8>),
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Option<(OwnedFd, i32)>> {
        let Some(server) = &mut self.server else { return Ok(None) };
        let (socket, theirs) = packet::pair()?;
        let fds: Vec<BorrowedFd<'_>> = [theirs.as_fd()].into_iter().chain(fds.iter().copied()).collect();
        match server.fork(plan, say, &fds) {
            Ok(pid) => Ok(Some((socket, pid))),
            Err(Refused::Clone(error)) => Err(error),
            Err(Refused::Broken(_)) => {
                self.renew();
                Ok(None)
            }
            Err(Refused::Unfit) => Ok(None),
        }
    }

    /// Ends the server, which takes it a moment. What is still to be made, we make ourselves.
    pub fn end(&mut self) {
        self.server = None;
    }

    fn renew(&mut self) {
        self.broken += 1;
        self.server = if self.broken < MOST { ForkServer::start(&self.instance).ok() } else { None };
    }
}
