//! The program's subcommands as clap reads them, each with its options. Man page and completions are made of them.

use super::verb::{Asked, Verb};
use crate::cli::candidates;
use crate::cli::settings::Options;
use clap::{Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use std::ffi::OsString;
use std::path::PathBuf;

/// Keeps gateways running as their owner wants, and stops each with every process it ever started.
#[derive(Debug, Parser)]
#[command(name = "hermes-sup", version, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Typed,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum Typed {
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
