//! What Prometheus and probes are told: over HTTP, and by `ctl metrics`; and what came of the boot.

use crate::harness::{Setup, World, wait};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Asks the supervisor's endpoint on a port of this machine: worlds have no network of their own.
#[track_caller]
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the endpoint");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// The address that the log names: the port is the kernel's choice.
fn address(world: &World) -> String {
    world.wait_stderr("metrics are served at http://");
    let stderr = world.stderr();
    let rest = stderr.rsplit("metrics are served at http://").next().expect("just seen");
    rest.split('/').next().expect("an address").to_owned()
}

#[track_caller]
fn promtool(words: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the package prometheus: install it");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its end");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{words:?}: {}\n{input}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_and_probes_are_answered_over_http() {
    let mut setup = Setup::plain();
    setup.supervisor.extend(["--metrics", "127.0.0.1:0"].map(Into::into));
    let mut world = World::new(setup);
    world.adversary("web", "pause", "");
    let supervisor = world.start();
    world.wait_state("web", &["up"]);
    let address = address(&world);
    let (status, page) = get(&address, "/metrics");
    assert_eq!(status, 200, "{page}");
    for line in [
        "hermes_sup_service_state{name=\"web\",state=\"up\"} 1",
        "hermes_sup_service_healthy{name=\"web\"} 1",
        "hermes_sup_service_tasks{name=\"web\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}:\n{page}");
    }
    promtool(&["check", "metrics"], &page);
    promtool(&["check", "metrics"], &world.ctl(&["metrics"]).ok());
    assert_eq!(get(&address, "/healthz").0, 200);
    assert_eq!(get(&address, "/readyz"), (200, "healthy: 1 service\n".to_owned()));
    world.ctl(&["freeze", "web"]).ok();
    let (status, why) = get(&address, "/readyz");
    assert_eq!((status, why.as_str()), (503, "unhealthy: web: up, frozen\n"));
    assert_eq!(get(&address, "/healthz").0, 200, "the supervisor itself is well");
    world.ctl(&["thaw", "web"]).ok();

    // Clients that say nothing, or rubbish, hold up neither the loop nor, for long, each other.
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&address).expect("connected")).collect();
    world.ctl(&["restart", "web"]).ok();
    drop(silent);
    assert_eq!(get(&address, "/healthz").0, 200);

    // Another program of the same process listens again.
    world.ctl(&["upgrade"]).ok();
    assert_eq!(world.state("web"), "up");
    wait::until("the endpoint of the new one", &world.outside(""), || {
        (world.stderr().matches("metrics are served at http://").count() == 2).then_some(())
    });
    assert_eq!(get(&self::address(&world), "/healthz").0, 200);
    drop(supervisor);
}

/// An address that is taken, or none of ours, keeps nothing from running.
#[test]
fn an_address_that_cannot_be_is_said_and_services_run() {
    let mut setup = Setup::plain();
    setup.supervisor.extend(["--metrics", "192.0.2.1:9633"].map(Into::into));
    let mut world = World::new(setup);
    world.adversary("web", "pause", "");
    let _supervisor = world.start();
    world.wait_state("web", &["up"]);
    let status = world.ctl(&["status"]).ok();
    assert!(status.contains("warning: metrics are not served: 192.0.2.1:9633"), "{status}");
}

#[test]
fn the_alert_rules_are_read_by_prometheus() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/metrics/alerts.yml");
    promtool(&["check", "rules", rules], "");
}

#[test]
fn boot_says_what_took_how_long_and_what_waited_for_what() {
    let mut world = World::new(Setup::plain());
    world.adversary("migrate", "exit 0", "type = \"oneshot\"");
    world.adversary("web", "pause", "requires = [\"migrate\"]");
    world.adversary("apart", "pause", "");
    let _supervisor = world.start();
    world.wait_state("web", &["up"]);
    world.wait_state("apart", &["up"]);
    let document = world.ctl(&["boot", "--json"]).json();
    assert_eq!(document["chain"], json!(["web", "migrate"]), "{document}");
    assert_eq!(document["services"].as_array().map(Vec::len), Some(3), "{document}");
    assert!(document["took_ms"].is_u64(), "{document}");
    let text = world.ctl(&["boot"]).ok();
    assert!(text.starts_with("3 services were started in "), "{text}");
    let svg = world.ctl(&["boot", "--svg"]).ok();
    assert!(svg.starts_with("<svg ") && svg.contains(">migrate (") && svg.ends_with("</svg>\n"), "{svg}");
    // A restart is no part of it.
    world.ctl(&["restart", "web"]).ok();
    assert_eq!(world.ctl(&["boot", "--json"]).json()["services"], document["services"]);
}
