//! How a process ended, in numbers for policy and in words for people.

use super::limits::{Key, Value};
use super::signal::Signal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose memory had run out when the kernel killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shortage {
    /// The service was at its own limit, in bytes.
    MemoryMax(u64),
    /// Not the service's own limit: that of the container, of a cgroup around it, or all that the machine has.
    Outside,
    #[default]
    Unknown,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryMax(bytes) => {
                let limit = Key::MemoryMax;
                write!(f, "out of memory at its limit {limit}={}", limit.show(Value::Amount(*bytes)))
            }
            Self::Outside => {
                write!(f, "out of memory (the container's or the machine's, not at a limit of its own)")
            }
            Self::Unknown => write!(f, "out of memory"),
        }
    }
}

/// The end of a main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// It called exit; 0..=255.
    Code(u8),
    /// A signal ended it.
    Signal { signal: Signal, core: bool },
    /// The OOM killer killed it.
    Oom(Shortage),
    /// A SIGKILL that was not ours, to a service without a memory controller of its own. `likely`: the OOM killer killed a
    /// process of the container just then; otherwise nobody can tell whether it was the OOM killer.
    MaybeOom { likely: bool },
    /// Nobody could tell us (its reaper died first). Policy treats it as a failure without an exit-code rule.
    Unknown,
}

impl Exit {
    /// Reads a `wait(2)` status word. `None` for a stop or continue report, which is not an end.
    pub fn from_wait_status(status: i32) -> Option<Self> {
        let low = status & 0x7f;
        if low == 0 {
            Some(Self::Code(((status >> 8) & 0xff) as u8))
        } else if low == 0x7f {
            None
        } else {
            Signal::from_number(low).map(|signal| Self::Signal { signal, core: status & 0x80 != 0 })
        }
    }

    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// What ended it, if a signal did.
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Signal { signal, .. } => Some(signal),
            Self::Oom(_) | Self::MaybeOom { .. } => Some(Signal::KILL),
            Self::Code(_) | Self::Unknown => None,
        }
    }

    /// The exit code that a shell or `docker run` would show: 128 + n for a signal, 255 when unknown.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal { signal, .. } => 128u8.saturating_add(signal.number() as u8),
            Self::Oom(_) | Self::MaybeOom { .. } => 128 + Signal::KILL.number() as u8,
            Self::Unknown => 255,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal { signal, core: false } => write!(f, "killed by {signal}"),
            Self::Signal { signal, core: true } => write!(f, "killed by {signal}, core dumped"),
            Self::Oom(shortage) => write!(f, "killed by {}, {shortage}", Signal::KILL),
            Self::MaybeOom { likely: true } => {
                write!(f, "killed by {}, probably out of memory (the container's)", Signal::KILL)
            }
            Self::MaybeOom { likely: false } => {
                write!(f, "killed by {}, whether by the OOM killer is not known", Signal::KILL)
            }
            Self::Unknown => write!(f, "ended, nobody saw how"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_for_memory_names_the_limit_where_it_is_known() {
        let own = Exit::Oom(Shortage::MemoryMax(512 << 20));
        assert_eq!(own.to_string(), "killed by SIGKILL, out of memory at its limit memory_max=512M");
        let outside = Exit::Oom(Shortage::Outside).to_string();
        assert!(outside.contains("the container's or the machine's"), "{outside}");
        assert_eq!(Exit::Oom(Shortage::Unknown).to_string(), "killed by SIGKILL, out of memory");
    }

    #[test]
    fn wait_status_words_read_as_wait_2_defines_them() {
        assert_eq!(Exit::from_wait_status(0), Some(Exit::Code(0)));
        assert_eq!(Exit::from_wait_status(42 << 8), Some(Exit::Code(42)));
        assert_eq!(Exit::from_wait_status(9), Some(Exit::Signal { signal: Signal::KILL, core: false }));
        let dumped = Exit::from_wait_status(0x80 | 11).unwrap();
        assert_eq!(
            (dumped.shell_code(), dumped.to_string().as_str()),
            (139, "killed by SIGSEGV, core dumped")
        );
        assert_eq!(Exit::from_wait_status(0x137f), None, "a stop is not an end");
        assert_eq!(Exit::from_wait_status(0xffff), None, "a continue is not an end");
    }

    #[test]
    fn each_end_has_its_signal_and_the_code_that_a_shell_gives_it() {
        let term = Exit::Signal { signal: Signal::TERM, core: false };
        for (exit, signal, code, words) in [
            (Exit::Code(0), None, 0, "exited with code 0"),
            (Exit::Code(3), None, 3, "exited with code 3"),
            (term, Some(Signal::TERM), 143, "killed by SIGTERM"),
            (Exit::Oom(Shortage::Unknown), Some(Signal::KILL), 137, "killed by SIGKILL, out of memory"),
            (
                Exit::MaybeOom { likely: true },
                Some(Signal::KILL),
                137,
                "killed by SIGKILL, probably out of memory (the container's)",
            ),
            (
                Exit::MaybeOom { likely: false },
                Some(Signal::KILL),
                137,
                "killed by SIGKILL, whether by the OOM killer is not known",
            ),
            (Exit::Unknown, None, 255, "ended, nobody saw how"),
        ] {
            let said = (exit.signal(), exit.shell_code(), exit.to_string());
            assert_eq!(said, (signal, code, words.to_owned()));
            assert_eq!(exit.is_success(), exit == Exit::Code(0), "{exit}");
        }
    }
}
