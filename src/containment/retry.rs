//! When something is looked at or tried again, where neither the kernel nor a keeper tells us in time.

use crate::core::clock::Tick;
use std::time::Duration;

/// The next try, and the distance to the one after it.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    pub next: Tick,
    wait: Duration,
    tries: u32,
}

impl Retry {
    const LONGEST: Duration = Duration::from_millis(500);

    pub fn first(now: Tick, wait: Duration) -> Self {
        Self { next: now.after(wait), wait, tries: 0 }
    }

    /// At once: at `now` if that is known, else at the next tick.
    pub fn now(now: Option<Tick>, wait: Duration) -> Self {
        Self { next: now.unwrap_or_default(), wait, tries: 0 }
    }

    pub fn is_first(&self) -> bool {
        self.tries == 0
    }

    /// It was tried so often, over half a second to a second, that something keeps it from being done.
    pub fn is_long(&self) -> bool {
        const MANY: u32 = 8;
        self.tries >= MANY
    }

    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether it is time; if so, the next time is set, at twice the distance up to a bound.
    pub fn due(&mut self, now: Tick) -> bool {
        if now < self.next {
            return false;
        }
        self.tries += 1;
        self.next = now.after(self.wait);
        if self.wait < Self::LONGEST {
            self.wait = (self.wait * 2).min(Self::LONGEST);
        }
        true
    }
}
