//! Documents by the product's own JSON schemas, so that a new request or key is fuzzed with nothing to do here. Most of what is
//! made fits the schema; here and there a value of another kind stands in its place.

use super::choices::Choices;
use hermes_sup::definition::reference::schema as of_a_definition;
use serde_json::{Map, Number, Value};
use std::sync::LazyLock;

static PROTOCOL: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../docker/protocol.schema.json"))
        .expect("the schema of the protocol")
});
static DEFINITION: LazyLock<Value> = LazyLock::new(of_a_definition);

/// Values within values.
const DEEPEST: usize = 12;
/// Texts that somebody somewhere takes for something else.
const TEXTS: &[&str] = &[
    "web",
    "db",
    "gateway-web",
    "worker-*",
    "web@1",
    "web@",
    "default",
    "supervisor",
    "",
    " ",
    "ä",
    "\u{1b}[31m",
    "a\nb",
    "../x",
    "/",
    "/tmp",
    "/bin/sh",
    "${HOME}",
    "${HOME:-x}",
    "$",
    "{instance}",
    "{profile}",
    "%i",
    "root",
    "nobody",
    "0",
    "-1",
    "4294967296",
    "18446744073709551616",
    "1.5",
    "1e999",
    "10s",
    "1h 30m",
    "100ms",
    "1000000y",
    "512M",
    "1GB",
    "50%",
    "max",
    "none",
    "auto",
    "SIGTERM",
    "KILL",
    "RTMIN+3",
    "*/5 * * * *",
    "@reboot",
    "0 0 31 2 *",
    "127.0.0.1:80",
    "[::1]:1",
    "http://127.0.0.1/x",
    "http://",
    "(",
    "(a+)+$",
    "CAP_NET_ADMIN",
    "all",
    "0022",
    "0o777",
    "cgroup",
    "keeper",
    "\u{0}",
];

/// What can be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A request's frame without its NUL.
    Request,
    /// A reply's.
    Answer,
    /// A definition, in TOML.
    Definition,
}

impl Kind {
    /// # Panics
    /// When there is none of that name.
    pub fn named(name: &str) -> Self {
        match name {
            "request" => Self::Request,
            "answer" => Self::Answer,
            "definition" => Self::Definition,
            _ => panic!("nothing makes {name}"),
        }
    }

    pub fn make(self, choices: &mut Choices<'_>, document: &mut Vec<u8>) {
        let text = match self {
            Self::Request => value(&PROTOCOL, &PROTOCOL["$defs"]["request"], choices, 0).to_string(),
            Self::Answer => value(&PROTOCOL, &PROTOCOL["$defs"]["answer"], choices, 0).to_string(),
            // What TOML has no word for is left out with all that is beside it.
            Self::Definition => {
                let made = value(&DEFINITION, &DEFINITION, choices, 0);
                toml::Table::try_from(made).map(|table| table.to_string()).unwrap_or_default()
            }
        };
        document.extend_from_slice(text.as_bytes());
    }
}

fn value(root: &Value, schema: &Value, choices: &mut Choices<'_>, depth: usize) -> Value {
    if depth > DEEPEST || choices.pick(64) == 63 {
        return odd(choices);
    }
    if let Some(place) = schema["$ref"].as_str().and_then(|place| root.pointer(place.trim_start_matches('#')))
    {
        return value(root, place, choices, depth + 1);
    }
    for several in ["anyOf", "oneOf"] {
        if let Some(alternatives) = schema[several].as_array() {
            return value(root, &alternatives[choices.pick(alternatives.len())], choices, depth + 1);
        }
    }
    if let Some(only) = schema.get("const") {
        return only.clone();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[choices.pick(words.len())].clone();
    }
    if let Some(examples) = schema["examples"].as_array().filter(|_| choices.pick(8) != 7) {
        return examples[choices.pick(examples.len())].clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[choices.pick(kinds.len())].as_str(),
        kind => kind.as_str(),
    };
    match kind {
        Some("object") => object(root, schema, choices, depth),
        Some("array") => {
            let count = schema["minItems"].as_u64().unwrap_or(0) as usize + choices.pick(4);
            (0..count).map(|_| value(root, &schema["items"], choices, depth + 1)).collect()
        }
        Some("string") => Value::from(choices.one(TEXTS)),
        Some("boolean") => Value::from(choices.pick(2) == 1),
        Some("integer") => integer(schema, choices),
        Some("number") => {
            Number::from_f64(*choices.one(&[&0.0, &1.5, &-1.0, &1e300])).map_or(Value::Null, Value::Number)
        }
        Some("null") => Value::Null,
        Some(_) | None => odd(choices),
    }
}

fn object(root: &Value, schema: &Value, choices: &mut Choices<'_>, depth: usize) -> Value {
    let mut made = Map::new();
    let is_required = |name: &str| {
        schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name))
    };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        // A few of many.
        if is_required(name) || choices.pick(6) == 1 {
            made.insert(name.clone(), value(root, property, choices, depth + 1));
        }
    }
    if let Some(of_all) = schema.get("additionalProperties").filter(|of_all| of_all.is_object()) {
        for _ in 0..choices.pick(3) {
            let name = choices.one(TEXTS).to_owned();
            made.insert(name, value(root, of_all, choices, depth + 1));
        }
    }
    if choices.pick(24) == 23 {
        made.insert(choices.one(TEXTS).to_owned(), odd(choices));
    }
    Value::Object(made)
}

fn integer(schema: &Value, choices: &mut Choices<'_>) -> Value {
    let bound = |key: &str| schema[key].as_i64();
    let (least, most) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(i64::MAX));
    match choices.pick(6) {
        0 => Value::from(least),
        1 => Value::from(most),
        2 => Value::from(least.saturating_sub(1)),
        3 => Value::from(most.saturating_add(1)),
        4 => Value::from(u64::MAX),
        _ => Value::from(least.saturating_add(choices.pick(200) as i64)),
    }
}

fn odd(choices: &mut Choices<'_>) -> Value {
    match choices.pick(7) {
        0 => Value::Null,
        1 => Value::from(true),
        2 => Value::from(-1),
        3 => Value::from(1e300),
        4 => Value::Array(Vec::new()),
        5 => Value::Object(Map::new()),
        _ => Value::from(choices.one(TEXTS)),
    }
}
