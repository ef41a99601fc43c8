//! s6, Debian's or from source (then first in the world's PATH): one s6-supervise a service below s6-svscan. A service has a logger only where a row asks for one.
//!
//! `run` is a link to the test service, which reads its words beside it, so that no shell is paid for. That s6 waits a
//! second between two starts of a service that does not notify its readiness is its rule, and cannot be told otherwise.

use super::{Peer, Service, Verb, words};
use crate::options::Options;
use crate::world::{Layout, SERVICE, World};
use std::io;
use std::path::PathBuf;
use std::process::Command;

pub struct S6 {
    pub version: String,
    /// The option of s6-svscan for the most services.
    most: &'static str,
}

/// `None` when it is not there.
pub fn find(options: &Options) -> Option<S6> {
    let version = version(options)?;
    // -c became -C in 2.12: a version that does not know the word ends with 100, one that does, with 111 as there is no such directory.
    let program = options.s6.as_ref().map_or_else(|| "s6-svscan".into(), |dir| dir.join("s6-svscan"));
    let asked = Command::new(program).args(["-C", "10", "/nonexistent"]).output().ok()?;
    let most = if asked.status.code() == Some(100) { "-c" } else { "-C" };
    Some(S6 { version, most })
}

fn version(options: &Options) -> Option<String> {
    match &options.s6 {
        Some(dir) => {
            // Beside it bench/run has written what it was built from.
            let version = std::fs::read_to_string(dir.join("version")).unwrap_or_default();
            dir.join("s6-svscan").exists().then(|| format!("{} (static, from source)", version.trim()))
        }
        None => super::package("s6"),
    }
}

/// The directory of a service as s6 and runit share it.
pub fn service_directory(world: &Layout, service: &Service) -> io::Result<String> {
    let dir = format!("/run/service/{}", service.name);
    world.write(&format!("{dir}/words"), &service.words.join(" "), 0o644)?;
    std::os::unix::fs::symlink(SERVICE, world.path(&format!("{dir}/run")))?;
    if !service.up {
        world.write(&format!("{dir}/down"), "", 0o644)?;
    }
    Ok(dir)
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

    fn kept(&self, world: &World, service: &str) -> Vec<PathBuf> {
        super::stamped(&world.path(&format!("/opt/data/log-{service}")))
    }

    fn prepare(&self, world: &Layout, services: &[Service]) -> io::Result<()> {
        for service in services {
            let dir = service_directory(world, service)?;
            if let Some(keep) = service.logged {
                // To the container's stdout, and with times into files of 1 MB: what hermes-sup does.
                let text = format!(
                    "#!/bin/sh\nexec s6-log -b n{keep} s1000000 1 T /opt/data/log-{}\n",
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
        words(&format!("s6-svscan {} 20000 /run/service", self.most))
    }

    fn control(&self, verb: Verb, service: &str) -> Vec<String> {
        let (program, options) = match verb {
            Verb::Status => ("s6-svstat", ""),
            Verb::Start => ("s6-svc", "-wu -u"),
            Verb::Stop => ("s6-svc", "-wD -d"),
        };
        words(&format!("{program} {options} /run/service/{service}"))
    }
}
