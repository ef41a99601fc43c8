//! The hostile matrix: rung × adversary × way of ending, with survivors and milliseconds. `tests/run matrix` prints it.
//!
//! Each cell is a service that runs one of `tests/adversaries` in a world of its own kind (see the host tier), brought to
//! an end in one way. The time is from the order to its answer, or to the end of the supervisor; the 100 ms that TERM is
//! given are in it. A survivor is a process that carries the world's mark and is alive after that.

// The host tier's; this program needs only a part.
#[allow(dead_code, unused_imports)]
#[path = "../host/harness/mod.rs"]
mod harness;

use harness::hostile::{HOSTILE, name};
use harness::{Place, Rung, Setup, Supervisor, World};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const RUNGS: [Rung; 5] = [Rung::Cgroup, Rung::CgroupPrivate, Rung::Pidns, Rung::Keeper, Rung::KeeperSameUid];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Stop,
    /// SIGKILL to the main process only; what it leaves is the supervisor's.
    Crash,
    Restart,
    Frozen,
    Shutdown,
}

const ENDINGS: [(Ending, &str); 5] = [
    (Ending::Stop, "stop"),
    (Ending::Crash, "crash"),
    (Ending::Restart, "restart"),
    (Ending::Frozen, "frozen, stop"),
    (Ending::Shutdown, "shutdown"),
];

const SERVICE: &str = "autostart = false\n[stop]\ntimeout = \"100ms\"\n[restart]\npolicy = \"never\"";

struct Cell {
    survivors: usize,
    took: Duration,
    /// It would not stand still, and was ended as it was.
    restless: bool,
}

/// Who carries the mark now. A comet is another process at each look, so only those that stay are told apart by it.
fn alive(world: &World) -> BTreeSet<i32> {
    world.marked("").into_iter().map(|process| process.outer).collect()
}

fn bring_to_an_end(world: &World, supervisor: Supervisor, name: &str, ready: &str, ending: Ending) -> Cell {
    world.ctl(&["start", name]).ok();
    world.wait_log(name, ready);
    let before = alive(world);
    // What forks and exits without end cannot be brought to a stand without cgroups, and `freeze` then says so.
    let frozen = ending == Ending::Frozen && world.ctl(&["freeze", name]).code == 0;
    let restless = ending == Ending::Frozen && !frozen;
    let start = Instant::now();
    match ending {
        Ending::Stop | Ending::Frozen => drop(world.ctl(&["stop", name]).ok()),
        Ending::Crash => {
            world.ctl(&["kill", name, "KILL"]).ok();
            world.ctl(&["wait", name, "--down"]).ok();
        }
        Ending::Restart => drop(world.ctl(&["restart", name]).ok()),
        Ending::Shutdown => {
            supervisor.terminate();
            return Cell { took: start.elapsed(), survivors: alive(world).len(), restless };
        }
    }
    let took = start.elapsed();
    // After a restart the new life is there by right.
    let survivors = match ending {
        Ending::Restart => alive(world).intersection(&before).count(),
        Ending::Stop | Ending::Crash | Ending::Frozen | Ending::Shutdown => alive(world).len(),
    };
    supervisor.terminate();
    Cell { survivors, took, restless }
}

#[allow(clippy::disallowed_macros)]
fn main() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for rung in RUNGS {
        println!("\n{}: survivors, milliseconds", rung.name());
        print!("{:24}", "");
        for (_, shown) in ENDINGS {
            print!("{shown:>14}");
        }
        println!();
        for (adversary, ready) in HOSTILE {
            print!("{adversary:24}");
            for (ending, _) in ENDINGS {
                let mut world = World::new(Setup::new(rung, Place::Child));
                let name = name(adversary);
                world.adversary(name, adversary, SERVICE);
                let supervisor = world.start();
                let cell = bring_to_an_end(&world, supervisor, name, ready, ending);
                let clean = cell.survivors == 0;
                if clean {
                    passed += 1
                } else {
                    failed += 1
                }
                let mark = if cell.restless { "*" } else { "" };
                print!("{:>14}", format!("{}{mark} {:>5}", cell.survivors, cell.took.as_millis()));
            }
            println!();
        }
    }
    println!("\n* would not be frozen");
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
