//! `ctl` as clap reads it: a verb, its names and its options. Man page and completions are made of it. What a verb asks the
//! supervisor for is in `request.rs`.

use super::values::{parse_assignment, parse_limit, parse_signal};
use crate::cli::candidates;
use crate::cli::logs::When;
use crate::cli::settings::parse_duration;
use crate::core::signal::Signal;
use crate::core::words::Stream;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use std::path::PathBuf;
use std::time::Duration;

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

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Named {
    /// Names of services, or patterns as in 'worker-*'
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCompleter::new(candidates::services))]
    pub names: Vec<String>,
    /// All services
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
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
    pub(super) up: bool,
    #[arg(long)]
    pub(super) ready: bool,
    /// Without a process
    #[arg(long)]
    pub(super) down: bool,
}
