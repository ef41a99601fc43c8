//! The contract with the Hermes image, statement by statement: what of it concerns supervision, and that each such
//! statement has a test that shows it.
//!
//! A test names what it shows in a line of its doc comment, `/// Contract: 46, 49.`, or in its own name: `item_46_…`,
//! `items_46_and_49_…`, `items_89_to_91_…`. Where the product differs on purpose, the test shows the product, and its
//! comment says what s6 does. Statements 1 to 12 and 27 to 45 are about the image's scripts alone; their tests have the
//! numbers in their names, and nothing here asks for them.
//!
//! It reads text. A test is a function under `#[test]`, or one that a macro of [`MACROS`] makes tests of.

mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the supervisor has to do, in the newest form of each statement.
const STATEMENTS: &[(u16, &str)] = &[
    // CMD
    (13, "nothing runs hermes, an executable itself, anything else is hermes's arguments"),
    (14, "root becomes hermes, with the groups of the group file"),
    (15, "HOME of the CMD is the volume"),
    (16, "working directory of the CMD is the container's"),
    (17, "the venv is active for the CMD"),
    (18, "stdin, stdout, stderr and the terminal are the CMD's"),
    (19, "the container's environment reaches the CMD unchanged"),
    (20, "a foreign --user is refused, that of hermes works"),
    (21, "exit code of the container is the CMD's; 0 after a docker stop"),
    (22, "the end of the CMD ends everything"),
    // Boot
    (23, "scripts in the order of their names, all before services and CMD"),
    (24, "gateways that are wanted start with the boot, known before the CMD runs"),
    (25, "a failing script stops the boot only where that is asked for"),
    (26, "the boot log is written after the slowest script"),
    // Reconciliation
    (46, "the scan directory belongs to hermes"),
    (47, "default first, then profiles with a SOUL.md, sorted"),
    (48, "intent: desired_state, else gateway_state; only running starts"),
    (49, "stale gateway.pid and processes.json go"),
    (50, "a multiplexing root gateway keeps the others down"),
    (51, "a home from before supervision is taken over once"),
    (52, "the CMD can be read from the command line of PID 1"),
    (53, "a dashboard container registers nothing"),
    (54, "one line a profile on stdout"),
    (55, "one line a profile in container-boot.log, with the last exit; rotated"),
    // Slots
    (57, "slots of the image are links in the scan directory"),
    (58, "main-hermes is up without doing anything"),
    (59, "the dashboard runs where HERMES_DASHBOARD says so"),
    (60, "a dashboard without login does not listen openly, and that is final"),
    (61, "files, modes and owner of a gateway's slot"),
    (62, "what a gateway's run does"),
    (63, "exit codes 0 and 78 of a gateway are final"),
    (64, "log directory of a gateway, and the s6-log that fills one"),
    (65, "a supervised gateway knows that it is one"),
    (66, "names of slots and of profiles"),
    // Logs
    (67, "stdout: raw to the container, stamped to current"),
    (68, "stderr reaches the container's stderr"),
    (69, "rotation: size, number and names of archives"),
    (70, "output of other services and of scripts goes to the container raw"),
    (71, "the gateway's banner is in docker logs and in current"),
    (72, "a log directory in other hands is no crash loop"),
    // CLI
    (73, "start, stop, restart: silent, exit 0"),
    (74, "a slot that is not there is named"),
    (75, "a failure is told in words"),
    (76, "stop --all, restart --all"),
    (77, "not from inside a gateway"),
    (78, "install and uninstall say that there is nothing to do"),
    (79, "profile create registers down, profile delete unregisters"),
    (80, "a profile without a slot gets one with its start"),
    (81, "status and doctor see the supervisor"),
    (82, "the intent is written to gateway_state.json, other keys kept"),
    (83, "a stop is marked as planned before the signal"),
    // Redirect
    (84, "gates that keep gateway run in the foreground"),
    (85, "otherwise it becomes a service, and a breadcrumb says so"),
    (86, "the CMD's place is kept without sleep"),
    (87, "a gateway's crash does not end the container"),
    (88, "in the foreground its exit code is the container's, its service down"),
    // Supervision
    (89, "first want: up unless there is down"),
    (90, "finish: its arguments, its limit, 125"),
    (91, "restart after a death"),
    (92, "a restart of what is down"),
    (93, "stop: signal, SIGCONT, and a limit"),
    (94, "own session; orphans are reaped"),
    (95, "a rescan supervises what is new"),
    (96, "registration at run time by hermes itself"),
    // Shutdown
    (97, "SIGTERM ends everything, without a fixed grace"),
    (98, "each gets SIGTERM, the CMD too"),
    (99, "order of the shutdown"),
    (100, "the end of the CMD takes the same way, then its exit code"),
    (101, "other signals to PID 1"),
    // The gateway as a process
    (102, "SIGTERM and SIGINT are graceful, SIGUSR1 is a restart"),
    (103, "exit codes 0, 1, 75, 78"),
    (104, "the planned-stop marker names the gateway's own pid and start time"),
    (105, "what is read of gateway_state.json"),
    (106, "an unplanned SIGTERM leaves running, a planned one stopped"),
    (107, "respawn storms"),
    (108, "the heartbeat of a gateway"),
    (109, "a gateway tells when it runs"),
    (110, "a stop may take long"),
];

/// What no test here can show, and why.
const ELSEWHERE: &[(u16, &str)] = &[(
    56,
    "S6_PROFILE_GATEWAY_SCANDIR is a hook of the image's own reconciliation; the supervisor has one scan directory",
)];

/// Numbers that only tests of the image's scripts have.
fn is_of_the_image(number: u16) -> bool {
    (1..=12).contains(&number) || (27..=45).contains(&number)
}

/// Macros that make tests of the functions that they list.
const MACROS: [&str; 4] = ["on_both_mounts", "in_every_variant", "on_every_rung", "on_every_rung_as_a_child"];

#[test]
fn every_statement_has_a_test_that_names_it() {
    let house = House::read();
    let mut complaints = house.complaints.clone();
    complaints.extend(gaps(&house.shown(), STATEMENTS, ELSEWHERE));
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// `host/gateways.rs::a_test` in the documentation is one that exists. Paths are below `tests/` or `src/`.
#[test]
fn tests_that_the_documentation_names_exist() {
    let house = House::read();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "README.md",
        "docker/README.md",
        "docker/gateways.md",
        "docker/s6.md",
        "docker/services.md",
        "docker/supervisor.md",
    ] {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        let missing: Vec<&str> = named_tests(&text).filter(|name| !house.has(name)).collect();
        assert!(missing.is_empty(), "{file} names tests that are not there: {missing:#?}");
    }
}

#[test]
fn the_checker_sees_what_it_should() {
    let read = |text: &str| {
        let (found, complaints) = tests_of(text);
        let found: Vec<String> = found.iter().map(|(name, numbers)| format!("{name} {numbers:?}")).collect();
        (found.join("; "), complaints)
    };
    for (text, found) in [
        ("/// Contract: 46, 49.\n#[test]\nfn a() {}", "a {46, 49}"),
        ("/// Words.\n/// Contract: 46.\n#[test]\n#[allow(x)]\npub fn a() {}", "a {46}"),
        ("    /// Contract: 46.\n    #[test]\n    fn a() {}\n    fn b() {}", "a {46}"),
        (
            "#[test]\nfn item_46_x() {}\n#[test]\nfn items_46_and_49_x() {}",
            "item_46_x {46}; items_46_and_49_x {46, 49}",
        ),
        ("#[test]\nfn items_89_to_91_x() {}", "items_89_to_91_x {89, 90, 91}"),
        ("crate::on_every_rung!(a, b);\n/// Contract: 7.\nfn a(s: S) {}", "a {7}"),
        (
            "on_both_mounts! {\n    item_9_a\n    b\n}\nfn item_9_a(w: &W) {}\n/// Contract: 8.\nfn b(w: &W) {}",
            "item_9_a {9}; b {8}",
        ),
        // No tests: not listed, not marked, or only words.
        ("fn item_46_x() {}\n// Contract: 46.\n#[test]\nfn a() {}", "a {}"),
    ] {
        let (names, complaints) = read(text);
        assert_eq!((names.as_str(), complaints.as_slice()), (found, &[][..]), "{text}");
    }
    for text in [
        "/// Contract: 46.\nfn helper() {}",
        "/// Contract: 46.\n\n#[test]\nfn a() {}",
        "/// Contract: 46\n#[test]\nfn a() {}",
        "/// Contract: forty.\n#[test]\nfn a() {}",
        "/// Contract: 46.",
    ] {
        assert_eq!(read(text).1.len(), 1, "{text}");
    }

    let table = [(1, "one"), (2, "two")];
    let shown = |numbers: &[u16]| numbers.iter().map(|number| (*number, "a".to_owned())).collect();
    assert_eq!(gaps(&shown(&[1, 2]), &table, &[(3, "why")]), [""; 0]);
    assert_eq!(gaps(&shown(&[1]), &table, &[]), ["no test names 2: two"]);
    assert_eq!(gaps(&shown(&[1, 2, 99]), &table, &[]), ["a names 99, which is no statement here"]);
    assert_eq!(gaps(&shown(&[1, 2, 3]), &table, &[(3, "why")]), ["a names 3, which is listed as not ours"]);
    assert_eq!(gaps(&shown(&[1, 2, 30]), &table, &[]), [""; 0], "the image's");

    let text = "see `host/a.rs::b` and host/c.rs, `x::y`; (docker/d.rs::e_1)";
    assert_eq!(named_tests(text).collect::<Vec<_>>(), ["host/a.rs::b", "docker/d.rs::e_1"]);
}

#[test]
fn the_table_is_complete_and_in_order() {
    let expected: Vec<u16> = (13..=26).chain(46..=110).collect();
    let mut all: Vec<u16> = STATEMENTS.iter().chain(ELSEWHERE).map(|(number, _)| *number).collect();
    assert!(STATEMENTS.is_sorted_by_key(|(number, _)| *number));
    all.sort_unstable();
    assert_eq!(all, expected);
}

/// What is wrong between the numbers that tests name (each with one such test) and the tables.
fn gaps(shown: &BTreeMap<u16, String>, statements: &[(u16, &str)], elsewhere: &[(u16, &str)]) -> Vec<String> {
    let listed = |table: &[(u16, &str)], number: u16| table.iter().any(|(known, _)| *known == number);
    let missing = statements.iter().filter(|(number, _)| !shown.contains_key(number));
    let mut found: Vec<String> =
        missing.map(|(number, title)| format!("no test names {number}: {title}")).collect();
    for (number, test) in shown {
        if listed(elsewhere, *number) {
            found.push(format!("{test} names {number}, which is listed as not ours"));
        } else if !listed(statements, *number) && !is_of_the_image(*number) {
            found.push(format!("{test} names {number}, which is no statement here"));
        }
    }
    found
}

// ---- reading the house ----

type Tests = Vec<(String, BTreeSet<u16>)>;

/// All tests, by the path of their file below `tests/` or `src/`.
struct House {
    files: BTreeMap<String, Tests>,
    complaints: Vec<String>,
}

impl House {
    fn read() -> Self {
        let mut house = Self { files: BTreeMap::new(), complaints: Vec::new() };
        for top in ["tests", "src"] {
            let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(top);
            house.walk(&top, &top);
        }
        assert!(house.files.len() > 50, "the house has been found");
        house
    }

    fn walk(&mut self, dir: &Path, top: &Path) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            // This file holds planted text.
            if path.is_dir() {
                self.walk(&path, top);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!())
            {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let shown = path.strip_prefix(top).expect("below").display().to_string();
                let (tests, complaints) = tests_of(&text);
                self.complaints.extend(complaints.iter().map(|complaint| format!("{shown}: {complaint}")));
                self.files.insert(shown, tests);
            }
        }
    }

    fn shown(&self) -> BTreeMap<u16, String> {
        let mut shown = BTreeMap::new();
        for (file, tests) in &self.files {
            for (name, numbers) in tests {
                shown.extend(numbers.iter().map(|number| (*number, format!("{file}::{name}"))));
            }
        }
        shown
    }

    fn has(&self, test: &str) -> bool {
        let Some((file, name)) = test.split_once("::") else { return false };
        self.files.get(file).is_some_and(|tests| tests.iter().any(|(known, _)| known == name))
    }
}

/// The tests of a file with the numbers that they name, and what is wrong with its `Contract:` lines.
fn tests_of(text: &str) -> (Tests, Vec<String>) {
    let listed = listed_tests(text);
    let (mut tests, mut complaints) = (Vec::new(), Vec::new());
    let (mut numbers, mut marked) = (BTreeSet::new(), false);
    // The empty line at the end is where a name that belongs to nothing is noticed.
    for line in text.lines().map(str::trim).chain([""]) {
        if let Some(list) = line.strip_prefix("/// Contract:") {
            match list_of(list) {
                Some(list) => numbers.extend(list),
                None => complaints.push(format!("'{line}' is no list as in 'Contract: 46, 49.'")),
            }
        } else if line == "#[test]" {
            marked = true;
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("fn ");
            let name = name.and_then(|rest| rest.split(['(', '<']).next()).unwrap_or_default();
            if !name.is_empty() && (marked || listed.contains(name)) {
                numbers.extend(numbers_in(name));
                tests.push((name.to_owned(), std::mem::take(&mut numbers)));
            } else if !numbers.is_empty() {
                complaints.push(format!("'Contract: {numbers:?}' is not on a test"));
            }
            (numbers, marked) = (BTreeSet::new(), false);
        }
    }
    (tests, complaints)
}

/// ` 46, 49.`
fn list_of(text: &str) -> Option<Vec<u16>> {
    text.trim().strip_suffix('.')?.split(',').map(|number| number.trim().parse().ok()).collect()
}

/// What the words of a name say: `item_46_…`, `items_46_and_49_…`, `items_89_to_91_…`.
fn numbers_in(name: &str) -> BTreeSet<u16> {
    let words: Vec<&str> = name.split('_').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u16>().ok());
    match (words.first(), number(1), words.get(2), number(3)) {
        (Some(&"items"), Some(first), Some(&"to"), Some(last)) => (first..=last).collect(),
        (Some(&"items"), Some(first), Some(&"and"), Some(other)) => [first, other].into(),
        (Some(&"item"), Some(only), _, _) => [only].into(),
        _ => BTreeSet::new(),
    }
}

/// The functions that the macros make tests of.
fn listed_tests(text: &str) -> BTreeSet<&str> {
    let mut listed = BTreeSet::new();
    for name in MACROS {
        for call in [format!("{name}! {{"), format!("{name}!(")] {
            for (at, _) in text.match_indices(&call) {
                let list = &text[at + call.len()..];
                let list = list.split(['}', ')']).next().unwrap_or_default();
                listed.extend(
                    list.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()),
                );
            }
        }
    }
    listed
}

/// Every `path.rs::name` in a text.
fn named_tests(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || "_/.:".contains(c);
    text.split(move |c| !is_part(c))
        .filter(|word| word.contains(".rs::"))
        .map(|word| word.trim_end_matches(['.', ':']))
}
