//! What is done while a call fails: each story has a beginning that is not watched, and the part that is.

use super::harness::{Place, Rung, Setup, World};
use super::stage::Stage;
use super::tracer::Fault;
/// Before and while a fault is in force.
pub struct Story {
    pub name: &'static str,
    pub setup: fn(Rung) -> Setup,
    /// Definitions, and what has happened before.
    pub before: fn(&mut Stage),
    /// The supervisor is started in it, or it is already there.
    pub watched: fn(&mut Stage, Option<Fault>),
}

const QUICK: &str =
    "[stop]\ntimeout = \"200ms\"\n[restart]\nbackoff = { initial = \"10ms\", max = \"50ms\" }\n";

fn quick(first: &str) -> String {
    format!("{first}\n{QUICK}")
}

fn usual(rung: Rung) -> Setup {
    Setup::new(rung, Place::Child)
}

fn two_services(stage: &mut Stage) {
    stage.service("one", "pause", QUICK);
    stage.service("two", "pause", &quick("autostart = false"));
}

fn two_services_running(stage: &mut Stage) {
    two_services(stage);
    stage.boot();
}

const fn plain(name: &'static str, before: fn(&mut Stage), watched: fn(&mut Stage, Option<Fault>)) -> Story {
    Story { name, setup: usual, before, watched }
}

pub const STORIES: &[Story] = &[
    plain("boot", two_services, Stage::boot_watched),
    plain("boot-again", boot_once, Stage::boot_watched),
    plain("start", two_services_running, |stage, fault| {
        stage.watch(fault);
        stage.start("two");
    }),
    plain("crash", two_services_running, |stage, fault| {
        stage.watch(fault);
        stage.crash("one");
    }),
    plain("stop-hostile", hostile, |stage, fault| {
        stage.watch(fault);
        stage.stop("one");
    }),
    plain("restart", hostile, |stage, fault| {
        stage.watch(fault);
        stage.restart("one");
    }),
    plain("freeze", hostile, |stage, fault| {
        stage.watch(fault);
        stage.freeze("one");
        stage.thaw("one");
    }),
    plain("rotate", rotating, |stage, fault| {
        stage.watch(fault);
        if stage.start("two") {
            stage.check_flood("two", FLOOD);
        }
    }),
    plain("commit", several, |stage, fault| {
        stage.watch(fault);
        stage.stop("one");
        stage.start("two");
        stage.set("three", "nofile", "512");
        stage.start("three");
    }),
    plain("upgrade", two_services_running, |stage, fault| {
        stage.watch(fault);
        stage.upgrade();
    }),
    plain("adopt", killed, Stage::boot_watched),
    plain("register", two_services_running, |stage, fault| {
        stage.watch(fault);
        stage.register("three");
        stage.register("four");
        stage.unregister("four");
    }),
    plain("reload", two_services_running, |stage, fault| {
        stage.service("one", "pause", &quick("umask = \"0077\""));
        stage.service("three", "pause", QUICK);
        stage.forget("three");
        stage.watch(fault);
        stage.reload();
    }),
    plain("shutdown", hostile, |stage, fault| {
        stage.watch(fault);
        stage.terminate();
    }),
    Story {
        name: "disk-full",
        setup: on_a_small_disk,
        before: full_disk,
        watched: |stage, fault| {
            stage.watch(fault);
            stage.stop("one");
            stage.start("two");
            stage.disarm();
            // What is asked afterwards has room again.
            let _ = std::fs::remove_file(stage.world.path(FILLER));
        },
    },
];

const FILLER: &str = "/opt/data/supervisor/filler";

/// A state that was there before.
fn boot_once(stage: &mut Stage) {
    two_services_running(stage);
    stage.stop("one");
    stage.start("two");
    stage.terminate();
    stage.over = false;
    stage.said.clear();
}

/// A tree of which nobody obeys.
fn hostile(stage: &mut Stage) {
    stage.service("one", "tree 4", QUICK);
    stage.service("two", "pause", QUICK);
    stage.boot();
    stage.world.wait_log("one", "ready tree");
}

/// Lines, some for each of several files.
const FLOOD: u64 = 150;

fn rotating(stage: &mut Stage) {
    stage.service("one", "pause", QUICK);
    stage.service("two", "pause", "autostart = false");
    let script = format!("/adversary flood {FLOOD} 60; exec /adversary pause two {}", stage.world.mark);
    let command = ["/bin/sh", "-c", &script, "two", &stage.world.mark];
    let small = quick("autostart = false\n[log]\nmax_size = 4096\nkeep = 100");
    stage.world.define("two", &format!("command = {command:?}\n{small}"));
    stage.boot();
}

fn several(stage: &mut Stage) {
    two_services(stage);
    stage.service("three", "pause", &quick("autostart = false"));
    stage.boot();
}

/// A supervisor that was killed, and what it leaves.
fn killed(stage: &mut Stage) {
    stage.service("one", "tree 4", QUICK);
    stage.service("two", "pause", QUICK);
    stage.boot();
    stage.world.wait_log("one", "ready tree");
    stage.kill_supervisor();
}

fn on_a_small_disk(rung: Rung) -> Setup {
    usual(rung).world_option(&["--tmpfs", "/opt/data/supervisor", "size=8m,mode=750"])
}

fn full_disk(stage: &mut Stage) {
    two_services_running(stage);
    let _ = std::fs::write(stage.world.path(FILLER), vec![0u8; 16 << 20]);
}

pub fn by_name(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}

/// Lays out the world of a story.
pub fn world_of(story: &Story, rung: Rung) -> World {
    let world = World::new((story.setup)(rung));
    if story.name == "disk-full" {
        std::fs::create_dir_all(world.root.join("opt/data/supervisor")).expect("a directory");
    }
    world
}
