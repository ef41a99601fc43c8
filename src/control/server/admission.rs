//! Who gets a connection: so many at once, so many of a uid, and somebody silent makes room.

use super::connection::{Connection, Phase};
use super::{ConnId, LISTENER_SLOT, Server, Slot};
use crate::control::codec;
use crate::control::protocol::{Refusal, RefusalKind, Reply};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

pub const MAX_CONNECTIONS: usize = 256;
/// Of [`MAX_CONNECTIONS`], those that only root and our own uid may take: an operator always gets in.
pub const RESERVED: usize = 32;
pub const MAX_PER_UID: usize = 64;
/// Connections taken in one wake-up.
const ACCEPTS: usize = 64;
/// After an accept(2) that failed it is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Takes those who wait, so many at once.
    pub(super) fn accept(&mut self, registry: &Registry) {
        self.accept_again = false;
        let mut has_made_room = false;
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok(stream) => drop(self.admit(registry, stream)),
                Err(Errno::AGAIN) => return,
                // Gone before we came: the next one.
                Err(Errno::CONNABORTED) => {}
                Err(errno) => {
                    // Out of descriptors or memory. One silent connection makes room, for what is short may be short in the
                    // whole machine; then it is tried again when a connection ends, or after a while.
                    self.turned_away = Some(errno);
                    let victim = self.longest_silent(|_| true).filter(|_| !has_made_room);
                    let Some(id) = victim else {
                        self.accept_again = true;
                        return;
                    };
                    has_made_room = true;
                    self.make_room(registry, id);
                }
            }
        }
        // There may be more, and other work first: registering again gives another edge if so.
        let token = (self.token_for)(LISTENER_SLOT, 0);
        let _ = registry.reregister(&mut SourceFd(&self.listener.as_raw_fd()), token, Interest::READABLE);
    }

    /// Gives a newcomer a place: a free one, or that of the longest silent connection.
    pub(super) fn admit(&mut self, registry: &Registry, stream: OwnedFd) -> Option<ConnId> {
        let peer = crate::sys::peer::credentials(&stream).ok()?;
        let privileged = peer.uid == 0 || peer.uid == self.own_uid;
        let same = |other: &Connection| other.peer.uid == peer.uid;
        let limit = if privileged { MAX_CONNECTIONS } else { MAX_CONNECTIONS - RESERVED };
        let live = || self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        let victim = if !privileged && live().filter(|c| same(c)).count() >= MAX_PER_UID {
            Some(self.longest_silent(same))
        } else if live().count() >= limit {
            Some(self.longest_silent(|_| true))
        } else {
            None
        };
        match victim {
            Some(Some(id)) => self.make_room(registry, id),
            Some(None) => {
                let refusal =
                    Refusal::new(RefusalKind::Busy, "too many commands are under way: try again later");
                if let Ok(frame) = codec::encode_reply(&Reply::Refused(refusal)) {
                    let _ = rustix::net::send(&stream, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                }
                return None;
            }
            None => {}
        }
        let index = self.slots.iter().position(|slot| slot.connection.is_none()).unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let silent_since = self.next_tick();
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let token = (self.token_for)(index as u32 + 1, slot.generation);
        if let Err(error) = registry.register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE) {
            self.turned_away = Errno::from_io_error(&error);
            return None;
        }
        slot.connection = Some(Connection::new(stream, peer, silent_since));
        Some(ConnId { slot: index as u32 + 1, generation: slot.generation })
    }

    /// Who makes room: first who has asked for nothing, then the oldest stream, at last who does not read its answer.
    fn longest_silent(&self, eligible: impl Fn(&Connection) -> bool) -> Option<ConnId> {
        let is_idle =
            |connection: &Connection| connection.phase != Phase::Answering || connection.is_stream();
        self.live()
            .filter(|(_, connection)| is_idle(connection) && eligible(connection))
            .min_by_key(|(_, connection)| {
                (connection.phase == Phase::Flushing, connection.is_stream(), connection.silent_since)
            })
            .map(|(id, _)| id)
    }
}
