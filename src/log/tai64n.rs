//! TAI64N labels, the names s6-log gives to archives: `@` and 24 hexadecimal digits.
//!
//! A label is 2^62 + TAI seconds, then nanoseconds (<https://cr.yp.to/libtai/tai64.html>). TAI is ahead of the system
//! clock by 10 s plus the leap seconds, 27 of them since 2017: as Debian's s6 counts. Leap seconds are abolished until
//! at least 2035, so the sum is a constant here.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EPOCH: u64 = (1 << 62) + 37;
const SECOND: u32 = 1_000_000_000;

/// A moment, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Label {
    seconds: u64,
    nanos: u32,
}

impl Label {
    /// The label of `time`; moments before 1970 count as 1970.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { seconds: EPOCH.saturating_add(since.as_secs()), nanos: since.subsec_nanos() }
    }

    /// The next moment a label can tell apart.
    #[must_use]
    pub fn next(self) -> Self {
        if self.nanos + 1 < SECOND {
            Self { nanos: self.nanos + 1, ..self }
        } else {
            Self { seconds: self.seconds.saturating_add(1), nanos: 0 }
        }
    }

    /// Reads `@` and 24 lower-case hexadecimal digits; anything else is no label.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('@').filter(|digits| digits.len() == 24)?;
        if !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let seconds = u64::from_str_radix(digits.get(..16)?, 16).ok()?;
        let nanos = u32::from_str_radix(digits.get(16..)?, 16).ok()?;
        // The range above 2^63 is reserved by the format.
        (seconds < 1 << 63 && nanos < SECOND).then_some(Self { seconds, nanos })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{:016x}{:08x}", self.seconds, self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contract: 69.
    #[test]
    fn a_label_is_what_s6_writes() {
        // s6-tai64n (Debian 2.11.3) at 1795240026 s after 1970.
        let time = UNIX_EPOCH + Duration::new(1_795_240_026, 0x1b9a_f432);
        assert_eq!(Label::of(time).to_string(), "@400000006b01307f1b9af432");
        assert_eq!(Label::parse("@400000006b01307f1b9af432"), Some(Label::of(time)));
    }

    #[test]
    fn s6_agrees_now_where_it_is_installed() {
        use std::io::Write;
        let Ok(mut s6) = std::process::Command::new("s6-tai64n")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            return; // The vector above holds without s6.
        };
        let before = Label::of(SystemTime::now());
        s6.stdin.take().unwrap().write_all(b"x\n").unwrap();
        let output = String::from_utf8(s6.wait_with_output().unwrap().stdout).unwrap();
        let theirs = Label::parse(output.split(' ').next().unwrap()).unwrap();
        assert!(before <= theirs && theirs <= Label::of(SystemTime::now()), "{output}");
    }

    #[test]
    fn only_whole_labels_are_read() {
        for bad in [
            "400000006b01307f1b9af432",
            "@400000006b01307f1b9af43",
            "@400000006B01307f1b9af432",
            "@800000006b01307f1b9af432",
            "@400000006b01307fffffffff",
            "@+00000006b01307f1b9af432",
            "@400000006b01307€9af432",
        ] {
            assert_eq!(Label::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_next_label_is_later_also_at_the_end_of_a_second() {
        let last = Label::of(UNIX_EPOCH + Duration::new(5, 999_999_999));
        assert_eq!(last.next(), Label::of(UNIX_EPOCH + Duration::new(6, 0)));
        assert!(last.next().to_string() > last.to_string());
    }
}
