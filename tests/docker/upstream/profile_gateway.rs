//! `test_profile_gateway` and `test_s6_profile_gateway_integration`: slots that come and go while the container runs.

use crate::harness::*;
use crate::world::{World, on_both_mounts};

on_both_mounts! {
    profile_gateway_start_stop
    profile_gateway_delete
    s6_integration_register
    s6_integration_unregister
    s6_integration_dotfile
}

/// Contract: 79, 96.
fn profile_gateway_start_stop(world: &World) {
    let container = world.idle();
    container.hermes(&["profile", "create", "harness"]).ok();
    assert!(container.has("-d", "/run/service/gateway-harness"), "the slot is there at once");
    assert!(!container.wants_up("gateway-harness"));

    container.hermes(&["-p", "harness", "gateway", "start"]).ok();
    assert!(container.wants_up("gateway-harness"), "{}", container.svstat("gateway-harness"));
    container.await_up(&["harness"]);
    assert_eq!(container.service("harness")["containment"], world.variant.rung);

    container.hermes(&["-p", "harness", "gateway", "stop"]).ok();
    assert!(!container.wants_up("gateway-harness"), "{}", container.svstat("gateway-harness"));
}

/// Contract: 79.
fn profile_gateway_delete(world: &World) {
    let container = world.idle();
    container.hermes(&["profile", "create", "doomed"]).ok();
    container.hermes(&["-p", "doomed", "gateway", "start"]).ok();
    container.await_up(&["doomed"]);
    container.hermes(&["profile", "delete", "doomed", "--yes"]).ok();
    assert!(!container.has("-e", "/run/service/gateway-doomed"));
    assert_eq!(container.pgrep("hermes -p doomed"), "", "no process outlives its profile");
    assert_eq!(container.ctl(&["status", "doomed"]).code, 4, "it is forgotten");
}

/// The service manager of the wheel, as hermes.
#[track_caller]
fn manager(container: &Container, call: &str) -> String {
    let script = format!(
        "import sys; sys.path.insert(0, '/opt/hermes')
from hermes_cli.service_manager import S6ServiceManager
print(S6ServiceManager().{call})"
    );
    container.exec_as("hermes", &["python3", "-c", &script]).ok()
}

/// Contract: 61, 96.
fn s6_integration_register(world: &World) {
    let container = world.idle();
    manager(container, "register_profile_gateway('phase3test')");
    let slot = "/run/service/gateway-phase3test";
    for (test, path) in [("-d", ""), ("-f", "/run"), ("-f", "/log/run")] {
        assert!(container.has(test, &format!("{slot}{path}")), "{slot}{path}");
    }
    // It fails for a slot that is not supervised.
    container.svstat("gateway-phase3test");
    assert!(manager(container, "list_profile_gateways()").contains("'phase3test'"));
}

fn s6_integration_unregister(world: &World) {
    let container = world.idle();
    manager(container, "register_profile_gateway('leaving')");
    manager(container, "unregister_profile_gateway('leaving')");
    assert!(!container.has("-e", "/run/service/gateway-leaving"));
    assert!(!manager(container, "list_profile_gateways()").contains("leaving"));
    // Once more is no error.
    manager(container, "unregister_profile_gateway('leaving')");
}

/// A slot that is still being put together has a dot in front of its name, and no scan may touch it.
/// Contract: 61, 95.
fn s6_integration_dotfile(world: &World) {
    let container = world.idle();
    let probe = "cd /run/service; mkdir $0; echo longrun >$0/type
        printf '#!/command/execlineb -P\\n/command/s6-sleep 600\\n' >$0/run; chmod 755 $0/run
        /command/s6-svscanctl -a /run/service
        if [ -d $0/supervise ]; then echo supervised; else echo not supervised; fi";
    let planted = |name: &str| container.exec(&["sh", "-euc", probe, name]).ok();
    // As root, as upstream's probe does; the scanner's answer is waited for, so there is nothing to sleep for.
    assert_eq!(planted("gateway-raceprobe.tmp").trim(), "supervised");
    assert_eq!(planted(".gateway-raceprobe.tmp").trim(), "not supervised");
    let clean = "cd /run/service; /command/s6-svc -wD -d gateway-raceprobe.tmp
        rm -r gateway-raceprobe.tmp .gateway-raceprobe.tmp; /command/s6-svscanctl -an .";
    container.exec(&["sh", "-euc", clean]).ok();
    assert_eq!(container.pgrep("s6-sleep"), "");
}
