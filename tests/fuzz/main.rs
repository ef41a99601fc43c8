//! The fuzz targets without a fuzzer: on every input that is kept in `corpus/`, and on some made by chance, the same ones
//! each time. `tests/run fuzz` looks for new ones, with coverage as its guide.

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};
use targets::Prepared;
use targets::choices::Chance;

/// Inputs made by chance, of each target, and how long they may take together on a busy machine.
const MADE: usize = 400;
const MOMENT: Duration = Duration::from_secs(3);

macro_rules! short {
    ($($target:ident)*) => {
        const SHORT: &[&str] = &[$(stringify!($target),)*];
        $(#[test]
        fn $target() {
            survive(stringify!($target));
        })*
    };
}

short! { protocol answers definition slots bundle supervisord units compose state log roster database arguments reports }

#[test]
fn every_target_is_among_them_and_has_inputs_that_are_kept() {
    let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
    assert_eq!(names, SHORT);
    for name in names {
        assert!(!kept(name).is_empty(), "corpus/{name} is empty");
    }
}

#[test]
fn an_input_is_a_document_or_the_choices_that_make_one() {
    let target = prepared("roster");
    assert_eq!(target.document(b"7 42").as_ref(), b"7 42");
    let first = target.document(&[0]);
    assert!(first.starts_with(b"1 1 1 1 1 undefined 1 0 web\n"), "{}", first.escape_ascii());
    assert!(target.document(&[0, 0, 1]).starts_with(b"7 42 9 0 5 undefined 0 0 web\n"));
    let mut words = Vec::new();
    target.grammar.dictionary(&mut words).expect("a vector");
    let words = String::from_utf8(words).expect("text");
    assert!(words.lines().any(|word| word == r#""\x61\x77\x61\x69\x74\x65\x64""#), "{words}");
}

fn prepared(name: &str) -> Prepared {
    targets::ALL.iter().find(|target| target.name == name).expect("a target").prepare()
}

fn kept(name: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn survive(name: &str) {
    quiet_about_caught_panics();
    let target = prepared(name);
    for file in kept(name) {
        let input = std::fs::read(&file).expect("an input that is kept");
        attempt(&target, &input, &file.display().to_string());
    }
    let mut chance = Chance::new(1);
    let began = Instant::now();
    for made in (1..=MADE).take_while(|made| *made == 1 || began.elapsed() < MOMENT) {
        attempt(&target, &chance.input(), &format!("made input {made}"));
    }
}

/// Where it fails, the document is written down.
fn attempt(target: &Prepared, input: &[u8], which: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.run(input))) {
        let name = target.target.name;
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        let written = std::fs::write(&place, target.document(input));
        assert!(written.is_ok(), "{name} fails at {which}");
        let keep = "once mended, put it into tests/fuzz/corpus";
        std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("{name} fails at {which}: {}; {keep}\n", place.display()).as_bytes(),
        )
        .expect("stderr");
        resume_unwind(panic);
    }
}

/// The store catches what the database engine makes of damaged files.
fn quiet_about_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !hermes_sup::store::panic_is_expected() {
                usual(panic);
            }
        }));
    });
}
