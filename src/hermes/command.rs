//! What the container's CMD is, and so who owns the gateways of the volume.
//!
//! Several containers share a volume, and only one of them may run its gateways. A container whose CMD is `gateway run`
//! is there for them. An executable (`sleep infinity`, `bash`) may run them as well, as long as no such container comes.
//! Any other `hermes` command (`chat`, `serve`, `--version`) is about something else. Pure.

use super::redirect::{Redirect, after_entry_scripts, gateway_process, is_dashboard, is_hermes, redirect};
use std::ffi::{OsStr, OsString};

/// What a CMD is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `gateway run`, supervised or in the foreground.
    Gateway,
    /// `dashboard`: its container leaves the state to the one with the gateways.
    Dashboard,
    /// Any other command of `hermes`, or `hermes` alone.
    Hermes,
    /// A program of its own.
    Program,
}

/// Judges the CMD, before or after routing. `env` looks a variable of the container up; `executable` says whether a name
/// on PATH, or a path, can be executed.
pub fn command(
    cmd: &[OsString],
    env: impl Fn(&str) -> Option<OsString>,
    executable: impl Fn(&OsStr) -> bool,
) -> Command {
    let written = after_entry_scripts(cmd);
    let program = written.first().is_some_and(|first| {
        !is_hermes(first)
            && !first.is_empty()
            && !first.as_encoded_bytes().starts_with(b"-")
            && executable(first)
    });
    if program {
        return Command::Program;
    }
    match redirect(cmd, env) {
        Redirect::Supervise { .. } | Redirect::Foreground { .. } => Command::Gateway,
        Redirect::NotAGateway if is_dashboard(cmd) => Command::Dashboard,
        // `hermes --yolo gateway run`: options of its own stand before what it is to do.
        Redirect::NotAGateway if gateway_process(cmd).is_some() && !asks_for_help(cmd) => Command::Gateway,
        Redirect::NotAGateway => Command::Hermes,
    }
}

fn asks_for_help(cmd: &[OsString]) -> bool {
    cmd.iter().any(|word| word == "-h" || word == "--help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_who_owns_the_gateways() {
        let there = ["sleep", "bash", "sh", "env", "hermes", "/bin/sh", "/opt/hermes/docker/main-wrapper.sh"];
        for (cmd, expected) in [
            ("gateway run", Command::Gateway),
            ("gateway", Command::Gateway),
            ("gateway run --no-supervise", Command::Gateway),
            ("hermes -p coder gateway run --replace", Command::Gateway),
            ("hermes --yolo gateway run --no-supervise", Command::Gateway),
            ("hermes --yolo gateway run --help", Command::Hermes),
            ("/opt/hermes/docker/main-wrapper.sh gateway run", Command::Gateway),
            ("/opt/hermes/docker/main-wrapper.sh dashboard", Command::Dashboard),
            ("hermes dashboard --port 1", Command::Dashboard),
            ("", Command::Hermes),
            ("/opt/hermes/docker/main-wrapper.sh", Command::Hermes),
            ("hermes", Command::Hermes),
            ("chat", Command::Hermes),
            ("serve", Command::Hermes),
            ("--version", Command::Hermes),
            ("/opt/hermes/docker/main-wrapper.sh --version", Command::Hermes),
            ("profile list", Command::Hermes),
            ("gateway status", Command::Hermes),
            ("gateway run --help", Command::Hermes),
            ("sleep infinity", Command::Program),
            ("/opt/hermes/docker/main-wrapper.sh sleep infinity", Command::Program),
            ("bash", Command::Program),
            ("sh -c hermes", Command::Program),
            ("/bin/sh -c true", Command::Program),
            ("env hermes gateway run", Command::Program),
        ] {
            let words: Vec<OsString> = cmd.split_whitespace().map(OsString::from).collect();
            let judged = command(&words, |_| None, |name| there.iter().any(|there| *there == name));
            assert_eq!(judged, expected, "{cmd}");
        }
        let foreground = |key: &str| (key == "HERMES_GATEWAY_NO_SUPERVISE").then(|| "1".into());
        let words = ["gateway".into(), "run".into()];
        assert_eq!(command(&words, foreground, |_| false), Command::Gateway);
    }
}
