//! What a machine is to be like, and the disk that outlives it.

use super::initramfs;
use super::machine::Machine;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The last word of every command line of a service, by which the oracle counts its processes.
pub fn mark(service: &str) -> String {
    format!("marked-as-{service}-by-the-test")
}

const HERMES: u32 = 10000;

/// A disk with ext4 and its default barriers, for /opt/data.
pub struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    /// An empty one of so many MiB that belongs to hermes.
    pub fn new(mebibytes: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("hermes-sup-vm-").tempdir().expect("a temporary directory");
        let volume = Self { dir };
        let image = volume.image();
        std::fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
        // No blocks kept back for root: the supervisor, too, shall find the disk full when it is.
        let owner = format!("root_owner={HERMES}:{HERMES}");
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", &owner]).arg(&image).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4");
        volume
    }

    pub fn image(&self) -> PathBuf {
        self.path("disk")
    }

    /// A file beside the image.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A machine in the making.
#[derive(Clone)]
pub struct Setup {
    files: Vec<(String, String)>,
    pub processors: u32,
    pub mebibytes: u32,
    supervisor: Vec<String>,
    /// The cgroup in which the supervisor finds itself, as in a container; `None`: the root.
    pub cgroup: Option<&'static str>,
}

impl Setup {
    pub fn new() -> Self {
        let mut passwd = String::new();
        let mut group = String::new();
        for (name, id, home) in [("root", 0, "/root"), ("hermes", HERMES, "/opt/data")] {
            passwd.push_str(&format!("{name}:x:{id}:{id}::{home}:/bin/false\n"));
            group.push_str(&format!("{name}:x:{id}:\n"));
        }
        Self {
            files: vec![("etc/passwd".into(), passwd), ("etc/group".into(), group)],
            processors: 2,
            mebibytes: 512,
            supervisor: Vec::new(),
            cgroup: None,
        }
    }

    /// A definition in the system's directory: root's, so it may name a user.
    pub fn define(mut self, name: &str, definition: &str) -> Self {
        self.files.push((format!("etc/hermes-sup/services/{name}.toml"), definition.into()));
        self
    }

    /// A service that runs an adversary, marked. `rest` is what follows the command in the definition.
    pub fn adversary(self, name: &str, words: &str, rest: &str) -> Self {
        let mark = mark(name);
        let argv: Vec<&str> =
            ["/adversary"].into_iter().chain(words.split_whitespace()).chain([&*mark]).collect();
        self.define(name, &format!("command = {argv:?}\n{rest}\n"))
    }

    /// A further option of the supervisor.
    pub fn option(mut self, words: &[&str]) -> Self {
        self.supervisor.extend(words.iter().map(ToString::to_string));
        self
    }

    /// Switches the machine on; returns when the supervisor answers.
    #[track_caller]
    pub fn boot(&self, volume: &Volume) -> Machine {
        let initramfs = volume.path("initramfs");
        self.write_initramfs(&initramfs);
        let place = self.cgroup.map(|cgroup| ["/adversary", "in-cgroup", cgroup]);
        let words = place.iter().flatten().chain(&["/hermes-sup", "init"]).map(ToString::to_string);
        let command = [words.collect(), self.supervisor.clone()].concat();
        let machine = Machine::start(self, volume, &initramfs, &command.join(" "));
        machine.await_supervisor();
        machine
    }

    fn write_initramfs(&self, path: &Path) {
        let mut archive = initramfs::base();
        archive.directory("etc/hermes-sup");
        archive.directory("etc/hermes-sup/services");
        for (name, content) in &self.files {
            archive.file(name, content.as_bytes());
        }
        std::fs::write(path, archive.finish()).expect("an initramfs");
    }
}
