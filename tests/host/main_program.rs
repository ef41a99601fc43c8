//! `init` with a CMD: the container's main program, its terminal, its signals and its exit code.

use crate::harness::{End, Place, Rung, Setup, World, wait};
use rustix::process::Signal;

fn init(words: &[&str]) -> Setup {
    Setup::new(Rung::Cgroup, Place::Pid1).main_program(words)
}

/// Contract: 21, 22, 100.
#[test]
fn its_exit_code_is_the_containers() {
    for (words, end) in [
        (&["/bin/sh", "-c", "exit 42"][..], End::Code(42)),
        (&["/bin/true"], End::Code(0)),
        (&["/adversary", "crash-with", "11"], End::Code(139)),
        (&["/no/such/program"], End::Code(127)),
        (&["no-such-program-on-path"], End::Code(127)),
    ] {
        for place in [Place::Pid1, Place::Child] {
            let mut setup = init(words);
            setup.place = place;
            let mut world = World::new(setup);
            world.adversary("wood", "tree 3", "[stop]\ntimeout = \"100ms\"");
            let mut container = world.launch();
            assert_eq!(container.wait(), end, "{words:?}: {}", world.stderr());
            world.assert_no_survivors("after the container's end");
        }
    }
}

/// s6 takes signals to PID 1 for orders to shut down, halt or reboot. Here those that are no stop are for the CMD.
/// Contract: 22, 100, 101.
#[test]
fn services_run_beside_it_and_end_after_it() {
    let mut setup = init(&["/adversary", "echo-signals"]);
    setup.rung = Rung::Keeper;
    let mut world = World::new(setup);
    world.adversary("wood", "tree 5", "[stop]\ntimeout = \"100ms\"");
    let mut supervisor = world.start();
    world.wait_stdout("ready echo-signals");
    world.wait_log("wood", "ready");
    let main = world
        .processes(&supervisor)
        .into_iter()
        .find(|each| each.command.starts_with("/adversary echo"))
        .expect("it");
    assert_eq!(main.parent, supervisor.pid(), "our direct child");
    for (signal, number) in
        [(Signal::INT, 2), (Signal::QUIT, 3), (Signal::HUP, 1), (Signal::USR1, 10), (Signal::WINCH, 28)]
    {
        supervisor.process.signal(signal);
        world.wait_stdout(&format!("got signal {number}"));
    }
    supervisor.process.signal(Signal::USR2);
    world.wait_stdout("got signal 12");
    assert_eq!(supervisor.ends(), End::Code(42));
    world.assert_no_survivors("after the main program's end");
}

/// Under s6 the CMD hears nothing before everything is signalled at the end, and then has what is left of 3 s.
/// Contract: 97, 98.
#[test]
fn a_stop_signal_reaches_it_once_and_the_second_kills() {
    let mut setup = init(&["/adversary", "echo-signals"]).supervisor_option(&["--stop-budget", "1h"]);
    setup.rung = Rung::Keeper;
    let mut world = World::new(setup);
    let mut supervisor = world.start();
    world.wait_stdout("ready echo-signals");
    supervisor.process.signal(Signal::TERM);
    world.wait_stdout("got signal 15");
    assert!(supervisor.process.running(), "it has not ended, and the budget is long");
    supervisor.process.signal(Signal::TERM);
    assert_eq!(supervisor.ends(), End::Code(0), "ended by us: {}", world.stderr());
    assert_eq!(world.stdout().matches("got signal 15").count(), 1);
}

#[test]
fn shutdown_with_a_code_wins() {
    let mut world = World::new(init(&["/adversary", "pause"]));
    let mut supervisor = world.start();
    world.wait_stdout("ready pause");
    world.ctl(&["shutdown", "--code", "17"]).ok();
    assert_eq!(supervisor.ends(), End::Code(17));
}

#[test]
fn without_a_main_program_it_serves_until_told() {
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Pid1));
    world.adversary("coder", "pause", "");
    let mut supervisor = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    assert!(supervisor.process.running());
    world.ctl(&["shutdown", "--code", "5"]).ok();
    assert_eq!(supervisor.ends(), End::Code(5));
}

#[test]
fn its_children_left_behind_end_with_the_container() {
    for place in [Place::Pid1, Place::Child] {
        let mut setup = init(&["/adversary", "leave-remains", "9"]);
        setup.place = place;
        let mut world = World::new(setup);
        let mark = world.mark.clone();
        world.setup.main_program.push(mark);
        let mut container = world.launch();
        assert_eq!(container.wait(), End::Code(9), "{}", world.stderr());
        world.assert_no_survivors("our remaining children, until ECHILD");
    }
}

#[test]
fn called_as_init_it_takes_no_options() {
    let mut world = World::new(Setup::new(Rung::Cgroup, Place::Child));
    std::os::unix::fs::symlink("/hermes-sup", world.path("/init")).expect("a link");
    let mut container = world.run_alone(&["/init", "/bin/sh", "-c", "echo \"$1\"", "sh", "--version"]);
    assert_eq!(container.wait(), End::Code(0), "{}", world.stderr());
    assert_eq!(world.stdout(), "--version\n");
}

/// `docker run -it`: driven over a pty, as a person would.
/// Contract: 18.
#[test]
fn it_has_the_terminal_and_survives_a_stop_key() {
    let mut world = World::new(init(&["/bin/sh", "-c", "stty size; echo begin; cat; echo end; exit 3"]));
    world.adversary("clock", "tick 5", "");
    let mut terminal = rexpect::session::spawn_command(world.on_a_terminal(), Some(20_000)).expect("a pty");
    terminal.exp_string("begin").expect("the main program's output");
    world.wait_log("clock", "tick 10");
    terminal.send_line("typed").expect("input");
    let before = terminal.exp_string("typed").expect("cat reads the terminal");
    assert!(!before.contains("tick"), "services keep off the terminal: {before}");
    // Ctrl-Z stops the foreground group; there is no shell to come back to, so it is continued at once.
    terminal.send_control('z').expect("a stop key");
    terminal.send_line("still here").expect("input");
    terminal.exp_string("still here").expect("continued");
    terminal.send_control('d').expect("end of file");
    terminal.exp_string("end").expect("the end");
    terminal.exp_eof().expect("the end of the terminal");
    let status = terminal.process().wait().expect("a status");
    assert!(format!("{status:?}").contains("3"), "{status:?}");
}

/// Contract: 18.
#[test]
fn it_is_in_the_foreground_with_the_window_size() {
    let world = World::new(init(&["/adversary", "print-tty"]));
    let mut world = world;
    let mut terminal = rexpect::session::spawn_command(world.on_a_terminal(), Some(20_000)).expect("a pty");
    terminal.exp_string("tty foreground yes").expect("the foreground");
    terminal.exp_string("ready print-tty").expect("ready");
    // Ctrl-C goes to it, not to the supervisor: its default ends it, and its end is the container's.
    terminal.send_control('c').expect("an interrupt");
    terminal.exp_eof().expect("the end of the terminal");
    let status = terminal.process().wait().expect("a status");
    assert!(format!("{status:?}").contains("130"), "{status:?}");
    wait::until("the world's end", &world.root, || world.marked("").is_empty().then_some(()));
}
