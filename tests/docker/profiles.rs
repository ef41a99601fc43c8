//! Profiles as `hermes` and the host make, rename and remove them, beside the services of the same image.

use crate::harness::*;

/// `supervisor`, `gateway`, `main-hermes` and `dashboard` are legal names of profiles. They were refused a gateway, and
/// what was said to `gateway-dashboard` reached the dashboard.
#[test]
fn a_profile_called_like_a_service_has_a_gateway_of_its_own() {
    let container = Run::new().flags(&["--env=HERMES_DASHBOARD=1", "--env=HERMES_DASHBOARD_HOST=127.0.0.1"]);
    let container = container.cmd(&["sleep", "infinity"]).supervised();
    let dashboard = container.await_up(&["dashboard"]);
    container.hermes(&["profile", "create", "dashboard"]).ok();
    container.hermes(&["-p", "dashboard", "gateway", "start"]).ok();
    let gateway = container.await_up(&["gateway-dashboard"]);
    assert_ne!(gateway, dashboard);
    let args = container.sh(&format!("tr '\\0' ' ' </proc/{gateway}/cmdline")).ok();
    assert!(args.contains("-p dashboard gateway run"), "{args}");
    container.hermes(&["-p", "dashboard", "gateway", "stop"]).ok();
    container.await_state("gateway-dashboard", "down");
    container.ctl(&["start", "gateway-dashboard"]).ok();
    container.hermes(&["profile", "delete", "dashboard", "--yes"]).ok();
    eventually("its gateway is gone", || {
        (!container.ctl(&["list"]).ok().lines().any(|name| name == "gateway-dashboard")).then_some(())
    });
    assert_eq!(container.ctl(&["stop", "gateway-dashboard"]).code, 4, "there is none any more");
    assert_eq!(container.pid("dashboard"), Some(dashboard), "the dashboard was touched");
}

/// With the slots of the s6 surface, which are by name as well.
#[test]
fn a_directory_that_is_moved_from_outside_takes_its_gateway_along() {
    let volume = Volume::with_gateways(&["coder"]);
    let container = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).supervised();
    let pid = container.await_up(&["coder"]);
    volume.sh("hermes", "mv profiles/coder profiles/writer");
    assert_ne!(container.await_up(&["writer"]), pid);
    let listed = container.ctl(&["list"]).ok();
    assert!(!listed.lines().any(|name| name == "coder"), "{listed}");
    assert_eq!(container.pgrep("gateway run").lines().count(), 1, "one gateway for one directory");
    volume.sh("hermes", "mv profiles/writer away");
    eventually("it ends", || container.pgrep("gateway run").is_empty().then_some(()));
    eventually("its slot goes", || {
        container.has("-e", "/run/service/gateway-writer").then_some(()).xor(Some(()))
    });
    let listed = container.ctl(&["list"]).ok();
    assert!(!listed.lines().any(|name| name == "writer"), "{listed}");
}

/// From the second boot on a supervised gateway and that of the container's own command killed each other.
#[test]
fn a_wrapper_keeps_its_gateway_to_itself_at_every_boot() {
    let wrappers: [&[&str]; 3] = [
        &["sh", "-c", "hermes gateway run --no-supervise --replace; exit"],
        &["env", "HERMES_GATEWAY_NO_SUPERVISE=1", "hermes", "gateway", "run", "--replace"],
        &["python", "-m", "hermes_cli.main", "gateway", "run", "--no-supervise"],
    ];
    for wrapper in wrappers {
        let volume = Volume::new();
        for _ in 0..2 {
            let container = Run::new().volume(&volume).cmd(wrapper).supervised();
            let says = "grep -s '\"gateway_state\": *\"running\"' /opt/data/gateway_state.json";
            eventually("it runs", || (container.sh(says).code == 0).then_some(()));
            assert_eq!(container.state("default"), "down", "{wrapper:?}");
            assert_eq!(container.service("default")["want"], "down", "{wrapper:?}");
            container.stop();
        }
    }
}

/// Where an operator wanted the profile up as well, the supervised gateway was there first, `hermes` refused to run a second
/// one, and the container ended with that. The direct form has always held it down.
#[test]
fn a_wrapper_has_its_gateway_also_where_the_service_is_wanted_up() {
    let wrappers: [(&[&str], &[&str]); 5] = [
        (&[], &["sh", "-c", "hermes gateway run --no-supervise; exit"]),
        (&[], &["bash", "-c", "hermes gateway run --no-supervise & wait"]),
        (&[], &["env", "HERMES_GATEWAY_NO_SUPERVISE=1", "hermes", "gateway", "run"]),
        (&[], &["hermes", "--yolo", "gateway", "run", "--no-supervise"]),
        (&["--init"], &["sh", "-c", "hermes gateway run; exit"]),
    ];
    for (flags, wrapper) in wrappers {
        let volume = Volume::new();
        let operator = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).supervised();
        operator.ctl(&["start", "default"]).ok();
        drop(operator);
        for _ in 0..2 {
            let container = Run::new().volume(&volume).flags(flags).cmd(wrapper).supervised();
            let runs = "python3 -c \"import json; record = json.load(open('/opt/data/gateway.lock')); \
                        words = open('/proc/%d/cmdline' % record['pid']).read(); exit('gateway' not in words)\"";
            eventually("it has the lock", || (container.sh(runs).code == 0).then_some(()));
            let row = container.service("default");
            assert_eq!((&row["want"], &row["state"]), (&"up".into(), &"down".into()), "{wrapper:?}: {row}");
            let reason = row["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("as the container's main program"), "{wrapper:?}: {row}");
            assert_eq!(row["restarts"], 0, "{wrapper:?}: {row}");
            assert_eq!(container.inspect("{{.State.Running}}"), "true", "{wrapper:?}: {}", container.logs());
            container.stop();
        }
    }
}
