//! What was typed: from the words of the command line to a [`Command`].
//!
//! clap reads and validates the words: `subcommands.rs` has the subcommands, `verb.rs` the verbs of `ctl`, `values.rs` the values
//! that are ours to read. [`Command`] is what they mean, with [`Settings`] resolved. `request.rs` has what a verb asks the
//! supervisor for, `early.rs` why there is no command.

mod early;
mod request;
mod subcommands;
#[cfg(test)]
mod tests;
mod values;
mod verb;

use super::plain::{self, Plain};
use super::settings::{self, Env, Options, Settings};
use crate::control::client::Search;
use clap::{CommandFactory, Parser};
pub use early::Early;
use early::early;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use subcommands::{Cli, Typed};
pub use verb::{Asked, Named, Verb};

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
    if let Some(Plain { socket, json, verb }) = plain::command(words) {
        return Ok(Command::Ctl(Ctl { search: settings::search(socket, env), json, verb }));
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
