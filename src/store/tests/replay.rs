//! The write stream of the store, replayed: the power fails at every step of it, and the disk keeps what it likes of what was not
//! synced (`tape.rs`). What is then opened has every change that was acknowledged, every other whole or not at all, and goes on.
//!
//! `HERMES_SUP_REPLAY`: `--streams N`, `--budget TIME` (the first of both ends it), `--changes N` in each stream, `--subsets N` of the
//! writes between two syncs (all, if there are no more), `--seed N`. Without it, one short stream.

use super::super::played::{Hand, open_on};
use super::super::writes;
use super::disk::Dice;
use super::tape::{Change as Unsynced, Platter, Step, Tape};
use super::*;
use crate::sys::time::played::Clock;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

const OPTIONS: &str = "HERMES_SUP_REPLAY";
/// Unix time in milliseconds.
const DAY: u64 = 1_767_225_600_000;
const SERVICES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

struct Setting {
    streams: u64,
    deadline: Option<Instant>,
    /// What happens in a stream.
    changes: usize,
    /// Of the writes between two syncs.
    subsets: usize,
    seed: u64,
}

impl Setting {
    fn given() -> Self {
        let mut setting = Self { streams: 1, deadline: None, changes: 12, subsets: 6, seed: 1 };
        let given = std::env::var(OPTIONS).unwrap_or_default();
        let mut words = given.split_whitespace();
        while let Some(word) = words.next() {
            let value = words.next().unwrap();
            match word {
                "--streams" => setting.streams = value.parse().unwrap(),
                "--budget" => {
                    setting.deadline = Some(Instant::now() + humantime::parse_duration(value).unwrap());
                    setting.streams = if given.contains("--streams") { setting.streams } else { u64::MAX };
                }
                "--changes" => setting.changes = value.parse().unwrap(),
                "--subsets" => setting.subsets = value.parse().unwrap(),
                "--seed" => setting.seed = value.parse().unwrap(),
                _ => panic!("{word} is no option: see {}", file!()),
            }
        }
        setting
    }
}

/// What a stream came to.
#[derive(Debug, Default)]
struct Figures {
    streams: u64,
    changes: usize,
    steps: usize,
    syncs: usize,
    /// Different disks that were opened, and of these such as a cut left that came while an earlier one was recovered from.
    disks: usize,
    second: usize,
}

/// A home in memory.
fn home_in_memory() -> Home {
    quiet_about_caught_panics();
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    Home { dir: dir.unwrap() }
}

/// A store of which every step is recorded, and what it was asked for.
struct Recorded {
    home: Home,
    tape: Tape,
    clock: Clock,
    store: Option<(Store, Hand)>,
    /// What there is after so many changes.
    states: Vec<Rows>,
}

impl Recorded {
    fn open(home: Home, begin: Rows) -> Self {
        let tape = Tape::new(home.state());
        let mut recorded = Self { home, tape, clock: Clock::start(DAY), store: None, states: vec![begin] };
        let opened = recorded.begin();
        assert_eq!(differs(&opened, &recorded.states[0]), None);
        recorded.states[0].instance = opened.instance;
        recorded
    }

    fn begin(&mut self) -> Opened {
        let (tape, heard) = (self.tape.clone(), self.tape.clone());
        let detach = Box::new(move || tape.detach());
        let (store, opened, hand) =
            open_on(self.home.options(), self.tape.wrap(), detach, Box::new(move |event| heard.hear(event)))
                .unwrap();
        assert_eq!((&opened.warnings, &opened.volatile), (&vec![], &None));
        self.store = Some((store, hand));
        opened
    }

    /// The supervisor is killed, and another one goes on.
    fn kill(&mut self) {
        let Some((store, hand)) = self.store.take() else { return };
        hand.kill();
        drop(store);
        self.tape.work_again();
        let opened = self.begin();
        let found = self.states.iter().rfind(|state| differs(&opened, state).is_none());
        // What was never written is no longer asked for.
        self.states.push(found.expect("a state that was asked for").clone());
        let now = self.states.len() - 1;
        self.tape.asked(now);
        // A commit is never cut short here, so this is one that was acknowledged.
        self.tape.hear(StoreEvent::Committed { ticket: now as u64 });
    }

    /// Something happens: a command, what a service does, or the disk.
    fn act(&mut self, dice: &mut Dice) {
        let service = SERVICES[dice.below(SERVICES.len())];
        let up = if dice.below(2) == 0 { Want::Up } else { Want::Down };
        let at = self.states.len() as u64;
        match dice.below(24) {
            0..=7 => self.ask(vec![Change::Want(name(service), want_row(up, at))]),
            8..=10 => {
                // Now and then one that makes the file grow.
                let size = [3, 30, 3000, 40_000][dice.below(4)];
                let mut row = match record(service) {
                    Change::Record(_, row) => row,
                    _ => unreachable!(),
                };
                row.env.insert("FILLER".into(), "x".repeat(size));
                row.registered_at_ms = at;
                self.ask(vec![
                    Change::Record(name(service), row),
                    Change::Want(name(service), want_row(up, at)),
                ]);
            }
            11 | 12 => self.ask(vec![Change::Forget(name(service))]),
            13 | 14 => {
                let limits = BTreeMap::from([("nofile".to_owned(), at.to_string())]);
                let row = LimitsRow { limits, asked_by_uid: None, asked_at_ms: at };
                self.ask(vec![Change::Limits(name(service), (dice.below(4) > 0).then_some(row))]);
            }
            15..=17 => self.ask_lazily(Change::Run(name(service), run_row(at))),
            18 => self.ask_lazily(Change::Boot(serde_json::json!({ "at": at }))),
            19 => self
                .ask_lazily(Change::Mirrored(name(service), MirroredRow { want: up, modified_ns: Some(at) })),
            20 => self.clock.advance_to(self.clock.run() + 300),
            21 => self.clock.advance_to(self.clock.run() + 2000),
            22 => self.tape.fail_a_sync(),
            _ => self.kill(),
        }
        // Those that come before the disk is at work share a commit.
        if dice.below(3) > 0 {
            self.turn();
        }
    }

    fn turn(&mut self) {
        if let Some((_, hand)) = &mut self.store {
            hand.turn();
        }
    }

    fn ask(&mut self, changes: Vec<Change>) {
        self.note(&changes);
        let ticket = self.states.len() as u64 - 1;
        if let Some((store, _)) = &self.store {
            store.commit(ticket, changes);
        }
    }

    fn ask_lazily(&mut self, change: Change) {
        let changes = vec![change];
        self.note(&changes);
        if let Some((store, _)) = &self.store {
            store.commit_lazily(changes);
        }
    }

    fn note(&mut self, changes: &[Change]) {
        let mut next = self.states.last().cloned().unwrap_or_default();
        changes.iter().cloned().flat_map(writes).for_each(|write| next.apply(write));
        self.states.push(next);
        self.tape.asked(self.states.len() - 1);
    }

    /// Ends it as a supervisor that is killed does.
    fn end(mut self) -> (Vec<Step>, Vec<Rows>, Home) {
        if let Some((store, hand)) = self.store.take() {
            hand.kill();
            drop(store);
        }
        (self.tape.take(), self.states, self.home)
    }
}

/// What of it is not as in these rows.
fn differs(opened: &Opened, rows: &Rows) -> Option<&'static str> {
    let runs: BTreeMap<_, _> = rows.runs.iter().map(|(name, row)| (name.clone(), (**row).clone())).collect();
    let same = [
        ("wants", opened.wants == rows.wants),
        ("records", opened.records == rows.records),
        ("runs", opened.runs == runs),
        ("mirrored", opened.mirrored == rows.mirrored),
        ("limits", opened.limits == rows.limits),
        ("boot", opened.boot == rows.boot),
        ("instance", rows.instance.is_empty() || opened.instance == rows.instance),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}

/// What a cut leaves: the database, if there is one, and the mirror.
struct Remains<'a> {
    database: Option<Vec<u8>>,
    mirror: Option<&'a [u8]>,
    /// What may be there: after at least so many changes, and at most so many.
    states: &'a [Rows],
    acknowledged: usize,
    asked: usize,
}

/// A home that is given one disk after the other.
struct Judge {
    home: Home,
    seen: HashSet<u64>,
    figures: Figures,
}

impl Judge {
    fn new() -> Self {
        let home = home_in_memory();
        home.reopened();
        Self { home, seen: HashSet::new(), figures: Figures::default() }
    }

    fn lay(&self, remains: &Remains<'_>) {
        for name in self.home.like(&self.home.state(), "") {
            if ["state.redb", "wants"].iter().any(|ours| name.starts_with(ours)) {
                std::fs::remove_file(self.home.file(&name)).unwrap();
            }
        }
        for (name, bytes) in [("state.redb", remains.database.as_deref()), ("wants", remains.mirror)] {
            if let Some(bytes) = bytes {
                std::fs::write(self.home.file(name), bytes).unwrap();
                let mode = std::fs::Permissions::from_mode(0o640);
                std::fs::set_permissions(self.home.file(name), mode).unwrap();
            }
        }
    }

    /// Opens what is left. Returns after how many changes that is.
    fn check(&mut self, remains: &Remains<'_>) -> Option<usize> {
        let mut hasher = DefaultHasher::new();
        (&remains.database, remains.mirror, remains.acknowledged, remains.asked).hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return None;
        }
        self.figures.disks += 1;
        self.lay(remains);
        let _clock = Clock::start(DAY);
        let begin = |home: &Home| {
            // What the engine would write when it is closed comes after the end.
            let tape = Tape::new(home.state());
            let detached = tape.clone();
            let heard = tape.clone();
            let hear = Box::new(move |event| heard.hear(event));
            let opened = open_on(home.options(), tape.wrap(), Box::new(move || detached.detach()), hear);
            (tape, opened.unwrap())
        };
        let (tape, (store, opened, mut hand)) = begin(&self.home);
        let asked = remains.asked.min(remains.states.len() - 1);
        let range = remains.acknowledged..=asked;
        let compared = range.map(|at| {
            let mut state = remains.states[at].clone();
            // A new one gets an id of its own.
            if remains.database.is_none() {
                state.instance.clear();
            }
            (at, differs(&opened, &state))
        });
        let compared: Vec<_> = compared.collect();
        let found = compared.iter().find(|(_, differs)| differs.is_none());
        let Some((found, _)) = found.copied() else {
            panic!("after so many changes this differs: {compared:?}\n{opened:#?}");
        };
        assert_eq!((&opened.warnings, &opened.volatile), (&vec![], &None));
        // It goes on.
        let mut after = Rows { instance: opened.instance.clone(), ..remains.states[found].clone() };
        let change = Change::Want(name("after"), want_row(Want::Up, 1));
        writes(change.clone()).into_iter().for_each(|write| after.apply(write));
        store.commit(1, vec![change]);
        hand.turn();
        let steps = tape.take();
        assert!(steps.iter().any(|step| matches!(step, Step::Acknowledged(1))), "it does not go on");
        hand.kill();
        drop(store);
        let (_, (store, opened, hand)) = begin(&self.home);
        assert_eq!((differs(&opened, &after), &opened.warnings), (None, &vec![]));
        hand.kill();
        drop(store);
        Some(found)
    }

    /// The power fails at every step. `deeper`: while this is recovered from, too, now and then.
    fn replay(&mut self, steps: &[Step], states: &[Rows], subsets: usize, dice: &mut Dice, deeper: bool) {
        let mut files: Vec<Platter> = Vec::new();
        let mut mirrors: Vec<&[u8]> = Vec::new();
        let (mut place, mut acknowledged, mut asked) = (None, 0, 0);
        for (number, step) in steps.iter().enumerate() {
            self.figures.steps += 1;
            match step {
                Step::Opened { file, content } => {
                    assert_eq!(*file, files.len());
                    files.push(Platter { durable: content.clone(), unsynced: Vec::new() });
                    continue;
                }
                Step::Length { file, length } => files[*file].unsynced.push(Unsynced::Length(*length)),
                Step::Write { file, offset, data } => {
                    files[*file].unsynced.push(Unsynced::Write(*offset, data.clone()));
                }
                Step::Synced { file } => {
                    files[*file].sync();
                    self.figures.syncs += 1;
                }
                Step::InPlace { file } => place = Some(*file),
                Step::Mirror(text) => mirrors.push(text),
                Step::Asked(count) => {
                    asked = *count;
                    continue;
                }
                Step::Acknowledged(count) => acknowledged = acknowledged.max(*count),
                Step::Refused(reason) => panic!("{reason}"),
            }
            let next = steps[number + 1..]
                .iter()
                .find(|next| !matches!(next, Step::Asked(_) | Step::Acknowledged(_) | Step::Mirror(_)));
            // Any other subset of what was written up to here is one of what was written up to the next sync.
            let last = matches!(next, None | Some(Step::Synced { .. }));
            // Between the last sync of a new file and that of its directory it is there or not.
            let renamed = match next {
                Some(Step::InPlace { file }) => Some(Some(*file)),
                _ => None,
            };
            for file in [Some(place), renamed].into_iter().flatten() {
                let images = match file {
                    Some(file) if last => files[file].images(subsets, dice).into_iter().map(Some).collect(),
                    Some(file) => files[file].prefixes(dice).map(Some).into(),
                    None => vec![None],
                };
                for database in images {
                    let mirror = match (mirrors.len(), dice.below(8)) {
                        (0, _) | (_, 0) => None,
                        (_, 1) => Some(&[][..]),
                        (count, 2 | 3) => Some(mirrors[dice.below(count)]),
                        (count, 4) => Some(&mirrors[count - 1][..dice.below(mirrors[count - 1].len() + 1)]),
                        (count, _) => Some(mirrors[count - 1]),
                    };
                    // Where there is no database there is nothing to lose, yet.
                    let mirror = mirror.filter(|_| database.is_some());
                    let remains = Remains { database, mirror, states, acknowledged, asked };
                    let Some(found) = self.check(&remains) else { continue };
                    if deeper && dice.below(100) == 0 {
                        self.second(&remains, found, subsets, dice);
                    }
                }
            }
        }
    }

    /// The power fails again, while what it left is recovered from, and in the commands after that.
    fn second(&mut self, remains: &Remains<'_>, found: usize, subsets: usize, dice: &mut Dice) {
        self.lay(remains);
        let home = std::mem::replace(&mut self.home, home_in_memory());
        let mut begin = remains.states[found].clone();
        begin.instance.clear();
        let mut recorded = Recorded::open(home, begin);
        for _ in 0..2 {
            recorded.ask(vec![want("a", Want::Up), record("a")]);
            recorded.turn();
        }
        let (steps, states, home) = recorded.end();
        self.home = home;
        let before = self.figures.disks;
        self.replay(&steps, &states, subsets, dice, false);
        self.figures.second += self.figures.disks - before;
    }
}

#[test]
fn whatever_a_disk_keeps_what_was_acknowledged_is_there_and_nothing_is_there_in_part() {
    let setting = Setting::given();
    let mut judge = Judge::new();
    for seed in (setting.seed..).take(usize::try_from(setting.streams).unwrap_or(usize::MAX)) {
        if setting.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut recorded = Recorded::open(home_in_memory(), Rows::default());
            for _ in 0..setting.changes {
                recorded.act(&mut dice);
            }
            recorded.turn();
            let (steps, states, _) = recorded.end();
            judge.figures.changes += states.len() - 1;
            judge.replay(&steps, &states, setting.subsets, &mut dice, true);
        }));
        let Setting { changes, subsets, .. } = setting;
        assert!(
            told.is_ok(),
            "again: {OPTIONS}='--streams 1 --seed {seed} --changes {changes} --subsets {subsets}'"
        );
        judge.figures.streams += 1;
    }
    let Figures { streams, changes, steps, syncs, disks, second } = judge.figures;
    let figure = format!(
        "figure: replay: {streams} streams of {changes} changes, {steps} steps, {syncs} syncs; {disks} disks opened, of them {second} after a \
         second cut, nothing lost and nothing in part\n"
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), figure.as_bytes());
    assert!(disks > 100);
}
