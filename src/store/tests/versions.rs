//! Files of other programs, both ways: an image can be rolled back, and forward again.
//!
//! In `files` there are databases as others left them, cut to the blocks that are not empty: the length of the whole, then an
//! offset (each a u64, little endian) and 512 bytes, again and again.

use super::*;
use crate::core::words::Want;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

/// By the program of commit 3c52324, which ended in order: four services, one registered, one with limits.
const SCHEMA_4: &[u8] = include_bytes!("files/schema-4.blocks");
/// As a program may leave it that knows nine additions: a table and a key in meta that we do not know, a field more in the
/// want of `a`, and an end of `b` for which we have no word.
const NINE_ADDITIONS: &[u8] = include_bytes!("files/nine-additions.blocks");

fn unpacked(blocks: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| usize::try_from(u64::from_le_bytes(bytes.try_into().unwrap())).unwrap();
    let (length, blocks) = blocks.split_at(8);
    let mut file = vec![0; number(length)];
    for block in blocks.chunks_exact(8 + 512) {
        let (offset, bytes) = block.split_at(8);
        file[number(offset)..][..512].copy_from_slice(bytes);
    }
    file
}

fn home_with(blocks: &[u8]) -> Home {
    use std::io::Write;
    let home = Home::new();
    std::fs::DirBuilder::new().mode(0o750).create(home.state()).unwrap();
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create_new(true).mode(0o640).open(home.file("state.redb")).unwrap();
    file.write_all(&unpacked(blocks)).unwrap();
    home
}

type Raw = BTreeMap<(String, String), String>;

/// Every row of the file, by table and key, as text without its version and checksum.
fn raw(home: &Home) -> Raw {
    let copy = home.dir.path().join("copy");
    std::fs::copy(home.file("state.redb"), &copy).unwrap();
    let database = redb::Database::open(&copy).unwrap();
    let read = database.begin_read().unwrap();
    let mut rows = Raw::new();
    for table in read.list_tables().unwrap() {
        let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table.name());
        for row in read.open_table(definition).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            let [1, text @ .., _, _, _, _] = value.value() else { panic!("a row of another version") };
            let text = std::str::from_utf8(text).unwrap().to_owned();
            rows.insert((table.name().to_owned(), key.value().to_owned()), text);
        }
    }
    rows
}

fn at<'a>(rows: &'a Raw, table: &str, key: &str) -> Option<&'a str> {
    rows.get(&(table.to_owned(), key.to_owned())).map(String::as_str)
}

#[test]
fn a_file_of_schema_4_is_read_with_the_last_histories_that_it_has_in_one_row() {
    let home = home_with(SCHEMA_4);
    let before = raw(&home);
    assert!(at(&before, "meta", "ends").is_some() && at(&before, "meta", "schema") == Some("4"));
    let opened = home.reopened();
    assert_eq!((opened.warnings, opened.instance.as_str()), (vec![], "c628f4273437eb7a99c05d0b5ae3f1ff"));
    let wants = ["one", "reg", "three", "two"].map(|service| opened.wants[&name(service)].want);
    assert_eq!(wants, [Want::Up, Want::Up, Want::Up, Want::Down]);
    assert_eq!(opened.limits[&name("one")].limits["nofile"], "512");
    assert!(opened.records.contains_key(&name("reg")) && opened.boot.is_some());
    // These are in the row of the ends only.
    for service in ["one", "reg", "three"] {
        let end = opened.runs[&name(service)].last_exit.map(|last| last.exit);
        let terminated = Exit::Signal { signal: crate::core::signal::Signal::TERM, core: false };
        assert_eq!(end, Some(terminated), "{service}");
    }

    // It has become one that the programs before schema 4 read too: nothing of it is in a form that they do not know.
    let after = raw(&home);
    assert_eq!((at(&after, "meta", "schema"), at(&after, "meta", "ends")), (Some("3"), None));
    let tables: std::collections::BTreeSet<&str> = after.keys().map(|(table, _)| table.as_str()).collect();
    assert_eq!(tables.into_iter().collect::<Vec<_>>(), ["limits", "meta", "records", "runs", "wants"]);
    assert!(at(&after, "runs", "reg").is_some_and(|run| run.contains("last_exit")));
}

/// What a program of schema 3 or 4 refuses is a `schema` above its own; the rest it reads by name.
#[test]
fn what_is_written_is_no_more_than_the_last_release_reads() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Down), record("a"), Change::Run(name("a"), run_row(1))]).unwrap();
    let identity = Change::Identity(running.opened.instance.clone(), running.opened.lies);
    running.commit(2, vec![identity, Change::Boot(serde_json::json!({}))]).unwrap();
    running.close();
    let rows = raw(&home);
    assert_eq!(at(&rows, "meta", "schema"), Some("3"));
    let known = ["wants", "records", "runs", "mirrored", "limits", "meta"];
    assert!(rows.keys().all(|(table, _)| known.contains(&table.as_str())), "{rows:?}");
    assert_eq!(home.reopened().lay, home.reopened().lies);
}

#[test]
fn of_a_newer_compatible_file_what_is_known_is_read_and_what_is_not_is_kept() {
    let home = home_with(NINE_ADDITIONS);
    let before = raw(&home);
    let unknown = |rows: &Raw| {
        let places = [("meta", "additions"), ("meta", "later"), ("timers", "a"), ("runs", "b")];
        places.map(|(table, key)| at(rows, table, key).map(str::to_owned))
    };
    assert_eq!(unknown(&before)[0].as_deref(), Some("9"));
    assert!(unknown(&before).iter().all(Option::is_some), "{before:?}");
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    let opened = &running.opened;
    assert_eq!((opened.wants[&name("a")].want, opened.wants[&name("b")].want), (Want::Down, Want::Up));
    assert!(opened.records.contains_key(&name("a")) && !opened.runs.contains_key(&name("b")));
    let [warning] = &opened.warnings[..] else { panic!("{:?}", opened.warnings) };
    assert!(warning.contains("runs of 'b' was written by a newer hermes-sup"), "{warning}");
    running.commit(1, vec![want("c", Want::Up)]).unwrap();
    // Written anew as a whole, too.
    disk.fail_sync(rustix::io::Errno::IO.raw_os_error(), 1);
    running.commit(2, vec![want("d", Want::Up)]).unwrap();
    running.close();
    let after = raw(&home);
    assert_eq!(unknown(&after), unknown(&before));
    assert!(at(&after, "wants", "d").is_some() && at(&after, "records", "a").is_some());
}
