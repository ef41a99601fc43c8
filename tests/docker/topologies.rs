//! One gateway or many, with the real gateway of the image's Hermes: a sample of what `tests/run topologies` does with several
//! versions and every setting.

use crate::harness::*;

#[path = "../lib/screen.rs"]
mod screen;

/// Main processes of gateways, by the kernel.
fn gateways(container: &Container) -> usize {
    container.pgrep("hermes (-p [a-z]+ )?gateway run").lines().count()
}

/// The root gateway says in its state file that it serves these.
fn root_serves(container: &Container) -> String {
    container
        .sh("grep -o '\"served_profiles\": *\\[[^]]*\\]' /opt/data/gateway_state.json | tr -d '\\n '")
        .out
}

fn stands(container: &Container, what: &str, served: bool) {
    let (state, processes) = if served { ("served", 1) } else { ("up", 2) };
    container.await_up(&["default"]);
    let work = container.await_state("work", state);
    assert_eq!((&work["want"], &work["restarts"]), (&"up".into(), &0.into()), "{what}: {work}");
    assert_eq!(work["served_by"].as_str(), served.then_some("default"), "{what}: {work}");
    assert_eq!(gateways(container), processes, "{what}");
    assert_eq!(root_serves(container).contains("\"work\""), served, "{what}");
}

/// Without a setting each profile of Hermes 0.19 has a gateway of its own.
#[test]
fn without_a_setting_each_profile_has_its_own_gateway() {
    let volume = Volume::with_gateways(&["work"]);
    let container = Run::new().volume(&volume).cmd(&["gateway", "run"]).supervised();
    stands(&container, "boot", false);
    container.restart();
    stands(&container, "restart", false);
}

/// The root gateway served `work`, and so did a gateway of its own: each bot answered twice. Any restart of `work` then met the
/// root gateway, and after eleven of them it was `failed`.
#[test]
fn what_config_yaml_gives_to_the_root_gateway_is_served_once() {
    let volume = Volume::with_gateways(&["work"]);
    volume.sh("hermes", "printf 'gateway:\\n  multiplex_profiles: true\\n' >config.yaml");
    let container = Run::new().volume(&volume).cmd(&["gateway", "run"]).supervised();
    stands(&container, "boot", true);
    let shown = container.ctl(&["status", "default", "work"]).ok();
    screen::shows("docker/gateways.md", &[("ctl status", shown)], "docker what_config_yaml");
    let boot = container.sh("cat /opt/data/logs/container-boot.log").ok();
    assert!(boot.contains("profile=work prior_state=running action=served"), "{boot}");

    let refused = container.hermes(&["-p", "work", "gateway", "stop"]);
    assert_ne!(refused.code, 0, "this version cannot stop one profile: {refused:?}");
    stands(&container, "a stop that was refused", true);
    container.ctl(&["restart", "--all"]).ok();
    stands(&container, "restart --all", true);
    let root = container.pid("default").expect("it is up");
    container.exec(&["kill", "-KILL", &root.to_string()]).ok();
    eventually("the root gateway is another one", || container.pid("default").filter(|pid| *pid != root));
    stands(&container, "kill -9 of the root gateway", true);
}

#[test]
fn a_named_gateway_alone_needs_no_root_gateway() {
    let volume = Volume::with_gateways(&["work"]);
    let container = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).supervised();
    container.await_up(&["work"]);
    assert_eq!((gateways(&container), container.state("default")), (1, "down".to_owned()));
}
