//! The head of a line in a log file: `YYYY-MM-DD HH:MM:SS.nnnnnnnnn`, then two spaces or ` !`.
//!
//! The calendar part is asked for once a second at most, so a change of daylight saving shows at its second.

use crate::core::words::Stream;
use crate::sys::localtime::Zone;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of date, time and nanoseconds.
pub(super) const TIME_LEN: usize = 29;
/// Bytes before the text of a line.
pub(super) const HEAD_LEN: usize = TIME_LEN + 2;

pub(super) type Head = [u8; HEAD_LEN];

#[derive(Debug, Default)]
pub(super) struct Stamp {
    known: Option<(u64, String)>,
    /// Another zone than this process's.
    zone: Option<Zone>,
}

impl Stamp {
    /// Of a clock in `zone`.
    pub(super) fn of(zone: Zone) -> Self {
        Self { zone: Some(zone), ..Self::default() }
    }

    pub(super) fn now(&mut self, kind: Stream) -> Head {
        self.at(SystemTime::now(), kind)
    }

    pub(super) fn at(&mut self, time: SystemTime, kind: Stream) -> Head {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let second = since.as_secs();
        let calendar = match &mut self.known {
            Some((known, text)) if *known == second => text,
            known => {
                let zone = self.zone.as_ref().unwrap_or_else(|| Zone::own());
                &mut known.insert((second, calendar(second, zone))).1
            }
        };
        let mark = match kind {
            Stream::Out => "  ",
            Stream::Err => " !",
        };
        let mut head = [b' '; HEAD_LEN];
        // A year past 9999 would not fit: the head is then cut, never longer.
        let _ = write!(&mut head[..], "{calendar}.{:09}{mark}", since.subsec_nanos());
        head
    }
}

fn calendar(second: u64, zone: &Zone) -> String {
    i64::try_from(second)
        .ok()
        .and_then(|second| zone.at(second))
        .map_or_else(|| "0000-00-00 00:00:00".to_owned(), |local| local.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::localtime::Local;

    /// Contract: 67.
    #[test]
    fn a_head_has_the_form_that_s6_log_writes_and_moves_with_the_second() {
        let mut stamp = Stamp::default();
        let first = stamp.at(UNIX_EPOCH + Duration::new(86_400, 5), Stream::Out);
        let text = std::str::from_utf8(&first).unwrap();
        assert_eq!(&text[..19], Local::at(86_400).unwrap().to_string());
        assert_eq!(&text[19..], ".000000005  ");
        let second = stamp.at(UNIX_EPOCH + Duration::new(86_401, 999_999_999), Stream::Err);
        let text = std::str::from_utf8(&second).unwrap();
        assert_eq!(&text[..19], Local::at(86_401).unwrap().to_string());
        assert_eq!(&text[19..], ".999999999 !");
    }
}
