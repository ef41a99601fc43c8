//! What a power cut has left of a disk, opened without a machine: e2fsck(8) replays the journal of the file system, debugfs(8)
//! takes the state out of it, and the store opens that.

use super::{fsck, memory};
use hermes_sup::store::{Opened, Options, begin};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The state on this disk.
///
/// # Panics
/// Where the file system cannot be put in order, or the state not be opened.
pub fn open(image: &[u8]) -> Opened {
    let dir = tempfile::tempdir_in(memory()).expect("a temporary directory");
    let (disk, home) = (dir.path().join("disk"), dir.path().join("home"));
    std::fs::write(&disk, image).expect("the disk");
    std::fs::create_dir(&home).expect("a home");
    fsck::check(&disk, image);
    let dump = format!("rdump supervisor {}", home.display());
    let dumped = Command::new("debugfs").args(["-R", &dump]).arg(&disk).output().expect("debugfs(8)");
    assert!(dumped.status.success(), "{dumped:?}");
    let own = std::fs::metadata(&home).expect("a home");
    take_over(&home, own.uid(), own.gid());
    let options = Options {
        dir: home.join("supervisor"),
        home,
        gid: own.gid(),
        host: "test".into(),
        patience: Duration::from_secs(60),
        gives_way: None,
        is_init: false,
    };
    let (store, opened) = begin(options, |_| {}).and_then(|opening| opening.wait(|| true)).expect("a state");
    store.close(Duration::from_secs(60)).expect("its end");
    opened
}

/// The owner is another one here than in the machine.
fn take_over(dir: &Path, uid: u32, gid: u32) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        lchown(entry.path(), Some(uid), Some(gid)).expect("an owner");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            take_over(&entry.path(), uid, gid);
        }
    }
}
