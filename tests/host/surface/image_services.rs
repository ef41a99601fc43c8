//! Services that the image has for s6-rc: as root, in their order, with their own signals, readiness and finish programs.

use super::{SOURCES, idle, longrun, setup, shell, world};
use crate::harness::{Answer, End, Place, Rung, process, wait};
use serde_json::json;
use std::path::PathBuf;

/// Contract: 57, 58, 59, 89.
#[test]
fn the_services_of_the_image_run_as_root_in_their_order() {
    let mut world = world(idle().env("HERMES_DASHBOARD", "1"));
    let order = |name: &str| {
        format!(
            "#!/command/with-contenv sh\necho \"{name} $(id -u) $PWD $HERMES_HOME\" >>/order\nexec /adversary hold MARK\n"
        )
    };
    longrun(
        &world,
        "aft",
        &[("run", &order("aft")), ("dependencies.d/fore", ""), ("dependencies.d/base", "")],
    );
    longrun(
        &world,
        "fore",
        &[
            (
                "run",
                "#!/bin/sh\necho fore >>/order\n/command/s6-sleep -m 100\necho fore ready >>/order\necho >&3\nexec /adversary hold MARK\n",
            ),
            ("notification-fd", "3\n"),
        ],
    );
    longrun(&world, "asleep", &[("run", &order("asleep")), ("down", "")]);
    longrun(&world, "both", &[("run", &order("both"))]);
    longrun(&world, "main-hermes", &[("run", "#!/bin/sh\ntouch /main-hermes-ran\n")]);
    longrun(&world, "dashboard", &[("run", "#!/bin/sh\nid -u >/tmp/dashboard\nexec /adversary hold MARK\n")]);
    world.write(&format!("{SOURCES}/user/type"), "bundle\n");
    world.define("both", "command = [\"/bin/sh\", \"-c\", \"echo file >>/tmp/both; exec /adversary hold\"]");
    let supervisor = world.start();
    world.wait_state("aft", &["up"]);
    wait::until("the order", &world.root, || world.read("/order").contains("aft").then_some(()));
    assert_eq!(world.read("/order"), format!("fore\nfore ready\naft 0 {SOURCES}/aft /opt/data\n"));
    assert_eq!(world.state("asleep"), "down");
    wait::until("the definition file", &world.path("/tmp"), || {
        (world.read("/tmp/both") == "file\n").then_some(())
    });
    wait::until("the dashboard", &world.path("/tmp"), || {
        (world.read("/tmp/dashboard") == "10000\n").then_some(())
    });
    let listed = shell(&world, &supervisor, "ls /run/service; /command/s6-svstat -o up /run/service/dashboard /run/service; /command/s6-svstat -o up /run/service/main-hermes; /command/s6-svc -d /run/service/dashboard").ok();
    for name in ["aft", "fore", "dashboard", "main-hermes", "gateway-default"] {
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
    for name in ["dashboard", "main-hermes"] {
        let link = std::fs::read_link(world.path(&format!("/run/service/{name}"))).expect("a link");
        assert_eq!(link, PathBuf::from(format!("/run/s6-rc/servicedirs/{name}")));
    }
    assert!(listed.ends_with("true\ntrue\n"), "{listed}");
    assert_eq!(world.state("dashboard"), "down", "stopped by the gateway user");
    shell(&world, &supervisor, "/command/s6-svc -d /run/service/aft").fails(111);
    // What is shown in the scan directory is the image's; taking it away there takes nothing away.
    shell(&world, &supervisor, "rm /run/service/aft; /command/s6-svscanctl -an /run/service").ok();
    assert_eq!(world.state("aft"), "up");
    assert!(!world.path("/main-hermes-ran").exists());
    assert_eq!(supervisor.terminate(), End::Code(0));
    world.assert_no_survivors("services of the image");
}

/// Contract: 90.
#[test]
fn finish_programs_are_told_and_decide() {
    let finish = |rest: &str| format!("#!/bin/sh\necho \"$* as $(id -u) in $PWD\" >>/tmp/told\n{rest}\n");
    let mut world = world(idle());
    for (name, run, rest) in [("clean", "exit 0", "exit 125"), ("wrong", "exit 78", "exit 125")] {
        let files = [("run", format!("#!/bin/sh\n{run}\n")), ("finish", finish(rest))];
        longrun(&world, name, &files.each_ref().map(|(file, text)| (*file, text.as_str())));
    }
    let waits = "#!/bin/sh\nexec /adversary pause MARK\n";
    longrun(
        &world,
        "slow",
        &[
            ("run", waits),
            ("finish", &finish("/command/s6-sleep -m 100\necho over >/tmp/over")),
            ("timeout-finish", "0\n"),
        ],
    );
    // It is killed wherever it is when its time is over, which may be before it has said anything.
    longrun(
        &world,
        "hangs",
        &[
            ("run", waits),
            ("finish", &finish("exec /adversary ignore-term MARK")),
            ("timeout-finish", "200\n"),
        ],
    );
    let supervisor = world.start();
    assert_eq!(world.wait_state("clean", &["finished"])["last_exit"]["code"], json!(0));
    assert_eq!(world.wait_state("wrong", &["failed"])["last_exit"]["code"], json!(78));
    world.wait_log("slow", "ready");
    world.wait_log("hangs", "ready");
    let pid = world.status("slow")["pid"].to_string();
    world.ctl(&["stop", "slow"]).ok();
    assert_eq!(world.read("/tmp/over"), "over\n", "the answer comes after it");
    world.ctl(&["stop", "hangs"]).ok();
    world.assert_no_survivors("of a finish program that hangs");
    world.wait_stderr("hangs: its finish program did not end within 200ms and is killed");
    let told = world.read("/tmp/told");
    for (name, what) in [("clean", "0 0"), ("wrong", "78 0"), ("slow", "256 15")] {
        let line = told.lines().find(|line| line.starts_with(&format!("{what} {name} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {told}"));
        assert!(line.ends_with(&format!(" as 0 in {SOURCES}/{name}")), "{line}");
    }
    assert!(told.contains(&format!("256 15 slow {pid} ")), "{told}");
    drop(supervisor);
}

#[test]
fn readiness_comes_over_the_descriptor_that_was_named() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = world(setup(rung, Place::Pid1).main_program(&["/adversary", "hold"]));
        for (name, number) in [("three", 3), ("ten", 10)] {
            let run = format!(
                "#!/bin/sh\nprintf ready-soon >/proc/self/fd/{number}\necho asks\nread go <{SOURCES}/{name}/go\necho >/proc/self/fd/{number}\nexec /adversary hold MARK\n"
            );
            longrun(&world, name, &[("run", &run), ("notification-fd", &number.to_string()), ("down", "")]);
            let go = world.path(&format!("{SOURCES}/{name}/go"));
            rustix::fs::mknodat(rustix::fs::CWD, &go, rustix::fs::FileType::Fifo, 0o644.into(), 0)
                .expect("a fifo");
        }
        longrun(
            &world,
            "never",
            &[("run", "#!/bin/sh\nexec /adversary pause MARK\n"), ("notification-fd", "4"), ("down", "")],
        );
        longrun(
            &world,
            "closes",
            &[
                ("run", "#!/bin/sh\nexec 4>&-\nexec /adversary pause MARK\n"),
                ("notification-fd", "4"),
                ("down", ""),
            ],
        );
        let supervisor = world.start();
        for name in ["three", "ten"] {
            let start = world.inside_command(0, &["/hermes-sup", "ctl", "start", name]);
            let asked = std::thread::spawn(move || Answer::of(start, wait::PATIENCE));
            world.wait_log(name, "asks");
            world.wait_state(name, &["up"]);
            let not_yet = format!("/command/s6-svwait -U -t 50 /run/service/{name}");
            shell(&world, &supervisor, &not_yet).fails(99);
            assert!(!asked.is_finished(), "answered before the newline");
            world.write(&format!("{SOURCES}/{name}/go"), "go\n");
            asked.join().expect("an answer").ok();
            assert_eq!(world.state(name), "ready", "{rung:?}");
            assert!(
                shell(&world, &supervisor, &format!("/command/s6-svstat -o ready /run/service/{name}"))
                    .ok()
                    .contains("true")
            );
        }
        for name in ["never", "closes"] {
            let late = world.ctl(&["start", "--timeout", "200ms", name]);
            assert_ne!(late.code, 0, "{late:?}");
            world.wait_state(name, &["up"]);
        }
    }
}

/// Without `timeout-kill` s6 never kills. Here what has none gets the limit of any other service.
/// Contract: 93.
#[test]
fn a_stop_uses_the_slots_own_signal_and_patience() {
    let mut world = world(idle());
    longrun(
        &world,
        "asks",
        &[
            (
                "run",
                "#!/bin/sh\ntrap 'echo got usr1; exit 0' USR1\ntrap '' TERM\necho ready\nsleep 100000 & wait\n",
            ),
            ("down-signal", "SIGUSR1\n"),
        ],
    );
    longrun(
        &world,
        "deaf",
        &[("run", "#!/bin/sh\nexec /adversary ignore-term MARK\n"), ("timeout-kill", "100\n")],
    );
    let _supervisor = world.start();
    world.wait_log("asks", "ready");
    world.ctl(&["stop", "asks"]).ok();
    assert!(world.log("asks").contains("got usr1"), "{}", world.log("asks"));
    // A slow moment of the machine costs one try.
    let in_time = (1..=3).any(|life| {
        world.ctl(&["start", "deaf"]).ok();
        world.wait_log_times("deaf", "ready", life);
        let asked = std::time::Instant::now();
        world.ctl(&["stop", "deaf"]).ok();
        asked.elapsed() < std::time::Duration::from_secs(5)
    });
    assert!(in_time, "its own limit, not ours of 10 s");
    assert!(process::marked(&world.mark).is_empty());
}
