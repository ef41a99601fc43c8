//! Bad input: each gets its answer, and nobody else notices.

use crate::harness::{Setup, World, wait};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.socket()).expect("a connection");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream
}

/// What comes back up to the first NUL or the end.
fn answer(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0u8; 1];
    while stream.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != 0 {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_malformed_definition_is_reported_and_the_others_go_on() {
    let mut world = World::new(Setup::plain());
    world.adversary("good", "pause", "");
    world.define("syntax", "command = [\"/bin/true\"\nuser = 3\n");
    world.define("unknown", "command = [\"/bin/true\"]\n\n[restart]\npolice = \"always\"\n");
    world.define("later", "command = [\"/bin/true\"]\ntype = \"oneshot\"\nschedule = \"61 * * * *\"\n");
    world.define("empty", "command = []\n");
    world.define("UPPER", "command = [\"/bin/true\"]\n");
    world.write("/etc/hermes-sup/services/binary.toml", [0xff, 0xfe, 0x00]);
    let _supervisor = world.start();
    world.ctl(&["wait", "good", "--up"]).ok();
    let places =
        ["syntax.toml:", "unknown.toml:4:1", "later.toml:3:", "empty.toml:1:", "UPPER", "binary.toml"];
    for text in places.into_iter().chain(["\"61\" for the minute; allowed: 0 to 59"]) {
        world.wait_stderr(text);
    }
    assert_eq!(
        world.ctl(&["list"]).ok(),
        "UPPER\nbinary\nempty\ngood\nlater\nsyntax\nunknown\n",
        "none of them vanishes"
    );
    let table = world.ctl(&["status"]).ok();
    assert_eq!(table.lines().filter(|line| line.contains("refused")).count(), 6, "{table}");
}

#[test]
fn garbage_gets_an_error_and_the_next_client_an_answer() {
    let (world, mut supervisor) = World::started(Setup::plain());
    let deep = format!("{{\"method\":{}", "[".repeat(20_000));
    for garbage in [
        &b"\0"[..],
        b"garbage\0",
        b"{}\0",
        b"[1,2,3]\0",
        b"{\"method\":\"frobnicate\",\"parameters\":{}}\0",
        b"{\"method\":\"stop\",\"parameters\":{\"targets\":7}}\0",
        b"{\"method\":\"stop\",\"parameters\":{}}\0",
        b"{\"version\":99,\"method\":\"list\",\"parameters\":{}}\0",
        b"{\"method\":\"start\",\"parameters\":{\"targets\":{\"names\":[\"\\u0000\\u001b[2J\"]}}}\0",
        b"\xff\xfe\xfd\0",
        deep.as_bytes(),
    ] {
        let mut stream = connect(&world);
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let said = answer(&mut stream);
        assert!(!said.contains('\x1b'), "{said:?}");
        world.ctl(&["list"]).ok();
        assert!(supervisor.process.running(), "{garbage:?}: {}", world.stderr());
    }
    assert!(!world.stderr().contains("panicked"), "{}", world.stderr());
    let mut stream = connect(&world);
    stream.write_all(b"{\"method\":\"frobnicate\",\"parameters\":{}}\0").expect("a request");
    assert!(answer(&mut stream).contains("unknown-method"), "an unknown verb is told so");
}

#[test]
fn a_huge_request_is_cut_off() {
    let (world, supervisor) = World::started(Setup::plain());
    let before = crate::harness::process::anonymous_kb(supervisor.pid());
    let mut stream = connect(&world);
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while sent < 10 && stream.write_all(&chunk).is_ok() {
        sent += 1;
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = answer(&mut stream);
    world.ctl(&["list"]).ok();
    let after = crate::harness::process::anonymous_kb(supervisor.pid());
    assert!(after < before + 2048, "it was not kept: {before} kB, then {after} kB");
}

#[test]
fn five_hundred_silent_clients_keep_nobody_waiting() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "autostart = false");
    let supervisor = world.start();
    // Its log files stay open for a while once it has run.
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready");
    world.ctl(&["stop", "coder"]).ok();
    let before = crate::harness::process::descriptors(supervisor.pid());
    let mut silent = Vec::new();
    for count in 0..500 {
        match UnixStream::connect(world.socket()) {
            Ok(mut stream) => {
                if count % 2 == 0 {
                    let _ = stream.write_all(b"{\"method\":");
                }
                silent.push(stream);
            }
            Err(_) => break,
        }
    }
    let served = world.ctl_within(Duration::from_secs(10), &["start", "coder"]);
    served.ok();
    world.ctl(&["stop", "coder"]).ok();
    drop(silent);
    wait::until("their descriptors to be closed", &world.root, || {
        (crate::harness::process::descriptors(supervisor.pid()) <= before).then_some(())
    });
}

/// Asks for much and reads nothing: the answers are bounded, the others served.
#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let mut world = World::new(Setup::plain());
    for count in 0..100 {
        world.adversary(&format!("s{count}"), "pause", "autostart = false");
    }
    let supervisor = world.start();
    let mut greedy = connect(&world);
    greedy.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    for _ in 0..2000 {
        if greedy.write_all(b"{\"method\":\"status\",\"parameters\":{\"targets\":\"all\"}}\0").is_err() {
            break;
        }
    }
    world.ctl(&["start", "s1"]).ok();
    assert!(crate::harness::process::anonymous_kb(supervisor.pid()) < 300_000);
    world.ctl(&["stop", "s1"]).ok();
}

#[test]
fn wrong_usage_is_said_at_once() {
    let (world, supervisor) = World::started(Setup::plain());
    for words in
        [&["run", "--no-such-option"][..], &["run", "--containment", "magic"], &["ctl"], &["nonsense"]]
    {
        let mut command = vec!["/hermes-sup"];
        command.extend_from_slice(words);
        let answer = world.exec(&supervisor, 0, &command);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(!answer.err.is_empty());
    }
    let version = world.exec(&supervisor, 0, &["/hermes-sup", "--version"]).ok();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}
