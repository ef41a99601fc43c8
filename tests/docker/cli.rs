//! The unmodified Hermes CLI inside the container: what its commands do to gateways, say and remember (items 73 to 88 of
//! the image's contract). The rows of its own suite are in `upstream`; the gates of the redirect, the code of a gateway
//! in the foreground and `gateway` without a word behind it in `entrypoint`.

use serde_json::{Value, json};

use crate::harness::*;
use crate::world::{PLAIN, await_gateway_state, booted, gateway_state, home_of};

fn gateway(container: &Container, profile: &str, words: &[&str]) -> Outcome {
    container.hermes(&[&["-p", profile, "gateway"], words].concat())
}

/// A profile of this test alone in the container that the tests share.
#[track_caller]
fn profile(name: &str) -> &'static Container {
    let container = PLAIN.idle();
    container.hermes(&["profile", "create", name]).ok();
    container
}

#[test]
fn items_73_and_82_verbs_are_silent_and_the_intent_is_durable() {
    let container = profile("verbs");
    // What others have written into the file is theirs.
    container.sh(&format!("echo '{{\"theirs\": 7}}' >{}/gateway_state.json", home_of("verbs"))).ok();
    let mut last = None;
    for (verb, desired, up) in
        [("start", "running", true), ("restart", "running", true), ("stop", "stopped", false)]
    {
        assert_eq!(gateway(container, "verbs", &[verb]).ok(), "", "{verb}");
        assert_eq!(container.pid("verbs").is_some(), up, "{verb} is done when it returns");
        if up {
            assert_ne!(container.pid("verbs"), last, "{verb}: a process of its own");
            last = container.pid("verbs");
        }
        let state = gateway_state(container, "verbs");
        assert_eq!(state["desired_state"], desired, "{state}");
        assert!(state["updated_at"].is_number() || state["updated_at"].is_string(), "{state}");
    }
    let state = gateway_state(container, "verbs");
    assert!(state["updated_at"].is_i64(), "a whole number of seconds, by either writer: {state}");
    assert!(!container.has("-e", &format!("{}/gateway_state.json.tmp", home_of("verbs"))));
}

/// No gateway has ever run that could have written the file anew.
#[test]
fn item_82_the_intent_keeps_the_other_keys() {
    let container = profile("keeper");
    container.sh(&format!("echo '{{\"theirs\": 7}}' >{}/gateway_state.json", home_of("keeper"))).ok();
    gateway(container, "keeper", &["stop"]).ok();
    let state = gateway_state(container, "keeper");
    assert_eq!((&state["theirs"], &state["desired_state"]), (&json!(7), &json!("stopped")), "{state}");
}

#[test]
fn item_74_a_gateway_that_is_not_there_is_named() {
    let container = PLAIN.idle();
    let typo = gateway(container, "typo", &["start"]);
    assert_eq!(typo.code, 1, "{typo:#?}");
    assert!((typo.out + &typo.err).contains("Profile 'typo' does not exist"));
    // A profile that was never registered: without a soul it is none.
    container.sh("mkdir -p /opt/data/profiles/soulless").ok();
    for verb in ["start", "stop", "restart"] {
        let missing = gateway(container, "soulless", &[verb]);
        assert_eq!(missing.code, 1, "{missing:#?}");
        assert!(missing.out.starts_with("✗ no such gateway 'soulless'"), "{missing:#?}");
        assert!(missing.out.contains("hermes profile create soulless"), "{missing:#?}");
    }
    assert_eq!(
        gateway_state(container, "soulless"),
        Value::Null,
        "nothing was done, so nothing is remembered"
    );
}

/// A slot whose script cannot be executed: unlike s6, the supervisor knows and says so.
#[test]
fn item_75_a_failure_is_told_in_words() {
    let container = profile("broken");
    container.sh("chmod 644 /run/service/gateway-broken/run").ok();
    let failed = gateway(container, "broken", &["start"]);
    assert_eq!(failed.code, 1, "{failed:#?}");
    assert!(failed.out.starts_with("✗ s6-svc start on 'gateway-broken' failed (rc="), "{failed:#?}");
    assert!(failed.out.contains("Permission denied"), "{failed:#?}");
    container.sh("chmod 755 /run/service/gateway-broken/run").ok();
    gateway(container, "broken", &["start"]).ok();
    container.await_up(&["broken"]);
}

#[test]
fn item_76_all_of_them() {
    let volume = Volume::with_gateways(&["coder", "writer"]);
    let container = booted(PLAIN.run().volume(&volume).cmd(&["sleep", "infinity"]).supervised(), "writer");
    container.await_up(&["coder", "writer"]);
    let before = ["coder", "writer"].map(|name| container.pid(name));

    let said = container.hermes(&["gateway", "restart", "--all"]).ok();
    assert_eq!(said.trim(), "✓ Restarted 3 profile gateway(s) under s6");
    container.await_up(&["coder", "writer", "default"]);
    let after = ["coder", "writer"].map(|name| container.pid(name));
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    for name in ["coder", "writer", "default"] {
        // Before it can take a signal, it knows nothing of plans.
        await_gateway_state(&container, name, "running");
    }

    let said = container.hermes(&["gateway", "stop", "--all"]).ok();
    assert_eq!(said.trim(), "✓ Stopped 3 profile gateway(s) under s6");
    for name in ["coder", "writer", "default"] {
        let service = container.service(name);
        assert_eq!((&service["want"], &service["state"]), (&json!("down"), &json!("down")), "{service}");
        // Each has the marker in its own home: the supervisor writes it for every caller.
        assert_eq!(service["last_exit"]["code"], 0, "an accident for {name}: {service}");
    }
    assert_eq!(container.pgrep("gateway run"), "");
}

/// A container for the dashboard has no gateways.
#[test]
fn item_76_none_of_them() {
    let container = PLAIN.run().cmd(&["dashboard", "--host", "127.0.0.1", "--no-open"]).detach();
    container.await_log("HERMES_DASHBOARD_READY");
    assert!(container.logs().contains("reconcile: skipping (dashboard container"), "{}", container.logs());
    let said = container.hermes(&["gateway", "stop", "--all"]).ok();
    assert_eq!(said.trim(), "✗ No profile gateways registered under s6");
}

/// A tool of an agent cannot take its own gateway down.
#[test]
fn item_77_not_from_inside_a_gateway() {
    let container = profile("inside");
    gateway(container, "inside", &["start"]).ok();
    let pid = container.await_up(&["inside"]);
    for verb in ["stop", "restart"] {
        let id = container.id();
        let exec = ["exec", "--user=hermes", "--env=_HERMES_GATEWAY=1", &id];
        let refused = docker(&[&exec[..], &["hermes", "-p", "inside", "gateway", verb]].concat());
        assert_eq!(refused.code, 1, "{refused:#?}");
    }
    assert_eq!(container.pid("inside"), Some(pid));
}

#[test]
fn item_78_there_is_nothing_to_install() {
    for (verb, words) in [("install", "auto-registered"), ("uninstall", "auto-unregistered")] {
        let said = PLAIN.idle().hermes(&["gateway", verb]).ok();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn item_79_a_profile_comes_down_and_takes_its_slot_along() {
    let container = PLAIN.idle();
    let said = container.hermes(&["profile", "create", "brief"]).ok();
    assert!(!said.contains('⚠') || !said.contains("s6"), "{said}");
    let service = container.service("brief");
    assert_eq!((&service["want"], &service["state"]), (&json!("down"), &json!("down")), "{service}");
    assert!(container.has("-f", "/run/service/gateway-brief/down"));
    let said = container.hermes(&["profile", "delete", "brief", "--yes"]).ok();
    assert!(!said.contains("Could not unregister"), "{said}");
    assert!(!container.has("-e", "/run/service/gateway-brief"));
    assert_eq!(container.ctl(&["status", "brief"]).code, 4);
}

#[test]
fn item_81_status_and_doctor_see_s6() {
    let container = profile("seen");
    gateway(container, "seen", &["start"]).ok();
    let status = container.hermes(&["status"]).ok();
    assert!(status.contains("s6 (container supervisor)"), "{status}");
    let doctor = container.hermes(&["doctor"]).out;
    let section = doctor.split_once("s6 Supervision").expect("its section").1;
    assert!(section.contains("main-hermes: up"), "{section}");
    assert!(section.contains("dashboard: down"), "{section}");
    let count = section.split_once("Per-profile gateways: ").expect("the count").1;
    let (up, total) = count.split_once(' ').expect("words").0.split_once('/').expect("of how many");
    let (up, total): (u32, u32) = (up.parse().expect("a number"), total.parse().expect("a number"));
    assert!(1 <= up && up <= total && total >= 2, "{count}");
}

/// The marker reaches the gateway before the signal, so its end is a planned one (P1 of the pains of s6: there it never
/// is).
#[test]
fn item_83_a_stop_is_a_planned_one() {
    let container = profile("planned");
    gateway(container, "planned", &["start"]).ok();
    await_gateway_state(container, "planned", "running");
    gateway(container, "planned", &["stop"]).ok();
    let service = container.service("planned");
    assert_eq!(service["last_exit"]["code"], 0, "{service}");
    let state = gateway_state(container, "planned");
    assert_eq!(
        (&state["gateway_state"], &state["desired_state"]),
        (&json!("stopped"), &json!("stopped")),
        "{state}"
    );
    assert!(!container.has("-e", &format!("{}/.gateway-planned-stop.json", home_of("planned"))));
}

#[test]
fn item_85_the_breadcrumb_and_the_intent_of_the_redirect() {
    let container = PLAIN.gateway();
    let err = docker(&["logs", &container.id()]).err;
    let start = "→ gateway is now running under s6 supervision (auto-restart on crash,";
    assert!(err.lines().any(|line| line.starts_with(start)), "{err}");
    assert!(err.contains("HERMES_GATEWAY_NO_SUPERVISE=1"), "{err}");
    assert_eq!(gateway_state(container, "default")["desired_state"], "running");
}

/// The profile comes before everything else in the CMD, as in every other command of hermes.
#[test]
fn item_85_the_redirect_of_a_profile() {
    let volume = Volume::with_gateways(&["coder"]);
    volume.sh("hermes", "rm profiles/coder/gateway_state.json");
    let container = Run::new().volume(&volume).cmd(&["-p", "coder", "gateway", "run"]).supervised();
    container.await_log("s6 supervision");
    container.await_up(&["coder"]);
    assert_eq!(container.state("default"), "down", "only the profile that was asked for");
}

/// An image without it.
#[test]
fn item_86_without_sleep_the_place_is_kept_all_the_same() {
    let prepare =
        "rm /opt/hermes/bin/sleep /usr/bin/sleep; exec /init /opt/hermes/docker/main-wrapper.sh gateway run";
    let container = Run::new().flags(&["--entrypoint=/bin/sh"]).cmd(&["-euc", prepare]).supervised();
    container.await_log("`sleep` is unavailable");
    container.await_up(&["default"]);
    container.stop();
    assert_eq!(container.wait(), 0, "{}", container.logs());
}

#[test]
fn item_87_the_sleep_is_the_life_of_the_container_and_a_gateway_is_not() {
    let container = booted(Run::new().cmd(&["gateway", "run"]).supervised(), "default");
    container.await_log("--no-supervise");
    let first = container.await_up(&["default"]);
    eventually("the place is kept", || (container.heartbeats() == 1).then_some(()));

    container.exec_as("hermes", &["kill", "-KILL", &first.to_string()]).ok();
    eventually("another process runs", || container.pid("default").filter(|pid| *pid != first));
    assert_eq!(container.inspect("{{.State.Status}}"), "running");

    container.exec_as("hermes", &["pkill", "--exact", "sleep"]);
    assert_eq!(container.wait(), 128 + 15, "{}", container.logs());
}
