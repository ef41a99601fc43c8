//! hermes-sup itself, on one rung of containment. It keeps the output of every service in rotated files, and every want in
//! its database, whether a row asks for that or not.

use super::{All, Peer, Service, Verb, words};
use crate::ground::Ground;
use crate::options::Options;
use crate::world::{AGAINST, HERMES, Layout, World};
use std::io;
use std::path::{Path, PathBuf};

pub struct Hermes {
    pub name: &'static str,
    pub rung: &'static str,
    /// Its path in a world.
    pub program: &'static str,
    pub version: String,
}

/// On both rungs, and the binary that it is compared with.
pub fn all(options: &Options) -> Vec<Hermes> {
    let this = format!("{}, commit {}", about(&options.hermes), options.commit);
    let on = |name, rung, version| Hermes { name, rung, program: HERMES, version };
    let mut found = vec![on("hermes-sup", "cgroup", this.clone()), on("hermes-sup (keeper)", "keeper", this)];
    if let Some(binary) = &options.against {
        let version = format!("{}, given with --against", about(binary));
        let on = |name, rung, version| Hermes { name, rung, program: AGAINST, version };
        found.push(on("against", "cgroup", version.clone()));
        found.push(on("against (keeper)", "keeper", version));
    }
    found
}

fn about(binary: &Path) -> String {
    let version = super::first_line(binary, "--version").unwrap_or_default();
    let size = std::fs::metadata(binary).map_or(0, |meta| meta.len());
    format!("{version}, {:.2} MB static", size as f64 / 1e6)
}

impl Peer for Hermes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn runs_on(&self, ground: Ground) -> Result<(), &'static str> {
        match (ground, self.rung) {
            (Ground::Container, "cgroup") => Err("no writable cgroups here"),
            (Ground::WritableCgroups, "keeper") => Err("as in a plain container"),
            _ => Ok(()),
        }
    }

    fn most(&self) -> (usize, &'static str) {
        if self.rung == "cgroup" {
            (usize::MAX, "")
        } else {
            (1000, "one keeper process a service: 1000 show the slope")
        }
    }

    fn logs(&self) -> bool {
        true
    }

    fn kept(&self, world: &World, service: &str) -> Vec<PathBuf> {
        super::stamped(&world.path(&format!("/opt/data/logs/gateways/{service}")))
    }

    fn prepare(&self, world: &Layout, services: &[Service]) -> io::Result<()> {
        for service in services {
            // A second up ends the row of failures, so that each is the first one and is answered at once: the others
            // are told the same in their words. A hostile tree gets a tenth of a second before it is killed, who obeys what
            // everybody gets.
            let stop = if service.name == "tree" { "[stop]\ntimeout = \"100ms\"\n" } else { "" };
            let definition = format!(
                "command = {:?}\nuser = \"root\"\nautostart = {}\n\
                 [restart]\nbackoff = {{ initial = \"1ms\", max = \"1ms\", reset_after = \"1s\" }}\n\
                 limit = {{ burst = 10000, interval = \"1s\" }}\n\
                 {stop}{}",
                service.argv(),
                service.up,
                service.logged.map_or_else(String::new, |keep| format!("[log]\nkeep = {keep}\n"))
            );
            world.write(&format!("/etc/hermes-sup/services/{}.toml", service.name), &definition, 0o644)?;
        }
        Ok(())
    }

    fn command(&self, _: &[Service]) -> Vec<String> {
        words(&format!("{} init --containment {} --stop-budget 60s", self.program, self.rung))
    }

    fn control(&self, verb: Verb, service: &str) -> Vec<String> {
        let verb = match verb {
            Verb::Status => "status",
            Verb::Start => "start",
            Verb::Stop => "stop",
        };
        words(&format!("{} ctl {verb} {service}", self.program))
    }

    fn control_all(&self, verb: All, _: &[Service]) -> Option<Vec<String>> {
        let verb = match verb {
            All::Status => "status",
            All::Start => "start --all",
            All::Stop => "stop --all",
        };
        Some(words(&format!("{} ctl {verb}", self.program)))
    }
}
