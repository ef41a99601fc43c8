//! What was typed. `Cli` and its parts are what clap reads, validated only (man page and completions come from them);
//! [`Command`] is what it means, with [`Settings`] resolved.

use super::candidates;
use super::logs::{LogQuery, When};
use super::manual::facts;
use super::plain;
use super::settings::{self, Env, Options, Settings, absolute, parse_duration};
use crate::control::client::Search;
use crate::control::protocol::{Code, Program, Registration, Request, SignalName, Targets, Until};
use crate::core::limits::{Key, ValueError};
use crate::core::signal::Signal;
use crate::core::words::Stream;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `command`: the container's CMD; may be empty.
    Init {
        settings: Settings,
        command: Vec<OsString>,
    },
    Run(Settings),
    Ctl(Ctl),
    /// Without paths: the services directories of `settings`.
    Check {
        paths: Vec<PathBuf>,
        settings: Settings,
    },
    Doctor(Settings),
    Import {
        paths: Vec<PathBuf>,
        /// Where the definitions are written; without one they are printed.
        to: Option<PathBuf>,
    },
    Completions(clap_complete::Shell),
    /// Of which subcommand; empty for the program itself.
    Man(Vec<String>),
    /// The JSON schema of a definition.
    Schema,
}

/// `hermes-sup ctl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ctl {
    pub search: Search,
    pub json: bool,
    pub verb: Verb,
}

/// Why there is no [`Command`]: help was asked for (code 0, for the output), or it was a mistake (code 2, one line).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early {
    pub code: Code,
    pub text: String,
}

impl Early {
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { code: Code::Usage, text: text.into() }
    }

    pub fn show(&self, console: &mut super::render::Console<'_>) -> Code {
        match self.code {
            Code::Done => console.show(&self.text),
            _ => console.error(&self.text),
        }
        self.code
    }
}

// ---- what clap reads

/// Keeps gateways running as their owner wants, and stops each with every process it ever started.
#[derive(Debug, Parser)]
#[command(name = "hermes-sup", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Typed,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Typed {
    /// The ENTRYPOINT of a container: boot, supervise, run CMD as the main program
    Init {
        #[command(flatten)]
        options: Options,
        /// The main program and its arguments
        #[arg(trailing_var_arg = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// The supervisor alone, without a main program
    Run {
        #[command(flatten)]
        options: Options,
        /// A few built-in gateways in a temporary home [env: HERMES_SUP_DEMO]
        #[arg(long)]
        demo: bool,
    },
    /// Talk to a running supervisor
    Ctl {
        /// The supervisor's socket [env: HERMES_SUP_SOCKET]
        #[arg(long, value_name = "PATH", global = true)]
        socket: Option<PathBuf>,
        /// One JSON document instead of text
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        verb: Verb,
    },
    /// Validate service definitions
    Check {
        /// Files or directories; without any: the services directories
        #[arg(value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
    /// One line and exit code 0 or 1: everything that is wanted is up, ready and well
    Healthcheck {
        /// The supervisor's socket [env: HERMES_SUP_SOCKET]
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// One JSON document instead of text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// What this kernel and container allow, and what would allow more
    Doctor,
    /// Make definitions of what s6, supervisord, systemd or Compose was told
    ///
    /// What a definition cannot say is named in a comment of its file and on the error stream.
    Import {
        /// An s6 service directory, a directory of many, a supervisord.conf, a unit NAME.service, a directory of units, or a compose.yaml
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// Write NAME.toml for each into DIR, overwriting nothing, instead of printing them
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Print the completions of a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page of the program or of one command, as in 'man ctl stop', or of a 'definition'
    Man {
        #[arg(value_name = "COMMAND", add = ArgValueCompleter::new(candidates::commands))]
        command: Vec<String>,
    },
    /// Print the JSON schema of a definition, for editors
    Schema,
}

/// What `healthcheck` is about.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Asked {
    /// These only, whatever is wanted of them; without any: everything that is wanted
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::services))]
    pub names: Vec<String>,
    /// The gateway of a profile, or the one that serves it
    #[arg(long, value_name = "PROFILE", conflicts_with = "names")]
    pub profile: Option<String>,
}

/// Of each service, with `logs -f`.
const FOLLOWED_LINES: usize = 10;
/// Events that `events -f` begins with.
const FOLLOWED_EVENTS: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Named {
    /// Names of services, or patterns as in 'worker-*'
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCompleter::new(candidates::services))]
    pub names: Vec<String>,
    /// All services
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

impl Named {
    fn targets(&self) -> Targets {
        if self.all { Targets::All } else { Targets::Names(self.names.clone()) }
    }
}

#[derive(Debug, Clone, PartialEq, Subcommand)]
#[command(defer = true)]
pub enum Verb {
    /// Want up, and wait until it is
    Start {
        #[command(flatten)]
        named: Named,
        /// How long to wait for each to be up [default: 30s]
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<Duration>,
        /// Also when what is left of the last run cannot be ended
        #[arg(long)]
        force: bool,
    },
    /// Want down, and wait until every process is gone
    Stop {
        #[command(flatten)]
        named: Named,
    },
    /// Stop, then start
    Restart {
        #[command(flatten)]
        named: Named,
        /// How long to wait for each to be up again [default: 30s]
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<Duration>,
        /// At most N at a time, each up before the next
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rolling: Option<u32>,
    },
    /// Run now, without restart; the want stays as it is
    Once {
        #[command(flatten)]
        named: Named,
        /// How long to wait for each to be up [default: 30s]
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// What is up, since when, and why not
    Status {
        /// With exactly one: everything about it
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::services))]
        names: Vec<String>,
        /// Only what has failed
        #[arg(long)]
        failed: bool,
    },
    /// One line and exit code 0 or 1: everything that is wanted is up, ready and well
    Healthcheck {
        #[command(flatten)]
        asked: Asked,
    },
    /// All services on one screen, with their figures; orders by keys
    Top {
        /// Print one frame as text
        #[arg(long)]
        once: bool,
        /// Between two looks
        #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
        interval: Duration,
    },
    /// All figures, as Prometheus reads them
    Metrics,
    /// How long each service took to start at the boot, and the chain that took longest
    Boot {
        /// A picture, as systemd-analyze plot draws it
        #[arg(long, conflicts_with = "json")]
        svg: bool,
    },
    /// The names of all services, one a line
    List,
    /// Make a service of a profile or a command, on record until unregistered
    Register {
        name: String,
        /// Whom it runs as [default: the caller]
        #[arg(long)]
        user: Option<String>,
        /// Added to its environment; repeatable
        #[arg(long, value_name = "K=V", value_parser = parse_assignment)]
        env: Vec<(String, String)>,
        /// Do not start it
        #[arg(long)]
        down: bool,
        /// The profile directory of a gateway
        #[arg(long, value_name = "DIR", required_unless_present = "argv")]
        profile: Option<PathBuf>,
        /// The command
        #[arg(last = true, conflicts_with = "profile")]
        argv: Vec<String>,
    },
    /// Stop a registered service and forget it
    Unregister {
        #[command(flatten)]
        named: Named,
    },
    /// Send a signal to the main process
    Kill {
        #[arg(add = ArgValueCompleter::new(candidates::services))]
        name: String,
        #[arg(
            default_value = "SIGTERM",
            value_name = "SIG",
            value_parser = parse_signal,
            add = ArgValueCompleter::new(candidates::signals)
        )]
        signal: Signal,
        /// To every process of the tree
        #[arg(long)]
        tree: bool,
    },
    /// Stop every process where it is, until thawed, stopped or killed
    Freeze {
        #[command(flatten)]
        named: Named,
    },
    /// Let what is frozen go on
    Thaw {
        #[command(flatten)]
        named: Named,
    },
    /// The processes of each service
    Tree {
        /// Without any: all services
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::services))]
        names: Vec<String>,
        /// Only of what has failed
        #[arg(long)]
        failed: bool,
    },
    /// What each service may do, and what could be tighter
    Audit {
        /// Without any: all services
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::services))]
        names: Vec<String>,
    },
    /// Show what services wrote
    Logs {
        #[command(flatten)]
        named: Named,
        /// Go on with what is written from now on, beginning with the last 10 lines unless -n or --since say otherwise
        #[arg(short, long)]
        follow: bool,
        /// The last N lines of each
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
        /// From then on: how long ago, as in 10m, a day, a local time, or one as in 2026-01-31T12:00:00Z
        #[arg(long, value_name = "T", value_parser = When::parse)]
        since: Option<When>,
        /// Up to then, in the same words
        #[arg(long, value_name = "T", value_parser = When::parse, conflicts_with = "follow")]
        until: Option<When>,
        /// One stream only
        #[arg(long)]
        stream: Option<Stream>,
    },
    /// What has happened, and who asked for it
    Events {
        /// Go on with what happens from now on, beginning with the last 10 unless --since says otherwise
        #[arg(short, long)]
        follow: bool,
        /// From then on: how long ago, as in 10m, a day, a local time, or one as in 2026-01-31T12:00:00Z
        #[arg(long, value_name = "T", value_parser = When::parse)]
        since: Option<When>,
    },
    /// Wait until all are there
    Wait {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        until: UntilFlags,
        /// Give up after this long
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Change limits now, in the words of a definition's [limits]
    ///
    /// They hold until the service is started again, or with --persist from then on too. An owner may only tighten them.
    Set {
        #[arg(add = ArgValueCompleter::new(candidates::services))]
        name: String,
        /// As in memory_max=512M; VALUE 'default' for what the definition says
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = parse_limit, add = ArgValueCompleter::new(candidates::limits))]
        limits: Vec<(String, String)>,
        /// For all starts to come
        #[arg(long)]
        persist: bool,
    },
    /// Read definitions and profiles again
    Reload {
        /// Restart what has changed
        #[arg(long)]
        restart: bool,
    },
    /// Stop everything in order, then end
    Shutdown {
        /// The exit code
        #[arg(long, value_name = "N")]
        code: Option<u8>,
    },
    /// Become another version without stopping any service
    Upgrade {
        /// The program to become [default: what lies now where this one was started from]
        #[arg(value_name = "BINARY")]
        program: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct UntilFlags {
    /// Started (or ready)
    #[arg(long)]
    up: bool,
    #[arg(long)]
    ready: bool,
    /// Without a process
    #[arg(long)]
    down: bool,
}

impl UntilFlags {
    fn until(&self) -> Until {
        match (self.ready, self.down) {
            (true, _) => Until::Ready,
            (false, true) => Until::Down,
            (false, false) => Until::Up,
        }
    }
}

/// Unix time in milliseconds.
fn unix_ms(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn these_or_all(names: &[String]) -> Targets {
    if names.is_empty() { Targets::All } else { Targets::Names(names.to_vec()) }
}

impl Verb {
    /// What to ask the supervisor. `logs` asks where the files are.
    pub fn request(&self) -> Request {
        let millis = |timeout: &Option<Duration>| {
            timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
        };
        match self {
            Self::Start { named, timeout, force } => {
                Request::Start { targets: named.targets(), timeout_ms: millis(timeout), force: *force }
            }
            Self::Stop { named } => Request::Stop { targets: named.targets() },
            Self::Restart { named, timeout, rolling } => {
                Request::Restart { targets: named.targets(), timeout_ms: millis(timeout), rolling: *rolling }
            }
            Self::Once { named, timeout } => {
                Request::Once { targets: named.targets(), timeout_ms: millis(timeout) }
            }
            Self::Status { names, .. } | Self::Healthcheck { asked: Asked { names, .. } } => {
                Request::Status { targets: these_or_all(names) }
            }
            Self::Tree { names, .. } => Request::Tree { targets: these_or_all(names) },
            Self::Audit { names } => Request::Audit { targets: these_or_all(names) },
            Self::Freeze { named } => Request::Freeze { targets: named.targets() },
            Self::Thaw { named } => Request::Thaw { targets: named.targets() },
            Self::Top { .. } | Self::Metrics | Self::Boot { .. } => Request::Status { targets: Targets::All },
            Self::List => Request::List {},
            Self::Register { name, user, env, down, profile, argv } => Request::Register(Registration {
                name: name.clone(),
                user: user.clone(),
                env: env.iter().cloned().collect(),
                down: *down,
                program: match profile {
                    Some(dir) => Program::Profile(absolute(dir)),
                    None => Program::Argv(argv.clone()),
                },
            }),
            Self::Unregister { named } => Request::Unregister { targets: named.targets() },
            Self::Kill { name, signal, tree } => Request::Kill {
                targets: Targets::Names(vec![name.clone()]),
                signal: SignalName(*signal),
                tree: *tree,
            },
            Self::Events { follow, since } => Request::Events {
                since_ms: since.map(|since| unix_ms(since.moment(SystemTime::now()))),
                last: (*follow && since.is_none()).then_some(FOLLOWED_EVENTS),
                follow: *follow,
            },
            Self::Logs { named, .. } => Request::LogPlaces { targets: named.targets() },
            Self::Wait { named, until, timeout } => {
                Request::Wait { targets: named.targets(), until: until.until(), timeout_ms: millis(timeout) }
            }
            Self::Set { name, limits, persist } => Request::Set {
                targets: Targets::Names(vec![name.clone()]),
                limits: limits.iter().cloned().collect(),
                persist: *persist,
            },
            Self::Reload { restart } => Request::Reload { restart: *restart },
            Self::Shutdown { code } => Request::Shutdown { code: *code },
            Self::Upgrade { program } => Request::Upgrade {
                // What cannot be made absolute is refused with its own words.
                program: program
                    .as_ref()
                    .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            },
        }
    }

    /// Which lines `logs` wants; `None` for any other verb.
    pub fn log_query(&self, now: SystemTime) -> Option<LogQuery> {
        match self {
            Self::Logs { named, follow, lines, since, until, stream } => Some(LogQuery {
                last: lines.or((*follow && since.is_none()).then_some(FOLLOWED_LINES)),
                since: since.map(|since| since.moment(now)),
                until: until.map(|until| until.moment(now)),
                stream: *stream,
                follow: *follow,
                all: named.all,
            }),
            _ => None,
        }
    }
}

// ---- from typed to meant

/// Reads the command line. Called as `init` (the file name of `argv[0]`) there are no options: all is the CMD.
///
/// # Errors
/// [`Early`]: help, version, or one line about a mistake.
pub fn parse(argv: &[OsString], env: &Env<'_>) -> Result<Command, Early> {
    let own_name = argv.first().map(|name| Path::new(name).file_name().unwrap_or_default());
    if own_name == Some(OsStr::new("init")) {
        let settings = Settings::new(Options::default(), false, env)?;
        return Ok(Command::Init { settings, command: argv[1..].to_vec() });
    }
    // Messages name the program as it is called in documents, not by the path it was started with.
    let words = argv.get(1..).unwrap_or_default();
    if let Some(verb) = plain::verb(words) {
        return Ok(Command::Ctl(Ctl { search: settings::search(None, env), json: false, verb }));
    }
    read(words, env)
}

/// What the parser makes of the words.
fn read(words: &[OsString], env: &Env<'_>) -> Result<Command, Early> {
    let typed = std::iter::once(OsStr::new("hermes-sup")).chain(words.iter().map(OsString::as_os_str));
    let Cli { command } = Cli::try_parse_from(typed).map_err(|error| early(&error, words))?;
    Ok(match command {
        Typed::Init { options, command } => {
            Command::Init { settings: Settings::new(options, false, env)?, command }
        }
        Typed::Run { options, demo } => {
            let demo = demo || settings::flag("HERMES_SUP_DEMO", env)?;
            Command::Run(Settings::new(options, demo, env)?)
        }
        Typed::Ctl { socket, json, verb } => {
            Command::Ctl(Ctl { search: settings::search(socket, env), json, verb })
        }
        Typed::Healthcheck { socket, json, asked } => {
            let verb = Verb::Healthcheck { asked };
            Command::Ctl(Ctl { search: settings::search(socket, env), json, verb })
        }
        Typed::Check { paths } => {
            Command::Check { paths, settings: Settings::new(Options::default(), false, env)? }
        }
        Typed::Doctor => Command::Doctor(Settings::new(Options::default(), false, env)?),
        Typed::Import { paths, to } => Command::Import { paths, to },
        Typed::Completions { shell } => Command::Completions(shell),
        Typed::Man { command } => Command::Man(command),
        Typed::Schema => Command::Schema,
    })
}

/// What reads the command line. A command's own part is made when the words name that command.
pub fn parser() -> clap::Command {
    Cli::command()
}

/// The definition of all commands, each with its part.
pub fn definition() -> clap::Command {
    let mut all = parser().disable_help_subcommand(true);
    all.build();
    all
}

/// What is wrong with a value that was typed, as clap puts it behind the value.
#[derive(Debug, thiserror::Error)]
enum TypedError {
    #[error("use a signal as in SIGTERM, TERM or 15")]
    Signal,
    #[error("use NAME=VALUE")]
    Assignment,
    #[error("there is no such limit; allowed: {}", Key::ALL.map(Key::as_str).join(", "))]
    Limit,
    #[error("'{value}' {error}")]
    LimitValue { value: String, error: ValueError },
}

fn parse_signal(text: &str) -> Result<Signal, TypedError> {
    Signal::parse(text).ok_or(TypedError::Signal)
}

fn parse_assignment(text: &str) -> Result<(String, String), TypedError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(TypedError::Assignment),
    }
}

/// A limit as `set` takes it. What is wrong with it is said here, where it was typed.
fn parse_limit(text: &str) -> Result<(String, String), TypedError> {
    let (name, value) = parse_assignment(text)?;
    let key = Key::from_name(&name).ok_or(TypedError::Limit)?;
    if value != "default"
        && let Err(error) = key.parse(&value)
    {
        return Err(TypedError::LimitValue { value, error });
    }
    Ok((name, value))
}

/// clap's message of several paragraphs as one line, with where to read more.
fn early(error: &clap::Error, arguments: &[OsString]) -> Early {
    use clap::error::ErrorKind;
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp => {
            let examples = facts::help(&called(arguments).join(" "));
            return Early { code: Code::Done, text: text + &examples };
        }
        ErrorKind::DisplayVersion => return Early { code: Code::Done, text },
        _ => {}
    }
    let called = std::iter::once("hermes-sup".to_owned()).chain(called(arguments)).collect::<Vec<_>>();
    let more = format!("try '{} --help'", called.join(" "));
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Early::usage(format!("a command is missing: {more}"));
    }
    let paragraph: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let paragraph = paragraph.join(" ");
    let what = paragraph.strip_prefix("error: ").unwrap_or(&paragraph);
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let tip = tip.map(|tip| format!(" ({tip})")).unwrap_or_default();
    Early::usage(format!("{what}{tip}: {more}"))
}

/// The command that the words mean, as far as they mean one.
fn called(words: &[OsString]) -> Vec<String> {
    let (mut command, mut path) = (definition(), Vec::new());
    for word in words {
        if let Some(found) = command.find_subcommand(word).cloned() {
            path.push(found.get_name().to_owned());
            command = found;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn line(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn parsed(words: &[&str]) -> Result<Command, Early> {
        parse(&line(words), &|_| None)
    }

    fn request(words: &[&str]) -> Request {
        let words = [&["/usr/bin/hermes-sup", "ctl"], words].concat();
        match parsed(&words) {
            Ok(Command::Ctl(ctl)) => ctl.verb.request(),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn names(list: &[&str]) -> Targets {
        Targets::Names(list.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn init_takes_options_up_to_the_first_word_or_dashes() {
        let table: [(&[&str], &str, &[&str]); 12] = [
            (&["hermes-sup", "init"], "/opt/data", &[]),
            (&["hermes-sup", "init", "sleep", "1"], "/opt/data", &["sleep", "1"]),
            (&["hermes-sup", "init", "--home", "/x", "--", "cmd", "-x"], "/x", &["cmd", "-x"]),
            (
                &["hermes-sup", "init", "--home", "/x", "cmd", "-x", "--home", "/y"],
                "/x",
                &["cmd", "-x", "--home", "/y"],
            ),
            (
                &["hermes-sup", "init", "sh", "-c", "true", "--", "a"],
                "/opt/data",
                &["sh", "-c", "true", "--", "a"],
            ),
            (&["hermes-sup", "init", "--", "--version"], "/opt/data", &["--version"]),
            (&["hermes-sup", "init", "--", "a", "--", "b"], "/opt/data", &["a", "--", "b"]),
            (&["hermes-sup", "init", "hermes", "--help"], "/opt/data", &["hermes", "--help"]),
            (&["/init"], "/opt/data", &[]),
            (&["/init", "--version"], "/opt/data", &["--version"]),
            (&["/init", "--", "x"], "/opt/data", &["--", "x"]),
            (&["init", "--home", "/x", "run"], "/opt/data", &["--home", "/x", "run"]),
        ];
        for (words, home, expected) in table {
            match parsed(words) {
                Ok(Command::Init { settings, command }) => {
                    assert_eq!(settings.home, Path::new(home), "{words:?}");
                    assert_eq!(command, line(expected), "{words:?}");
                }
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_command_of_init_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStringExt;
        let raw = OsString::from_vec(b"\xff".to_vec());
        for first in [&["hermes-sup", "init"][..], &["/init"]] {
            let words = [line(first), vec![raw.clone()]].concat();
            let Ok(Command::Init { command, .. }) = parse(&words, &|_| None) else { panic!("{words:?}") };
            assert_eq!(command, std::slice::from_ref(&raw));
        }
    }

    #[test]
    fn options_and_environment_meet_in_the_settings() {
        let env = |name: &str| match name {
            "HERMES_SUP_DEMO" => Some(OsString::from("1")),
            "HERMES_HOME" => Some(OsString::from("/h")),
            _ => None,
        };
        let Ok(Command::Run(settings)) = parse(&line(&["hermes-sup", "run"]), &env) else { panic!() };
        assert!(settings.demo);
        assert_eq!(settings.home, Path::new("/h"));
        let words = [
            "hermes-sup",
            "run",
            "--services",
            "/a",
            "--services",
            "/b",
            "--controllers",
            "none",
            "--containment",
            "keeper-same-uid",
            "--stop-budget",
            "1500ms",
            "--log-format",
            "json",
            "--public-status",
        ];
        let Ok(Command::Run(settings)) = parsed(&words) else { panic!() };
        assert_eq!(settings.services, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(settings.containment, Some(crate::core::words::Rung::KeeperSameUid));
        assert_eq!(settings.stop_budget, Duration::from_millis(1500));
        assert!(!settings.controllers && settings.public_status && !settings.demo);
        let Ok(Command::Init { settings, .. }) = parse(&line(&["/init"]), &env) else { panic!() };
        assert!(!settings.demo, "only run has it");
    }

    #[test]
    fn each_verb_asks_for_what_was_typed() {
        let table: [(&[&str], Request); 31] = [
            (
                &["set", "a", "memory_max=1G", "oom=default", "--persist"],
                Request::Set {
                    targets: names(&["a"]),
                    limits: [("memory_max", "1G"), ("oom", "default")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                    persist: true,
                },
            ),
            (
                &["start", "a", "b"],
                Request::Start { targets: names(&["a", "b"]), timeout_ms: None, force: false },
            ),
            (
                &["start", "--all", "--timeout", "5", "--force"],
                Request::Start { targets: Targets::All, timeout_ms: Some(5000), force: true },
            ),
            (&["stop", "a"], Request::Stop { targets: names(&["a"]) }),
            (&["--json", "stop", "--all"], Request::Stop { targets: Targets::All }),
            (
                &["restart", "a", "--rolling", "2"],
                Request::Restart { targets: names(&["a"]), timeout_ms: None, rolling: Some(2) },
            ),
            (&["once", "a"], Request::Once { targets: names(&["a"]), timeout_ms: None }),
            (&["status"], Request::Status { targets: Targets::All }),
            (&["status", "a"], Request::Status { targets: names(&["a"]) }),
            (&["status", "--failed", "a*"], Request::Status { targets: names(&["a*"]) }),
            (&["healthcheck"], Request::Status { targets: Targets::All }),
            (&["healthcheck", "a"], Request::Status { targets: names(&["a"]) }),
            (&["list"], Request::List {}),
            (&["freeze", "a"], Request::Freeze { targets: names(&["a"]) }),
            (&["thaw", "--all"], Request::Thaw { targets: Targets::All }),
            (&["tree"], Request::Tree { targets: Targets::All }),
            (&["tree", "a"], Request::Tree { targets: names(&["a"]) }),
            (&["audit", "a"], Request::Audit { targets: names(&["a"]) }),
            (&["unregister", "a"], Request::Unregister { targets: names(&["a"]) }),
            (
                &["kill", "a"],
                Request::Kill { targets: names(&["a"]), signal: SignalName(Signal::TERM), tree: false },
            ),
            (
                &["kill", "a", "hup", "--tree"],
                Request::Kill { targets: names(&["a"]), signal: SignalName(Signal::HUP), tree: true },
            ),
            (
                &["wait", "a", "--ready", "--timeout", "1m"],
                Request::Wait { targets: names(&["a"]), until: Until::Ready, timeout_ms: Some(60_000) },
            ),
            (
                &["wait", "a", "--up"],
                Request::Wait { targets: names(&["a"]), until: Until::Up, timeout_ms: None },
            ),
            (
                &["wait", "--all", "--down"],
                Request::Wait { targets: Targets::All, until: Until::Down, timeout_ms: None },
            ),
            (&["reload"], Request::Reload { restart: false }),
            (&["reload", "--restart"], Request::Reload { restart: true }),
            (&["shutdown"], Request::Shutdown { code: None }),
            (&["shutdown", "--code", "3"], Request::Shutdown { code: Some(3) }),
            (&["upgrade"], Request::Upgrade { program: None }),
            (&["upgrade", "/new"], Request::Upgrade { program: Some("/new".into()) }),
            (&["logs", "a", "-f"], Request::LogPlaces { targets: names(&["a"]) }),
        ];
        for (words, expected) in table {
            assert_eq!(request(words), expected, "{words:?}");
        }
    }

    #[test]
    fn register_takes_a_command_or_a_profile() {
        let plain = Registration {
            name: "a".to_owned(),
            user: None,
            env: BTreeMap::new(),
            down: false,
            program: Program::Argv(vec!["sleep".to_owned(), "--json".to_owned(), "--".to_owned()]),
        };
        assert_eq!(
            request(&["register", "a", "--", "sleep", "--json", "--"]),
            Request::Register(plain.clone())
        );
        assert_eq!(
            request(&[
                "register",
                "a",
                "--user",
                "u",
                "--env",
                "K=V=W",
                "--env",
                "E=",
                "--down",
                "--profile",
                "/p"
            ]),
            Request::Register(Registration {
                user: Some("u".to_owned()),
                env: [("K".to_owned(), "V=W".to_owned()), ("E".to_owned(), String::new())].into(),
                down: true,
                program: Program::Profile("/p".into()),
                ..plain
            })
        );
        let Request::Register(relative) = request(&["register", "a", "--profile", "p"]) else { panic!() };
        let Program::Profile(dir) = relative.program else { panic!() };
        assert!(dir.is_absolute() && dir.ends_with("p"), "the supervisor has another working directory");
    }

    #[test]
    fn logs_knows_which_lines() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let query = |words: &[&str]| match parsed(&[&["hermes-sup", "ctl", "logs", "a"], words].concat()) {
            Ok(Command::Ctl(ctl)) => ctl.verb.log_query(now),
            other => panic!("{other:?}"),
        };
        assert_eq!(query(&[]), Some(LogQuery::default()));
        assert_eq!(
            query(&["-f", "-n", "5", "--since", "1m", "--stream", "err"]),
            Some(LogQuery {
                last: Some(5),
                since: Some(now - Duration::from_secs(60)),
                stream: Some(Stream::Err),
                follow: true,
                ..LogQuery::default()
            })
        );
        // As everybody does: the end of it, not the whole history.
        let followed = LogQuery { last: Some(10), follow: true, ..LogQuery::default() };
        assert_eq!(query(&["-f"]), Some(followed));
        assert_eq!(query(&["-f", "--since", "1m"]).and_then(|query| query.last), None);
        let until = Some(now - Duration::from_secs(5));
        assert_eq!(query(&["--until", "5s"]), Some(LogQuery { until, ..LogQuery::default() }));
        assert!(parsed(&["hermes-sup", "ctl", "logs", "a", "-f", "--until", "5s"]).is_err());
        assert_eq!(Verb::List.log_query(now), None);
    }

    #[test]
    fn import_takes_paths_and_where_to_write() {
        let paths = vec![PathBuf::from("a"), PathBuf::from("/b")];
        let expected = Command::Import { paths: paths.clone(), to: None };
        assert_eq!(parsed(&["hermes-sup", "import", "a", "/b"]), Ok(expected));
        let expected = Command::Import { paths, to: Some(PathBuf::from("d")) };
        assert_eq!(parsed(&["hermes-sup", "import", "a", "/b", "--to", "d"]), Ok(expected));
        assert_eq!(parsed(&["hermes-sup", "import"]).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn ctl_options_may_stand_on_either_side_of_the_verb() {
        for words in [
            &["hermes-sup", "ctl", "--socket", "/s", "--json", "stop", "a"][..],
            &["hermes-sup", "ctl", "stop", "a", "--socket", "/s", "--json"],
        ] {
            let Ok(Command::Ctl(ctl)) = parsed(words) else { panic!("{words:?}") };
            assert_eq!((ctl.search.explicit, ctl.json), (Some("/s".into()), true), "{words:?}");
        }
    }

    #[test]
    fn a_plain_command_means_what_the_parser_makes_of_it() {
        use std::os::unix::ffi::OsStringExt;
        let names: [&[&str]; 10] = [
            &[],
            &["a"],
            &["a", "b"],
            &[""],
            &["help"],
            &["stop"],
            &["a=b"],
            &["-a"],
            &["a", "--all"],
            &["a", "--"],
        ];
        let verbs = definition().find_subcommand("ctl").unwrap().clone();
        let verbs: Vec<&str> =
            verbs.get_subcommands().map(clap::Command::get_name).chain(["x", "-x"]).collect();
        let mut plain = std::collections::BTreeSet::new();
        for (verb, names) in verbs.iter().flat_map(|verb| names.map(|names| (*verb, names))) {
            let words = line(&[&["ctl", verb], names].concat());
            let Some(found) = plain::verb(&words) else { continue };
            plain.insert(verb);
            match read(&words, &|_| None) {
                Ok(Command::Ctl(Ctl { json: false, verb, .. })) => assert_eq!(found, verb, "{words:?}"),
                other => panic!("{words:?}: {other:?}"),
            }
        }
        assert_eq!(Vec::from_iter(plain), ["healthcheck", "restart", "start", "status", "stop"]);
        for words in [line(&["healthcheck"]), line(&["ctl", "healthcheck"])] {
            let Ok(Command::Ctl(Ctl { json: false, verb, .. })) = read(&words, &|_| None) else { panic!() };
            assert_eq!(plain::verb(&words), Some(verb));
        }
        for other in [line(&["run", "status", "a"]), line(&["ctl"]), line(&[])] {
            assert_eq!(plain::verb(&other), None);
        }
        let raw = [line(&["ctl", "stop"]), vec![OsString::from_vec(b"\xff".to_vec())]].concat();
        assert_eq!(plain::verb(&raw), None);
    }

    #[test]
    fn a_mistake_is_one_line_with_a_hint_and_code_2() {
        let table: [(&[&str], &str); 17] = [
            (&["hermes-sup"], "a command is missing: try 'hermes-sup --help'"),
            (&["hermes-sup", "ctl"], "a command is missing: try 'hermes-sup ctl --help'"),
            (&["hermes-sup", "stat"], "unrecognized subcommand 'stat': try 'hermes-sup --help'"),
            (
                &["hermes-sup", "ctl", "staus"],
                "unrecognized subcommand 'staus' (some similar subcommands exist: 'start', 'status'): try 'hermes-sup ctl --help'",
            ),
            (
                &["hermes-sup", "init", "--bogus", "sleep"],
                "unexpected argument '--bogus' found (to pass '--bogus' as a value, use '-- --bogus'): \
                 try 'hermes-sup init --help'",
            ),
            (
                &["hermes-sup", "init", "--demo"],
                "unexpected argument '--demo' found (to pass '--demo' as a value, use '-- --demo'): \
                 try 'hermes-sup init --help'",
            ),
            (
                &["hermes-sup", "run", "extra"],
                "unexpected argument 'extra' found: try 'hermes-sup run --help'",
            ),
            (
                &["hermes-sup", "run", "--stop-budget", "soon"],
                "invalid value 'soon' for '--stop-budget <DURATION>': use a duration as in 500ms, 30s or 1h30m: \
                 try 'hermes-sup run --help'",
            ),
            (
                &["hermes-sup", "run", "--containment", "jail"],
                "invalid value 'jail' for '--containment <RUNG>' [possible values: auto, cgroup, cgroup-private, pidns, \
                 keeper, keeper-same-uid]: try 'hermes-sup run --help'",
            ),
            (
                &["hermes-sup", "ctl", "stop"],
                "the following required arguments were not provided: <NAME>...: try 'hermes-sup ctl stop --help'",
            ),
            (
                &["hermes-sup", "ctl", "stop", "a", "--all"],
                "the argument '[NAME]...' cannot be used with '--all': try 'hermes-sup ctl stop --help'",
            ),
            (
                &["hermes-sup", "ctl", "wait", "a"],
                "the following required arguments were not provided: <--up|--ready|--down>: \
                 try 'hermes-sup ctl wait --help'",
            ),
            (
                &["hermes-sup", "ctl", "wait", "a", "--up", "--down"],
                "the argument '--up' cannot be used with '--down': try 'hermes-sup ctl wait --help'",
            ),
            (
                &["hermes-sup", "ctl", "register", "a"],
                "the following required arguments were not provided: --profile <DIR>: \
                 try 'hermes-sup ctl register --help'",
            ),
            (
                &["hermes-sup", "ctl", "kill", "a", "BANG"],
                "invalid value 'BANG' for '[SIG]': use a signal as in SIGTERM, TERM or 15: \
                 try 'hermes-sup ctl kill --help'",
            ),
            (
                &["hermes-sup", "ctl", "shutdown", "--code", "256"],
                "invalid value '256' for '--code <N>': 256 is not in 0..=255: \
                 try 'hermes-sup ctl shutdown --help'",
            ),
            (
                &["hermes-sup", "ctl", "restart", "a", "--rolling", "0"],
                "invalid value '0' for '--rolling <N>'",
            ),
        ];
        let mut wrong = Vec::new();
        for (words, text) in table {
            let early = parsed(words).unwrap_err();
            assert_eq!(early.code, Code::Usage, "{words:?}");
            assert!(!early.text.contains('\n'), "{:?}", early.text);
            if !early.text.starts_with(text) {
                wrong.push(format!("{words:?}:\n  {}\n  {text}", early.text));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn help_and_version_are_no_mistakes() {
        for (words, text) in [
            (&["hermes-sup", "--version"][..], concat!("hermes-sup ", env!("CARGO_PKG_VERSION"), "\n")),
            (&["hermes-sup", "--help"], "Keeps gateways running as their owner wants"),
            (&["hermes-sup", "ctl", "stop", "--help"], "Want down, and wait until every process is gone"),
        ] {
            let early = parsed(words).unwrap_err();
            assert_eq!(early.code, Code::Done);
            assert!(early.text.starts_with(text), "{}", early.text);
        }
    }

    #[test]
    fn clap_finds_no_fault_in_the_definitions() {
        parser().debug_assert();
    }
}
