//! The manual page of a definition, section 5.

use super::tagged;
use crate::definition::reference::{Default, KEYS, Key, SECTIONS, Type};
use clap_mangen::roff::{Roff, bold, roman};

pub(super) fn page() -> Roff {
    let mut roff = Roff::new();
    let source = concat!("hermes-sup ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["hermes-sup-definition", "5", "", source, "hermes-sup"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("hermes-sup-definition - what a service is, in TOML")]);
    roff.control("SH", ["SYNOPSIS"]);
    for place in ["/etc/hermes-sup/services/NAME.toml", "HOME/services/NAME.toml"] {
        roff.text([bold(place)]);
        roff.control("br", []);
    }
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "One file for each service, whose name is the file's. Durations are numbers with units, as in \"100ms\", \"10s\" or \
         \"1m30s\"; sizes are as in \"1MB\" (10^6 bytes) or \"512M\" (2^20), or whole numbers of bytes. A key that is not listed \
         here is refused. 'hermes-sup check' says what is wrong with a file, 'hermes-sup schema' prints a JSON schema for editors.",
    )]);
    for section in SECTIONS {
        match section.path {
            "" => roff.control("SH", ["THE DEFINITION"]),
            path => roff.control("SH", [format!("[{path}]").as_str()]),
        };
        roff.text([roman(plain(section.what))]);
        let listed = |key: &&Key| key.section() == section.path && !matches!(key.kind, Type::Table);
        for key in KEYS.iter().filter(listed) {
            tagged(&mut roff, key.name(), &format!("{} {}", plain(key.what), facts(key)));
            roff.control("IP", []);
            roff.text([roman(format!("{} = {}", key.name(), key.example))]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("hermes-sup(1), hermes-sup-check(1), hermes-sup-schema(1)")]);
    roff
}

/// Type, range and default in a sentence.
fn facts(key: &Key) -> String {
    let allowed = key.kind.allowed().map(|allowed| format!(" ({})", plain(&allowed))).unwrap_or_default();
    let default = match key.default {
        Default::Required => "required".to_owned(),
        Default::Value(value) => format!("default: {value}"),
        Default::Nothing(words) => format!("default: {}", plain(words)),
    };
    format!("A {}{allowed}; {default}.", key.kind.name())
}

/// Without the marks of Markdown.
fn plain(text: &str) -> String {
    text.replace('`', "")
}
