//! What the test service and the harness must agree on. Included by both programs.
//!
//! Above all one event of a run, as the test service writes it into the world's FIFO and the harness reads it: fixed size,
//! well below PIPE_BUF, so that every record arrives whole (pipe(7)).

use std::ffi::CStr;

/// The name (comm) of the daemons of a hostile tree.
pub const DAEMON: &CStr = c"bench-daemon";

/// What commands of the stopwatch say on their error stream, on the memory file system of the world.
pub const COMPLAINTS: &CStr = c"/run/complaints";

/// Bytes of a line in the rows on logs, with its end.
pub const LINE: usize = 100;

/// The line with this number: no two are equal.
pub fn line(number: u64) -> [u8; LINE] {
    let mut line = [b'x'; LINE];
    let mut left = number;
    for digit in line[..12].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    line[12] = b' ';
    line[LINE - 1] = b'\n';
    line
}

/// Bytes of a record.
pub const SIZE: usize = 32;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The supervisor is about to be executed.
    Launch = 1,
    /// A service runs its first instructions.
    Started = 2,
    /// A service is about to kill itself.
    Crash = 3,
    /// One command has run to its end; `value` is its duration in ns, `status` its exit code.
    Ran = 4,
    /// A service has done what it is for: the tree stands, the orphans are reaped, the bytes are written.
    Done = 5,
}

#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub kind: Kind,
    /// Which service, or which command.
    pub id: u32,
    /// In the world's pid namespace.
    pub pid: i32,
    pub status: i32,
    /// CLOCK_MONOTONIC, ns; the clock is the same in every namespace of these worlds.
    pub time: u64,
    pub value: u64,
}

impl Record {
    #[allow(dead_code)] // The service writes, the harness reads.
    pub fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.status.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.time.to_ne_bytes());
        bytes[24..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }

    #[allow(dead_code)]
    pub fn from_bytes(bytes: &[u8; SIZE]) -> Option<Self> {
        let four = |at: usize| bytes[at..at + 4].try_into().ok();
        let eight = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_ne_bytes);
        let kind = match u32::from_ne_bytes(four(0)?) {
            1 => Kind::Launch,
            2 => Kind::Started,
            3 => Kind::Crash,
            4 => Kind::Ran,
            5 => Kind::Done,
            _ => return None,
        };
        Some(Self {
            kind,
            id: u32::from_ne_bytes(four(4)?),
            pid: i32::from_ne_bytes(four(8)?),
            status: i32::from_ne_bytes(four(12)?),
            time: eight(16)?,
            value: eight(24)?,
        })
    }
}
