//! One service, as the pump sees it: its two FIFOs, and the lines of each that have begun.

use super::remote::Watch;
use crate::core::name::ServiceName;
use crate::core::words::{Overflow, Stream};
use crate::log::backlog::Backlog;
use crate::log::dress::Dress;
use crate::log::split::{Gate, Weave};
use crate::log::{Ends, Shared};
use std::sync::Arc;

/// What came out of one FIFO.
#[derive(Debug)]
pub(super) struct Side {
    /// The beginning of a line whose end has not come.
    pub(super) carry: Vec<u8>,
    /// A piece of a long line has gone on without its end.
    pub(super) open: bool,
    pub(super) to_stream: Gate,
    pub(super) to_file: Gate,
    /// Bytes still to be drained.
    pub(super) left: usize,
}

impl Side {
    /// A line has begun whose end has not come.
    pub(super) fn is_within_a_line(&self) -> bool {
        self.open || !self.carry.is_empty()
    }

    pub(super) fn new(carry: Vec<u8>) -> Self {
        let (to_stream, to_file) = Default::default();
        Self { carry, open: false, to_stream, to_file, left: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: ServiceName,
    pub(super) shared: Arc<Shared>,
    pub(super) ends: Arc<Ends>,
    pub(super) to_container: bool,
    /// How lines look on the container's stream.
    pub(super) dress: Dress,
    pub(super) overflow: Overflow,
    pub(super) out: Side,
    pub(super) err: Side,
    pub(super) weave: Weave,
    pub(super) paused: bool,
    /// Lines left out of the file since the last that went there.
    pub(super) lost: u64,
    pub(super) watch: Option<Box<Watch>>,
    /// The life whose line was found, until that is told.
    pub(super) matched: Option<u64>,
}

impl Source {
    pub(super) fn side(&mut self, kind: Stream) -> &mut Side {
        match kind {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    pub(super) fn is_within_a_line(&self) -> bool {
        self.out.is_within_a_line() || self.err.is_within_a_line()
    }

    pub(super) fn must_wait(&self, backlog: &Backlog) -> bool {
        self.overflow == Overflow::Block && !backlog.has_room(&self.shared, self.paused)
    }
}
