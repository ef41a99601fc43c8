//! One directory of rotated files, written by its own process and thread: what `s6-log` is about. The same names, heads
//! and rotation as for services, so the same readers read it; here the caller may wait for the disk, and nothing is
//! left out but what the disk refuses.
//!
//! No lock is taken and none is looked at: a directory that an earlier or foreign logger holds is no obstacle.

use super::logfile::LogFile;
use super::stamp::Stamp;
use super::tai64n::Label;
use super::{Dress, LogSpec, Shared};
use crate::core::name::ServiceName;
use crate::core::words::{Overflow, Stream};
use crate::sys::credentials::Credentials;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The time in front of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// `@` and 24 hexadecimal digits, then a space. Before the other one.
    pub tai64n: bool,
    /// Local time as in the logs of services.
    pub local: bool,
}

/// Puts [`Times`] in front of lines.
#[derive(Debug, Default)]
pub struct Clock {
    stamp: Stamp,
}

impl Clock {
    /// Appends the head of a line written now.
    pub fn head(&mut self, out: &mut Vec<u8>, times: Times) {
        let now = SystemTime::now();
        if times.tai64n {
            out.extend_from_slice(format!("{} ", Label::of(now)).as_bytes());
        }
        if times.local {
            out.extend_from_slice(&self.stamp.at(now, Stream::Out));
        }
    }
}

/// An open directory of log files.
#[derive(Debug)]
pub struct LogDir {
    file: LogFile,
    stamp: Stamp,
}

impl LogDir {
    /// Makes the directory if it is missing, and `current` in it. `path` is the operator's and may lead through links;
    /// nothing below it does. A file that cannot be opened now is tried again at each write.
    ///
    /// # Errors
    /// As mkdir(2) and [`std::fs::canonicalize`].
    pub fn open(path: &Path, max_size: u64, keep: u32) -> io::Result<(Self, Option<String>)> {
        std::fs::create_dir_all(path)?;
        let spec = LogSpec {
            name: ServiceName::new("s6-log").map_err(io::Error::other)?,
            home: std::fs::canonicalize(path)?,
            dir: PathBuf::new(),
            max_size,
            keep,
            to_container: false,
            dress: Dress::Plain,
            overflow: Overflow::Block,
            owner: Credentials::own(),
            readers: None,
            writer: Credentials::own(),
        };
        let mut file = LogFile::new(spec, Arc::new(Shared::default()));
        let warning = file.prepare(&mut None);
        Ok((Self { file, stamp: Stamp::default() }, warning))
    }

    /// Writes whole lines, heads and all; a warning when one is due.
    pub fn write(&mut self, lines: &[u8]) -> Option<String> {
        self.file.write(lines, 0, &mut self.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::stamp::TIME_LEN;
    use crate::log::{Query, Reader};
    use crate::sys::localtime::Zone;

    #[test]
    fn what_is_written_here_is_read_as_a_services_log_across_rotations() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("logs/coder");
        let (mut dir, warning) = LogDir::open(&path, 400, 3).unwrap();
        assert_eq!(warning, None);
        // Another logger's lock is none of our business.
        std::fs::write(path.join("lock"), "").unwrap();
        let mut clock = Clock::default();
        for number in 0..60 {
            let mut line = Vec::new();
            clock.head(&mut line, Times { local: true, tai64n: false });
            line.extend_from_slice(format!("line {number}\n").as_bytes());
            assert_eq!(dir.write(&line), None);
        }
        let dirs = ["logs/coder".into()];
        let mut reader =
            Reader::open(home.path(), &dirs, Query::default(), Zone::own(), &mut |_, why| panic!("{why:?}"))
                .unwrap();
        let mut lines = Vec::new();
        reader
            .read(false, &mut |line| {
                assert_eq!(line.time.len(), TIME_LEN);
                lines.push(String::from_utf8(line.text.to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
        assert_eq!(lines.last().unwrap(), "line 59");
        let archives = std::fs::read_dir(&path).unwrap().flatten();
        let archives = archives.filter(|entry| entry.file_name().to_string_lossy().starts_with('@'));
        assert_eq!(archives.count(), 3, "as many as are kept");
        let first: usize = lines[0].strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(lines.len(), 60 - first, "none is missing between the oldest kept and the newest");
    }

    #[test]
    fn both_heads_stand_in_the_order_of_s6() {
        let mut head = Vec::new();
        Clock::default().head(&mut head, Times { tai64n: true, local: true });
        let head = String::from_utf8(head).unwrap();
        assert!(Label::parse(&head[..25]).is_some(), "{head}");
        assert_eq!((&head[25..26], head.len()), (" ", 26 + TIME_LEN + 2));
        let mut none = Vec::new();
        Clock::default().head(&mut none, Times::default());
        assert!(none.is_empty());
    }
}
