//! Trees that do not want to end, on a kernel that nobody else uses.

use crate::harness::{Setup, Volume, figure};
use std::time::Instant;

/// Every adversary and what its log says when it is in place.
const MATRIX: [(&str, &str); 12] = [
    ("tree 100", "ready tree"),
    ("comet 3", "ready comet"),
    ("storm 300", "bound reached"),
    ("ignore-term", "ready ignore-term"),
    ("obey-but-child-ignores", "ready obey"),
    ("zombie-leader", "ready zombie-leader"),
    ("vfork-child", "ready vfork-child"),
    ("stopped", "ready stopped"),
    ("ptraced", "ready ptraced"),
    ("uid-changer", "ready uid-changer"),
    ("cgroup-escaper", "ready cgroup-escaper"),
    ("kill-keeper", "ready kill-keeper"),
];
const IMPATIENT: &str = "autostart = false\n[stop]\ntimeout = \"100ms\"";

fn name(adversary: &str) -> &str {
    adversary.split(' ').next().unwrap_or(adversary)
}

#[test]
fn a_stop_leaves_no_survivor_and_orphans_no_zombie() {
    let volume = Volume::new(64);
    let mut setup = Setup::new();
    for (adversary, _) in MATRIX {
        setup = setup.adversary(name(adversary), adversary, IMPATIENT);
    }
    let machine = setup.adversary("maker", "orphan-maker 500", IMPATIENT).boot(&volume);
    for (adversary, ready) in MATRIX {
        let service = name(adversary);
        machine.ctl(&["start", service]).ok();
        machine.await_log(service, ready);
        let procs = machine.service(service)["procs"].clone();
        let start = Instant::now();
        machine.ctl(&["stop", service]).ok();
        let took = start.elapsed();
        machine.assert_nothing_left_of(service);
        figure(&format!(
            "{adversary}: {procs} processes, stopped after {took:?} (100 ms of it grace), 0 survivors"
        ));
        assert_eq!(machine.service(service)["state"], "down");
    }
    let escape = machine.ctl(&["logs", "cgroup-escaper"]).out;
    assert!(escape.contains("escape refused"), "{escape}");

    // And a storm of orphans is reaped: the maker alone is left of 501, and of the 500 not even a zombie.
    machine.ctl(&["start", "maker"]).ok();
    machine.await_log("maker", "orphaned");
    machine.eventually("500 orphans are reaped", || {
        let procs = machine.service("maker")["procs"].clone();
        (machine.census("maker") == (1, 0) && procs == 1).then_some(())
    });
    assert_eq!(machine.shutdown(0).code, 0);
}
