//! `systemd-run` and `systemctl`, as far as a gateway uses them: to put a background worker into a scope with a memory
//! bound of its own, and to end or look at such a scope.
//!
//! ```text
//! systemd-run --user --scope [--quiet] [--collect] --unit NAME [--description TEXT] [--property K=V]… [--] COMMAND…
//! systemctl --user stop UNIT
//! systemctl --user show UNIT [--property A,B]… [--value]
//! ```
//!
//! Whatever else those tools can do is refused in one line and exit code 1: a caller that asks whether there is a systemd here
//! (`is-system-running`, a unit of another type) gets no for an answer. A caller that is refused a scope has to go on
//! without one, so nothing is executed then. Options and exit codes are those of systemd-run(1) and systemctl(1).

use super::applet::Call;
use crate::control::client::{Client, ClientError, Search};
use crate::control::protocol::{OomPolicy, Part, RefusalKind, Request, ScopeStatus};
use crate::core::unit::{ScopeName, ScopeNameError};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// How long a supervisor may take to make or show a scope.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the end of a scope may take. A gateway gives `systemctl stop` 15 s, so the failure is told before that.
const STOP_PATIENCE: Duration = Duration::from_secs(14);

/// The exit code of everything else that fails.
const FAILED: u8 = 1;

/// systemctl's exit code for a command about a unit that is not loaded: the LSB's "program is not installed".
const NOT_LOADED: u8 = 5;

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

/// Returns the exit code: 0, 5 for a unit that is not loaded, or 1.
pub fn systemctl(call: &mut Call<'_>) -> u8 {
    let done = match Control::parse(call.words) {
        Ok(Control::Stop { unit }) => stop(call, &unit),
        Ok(Control::Show { unit, properties, value_only }) => show(call, &unit, &properties, value_only),
        Err(error) => Err(error.into()),
    };
    done.unwrap_or_else(|error| failed(call, &error))
}

fn failed(call: &mut Call<'_>, error: &Failure) -> u8 {
    call.console.error(&error.to_string());
    FAILED
}

/// Why what was asked for is not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Words(#[from] WordsError),
    #[error(transparent)]
    Supervisor(#[from] ClientError),
    #[error("the supervisor's answer has no scope in it")]
    NoScope,
    #[error("failed to become a child subreaper: {0}")]
    Subreaper(Errno),
    #[error("failed to execute {}: {error}", program.display())]
    Exec { program: OsString, error: io::Error },
    #[error("{unit} is not empty after {} s: the kernel is still ending it, ask again", after.as_secs())]
    NotEmpty { unit: String, after: Duration },
    #[error("failed to {verb} {unit}: {error}")]
    Unit { verb: &'static str, unit: String, error: ClientError },
}

/// What is wrong with the words that were typed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum WordsError {
    #[error(
        "{0} is not supported: hermes-sup stands in for systemd-run with --user --scope --quiet --collect --unit \
         --description --property only"
    )]
    Run(String),
    #[error("only 'systemd-run --user --scope --unit NAME -- COMMAND' is supported")]
    NotAScope,
    #[error("name the scope with --unit NAME")]
    NoUnit,
    #[error(transparent)]
    Name(#[from] ScopeNameError),
    #[error("property '{assignment}' is not supported: {allowed}")]
    Property { assignment: String, allowed: &'static str },
    #[error("the command is missing: add it after '--'")]
    NoCommand,
    #[error(
        "{0} is not supported: hermes-sup stands in for systemctl with '--user stop UNIT.scope' and \
         '--user show UNIT.scope [--property A,B] [--value]' only"
    )]
    Control(String),
    #[error("name one unit: 'systemctl --user {verb} UNIT.scope'")]
    NotOneUnit { verb: String },
    #[error("the arguments are not UTF-8")]
    NotUtf8,
    #[error("'{}' is not UTF-8", .0.display())]
    WordNotUtf8(OsString),
    #[error("{option} takes no value, but got '{value}'")]
    Value { option: String, value: String },
    #[error("{option} needs a value")]
    NoValue { option: String },
}

// ---- systemd-run

/// What is asked of systemd-run.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    unit: ScopeName,
    quiet: bool,
    bounds: Bounds,
    command: Vec<OsString>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Bounds {
    memory_max: Option<u64>,
    swap_max: Option<u64>,
    oom: OomPolicy,
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
    // The scope is empty once we have ended, and is gone then.
    Err(Failure::Exec { program: program.clone(), error })
}

impl Run {
    fn parse(words: &[OsString]) -> Result<Self, WordsError> {
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
                // There is nobody to be shown it to.
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
                    // What is stopped is killed here.
                    "kill" | "stop" => OomPolicy::Kill,
                    "continue" => OomPolicy::Continue,
                    _ => return Err(wrong("use kill, stop or continue")),
                }
            }
            // How long a stop may ask politely: it does not ask.
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
fn bytes(text: &str) -> Option<Option<u64>> {
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

// ---- systemctl

/// What is asked of systemctl.
#[derive(Debug, PartialEq, Eq)]
enum Control {
    Stop { unit: String },
    Show { unit: String, properties: Vec<String>, value_only: bool },
}

impl Control {
    fn parse(words: &[OsString]) -> Result<Self, WordsError> {
        let (mut user, mut value_only) = (false, false);
        let (mut properties, mut plain) = (Vec::new(), Vec::new());
        let mut words = Words { rest: words };
        loop {
            while let Some(option) = words.option()? {
                match option.name {
                    "--user" => user = option.alone()?,
                    "--value" => value_only = option.alone()?,
                    "--quiet" | "-q" | "--no-pager" => drop(option.alone()?),
                    "--property" | "-p" | "-P" => {
                        value_only |= option.name == "-P";
                        let list = option.value(&mut words)?;
                        properties.extend(list.split(',').map(str::to_owned));
                    }
                    other => return Err(WordsError::Control(other.to_owned())),
                }
            }
            // Options may stand anywhere.
            let Some((word, rest)) = words.rest.split_first() else { break };
            plain.push(word.to_str().ok_or(WordsError::NotUtf8)?.to_owned());
            words.rest = rest;
        }
        let mut plain = plain.into_iter();
        let verb = plain.next().unwrap_or_default();
        if !user || !matches!(verb.as_str(), "stop" | "show") {
            return Err(WordsError::Control(format!("'{verb}'")));
        }
        let (Some(unit), None) = (plain.next(), plain.next()) else {
            return Err(WordsError::NotOneUnit { verb });
        };
        Ok(if verb == "stop" { Self::Stop { unit } } else { Self::Show { unit, properties, value_only } })
    }
}

fn stop(call: &mut Call<'_>, unit: &str) -> Result<u8, Failure> {
    let search = call.search();
    let mut not_loaded = |unit: &str| {
        call.console.error(&format!("failed to stop {unit}: Unit {unit} not loaded."));
        NOT_LOADED
    };
    // What is no name of a scope may be that of another unit, and there is none.
    let Ok(name) = ScopeName::new(unit) else { return Ok(not_loaded(unit)) };
    let unit = name.to_string();
    match ask(&search, &Request::ScopeStop { unit: unit.clone() }, STOP_PATIENCE) {
        Ok(_) => Ok(0),
        Err(error) if is_no_such_scope(&error) => Ok(not_loaded(&unit)),
        Err(ClientError::TimedOut { after, .. }) => Err(Failure::NotEmpty { unit, after }),
        Err(error) => Err(Failure::Unit { verb: "stop", unit, error }),
    }
}

fn show(call: &mut Call<'_>, unit: &str, wanted: &[String], value_only: bool) -> Result<u8, Failure> {
    let scope = match ScopeName::new(unit) {
        Err(_) => None,
        Ok(name) => match ask(&call.search(), &Request::ScopeShow { unit: name.to_string() }, PATIENCE) {
            Ok(scope) => scope,
            Err(error) if is_no_such_scope(&error) => None,
            Err(error) => return Err(Failure::Unit { verb: "show", unit: unit.to_owned(), error }),
        },
    };
    call.console.show(&shown(&properties(unit, scope.as_ref()), wanted, value_only));
    Ok(if call.console.failed() { FAILED } else { 0 })
}

/// All properties, as systemctl shows them: a unit that is not loaded has some too.
fn properties(unit: &str, scope: Option<&ScopeStatus>) -> Vec<(&'static str, String)> {
    let bound = |bytes: Option<u64>| bytes.map_or_else(|| "infinity".to_owned(), |bytes| bytes.to_string());
    let (load, active, sub) = match scope {
        None => ("not-found", "inactive", "dead"),
        Some(scope) if scope.stopping => ("loaded", "deactivating", "stop-sigkill"),
        Some(_) => ("loaded", "active", "running"),
    };
    let figure = |value: Option<u64>| value.map_or_else(|| "[not set]".to_owned(), |value| value.to_string());
    vec![
        ("Id", scope.map_or_else(|| unit.to_owned(), |scope| scope.unit.clone())),
        ("LoadState", load.to_owned()),
        ("ActiveState", active.to_owned()),
        ("SubState", sub.to_owned()),
        ("ControlGroup", scope.and_then(|scope| scope.control_group.clone()).unwrap_or_default()),
        ("MemoryCurrent", figure(scope.and_then(|scope| scope.memory_bytes))),
        ("MemoryMax", bound(scope.and_then(|scope| scope.memory_max))),
        ("MemorySwapMax", bound(scope.and_then(|scope| scope.swap_max))),
        ("TasksCurrent", figure(scope.map(|scope| scope.procs))),
    ]
}

/// Those that are wanted, in the order of the question; without one all. An unknown one is left out, as systemctl does.
fn shown(all: &[(&'static str, String)], wanted: &[String], value_only: bool) -> String {
    let find = |name: &String| all.iter().find(|(known, _)| known == name);
    let chosen: Vec<_> =
        if wanted.is_empty() { all.iter().collect() } else { wanted.iter().filter_map(find).collect() };
    let line = |(name, value): &&(&str, String)| {
        if value_only { format!("{value}\n") } else { format!("{name}={value}\n") }
    };
    chosen.iter().map(line).collect()
}

// ---- both

/// Options as getopt_long(3) reads them, up to the first word that is none.
struct Words<'a> {
    rest: &'a [OsString],
}

struct Opt<'a> {
    name: &'a str,
    attached: Option<&'a str>,
}

impl<'a> Words<'a> {
    /// The next option; `None` at the first word that is none, `--` being skipped.
    fn option(&mut self) -> Result<Option<Opt<'a>>, WordsError> {
        let Some((word, rest)) = self.rest.split_first() else { return Ok(None) };
        if word == "--" {
            self.rest = rest;
            return Ok(None);
        }
        if !word.as_encoded_bytes().starts_with(b"-") || word == "-" {
            return Ok(None);
        }
        let text = utf8(word)?;
        self.rest = rest;
        Ok(Some(if text.starts_with("--") {
            match text.split_once('=') {
                Some((name, value)) => Opt { name, attached: Some(value) },
                None => Opt { name: text, attached: None },
            }
        } else {
            // A letter, and its value if something follows it at once.
            match text.char_indices().nth(2) {
                Some((at, _)) => Opt { name: &text[..at], attached: Some(&text[at..]) },
                None => Opt { name: text, attached: None },
            }
        }))
    }
}

impl<'a> Opt<'a> {
    /// It takes no value.
    fn alone(self) -> Result<bool, WordsError> {
        match self.attached {
            None => Ok(true),
            Some(value) => Err(WordsError::Value { option: self.name.to_owned(), value: value.to_owned() }),
        }
    }

    fn value(&self, words: &mut Words<'a>) -> Result<String, WordsError> {
        if let Some(value) = self.attached {
            return Ok(value.to_owned());
        }
        let missing = || WordsError::NoValue { option: self.name.to_owned() };
        let (word, rest) = words.rest.split_first().ok_or_else(missing)?;
        words.rest = rest;
        Ok(utf8(word)?.to_owned())
    }
}

fn utf8(word: &OsStr) -> Result<&str, WordsError> {
    word.to_str().ok_or_else(|| WordsError::WordNotUtf8(word.to_owned()))
}

/// Asks the supervisor; the scope that the answer has in it, if any.
fn ask(search: &Search, request: &Request, patience: Duration) -> Result<Option<ScopeStatus>, ClientError> {
    let mut scope = None;
    Client::connect(search)?.call(request, Some(patience), |part| {
        if let Part::Scope(found) = part {
            scope = Some(*found);
        }
    })?;
    Ok(scope)
}

fn is_no_such_scope(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.kind == RefusalKind::NoSuchScope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect()
    }

    fn run_of(text: &str) -> Result<Run, WordsError> {
        Run::parse(&words(text))
    }

    fn control_of(text: &str) -> Result<Control, WordsError> {
        Control::parse(&words(text))
    }

    #[test]
    fn the_gateways_own_command_line_is_understood() {
        let run = run_of(
            "--user --scope --quiet --unit hermes-worker-proc_1 --collect --property MemoryAccounting=yes \
             --property MemoryMax=4294967296 --property OOMPolicy=kill -- /bin/bash -lic --user",
        )
        .unwrap();
        assert_eq!(run.unit.to_string(), "hermes-worker-proc_1.scope");
        assert!(run.quiet);
        assert_eq!(run.bounds.memory_max, Some(4 << 30));
        assert_eq!((run.bounds.swap_max, run.bounds.oom), (None, OomPolicy::Kill));
        assert_eq!(run.command, words("/bin/bash -lic --user"));
    }

    #[test]
    fn the_other_spellings_of_the_same_are_understood() {
        let run = run_of(
            "--user --scope --unit=a.scope -pMemoryMax=2G -p MemorySwapMax=0 --property=OOMPolicy=continue \
             --description=x -p TimeoutStopSec=5s sleep 1 --quiet",
        )
        .unwrap();
        assert_eq!(run.unit.to_string(), "a.scope");
        assert!(!run.quiet, "what follows the command belongs to it");
        assert_eq!((run.bounds.memory_max, run.bounds.swap_max), (Some(2 << 30), Some(0)));
        assert_eq!(run.bounds.oom, OomPolicy::Continue);
        assert_eq!(run.command, words("sleep 1 --quiet"));
    }

    #[test]
    fn everything_else_is_one_clear_line() {
        for (text, said) in [
            ("", "only 'systemd-run --user --scope"),
            ("--scope --unit a -- x", "only 'systemd-run --user --scope"),
            ("--user --unit a -- x", "only 'systemd-run --user --scope"),
            ("--user --scope -- x", "name the scope with --unit"),
            ("--user --scope --unit a", "the command is missing"),
            ("--user --scope --unit a --", "the command is missing"),
            ("--user --scope --unit a/b -- x", "'a/b' cannot be the name of a scope"),
            ("--user --scope --unit", "--unit needs a value"),
            ("--user=yes --scope --unit a -- x", "--user takes no value"),
            ("--user --scope --slice=b --unit a -- x", "--slice is not supported"),
            ("--user --scope -t --unit a -- x", "-t is not supported"),
            ("--user --scope --unit a -p CPUQuota=10% -- x", "property 'CPUQuota=10%' is not supported"),
            ("--user --scope --unit a -p MemoryMax=lots -- x", "use a number of bytes"),
            ("--user --scope --unit a -p MemoryMax=50% -- x", "use a number of bytes"),
            ("--user --scope --unit a -p MemoryMax=99999999T -- x", "use a number of bytes"),
            ("--user --scope --unit a -p MemoryMax -- x", "NAME=VALUE"),
            ("--user --scope --unit a -p OOMPolicy=panic -- x", "use kill, stop or continue"),
            ("--user --scope --unit a -p MemoryAccounting=perhaps -- x", "use yes or no"),
        ] {
            let line = run_of(text).unwrap_err().to_string();
            assert!(line.contains(said) && !line.contains('\n'), "{text}: {line}");
        }
        for text in [
            "",
            "--user",
            "stop a.scope",
            "--user restart hermes-gateway",
            "is-system-running",
            "--user is-system-running",
            "--user kill a.scope",
            "--user --now stop a.scope",
        ] {
            let line = control_of(text).unwrap_err().to_string();
            assert!(line.contains("not supported") && !line.contains('\n'), "{text}: {line}");
        }
        for text in ["--user stop", "--user stop a b"] {
            assert!(control_of(text).unwrap_err().to_string().contains("name one unit"), "{text}");
        }
    }

    #[test]
    fn what_fails_is_one_line_and_the_exit_code() {
        let env = |name: &str| (name == "HERMES_SUP_SOCKET").then(|| "/no/such/socket".into());
        for (main, name, words, code, line) in [
            (
                systemd_run as fn(&mut Call<'_>) -> u8,
                "systemd-run",
                &["--user", "--scope", "--unit", "a", "--", "x"][..],
                1,
                "systemd-run: no supervisor answers at /no/such/socket",
            ),
            (systemd_run, "systemd-run", &["--user"], 1, "systemd-run: only 'systemd-run --user --scope"),
            (
                systemctl,
                "systemctl",
                &["--user", "stop", "a.scope"],
                1,
                "systemctl: failed to stop a.scope: no supervisor answers",
            ),
            (
                systemctl,
                "systemctl",
                &["--user", "stop", "a.service"],
                5,
                "systemctl: failed to stop a.service: Unit a.service not loaded.",
            ),
            (
                systemctl,
                "systemctl",
                &["is-system-running"],
                1,
                "systemctl: 'is-system-running' is not supported",
            ),
        ] {
            let (got, out, err) = told(main, name, words, &env);
            assert_eq!((got, out.as_str()), (code, ""), "{words:?}: {err}");
            assert!(err.starts_with(line) && err.lines().count() == 1, "{words:?}: {err}");
        }
        let show = ["--user", "show", "a.service", "--property", "LoadState"];
        let (code, out, err) = told(systemctl, "systemctl", &show, &env);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "LoadState=not-found\n", ""));
    }

    #[test]
    fn no_error_can_be_taken_for_a_scope_that_is_gone() {
        let none = Search { explicit: Some("/no/such/socket".into()), state: "/".into() };
        let silent = Client::connect(&none).unwrap_err().to_string();
        let other = control_of("--user restart x").unwrap_err().to_string();
        for line in [silent, other] {
            for word in ["not loaded", "not found", "does not exist"] {
                assert!(!line.to_lowercase().contains(word), "{line}");
            }
        }
    }

    #[test]
    fn options_of_systemctl_may_stand_anywhere() {
        assert_eq!(control_of("--user stop a.scope"), Ok(Control::Stop { unit: "a.scope".to_owned() }));
        let show = Control::Show {
            unit: "a".to_owned(),
            properties: vec!["LoadState".to_owned(), "ActiveState".to_owned(), "ControlGroup".to_owned()],
            value_only: true,
        };
        assert_eq!(
            control_of("show --user --property LoadState,ActiveState a -p ControlGroup --value --no-pager"),
            Ok(show)
        );
    }

    #[test]
    fn what_is_shown_is_what_was_asked_for() {
        let scope = ScopeStatus {
            unit: "w.scope".to_owned(),
            service: "coder".to_owned(),
            stopping: false,
            control_group: Some("/c".to_owned()),
            procs: 3,
            memory_bytes: None,
            memory_max: Some(5),
            swap_max: None,
            not_in_force: Vec::new(),
            adopt_orphans: false,
        };
        let all = properties("w", Some(&scope));
        let wanted = words("MemoryMax Nonsense LoadState MemorySwapMax MemoryCurrent");
        let wanted: Vec<String> = wanted.into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(
            shown(&all, &wanted, false),
            "MemoryMax=5\nLoadState=loaded\nMemorySwapMax=infinity\nMemoryCurrent=[not set]\n"
        );
        assert_eq!(shown(&all, &["ControlGroup".to_owned()], true), "/c\n");
        assert_eq!(shown(&all, &[], false).lines().count(), all.len());
        let ending = properties("w", Some(&ScopeStatus { stopping: true, ..scope }));
        assert!(shown(&ending, &[], false).contains("ActiveState=deactivating\n"));
        let none = shown(&properties("x.scope", None), &[], false);
        assert!(none.starts_with(
            "Id=x.scope\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nControlGroup=\n"
        ));
    }

    #[test]
    fn sizes_are_base_1024() {
        assert_eq!(bytes("0"), Some(Some(0)));
        assert_eq!(bytes("512M"), Some(Some(512 << 20)));
        assert_eq!(bytes("1T"), Some(Some(1 << 40)));
        assert_eq!(bytes("infinity"), Some(None));
        for wrong in ["", "-1", "1.5G", "M", "1Q", "0x10", "18446744073709551616"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
