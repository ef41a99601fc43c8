//! Services that write lines as fast as they are taken, and the reader that is the floor for loggers.

use crate::kernel::{forever, now, tell};
use crate::record::{Kind, LINE, line};

/// Lines in one write.
const BLOCK: usize = 80;

/// `flood BYTES`: that much to stdout, in writes of 80 lines, then `Done` with the ns it took; then it waits.
pub fn flood(bytes: u64) -> i32 {
    let mut block = Vec::with_capacity(BLOCK * LINE);
    for _ in 0..BLOCK {
        block.extend_from_slice(&[b'x'; LINE - 1]);
        block.push(b'\n');
    }
    let mut left = bytes;
    let start = now();
    tell(Kind::Started, 0, 0, start, 0);
    let mut rest: &[u8] = &block;
    while left > 0 {
        let Some(written) = write(rest) else { break };
        left = left.saturating_sub(written as u64);
        rest = rest.get(written..).unwrap_or_default();
        if rest.is_empty() {
            rest = &block;
        }
    }
    let end = now();
    tell(Kind::Done, 0, i32::from(left > 0), end, end - start);
    forever()
}

/// `lines COUNT`: that many lines, each with its number, then `Done`; then it waits.
pub fn lines(count: u64) -> i32 {
    tell(Kind::Started, 0, 0, now(), 0);
    let mut failed = false;
    let mut next = 0;
    while next < count && !failed {
        let end = count.min(next + BLOCK as u64);
        let block: Vec<u8> = (next..end).flat_map(line).collect();
        let mut rest: &[u8] = &block;
        while !rest.is_empty() && !failed {
            match write(rest) {
                Some(written) => rest = rest.get(written..).unwrap_or_default(),
                None => failed = true,
            }
        }
        next = end;
    }
    tell(Kind::Done, 0, i32::from(failed), now(), count);
    forever()
}

fn write(bytes: &[u8]) -> Option<usize> {
    // SAFETY: a live buffer.
    let written = unsafe { libc::write(1, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written).ok()
}

/// `drain`: reads stdin to its end, and does nothing with it.
pub fn drain() -> i32 {
    let mut buffer = vec![0u8; 64 * 1024];
    // SAFETY: a live buffer.
    while unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
    0
}
