//! Disks that hang, fill up or refuse, and owners who plant things.

use super::*;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn a_hung_disk_slows_a_writer_that_blocks_and_nothing_is_lost() {
    let room = Room::new();
    room.open(A, LogSpec { keep: 100, to_container: false, ..room.spec("a") });
    room.open(B, LogSpec { to_container: true, ..room.spec("b") });
    room.drained(A);
    let release = hang(&room.logs);
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let (finished, writer_finished) = channel();
    let count = 40_000;
    std::thread::spawn(move || {
        let line = format!("{}\n", "z".repeat(99));
        for _ in 0..count {
            write_all(&out, line.as_bytes());
        }
        finished.send(()).unwrap();
    });
    // The writer is held by a full FIFO, and meanwhile another service still reaches the container.
    wait_until_full(&room.logs, A);
    write_all(&room.logs.child_ends(B).unwrap().0, b"alive\n");
    let mut seen = [0; 6];
    room.out.as_ref().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"alive\n");
    assert!(writer_finished.try_recv().is_err());
    assert!(room.logs.overall().files_busy.is_some());
    drop(release);
    writer_finished.recv_timeout(SECONDS).unwrap();
    room.drained(A);
    assert_eq!(room.lines("a").len(), count);
    assert_eq!(room.logs.health(A), SourceHealth::default());
}

/// The pump does not read this FIFO any more: it is full, and stays so over turns of the pump.
fn wait_until_full(logs: &Logs, id: SourceId) {
    let (end, _) = logs.child_ends(id).unwrap();
    let size = rustix::pipe::fcntl_getpipe_size(&end).unwrap() as u64;
    let deadline = std::time::Instant::now() + SECONDS;
    let shared = Arc::clone(&lock(&logs.sources).get(&id).unwrap().shared);
    while rustix::io::ioctl_fionread(&end).unwrap() < size - 4096 || logs.backlog.has_room(&shared, false) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_hung_disk_costs_counted_lines_where_drop_is_chosen_and_the_file_says_so() {
    let room = Room::new();
    let spec = LogSpec { overflow: Overflow::Drop, keep: 100, to_container: false, ..room.spec("a") };
    room.open(A, spec);
    room.drained(A);
    let release = hang(&room.logs);
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let count = 40_000;
    for n in 0..count {
        write_all(&out, format!("{n} {}\n", "z".repeat(90)).as_bytes());
    }
    drop(release);
    room.drained(A);
    write_all(&out, b"after\n");
    room.drained(A);
    let lost = room.logs.health(A).dropped_from_file;
    assert!(lost > 1000, "{lost}");
    let lines = room.lines("a");
    let said: u64 = lines
        .iter()
        .filter_map(|line| line.strip_prefix(" !hermes-sup: lines dropped here: "))
        .map(number)
        .sum();
    assert_eq!(said, lost);
    let kept = lines.iter().filter(|line| line.ends_with('z')).count() as u64;
    assert_eq!(kept + lost, count);
    assert_eq!(lines.last().unwrap(), "  after");
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

#[test]
fn a_hung_disk_does_not_keep_a_service_from_being_down_or_the_supervisor_from_its_end() {
    let room = Room::new();
    room.open(A, room.spec("a"));
    room.drained(A);
    let release = hang(&room.logs);
    let (out, _err) = room.logs.child_ends(A).unwrap();
    write_all(&out, b"last words\n");
    assert!(!room.logs.drain(A));
    assert!(matches!(room.event(), LogEvent::Warning { id: Some(A), .. }));
    assert_eq!(room.event(), LogEvent::Drained(A));
    room.logs.close(A);
    assert!(matches!(room.event(), LogEvent::Warning { .. }));
    assert_eq!(room.event(), LogEvent::Closed(A));
    drop(release);
    let dir = room.dir("a");
    assert!(room.logs.finish(SECONDS));
    assert_eq!(texts(&dir), ["  last words"]);
    assert!(room.events.try_recv().is_err(), "an event was announced twice");
}

#[test]
fn planted_links_fifos_and_directories_are_never_written_to() {
    for (planted, plant) in PLANTS {
        let room = Room::new();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("current"), "precious\n").unwrap();
        let parent = room.dir("x").parent().unwrap().to_owned();
        std::fs::create_dir_all(&parent).unwrap();
        plant(room.home.path(), outside.path());
        room.open(A, LogSpec { max_size: 100, keep: 1000, ..room.spec("x") });
        let (out, _err) = room.logs.child_ends(A).unwrap();
        for _ in 0..3 {
            write_all(&out, &b"evil\n".repeat(40));
            if !room.logs.drain(A) {
                while room.event() != LogEvent::Drained(A) {}
            }
        }
        let names: Vec<_> =
            std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["current"], "{planted}");
        assert_eq!(
            std::fs::read_to_string(outside.path().join("current")).unwrap(),
            "precious\n",
            "{planted}"
        );
        let health = room.logs.health(A);
        // What is planted in the directory is put aside; what is planted above it hides the directory.
        let is_kept = planted.ends_with("as current");
        let expected = if is_kept { (0, false) } else { (120, true) };
        assert_eq!((health.dropped_from_file, health.file_error.is_some()), expected, "{planted}");
        if is_kept {
            let mut kept = files(&room.dir("x"));
            kept.retain(|path| !path.to_string_lossy().contains("not-a-file"));
            let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
            assert_eq!(kept.iter().map(lines).sum::<usize>(), 120, "{planted}");
        }
    }
}

type Plant = fn(&Path, &Path);
const PLANTS: [(&str, Plant); 6] = [
    ("logs", |home, outside| {
        std::fs::remove_dir_all(home.join("logs")).unwrap();
        symlink(outside, home.join("logs")).unwrap();
    }),
    ("logs/gateways", |home, outside| {
        std::fs::remove_dir(home.join("logs/gateways")).unwrap();
        symlink(outside, home.join("logs/gateways")).unwrap();
    }),
    ("logs/gateways/x", |home, outside| symlink(outside, home.join("logs/gateways/x")).unwrap()),
    ("a link as current", |home, outside| {
        std::fs::create_dir(home.join("logs/gateways/x")).unwrap();
        symlink(outside.join("current"), home.join("logs/gateways/x/current")).unwrap();
    }),
    ("a FIFO as current", |home, _| {
        use rustix::fs::{CWD, FileType, Mode};
        std::fs::create_dir(home.join("logs/gateways/x")).unwrap();
        let path = home.join("logs/gateways/x/current");
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }),
    ("a directory as current", |home, _| {
        std::fs::create_dir_all(home.join("logs/gateways/x/current")).unwrap();
    }),
];

#[test]
fn planted_archives_neither_catch_a_rotation_nor_stop_the_log() {
    let room = Room::new();
    let outside = tempfile::tempdir().unwrap();
    let dir = room.dir("x");
    std::fs::create_dir_all(dir.join("@400000000000000000000000.s")).unwrap();
    symlink(outside.path().join("made"), dir.join("@4fffffffffffffff00000000.s")).unwrap();
    room.open(A, LogSpec { max_size: 1000, keep: 2, ..room.spec("x") });
    let (out, _err) = room.logs.child_ends(A).unwrap();
    for n in 0..200 {
        write_all(&out, format!("line {n}\n").as_bytes());
    }
    room.drained(A);
    assert!(!outside.path().join("made").exists());
    assert!(std::fs::read_to_string(dir.join("current")).unwrap().ends_with("  line 199\n"));
    assert_eq!(room.logs.health(A).dropped_from_file, 0);
}

#[test]
fn a_directory_that_cannot_be_rotated_keeps_every_line() {
    if !rustix::process::geteuid().is_root() {
        return; // Needs a second user; the host tier runs this as root.
    }
    let room = Room::new();
    std::fs::set_permissions(room.home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dir = room.dir("x");
    std::fs::create_dir_all(&dir).unwrap();
    let current = dir.join("current");
    std::fs::write(&current, "").unwrap();
    std::os::unix::fs::chown(&current, Some(65534), Some(65534)).unwrap();
    let owner = Credentials { uid: 65534, gid: 65534, groups: [].into() };
    room.open(A, LogSpec { max_size: 1000, owner, ..room.spec("x") });
    let (out, _err) = room.logs.child_ends(A).unwrap();
    for n in 0..2000 {
        write_all(&out, format!("line {n}\n").as_bytes());
    }
    let drained = room.logs.drain(A);
    assert!(matches!(room.event(), LogEvent::Warning { id: Some(A), .. }));
    assert!(drained || room.event() == LogEvent::Drained(A));
    let lines = room.lines("x");
    assert_eq!(lines.len(), 2000);
    assert_eq!(lines[1999], "  line 1999");
    assert_eq!(room.logs.health(A).dropped_from_file, 0);
}

#[test]
fn files_and_fifos_belong_to_the_owner_and_his_refusals_are_ours() {
    if !rustix::process::geteuid().is_root() {
        return; // Needs a second user; the host tier runs this as root.
    }
    use std::os::unix::fs::MetadataExt;
    let room = Room::new();
    let owner = Credentials { uid: 65534, gid: 65534, groups: [].into() };
    // The home is root's, mode 0700: one warning, every line counted, nothing written.
    room.open(A, LogSpec { owner: owner.clone(), writer: owner.clone(), ..room.spec("x") });
    let (out, _err) = room.logs.child_ends(A).unwrap();
    assert!(matches!(room.event(), LogEvent::Warning { id: Some(A), .. }));
    write_all(&out, b"1\n2\n");
    room.drained(A);
    assert_eq!(room.logs.health(A).dropped_from_file, 2);
    // Mended: the next line is there, and says what is missing.
    std::os::unix::fs::chown(room.home.path(), Some(65534), Some(65534)).unwrap();
    write_all(&out, b"3\n");
    room.drained(A);
    assert_eq!(room.lines("x"), [" !hermes-sup: lines dropped here: 2", "  3"]);
    assert_eq!(room.logs.health(A).file_error, None);
    for path in [room.dir("x").join("current"), room.runtime.path().join("log/x.out")] {
        assert_eq!(std::fs::metadata(path).unwrap().uid(), 65534);
    }
}

#[test]
fn a_full_disk_drops_and_counts_warns_once_and_comes_back() {
    // A tiny file system needs a mount, and that a mount namespace and process of its own.
    const NAME: &str = "log::tests::disk::a_full_disk_drops_and_counts_warns_once_and_comes_back";
    if std::env::var_os("FULL_DISK_INNER").is_none() {
        if !rustix::process::geteuid().is_root() {
            return; // The host tier runs this as root.
        }
        let output = std::process::Command::new("unshare")
            .arg("--mount")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("FULL_DISK_INNER", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let room = Room::new();
    let (flags, size) = (rustix::mount::MountFlags::empty(), c"size=256k");
    rustix::mount::mount("tmpfs", room.home.path(), "tmpfs", flags, Some(size)).unwrap();
    std::fs::write(room.home.path().join("ballast"), vec![0; 128 * 1024]).unwrap();
    room.open(A, LogSpec { to_container: false, ..room.spec("x") });
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let count = 5_000;
    for n in 0..count {
        write_all(&out, format!("{n} {}\n", "f".repeat(90)).as_bytes());
    }
    let drained = room.logs.drain(A);
    assert!(matches!(room.event(), LogEvent::Warning { id: Some(A), .. }));
    assert!(drained || room.event() == LogEvent::Drained(A));
    assert!(room.logs.health(A).file_error.unwrap().contains("No space left"));
    std::fs::remove_file(room.home.path().join("ballast")).unwrap();
    write_all(&out, b"after\n");
    room.drained(A);
    let health = room.logs.health(A);
    assert_eq!(health.file_error, None);
    let lines = room.lines("x");
    let kept = lines.iter().filter(|line| line.len() > 92 && line.ends_with('f')).count() as u64;
    let whole = lines.iter().filter(|line| line.ends_with(&"f".repeat(90))).count() as u64;
    assert_eq!(whole + health.dropped_from_file, count, "{kept} begun");
    let said = format!(" !hermes-sup: lines dropped here: {}", health.dropped_from_file);
    assert_eq!(lines[lines.len() - 2..], [said, "  after".to_owned()]);
    rustix::mount::unmount(room.home.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn work_for_the_disk_is_bounded_answered_and_survives_a_bug_in_it() {
    let room = Room::new();
    let files = room.logs.files();
    let (answer, answers) = channel();
    let send = answer.clone();
    files.run(Credentials::own(), || 6 * 7, move |got| send.send(got.unwrap()).unwrap()).unwrap();
    assert_eq!(answers.recv_timeout(SECONDS).unwrap(), 42);
    let send = answer.clone();
    let bug = || -> i32 { std::panic::resume_unwind(Box::new("a bug")) };
    files.run(Credentials::own(), bug, move |got| send.send(i32::from(got.is_err())).unwrap()).unwrap();
    assert_eq!(answers.recv_timeout(SECONDS).unwrap(), 1);
    let release = hang(&room.logs);
    let mut taken = 0;
    // Also while none of it is done: what a thousand gateways want that stop at once is not refused.
    let refused = loop {
        let send = answer.clone();
        match files.run(Credentials::own(), || 1, move |got| send.send(got.unwrap()).unwrap()) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, taken), (Refused::Full, 8192));
    drop(release);
    for _ in 0..taken {
        assert_eq!(answers.recv_timeout(SECONDS).unwrap(), 1);
    }
    assert!(room.logs.finish(SECONDS));
    assert_eq!(files.run(Credentials::own(), || (), |_| ()), Err(Refused::Ended));
}

/// A log that somebody moved away went on where nobody looks, until its rotation failed.
#[test]
fn a_log_that_was_moved_or_removed_comes_back() {
    let room = Room::new();
    room.open(A, room.spec("x"));
    let (out, _err) = room.logs.child_ends(A).unwrap();
    let write = |text: &str| {
        write_all(&out, text.as_bytes());
        room.drained(A);
    };
    write("one\n");
    std::fs::remove_file(room.dir("x").join("current")).unwrap();
    write("two\n");
    assert_eq!(room.lines("x"), ["  two"]);
    let moved = room.home.path().join("moved");
    std::fs::rename(room.dir("x"), &moved).unwrap();
    // Looked at every two seconds.
    let begun = std::time::Instant::now();
    while !room.dir("x").exists() {
        assert!(begun.elapsed() < SECONDS, "it never came back");
        write("three\n");
    }
    assert!(room.lines("x").iter().all(|line| line == "  three"));
    assert_eq!(texts(&moved)[0], "  two", "what was written before is where it was moved to");
    // At the next start it is there without a line.
    std::fs::remove_dir_all(room.dir("x")).unwrap();
    room.open(A, room.spec("x"));
    room.logs.files().run(Credentials::own(), || {}, |_| {}).unwrap();
    while !room.dir("x").join("current").exists() {
        assert!(begun.elapsed() < SECONDS, "it is not there at the next start");
        std::thread::yield_now();
    }
}

/// What the owner of the directory may put in the place of the log: lines were lost for as long as it was there.
#[test]
fn what_is_planted_as_the_log_is_put_aside() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let room = Room::new();
    type PlantAt = fn(&Path);
    let plant: [(&str, PlantAt); 5] = [
        ("directory", |path| std::fs::create_dir_all(path.join("full")).unwrap()),
        ("link", |path| std::os::unix::fs::symlink("/nowhere", path).unwrap()),
        ("fifo", |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
        ("sparse", |path| std::fs::File::create(path).unwrap().set_len(1 << 42).unwrap()),
        ("largest", |path| {
            // As large as this file system has them: not a byte more goes in.
            let file = std::fs::File::create(path).unwrap();
            let mut size = i64::MAX as u64;
            while file.set_len(size).is_err() {
                size /= 2;
            }
        }),
    ];
    for (number, (name, plant)) in (1..).zip(plant) {
        let current = room.dir(name).join("current");
        std::fs::create_dir_all(room.dir(name)).unwrap();
        plant(&current);
        let id = SourceId(number);
        room.open(id, room.spec(name));
        let (out, _err) = room.logs.child_ends(id).unwrap();
        write_all(&out, b"a line\n");
        room.drained(id);
        assert!(current.symlink_metadata().unwrap().is_file(), "{name}");
        let text = std::fs::read_to_string(&current).unwrap();
        assert!(text.len() < 100 && text.ends_with("  a line\n"), "{name}: {text:?}");
        assert_eq!(room.logs.health(id).dropped_from_file, 0, "{name}");
    }
}
