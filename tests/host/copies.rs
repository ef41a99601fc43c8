//! A state that was copied: a backup restored beside the original, an upgrade tried on a copy. The copy had the identity of the
//! original, took it for a killed predecessor, and ended everything of it.

use crate::harness::{End, Place, Rung, Setup, Supervisor, World, wait};
use serde_json::json;
use std::process::{Child, Command, Stdio};

const COPY: &str = "/opt/copy";
const SOCKET: &str = "/tmp/copy/control.sock";
/// The tree is deaf to SIGTERM, and each end would wait for ten seconds.
const SOON: &str = "[stop]\ntimeout = \"100ms\"";

fn copy_of_home(world: &World) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(world.path("/opt/data")).arg(world.path(COPY));
    assert!(copy.status().is_ok_and(|status| status.success()), "cp is needed here");
}

/// The supervisor of the copy.
struct Second {
    process: Child,
}

impl Second {
    fn start(world: &World) -> Self {
        let words = ["/hermes-sup", "run", "--home", COPY, "--socket", SOCKET];
        let stderr = std::fs::File::create(world.outside("second")).expect("a file");
        let mut command = world.inside_command(0, &words);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let second = Self { process: process.expect("the second supervisor") };
        wait::until("the second supervisor", &world.path("/tmp"), || {
            (second.ctl(world, &["wait", "coder", "--up"]) == 0).then_some(())
        });
        second
    }

    fn ctl(&self, world: &World, words: &[&str]) -> i32 {
        let all: Vec<&str> =
            ["/hermes-sup", "ctl", "--socket", SOCKET].into_iter().chain(words.iter().copied()).collect();
        world.inside_answer(&all).code
    }

    fn says(world: &World) -> String {
        std::fs::read_to_string(world.outside("second")).unwrap_or_default()
    }

    fn ends(mut self, world: &World) {
        assert_eq!(self.ctl(world, &["shutdown"]), 0);
        self.process.wait().expect("its end");
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // What it leaves goes with the world.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The original's tree, as it was.
fn untouched(world: &World, pid: &serde_json::Value, trees: usize) {
    let status = world.status("coder");
    assert_eq!((&status["pid"], &status["restarts"]), (pid, &json!(0)), "{status}\n{}", Second::says(world));
    assert_eq!(world.marked("tree").len(), 6 * trees, "{}", Second::says(world));
}

fn beside_the_running_original(rung: Rung, while_down: bool) {
    let mut world = World::new(Setup::new(rung, Place::Child));
    world.adversary("coder", "tree 5", SOON);
    let mut first: Supervisor = world.start();
    world.wait_log("coder", "ready tree");
    if while_down {
        assert_eq!(first.terminate(), End::Code(0));
        copy_of_home(&world);
        first = world.start();
        world.wait_log_times("coder", "ready tree", 2);
    } else {
        copy_of_home(&world);
    }
    let pid = world.status("coder")["pid"].clone();
    let second = Second::start(&world);
    wait::until("both trees", &world.root, || (world.marked("tree").len() == 12).then_some(()));
    untouched(&world, &pid, 2);
    let said = Second::says(&world);
    assert_eq!(said.matches("is a copy of another supervisor's state").count(), 1, "{said}");
    second.ends(&world);
    untouched(&world, &pid, 1);
    // It has its own identity from now on, and nothing more to say about it.
    let again = Second::start(&world);
    assert!(!Second::says(&world).contains("is a copy"), "{}", Second::says(&world));
    again.ends(&world);
    untouched(&world, &pid, 1);
    // The original is still itself: what it leaves is its successor's.
    first.kill();
    let _first = world.start();
    untouched(&world, &pid, 1);
}

#[test]
fn a_copy_leaves_the_running_original_alone_on_cgroup() {
    beside_the_running_original(Rung::Cgroup, false);
}

#[test]
fn a_copy_leaves_the_running_original_alone_on_keeper() {
    beside_the_running_original(Rung::Keeper, false);
}

#[test]
fn a_copy_made_while_the_original_was_down_leaves_it_alone_on_cgroup() {
    beside_the_running_original(Rung::Cgroup, true);
}

#[test]
fn a_copy_made_while_the_original_was_down_leaves_it_alone_on_keeper() {
    beside_the_running_original(Rung::Keeper, true);
}

/// Only the original's own successor goes on with what a killed original left.
#[test]
fn what_a_dead_original_left_is_not_its_copys() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        world.adversary("coder", "tree 5", SOON);
        let first = world.start();
        world.wait_log("coder", "ready tree");
        let pid = world.status("coder")["pid"].clone();
        first.kill();
        copy_of_home(&world);
        let second = Second::start(&world);
        wait::until("both trees", &world.root, || (world.marked("tree").len() == 12).then_some(()));
        second.ends(&world);
        assert_eq!(world.marked("tree").len(), 6, "{}", Second::says(&world));
        let _first = world.start();
        untouched(&world, &pid, 1);
    }
}

/// Somebody tidied up, or a copy of an older version did: each start failed with ENOENT from then on.
#[test]
fn a_cgroup_that_somebody_removed_is_made_again() {
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Child));
    world.adversary("one", "pause", "").adversary("two", "pause", "autostart = false");
    let supervisor = world.start();
    world.ctl(&["wait", "one", "--up"]).ok();
    world.ctl(&["stop", "one"]).ok();
    let is_ours = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hermes-sup."))
    };
    // Children come first; a directory may be busy for a moment after the end of what was in it.
    wait::until("the removal", &world.root, || {
        let ours: Vec<_> = world.cgroups().into_iter().filter(is_ours).collect();
        for cgroup in world.cgroups() {
            if ours.iter().any(|ours| cgroup.starts_with(ours)) {
                let _ = std::fs::remove_dir(cgroup);
            }
        }
        (!world.cgroups().iter().any(is_ours)).then_some(())
    });
    world.ctl(&["start", "one", "two"]).ok();
    assert_eq!(world.marked("pause").len(), 2);
    assert_eq!(world.stderr().matches("it is made again").count(), 1, "{}", world.stderr());
    let pid = world.status("one")["pid"].clone();
    // A successor finds the new one.
    supervisor.kill();
    let _supervisor = world.start();
    assert_eq!(world.status("one")["pid"], pid);
    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("they were in the new directory");
}
