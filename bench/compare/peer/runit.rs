//! runit: one runsv a service below runsvdir, which is no first process: told to end, it does not wait for its runsv, so
//! a reaper of ours is PID 1 and ends with the last of them.

use super::s6::service_directory;
use super::{Peer, Service, Verb, words};
use crate::world::{World, service};
use rustix::process::Signal;
use std::io;

pub struct Runit {
    pub version: String,
}

impl Peer for Runit {
    fn name(&self) -> &'static str {
        "runit"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn most(&self) -> (usize, &'static str) {
        (900, "runsvdir holds at most 1000 directories")
    }

    fn logs(&self) -> bool {
        true
    }

    fn prepare(&self, world: &World, services: &[Service]) -> io::Result<()> {
        std::fs::create_dir_all(world.path("/run/service"))?;
        for service in services {
            let dir = service_directory(world, service)?;
            if service.logged {
                let files = format!("/opt/data/log-{}", service.name);
                world.write(&format!("{files}/config"), "s1000000\nn10\n", 0o644)?;
                world.write(
                    &format!("{dir}/log/run"),
                    &format!("#!/bin/sh\nexec svlogd -ttt {files}\n"),
                    0o755,
                )?;
            }
        }
        Ok(())
    }

    fn command(&self, _: &[Service]) -> Vec<String> {
        service(&["first", "/usr/bin/runsvdir", "/run/service"])
    }

    fn shut_down(&self, world: &World) {
        world.signal(world.supervisor(), Signal::HUP);
    }

    fn control(&self, verb: Verb, service: &str) -> Vec<String> {
        let verb = match verb {
            Verb::Status => "status",
            Verb::Start => "-v start",
            Verb::Stop => "-v stop",
        };
        words(&format!("sv {verb} /run/service/{service}"))
    }
}
