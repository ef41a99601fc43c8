//! `ctl logs`: order, filters, rotations, following.

use super::*;
use crate::log::tai64n::Label;
use crate::sys::localtime::Zone;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines `from..to`, one a second, as the room writes them; every third on stderr.
fn lines(from: u64, to: u64) -> String {
    let mut stamp = stamp::Stamp::default();
    let mut text = String::new();
    for n in from..to {
        let kind = if n % 3 == 0 { Stream::Err } else { Stream::Out };
        let head = stamp.at(at(n), kind);
        writeln!(text, "{}line {n}", std::str::from_utf8(&head).unwrap()).unwrap();
    }
    text
}

fn at(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + n)
}

/// Two archives of ten lines and `current` with five.
fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("logs/x");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("{}.s", Label::of(at(10)))), lines(0, 10)).unwrap();
    std::fs::write(dir.join(format!("{}.s", Label::of(at(20)))), lines(10, 20)).unwrap();
    std::fs::write(dir.join("current"), lines(20, 25)).unwrap();
    (home, dir)
}

fn read(home: &Path, dirs: &[&str], query: Query) -> Vec<(usize, String)> {
    let dirs: Vec<_> = dirs.iter().map(PathBuf::from).collect();
    let mut got = Vec::new();
    let mut take = |line: Line<'_>| {
        assert_eq!(line.time.len(), stamp::TIME_LEN);
        got.push((line.source, String::from_utf8(line.text.to_vec()).unwrap()));
        Ok(())
    };
    open(home, &dirs, query).read(false, &mut take).unwrap();
    got
}

fn open(home: &Path, dirs: &[PathBuf], query: Query) -> Reader {
    Reader::open(home, dirs, query, Zone::own(), &mut |_, why| panic!("{why:?}")).unwrap()
}

fn expect(numbers: impl Iterator<Item = u64>) -> Vec<(usize, String)> {
    numbers.map(|n| (0, format!("line {n}"))).collect()
}

#[test]
fn all_lines_the_last_ones_those_since_and_those_of_a_stream() {
    let (home, _dir) = home();
    let get = |query| read(home.path(), &["logs/x"], query);
    let all = Query::default();
    assert_eq!(get(all), expect(0..25));
    for last in [0, 1, 5, 6, 15, 24, 25, 99] {
        let from = 25_u64.saturating_sub(last);
        assert_eq!(get(Query { last: Some(last as usize), ..all }), expect(from..25), "last {last}");
    }
    for since in [0, 9, 10, 11, 20, 24, 25] {
        assert_eq!(get(Query { since: Some(at(since)), ..all }), expect(since..25), "since {since}");
    }
    let errors = Query { stream: Some(Stream::Err), ..all };
    assert_eq!(get(errors), expect((0..25).filter(|n| n % 3 == 0)));
    assert_eq!(get(Query { last: Some(3), ..errors }), expect([18, 21, 24].into_iter()));
    let all_of_it = Query { last: Some(9), since: Some(at(15)), stream: Some(Stream::Out), ..all };
    assert_eq!(get(all_of_it), expect([16, 17, 19, 20, 22, 23].into_iter()));
}

#[test]
fn services_are_merged_by_time_and_a_torn_end_is_a_line() {
    let (home, dir) = home();
    let other = home.path().join("logs/y");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("current"), lines(12, 15)).unwrap();
    let mut text = std::fs::read_to_string(dir.join("current")).unwrap();
    text.push_str(lines(25, 26).trim_end());
    std::fs::write(dir.join("current"), text).unwrap();
    let got = read(home.path(), &["logs/y", "logs/x"], Query { since: Some(at(11)), ..Query::default() });
    let numbers: Vec<u64> = got.iter().map(|(_, text)| text[5..].parse().unwrap()).collect();
    assert!(numbers.is_sorted());
    assert_eq!(got.iter().filter(|(source, _)| *source == 0).count(), 3);
    assert_eq!(got.len(), 3 + 15);
    assert_eq!(got.last().unwrap().1, "line 25");
}

#[test]
fn a_foreign_line_is_shown_as_it_is_and_a_planted_link_is_not_followed() {
    let (home, dir) = home();
    std::fs::write(dir.join("current"), "no head at all\n").unwrap();
    let mut got = Vec::new();
    let mut take = |line: Line<'_>| {
        got.push((line.stream, line.text.to_vec()));
        Ok(())
    };
    let dirs = [PathBuf::from("logs/x")];
    open(home.path(), &dirs, Query::default()).read(false, &mut take).unwrap();
    assert_eq!(got.len(), 21);
    assert_eq!(got[20], (Stream::Out, b"no head at all".to_vec()));
    std::fs::remove_file(dir.join("current")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("current")).unwrap();
    // What is no file is not there: it ends no reading and hides nothing.
    assert_eq!(read(home.path(), &["logs/x"], Query::default()), expect(0..20));
    let dirs = ["logs/x", "logs/none", "logs/empty"].map(PathBuf::from);
    std::fs::create_dir(home.path().join("logs/empty")).unwrap();
    std::fs::write(home.path().join("logs/empty/current"), "").unwrap();
    let mut absent = Vec::new();
    let mut note = |source, why| absent.push((source, matches!(why, Absent::Empty)));
    Reader::open(home.path(), &dirs, Query::default(), Zone::own(), &mut note).unwrap();
    assert_eq!(absent, [(1, false), (2, true)]);
}

/// A planted crowd: directories and links with the names of archives, a FIFO, more archives than files may be open.
#[test]
fn nothing_planted_ends_the_reading_or_hides_a_line() {
    let (home, dir) = home();
    std::fs::create_dir(dir.join(format!("{}.s", Label::of(at(15))))).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join(format!("{}.s", Label::of(at(16))))).unwrap();
    let fifo = dir.join(format!("{}.s", Label::of(at(17))));
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for n in 0..3000 {
        std::fs::write(dir.join(format!("{}.s", Label::of(at(n) - Duration::from_secs(9000)))), "").unwrap();
    }
    assert_eq!(read(home.path(), &["logs/x"], Query::default()), expect(0..25));
    assert_eq!(read(home.path(), &["logs/x"], Query { last: Some(7), ..Query::default() }), expect(18..25));
}

#[test]
fn lines_up_to_a_moment() {
    let (home, _dir) = home();
    let query = Query { since: Some(at(8)), until: Some(at(21)), ..Query::default() };
    assert_eq!(read(home.path(), &["logs/x"], query), expect(8..22));
    assert_eq!(read(home.path(), &["logs/x"], Query { last: Some(3), ..query }), expect(19..22));
}

/// The lines of `current`, put together again, and the longest piece that was handed over.
fn whole(home: &Path, query: Query) -> (Vec<Vec<u8>>, usize) {
    let (mut got, mut longest): (Vec<Vec<u8>>, _) = (Vec::new(), 0);
    let mut take = |line: Line<'_>| {
        if line.begins {
            got.push(Vec::new());
        }
        let last = got.last_mut().unwrap();
        last.extend_from_slice(line.text);
        longest = longest.max(line.text.len());
        Ok(())
    };
    open(home, &["logs/x".into()], query).read(false, &mut take).unwrap();
    (got, longest)
}

#[test]
fn a_line_of_any_length_comes_in_pieces_that_cut_no_character() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("logs/x");
    std::fs::create_dir_all(&dir).unwrap();
    // Characters of two, three and four bytes, so that every cut meets one.
    let long = "äß€漢🦀x".repeat(100_000);
    let text = format!("{}{long}\n{}", lines(0, 1).trim_end(), lines(1, 2));
    std::fs::write(dir.join("current"), text).unwrap();
    let (got, longest) = whole(home.path(), Query::default());
    assert_eq!(got.len(), 2);
    assert_eq!(String::from_utf8(got[0].clone()).unwrap(), format!("line 0{long}"));
    assert!(longest <= 64 * 1024, "{longest}");
    let mut take = |line: Line<'_>| {
        assert!(std::str::from_utf8(line.text).is_ok());
        Ok(())
    };
    open(home.path(), &["logs/x".into()], Query::default()).read(false, &mut take).unwrap();
    // The last lines, with a bound of what is looked at: it ends within the long one.
    let tail = Query { last: Some(2), within: Some(1000), ..Query::default() };
    let (got, _) = whole(home.path(), tail);
    assert_eq!(got.last().unwrap(), b"line 1");
}

/// A torn end of zeros, which is a line, was none to who asked for the last ones: there was one more than asked for.
#[test]
fn a_torn_end_of_zeros_is_a_line_among_the_last_ones_too() {
    let (home, dir) = home();
    std::fs::write(dir.join("current"), b"a line\n\0\0").unwrap();
    for (last, expected) in [(1, vec![&b"\0\0"[..]]), (2, vec![&b"a line"[..], &b"\0\0"[..]])] {
        let (got, _) = whole(home.path(), Query { last: Some(last), ..Query::default() });
        assert_eq!(got, expected);
    }
}

/// `ctl logs` and `ctl status` read a sparse file of 3 GB into memory as one line. This one is the largest that the file
/// system takes; its holes are passed over in no time.
#[test]
fn a_file_of_holes_costs_nothing_and_its_lines_are_found() {
    use std::os::unix::fs::FileExt;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("logs/x");
    std::fs::create_dir_all(&dir).unwrap();
    let file = std::fs::File::create(dir.join("current")).unwrap();
    file.write_all_at(lines(0, 3).as_bytes(), 0).unwrap();
    file.write_all_at(lines(3, 5).as_bytes(), 1 << 40).unwrap();
    file.set_len(1 << 42).unwrap();
    let numbers = |query| {
        let (got, longest) = whole(home.path(), query);
        assert!(longest <= 64 * 1024, "{longest}");
        let text = got.iter().map(|line| String::from_utf8_lossy(line).replace('\0', "")).collect::<String>();
        text.split("line ").filter_map(|rest| rest.get(..1)?.parse().ok()).collect::<Vec<u64>>()
    };
    assert_eq!(numbers(Query::default()), [0, 1, 2, 3, 4]);
    for within in [None, Some(8 << 20)] {
        assert_eq!(numbers(Query { last: Some(3), within, ..Query::default() }), [2, 3, 4]);
    }
}

#[test]
fn following_misses_and_doubles_nothing_across_many_rotations() {
    let room = Room::new();
    let spec = LogSpec { max_size: 2_000, keep: 10_000, to_container: false, ..room.spec("x") };
    room.open(A, spec);
    let (out, _err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"n 0\nn 1\n");
    room.drained(A);
    let home = room.home.path().to_owned();
    let (seen, lines) = channel();
    let (end, ended) = std::io::pipe().unwrap();
    let follower = std::thread::spawn(move || {
        let query = Query { last: Some(1), ..Query::default() };
        let mut reader = open(&home, &[PathBuf::from("logs/gateways/x")], query);
        let mut take = |line: Line<'_>| {
            seen.send(String::from_utf8(line.text.to_vec()).unwrap()).map_err(io::Error::other)
        };
        reader.read(true, &mut take).unwrap();
        reader.follow(Some(std::os::fd::AsFd::as_fd(&end)), &mut |_| Vec::new(), &mut take).unwrap();
    });
    assert_eq!(lines.recv_timeout(SECONDS).unwrap(), "n 1");
    for n in 2..5_000 {
        write_all(&out, format!("n {n}\n").as_bytes());
        if n % 500 == 0 {
            // Now and then wait for the follower, so that it meets quiet files as well as busy ones.
            room.drained(A);
            while lines.recv_timeout(SECONDS).unwrap() != format!("n {n}") {}
        }
    }
    // The last stretch is checked line by line.
    for n in 4_501..5_000 {
        assert_eq!(lines.recv_timeout(SECONDS).unwrap(), format!("n {n}"));
    }
    drop(ended);
    follower.join().unwrap();
    assert!(lines.try_recv().is_err());
    assert!(files(&room.dir("x")).len() > 50);
}

/// `logs -f` of a service that had never run showed nothing for ever; nor did it find the log again that somebody had removed.
#[test]
fn a_log_that_is_not_there_yet_is_followed_when_it_comes_and_when_it_comes_again() {
    // The supervisor makes the whole way at once, or a piece at a time; of two services one may have been there.
    for there in ["", "logs", "logs/gateways"] {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(there)).unwrap();
        let (path, (seen, lines)) = (home.path().to_owned(), channel());
        let (end, ended) = std::io::pipe().unwrap();
        let (ready, watching) = channel();
        let follower = std::thread::spawn(move || {
            let dirs = ["logs/gateways/x", "logs/gateways/y"].map(PathBuf::from);
            let mut absent = |source, why| {
                assert!(matches!(why, Absent::NoLog), "{source}: {why:?}");
            };
            let mut reader = Reader::open(&path, &dirs, Query::default(), Zone::own(), &mut absent).unwrap();
            ready.send(()).unwrap();
            let mut take = |line: Line<'_>| {
                let text = String::from_utf8(line.text.to_vec()).unwrap();
                seen.send((line.source, text)).map_err(io::Error::other)
            };
            reader.follow(Some(std::os::fd::AsFd::as_fd(&end)), &mut |_| Vec::new(), &mut take).unwrap();
        });
        watching.recv_timeout(SECONDS).unwrap();
        let next = || lines.recv_timeout(SECONDS).unwrap();
        let dir = |name: &str| home.path().join("logs/gateways").join(name);
        std::fs::create_dir_all(dir("x")).unwrap();
        std::fs::write(dir("x").join("current"), "first\n").unwrap();
        assert_eq!(next(), (0, "first".to_owned()), "{there:?}");
        std::fs::create_dir_all(dir("y")).unwrap();
        std::fs::write(dir("y").join("current"), "second\n").unwrap();
        assert_eq!(next(), (1, "second".to_owned()), "{there:?}");
        std::fs::remove_dir_all(dir("x")).unwrap();
        std::fs::create_dir_all(dir("x")).unwrap();
        std::fs::write(dir("x").join("current"), "third\n").unwrap();
        assert_eq!(next(), (0, "third".to_owned()), "{there:?}");
        std::fs::rename(dir("y"), dir("away")).unwrap();
        std::fs::create_dir_all(dir("y")).unwrap();
        std::fs::write(dir("y").join("current"), "fourth\n").unwrap();
        assert_eq!(next(), (1, "fourth".to_owned()), "{there:?}");
        drop(ended);
        follower.join().unwrap();
        assert!(lines.try_recv().is_err(), "nothing twice");
    }
}
