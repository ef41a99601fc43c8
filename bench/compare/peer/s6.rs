//! s6: one s6-supervise a service below s6-svscan. A service has a logger only where a row asks for one.
//!
//! `run` is a link to the test service, which reads its words beside it, so that no shell is paid for. That s6 waits a
//! second between two starts of a service that does not notify its readiness is its rule, and cannot be told otherwise.

use super::{Peer, Service, Verb, words};
use crate::options::Options;
use crate::world::{SERVICE, World};
use std::io;
use std::path::PathBuf;

pub struct S6 {
    pub version: String,
    /// A build from source; Debian's otherwise.
    pub programs: Option<PathBuf>,
}

pub fn version(options: &Options) -> Option<String> {
    match &options.s6 {
        Some(dir) => dir.join("s6-svscan").exists().then(|| format!("from source, {}", dir.display())),
        None => super::package("s6"),
    }
}

/// The directory of a service as s6 and runit share it.
pub fn service_directory(world: &World, service: &Service) -> io::Result<String> {
    let dir = format!("/run/service/{}", service.name);
    world.write(&format!("{dir}/words"), &service.words.join(" "), 0o644)?;
    std::os::unix::fs::symlink(SERVICE, world.path(&format!("{dir}/run")))?;
    if !service.up {
        world.write(&format!("{dir}/down"), "", 0o644)?;
    }
    Ok(dir)
}

impl S6 {
    fn program(&self, name: &str) -> String {
        self.programs.as_ref().map_or(name.to_owned(), |dir| dir.join(name).display().to_string())
    }
}

impl Peer for S6 {
    fn name(&self) -> &'static str {
        "s6"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn logs(&self) -> bool {
        true
    }

    fn prepare(&self, world: &World, services: &[Service]) -> io::Result<()> {
        for service in services {
            let dir = service_directory(world, service)?;
            if service.logged {
                // To the container's stdout, and with times into 10 files of 1 MB: what hermes-sup does.
                let text = format!(
                    "#!/bin/sh\nexec {} -b n10 s1000000 1 T /opt/data/log-{}\n",
                    self.program("s6-log"),
                    service.name
                );
                world.write(&format!("{dir}/log/run"), &text, 0o755)?;
            }
        }
        std::fs::create_dir_all(world.path("/run/service/.s6-svscan"))?;
        // What s6-svscan becomes when all is down.
        std::os::unix::fs::symlink("/bin/true", world.path("/run/service/.s6-svscan/finish"))
    }

    fn command(&self, _: &[Service]) -> Vec<String> {
        words(&format!("{} -c 20000 /run/service", self.program("s6-svscan")))
    }

    fn control(&self, verb: Verb, service: &str) -> Vec<String> {
        let (program, options) = match verb {
            Verb::Status => ("s6-svstat", ""),
            Verb::Start => ("s6-svc", "-wu -u"),
            Verb::Stop => ("s6-svc", "-wD -d"),
        };
        words(&format!("{} {options} /run/service/{service}", self.program(program)))
    }
}
