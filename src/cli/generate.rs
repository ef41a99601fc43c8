//! Completions and manual pages, made from the command definitions.

use super::args::{Early, definition};
use crate::control::protocol::Code;
use std::io;

/// The completion script of `shell`.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "hermes-sup", &mut script);
    script
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
    let written: io::Result<()> = page.render(&mut roff);
    written.map(|()| roff).map_err(|error| Early { code: Code::Failed, text: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_gets_completions_that_know_the_verbs() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            assert!(script.contains("hermes-sup") && script.contains("unregister"), "{shell}");
        }
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
