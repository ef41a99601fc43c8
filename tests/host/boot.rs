//! A boot of hundreds of services: who asks while it goes on is answered, and not when it is over.
//!
//! No time is measured. The supervisor stands still before its first start until the request lies in its socket; what it
//! answers then tells itself how far the boot had come.

use crate::harness::{Setup, World, process, wait};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Loops that would first start everything would have started all of them.
const SERVICES: usize = 400;

/// The frames of an answer but for the one that ends it.
fn answer(stream: &mut UnixStream) -> Vec<Value> {
    let (mut bytes, mut parts) = (Vec::new(), Vec::new());
    loop {
        let mut piece = [0; 65536];
        let count = stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "no end of the answer");
        bytes.extend_from_slice(&piece[..count]);
        while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            let frame: Vec<u8> = bytes.drain(..=end).collect();
            let part: Value = serde_json::from_slice(&frame[..end]).expect("a frame");
            if part["continues"] != Value::Bool(true) {
                return parts;
            }
            parts.push(part);
        }
    }
}

#[test]
fn a_boot_of_hundreds_answers_before_it_is_over() {
    // Before the first start there is a want of each to be carried out, so this is passed among those.
    let mut world = World::new(Setup::plain().env("HERMES_SUP_FAULT", &format!("stop@{SERVICES}")));
    for count in 0..SERVICES {
        world.adversary(&format!("s{count}"), "pause", "");
    }
    let mut launched = world.launch();
    launched.wait_exec();
    wait::until("the supervisor to stand still", &world.root, || {
        assert!(launched.running(), "it ended:\n{}", world.stderr());
        process::status(launched.pid, "State").is_some_and(|state| state.starts_with('T')).then_some(())
    });
    assert_eq!(world.marked("pause").len(), 0, "it has not begun to start");
    let mut stream = UnixStream::connect(world.socket()).expect("a connection");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream
        .write_all(b"{\"version\":1,\"method\":\"status\",\"parameters\":{\"targets\":\"all\"}}\0")
        .expect("room");
    launched.signal(Signal::CONT);

    let answer = answer(&mut stream);
    let states: Vec<&str> =
        answer.iter().filter_map(|part| part["parameters"]["service"]["state"].as_str()).collect();
    assert_eq!(states.len(), SERVICES, "{:?}", answer.first());
    let waiting = states.iter().filter(|state| **state == "starting").count();
    // Those of the rows of starts that came first are up, and at the end of everything some would still be on their way.
    assert!(waiting > SERVICES / 2, "{waiting} of {SERVICES} had not been started when it answered");
    world.ctl(&["wait", "--all", "--up"]).ok();
    assert_eq!(world.marked("pause").len(), SERVICES, "and the boot goes on");
}
