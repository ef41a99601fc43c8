//! `s6-svwait`: returns when services are up, ready or down.
//!
//! The supervisor tells when they are. It does not tell that one has been given up for good, so a wait is asked for in
//! slices, and the states are looked at between them.

use super::applet::Call;
use super::ask::{self, Problem};
use super::options::{self, Options, UsageError};
use super::target::Slot;
use crate::control::client::Search;
use crate::control::protocol::{Outcome, Request, State, Targets, Until};
use std::path::Path;
use std::time::{Duration, Instant};

const USAGE: &str = "s6-svwait [-U|-u|-d|-D|-r|-R] [-a|-o] [-t MS] SERVICEDIR...";

/// How long the supervisor is let wait before the states are looked at.
const SLICE: Duration = Duration::from_secs(1);
/// The same where one of several is enough: its answer comes with the end of the slice.
const SHORT_SLICE: Duration = Duration::from_millis(100);
/// What the answer may take beyond the slice.
const GRACE: Duration = Duration::from_secs(3);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Up {
        ready: bool,
    },
    /// With an empty tree, so it could start again at once.
    Down,
    /// Up, in another life than before. That the earlier one is over is the caller's to see.
    Restarted {
        ready: bool,
    },
}

impl Goal {
    /// By the letter that `s6-svc -w` and `s6-svwait` give it.
    pub fn named(letter: &str) -> Option<Self> {
        Some(match letter {
            "u" => Self::Up { ready: false },
            "U" => Self::Up { ready: true },
            "d" | "D" => Self::Down,
            "r" => Self::Restarted { ready: false },
            "R" => Self::Restarted { ready: true },
            _ => return None,
        })
    }

    fn until(self) -> Until {
        match self {
            Self::Up { ready: true } | Self::Restarted { ready: true } => Until::Ready,
            Self::Up { ready: false } | Self::Restarted { ready: false } => Until::Up,
            Self::Down => Until::Down,
        }
    }
}

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    let mut options = Options::new("UudDrRaot:", words);
    let (goal, any, timeout) = match read(&mut options) {
        Ok(read) => read,
        Err(error) => return call.usage(error, USAGE),
    };
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    match wait(call, options.rest(), goal, any, until) {
        Ok(()) => 0,
        Err(problem) => call.fatal(problem.code(), problem.text()),
    }
}

/// The goal, whether one of several is enough, and the time; none: for ever.
fn read(options: &mut Options<'_>) -> Result<(Goal, bool, Option<Duration>), UsageError> {
    let (mut goal, mut any, mut timeout) = (Goal::Up { ready: false }, false, None);
    for option in options {
        match option? {
            ('a', _) => any = false,
            ('o', _) => any = true,
            ('t', value) => {
                let millis = options::number::<u32>('t', value)?;
                timeout = (millis > 0).then(|| Duration::from_millis(millis.into()));
            }
            (letter, _) => goal = Goal::named(&letter.to_string()).unwrap_or(goal),
        }
    }
    Ok((goal, any, timeout))
}

fn wait(
    call: &Call<'_>,
    dirs: &[std::ffi::OsString],
    goal: Goal,
    any: bool,
    until: Option<Instant>,
) -> Result<(), Problem> {
    let search = call.search();
    let mut names = Vec::new();
    let mut up_for_ever = false;
    for dir in dirs {
        let wrong = |why| Problem::NoSlot(format!("unable to wait for {}: {why}", dir.display()));
        let slot = Slot::of(Path::new(dir), call.env).map_err(wrong)?;
        if slot.is_virtual() {
            up_for_ever = true;
        } else {
            names.push(slot.name);
        }
    }
    if up_for_ever {
        ask::anybody(&search)?;
        match goal {
            Goal::Up { .. } if any => return Ok(()),
            Goal::Up { .. } => {}
            Goal::Down | Goal::Restarted { .. } if any && !names.is_empty() => {}
            Goal::Down | Goal::Restarted { .. } => {
                return Err(Problem::Failed("the container itself is never down while it runs".to_owned()));
            }
        }
    }
    if let Goal::Restarted { .. } = goal {
        until_there(&search, &names, Goal::Down, any, until)?;
    }
    until_there(&search, &names, goal, any, until)
}

/// Returns when all of the services, or one of them, are where they are waited for.
///
/// # Errors
/// [`Problem::Late`] at the deadline; [`Problem::Failed`] when one that is waited for has been given up; others as the
/// supervisor answers.
pub fn until_there(
    search: &Search,
    names: &[String],
    goal: Goal,
    any: bool,
    until: Option<Instant>,
) -> Result<(), Problem> {
    let mut missing = names.to_vec();
    while !missing.is_empty() {
        let slice = if any && names.len() > 1 { SHORT_SLICE } else { SLICE };
        let left = until.map_or(slice, |until| until.saturating_duration_since(Instant::now()).min(slice));
        let timeout_ms = u64::try_from(left.as_millis()).ok();
        let targets = Targets::Names(missing.clone());
        let request = Request::Wait { targets, until: goal.until(), timeout_ms };
        let patience = Instant::now() + left + GRACE;
        let outcomes = ask::act(search, &request, Some(patience))?;
        let there = outcomes.iter().filter(|outcome| outcome.ok).count();
        if any && there > 0 || there == outcomes.len() {
            return Ok(());
        }
        // The answer for a name comes under the service's own: what is missing is asked for by that from now on.
        missing = outcomes.iter().filter(|outcome| !outcome.ok).map(|outcome| outcome.name.clone()).collect();
        let mut hopeless = outcomes.into_iter().filter(|outcome| !outcome.ok).filter_map(|outcome| {
            match (given_up(&outcome, goal), Problem::from(outcome)) {
                (given_up, Problem::Late) => given_up,
                (_, problem) => Some(problem),
            }
        });
        // Of several, one that can still come is enough to go on.
        if let Some(first) = hopeless.next()
            && (!any || hopeless.count() + 1 == missing.len())
        {
            return Err(first);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Problem::Late);
        }
    }
    Ok(())
}

/// It will not come up by itself any more.
fn given_up(outcome: &Outcome, goal: Goal) -> Option<Problem> {
    let over =
        |state: &State| matches!(state, State::Failed | State::Finished | State::Refused | State::Parked);
    let state = outcome.state.filter(over)?;
    (goal != Goal::Down)
        .then(|| Problem::Failed(format!("'{}' is {state}: it will not come up", outcome.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Code;
    use crate::s6::applets::applet::tests::told;

    #[test]
    fn every_letter_has_its_goal() {
        for (letter, goal) in [
            ("u", Some(Until::Up)),
            ("U", Some(Until::Ready)),
            ("d", Some(Until::Down)),
            ("D", Some(Until::Down)),
            ("r", Some(Until::Up)),
            ("R", Some(Until::Ready)),
            ("x", None),
            ("", None),
            ("uu", None),
        ] {
            assert_eq!(Goal::named(letter).map(Goal::until), goal, "{letter}");
        }
    }

    #[test]
    fn a_service_that_was_given_up_is_waited_for_only_to_be_down() {
        let late = |state| Outcome::failed("x", Code::TimedOut, Some(state), "late");
        for (state, goal, ends) in [
            (State::Failed, Goal::Up { ready: false }, true),
            (State::Finished, Goal::Restarted { ready: true }, true),
            (State::Parked, Goal::Up { ready: false }, true),
            (State::Failed, Goal::Down, false),
            (State::Backoff, Goal::Up { ready: true }, false),
        ] {
            assert_eq!(given_up(&late(state), goal).is_some(), ends, "{state} {goal:?}");
        }
    }

    #[test]
    fn usage_is_100_nobody_is_102_and_nothing_to_wait_for_is_done() {
        let env = |key: &str| (key == "HERMES_SUP_SOCKET").then(|| "/nonexistent/s".into());
        for (words, code) in [
            (&["-x", "/run/service/a"][..], 100),
            (&["-t", "x", "/run/service/a"], 100),
            (&["-D", "-t", "50", "/run/service/a"], 102),
            (&["-u", "/run/service/main-hermes"], 102),
            (&["-u", "/elsewhere"], 102),
            (&["-U"], 0),
        ] {
            let (got, out, err) = told(main, "s6-svwait", words, &env);
            assert_eq!((got, out.as_str()), (code, ""), "{words:?}: {err}");
            assert_eq!(err.lines().count(), usize::from(code != 0), "{err}");
        }
    }
}
