//! A volume that is full, one that does not answer, and one that reports errors.

use crate::harness::{Setup, Volume, figure};
use std::time::{Duration, Instant};

const FILLER: &str = "/opt/data/filler";

#[test]
fn a_full_volume_stops_nobody_from_stopping_and_loses_nothing_that_was_answered() {
    let volume = Volume::new(16);
    let setup = Setup::new()
        .adversary("one", "tree 5", "[stop]\ntimeout = \"100ms\"")
        .adversary("two", "pause", "")
        .adversary("idle", "pause", "autostart = false");
    let machine = setup.boot(&volume);
    machine.await_log("one", "ready tree");
    machine.run(&["/adversary", "fill", FILLER]).ok();
    assert_eq!(
        machine.run(&["/adversary", "writes", "/opt/data/more"]).code,
        1,
        "there is no room for a line"
    );
    for service in ["one", "two"] {
        let stopped = machine.ctl(&["stop", service]);
        let unrecorded = stopped.code == 1 && stopped.err.contains("stopped, but not recorded");
        figure(&format!("stop of {service} on a full disk: {} {}", stopped.code, stopped.err.trim()));
        assert!(stopped.code == 0 || unrecorded, "{stopped:#?}");
        machine.assert_nothing_left_of(service);
    }
    let started = machine.ctl(&["start", "idle"]);
    assert!(started.code == 0 || (started.code == 1 && !started.err.is_empty()), "{started:#?}");
    assert_eq!(machine.service("idle")["state"] == "up", started.code == 0);
    machine.run(&["/adversary", "remove", FILLER]).ok();
    // With room again everything is recorded again, and stays through a power cut.
    for (verb, service) in [("stop", "one"), ("start", "two"), ("start", "idle")] {
        machine.eventually(&format!("{verb} is recorded"), || {
            (machine.ctl(&[verb, service]).code == 0).then_some(())
        });
    }
    machine.cut();
    drop(machine);
    let again = setup.boot(&volume);
    for (service, want) in [("one", "down"), ("two", "up"), ("idle", "up")] {
        assert_eq!(again.service(service)["want"], want, "{service}");
    }
}

/// The file system then refuses all writes. With ENOSPC qemu would stop the machine instead.
#[test]
fn a_disk_that_reports_errors_loses_nothing_that_was_answered() {
    let errno = rustix::io::Errno::IO;
    let volume = Volume::new(24);
    let setup = Setup::new().adversary("one", "pause", "").adversary("two", "pause", "").adversary(
        "idle",
        "pause",
        "autostart = false",
    );
    let machine = setup.boot(&volume);
    machine.await_log("one", "ready");
    machine.ctl(&["stop", "two"]).ok();
    volume.disk.refuse(errno.raw_os_error().unsigned_abs());
    let stopped = machine.ctl(&["stop", "one"]);
    figure(&format!("stop on a disk with {errno:?}: {}", stopped.err.trim()));
    assert!(stopped.code == 1 && stopped.err.contains("stopped, but not recorded"), "{stopped:#?}");
    let causes = ["reports an error", "read-only volume", "no space"];
    assert!(causes.iter().any(|cause| stopped.err.contains(cause)), "{stopped:#?}");
    machine.assert_nothing_left_of("one");
    let started = machine.ctl(&["start", "idle"]);
    assert!(started.code == 1 && causes.iter().any(|cause| started.err.contains(cause)), "{started:#?}");
    assert_ne!(machine.status()["supervisor"]["warnings"], serde_json::json!([]));
    volume.disk.refuse(0);
    machine.cut();
    drop(machine);
    let again = setup.boot(&volume);
    for (service, want) in [("one", "up"), ("two", "down"), ("idle", "down")] {
        assert_eq!(again.service(service)["want"], want, "{service}");
    }
    again.ctl(&["start", "idle"]).ok();
}

#[test]
fn a_process_that_hangs_in_the_kernel_is_named_and_the_rest_goes_on() {
    let volume = Volume::new(64);
    let machine = Setup::new()
        .adversary("writer", "writes /opt/data/lines", "autostart = false\n[stop]\ntimeout = \"100ms\"")
        .adversary("calm", "wait-signal", "autostart = false")
        .boot(&volume);
    machine.ctl(&["start", "writer", "calm"]).ok();
    machine.await_log("writer", "ready");
    machine.run(&["/adversary", "freeze", "/opt/data"]).ok();
    let start = Instant::now();
    let stopped = machine.ctl(&["stop", "calm"]);
    figure(&format!(
        "stop of an obedient service on a hung disk: {:?}, {}",
        start.elapsed(),
        stopped.err.trim()
    ));
    assert!(stopped.code == 1 && stopped.err.contains("stopped, but not recorded"), "{stopped:#?}");
    let start = Instant::now();
    let stuck = machine.ctl(&["stop", "writer"]);
    figure(&format!("stop of a process in D state: {:?}, {}", start.elapsed(), stuck.err.trim()));
    assert_eq!(stuck.code, 1, "{stuck:#?}");
    let card = machine.service("writer");
    assert!(stuck.err.contains("hangs in the kernel") && stuck.err.contains("pid "), "{stuck:#?}");
    let pid = card["pid"].as_u64().map(|pid| pid.to_string());
    assert_eq!(card["state"], "failed", "{card:#}");
    let reason = card["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("hangs in the kernel") && pid.is_none_or(|pid| reason.contains(&pid)),
        "{card:#}"
    );
    machine.run(&["/adversary", "thaw", "/opt/data"]).ok();
    machine.await_state("writer", "down");
    machine.assert_nothing_left_of("writer");
    machine.ctl(&["start", "writer"]).ok();
    machine.await_log("writer", "ready");
}

/// It can say its last words. To end is not in its hands: a process has ended when its last thread has, and a thread that
/// waits for a frozen disk cannot be killed by anybody.
#[test]
fn a_hung_volume_does_not_hold_up_a_shutdown() {
    let volume = Volume::new(64);
    let setup = Setup::new()
        .adversary("writer", "writes /opt/data/lines", "")
        .adversary("deaf", "ignore-term", "")
        .option(&["--stop-budget", "3s"]);
    let machine = setup.boot(&volume);
    machine.await_log("writer", "ready");
    machine.ctl(&["stop", "deaf"]).ok();
    machine.run(&["/adversary", "freeze", "/opt/data"]).ok();
    let start = Instant::now();
    drop(machine.send(&["/hermes-sup", "ctl", "shutdown"]));
    machine.await_line("writer: used up the stop budget and is killed");
    machine.await_line("the state was not closed");
    let took = start.elapsed();
    figure(&format!("last words of a shutdown on a hung disk, budget 3 s: {took:?}"));
    // The budget, a second for what does not die, two for the disk, and as much again for the emulation.
    assert!(took < Duration::from_secs(12), "{took:?}");
    machine.cut();
    drop(machine);
    let again = setup.boot(&volume);
    for (service, want) in [("writer", "up"), ("deaf", "down")] {
        assert_eq!(again.service(service)["want"], want, "{service}");
    }
}
