//! The screens of the README are those of the demo that it begins with.

use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Setup, World};

#[path = "../lib/screen.rs"]
mod screen;

#[test]
fn the_screens_of_the_readme_are_those_of_the_demo() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--demo"]));
    let mut demo = world.launch();
    demo.wait_exec();
    let socket = wait::until("the demo to say what to try", &world.outside(""), || {
        let told = world.stderr() + &world.stdout();
        let (_, socket) = told.split_once("ctl --socket ")?;
        Some(socket.split_once(" status\n")?.0.to_owned())
    });
    let ctl = |words: &[&str]| {
        let asked = [&["/hermes-sup", "ctl", "--socket", &socket], words].concat();
        world.inside_answer(&asked)
    };
    let crasher = || {
        let answer = ctl(&["--json", "status", "crasher"]);
        (answer.code == 0).then(|| answer.json()["services"][0].clone())
    };
    // All screens of one moment: it is up for the third time at least, so that its log has what it does.
    let screens = wait::within(PATIENCE, &world.outside(""), || {
        let before = crasher()?;
        let is_ripe = before["restarts"].as_u64() >= Some(2) && before["state"] == "up";
        let screens = is_ripe.then(|| {
            [
                ("ctl status", ctl(&["status"]).ok()),
                ("ctl status crasher", ctl(&["status", "crasher"]).ok()),
                ("ctl tree crasher", ctl(&["tree", "crasher"]).ok()),
                ("ctl top --once", ctl(&["top", "--once"]).ok()),
            ]
        })?;
        let has_begun = screens[1].1.trim_end().ends_with("working") && screens[2].1.contains("sleep 3");
        (has_begun && crasher()?["pid"] == before["pid"]).then_some(screens)
    });
    let screens = screens.unwrap_or_else(|| panic!("the crasher never stays: {}", world.stderr()));
    screen::shows("README.md", &screens, "host the_screens");
}
