//! The database file as the engine sees it: positioned reads and writes, a length, one sync.
//!
//! The engine writes new pages before it frees old ones, into a sparse file. So the space for the whole length is
//! reserved after opening and with each growth: what fits in the file can then be written on a full disk too.
//!
//! And it is written once, with zeros, and the file does not shrink. The first write to a place that is only reserved, as any change
//! of the length, goes through the journal of the file system: the sync of that commit would wait for whatever everybody on that
//! disk has in the journal. The sync of a place that was written before waits for its own pages alone. A start does not wait for
//! those zeros: the store writes them when it has nothing else to do.

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A regular file. Not locked: the `lock` file next to it is what keeps others out.
#[derive(Debug)]
pub(super) struct DiskFile(File);

impl DiskFile {
    pub(super) fn new(file: File) -> Self {
        // Refused on a full disk when the file has holes: then commits may fail, and say so.
        if let Ok(metadata) = file.metadata() {
            let _ = reserve(&file, metadata.len());
        }
        Self(file)
    }

    #[cfg(test)]
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::ino(&self.0.metadata()?))
    }
}

/// Gives every byte up to `len` its place on the disk, and the file at least that length. fallocate(2).
fn reserve(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)?)
}

/// Writes zeros where nothing was written yet: to lseek(2) a place that is only reserved is a hole. Where this fails, commits take
/// longer. Nobody else may write to the file meanwhile.
///
/// # Errors
/// As lseek(2) and write(2).
pub(super) fn write_ahead(file: &File) -> io::Result<()> {
    let len = file.metadata()?.len();
    let zeros = vec![0; 32 << 10];
    let mut at = 0;
    while at < len {
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at))?;
        at = match rustix::fs::seek(file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(len),
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => len,
            Err(error) => return Err(error.into()),
        };
        for begin in (hole..at).step_by(zeros.len()) {
            let count = usize::try_from(at - begin).unwrap_or(zeros.len()).min(zeros.len());
            file.write_all_at(&zeros[..count], begin)?;
        }
    }
    Ok(())
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.0.metadata()?.len();
        // The engine takes a file that is longer than it knew for one that it had begun to grow.
        if len <= before {
            return Ok(());
        }
        match reserve(&self.0, len) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // Part of it may have been given out.
                let _ = self.0.set_len(before);
                return Err(error);
            }
            // Not every filesystem can reserve.
            Ok(()) | Err(_) => self.0.set_len(len)?,
        }
        // This commit goes through the journal in any case. The first length is that of a new file.
        if before > 0 {
            let _ = write_ahead(&self.0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Makes the engine's file out of the real one; tests put a disk in between that fails, hangs or loses power.
pub(super) type Wrap = Arc<dyn Fn(DiskFile) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

pub(super) fn plain() -> Wrap {
    Arc::new(|file| Ok(Box::new(file)))
}

/// What the engine gets: any backend, watched for a failed sync.
///
/// After a failed fsync(2) the kernel calls the lost pages clean: a later sync succeeds although they never reached
/// the disk (since Linux 4.13 the error is reported once). So a file whose sync failed must not be continued.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    sync_failed: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn StorageBackend>) -> (Self, Arc<AtomicBool>) {
        let sync_failed = Arc::new(AtomicBool::new(false));
        (Self { inner, sync_failed: Arc::clone(&sync_failed) }, sync_failed)
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let done = self.inner.sync_data();
        if done.is_err() {
            self.sync_failed.store(true, Ordering::Relaxed);
        }
        done
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_whole_length_has_its_place_on_the_disk_after_growth_and_after_opening() {
        let file = tempfile::tempfile().unwrap();
        if reserve(&file, 4096).is_err() {
            return; // This filesystem cannot reserve.
        }
        let placed = |file: &File| file.metadata().unwrap().blocks() * 512;
        let is_written = |file: &File| {
            rustix::fs::seek(file, SeekFrom::Hole(0)).unwrap() == file.metadata().unwrap().len()
        };
        file.set_len(0).unwrap();
        let disk = DiskFile::new(file.try_clone().unwrap());
        disk.set_len(1 << 20).unwrap();
        assert!(disk.len().unwrap() == 1 << 20 && placed(&file) >= 1 << 20, "{}", placed(&file));
        assert!(!is_written(&file), "a start waits for no zeros");
        disk.set_len(2 << 20).unwrap();
        assert!(is_written(&file), "no page that is only reserved");
        disk.write(5000, b"kept").unwrap();
        disk.set_len(8192).unwrap();
        assert_eq!(disk.len().unwrap(), 2 << 20, "to shrink and grow again is work for the journal");
        file.set_len(8192).unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(placed(&file) < 1 << 20, "sparse before it is opened");
        drop(DiskFile::new(file.try_clone().unwrap()));
        assert!(placed(&file) >= 1 << 20 && !is_written(&file));
        write_ahead(&file).unwrap();
        assert!(is_written(&file));
        let mut kept = [0; 4];
        disk.read(5000, &mut kept).unwrap();
        assert_eq!(&kept, b"kept");
    }
}
