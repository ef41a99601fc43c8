//! What a definition's file looked like when it was read, so that it is noticed when it has been edited since.

use rustix::fs::Stat;
use std::io::ErrorKind;
use std::path::Path;

/// Which file it was, its size, and when it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Stamp {
    pub fn of(stat: &Stat) -> Self {
        #[allow(clippy::unnecessary_cast, reason = "their widths differ between architectures")]
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        }
    }

    /// What has become of the file since, in words; `None`: nothing, or it cannot be seen. One stat(2), which waits for the disk.
    pub fn edited(&self, path: &Path) -> Option<&'static str> {
        match rustix::fs::stat(path) {
            Ok(stat) => (Self::of(&stat) != *self).then_some("was changed since it was read"),
            Err(error) => (std::io::Error::from(error).kind() == ErrorKind::NotFound)
                .then_some("is gone since it was read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_in_place_a_new_file_and_none_are_told_apart_from_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.toml");
        std::fs::write(&path, "command = ['a']\n").unwrap();
        let stamp = Stamp::of(&rustix::fs::stat(&path).unwrap());
        assert_eq!(stamp.edited(&path), None);
        // As long as before, in another file that is renamed over it: what editors do.
        let new = dir.path().join("new");
        std::fs::write(&new, "command = ['b']\n").unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(stamp.edited(&path), Some("was changed since it was read"));
        let stamp = Stamp::of(&rustix::fs::stat(&path).unwrap());
        std::fs::write(&path, "command = ['longer']\n").unwrap();
        assert_eq!(stamp.edited(&path), Some("was changed since it was read"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(stamp.edited(&path), Some("is gone since it was read"));
    }
}
