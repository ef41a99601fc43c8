//! `s6-sleep`: waits, then ends.

use super::applet::Call;
use super::options::{Options, UsageError};
use super::wait;
use std::ffi::OsString;
use std::time::{Duration, Instant};

const USAGE: &str = "s6-sleep [-m] SECONDS (-m: milliseconds)";

pub fn main(call: &mut Call<'_>) -> u8 {
    match duration(call.words) {
        Ok(duration) => {
            wait::any(&mut [], Instant::now().checked_add(duration));
            0
        }
        Err(error) => call.usage(error, USAGE),
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SleepError {
    #[error(transparent)]
    Option(#[from] UsageError),
    #[error("one number is needed")]
    NotOne,
    #[error("'{}' is no whole number", .0.to_string_lossy().escape_debug())]
    NoNumber(OsString),
}

fn duration(words: &[OsString]) -> Result<Duration, SleepError> {
    let mut options = Options::new("m", words);
    let mut millis = false;
    for option in options.by_ref() {
        option?;
        millis = true;
    }
    let [count] = options.rest() else { return Err(SleepError::NotOne) };
    let number = count.to_str().and_then(|count| count.parse().ok());
    let count = number.ok_or_else(|| SleepError::NoNumber(count.clone()))?;
    Ok(if millis { Duration::from_millis(count) } else { Duration::from_secs(count) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;

    #[test]
    fn seconds_or_milliseconds() {
        let read = |words: &str| {
            let words: Vec<_> = words.split_whitespace().map(Into::into).collect();
            duration(&words)
        };
        assert_eq!(read("2"), Ok(Duration::from_secs(2)));
        assert_eq!(read("-m 20"), Ok(Duration::from_millis(20)));
        for wrong in ["", "x", "-1", "1 2", "0.5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_ends_and_says_what_is_wrong() {
        assert_eq!(told(main, "s6-sleep", &["0"], &|_| None), (0, String::new(), String::new()));
        assert_eq!(told(main, "s6-sleep", &["soon"], &|_| None).0, 100);
    }
}
