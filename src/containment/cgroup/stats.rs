//! What is read of a cgroup for people: CPU time through cgroups-rs, pressure through procfs.
//!
//! By hand: memory, because cgroups-rs reads eight files for it and answers 0 without the controller; I/O, because it panics at a
//! device with a minor number above 32767 and leaves out every device that has more figures than it knows.

use super::leaf::read;
use cgroups_rs::fs::cpu::CpuController;
use procfs::{CpuPressure, FromBufRead, PressureRecord};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// CPU time of everything that ever ran below, in milliseconds. It is there without the controller, too
/// (cgroup-v2.rst, "CPU Interface Files").
pub fn cpu_ms(tree: &Path, leaf: &str) -> Option<u64> {
    let stat = CpuController::new(tree.join(leaf), PathBuf::new(), true).cpu().stat;
    let micros: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
    Some(micros / 1000)
}

/// `memory.current` and `memory.peak` in bytes; `None` without the controller, the peak also before kernel 5.19.
pub fn memory(tree: BorrowedFd<'_>, leaf: &str) -> (Option<u64>, Option<u64>) {
    let one = |file: &str| -> Option<u64> { read(tree, &format!("{leaf}/{file}")).ok()?.trim().parse().ok() };
    (one("memory.current"), one("memory.peak"))
}

/// Bytes read and written by everything that ever ran below, over all devices; `None` without the controller.
pub fn io(tree: BorrowedFd<'_>, leaf: &str) -> Option<(u64, u64)> {
    Some(io_of(&read(tree, &format!("{leaf}/io.stat")).ok()?))
}

/// How much of the last 10 s something below waited for CPU, memory and I/O, in percent (kernel 4.20; a kernel may have
/// it switched off).
pub fn pressure(tree: BorrowedFd<'_>, leaf: &str) -> [Option<f64>; 3] {
    ["cpu.pressure", "memory.pressure", "io.pressure"]
        .map(|file| pressure_of(&read(tree, &format!("{leaf}/{file}")).ok()?))
}

fn io_of(text: &str) -> (u64, u64) {
    let sum = |label: &str| {
        let words = text.split_ascii_whitespace();
        words.filter_map(|word| word.strip_prefix(label)?.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// `avg10` of the line `some`. All three files have that line in the form of CPU pressure.
fn pressure_of(text: &str) -> Option<f64> {
    let PressureRecord { avg10, .. } = CpuPressure::from_buf_read(text.as_bytes()).ok()?.some;
    // The kernel writes two decimals.
    Some((f64::from(avg10) * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_summed_over_devices_and_pressure_is_that_of_some() {
        let text = "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0 rbytes=100 wbytes=7 rios=1\n";
        assert_eq!(io_of(text), (1_459_300, 314_773_511));
        assert_eq!(io_of(""), (0, 0));
        let text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=5\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure_of(text), Some(12.5));
        assert_eq!(pressure_of(""), None);
    }

    /// Why I/O is read by hand.
    #[test]
    fn the_crate_does_not_read_every_device() {
        use cgroups_rs::fs::blkio::BlkIoController;
        let dir = tempfile::tempdir().unwrap();
        let sum = |text: &str| {
            std::fs::write(dir.path().join("io.stat"), text).unwrap();
            let dir = dir.path().to_owned();
            std::panic::catch_unwind(|| BlkIoController::new(dir, PathBuf::new(), true).blkio().io_stat.len())
                .ok()
        };
        let rest = "rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0";
        assert_eq!(sum(&format!("8:0 {rest}\n")), Some(1));
        assert_eq!(sum(&format!("8:0 {rest} cost.usage=9\n")), Some(0), "the crate reads it now");
        assert_eq!(sum(&format!("253:40000 {rest}\n")), None, "the crate reads it now");
    }

    /// Why memory is read by hand.
    #[test]
    fn the_crate_answers_zero_where_there_is_no_controller() {
        use cgroups_rs::fs::memory::MemController;
        let dir = tempfile::tempdir().unwrap();
        let memory = MemController::new(dir.path().to_owned(), PathBuf::new(), true).memory_stat();
        assert_eq!(
            (memory.usage_in_bytes, memory.max_usage_in_bytes),
            (0, 0),
            "the crate tells them apart now"
        );
    }
}
