//! Time in which the supervisor itself did not run is nobody's timeout.

use crate::harness::layout::adversary_program;
use crate::harness::{End, Setup, World};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Command;

/// Longer than the timeouts of the story (7 s: so long may the answers of a busy machine take, once it goes on), and than what
/// counts as a late wake-up; shorter than the patience of a client, which is not paused here.
const PAUSE_MILLIS: &str = "9000";

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("a signal");
}

/// A supervisor was stopped in the middle of a stop (SIGSTOP, `docker pause`, a virtual machine that stood still). When it went
/// on, the stop's timeout seemed to be long over, and it killed a service that was about to obey. It called a start
/// late, too, and answered callers that their time was over.
#[test]
fn at_the_thaw_nobody_is_late_who_was_not() {
    let mut world = World::new(Setup::plain());
    world
        .adversary("slow", "echo-signals", "[stop]\ntimeout = \"7s\"")
        .adversary("unready", "pause", "[ready]\nkind = \"fd\"\nfd = 3\ntimeout = \"1h\"")
        .adversary("late", "pause", "autostart = false\n[ready]\nkind = \"fd\"\nfd = 3\ntimeout = \"7s\"");
    let supervisor = world.start();
    world.wait_log("slow", "ready");
    world.wait_log("unready", "ready");
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| world.ctl(&["stop", "slow"]));
        let wait = scope.spawn(|| world.ctl(&["wait", "unready", "--ready", "--timeout", "7s"]));
        world.wait_log("slow", "got signal 15");
        let start = scope.spawn(|| world.ctl(&["start", "late"]));
        world.wait_log("late", "ready");

        signal(supervisor.pid(), Signal::STOP);
        let pause = Command::new(adversary_program()).args(["exit-after", PAUSE_MILLIS, "0"]).status();
        assert!(pause.expect("the pause").success());
        signal(supervisor.pid(), Signal::CONT);

        // The first answer shows that it runs again, the second that it has looked at the time meanwhile.
        let states = [(); 2].map(|()| world.state("slow"));
        assert_eq!(states, ["stopping", "stopping"], "{}", world.stderr());
        assert_eq!(world.status("late")["reason"], serde_json::Value::Null, "its time is not over");
        assert!(!wait.is_finished() && !start.is_finished(), "the callers' time is not over");

        world.ctl(&["kill", "slow", "USR2"]).ok();
        stop.join().expect("ctl").ok();
        assert_eq!(world.status("slow")["last_exit"]["code"], 42, "it ended as it liked: {}", world.stderr());
        // What runs out while the supervisor runs is over as always.
        assert_ne!(wait.join().expect("ctl").code, 0, "it never gets ready");
        let not_ready = start.join().expect("ctl").fails(1);
        assert!(not_ready.contains("has not reported in its time that it is ready"), "{not_ready}");
    });
    assert!(world.stderr().contains("the supervisor did not run for"), "{}", world.stderr());
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after the shutdown");
}
