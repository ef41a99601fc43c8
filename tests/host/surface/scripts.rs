//! The scripts that prepare the container: in their order, before everything else, and what their failure means.

use super::{init, script, setup};
use crate::harness::{End, Place, Rung, World, wait};
use rustix::process::Signal;

/// Contract: 19, 23, 25, 70.
#[test]
fn scripts_prepare_the_container_one_after_the_other() {
    let mut setup =
        init(&["/bin/sh", "-c", "printf 'main [%s] %s\\n' \"$ADDED\" \"$PATH\"; exec /adversary hold"]);
    setup.environment.push(("COLOUR".into(), "deep red".into()));
    let mut world = World::new(setup);
    let told = "echo \"begin $0 $(id -u) $COLOUR $PATH\" >>/order; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo end >>/order";
    for name in ["a", "B", "02", "015", "01-x", ".hidden"] {
        script(&world, &format!("/etc/cont-init.d/{name}"), &format!("#!/bin/sh\n{told}\n"));
    }
    script(
        &world,
        "/etc/cont-init.d/10-adds",
        "#!/command/with-contenv sh\nprintf 'two\\nlines\\n\\n' >/run/s6/container_environment/ADDED\n(sleep 0.05 & echo $! >/orphan)\n",
    );
    script(&world, "/etc/cont-init.d/11-fails", "#!/bin/sh\nexit 5\n");
    // A zombie is still there for kill(2): this ends only when the orphan was reaped.
    script(
        &world,
        "/etc/cont-init.d/12-waits",
        "#!/bin/sh\nwhile kill -0 $(cat /orphan) 2>/dev/null; do :; done\necho 'script speaks'\n",
    );
    world.write("/etc/cont-init.d/13-no-program", "#!/bin/sh\n");
    world.define(
        "shown",
        "command = [\"/bin/sh\", \"-c\", \"printf '[%s]' \\\"$ADDED\\\"\"]\n[restart]\npolicy = \"never\"",
    );
    let supervisor = world.start();
    world.wait_stdout("main [two\nlines\n] /command:/opt/bin:/usr/bin:/bin\n");
    assert!(world.stdout().starts_with("script speaks\n"), "{}", world.stdout());
    let begun: Vec<String> = world.read("/order").lines().map(str::to_owned).collect();
    let path = "/command:/opt/bin:/usr/bin:/bin";
    let expected: Vec<String> = ["01-x", "015", "02", "B", "a"]
        .iter()
        .flat_map(|name| [format!("begin /etc/cont-init.d/{name} 0 deep red {path}"), "end".to_owned()])
        .collect();
    assert_eq!(begun, expected);
    world.wait_log("shown", "]");
    let lines: Vec<String> = world.log_lines("shown").into_iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["[two", "lines", "]"]);
    let said = world.stderr();
    let told: Vec<&str> = said.lines().filter(|line| line.contains("cont-init: ")).collect();
    assert!(told[0].ends_with("cont-init: info: running /etc/cont-init.d/01-x"), "{said}");
    assert!(told[1].ends_with("cont-init: info: /etc/cont-init.d/01-x exited 0"), "{said}");
    assert!(
        said.contains("/etc/cont-init.d/11-fails exited 5") && said.contains("13-no-program exited 126"),
        "{said}"
    );
    assert!(!said.contains("the s6 surface is incomplete"), "{said}");
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// Contract: 25.
#[test]
fn a_script_that_fails_ends_the_container_where_that_is_asked_for() {
    for place in [Place::Pid1, Place::Child] {
        let mut setup = setup(Rung::Cgroup, place).main_program(&["/bin/sh", "-c", "echo never"]);
        setup.environment.push(("S6_BEHAVIOUR_IF_STAGE2_FAILS".into(), "2".into()));
        let mut world = World::new(setup);
        script(&world, "/etc/cont-init.d/1", "#!/bin/sh\n/adversary hold MARK &\nexit 7\n");
        script(&world, "/etc/cont-init.d/2", "#!/bin/sh\ntouch /never\n");
        let mut container = world.launch();
        assert_eq!(container.wait(), End::Code(7), "{}", world.stderr());
        assert!(world.stderr().contains("fatal: stopping the container"), "{}", world.stderr());
        assert!(!world.path("/never").exists() && world.stdout().is_empty());
        world.assert_no_survivors("of a script that failed");
    }
}

#[test]
fn a_stop_signal_ends_a_script_that_hangs_and_then_us() {
    let waits = "/adversary hold MARK & wait";
    // Each orphan's end is a signal to us.
    let orphans = "while :; do (sleep 0.05 &); sleep 0.02; done";
    for (place, trap, body) in [
        (Place::Pid1, "", waits),
        (Place::Child, "trap '' TERM", waits),
        (Place::Pid1, "trap '' TERM", orphans),
    ] {
        let setup = setup(Rung::Keeper, place).supervisor_option(&["--stop-budget", "300ms"]);
        let mut world = World::new(setup.main_program(&["/bin/sh", "-c", "echo never"]));
        script(&world, "/etc/cont-init.d/1", &format!("#!/bin/sh\n{trap}\ntouch /hanging\n{body}\n"));
        let mut container = world.launch();
        container.wait_exec();
        wait::until("the script", &world.root, || world.path("/hanging").exists().then_some(()));
        container.signal(Signal::TERM);
        assert_eq!(container.wait(), End::Code(0), "{}", world.stderr());
        assert_eq!(world.stdout(), "");
        world.assert_no_survivors("of a script that hung");
    }
}

/// `docker run -it`: the lines about scripts would be in the way, what they say themselves and what is fatal is not.
#[test]
fn on_a_terminal_only_what_failed_is_told() {
    let mut world =
        World::new(init(&["/bin/sh", "-c", "echo main; exit 3"]).supervisor_option(&["--s6-surface"]));
    script(&world, "/etc/cont-init.d/1", "#!/bin/sh\necho script speaks\n");
    world.write("/etc/cont-init.d/2", "no program");
    let mut terminal = rexpect::session::spawn_command(world.on_a_terminal(), Some(20_000)).expect("a pty");
    let said = terminal.exp_eof().expect("the end of the terminal");
    assert!(said.contains("script speaks") && said.contains("main"), "{said}");
    assert!(!said.contains("cont-init: info"), "{said}");
    assert!(said.contains("cont-init: error: /etc/cont-init.d/2 cannot be started"), "{said}");
}
