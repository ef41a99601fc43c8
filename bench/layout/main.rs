//! Makes `docker/text.ld` for `bench/order`: records which functions of the static binary run in a client, in a keeper, in the
//! steady supervisor and in its boot, and lays those together that run together.
//!
//! `BINARY FILE`: records, writes the script FILE, and shows what each of them touches of BINARY. `BINARY`: shows it alone.

// The host tier's; this program needs only a part.
#[allow(dead_code, unused_imports)]
#[path = "../../tests/host/harness/mod.rs"]
mod harness;

#[path = "../../tests/lib/traced.rs"]
mod traced;

mod recorder;
mod scenes;
mod script;

use recorder::{NEXT_PART, Run};
use script::{Piece, Use, Users};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--scenes"] => return scenes(),
        [program] => order(Path::new(program), None),
        [program, file] => order(Path::new(program), Some(Path::new(file))),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench/order: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What is recorded, in a process of its own.
fn scenes() -> ExitCode {
    let _ = std::io::stdin().read(&mut [0]);
    scenes::play(|| {
        let _ = rustix::process::kill_process(rustix::process::getpid(), NEXT_PART);
    });
    ExitCode::SUCCESS
}

fn order(program: &Path, file: Option<&Path>) -> std::io::Result<()> {
    let nm = Command::new("nm").arg("--print-size").arg(program).output()?;
    let functions = script::functions(&String::from_utf8_lossy(&nm.stdout));
    let mut scenes = Command::new(std::env::current_exe()?);
    scenes.arg("--scenes").env("HERMES_SUP_TESTED", program);
    let runs = recorder::record(program, &functions, scenes)?;
    let commands: Vec<String> = scenes::COMMANDS.iter().map(|command| command.join(" ")).collect();
    let commands = commands.iter().enumerate().map(|(index, name)| (name.as_str(), Who::Command(index)));
    let others = [
        ("keepers and the fork server", Who::Keeper),
        ("the steady supervisor", Who::Steady),
        ("its boot", Who::Boot),
    ];
    for (name, shown) in commands.chain(others) {
        let (bytes, windows) = script::extent(&functions, &used(&runs, |each| each == shown));
        say(&format!("{name}: {bytes} bytes of functions in {windows} windows of 64 KiB"));
    }
    if let Some(file) = file {
        let pieces = script::pieces(&functions, &uses(&runs));
        let text = script::script(&pieces);
        let [bytes, used] = [|piece: &Piece| piece.bytes, |piece: &Piece| piece.used]
            .map(|of| pieces.iter().map(of).sum::<u64>());
        let (name, lines, size) = (file.display(), pieces.len(), text.len());
        say(&format!(
            "{name}: {lines} lines, {size} bytes, for {bytes} bytes of functions, of which {used} are used"
        ));
        std::fs::write(file, text)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// One of [`scenes::COMMANDS`].
    Command(usize),
    /// Or the fork server, or what one of them executes.
    Keeper,
    Steady,
    Boot,
}

impl Who {
    fn users(self) -> Users {
        match self {
            Self::Command(_) => Users::COMMANDS,
            Self::Keeper => Users::KEEPERS,
            Self::Steady => Users::STEADY,
            Self::Boot => Users::BOOT,
        }
    }
}

fn who(run: &Run) -> Option<Who> {
    match run.words.get(1)?.as_str() {
        "init" => Some(if scenes::is_steady(run.part) { Who::Steady } else { Who::Boot }),
        "keeper" | "fork-server" => Some(Who::Keeper),
        _ => scenes::COMMANDS.iter().position(|command| *command == &run.words[1..]).map(Who::Command),
    }
}

fn used(runs: &[Run], by: impl Fn(Who) -> bool) -> BTreeSet<u64> {
    runs.iter().filter(|run| who(run).is_some_and(&by)).flat_map(|run| run.used.iter().copied()).collect()
}

/// Of each function that is used. Commands come first, then keepers, then the supervisor.
fn uses(runs: &[Run]) -> BTreeMap<u64, Use> {
    let mut uses: BTreeMap<u64, Use> = BTreeMap::new();
    for users in [Users::COMMANDS, Users::KEEPERS, Users::STEADY, Users::BOOT] {
        let theirs = runs.iter().filter(|run| who(run).map(Who::users) == Some(users));
        for address in theirs.flat_map(|run| &run.used) {
            let turn = uses.len();
            let known = uses.entry(*address).or_insert(Use { users, turn });
            known.users = known.users.and(users);
        }
    }
    uses
}

#[allow(clippy::disallowed_macros, reason = "this program is for people")]
fn say(text: &str) {
    println!("{text}");
}
