//! How the supervisor was called, and what it was told.

use crate::containment::Rung;
use crate::core::fleet::ParallelStarts;
use crate::core::words::LogFormat;
use crate::daemon::{Gateways, main_program};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the supervisor was told. Paths are absolute.
#[derive(Debug, Clone)]
pub struct Options {
    pub home: PathBuf,
    pub services: Vec<PathBuf>,
    pub state: PathBuf,
    /// `None`: the first of `/run/hermes-sup` and the state directory that can be written.
    pub socket: Option<PathBuf>,
    /// `None`: the highest rung that works.
    pub rung: Option<Rung>,
    pub controllers: bool,
    /// `Asked` is ours to find out, from the command.
    pub gateways: Gateways,
    pub gateway_user: Option<String>,
    pub main_user: Option<String>,
    /// For a shutdown altogether.
    pub stop_budget: Duration,
    /// Looks like s6 to an image that was made for it.
    pub s6_surface: bool,
    pub public_status: bool,
    /// Where metrics are served over HTTP.
    pub metrics: Option<SocketAddr>,
    pub demo: bool,
    /// How many services may start at a time.
    pub parallel_starts: ParallelStarts,
    /// What services and main program get; the image's preparation may add to it.
    pub environment: BTreeMap<OsString, OsString>,
    pub log_level: slog::Level,
    pub log_format: LogFormat,
    /// Service lines have their service's name in front in the container's stream, where no definition says otherwise.
    pub log_prefix: bool,
}

impl Options {
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        self.environment.get(OsStr::new(name)).cloned()
    }

    /// Whether the name is that of a program on PATH.
    pub(super) fn executable(&self, program: &OsStr) -> bool {
        main_program::executable(program, self.environment.get(OsStr::new("PATH")).map(OsString::as_os_str))
    }
}

/// How the supervisor was called.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Without a main program.
    Run,
    /// As an init: `command` is the container's CMD, and may be empty.
    Init { command: Vec<OsString> },
}
