//! `docker/protocol.schema.json` and the table of methods in `docker/protocol.md`, made from the types and the table of verbs. Both are
//! in the repository, so they are made by the test that compares them.

use super::{Answer, Deadline, Part, RefusalKind, Request, Right, VERBS, VERSION, Verb};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The variants of an enum as serde tags them: name and schema of what it holds.
fn variants<T: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let schema = T::json_schema(generator).to_value();
    let variants = schema["oneOf"].as_array().cloned().unwrap_or_default();
    let one = |variant: Value| {
        let properties = variant["properties"].as_object().cloned().unwrap_or_default();
        properties.into_iter().next()
    };
    variants.into_iter().filter_map(one).collect()
}

fn schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let requests: Vec<Value> = variants::<Request>(&mut generator)
        .into_iter()
        .map(|(method, parameters)| {
            json!({
                "type": "object",
                "properties": {
                    "version": { "const": VERSION },
                    "method": { "const": method },
                    "parameters": parameters,
                },
                "required": ["method"],
            })
        })
        .collect();
    let parts: Map<String, Value> = variants::<Part>(&mut generator).into_iter().collect();
    let kinds = generator.subschema_for::<RefusalKind>();
    let answers = json!([
        {
            "type": "object",
            "properties": {
                "parameters": { "type": "object", "properties": parts, "minProperties": 1, "maxProperties": 1 },
                "continues": { "const": true },
            },
            "required": ["parameters", "continues"],
        },
        {
            "type": "object",
            "properties": { "parameters": { "type": "object", "maxProperties": 0 } },
            "required": ["parameters"],
            "additionalProperties": false,
        },
        {
            "type": "object",
            "properties": {
                "error": kinds,
                "parameters": { "type": "object", "properties": { "message": { "type": "string" } }, "required": ["message"] },
            },
            "required": ["error", "parameters"],
        },
    ]);
    let mut definitions = generator.take_definitions(true);
    definitions.insert("request".to_owned(), json!({ "oneOf": requests }));
    definitions.insert("answer".to_owned(), json!({ "oneOf": answers }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The control socket of hermes-sup: one frame, a request or a part of an answer",
        "anyOf": [{ "$ref": "#/$defs/request" }, { "$ref": "#/$defs/answer" }],
        "$defs": definitions,
    })
}

fn methods() -> String {
    let mut table = "| method | right | the answer is there | and is |\n|---|---|---|---|\n".to_owned();
    for Verb { name, right, deadline, answer } in VERBS {
        let right = match right {
            Right::Read => "read",
            Right::Act => "act",
            Right::Register => "register",
            Right::GatewayUser => "gateway-user",
            Right::Administer => "administer",
            Right::Inside => "inside",
        };
        let seconds = |time: &std::time::Duration| humantime::format_duration(*time).to_string();
        let deadline = match deadline {
            Deadline::AtOnce => "at once".to_owned(),
            Deadline::After(time) => format!("within {}", seconds(time)),
            Deadline::Callers(Some(time)) => format!("within `timeout_ms`, or {}", seconds(time)),
            Deadline::Callers(None) => "within `timeout_ms`, or when it is so".to_owned(),
            Deadline::CallersEach(time) => {
                format!("within `timeout_ms`, or {}, for each turn", seconds(time))
            }
            Deadline::Never => "when the trees have ended".to_owned(),
        };
        let answer = match answer {
            Answer::Outcomes => "`outcome` of each",
            Answer::Listing => "a listing",
            Answer::Stream => "a listing, and with `follow` a stream",
        };
        table.push_str(&format!("| `{name}` | {right} | {deadline} | {answer} |\n"));
    }
    table
}

const BEGIN: &str = "<!-- methods: begin -->\n";
const END: &str = "<!-- methods: end -->";

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(name)
}

/// With UPDATE_PAGES=1 it writes the page instead.
fn compare(name: &str, made: &str) {
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(place(name), made).unwrap();
    }
    let there = std::fs::read_to_string(place(name)).unwrap_or_default();
    assert!(
        there == made,
        "docker/{name} is not what the types say: UPDATE_PAGES=1 cargo test --lib the_page_is_up_to_date"
    );
}

#[test]
fn the_page_is_up_to_date() {
    let page = std::fs::read_to_string(place("protocol.md")).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    compare("protocol.md", &format!("{before}{BEGIN}\n{}\n{END}{after}", methods()));
    compare("protocol.schema.json", &format!("{:#}\n", schema()));
}

#[test]
fn every_method_is_in_the_schema() {
    let methods: Vec<String> =
        variants::<Request>(&mut SchemaGenerator::default()).into_iter().map(|(method, _)| method).collect();
    assert_eq!(methods, super::methods().collect::<Vec<_>>());
}
