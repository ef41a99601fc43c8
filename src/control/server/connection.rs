//! One connection and its phases: a request is read, its answer is said and sent, then the next is read.
//!
//! Nothing here waits, and nothing here knows the other connections.

use super::{ALL_STREAMS_OUTPUT, PIECE, STREAM_OUTPUT, STREAM_SHARE};
use crate::control::codec::{self, FrameBuffer};
use crate::control::protocol::{Answer, Code, Outcome, Part, Refusal, Reply, Request};
use crate::sys::peer::Peer;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug)]
pub(super) struct Connection {
    pub stream: OwnedFd,
    pub peer: Peer,
    pub input: FrameBuffer,
    pub output: Vec<u8>,
    pub sent: usize,
    /// The kernel has taken all that it takes; the loop is woken when there is room.
    pub is_blocked: bool,
    pub phase: Phase,
    /// Of the request that is with the daemon.
    pub answer: Answer,
    /// When it was accepted or its last answer ended, in ticks.
    pub silent_since: u64,
    /// Open files that go with what waits, each with the byte of all that was ever said which it goes with.
    files: VecDeque<(u64, OwnedFd)>,
    /// So many bytes are not in `output` any more.
    gone: u64,
    /// Parts of a stream for which there was no room, and which the reader has not been told of.
    lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Reads, until there is a whole request.
    Listening,
    /// A request is with the daemon; nothing is read meanwhile.
    Answering,
    /// The answer is complete but not sent; nothing is read meanwhile.
    Flushing,
    /// Closed as soon as the last words are sent.
    Closing,
}

/// What is to become of a connection after it was worked on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Keep,
    Drop,
}

impl Connection {
    pub fn new(stream: OwnedFd, peer: Peer, silent_since: u64) -> Self {
        Self {
            stream,
            peer,
            input: FrameBuffer::default(),
            output: Vec::new(),
            sent: 0,
            is_blocked: false,
            phase: Phase::Listening,
            // Also that of a connection which is handed over with a request.
            answer: Answer::Outcomes,
            silent_since,
            files: VecDeque::new(),
            gone: 0,
            lost: 0,
        }
    }

    /// The answer under way lasts as long as its reader does.
    pub fn is_stream(&self) -> bool {
        self.phase == Phase::Answering && self.answer == Answer::Stream
    }

    /// Whether so many bytes are too many for a stream, of which all together hold `all` bytes. Who has lost something gets no
    /// more before half of what waits is read: one gap, not many.
    pub fn has_no_room(&self, bytes: usize, all: usize) -> bool {
        let held = self.unsent() + bytes;
        let most = if self.lost > 0 { STREAM_OUTPUT / 2 } else { STREAM_OUTPUT };
        held > most || (held > STREAM_SHARE && all + bytes > ALL_STREAMS_OUTPUT)
    }

    /// Adds a part of a stream, or counts it.
    pub fn offer(&mut self, frame: &[u8], all: usize) {
        if self.has_no_room(frame.len(), all) {
            self.lost += 1;
            return;
        }
        self.tell_lost();
        self.output.extend_from_slice(frame);
    }

    /// Says how many parts were lost here; `false`: none.
    pub fn tell_lost(&mut self) -> bool {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.say(&Reply::Part(Part::Lost(lost)));
        }
        lost > 0
    }

    /// An answer is under way, or not all of it is sent. A stream has no end that anybody waits for.
    pub fn is_owed(&self) -> bool {
        matches!(self.phase, Phase::Answering | Phase::Flushing) && !self.is_stream()
    }

    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads until there is a whole request, at most one frame's worth.
    pub fn read(&mut self) -> (Next, Option<Request>) {
        if self.phase != Phase::Listening {
            return (Next::Keep, None);
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.input.next_frame() {
                Ok(Some(frame)) => {
                    let decoded = codec::decode_request(frame);
                    self.input.release();
                    return match decoded {
                        Ok(request) => {
                            (self.phase, self.answer) = (Phase::Answering, request.verb().answer);
                            (Next::Keep, Some(request))
                        }
                        Err(refusal) => (self.refuse(refusal), None),
                    };
                }
                Ok(None) => {}
                Err(codec::TooLarge) => return (self.refuse(codec::too_large()), None),
            }
            let want = chunk.len().min(self.input.room());
            match retry_on_intr(|| rustix::io::read(&self.stream, &mut chunk[..want])) {
                Ok(0) => return (Next::Drop, None),
                Ok(got) => {
                    let taken = self.input.push(&chunk[..got]);
                    debug_assert_eq!(taken, got, "no more was read than there was room for");
                }
                Err(Errno::AGAIN) => return (Next::Keep, None),
                Err(_) => return (Next::Drop, None),
            }
        }
    }

    /// Answers an error of the protocol, after which nothing more is read from this client.
    fn refuse(&mut self, refusal: Refusal) -> Next {
        self.say(&Reply::Refused(refusal));
        self.phase = Phase::Closing;
        Next::Keep
    }

    pub fn say(&mut self, reply: &Reply) {
        self.output.extend_from_slice(&frame(reply));
    }

    /// The same, with an open file.
    pub fn say_with(&mut self, reply: &Reply, file: OwnedFd) {
        self.files.push_back((self.gone + self.output.len() as u64, file));
        self.say(reply);
    }

    /// Files that wait for their frame to be sent.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Sends what can be sent at once.
    ///
    /// # Errors
    /// As send(2), but for EAGAIN.
    pub fn send(&mut self) -> Result<(), Errno> {
        while self.unsent() > 0 {
            match self.send_some() {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        if self.unsent() == 0 {
            self.gone += self.output.len() as u64;
            (self.output, self.sent) = (Vec::new(), 0);
        } else if self.sent > PIECE {
            self.output.drain(..self.sent);
            self.gone += self.sent as u64;
            self.sent = 0;
        }
        Ok(())
    }

    /// Sends up to the next file, or with it.
    fn send_some(&mut self) -> Result<usize, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let now = self.gone + self.sent as u64;
        let is_due = self.files.front().is_some_and(|(at, _)| *at <= now);
        let next = self.files.get(usize::from(is_due)).map_or(u64::MAX, |(at, _)| *at);
        let rest = &self.output[self.sent..];
        let until = usize::try_from(next - now).unwrap_or(usize::MAX).min(rest.len());
        let piece = &rest[..until];
        let Some((_, file)) = self.files.front().filter(|_| is_due) else {
            return retry_on_intr(|| rustix::net::send(&self.stream, piece, flags));
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        let sent = retry_on_intr(|| {
            rustix::net::sendmsg(&self.stream, &[IoSlice::new(piece)], &mut control, flags)
        })?;
        self.files.pop_front();
        Ok(sent)
    }
}

/// A reply as bytes.
pub(super) fn frame(reply: &Reply) -> Vec<u8> {
    let frame = codec::encode_reply(reply).or_else(|refusal| {
        // What cannot be told (a path that is not UTF-8, say) must not hide the rest of the answer.
        codec::encode_reply(&match reply {
            Reply::Part(part) => {
                let name = part.name();
                let message = format!("'{name}': a part of the answer is missing: {refusal}");
                Reply::Part(Part::Outcome(Outcome::failed(name, Code::Failed, None, message)))
            }
            Reply::End | Reply::Refused(_) => Reply::Refused(refusal),
        })
    });
    frame.unwrap_or_default()
}
