//! A machine that was saved before it looked for a disk. An emulated kernel takes seconds of a processor until then, the same each
//! time, and a test with hundreds of boots needs them once.
//!
//! A machine that is woken from it is told the time and given random numbers of its own, such as those of its boot id. Everything that
//! concerns its disk it does itself: it loads the driver, reads the disk, recovers and mounts it.

use super::machine::{Machine, Pending};
use super::memory;
use super::setup::{Setup, Volume};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the first stage says while it sleeps.
pub const WORD: &str = "asleep";

/// What qemu has saved, in a file without a name.
pub struct Asleep(File);

impl Asleep {
    /// Boots a machine, and saves it. `volume` is of the size that those have that it is woken with.
    #[track_caller]
    pub fn new(setup: &Setup, volume: &Volume, initramfs: &Path, command: &str) -> Self {
        let asleep = Self(tempfile::tempfile_in(memory()).expect("a temporary file"));
        let monitor = volume.path("monitor");
        let words = ["-monitor".to_owned(), format!("unix:{},server=on,wait=off", monitor.display())];
        let (mut machine, first): (Machine, Pending) =
            Machine::switch_on(setup, volume, initramfs, &format!("--asleep {command}"), &words, false);
        let said = first.wait().map(|answer| answer.out);
        assert_eq!(said.as_deref(), Some(WORD), "{}", machine.console());
        let mut monitor = UnixStream::connect(&monitor).expect("the monitor of qemu");
        // One is done before the next is read.
        let save = format!(
            "migrate_set_parameter max-bandwidth 100G\nmigrate \"exec:cat > {}\"\nquit\n",
            asleep.path()
        );
        monitor.write_all(save.as_bytes()).expect("the monitor of qemu");
        machine.wait();
        let mut told = String::new();
        let _ = monitor.read_to_string(&mut told);
        let saved = asleep.0.metadata().expect("its length").len();
        assert!(saved > 0, "nothing is saved: {told}\n{}", machine.console());
        asleep
    }

    /// The words by which qemu begins with it.
    pub fn words(&self) -> [String; 2] {
        ["-incoming".to_owned(), format!("exec:cat {}", self.path())]
    }

    /// Opened anew by whoever reads or writes it, and gone with this process.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// What wakes the first stage: the time, and a seed.
pub fn wake() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let mut seed = [0u8; 32];
    let filled = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(seed.len()), "random numbers");
    format!("{}\n", serde_json::json!([now as u64, seed]))
}
