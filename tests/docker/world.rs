//! Containers that several tests look at, one set for each way to mount the cgroup tree: a boot and a start of the real
//! gateway cost seconds. A test changes only what is its own in them: a profile or a slot with its name.

use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::*;

pub static PLAIN: World = World::new(&crate::harness::PLAIN);
pub static CGROUP_RW: World = World::new(&crate::harness::CGROUP_RW);

/// Each scenario is a test on the read-only and on the writable cgroup mount.
macro_rules! on_both_mounts {
    ($($scenario:ident)*) => {
        mod plain {
            $(#[test] fn $scenario() { super::$scenario(&crate::world::PLAIN) })*
        }
        mod cgroup_rw {
            $(#[test] fn $scenario() { super::$scenario(&crate::world::CGROUP_RW) })*
        }
    };
}
pub(crate) use on_both_mounts;

/// The port of the dashboard in [`World::dashboard`].
pub const PORT: u16 = 9120;

pub struct World {
    pub variant: &'static Variant,
    idle: OnceLock<Container>,
    dashboard: OnceLock<Container>,
    gateway: OnceLock<Container>,
    restarted: OnceLock<Container>,
}

impl World {
    const fn new(variant: &'static Variant) -> Self {
        Self {
            variant,
            idle: OnceLock::new(),
            dashboard: OnceLock::new(),
            gateway: OnceLock::new(),
            restarted: OnceLock::new(),
        }
    }

    pub fn run(&self) -> Run {
        Run::new().variant(self.variant)
    }

    /// No gateway is wanted and no dashboard.
    pub fn idle(&self) -> &Container {
        self.idle.get_or_init(|| booted(self.run().cmd(&["sleep", "infinity"]).shared(), "default"))
    }

    /// The dashboard, with a login, on [`PORT`].
    pub fn dashboard(&self) -> &Container {
        let port = format!("--env=HERMES_DASHBOARD_PORT={PORT}");
        let flags = [
            "--env=HERMES_DASHBOARD=1",
            &port,
            "--env=HERMES_DASHBOARD_BASIC_AUTH_USERNAME=somebody",
            "--env=HERMES_DASHBOARD_BASIC_AUTH_PASSWORD=something",
        ];
        self.dashboard
            .get_or_init(|| booted(self.run().flags(&flags).cmd(&["sleep", "infinity"]).shared(), "default"))
    }

    /// The container's program is `gateway run`, and has become a supervised gateway.
    pub fn gateway(&self) -> &Container {
        self.gateway.get_or_init(|| {
            let container = booted(self.run().cmd(&["gateway", "run"]).shared(), "default");
            container.await_log("--no-supervise");
            container.await_up(&["default"]);
            container
        })
    }

    /// It has been restarted with four profiles: `coder` ran, `writer` was stopped, `ghost` had left files of a process
    /// that is gone, and of `live` nobody but the gateway itself has written anything.
    pub fn restarted(&self) -> &Container {
        self.restarted.get_or_init(|| {
            let container = booted(self.run().cmd(&["sleep", "infinity"]).shared(), "default");
            for profile in ["coder", "writer", "ghost", "live"] {
                container.hermes(&["profile", "create", profile]).ok();
            }
            for profile in ["coder", "live"] {
                container.hermes(&["-p", profile, "gateway", "start"]).ok();
                container.await_svstat(&format!("gateway-{profile}"), "up ");
            }
            await_gateway_state(&container, "live", "running");
            let stamp = "cd /opt/data/profiles
                echo '{\"gateway_state\": \"running\", \"timestamp\": 1}' >coder/gateway_state.json
                echo '{\"gateway_state\": \"stopped\", \"timestamp\": 1}' >writer/gateway_state.json
                cp writer/gateway_state.json ghost/
                echo '{\"pid\": 99999, \"host\": \"gone\"}' >ghost/gateway.pid
                echo '[]' >ghost/processes.json
                : >/opt/data/logs/container-boot.log";
            container.sh(stamp).ok();
            docker(&["restart", &container.id()]).ok();
            // In the order in which they are told of.
            let container = booted(container, "writer");
            container.await_supervisor();
            container
        })
    }
}

/// Waits for the line that says what the boot made of the profile. For the profile `default` it is what upstream's tests
/// wait for before they do anything.
#[track_caller]
pub fn booted(container: Container, profile: &str) -> Container {
    eventually(&format!("the boot has come to {profile}"), || boot_line(&container, profile));
    container
}

/// The last line about this profile in the log of the boots.
pub fn boot_line(container: &Container, profile: &str) -> Option<String> {
    let log = container.exec_as("hermes", &["cat", "/opt/data/logs/container-boot.log"]).out;
    log.lines().rfind(|line| line.contains(&format!("profile={profile} "))).map(String::from)
}

/// The directory of a profile.
pub fn home_of(profile: &str) -> String {
    if profile == "default" { "/opt/data".into() } else { format!("/opt/data/profiles/{profile}") }
}

/// What the gateway and the CLI have written about it; null before that.
pub fn gateway_state(container: &Container, profile: &str) -> Value {
    let file = format!("{}/gateway_state.json", home_of(profile));
    serde_json::from_str(&container.exec_as("hermes", &["cat", &file]).out).unwrap_or(Value::Null)
}

/// Waits until the gateway itself says so, in its present life.
#[track_caller]
pub fn await_gateway_state(container: &Container, profile: &str, state: &str) -> Value {
    eventually(&format!("the gateway of {profile} says that it is {state}"), || {
        let told = gateway_state(container, profile);
        let pid = told["pid"].as_u64();
        (told["gateway_state"] == state && pid.is_some() && pid == container.pid(profile)).then_some(told)
    })
}

impl Container {
    /// What `s6-svstat` prints about a slot, as hermes.
    #[track_caller]
    pub fn svstat(&self, slot: &str) -> String {
        self.exec_as("hermes", &["/command/s6-svstat", &format!("/run/service/{slot}")]).ok()
    }

    /// Waits until `s6-svstat` prints something that holds `words`.
    #[track_caller]
    pub fn await_svstat(&self, slot: &str, words: &str) -> String {
        eventually(&format!("s6-svstat says '{words}' of {slot}"), || {
            let status = self.svstat(slot);
            status.contains(words).then_some(status)
        })
    }

    /// Whether the slot is wanted up, read as upstream's tests read it.
    #[track_caller]
    pub fn wants_up(&self, slot: &str) -> bool {
        let status = self.svstat(slot);
        match status.split_whitespace().next() {
            Some("up") => !status.contains("want down"),
            _ => status.contains("want up"),
        }
    }

    pub fn has(&self, test: &str, path: &str) -> bool {
        self.exec_as("hermes", &["test", test, path]).code == 0
    }

    /// The `sleep infinity` that keep the place of a redirected program: children of the process that shows the image's
    /// entry script.
    pub fn heartbeats(&self) -> usize {
        let processes = self.exec_as("hermes", &["ps", "-eo", "pid=,ppid=,args="]).ok();
        let (mut wrapper, mut count) = ("", 0);
        for line in processes.lines() {
            let mut words = line.split_whitespace();
            let (Some(pid), Some(parent)) = (words.next(), words.next()) else { continue };
            let args: Vec<&str> = words.collect();
            if args.iter().any(|arg| arg.contains("/main-wrapper.sh")) {
                wrapper = pid;
            }
            count += usize::from(args == ["sleep", "infinity"] && parent == wrapper);
        }
        count
    }
}
