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

use super::protocol::{
    Audit, LogPlace, MAX_NAMES, Outcome, Part, Refusal, RefusalKind, Reply, Request, ScopeStatus,
    ServiceStatus, SupervisorStatus, Targets, Tree, VERSION, methods,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest frame in bytes, without its NUL.
pub const MAX_FRAME: usize = 64 * 1024;

/// Takes bytes in whatever pieces they arrive and gives whole frames out.
///
/// Holds at most [`MAX_FRAME`] + 1 bytes: the reader asks [`room`](Self::room) how much it may read.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Bytes before this one have been given out.
    start: usize,
    /// Bytes before this one hold no NUL that was not given out.
    searched: usize,
}

/// The frame under way is longer than [`MAX_FRAME`]: the stream cannot be made sense of from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl FrameBuffer {
    /// How many bytes [`push`](Self::push) takes now; never 0 after [`next_frame`](Self::next_frame) gave `Ok(None)`.
    pub fn room(&self) -> usize {
        (MAX_FRAME + 1).saturating_sub(self.bytes.len() - self.start)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    /// What has come and was not given out.
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Takes the beginning of `bytes`, as much as there is room for, and says how much that was.
    #[must_use = "what was not taken has to be pushed again"]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        // Only here, and not for each frame given out: many small frames in one piece must not cost a copy each.
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let taken = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The next whole frame, without its NUL. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// [`TooLarge`], from then on at each call.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, TooLarge> {
        match self.bytes[self.searched..].iter().position(|byte| *byte == 0) {
            Some(found) => {
                let frame = self.start..self.searched + found;
                self.start = frame.end + 1;
                self.searched = self.start;
                Ok(Some(&self.bytes[frame]))
            }
            None if self.bytes.len() - self.start > MAX_FRAME => Err(TooLarge),
            None => {
                self.searched = self.bytes.len();
                Ok(None)
            }
        }
    }

    /// Gives the memory back while nothing is buffered: an idle connection costs none.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

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
        Part::Name(_) | Part::LogPlace(_) | Part::Tree(_) | Part::Audit(_) | Part::Scope(_) => return None,
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
    let Parameters { supervisor, service, outcome, name, log_place, scope, tree, audit, message: _ } =
        parameters;
    service
        .map(Part::Service)
        .or_else(|| outcome.map(Part::Outcome))
        .or_else(|| supervisor.map(Part::Supervisor))
        .or_else(|| name.map(Part::Name))
        .or_else(|| log_place.map(Part::LogPlace))
        .or_else(|| scope.map(Part::Scope))
        .or_else(|| tree.map(Part::Tree))
        .or_else(|| audit.map(Part::Audit))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{
        Code, OomPolicy, Program, Registration, SignalName, State, Until, Utc, samples,
    };
    use crate::core::signal::Signal;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    fn names(list: &[&str]) -> Targets {
        Targets::Names(list.iter().map(|name| (*name).to_owned()).collect())
    }

    fn requests() -> Vec<Request> {
        let registration = Registration {
            name: "a".to_owned(),
            user: Some("hermes".to_owned()),
            env: BTreeMap::from([("K".to_owned(), "V\0W".to_owned())]),
            down: true,
            program: Program::Argv(vec!["sleep".to_owned(), "1".to_owned()]),
        };
        vec![
            Request::Start { targets: names(&["a", "b"]), timeout_ms: Some(5), force: true },
            Request::Stop { targets: Targets::All },
            Request::Restart { targets: names(&["a"]), timeout_ms: None, rolling: Some(2) },
            Request::Once { targets: names(&["a"]), timeout_ms: None },
            Request::Status { targets: names(&[]) },
            Request::List {},
            Request::Register(registration.clone()),
            Request::Register(Registration { program: Program::Profile("/p".into()), ..registration }),
            Request::Unregister { targets: names(&["a"]) },
            Request::Kill { targets: names(&["a"]), signal: SignalName(Signal::RTMIN_PLUS_3), tree: true },
            Request::Freeze { targets: names(&["a"]) },
            Request::Thaw { targets: names(&["a"]) },
            Request::Tree { targets: Targets::All },
            Request::Audit { targets: Targets::All },
            Request::Wait { targets: names(&["a"]), until: Until::Ready, timeout_ms: Some(0) },
            Request::Set {
                targets: names(&["a"]),
                limits: BTreeMap::from([("memory_max".to_owned(), "512M".to_owned())]),
                persist: true,
            },
            Request::Reload { restart: true },
            Request::Shutdown { code: Some(3) },
            Request::Upgrade { program: Some("/p".into()) },
            Request::LogPlaces { targets: Targets::All },
            Request::Rescan { nuke: true },
            Request::Scope {
                unit: "w".to_owned(),
                memory_max: Some(1 << 40),
                swap_max: None,
                oom: OomPolicy::Continue,
            },
            Request::ScopeStop { unit: "w".to_owned() },
            Request::ScopeShow { unit: "w".to_owned() },
        ]
    }

    fn replies() -> Vec<Reply> {
        vec![
            Reply::Part(Part::Supervisor(Box::new(samples::supervisor()))),
            Reply::Part(Part::Service(Box::new(samples::service("coder")))),
            Reply::Part(Part::Outcome(Outcome::done("a", State::Up, Some("already up".to_owned())))),
            Reply::Part(Part::Outcome(Outcome::failed(
                "a",
                Code::TimedOut,
                Some(State::Starting),
                "late\nin\0",
            ))),
            Reply::Part(Part::Name("a".to_owned())),
            Reply::Part(Part::LogPlace(LogPlace {
                name: "a".to_owned(),
                dir: "/l".into(),
                tz: Some("UTC0".to_owned()),
            })),
            Reply::Part(Part::Scope(Box::new(samples::scope()))),
            Reply::Part(Part::Tree(samples::tree())),
            Reply::Part(Part::Audit(Box::new(samples::audit("a")))),
            Reply::End,
            Reply::Refused(Refusal::new(RefusalKind::NotPermitted, "no")),
        ]
    }

    fn body(frame: &[u8]) -> &[u8] {
        let (end, body) = frame.split_last().unwrap();
        assert_eq!(*end, 0);
        assert!(!body.contains(&0));
        body
    }

    #[test]
    fn every_request_and_reply_round_trips() {
        let mut tried = Vec::new();
        for request in requests() {
            let frame = encode_request(&request).unwrap();
            assert_eq!(decode_request(body(&frame)), Ok(request.clone()));
            assert_eq!(kept_request(keep_request(&request).unwrap()), Some(request.clone()));
            tried.push(request.method());
        }
        tried.dedup();
        assert_eq!(tried, methods().collect::<Vec<_>>(), "each method is tried, in the order of the table");
        for reply in replies() {
            let frame = encode_reply(&reply).unwrap();
            assert_eq!(decode_reply(body(&frame)), Ok(reply));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_head_comment() {
        let text = |frame: Vec<u8>| String::from_utf8(body(&frame).to_vec()).unwrap();
        assert_eq!(
            text(encode_request(&Request::Stop { targets: names(&["coder"]) }).unwrap()),
            r#"{"version":1,"method":"stop","parameters":{"targets":{"names":["coder"]}}}"#
        );
        assert_eq!(
            text(encode_request(&Request::Stop { targets: Targets::All }).unwrap()),
            r#"{"version":1,"method":"stop","parameters":{"targets":"all"}}"#
        );
        let outcome = Outcome::done("coder", State::Down, None);
        assert_eq!(
            text(encode_reply(&Reply::Part(Part::Outcome(outcome))).unwrap()),
            r#"{"parameters":{"outcome":{"name":"coder","ok":true,"code":0,"state":"down","message":null}},"continues":true}"#
        );
        assert_eq!(
            text(encode_reply(&Reply::Refused(Refusal::new(RefusalKind::NotPermitted, "no"))).unwrap()),
            r#"{"error":"not-permitted","parameters":{"message":"no"}}"#
        );
    }

    #[test]
    fn by_hand_the_version_and_what_is_optional_may_be_left_out() {
        let read = |text: &str| decode_request(text.as_bytes());
        assert_eq!(read(r#"{"method":"list"}"#), Ok(Request::List {}));
        assert_eq!(
            read(r#"{"method":"start","parameters":{"targets":"all"}}"#),
            Ok(Request::Start { targets: Targets::All, timeout_ms: None, force: false })
        );
    }

    #[test]
    fn each_bad_request_has_one_clear_error() {
        let many = format!(
            r#"{{"method":"stop","parameters":{{"targets":{{"names":[{}]}}}}}}"#,
            vec![r#""a""#; MAX_NAMES + 1].join(",")
        );
        let cases: [(&str, RefusalKind, &str); 9] = [
            ("", RefusalKind::Malformed, "the request cannot be understood: EOF while parsing"),
            ("\u{1b}[2J", RefusalKind::Malformed, "the request cannot be understood: expected value"),
            (r#"{"method":7}"#, RefusalKind::Malformed, "invalid type: integer `7`, expected a string"),
            (r#"{"method":"stop","parameters":{}}"#, RefusalKind::Malformed, "missing field `targets`"),
            (
                r#"{"method":"stop","parameters":{"targets":"all","x":1}}"#,
                RefusalKind::Malformed,
                "unknown field `x`",
            ),
            (
                r#"{"method":"kill","parameters":{"targets":"all","signal":"BANG"}}"#,
                RefusalKind::Malformed,
                "that is not a signal",
            ),
            (
                r#"{"method":"halt\nnow"}"#,
                RefusalKind::UnknownMethod,
                "unknown method 'halt?now': this supervisor knows start, stop, restart, once, status, list, \
                 register, unregister, kill, freeze, thaw, tree, audit, wait, set, reload, shutdown, upgrade, log-places, rescan, \
                 scope, scope-stop, scope-show",
            ),
            (
                r#"{"version":2,"method":"list"}"#,
                RefusalKind::WrongVersion,
                "the client speaks protocol 2, this supervisor 1: use the hermes-sup program that the supervisor runs",
            ),
            (
                &many,
                RefusalKind::TooLarge,
                "1025 names in one request, at most 1024 are allowed: ask in parts",
            ),
        ];
        for (text, kind, message) in cases {
            let refusal = decode_request(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.kind, kind, "{text}");
            assert!(refusal.message.contains(message), "{text}: {}", refusal.message);
            assert!(!refusal.message.contains(char::is_control), "{text}: {:?}", refusal.message);
        }
    }

    #[test]
    fn what_does_not_fit_a_frame_is_refused_by_the_sender() {
        let request = Request::Stop { targets: Targets::Names(vec!["x".repeat(MAX_FRAME)]) };
        assert_eq!(encode_request(&request).unwrap_err().kind, RefusalKind::TooLarge);
    }

    #[test]
    fn times_are_rfc_3339_in_utc_even_on_a_senseless_clock() {
        let at = |millis| Utc(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(1_700_000_000_123).to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(at(u64::MAX / 4).to_string(), "1970-01-01T00:00:00.000Z");
        let before = Utc(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.to_string(), "1970-01-01T00:00:00.000Z");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever arrives, in whatever pieces: the frames are those of splitting at NUL, memory stays bounded, and
        /// the decoders answer.
        #[test]
        fn any_bytes_in_any_pieces(
            input in prop::collection::vec(prop_oneof![Just(0u8), Just(b'{'), Just(b'"'), any::<u8>()], 0..1500),
            pieces in prop::collection::vec(1usize..700, 1..50),
        ) {
            let mut buffer = FrameBuffer::default();
            let mut frames = Vec::new();
            let (mut rest, mut piece) = (&input[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let size = rest.len().min(*piece.next().unwrap());
                let taken = buffer.push(&rest[..size]);
                prop_assert!(taken > 0);
                prop_assert!(buffer.bytes.len() <= MAX_FRAME + 1);
                rest = &rest[taken..];
                while let Ok(Some(frame)) = buffer.next_frame() {
                    let _ = decode_request(frame);
                    let _ = decode_reply(frame);
                    frames.push(frame.to_vec());
                }
            }
            let mut expected: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
            expected.pop();
            prop_assert_eq!(frames, expected);
        }

        /// The boundary itself: a frame of exactly the bound passes, one byte more does not, for any chunking.
        #[test]
        fn the_bound_is_exact(chunk in 50usize..100_000, over in 0usize..3) {
            let input = vec![b'x'; MAX_FRAME + over];
            let mut buffer = FrameBuffer::default();
            let mut verdict = Ok(None);
            for piece in input.chunks(chunk).chain([&b"\0"[..]]) {
                let taken = buffer.push(piece);
                prop_assert!(buffer.bytes.len() <= MAX_FRAME + 1);
                verdict = buffer.next_frame().map(|frame| frame.map(<[u8]>::len));
                if verdict.is_err() {
                    break;
                }
                prop_assert_eq!(taken, piece.len());
            }
            if over == 0 {
                prop_assert_eq!(verdict, Ok(Some(MAX_FRAME)));
            } else {
                prop_assert_eq!(verdict, Err(TooLarge));
                prop_assert_eq!(buffer.next_frame(), Err(TooLarge), "it stays refused");
            }
        }

        /// Almost-requests: real frames with one byte changed never panic the decoder.
        #[test]
        fn a_changed_byte_never_panics(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let all = requests();
            let mut frame = encode_request(&all[pick.index(all.len())]).unwrap();
            let at = at.index(frame.len());
            frame[at] = byte;
            let _ = decode_request(&frame);
        }
    }

    /// Files of many kilobytes with mistakes made warnings of as many: `status` then had no answer at all.
    #[test]
    fn a_text_of_any_length_hides_nothing_of_the_answer() {
        let read =
            |part| match decode_reply(encode_reply(&Reply::Part(part)).unwrap().strip_suffix(b"\0").unwrap())
            {
                Ok(Reply::Part(part)) => part,
                other => panic!("{other:?}"),
            };
        let worst = "\u{1}".repeat(100_000);
        let mut supervisor = samples::supervisor();
        supervisor.warnings = vec![worst.clone(); 1000];
        let Part::Supervisor(read_back) = read(Part::Supervisor(Box::new(supervisor))) else { panic!() };
        assert_eq!(read_back.warnings.len(), 11);
        assert_eq!(read_back.warnings.last().unwrap(), "and 990 more: see the supervisor's log");
        let service = ServiceStatus { reason: Some(worst.clone()), ..samples::down("b") };
        let Part::Service(service) = read(Part::Service(Box::new(service))) else { panic!() };
        assert_eq!((service.name.as_str(), service.reason.unwrap().chars().count()), ("b", 501));
        let outcome = Outcome::failed("b", Code::Failed, None, worst);
        assert!(matches!(read(Part::Outcome(outcome)), Part::Outcome(Outcome { ok: false, .. })));
    }
}
