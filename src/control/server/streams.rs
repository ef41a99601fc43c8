//! Answers that last as long as their reader does.
//!
//! Nothing waits for a slow reader. It loses parts, is told how many where they are missing, and is not dropped. What waits for
//! readers is bounded for each and for all together. A stream is no command under way: it makes room for a newcomer where nobody
//! idle is left (`admission`).

use super::connection::{Connection, frame};
use super::{ConnId, MAX_CONNECTIONS, Server};
use crate::control::protocol::{Refusal, RefusalKind, Reply};
use mio::Registry;

/// Bytes that wait for one reader.
pub const STREAM_OUTPUT: usize = 1 << 20;
/// Bytes that wait for all readers, beyond the share of each.
pub const ALL_STREAMS_OUTPUT: usize = 4 << 20;
/// What a reader may have waiting whatever the others do: who reads loses nothing to those who do not.
pub const STREAM_SHARE: usize = ALL_STREAMS_OUTPUT / MAX_CONNECTIONS * 2;

impl Server {
    /// Adds a part to the answers of these streams. It is put into bytes once, and goes out with [`Self::send_streams`].
    pub fn stream(&mut self, ids: &[ConnId], part: &Reply) {
        let frame = frame(part);
        let held =
            |(_, connection): (ConnId, &Connection)| connection.is_stream().then(|| connection.unsent());
        let mut all: usize = self.live().filter_map(held).sum();
        for id in ids {
            let Some(connection) = self.connection(*id).filter(|connection| connection.is_stream()) else {
                continue;
            };
            let before = connection.unsent();
            // A reader who does not read costs no system call for each event.
            let is_drained = !connection.is_blocked && connection.has_no_room(frame.len(), all);
            if is_drained {
                // Many parts at once are no fault of the reader's. A connection that has failed is dropped by its event.
                let _ = connection.send();
                all = all - before + connection.unsent();
            }
            let held = connection.unsent();
            connection.offer(&frame, all);
            all += connection.unsent() - held;
            // Of any other it is known already that it has something to send.
            if before == 0 || is_drained {
                self.fresh.push(*id);
            }
        }
    }

    /// Sends what is new for streams: once for all that a wake-up brought.
    pub fn send_streams(&mut self, registry: &Registry) {
        for id in std::mem::take(&mut self.fresh) {
            self.flush(registry, id);
        }
    }

    /// Ends a connection for a newcomer. The reader of a stream is told.
    pub(super) fn make_room(&mut self, registry: &Registry, id: ConnId) {
        if let Some(stream) = self.connection(id).filter(|connection| connection.is_stream()) {
            let why = "too many callers: this answer was ended to make room for another, ask again";
            stream.tell_lost();
            stream.say(&Reply::Refused(Refusal::new(RefusalKind::Busy, why)));
            let _ = stream.send();
        }
        self.abandon(registry, id, "it made room for another caller".to_owned());
    }
}
