//! The first and the last moments of a machine whose PID 1 is the supervisor.

use crate::harness::{Setup, Volume, figure};
use serde_json::Value;
use std::time::{Duration, SystemTime};

const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

#[test]
fn pid_1_of_a_machine_has_the_highest_rung_and_every_controller() {
    let volume = Volume::new(64);
    let machine = Setup::new().adversary("coder", "tree 5", "").boot(&volume);
    machine.await_log("coder", "ready tree");
    let status = machine.status();
    assert_eq!(status["supervisor"]["pid"], 1, "{status:#}");
    assert_eq!(status["supervisor"]["containment"], "cgroup", "{status:#}");
    assert_eq!(status["supervisor"]["warnings"], Value::Array(Vec::new()), "{status:#}");
    let coder = machine.service("coder");
    for figure in ["memory_bytes", "memory_peak_bytes", "cpu_ms", "procs"] {
        assert!(coder[figure].as_u64().is_some(), "{figure} of {coder:#}");
    }
    assert_eq!(coder["procs"], 6);
    // What the kernel has is handed down to where the services are.
    let own = machine.cgroup("coder");
    let parent = own.rsplit_once('/').expect("it has a parent").0;
    for file in ["cgroup.controllers", "cgroup.subtree_control"] {
        let enabled = machine.show(&format!("{parent}/{file}"));
        for controller in CONTROLLERS {
            assert!(
                enabled.split_whitespace().any(|each| each == controller),
                "{controller} in {parent}/{file}: {enabled}"
            );
        }
    }
    let doctor = machine.run(&["/hermes-sup", "doctor"]).ok();
    assert!(doctor.contains("cgroup"), "{doctor}");
}

#[test]
fn shutdown_ends_whoever_is_deaf_within_the_budget_and_has_the_code_asked_for() {
    let volume = Volume::new(64);
    let machine = Setup::new()
        .adversary("deaf", "tree 50", "[stop]\ntimeout = \"10m\"")
        .adversary("polite", "pause", "")
        .option(&["--stop-budget", "4s"])
        .boot(&volume);
    machine.await_log("deaf", "ready tree");
    let end = machine.shutdown(7);
    figure(&format!("shutdown with a deaf tree, budget 4 s: {:?}", end.after));
    assert_eq!(end.code, 7);
    // The budget, its last second for what does not die, and as much again for the emulation.
    assert!(end.after < Duration::from_secs(10), "{:?}", end.after);
    // Nobody asked for another want.
    let again = Setup::new().adversary("deaf", "tree 50", "autostart = false").boot(&volume);
    assert_eq!(again.service("deaf")["want"], "up");
    let end = again.shutdown(0);
    assert_eq!(end.code, 0);
}

#[test]
fn shutdown_of_the_obedient_ends_at_once() {
    let volume = Volume::new(64);
    let mut setup = Setup::new();
    for count in 0..20 {
        setup = setup.adversary(&format!("s{count}"), "wait-signal", "");
    }
    let machine = setup.boot(&volume);
    machine.ctl(&["wait", "--all", "--up"]).ok();
    let end = machine.shutdown(0);
    figure(&format!("shutdown of 20 obedient services: {:?}", end.after));
    assert_eq!(end.code, 0);
    assert!(end.after < Duration::from_secs(9), "it did not use up the budget: {:?}", end.after);
}

/// Two machines that begin with the same memory are two boots all the same, and know the time.
#[test]
fn a_machine_that_is_woken_is_a_boot_of_its_own() {
    let setup = Setup::new().asleep(24);
    let seen = [0, 1].map(|_| {
        let before = SystemTime::now();
        let volume = Volume::new(24);
        let machine = setup.boot(&volume);
        let since = machine.status()["supervisor"]["since"].as_str().expect("a moment").to_owned();
        let since = humantime::parse_rfc3339(&since).expect("a moment");
        let early = before.duration_since(since).unwrap_or_default();
        assert!(early < Duration::from_secs(1), "{early:?} before it was switched on");
        let id = machine.show("/proc/sys/kernel/random/boot_id");
        assert_eq!(machine.shutdown(0).code, 0);
        id
    });
    assert_ne!(seen[0], seen[1]);
}
