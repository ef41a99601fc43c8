//! dinit, from source. It sends output to nowhere unless told to; it can append it to a file, without times or rotation,
//! so it is no peer of loggers. Its limit of restarts is off, as it would end a service that crashes for the bench.

use super::{All, Peer, Service, Verb, words};
use crate::options::Options;
use crate::world::Layout;
use std::io;

pub struct Dinit {
    pub version: String,
}

pub fn version(options: &Options) -> Option<String> {
    super::first_line(&options.dinit.as_ref()?.join("dinit"), "--version")
}

impl Peer for Dinit {
    fn name(&self) -> &'static str {
        "dinit"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn prepare(&self, world: &Layout, services: &[Service]) -> io::Result<()> {
        let mut boot = "type = internal\n".to_owned();
        for service in services {
            let text = format!(
                "type = process\ncommand = {}\nrestart = true\nrestart-limit-count = 0\n",
                service.argv().join(" ")
            );
            world.write(&format!("/run/dinit.d/{}", service.name), &text, 0o644)?;
            if service.up {
                boot.push_str(&format!("waits-for: {}\n", service.name));
            }
        }
        world.write("/run/dinit.d/boot", &boot, 0o644)
    }

    fn command(&self, _: &[Service]) -> Vec<String> {
        words("/bench/dinit --container --quiet --services-dir /run/dinit.d --socket-path /run/dinitctl")
    }

    fn control(&self, verb: Verb, service: &str) -> Vec<String> {
        let verb = match verb {
            Verb::Status => "status",
            Verb::Start => "start",
            Verb::Stop => "stop",
        };
        words(&format!("/bench/dinitctl --socket-path /run/dinitctl {verb} {service}"))
    }

    fn control_all(&self, verb: All, _: &[Service]) -> Option<Vec<String>> {
        (verb == All::Status).then(|| words("/bench/dinitctl --socket-path /run/dinitctl list"))
    }
}
