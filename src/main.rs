//! One binary: the first words of the command line choose the front door, which returns the exit code.

mod front;

use std::process::ExitCode;

fn main() -> ExitCode {
    // What is typed after an applet's name is the applet's: before anything else looks at it.
    if let Some(name) =
        std::env::args_os().next().and_then(|own_name| hermes_sup::s6::applets::applet::find(&own_name))
    {
        return ExitCode::from(front::applet(name));
    }
    // Keepers and the fork server stay small: they come before anything that costs memory.
    match std::env::args_os().nth(1) {
        Some(word) if word == hermes_sup::containment::keeper::ARGUMENT => {
            return hermes_sup::containment::keeper::main(std::env::args().nth(2).as_deref());
        }
        Some(word) if word == hermes_sup::sys::spawn::fork_server::ARGUMENT => {
            return hermes_sup::sys::spawn::fork_server::main(hermes_sup::containment::keeper::serve);
        }
        Some(_) | None => {}
    }
    ExitCode::from(front::run())
}
