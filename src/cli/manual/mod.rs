//! Manual pages in roff: of the program and each command, from what clap knows and the tables of `facts`, and of the format of a
//! definition, from its reference.

mod definition;
pub mod facts;

use super::args::{self, Early};
use crate::control::protocol::Code;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use facts::Section;
use std::io;

/// What `man` shows of the format.
pub const DEFINITION: &str = "definition";

/// The page of one command, given as its words, or of a definition; without any, of the program.
///
/// # Errors
/// [`Early`] for words that are neither.
pub fn page(words: &[String]) -> Result<Vec<u8>, Early> {
    let written = match words {
        [word] if word == DEFINITION => {
            let mut roff = Vec::new();
            definition::page().to_writer(&mut roff).map(|()| roff)
        }
        _ => command(words)?,
    };
    written.map_err(|error| Early { code: Code::Failed, text: error.to_string() })
}

fn command(words: &[String]) -> Result<io::Result<Vec<u8>>, Early> {
    let whole = args::definition();
    let mut command = &whole;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| Early {
            code: Code::Usage,
            text: format!("no such command '{}': try 'hermes-sup --help'", words.join(" ")),
        })?;
    }
    Ok(render(command, &words.join(" ")))
}

fn render(command: &clap::Command, words: &str) -> io::Result<Vec<u8>> {
    let title = command.get_display_name().unwrap_or("hermes-sup").to_owned();
    let man = Man::new(command.clone()).title(title).manual("hermes-sup");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    for section in facts::sections(words) {
        entries(&section).to_writer(&mut page)?;
    }
    let examples = facts::examples(words);
    if !examples.is_empty() {
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]);
        for example in examples {
            tagged(&mut roff, example.line, example.what);
        }
        roff.to_writer(&mut page)?;
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}

fn entries(section: &Section) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [section.title]);
    for (tag, what) in &section.entries {
        tagged(&mut roff, tag, what);
    }
    roff
}

/// A paragraph under a bold tag.
fn tagged(roff: &mut Roff, tag: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(tag)]);
    roff.text([roman(what)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> Result<String, Early> {
        page(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
            .map(|roff| String::from_utf8(roff).unwrap())
    }

    #[test]
    fn each_command_has_its_page() {
        assert!(shown(&[]).unwrap().contains(".TH hermes-sup 1"));
        let stop = shown(&["ctl", "stop"]).unwrap();
        assert!(
            stop.contains(".TH hermes-sup-ctl-stop 1") && stop.contains("every process is gone"),
            "{stop}"
        );
        assert_eq!(shown(&["ctl", "halt"]).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn a_page_has_exit_status_environment_files_and_examples() {
        for words in [&[][..], &["init"], &["run"], &["ctl"], &["ctl", "start"]] {
            let page = shown(words).unwrap();
            for title in ["EXIT STATUS", "ENVIRONMENT", "EXAMPLES"] {
                assert!(
                    page.contains(&format!(".SH \"{title}\"")) || page.contains(&format!(".SH {title}")),
                    "{words:?}: {page}"
                );
            }
        }
        assert!(shown(&["init"]).unwrap().contains("HERMES_SUP_STOP_BUDGET"));
        assert!(!shown(&["ctl", "stop"]).unwrap().contains("HERMES_SUP_STOP_BUDGET"));
    }

    #[test]
    fn the_page_of_a_definition_has_every_key() {
        let page = shown(&[DEFINITION]).unwrap();
        assert!(page.contains(".TH hermes-sup-definition 5"), "{page}");
        use crate::definition::reference::{KEYS, Type};
        for key in KEYS.iter().filter(|key| !matches!(key.kind, Type::Table)) {
            assert!(page.contains(&format!("\\fB{}\\fR", key.name())), "{}", key.path);
        }
    }
}
