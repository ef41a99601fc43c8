//! The state directory: the database's own bytes, rows in a sound database, and the mirror of the wants.
//!
//! Of the document's files `rows` becomes a database: a line `TABLE KEY JSON` for each row, whose version and checksum are right.

use super::files::Place;
use super::one_line;
use hermes_sup::core::name::ServiceName;
use hermes_sup::core::words::{Cause, Want};
use hermes_sup::store::{self, Change, Opened, Options, Store, StoreEvent, WantRow};
use redb::{Database, TableDefinition};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(document: &[u8]) {
    let place = Place::new();
    let state = place.lay("supervisor", document, "state.redb");
    make_database(&state);
    // As the store leaves them: otherwise they are set aside unread.
    for (name, mode) in [(".", 0o750), ("state.redb", 0o640), ("wants", 0o640)] {
        let path = state.join(name);
        if std::fs::symlink_metadata(&path).is_ok_and(|stat| !stat.is_symlink()) {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
                .expect("the mode of a file of ours");
        }
    }
    let Some((store, opened, events)) = open(place.path()) else { return };
    assert_eq!(opened.volatile, None, "the disk is in order");
    let beside = std::fs::read_dir(place.path()).expect("a directory of ours").count();
    assert_eq!(beside, 1, "the state directory is ours, and was not set aside");
    let name = ServiceName::new("of-ours").expect("a name");
    let row = WantRow {
        want: Want::Up,
        asked_by_uid: Some(0),
        asked_at_ms: 1,
        cause: Cause::Operator,
        definition_hash: None,
    };
    store.commit(1, vec![Change::Want(name.clone(), row.clone())]);
    let said = std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok());
    let answer = said.fuse().find(|event| !matches!(event, StoreEvent::Warning { .. }));
    assert_eq!(answer, Some(StoreEvent::Committed { ticket: 1 }), "whatever was there, we go on");
    assert_eq!(store.close(PATIENCE), Ok(()));
    let (store, again, _events) = open(place.path()).expect("what we wrote");
    let mut wants = opened.wants;
    wants.insert(name, row);
    assert_eq!(again.wants, wants, "what was acknowledged is there");
    assert_eq!((again.instance, again.records, again.runs), (opened.instance, opened.records, opened.runs));
    let _ = store.close(PATIENCE);
}

fn open(home: &Path) -> Option<(Store, Opened, Receiver<StoreEvent>)> {
    let options = Options {
        home: home.to_owned(),
        dir: home.join("supervisor"),
        gid: rustix::process::getegid().as_raw(),
        host: "box".to_owned(),
        patience: PATIENCE,
        gives_way: None,
        is_init: false,
    };
    let (sender, events) = channel();
    let begun = store::begin(options, move |event| drop(sender.send(event)));
    match begun.and_then(|opening| opening.wait(|| true)) {
        Ok((store, opened)) => {
            opened.warnings.iter().for_each(|warning| one_line(warning));
            assert!(opened.instance.len() == 32, "an instance id of ours: {:?}", opened.instance);
            Some((store, opened, events))
        }
        Err(error) => {
            one_line(&error.to_string());
            None
        }
    }
}

/// Makes the database of the file `rows`, if there is one.
fn make_database(state: &Path) {
    let Ok(rows) = std::fs::read_to_string(state.join("rows")) else { return };
    let _ = std::fs::remove_file(state.join("state.redb"));
    let made = Database::create(state.join("state.redb")).expect("a database");
    let transaction = made.begin_write().expect("a transaction");
    for line in rows.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(table), Some(key), Some(json)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        // The engine has no such table.
        if table.is_empty() {
            continue;
        }
        let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
        let mut table = transaction.open_table(definition).expect("a table");
        table.insert(key, row(json).as_slice()).expect("a row");
    }
    transaction.commit().expect("a database");
}

/// A row as the store writes it.
fn row(json: &str) -> Vec<u8> {
    let mut bytes = [&[1], json.as_bytes()].concat();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    bytes
}
