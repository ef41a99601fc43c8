//! Gateways as slots of the scan directory, and slots that others put there.

use super::{TELL, idle, init, longrun, register, script, services, shell, wait_service, world};
use crate::harness::setup::HERMES;
use crate::harness::{End, World, wait};
use serde_json::json;
use std::os::unix::fs::MetadataExt;

/// Contract: 26, 47, 48.
#[test]
fn profiles_are_shown_before_the_cmd_and_again_after_a_restart_of_the_container() {
    let look = "cd /run/service; seen=; for s in *; do [ -e $s/down ] && s=$s:down; seen=\"$seen $s\"; done; echo \"seen$seen\" $(echo */supervise); exec /adversary hold";
    let mut world = world(init(&["/bin/sh", "-c", look]));
    script(
        &world,
        "/etc/cont-init.d/1",
        "#!/bin/sh\n[ -e /opt/data/logs/container-boot.log ] && touch /too-early\nexit 0\n",
    );
    let supervisor = world.start();
    let supervised = "gateway-coder/supervise gateway-default/supervise\n";
    world.wait_stdout(&format!("seen gateway-coder:down gateway-default:down {supervised}"));
    let log = "/opt/data/logs/container-boot.log";
    wait::until("the boot log", &world.path("/opt/data/logs"), || world.path(log).exists().then_some(()));
    assert!(!world.path("/too-early").exists(), "written before the script");
    let slot = |name: &str| world.path(&format!("/run/service/{name}"));
    assert_eq!(std::fs::metadata(slot("gateway-coder/run")).expect("its run").uid(), HERMES);

    shell(&world, &supervisor, "/command/s6-svc -u /run/service/gateway-coder").ok();
    world.wait_log("coder", "hermes -p coder gateway run");
    register(&world, &supervisor, "guest", "down", TELL).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    // What the image or an earlier life left there.
    world.write("/run/service/junk/run", "#!/bin/sh\ntouch /tmp/junk-ran\n");
    world.write("/run/s6/container_environment/STALE", "1");

    let supervisor = world.start();
    world.wait_log_times("coder", "hermes -p coder gateway run", 2);
    world.wait_stdout(&format!("seen gateway-coder gateway-default:down {supervised}"));
    assert_eq!(world.want("coder"), "up");
    assert!(!world.path("/run/s6/container_environment/STALE").exists());
    let known = services(&world);
    assert!(known.iter().all(|name| name != "junk" && name != "guest"), "{known:?}");
    drop(supervisor);
}

/// s6 has executed the services of the image, then the gateways, before it executes the CMD. Here nothing waits for
/// anything: the CMD finds them known and wanted up, and each starts as soon as it can.
/// Contract: 23, 24.
#[test]
fn the_cmd_finds_everything_wanted_up_that_is_to_run() {
    let look = "for s in of-image gateway-coder gateway-default; do echo $s $(/command/s6-svstat -o wantedup /run/service/$s); done >/.seen; mv /.seen /seen; exec /adversary hold";
    let mut world = world(init(&["/bin/sh", "-c", look]));
    longrun(&world, "of-image", &[("run", "#!/bin/sh\nexec /adversary pause MARK\n")]);
    world.write_as_hermes("/opt/data/profiles/coder/gateway_state.json", "{\"gateway_state\":\"running\"}");
    let _supervisor = world.start();
    wait::until("what the CMD saw", &world.root, || world.path("/seen").exists().then_some(()));
    assert_eq!(world.read("/seen"), "of-image true\ngateway-coder true\ngateway-default false\n");
    for name in ["of-image", "coder"] {
        assert_eq!(world.wait_state(name, &["up"])["restarts"], json!(0), "its first life");
    }
}

/// The newest CLI registers the slot of such a profile itself, when it is told to start it; here that it is there is
/// enough.
/// Contract: 80.
#[test]
fn a_profile_that_came_after_the_boot_gets_its_slot_at_once() {
    let mut world = world(idle());
    let supervisor = world.start();
    world.write_as_hermes("/opt/data/profiles/late/SOUL.md", "soul");
    wait::until("its slot", &world.path("/run/service"), || {
        world.path("/run/service/gateway-late/run").exists().then_some(())
    });
    assert!(world.path("/run/service/gateway-late/down").exists(), "nobody has asked for it");
    shell(&world, &supervisor, "/command/s6-svc -u /run/service/gateway-late").ok();
    world.wait_log("late", "hermes -p late gateway run");
    shell(&world, &supervisor, "/command/s6-svc -wD -d /run/service/gateway-late").ok();
    assert_eq!(world.state("late"), "down");
}

/// The logger is the supervisor's and so is what an exit code of a gateway means: neither `log/run` nor `finish` of its
/// slot is executed, as s6 does.
/// Contract: 61, 63, 64, 65, 79, 95, 96.
#[test]
fn a_slot_that_the_cli_registers_is_a_service_from_then_on() {
    let mut world = world(idle());
    let supervisor = world.start();
    let stat = || shell(&world, &supervisor, "/command/s6-svstat /run/service/gateway-x");
    for round in 1..=2 {
        register(
            &world,
            &supervisor,
            "x",
            "down",
            &format!("{TELL}; test -d gateway-x/supervise; test -d gateway-x/event"),
        )
        .ok();
        let line = stat().ok();
        assert!(line.starts_with("down ") && !line.contains("normally up"), "{line}");
        assert_eq!((world.want("x"), world.state("x")), ("down".to_owned(), "down".to_owned()));
        shell(&world, &supervisor, "/command/s6-svc -u /run/service/gateway-x").ok();
        world.wait_log_times("x", "uid 10000 in /run/service/gateway-x child=1", round);
        world.wait_log_times("x", "ready pause", round);
        let pids = world.marked("pause");
        assert!(pids.len() == 1 && pids[0].uid == HERMES, "{pids:?}");
        shell(&world, &supervisor, "cd /run/service; /command/s6-svc -d gateway-x; /command/s6-svwait -D -t 5000 gateway-x; /command/s6-svscanctl -an /run/service; rm -r gateway-x").ok();
        world.assert_no_survivors("of a slot that was removed");
        wait_service(&world, "x", false);
        stat().fails(1);
    }
    // Nothing is known of its want any more: the new slot itself says that it is to run.
    register(&world, &supervisor, "x", "up", TELL).ok();
    world.wait_log_times("x", "uid 10000 in /run/service/gateway-x child=1", 3);
    // The slot goes while it runs, and with it the service, when that is told.
    shell(&world, &supervisor, "rm -r /run/service/gateway-x; /command/s6-svscanctl -an /run/service").ok();
    wait_service(&world, "x", false);
    world.assert_no_survivors("of a slot that went while it ran");
    assert!(!world.path("/tmp/logger-ran").exists() && !world.path("/tmp/finish-ran").exists());
}

/// The next version ended them, although nobody had taken their slots away.
#[test]
fn what_runs_in_a_slot_that_cannot_be_read_goes_on_after_an_upgrade() {
    let mut world = world(idle());
    let supervisor = world.start();
    let place = "mkdir .placed; cat gateway-x/run >.placed/run; chmod 755 .placed/run; mv .placed placed";
    register(&world, &supervisor, "x", "up", &format!("cd /run/service; {place}; {TELL}")).ok();
    world.ctl(&["wait", "--up", "x", "placed"]).ok();
    let pids = |world: &World| ["x", "placed"].map(|name| world.status(name)["pid"].clone());
    let before = pids(&world);
    let slots = "cd /run/service; chmod";
    shell(&world, &supervisor, &format!("{slots} 0 gateway-x placed")).ok();
    world.ctl(&["upgrade"]).ok();
    assert_eq!(pids(&world), before, "{}", world.stderr());
    // Nor are they gone for those who look again.
    shell(&world, &supervisor, TELL).ok();
    world.ctl(&["reload"]);
    assert_eq!(pids(&world), before, "{}", world.stderr());
    shell(&world, &supervisor, &format!("{slots} 755 gateway-x placed; {TELL}")).ok();
    world.ctl(&["restart", "x", "placed"]).ok();
    assert!(pids(&world).iter().zip(&before).all(|(now, before)| now != before));
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// A slot that is removed piece by piece, as `rm -r` does it, while others have the directory read again: what is gone
/// stays gone, so that the directory that held it can go, too.
#[test]
fn what_is_taken_out_of_a_known_slot_is_not_put_back() {
    let mut world = world(idle());
    let supervisor = world.start();
    register(&world, &supervisor, "x", "down", &format!("{TELL}; test -d gateway-x/supervise")).ok();
    let again = format!("cd /run/service; rm -r gateway-x/supervise gateway-x/event; {TELL}; ls gateway-x");
    assert_eq!(shell(&world, &supervisor, &again).ok(), "down\nfinish\nlog\nrun\ntype\n");
    // The next one of that name is another slot, also where the same number is given to its directory.
    shell(&world, &supervisor, "rm -r /run/service/gateway-x").ok();
    let both = "test -d gateway-x/supervise; test -d gateway-x/event";
    register(&world, &supervisor, "x", "down", &format!("{TELL}; {both}")).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// s6 sees a new slot when it is told to look. Here a rename is seen too.
/// Contract: 95.
#[test]
fn what_is_renamed_in_is_noticed_and_what_is_filled_in_place_waits() {
    let mut world = world(idle());
    let supervisor = world.start();
    // Whatever the boot itself has renamed there was read by then.
    shell(&world, &supervisor, TELL).ok();
    shell(&world, &supervisor, "mkdir /run/service/placed; printf '#!/bin/sh\\nexec /adversary pause MARK\\n' >/run/service/placed/run; chmod 755 /run/service/placed/run").ok();
    assert!(services(&world).iter().all(|name| name != "placed"), "nobody said that it is ready");
    shell(&world, &supervisor, TELL).ok();
    world.wait_state("placed", &["up"]);
    assert!(world.path("/run/service/placed/supervise").is_dir());
    register(&world, &supervisor, "quiet", "down", "").ok();
    wait_service(&world, "quiet", true);
    assert_eq!(world.state("quiet"), "down");
}

/// Contract: 66.
#[test]
fn odd_names_are_services_or_refused_in_words() {
    let mut world = world(idle());
    let supervisor = world.start();
    let long = "l".repeat(251);
    let text = format!(
        "cd /run/service; for n in gateway-raceprobe.tmp {long} 'with a space' main-hermes GATEWAY-Upper; do mkdir .n; printf '#!/bin/sh\\nexec /adversary pause MARK\\n' >.n/run; chmod 755 .n/run; mv .n \"$n\"; done; {TELL}"
    );
    shell(&world, &supervisor, &text).ok();
    for name in ["raceprobe.tmp", long.as_str(), "GATEWAY-Upper"] {
        world.wait_state(name, &["up"]);
        world.wait_log(name, "ready");
    }
    let known = services(&world);
    assert!(known.iter().all(|name| !name.contains(' ') && name != "main-hermes"), "{known:?}");
    world.wait_stderr("'with a space' is not the name of a service directory");
    shell(
        &world,
        &supervisor,
        &format!("/command/s6-svc -d /run/service/{long}; /command/s6-svc -u /run/service/{long}"),
    )
    .ok();
    world.wait_log_times(&long, "ready", 2);
}
