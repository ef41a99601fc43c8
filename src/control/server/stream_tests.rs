//! Streams: what their readers get, and what everybody else does not notice.

use super::tests::{Stage, answer, is_closed, list, name, next_reply};
use super::*;
use crate::control::codec::encode_request;
use crate::control::protocol::{Part, RefusalKind};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

impl Stage {
    /// A client that follows, and its number.
    fn follower(&mut self) -> (UnixStream, ConnId) {
        let mut client = self.client();
        let request = Request::Events { since_ms: None, last: None, follow: true };
        client.write_all(&encode_request(&request).unwrap()).unwrap();
        let id = self.request().id;
        (client, id)
    }

    /// One part to these streams, sent as the loop does.
    fn tell(&mut self, ids: &[ConnId], text: &str) {
        self.server.stream(ids, &name(text));
        self.server.send_streams(self.poll.registry());
    }

    fn unsent(&self) -> usize {
        self.server.live().map(|(_, connection)| connection.unsent()).sum()
    }
}

#[test]
fn parts_come_one_by_one_for_as_long_as_somebody_reads() {
    let mut stage = Stage::new();
    let (mut one, first) = stage.follower();
    let (mut two, second) = stage.follower();
    for text in ["a", "b"] {
        stage.tell(&[first, second], text);
        assert_eq!((next_reply(&mut one), next_reply(&mut two)), (name(text), name(text)));
    }
    // Another caller comes and is answered.
    let mut other = stage.client();
    other.write_all(&list()).unwrap();
    let id = stage.request().id;
    stage.reply(id, Reply::End);
    assert_eq!(answer(&mut other), [Reply::End]);
    drop(one);
    stage.until(|server, _| server.live().count() == 2);
    assert_eq!(stage.server.take_gone(), [first]);
    stage.tell(&[first, second], "c");
    assert_eq!(next_reply(&mut two), name("c"));
    // One that ends is a connection as any other.
    stage.reply(second, Reply::End);
    assert_eq!(next_reply(&mut two), Reply::End);
    two.write_all(&list()).unwrap();
    stage.request();
}

#[test]
fn a_slow_reader_loses_parts_is_told_how_many_and_goes_on() {
    let mut stage = Stage::new();
    let (mut slow, id) = stage.follower();
    let padding = "x".repeat(4000);
    let sent = 1000;
    for n in 0..sent {
        stage.tell(&[id], &format!("{n} {padding}"));
        assert!(stage.unsent() <= STREAM_OUTPUT, "{}", stage.unsent());
    }
    assert_eq!(stage.connections(), 1, "it is not dropped for that");
    let mut other = stage.client();
    other.write_all(&list()).unwrap();
    let caller = stage.request().id;
    stage.reply(caller, Reply::End);
    assert_eq!(answer(&mut other), [Reply::End]);

    let reader = std::thread::spawn(move || {
        let (mut seen, mut missing, mut gaps) = (0, 0, 0);
        loop {
            match next_reply(&mut slow) {
                Reply::Part(Part::Lost(lost)) => (missing, gaps) = (missing + lost, gaps + 1),
                Reply::Part(Part::Name(text)) => {
                    // What is told as missing is missing just there.
                    let n: u64 = text.split(' ').next().unwrap().parse().unwrap();
                    assert_eq!(n, seen + missing);
                    seen += 1;
                }
                Reply::End => return (seen, missing, gaps),
                other => panic!("{other:?}"),
            }
        }
    });
    // Without another event it is told as soon as it has read the rest.
    stage.until(|server, _| server.live().all(|(_, connection)| connection.unsent() == 0));
    stage.tell(&[id], &format!("{sent} the next"));
    stage.reply(id, Reply::End);
    let (seen, missing, gaps) = reader.join().unwrap();
    assert_eq!(seen + missing, sent + 1);
    assert!(missing > 0 && gaps == 1, "{missing} in {gaps} gaps");
}

/// Each event was tried to be sent to each stream that had no room, twice: two hundred of these cost each restart a thousand
/// system calls.
#[test]
fn a_stream_without_room_is_left_alone_until_there_is_some() {
    let mut stage = Stage::new();
    let (mut slow, id) = stage.follower();
    let part = "x".repeat(4000);
    (0..2 * STREAM_OUTPUT / part.len()).for_each(|_| stage.tell(&[id], &part));
    stage.settle();
    slow.set_nonblocking(true).unwrap();
    let mut read = || std::iter::from_fn(|| slow.read(&mut [0; 65536]).ok()).sum::<usize>();
    assert!(read() > 0, "what the kernel has taken");
    (0..10).for_each(|_| stage.tell(&[id], &part));
    assert_eq!(read(), 0, "nobody has told that there is room");
    stage.settle();
    assert!(read() > 0, "now it is told");
}

#[test]
fn many_parts_at_once_are_no_fault_of_the_readers() {
    let mut stage = Stage::new();
    let (client, id) = stage.follower();
    client.set_nonblocking(false).unwrap();
    let reader = std::thread::spawn(move || {
        let mut client = client;
        (0..500)
            .map(|_| next_reply(&mut client))
            .filter(|reply| matches!(reply, Reply::Part(Part::Name(_))))
            .count()
    });
    // As one wake-up of the loop brings them.
    (0..500).for_each(|n| stage.server.stream(&[id], &name(&format!("{n} {}", "x".repeat(1500)))));
    stage.server.send_streams(stage.poll.registry());
    stage.until(|server, _| server.live().all(|(_, connection)| connection.unsent() == 0));
    assert_eq!(reader.join().unwrap(), 500);
}

#[test]
fn those_who_do_not_read_take_nothing_from_who_does() {
    let mut stage = Stage::new();
    let mut lazy: Vec<_> = (0..20).map(|_| stage.follower()).collect();
    let (mut reader, id) = stage.follower();
    let ids: Vec<ConnId> = lazy.iter().map(|(_, id)| *id).chain([id]).collect();
    let padding = "x".repeat(20_000);
    for n in 0..200 {
        stage.tell(&ids, &format!("{n} {padding}"));
        assert!(stage.unsent() <= ALL_STREAMS_OUTPUT + ids.len() * STREAM_SHARE, "{}", stage.unsent());
        assert!(
            matches!(next_reply(&mut reader), Reply::Part(Part::Name(text)) if text.starts_with(&format!("{n} ")))
        );
    }
    assert_eq!(stage.connections(), 21);
    assert_eq!(next_reply(&mut lazy[0].0), name(&format!("0 {padding}")));
}

#[test]
fn a_stream_makes_room_for_a_newcomer_after_those_who_ask_for_nothing() {
    let mut stage = Stage::new();
    let mut waiting = stage.client();
    waiting.write_all(&list()).unwrap();
    let waiting_id = stage.request().id;
    let mut idle = stage.client();
    stage.settle();
    let mut streams: Vec<_> = (0..MAX_CONNECTIONS - 2).map(|_| stage.follower()).collect();
    assert_eq!(stage.connections(), MAX_CONNECTIONS);
    let first = stage.follower();
    assert!(is_closed(&mut idle), "it has asked for nothing");
    let second = stage.follower();
    let oldest = &mut streams[0].0;
    let refused = next_reply(oldest);
    assert!(matches!(&refused, Reply::Refused(refusal) if refusal.kind == RefusalKind::Busy), "{refused:?}");
    assert!(is_closed(oldest));
    assert_eq!(stage.server.take_gone(), [streams[0].1]);
    stage.reply(waiting_id, Reply::End);
    assert_eq!(answer(&mut waiting), [Reply::End], "a command under way is never taken");
    stage.tell(&[first.1, second.1, streams[1].1], "a");
    assert_eq!(next_reply(&mut streams[1].0), name("a"));
}

/// An answer that was complete and not yet read was cut short: its reader had been silent for longest.
#[test]
fn an_answer_on_its_way_to_a_slow_reader_makes_room_after_the_streams() {
    let mut stage = Stage::new();
    let mut slow = stage.client();
    slow.write_all(&list()).unwrap();
    let id = stage.request().id;
    let parts = vec![name(&"x".repeat(50_000)); 10];
    parts.iter().for_each(|part| stage.reply(id, part.clone()));
    stage.reply(id, Reply::End);
    assert!(stage.unsent() > 0, "it is not read yet");
    let mut streams: Vec<_> = (0..MAX_CONNECTIONS).map(|_| stage.follower()).collect();
    assert!(matches!(next_reply(&mut streams[0].0), Reply::Refused(_)), "the oldest stream made room");
    assert_eq!(stage.server.take_abandoned(), [], "a stream is told itself");
    let reader = std::thread::spawn(move || answer(&mut slow));
    while !reader.is_finished() {
        stage.settle();
    }
    assert_eq!(reader.join().unwrap(), [parts, vec![Reply::End]].concat());
}

/// As in an upgrade: the connection and what is left to send go to the next server, where the stream goes on.
#[test]
fn a_stream_goes_on_at_the_next_server() {
    let mut stage = Stage::new();
    let (mut client, id) = stage.follower();
    let (slow, slow_id) = stage.follower();
    (0..600).for_each(|n| stage.tell(&[slow_id], &format!("{n} {}", "x".repeat(4000))));
    stage.tell(&[id], "before");
    let path = stage.path.clone();
    let (listener, carried) = stage.server.hand_over().unwrap();
    stage.server = Server::resume(&path, listener).unwrap();
    stage.poll = mio::Poll::new().unwrap();
    stage.server.register(stage.poll.registry(), super::tests::token).unwrap();
    assert!(carried.iter().all(|one| one.answering == Some(Answer::Stream)));
    let ids: Vec<ConnId> =
        carried.into_iter().filter_map(|one| stage.server.take_over(stage.poll.registry(), one)).collect();
    stage.tell(&ids, "after");
    assert_eq!((next_reply(&mut client), next_reply(&mut client)), (name("before"), name("after")));
    let reader = std::thread::spawn(move || {
        let mut slow = slow;
        let replies =
            std::iter::from_fn(|| Some(next_reply(&mut slow)).filter(|reply| *reply != name("after")));
        replies.filter(|reply| matches!(reply, Reply::Part(Part::Lost(_)))).count()
    });
    stage.until(|server, _| server.live().all(|(_, connection)| connection.unsent() == 0));
    assert_eq!(reader.join().unwrap(), 1, "what was lost before is told by the next one");
}

#[test]
fn a_server_that_ends_ends_its_streams() {
    let mut stage = Stage::new();
    let (mut client, id) = stage.follower();
    stage.server.stream(&[id], &name("last words"));
    drop(stage);
    assert_eq!((next_reply(&mut client), next_reply(&mut client)), (name("last words"), Reply::End));
    assert!(is_closed(&mut client));
}
