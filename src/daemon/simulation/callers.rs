//! Callers at the control socket: each asks once, reads at its own pace, and keeps what it heard. They are real clients of a real
//! socket, whose other end the supervisor polls without waiting.

use super::rules::Before;
use crate::containment::IncarnationId;
use crate::control::codec::{self, FrameBuffer};
use crate::control::protocol::{Code, Outcome, Part, Reply, Request, Targets};
use crate::sys::peer;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a caller has heard last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It waits.
    Nothing,
    End,
    Refused(String),
    /// The connection ended before the answer did.
    Lost,
}

/// Of every stranger.
pub const STRANGER: u32 = 4242;

/// Who a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// As the supervisor itself, who may do everything.
    Ours,
    /// A user who owns no service, and may do nothing.
    Stranger,
    /// A user who owns services, and may act on those alone.
    Owner(u32),
    /// A process of a life, which is asked nothing but what it is part of.
    Inside(IncarnationId, i32),
}

#[derive(Debug)]
pub struct Caller {
    pub number: usize,
    pub who: Who,
    /// The services that it may act on; `None`: on all.
    pub owns: Option<BTreeSet<String>>,
    /// The scope that it asks about.
    pub scope: Option<Before>,
    pub request: Request,
    /// When it asked, in milliseconds.
    pub asked: u64,
    pub outcomes: Vec<(u64, Outcome)>,
    pub heard: Heard,
    /// It does not read before then.
    pub reads_from: u64,
    stream: Option<UnixStream>,
    input: FrameBuffer,
    /// Something came after the end of the answer.
    pub excess: Option<String>,
}

impl Caller {
    /// Asks. `None`: nobody listens.
    pub fn ask(
        (number, who, owns): (usize, Who, Option<BTreeSet<String>>),
        scope: Option<Before>,
        socket: &Path,
        request: Request,
        now: u64,
        reads_from: u64,
    ) -> Option<Self> {
        let own = rustix::process::geteuid().as_raw();
        let connected = match &who {
            Who::Ours => UnixStream::connect(socket),
            Who::Stranger => peer::played::connect(socket, STRANGER, None),
            Who::Owner(uid) => peer::played::connect(socket, *uid, None),
            Who::Inside(_, pid) => peer::played::connect(socket, own, u32::try_from(*pid).ok()),
        };
        let mut stream = connected.ok()?;
        stream.set_nonblocking(true).ok()?;
        let frame = codec::encode_request(&request).ok()?;
        stream.write_all(&frame).ok()?;
        let (input, outcomes) = Default::default();
        let stream = Some(stream);
        let heard = Heard::Nothing;
        Some(Self {
            number,
            who,
            owns,
            scope,
            request,
            asked: now,
            outcomes,
            heard,
            reads_from,
            stream,
            input,
            excess: None,
        })
    }

    pub fn may_act_on(&self, name: &str) -> bool {
        self.owns.as_ref().is_none_or(|owns| owns.contains(name))
    }

    pub fn waits(&self) -> bool {
        self.heard == Heard::Nothing
    }

    /// Those that it has named, or `None` for all.
    pub fn names(&self) -> Option<&[String]> {
        match self.request.targets() {
            Some(Targets::Names(names)) => Some(names),
            Some(Targets::All) | None => None,
        }
    }

    /// It has asked for something to be done to it, and may.
    pub fn is_about(&self, name: &str) -> bool {
        if !self.may_act_on(name) {
            return false;
        }
        match (&self.request, self.request.targets()) {
            (Request::Register(registration), _) => registration.name == name,
            (_, Some(Targets::Names(names))) => names.iter().any(|one| one == name),
            (_, Some(Targets::All)) => true,
            (_, None) => false,
        }
    }

    /// It was told that nothing comes of it, and not only that it takes longer.
    pub fn was_refused(&self, name: &str) -> bool {
        let refused = |outcome: &Outcome| !outcome.ok && outcome.code != Code::TimedOut;
        self.outcomes.iter().any(|(_, outcome)| outcome.name == name && refused(outcome))
    }

    /// It goes away, whatever it is owed.
    pub fn hang_up(&mut self) {
        self.stream = None;
        if self.waits() {
            self.heard = Heard::Lost;
        }
    }

    /// Reads what is there.
    pub fn read(&mut self, now: u64) {
        if now < self.reads_from {
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        let mut bytes = [0; 4096];
        loop {
            let room = self.input.room().min(bytes.len());
            let over = match stream.read(&mut bytes[..room]) {
                Ok(0) => true,
                Ok(count) => {
                    let _all = self.input.push(&bytes[..count]);
                    false
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => true,
            };
            while let Ok(Some(frame)) = self.input.next_frame() {
                let reply = codec::decode_reply(frame);
                if self.heard != Heard::Nothing {
                    self.excess.get_or_insert(format!("{reply:?}"));
                    continue;
                }
                match reply {
                    Ok(Reply::Part(Part::Outcome(outcome))) => self.outcomes.push((now, outcome)),
                    Ok(Reply::Part(_)) => {}
                    Ok(Reply::End) => self.heard = Heard::End,
                    Ok(Reply::Refused(refusal)) => self.heard = Heard::Refused(refusal.message),
                    Err(refusal) => self.heard = Heard::Refused(refusal.message),
                }
            }
            if over {
                if self.waits() {
                    self.heard = Heard::Lost;
                }
                self.stream = None;
                return;
            }
        }
    }
}
