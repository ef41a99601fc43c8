//! `s6-svstat`: the state of one service, in a line that programs read.
//!
//! The line has the form of s6 up to 2.11, `up (pid N) S seconds`, which every reader understands; 2.15 puts the process
//! group beside the pid, which some do not. "Up" means that the main process lives.

use super::applet::{Call, SYSTEM};
use super::ask::{self, Problem};
use super::options::{Options, UsageError};
use super::target::Slot;
use crate::control::protocol::{ServiceStatus, State, SupervisorStatus, Utc, Want};
use crate::core::exit::Exit;
use crate::log::tai64n::Label;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

const USAGE: &str = "s6-svstat [-uwNrpgest | -o FIELD,...] [-n] SERVICEDIR";

/// Most fields in one call, as in s6.
const MAX_FIELDS: usize = 15;

/// What can be asked for, by the name for `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Up,
    WantedUp,
    NormallyUp,
    Ready,
    Paused,
    Pid,
    Pgid,
    ExitCode,
    Signal,
    SigNum,
    UpDownSince,
    ReadySince,
    UpDownFor,
    ReadyFor,
}

const FIELDS: [(&str, Field); 14] = [
    ("up", Field::Up),
    ("wantedup", Field::WantedUp),
    ("normallyup", Field::NormallyUp),
    ("ready", Field::Ready),
    ("paused", Field::Paused),
    ("pid", Field::Pid),
    ("pgid", Field::Pgid),
    ("exitcode", Field::ExitCode),
    ("signal", Field::Signal),
    ("signum", Field::SigNum),
    ("updownsince", Field::UpDownSince),
    ("readysince", Field::ReadySince),
    ("updownfor", Field::UpDownFor),
    ("readyfor", Field::ReadyFor),
];

/// A service as s6 sees one.
#[derive(Debug, Clone, PartialEq)]
struct View {
    /// Of the main process, while it lives.
    pid: Option<u32>,
    /// How it ended; none: not started yet.
    exit: Option<Exit>,
    /// Since when it is up or down.
    since: SystemTime,
    ready: bool,
    ready_since: SystemTime,
    wanted_up: bool,
    normally_up: bool,
    paused: bool,
    now: SystemTime,
}

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    let mut options = Options::new("no:uwNrpgest", words);
    let (fields, numeric) = match fields(&mut options) {
        Ok(read) => read,
        Err(error) => return call.usage(error, USAGE),
    };
    let Some(dir) = options.rest().first() else {
        return call.usage("no service directory is named", USAGE);
    };
    let dir = Path::new(dir);
    match View::of(call, dir) {
        Ok(view) => {
            let line = if fields.is_empty() {
                view.line(numeric)
            } else {
                fields.iter().map(|field| view.field(*field)).collect::<Vec<_>>().join(" ")
            };
            call.console.line(&line);
            call.written()
        }
        Err(problem) => {
            let (code, why) = match &problem {
                // The words of s6 for what it does not supervise.
                Problem::NoSlot(_) => (1, "s6-supervise not running"),
                Problem::NoSupervisor(text) => (1, text.as_str()),
                Problem::Late | Problem::Failed(_) | Problem::System(_) => (SYSTEM, problem.text()),
            };
            call.fatal(code, &format!("unable to read status for {}: {why}", dir.display()))
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum FieldsError {
    #[error(transparent)]
    Option(#[from] UsageError),
    #[error("invalid option field '{}' (there are {})", .0.escape_debug(), FIELDS.map(|(name, _)| name).join(", "))]
    Unknown(String),
    #[error("too many option fields")]
    TooMany,
}

/// The fields asked for, and whether signals are to be numbers.
fn fields(options: &mut Options<'_>) -> Result<(Vec<Field>, bool), FieldsError> {
    let (mut fields, mut numeric) = (Vec::new(), false);
    for option in options {
        let (letter, value) = option?;
        match letter {
            'n' => numeric = true,
            'o' => {
                let list = value.map(|value| value.to_string_lossy()).unwrap_or_default();
                for name in list.split(',').filter(|name| !name.is_empty()) {
                    let field = FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
                    fields.push(field.ok_or_else(|| FieldsError::Unknown(name.to_owned()))?);
                }
            }
            'u' => fields.push(Field::Up),
            'w' => fields.push(Field::WantedUp),
            'N' => fields.push(Field::NormallyUp),
            'r' => fields.push(Field::Ready),
            'p' => fields.push(Field::Pid),
            'g' => fields.push(Field::Pgid),
            'e' => fields.push(Field::ExitCode),
            's' => fields.push(Field::Signal),
            't' => fields.push(Field::UpDownFor),
            _ => return Err(UsageError::Unsupported(letter).into()),
        }
    }
    if fields.len() > MAX_FIELDS {
        return Err(FieldsError::TooMany);
    }
    Ok((fields, numeric))
}

impl View {
    fn of(call: &Call<'_>, dir: &Path) -> Result<Self, Problem> {
        let slot = Slot::of(dir, call.env)?;
        let search = call.search();
        let now = SystemTime::now();
        let mut view = if slot.is_virtual() {
            Self::of_supervisor(&ask::supervisor(&search)?, now)
        } else {
            Self::of_service(&ask::service(&search, &slot.name, ask::PATIENCE)?, now)
        };
        let down = dir.join("down");
        view.normally_up = match std::fs::symlink_metadata(&down) {
            Ok(_) => false,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
                _ => return Err(Problem::System(format!("{} cannot be read: {error}", down.display()))),
            },
        };
        view.paused = view.pid.is_some_and(is_stopped);
        Ok(view)
    }

    fn of_service(status: &ServiceStatus, now: SystemTime) -> Self {
        let moment = |utc: Option<Utc>| utc.map(|utc| utc.0);
        let changed = moment(status.since).unwrap_or(now);
        let exit = status.last_exit.as_ref();
        let since = match (status.pid, status.uptime_ms) {
            (Some(_), Some(uptime)) => now.checked_sub(Duration::from_millis(uptime)).unwrap_or(changed),
            (Some(_), None) => changed,
            (None, _) => exit.and_then(|exit| moment(exit.at)).unwrap_or(changed),
        };
        let ready = status.state == State::Ready && status.pid.is_some();
        Self {
            pid: status.pid,
            exit: exit.map(|exit| exit.exit()),
            since,
            ready,
            ready_since: moment(status.ready_since).filter(|_| ready).unwrap_or(since),
            // What has been given up is not wanted up in the eyes of s6 (a finish script that exits 125), nor is what
            // ended as it should, nor what its owner parked.
            wanted_up: status.want == Want::Up
                && !matches!(status.state, State::Failed | State::Finished | State::Refused | State::Parked),
            normally_up: true,
            paused: false,
            now,
        }
    }

    fn of_supervisor(status: &SupervisorStatus, now: SystemTime) -> Self {
        let since = now.checked_sub(Duration::from_millis(status.uptime_ms)).unwrap_or(status.since.0);
        Self {
            pid: Some(status.pid),
            exit: None,
            since,
            ready: false,
            ready_since: since,
            wanted_up: true,
            normally_up: true,
            paused: false,
            now,
        }
    }

    /// The line for people and for programs that were written before `-o`.
    fn line(&self, numeric: bool) -> String {
        let seconds = self.seconds(self.since);
        let mut line = match (self.pid, self.exit, self.exit.and_then(Exit::signal)) {
            (Some(pid), ..) => format!("up (pid {pid}) {seconds} seconds"),
            (None, None, _) => format!("down (not started yet) {seconds} seconds"),
            (None, Some(_), Some(signal)) if numeric => {
                format!("down (signal {}) {seconds} seconds", signal.number())
            }
            (None, Some(_), Some(signal)) => format!("down (signal {signal}) {seconds} seconds"),
            // That nobody saw the end is no word of s6: the code that a shell would show.
            (None, Some(exit), None) => format!("down (exitcode {}) {seconds} seconds", exit.shell_code()),
        };
        let up = self.pid.is_some();
        for (said, words) in [
            (up && !self.normally_up, ", normally down"),
            (!up && self.normally_up, ", normally up"),
            (up && self.paused, ", paused"),
            (!up && self.wanted_up, ", want up"),
            (up && !self.wanted_up, ", want down"),
        ] {
            if said {
                line.push_str(words);
            }
        }
        if self.ready {
            line.push_str(&format!(", ready {} seconds", self.seconds(self.ready_since)));
        }
        line
    }

    fn field(&self, field: Field) -> String {
        let pid = || self.pid.map_or(-1, i64::from);
        let ended = self.exit.filter(|_| self.pid.is_none());
        let signal = ended.and_then(Exit::signal);
        match field {
            Field::Up => self.pid.is_some().to_string(),
            Field::WantedUp => self.wanted_up.to_string(),
            Field::NormallyUp => self.normally_up.to_string(),
            Field::Ready => self.ready.to_string(),
            Field::Paused => (self.paused && self.pid.is_some()).to_string(),
            // Each service is a session of its own, so the main process leads its group.
            Field::Pid | Field::Pgid => pid().to_string(),
            Field::ExitCode => match ended {
                Some(Exit::Code(code)) => code.to_string(),
                Some(Exit::Signal { .. } | Exit::Oom(_) | Exit::MaybeOom { .. } | Exit::Unknown) | None => {
                    "-1".to_owned()
                }
            },
            Field::Signal => signal.map_or_else(|| "NA".to_owned(), |signal| signal.to_string()),
            Field::SigNum => signal.map_or(-1, |signal| signal.number()).to_string(),
            Field::UpDownSince => Label::of(self.since).to_string(),
            Field::ReadySince => Label::of(self.ready_since).to_string(),
            Field::UpDownFor => self.seconds(self.since).to_string(),
            Field::ReadyFor => self.seconds(self.ready_since).to_string(),
        }
    }

    /// Whole seconds from `since` to now; none for a moment to come.
    fn seconds(&self, since: SystemTime) -> u64 {
        self.now.duration_since(since).unwrap_or_default().as_secs()
    }
}

/// The process is stopped by a signal (state T in proc_pid_stat(5)). Nobody else keeps book of that.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, a parenthesis too.
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    name_end.and_then(|at| stat.get(at + 2)) == Some(&b'T')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{LastExit, samples};
    use crate::core::signal::Signal;
    use crate::s6::applets::applet::tests::told;
    use std::ffi::OsString;

    fn now() -> SystemTime {
        samples::at(100).0
    }

    fn up() -> View {
        View::of_service(&samples::service("coder"), now())
    }

    fn ended(exit: Exit) -> View {
        let last_exit = Some(LastExit::new(exit, Some(samples::at(90))));
        let status = ServiceStatus { last_exit, since: Some(samples::at(99)), ..samples::down("coder") };
        View::of_service(&status, now())
    }

    /// Section 3.3 of the contract, line for line.
    #[test]
    fn the_line_has_the_old_form_of_s6() {
        let killed = Exit::Signal { signal: Signal::TERM, core: true };
        let never = || View::of_service(&samples::down("x"), now());
        for (view, line) in [
            (up(), "up (pid 42) 65 seconds"),
            (View { normally_up: false, ..up() }, "up (pid 42) 65 seconds, normally down"),
            (View { paused: true, ..up() }, "up (pid 42) 65 seconds, paused"),
            (View { wanted_up: false, ..up() }, "up (pid 42) 65 seconds, want down"),
            (
                View { ready: true, ready_since: samples::at(96).0, ..up() },
                "up (pid 42) 65 seconds, ready 4 seconds",
            ),
            (
                View {
                    normally_up: false,
                    paused: true,
                    wanted_up: false,
                    ready: true,
                    ready_since: samples::at(96).0,
                    ..up()
                },
                "up (pid 42) 65 seconds, normally down, paused, want down, ready 4 seconds",
            ),
            (ended(Exit::Code(3)), "down (exitcode 3) 10 seconds, normally up"),
            (View { normally_up: false, ..ended(Exit::Code(0)) }, "down (exitcode 0) 10 seconds"),
            (
                View { wanted_up: true, ..ended(Exit::Code(1)) },
                "down (exitcode 1) 10 seconds, normally up, want up",
            ),
            (
                View { wanted_up: true, normally_up: false, ..ended(killed) },
                "down (signal SIGTERM) 10 seconds, want up",
            ),
            (View { normally_up: false, ..ended(Exit::Unknown) }, "down (exitcode 255) 10 seconds"),
            (View { normally_up: false, ..never() }, "down (not started yet) 0 seconds"),
            (never(), "down (not started yet) 0 seconds, normally up"),
        ] {
            assert_eq!(view.line(false), line);
        }
        let numeric = View { normally_up: false, ..ended(killed) };
        assert_eq!(numeric.line(true), "down (signal 15) 10 seconds");
    }

    #[test]
    fn every_field_up_and_down() {
        let up = View { ready: true, ready_since: samples::at(96).0, ..up() };
        let exited = ended(Exit::Code(3));
        let killed = ended(Exit::Signal { signal: Signal::KILL, core: false });
        let never = View::of_service(&samples::down("x"), now());
        let label = |seconds| Label::of(samples::at(seconds).0).to_string();
        for (name, values) in [
            ("up", ["true", "false", "false", "false"]),
            ("wantedup", ["true", "false", "false", "false"]),
            ("normallyup", ["true", "true", "true", "true"]),
            ("ready", ["true", "false", "false", "false"]),
            ("paused", ["false", "false", "false", "false"]),
            ("pid", ["42", "-1", "-1", "-1"]),
            ("pgid", ["42", "-1", "-1", "-1"]),
            ("exitcode", ["-1", "3", "-1", "-1"]),
            ("signal", ["NA", "NA", "SIGKILL", "NA"]),
            ("signum", ["-1", "-1", "9", "-1"]),
            ("updownsince", [&label(35), &label(90), &label(90), &label(100)]),
            ("readysince", [&label(96), &label(90), &label(90), &label(100)]),
            ("updownfor", ["65", "10", "10", "0"]),
            ("readyfor", ["4", "10", "10", "0"]),
        ] {
            let field = FIELDS.iter().find(|(known, _)| *known == name).unwrap().1;
            let got = [&up, &exited, &killed, &never].map(|view| view.field(field));
            assert_eq!(got, values.map(str::to_owned), "{name}");
        }
    }

    /// The rule of the image's tests: `up` without `want down`, or `want up`, is wanted up.
    #[test]
    fn what_was_given_up_is_not_wanted_up() {
        let of = |state, pid| ServiceStatus { state, pid, ..samples::service("x") };
        for (state, pid, wanted) in [
            (State::Up, Some(1), true),
            (State::Ready, Some(1), true),
            (State::Starting, None, true),
            (State::Backoff, None, true),
            (State::Stopping, Some(1), true),
            (State::Failed, None, false),
            (State::Finished, None, false),
        ] {
            let line = View::of_service(&of(state, pid), now()).line(false);
            let by_rule =
                if line.starts_with("up ") { !line.contains("want down") } else { line.contains("want up") };
            assert_eq!(by_rule, wanted, "{state}: {line}");
        }
        let stopping = ServiceStatus { want: Want::Down, ..of(State::Stopping, Some(1)) };
        assert!(View::of_service(&stopping, now()).line(false).ends_with(", want down"));
    }

    #[test]
    fn times_that_make_no_sense_are_no_panic() {
        let far = ServiceStatus { uptime_ms: Some(u64::MAX), ..samples::service("x") };
        assert!(View::of_service(&far, now()).line(false).starts_with("up (pid 42) "));
        let to_come =
            ServiceStatus { uptime_ms: None, since: Some(samples::at(500)), ..samples::service("x") };
        assert_eq!(View::of_service(&to_come, now()).line(false), "up (pid 42) 0 seconds");
    }

    #[test]
    fn the_container_itself_is_up_with_the_supervisors_pid() {
        let view = View::of_supervisor(&samples::supervisor(), now());
        assert_eq!(view.line(false), "up (pid 1) 7980 seconds");
    }

    #[test]
    fn letters_and_lists_name_fields_in_their_order() {
        use Field::*;
        let read = |words: &str| {
            let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
            super::fields(&mut Options::new("no:uwNrpgest", &words))
        };
        assert_eq!(read("-o pid,up"), Ok((vec![Pid, Up], false)));
        assert_eq!(read("-uwNrpgest"), {
            let all = vec![Up, WantedUp, NormallyUp, Ready, Pid, Pgid, ExitCode, Signal, UpDownFor];
            Ok((all, false))
        });
        assert_eq!(read("-n -oup -oready"), Ok((vec![Up, Ready], true)));
        let unknown = read("-o pid,nothing").unwrap_err();
        assert!(unknown.to_string().starts_with("invalid option field 'nothing'"));
        assert!(read(&format!("-o {}", ["up"; 16].join(","))).is_err());
    }

    #[test]
    fn not_supervised_is_1_in_the_words_of_s6() {
        let env = |key: &str| (key == "HERMES_SUP_SOCKET").then(|| "/nonexistent/s".into());
        assert_eq!(
            told(main, "s6-svstat", &["/elsewhere/x"], &env),
            (
                1,
                String::new(),
                "s6-svstat: fatal: unable to read status for /elsewhere/x: s6-supervise not running\n"
                    .to_owned()
            )
        );
        let (code, _, err) = told(main, "s6-svstat", &["/run/service/x"], &env);
        assert_eq!(code, 1);
        assert!(
            err.starts_with("s6-svstat: fatal: unable to read status for /run/service/x: no supervisor"),
            "{err}"
        );
        for words in [&[][..], &["-n"], &["-z", "/run/service/x"], &["-o", "no", "/run/service/x"]] {
            assert_eq!(told(main, "s6-svstat", words, &env).0, 100, "{words:?}");
        }
    }
}
