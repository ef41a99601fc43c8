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
        Request::LogFiles { targets: names(&["a"]) },
        Request::Events { since_ms: Some(5), last: Some(10), follow: true },
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
        Reply::Part(Part::Outcome(Outcome::failed("a", Code::TimedOut, Some(State::Starting), "late\nin\0"))),
        Reply::Part(Part::Name("a".to_owned())),
        Reply::Part(Part::LogPlace(LogPlace {
            name: "a".to_owned(),
            dir: "/l".into(),
            tz: Some("UTC0".to_owned()),
        })),
        Reply::Part(Part::Scope(Box::new(samples::scope()))),
        Reply::Part(Part::Tree(samples::tree())),
        Reply::Part(Part::Audit(Box::new(samples::audit("a")))),
        Reply::Part(Part::Event(Box::new(samples::event("a")))),
        Reply::Part(Part::Lost(7)),
        Reply::Part(Part::LogFile(LogFile { service: "a".to_owned(), file: "current".to_owned() })),
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
             register, unregister, kill, freeze, thaw, tree, audit, wait, set, reload, shutdown, upgrade, log-places, log-files, events, rescan, \
             scope, scope-stop, scope-show",
        ),
        (
            r#"{"version":2,"method":"list"}"#,
            RefusalKind::WrongVersion,
            "the client speaks protocol 2, this supervisor 1: use the hermes-sup program that the supervisor runs",
        ),
        (&many, RefusalKind::TooLarge, "1025 names in one request, at most 1024 are allowed: ask in parts"),
    ];
    for (text, kind, message) in cases {
        let refusal = decode_request(text.as_bytes()).unwrap_err();
        assert_eq!(refusal.kind, kind, "{text}");
        assert!(refusal.message.contains(message), "{text}: {}", refusal.message);
        assert!(!refusal.message.contains(char::is_control), "{text}: {:?}", refusal.message);
    }
}

/// A reader that asks for the room before it reads would take none for the end of the stream.
#[test]
fn what_was_given_out_takes_no_room() {
    let mut buffer = FrameBuffer::default();
    let frame = [&vec![b'x'; MAX_FRAME - 1][..], b"\0"].concat();
    assert_eq!(buffer.push(&frame), MAX_FRAME);
    assert_eq!(buffer.room(), 1);
    buffer.next_frame().unwrap().unwrap();
    assert_eq!(buffer.room(), MAX_FRAME + 1);
    assert_eq!(buffer.push(b"yy"), 2);
    assert_eq!(buffer.room(), MAX_FRAME - 1);
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
        |part| match decode_reply(encode_reply(&Reply::Part(part)).unwrap().strip_suffix(b"\0").unwrap()) {
            Ok(Reply::Part(part)) => part,
            other => panic!("{other:?}"),
        };
    let worst = "\u{1}".repeat(100_000);
    let mut supervisor = samples::supervisor();
    supervisor.warnings = vec![worst.clone(); 20];
    let Part::Supervisor(read_back) = read(Part::Supervisor(Box::new(supervisor))) else { panic!() };
    assert_eq!(read_back.warnings.len(), 11);
    assert_eq!(read_back.warnings.last().unwrap(), "and 10 more: see the supervisor's log");
    let service = ServiceStatus { reason: Some(worst.clone()), ..samples::down("b") };
    let Part::Service(service) = read(Part::Service(Box::new(service))) else { panic!() };
    assert_eq!((service.name.as_str(), service.reason.unwrap().chars().count()), ("b", 501));
    let outcome = Outcome::failed("b", Code::Failed, None, worst);
    assert!(matches!(read(Part::Outcome(outcome)), Part::Outcome(Outcome { ok: false, .. })));
}
