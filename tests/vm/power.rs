//! The power fails while commands are given: whatever was answered is there afterwards, whatever was not is there wholly or
//! not at all.
//!
//! The power fails after some time, or at some write or flush of the disk, in the midst of commands or while the machine boots. The
//! disk loses of its cache what it likes (`harness/disk.rs`). An answer counts once it has left the machine. The next boot is
//! checked, and goes on with what it has found.
//!
//! A cut costs a boot. So what a cut would have left is also taken at other moments, while the machine goes on, and opened by the store
//! alone (`harness/remains.rs`).
//!
//! `HERMES_SUP_CUTS`: `--cuts N`, `--budget TIME` (the first of both ends it), `--jobs N` machines side by side, `--moments N` for
//! each cut, `--seed N`. Without it, some cuts.

use crate::harness::{Dice, Machine, Setup, Volume, figure, remains, seed, split, stood_still};
use hermes_sup::core::name::ServiceName;
use hermes_sup::core::words::Want;
use hermes_sup::store::Program;
use serde_json::json;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

const OPTIONS: &str = "HERMES_SUP_CUTS";
/// The size of a volume.
const MEBIBYTES: u64 = 24;
/// So many cuts see the same volume.
const A_LIFE: usize = 20;
const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
/// The limit that these are defined with.
const DEFINED: &str = "4096";
/// Each of those who register has its own names.
const REGISTRANTS: [[&str; 2]; 2] = [["r0", "r1"], ["s0", "s1"]];

struct Options {
    cuts: usize,
    deadline: Option<Instant>,
    jobs: usize,
    seed: u64,
    /// So many further moments of each machine's life are looked at.
    moments: usize,
}

impl Options {
    fn given() -> Self {
        let mut options = Self { cuts: 12, deadline: None, jobs: 1, seed: seed(), moments: 2 };
        let given = std::env::var(OPTIONS).unwrap_or_default();
        let mut words = given.split_whitespace();
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} wants a value"));
            let number =
                || value.parse::<usize>().unwrap_or_else(|_| panic!("{word}: '{value}' is no number"));
            match word {
                "--cuts" => options.cuts = number(),
                "--budget" => {
                    let budget =
                        humantime::parse_duration(value).unwrap_or_else(|error| panic!("{word}: {error}"));
                    options.deadline = Some(Instant::now() + budget);
                    if !given.contains("--cuts") {
                        options.cuts = usize::MAX;
                    }
                }
                "--moments" => options.moments = number(),
                "--jobs" => options.jobs = number().max(1),
                "--seed" => options.seed = number() as u64,
                _ => panic!("{word} is no option: see tests/vm/power.rs"),
            }
        }
        options
    }

    fn is_over(&self, tally: &Tally) -> bool {
        tally.cuts.load(Ordering::Relaxed) >= self.cuts
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

#[derive(Default)]
struct Tally {
    cuts: AtomicUsize,
    at_boot: AtomicUsize,
    at_a_write: AtomicUsize,
    /// What they would have left was opened by the store alone.
    without_a_machine: AtomicUsize,
    answers: AtomicUsize,
    unanswered: AtomicUsize,
    /// Of those: what was asked for is there all the same.
    arrived: AtomicUsize,
    in_cache: AtomicUsize,
    lost: AtomicUsize,
    /// Volumes that were given up because a machine had a leap of its clock.
    leapt: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

fn one_more(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn setup() -> Setup {
    let mut setup = Setup::new();
    // One processor and little memory: a machine that boots sooner.
    (setup.processors, setup.mebibytes) = (1, 256);
    for service in SERVICES {
        setup = setup.adversary(
            service,
            "wait-signal",
            &format!("autostart = false\n[limits]\nnofile = {DEFINED}"),
        );
    }
    setup
}

/// What was known of one service, in its order: up to what was answered last, and what was asked since, if anything was.
#[derive(Debug, Clone)]
struct Promise {
    known: Vec<Known>,
    answered: usize,
}

impl Promise {
    fn new(known: Known) -> Self {
        Self { known: vec![known], answered: 0 }
    }

    fn answered(&self) -> &Known {
        &self.known[self.answered]
    }

    fn asked(&self) -> Option<&Known> {
        self.known.get(self.answered + 1)
    }
}

/// A want, a limit and an argument of its command; `None`: there is no such service.
type Known = Option<Service>;

#[derive(Debug, Clone, PartialEq)]
struct Service {
    want: &'static str,
    nofile: Option<String>,
    /// Of a registered one.
    argument: Option<String>,
}

type Promises = BTreeMap<String, Promise>;
/// Of callers who are under way.
type Ledger = Mutex<Promises>;

/// Somebody who gives one command after the other until the power fails.
struct Caller<'a> {
    machine: &'a Machine,
    dice: Dice,
    answered: Sender<()>,
}

impl Caller<'_> {
    /// Gives commands about these services. What is defined stays.
    fn act(&mut self, names: &[&'static str], ledger: &Ledger) {
        let mut names = names.to_vec();
        let with = |name: &str, act: &mut dyn FnMut(&mut Promise)| {
            act(ledger.lock().expect("a lock").get_mut(name).expect("a promise"));
        };
        loop {
            let Some(name) = self.dice.pick(&names) else { return };
            let mut now = None;
            with(name, &mut |promise| now = promise.answered().clone());
            let (command, then) = self.next(name, &now);
            with(name, &mut |promise| promise.known.push(then.clone()));
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let Some(answer) = self.machine.send(&[&["/hermes-sup", "ctl"], &words[..]].concat()).wait()
            else {
                return;
            };
            // On a machine that is kept waiting the disk may seem to hang; nor does one answer that has stopped. That is no
            // promise, and what there is from now on, nobody knows.
            if answer.code != 0 && (self.machine.is_cut() || answer.err.contains("does not answer")) {
                names.retain(|each| *each != name);
                continue;
            }
            assert_eq!(answer.code, 0, "{command:?}: {answer:#?}\n{}", self.machine.console());
            with(name, &mut |promise| promise.answered += 1);
            let _ = self.answered.send(());
        }
    }

    /// A command, and what there is after it.
    fn next(&mut self, name: &str, now: &Known) -> (Vec<String>, Known) {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let Some(now) = now else {
            let argument = format!("variant-{}", self.dice.between(0, 1_000_000));
            let down = self.dice.chance(60);
            let mut command = words(&["register", name]);
            command.extend(down.then(|| "--down".to_owned()));
            command.extend(words(&["--", "/adversary", "wait-signal", &argument]));
            let want = if down { "down" } else { "up" };
            return (command, Some(Service { want, nofile: None, argument: Some(argument) }));
        };
        let mut then = now.clone();
        let registered = now.argument.is_some();
        let command = match self.dice.between(0, if registered { 11 } else { 9 }) {
            0..=2 => {
                then.want = "up";
                words(&["start", name])
            }
            3..=5 => {
                then.want = "down";
                words(&["stop", name])
            }
            6 => {
                then.want = "up";
                words(&["restart", name])
            }
            7..=9 => {
                let nofile = self.dice.between(100, 1000).to_string();
                let command = words(&["set", name, &format!("nofile={nofile}"), "--persist"]);
                then.nofile = Some(nofile);
                command
            }
            _ => return (words(&["unregister", name]), None),
        };
        (command, Some(then))
    }
}

/// A cut that was not made: what it would have left, and of each service what may then be found.
struct Moment {
    disk: Vec<u8>,
    may_be: BTreeMap<String, Vec<Known>>,
}

impl Moment {
    fn seize(volume: &Volume, ledger: &Ledger, dice: &mut Dice) -> Self {
        // What is answered meanwhile may be there or not.
        let answered: Vec<_> =
            ledger.lock().expect("a lock").iter().map(|(name, each)| (name.clone(), each.answered)).collect();
        let disk = volume.disk.would_be_left(dice);
        let ledger = ledger.lock().expect("a lock");
        let may_be = answered.into_iter().map(|(name, from)| {
            let known = ledger[&name].known[from..].to_vec();
            (name, known)
        });
        Self { disk, may_be: may_be.collect() }
    }

    /// Opens what is left, without a machine.
    fn check(&self) {
        let opened = remains::open(&self.disk);
        assert_eq!((&opened.warnings, &opened.volatile), (&vec![], &None));
        for (name, may_be) in &self.may_be {
            let key = ServiceName::new(name).expect("a name");
            let want = opened.wants.get(&key).map(|row| if row.want == Want::Up { "up" } else { "down" });
            let nofile = opened.limits.get(&key).and_then(|row| row.limits.get("nofile").cloned());
            let argument = opened.records.get(&key).map(|row| match &row.program {
                Program::Argv(argv) => argv.last().cloned().unwrap_or_default(),
                Program::Profile(dir) => dir.clone(),
            });
            let defined = SERVICES.contains(&name.as_str());
            let found = if defined {
                // Nobody may have asked anything about it yet.
                let nofile = nofile.or_else(|| Some(DEFINED.to_owned()));
                Some(Service { want: want.unwrap_or("down"), nofile, argument })
            } else {
                assert!(
                    argument.is_some() || (want, &nofile) == (None, &None),
                    "{name}: parts of it in {opened:#?}"
                );
                argument.map(|argument| Service {
                    want: want.unwrap_or("none"),
                    nofile,
                    argument: Some(argument),
                })
            };
            assert!(may_be.contains(&found), "{name} is {found:?}, and may be {may_be:?}\n{opened:#?}");
        }
    }
}

/// Has commands given from all sides and pulls the plug in the midst of them. Returns moments before that.
fn disturb(
    machine: &Machine,
    volume: &Volume,
    promises: &mut Promises,
    dice: &mut Dice,
    (options, tally): (&Options, &Tally),
) -> Vec<Moment> {
    let (sender, answers) = channel();
    let ledger = Mutex::new(std::mem::take(promises));
    let groups = SERVICES.iter().map(std::slice::from_ref).chain(REGISTRANTS.iter().map(|names| &names[..]));
    let mut moments = Vec::new();
    let mut count = 0;
    // `None`: none came in that time; `false`: there will be none.
    let mut answer = |time| match answers.recv_timeout(time) {
        Ok(()) => {
            count += 1;
            Some(true)
        }
        Err(RecvTimeoutError::Disconnected) => Some(false),
        Err(RecvTimeoutError::Timeout) => None,
    };
    std::thread::scope(|scope| {
        for names in groups {
            let mut caller = Caller { machine, dice: split(dice), answered: sender.clone() };
            let ledger = &ledger;
            scope.spawn(move || caller.act(names, ledger));
        }
        drop(sender);
        let mut some_time = |dice: &mut Dice| {
            let deadline = Instant::now() + Duration::from_millis(dice.between(0, 300));
            while answer(deadline.saturating_duration_since(Instant::now())) == Some(true) {}
            machine.patience().until(&mut answer).unwrap_or(false)
        };
        for _ in 0..options.moments {
            if !some_time(dice) {
                break;
            }
            moments.push(Moment::seize(volume, &ledger, dice));
        }
        some_time(dice);
        if dice.chance(50) {
            one_more(&tally.at_a_write);
            volume.disk.cut_in(dice.between(1, 40));
            volume.disk.wait_for_cut(machine.patience());
        }
        machine.cut();
    });
    // An answer that came out before the plug did is a promise like any other.
    count += answers.try_iter().count();
    tally.answers.fetch_add(count, Ordering::Relaxed);
    *promises = ledger.into_inner().expect("a lock");
    one_more(&tally.cuts);
    moments
}

/// Compares what is there with what was promised; what is there is the promise from now on.
fn check(machine: &Machine, promises: &mut Promises, tally: &Tally) {
    // Those of a disk that was slow at boot go.
    let status = machine.eventually("a state without a warning", || {
        let status = machine.status();
        (status["supervisor"]["warnings"] == json!([])).then_some(status)
    });
    let services = status["services"].as_array().expect("an array");
    let find = |name: &str| services.iter().find(|each| each["name"] == name);
    for (name, promise) in promises.iter_mut() {
        let mut found = find(name).map(|found| Service {
            want: if found["want"] == "up" { "up" } else { "down" },
            nofile: found["limits"]["nofile"].as_str().map(str::to_owned),
            argument: None,
        });
        let argument = |known: &Known| known.as_ref().and_then(|service| service.argument.clone());
        if let Some(found) = &mut found {
            found.argument = argument(promise.answered()).or_else(|| promise.asked().and_then(argument));
        }
        let arrived = promise.asked() == Some(&found);
        assert!(
            &found == promise.answered() || arrived,
            "{name} is {found:?}, promised was {promise:?}\n{status:#}\n{}",
            machine.console()
        );
        if promise.asked().is_some() {
            one_more(&tally.unanswered);
            tally.arrived.fetch_add(usize::from(arrived), Ordering::Relaxed);
        }
        *promise = Promise::new(found);
    }
    for each in services {
        let name = each["name"].as_str().unwrap_or_default();
        assert!(
            promises.get(name).is_some_and(|promise| promise.answered().is_some()),
            "out of nothing: {each:#}"
        );
    }
    // What is registered is what it was: the same again is taken for done, anything else is refused.
    let registered = promises.iter().filter_map(|(name, promise)| {
        let argument = promise.answered().as_ref()?.argument.as_ref()?;
        let words = ["/hermes-sup", "ctl", "register", name, "--", "/adversary", "wait-signal", argument];
        Some((name, machine.send(&words)))
    });
    for (name, again) in registered.collect::<Vec<_>>() {
        let again = again.wait().expect("an answer");
        assert!(again.code == 0 && again.out.contains("already"), "{name}: {again:#?}");
    }
    let state = machine.show("/opt/data/supervisor");
    assert!(!state.contains("corrupt") && !state.contains("foreign"), "{state}");
    let mirror = machine.show("/opt/data/supervisor/wants");
    for (name, promise) in promises.iter() {
        let want = mirror.lines().map(str::split_whitespace).find_map(|mut words| {
            (words.next() == Some(name)).then(|| words.next().unwrap_or_default().to_owned())
        });
        let promised = promise.answered().as_ref().map(|service| service.want);
        // A definition that nobody has asked anything about has no want of its own.
        assert!(
            want.as_deref() == promised || (want.is_none() && promised == Some("down")),
            "{name}, {promised:?}, in the mirror:\n{mirror}"
        );
    }
}

/// Switches the machine on until it stays on: the power may fail while it boots.
fn boot(setup: &Setup, volume: &Volume, dice: &mut Dice, tally: &Tally) -> Machine {
    loop {
        let cut = dice.chance(20);
        if cut {
            volume.disk.cut_in(dice.between(1, 60));
        }
        let booted = setup.boot_unless_cut(volume);
        volume.disk.stay_on();
        match booted {
            Some(machine) => return machine,
            None => {
                assert!(cut, "nobody has cut the power");
                one_more(&tally.at_boot);
                one_more(&tally.cuts);
            }
        }
    }
}

/// The cuts that one volume sees, from a new one on.
fn live(setup: &Setup, options: &Options, tally: &Tally, dice: &mut Dice) {
    let block = dice.pick(&[1024, 4096]).unwrap_or(4096);
    let volume = Volume::with(MEBIBYTES, block, split(dice));
    let defined = Service { want: "down", nofile: Some(DEFINED.to_owned()), argument: None };
    let new = |known: Option<Service>| move |name: &&str| ((*name).to_owned(), Promise::new(known.clone()));
    let mut promises: Promises = SERVICES.iter().map(new(Some(defined))).collect();
    promises.extend(REGISTRANTS.as_flattened().iter().map(new(None)));
    for cut in 0.. {
        let machine = boot(setup, &volume, dice, tally);
        check(&machine, &mut promises, tally);
        if cut == A_LIFE || options.is_over(tally) {
            // What is wanted up, runs.
            for (name, promise) in &promises {
                if promise.answered().as_ref().is_some_and(|service| service.want == "up") {
                    machine.await_state(name, "up");
                }
            }
            assert_eq!(machine.shutdown(0).code, 0);
            break;
        }
        let moments = disturb(&machine, &volume, &mut promises, dice, (options, tally));
        drop(machine);
        for moment in moments {
            moment.check();
            one_more(&tally.cuts);
            one_more(&tally.without_a_machine);
        }
    }
    let counts = volume.disk.counts();
    tally.in_cache.fetch_add(counts.in_cache, Ordering::Relaxed);
    tally.lost.fetch_add(counts.lost, Ordering::Relaxed);
}

/// Something took too long there, which a leap of its clock explains; it explains no broken promise.
fn is_late(wrong: &str) -> bool {
    ["no end of ", "never happened: ", "does not answer"].iter().any(|words| wrong.contains(words))
}

#[test]
fn what_was_answered_survives_power_cuts() {
    let options = Options::given();
    figure(&format!("power cuts: HERMES_SUP_VM_SEED={}", options.seed));
    let setup = setup().asleep(MEBIBYTES);
    let (tally, began) = (Tally::default(), Instant::now());
    let mut dice = Dice::new(options.seed);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            let (mut dice, setup, options, tally) = (split(&mut dice), &setup, &options, &tally);
            scope.spawn(move || {
                while !options.is_over(tally) {
                    let still = stood_still();
                    // One failure does not end the others.
                    if let Err(wrong) =
                        catch_unwind(AssertUnwindSafe(|| live(setup, options, tally, &mut dice)))
                    {
                        let text = wrong.downcast_ref::<String>().cloned();
                        let text = text.unwrap_or_else(|| "a panic".to_owned());
                        if stood_still() > still && is_late(&text) {
                            figure(&format!("given up, as all of it was stopped meanwhile: {text}"));
                            one_more(&tally.leapt);
                            continue;
                        }
                        tally.wrong.lock().expect("a lock").push(text);
                        // The test would go on for ever with what fails at once.
                        one_more(&tally.cuts);
                    }
                    figure(&tally.summary(began.elapsed()));
                }
            });
        }
    });
    let wrong = tally.wrong.into_inner().expect("a lock");
    assert!(wrong.is_empty(), "{} went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// The superblock of ext4 has two sectors, and a cut can come between them.
#[test]
fn what_was_answered_survives_a_torn_superblock() {
    for (block, arrives) in [(1024, 0), (4096, 1)] {
        let volume = Volume::with(MEBIBYTES, block, Dice::new(seed()));
        let machine = setup().boot(&volume);
        machine.ctl(&["start", "a"]).ok();
        machine.ctl(&["register", "r0", "--", "/adversary", "wait-signal"]).ok();
        machine.cut();
        drop(machine);
        // Each mount writes that it has been made.
        volume.disk.tear_superblock(arrives);
        assert!(setup().boot_unless_cut(&volume).is_none(), "no mount writes the superblock");
        assert!(volume.disk.has_torn_superblock());
        let machine = setup().boot(&volume);
        for (service, want) in [("a", "up"), ("r0", "up"), ("b", "down")] {
            assert_eq!(machine.service(service)["want"], want, "{service}, blocks of {block}");
        }
        let state = machine.show("/opt/data/supervisor");
        assert!(!state.contains("corrupt") && !state.contains("foreign"), "{state}");
        assert_eq!(machine.shutdown(0).code, 0);
    }
}

impl Tally {
    fn summary(&self, took: Duration) -> String {
        let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let cuts = of(&self.cuts);
        format!(
            "power cuts: {cuts} in {} s, of them {} opened without a machine, {} at a write, {} at boot; {} answers, {} failures; {} \
             commands without an answer, of them {} done; {} writes in the cache, {} of them lost; {} volumes given up after a stop of \
             everything",
            took.as_secs(),
            of(&self.without_a_machine),
            of(&self.at_a_write),
            of(&self.at_boot),
            of(&self.answers),
            self.wrong.lock().map_or(0, |wrong| wrong.len()),
            of(&self.unanswered),
            of(&self.arrived),
            of(&self.in_cache),
            of(&self.lost),
            of(&self.leapt),
        )
    }
}
