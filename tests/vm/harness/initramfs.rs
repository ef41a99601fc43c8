//! The first file system of a machine: a cpio archive in the `newc` format (kernel,
//! Documentation/driver-api/early-userspace/buffer-format.rst), and the kernel modules in it in their order.

use super::provided;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the kernel of a distribution keeps in modules of all that a disk with ext4 needs. Those a kernel has built in
/// are not in its directory and not needed.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

#[derive(Default, Clone)]
pub struct Archive(Vec<u8>);

impl Archive {
    pub fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, &[]);
    }

    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let name = name.trim_start_matches('/');
        // Magic, inode, mode, uid, gid, links, mtime, size, device ×2, rdev ×2, length of the name with its NUL, checksum.
        let fields = [0, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
        self.0.extend_from_slice(b"070701");
        for field in fields {
            self.0.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.0
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a file of less than 4 GiB")
}

/// What every machine of this run begins with: the programs and the modules.
pub fn base() -> Archive {
    static BASE: OnceLock<Archive> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut archive = Archive::default();
        for directory in ["dev", "proc", "sys", "run", "tmp", "root", "opt", "opt/data", "modules", "etc"] {
            archive.directory(directory);
        }
        for (name, variable) in
            [("hermes-sup", "HERMES_SUP_VM_BINARY"), ("adversary", "HERMES_SUP_VM_ADVERSARY")]
        {
            archive.entry(name, PROGRAM, &read(Path::new(&provided(variable))));
        }
        archive.entry("systemd-run", LINK, b"/hermes-sup");
        for (place, module) in modules(Path::new(&provided("HERMES_SUP_VM_MODULES"))).iter().enumerate() {
            archive.file(&format!("modules/{place:03}.ko"), module);
        }
        archive
    })
    .clone()
}

fn read(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The modules of the tree `dir` and what they depend on, each after those that it depends on.
fn modules(dir: &Path) -> Vec<Vec<u8>> {
    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                files(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    fn add(name: &str, files: &[PathBuf], done: &mut Vec<String>, found: &mut Vec<Vec<u8>>) {
        // A file may be called with dashes what the kernel calls with underscores.
        let is = |path: &PathBuf| {
            path.file_stem().is_some_and(|stem| stem.to_string_lossy().replace('-', "_") == name)
        };
        if done.iter().any(|each| each == name) {
            return;
        }
        done.push(name.to_owned());
        let Some(path) = files.iter().find(|path| is(path)) else { return };
        let module = read(path);
        for needed in depends(&module) {
            add(&needed, files, done, found);
        }
        found.push(module);
    }
    let mut all = Vec::new();
    files(dir, &mut all);
    let (mut done, mut found) = (Vec::new(), Vec::new());
    for name in MODULES {
        add(name, &all, &mut done, &mut found);
    }
    found
}

/// The `depends=` of a module's own description (its section .modinfo: NUL-terminated `key=value` strings).
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = memchr::memmem::find(module, KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}
