//! Lines: where a piece of output may be cut, what is left out when a destination is full, and how lines of two
//! streams share one file.
//!
//! Invariants: whatever pieces the bytes arrive in, the same lines come out; a line that is left out is left out
//! whole from there on and counted once; what is kept back is bounded by [`CARRY_MAX`]. No I/O here.

use super::stamp::Head;
use crate::core::words::Stream;
use memchr::{memchr, memchr_iter, memrchr};

/// The beginning of a line waits this long for its end, in bytes. A longer one goes on in pieces.
pub(super) const CARRY_MAX: usize = 32 * 1024;

/// How many bytes of `data` go on now: whole lines, or everything when the last line is too long to wait for.
pub(super) fn ready(data: &[u8]) -> usize {
    let lines = memrchr(b'\n', data).map_or(0, |at| at + 1);
    if data.len() - lines > CARRY_MAX { data.len() } else { lines }
}

pub(super) fn count_lines(data: &[u8]) -> u64 {
    memchr_iter(b'\n', data).count() as u64
}

pub(super) fn is_open(data: &[u8]) -> bool {
    data.last().is_some_and(|last| *last != b'\n')
}

/// Keeps the end of a line away from a destination that did not get its beginning.
#[derive(Debug, Default)]
pub(super) struct Gate {
    skipping: bool,
}

impl Gate {
    /// What of `data` may go to the destination, and how many left-out lines end in the rest.
    pub(super) fn admit<'a>(&mut self, data: &'a [u8]) -> (&'a [u8], u64) {
        if !self.skipping {
            return (data, 0);
        }
        match memchr(b'\n', data) {
            Some(at) => {
                self.skipping = false;
                (data.get(at + 1..).unwrap_or_default(), 1)
            }
            None => (&[], 0),
        }
    }

    /// Leaves out `data`, which [`Gate::admit`] let pass: how many lines end in it.
    pub(super) fn refuse(&mut self, data: &[u8]) -> u64 {
        self.skipping |= is_open(data);
        count_lines(data)
    }
}

/// Where a log file's last line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Tail {
    #[default]
    Ended,
    /// The line of this stream goes on.
    Open(Stream),
    /// It was begun and its rest was left out.
    Torn,
}

/// Puts heads before the lines of both streams of one service, for one file.
#[derive(Debug, Default)]
pub(super) struct Weave {
    tail: Tail,
}

impl Weave {
    /// Appends `data` of stream `kind` to `out`. A line that the other stream left open is ended first.
    pub(super) fn add(&mut self, out: &mut Vec<u8>, data: &[u8], kind: Stream, head: &Head) {
        if data.is_empty() {
            return;
        }
        // Room for the heads of lines of 62 bytes and more.
        out.reserve(data.len() + data.len() / 2);
        let mut rest = data;
        match self.tail {
            Tail::Ended => {}
            Tail::Open(open) if open == kind => {
                let end = memchr(b'\n', data).map_or(data.len(), |at| at + 1);
                let (line, after) = data.split_at(end);
                out.extend_from_slice(line);
                rest = after;
            }
            Tail::Open(_) | Tail::Torn => out.push(b'\n'),
        }
        let mut from = 0;
        for at in memchr_iter(b'\n', rest) {
            out.extend_from_slice(head);
            out.extend_from_slice(&rest[from..=at]);
            from = at + 1;
        }
        if from < rest.len() {
            out.extend_from_slice(head);
            out.extend_from_slice(&rest[from..]);
        }
        self.tail = if is_open(data) { Tail::Open(kind) } else { Tail::Ended };
    }

    /// Output of `kind` was left out: a line of it that was begun will not be continued.
    pub(super) fn left_out(&mut self, kind: Stream) {
        if self.tail == Tail::Open(kind) {
            self.tail = Tail::Torn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::stamp::HEAD_LEN;
    use proptest::prelude::*;

    const HEAD: Head = [b'h'; HEAD_LEN];

    /// Passes `data` through the splitter in pieces of the given sizes, as the pump does.
    fn pieces(data: &[u8], sizes: &[usize], mut take: impl FnMut(&[u8])) {
        let mut sizes = sizes.iter().copied().cycle();
        let (mut rest, mut carry) = (data, Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
            rest = after;
            carry.extend_from_slice(piece);
            let cut = ready(&carry);
            take(&carry[..cut]);
            carry.drain(..cut);
            assert!(carry.len() <= CARRY_MAX);
        }
        take(&carry);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            lines in prop::collection::vec("[a-c]{0,9}", 0..60),
            torn in "[a-c]{0,5}",
            long in 0..3 * CARRY_MAX,
            sizes in prop::collection::vec(1usize..70_000, 1..8),
        ) {
            let mut data: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            data.extend(std::iter::repeat_n(b'x', long));
            data.extend_from_slice(b"\n");
            data.extend_from_slice(torn.as_bytes());
            let mut expected = Vec::new();
            Weave::default().add(&mut expected, &data, Stream::Out, &HEAD);
            let (mut weave, mut got) = (Weave::default(), Vec::new());
            pieces(&data, &sizes, |piece| weave.add(&mut got, piece, Stream::Out, &HEAD));
            prop_assert!(got == expected);
        }

        #[test]
        fn a_line_comes_out_whole_or_is_counted_and_never_both(
            lines in prop::collection::vec("[a-c]{0,9}", 1..60),
            sizes in prop::collection::vec(1usize..30, 1..8),
            full in prop::collection::vec(any::<bool>(), 1..8),
        ) {
            // Only a whole line ends with a dot, because no piece ends between dot and newline.
            let data: Vec<u8> = lines.iter().flat_map(|line| format!("{line}.\n").into_bytes()).collect();
            let (mut gate, mut weave) = (Gate::default(), Weave::default());
            let (mut out, mut lost) = (Vec::new(), 0);
            // Otherwise cut anywhere, also within lines: harsher than the splitter.
            let (mut rest, mut sizes, mut full) = (&data[..], sizes.iter().cycle(), full.iter().cycle());
            while !rest.is_empty() {
                let mut cut = (*sizes.next().unwrap()).min(rest.len());
                cut += usize::from(rest[cut - 1] == b'.');
                let (piece, after) = rest.split_at(cut);
                rest = after;
                let (piece, skipped) = gate.admit(piece);
                lost += skipped;
                if piece.is_empty() {
                    continue;
                }
                if *full.next().unwrap() {
                    lost += gate.refuse(piece);
                    weave.left_out(Stream::Out);
                } else {
                    weave.add(&mut out, piece, Stream::Out, &HEAD);
                }
            }
            let text = String::from_utf8(out).unwrap();
            prop_assert!(text.lines().all(|line| line.starts_with(&"h".repeat(HEAD_LEN))));
            let whole = text.lines().filter(|line| line.ends_with('.')).count() as u64;
            prop_assert_eq!(whole + lost, lines.len() as u64);
        }
    }

    #[test]
    fn the_other_stream_ends_an_open_line_and_the_first_goes_on_with_a_head() {
        let (mut weave, mut out) = (Weave::default(), Vec::new());
        let (o, e) = ([b'o'; HEAD_LEN], [b'e'; HEAD_LEN]);
        weave.add(&mut out, b"begin", Stream::Out, &o);
        weave.add(&mut out, b" more", Stream::Out, &o);
        weave.add(&mut out, b"oops\n", Stream::Err, &e);
        weave.add(&mut out, b" end\nnext\n", Stream::Out, &o);
        let text = String::from_utf8(out).unwrap();
        let (o, e) = ("o".repeat(HEAD_LEN), "e".repeat(HEAD_LEN));
        assert_eq!(text, format!("{o}begin more\n{e}oops\n{o} end\n{o}next\n"));
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_one_of_its_own_stream() {
        let (mut weave, mut out) = (Weave::default(), Vec::new());
        weave.add(&mut out, b"begin", Stream::Out, &HEAD);
        weave.left_out(Stream::Out);
        weave.add(&mut out, b"next\n", Stream::Out, &HEAD);
        let head = "h".repeat(HEAD_LEN);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{head}begin\n{head}next\n"));
    }
}
