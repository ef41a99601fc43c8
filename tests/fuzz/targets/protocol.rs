//! What a client of the control socket sends: the decoder alone, and a whole server with an answer to each request.

use super::files::Place;
use super::one_line;
use hermes_sup::control::codec::{
    FrameBuffer, MAX_FRAME, decode_reply, decode_request, encode_request, keep_request, kept_request,
};
use hermes_sup::control::naming;
use hermes_sup::control::permission::{Facts, Rules};
use hermes_sup::control::protocol::{Part, Reply, Request, Targets};
use hermes_sup::control::server::{Incoming, Server};
use hermes_sup::core::name::ServiceName;
use mio::{Events, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// More of one document tells nothing new.
const MOST: usize = 4 * MAX_FRAME;

pub fn run(document: &[u8]) {
    let document = &document[..document.len().min(MOST)];
    let mut whole: Vec<&[u8]> = Vec::new();
    let mut is_too_large = false;
    for piece in document.split_inclusive(|byte| *byte == 0) {
        let frame = piece.strip_suffix(b"\0");
        is_too_large = frame.unwrap_or(piece).len() > MAX_FRAME;
        match frame.filter(|_| !is_too_large) {
            Some(frame) => whole.push(frame),
            None => break,
        }
    }
    assert_eq!(in_pieces(document), whole, "frames do not depend on how they come");
    let understood: Vec<bool> = whole.iter().map(|frame| is_understood(frame)).collect();
    // What is no request ends the conversation, with a word about it.
    let requests = understood.iter().take_while(|understood| **understood).count();
    let is_refused = requests < whole.len() || is_too_large;
    assert_eq!(serve(document), Answered { requests, replies: requests + usize::from(is_refused) });
}

/// The frames of what comes a few bytes at a time.
fn in_pieces(document: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = FrameBuffer::default();
    let mut frames = Vec::new();
    let mut left = document;
    let mut size = 1;
    while !left.is_empty() {
        size = (size * 7 + left.len()) % 5000 + 1;
        let taken = buffer.push(&left[..size.min(left.len()).min(buffer.room())]);
        left = &left[taken..];
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_owned()),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
        assert!(buffer.room() > 0, "a reader that may read nothing stands still");
        buffer.release();
    }
    frames
}

/// Whether the frame is a request. What is said of one that is not fits a line; one that is says the same once more.
fn is_understood(frame: &[u8]) -> bool {
    let request = match decode_request(frame) {
        Ok(request) => request,
        Err(refusal) => {
            one_line(&refusal.message);
            return false;
        }
    };
    judge(&request);
    let kept = keep_request(&request).and_then(kept_request);
    assert_eq!(kept.as_ref(), Some(&request), "another process image is handed the same request");
    if let Ok(encoded) = encode_request(&request) {
        let (end, encoded) = encoded.split_last().expect("a NUL");
        assert_eq!((*end, decode_request(encoded)), (0, Ok(request)));
    }
    true
}

/// Nobody but root administers, whatever is in the request.
fn judge(request: &Request) {
    let rules = Rules { supervisor_uid: 500, public_status: false };
    let verdict = |caller, runs_as, inside| {
        let facts = Facts { name: "web", runs_as, owns_one: false, inside };
        rules.judge(caller, request, &facts)
    };
    let stranger = verdict(1000, Some(2000), false).expect_err("a stranger who may");
    one_line(&stranger.to_string());
    let _ = (verdict(0, None, false), verdict(1000, Some(1000), true));
    if let Some(Targets::Names(names)) = request.targets() {
        let known = ["web", "db"].map(|name| ServiceName::new(name).expect("a name"));
        for name in names {
            let exists = |name: &str| known.iter().any(|known| known.as_str() == name);
            if naming::resolve(name, exists).is_none() {
                one_line(&naming::unknown(name, known.iter().map(ServiceName::as_str), true));
            }
        }
    }
}

#[derive(Debug, PartialEq)]
struct Answered {
    requests: usize,
    /// Ends of answers, refusals among them.
    replies: usize,
}

/// A client that sends it all and then closes its end; every request is answered with a part and an end.
fn serve(document: &[u8]) -> Answered {
    let place = Place::new();
    let path = place.path().join("control.sock");
    let mut poll = Poll::new().expect("epoll");
    let mut server = Server::listen(&path, 0o600).expect("a socket");
    server.register(poll.registry(), token).expect("epoll");
    let mut client = UnixStream::connect(&path).expect("its socket");
    client.set_nonblocking(true).expect("a descriptor");
    let mut events = Events::with_capacity(8);
    let (mut left, mut input, mut requests, mut ended) = (document, Vec::new(), 0, false);
    // Each turn sends or receives something, or is the last.
    loop {
        let mut moved = false;
        if !left.is_empty() {
            match client.write(left) {
                Ok(count) => (left, moved) = (&left[count..], true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The server has had enough.
                Err(_) => left = &[],
            }
            if left.is_empty() {
                let _ = client.shutdown(std::net::Shutdown::Write);
            }
        }
        poll.poll(&mut events, Some(Duration::ZERO)).expect("epoll");
        let mut incoming = Vec::new();
        for event in &events {
            moved = true;
            let (slot, generation) = ((event.token().0 >> 32) as u32, event.token().0 as u32);
            server.ready(poll.registry(), slot, generation, event.into(), &mut incoming);
        }
        requests += incoming.len();
        for Incoming { id, .. } in incoming {
            server.reply(poll.registry(), id, &Reply::Part(Part::Name("web".to_owned())));
            server.reply(poll.registry(), id, &Reply::End);
        }
        let mut bytes = [0; 4096];
        match client.read(&mut bytes) {
            Ok(0) => ended = true,
            Ok(count) => {
                input.extend_from_slice(&bytes[..count]);
                moved = true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => ended = true,
        }
        if ended || !moved {
            break;
        }
    }
    let frames = input.split(|byte| *byte == 0).filter(|frame| !frame.is_empty());
    let replies = frames.map(|frame| decode_reply(frame).expect("a reply of ours"));
    Answered { requests, replies: replies.filter(|reply| !matches!(reply, Reply::Part(_))).count() }
}

fn token(slot: u32, generation: u32) -> Token {
    Token((slot as usize) << 32 | generation as usize)
}
