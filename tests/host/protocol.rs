//! The protocol by another hand than ours.

use crate::harness::{Setup, World};
use std::process::{Command, Output};

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
