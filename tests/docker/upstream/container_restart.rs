//! `test_container_restart`: what `docker restart` makes of gateways that ran, were stopped, or left files behind.

use crate::harness::*;
use crate::world::{World, boot_line, on_both_mounts};

on_both_mounts! {
    container_restart_running_survives
    container_restart_stopped_stays
    container_restart_stale_files
    container_restart_live_autostart
}

#[track_caller]
fn starts_again(container: &Container, profile: &str) {
    let line = boot_line(container, profile).expect("a line of the boot");
    assert!(line.contains("action=started"), "{line}");
    let slot = format!("/run/service/gateway-{profile}");
    assert!(container.has("-d", &slot));
    assert!(!container.has("-e", &format!("{slot}/down")));
    container.await_up(&[profile]);
}

/// Contract: 48.
fn container_restart_running_survives(world: &World) {
    starts_again(world.restarted(), "coder");
}

/// Contract: 48.
fn container_restart_stopped_stays(world: &World) {
    let container = world.restarted();
    let line = boot_line(container, "writer").expect("a line of the boot");
    assert!(line.contains("action=registered"), "{line}");
    assert!(container.has("-d", "/run/service/gateway-writer"));
    assert!(container.has("-f", "/run/service/gateway-writer/down"));
    assert!(!container.wants_up("gateway-writer"));
}

/// Contract: 49.
fn container_restart_stale_files(world: &World) {
    let container = world.restarted();
    assert!(!container.has("-e", "/opt/data/profiles/ghost/gateway.pid"));
    assert!(!container.has("-e", "/opt/data/profiles/ghost/processes.json"));
}

/// The SIGTERM of `docker restart` is no wish of anybody.
/// Contract: 106.
fn container_restart_live_autostart(world: &World) {
    starts_again(world.restarted(), "live");
}
