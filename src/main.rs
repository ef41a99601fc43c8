//! One binary: the first words of the command line choose the front door, which returns the exit code.

mod front;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Keepers are many and small: they come before anything that costs memory.
    if std::env::args_os().nth(1).is_some_and(|word| word == hermes_sup::containment::keeper::ARGUMENT) {
        return hermes_sup::containment::keeper::main(std::env::args().nth(2).as_deref());
    }
    ExitCode::from(front::run())
}
