//! `[memory]`: what the kernel is told about the memory of a service, as the kernel itself shows it.

use crate::harness::{Setup, World, process};

crate::on_every_rung!(samepage_merging_and_huge_pages_are_as_the_definition_says);

fn samepage_merging_and_huge_pages_are_as_the_definition_says(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("told", "pause told", "[memory]\nksm = true\nthp = \"disable\"");
    world.adversary("untold", "pause untold", "");
    let supervisor = world.start();
    for name in ["told", "untold"] {
        world.wait_state(name, &["up"]);
    }
    let pid_of = |word: &str| world.marked(word).first().expect("its process").outer;
    let thp = |pid: i32| process::status(pid, "THP_enabled");
    // By no means every kernel shows it.
    let merges = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/ksm_stat")).unwrap_or_default();
        stat.lines().find_map(|line| Some(line.strip_prefix("ksm_merge_any:")?.trim().to_owned()))
    };
    let (told, untold) = (pid_of("told"), pid_of("untold"));
    assert_eq!((thp(told).as_deref(), thp(untold).as_deref()), (Some("0"), Some("1")));
    if merges(untold).is_some() {
        assert_eq!((merges(told).as_deref(), merges(untold).as_deref()), (Some("yes"), Some("no")));
    }
    assert_eq!(thp(supervisor.process.pid).as_deref(), Some("1"), "it is the service's alone");
}
