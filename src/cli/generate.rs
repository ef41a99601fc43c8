//! Completions, made from the command definitions, and the schema of a definition.

use super::args::{Early, parser};
use crate::control::protocol::Code;
use crate::definition::reference;
use clap_complete::env::Shells;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// The environment variable with the name of the shell that asks for completions.
pub const COMPLETE: &str = "_HERMES_SUP_COMPLETE";

/// The completion script of `shell`. It asks this program at each completion ([`complete`]), which knows the services.
///
/// # Errors
/// [`Early`] for a shell without one.
pub fn completions(shell: clap_complete::Shell) -> Result<Vec<u8>, Early> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells
        .completer(&shell.to_string())
        .ok_or_else(|| Early { code: Code::Usage, text: format!("there are no completions for {shell}") })?;
    let name = "hermes-sup";
    failed(completer.write_registration(COMPLETE, name, name, name, &mut script))?;
    Ok(script)
}

/// What the last word of `argv` may become, for the shell named by [`COMPLETE`]. `argv` is what the script gives: this
/// program, `--`, then the words typed.
///
/// # Errors
/// [`Early`] for a shell that is not known.
pub fn complete(shell: &OsStr, argv: &[OsString]) -> Result<Vec<u8>, Early> {
    let shells = Shells::builtins();
    let name = Path::new(shell).file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let completer = shells.completer(name).ok_or_else(|| Early {
        code: Code::Usage,
        text: format!("{COMPLETE} does not name a shell: use a script that 'hermes-sup completions' prints"),
    })?;
    let words: Vec<OsString> = argv.iter().skip_while(|word| *word != "--").skip(1).cloned().collect();
    let mut text = Vec::new();
    failed(completer.write_complete(
        &mut parser_of(&words),
        words,
        std::env::current_dir().ok().as_deref(),
        &mut text,
    ))?;
    Ok(text)
}

/// What reads these words. Of a command that they do not name it has the name alone: a press of Tab would wait for the rest.
fn parser_of(words: &[OsString]) -> clap::Command {
    let names = |command: &clap::Command, word: &OsString| {
        word == command.get_name() || command.get_all_aliases().any(|alias| word == alias)
    };
    let cut = |command: clap::Command| match words.iter().any(|word| names(&command, word)) {
        true => command,
        false => command.defer(|bare| bare),
    };
    // Its usage makes a command's own part, and none of its subcommands'.
    let mut all = parser();
    all.render_usage();
    all.mut_subcommands(|command| {
        let mut command = cut(command);
        command.render_usage();
        command.mut_subcommands(cut)
    })
}

fn failed(written: io::Result<()>) -> Result<(), Early> {
    written.map_err(|error| Early { code: Code::Failed, text: error.to_string() })
}

/// The JSON schema of a definition.
///
/// # Errors
/// None that is known: [`Early`] if it could not be written.
pub fn schema() -> Result<Vec<u8>, Early> {
    let mut text = Vec::new();
    failed(serde_json::to_writer_pretty(&mut text, &reference::schema()).map_err(io::Error::from))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::definition;
    use clap::ValueEnum;

    /// All arguments of all commands were made at each Tab: that took three times as long as `status`.
    #[test]
    fn of_commands_that_are_not_named_no_part_is_made() {
        let words = ["hermes-sup", "ctl", "stop", "my"].map(OsString::from);
        let mut cut = parser_of(&words);
        cut.build();
        let arguments = |all: &clap::Command, path: &[&str]| -> Vec<String> {
            let command = path.iter().fold(all, |command, name| command.find_subcommand(name).unwrap());
            command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
        };
        let whole = definition();
        for path in [&[][..], &["ctl"], &["ctl", "stop"]] {
            assert_eq!(arguments(&cut, path), arguments(&whole, path), "{path:?}");
        }
        assert_eq!(arguments(&cut, &["run"]), ["help", "version"]);
        assert!(!arguments(&cut, &["ctl", "logs"]).contains(&"names".to_owned()));
        assert!(arguments(&whole, &["ctl", "logs"]).contains(&"names".to_owned()));
    }

    #[test]
    fn every_shell_gets_completions_that_know_the_verbs() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(completions(*shell).unwrap()).unwrap();
            assert!(script.contains("hermes-sup") && script.contains(COMPLETE), "{shell}");
        }
        let words = ["hermes-sup", "--", "hermes-sup", "ctl", "unre"].map(OsString::from);
        let answer = complete(OsStr::new("fish"), &words).unwrap();
        assert!(String::from_utf8(answer).unwrap().starts_with("unregister"));
        assert_eq!(complete(OsStr::new("tcsh"), &words).unwrap_err().code, Code::Usage);
    }
}
