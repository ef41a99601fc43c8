//! Completions, by running the shells: bash on a terminal, zsh on a terminal, and fish, which answers without one.

use crate::harness::{Setup, World};
use std::path::Path;
use std::process::Command;

/// What is typed, and what one Tab makes of its end.
const TYPED: [(&str, &str); 7] = [
    ("hermes-sup compl", "hermes-sup completions"),
    ("hermes-sup ctl unreg", "hermes-sup ctl unregister"),
    ("hermes-sup ctl stop my-l", "hermes-sup ctl stop my-long-name"),
    ("hermes-sup ctl restart other my-l", "hermes-sup ctl restart other my-long-name"),
    ("hermes-sup ctl logs --stre", "hermes-sup ctl logs --stream"),
    ("hermes-sup ctl logs --stream e", "hermes-sup ctl logs --stream err"),
    ("hermes-sup ctl kill my-long-name SIGST", "hermes-sup ctl kill my-long-name SIGSTOP"),
];

/// The scripts completed the first word and nothing after it, and never a service: names with a hyphen least of all.
#[test]
fn every_shell_completes_verbs_flags_values_and_the_services_there_are() {
    let mut world = World::new(Setup::plain());
    world.adversary("my-long-name", "tick 1000", "").adversary("other", "tick 1000", "");
    let _supervisor = world.start();
    let bin = world.outside("bin");
    std::fs::create_dir(&bin).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hermes-sup"), bin.join("hermes-sup")).expect("a link");
    for shell in ["bash", "zsh", "fish"] {
        let installed =
            Command::new(shell).args(["-c", "true"]).status().is_ok_and(|status| status.success());
        assert!(installed, "{shell} is missing: install it");
    }
    let shell = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("TERM", "xterm").env("HOME", world.outside("bin"));
        command
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("HERMES_SUP_SOCKET", world.socket());
        command
    };
    for (typed, expected) in TYPED {
        let script = format!("hermes-sup completions fish | source; complete -C '{typed}'");
        let output = shell("fish", &["--no-config", "-c", &script]).output().expect("fish");
        let text = String::from_utf8_lossy(&output.stdout);
        let last = expected.rsplit(' ').next().expect("a word");
        assert!(
            text.lines().any(|line| line.split('\t').next() == Some(last)),
            "fish: {typed}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    on_a_terminal(
        shell("bash", &["--norc", "--noprofile", "-i"]),
        "PS1='ready> '",
        "source <(hermes-sup completions bash)",
    );
    let zsh = "autoload -U compinit; compinit -u -D; source <(hermes-sup completions zsh)";
    on_a_terminal(shell("zsh", &["-f", "-i"]), "PS1='ready> '; bindkey -e; unsetopt prompt_sp beep", zsh);
}

/// Types each line, then Tab, then `echo ` at its beginning: what the shell prints is what it has made of it.
fn on_a_terminal(command: Command, prompt: &str, script: &str) {
    let program = Path::new(command.get_program()).display().to_string();
    let mut terminal = rexpect::session::spawn_command(command, Some(20_000)).expect("a pty");
    for line in [prompt, script, "echo be''gun"] {
        terminal.send_line(line).expect("typed");
    }
    terminal.exp_string("begun").unwrap_or_else(|error| panic!("{program}: {error}"));
    for (typed, expected) in TYPED {
        // Completed, then made an argument of echo, whose output is at the beginning of a line.
        terminal.send(&format!("{typed}\t\x01echo :")).expect("typed");
        terminal.send_line("").expect("typed");
        terminal
            .exp_string(&format!("\n:{expected}"))
            .unwrap_or_else(|error| panic!("{program}: '{typed}' did not become '{expected}': {error}"));
    }
    // It is deaf to the SIGTERM that it would have otherwise, and be waited for.
    terminal.send_line("exit").expect("typed");
    terminal.exp_eof().expect("its end");
}
