//! Completions and manual pages, made from the command definitions.

use super::args::{Early, definition};
use crate::control::protocol::Code;
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
        &mut definition(),
        words,
        std::env::current_dir().ok().as_deref(),
        &mut text,
    ))?;
    Ok(text)
}

fn failed(written: io::Result<()>) -> Result<(), Early> {
    written.map_err(|error| Early { code: Code::Failed, text: error.to_string() })
}

/// The manual page (roff) of one command, given as its words; without any, of the program.
///
/// # Errors
/// [`Early`] for words that are no command.
pub fn man(words: &[String]) -> Result<Vec<u8>, Early> {
    let mut whole = definition().disable_help_subcommand(true);
    whole.build();
    let mut command = &whole;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| Early {
            code: Code::Usage,
            text: format!("no such command '{}': try 'hermes-sup --help'", words.join(" ")),
        })?;
    }
    let title = command.get_display_name().unwrap_or("hermes-sup").to_owned();
    let page = clap_mangen::Man::new(command.clone()).title(title);
    let mut roff = Vec::new();
    failed(page.render(&mut roff))?;
    Ok(roff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

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

    #[test]
    fn each_command_has_its_page() {
        let page = |words: &[&str]| {
            man(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
                .map(|roff| String::from_utf8(roff).unwrap())
        };
        assert!(page(&[]).unwrap().contains(".TH hermes-sup 1"));
        let stop = page(&["ctl", "stop"]).unwrap();
        assert!(
            stop.contains(".TH hermes-sup-ctl-stop 1") && stop.contains("every process is gone"),
            "{stop}"
        );
        assert_eq!(page(&["ctl", "halt"]).unwrap_err().code, Code::Usage);
    }
}
