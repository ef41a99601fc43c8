//! Signals as numbers with names. Linux numbering as on x86_64 and aarch64 (signal(7)); no system call is made here.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A signal number from 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(u8);

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// First real-time signal as the C libraries count (the kernel's 32 and 33 are theirs).
const RTMIN: u8 = 34;

impl Signal {
    pub const HUP: Self = Self(1);
    pub const INT: Self = Self(2);
    pub const QUIT: Self = Self(3);
    pub const KILL: Self = Self(9);
    pub const USR1: Self = Self(10);
    pub const USR2: Self = Self(12);
    pub const TERM: Self = Self(15);
    pub const CHLD: Self = Self(17);
    pub const CONT: Self = Self(18);
    pub const STOP: Self = Self(19);
    pub const TSTP: Self = Self(20);
    pub const TTIN: Self = Self(21);
    pub const TTOU: Self = Self(22);
    pub const WINCH: Self = Self(28);
    pub const PWR: Self = Self(30);
    /// What systemd-aware runtimes (`podman --systemd`) send to ask for a halt.
    pub const RTMIN_PLUS_3: Self = Self(RTMIN + 3);

    /// `None` outside 1..=64.
    pub fn from_number(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=64).contains(n)).map(Self)
    }

    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// Accepts `SIGTERM`, `TERM`, `term`, `15`, `SIG15`, `RTMIN+3` and `SIGRTMIN+3`: whatever is shown, and more.
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Ok(number) = bare.parse::<i32>() {
            return Self::from_number(number);
        }
        if let Some(rest) = bare.strip_prefix("RTMIN") {
            let offset: u8 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
            return Self::from_number(i32::from(RTMIN.checked_add(offset)?));
        }
        let index = NAMES.iter().position(|name| *name == bare)?;
        Self::from_number(i32::try_from(index).ok()? + 1)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 == RTMIN => write!(f, "SIGRTMIN"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(Signal::parse(&signal.to_string()), Some(signal));
        }
        for (number, name) in [
            (1, "SIGHUP"),
            (31, "SIGSYS"),
            (33, "SIG33"),
            (34, "SIGRTMIN"),
            (35, "SIGRTMIN+1"),
            (64, "SIGRTMIN+30"),
        ] {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!((signal.to_string(), format!("{signal:?}")), (name.to_owned(), name.to_owned()));
        }
        assert_eq!(Signal::parse("term"), Some(Signal::TERM));
        assert_eq!(Signal::parse("RTMIN+3"), Some(Signal::RTMIN_PLUS_3));
        for bad in ["", "SIG", "0", "SIG0", "65", "-1", "SIG-1", "RTMIN+31", "RTMIN-1", "NOPE"] {
            assert_eq!(Signal::parse(bad), None, "{bad}");
        }
    }
}
