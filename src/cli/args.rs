//! What was typed. `Cli` and its parts are what clap reads, validated only (man page and completions come from them);
//! [`Command`] is what it means once the environment and the defaults have had their say.
//!
//! The environment comes in through a function and an empty variable counts as none: compose files like to set those.

use super::logs::{LogQuery, Since, Stream};
use crate::control::client::Search;
use crate::control::protocol::{Code, Program, Registration, Request, SignalName, Targets, Until};
use crate::core::signal::Signal;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The value of an environment variable.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

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
    Completions(clap_complete::Shell),
    /// Of which subcommand; empty for the program itself.
    Man(Vec<String>),
}

/// The options of `init` and `run`, with environment and defaults applied. All paths are absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub home: PathBuf,
    pub services: Vec<PathBuf>,
    pub state: PathBuf,
    /// Absent: the first of `/run/hermes-sup` and the state directory that can be written.
    pub socket: Option<PathBuf>,
    pub containment: Containment,
    /// Controllers are to be enabled where they can be.
    pub controllers: bool,
    /// Absent: `hermes` if it exists, else our own.
    pub gateway_user: Option<String>,
    pub main_user: Option<String>,
    pub stop_budget: Duration,
    pub public_status: bool,
    pub demo: bool,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
}

impl Settings {
    /// Where a client of these settings looks for the supervisor.
    pub fn search(&self) -> Search {
        Search { explicit: self.socket.clone(), state: self.state.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Containment {
    Auto,
    Cgroup,
    CgroupPrivate,
    Pidns,
    Keeper,
    KeeperSameUid,
}

impl Containment {
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cgroup => "cgroup",
            Self::CgroupPrivate => "cgroup-private",
            Self::Pidns => "pidns",
            Self::Keeper => "keeper",
            Self::KeeperSameUid => "keeper-same-uid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Controllers {
    Auto,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
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
    fn usage(text: impl Into<String>) -> Self {
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
    /// What this kernel and container allow, and what would allow more
    Doctor,
    /// Print the completions of a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page of the program or of one command, as in 'man ctl stop'
    Man {
        #[arg(value_name = "COMMAND")]
        command: Vec<String>,
    },
}

/// Each is also an environment variable, `HERMES_SUP_` and its name.
#[derive(Debug, Default, Args)]
struct Options {
    /// The data volume [env: HERMES_SUP_HOME, HERMES_HOME] [default: /opt/data]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Where definitions are; repeatable [default: /etc/hermes-sup/services, then HOME/services]
    #[arg(long, value_name = "DIR")]
    services: Vec<PathBuf>,
    /// Where wants are kept [default: HOME/supervisor]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The control socket [default: /run/hermes-sup/control.sock, else STATE/control.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How trees are held [default: auto]
    #[arg(long, value_name = "RUNG")]
    containment: Option<Containment>,
    /// Whether to enable the memory, pids, cpu and io controllers [default: auto]
    #[arg(long)]
    controllers: Option<Controllers>,
    /// The user of gateways [default: hermes if it exists, else our own]
    #[arg(long, value_name = "USER")]
    gateway_user: Option<String>,
    /// The user of the main program [default: unchanged]
    #[arg(long, value_name = "USER")]
    main_user: Option<String>,
    /// How long a shutdown may take altogether [default: 9s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_budget: Option<Duration>,
    /// Serve the tools of s6 (not supported yet)
    #[arg(long)]
    s6_surface: bool,
    /// Let every user read the status
    #[arg(long)]
    public_status: bool,
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Named {
    /// Names of services
    #[arg(value_name = "NAME", required_unless_present = "all")]
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
    /// Run now, without restart; want stays down
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
        #[arg(value_name = "NAME")]
        names: Vec<String>,
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
        name: String,
        #[arg(default_value = "SIGTERM", value_name = "SIG", value_parser = parse_signal)]
        signal: Signal,
        /// To every process of the tree
        #[arg(long)]
        tree: bool,
    },
    /// Show what services wrote
    Logs {
        #[command(flatten)]
        named: Named,
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
        /// The last N lines of each
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
        /// From then on: how long ago, as in 10m, or a time in UTC
        #[arg(long, value_name = "T", value_parser = Since::parse)]
        since: Option<Since>,
        /// One stream only
        #[arg(long)]
        stream: Option<Stream>,
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
            Self::Status { names } if names.is_empty() => Request::Status { targets: Targets::All },
            Self::Status { names } => Request::Status { targets: Targets::Names(names.clone()) },
            Self::List => Request::List {},
            Self::Register { name, user, env, down, profile, argv } => Request::Register(Registration {
                name: name.clone(),
                user: user.clone(),
                env: env.iter().cloned().collect::<BTreeMap<_, _>>(),
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
            Self::Logs { named, .. } => Request::LogPlaces { targets: named.targets() },
            Self::Wait { named, until, timeout } => {
                Request::Wait { targets: named.targets(), until: until.until(), timeout_ms: millis(timeout) }
            }
            Self::Reload { restart } => Request::Reload { restart: *restart },
            Self::Shutdown { code } => Request::Shutdown { code: *code },
        }
    }

    /// Which lines `logs` wants; `None` for any other verb.
    pub fn log_query(&self, now: SystemTime) -> Option<LogQuery> {
        match self {
            Self::Logs { named: _, follow, lines, since, stream } => Some(LogQuery {
                last: *lines,
                since: since.map(|since| since.moment(now)),
                stream: *stream,
                follow: *follow,
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
        let settings = settings(Options::default(), false, env)?;
        return Ok(Command::Init { settings, command: argv[1..].to_vec() });
    }
    // Messages name the program as it is called in documents, not by the path it was started with.
    let arguments = std::iter::once(OsString::from("hermes-sup")).chain(argv.iter().skip(1).cloned());
    let Cli { command } = Cli::try_parse_from(arguments).map_err(early)?;
    Ok(match command {
        Typed::Init { options, command } => {
            Command::Init { settings: settings(options, false, env)?, command }
        }
        Typed::Run { options, demo } => {
            let demo = demo || flag("HERMES_SUP_DEMO", env)?;
            Command::Run(settings(options, demo, env)?)
        }
        Typed::Ctl { socket, json, verb } => {
            let state = |home: PathBuf| {
                path("HERMES_SUP_STATE", env).map_or_else(|| home.join("supervisor"), |dir| absolute(&dir))
            };
            let explicit = socket.or_else(|| path("HERMES_SUP_SOCKET", env)).map(|path| absolute(&path));
            Command::Ctl(Ctl { search: Search { explicit, state: state(home(None, env)) }, json, verb })
        }
        Typed::Check { paths } => {
            Command::Check { paths, settings: settings(Options::default(), false, env)? }
        }
        Typed::Doctor => Command::Doctor(settings(Options::default(), false, env)?),
        Typed::Completions { shell } => Command::Completions(shell),
        Typed::Man { command } => Command::Man(command),
    })
}

/// The definition of all commands, for completions and manual pages.
pub fn definition() -> clap::Command {
    Cli::command()
}

fn settings(options: Options, demo: bool, env: &Env<'_>) -> Result<Settings, Early> {
    let home = home(options.home, env);
    let services =
        if options.services.is_empty() { paths("HERMES_SUP_SERVICES", env) } else { options.services };
    let containment =
        choice(options.containment, "HERMES_SUP_CONTAINMENT", env)?.unwrap_or(Containment::Auto);
    if matches!(containment, Containment::CgroupPrivate | Containment::Pidns) {
        return Err(Early::usage(format!(
            "containment {} is not supported yet: use auto",
            containment.word()
        )));
    }
    if options.s6_surface || flag("HERMES_SUP_S6_SURFACE", env)? {
        return Err(Early::usage("--s6-surface is not supported yet: leave it out"));
    }
    let stop_budget = match (options.stop_budget, text("HERMES_SUP_STOP_BUDGET", env)?) {
        (Some(budget), _) => budget,
        (None, Some(text)) => {
            parse_duration(&text).map_err(|why| invalid("HERMES_SUP_STOP_BUDGET", &text, &why))?
        }
        (None, None) => Duration::from_secs(9),
    };
    let controllers = choice(options.controllers, "HERMES_SUP_CONTROLLERS", env)?;
    Ok(Settings {
        services: if services.is_empty() {
            vec!["/etc/hermes-sup/services".into(), home.join("services")]
        } else {
            services.iter().map(|dir| absolute(dir)).collect()
        },
        state: options
            .state
            .or_else(|| path("HERMES_SUP_STATE", env))
            .map_or_else(|| home.join("supervisor"), |dir| absolute(&dir)),
        home,
        socket: options.socket.or_else(|| path("HERMES_SUP_SOCKET", env)).map(|path| absolute(&path)),
        containment,
        controllers: controllers.unwrap_or(Controllers::Auto) == Controllers::Auto,
        gateway_user: or_env(options.gateway_user, "HERMES_SUP_GATEWAY_USER", env)?,
        main_user: or_env(options.main_user, "HERMES_SUP_MAIN_USER", env)?,
        stop_budget,
        public_status: options.public_status || flag("HERMES_SUP_PUBLIC_STATUS", env)?,
        demo,
        log_level: choice(options.log_level, "HERMES_SUP_LOG_LEVEL", env)?.unwrap_or(LogLevel::Info),
        log_format: choice(options.log_format, "HERMES_SUP_LOG_FORMAT", env)?.unwrap_or(LogFormat::Text),
    })
}

fn home(option: Option<PathBuf>, env: &Env<'_>) -> PathBuf {
    let found = option.or_else(|| path("HERMES_SUP_HOME", env)).or_else(|| path("HERMES_HOME", env));
    found.map_or_else(|| "/opt/data".into(), |dir| absolute(&dir))
}

/// Without a look at the disk. A relative path stays so only where there is no working directory any more.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn path(variable: &str, env: &Env<'_>) -> Option<PathBuf> {
    env(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Colon-separated.
fn paths(variable: &str, env: &Env<'_>) -> Vec<PathBuf> {
    let list = env(variable).unwrap_or_default();
    std::env::split_paths(&list).filter(|dir| !dir.as_os_str().is_empty()).collect()
}

fn text(variable: &str, env: &Env<'_>) -> Result<Option<String>, Early> {
    match env(variable).filter(|value| !value.is_empty()).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(raw)) => Err(invalid(variable, &raw.to_string_lossy(), "it is not UTF-8")),
    }
}

fn or_env(option: Option<String>, variable: &str, env: &Env<'_>) -> Result<Option<String>, Early> {
    if option.is_some() { Ok(option) } else { text(variable, env) }
}

fn choice<T: ValueEnum>(option: Option<T>, variable: &str, env: &Env<'_>) -> Result<Option<T>, Early> {
    match (option, text(variable, env)?) {
        (Some(chosen), _) => Ok(Some(chosen)),
        (None, None) => Ok(None),
        (None, Some(text)) => T::from_str(&text, true).map(Some).map_err(|_| {
            let names: Vec<_> =
                T::value_variants().iter().filter_map(|value| value.to_possible_value()).collect();
            let names: Vec<_> = names.iter().map(|value| value.get_name()).collect();
            invalid(variable, &text, &format!("use {}", names.join(", ")))
        }),
    }
}

fn flag(variable: &str, env: &Env<'_>) -> Result<bool, Early> {
    let value = text(variable, env)?.unwrap_or_default();
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(invalid(variable, &value, "use 1 or 0")),
    }
}

fn invalid(variable: &str, value: &str, why: &str) -> Early {
    Early::usage(format!("invalid value '{value}' in the environment variable {variable}: {why}"))
}

/// `90` (seconds), `1.5s` is not one, `500ms`, `1h30m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => {
            humantime::parse_duration(text).map_err(|_| "use a duration as in 500ms, 30s or 1h30m".to_owned())
        }
    }
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    Signal::parse(text).ok_or_else(|| "use a signal as in SIGTERM, TERM or 15".to_owned())
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("use NAME=VALUE".to_owned()),
    }
}

/// clap's message of several paragraphs as one line, with where to read more.
fn early(error: clap::Error) -> Early {
    use clap::error::ErrorKind;
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Early { code: Code::Done, text },
        _ => {}
    }
    let mut usage = text.lines().filter_map(|line| line.trim_start().strip_prefix("Usage: "));
    let called: Vec<&str> = usage
        .next()
        .unwrap_or("hermes-sup")
        .split(' ')
        .take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect();
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
