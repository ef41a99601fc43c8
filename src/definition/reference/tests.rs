//! The reference against the parser. A key that is new in the parser fails here until it has a row; so does a row whose default,
//! range, choice or example is not the parser's.

use super::{Default, KEYS, Key, SECTIONS, Type, schema};
use crate::core::name::ServiceName;
use crate::definition::diagnose::{Diagnostic, Source};
use crate::definition::parse::{Parsed, Subject, parse};
use crate::definition::raw::asked;
use crate::definition::resolved::{Definition, Origin, Security};
use crate::definition::trust::Trust;
use crate::definition::users::Surroundings;
use crate::sys::users::nameless;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Parses dotted keys, to which a command is added where none is among them.
fn read(lines: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let name = ServiceName::new("web").unwrap();
    let path = PathBuf::from("web.toml");
    let surroundings =
        Surroundings { home: PathBuf::from("/opt/data"), gateway: nameless(10000, 10000), own_uid: 0 };
    let command =
        if lines.lines().any(|line| line.starts_with("command = ")) { "" } else { "command = [\"x\"]\n" };
    let subject = Subject {
        name: &name,
        origin: Origin::File(path.clone()),
        trust: &Trust::Trusted,
        security: Security::CONFINED,
        placeholders: &[],
        remarked: true,
    };
    parse(&Source { path, text: format!("{command}{lines}\n") }, subject, &surroundings)
}

/// What it comes to, whatever its text is.
fn meaning(lines: &str) -> Option<(Definition, Option<u64>)> {
    let parsed = read(lines).ok()?;
    Some((Definition { hash: 0, ..parsed.definition }, parsed.instances))
}

fn with(key: &Key, value: &str) -> String {
    format!("{}\n{} = {value}", key.with, key.path)
}

/// Every way in which the rows can be written: each example, each choice.
fn texts() -> Vec<String> {
    let mut texts = Vec::new();
    for key in KEYS {
        texts.push(with(key, key.example));
        if let Type::Choice(words) = key.kind {
            texts.extend(words.iter().map(|word| with(key, &format!("{word:?}"))));
        }
        if matches!(key.kind, Type::Table | Type::TableOr(_)) {
            texts.push(with(key, "{}"));
        }
    }
    texts
}

#[test]
fn it_has_exactly_the_keys_that_the_parser_asks_for() {
    // How the parser calls a table in its messages.
    let called = |section: &str| match section.rsplit_once('.') {
        None if section.is_empty() => "the definition".to_owned(),
        None => format!("[{section}]"),
        Some((_, name)) => name.to_owned(),
    };
    let rows: BTreeSet<(String, &str)> = KEYS
        .iter()
        .map(|key| key.path)
        .map(|path| path.rsplit_once('.').unwrap_or(("", path)))
        .map(|(section, name)| (called(section), name))
        .collect();
    let parsed = asked(|| texts().iter().for_each(|text| drop(read(text))));
    let missing: Vec<_> = parsed.difference(&rows).collect();
    let idle: Vec<_> = rows.difference(&parsed).collect();
    assert!(missing.is_empty(), "the parser asks for keys without a row in reference/rows.rs: {missing:?}");
    assert!(idle.is_empty(), "rows of reference/rows.rs that the parser does not ask for: {idle:?}");
}

#[test]
fn every_example_is_accepted_and_means_something() {
    for key in KEYS {
        let text = with(key, key.example);
        let found = read(&text).unwrap_or_else(|wrong| panic!("{}: {}", key.path, wrong[0].headline()));
        assert!(found.remarks.is_empty(), "{}: {}", key.path, found.remarks[0].headline());
        let plain = if key.with.is_empty() { "" } else { key.with };
        let is_said = key.default == Default::Required || matches!(key.kind, Type::Table);
        assert!(is_said || meaning(&text) != meaning(plain), "{}: the example is the default", key.path);
    }
}

#[test]
fn every_default_is_the_parsers() {
    for key in KEYS {
        match key.default {
            Default::Value(value) => {
                let written = meaning(&with(key, value));
                assert!(written.is_some(), "{}: the default is refused", key.path);
                let is_limit = key.section() == "limits";
                // A limit that is written as what holds anyway is on record all the same.
                assert!(
                    is_limit || written == meaning(key.with),
                    "{}: '{value}' is not the default",
                    key.path
                );
            }
            Default::Nothing(words) => assert!(!words.is_empty(), "{}", key.path),
            Default::Required => assert!(meaning(&format!("{} = 1", key.path)).is_none(), "{}", key.path),
        }
    }
}

#[test]
fn a_limit_has_the_default_of_the_kernel() {
    use crate::core::limits::Key as Limit;
    for key in KEYS.iter().filter(|key| key.section() == "limits") {
        let limit = Limit::from_name(key.name()).unwrap();
        match (key.default, limit.neutral()) {
            (Default::Value(value), Some(neutral)) => {
                assert_eq!(limit.parse(value.trim_matches('"')), Ok(neutral), "{}", key.path);
            }
            (Default::Nothing(_), None) => {}
            other => panic!("{}: {other:?}", key.path),
        }
    }
}

/// The bounds themselves are allowed, and what lies beyond them is not.
#[test]
fn every_range_and_choice_is_the_parsers() {
    let written = |duration: Duration| format!("\"{}\"", humantime::format_duration(duration));
    for key in KEYS {
        let (good, bad): (Vec<String>, Vec<String>) = match key.kind {
            Type::Integer(least, most) => (vec![least.to_string(), most.to_string()], beyond(least, most)),
            Type::Size(least, most) => (vec![least.to_string(), most.to_string()], beyond(least, most)),
            Type::Number(least, most) => (
                vec![format!("{least:?}"), format!("{most:?}")],
                vec![format!("{:?}", least - 0.1), format!("{:?}", most + 0.1)],
            ),
            Type::Duration(least, most) => {
                let nanosecond = Duration::from_nanos(1);
                let less = least.checked_sub(nanosecond).map(written);
                let more = most.checked_add(nanosecond).map(written);
                (vec![written(least), written(most)], less.into_iter().chain(more).collect())
            }
            Type::Choice(words) | Type::ExitCodes(words) => {
                let value = |word: &str| match key.kind {
                    Type::ExitCodes(_) => format!("{{ 1 = {word:?} }}"),
                    _ => format!("{word:?}"),
                };
                let headline = read(&with(key, &value("no-such-word")));
                let headline = headline.map(|_| String::new()).unwrap_or_else(|found| found[0].headline());
                let allowed = words.join(", ");
                assert!(headline.ends_with(&format!("allowed: {allowed}")), "{}: {headline}", key.path);
                (words.iter().map(|word| value(word)).collect(), Vec::new())
            }
            Type::Path => (vec!["\"/x\"".to_owned()], vec!["\"x\"".to_owned(), "1".to_owned()]),
            Type::Written(_) | Type::Text => (Vec::new(), vec!["1".to_owned()]),
            Type::Boolean => (vec!["true".to_owned(), "false".to_owned()], vec!["1".to_owned()]),
            _ => continue,
        };
        for value in good {
            // Some keys are bound by others as well: the smallest backoff by the largest. Those are given.
            let text = format!("{}{}", with(key, &value), companions(key.path));
            let read = read(&text);
            assert!(read.is_ok(), "{} = {value}: {}", key.path, read.unwrap_err()[0].headline());
        }
        for value in bad {
            assert!(meaning(&with(key, &value)).is_none(), "{} = {value} is accepted", key.path);
        }
    }
}

fn beyond(least: u64, most: u64) -> Vec<String> {
    least.checked_sub(1).into_iter().chain(most.checked_add(1)).map(|value| value.to_string()).collect()
}

fn companions(path: &str) -> &'static str {
    match path {
        "restart.backoff.initial" => "\nrestart.backoff.max = \"1day\"",
        "restart.backoff.max" => "\nrestart.backoff.initial = \"1ms\"",
        "ready.kind" => {
            "\nready.address = \"127.0.0.1:1\"\nready.path = \"/x\"\nready.url = \"http://localhost/\"\n\
             ready.command = [\"x\"]\nready.pattern = \"x\""
        }
        "health.kind" => {
            "\nhealth.address = \"127.0.0.1:1\"\nhealth.path = \"/x\"\nhealth.url = \"http://localhost/\"\n\
             health.command = [\"x\"]\nhealth.max_age = \"1m\""
        }
        _ => "",
    }
}

#[test]
fn every_key_stands_in_a_section_and_every_section_has_keys() {
    let tables: BTreeSet<&str> = KEYS
        .iter()
        .filter(|key| matches!(key.kind, Type::Table | Type::TableOr(_)))
        .map(|key| key.path)
        .collect();
    let sections: BTreeSet<&str> = SECTIONS.iter().map(|section| section.path).collect();
    for key in KEYS {
        assert!(sections.contains(key.section()), "{}: no section '{}'", key.path, key.section());
        assert!(key.what.ends_with('.') && key.what.len() < 260, "{}: {}", key.path, key.what);
    }
    for section in SECTIONS.iter().filter(|section| !section.path.is_empty()) {
        assert!(tables.contains(section.path), "[{}] is no key", section.path);
    }
    for table in tables {
        assert!(sections.contains(table), "'{table}' has no section");
    }
    let paths: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(paths.len(), KEYS.len(), "a key has two rows");
}

#[test]
fn the_schema_has_every_key_with_its_default_and_example() {
    let schema = schema();
    for key in KEYS {
        let pointer: String = key.path.split('.').map(|name| format!("/properties/{name}")).collect();
        let found = schema.pointer(&pointer);
        let found = found.or_else(|| {
            let (section, name) = pointer.rsplit_once("/properties/")?;
            schema.pointer(&format!("{section}/anyOf/0/properties/{name}"))
        });
        let found = found.unwrap_or_else(|| panic!("{} is not in the schema", key.path));
        assert_eq!(found["description"], key.what);
        assert!(!found["examples"][0].is_null(), "{}", key.path);
        assert!(!found.get("default").is_some_and(serde_json::Value::is_null), "{}", key.path);
    }
    assert_eq!(schema["required"], serde_json::json!(["command"]));
}
