//! `docker/reference.md`, made from the rows. The page is in the repository, so it is made by the test that compares it.

use super::{Default, KEYS, Key, SECTIONS, Type};
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "\
# Every key of a definition

Made from the table in `src/definition/reference/rows.rs`; `hermes-sup man definition` shows the same, `hermes-sup schema` prints it as a
JSON schema for editors. [services.md](services.md) explains how they belong together.

A duration is a number with a unit, or several: `\"100ms\"`, `\"10s\"`, `\"1m30s\"`. A size is a whole number of bytes, or a number with a unit:
`\"1MB\"` is 10^6 bytes, `\"512M\"` is 2^20 times 512. Any other key is refused. In `gateway.toml` `{profile}` and `{home}` stand for
those of the gateway.

Editors that use taplo (Even Better TOML, `taplo lsp`, `taplo check`) take the schema with this line at the head of a file:

```toml
#:schema ./hermes-sup.schema.json
```
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        let title = match section.path.rsplit_once('.') {
            None if section.path.is_empty() => "The definition".to_owned(),
            None => format!("`[{}]`", section.path),
            Some((_, name)) => format!("`{name} = {{ … }}`"),
        };
        let _ = write!(page, "\n## {title}\n\n{}\n\n", section.what);
        page.push_str("| key | type | allowed | default | example | |\n|---|---|---|---|---|---|\n");
        let listed = |key: &&Key| key.section() == section.path && !matches!(key.kind, Type::Table);
        for key in KEYS.iter().filter(listed) {
            let default = match key.default {
                Default::Required => "required".to_owned(),
                Default::Value(_) if matches!(key.kind, Type::TableOr(_)) => "that of its keys".to_owned(),
                Default::Value(value) => format!("`{value}`"),
                Default::Nothing(words) => words.to_owned(),
            };
            let cells = [
                format!("`{}`", key.name()),
                key.kind.name().to_owned(),
                key.kind.allowed().unwrap_or_default(),
                default,
                format!("`{}`", key.example),
                key.what.to_owned(),
            ];
            let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    page
}

/// With UPDATE_PAGES=1 it writes the page instead.
#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/reference.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page(),
        "docker/reference.md is not what the table says: UPDATE_PAGES=1 cargo test --lib the_page_is_up_to_date"
    );
}
