//! A line of a service's log, as it is read back and shown.

use super::words::Stream;

/// A piece of a line; most lines are one piece. A long line's pieces come one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which of the services that are read together.
    pub source: usize,
    /// Local time, `YYYY-MM-DD HH:MM:SS.nnnnnnnnn`; empty when the file does not say.
    pub time: &'a str,
    pub stream: Stream,
    /// Without the newline; cut between characters.
    pub text: &'a [u8],
    /// It is the beginning of the line.
    pub begins: bool,
    /// It is the end of the line.
    pub ends: bool,
}

/// Why there is nothing to read of a service.
#[derive(Debug)]
pub enum Absent<E> {
    /// It has no log directory: it was never started.
    NoLog,
    /// It has written nothing yet.
    Empty,
    Unreadable(E),
}
