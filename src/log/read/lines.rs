//! Heads of lines, as ours and s6-log's are, and which lines are wanted.

use crate::core::words::Stream;
use crate::log::stamp::{HEAD_LEN, Stamp, TIME_LEN};
use crate::sys::localtime::Zone;
use std::time::SystemTime;

/// A moment as it stands in the heads of lines.
pub(super) fn head_time(time: SystemTime, zone: &Zone) -> Vec<u8> {
    Stamp::of(zone.clone()).at(time, Stream::Out).get(..TIME_LEN).unwrap_or_default().to_vec()
}

#[derive(Debug)]
pub(super) struct Filter {
    pub(super) since: Option<Vec<u8>>,
    pub(super) until: Option<Vec<u8>>,
    pub(super) stream: Option<Stream>,
}

impl Filter {
    pub(super) fn admits(&self, time: &[u8], stream: Stream) -> bool {
        self.since.as_ref().is_none_or(|since| time >= since.as_slice())
            && self.until.as_ref().is_none_or(|until| time <= until.as_slice())
            && self.stream.is_none_or(|wanted| wanted == stream)
    }

    pub(super) fn admits_all(&self) -> bool {
        self.since.is_none() && self.until.is_none() && self.stream.is_none()
    }
}

/// Time and stream of a line, if it begins as ours and s6-log's do.
pub(super) fn split_head(line: &[u8]) -> Option<(&[u8], Stream)> {
    let (head, _) = line.split_at_checked(HEAD_LEN)?;
    let (time, mark) = head.split_at_checked(TIME_LEN)?;
    let form = b"0000-00-00 00:00:00.000000000";
    let fits =
        time.iter().zip(form).all(|(b, form)| if *form == b'0' { b.is_ascii_digit() } else { b == form });
    match mark {
        b"  " if fits => Some((time, Stream::Out)),
        b" !" if fits => Some((time, Stream::Err)),
        _ => None,
    }
}
