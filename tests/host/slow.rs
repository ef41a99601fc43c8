//! A volume that takes its time: what is read late is taken when it comes.

use crate::harness::{Setup, World};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};

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
    let supervisor = world.start();
    world.wait_state("slow", &["up"]);
    world.ctl(&["stop", "stopped"]).ok();
    supervisor.terminate();

    let gate = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY)
        .expect("fanotify_init(2)");
    gate.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM, rustix::fs::CWD, Some(&slow))
        .expect("fanotify_mark(2)");
    let _supervisor = world.start();
    world.wait_stderr("/opt/data/services/slow.toml is still being read");
    world.wait_state("elsewhere", &["up"]);
    assert!(world.ctl(&["status"]).ok().contains("is still being read"));

    for event in gate.read_events().expect("the open that waits") {
        let fd = event.fd().expect("a queue that did not overflow");
        gate.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW)).expect("an answer");
    }
    drop(gate);
    world.wait_state("slow", &["up"]);
    assert_eq!((world.state("stopped").as_str(), world.want("stopped").as_str()), ("down", "down"));
    assert!(!world.ctl(&["status"]).ok().contains("is still being read"));
}
