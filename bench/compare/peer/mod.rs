//! What the harness must know about a supervisor: how it is told about services, started, asked and ended.
//!
//! Each is set up as its own manual would have it for the same promise: restart at once and for ever, SIGTERM to stop.
//! Where one cannot do something, its file says so.

mod dinit;
mod hermes;
mod runit;
mod s6;
mod small;
mod supervisord;

use crate::ground::Ground;
use crate::options::Options;
use crate::world::{Layout, World};
use rustix::process::Signal;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One service, the same for every peer.
#[derive(Debug, Clone)]
pub struct Service {
    pub name: String,
    /// The words after `/bench/service`.
    pub words: Vec<String>,
    /// Started at boot.
    pub up: bool,
    /// Its output is wanted in files of 1 MB of which so many are kept. Otherwise it goes where the peer sends it without
    /// being asked.
    pub logged: Option<u32>,
}

impl Service {
    pub fn new(name: &str, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { name: name.to_owned(), words, up: true, logged: None }
    }

    pub fn argv(&self) -> Vec<String> {
        std::iter::once(crate::world::SERVICE.to_owned()).chain(self.words.clone()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Status,
    Start,
    /// Returns when the peer takes the service for stopped.
    Stop,
}

/// Of all services in one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum All {
    Status,
    Start,
    /// Returns when the peer takes all of them for stopped.
    Stop,
}

pub trait Peer {
    fn name(&self) -> &'static str;

    fn version(&self) -> String;

    /// More services than this are not asked of it, for the reason given.
    fn most(&self) -> (usize, &'static str) {
        (usize::MAX, "")
    }

    /// Why it is not asked to run on this ground.
    ///
    /// # Errors
    /// The reason.
    fn runs_on(&self, _ground: Ground) -> Result<(), &'static str> {
        Ok(())
    }

    /// It supervises services, rather than run one command.
    fn supervises(&self) -> bool {
        true
    }

    /// It can keep a service's output in rotated files with a time at each line.
    fn logs(&self) -> bool {
        false
    }

    /// The files that hold a logged service's output, the oldest first; none when it does not rotate them.
    fn kept(&self, _world: &World, _service: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Writes what makes the services known.
    ///
    /// # Errors
    /// As of std::fs.
    fn prepare(&self, world: &Layout, services: &[Service]) -> io::Result<()>;

    /// What is executed as the world's PID 1.
    fn command(&self, services: &[Service]) -> Vec<String>;

    /// Asks it to stop everything and end.
    fn shut_down(&self, world: &World) {
        world.signal(world.supervisor(), Signal::TERM);
    }

    /// The command line that a person would type.
    fn control(&self, verb: Verb, service: &str) -> Vec<String>;

    /// The same for all of them; `None` where that takes more than one command.
    fn control_all(&self, _verb: All, _services: &[Service]) -> Option<Vec<String>> {
        None
    }
}

/// Every peer that is installed here, ours first.
pub fn all(options: &Options) -> Vec<Box<dyn Peer>> {
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for ours in hermes::all(options) {
        peers.push(Box::new(ours));
    }
    if let Some(version) = dinit::version(options) {
        peers.push(Box::new(dinit::Dinit { version }));
    }
    if let Some(s6) = s6::find(options) {
        peers.push(Box::new(s6));
    }
    if let Some(version) = package("runit") {
        peers.push(Box::new(runit::Runit { version }));
    }
    if let Some(version) = package("supervisor") {
        peers.push(Box::new(supervisord::Supervisord { version }));
    }
    for name in ["tini", "dumb-init"] {
        if let Some(version) = package(name) {
            peers.push(Box::new(small::Small { name, version }));
        }
    }
    peers.retain(|peer| options.wants_peer(peer.name()));
    peers
}

/// The version of an installed Debian package.
fn package(name: &str) -> Option<String> {
    let asked = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Version}", name])
        .output()
        .ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    text.strip_prefix("installed ").map(|version| format!("{version} (Debian)"))
}

/// The first line that a program prints.
fn first_line(program: &std::path::Path, word: &str) -> Option<String> {
    let output = Command::new(program).arg(word).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

/// The files of a log directory as s6-log names them, and who follows it: `@` and the time of the rotation, and `current`.
fn stamped(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let belongs = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name == "current" || name.as_encoded_bytes().starts_with(b"@"))
    };
    let mut files: Vec<PathBuf> = names.filter(belongs).collect();
    files.sort();
    files
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
