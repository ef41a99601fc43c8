//! A volume that takes its time: what is read late is taken when it comes.

use crate::harness::{Setup, World};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use std::path::Path;

fn mark(gate: &Fanotify, flags: MarkFlags, path: &Path) {
    gate.mark(flags, MaskFlags::FAN_OPEN_PERM, rustix::fs::CWD, Some(path)).expect("fanotify_mark(2)");
}

fn allow(gate: &Fanotify, events: &[FanotifyEvent]) {
    for event in events {
        let fd = event.fd().expect("a queue that did not overflow");
        gate.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW)).expect("an answer");
    }
}

/// The reading of home was given up after five seconds: its services did not exist until somebody reloaded, the `reload` timed
/// out likewise, and the message blamed the disk. The kernel keeps an open(2) of the file waiting here until it is allowed
/// (fanotify(7), FAN_OPEN_PERM).
#[test]
fn what_a_slow_volume_gives_late_is_started_as_it_was_wanted() {
    let mut world = World::new(Setup::plain());
    world.adversary("elsewhere", "pause", "");
    let definition = "command = [\"/adversary\", \"pause\"]\n";
    let slow = world.write_as_hermes("/opt/data/services/slow.toml", definition);
    world.write_as_hermes("/opt/data/services/stopped.toml", definition);
    world.write_as_hermes("/opt/data/services/beside.toml", definition);
    let supervisor = world.start();
    world.wait_state("slow", &["up"]);
    world.ctl(&["stop", "stopped"]).ok();
    supervisor.terminate();

    let gate = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY)
        .expect("fanotify_init(2)");
    mark(&gate, MarkFlags::FAN_MARK_ADD, &slow);
    let _supervisor = world.start();
    world.wait_stderr("/opt/data/services/slow.toml is still being read");
    world.wait_state("elsewhere", &["up"]);
    // Nor does it hide what lies beside it.
    world.wait_state("beside", &["up"]);
    assert_eq!(world.state("slow"), "refused");
    assert!(world.ctl(&["status"]).ok().contains("is still being read"));

    allow(&gate, &gate.read_events().expect("the open that waits"));
    drop(gate);
    world.wait_state("slow", &["up"]);
    assert_eq!((world.state("stopped").as_str(), world.want("stopped").as_str()), ("down", "down"));
    assert!(!world.ctl(&["status"]).ok().contains("is still being read"));
}

/// What a reload had read was taken for the late definitions first, and then the reload found none in it: each was `gone`.
#[test]
fn a_reload_that_comes_before_the_late_reading_loses_nothing() {
    let mut world = World::new(Setup::plain());
    world.adversary("elsewhere", "pause", "");
    let slow =
        world.write_as_hermes("/opt/data/services/slow.toml", "command = [\"/adversary\", \"pause\"]\n");
    let gate = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY)
        .expect("fanotify_init(2)");
    mark(&gate, MarkFlags::FAN_MARK_ADD, &slow);
    let _supervisor = world.start();
    world.wait_stderr("/opt/data/services/slow.toml is still being read");
    let boots = gate.read_events().expect("the open of the start");
    let told = std::thread::scope(|scope| {
        let reload = scope.spawn(|| world.ctl(&["reload"]));
        let reloads = gate.read_events().expect("the open of the reload");
        // From here on other readers need not wait; the start still does.
        mark(&gate, MarkFlags::FAN_MARK_REMOVE, &slow);
        allow(&gate, &reloads);
        reload.join().expect("an answer")
    });
    assert!(!told.ok().contains("gone"));
    world.wait_state("slow", &["up"]);
    allow(&gate, &boots);
    drop(gate);
    let pids = ["slow", "elsewhere"].map(|name| world.wait_state(name, &["up"])["pid"].clone());
    world.ctl(&["reload"]).ok();
    assert_eq!(pids, ["slow", "elsewhere"].map(|name| world.wait_state(name, &["up"])["pid"].clone()));
}

/// A `reload` that met a slow file was refused after its time, and nothing came of it, not even of the files that could be read.
#[test]
fn a_reload_names_what_it_waits_for_and_takes_it_when_it_comes() {
    let mut world = World::new(Setup::plain());
    let definition = "command = [\"/adversary\", \"pause\"]\n";
    let kept = world.write_as_hermes("/opt/data/services/kept.toml", definition);
    let _supervisor = world.start();
    let pid = world.wait_state("kept", &["up"])["pid"].clone();

    let slow = world.write_as_hermes("/opt/data/services/slow.toml", definition);
    world.write_as_hermes("/opt/data/services/swift.toml", definition);
    let gate = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY)
        .expect("fanotify_init(2)");
    for path in [&slow, &kept] {
        mark(&gate, MarkFlags::FAN_MARK_ADD, path);
    }
    // Also the second time, while the first still waits.
    for _ in 0..2 {
        let told = world.ctl(&["reload"]);
        assert_eq!(told.code, 1, "{told:?}");
        for file in ["slow", "kept"] {
            let waits = format!("/opt/data/services/{file}.toml: is still being read");
            assert!(told.err.contains(&waits) && !told.out.contains("gone"), "{told:?}");
        }
        world.wait_state("swift", &["up"]);
    }
    let told = world.ctl(&["start", "slow"]);
    assert!(told.err.contains("'slow' is not there yet"), "{told:?}");
    assert_eq!(world.wait_state("kept", &["up"])["pid"], pid);

    for path in [&slow, &kept] {
        mark(&gate, MarkFlags::FAN_MARK_REMOVE, path);
    }
    allow(&gate, &gate.read_events().expect("the opens that wait"));
    drop(gate);
    world.wait_state("slow", &["up"]);
    assert_eq!(world.wait_state("kept", &["up"])["pid"], pid);
    world.wait_stderr("what was still being read has been read");
}
