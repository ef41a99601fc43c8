//! What a host does before it mounts a disk that has lost its power: e2fsck(8), where the kernel alone would not do.
//!
//! A merely dirty file system is the kernel's to recover: it replays the journal. Before that it reads nothing longer than a sector
//! but the superblock, whose two sectors a cut can tear. One of half old, half new bytes has a false checksum, and no kernel
//! mounts that. `e2fsck -p` leaves it to the administrator; `-y` takes a backup of the superblock and replays the journal.

use super::figure;
use std::path::Path;
use std::process::Command;

/// Where ext4 has its superblock, whatever the size of its blocks, and how long it is.
pub const SUPERBLOCK: usize = 1024;
pub const SUPERBLOCK_LENGTH: usize = 1024;

/// Makes a kernel mount what is on this disk. Most disks stay as they are.
///
/// # Panics
/// Where e2fsck cannot.
pub fn before_mount(content: &mut Vec<u8>) {
    if !is_torn(content) {
        return;
    }
    let disk = tempfile::NamedTempFile::new_in(super::memory()).expect("a temporary file");
    std::fs::write(disk.path(), &content).expect("the disk");
    check(disk.path(), content);
    *content = std::fs::read(disk.path()).expect("the disk");
}

/// Has `e2fsck -fy` check the disk in this file, of this content.
///
/// # Panics
/// Where the file system is not in order afterwards.
pub fn check(disk: &Path, content: &[u8]) {
    let mut e2fsck = Command::new("e2fsck");
    e2fsck.arg("-fy");
    if is_torn(content) {
        figure("a cut has torn the superblock of ext4: e2fsck takes a backup of it");
        // Where the first backup is has never changed, so a torn superblock says it as well. By itself e2fsck looks only where
        // the groups of a large volume begin.
        let [log_block, first, group] = [24, 20, 32].map(|field| number(content, field));
        e2fsck.args(["-b", &(first + group).to_string(), "-B", &(1024_u32 << log_block).to_string()]);
    }
    let done = e2fsck.arg(disk).output().expect("e2fsck(8)");
    // 1: it mended something, be it that it replayed the journal; 2: it did so below a file system that is mounted. Anything else
    // is left wrong.
    let words = String::from_utf8_lossy(&done.stdout);
    assert!(
        matches!(done.status.code(), Some(0..=2)),
        "e2fsck leaves the disk with errors: {done:?}\n{words}"
    );
}

/// Asks what the kernel asks: its checksum, the last number of it, is that of all before (crc32c, as ext4 has it, not inverted).
pub fn is_torn(content: &[u8]) -> bool {
    let (before, checksum) = content[SUPERBLOCK..][..SUPERBLOCK_LENGTH].split_at(SUPERBLOCK_LENGTH - 4);
    let step = |sum: u32, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
    let sum = before.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step));
    checksum != sum.to_le_bytes()
}

/// A number of the superblock.
fn number(content: &[u8], field: usize) -> u32 {
    let bytes = content[SUPERBLOCK + field..][..4].try_into().expect("four bytes");
    u32::from_le_bytes(bytes)
}
