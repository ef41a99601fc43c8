//! `systemd-run`: becomes the command, in a new scope.

use super::options::Words;
use super::{Failure, PATIENCE, WordsError, ask, failed};
use crate::control::protocol::{OomPolicy, Request};
use crate::core::unit::ScopeName;
use crate::s6::applets::applet::Call;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;

/// Becomes the command, in a new scope: the same process, with its environment as it is.
///
/// Of what systemd-run does, INVOCATION_ID is left out: a program that finds it, a gateway among them, takes itself for
/// supervised by systemd and asks systemd to be restarted.
///
/// Returns the exit code only when that fails: 1, as systemd-run's.
pub fn systemd_run(call: &mut Call<'_>) -> u8 {
    let error = match run(call) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    failed(call, &error)
}

/// What is asked of systemd-run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) unit: ScopeName,
    pub(super) quiet: bool,
    pub(super) bounds: Bounds,
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) memory_max: Option<u64>,
    pub(super) swap_max: Option<u64>,
    pub(super) oom: OomPolicy,
}

enum Never {}

fn run(call: &mut Call<'_>) -> Result<Never, Failure> {
    let Run { unit, quiet, bounds: Bounds { memory_max, swap_max, oom }, command } = Run::parse(call.words)?;
    let request = Request::Scope { unit: unit.to_string(), memory_max, swap_max, oom };
    let scope = ask(&call.search(), &request, PATIENCE)?.ok_or(Failure::NoScope)?;
    if !quiet {
        for line in &scope.not_in_force {
            call.console.error(line);
        }
    }
    if scope.adopt_orphans {
        // Kept over execve(2), not inherited by children (PR_SET_CHILD_SUBREAPER, prctl(2)).
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).map_err(Failure::Subreaper)?;
    }
    let (program, arguments) = command.split_first().ok_or(WordsError::NoCommand)?;
    let error = std::process::Command::new(program).args(arguments).exec();
    // When this process ends, the scope is empty and goes.
    Err(Failure::Exec { program: program.clone(), error })
}

impl Run {
    pub(super) fn parse(words: &[OsString]) -> Result<Self, WordsError> {
        let (mut user, mut scope, mut quiet) = (false, false, false);
        let mut unit = None;
        let mut bounds = Bounds::default();
        let mut words = Words { rest: words };
        // The first word that is no option begins the command, whose own options are none of ours.
        while let Some(option) = words.option()? {
            match option.name {
                "--user" => user = option.alone()?,
                "--scope" => scope = option.alone()?,
                "--quiet" | "-q" => quiet = option.alone()?,
                // A scope is always collected: nothing of it is kept once it is empty.
                "--collect" | "-G" => drop(option.alone()?),
                "--unit" | "-u" => unit = Some(option.value(&mut words)?),
                // Nothing here shows it.
                "--description" => drop(option.value(&mut words)?),
                "--property" | "-p" => bounds.set(&option.value(&mut words)?)?,
                other => return Err(WordsError::Run(other.to_owned())),
            }
        }
        if !user || !scope {
            return Err(WordsError::NotAScope);
        }
        let unit = ScopeName::new(&unit.ok_or(WordsError::NoUnit)?)?;
        if words.rest.is_empty() {
            return Err(WordsError::NoCommand);
        }
        Ok(Self { unit, quiet, bounds, command: words.rest.to_vec() })
    }
}

impl Bounds {
    /// One `K=V` of systemd.resource-control(5) or systemd.scope(5).
    fn set(&mut self, assignment: &str) -> Result<(), WordsError> {
        let wrong = |allowed| WordsError::Property { assignment: assignment.to_owned(), allowed };
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(wrong("write it as NAME=VALUE"));
        };
        let sizes = "use a number of bytes, with K, M, G or T if wanted, or 'infinity'";
        match key {
            "MemoryMax" => self.memory_max = bytes(value).ok_or_else(|| wrong(sizes))?,
            "MemorySwapMax" => self.swap_max = bytes(value).ok_or_else(|| wrong(sizes))?,
            // Accounting is on wherever it can be.
            "MemoryAccounting" => match value {
                "yes" | "true" | "on" | "1" | "no" | "false" | "off" | "0" => {}
                _ => return Err(wrong("use yes or no")),
            },
            "OOMPolicy" => {
                self.oom = match value {
                    // Here a stop is a kill.
                    "kill" | "stop" => OomPolicy::Kill,
                    "continue" => OomPolicy::Continue,
                    _ => return Err(wrong("use kill, stop or continue")),
                }
            }
            // A stop kills at once, so there is nothing to wait for.
            "TimeoutStopSec" => {}
            _ => {
                return Err(wrong(
                    "use MemoryMax, MemorySwapMax, MemoryAccounting, OOMPolicy or TimeoutStopSec",
                ));
            }
        }
        Ok(())
    }
}

/// A size as systemd.resource-control(5) writes it, base 1024. `Some(None)`: no bound; `None`: not a size.
pub(super) fn bytes(text: &str) -> Option<Option<u64>> {
    if text == "infinity" {
        return Some(None);
    }
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    Some(Some(number.parse::<u64>().ok()?.checked_mul(factor)?))
}
