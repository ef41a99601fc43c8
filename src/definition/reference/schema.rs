//! The format as a JSON schema (draft 7), which editors of TOML read.

use super::{Default, KEYS, Key, SECTIONS, Type};
use serde_json::{Map, Value, json};

/// humantime: numbers with their units.
const DURATION: &str = r"^\s*([0-9]+\s*[A-Za-zµ]+\s*)+$";
const SIZE: &str = r"^\s*[0-9]+\s*[A-Za-z]*\s*$";

/// The schema of one definition.
pub fn schema() -> Value {
    let mut schema = table("");
    let head = [
        ("$schema", json!("http://json-schema.org/draft-07/schema#")),
        ("title", json!("A service of hermes-sup")),
    ];
    if let Some(object) = schema.as_object_mut() {
        object.extend(head.map(|(key, value)| (key.to_owned(), value)));
    }
    schema
}

/// The table at `path` with all keys of it.
fn table(path: &str) -> Value {
    let keys = || KEYS.iter().filter(move |key| key.section() == path);
    let properties: Map<String, Value> = keys().map(|key| (key.name().to_owned(), property(key))).collect();
    let required: Vec<&str> = keys().filter(|key| key.default == Default::Required).map(Key::name).collect();
    let what = SECTIONS.iter().find(|section| section.path == path).map(|section| section.what);
    let mut schema = json!({
        "type": "object",
        "description": what,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut property = of(key.kind, key.path);
    property["description"] = json!(key.what);
    // Of a table the defaults are those of its keys.
    if let (Default::Value(text), false) = (key.default, matches!(key.kind, Type::Table | Type::TableOr(_))) {
        property["default"] = value(text);
    }
    property["examples"] = json!([value(key.example)]);
    property
}

fn of(kind: Type, path: &str) -> Value {
    match kind {
        Type::Text | Type::Written(_) => json!({ "type": "string" }),
        // A variable may stand for its beginning.
        Type::Path => json!({ "type": "string", "pattern": r"^(/|\$\{)" }),
        Type::EnvFile => json!({ "type": "string", "pattern": r"^\??/" }),
        Type::Paths => {
            json!({ "type": "object", "additionalProperties": { "type": "string", "pattern": "^/" } })
        }
        Type::Command => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Type::Texts | Type::Services | Type::Capabilities => {
            json!({ "type": "array", "items": { "type": "string" } })
        }
        Type::Variables => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Type::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Type::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Type::Size(least, most) => json!({ "anyOf": [
            { "type": "integer", "minimum": least, "maximum": most },
            { "type": "string", "pattern": SIZE },
        ] }),
        Type::Word(_) => json!({ "type": ["string", "integer"] }),
        Type::Choice(choices) => json!({ "type": "string", "enum": choices }),
        Type::ExitCodes(rules) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^(0|[1-9][0-9]{0,2})$" },
            "additionalProperties": { "type": "string", "enum": rules },
        }),
        Type::Table => table(path),
        Type::TableOr(words) => json!({ "anyOf": [table(path), { "type": "string", "enum": words }] }),
        Type::OneOrMore(kind) => {
            let one = of(*kind, path);
            json!({ "anyOf": [one, { "type": "array", "items": one }] })
        }
    }
}

/// The TOML of a row as JSON. The tests read every row, so that none is `null`.
fn value(text: &str) -> Value {
    let table = format!("value = {text}").parse::<toml::Table>().unwrap_or_default();
    table.get("value").and_then(|value| serde_json::to_value(value).ok()).unwrap_or(Value::Null)
}
