//! Where lines go: to the container's stream and to the files thread. A read of a FIFO becomes lines here.

use super::source::Source;
use crate::core::words::{Overflow, Stream};
use crate::log::SourceId;
use crate::log::backlog::Backlog;
use crate::log::split::{is_open, ready};
use crate::log::stamp::Stamp;
use crate::log::stream::Container;
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where lines go.
pub(super) struct Outlets {
    pub(super) container: Container,
    pub(super) on: bool,
    pub(super) backlog: Arc<Backlog>,
    pub(super) stamp: Stamp,
    /// Of the last lines that were dressed, to be used again.
    pub(super) dressed: Vec<u8>,
}

impl Outlets {
    fn deliver(&mut self, id: SourceId, source: &mut Source, kind: Stream, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let shared = Arc::clone(&source.shared);
        if source.watch.as_ref().is_some_and(|watch| has_line(data, &watch.pattern)) {
            source.matched = source.watch.take().map(|watch| watch.incarnation);
        }
        self.show(id, source, kind, data);
        let side = source.side(kind);
        let (data, mut lost) = side.to_file.admit(data);
        let full = source.overflow == Overflow::Drop && !self.backlog.has_room(&shared, false);
        if full && !data.is_empty() {
            lost += source.side(kind).to_file.refuse(data);
            source.weave.left_out(kind);
        }
        source.lost += lost;
        shared.dropped_from_file.fetch_add(lost, Ordering::Relaxed);
        if !full && !data.is_empty() {
            let mut lines = self.backlog.buffer();
            source.weave.add(&mut lines, data, kind, &self.stamp.now(kind));
            self.backlog.write(id, &shared, lines, std::mem::take(&mut source.lost));
        }
    }

    /// Puts lines on the container's stream, where they are wanted there.
    fn show(&mut self, id: SourceId, source: &mut Source, kind: Stream, data: &[u8]) {
        let (is_shown, dress) = (source.to_container && self.on, source.dress);
        let Source { name, shared, out, err, .. } = source;
        let side = match kind {
            Stream::Out => out,
            Stream::Err => err,
        };
        let mut goes_on = std::mem::replace(&mut side.open, is_open(data));
        if !is_shown {
            // A line that begins unseen is not continued when the stream is switched on.
            let (data, _) = side.to_stream.admit(data);
            side.to_stream.refuse(data);
            return;
        }
        let color = self.container.has_colors(kind);
        for piece in dress.pieces(data) {
            let shown = dress.put_on(&mut self.dressed, name, piece, kind, goes_on, color);
            let lost = self.container.push_patiently(kind, id, &mut side.to_stream, shown);
            shared.dropped_from_stream.fetch_add(lost, Ordering::Relaxed);
            goes_on = false;
        }
    }

    /// Hands on what is kept back, as a whole line.
    pub(super) fn flush(&mut self, id: SourceId, source: &mut Source) {
        for kind in [Stream::Out, Stream::Err] {
            let side = source.side(kind);
            if side.is_within_a_line() {
                let mut line = std::mem::take(&mut side.carry);
                line.push(b'\n');
                self.deliver(id, source, kind, &line);
            }
        }
    }

    /// One read of at most `max` bytes; 0 when there was nothing.
    pub(super) fn read(
        &mut self,
        id: SourceId,
        source: &mut Source,
        kind: Stream,
        buffer: &mut [u8],
        max: usize,
    ) -> usize {
        // Before the FIFO may be seen empty.
        source.shared.in_hand.store(true, Ordering::Release);
        let count = self.take(id, source, kind, buffer, max);
        source.shared.in_hand.store(source.is_within_a_line(), Ordering::Release);
        count
    }

    fn take(
        &mut self,
        id: SourceId,
        source: &mut Source,
        kind: Stream,
        buffer: &mut [u8],
        max: usize,
    ) -> usize {
        let carry = source.side(kind).carry.len();
        let (carried, space) = buffer.split_at_mut(carry);
        carried.copy_from_slice(&source.side(kind).carry);
        let Some(space) = space.get_mut(..max) else { return 0 };
        let count = loop {
            match rustix::io::read(source.ends.of(kind), &mut *space) {
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(_) => break 0,
            }
        };
        if count == 0 {
            return 0;
        }
        let length = carry + count;
        let side = source.side(kind);
        let data = buffer.get(..length).unwrap_or_default();
        let (now, later) = data.split_at(ready(data));
        side.carry.clear();
        side.carry.extend_from_slice(later);
        if side.carry.capacity() > 1024 + 4 * later.len() {
            side.carry.shrink_to_fit();
        }
        self.deliver(id, source, kind, now);
        count
    }
}

/// Whether a line, or a piece of a long one, matches.
fn has_line(data: &[u8], pattern: &regex_lite::Regex) -> bool {
    data.split(|byte| *byte == b'\n').any(|line| pattern.is_match(&String::from_utf8_lossy(line)))
}
