//! The services of a run, each with how many processes a copy of it has.

use super::harness::process::Process;
use super::harness::{Setup, World};
use std::ops::RangeInclusive;

pub struct Member {
    pub name: &'static str,
    /// Of the adversary that it runs.
    words: &'static str,
    rest: &'static str,
    /// While it is wanted up.
    pub processes: RangeInclusive<usize>,
}

const fn member(
    name: &'static str,
    words: &'static str,
    processes: RangeInclusive<usize>,
    rest: &'static str,
) -> Member {
    Member { name, words, rest, processes }
}

/// The lock shows two copies that are there for a moment only.
pub const LOCK: &str = "/opt/data/lock";
pub const SINGLE: &str = "single";
/// Its log rotates all the time.
pub const CLOCK: &str = "clock";
/// Its probe hangs.
pub const ASKED: &str = "asked";
/// Processes of that probe have this word, and one probe has so many processes.
pub const PROBING: &str = "probing";
pub const PROBE: usize = 3;
/// Down at first.
pub const LATER: &str = "later";
/// A gateway, of a profile.
pub const CODER: &str = "coder";
pub const PROFILE: &str = "/opt/data/profiles/coder";
/// The gateway of the root profile: whether it is up follows from the others.
pub const ROOT: &str = "default";

const QUICK: &str = "[stop]\ntimeout = \"100ms\"\n[restart]\nbackoff = { initial = \"1ms\", max = \"20ms\" }\n\
                     limit = \"none\"\n";

pub const FLEET: [Member; 8] = [
    member(SINGLE, "exclusive /opt/data/lock", 2..=2, ""),
    member("wood", "tree 6", 7..=7, ""),
    member(CLOCK, "tick 5", 1..=1, "[log]\nmax_size = 4096\nkeep = 3\n"),
    member(ASKED, "pause", 1..=1, ""),
    member("hooked", "pause", 1..=1, "[hooks]\npost_start = [\"/bin/true\"]\npre_stop = [\"/bin/true\"]\n"),
    member("flaky", "exit-after 30 1", 0..=1, ""),
    member(LATER, "pause", 1..=1, "after = [\"single\"]\nautostart = false\n"),
    member(CODER, "", 1..=1, ""),
];

/// Names that come and go.
pub const REGISTERED: [&str; 3] = ["guest-0", "guest-1", "guest-2"];

/// The service that a process of the fleet says it is of: the last word but one.
pub fn service_of(process: &Process) -> String {
    process.command.split_whitespace().rev().nth(1).unwrap_or_default().to_owned()
}

/// How many processes one copy of `name` has.
pub fn copy_of(name: &str) -> RangeInclusive<usize> {
    let member = FLEET.iter().find(|member| member.name == name);
    member.map_or(1..=1, |member| member.processes.clone())
}

pub fn world(setup: Setup) -> World {
    let world = World::new(setup);
    world.write_as_hermes(LOCK, "");
    for Member { name, .. } in &FLEET {
        define(&world, name, "");
    }
    world.write_as_hermes(&format!("{PROFILE}/SOUL.md"), "soul");
    world
}

/// Writes the definition of a member, with `more` in front of it.
pub fn define(world: &World, name: &str, more: &str) {
    let member = FLEET.iter().find(|member| member.name == name).expect("a member");
    let mark = &world.mark;
    if name == CODER {
        let command = ["/adversary", "pause", "{profile}", mark];
        let template = format!("command = {command:?}\n{more}\n[ready]\nkind = \"none\"\n{QUICK}");
        world.define("gateway", &template);
        return;
    }
    let mut rest = format!("{more}\n{}{QUICK}", member.rest);
    if name == ASKED {
        let probe = ["/adversary", "tree", "2", PROBING, mark];
        rest.push_str(&format!(
            "[health]\nkind = \"exec\"\ncommand = {probe:?}\ninterval = \"50ms\"\ntimeout = \"1h\"\n"
        ));
    }
    world.adversary(name, &format!("{} {name}", member.words), &rest);
}
