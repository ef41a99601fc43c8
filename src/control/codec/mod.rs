//! Requests and replies as bytes: one JSON object a frame, ended by a NUL, as varlink frames them.
//!
//! ```text
//! → {"version":1,"method":"stop","parameters":{"targets":{"names":["coder"]}}}
//! ← {"parameters":{"outcome":{…}},"continues":true}
//! ← {"parameters":{}}
//! ← {"error":"not-permitted","parameters":{"message":"…"}}
//! ```
//!
//! No frame is longer than [`MAX_FRAME`] in either direction, so neither end ever holds more of an unfinished one.
//! `version` may be left out and is then 1, for use by hand. No I/O; nothing here panics on any input.

mod frames;
#[cfg(test)]
mod tests;

pub use frames::{FrameBuffer, TooLarge};

use super::protocol::{
    Audit, Event, LogFile, LogPlace, MAX_NAMES, Outcome, Part, Refusal, RefusalKind, Reply, Request,
    ScopeStatus, ServiceStatus, SupervisorStatus, Targets, Tree, VERSION, methods,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest frame in bytes, without its NUL.
pub const MAX_FRAME: usize = 64 * 1024;

// ---- requests

/// # Errors
/// A [`Refusal`] when the request does not fit a frame.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, Refusal> {
    finish(spell(request).and_then(|request| serde_json::to_vec(&request)))
}

/// A request as another process image of ours is handed it, however long it is: what [`encode_request`] would send.
pub fn keep_request(request: &Request) -> Option<Value> {
    serde_json::to_value(spell(request).ok()?).ok()
}

/// What [`keep_request`] kept; `None`: this version does not know it.
pub fn kept_request(kept: Value) -> Option<Request> {
    let Value::Object(mut kept) = kept else { return None };
    let Some(Value::String(method)) = kept.remove("method") else { return None };
    understand(method, kept.remove("parameters")).ok()
}

#[derive(Serialize)]
struct Spelled {
    version: u32,
    method: &'static str,
    parameters: Value,
}

fn spell(request: &Request) -> serde_json::Result<Spelled> {
    let method = request.method();
    let parameters = match serde_json::to_value(request)? {
        Value::Object(mut variant) => variant.remove(method),
        // A variant without fields.
        _ => None,
    };
    let parameters = parameters.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    Ok(Spelled { version: VERSION, method, parameters })
}

fn understand(method: String, parameters: Option<Value>) -> serde_json::Result<Request> {
    let mut request = serde_json::Map::new();
    request.insert(method, parameters.unwrap_or_else(|| Value::Object(serde_json::Map::new())));
    serde_json::from_value(Value::Object(request))
}

/// # Errors
/// A [`Refusal`] with one line for the caller, to be sent back as it is.
pub fn decode_request(frame: &[u8]) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct In {
        #[serde(default = "current")]
        version: u32,
        method: String,
        #[serde(default)]
        parameters: Option<Value>,
    }
    fn current() -> u32 {
        VERSION
    }
    let malformed = |error: serde_json::Error| {
        let detail = one_line(&error.to_string());
        Refusal::new(RefusalKind::Malformed, format!("the request cannot be understood: {detail}"))
    };
    let In { version, method, parameters } = serde_json::from_slice(frame).map_err(malformed)?;
    if version != VERSION {
        return Err(Refusal::new(
            RefusalKind::WrongVersion,
            format!(
                "the client speaks protocol {version}, this supervisor {VERSION}: \
                 use the hermes-sup program that the supervisor runs"
            ),
        ));
    }
    if !methods().any(|known| known == method) {
        let shown = one_line(&method);
        return Err(Refusal::new(
            RefusalKind::UnknownMethod,
            format!(
                "unknown method '{shown}': this supervisor knows {}",
                methods().collect::<Vec<_>>().join(", ")
            ),
        ));
    }
    let request = understand(method, parameters).map_err(malformed)?;
    match request.targets() {
        Some(Targets::Names(names)) if names.len() > MAX_NAMES => Err(Refusal::new(
            RefusalKind::TooLarge,
            format!("{} names in one request, at most {MAX_NAMES} are allowed: ask in parts", names.len()),
        )),
        Some(_) | None => Ok(request),
    }
}

/// What a request longer than [`MAX_FRAME`] is answered with.
pub fn too_large() -> Refusal {
    Refusal::new(
        RefusalKind::TooLarge,
        format!("the request is longer than {MAX_FRAME} bytes: ask in smaller parts"),
    )
}

/// What a client says of a reply longer than [`MAX_FRAME`].
pub fn answer_too_large() -> Refusal {
    Refusal::new(
        RefusalKind::Malformed,
        format!("the supervisor's answer cannot be understood: a frame is longer than {MAX_FRAME} bytes"),
    )
}

// ---- replies

/// # Errors
/// A [`Refusal`] when the reply does not fit a frame; it does itself.
pub fn encode_reply(reply: &Reply) -> Result<Vec<u8>, Refusal> {
    #[derive(Serialize)]
    struct More<'a> {
        parameters: &'a Part,
        continues: bool,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        error: RefusalKind,
        parameters: Message<'a>,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    match reply {
        Reply::Part(part) => {
            let spelled =
                |part: &Part| finish(serde_json::to_vec(&More { parameters: part, continues: true }));
            spelled(part).or_else(|refusal| spelled(&shortened(part).ok_or(refusal)?))
        }
        Reply::End => Ok(b"{\"parameters\":{}}\0".to_vec()),
        Reply::Refused(Refusal { kind, message }) => {
            finish(serde_json::to_vec(&Error { error: *kind, parameters: Message { message } }))
        }
    }
}

/// Characters of a text, and warnings, that fit a frame whatever they are made of.
const MOST_TEXT: usize = 500;
const MOST_WARNINGS: usize = 10;

/// The part with its texts cut: they may be made of files of whatever length, and the rest is not to be missed for them.
fn shortened(part: &Part) -> Option<Part> {
    let cut = |text: &mut String| {
        if let Some((at, _)) = text.char_indices().nth(MOST_TEXT) {
            text.truncate(at);
            text.push('…');
        }
    };
    let mut part = part.clone();
    match &mut part {
        Part::Supervisor(status) => {
            let more = status.warnings.len().saturating_sub(MOST_WARNINGS);
            status.warnings.truncate(MOST_WARNINGS);
            status.warnings.iter_mut().for_each(cut);
            if more > 0 {
                status.warnings.push(format!("and {more} more: see the supervisor's log"));
            }
        }
        Part::Service(status) => {
            status.reason.iter_mut().for_each(cut);
        }
        Part::Outcome(outcome) => {
            outcome.message.iter_mut().for_each(cut);
        }
        Part::Event(event) => cut(event.message.to_mut()),
        Part::Name(_)
        | Part::LogPlace(_)
        | Part::Tree(_)
        | Part::Audit(_)
        | Part::Scope(_)
        | Part::Lost(_)
        | Part::LogFile(_) => return None,
    }
    Some(part)
}

/// # Errors
/// A [`Refusal`] when the frame is not a reply that this client knows.
pub fn decode_reply(frame: &[u8]) -> Result<Reply, Refusal> {
    #[derive(Deserialize)]
    struct In {
        #[serde(default)]
        continues: bool,
        error: Option<RefusalKind>,
        parameters: Parameters,
    }
    /// Every kind of part by its name, so that one pass over the text reads whichever it is.
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Parameters {
        supervisor: Option<Box<SupervisorStatus>>,
        service: Option<Box<ServiceStatus>>,
        outcome: Option<Outcome>,
        name: Option<String>,
        log_place: Option<LogPlace>,
        scope: Option<Box<ScopeStatus>>,
        tree: Option<Tree>,
        audit: Option<Box<Audit>>,
        event: Option<Box<Event>>,
        lost: Option<u64>,
        log_file: Option<LogFile>,
        message: Option<String>,
    }
    let malformed = |detail: &str| {
        let detail = one_line(detail);
        Refusal::new(
            RefusalKind::Malformed,
            format!("the supervisor's answer cannot be understood: {detail}"),
        )
    };
    let In { continues, error, parameters } =
        serde_json::from_slice(frame).map_err(|error| malformed(&error.to_string()))?;
    if let Some(kind) = error {
        let message = parameters.message.unwrap_or_else(|| "refused without a reason".to_owned());
        return Ok(Reply::Refused(Refusal { kind, message }));
    }
    if !continues {
        return Ok(Reply::End);
    }
    let Parameters {
        supervisor,
        service,
        outcome,
        name,
        log_place,
        scope,
        tree,
        audit,
        event,
        lost,
        log_file,
        message: _,
    } = parameters;
    service
        .map(Part::Service)
        .or_else(|| outcome.map(Part::Outcome))
        .or_else(|| supervisor.map(Part::Supervisor))
        .or_else(|| name.map(Part::Name))
        .or_else(|| log_place.map(Part::LogPlace))
        .or_else(|| scope.map(Part::Scope))
        .or_else(|| tree.map(Part::Tree))
        .or_else(|| audit.map(Part::Audit))
        .or_else(|| event.map(Part::Event))
        .or_else(|| lost.map(Part::Lost))
        .or_else(|| log_file.map(Part::LogFile))
        .map(Reply::Part)
        .ok_or_else(|| malformed("a part of an unknown kind"))
}

/// Ends a frame, after a look at its length. JSON text holds no NUL: the encoder escapes control characters.
fn finish(encoded: serde_json::Result<Vec<u8>>) -> Result<Vec<u8>, Refusal> {
    let failed = |error: serde_json::Error| {
        Refusal::new(
            RefusalKind::Failed,
            format!("cannot be put into JSON: {}", one_line(&error.to_string())),
        )
    };
    let mut frame = encoded.map_err(failed)?;
    if frame.len() > MAX_FRAME {
        return Err(Refusal::new(
            RefusalKind::TooLarge,
            format!(
                "{} bytes in one message, at most {MAX_FRAME} are allowed: ask in smaller parts",
                frame.len()
            ),
        ));
    }
    frame.push(0);
    Ok(frame)
}

/// Somebody else's text, made fit to be part of one line of ours.
fn one_line(text: &str) -> String {
    text.chars().take(160).map(|c| if c.is_control() { '?' } else { c }).collect()
}
