//! A service that writes lines as fast as they are taken, and the reader that is the floor for loggers.

use crate::kernel::{forever, now, tell};
use crate::record::Kind;

/// Of one line, with its end.
const LINE: usize = 100;

/// `flood BYTES`: that much to stdout, in writes of 80 lines, then `Done` with the ns it took; then it waits.
pub fn flood(bytes: u64) -> i32 {
    let mut block = Vec::with_capacity(80 * LINE);
    for _ in 0..80 {
        block.extend_from_slice(&[b'x'; LINE - 1]);
        block.push(b'\n');
    }
    let mut left = bytes;
    let start = now();
    tell(Kind::Started, 0, 0, start, 0);
    let mut rest: &[u8] = &block;
    while left > 0 {
        // SAFETY: a live buffer.
        let written = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
        let Ok(written) = usize::try_from(written) else { break };
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

/// `drain`: reads stdin to its end, and does nothing with it.
pub fn drain() -> i32 {
    let mut buffer = vec![0u8; 64 * 1024];
    // SAFETY: a live buffer.
    while unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
    0
}
