//! One service's `current`: opening, writing, rotating, and what was left out.
//!
//! Invariants: a file ends and an archive begins between two lines; a line that was begun and cannot be ended (disk
//! full, an earlier death) gets its newline before the next one; every line left out is counted, and said where it is
//! missing; whatever is touched is touched with the owner's credentials, beneath `home`, without following links.

use super::rotate::{CURRENT, rotate, set_aside};
use super::split::{Gate, is_open};
use super::stamp::Stamp;
use super::{LogSpec, Shared, lock};
use crate::core::words::Stream;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use memchr::{memchr, memrchr};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

const DIR_MODE: u32 = 0o750;
/// Of the directories above: a service's user may pass to its own.
const PARENT_MODE: u32 = 0o751;
const FILE_MODE: u32 = 0o640;
/// At most one warning a service in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// At a write, a look whether the file has been moved away is at least this long after the one before.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The way to the directory that the directories of many services lie in, gone once for all that are made in one go. To
/// be dropped then: somebody may put another one there.
#[derive(Debug)]
pub(super) struct Way {
    home: PathBuf,
    parent: PathBuf,
    owner: Credentials,
    dir: Beneath,
}

impl Way {
    fn walk(spec: &LogSpec, parent: &Path) -> io::Result<Self> {
        Ok(Self {
            home: spec.home.clone(),
            parent: parent.to_owned(),
            owner: spec.owner.clone(),
            dir: Beneath::open(&spec.home)?.create_dirs(parent, PARENT_MODE)?,
        })
    }

    /// Where it leads is where this service's directory lies, and its owner may go there.
    fn leads(&self, spec: &LogSpec, parent: &Path) -> bool {
        self.home == spec.home && self.parent == parent && self.owner == spec.owner
    }
}

#[derive(Debug)]
pub(super) struct LogFile {
    spec: LogSpec,
    shared: Arc<Shared>,
    file: Option<File>,
    /// The last byte written was not a newline.
    within_line: bool,
    /// The line that the file ends with will not be continued.
    torn: bool,
    gate: Gate,
    /// Lines left out since the last notice.
    lost: u64,
    /// After a rotation that failed: the size at which to try again.
    postponed: u64,
    warned: Option<Instant>,
    /// When the file was last known to have its name.
    seen: Option<Instant>,
}

impl LogFile {
    pub(super) fn new(spec: LogSpec, shared: Arc<Shared>) -> Self {
        Self {
            spec,
            shared,
            file: None,
            within_line: false,
            torn: false,
            gate: Gate::default(),
            lost: 0,
            postponed: 0,
            warned: None,
            seen: None,
        }
    }

    /// Takes over where `old` was, with its own spec.
    pub(super) fn succeed(&mut self, old: Self) {
        let spec = self.spec.clone();
        *self = Self { spec, file: None, ..old };
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Gives the descriptor back; the next write opens the file again.
    pub(super) fn rest(&mut self) {
        self.file = None;
    }

    /// Makes directory and file, so that they can be read and watched before the first line.
    pub(super) fn prepare(&mut self, way: &mut Option<Way>) -> Option<String> {
        // What has been written to is there.
        if self.file.is_some() {
            return None;
        }
        let made = self.open(way).map(drop);
        self.report(made)
    }

    /// Writes formatted lines; `lost` more were left out before them. Answers with a warning that is due.
    pub(super) fn write(&mut self, bytes: &[u8], lost: u64, stamp: &mut Stamp) -> Option<String> {
        self.lost += lost;
        let (bytes, skipped) = self.gate.admit(bytes);
        self.lose(skipped);
        if bytes.is_empty() {
            return None;
        }
        let mut done = 0;
        let written = self.put(bytes, &mut done, stamp);
        if let Err(error) = &written {
            let lost = self.gate.refuse(bytes.get(done..).unwrap_or_default());
            self.lose(lost);
            // A full disk does not change which file it is; after anything else look at the path again.
            if !matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT)) {
                self.rest();
            }
        }
        self.report(written)
    }

    fn put(&mut self, bytes: &[u8], done: &mut usize, stamp: &mut Stamp) -> io::Result<()> {
        let mut size = self.ready()?;
        let mut postponed = Ok(());
        // Between a rotation and the next write there is no other: neither a rotation that fails nor a hostile owner
        // who puts full files in the way can hold us here.
        let mut rotated = false;
        // A full file gets nothing more, not even the newline that is missing: what somebody made as large as a file can be
        // takes no byte.
        if size > 0 && size >= self.spec.max_size.max(self.postponed) && (self.torn || !self.within_line) {
            rotated = true;
            (size, postponed) = self.next_file(size)?;
        }
        if self.torn {
            size += self.append(b"\n", &mut 0)?;
            self.torn = false;
        }
        if self.lost > 0 && !self.within_line {
            let mut notice = stamp.now(Stream::Err).to_vec();
            notice.extend_from_slice(format!("hermes-sup: lines dropped here: {}\n", self.lost).as_bytes());
            size += self.append(&notice, &mut 0)?;
            self.lost = 0;
        }
        while let Some(rest) = bytes.get(*done..).filter(|rest| !rest.is_empty()) {
            let room = self.spec.max_size.max(self.postponed).saturating_sub(size);
            match part(rest, room, rotated || size == 0 || self.within_line) {
                0 => {
                    rotated = true;
                    (size, postponed) = self.next_file(size)?;
                }
                count => {
                    rotated = false;
                    size += self.append(&rest[..count], done)?;
                }
            }
        }
        postponed
    }

    /// Rotates the file, which has `size` bytes: how many the one has that is written to now, and why it is the same.
    fn next_file(&mut self, size: u64) -> io::Result<(u64, io::Result<()>)> {
        // A rotation goes by the path, so what is there must be the file that is full: this one may have been moved away.
        self.seen = None;
        let in_place = self.ready()?;
        if in_place < size {
            return Ok((in_place, Ok(())));
        }
        if let Err(error) = self.rotate() {
            self.postponed = size.saturating_add(self.spec.max_size);
            return Ok((size, Err(error)));
        }
        if self.torn {
            (self.torn, self.within_line) = (false, false);
        }
        Ok((self.ready()?, Ok(())))
    }

    /// Writes all of `bytes`, counting in `done`; answers with their number.
    fn append(&mut self, bytes: &[u8], done: &mut usize) -> io::Result<u64> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = match rustix::io::write(file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    self.torn = self.within_line;
                    return Err(error.into());
                }
            };
            let (written, after) = rest.split_at(count);
            self.within_line = is_open(written);
            *done += count;
            rest = after;
        }
        Ok(bytes.len() as u64)
    }

    /// The file is open and in its place: its size.
    fn ready(&mut self) -> io::Result<u64> {
        if let Some(file) = &self.file {
            let status = rustix::fs::fstat(file)?;
            if status.st_nlink > 0 && self.is_in_place(&status) {
                return Ok(u64::try_from(status.st_size).unwrap_or(0));
            }
        }
        self.file = None;
        self.seen = Some(Instant::now());
        let file = self.open(&mut None)?;
        let size = file.metadata()?.size();
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        // A line that we know to be open is ours and goes on; any other is what an earlier life or a hand left.
        self.torn |= last != *b"\n" && !self.within_line;
        self.within_line = last != *b"\n";
        self.torn &= self.within_line;
        self.file = Some(file);
        Ok(size)
    }

    /// Whether the open file still has its name: somebody may have moved it away, or a directory above it. Looked at now and
    /// then only.
    fn is_in_place(&mut self, open: &Stat) -> bool {
        let now = Instant::now();
        if self.seen.is_some_and(|seen| now.duration_since(seen) < LOOK_EVERY) {
            return true;
        }
        self.seen = Some(now);
        let spec = &self.spec;
        let named = spec.owner.on_files(|| -> io::Result<Stat> {
            let dir = Beneath::open(&spec.home)?.dir(&spec.dir)?;
            Ok(rustix::fs::statat(&dir, CURRENT, AtFlags::SYMLINK_NOFOLLOW)?)
        });
        match named {
            Ok(Ok(named)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
            Ok(Err(error)) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
            Err(_) => true,
        }
    }

    /// Opens the file, which with its directory is made if it is not there.
    fn open(&self, way: &mut Option<Way>) -> io::Result<File> {
        let spec = &self.spec;
        if let Some(parent) = spec.dir.parent()
            && !way.as_ref().is_some_and(|way| way.leads(spec, parent))
        {
            // What lies above belongs to the owner's group.
            *way = Some(spec.owner.on_files(|| Way::walk(spec, parent))??);
        }
        spec.file_credentials().on_files(|| {
            let dir = match (&way, spec.dir.file_name()) {
                (Some(way), Some(name)) => way.dir.create_dirs(Path::new(name), DIR_MODE)?,
                (None, _) | (_, None) => Beneath::open(&spec.home)?,
            };
            let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
            let open = || dir.open_file(Path::new(CURRENT), flags, FILE_MODE);
            let file = match open() {
                Err(error) if is_no_file(&dir) => {
                    set_aside(&dir, SystemTime::now()).map_err(|_| error)?;
                    open()?
                }
                opened => opened?,
            };
            if let Some(group) = spec.readers {
                let group = rustix::fs::Gid::from_raw(group);
                // Made before the service had this user. Where we may not, it stays as it is.
                for made in [dir.as_fd(), file.as_fd()] {
                    if rustix::fs::fstat(made)?.st_gid != group.as_raw() {
                        let _ = rustix::fs::fchown(made, None, Some(group));
                    }
                }
            }
            Ok(file)
        })?
    }

    fn rotate(&mut self) -> io::Result<()> {
        let spec = &self.spec;
        spec.owner.on_files(|| {
            let dir = Beneath::open(&spec.home)?.dir(&spec.dir)?;
            rotate(&dir, spec.keep, SystemTime::now())
        })??;
        self.file = None;
        self.postponed = 0;
        Ok(())
    }

    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        self.shared.dropped_from_file.fetch_add(lines, Ordering::Relaxed);
    }

    /// Notes how it went for `status`; the text of a warning when one is due.
    fn report(&mut self, result: io::Result<()>) -> Option<String> {
        let error = result.err().map(|error| error.to_string());
        let mut known = lock(&self.shared.file_error);
        if *known == error {
            return None;
        }
        known.clone_from(&error);
        drop(known);
        let error = error?;
        let now = Instant::now();
        if self.warned.is_some_and(|at| now.duration_since(at) < WARN_EVERY) {
            return None;
        }
        self.warned = Some(now);
        let path = self.spec.home.join(&self.spec.dir).join(CURRENT);
        Some(format!(
            "cannot write the log of '{}' to {}: {error}: what it cannot hold is dropped and counted until this is mended",
            self.spec.name,
            path.display()
        ))
    }
}

/// Something else than a file has the name of the log: a directory, a link, a FIFO.
fn is_no_file(dir: &Beneath) -> bool {
    rustix::fs::statat(dir, CURRENT, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile)
}

/// How many bytes of `rest` go into a file with `room` left: whole lines; 0 when it must be rotated first, which a
/// file that is empty or ends within a line is not.
fn part(rest: &[u8], room: u64, keep: bool) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let Some(fits) = rest.get(..room).filter(|_| room < rest.len()) else { return rest.len() };
    match memrchr(b'\n', fits) {
        Some(at) => at + 1,
        None if keep => memchr(b'\n', rest).map_or(rest.len(), |at| at + 1),
        None => 0,
    }
}
