//! Wakes the loop at a time of the wall clock, and when somebody has set that clock (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET),
//! which the end of a suspend does as well.

use super::{Room, plain_token};
use mio::{Interest, Registry, unix::SourceFd};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const AT_ONCE: i64 = 1;

/// There is no timer before something is to happen at such a time.
#[derive(Debug, Default)]
pub struct WallTimer {
    fd: Option<OwnedFd>,
    armed: Option<i64>,
    was_set: bool,
}

impl WallTimer {
    /// Arms it for this Unix time in seconds; nothing is done when it is armed so already.
    ///
    /// # Errors
    /// As timerfd_create(2), timerfd_settime(2) and epoll_ctl(2).
    pub fn arm(&mut self, at: Option<i64>, registry: &Registry) -> io::Result<()> {
        if self.armed == at {
            return Ok(());
        }
        let fd = match &self.fd {
            Some(fd) => fd,
            None => {
                let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
                let fd = rustix::time::timerfd_create(TimerfdClockId::Realtime, flags)?;
                registry.register(
                    &mut SourceFd(&fd.as_raw_fd()),
                    plain_token(Room::WallClock),
                    Interest::READABLE,
                )?;
                self.fd.insert(fd)
            }
        };
        match set(fd, at) {
            // It was set since the last time: that is news, too.
            Err(Errno::CANCELED) => {
                self.was_set = true;
                set(fd, Some(AT_ONCE)).or_else(|error| match error {
                    Errno::CANCELED => Ok(()),
                    error => Err(error),
                })?;
                self.armed = None;
            }
            done => {
                done?;
                self.armed = at;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn armed(&self) -> Option<i64> {
        self.armed
    }

    /// It woke us, and is to be armed anew. Returns whether the clock was set.
    pub fn fired(&mut self) -> bool {
        let mut count = [0u8; 8];
        let read = self.fd.as_ref().map(|fd| rustix::io::read(fd, &mut count));
        self.armed = None;
        let was_set = std::mem::take(&mut self.was_set);
        was_set || read == Some(Err(Errno::CANCELED))
    }
}

/// A zero time disarms it.
fn set(fd: &OwnedFd, at: Option<i64>) -> Result<(), Errno> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once =
        Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: at.map_or(0, |at| at.max(1)), ..zero } };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    rustix::time::timerfd_settime(fd, flags, &once).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn it_wakes_at_a_time_of_the_wall_clock() {
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
        let registry = poll.registry().try_clone().unwrap();
        let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let mut timer = WallTimer::default();
        timer.arm(None, &registry).unwrap();
        assert!(timer.fd.is_none(), "nobody needs it");
        let mut woken = |timer: &mut WallTimer, at: i64| {
            timer.arm(Some(at), &registry).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            events.iter().next().is_some()
        };
        let soon = now() + 1;
        assert!(woken(&mut timer, soon) && now() >= soon);
        assert!(!timer.fired(), "nobody has set the clock");
        assert!(woken(&mut timer, 7), "what is past is at once");
        assert!(!timer.fired());
    }
}
