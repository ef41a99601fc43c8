//! The supervisor as a service of systemd: the test is the manager at the other end of `NOTIFY_SOCKET`.

use crate::harness::{Setup, World, wait};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

#[test]
fn the_manager_is_told_that_we_are_ready_well_and_stopping() {
    const SOCKET: &str = "/opt/data/notify";
    let setup = Setup::plain().env("NOTIFY_SOCKET", SOCKET).env("WATCHDOG_USEC", "200000");
    let mut world = World::new(setup.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "x"));
    let listener = UnixDatagram::bind(world.path(SOCKET)).expect("a socket");
    listener.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    world.adversary("env", "print-env", "");
    let mut supervisor = world.start();
    let wait = |wanted: &str| {
        let mut buffer = [0; 4096];
        // The watchdog is told again and again: messages never end.
        let deadline = Instant::now() + wait::PATIENCE;
        while Instant::now() < deadline {
            let length = match listener.recv(&mut buffer) {
                // With a timeout a stop and a continuation interrupt it (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                heard => heard.unwrap_or_else(|error| panic!("{wanted}: {error}")),
            };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|line| line == wanted) {
                return;
            }
        }
        panic!("{wanted} was never told");
    };
    wait("READY=1");
    wait("STATUS=1 of 1 services up");
    // Nothing else happens meanwhile: its own timer turns the loop.
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    world.wait_log("env", "ready");
    let lines = world.log_lines("env");
    for ours in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"] {
        assert!(!lines.iter().any(|line| line.starts_with(&format!("env {ours}"))), "{ours}: {lines:#?}");
    }
    world.ctl(&["stop", "env"]).ok();
    wait("STATUS=0 of 1 services up");
    supervisor.process.signal(rustix::process::Signal::TERM);
    wait("STOPPING=1");
    supervisor.process.wait();
}
