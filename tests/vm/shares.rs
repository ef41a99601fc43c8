//! Limits protect the neighbours: who wants more than its share pays for it alone. What each limit does to the service
//! itself is in `limits`.

use crate::harness::{Machine, Setup, Volume, figure};
use std::time::{Duration, Instant};

const NEIGHBOUR: &str = "neighbour";

/// A machine with these services, told by name, adversary and the rest of the definition, and an obedient neighbour that runs.
fn beside_a_neighbour(setup: Setup, volume: &Volume, services: &[(&str, &str, &str)]) -> (Machine, Setup) {
    let mut setup = setup.adversary(NEIGHBOUR, "wait-signal", "");
    for (name, words, rest) in services {
        setup = setup.adversary(name, words, &format!("autostart = false\n{rest}"));
    }
    let machine = setup.boot(volume);
    machine.ctl(&["wait", NEIGHBOUR, "--up"]).ok();
    (machine, setup)
}

#[test]
fn a_fork_bomb_fills_its_own_limit_and_the_neighbour_is_served() {
    let volume = Volume::new(64);
    // Every process of it forks for ever, whatever it is answered.
    let bomb = ("bomb", "storm 1000000000000", "[stop]\ntimeout = '100ms'\n[limits]\npids_max = 60");
    let (machine, _) = beside_a_neighbour(Setup::new(), &volume, &[bomb]);
    let restart = || {
        let start = Instant::now();
        machine.ctl(&["restart", NEIGHBOUR]).ok();
        start.elapsed()
    };
    let calm = (0..5).map(|_| restart()).max().expect("five");
    machine.ctl(&["start", "bomb"]).ok();
    machine.eventually("the bomb is full", || {
        let full = machine.counter("bomb", "pids.events", "max") > 0;
        let procs = machine.service("bomb")["procs"].as_u64().expect("a count");
        assert!(procs <= 60, "{procs}");
        (full && procs == 60).then_some(())
    });
    let beside = (0..5).map(|_| restart()).max().expect("five");
    figure(&format!(
        "slowest of five restarts of a neighbour: {calm:?}, beside a full fork bomb: {beside:?}"
    ));
    assert!(beside < Duration::from_secs(10), "{beside:?}");
    let start = Instant::now();
    machine.ctl(&["stop", "bomb"]).ok();
    figure(&format!("fork bomb of 60 processes: stopped after {:?} (100 ms of it grace)", start.elapsed()));
    machine.assert_nothing_left_of("bomb");
}

#[test]
fn processor_time_is_shared_out_as_the_definition_says() {
    let volume = Volume::new(64);
    let mut setup = Setup::new();
    setup.processors = 1;
    let services = [
        ("capped", "spin", "[limits]\ncpu_max = '20%'"),
        ("light", "spin", "[limits]\ncpu_weight = 100"),
        ("heavy", "spin", "[limits]\ncpu_weight = 400"),
    ];
    let (machine, _) = beside_a_neighbour(setup, &volume, &services);
    let used = |service: &str| machine.counter(service, "cpu.stat", "usage_usec");
    // By the machine's own clock, which stands still with it.
    let now = || {
        let text = machine.show("/proc/uptime");
        text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).expect("seconds")
    };
    machine.ctl(&["start", "capped"]).ok();
    let (start, before) = (now(), used("capped"));
    machine.eventually("it has used half a second", || (used("capped") - before > 500_000).then_some(()));
    let spent = (used("capped") - before) as f64 / 1e6;
    let share = spent / (now() - start);
    let throttled = machine.counter("capped", "cpu.stat", "nr_throttled");
    figure(&format!("cpu_max=20%: {:.0}% used, throttled {throttled} times", share * 100.0));
    assert!(share < 0.3 && throttled > 0, "{share} {throttled}");
    machine.ctl(&["stop", "capped"]).ok();

    machine.ctl(&["start", "light", "heavy"]).ok();
    // In one look at both: the next would be later.
    let files = ["light", "heavy"].map(|service| format!("{}/cpu.stat", machine.cgroup(service)));
    let both = || {
        let text = machine.run(&["/adversary", "show", &files[0], &files[1]]).ok();
        let used = text.lines().filter_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
        used.collect::<Vec<_>>()
    };
    let before = both();
    let (light, heavy) = machine.eventually("both have used a second", || {
        let now = both();
        let spent = (now[0] - before[0], now[1] - before[1]);
        (spent.0.min(spent.1) > 1_000_000).then_some(spent)
    });
    let ratio = heavy as f64 / light as f64;
    figure(&format!("cpu_weight 400 beside 100: {ratio:.1} times as much"));
    assert!((2.5..6.0).contains(&ratio), "{ratio}");
}

#[test]
fn a_limit_that_is_set_now_holds_now() {
    let volume = Volume::new(64);
    let service = ("service", "pause", "");
    let (machine, setup) = beside_a_neighbour(Setup::new(), &volume, &[service]);
    machine.ctl(&["start", "service"]).ok();
    let content =
        |machine: &Machine, file: &str| machine.show(&format!("{}/{file}", machine.cgroup("service")));
    machine.ctl(&["set", "service", "memory_max=96M", "pids_max=7", "io_weight=50", "--persist"]).ok();
    let written = |machine: &Machine| {
        assert_eq!(content(machine, "memory.max").trim(), (96 << 20).to_string());
        assert_eq!(content(machine, "pids.max").trim(), "7");
        // The kernel may have been built without the only policy that knows it; then that is said.
        let service = machine.service("service");
        let said = service["limits_not_in_force"].to_string().contains("io_weight=50");
        assert!(said || content(machine, "io.weight").contains("50"), "{service:#}");
    };
    written(&machine);
    machine.cut();
    drop(machine);
    let again = setup.boot(&volume);
    again.ctl(&["wait", "service", "--up"]).ok();
    written(&again);
}
