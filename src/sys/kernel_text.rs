//! Files that the kernel makes as they are read: /proc, cgroup2.
//!
//! Such a file says that it is empty, so the reading of the standard library begins with pieces of 32 bytes, after it has
//! asked for the size, the position and the descriptor's flags. Where many are read for one answer, that is most of its price.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// The whole file at an absolute path.
///
/// # Errors
/// As [`read_at`].
pub fn read(path: &str) -> io::Result<String> {
    read_at(CWD, path)
}

/// The whole file at `path` below the directory `at`. What is not UTF-8 in it becomes U+FFFD.
///
/// # Errors
/// As open(2) and read(2).
pub fn read_at(at: impl AsFd, path: &str) -> io::Result<String> {
    let file = rustix::fs::openat(at, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut piece, mut text) = ([0; 1024], Vec::new());
    loop {
        match rustix::io::read(&file, &mut piece) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_however_long_and_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let long = "0123456789\n".repeat(1000);
        std::fs::write(dir.path().join("long"), &long).unwrap();
        assert_eq!(read_at(&at, "long").unwrap(), long);
        std::fs::write(dir.path().join("odd"), b"a\xffb").unwrap();
        assert_eq!(read_at(&at, "odd").unwrap(), "a\u{fffd}b");
        assert_eq!(read_at(&at, "none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(read("/proc/self/stat").unwrap().starts_with(&std::process::id().to_string()));
    }
}
