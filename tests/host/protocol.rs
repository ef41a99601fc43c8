//! The protocol by another hand than ours.

use crate::harness::{End, Setup, World};
use hermes_sup::control::codec::{decode_reply, decode_request};
use hermes_sup::control::protocol::{Deadline, Reply, Request};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// The client of `docker/protocol.md` is what the page says that a tool needs, so it is run as it stands there.
#[test]
fn the_client_of_the_page_speaks_the_protocol() {
    let page = include_str!("../../docker/protocol.md");
    let program = page.split_once("```python\n").and_then(|(_, rest)| rest.split_once("```"));
    let (program, _) = program.expect("a program in the page");
    let mut world = World::new(Setup::plain());
    world.adversary("web", "pause", "");
    let _supervisor = world.start();
    world.wait_state("web", &["up"]);
    let client = |words: &[&str]| -> Output {
        let mut command = Command::new("python3");
        command.args(["-c", program]).args(words).env("HERMES_SUP_SOCKET", world.socket());
        command.output().expect("python3")
    };
    let said = |words: &[&str], code: i32| -> String {
        let output = client(words);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        text
    };
    assert_eq!(said(&["list"], 0), "name \"web\"\n");
    let status = said(&["status", "web"], 0);
    assert!(
        status.contains("service {\"name\": \"web\"") && status.contains("\"state\": \"up\""),
        "{status}"
    );
    let stopped = said(&["stop", "web"], 0);
    assert!(stopped.contains("\"ok\": true") && stopped.contains("\"state\": \"down\""), "{stopped}");
    assert_eq!(world.state("web"), "down");
    let unknown = said(&["start", "nobody"], 1);
    assert!(unknown.contains("\"code\": 4"), "{unknown}");
    let refused = said(&["nonsense"], 1);
    assert!(refused.contains("unknown method 'nonsense'"), "{refused}");
}

/// The inputs that are kept for the fuzz target of the decoder, for a supervisor that does what they ask: each frame on a
/// connection of its own, from root, who may ask for everything.
#[test]
fn a_supervisor_answers_whatever_a_fuzzer_has_found_to_ask() {
    let mut world = World::new(Setup::plain());
    world.adversary("web", "pause", "");
    world.adversary("db", "pause", "");
    let supervisor = world.start();
    world.wait_state("web", &["up"]);
    let frames = kept_frames();
    assert!(frames.len() > 5, "the inputs have been found");
    for frame in &frames {
        let request = decode_request(frame);
        if matches!(request, Ok(Request::Shutdown { .. } | Request::Upgrade { .. })) {
            continue;
        }
        let mut stream = UnixStream::connect(world.socket()).expect("the supervisor listens");
        stream.write_all(&[frame.as_slice(), b"\0"].concat()).expect("a frame is taken");
        let ends = request.as_ref().map_or(true, |request| {
            matches!(request.verb().deadline, Deadline::AtOnce | Deadline::After(_)) && !follows(request)
        });
        if ends {
            let shown = String::from_utf8_lossy(frame);
            assert!(has_end(stream), "no end of the answer to {shown}");
        }
    }
    let asked = world.ctl(&["list"]);
    assert_eq!(asked.code, 0, "{}", asked.err);
    assert!(!world.stderr().contains("panic"), "{}", world.stderr());
    assert_eq!(supervisor.terminate(), End::Code(0));
}

fn follows(request: &Request) -> bool {
    matches!(request, Request::Events { follow: true, .. })
}

fn kept_frames() -> BTreeSet<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/protocol");
    let documents =
        std::fs::read_dir(corpus).expect("the corpus").map(|entry| entry.expect("an input").path());
    let frames = |path| -> Vec<Vec<u8>> {
        let document = std::fs::read(path).expect("an input");
        document.split(|byte| *byte == 0).map(<[u8]>::to_owned).collect()
    };
    documents.flat_map(frames).collect()
}

/// The answer comes to its end, or its caller is refused.
fn has_end(stream: UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut reader = BufReader::new(stream);
    loop {
        let mut frame = Vec::new();
        let read = reader.read_until(0, &mut frame);
        match read.ok().filter(|_| frame.pop() == Some(0)).map(|_| decode_reply(&frame)) {
            Some(Ok(Reply::Part(_))) => {}
            Some(Ok(Reply::End | Reply::Refused(_))) => return true,
            Some(Err(_)) | None => return false,
        }
    }
}
