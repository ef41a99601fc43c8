//! `test_dashboard`, and what `test_home_override_scripts` asks of the dashboard.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::*;
use crate::world::{PORT, World, on_both_mounts};

on_both_mounts! {
    dashboard_default_off
    dashboard_slot_down
    dashboard_slot_up
    dashboard_opt_in
    dashboard_port
    dashboard_restart
    dashboard_oauth_gate
    dashboard_insecure_ignored
    home_override_dashboard_home
    home_override_no_insecure
}

/// The pids that a person finds, the smallest first.
fn pids(container: &Container) -> Vec<String> {
    let found = container.exec_as("hermes", &["pgrep", "--full", "hermes dashboard"]).out;
    found.split_whitespace().map(String::from).collect()
}

#[track_caller]
fn first_pid(container: &Container) -> String {
    eventually("the dashboard runs", || pids(container).first().cloned())
}

/// Status and body of a page of the dashboard, once something answers there.
#[track_caller]
fn page(container: &Container, path: &str) -> (u16, Value) {
    let (status, body) =
        eventually(&format!("the dashboard answers {path}"), || try_page(container, 9119, path));
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn try_page(container: &Container, port: u16, path: &str) -> Option<(u16, String)> {
    let get = format!(
        "import http.client
connection = http.client.HTTPConnection('127.0.0.1', {port}, timeout=10)
connection.request('GET', '{path}')
answer = connection.getresponse()
print(answer.status, answer.read().decode())"
    );
    let answer = container.exec_as("hermes", &["python3", "-c", &get]);
    let (status, body) = answer.out.split_once(' ')?;
    Some((status.parse().ok()?, body.to_string()))
}

/// Not even the command line of something of ours is taken for one.
fn dashboard_default_off(world: &World) {
    let container = world.idle();
    assert!(pids(container).is_empty(), "{}", container.pgrep("hermes dashboard"));
}

/// Contract: 57, 59.
fn dashboard_slot_down(world: &World) {
    let status = world.idle().svstat("dashboard");
    assert!(status.starts_with("down "), "{status}");
    assert!(!world.idle().wants_up("dashboard"), "{status}");
}

/// Contract: 57, 59.
fn dashboard_slot_up(world: &World) {
    world.dashboard().await_svstat("dashboard", "up ");
}

/// Contract: 59.
fn dashboard_opt_in(world: &World) {
    let container = world.dashboard();
    let pid = first_pid(container);
    let user = container.exec_as("hermes", &["ps", "-o", "user=", "-p", &pid]).out;
    assert_eq!(user.trim(), "hermes");
}

/// Contract: 59.
fn dashboard_port(world: &World) {
    let container = world.dashboard();
    let listening = format!(":{PORT:04X} ");
    eventually("somebody listens on the port", || {
        let sockets = container.exec_as("hermes", &["cat", "/proc/net/tcp", "/proc/net/tcp6"]).out;
        let is_it = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words
                .get(1)
                .is_some_and(|local| local.starts_with("00000000") && local.ends_with(listening.trim_end()))
                && words.get(3) == Some(&"0A")
        };
        sockets.lines().any(is_it).then_some(())
    });
}

fn dashboard_restart(world: &World) {
    let container = world.dashboard();
    let first = first_pid(container);
    container.exec_as("hermes", &["kill", "-9", &first]).ok();
    let killed = Instant::now();
    eventually("another dashboard runs", || pids(container).first().filter(|pid| **pid != first).cloned());
    assert!(killed.elapsed() < Duration::from_secs(15), "upstream waits no longer");
}

/// Contract: 60.
fn dashboard_oauth_gate(world: &World) {
    let flags = [
        "--env=HERMES_DASHBOARD=1",
        "--env=HERMES_DASHBOARD_HOST=0.0.0.0",
        "--env=HERMES_DASHBOARD_OAUTH_CLIENT_ID=agent:test",
    ];
    let container = world.run().flags(&flags).cmd(&["sleep", "infinity"]).supervised();
    let (status, providers) = page(&container, "/api/auth/providers");
    assert_eq!(status, 200, "{providers}");
    let names: Vec<&Value> =
        providers["providers"].as_array().expect("a list").iter().map(|provider| &provider["name"]).collect();
    assert!(names.iter().any(|name| **name == "nous"), "{providers}");
    let (status, sessions) = page(&container, "/api/sessions");
    assert_eq!(status, 401, "{sessions}");
    let (status, shown) = page(&container, "/api/status");
    assert_eq!((status, &shown["auth_required"]), (200, &Value::Bool(true)), "{shown}");
}

/// It refuses to listen, time and again, and never answers.
/// Contract: 59, 60.
fn dashboard_insecure_ignored(world: &World) {
    let flags = [
        "--env=HERMES_DASHBOARD=1",
        "--env=HERMES_DASHBOARD_HOST=0.0.0.0",
        "--env=HERMES_DASHBOARD_INSECURE=1",
    ];
    let container = world.run().flags(&flags).cmd(&["sleep", "infinity"]).supervised();
    eventually("it has been refused twice", || {
        assert_eq!(try_page(&container, 9119, "/api/status"), None, "{}", container.logs());
        (container.logs().matches("Refusing to bind").count() >= 2).then_some(())
    });
}

/// What is in the environment or the command line of the dashboard.
fn read(container: &Container, file: &str) -> Vec<String> {
    eventually("the dashboard can be looked at", || {
        let path = format!("/proc/{}/{file}", first_pid(container));
        let words = container.exec_as("hermes", &["cat", &path]).out;
        let words: Vec<String> = words.split('\0').map(String::from).collect();
        (words.len() > 1).then_some(words)
    })
}

fn home_override_dashboard_home(world: &World) {
    let environment = read(world.dashboard(), "environ");
    assert!(environment.iter().any(|line| line == "HOME=/opt/data"), "{environment:?}");
}

fn home_override_no_insecure(world: &World) {
    let words = read(world.dashboard(), "cmdline");
    assert!(words.iter().any(|word| word == "0.0.0.0"), "{words:?}");
    assert!(!words.iter().any(|word| word == "--insecure"), "{words:?}");
}
