//! The options of `init` and `run`, and what they mean once the environment and the defaults have had their say.
//!
//! The environment comes in through a function, and an empty variable counts as none: compose files like to set those.

use super::args::Early;
use crate::control::client::Search;
use crate::core::fleet::ParallelStarts;
use crate::core::words::{LogFormat, Rung};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The value of an environment variable.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The options of `init` and `run`, with environment and defaults applied. All paths are absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub home: PathBuf,
    pub services: Vec<PathBuf>,
    pub state: PathBuf,
    /// Absent: the first of `/run/hermes-sup` and the state directory that can be written.
    pub socket: Option<PathBuf>,
    /// Absent: the highest rung that works.
    pub containment: Option<Rung>,
    /// Controllers are to be enabled where they can be.
    pub controllers: bool,
    /// Gateways may run here.
    pub gateways: bool,
    /// Absent: `hermes` if it exists, else our own.
    pub gateway_user: Option<String>,
    pub main_user: Option<String>,
    pub stop_budget: Duration,
    pub s6_surface: bool,
    pub public_status: bool,
    /// Absent: nothing is served over HTTP.
    pub metrics: Option<SocketAddr>,
    pub demo: bool,
    pub parallel_starts: ParallelStarts,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub log_prefix: bool,
}

impl Settings {
    /// Where a client of these settings looks for the supervisor.
    pub fn search(&self) -> Search {
        Search { explicit: self.socket.clone(), state: self.state.clone() }
    }

    /// `demo`: only `run` has it.
    ///
    /// # Errors
    /// [`Early`] with one line about a variable or a choice that is not supported yet.
    pub(super) fn new(options: Options, demo: bool, env: &Env<'_>) -> Result<Self, Early> {
        let home = home(options.home, env);
        let services =
            if options.services.is_empty() { paths("HERMES_SUP_SERVICES", env) } else { options.services };
        let containment =
            choice(options.containment, "HERMES_SUP_CONTAINMENT", env)?.and_then(|RungChoice(rung)| rung);
        let stop_budget = match (options.stop_budget, text("HERMES_SUP_STOP_BUDGET", env)?) {
            (Some(budget), _) => budget,
            (None, Some(text)) => parse_duration(&text)
                .map_err(|why| invalid("HERMES_SUP_STOP_BUDGET", &text, &why.to_string()))?,
            (None, None) => Duration::from_secs(9),
        };
        let controllers = choice(options.controllers, "HERMES_SUP_CONTROLLERS", env)?;
        let gateways = choice(options.gateways, "HERMES_SUP_GATEWAYS", env)?;
        Ok(Self {
            services: if services.is_empty() {
                vec!["/etc/hermes-sup/services".into(), home.join("services")]
            } else {
                services.iter().map(|dir| absolute(dir)).collect()
            },
            state: state(options.state, &home, env),
            home,
            socket: options.socket.or_else(|| path("HERMES_SUP_SOCKET", env)).map(|path| absolute(&path)),
            containment,
            controllers: controllers.unwrap_or(Controllers::Auto) == Controllers::Auto,
            gateways: gateways.unwrap_or(Gateways::On) == Gateways::On,
            gateway_user: or_env(options.gateway_user, "HERMES_SUP_GATEWAY_USER", env)?,
            main_user: or_env(options.main_user, "HERMES_SUP_MAIN_USER", env)?,
            stop_budget,
            s6_surface: options.s6_surface || flag("HERMES_SUP_S6_SURFACE", env)?,
            public_status: options.public_status || flag("HERMES_SUP_PUBLIC_STATUS", env)?,
            metrics: match (options.metrics, text("HERMES_SUP_METRICS", env)?) {
                (Some(address), _) => Some(address),
                (None, Some(text)) => {
                    let invalid = |why: NoAddress| invalid("HERMES_SUP_METRICS", &text, &why.to_string());
                    Some(parse_address(&text).map_err(invalid)?)
                }
                (None, None) => None,
            },
            demo,
            parallel_starts: match (options.parallel_starts, text("HERMES_SUP_PARALLEL_STARTS", env)?) {
                (Some(starts), _) => starts,
                (None, Some(text)) => parse_starts(&text)
                    .map_err(|why| invalid("HERMES_SUP_PARALLEL_STARTS", &text, &why.to_string()))?,
                (None, None) => ParallelStarts::Any,
            },
            log_level: choice(options.log_level, "HERMES_SUP_LOG_LEVEL", env)?.unwrap_or(LogLevel::Info),
            log_format: choice(options.log_format, "HERMES_SUP_LOG_FORMAT", env)?.unwrap_or(LogFormat::Text),
            log_prefix: options.log_prefix || flag("HERMES_SUP_LOG_PREFIX", env)?,
        })
    }
}

/// A rung, or `auto` for the highest one that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RungChoice(Option<Rung>);

impl ValueEnum for RungChoice {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [RungChoice; 6] = [
            RungChoice(None),
            RungChoice(Some(Rung::Cgroup)),
            RungChoice(Some(Rung::CgroupPrivate)),
            RungChoice(Some(Rung::Pidns)),
            RungChoice(Some(Rung::Keeper)),
            RungChoice(Some(Rung::KeeperSameUid)),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.map_or("auto", Rung::as_str)))
    }
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Controllers {
    Auto,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Gateways {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
}

/// Each is also an environment variable, `HERMES_SUP_` and its name.
#[derive(Debug, Default, Args)]
pub(super) struct Options {
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
    containment: Option<RungChoice>,
    /// Whether to enable the memory, pids, cpu and io controllers [default: auto]
    #[arg(long)]
    controllers: Option<Controllers>,
    /// Whether Hermes gateways may run here [default: on]
    #[arg(long)]
    gateways: Option<Gateways>,
    /// The user of gateways [default: hermes if it exists, else our own]
    #[arg(long, value_name = "USER")]
    gateway_user: Option<String>,
    /// The user of the main program [default: unchanged]
    #[arg(long, value_name = "USER")]
    main_user: Option<String>,
    /// How long a shutdown may take altogether [default: 9s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_budget: Option<Duration>,
    /// Serve the tools of s6, and images that were made for s6-overlay
    #[arg(long)]
    s6_surface: bool,
    /// Let every user read the status
    #[arg(long)]
    public_status: bool,
    /// Serve /metrics, /healthz and /readyz over HTTP, as in 127.0.0.1:9633; ':9633' is every address
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    metrics: Option<SocketAddr>,
    /// How many services may start at a time, of those that a boot or a command for all starts; auto: as many as the
    /// machine takes [default: any number]
    #[arg(long, value_name = "N|auto", value_parser = parse_starts)]
    parallel_starts: Option<ParallelStarts>,
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Put the name of the service before each of its lines in the container's log
    #[arg(long)]
    log_prefix: bool,
}

/// Where a client looks, without the rest of the settings: a mistake in one of those is the supervisor's matter.
pub fn search(socket: Option<PathBuf>, env: &Env<'_>) -> Search {
    let explicit = socket.or_else(|| path("HERMES_SUP_SOCKET", env)).map(|path| absolute(&path));
    let home = home(None, env);
    // `hermes -p NAME` makes the profile's home that of all it runs; the supervisor's own is the one that it lies in.
    let home = match root_of_profile(&home) {
        Some(root) if !state(None, &home, env).exists() => root,
        Some(_) | None => &home,
    };
    Search { explicit, state: state(None, home, env) }
}

/// The home that `home` is a profile of, by its path.
fn root_of_profile(home: &Path) -> Option<&Path> {
    let profiles = home.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "profiles"))?;
    profiles.parent()
}

fn state(option: Option<PathBuf>, home: &Path, env: &Env<'_>) -> PathBuf {
    let found = option.or_else(|| path("HERMES_SUP_STATE", env));
    found.map_or_else(|| home.join("supervisor"), |dir| absolute(&dir))
}

fn home(option: Option<PathBuf>, env: &Env<'_>) -> PathBuf {
    let found = option.or_else(|| path("HERMES_SUP_HOME", env)).or_else(|| path("HERMES_HOME", env));
    found.map_or_else(|| "/opt/data".into(), |dir| absolute(&dir))
}

/// Without a look at the disk. A relative path stays so only where there is no working directory any more.
pub(super) fn absolute(path: &Path) -> PathBuf {
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

pub(super) fn flag(variable: &str, env: &Env<'_>) -> Result<bool, Early> {
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

#[derive(Debug, thiserror::Error)]
#[error("use an address and a port as in 127.0.0.1:9633 or [::1]:9633, or ':9633' for every address")]
struct NoAddress;

fn parse_address(text: &str) -> Result<SocketAddr, NoAddress> {
    let every = text.strip_prefix(':').and_then(|port| port.parse().ok());
    let every = every.map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    every.or_else(|| text.parse().ok()).ok_or(NoAddress)
}

#[derive(Debug, thiserror::Error)]
#[error("use a number from 1 on, or 'auto'")]
struct NoStarts;

fn parse_starts(text: &str) -> Result<ParallelStarts, NoStarts> {
    match text.parse() {
        Ok(0) => Err(NoStarts),
        Ok(most) => Ok(ParallelStarts::AtMost(most)),
        Err(_) if text.eq_ignore_ascii_case("auto") => Ok(ParallelStarts::Auto),
        Err(_) => Err(NoStarts),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("use a duration as in 500ms, 30s or 1h30m")]
pub(super) struct NoDuration;

/// `90` (seconds), `500ms`, `1h30m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, NoDuration> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| NoDuration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Code;

    fn with<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    fn defaults() -> Settings {
        Settings {
            home: "/opt/data".into(),
            services: vec!["/etc/hermes-sup/services".into(), "/opt/data/services".into()],
            state: "/opt/data/supervisor".into(),
            socket: None,
            containment: None,
            controllers: true,
            gateways: true,
            gateway_user: None,
            main_user: None,
            stop_budget: Duration::from_secs(9),
            s6_surface: false,
            public_status: false,
            metrics: None,
            demo: false,
            parallel_starts: ParallelStarts::Any,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            log_prefix: false,
        }
    }

    fn resolved(pairs: &[(&str, &str)]) -> Result<Settings, Early> {
        Settings::new(Options::default(), false, &with(pairs))
    }

    #[test]
    fn without_options_and_environment_the_documented_defaults_hold() {
        assert_eq!(resolved(&[]), Ok(defaults()));
    }

    #[test]
    fn an_empty_variable_counts_as_none() {
        let names = [
            "HOME",
            "SERVICES",
            "STATE",
            "SOCKET",
            "CONTAINMENT",
            "CONTROLLERS",
            "GATEWAYS",
            "GATEWAY_USER",
            "MAIN_USER",
            "STOP_BUDGET",
            "S6_SURFACE",
            "PUBLIC_STATUS",
            "PARALLEL_STARTS",
            "LOG_LEVEL",
            "LOG_FORMAT",
            "LOG_PREFIX",
        ];
        let names = names.map(|name| format!("HERMES_SUP_{name}"));
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(resolved(&pairs), Ok(defaults()));
    }

    #[test]
    fn a_client_in_a_profile_looks_in_the_home_that_the_profile_lies_in() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("profiles/coder");
        let found = || search(None, &with(&[("HERMES_HOME", home.to_str().unwrap())])).state;
        assert_eq!(found(), root.path().join("supervisor"));
        // Unless a supervisor has made it its own home.
        std::fs::create_dir_all(home.join("supervisor")).unwrap();
        assert_eq!(found(), home.join("supervisor"));
        assert_eq!(root_of_profile(Path::new("/opt/data/other/coder")), None);
        assert_eq!(root_of_profile(Path::new("/")), None);
    }

    #[test]
    fn each_option_is_also_a_variable() {
        let pairs = [
            ("HERMES_SUP_HOME", "/h"),
            ("HERMES_HOME", "/other"),
            ("HERMES_SUP_SERVICES", "/a::/b"),
            ("HERMES_SUP_STATE", "/s"),
            ("HERMES_SUP_SOCKET", "/x.sock"),
            ("HERMES_SUP_CONTAINMENT", "keeper"),
            ("HERMES_SUP_CONTROLLERS", "none"),
            ("HERMES_SUP_GATEWAYS", "off"),
            ("HERMES_SUP_GATEWAY_USER", "g"),
            ("HERMES_SUP_MAIN_USER", "m"),
            ("HERMES_SUP_STOP_BUDGET", "1m"),
            ("HERMES_SUP_PUBLIC_STATUS", "Yes"),
            ("HERMES_SUP_METRICS", ":9633"),
            ("HERMES_SUP_PARALLEL_STARTS", "auto"),
            ("HERMES_SUP_LOG_LEVEL", "debug"),
            ("HERMES_SUP_LOG_FORMAT", "json"),
            ("HERMES_SUP_LOG_PREFIX", "1"),
        ];
        let expected = Settings {
            home: "/h".into(),
            services: vec!["/a".into(), "/b".into()],
            state: "/s".into(),
            socket: Some("/x.sock".into()),
            containment: Some(Rung::Keeper),
            controllers: false,
            gateways: false,
            gateway_user: Some("g".to_owned()),
            main_user: Some("m".to_owned()),
            stop_budget: Duration::from_secs(60),
            s6_surface: false,
            public_status: true,
            metrics: Some("0.0.0.0:9633".parse().unwrap()),
            demo: false,
            parallel_starts: ParallelStarts::Auto,
            log_level: LogLevel::Debug,
            log_format: LogFormat::Json,
            log_prefix: true,
        };
        assert_eq!(resolved(&pairs), Ok(expected));
    }

    #[test]
    fn an_option_beats_its_variable() {
        let options = Options {
            home: Some("/o".into()),
            services: vec!["/mine".into()],
            stop_budget: Some(Duration::from_secs(1)),
            containment: Some(RungChoice(Some(Rung::Keeper))),
            ..Options::default()
        };
        let pairs = [
            ("HERMES_SUP_HOME", "/h"),
            ("HERMES_SUP_SERVICES", "/a"),
            ("HERMES_SUP_STOP_BUDGET", "5s"),
            ("HERMES_SUP_CONTAINMENT", "cgroup"),
        ];
        let got = Settings::new(options, true, &with(&pairs)).unwrap();
        assert_eq!(got.home, Path::new("/o"));
        assert_eq!(got.services, [Path::new("/mine")]);
        assert_eq!(got.state, Path::new("/o/supervisor"));
        assert_eq!(got.stop_budget, Duration::from_secs(1));
        assert_eq!(got.containment, Some(Rung::Keeper));
        assert!(got.demo);
    }

    #[test]
    fn a_client_looks_where_the_server_of_the_same_environment_listens() {
        for pairs in [
            &[][..],
            &[("HERMES_HOME", "/h")],
            &[("HERMES_HOME", "/h"), ("HERMES_SUP_HOME", "/i"), ("HERMES_SUP_SOCKET", "/x")],
            &[("HERMES_SUP_STATE", "/s"), ("HERMES_SUP_HOME", "/i")],
        ] {
            assert_eq!(search(None, &with(pairs)), resolved(pairs).unwrap().search(), "{pairs:?}");
        }
        let pairs = [("HERMES_SUP_SOCKET", "/x")];
        assert_eq!(search(Some("/y".into()), &with(&pairs)).explicit, Some("/y".into()));
    }

    #[test]
    fn a_bad_value_is_one_line_with_the_variable_in_it() {
        for (variable, value, why) in [
            ("HERMES_SUP_STOP_BUDGET", "soon", "use a duration as in 500ms, 30s or 1h30m"),
            ("HERMES_SUP_PUBLIC_STATUS", "maybe", "use 1 or 0"),
            ("HERMES_SUP_METRICS", "localhost", &NoAddress.to_string()),
            ("HERMES_SUP_PARALLEL_STARTS", "0", "use a number from 1 on, or 'auto'"),
            ("HERMES_SUP_LOG_LEVEL", "loud", "use error, warning, info, debug"),
            ("HERMES_SUP_GATEWAYS", "0", "use on, off"),
            (
                "HERMES_SUP_CONTAINMENT",
                "jail",
                "use auto, cgroup, cgroup-private, pidns, keeper, keeper-same-uid",
            ),
        ] {
            let early = resolved(&[(variable, value)]).unwrap_err();
            let text = format!("invalid value '{value}' in the environment variable {variable}: {why}");
            assert_eq!(early, Early { code: Code::Usage, text });
        }
    }
}
