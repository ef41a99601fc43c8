//! Docker's own health of a container, by the HEALTHCHECK of the image.

use crate::harness::*;

/// `docker ps` said nothing of services that had failed, and who wanted that had to write and keep a list of names.
#[test]
fn docker_follows_the_health_of_the_services() {
    let volume = Volume::with_gateways(&["coder"]);
    let quick = ["--health-interval=1s", "--health-retries=1", "--health-start-period=0s"];
    let container = Run::new().volume(&volume).flags(&quick).cmd(&["sleep", "infinity"]).supervised();
    let becomes = |health: &str| {
        eventually(&format!("its health is {health}"), || {
            (container.inspect("{{.State.Health.Status}}") == health).then_some(())
        });
        container.inspect("{{json .State.Health.Log}}")
    };
    container.await_up(&["coder"]);
    let log = becomes("healthy");
    assert!(log.contains("healthy: "), "{log}");

    container
        .sh("mkdir -p /opt/data/services; echo 'command = [\"false\"]' >/opt/data/services/broken.toml")
        .ok();
    container.ctl(&["reload"]).ok();
    let log = becomes("unhealthy");
    assert!(log.contains("unhealthy: broken: "), "{log}");

    container.ctl(&["stop", "broken"]).ok();
    becomes("healthy");
    assert_eq!(container.exec(&["hermes-sup", "healthcheck", "--profile", "coder"]).code, 0);
}

/// The list of every engine's options was long, and which of them was ours was for the reader to know.
#[test]
fn doctor_names_docker_and_the_one_option_that_raises_the_rung() {
    let said = Run::new().cmd(&["hermes-sup", "doctor"]).output().ok();
    let line = "platform: Docker: for 'cgroup': --security-opt writable-cgroups=true (Docker 29 or later)\n";
    assert!(said.contains(line), "{said}");
}
