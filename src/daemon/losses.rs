//! A SIGKILL that nobody here has sent to a service without a cgroup of its own: was it for want of memory?
//!
//! The kernel tells how many it killed in the whole container, not whom. So one that comes at the same time as such an end
//! is probably that end; without one it was somebody's kill(2); and where the kernel does not tell, neither do we.

use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::signal::Signal;
use std::time::Duration;

/// How long one that was chosen may take to be gone: it gives back its memory first.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills in the container that no end of a service was put down to yet.
#[derive(Debug, Default)]
pub struct Losses {
    unclaimed: u64,
    at: Option<Tick>,
}

impl Losses {
    pub fn add(&mut self, kills: u64, now: Tick) {
        self.forget_old(now);
        self.unclaimed += kills;
        self.at = Some(now);
    }

    /// What is made of `exit`. `told`: the kernel tells of its kills here.
    pub fn judge(&mut self, exit: Exit, told: bool, now: Tick) -> Exit {
        if !matches!(exit, Exit::MaybeOom { .. }) || !told {
            return exit;
        }
        self.forget_old(now);
        if self.unclaimed == 0 {
            return Exit::Signal { signal: Signal::KILL, core: false };
        }
        self.unclaimed -= 1;
        Exit::MaybeOom { likely: true }
    }

    fn forget_old(&mut self, now: Tick) {
        if self.at.is_some_and(|at| now.since(at) > PATIENCE) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSENT: Exit = Exit::MaybeOom { likely: false };
    const LIKELY: Exit = Exit::MaybeOom { likely: true };
    const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core: false };

    #[test]
    fn each_kill_of_the_kernels_explains_one_end_and_not_for_long() {
        let mut losses = Losses::default();
        let at = |seconds: u64| Tick(1_000_000 + seconds * 1000);
        assert_eq!(losses.judge(UNSENT, true, at(0)), KILLED, "the kernel killed nobody");
        losses.add(1, at(1));
        assert_eq!(losses.judge(Exit::Code(1), true, at(1)), Exit::Code(1));
        assert_eq!(losses.judge(KILLED, true, at(1)), KILLED, "we did");
        assert_eq!(losses.judge(UNSENT, true, at(2)), LIKELY);
        assert_eq!(losses.judge(UNSENT, true, at(2)), KILLED, "there was but one");
        losses.add(2, at(3));
        assert_eq!(losses.judge(UNSENT, true, at(14)), KILLED, "that was somebody else, long ago");
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_known() {
        let mut losses = Losses::default();
        assert_eq!(losses.judge(UNSENT, false, Tick(0)), UNSENT);
        assert_eq!(losses.judge(Exit::Oom, false, Tick(0)), Exit::Oom);
    }
}
