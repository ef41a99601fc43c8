//! What the scenarios are told with: machines and their disks, commands inside, and the oracle. Whatever was made is
//! gone when it is dropped.

pub mod initramfs;
pub mod machine;
pub mod setup;

pub use machine::Machine;
pub use setup::{Setup, Volume};

use std::io::Write;
use std::time::Duration;

/// Beyond this a wait has failed. Generous: processors are emulated, and the machine below may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A line for the reader of the run, past libtest, which keeps back what a passing test prints.
pub fn figure(text: &str) {
    let _ = writeln!(std::io::stderr(), "figure: {text}");
}

/// What `tests/run vm` has found or made.
///
/// # Panics
/// Without it.
pub fn provided(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run me with tests/run vm"))
}
