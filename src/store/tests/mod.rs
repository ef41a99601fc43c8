//! The store as its callers see it, on real files in a temporary directory.

mod custody;
mod damage;
mod disk;
mod faults;
mod journal;
mod locks;
mod replay;
mod tape;
mod versions;

use super::*;
use crate::core::exit::Exit;
use crate::core::words::{Cause, Want};
use disk::TestDisk;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

const SOON: Duration = Duration::from_secs(60);

/// A home directory with a state directory in it.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        quiet_about_caught_panics();
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("supervisor")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    fn options(&self) -> Options {
        Options {
            home: self.dir.path().to_owned(),
            dir: self.state(),
            gid: rustix::process::getegid().as_raw(),
            host: "box".to_owned(),
            patience: SOON,
            gives_way: None,
            is_init: true,
        }
    }

    fn try_open(&self) -> Result<Running, OpenError> {
        self.open_on(self.options(), disk::plain())
    }

    fn open_on(&self, options: Options, wrap: super::disk::Wrap) -> Result<Running, OpenError> {
        let (sender, events) = channel();
        let notify = Box::new(move |event| drop(sender.send(event)));
        let (store, opened) = begin_on(options, notify, wrap)?.wait(|| true)?;
        Ok(Running { store, opened, events })
    }

    fn open(&self) -> Running {
        self.try_open().unwrap().settled()
    }

    fn open_with(&self, disk: &Arc<TestDisk>) -> Running {
        self.open_on(self.options(), disk.wrap()).unwrap().settled()
    }

    /// What a new supervisor finds.
    fn reopened(&self) -> Opened {
        let running = self.open();
        let opened = running.opened.clone();
        running.close();
        opened
    }

    /// Names in the state directory (or beside it) that begin like this.
    fn like(&self, dir: &Path, prefix: &str) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }
}

struct Running {
    store: Store,
    opened: Opened,
    events: Receiver<StoreEvent>,
}

impl Running {
    fn event(&self) -> StoreEvent {
        self.events.recv_timeout(SOON).expect("an event")
    }

    /// The answer to a ticket, and what was said before it.
    fn answer(&self, ticket: u64) -> (Result<(), String>, Vec<StoreEvent>) {
        let mut before = Vec::new();
        loop {
            match self.event() {
                StoreEvent::Committed { ticket: t } if t == ticket => return (Ok(()), before),
                StoreEvent::Failed { ticket: t, reason } if t == ticket => return (Err(reason), before),
                other => before.push(other),
            }
        }
    }

    fn commit(&self, ticket: u64, changes: Vec<Change>) -> Result<(), String> {
        self.store.commit(ticket, changes);
        self.answer(ticket).0
    }

    /// Waits until the disk owes nothing, as it does while the file of a new state is made.
    fn settled(self) -> Self {
        while self.store.busy_since().is_some() {
            std::thread::yield_now();
        }
        self
    }

    fn close(self) {
        self.store.close(SOON).unwrap();
    }
}

/// The damaged databases below make the engine panic; those panics are caught, and the test output stays readable.
fn quiet_about_caught_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !panic_is_expected() {
                usual(info);
            }
        }));
    });
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn want_row(want: Want, at: u64) -> WantRow {
    WantRow { want, asked_by_uid: Some(0), asked_at_ms: at, cause: Cause::Operator, definition_hash: None }
}

fn want(service: &str, want: Want) -> Change {
    Change::Want(name(service), want_row(want, 1))
}

fn record(service: &str) -> Change {
    let row = RecordRow {
        registrant_uid: 10000,
        user: "hermes".into(),
        program: Program::Argv(vec!["sleep".into(), "1".into()]),
        env: BTreeMap::from([("KEY".into(), "value".into())]),
        registered_at_ms: 5,
    };
    Change::Record(name(service), row)
}

fn run_row(restarts: u64) -> RunRow {
    let last_exit = Some(LastExit { exit: Exit::Code(1), at_ms: 9 });
    RunRow { restarts, last_exit, ..RunRow::default() }
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_and_what_was_forgotten_is_not() {
    let home = Home::new();
    let running = home.open();
    assert_eq!(running.opened.warnings, Vec::<String>::new());
    assert_eq!(running.opened.instance.len(), 32);
    let times: Vec<u64> = (0..100).collect();
    let run = RunRow { failure_times_ms: times.clone(), ..run_row(3) };
    running.commit(1, vec![want("a", Want::Up), record("a"), Change::Run(name("a"), run.clone())]).unwrap();
    let mirrored = |at| MirroredRow { want: Want::Up, modified_ns: at };
    running
        .commit(2, vec![want("b", Want::Down), record("b"), Change::Mirrored(name("b"), mirrored(None))])
        .unwrap();
    running.store.commit_lazily(vec![Change::Mirrored(name("a"), mirrored(Some(7)))]);
    running.commit(3, vec![Change::Forget(name("b")), Change::Boot(serde_json::json!({"id": [1]}))]).unwrap();
    let instance = running.opened.instance.clone();
    running.close();

    let opened = home.reopened();
    assert_eq!(opened.instance, instance);
    assert_eq!(opened.wants, BTreeMap::from([(name("a"), want_row(Want::Up, 1))]));
    assert_eq!(opened.records.keys().collect::<Vec<_>>(), [&name("a")]);
    let kept = RunRow { failure_times_ms: times[36..].to_vec(), ..run };
    assert_eq!(opened.runs, BTreeMap::from([(name("a"), kept)]), "the history is bounded");
    assert_eq!(opened.mirrored, BTreeMap::from([(name("a"), mirrored(Some(7)))]));
    assert_eq!(opened.boot, Some(serde_json::json!({"id": [1]})));
    assert_eq!((opened.warnings, opened.volatile), (vec![], None));
    assert!(opened.mirrored_at_ms.is_some());
}

#[test]
fn the_mirror_follows_each_commit_and_an_unchanged_one_is_left_alone() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    running.commit(2, vec![want("a", Want::Down), want("b", Want::Up)]).unwrap();
    running.close();
    let text = std::fs::read_to_string(home.file("wants")).unwrap();
    let mirror = mirror::parse(&text);
    assert_eq!(mirror.stamp, 2);
    assert_eq!(mirror.wants[&name("a")].want, Want::Down);
    let before = std::fs::metadata(home.file("wants")).unwrap();
    home.reopened();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(home.file("wants")).unwrap().ino(), before.ino());
}

#[test]
fn the_mirror_has_the_last_word_soon_without_another_commit() {
    let home = Home::new();
    let running = home.open();
    for ticket in 1..=5 {
        running.commit(ticket, vec![want("a", Want::Up)]).unwrap();
    }
    // It is replaced as a whole: whenever it is read, it is one.
    while mirror::parse(&std::fs::read_to_string(home.file("wants")).unwrap()).stamp < 5 {
        std::thread::yield_now();
    }
}

#[test]
fn each_commit_is_one_sync_and_those_that_wait_share_one() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    let start = disk.syncs();
    for ticket in 1..=5 {
        running.commit(ticket, vec![want("a", Want::Up), record("a")]).unwrap();
    }
    assert_eq!(disk.syncs() - start, 5);

    disk.hold();
    running.store.commit(10, vec![want("a", Want::Down)]);
    disk.wait_until_held();
    for ticket in 11..=30 {
        running.store.commit(ticket, vec![want(&format!("s{ticket}"), Want::Up)]);
    }
    assert!(running.store.busy_since().is_some());
    disk.release();
    let answered: Vec<_> = (10..=30).map(|_| running.event()).collect();
    assert_eq!(answered, (10..=30).map(|ticket| StoreEvent::Committed { ticket }).collect::<Vec<_>>());
    assert_eq!(disk.syncs() - start, 5 + 2);
    running.close();
    assert_eq!(home.reopened().wants.len(), 21);
}

#[test]
fn lazy_changes_ride_with_the_next_commit_or_go_by_themselves_after_a_while() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    let start = disk.syncs();
    for restarts in 1..=100 {
        running.store.commit_lazily(vec![Change::Run(name("a"), run_row(restarts))]);
    }
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    assert_eq!(disk.syncs() - start, 1);
    running.store.commit_lazily(vec![Change::Run(name("b"), run_row(7))]);
    running.store.announce();
    disk.wait_for_syncs(start + 2);
    // Pending when the store closes: written with the rest. A later forgetting wins over an earlier lazy row.
    running.store.commit_lazily(vec![Change::Run(name("c"), run_row(8)), Change::Run(name("b"), run_row(9))]);
    running.store.commit_lazily(vec![Change::ForgetRun(name("b"))]);
    running.close();
    let runs = home.reopened().runs;
    assert_eq!(runs, BTreeMap::from([(name("a"), run_row(100)), (name("c"), run_row(8))]));
}

#[test]
fn what_hurries_is_due_at_once() {
    let home = Home::new();
    let (store, _, hand) = played::open(home.options(), &played::Disk::default(), |_| {}).unwrap();
    store.commit_lazily(vec![Change::Run(name("a"), run_row(1))]);
    let is_due = || hand.due().is_some_and(|due| due <= monotonic());
    assert!(!is_due());
    store.hurry();
    assert!(is_due());
}

/// To close the file takes three syncs more and says nothing more.
#[test]
fn the_last_commit_is_one_sync_and_nothing_is_lost_or_repaired_for_it() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    let runs = |restarts| ["a", "b", "c"].map(|service| Change::Run(name(service), run_row(restarts)));
    running.commit(1, runs(1).into()).unwrap();
    let start = disk.syncs();
    running.store.commit_lazily(runs(2).into());
    running.close();
    assert_eq!(disk.syncs() - start, 1);
    let opened = home.reopened();
    assert_eq!(opened.runs, BTreeMap::from(["a", "b", "c"].map(|service| (name(service), run_row(2)))));
    assert_eq!(opened.warnings, Vec::<String>::new());
}

/// On a slow disk each is ten milliseconds before the first start.
#[test]
fn a_file_that_was_not_closed_is_looked_at_once_when_it_is_opened() {
    let home = Home::new();
    home.open().close();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    assert_eq!(disk.syncs(), 5);
    running.close();
}

#[test]
fn a_commit_without_changes_is_answered_without_a_sync() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    let start = disk.syncs();
    running.commit(1, vec![]).unwrap();
    assert_eq!(disk.syncs(), start);
}

#[test]
fn a_newer_schema_is_refused_and_an_older_one_is_written_anew() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Down), record("a")]).unwrap();
    running.close();
    let set_schema = |schema: u32| {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(home.file("state.redb")).unwrap();
        let mut engine = engine::Engine::open(Box::new(super::disk::DiskFile::new(file))).unwrap().engine;
        engine.commit(&[("meta", "schema", Some(schema::encode(&schema).unwrap()))]).unwrap();
    };
    let schema_now = || {
        let file = std::fs::File::options().read(true).write(true).open(home.file("state.redb")).unwrap();
        engine::Engine::open(Box::new(super::disk::DiskFile::new(file))).unwrap().outdated
    };
    set_schema(SCHEMA - 1);
    assert!(schema_now());
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len(), opened.warnings), (1, 1, vec![]));
    assert!(!schema_now());

    let newer = NEWEST_SCHEMA + 1;
    set_schema(newer);
    let error = home.try_open().err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{} was written by a newer hermes-sup (schema {newer}, this one knows up to {NEWEST_SCHEMA}): use that \
             version, or choose another --state",
            home.file("state.redb").display(),
        )
    );
    assert!(home.like(&home.state(), "state.redb.").is_empty(), "it is left as it is");
}
