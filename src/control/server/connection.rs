//! One connection and its phases: a request is read, its answer is said and sent, then the next is read.
//!
//! Nothing here waits, and nothing here knows the other connections.

use super::PIECE;
use crate::control::codec::{self, FrameBuffer};
use crate::control::protocol::{Answer, Code, Outcome, Part, Refusal, Reply, Request};
use crate::sys::peer::Peer;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use std::os::fd::OwnedFd;

#[derive(Debug)]
pub(super) struct Connection {
    pub stream: OwnedFd,
    pub peer: Peer,
    pub input: FrameBuffer,
    pub output: Vec<u8>,
    pub sent: usize,
    pub phase: Phase,
    /// Of the request that is with the daemon.
    pub answer: Answer,
    /// When it was accepted or its last answer ended, in ticks.
    pub silent_since: u64,
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
            phase: Phase::Listening,
            // Also that of a connection which is handed over with a request.
            answer: Answer::Outcomes,
            silent_since,
        }
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
        if let Ok(frame) = frame {
            self.output.extend_from_slice(&frame);
        }
    }

    pub fn send(&mut self) -> Next {
        while self.unsent() > 0 {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match retry_on_intr(|| rustix::net::send(&self.stream, &self.output[self.sent..], flags)) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => break,
                Err(_) => return Next::Drop,
            }
        }
        if self.unsent() == 0 {
            (self.output, self.sent) = (Vec::new(), 0);
        } else if self.sent > PIECE {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Next::Keep
    }
}
