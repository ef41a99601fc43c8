//! Where wake-ups come from: tokens, the one timer, and the notices of helper threads.

pub(in crate::daemon) mod listeners;
pub(in crate::daemon) mod pressure;
pub(in crate::daemon) mod probes;
pub(in crate::daemon) mod reaping;
pub(in crate::daemon) mod root_watch;
pub(in crate::daemon) mod scan_watch;
pub(in crate::daemon) mod sender;
pub(in crate::daemon) mod signals;
pub(in crate::daemon) mod wall_timer;

use crate::core::clock::Tick;
use crate::daemon::Notice;
use crate::hermes::profile_watch::ProfileWatch;
use crate::sys::signal::SignalFd;
use mio::{Interest, Registry, Token, Waker, unix::SourceFd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use wall_timer::WallTimer;

/// Which part of the supervisor a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Signals,
    Timer,
    Notices,
    Control,
    Containment,
    MainProgram,
    Readiness,
    ScanDirectory,
    Claims,
    Profiles,
    Topology,
    Probes,
    WallClock,
}

const ROOMS: [Room; 13] = [
    Room::Signals,
    Room::Timer,
    Room::Notices,
    Room::Control,
    Room::Containment,
    Room::MainProgram,
    Room::Readiness,
    Room::ScanDirectory,
    Room::Claims,
    Room::Profiles,
    Room::Topology,
    Room::Probes,
    Room::WallClock,
];

/// Bits of the slot, between room and generation. An event for a slot that was freed and used again within one wake-up
/// is recognised as stale by its generation.
const SLOT_BITS: u32 = 24;

fn token(room: Room, slot: u32, generation: u32) -> Token {
    let slot = slot & ((1 << SLOT_BITS) - 1);
    Token((room as usize) << 56 | (slot as usize) << 32 | generation as usize)
}

/// Room, slot and generation of a token.
pub fn read_token(token: Token) -> Option<(Room, u32, u32)> {
    let slot = (token.0 >> 32) as u32 & ((1 << SLOT_BITS) - 1);
    ROOMS.get(token.0 >> 56).map(|room| (*room, slot, token.0 as u32))
}

pub fn control_token(slot: u32, generation: u32) -> Token {
    token(Room::Control, slot, generation)
}

pub fn containment_token(slot: u32, generation: u32) -> Token {
    token(Room::Containment, slot, generation)
}

pub fn readiness_token(slot: u32, generation: u32) -> Token {
    token(Room::Readiness, slot, generation)
}

/// Watches `profiles/`, once it is armed.
///
/// # Errors
/// As fcntl(2), F_DUPFD_CLOEXEC.
pub fn watch_profiles(registry: &Registry, is_expected: bool) -> io::Result<Arc<ProfileWatch>> {
    let registry = registry.try_clone()?;
    let watch = ProfileWatch::new(is_expected, move |fd| {
        let token = plain_token(Room::Profiles);
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
    });
    Ok(Arc::new(watch))
}

/// Probes are told apart by a number of their own.
pub fn probe_token(number: u32) -> Token {
    token(Room::Probes, 0, number)
}

pub fn plain_token(room: Room) -> Token {
    token(room, 0, 0)
}

/// What wakes the loop.
pub struct Wakeups {
    pub registry: Registry,
    pub notifier: Notifier,
    pub notices: Receiver<Notice>,
    pub timer: Timer,
    pub wall_timer: WallTimer,
    pub signals: SignalFd,
}

/// The one timer, armed for the earliest deadline of everybody. Poll's own timeout has a grain of a millisecond.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    armed: Option<Tick>,
}

impl Timer {
    pub fn new(registry: &Registry) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), plain_token(Room::Timer), Interest::READABLE)?;
        Ok(Self { fd, armed: None })
    }

    /// Arms it for `deadline`, which is `wait` away; nothing is done when it is armed so already.
    pub fn arm(&mut self, deadline: Option<Tick>, wait: Duration) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        // A zero time would disarm it.
        let wait = deadline.map_or(Duration::ZERO, |_| wait.max(Duration::from_nanos(1)));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.armed = deadline;
        Ok(())
    }

    #[cfg(test)]
    pub fn armed(&self) -> Option<Tick> {
        self.armed
    }

    /// It fired: whatever is still to come must be armed anew.
    pub fn fired(&mut self) {
        let mut count = [0u8; 8];
        // Nothing to read is fine: the timer was armed again in between.
        let _ = rustix::io::read(&self.fd, &mut count);
        self.armed = None;
    }
}

/// How a helper thread reaches the loop. Never waits.
#[derive(Debug, Clone)]
pub struct Notifier {
    sender: Sender<Notice>,
    waker: Arc<Waker>,
    /// The loop has been woken for what waits.
    woken: Arc<AtomicBool>,
}

impl Notifier {
    pub fn new(registry: &Registry) -> io::Result<(Self, Receiver<Notice>)> {
        let (sender, receiver) = channel();
        let waker = Arc::new(Waker::new(registry, plain_token(Room::Notices))?);
        Ok((Self { sender, waker, woken: Arc::default() }, receiver))
    }

    pub fn send(&self, notice: Notice) {
        // The loop has ended, or its eventfd is gone with it: nobody is left to tell.
        if self.sender.send(notice).is_ok() && !self.woken.swap(true, Ordering::AcqRel) {
            let _ = self.waker.wake();
        }
    }

    /// The loop is about to take everything that waits.
    pub fn taking(&self) {
        // Not a mere store: it is ordered with the swap of a sender who then woke nobody, and whose notice is seen so.
        self.woken.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_room_slot_and_generation_apart() {
        for room in ROOMS {
            for (slot, generation) in [(0, 0), ((1 << SLOT_BITS) - 1, 5), (7, u32::MAX)] {
                assert_eq!(read_token(token(room, slot, generation)), Some((room, slot, generation)));
            }
        }
    }
}
