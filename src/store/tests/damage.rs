//! Crashes and damaged files: an acknowledged commit is never lost, an unacknowledged one is wholly there or not, and
//! nothing that the mirror knows is lost in silence.

use super::super::engine::{Engine, Found, Trouble};
use super::super::schema::Write;
use super::disk::{Dice, PowerDisk};
use super::*;
use crate::core::words::Want;
use std::os::unix::fs::PermissionsExt;

/// A process killed, or the power cut, at every single write and sync of sixty commits and of the last one.
#[test]
fn a_crash_at_any_step_keeps_what_was_acknowledged_and_splits_no_commit() {
    quiet_about_caught_panics();
    let disk = PowerDisk::default();
    let row = |service: &str, number| Write::Want(name(service), Some(want_row(Want::Up, number)));
    let mut first = Rows { instance: "0".repeat(32), ..Rows::default() };
    ["a", "b"].iter().for_each(|service| first.apply(row(service, 0)));
    let mut engine = Engine::create(Box::new(disk.clone()), &first).unwrap();
    disk.acknowledged(0);
    let mut commit = |number| {
        let filler = format!("filler{}", number % 7);
        let rows = [row("a", number), row(&filler, number), row("b", number)];
        engine.commit(&rows.each_ref().map(|write| write.encoded().unwrap())).unwrap();
        disk.acknowledged(number);
    };
    (1..=61).for_each(&mut commit);
    drop(engine);
    let images = disk.images();
    assert!(images.len() > 500, "{}", images.len());
    for (index, (image, acknowledged)) in images.into_iter().enumerate() {
        let found = Engine::open(Box::new(PowerDisk::from_image(image)));
        let Found { rows, repaired, .. } = found.unwrap_or_else(|error| panic!("image {index}: {error}"));
        let seen = ["a", "b"].map(|service| rows.wants[&name(service)].asked_at_ms);
        assert_eq!(seen[0], seen[1], "image {index}: half a commit");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&seen[0]),
            "image {index}: {seen:?} of {acknowledged}"
        );
        assert!(!repaired, "image {index}: a crash is no damage");
    }
}

/// A home whose database was closed in order, or left by a killed process.
fn used(closed: bool) -> (Home, Opened, Vec<u8>, Vec<u8>) {
    let home = Home::new();
    let running = home.open();
    for number in 0..20 {
        let service = format!("service{number}");
        let wanted = if number % 3 == 0 { Want::Down } else { Want::Up };
        running.commit(number, vec![want(&service, wanted), record(&service)]).unwrap();
    }
    let killed = std::fs::read(home.file("state.redb")).unwrap();
    running.close();
    if closed {
        let file = std::fs::File::options().read(true).write(true).open(home.file("state.redb")).unwrap();
        drop(Engine::open(Box::new(super::super::disk::DiskFile::new(file))).unwrap());
    }
    let bytes = if closed { std::fs::read(home.file("state.redb")).unwrap() } else { killed };
    let mirror = std::fs::read(home.file("wants")).unwrap();
    let opened = home.reopened();
    assert_eq!(opened.wants.len(), 20);
    (home, opened, bytes, mirror)
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
}

fn survives(home: &Home, good: &Opened, damaged: &[u8], mirror: &[u8], what: &str) {
    put(&home.file("state.redb"), damaged);
    put(&home.file("wants"), mirror);
    let running = home.open();
    let opened = running.opened.clone();
    assert_eq!(opened.wants, good.wants, "{what}: {:?}", opened.warnings);
    assert_eq!(opened.instance, good.instance, "{what}");
    assert!(opened.records == good.records || !opened.warnings.is_empty(), "{what}: lost in silence");
    assert_eq!(opened.volatile, None, "{what}");
    running.commit(99, vec![want("after", Want::Up)]).unwrap_or_else(|error| panic!("{what}: {error}"));
    running.close();
    assert!(home.like(&home.state(), "state.redb.corrupt-").len() <= 3, "{what}");
}

#[test]
fn single_bit_flips_never_panic_and_never_lose_a_want() {
    let mut dice = Dice(42);
    for closed in [true, false] {
        let (home, good, bytes, mirror) = used(closed);
        let live: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for _ in 0..150 {
            let (at, bit) = (live[dice.below(live.len())], dice.below(8));
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            survives(&home, &good, &damaged, &mirror, &format!("closed {closed}, byte {at}, bit {bit}"));
        }
    }
}

/// A row's checksum does not cover its key, and a closed file is not verified by opening it: only the engine's own
/// check notices that a row has changed its name.
#[test]
fn a_row_under_a_wrong_name_is_noticed() {
    let (home, good, bytes, mirror) = used(true);
    let key = b"service7";
    let places: Vec<usize> =
        (0..bytes.len() - key.len()).filter(|at| bytes[*at..].starts_with(key)).collect();
    assert!(!places.is_empty());
    for at in places {
        let mut damaged = bytes.clone();
        damaged[at + key.len() - 1] = b'z';
        survives(&home, &good, &damaged, &mirror, &format!("byte {at}"));
    }
}

#[test]
fn truncated_files_never_panic_and_never_lose_a_want() {
    let mut dice = Dice(43);
    for closed in [true, false] {
        let (home, good, bytes, mirror) = used(closed);
        let lengths = (0..20).map(|_| dice.below(bytes.len())).chain([0, 1, 320, 4096, bytes.len() - 1]);
        for length in lengths {
            survives(&home, &good, &bytes[..length], &mirror, &format!("closed {closed}, length {length}"));
        }
    }
}

#[test]
fn a_damaged_database_is_kept_for_people_and_rebuilt_from_the_mirror() {
    let (home, good, _, mirror) = used(true);
    put(&home.file("state.redb"), &[7; 5000]);
    let opened = home.reopened();
    let kept = home.like(&home.state(), "state.redb.corrupt-");
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::read(home.file(&kept[0])).unwrap(), [7; 5000]);
    assert_eq!((opened.wants, opened.records.len()), (good.wants, 0));
    assert!(opened.warnings[0].contains(&format!("set aside as {}", kept[0])), "{:?}", opened.warnings);
    assert!(
        opened.warnings[1].starts_with("the wants of 20 services were rebuilt from "),
        "{:?}",
        opened.warnings
    );
    assert_eq!(opened.warnings.len(), 2);
    // The mirror says the same as before, and next time there is nothing to say.
    assert_eq!(std::fs::read(home.file("wants")).unwrap(), mirror);
    assert_eq!(home.reopened().warnings, Vec::<String>::new());
}

/// A newest commit that is damaged looks to the engine like one that was never finished, so it takes the one before.
/// The mirror knows better.
#[test]
fn a_database_older_than_the_mirror_takes_the_wants_from_it() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Up), record("a")]).unwrap();
    running.close();
    let old = std::fs::read(home.file("state.redb")).unwrap();
    let running = home.open();
    running.commit(2, vec![want("a", Want::Down)]).unwrap();
    running.close();
    put(&home.file("state.redb"), &old);
    let opened = home.reopened();
    assert_eq!(opened.wants[&name("a")].want, Want::Down);
    assert_eq!(opened.records.len(), 1);
    assert!(opened.warnings[0].contains("is older than"), "{:?}", opened.warnings);
    let opened = home.reopened();
    assert_eq!((opened.wants[&name("a")].want, opened.warnings), (Want::Down, vec![]));
}

#[test]
fn a_deleted_database_is_rebuilt_from_the_mirror() {
    let (home, good, ..) = used(true);
    std::fs::remove_file(home.file("state.redb")).unwrap();
    let opened = home.reopened();
    assert_eq!((opened.wants, opened.instance), (good.wants, good.instance));
    assert_eq!(opened.warnings.len(), 1);
}

/// Damage that shows while we run costs nothing at all: what was acknowledged is in memory.
#[test]
fn a_file_found_damaged_in_mid_flight_is_replaced_without_loss() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    running.commit(1, vec![want("a", Want::Up), record("a")]).unwrap();
    disk.fail_write(rustix::io::Errno::NOSPC.raw_os_error(), usize::MAX);
    running.commit(2, vec![want("b", Want::Up)]).unwrap_err();
    std::fs::OpenOptions::new().write(true).open(home.file("state.redb")).unwrap().set_len(4096).unwrap();
    disk.heal();
    running.store.commit(3, vec![want("c", Want::Up)]);
    let (done, said) = running.answer(3);
    done.unwrap();
    assert!(
        said.iter().any(|event| matches!(event, StoreEvent::Warning { text } if text.contains("set aside")))
    );
    running.close();
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len()), (2, 1));
}

#[test]
fn a_panic_of_the_engine_is_a_damaged_file() {
    #[derive(Debug)]
    struct Panics;
    impl redb::StorageBackend for Panics {
        fn len(&self) -> std::io::Result<u64> {
            Ok(1 << 20)
        }
        fn read(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            panic!("index out of bounds")
        }
        fn set_len(&self, _: u64) -> std::io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn write(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }
    }
    quiet_about_caught_panics();
    assert!(matches!(Engine::open(Box::new(Panics)), Err(Trouble::Corrupt(_))));
    assert!(!panic_is_expected());
}
