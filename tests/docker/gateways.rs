//! The life of gateways, in every way to run the image: the same scenarios for each variant.

use crate::harness::*;

macro_rules! in_every_variant {
    ($($scenario:ident)*) => {
        in_every_variant!(@ plain PLAIN $($scenario)*);
        in_every_variant!(@ cgroup_rw CGROUP_RW $($scenario)*);
        in_every_variant!(@ user_10000 USER_10000 $($scenario)*);
        in_every_variant!(@ init INIT $($scenario)*);
        in_every_variant!(@ read_only READ_ONLY $($scenario)*);
    };
    (@ $name:ident $variant:ident $($scenario:ident)*) => {
        mod $name {
            $(#[test] fn $scenario() { super::$scenario(&crate::harness::$variant) })*
        }
    };
}

in_every_variant! {
    wants_survive_a_restart_of_the_container
    a_stop_ends_the_whole_tree
    a_killed_gateway_runs_again
    a_clean_exit_is_final
    a_crash_loop_ends_in_failed
    docker_stop_is_quick
    an_upgrade_is_noticed_by_no_gateway
}

/// What a tool of an agent leaves behind at its worst: a daemon in a session of its own, deaf to SIGTERM, whose
/// parent is gone.
const PLANT: &str = r#"
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.execvp("sleep", ["planted", "infinity"])
os.wait()
print("the plant is set", flush=True)
"#;

/// As the built-in template, but two failures are enough and come quickly, and a stop does not take 75 s.
const IMPATIENT: &str = "mkdir -p services; cat >services/gateway.toml <<'END'
command = ['hermes', '-p', '{profile}', 'gateway', 'run', '--replace']
autostart = false
env = { HERMES_S6_SUPERVISED_CHILD = '1', HERMES_GATEWAY_MAX_STARTS = '0' }
[restart]
limit = { burst = 2, interval = '10m' }
backoff = { initial = '10ms' }
[stop]
timeout = '3s'
END";

fn start(variant: &Variant, volume: &Volume) -> Container {
    Run::new().variant(variant).volume(volume).cmd(&["sleep", "infinity"]).supervised()
}

/// The supervisor becomes another image of itself, whatever its rights are; gateways and main program go on.
fn an_upgrade_is_noticed_by_no_gateway(variant: &Variant) {
    let volume = Volume::with_gateways(&["coder", "writer"]);
    let container = start(variant, &volume);
    container.await_up(&["coder", "writer"]);
    let lives = || ["coder", "writer"].map(|name| container.service(name)["pid"].clone());
    let before = lives();
    for _ in 0..2 {
        assert_eq!(container.ctl(&["upgrade"]).ok().trim(), "upgraded");
        assert_eq!(lives(), before);
    }
    for name in ["coder", "writer"] {
        let service = container.service(name);
        assert_eq!(
            (&service["restarts"], &service["containment"]),
            (&0.into(), &variant.rung.into()),
            "{service}"
        );
    }
    container.ctl(&["restart", "coder"]).ok();
    container.await_up(&["coder", "writer"]);
    assert_ne!(container.service("coder")["pid"], before[0]);
    container.ctl(&["stop", "--all"]).ok();
    assert_eq!(container.service("writer")["state"], "down");
}

/// Contract: 89.
fn wants_survive_a_restart_of_the_container(variant: &Variant) {
    let volume = Volume::with_gateways(&["coder", "writer"]);
    volume.sh("hermes", "mkdir profiles/reader; echo 'You are reader.' >profiles/reader/SOUL.md");
    let container = start(variant, &volume);
    container.await_up(&["coder", "writer"]);
    assert_eq!(container.service("coder")["containment"], variant.rung);
    let reader = container.service("reader");
    assert_eq!(
        (&reader["want"], &reader["state"]),
        (&"down".into(), &"down".into()),
        "never wanted: {reader}"
    );

    container.ctl(&["stop", "coder"]).ok();
    container.ctl(&["start", "reader"]).ok();
    container.restart();

    container.await_up(&["writer", "reader"]);
    let coder = container.service("coder");
    assert_eq!((&coder["want"], &coder["state"]), (&"down".into(), &"down".into()), "{coder}");
    assert_eq!(container.pgrep("hermes -p coder"), "");
}

fn a_stop_ends_the_whole_tree(variant: &Variant) {
    let volume = Volume::with_gateways(&["coder", "writer"]);
    volume.hook("coder", PLANT);
    volume.sh("hermes", IMPATIENT);
    let container = start(variant, &volume);
    container.await_log("the plant is set");
    // Forks and exits in a loop: a look for its pid finds it gone.
    let comet = "import os\nwhile True:\n  if os.fork(): os._exit(0)";
    container
        .exec_as("10000", &["hermes-sup", "ctl", "register", "comet", "--", "python3", "-c", comet])
        .ok();
    let writer = container.await_up(&["writer"]);
    assert_ne!(container.pgrep("^planted"), "");

    container.ctl(&["stop", "coder", "comet"]).ok();

    assert_eq!(container.pgrep("^planted"), "", "a process outlived the stop of its gateway");
    assert_eq!(container.pgrep("hermes -p coder"), "");
    assert_eq!(container.pgrep("os.fork"), "", "a process outlived the stop of its service");
    let coder = container.service("coder");
    assert_eq!((&coder["want"], &coder["state"]), (&"down".into(), &"down".into()), "{coder}");
    assert_eq!(container.pid("writer"), Some(writer), "a neighbour was hit");
}

/// Contract: 91.
fn a_killed_gateway_runs_again(variant: &Variant) {
    let volume = Volume::with_gateways(&["coder"]);
    let container = start(variant, &volume);
    let first = container.await_up(&["coder"]);

    container.exec_as("10000", &["kill", "-KILL", &first.to_string()]).ok();

    let second = eventually("another process runs", || container.pid("coder").filter(|pid| *pid != first));
    container.await_up(&["coder"]);
    let coder = container.service("coder");
    assert_eq!(coder["pid"].as_u64(), Some(second), "{coder}");
    assert_eq!(coder["restarts"], 1, "{coder}");
    assert_eq!(coder["last_exit"]["signal"], "SIGKILL", "{coder}");
}

/// Contract: 63.
fn a_clean_exit_is_final(variant: &Variant) {
    let volume = Volume::with_gateways(&["coder"]);
    volume.hook("coder", "import os\nos._exit(0)");
    let container = start(variant, &volume);

    let coder = container.await_state("coder", "finished");

    assert_eq!(coder["want"], "up", "{coder}");
    assert_eq!(coder["last_exit"]["code"], 0, "{coder}");
    assert_eq!(coder["restarts"], 0, "{coder}");
    assert_eq!(coder["pid"], serde_json::Value::Null, "{coder}");
}

fn a_crash_loop_ends_in_failed(variant: &Variant) {
    let volume = Volume::with_gateways(&["coder", "writer"]);
    volume.sh("hermes", IMPATIENT);
    volume.hook("coder", "import os\nprint('the last words of coder', flush=True)\nos._exit(3)");
    let container = start(variant, &volume);

    let coder = container.await_state("coder", "failed");
    assert_eq!(coder["want"], "up", "{coder}");
    assert_eq!(coder["last_exit"]["code"], 3, "{coder}");
    let card = container.ctl(&["status", "coder"]);
    assert_eq!(card.code, 3, "{card:?}");
    assert!(card.out.contains("the last words of coder"), "{}", card.out);

    container.restart();

    container.await_up(&["writer"]);
    assert_eq!(container.state("coder"), "failed", "a restart of the container is no way around it");
    assert_eq!(container.pgrep("hermes -p coder"), "");
}

/// The same with the limits as they come: ten restarts, ever slower. About a minute.
/// Contract: 91, 107.
#[test]
fn a_crash_loop_fails_with_the_built_in_template() {
    let volume = Volume::with_gateways(&["coder"]);
    volume.hook("coder", "import os\nos._exit(1)");
    let container = start(&PLAIN, &volume);
    let coder = container.await_state("coder", "failed");
    assert_eq!(coder["restarts"], 10, "{coder}");
}

/// Contract: 97.
fn docker_stop_is_quick(variant: &Variant) {
    one_stop_is_quick(|| {
        let volume = Volume::with_gateways(&["coder", "writer"]);
        let container = start(variant, &volume);
        container.await_up(&["coder", "writer"]);
        // Its own word that it runs, so that it is stopped at work and not while it is loading.
        for profile in ["coder", "writer"] {
            eventually("the gateway runs", || {
                let state = format!("/opt/data/profiles/{profile}/gateway_state.json");
                container.exec(&["cat", &state]).out.contains(r#""pid":"#).then_some(())
            });
        }
        let took = container.stop();
        assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "{}", container.logs());
        took
    });
}
