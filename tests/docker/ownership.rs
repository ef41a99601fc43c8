//! Who runs the gateways of a volume that several containers use: what their commands say. The table is in
//! docker/README.md.

use crate::harness::*;

fn programs(volume: &Volume) -> Container {
    Run::new().volume(volume).cmd(&["sleep", "infinity"]).supervised()
}

/// A container with `sleep infinity` was started while the gateway container was away for a moment: it ran the gateways
/// from then on, and the gateway container was refused with exit 1 for as long as the other one lived.
#[test]
fn a_gateway_container_takes_over_from_one_with_another_program() {
    let volume = Volume::with_gateways(&["coder"]);
    let other = programs(&volume);
    other.await_up(&["coder"]);

    let owner = Run::new().volume(&volume).flags(&["--hostname=owner"]).cmd(&["gateway", "run"]).supervised();
    owner.await_up(&["coder", "default"]);

    let said = other.await_log("takes over");
    assert!(said.lines().any(|line| line.contains("takes over") && line.contains("\"owner\"")), "{said}");
    assert_eq!(other.inspect("{{.State.Running}}"), "true", "its own program goes on");
    assert_eq!(other.ctl(&["status"]).code, 5, "nothing supervises there any more");
    let left = other.sh("ps -eo args=").ok();
    assert!(!left.contains("gateway run") && !left.contains("fork-server"), "{left}");

    let second = Run::new().volume(&volume).cmd(&["gateway", "run"]).output();
    assert_eq!(second.code, 1, "who is there for the gateways gives nothing up: {second:?}");
    assert!(second.err.contains("owner"), "{second:?}");

    // It ends as any other container.
    other.stop();
    assert_eq!(other.inspect("{{.State.ExitCode}}"), "0");
    drop(owner);
    docker(&["start", &other.id()]).ok();
    other.await_supervisor();
    other.await_up(&["coder", "default"]);
}

/// With its state in another place it did not hear that somebody came for the gateways of its home.
#[test]
fn a_gateway_container_takes_over_wherever_either_has_its_state() {
    let elsewhere = ["--env=HERMES_SUP_STATE=/opt/data/elsewhere"];
    for (first, second) in [(&elsewhere[..], &[][..]), (&[], &elsewhere)] {
        let volume = Volume::with_gateways(&["coder"]);
        let other = Run::new().volume(&volume).flags(first).cmd(&["sleep", "infinity"]).supervised();
        other.await_up(&["coder"]);
        let owner = Run::new().volume(&volume).flags(second).cmd(&["gateway", "run"]).supervised();
        owner.await_up(&["coder", "default"]);
        other.await_log("takes over");
        assert_eq!(other.inspect("{{.State.Running}}"), "true", "its own program goes on");
        let left = other.sh("ps -eo args=").ok();
        assert!(!left.contains("gateway run"), "{left}");
    }
}

/// `docker run --rm … --version` beside nothing started every gateway that was wanted, for a moment, and mixed the lines of
/// boot and scripts into what it printed.
#[test]
fn a_command_of_hermes_starts_no_gateway_and_prints_nothing_of_ours() {
    let volume = Volume::with_gateways(&["coder"]);
    for cmd in [&["--version"][..], &["profile", "list"], &["gateway", "status"]] {
        let outcome = Run::new().volume(&volume).cmd(cmd).output();
        assert_eq!(outcome.code, 0, "{cmd:?}: {outcome:?}");
        for ours in ["[stage2]", "reconcile:", "hermes-sup", "cont-init"] {
            assert!(!outcome.out.contains(ours), "{cmd:?}: {ours}: {outcome:?}");
        }
        assert!(outcome.err.contains("[stage2] Setup complete"), "{cmd:?}: {outcome:?}");
    }
    let logs = volume.sh("hermes", "ls logs/gateways/coder profiles/coder/logs 2>&1 || true");
    assert!(!logs.contains("current") && !logs.contains("gateway.log"), "it ran: {logs}");
    // The want is what it was: the container that is there for the gateways runs it.
    let owner = Run::new().volume(&volume).cmd(&["gateway", "run"]).supervised();
    owner.await_up(&["coder"]);
}

#[test]
fn gateways_can_be_switched_off_for_a_container() {
    let volume = Volume::with_gateways(&["coder"]);
    let off = ["--env=HERMES_SUP_GATEWAYS=off"];
    let both = Run::new().volume(&volume).flags(&off).cmd(&["gateway", "run"]).output();
    assert_eq!(both.code, 1, "{both:?}");
    assert!(both.err.contains("contradict each other"), "{both:?}");

    let container = Run::new().volume(&volume).flags(&off).cmd(&["sleep", "infinity"]).supervised();
    let started = container.ctl(&["start", "coder"]);
    assert_eq!(started.code, 1, "{started:?}");
    assert!(started.err.contains("HERMES_SUP_GATEWAYS=off"), "{started:?}");
    assert_eq!(container.state("coder"), "down");

    let owner = Run::new().volume(&volume).cmd(&["gateway", "run"]).supervised();
    owner.await_up(&["coder"]);
}

/// Somebody's `hermes profile use coder` made each boot of the container start coder, also when it had been stopped.
#[test]
fn a_sticky_profile_is_not_what_the_command_means() {
    let volume = Volume::with_gateways(&["coder"]);
    let boot = || Run::new().volume(&volume).cmd(&["gateway", "run"]).supervised();
    let container = boot();
    container.await_up(&["default", "coder"]);
    container.hermes(&["profile", "use", "coder"]).ok();
    container.ctl(&["stop", "coder"]).ok();
    drop(container);
    for cmd in [&["gateway", "run"][..], &["hermes", "gateway", "run"]] {
        let container = Run::new().volume(&volume).cmd(cmd).supervised();
        container.await_up(&["default"]);
        // The command has had its say once its place waits.
        eventually("the command is done", || (container.heartbeats() == 1).then_some(()));
        assert_eq!(container.service("coder")["want"], "down", "{cmd:?}");
        assert_eq!(container.state("coder"), "down", "{cmd:?}");
    }
}
