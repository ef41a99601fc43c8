//! runit: one runsv a service below runsvdir, which is no first process: told to end, it does not wait for its runsv, so
//! a reaper of ours is PID 1 and ends with the last of them.

use super::s6::service_directory;
use super::{All, Peer, Service, Verb, words};
use crate::ground::Ground;
use crate::world::{Layout, World, service};
use rustix::process::Signal;
use std::io;
use std::path::PathBuf;

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

    fn runs_on(&self, ground: Ground) -> Result<(), &'static str> {
        if ground.is_container() {
            Err("no first process: nobody there would hear `docker stop`")
        } else {
            Ok(())
        }
    }

    fn most(&self) -> (usize, &'static str) {
        (900, "runsvdir holds at most 1000 directories")
    }

    fn logs(&self) -> bool {
        true
    }

    fn kept(&self, world: &World, service: &str) -> Vec<PathBuf> {
        super::stamped(&world.path(&format!("/opt/data/log-{service}")))
    }

    fn prepare(&self, world: &Layout, services: &[Service]) -> io::Result<()> {
        std::fs::create_dir_all(world.path("/run/service"))?;
        for service in services {
            let dir = service_directory(world, service)?;
            if let Some(keep) = service.logged {
                let files = format!("/opt/data/log-{}", service.name);
                world.write(&format!("{files}/config"), &format!("s1000000\nn{keep}\n"), 0o644)?;
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

    fn control_all(&self, verb: All, services: &[Service]) -> Option<Vec<String>> {
        let mut words = words(match verb {
            All::Status => "sv status",
            All::Start => "sv -v -w 60 start",
            All::Stop => "sv -v -w 60 stop",
        });
        words.extend(services.iter().map(|service| format!("/run/service/{}", service.name)));
        Some(words)
    }
}
