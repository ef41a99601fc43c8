//! What services print: in `docker logs`, in the log files, and behind a reader that is stuck.

use std::process::Stdio;

use crate::harness::*;

const CURRENT: &str = "/opt/data/logs/gateways/coder/current";

/// `YYYY-MM-DD HH:MM:SS.nnnnnnnnn`, then the mark of the stream, then the line.
fn is_stamped(line: &str, mark: &str) -> bool {
    let shape: String = line.chars().take(29).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00 00:00:00.000000000" && line[29..].starts_with(mark)
}

/// Under s6 stderr is in no file, and only the order in `docker logs` tells where it belongs.
/// Contract: 67, 68, 71.
#[test]
fn both_streams_are_in_docker_logs_and_in_the_file() {
    let volume = Volume::with_gateways(&["coder"]);
    let container = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).supervised();
    let (out, err) = ("Hermes Gateway Starting", "No messaging platforms enabled");
    container.await_log(out);
    container.await_log(err);
    let current = eventually("both are in the file", || {
        let text = container.exec_as("hermes", &["cat", CURRENT]).out;
        (text.contains(out) && text.contains(err)).then_some(text)
    });
    let line = |needle: &str| current.lines().find(|line| line.contains(needle)).expect("just seen");
    assert!(is_stamped(line(out), "  "), "{current}");
    assert!(is_stamped(line(err), " !"), "{current}");
    // The container's own streams stay apart and raw.
    let logs = docker(&["logs", &container.id()]);
    assert!(logs.out.contains(out) && !logs.err.contains(out));
    assert!(logs.err.lines().any(|line| line.starts_with("WARNING") && line.contains(err)), "{}", logs.err);
    let shown = container.ctl(&["logs", "coder", "-n", "100"]).ok();
    assert!(shown.contains(out), "{shown}");
}

/// A full-screen program would be overwritten.
#[test]
fn services_keep_off_the_terminal_of_the_program() {
    let volume = Volume::with_gateways(&["coder"]);
    let script = format!(
        "until grep -qs 'messaging platforms enabled' {CURRENT}; do sleep 0.1; done; echo all is written"
    );
    let (_container, mut session) = Run::new().volume(&volume).terminal(&script);
    let before = session.exp_string("all is written").expect("the end");
    assert!(!before.contains("messaging") && !before.contains("Hermes Gateway"), "{before}");
    session.exp_string("client ended with 0").expect("the exit code");
}

/// A client that stays attached and reads nothing: the pipe to it fills, then the engine's, then ours.
#[test]
fn a_stuck_reader_holds_up_nothing() {
    let volume = Volume::with_gateways(&["coder"]);
    let (container, mut client) = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).attached(&[]);
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("docker");
    eventually("the container runs", || (container.ctl(&["list"]).code == 0).then_some(()));
    let first = container.await_up(&["coder"]);
    container.ctl(&["register", "flood", "--user", "hermes", "--", "yes", &"x".repeat(200)]).ok();
    // Ten archives say that the file went on for 10 MB and more, far beyond every buffer in between.
    eventually("the flood fills its files", || {
        let listed = container.exec(&["ls", "/opt/data/logs/gateways/flood"]).out;
        (listed.lines().filter(|name| name.starts_with('@')).count() >= 10).then_some(())
    });

    container.exec_as("hermes", &["kill", "-KILL", &first.to_string()]).ok();
    eventually("another process runs", || container.pid("coder").filter(|pid| *pid != first));
    container.ctl(&["stop", "flood"]).ok();
    assert_eq!(container.pgrep("^yes"), "");
    container.ctl(&["shutdown"]);
    client.kill().expect("the client");
    client.wait().expect("the client");
}
