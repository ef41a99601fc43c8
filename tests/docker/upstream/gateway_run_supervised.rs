//! `test_gateway_run_supervised`: `gateway run` as the container's program. With us as PID 1 it is the unmodified CLI that
//! redirects it.

use crate::harness::*;
use crate::world::{World, booted, on_both_mounts};

on_both_mounts! {
    gateway_run_redirect
    gateway_run_flag_opt_out
    gateway_run_env_opt_out
    gateway_run_no_recursion
    gateway_run_dashboard_too
    gateway_run_stdout_tee
}

/// Contract: 85.
fn gateway_run_redirect(world: &World) {
    let container = world.gateway();
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    assert!(container.wants_up("gateway-default"), "{}", container.svstat("gateway-default"));
    assert_eq!(container.heartbeats(), 1, "{}", container.pgrep("."));
    let logs = container.logs();
    assert!(logs.contains("s6 supervision") && logs.contains("--no-supervise"), "{logs}");
    assert_eq!(container.service("default")["containment"], world.variant.rung);
}

/// Contract: 84, 88.
fn gateway_run_flag_opt_out(world: &World) {
    in_the_foreground(world.run().cmd(&["gateway", "run", "--no-supervise"]));
}

/// Contract: 84, 88.
fn gateway_run_env_opt_out(world: &World) {
    in_the_foreground(world.run().flags(&["--env=HERMES_GATEWAY_NO_SUPERVISE=1"]).cmd(&["gateway", "run"]));
}

fn in_the_foreground(run: Run) {
    let container = booted(run.supervised(), "default");
    container.await_log("Hermes Gateway Starting");
    assert!(!container.logs().contains("s6 supervision"), "{}", container.logs());
    assert_eq!(container.heartbeats(), 0, "{}", container.pgrep("."));
    assert!(!container.wants_up("gateway-default"), "{}", container.svstat("gateway-default"));
    let gateways = container.pgrep("python.*hermes.*gateway run");
    assert_eq!(gateways.lines().count(), 1, "{gateways}");
}

/// Contract: 65.
fn gateway_run_no_recursion(world: &World) {
    let container = world.gateway();
    // Without the command line of PID 1, which keeps the CMD.
    let gateways = container.pgrep("python.*hermes.*gateway run");
    assert!(gateways.lines().count() <= 1, "{gateways}");
    assert_eq!(container.heartbeats(), 1, "{}", container.pgrep("."));
}

fn gateway_run_dashboard_too(world: &World) {
    let run = world.run().flags(&["--env=HERMES_DASHBOARD=1"]).cmd(&["gateway", "run"]);
    let container = booted(run.supervised(), "default");
    container.await_log("s6 supervision");
    for slot in ["gateway-default", "dashboard"] {
        eventually(&format!("{slot} is wanted up"), || container.wants_up(slot).then_some(()));
    }
}

/// Contract: 71.
fn gateway_run_stdout_tee(world: &World) {
    let container = world.gateway();
    container.await_log("⚕");
    let current = "/opt/data/logs/gateways/default/current";
    eventually("the banner is in the file too", || {
        container.exec_as("hermes", &["cat", current]).out.contains('⚕').then_some(())
    });
}
