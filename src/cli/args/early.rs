//! Why nothing is to be done: help or the version was asked for, or the command line is wrong.

use super::definition;
use crate::cli::manual::facts;
use crate::cli::render::Console;
use crate::control::protocol::Code;
use clap::error::ErrorKind;
use std::ffi::OsString;

/// Why there is no [`super::Command`]: help was asked for (code 0, for the output), or it was a mistake (code 2, one line).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early {
    pub code: Code,
    pub text: String,
}

impl Early {
    pub(in crate::cli) fn usage(text: impl Into<String>) -> Self {
        Self { code: Code::Usage, text: text.into() }
    }

    /// Help goes to the output, a mistake to the error stream.
    pub fn show(&self, console: &mut Console<'_>) -> Code {
        match self.code {
            Code::Done => console.show(&self.text),
            _ => console.error(&self.text),
        }
        self.code
    }
}

/// clap's message of several paragraphs as one line, with where to read more.
pub(super) fn early(error: &clap::Error, arguments: &[OsString]) -> Early {
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
