//! Rows about what the image prepares, where the supervisor has a part: what it writes, starts or hands on.
//! `test_home_override_scripts`, `test_gateway_bootstrap_state`, `test_log_dir_seed`, `test_docker_exec_privilege_drop`,
//! `test_stage2_browser_discovery`.

use crate::world::{World, boot_line, booted, on_both_mounts};

on_both_mounts! {
    home_override_workdir
    gateway_bootstrap_state_starts
    log_dir_seed
    exec_privilege_drop_readable
    browser_discovery_reaches_services
}

/// Contract: 16.
fn home_override_workdir(world: &World) {
    let out = world.run().flags(&["--workdir=/tmp"]).cmd(&["sh", "-c", "pwd"]).output().ok();
    assert_eq!(out.lines().last(), Some("/tmp"), "nothing may follow what the CMD prints: {out}");
}

/// What stage2 writes into a fresh volume is the first want of the gateway.
/// Contract: 48.
fn gateway_bootstrap_state_starts(world: &World) {
    let run =
        world.run().flags(&["--env=HERMES_GATEWAY_BOOTSTRAP_STATE=running"]).cmd(&["sleep", "infinity"]);
    let container = booted(run.supervised(), "default");
    let line = boot_line(&container, "default").expect("just seen");
    assert!(line.contains("prior_state=running") && line.contains("action=started"), "{line}");
    container.await_up(&["default"]);
}

/// Contract: 64.
fn log_dir_seed(world: &World) {
    // With a gateway, whose log is ours to write.
    let container = world.gateway();
    let owners = container
        .sh("cd /opt/data/logs; stat -c '%n %U' . gateways gateways/default gateways/default/current")
        .ok();
    let expected =
        [". hermes", "gateways hermes", "gateways/default hermes", "gateways/default/current hermes"];
    assert_eq!(owners.lines().collect::<Vec<_>>(), expected);
}

/// Nothing of ours in the volume is hidden from hermes, whose backup of it must be whole.
fn exec_privilege_drop_readable(world: &World) {
    let container = world.gateway();
    container.exec(&["hermes", "config", "set", "test.marker", "1"]).ok();
    let find = ["find", "/opt/data", "-maxdepth", "2", "-type", "f", "!", "-readable"];
    assert_eq!(container.exec_as("hermes", &find).ok(), "");
}

fn browser_discovery_reaches_services(world: &World) {
    let browser = "/opt/hermes/.playwright/chromium-1/chrome";
    let prepare = format!(
        "mkdir -p {}; echo '#!/bin/sh' >{browser}; chmod 755 {browser}; exec /init /opt/hermes/docker/main-wrapper.sh \"$@\"",
        browser.rsplit_once('/').expect("a path").0
    );
    let cmd = ["-euc", &prepare, "sh", "gateway", "run"];
    let container = booted(world.run().flags(&["--entrypoint=/bin/sh"]).cmd(&cmd).supervised(), "default");
    let pid = container.await_up(&["default"]);
    let file = "/run/s6/container_environment/AGENT_BROWSER_EXECUTABLE_PATH";
    assert_eq!(container.exec_as("hermes", &["cat", file]).ok(), browser);
    let environment = container.exec_as("hermes", &["cat", &format!("/proc/{pid}/environ")]).ok();
    let variable = format!("AGENT_BROWSER_EXECUTABLE_PATH={browser}");
    assert!(environment.split('\0').any(|line| line == variable), "{environment}");
}
