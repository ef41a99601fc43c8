use super::*;
use crate::control::codec::MAX_FRAME;
use crate::control::codec::{decode_reply, encode_request};
use crate::control::protocol::{LogFile, Outcome, Part, Refusal, RefusalKind};
use crate::control::protocol::{State, Targets, samples};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server, its loop, and the clients of one test, in one thread: turns of the loop are taken by the test.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) poll: mio::Poll,
    pub(super) path: PathBuf,
    _dir: tempfile::TempDir,
}

pub(super) fn token(slot: u32, generation: u32) -> Token {
    Token((slot as usize) << 32 | generation as usize)
}

impl Stage {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let poll = mio::Poll::new().unwrap();
        let mut server = Server::listen(&path, 0o666).unwrap();
        server.register(poll.registry(), token).unwrap();
        Self { server, poll, path, _dir: dir }
    }

    pub(super) fn client(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One wake-up of the loop, if anything happens within `wait`.
    fn turn(&mut self, wait: Duration) -> (usize, Vec<Incoming>) {
        let mut events = mio::Events::with_capacity(64);
        self.poll.poll(&mut events, Some(wait)).unwrap();
        let mut out = Vec::new();
        for event in &events {
            let (slot, generation) = ((event.token().0 >> 32) as u32, event.token().0 as u32);
            self.server.ready(self.poll.registry(), slot, generation, event.into(), &mut out);
        }
        (events.iter().count(), out)
    }

    /// Takes turns until `done`, which sees the requests so far.
    pub(super) fn until(&mut self, mut done: impl FnMut(&Server, &[Incoming]) -> bool) -> Vec<Incoming> {
        let end = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        while !done(&self.server, &all) {
            assert!(Instant::now() < end, "nothing came of it: {all:?}");
            all.extend(self.turn(Duration::from_millis(100)).1);
        }
        all
    }

    pub(super) fn request(&mut self) -> Incoming {
        self.until(|_, all| !all.is_empty()).remove(0)
    }

    /// Takes turns as long as something happens at once.
    pub(super) fn settle(&mut self) -> Vec<Incoming> {
        let mut all = Vec::new();
        loop {
            let (events, out) = self.turn(Duration::ZERO);
            all.extend(out);
            if events == 0 {
                return all;
            }
        }
    }

    pub(super) fn reply(&mut self, id: ConnId, reply: Reply) {
        self.server.reply(self.poll.registry(), id, &reply);
    }

    pub(super) fn connections(&self) -> usize {
        self.server.live().count()
    }
}

pub(super) fn list() -> Vec<u8> {
    encode_request(&Request::List {}).unwrap()
}

pub(super) fn name(text: &str) -> Reply {
    Reply::Part(Part::Name(text.to_owned()))
}

/// Reads one frame.
pub(super) fn next_reply(stream: &mut UnixStream) -> Reply {
    let mut frame = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).unwrap();
        if byte[0] == 0 {
            return decode_reply(&frame).unwrap();
        }
        frame.push(byte[0]);
    }
}

/// Reads one answer to its end.
pub(super) fn answer(stream: &mut UnixStream) -> Vec<Reply> {
    let mut replies = Vec::new();
    loop {
        let reply = next_reply(stream);
        let last = !matches!(reply, Reply::Part(_));
        replies.push(reply);
        if last {
            return replies;
        }
    }
}

pub(super) fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(got) => got == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_request_is_handed_out_with_its_caller_and_answered() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    for round in ["a", "b"] {
        client.write_all(&list()).unwrap();
        let incoming = stage.request();
        assert_eq!(incoming.request, Request::List {});
        assert_eq!(incoming.peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(incoming.peer.pid, Some(std::process::id()));
        stage.reply(incoming.id, name(round));
        stage.reply(incoming.id, Reply::End);
        stage.reply(incoming.id, name("after the end"));
        assert_eq!(answer(&mut client), [name(round), Reply::End]);
    }
    drop(client);
    stage.until(|server, _| server.live().count() == 0);
    assert_eq!(stage.server.take_gone(), [], "nothing was under way");
}

#[test]
fn results_of_a_verb_arrive_one_by_one() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    client.write_all(&encode_request(&Request::Stop { targets: Targets::All }).unwrap()).unwrap();
    let id = stage.request().id;
    let first = Reply::Part(Part::Outcome(Outcome::done("a", State::Down, None)));
    stage.reply(id, first.clone());
    let mut got = [0; 500];
    let size = client.read(&mut got).unwrap();
    assert_eq!(decode_reply(&got[..size - 1]), Ok(first), "before the end of the answer");
}

#[test]
fn a_request_in_single_bytes_and_two_in_one_piece() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    for byte in list() {
        assert_eq!(stage.settle(), []);
        client.write_all(&[byte]).unwrap();
    }
    let id = stage.request().id;
    stage.reply(id, Reply::End);
    answer(&mut client);

    client.write_all(&[list(), list()].concat()).unwrap();
    let id = stage.request().id;
    assert_eq!(stage.settle(), [], "the second waits for the answer of the first");
    stage.reply(id, name("first"));
    stage.reply(id, Reply::End);
    let id = stage.request().id;
    stage.reply(id, name("second"));
    stage.reply(id, Reply::End);
    assert_eq!(answer(&mut client), [name("first"), Reply::End]);
    assert_eq!(answer(&mut client), [name("second"), Reply::End]);
}

#[test]
fn what_came_during_an_answer_is_read_after_it() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    let id = stage.request().id;
    client.write_all(&list()).unwrap();
    assert_eq!(stage.settle(), []);
    stage.reply(id, Reply::End);
    stage.request();
}

#[test]
fn garbage_is_answered_in_one_line_and_closed() {
    let mut stage = Stage::new();
    for (bytes, kind) in [
        (&b"GET / HTTP/1.1\r\n\r\n\0"[..], RefusalKind::Malformed),
        (b"\0", RefusalKind::Malformed),
        (b"\xff\xfe\0", RefusalKind::Malformed),
        (b"{\"method\":\"halt\"}\0", RefusalKind::UnknownMethod),
        (b"{\"version\":9,\"method\":\"list\"}\0", RefusalKind::WrongVersion),
    ] {
        let mut client = stage.client();
        client.write_all(bytes).unwrap();
        assert_eq!(stage.until(|server, _| server.tick > 0 && server.live().count() == 0), []);
        let replies = answer(&mut client);
        assert!(matches!(&replies[..], [Reply::Refused(refusal)] if refusal.kind == kind), "{replies:?}");
        assert!(is_closed(&mut client));
        stage.server.tick = 0;
    }
}

#[test]
fn ten_megabytes_are_refused_after_the_first_64_kib() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    let writer = std::thread::spawn(move || {
        let written = client.write_all(&vec![b'x'; 10 << 20]);
        (client, written)
    });
    assert_eq!(stage.until(|server, _| server.tick > 0 && server.live().count() == 0), []);
    let (mut client, written) = writer.join().unwrap();
    assert!(written.is_err(), "the server went on reading");
    let replies = answer(&mut client);
    assert!(
        matches!(&replies[..], [Reply::Refused(refusal)] if refusal.kind == RefusalKind::TooLarge),
        "{replies:?}"
    );
}

#[test]
fn five_hundred_silent_clients_do_no_harm() {
    let mut stage = Stage::new();
    let mut waiting = stage.client();
    waiting.write_all(&list()).unwrap();
    let waiting_id = stage.request().id;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(stage.client());
        stage.settle();
    }
    assert_eq!(stage.connections(), MAX_CONNECTIONS);
    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    let id = stage.request().id;
    stage.reply(id, Reply::End);
    assert_eq!(answer(&mut client), [Reply::End]);
    stage.reply(waiting_id, Reply::End);
    assert_eq!(answer(&mut waiting), [Reply::End], "a command under way is not taken for a silent client");
    assert!(is_closed(&mut silent[0]), "the longest silent one made room");
    let newest = silent.last_mut().unwrap();
    newest.write_all(&list()).unwrap();
    stage.request();
}

#[test]
fn when_all_have_commands_under_way_a_newcomer_is_told_so() {
    let mut stage = Stage::new();
    let mut busy = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        busy.push((stage.request().id, client));
    }
    let mut client = stage.client();
    stage.settle();
    assert_eq!(
        answer(&mut client),
        [Reply::Refused(Refusal::new(RefusalKind::Busy, "too many commands are under way: try again later"))]
    );
    assert!(is_closed(&mut client));
}

#[test]
fn a_slow_reader_gets_its_whole_answer_and_holds_up_nobody() {
    let mut stage = Stage::new();
    let mut slow = stage.client();
    slow.write_all(&list()).unwrap();
    let id = stage.request().id;
    let parts = 2000;
    let service = Reply::Part(Part::Service(Box::new(samples::service("coder"))));
    for _ in 0..parts {
        stage.reply(id, service.clone());
    }
    stage.reply(id, Reply::End);

    let mut other = stage.client();
    other.write_all(&list()).unwrap();
    let other_id = stage.request().id;
    stage.reply(other_id, Reply::End);
    assert_eq!(answer(&mut other), [Reply::End]);
    assert_eq!(stage.settle(), [], "an unread answer does not keep the loop awake");

    slow.write_all(&list()).unwrap();
    let reader = std::thread::spawn(move || {
        let replies = answer(&mut slow);
        (slow, replies)
    });
    let next = stage.request().id;
    let (mut slow, replies) = reader.join().unwrap();
    assert_eq!(replies.len(), parts + 1);
    stage.reply(next, Reply::End);
    assert_eq!(answer(&mut slow), [Reply::End]);
}

#[test]
fn an_answer_that_nobody_reads_is_bounded() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    let id = stage.request().id;
    let part = name(&"x".repeat(50_000));
    for _ in 0..200 {
        stage.reply(id, part.clone());
        let held: usize = stage.server.live().map(|(_, connection)| connection.output.capacity()).sum();
        assert!(held <= 3 * MAX_OUTPUT, "{held}");
    }
    assert_eq!(stage.connections(), 0);
    assert_eq!(stage.server.take_gone(), [id]);
    // It was a riddle to the client, and the log said nothing.
    let abandoned = stage.server.take_abandoned();
    assert!(
        abandoned.len() == 1 && abandoned[0].why.ends_with(" bytes of it were not read"),
        "{abandoned:?}"
    );
}

#[test]
fn a_half_closed_client_is_still_answered() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let id = stage.request().id;
    stage.settle();
    assert_eq!(stage.server.take_gone(), []);
    stage.reply(id, name("a"));
    stage.reply(id, Reply::End);
    assert_eq!(answer(&mut client), [name("a"), Reply::End]);
    stage.until(|server, _| server.live().count() == 0);
    assert!(is_closed(&mut client));
}

#[test]
fn a_client_that_hangs_up_is_reported_and_its_slot_is_another() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    let old = stage.request().id;
    drop(client);
    stage.until(|server, _| server.live().count() == 0);
    assert_eq!((stage.server.take_gone(), stage.server.take_abandoned()), (vec![old], vec![]));

    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    let new = stage.request().id;
    assert_eq!(new.slot, old.slot);
    stage.reply(old, name("for the one before"));
    stage.reply(old, Reply::End);
    stage.reply(new, Reply::End);
    assert_eq!(answer(&mut client), [Reply::End]);
    let stale = Readiness { readable: true, writable: true, hung_up: true };
    let mut out = Vec::new();
    stage.server.ready(stage.poll.registry(), old.slot, old.generation, stale, &mut out);
    assert_eq!((stage.connections(), out), (1, vec![]), "an event of the one before is nothing to this one");
}

#[test]
fn a_request_whose_sender_left_at_once_is_still_carried_out() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    let stop = Request::Stop { targets: Targets::All };
    client.write_all(&encode_request(&stop).unwrap()).unwrap();
    drop(client);
    let incoming = stage.request();
    assert_eq!(incoming.request, stop);
    stage.until(|server, _| server.live().count() == 0);
    assert_eq!(stage.server.take_gone(), [incoming.id]);
}

#[test]
fn a_part_that_cannot_be_told_does_not_hide_the_rest() {
    let mut stage = Stage::new();
    let mut client = stage.client();
    client.write_all(&list()).unwrap();
    let id = stage.request().id;
    let mut service = samples::service("coder");
    // Of a reason there would be the beginning.
    service.definition = Some("x".repeat(MAX_FRAME));
    stage.reply(id, Reply::Part(Part::Service(Box::new(service))));
    stage.reply(id, name("b"));
    stage.reply(id, Reply::End);
    let replies = answer(&mut client);
    assert!(
        matches!(&replies[..], [Reply::Part(Part::Outcome(outcome)), b, Reply::End]
            if outcome.name == "coder" && !outcome.ok && *b == name("b")),
        "{replies:?}"
    );
}

#[test]
fn the_socket_has_the_mode_asked_for_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o666, 0o660] {
        let path = dir.path().join(format!("{mode:o}"));
        let server = Server::listen(&path, mode).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        drop(server);
        assert!(!path.exists());
    }
}

#[test]
fn only_a_socket_that_nobody_serves_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let first = Server::listen(&path, 0o600).unwrap();
    let error = Server::listen(&path, 0o600).unwrap_err();
    assert!(matches!(error, ListenError::InUse(_)));
    assert_eq!(
        error.to_string(),
        format!(
            "a supervisor already answers at {}: stop it, or choose another place with --socket",
            path.display()
        )
    );
    // As after a crash: the socket's file is left, and nobody listens.
    let mut crashed = first;
    crashed.listener.file = (0, 0);
    drop(crashed);
    assert!(path.exists());
    let second = Server::listen(&path, 0o600).unwrap();

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(second);
    assert!(path.exists(), "what is not ours stays");
    assert!(matches!(Server::listen(&path, 0o600), Err(ListenError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");

    let long = dir.path().join("x".repeat(108));
    assert!(matches!(Server::listen(&long, 0o600), Err(ListenError::TooLong(_))));
    assert!(matches!(Server::listen(&dir.path().join("no/s"), 0o600), Err(ListenError::Io { .. })));
}

/// Needs root, to let a thread be somebody else.
#[test]
fn an_unprivileged_user_takes_only_its_share() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut stage = Stage::new();
    let dir = stage.path.parent().unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut operator = stage.client();
    stage.settle();
    let path = stage.path.clone();
    let _crowd = std::thread::spawn(move || {
        let somebody = rustix::process::Uid::from_raw(54321);
        rustix::thread::set_thread_res_uid(somebody, somebody, somebody).unwrap();
        (0..MAX_PER_UID + 20).map(|_| UnixStream::connect(&path).unwrap()).collect::<Vec<_>>()
    })
    .join()
    .unwrap();
    stage.settle();
    let of = |stage: &Stage, uid| stage.server.live().filter(|(_, c)| c.peer.uid == uid).count();
    assert_eq!((of(&stage, 54321), of(&stage, 0)), (MAX_PER_UID, 1));
    operator.write_all(&list()).unwrap();
    assert_eq!(stage.request().peer.uid, 0);
}

/// Each file comes with its own part, however little the client reads at a time.
#[test]
fn an_open_file_goes_with_its_part() {
    use crate::control::client::{Client, Search};
    let mut stage = Stage::new();
    let search = Search { explicit: Some(stage.path.clone()), state: "/".into() };
    let client = std::thread::spawn(move || {
        let mut client = Client::connect(&search).unwrap();
        client.log_files("web", Some(PATIENCE)).unwrap()
    });
    let id = stage.request().id;
    for name in ["@1.s", "@2.s", "current"] {
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "of {name}").unwrap();
        let part = Part::LogFile(LogFile { service: "web".to_owned(), file: name.to_owned() });
        stage.server.reply_with(stage.poll.registry(), id, &part, file.into());
    }
    stage.reply(id, Reply::End);
    let files = client.join().unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["@1.s", "@2.s", "current"]);
    for (name, file) in files {
        use std::os::unix::fs::FileExt;
        let mut text = [0; 64];
        let read = std::fs::File::from(file).read_at(&mut text, 0).unwrap();
        assert_eq!(&text[..read], format!("of {name}\n").as_bytes());
    }
}

#[test]
fn open_files_that_nobody_takes_are_bounded() {
    let mut stage = Stage::new();
    let mut clients = Vec::new();
    let part = Part::LogFile(LogFile { service: "web".to_owned(), file: "x".repeat(60_000) });
    for _ in 0..8 {
        let mut client = stage.client();
        client.write_all(&list()).unwrap();
        let id = stage.request().id;
        for _ in 0..60 {
            stage.server.reply_with(stage.poll.registry(), id, &part, tempfile::tempfile().unwrap().into());
        }
        clients.push(client);
        let waiting: usize = stage.server.live().map(|(_, connection)| connection.files()).sum();
        assert!(waiting <= MAX_FILES, "{waiting}");
    }
}
