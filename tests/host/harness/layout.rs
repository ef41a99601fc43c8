//! The root directory of a world, and where things are outside.

use super::setup::{ALICE, HERMES};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

pub fn lay_out(root: &Path) {
    for dir in [
        "dev",
        "proc",
        "sys/fs/cgroup",
        "etc/hermes-sup/services",
        "run",
        "root",
        "var/tmp",
        "opt/data",
        "mnt",
        "tmp",
    ] {
        std::fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    for dir in ["bin", "sbin", "lib", "lib32", "lib64"] {
        // On merged systems these are links into /usr; real directories are mounted by the sandbox.
        if let Ok(target) = std::fs::read_link(Path::new("/").join(dir)) {
            symlink(target, root.join(dir)).expect("a link");
        }
    }
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    chown(root.join("opt/data"), Some(HERMES), Some(HERMES)).expect("an owner");
    let users = [("root", 0, "/root"), ("hermes", HERMES, "/opt/data"), ("alice", ALICE, "/tmp")];
    let mut passwd = String::new();
    let mut group = String::new();
    for (name, id, home) in users {
        passwd.push_str(&format!("{name}:x:{id}:{id}::{home}:/bin/sh\n"));
        group.push_str(&format!("{name}:x:{id}:\n"));
    }
    group.push_str("helpers:x:20000:hermes\n");
    std::fs::write(root.join("etc/passwd"), passwd).expect("passwd");
    std::fs::write(root.join("etc/group"), group).expect("group");
    if let Ok(cache) = std::fs::read("/etc/ld.so.cache") {
        std::fs::write(root.join("etc/ld.so.cache"), cache).expect("ld.so.cache");
    }
    place(&tested_program(), &root.join("hermes-sup"));
    let adversary = std::env::var_os("HERMES_SUP_TESTED_ADVERSARY");
    place(&adversary.map_or_else(adversary_program, PathBuf::from), &root.join("adversary"));
    for name in ["systemd-run", "systemctl"] {
        symlink("/hermes-sup", root.join(name)).expect("a link");
    }
}

/// A link where the file system allows, else a copy: debug builds are large.
fn place(program: &Path, target: &Path) {
    if std::fs::hard_link(program, target).is_err() {
        std::fs::copy(program, target).expect("a copy of the program");
    }
}

/// The one that Cargo has built with the tests, unless another is named.
fn tested_program() -> PathBuf {
    std::env::var_os("HERMES_SUP_TESTED").map_or(env!("CARGO_BIN_EXE_hermes-sup").into(), PathBuf::from)
}

/// Cargo builds examples with the tests, beside the binary.
pub fn adversary_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_hermes-sup")).with_file_name("examples").join("adversary");
    assert!(program.exists(), "{} is missing: cargo build --example adversary", program.display());
    program
}

pub fn cgroup_mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts
        .lines()
        .find_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            tail.starts_with("cgroup2 ").then(|| PathBuf::from(head.split(' ').nth(4).unwrap_or_default()))
        })
        .expect("a cgroup2 mount: the host tier needs one")
}
