//! How other threads reach the pump: orders in a queue, and an eventfd that wakes it.

use crate::core::farewell::Farewell;
use crate::core::name::ServiceName;
use crate::core::words::Overflow;
use crate::log::dress::Dress;
use crate::log::{Ends, Shared, SourceId, lock};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug)]
pub(in crate::log) enum Command {
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
    /// FIFOs of a service that is open were made again.
    Renew(SourceId, Arc<Ends>),
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
pub(in crate::log) struct Watch {
    pub incarnation: u64,
    pub pattern: Arc<regex_lite::Regex>,
}

/// How other threads reach the pump.
#[derive(Debug)]
pub(in crate::log) struct Remote {
    letters: Mutex<Letters>,
    pub(super) event: OwnedFd,
}

#[derive(Debug, Default)]
struct Letters {
    commands: Vec<Command>,
    /// The pump was told of them and has not come yet.
    announced: bool,
}

impl Remote {
    pub(in crate::log) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { letters: Mutex::default(), event })
    }

    pub(in crate::log) fn send(&self, command: Command) {
        self.post(command);
        self.announce();
    }

    /// The same, for when more is to come: the pump is woken by [`Self::announce`].
    pub(in crate::log) fn post(&self, command: Command) {
        lock(&self.letters).commands.push(command);
    }

    /// Wakes the pump if it has not heard of everything.
    pub(in crate::log) fn announce(&self) {
        let mut letters = lock(&self.letters);
        if !letters.commands.is_empty() && !std::mem::replace(&mut letters.announced, true) {
            drop(letters);
            self.wake();
        }
    }

    pub(in crate::log) fn wake(&self) {
        // EAGAIN means that 2^64 wake-ups are pending: one is enough.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(super) fn take(&self) -> Vec<Command> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut *lock(&self.letters)).commands
    }
}
