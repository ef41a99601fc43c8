//! The small languages inside a definition: durations, sizes, octal modes. Each parser takes a text and answers with a
//! value or with a [`ValueError`]; none of them panics or accepts a value that later arithmetic could overflow on.

use crate::core::limits;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a text is no such value, and what is allowed: the end of a sentence about the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("is not a duration; write a number and a unit, as in \"100ms\", \"10s\" or \"1m30s\"")]
    NoDuration,
    #[error(
        "is out of range; allowed: {} to {}",
        humantime::format_duration(*.0.start()),
        humantime::format_duration(*.0.end())
    )]
    OutOfRange(RangeInclusive<Duration>),
    #[error("is not a size; write a number and a unit, as in \"1MB\" (10^6 bytes) or \"512M\" (2^20)")]
    NoSize,
    #[error("is not a umask; write octal digits in quotes, \"0000\" to \"0777\"")]
    NoMode,
    #[error("is not a signal; allowed: names as SIGTERM or TERM, SIGRTMIN+3, numbers 1 to 64")]
    NoSignal,
    #[error("is not an absolute path; begin it with '/'")]
    NotAbsolute,
    #[error(
        "is no address; write an IP address or localhost and a port, as in \"127.0.0.1:6379\" (names are not looked up)"
    )]
    NoAddress,
    #[error("is no URL that can be asked; write http://ADDRESS[:PORT]/PATH with an IP address or localhost")]
    NoUrl,
    #[error("is no regular expression: {0}")]
    NoPattern(String),
    #[error("is not known here; allowed: {allowed}")]
    Unknown { allowed: String },
}

/// `"10s"`, `"100ms"`, `"1m30s"`, within `allowed`.
pub(super) fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, ValueError> {
    // humantime 2 panics where whole seconds fill a u64 and the rest makes one more. No duration that is of use here
    // has more than a dozen digits, and with those the sum cannot get there.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let parsed = if digits <= 12 { humantime::parse_duration(text).ok() } else { None };
    let value = parsed.ok_or(ValueError::NoDuration)?;
    if allowed.contains(&value) { Ok(value) } else { Err(ValueError::OutOfRange(allowed.clone())) }
}

/// A number of bytes, as [`limits::size`] reads it.
pub(super) fn size(text: &str) -> Result<u64, ValueError> {
    limits::size(text).ok_or(ValueError::NoSize)
}

/// An absolute path.
pub(super) fn absolute(text: &str) -> Result<PathBuf, ValueError> {
    if text.starts_with('/') { Ok(PathBuf::from(text)) } else { Err(ValueError::NotAbsolute) }
}

/// File mode bits in octal, `"0022"`.
pub(super) fn octal_mode(text: &str) -> Result<u32, ValueError> {
    let octal = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(ValueError::NoMode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_those_of_the_documentation() {
        let any = Duration::ZERO..=DAY;
        assert_eq!(duration("100ms", &any), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1m30s", &any), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s", &any), Ok(Duration::ZERO));
        for bad in ["", "10", "-1s", "s", "ten seconds", "1 fortnight", "18446744073709551615s1000000000ns"] {
            assert_eq!(duration(bad, &any), Err(ValueError::NoDuration), "{bad}");
        }
        let message = duration("25h", &(MILLISECOND..=DAY)).unwrap_err();
        assert_eq!(message.to_string(), "is out of range; allowed: 1ms to 1day");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal_mode("0022"), Ok(0o022));
        assert_eq!(octal_mode("777"), Ok(0o777));
        for bad in ["", "8", "+22", "1000", "0o22", "000022"] {
            assert!(octal_mode(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9]{0,25}[a-zA-Z.µ ]{0,4}[0-9]{0,12}[a-z]{0,3}", any in "\\PC{0,40}") {
            for text in [text, any] {
                let _ = duration(&text, &(Duration::ZERO..=DAY));
                let _ = size(&text);
                let _ = octal_mode(&text);
            }
        }
    }
}
