//! The small languages inside a definition: durations, sizes, octal modes. Each parser takes a text and answers with a
//! value or with what is allowed; none of them panics or accepts a value that later arithmetic could overflow on.

use crate::core::limits;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `"10s"`, `"100ms"`, `"1m30s"`, within `allowed`.
pub(super) fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    // humantime 2 panics where whole seconds fill a u64 and the rest makes one more. No duration that is of use here
    // has more than a dozen digits, and with those the sum cannot get there.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let parsed = if digits <= 12 { humantime::parse_duration(text).ok() } else { None };
    let Some(value) = parsed else {
        return Err(
            "is not a duration; write a number and a unit, as in \"100ms\", \"10s\" or \"1m30s\"".to_owned()
        );
    };
    if allowed.contains(&value) {
        return Ok(value);
    }
    let [least, most] = [allowed.start(), allowed.end()].map(|d| humantime::format_duration(*d).to_string());
    Err(format!("is out of range; allowed: {least} to {most}"))
}

/// A number of bytes, as [`limits::size`] reads it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    limits::size(text).ok_or_else(|| {
        "is not a size; write a number and a unit, as in \"1MB\" (10^6 bytes) or \"512M\" (2^20)".to_owned()
    })
}

/// File mode bits in octal, `"0022"`.
pub(super) fn octal_mode(text: &str) -> Result<u32, String> {
    let octal = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err("is not a umask; write octal digits in quotes, \"0000\" to \"0777\"".to_owned()),
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
            assert!(duration(bad, &any).unwrap_err().starts_with("is not a duration"), "{bad}");
        }
        let message = duration("25h", &(MILLISECOND..=DAY)).unwrap_err();
        assert_eq!(message, "is out of range; allowed: 1ms to 1day");
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
