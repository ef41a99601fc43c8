//! The image's ENTRYPOINT: which program the CMD is, as whom it runs, what reaches it and what comes back.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use crate::harness::*;

fn run(cmd: &[&str]) -> Outcome {
    Run::new().cmd(cmd).output()
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or("")
}

/// Contract: 13.
#[test]
fn an_executable_is_run_and_anything_else_goes_to_hermes() {
    assert_eq!(last_line(&run(&["sh", "-c", "echo from sh"]).ok()), "from sh");
    assert!(run(&["--version"]).ok().contains("Hermes Agent"));
    let chat = run(&["chat", "--help"]).ok();
    assert!(chat.contains("usage: hermes chat"), "{chat}");
}

/// Contract: 21.
#[test]
fn the_exit_code_is_that_of_the_program() {
    assert_eq!(run(&["sh", "-c", "exit 42"]).code, 42);
    assert_eq!(run(&["sh", "-c", "kill -KILL $$"]).code, 128 + 9);
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).code, 128 + 15);
    // In the image every other word is for hermes; without hermes it is for nobody.
    let nowhere =
        Run::new().flags(&["--entrypoint=/init", "--env=PATH=/usr/bin:/bin"]).cmd(&["nowhere"]).output();
    assert_eq!(nowhere.code, 127, "{nowhere:?}");
    assert!(nowhere.err.contains("nowhere"), "{nowhere:?}");
}

/// Contract: 14, 15, 16.
#[test]
fn the_program_runs_as_hermes_where_docker_says() {
    let script = "pwd; id -u; id -g; echo $HOME $USER $LOGNAME";
    let whoami = Run::new().flags(&["--workdir=/tmp"]).cmd(&["sh", "-c", script]).output().ok();
    let lines: Vec<&str> = whoami.lines().rev().take(4).collect();
    assert_eq!(lines, ["/opt/data hermes hermes", "10000", "10000", "/tmp"], "{whoami}");
}

/// All that the container was given, nothing more; changed are the three of the user and what activates the venv.
/// Contract: 19.
#[test]
fn the_environment_is_passed_through() {
    let variables = |text: String| {
        let changed = ["HOME=", "USER=", "LOGNAME=", "PATH=", "VIRTUAL_ENV="];
        let kept = |line: &&str| !changed.iter().any(|name| line.starts_with(name));
        text.lines().filter(kept).map(String::from).collect::<BTreeSet<_>>()
    };
    let given = ["--hostname=same", "--env=GIVEN=one two", "--env=HERMES_SUP_LOG_LEVEL=error"];
    let plain = Run::new().flags(&given).flags(&["--entrypoint=env"]).output().ok();
    let through = Run::new().flags(&given).cmd(&["sh", "-c", "echo start; exec env"]).output().ok();
    let through = through.split_once("start\n").expect("the program ran").1.to_string();
    // A shell in between adds its own.
    let own =
        |line: &String| line.starts_with("PWD=") || line.starts_with("SHLVL=") || line.starts_with("_=");
    let through: BTreeSet<_> = variables(through).into_iter().filter(|line| !own(line)).collect();
    let plain: BTreeSet<_> = variables(plain).into_iter().filter(|line| !own(line)).collect();
    assert!(plain.contains("GIVEN=one two"));
    assert_eq!(plain, through);
}

/// Contract: 18.
#[test]
fn standard_input_reaches_the_program() {
    let (_container, mut client) = Run::new().cmd(&["cat"]).attached(&["--interactive"]);
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker");
    child.stdin.take().expect("piped").write_all(b"through and through\n").expect("write");
    let output = child.wait_with_output().expect("output");
    assert!(output.status.success());
    assert_eq!(last_line(&String::from_utf8_lossy(&output.stdout)), "through and through");
}

/// Contract: 18.
#[test]
fn the_program_has_the_terminal() {
    let (_container, mut session) = Run::new().terminal(
        "tty; until [ \"$(stty size)\" = '37 123' ]; do :; done
         python3 -c 'import os; print(\"foreground\", os.tcgetpgrp(0) == os.getpgrp())'",
    );
    session.exp_string("/dev/pts/0").expect("a terminal");
    session.exp_string("foreground True").expect("its foreground process group and its size");
    session.exp_eof().expect("the end");
}

#[test]
fn control_c_reaches_the_program() {
    let (_container, mut session) =
        Run::new().terminal("trap 'echo interrupted; exit 5' INT; echo ready; sleep infinity");
    session.exp_string("ready").expect("the start");
    session.send_control('c').expect("sent");
    session.exp_string("interrupted").expect("the signal");
    session.exp_string("client ended with 5").expect("the exit code");
}

/// There is no shell to come back to, so a stopped program would hang for ever.
#[test]
fn control_z_does_not_stop_the_program() {
    let (_container, mut session) =
        Run::new().terminal("echo ready; while read -r line; do echo \"got $line\"; done");
    session.exp_string("ready").expect("the start");
    session.send_control('z').expect("sent");
    session.send_line("after").expect("sent");
    session.exp_string("got after").expect("it goes on");
    session.send_control('d').expect("sent");
    session.exp_eof().expect("the end");
}

/// Contract: 101.
#[test]
fn signals_reach_the_program() {
    for signal in ["INT", "QUIT", "HUP", "USR1", "USR2"] {
        let script = format!("trap 'exit 9' {signal}; echo ready; while :; do sleep 0.05; done");
        let container = Run::new().cmd(&["sh", "-c", &script]).detach();
        container.await_log("ready");
        container.signal(signal);
        assert_eq!(container.wait(), 9, "{signal}\n{}", container.logs());
    }
}

/// The program's own end is its exit code, an end that we were asked for is ours.
/// Contract: 21.
#[test]
fn a_stop_of_the_container_is_no_failure() {
    let container = Run::new().cmd(&["sh", "-c", "echo ready; sleep infinity"]).detach();
    container.await_log("ready");
    container.stop();
    assert_eq!(container.wait(), 0, "{}", container.logs());

    let container = Run::new().cmd(&["sleep", "infinity"]).supervised();
    container.ctl(&["shutdown", "--code", "7"]);
    assert_eq!(container.wait(), 7, "{}", container.logs());
}

/// With --init our parent is tini; as PID 1 there is none. Orphans come to us either way.
/// Contract: 94.
#[test]
fn orphans_are_reaped() {
    let script = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.4 &); done; echo made; exec sleep infinity";
    for variant in [&PLAIN, &INIT] {
        let container = Run::new().variant(variant).cmd(&["sh", "-c", script]).detach();
        container.await_log("made");
        eventually("no orphan is left, dead or alive", || {
            let processes = container.exec(&["ps", "-eo", "stat=,args="]).ok();
            // By the whole line: the script, and with it the word, is in the command line of its parents too.
            let orphan = |line: &str| line.starts_with('Z') || line.ends_with(" sleep 0.4");
            (!processes.lines().any(orphan)).then_some(())
        });
    }
}

#[test]
fn hardened_containers_work_or_say_why_not() {
    let id = ["sh", "-c", "id -u"];
    for flags in [
        &["--security-opt=no-new-privileges"][..],
        &[
            "--user=10000:10000",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--read-only",
            "--tmpfs=/run",
        ],
        &["--cap-drop=ALL", "--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=KILL"],
    ] {
        assert_eq!(last_line(&Run::new().flags(flags).cmd(&id).output().ok()), "10000", "{flags:?}");
    }
    let refused = Run::new().flags(&["--cap-drop=ALL"]).cmd(&id).output();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("--user") || refused.err.contains("SETUID"), "{refused:?}");
}

/// Contract: 85, 87.
#[test]
fn gateway_run_becomes_a_supervised_service_where_hermes_cannot_see_us() {
    let volume = Volume::with_gateways(&["coder"]);
    volume.sh("hermes", "rm profiles/coder/gateway_state.json");
    let run = Run::new().variant(&INIT).volume(&volume);
    let container = run.cmd(&["-p", "coder", "gateway", "run"]).supervised();
    container.await_log("--no-supervise");
    let first = container.await_up(&["coder"]);
    assert_eq!(container.service("coder")["want"], "up");
    assert_eq!(container.state("default"), "down", "only the profile that was asked for");

    // The crash of a supervised gateway is not the end of the container, and no `sleep` keeps its place.
    container.exec_as("hermes", &["kill", "-KILL", &first.to_string()]).ok();
    eventually("another process runs", || container.pid("coder").filter(|pid| *pid != first));
    assert_eq!(container.pgrep("^sleep"), "");

    container.stop();
    assert_eq!(container.wait(), 0, "{}", container.logs());
}

/// Contract: 84.
#[test]
fn a_bare_gateway_is_gateway_run() {
    let container = Run::new().cmd(&["hermes", "gateway"]).supervised();
    container.await_up(&["default"]);
}

/// Each gate keeps the gateway the container's own program, and its service down without changing the wish.
/// Contract: 84, 88.
#[test]
fn gates_keep_the_gateway_in_the_foreground() {
    let gates: [(&[&str], &[&str]); 3] = [
        (&[], &["gateway", "run", "--no-supervise"]),
        (&["--env=HERMES_GATEWAY_NO_SUPERVISE=Yes"], &["gateway", "run"]),
        (&["--env=HERMES_S6_SUPERVISED_CHILD=1"], &["gateway", "run"]),
    ];
    for (flags, cmd) in gates {
        let volume = Volume::new();
        volume.sh("hermes", r#"echo '{"gateway_state":"running"}' >gateway_state.json"#);
        let container = Run::new().volume(&volume).flags(flags).cmd(cmd).supervised();
        container.await_log("Hermes Gateway Starting");
        let service = container.service("default");
        assert_eq!(
            (&service["want"], &service["state"]),
            (&"up".into(), &"down".into()),
            "{flags:?}: {service}"
        );
        eventually("the gateway has written its state", || {
            container.exec(&["cat", "/opt/data/gateway_state.json"]).out.contains(r#""pid":"#).then_some(())
        });
        // Its own code for a requested restart, which only the main program's end can bring out here.
        container.signal("USR1");
        assert_eq!(container.wait(), 75, "{flags:?}\n{}", container.logs());
        assert!(!container.logs().contains("now running under"), "{}", container.logs());
    }
}

/// Contract: 84.
#[test]
fn zero_and_typos_do_not_open_a_gate() {
    for value in ["0", "", "yess"] {
        let gate = format!("--env=HERMES_GATEWAY_NO_SUPERVISE={value}");
        let container = Run::new().flags(&[&gate]).cmd(&["gateway", "run"]).supervised();
        container.await_up(&["default"]);
    }
}
