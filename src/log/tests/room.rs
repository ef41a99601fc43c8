//! Ways through the room: order, torn and long lines, readers that are stuck, drains, ends.

use super::*;
use std::io::{BufRead, BufReader, Read};

/// Contract: 67.
#[test]
fn a_line_goes_raw_to_the_container_and_with_a_head_to_the_file() {
    let room = Room::new();
    room.open(A, room.spec("coder"));
    let (out, err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"hello\n");
    room.drained(A);
    write_all(&err, b"oops\n");
    room.drained(A);
    assert_eq!(room.lines("coder"), ["  hello", " !oops"]);
    let mut text = String::new();
    BufReader::new(room.out.unwrap()).read_line(&mut text).unwrap();
    BufReader::new(room.err.unwrap()).read_line(&mut text).unwrap();
    assert_eq!(text, "hello\noops\n");
    use std::os::unix::fs::PermissionsExt;
    let dir = room.home.path().join("logs/gateways/coder");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&dir), mode(&dir.join("current"))), (0o750, 0o640));
    assert!(room.logs.finish(SECONDS) && room.container.finish(SECONDS));
}

/// In `docker logs` nobody could tell whose line it was.
#[test]
fn lines_in_the_containers_stream_can_name_their_service_and_the_file_is_as_ever() {
    let room = Room::new();
    room.open(A, LogSpec { dress: Dress::Prefix, ..room.spec("coder") });
    room.open(B, LogSpec { dress: Dress::Json, ..room.spec("other") });
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let (_out, err) = room.logs.child_ends(B).unwrap();
    let long = "x".repeat(2 * split::CARRY_MAX);
    for text in ["one\ntwo\n", &long, "\n"] {
        write_all(&out, text.as_bytes());
    }
    write_all(&err, b"three \xff\n");
    room.drained(A);
    room.drained(B);
    let mut out = BufReader::new(room.out.as_ref().unwrap());
    let mut line = |expected: &str| {
        let mut text = String::new();
        out.read_line(&mut text).unwrap();
        assert!(text == expected, "{} of {}", text.len(), expected.len());
    };
    line("coder | one\n");
    line("coder | two\n");
    line(&format!("coder | {long}\n"));
    let mut text = String::new();
    BufReader::new(room.err.as_ref().unwrap()).read_line(&mut text).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&document["service"], &document["stream"]), (&"other".into(), &"err".into()));
    assert_eq!(document["line"], "three \u{fffd}");
    assert_eq!(room.lines("coder")[..2], ["  one", "  two"]);
    assert_eq!(texts_lossy(&room.dir("other")), [" !three \u{fffd}"]);
}

fn texts_lossy(dir: &Path) -> Vec<String> {
    let bytes = std::fs::read(dir.join("current")).unwrap();
    String::from_utf8_lossy(&bytes).lines().map(|line| line[stamp::TIME_LEN..].to_owned()).collect()
}

#[test]
fn rotation_loses_and_doubles_nothing_and_prunes_the_oldest() {
    let room = Room::new();
    let spec = LogSpec { max_size: 10_000, keep: 3, to_container: false, ..room.spec("coder") };
    room.open(A, spec);
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let text: Vec<String> = (0..2_000).map(|n| format!("line {n} {}", "x".repeat(n % 90))).collect();
    for line in &text {
        write_all(&out, format!("{line}\n").as_bytes());
    }
    room.drained(A);
    let kept = room.lines("coder");
    let last: Vec<_> = text[text.len() - kept.len()..].iter().map(|line| format!("  {line}")).collect();
    assert!(kept == last, "a hole or a double");
    let files = files(&room.dir("coder"));
    assert_eq!(files.len(), 4);
    for (index, file) in files.iter().enumerate() {
        let size = std::fs::metadata(file).unwrap().len();
        assert!(size <= 10_000 && (index == 3 || size > 9_800), "{size}");
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(index == 3 || rotate::label_of(name).is_some(), "{name}");
    }
    assert_eq!(room.logs.health(A), SourceHealth::default());
}

#[test]
fn a_torn_last_line_is_kept_and_ended_before_the_next_incarnation() {
    let room = Room::new();
    room.open(A, room.spec("coder"));
    let (out, err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"first\ntorn");
    write_all(&err, b"why");
    drop((out, err));
    room.drained(A);
    let (out, _err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"again\n");
    room.drained(A);
    assert_eq!(room.lines("coder"), ["  first", "  torn", " !why", "  again"]);

    // An earlier supervisor may have left one in the file itself.
    assert!(room.logs.finish(SECONDS));
    let current = room.dir("coder").join("current");
    let mut text = std::fs::read(&current).unwrap();
    text.extend_from_slice(b"2026-11-21 05:47:06.123456789  cut by a power fail");
    std::fs::write(&current, text).unwrap();
    let (notify, events) = channel();
    let container = room.container.clone();
    let logs = Logs::start(room.runtime.path(), container, move |e| notify.send(e).unwrap()).unwrap();
    let spec = LogSpec { home: room.home.path().to_owned(), ..Room::new().spec("coder") };
    logs.open(A, spec).unwrap();
    logs.announce(false);
    write_all(&logs.child_ends(A).unwrap().0, b"later\n");
    assert!(logs.drain(A) || events.recv_timeout(SECONDS).unwrap() == LogEvent::Drained(A));
    assert_eq!(
        texts(&room.home.path().join("logs/gateways/coder"))[4..],
        ["  cut by a power fail", "  later"]
    );
}

#[test]
fn a_line_of_ten_megabytes_passes_whole() {
    let mut room = Room::new();
    room.open(A, room.spec("coder"));
    let (out, _err) = room.logs.child_ends(A).unwrap();
    const LONG: usize = 10_000_000;
    let mut stream = room.out.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        text
    });
    write_all(&out, b"before\n");
    write_all(&out, &vec![b'x'; LONG]);
    write_all(&out, b"\nafter\n");
    room.drained(A);
    let lines = room.lines("coder");
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[0].as_str(), lines[1].len(), lines[2].as_str()), ("  before", LONG + 2, "  after"));
    assert!(room.logs.finish(SECONDS) && room.container.finish(SECONDS));
    drop(room.container);
    let text = reader.join().unwrap();
    // The reader may have been behind: then the line is cut there, and that is said.
    let whole = text == [b"before\n", &vec![b'x'; LONG][..], b"\nafter\n"].concat();
    assert!(whole || text.windows(13).any(|part| part == b"dropped here:"));
}

/// Contract: 68.
#[test]
fn two_streams_and_two_services_mix_line_by_line() {
    let mut room = Room::new();
    room.open(A, room.spec("a"));
    room.open(B, room.spec("b"));
    let stream = BufReader::new(room.out.take().unwrap());
    let reader = std::thread::spawn(move || stream.lines().map(Result::unwrap).collect::<Vec<_>>());
    let mut writers = Vec::new();
    for (id, mark) in [(A, 'a'), (B, 'b')] {
        let (out, err) = room.logs.child_ends(id).unwrap();
        for (fd, mark) in [(out, mark), (err, mark.to_ascii_uppercase())] {
            writers.push(std::thread::spawn(move || {
                for n in 0..3_000 {
                    let line = format!("{mark}{n}\n");
                    // In two writes, so that lines are torn on their way.
                    write_all(&fd, &line.as_bytes()[..2]);
                    write_all(&fd, &line.as_bytes()[2..]);
                }
            }));
        }
    }
    // Nobody reads the container's stderr, and nobody minds.
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    room.drained(A);
    room.drained(B);
    for (name, mark) in [("a", 'a'), ("b", 'b')] {
        let lines = room.lines(name);
        for (head, mark) in [("  ", mark), (" !", mark.to_ascii_uppercase())] {
            let got: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(head)).collect();
            let expected: Vec<_> = (0..3_000).map(|n| format!("{mark}{n}")).collect();
            assert!(got == expected, "{name}: stream {head:?} is out of order or has holes");
        }
    }
    assert!(room.logs.finish(SECONDS) && room.container.finish(SECONDS));
    drop(room.container);
    let seen = reader.join().unwrap();
    for mark in ['a', 'b'] {
        let got: Vec<_> = seen.iter().filter(|line| line.starts_with(mark)).collect();
        assert_eq!(got.len(), 3_000);
        assert!(got.iter().enumerate().all(|(n, line)| **line == format!("{mark}{n}")));
    }
}

#[test]
fn a_stuck_reader_of_the_container_costs_its_own_stream_only() {
    let room = Room::new();
    room.open(A, LogSpec { keep: 100, ..room.spec("coder") });
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let line = format!("{}\n", "y".repeat(999));
    let count = 20_000;
    for _ in 0..count {
        write_all(&out, line.as_bytes());
    }
    room.drained(A);
    assert_eq!(room.lines("coder").len(), count);
    let health = room.logs.health(A);
    assert!(health.dropped_from_stream > 10_000, "{health:?}");
    assert_eq!(health.dropped_from_file, 0);
    assert!(room.logs.overall().stdout.busy.is_some());
    // What passes and what is said to be missing are everything.
    let mut stream = BufReader::new(room.out.unwrap());
    let (mut seen, mut missing, mut text) = (0, 0, String::new());
    while seen + missing < count as u64 {
        text.clear();
        assert!(stream.read_line(&mut text).unwrap() > 0);
        match text.strip_prefix("hermes-sup: lines dropped here: ") {
            Some(rest) => missing += rest.split(' ').next().unwrap().parse::<u64>().unwrap(),
            None => seen += 1,
        }
    }
    assert_eq!(missing, health.dropped_from_stream);
    assert_eq!(seen + missing, count as u64);
}

#[test]
fn while_a_main_program_has_the_terminal_lines_go_to_the_file_only() {
    let room = Room::new();
    room.logs.container_stream(false);
    room.open(A, room.spec("coder"));
    let (out, _err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"unseen\n");
    room.drained(A);
    room.logs.container_stream(true);
    write_all(&out, b"seen\n");
    room.drained(A);
    room.container.line(Stream::Out, b"loud\n");
    assert_eq!(room.lines("coder"), ["  unseen", "  seen"]);
    assert!(room.logs.finish(SECONDS) && room.container.finish(SECONDS));
    drop(room.container);
    let mut text = String::new();
    room.out.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "seen\nloud\n");
}

#[test]
fn a_stranger_who_floods_the_fifo_cannot_hold_up_a_drain_or_an_end() {
    let room = Room::new();
    room.open(A, LogSpec { to_container: false, keep: 1, ..room.spec("coder") });
    let (out, err) = room.logs.child_ends(A).unwrap();
    write_all(&err, b"last words\n");
    rustix::io::ioctl_fionbio(&out, true).unwrap();
    let (stop, stopped) = channel::<()>();
    let flood = std::thread::spawn(move || {
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let _ = rustix::io::write(&out, &b"flood\n".repeat(1000));
        }
    });
    for _ in 0..20 {
        room.drained(A);
    }
    room.logs.close(A);
    assert_eq!(room.event(), LogEvent::Closed(A));
    drop(stop);
    flood.join().unwrap();
    assert!(std::fs::read_dir(room.runtime.path().join("log")).unwrap().next().is_none());
    assert!(room.logs.child_ends(A).is_err());
    assert!(room.logs.finish(SECONDS));
}

#[test]
fn a_successor_reads_on_where_the_first_life_stopped() {
    let Room { runtime, home, logs, container, out: _out, .. } = Room::new();
    let spec = LogSpec { home: home.path().to_owned(), ..Room::new().spec("coder") };
    logs.open(A, spec.clone()).unwrap();
    logs.announce(false);
    let (child, _err) = logs.child_ends(A).unwrap();
    write_all(&child, b"one\n");
    assert!(logs.finish(SECONDS));
    // Nobody reads now, and the child notices nothing.
    write_all(&child, b"two\n");
    let (notify, events) = channel();
    let logs = Logs::start(runtime.path(), container, move |e| notify.send(e).unwrap()).unwrap();
    logs.open(A, spec).unwrap();
    logs.announce(false);
    write_all(&child, b"three\n");
    assert!(logs.drain(A) || events.recv_timeout(SECONDS).unwrap() == LogEvent::Drained(A));
    assert_eq!(texts(&home.path().join("logs/gateways/coder")), ["  one", "  two", "  three"]);
}

#[test]
fn an_id_is_free_again_once_it_is_closed_and_a_new_spec_takes_effect_at_once() {
    let room = Room::new();
    room.open(A, room.spec("first"));
    write_all(&room.logs.child_ends(A).unwrap().0, b"1\n");
    room.drained(A);
    room.open(A, LogSpec { max_size: 1, ..room.spec("first") });
    write_all(&room.logs.child_ends(A).unwrap().0, b"2\n3\n");
    room.drained(A);
    assert_eq!(files(&room.dir("first")).len(), 3);
    assert_eq!(room.lines("first"), ["  1", "  2", "  3"]);
    room.logs.close(A);
    assert_eq!(room.event(), LogEvent::Closed(A));
    room.open(A, room.spec("second"));
    write_all(&room.logs.child_ends(A).unwrap().0, b"4\n");
    room.drained(A);
    assert_eq!(room.lines("second"), ["  4"]);
}

/// A boot: what writes has its file at once, what is silent when the others have started.
#[test]
fn an_empty_file_is_made_when_nothing_more_is_to_come_and_one_with_lines_before_that() {
    let room = Room::new();
    const MANY: u32 = 300;
    for id in 0..MANY {
        room.logs.open(SourceId(id), room.spec(&format!("s{id}"))).unwrap();
        room.logs.announce(true);
    }
    let (out, _err) = room.logs.child_ends(SourceId(7)).unwrap();
    write_all(&out, b"early\n");
    room.drained(SourceId(7));
    assert_eq!(room.lines("s7"), ["  early"]);
    let there = || std::fs::read_dir(room.home.path().join("logs/gateways")).unwrap().count();
    assert_eq!(there(), 1);
    room.logs.announce(false);
    let deadline = std::time::Instant::now() + SECONDS;
    while there() < MANY as usize && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(room.logs.finish(SECONDS));
    assert_eq!(there(), MANY as usize);
    for id in 0..MANY {
        let current = room.dir(&format!("s{id}")).join("current");
        assert_eq!(current.metadata().unwrap().len() > 0, id == 7, "{}", current.display());
    }
    assert_eq!(room.events.try_iter().filter(|event| matches!(event, LogEvent::Warning { .. })).count(), 0);
}

/// `down` is said as soon as the log of a service is drained, and most have said nothing for a while when they end: these
/// are not to wait for a thread. What was written must never be taken for drained before it is in the file.
#[test]
fn what_is_in_its_file_is_drained_at_once_and_nothing_else_is() {
    let room = Room::new();
    room.logs.open(A, room.spec("a")).unwrap();
    assert!(room.logs.drain(A), "it has said nothing");
    let (out, err) = room.logs.child_ends(A).unwrap();
    let mut said = Vec::new();
    for n in 0..2000 {
        let (end, mark) = if n % 2 == 0 { (&out, "  ") } else { (&err, " !") };
        // Every third line is torn, and ended by the drain.
        write_all(end, if n % 3 == 0 { format!("{n}") } else { format!("{n}\n") }.as_bytes());
        said.push(format!("{mark}{n}"));
        room.drained(A);
        if n % 100 == 0 {
            assert_eq!(room.lines("a"), said);
        }
    }
    assert_eq!(room.lines("a"), said);
    room.logs.close(A);
    assert_eq!(room.event(), LogEvent::Closed(A));
    assert!(room.logs.drain(A), "it is not open");
}

/// Where the memory of a container goes with it, thousands of FIFOs need not be removed one by one.
#[test]
fn the_fifos_of_the_retired_go_or_are_left_and_what_was_written_is_in_the_file_either_way() {
    let room = Room::new();
    let fifo = |name: &str| room.runtime.path().join(format!("log/{name}.out"));
    for (id, name) in [(A, "coder"), (B, "writer")] {
        room.open(id, room.spec(name));
        let (out, _err) = room.logs.child_ends(id).unwrap();
        write_all(&out, b"last words\n");
        drop(out);
        room.drained(id);
    }
    room.logs.retire(A, Farewell::Host);
    room.logs.retire(B, Farewell::Container);
    room.logs.announce(false);
    assert!(room.logs.finish(SECONDS));
    assert_eq!((fifo("coder").exists(), fifo("writer").exists()), (false, true));
    assert_eq!(
        (room.lines("coder"), room.lines("writer")),
        (vec!["  last words".to_owned()], vec!["  last words".to_owned()])
    );
    // A successor in the same memory takes it over.
    let logs = Logs::start(room.runtime.path(), room.container.clone(), |_| {}).unwrap();
    logs.open(B, room.spec("writer")).unwrap();
    assert!(logs.child_ends(B).is_ok());
}

/// Somebody has tidied up the runtime directory: the service never started again, and nothing that its hooks wrote was heard.
#[test]
fn fifos_that_somebody_removed_are_made_again_for_the_next_life() {
    let room = Room::new();
    room.open(A, room.spec("a"));
    let (out, _err) = room.logs.first_ends(A).unwrap();
    let fifo = room.runtime.path().join("log/a.out");
    std::fs::remove_file(&fifo).unwrap();
    // What runs beside a life writes where that does.
    let (hook, _err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"one\n");
    write_all(&hook, b"two\n");
    room.drained(A);
    let (out, _err) = room.logs.first_ends(A).unwrap();
    assert!(fifo.exists(), "a successor finds it");
    write_all(&out, b"three\n");
    room.drained(A);
    assert_eq!(room.lines("a"), ["  one", "  two", "  three"]);
}

/// Its successor made new FIFOs and waited at those, while the service stood still before a full pipe.
#[test]
fn a_successor_hears_a_life_whose_fifos_somebody_removed() {
    let room = Room::new();
    room.open(A, room.spec("a"));
    let (out, err) = room.logs.first_ends(A).unwrap();
    let mut service = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    let mut says = service.stdin.take().unwrap();
    let fifo = |end: &str| room.runtime.path().join(format!("log/a.{end}"));
    std::fs::remove_file(fifo("out")).unwrap();
    assert!(room.logs.finish(SECONDS));
    std::io::Write::write_all(&mut says, b"one\n").unwrap();
    // Another one in between has made it again, and does not hear the service.
    drop(Logs::start(room.runtime.path(), room.container.clone(), |_| {}).unwrap().open(A, room.spec("a")));
    assert!(fifo("out").exists());

    let (sender, events) = std::sync::mpsc::channel();
    let logs =
        Logs::start(room.runtime.path(), room.container.clone(), move |event| drop(sender.send(event)));
    let logs = logs.unwrap();
    let main = i32::try_from(service.id()).unwrap();
    logs.open_for(A, room.spec("a"), Some(main)).unwrap();
    logs.announce(false);
    std::io::Write::write_all(&mut says, b"two\n").unwrap();
    drop(says);
    assert!(service.wait().unwrap().success());
    if !logs.drain(A) {
        assert_eq!(events.recv_timeout(SECONDS).unwrap(), LogEvent::Drained(A));
    }
    assert_eq!(room.lines("a"), ["  one", "  two"]);
    // The next life is heard as any other.
    assert!(!fifo("out").exists() && fifo("err").exists());
    let (out, _err) = logs.first_ends(A).unwrap();
    write_all(&out, b"three\n");
    if !logs.drain(A) {
        assert_eq!(events.recv_timeout(SECONDS).unwrap(), LogEvent::Drained(A));
    }
    assert_eq!(room.lines("a"), ["  one", "  two", "  three"]);
}
