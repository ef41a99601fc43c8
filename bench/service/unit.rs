//! The ordinary services: one that runs until it is told to end, and one that dies at a sign from the harness.

use crate::kernel::{forever, fork, now, tell};
use crate::record::Kind;

/// `unit ID`: says that it runs, then waits. SIGTERM ends it as it ends any program.
pub fn run(id: u64) -> i32 {
    tell(Kind::Started, id as u32, 0, now(), 0);
    forever()
}

/// `crash ID`: the same, but a byte in `/bench/crashID` makes it kill itself.
pub fn crash(id: u64) -> i32 {
    tell(Kind::Started, id as u32, 0, now(), 0);
    die_at_a_sign(id)
}

/// `heavy ID MIB CHILDREN`: as `crash`, with so much memory that was written to, and so many children.
pub fn heavy(id: u64, mebibytes: u64, children: u64) -> i32 {
    tell(Kind::Started, id as u32, 0, now(), 0);
    for _ in 0..children {
        fork(|| forever());
    }
    let memory = vec![1u8; (mebibytes as usize) << 20];
    std::hint::black_box(&memory);
    die_at_a_sign(id)
}

fn die_at_a_sign(id: u64) -> i32 {
    let Ok(gate) = std::ffi::CString::new(format!("/bench/crash{id}")) else { return 1 };
    // SAFETY: a live C string and a live buffer. Opened for both, so that the open does not wait for the harness.
    unsafe {
        let fd = libc::open(gate.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        let mut byte = [0u8; 1];
        if libc::read(fd, byte.as_mut_ptr().cast(), 1) != 1 {
            return 1;
        }
        let time = now();
        tell(Kind::Crash, id as u32, 0, time, 0);
        libc::raise(libc::SIGKILL);
    }
    1
}
