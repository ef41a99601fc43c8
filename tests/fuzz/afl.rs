//! The targets under AFL++. One input after another in one process: `fuzz TARGET` is what afl-fuzz runs.
//!
//! `fuzz --list` prints the targets, `fuzz --dictionary TARGET` the words of its grammar as AFL++ reads them, `fuzz --chance N` the
//! Nth input that is made by chance, `fuzz --document TARGET FILE` what an input stands for, and `fuzz TARGET FILE…` runs the target
//! on these inputs, without AFL++.

mod targets;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use targets::Prepared;
use targets::choices::Chance;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    // A panic that is no finding is one that the store catches.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !hermes_sup::store::panic_is_expected() {
            usual(panic);
            std::process::abort();
        }
    }));
    let mut out = std::io::stdout().lock();
    let done = match words[..] {
        ["--list"] => targets::ALL.iter().try_for_each(|target| writeln!(out, "{}", target.name)),
        ["--dictionary", name] => prepared(name).grammar.dictionary(&mut out),
        ["--chance", number] => {
            out.write_all(&Chance::new(number.parse().expect("a number")).input())
        }
        ["--document", name, file] => {
            let input = std::fs::read(file).expect("the file of an input");
            out.write_all(&prepared(name).document(&input))
        }
        [name] => {
            let target = prepared(name);
            afl::fuzz_nohook!(|input: &[u8]| target.run(input));
            Ok(())
        }
        [name, ref files @ ..] => {
            let target = prepared(name);
            for file in files {
                target.run(&std::fs::read(file).expect("the file of an input"));
            }
            Ok(())
        }
        [] => writeln!(out, "fuzz: name a target: see --list"),
    };
    ExitCode::from(u8::from(done.is_err() || words.is_empty()))
}

fn prepared(name: &str) -> Prepared {
    targets::ALL.iter().find(|target| target.name == name).expect("a target of --list").prepare()
}
