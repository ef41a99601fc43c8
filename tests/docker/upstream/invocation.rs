//! `test_main_invocation`, `test_tui_passthrough`, `test_zombie_reaping`, `test_user_flag_guard`, `test_smoke`: the
//! container's own program.

use crate::harness::*;
use crate::world::{World, on_both_mounts};

on_both_mounts! {
    main_invocation_no_args
    main_invocation_chat
    main_invocation_bare_executable
    main_invocation_bash
    main_invocation_exit_code
    tui_passthrough_tty
    tui_passthrough_help
    zombie_reaping
    user_flag_guard_arbitrary
    user_flag_guard_root
    user_flag_guard_hermes
    smoke_help
    smoke_help_behind_another_init
}

fn run(world: &World, cmd: &[&str]) -> Outcome {
    world.run().cmd(cmd).output()
}

/// A first argument with a dash reaches hermes, and not the init.
fn main_invocation_no_args(world: &World) {
    let version = run(world, &["--version"]);
    assert!(!version.err.contains("Traceback"), "{version:#?}");
    assert!(version.ok().contains("Hermes Agent"));
}

fn main_invocation_chat(world: &World) {
    let help = run(world, &["chat", "--help"]).ok();
    assert!(help.contains("usage: hermes chat"), "{help}");
}

fn main_invocation_bare_executable(world: &World) {
    run(world, &["sleep", "1"]).ok();
}

fn main_invocation_bash(world: &World) {
    let out = run(world, &["bash", "-c", "echo ok"]).ok();
    assert_eq!(out.lines().last(), Some("ok"), "{out}");
}

fn main_invocation_exit_code(world: &World) {
    let ended = run(world, &["sh", "-c", "exit 42"]);
    assert_eq!(ended.code, 42, "{ended:#?}");
}

/// Contract: 18.
fn tui_passthrough_tty(world: &World) {
    let script = "if [ -t 1 ]; then tput cols; else echo NO_TTY; fi; echo end of it";
    let (_container, mut session) = world.run().flags(&["--env=COLUMNS=123"]).terminal(script);
    let printed = session.exp_string("end of it").expect("the end");
    // The first number is taken for the answer: nothing of the boot may look like one.
    let number = printed.split_whitespace().find_map(|word| word.parse::<u32>().ok());
    assert_eq!(number, Some(123), "{printed}");
    session.exp_string("client ended with 0").expect("the exit code");
}

fn tui_passthrough_help(world: &World) {
    let (_container, mut session) = world.run().cmd(&["--help"]).in_terminal();
    session.exp_string("usage: hermes").expect("the help");
    session.exp_string("client ended with 0").expect("the exit code");
}

/// Contract: 94.
fn zombie_reaping(world: &World) {
    let container = world.idle();
    // The end of the exec is the end of its shell; the orphan lives on a little and falls to PID 1.
    container.sh("( ( sleep 0.1 & ) & )").ok();
    eventually("no zombie and no orphan is left", || {
        let processes = container.exec_as("hermes", &["ps", "-eo", "stat=,args="]).ok();
        let left = |line: &str| line.starts_with('Z') || line.ends_with("sleep 0.1");
        (!processes.lines().any(left)).then_some(())
    });
}

/// Contract: 20.
fn user_flag_guard_arbitrary(world: &World) {
    let refused = world.run().flags(&["--user=1000:1000"]).cmd(&["echo", "it ran"]).output();
    assert_ne!(refused.code, 0, "{refused:#?}");
    assert!(!refused.out.contains("it ran"), "{refused:#?}");
    let said = refused.out + &refused.err;
    assert!(said.contains("not supported"), "{said}");
    assert!(said.contains("HERMES_UID") && said.contains("PUID"), "{said}");
}

fn user_flag_guard_root(world: &World) {
    assert_eq!(run(world, &["sh", "-c", "echo OK"]).ok().lines().last(), Some("OK"));
}

/// Contract: 20.
fn user_flag_guard_hermes(world: &World) {
    let output = world.run().flags(&["--user=10000:10000"]).cmd(&["sh", "-c", "echo OK $(id -u)"]).output();
    assert_eq!(output.ok().lines().last(), Some("OK 10000"));
}

fn smoke_help(world: &World) {
    for (cmd, usage) in
        [(&["--help"][..], "usage: hermes"), (&["dashboard", "--help"], "usage: hermes dashboard")]
    {
        let help = run(world, cmd);
        assert!(!help.err.contains("Traceback"), "{help:#?}");
        assert!(help.out.contains(usage), "{help:#?}");
        help.ok();
    }
}

fn smoke_help_behind_another_init(world: &World) {
    let help = world.run().flags(&["--init"]).cmd(&["--help"]).output().ok();
    assert!(help.contains("usage: hermes"), "{help}");
}
