//! Limits that are enforced: the kernel has every controller and nobody else.

use crate::harness::{Machine, Setup, Volume, figure, mark};
use serde_json::json;

/// Beyond the bound of every eater, and far below what the machine has.
const BOUND: &str = "memory_max = '48M'\nswap_max = 0";
const ONCE: &str = "autostart = false\n[restart]\npolicy = 'never'\n[limits]";

/// The content of one file in the cgroup of the service's present life.
fn file(machine: &Machine, service: &str, file: &str) -> String {
    let life = machine
        .cgroups()
        .into_iter()
        .find(|dir| dir.rsplit('/').next().is_some_and(|last| last.starts_with(&format!("{service}."))))
        .unwrap_or_else(|| panic!("no cgroup of {service}: {:?}", machine.cgroups()));
    let path = format!(
        "/sys/fs/cgroup/{}/{file}",
        life.trim_start_matches("/sys/fs/cgroup").trim_start_matches('/')
    );
    machine.show(&path).trim().to_owned()
}

/// One machine, several stories: to switch one on takes longer than any of them.
#[test]
fn a_kill_for_want_of_memory_is_told_by_name_and_the_policy_decides() {
    let volume = Volume::new(64);
    let machine = Setup::new()
        .adversary("glutton", "eat 128", &format!("{ONCE}\n{BOUND}"))
        .adversary("parent", "child-eats 128", &format!("{ONCE}\n{BOUND}"))
        .adversary("family", "child-eats 128", &format!("{ONCE}\n{BOUND}\noom = 'service'"))
        .adversary("phoenix", "eat 128", &format!("autostart = false\n[limits]\n{BOUND}"))
        .adversary("modest", "tree 5", &format!("autostart = false\n[limits]\n{BOUND}"))
        .boot(&volume);
    machine.ctl(&["start", "modest"]).ok();
    let calm = machine.service("modest");

    // The main process itself.
    drop(machine.send(&["/hermes-sup", "ctl", "start", "glutton"]));
    let failed = machine.await_state("glutton", "failed");
    let last = &failed["last_exit"];
    assert_eq!((&last["oom"], &last["signal"]), (&json!(true), &json!("SIGKILL")), "{failed}");
    assert_eq!(failed["reason"], json!("killed by SIGKILL, out of memory at its limit memory_max=48M"));
    assert_eq!(last["oom_memory_max"], json!(48 << 20), "{failed}");
    machine
        .await_line("glutton: out of memory at its limit memory_max=48M: the kernel killed its main process");
    machine.assert_nothing_left_of("glutton");
    assert!(!machine.ctl(&["logs", "glutton"]).out.contains("ate"), "it never had it");

    // As long as the policy says so it gets another life, each time it is told why.
    drop(machine.send(&["/hermes-sup", "ctl", "start", "phoenix"]));
    let again = machine.eventually("it was restarted twice", || {
        let phoenix = machine.service("phoenix");
        (phoenix["restarts"].as_u64() >= Some(2)).then_some(phoenix)
    });
    assert_eq!((&again["want"], &again["last_exit"]["oom"]), (&json!("up"), &json!(true)), "{again}");
    machine.ctl(&["stop", "phoenix"]).ok();
    machine.assert_nothing_left_of("phoenix");

    // A child of it: the service goes on, and says so.
    machine.ctl(&["start", "parent"]).ok();
    machine.await_log("parent", "child ended by signal 9");
    let line = machine
        .await_line("parent: out of memory at its limit memory_max=48M: the kernel killed a process of it");
    let up = machine.service("parent");
    assert_eq!(
        (&up["state"], &up["oom_kills"], &up["last_exit"]),
        (&json!("up"), &json!(1), &json!(null)),
        "{up}"
    );
    assert_eq!(up["reason"], json!("out of memory: the kernel killed 1 of its processes"));
    let peak = up["memory_peak_bytes"].as_u64().unwrap_or_default();
    assert!((40 << 20..=48 << 20).contains(&peak), "{up}");
    figure(&format!("a child killed by the OOM killer: peak {peak} bytes of 50331648; {line}"));
    // A kill of ours is none of the kernel's, whatever happened before it.
    machine.ctl(&["kill", "parent", "KILL"]).ok();
    let killed = machine.await_state("parent", "failed");
    assert_eq!(killed["last_exit"]["oom"], json!(false), "{killed}");

    // A child of one that ends with each of its own.
    drop(machine.send(&["/hermes-sup", "ctl", "start", "family"]));
    let failed = machine.await_state("family", "failed");
    assert_eq!(failed["last_exit"]["oom"], json!(true), "{failed}");
    machine.assert_nothing_left_of("family");
    let told = machine.console().matches("family: out of memory").count();
    assert_eq!(told, 1, "the kernel takes them one by one, which is one story: {}", machine.console());

    // Who has stayed within his bound has noticed nothing.
    let modest = machine.service("modest");
    assert_eq!((&modest["state"], &modest["oom_kills"]), (&json!("up"), &json!(0)), "{modest}");
    assert_eq!((&modest["pid"], &modest["restarts"]), (&calm["pid"], &calm["restarts"]), "{modest}");
    assert_eq!(machine.status()["supervisor"]["warnings"], json!([]));
    assert_eq!(machine.shutdown(0).code, 0);
}

/// No directory may both hold processes and hand the memory controller down to its scopes.
#[test]
fn a_scope_is_bounded_and_the_processes_of_its_life_make_room() {
    let volume = Volume::new(64);
    let mark = mark("worker");
    let run = "'/systemd-run', '--user', '--scope', '--quiet', '--unit', 'w', '-p', 'MemoryMax=32M', '-p', 'MemorySwapMax=0', '--'";
    let machine = Setup::new()
        .define(
            "worker",
            &format!(
                "command = [{run}, '/adversary', 'obey-but-child-ignores', '{mark}']\nautostart = false\n\
                 [hooks]\npre_stop = ['/adversary', 'show', '/proc/self/cgroup']"
            ),
        )
        .boot(&volume);
    machine.ctl(&["start", "worker"]).ok();
    machine.await_log("worker", "ready obey-but-child-ignores");
    assert_eq!(file(&machine, "worker", "scope-w/memory.max"), (32 << 20).to_string());
    assert_eq!(file(&machine, "worker", "scope-w/cgroup.procs").lines().count(), 2);
    assert_eq!(file(&machine, "worker", "cgroup.subtree_control"), "memory");
    // Its hook is one more process of the life, and finds a place.
    machine.ctl(&["stop", "worker"]).ok();
    machine.assert_nothing_left_of("worker");
    assert!(!machine.console().contains("pre_stop"), "{}", machine.console());
    let said = machine.ctl(&["logs", "worker"]).out;
    assert!(said.contains("worker.1/main"), "{said}");
    assert_eq!(machine.status()["supervisor"]["warnings"], json!([]));
    assert_eq!(machine.shutdown(0).code, 0);
}

/// Without a cgroup of its own, what the kernel says of the whole container is all there is: it names nobody.
#[test]
fn a_kill_for_want_of_memory_is_probable_where_the_kernel_counts_for_all() {
    let volume = Volume::new(64);
    let once = "containment = 'keeper'\nautostart = false\n[restart]\npolicy = 'never'";
    let mut setup = Setup::new();
    setup.cgroup = Some("container");
    let machine = setup
        .adversary("glutton", "eat 128", once)
        .adversary("victim", "pause", once)
        .adversary("ours", "pause", once)
        .boot(&volume);
    machine.ctl(&["start", "victim", "ours"]).ok();
    // All that a keeper holds is in the supervisor's own cgroup, of which the kernel never takes its init.
    let own = machine.show("/proc/1/cgroup");
    let own = own.trim().strip_prefix("0::").expect("a path of cgroup v2");
    machine.run(&["/adversary", "write", &format!("/sys/fs/cgroup{own}/memory.max"), "64M"]).ok();
    drop(machine.send(&["/hermes-sup", "ctl", "start", "glutton"]));
    let failed = machine.await_state("glutton", "failed");
    let last = &failed["last_exit"];
    assert_eq!((&last["oom"], &last["oom_likely"]), (&json!(null), &json!(true)), "{failed}");
    let words = "killed by SIGKILL, probably out of memory (the container's)";
    assert_eq!(failed["reason"], json!(words));
    machine.await_line("out of memory: the kernel killed processes of the container");
    machine.assert_nothing_left_of("glutton");

    // A kill that is nobody's of the kernel's, and one that is ours.
    let pid = machine.service("victim")["pid"].to_string();
    machine.run(&["/adversary", "kill-nine", &pid]).ok();
    machine.ctl(&["kill", "ours", "KILL"]).ok();
    for service in ["victim", "ours"] {
        let failed = machine.await_state(service, "failed");
        assert_eq!(failed["last_exit"]["oom"], json!(false), "{failed}");
        assert_eq!(failed["reason"], json!("killed by SIGKILL"));
    }
}

/// `docker run --pids-limit`: "Resource temporarily unavailable (os error 11)" named neither the bound nor where to raise it.
#[test]
fn a_start_for_which_there_is_no_process_left_names_the_bound() {
    let volume = Volume::new(64);
    let later = "autostart = false\n[restart]\nbackoff = { initial = '1h', max = '1h', jitter = 0.0 }";
    let mut setup = Setup::new();
    setup.cgroup = Some("container");
    let machine = setup
        .adversary("grouped", "pause", later)
        .adversary("kept", "pause", &format!("containment = 'keeper'\n{later}"))
        .boot(&volume);
    let bound = |text: &str| {
        machine.run(&["/adversary", "write", "/sys/fs/cgroup/container/pids.max", text]).ok();
    };
    bound("2");
    for name in ["grouped", "kept"] {
        drop(machine.send(&["/hermes-sup", "ctl", "start", name, "--timeout", "1s"]));
        let status = machine.await_state(name, "backoff");
        let reason = status["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("as pids.max=2 of this container"), "{status}");
        assert_eq!(status["restarts"], json!(1), "the first time: {status}");
        machine.await_line(&format!("{name}: backoff: {reason}"));
        let card = machine.ctl(&["status", name]).out;
        assert!(card.contains("pids.max=2"), "{card}");
    }
    bound("max");
    machine.ctl(&["start", "grouped", "kept"]).ok();
    assert_eq!(machine.shutdown(0).code, 0);
}

/// Above its soft limit a service is slowed down, which is the moment to tell it.
#[test]
fn at_memory_high_a_hook_runs_inside_once() {
    let volume = Volume::new(64);
    let limits = "autostart = false\n[limits]\nmemory_high = '32M'\nmemory_max = '400M'\nswap_max = 0";
    let hook = |argv: &str| format!("{limits}\n[hooks]\nmemory_high = {argv}");
    let machine = Setup::new()
        .adversary("told", "eat 34", &hook("['/adversary', 'print-place']"))
        .adversary("ended", "eat 34", &hook("['/adversary', 'signal-main', 'TERM']"))
        .adversary("mistaken", "eat 34", &hook("['/no/such/program']"))
        .adversary("without", "eat 34", limits)
        // On a terminal only what is wrong is said unasked.
        .option(&["--log-level", "debug"])
        .boot(&volume);
    machine.ctl(&["start", "told"]).ok();
    machine.await_log("told", "hook memory_high of told");
    let line = machine.await_line("told: its memory is at memory_high=32M");
    machine.await_line("told: its hook memory_high has run");
    machine.await_log("told", "ate 34");
    let log = machine.ctl(&["logs", "told"]).ok();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("hook memory_high of told")).collect();
    assert!(matches!(told[..], [one] if one.contains("uid 10000") && one.contains("/told.")), "once: {log}");
    let up = machine.service("told");
    assert!(up["memory_high_at"].is_string() && up["state"] == "up", "{up}");
    assert!(up["reason"].as_str().is_some_and(|reason| reason.contains("at memory_high")), "{up}");
    assert_eq!(machine.console().matches("told: its memory is at memory_high").count(), 1, "{line}");

    // What people use it for: to have it end in order.
    drop(machine.send(&["/hermes-sup", "ctl", "once", "ended"]));
    machine.await_line("ended: its hook memory_high has run");
    let down = machine.await_state("ended", "down");
    assert_eq!(down["last_exit"]["signal"], json!("SIGTERM"), "{down}");
    machine.assert_nothing_left_of("ended");

    machine.ctl(&["start", "mistaken", "without"]).ok();
    machine.await_line("mistaken: its hook memory_high does not run: cannot execute '/no/such/program'");
    machine.await_line("without: its memory is at memory_high=32M");
    assert_eq!(machine.shutdown(0).code, 0);
}

#[test]
fn each_limit_is_in_the_kernels_hands_and_can_be_set_while_the_service_runs() {
    let volume = Volume::new(64);
    let limits = "memory_max = '64M'\nmemory_high = '56M'\nswap_max = 0\npids_max = 10\ncpu_max = '50%'\n\
                  cpu_weight = 50\nio_weight = 200\noom = 'service'\nnofile = 4096\noom_score_adj = -500";
    let machine = Setup::new()
        .adversary("coder", "multiply 100", &format!("autostart = false\n[limits]\n{limits}"))
        .adversary(
            "plain",
            "print-limits",
            "autostart = false\n[limits]\nnofile = 1000000\noom_score_adj = -900",
        )
        .boot(&volume);
    machine.ctl(&["start", "coder"]).ok();
    // Itself and nine: one more is one too many.
    machine.await_log("coder", "ready multiply 9");
    let status = machine.service("coder");
    let left: Vec<String> = serde_json::from_value(status["limits_not_in_force"].clone()).expect("lines");
    // Whether a kernel can weigh I/O is its builder's choice; every other one of these each kernel has.
    assert!(left.iter().all(|line| line.starts_with("io_weight=200 is not in force")), "{left:?}");
    figure(&format!("not in force: {left:?}; pressure {}, io {}", status["pressure"], status["io"]));
    for (name, expected) in [
        ("memory.max", "67108864"),
        ("memory.high", "58720256"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "10"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "50"),
    ] {
        assert_eq!(file(&machine, "coder", name), expected, "{name}");
    }
    // The kernel's own root is nobody's to limit, and the instance's directory has no bound of its own.
    assert!(
        status["limits"]["memory_max"] == json!("64M") && status["limits"]["cpu_max"] == json!("50%"),
        "{status}"
    );
    assert!(status["pressure"]["cpu"].is_number(), "{status}");

    let said = machine.ctl(&["set", "coder", "memory_max=96M", "pids_max=max", "cpu_max=default"]).ok();
    assert_eq!(said.trim(), "coder: memory_max=96M pids_max=max cpu_max=50%");
    assert_eq!(
        (file(&machine, "coder", "memory.max"), file(&machine, "coder", "pids.max")),
        ("100663296".into(), "max".into())
    );
    machine.ctl(&["set", "coder", "pids_max=5", "--persist"]).ok();
    assert_eq!(file(&machine, "coder", "pids.max"), "5");
    machine.ctl(&["restart", "coder"]).ok();
    machine.await_log("coder", "ready multiply 4");
    assert_eq!(file(&machine, "coder", "memory.max"), "67108864", "what was not recorded is over");

    // Root on its own kernel: what no container may.
    machine.ctl(&["start", "plain"]).ok();
    machine.await_log("plain", "ready print-limits");
    let log = machine.ctl(&["logs", "plain"]).ok();
    assert!(log.contains("nofile 1000000 1000000") && log.contains("oom_score_adj -900"), "{log}");
    assert_eq!(machine.service("plain")["limits_not_in_force"], json!([]));
    assert_eq!(machine.shutdown(0).code, 0);
}

/// Linux has memory.reclaim since 5.19, merges whole processes since 6.4, and lets exec keep that since 6.7.
#[test]
fn what_a_start_needed_once_is_taken_back_and_what_the_kernel_cannot_merge_is_said() {
    let volume = Volume::new(64);
    let machine = Setup::new()
        .adversary(
            "reader",
            "read-once /opt/data/once 16",
            "[memory]\nreclaim_after = '1s'\n[ready]\nkind = 'log'\npattern = 'ready read-once'",
        )
        .adversary("merged", "pause", "[memory]\nksm = true")
        // The console is a terminal, where less than a warning is not said otherwise.
        .option(&["--log-level", "debug"])
        .boot(&volume);
    let line = machine.await_line("reader: the kernel has taken back ");
    let taken = line.split("taken back ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    figure(&format!("of 16 MiB that were read once the kernel has taken back {taken:?} kB"));
    assert!(taken.is_some_and(|taken| taken > 8 << 10), "{line}");
    machine.eventually("less of files", || {
        (machine.counter("reader", "memory.stat", "file ") < 8 << 20).then_some(())
    });
    machine.await_state("merged", "up");
    let release = machine.show("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or_default());
    let why = match (numbers.next(), numbers.next()) {
        version if version < (Some(6), Some(4)) => "this kernel cannot merge the memory of whole processes",
        version if version < (Some(6), Some(7)) => "a program loses it as it is executed before Linux 6.7",
        // Nobody has told ksmd to run.
        _ => "echo 1 >/sys/kernel/mm/ksm/run",
    };
    let warnings = machine.status()["supervisor"]["warnings"].to_string();
    assert!(
        warnings.contains("ksm = true of [memory] has no effect: ") && warnings.contains(why),
        "{warnings}"
    );
    let doctor = machine.run(&["/hermes-sup", "doctor"]).ok();
    let line = doctor.lines().find(|line| line.starts_with("ksm: no: ")).unwrap_or_default();
    assert!(line.contains(why), "{doctor}");
    assert_eq!(machine.shutdown(0).code, 0);
}
