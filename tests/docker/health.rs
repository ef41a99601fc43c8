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

/// In the words of the built-in template, with a watchdog that the gateway feeds from its event loop.
const WATCHED: &str = r#"command = ["hermes", "-p", "{profile}", "gateway", "run", "--replace"]
autostart = false
[env]
HOME = "{home}"
HERMES_HOME = "{home}"
HERMES_S6_SUPERVISED_CHILD = "1"
HERMES_SUPERVISED_CHILD = "1"
HERMES_GATEWAY_MAX_STARTS = "0"
[health]
kind = "watchdog"
timeout = "8s"
"#;

/// Hangs in its event loop, once, in the way that a file asks for.
const HANGING: &str = r#"
import asyncio, os, time

async def watch():
    while True:
        await asyncio.sleep(0.1)
        if os.path.exists("/tmp/wait"):
            os.unlink("/tmp/wait")
            time.sleep(3600)
        if os.path.exists("/tmp/spin"):
            os.unlink("/tmp/spin")
            while True:
                pass

asyncio.get_event_loop().create_task(watch())
"#;

/// A supervisor that counted the pause would have restarted every gateway of the machine at its end.
#[test]
fn a_paused_container_restarts_nothing_and_a_gateway_that_hangs_is_restarted() {
    const LONGER_THAN_ALL: &str = "20";
    let volume = Volume::with_gateways(&["coder"]);
    volume.hook("coder", HANGING);
    volume.sh(
        "hermes",
        &format!(
            "printf 'gateway:\\n  systemd_watchdog_seconds: 8\\n' >profiles/coder/config.yaml
             mkdir -p services; cat >services/gateway.toml <<'END'\n{WATCHED}\nEND"
        ),
    );
    let container = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).supervised();
    let mut pid = container.await_up(&["coder"]);
    let healthy = || {
        eventually("the gateway has fed its watchdog", || {
            let service = container.service("coder");
            (service["health"]["state"] == "healthy").then_some(service)
        })
    };
    healthy();
    docker(&["pause", &container.id()]).ok();
    Run::new().flags(&["--entrypoint=sleep"]).cmd(&[LONGER_THAN_ALL]).output().ok();
    docker(&["unpause", &container.id()]).ok();
    container.await_log("the supervisor did not run for");
    for (count, how) in ["stop", "wait", "spin"].iter().enumerate() {
        let service = healthy();
        assert_eq!(
            (service["pid"].as_u64(), &service["restarts"]),
            (Some(pid), &count.into()),
            "{}",
            container.logs()
        );
        match *how {
            "stop" => container.ctl(&["kill", "coder", "STOP"]).ok(),
            file => container.sh(&format!("touch /tmp/{file}")).ok(),
        };
        pid = eventually(&format!("the gateway that hangs ({how}) is restarted"), || {
            let service = container.service("coder");
            service["pid"].as_u64().filter(|new| *new != pid && service["state"] == "up")
        });
    }
    let logs = container.logs();
    assert_eq!(logs.matches("coder: unhealthy: watchdog: no WATCHDOG=1 for 8s").count(), 3, "{logs}");
}
