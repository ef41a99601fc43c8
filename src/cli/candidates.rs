//! What a shell may complete a word to, where the command line's own definition does not know: the names of the services that
//! there are now, signals, limits, commands.
//!
//! A user who presses Tab waits for it: a supervisor that does not answer at once has no names, and nothing is an error.

use super::{manual, settings};
use crate::control::client::Client;
use crate::control::protocol::{Part, Request};
use crate::core::limits::Key;
use clap_complete::CompletionCandidate;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);

/// The services of the supervisor that `--socket`, the environment or the default places lead to.
pub(super) fn services(begun: &OsStr) -> Vec<CompletionCandidate> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let search = settings::search(socket(&words), &|name| std::env::var_os(name));
    let mut names = Vec::new();
    // Without an answer there are none.
    let _ = Client::connect(&search).and_then(|mut client| {
        client.call(&Request::List {}, Some(PATIENCE), |part| {
            if let Part::Name(name) = part {
                names.push(name);
            }
        })
    });
    beginning_with(begun, names)
}

/// What was typed for `--socket`.
fn socket(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let word = word.to_str().unwrap_or_default();
        if word == "--socket" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.strip_prefix("--socket=") {
            return Some(path.into());
        }
    }
    None
}

pub(super) fn signals(begun: &OsStr) -> Vec<CompletionCandidate> {
    let usual =
        ["SIGTERM", "SIGKILL", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGSTOP", "SIGCONT"];
    beginning_with(begun, usual.map(str::to_owned))
}

pub(super) fn limits(begun: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(begun, Key::ALL.map(|key| format!("{}=", key.as_str())))
}

/// Of `man`: the commands, the verbs of `ctl`, and the format of definitions.
pub(super) fn commands(begun: &OsStr) -> Vec<CompletionCandidate> {
    let definition = super::args::definition();
    let verbs = definition.find_subcommand("ctl").into_iter().flat_map(clap::Command::get_subcommands);
    let names = definition.get_subcommands().chain(verbs).map(|command| command.get_name().to_owned());
    beginning_with(begun, names.chain([manual::DEFINITION.to_owned()]).collect::<Vec<_>>())
}

fn beginning_with(begun: &OsStr, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let begun = begun.to_str().unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with(begun)).map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_that_was_typed_is_asked() {
        let socket = |words: &[&str]| socket(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(socket(&["ctl", "--socket", "/s", "stop"]), Some("/s".into()));
        assert_eq!(socket(&["ctl", "stop", "--socket=/s"]), Some("/s".into()));
        assert_eq!(socket(&["ctl", "stop", "--socket"]), None);
    }

    #[test]
    fn only_what_begins_as_typed_is_offered() {
        let shown = |found: Vec<CompletionCandidate>| -> Vec<String> {
            found.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(shown(signals(OsStr::new("SIGU"))), ["SIGUSR1", "SIGUSR2"]);
        assert_eq!(shown(limits(OsStr::new("memory_m"))), ["memory_max="]);
        assert!(shown(commands(OsStr::new("st"))).contains(&"stop".to_owned()));
    }
}
