//! What the scenarios are told with: machines and their disks, commands inside, and the oracle. Whatever was made is
//! gone when it is dropped.

pub mod asleep;
// That of the simulator.
#[allow(dead_code)]
#[path = "../../../src/daemon/simulation/dice.rs"]
mod dice;
pub mod disk;
pub mod fsck;
pub mod initramfs;
pub mod machine;
pub mod patience;
pub mod remains;
pub mod setup;

pub use dice::Dice;
pub use disk::Disk;
pub use machine::Machine;
pub use patience::stood_still;
pub use setup::{Setup, Volume, mark};

use std::io::Write;
use std::path::{Path, PathBuf};

/// A line for the reader of the run, past libtest, which keeps back what a passing test prints.
pub fn figure(text: &str) {
    let _ = writeln!(std::io::stderr(), "figure: {text}");
}

/// A directory in memory, where there is one.
pub fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// What `tests/run vm` has found or made.
///
/// # Panics
/// Without it.
pub fn provided(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run me with tests/run vm"))
}

/// What is random follows from it: another one in each run, unless it is given.
pub fn seed() -> u64 {
    let given = std::env::var("HERMES_SUP_VM_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

/// Dice of their own for somebody, which follow from these.
pub fn split(dice: &mut Dice) -> Dice {
    Dice::new(dice.between(0, u64::MAX - 1))
}
