//! What a machine is to be like, and the disk that outlives it.

use super::asleep::Asleep;
use super::machine::Machine;
use super::{Dice, Disk, initramfs, seed};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The last word of every command line of a service, by which the oracle counts its processes.
pub fn mark(service: &str) -> String {
    format!("marked-as-{service}-by-the-test")
}

const HERMES: u32 = 10000;
const DISK: &str = "disk";
/// The bytes of a group of blocks.
const GROUP: u32 = 8 << 20;

/// A disk with ext4 and its default barriers, for /opt/data.
pub struct Volume {
    dir: tempfile::TempDir,
    pub disk: Disk,
}

impl Volume {
    /// An empty one of so many MiB that belongs to hermes.
    pub fn new(mebibytes: u64) -> Self {
        Self::with(mebibytes, 1024, Dice::new(seed()))
    }

    /// The same, with blocks of so many bytes. What a power cut leaves of its cache is up to `dice`.
    pub fn with(mebibytes: u64, block: u32, dice: Dice) -> Self {
        let dir = tempfile::Builder::new().prefix("hermes-sup-vm-").tempdir().expect("a temporary directory");
        let image = dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
        // No blocks kept back for root: the supervisor, too, shall find the disk full when it is.
        let owner = format!("root_owner={HERMES}:{HERMES}");
        // Of groups so small that there is a backup of the superblock, as on a large volume.
        let group = (GROUP / block).to_string();
        let block = block.to_string();
        let words = ["-q", "-F", "-m", "0", "-b", &block, "-g", &group, "-E", &owner];
        let made = Command::new("mkfs.ext4").args(words).arg(&image).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4");
        let content = std::fs::read(&image).expect("the image");
        std::fs::remove_file(&image).expect("it is in memory now");
        let disk = Disk::served(content, &dir.path().join(DISK), dice);
        Self { dir, disk }
    }

    /// Where the disk is served.
    pub fn socket(&self) -> PathBuf {
        self.path(DISK)
    }

    /// A file that goes with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.disk.close(&self.socket());
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
    /// What its machines are woken from, instead of booted.
    pub asleep: Option<Arc<Asleep>>,
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
            asleep: None,
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

    /// Boots the kernel once, for all machines of this setup. From now on nothing may be changed of it, and `mebibytes` is the size of
    /// their volumes.
    #[track_caller]
    pub fn asleep(mut self, mebibytes: u64) -> Self {
        let volume = Volume::new(mebibytes);
        let (initramfs, command) = self.provide(&volume);
        self.asleep = Some(Arc::new(Asleep::new(&self, &volume, &initramfs, &command)));
        self
    }

    /// Switches the machine on; returns when the supervisor answers.
    #[track_caller]
    pub fn boot(&self, volume: &Volume) -> Machine {
        self.boot_unless_cut(volume).expect("the power stays on")
    }

    /// The same; `None`: the power failed before.
    #[track_caller]
    pub fn boot_unless_cut(&self, volume: &Volume) -> Option<Machine> {
        let (initramfs, command) = self.provide(volume);
        Machine::start(self, volume, &initramfs, &command)
    }

    /// Its first file system, which goes with the volume, and the command of PID 1.
    fn provide(&self, volume: &Volume) -> (PathBuf, String) {
        let initramfs = volume.path("initramfs");
        self.write_initramfs(&initramfs);
        let place = self.cgroup.map(|cgroup| ["/adversary", "in-cgroup", cgroup]);
        let words = place.iter().flatten().chain(&["/hermes-sup", "init"]).map(ToString::to_string);
        let command = [words.collect(), self.supervisor.clone()].concat();
        (initramfs, command.join(" "))
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
