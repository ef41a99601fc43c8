//! Real processes on every rung: what a service can do to escape its end, and that it does not.
//!
//! Each test runs in a process of its own (the harness started again for that one test), because a subreaper that
//! reaps everything must not share its process with other tests.

/// Runs the body of the test of this name in a process of its own.
macro_rules! isolated {
    ($name:literal, $body:expr) => {
        crate::containment::scenarios::isolated_in(module_path!(), $name, $body)
    };
}

mod hooks;
mod keepers;
mod played;
mod scopes;
mod starts;
mod successors;
mod trees;
mod world;

use super::Rung;
use crate::core::signal::Signal;
use crate::sys::pidfd::Pidfd;
use std::time::Duration;
use world::{World, token};

const INNER: &str = "HERMES_SUP_TEST_INNER";
const PATIENCE: Duration = Duration::from_secs(30);
const RUNGS: [Rung; 5] = Rung::ALL;

/// `module`: as module_path!() has it.
pub(super) fn isolated_in(module: &str, name: &str, body: fn()) {
    if std::env::var(INNER).as_deref() == Ok(name) {
        return body();
    }
    let (_crate, module) = module.split_once("::").unwrap();
    // Its output is kept back: it would read as the outer harness's own.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(INNER, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}{errors}");
}

/// The same on every rung.
fn on_every_rung(scenario: fn(&mut World, Rung)) {
    for rung in RUNGS {
        let mut world = World::new(rung);
        scenario(&mut world, rung);
        world.finish();
    }
}

fn kill_nine(pid: i32) {
    Pidfd::open(pid).unwrap().send(Signal::KILL).unwrap();
}
