//! The adversaries are what they say, with the kernel as the judge: otherwise the stories about them prove nothing.

use crate::harness::process::Process;
use crate::harness::{End, Launched, Setup, World, wait};
use rustix::process::Signal;
use std::time::Duration;

/// Starts one in an empty world and waits until it says it is ready.
fn alone(words: &[&str]) -> (World, Launched) {
    let mut world = World::new(Setup::plain());
    let mark = world.mark.clone();
    let mut command = vec!["/adversary"];
    command.extend_from_slice(words);
    command.push(&mark);
    let process = world.run_alone(&command);
    world.wait_stdout("ready");
    (world, process)
}

/// What is left of it once its main process has got TERM and, where `dies`, has ended of it.
fn after_term(world: &World, process: &mut Launched, dies: bool) -> Vec<Process> {
    process.signal(Signal::TERM);
    let ended = process.wait_within(Duration::from_millis(if dies { 10_000 } else { 200 }));
    assert_eq!(ended.is_some(), dies, "{ended:?}");
    world.marked("")
}

fn all_die_of_cgroup_kill(world: &World) {
    wait::until("cgroup.kill to end all", world.root.as_path(), || {
        world.cgroup_kill();
        world.marked("").is_empty().then_some(())
    });
}

#[test]
fn tree_is_a_hundred_deaf_daemons() {
    let (world, mut process) = alone(&["tree", "100"]);
    let left = after_term(&world, &mut process, false);
    assert_eq!(left.len(), 101 + 1, "with the process outside that watches");
    let orphans = left.iter().filter(|each| each.parent == world.holder_pid()).count();
    assert_eq!(orphans, 100, "all but the main process belong to PID 1");
    all_die_of_cgroup_kill(&world);
}

#[test]
fn comet_is_never_where_it_was() {
    let (world, mut process) = alone(&["comet", "2"]);
    let mut met = std::collections::BTreeSet::new();
    wait::until("twenty different pids of two comets", world.root.as_path(), || {
        // Asked of the cgroup: a comet's entry in /proc is gone before it can be read.
        met.extend(world.cgroup_pids());
        (met.len() > 22).then_some(())
    });
    after_term(&world, &mut process, false);
    all_die_of_cgroup_kill(&world);
}

#[test]
fn storm_reaches_its_bound() {
    let (world, mut process) = alone(&["storm", "300"]);
    world.wait_stdout("bound reached");
    let left = after_term(&world, &mut process, false);
    assert!(left.len() > 250, "{}", left.len());
    all_die_of_cgroup_kill(&world);
}

#[test]
fn obey_but_child_ignores_leaves_one() {
    let (world, mut process) = alone(&["obey-but-child-ignores"]);
    assert_eq!(after_term(&world, &mut process, true).len(), 1);
    all_die_of_cgroup_kill(&world);
}

#[test]
fn zombie_leader_looks_dead_and_survives_cgroup_kill_on_some_kernels() {
    let (world, process) = alone(&["zombie-leader"]);
    let state = crate::harness::process::status(process.pid, "State").unwrap_or_default();
    assert!(state.starts_with('Z'), "{state}");
    assert!(!wait::gone(process.pid, Duration::from_millis(100)), "its pidfd is silent: a thread lives");
    process.signal(Signal::KILL);
    assert!(wait::gone(process.pid, wait::PATIENCE));
    drop(process);
    all_die_of_cgroup_kill(&world);
}

#[test]
fn vfork_child_holds_its_parent() {
    let (world, mut process) = alone(&["vfork-child"]);
    let left = after_term(&world, &mut process, false);
    let state = crate::harness::process::status(process.pid, "State").unwrap_or_default();
    assert!(state.starts_with('D'), "the parent waits in vfork: {state}");
    assert_eq!(left.len(), 2 + 1, "with the process outside that watches");
    all_die_of_cgroup_kill(&world);
}

#[test]
fn stopped_and_ptraced_are_stopped() {
    let (world, process) = alone(&["stopped"]);
    wait::until("main and child to be stopped", world.root.as_path(), || {
        (world.marked("").iter().filter(|each| each.state == 'T').count() == 2).then_some(())
    });
    drop(process);
    all_die_of_cgroup_kill(&world);
    let (world, _process) = alone(&["ptraced"]);
    assert_eq!(world.marked("").iter().filter(|each| each.state == 't').count(), 1);
    all_die_of_cgroup_kill(&world);
}

#[test]
fn uid_changer_changes_it_where_it_may() {
    let (world, _process) = alone(&["uid-changer"]);
    assert!(world.stdout().contains("uid changed"));
    assert_eq!(world.marked("").iter().filter(|each| each.uid == 12345).count(), 1);
    all_die_of_cgroup_kill(&world);
}

#[test]
fn cgroup_escaper_escapes_where_nobody_stops_it() {
    let (world, _process) = alone(&["cgroup-escaper"]);
    assert!(world.stdout().contains("escape ok /sys/fs/cgroup/escaped"), "{}", world.stdout());
    assert!(world.stdout().contains("\nescaped\n"), "{}", world.stdout());
    all_die_of_cgroup_kill(&world);
}

#[test]
fn kill_keeper_kills_its_parent() {
    let mut world = World::new(Setup::plain());
    let mark = world.mark.clone();
    // The shell is its parent, and would say so if it lived.
    let script = format!("/adversary kill-keeper {mark}; echo still here");
    let mut shell = world.run_alone(&["/bin/sh", "-c", &script]);
    world.wait_stdout("parent killed");
    assert_eq!(shell.wait(), End::Signal(9));
    assert_eq!(world.marked("kill-keeper").len(), 2);
    all_die_of_cgroup_kill(&world);
}

#[test]
fn leave_remains_and_orphan_maker() {
    let (world, mut process) = alone(&["leave-remains", "3"]);
    assert_eq!(process.wait(), End::Code(3));
    assert_eq!(world.marked("").len(), 2);
    all_die_of_cgroup_kill(&world);
    let (world, _process) = alone(&["orphan-maker", "100"]);
    world.wait_stdout("orphaned");
    wait::until("PID 1 to reap", world.root.as_path(), || (world.marked("").len() == 2).then_some(()));
    all_die_of_cgroup_kill(&world);
}

#[test]
fn exclusive_sees_a_second_copy_beside_remains_of_the_first() {
    let (mut world, process) = alone(&["exclusive", "/tmp/lock"]);
    process.signal(Signal::KILL);
    drop(process);
    assert_eq!(world.marked("").len(), 1, "its daemon");
    let mark = world.mark.clone();
    let mut second = world.run_alone(&["/adversary", "exclusive", "/tmp/lock", &mark]);
    assert_eq!(second.wait(), End::Code(99));
    assert_eq!(world.read("/tmp/lock"), "start\nOVERLAP\n");
    all_die_of_cgroup_kill(&world);
}

#[test]
fn ends_are_as_asked() {
    for (words, end) in [
        (["exit", "7"], End::Code(7)),
        (["exit-after", "1"], End::Code(0)),
        (["crash-with", "6"], End::Signal(6)),
        (["crash-with", "11"], End::Signal(11)),
        (["torn-line", "0"], End::Code(1)),
    ] {
        let (_world, mut process) = alone(&words);
        assert_eq!(process.wait(), end, "{words:?}");
    }
    let (world, mut process) = alone(&["wait-signal"]);
    process.signal(Signal::USR1);
    assert_eq!(process.wait(), End::Code(0));
    assert!(world.stdout().contains("got signal 10"));
}

#[test]
fn output_is_exact() {
    let mut world = World::new(Setup::plain());
    let mut process = world.run_alone(&["/adversary", "flood", "10000", "60"]);
    assert_eq!(process.wait(), End::Code(0));
    let text = world.stdout();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 10_001);
    for (count, line) in (1..=10_000).zip(&lines) {
        assert!(line.starts_with(&format!("flood {count:09} ")), "{line}");
    }
    let (world, _process) = alone(&["long-line", "200000"]);
    assert_eq!(world.stdout().find('\n'), Some(200_000));
    let (world, _process) = alone(&["tick", "5"]);
    world.wait_stdout("tick 3");
    let (world, _process) = alone(&["holds-fds", "100"]);
    assert!(world.stdout().contains("holding 100"));
}

#[test]
fn what_is_printed_is_what_was_handed_over() {
    let (world, _process) = alone(&["print-mask"]);
    assert!(world.stdout().contains("SigBlk 0000000000000000"), "{}", world.stdout());
    assert!(world.stdout().contains("SigIgn 0000000000000000"), "{}", world.stdout());
    let (world, _process) = alone(&["print-fds"]);
    assert_eq!(
        world.stdout().lines().filter(|line| line.starts_with("fd ")).count(),
        3,
        "{}",
        world.stdout()
    );
    let (world, _process) = alone(&["print-ids"]);
    for expected in ["Uid 0 0 0 0", "Session own", "Umask 0022", "Cwd /"] {
        assert!(world.stdout().lines().any(|line| line == expected), "{expected}: {}", world.stdout());
    }
}

#[test]
fn the_filter_answers_as_dockers_does() {
    let mut world = World::new(Setup::plain());
    let mut process =
        world.run_alone(&["/adversary", "seccomp", "--", "/usr/bin/unshare", "-m", "/bin/true"]);
    assert_eq!(process.wait(), End::Code(1));
    wait::until("the refusal", world.root.as_path(), || {
        world.stderr().contains("not permitted").then_some(())
    });
}
