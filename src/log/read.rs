//! Reading logs back, for `ctl logs`: `current` and the archives of some services, in time order, across rotations.
//!
//! For the client process: it may wait. Both streams of a service are in one file and so in order already; services are
//! merged by the local time in their lines (in the hour that repeats when daylight saving ends, their order is a guess).
//! Files are opened beneath the home directory without following links, with the caller's own rights. Where the way to them is
//! closed to the caller, open files can be handed in ([`Reader::hand`]).
//!
//! Invariants: memory does not depend on how long a line, a file or a directory is (lines come in pieces, holes are
//! skipped, one file of a service is open at a time beside `current`); what is no regular file is not there.

use super::rotate::{CURRENT, archives, label_of};
use super::stamp::{HEAD_LEN, Stamp, TIME_LEN};
use super::tai64n::Label;
use crate::core::line::Line;
use crate::core::words::Stream;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::localtime::Zone;
use memchr::{memchr, memrchr};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::fs::{Access, AtFlags, FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of a line that are handed over at a time, and of a file that are read at a time.
const PIECE: usize = 64 * 1024;
/// Parts of a sparse file that are told apart. What lies beyond is read, holes and all.
const MOST_EXTENTS: usize = 4096;

/// Which lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query {
    /// Of each service, the last so many that fit the rest of the query.
    pub last: Option<usize>,
    /// For `last`, bytes of each service that are looked at: what is further from the end is left out.
    pub within: Option<u64>,
    /// Lines written at or after this moment.
    pub since: Option<SystemTime>,
    /// Lines written at or before this moment.
    pub until: Option<SystemTime>,
    pub stream: Option<Stream>,
}

/// Why there is nothing to read of a service, with errors as of open(2).
pub type Absent = crate::core::line::Absent<io::Error>;

/// Where the reading of some services' logs stands.
#[derive(Debug)]
pub struct Reader {
    /// `None`: it is closed to us.
    home: Option<Beneath>,
    /// The directories as they were given.
    dirs: Vec<PathBuf>,
    /// Services without a log directory.
    missing: Vec<usize>,
    logs: Vec<Log>,
    filter: Filter,
    last: Option<usize>,
    within: Option<u64>,
}

type Take<'a> = dyn FnMut(Line<'_>) -> io::Result<()> + 'a;

/// Reads logs: root without CAP_DAC_OVERRIDE, in front of a home or a log that only its owner may enter, with the owner's
/// credentials.
///
/// # Errors
/// Those of `work`; as stat(2) of the home.
pub fn with_access<T>(home: &Path, dirs: &[PathBuf], work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let closed = |dir: &Path| {
        rustix::fs::access(dir, Access::READ_OK | Access::EXEC_OK) == Err(rustix::io::Errno::ACCESS)
    };
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !dirs.iter().map(PathBuf::as_path).chain([home]).any(closed) {
        return work();
    }
    let stat = rustix::fs::stat(home)?;
    Credentials { uid: stat.st_uid, gid: stat.st_gid, groups: vec![stat.st_gid] }.on_files(work)?
}

impl Reader {
    /// Finds the files of the services whose log directories, relative to `home`, these are. `zone`: where their writer's
    /// clock hangs. Of which of them there is
    /// nothing, and why, goes to `absent`; the others are read.
    ///
    /// # Errors
    /// As open(2) for `home`.
    pub fn open(
        home: &Path,
        dirs: &[PathBuf],
        query: Query,
        zone: &Zone,
        absent: &mut dyn FnMut(usize, Absent),
    ) -> io::Result<Self> {
        let home = match Beneath::open_to_pass(home) {
            Ok(home) => Some(home),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(error),
        };
        let (mut logs, mut missing) = (Vec::new(), Vec::new());
        for (source, dir) in dirs.iter().enumerate() {
            match below(home.as_ref(), dir).and_then(|dir| Log::open(source, dir, query.since)) {
                Ok(log) => {
                    if !log.has_content {
                        absent(source, Absent::Empty);
                    }
                    logs.push(log);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push(source);
                    absent(source, Absent::NoLog);
                }
                Err(error) => absent(source, Absent::Unreadable(error)),
            }
        }
        let Query { last, within, since, until, stream } = query;
        let head = |time| head_time(time, zone);
        let filter = Filter { since: since.map(head), until: until.map(head), stream };
        Ok(Self { home, dirs: dirs.to_owned(), missing, logs, filter, last, within })
    }

    /// Reads these files of a service, oldest first, as [`open_newest`] gives them to somebody else. `false`: there is nothing
    /// in them.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn hand(&mut self, source: usize, files: Vec<Handed>) -> io::Result<bool> {
        let mut log = Log::new(source, None);
        log.take_handed(files)?;
        let has_content = log.has_content;
        self.logs.push(log);
        Ok(has_content)
    }

    /// Hands over what is there. A last line without its newline is a line too, unless it is going to be followed.
    ///
    /// # Errors
    /// As read(2); what `take` answers ends the reading.
    pub fn read(&mut self, follow: bool, take: &mut Take<'_>) -> io::Result<()> {
        if let Some(last) = self.last.take() {
            for log in &mut self.logs {
                log.skip_to_last(last, self.within, &self.filter)?;
            }
        }
        let mut ready = Vec::new();
        for log in &mut self.logs {
            ready.push(log.advance(&self.filter, !follow)?);
        }
        loop {
            // The first of the smallest: lines of one moment stay in the order of the services.
            let candidates =
                self.logs.iter().enumerate().filter(|(index, _)| ready.get(*index) == Some(&true));
            let Some((index, _)) = candidates.min_by(|(_, a), (_, b)| a.time.cmp(&b.time)) else {
                return Ok(());
            };
            if let (Some(log), Some(ready)) = (self.logs.get_mut(index), ready.get_mut(index)) {
                loop {
                    take(log.piece())?;
                    let ends = log.ends;
                    *ready = log.advance(&self.filter, !follow)?;
                    // The rest of a long line comes before anything else.
                    if ends || !*ready {
                        break;
                    }
                }
            }
        }
    }

    /// Hands over what comes, also of services that have no log yet or lose theirs, until `take` answers with an error or the other side of `end` hangs up:
    /// give it the stdout that `take` writes to, whose reader may go away while nothing is to be written.
    ///
    /// # Errors
    /// `again`: the files of a service that were handed in, as they are now.
    ///
    /// # Errors
    /// As inotify_add_watch(2) and read(2); what `take` answers.
    pub fn follow(
        &mut self,
        end: Option<BorrowedFd<'_>>,
        again: &mut dyn FnMut(usize) -> Vec<Handed>,
        take: &mut Take<'_>,
    ) -> io::Result<()> {
        let mut watch = Watch::new()?;
        for (index, log) in self.logs.iter().enumerate() {
            let Some(dir) = &log.dir else {
                watch.add_handed(log, index);
                continue;
            };
            watch.add(dir, index)?;
            // That it is removed is not told of what is held open. A caller that may not look there does without.
            let way = self.dirs.get(log.source).and_then(|dir| dir.parent());
            let _ = way.map(|way| below(self.home.as_ref(), way).and_then(|way| watch.add_way(&way)));
        }
        // The watch is there before the look: nothing can come between them unseen.
        let all: Vec<usize> = (0..self.logs.len()).collect();
        let mut news = News { changed: all.clone(), moved: all, way: true };
        loop {
            for index in news.moved {
                let Some(log) = self.logs.get_mut(index).filter(|log| log.dir.is_none()) else { continue };
                log.take_handed(again(log.source))?;
                watch.add_handed(log, index);
            }
            for index in news.changed {
                self.take_new(index, take)?;
            }
            if news.way {
                for index in self.find_missing(&mut watch)? {
                    self.take_new(index, take)?;
                }
            }
            match watch.wait(end, self.logs.len())? {
                Some(more) => news = more,
                None => return Ok(()),
            }
        }
    }

    fn take_new(&mut self, index: usize, take: &mut Take<'_>) -> io::Result<()> {
        let Some(log) = self.logs.get_mut(index) else { return Ok(()) };
        loop {
            while log.advance(&self.filter, false)? {
                take(log.piece())?;
            }
            if !log.find_newer()? {
                return Ok(());
            }
        }
    }

    /// Takes up the logs that are there by now, or that are others by now; of those that are not what lies on the way to them
    /// is watched. Returns which are new.
    fn find_missing(&mut self, watch: &mut Watch) -> io::Result<Vec<usize>> {
        let mut found = Vec::new();
        let is_another = |log: &&Log| {
            let now = self.dirs.get(log.source).and_then(|path| below(self.home.as_ref(), path).ok());
            log.dir.as_ref().is_some_and(|dir| !now.is_some_and(|now| is_same(&now, dir)))
        };
        let replaced: Vec<usize> = self.logs.iter().filter(is_another).map(|log| log.source).collect();
        self.missing.extend(replaced);
        self.missing.sort_unstable();
        self.missing.dedup();
        for source in std::mem::take(&mut self.missing) {
            let Some(path) = self.dirs.get(source) else { continue };
            let mut watched = None;
            let log = loop {
                let opened = below(self.home.as_ref(), path).and_then(|dir| Log::open(source, dir, None));
                if let Ok(log) = opened {
                    break Some(log);
                }
                // As far as the way is there; once more, because it may have become longer before it was watched.
                let nearest = path
                    .ancestors()
                    .skip(1)
                    .find_map(|above| Some((below(self.home.as_ref(), above).ok()?, above)));
                match nearest {
                    Some((dir, above)) if watched != Some(above) => {
                        watch.add_way(&dir)?;
                        watched = Some(above);
                    }
                    Some(_) | None => break None,
                }
            };
            match log {
                Some(log) => {
                    let index = self.logs.iter().position(|old| old.source == source);
                    let index = index.unwrap_or(self.logs.len());
                    if let Some(dir) = &log.dir {
                        watch.add(dir, index)?;
                    }
                    found.push(index);
                    match self.logs.get_mut(index) {
                        Some(old) => *old = log,
                        None => self.logs.push(log),
                    }
                }
                None => self.missing.push(source),
            }
        }
        Ok(found)
    }
}

/// An open log file with its name.
pub type Handed = (String, OwnedFd);

/// The newest log files of a service, oldest first, open for somebody who may read them and cannot get to them: at most `most`
/// archives, and `current`.
///
/// # Errors
/// As open(2) and getdents64(2).
pub fn open_newest(home: &Path, dir: &Path, most: usize) -> io::Result<Vec<Handed>> {
    let dir = Beneath::open_to_pass(home)?.dir(dir)?;
    // First: what becomes an archive meanwhile is found again among those.
    let current = open(&dir, CURRENT)?;
    // Twice, for the reason that is said in `Log::look`.
    let now = SystemTime::now();
    let newest = archives(&dir, now)?.pop().map(|(label, _)| label);
    let mut names = archives(&dir, now)?;
    names.retain(|(label, _)| Some(*label) <= newest);
    let mut files = Vec::new();
    for (_, name) in names.iter().skip(names.len().saturating_sub(most)) {
        let is_current =
            |contents: &Contents| current.as_ref().is_some_and(|current| current.id == contents.id);
        let archive = open(&dir, name)?.filter(|contents| !is_current(contents));
        files.extend(archive.map(|contents| (name.clone(), contents.file.into())));
    }
    files.extend(current.map(|contents| (CURRENT.to_owned(), contents.file.into())));
    Ok(files)
}

/// A directory below a home that may be closed to us.
fn below(home: Option<&Beneath>, path: &Path) -> io::Result<Beneath> {
    home.ok_or(io::ErrorKind::PermissionDenied)?.dir(path)
}

/// A moment as it stands in the heads of lines.
fn head_time(time: SystemTime, zone: &Zone) -> Vec<u8> {
    Stamp::of(zone.clone()).at(time, Stream::Out).get(..TIME_LEN).unwrap_or_default().to_vec()
}

#[derive(Debug)]
struct Filter {
    since: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
    stream: Option<Stream>,
}

impl Filter {
    fn admits(&self, time: &[u8], stream: Stream) -> bool {
        self.since.as_ref().is_none_or(|since| time >= since.as_slice())
            && self.until.as_ref().is_none_or(|until| time <= until.as_slice())
            && self.stream.is_none_or(|wanted| wanted == stream)
    }

    fn admits_all(&self) -> bool {
        self.since.is_none() && self.until.is_none() && self.stream.is_none()
    }
}

/// Device and inode.
type Id = (u64, u64);

/// A file that is still to be read. Archives are opened when it is their turn, for there may be many; `current` at once, for
/// it may be renamed.
#[derive(Debug)]
enum Pending {
    Archive(String),
    Open(Contents),
}

/// One service's files, and the piece of a line under the hand.
#[derive(Debug)]
struct Log {
    source: usize,
    /// `None`: its files were handed in, and are all open.
    dir: Option<Beneath>,
    /// Oldest first; the one being read is in front.
    files: VecDeque<Pending>,
    /// The newest archive that is known.
    newest: Option<Label>,
    /// Of `current` as it was opened last.
    current: Option<Id>,
    has_content: bool,
    piece: Vec<u8>,
    begins: bool,
    ends: bool,
    /// Of the line that the piece is of, or of the last line that had one.
    time: Vec<u8>,
    stream: Stream,
    /// Where in `piece` the text begins.
    text: usize,
    /// The line is not one of those that are wanted.
    refused: bool,
}

impl Log {
    fn new(source: usize, dir: Option<Beneath>) -> Self {
        Self {
            source,
            dir,
            files: VecDeque::new(),
            newest: None,
            current: None,
            has_content: false,
            piece: Vec::new(),
            begins: true,
            ends: true,
            time: Vec::new(),
            stream: Stream::Out,
            text: 0,
            refused: false,
        }
    }

    fn open(source: usize, dir: Beneath, since: Option<SystemTime>) -> io::Result<Self> {
        let others = |dir: &Beneath| Ok::<_, io::Error>(!archives(dir, SystemTime::now())?.is_empty());
        let mut log = Self::new(source, Some(dir));
        // An archive's label is the moment it was ended: all that is in it is older.
        log.look(since.map(Label::of))?;
        let first = log.files.iter().any(|file| match file {
            Pending::Archive(_) => true,
            Pending::Open(contents) => contents.file.metadata().is_ok_and(|data| data.size() > 0),
        });
        log.has_content =
            first || since.is_some() && log.dir.as_ref().map(others).transpose()?.unwrap_or_default();
        Ok(log)
    }

    /// Takes the files that are new among those that were handed in.
    fn take_handed(&mut self, files: Vec<Handed>) -> io::Result<()> {
        for (name, file) in files {
            let stat = rustix::fs::fstat(&file)?;
            let label = label_of(&name);
            let is_known = Some((stat.st_dev, stat.st_ino)) == self.current
                || label.is_some_and(|label| self.newest.is_some_and(|newest| label <= newest));
            self.newest = self.newest.max(label);
            if is_known {
                continue;
            }
            self.has_content |= stat.st_size > 0;
            let contents = Contents::new(File::from(file), &stat);
            if label.is_none() {
                self.current = Some(contents.id);
            }
            self.files.push_back(Pending::Open(contents));
        }
        Ok(())
    }

    fn piece(&self) -> Line<'_> {
        let text = self.piece.get(self.text..).unwrap_or_default();
        let time = std::str::from_utf8(&self.time).unwrap_or_default();
        let Self { source, stream, begins, ends, .. } = *self;
        Line { source, time, stream, text, begins, ends }
    }

    /// Goes to the next piece of a line that the filter admits; false when there is none. A last line without its newline
    /// counts if `torn` says so; otherwise it stays until its rest comes.
    fn advance(&mut self, filter: &Filter, torn: bool) -> io::Result<bool> {
        while self.next(torn)? {
            if self.begins {
                self.parse();
                self.refused = !filter.admits(&self.time, self.stream);
            } else {
                self.text = 0;
            }
            if !self.refused {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next(&mut self, torn: bool) -> io::Result<bool> {
        loop {
            let is_last = self.files.len() == 1;
            let Some(contents) = open_first(self.dir.as_ref(), &mut self.files)? else { return Ok(false) };
            let (begins, at_end) = (self.ends, torn || !is_last);
            match contents.piece(&mut self.piece, at_end, !begins)? {
                Some(ends) => {
                    (self.begins, self.ends) = (begins, ends);
                    return Ok(true);
                }
                None if is_last => return Ok(false),
                None => {
                    if Some(contents.id) == self.current {
                        self.current = None;
                    }
                    self.files.pop_front();
                }
            }
        }
    }

    fn parse(&mut self) {
        match split_head(&self.piece) {
            Some((time, stream)) => {
                self.time.clear();
                self.time.extend_from_slice(time);
                (self.stream, self.text) = (stream, HEAD_LEN);
            }
            None => (self.stream, self.text) = (Stream::Out, 0),
        }
    }

    /// Moves to the line that has `last - 1` others after it.
    fn skip_to_last(&mut self, last: usize, within: Option<u64>, filter: &Filter) -> io::Result<()> {
        let (mut wanted, mut within) = (last, within.unwrap_or(u64::MAX));
        for index in (0..self.files.len()).rev() {
            let Some(file) = self.files.get_mut(index) else { break };
            let mut opened = None;
            let contents = match file {
                Pending::Open(contents) => contents,
                Pending::Archive(name) => match self.dir.as_ref().map(|dir| open(dir, name)).transpose()? {
                    Some(Some(contents)) => opened.insert(contents),
                    Some(None) | None => continue,
                },
            };
            let (start, found) = contents.find_last(wanted, &mut within, filter)?;
            wanted -= found.min(wanted);
            if wanted == 0 || within == 0 {
                contents.go_to(start);
                if let Some(contents) = opened {
                    *file = Pending::Open(contents);
                }
                self.files.drain(..index);
                break;
            }
        }
        Ok(())
    }

    /// Files that came since; true when there are any.
    fn find_newer(&mut self) -> io::Result<bool> {
        let before = self.files.len();
        self.look(self.newest)?;
        Ok(self.files.len() > before)
    }

    /// Finds the archives later than `after`, and opens `current`, as far as they are not being read already.
    fn look(&mut self, after: Option<Label>) -> io::Result<()> {
        // So often somebody may rotate while we look.
        const TRIES: usize = 10;
        let Some(dir) = &self.dir else { return Ok(()) };
        for turn in 1..=TRIES {
            let now = SystemTime::now();
            let newest = |names: &[(Label, String)]| names.last().map(|(label, _)| *label);
            let before = newest(&archives(dir, now)?);
            let current = open(dir, CURRENT)?.filter(|contents| Some(contents.id) != self.current);
            // The list that counts is the second: one reading of a directory may have a new name and miss one that came just before
            // it. What is older than the newest of the first had its name before the second began.
            let names = archives(dir, now)?;
            let newest = newest(&names);
            // A rotation in the middle would show a file twice or not at all: look again.
            if turn < TRIES && newest != before {
                continue;
            }
            let mut files = Vec::new();
            for (_, name) in names.into_iter().filter(|(label, _)| after.is_none_or(|after| *label > after)) {
                let is_known =
                    self.current.is_some() && status(dir, &name)?.is_some_and(|id| Some(id) == self.current);
                if !is_known {
                    files.push(Pending::Archive(name));
                }
            }
            self.newest = newest.max(self.newest);
            self.files.extend(files);
            if let Some(contents) = current {
                self.current = Some(contents.id);
                self.files.push_back(Pending::Open(contents));
            }
            break;
        }
        Ok(())
    }
}

/// The first file that there is, opened.
fn open_first<'a>(
    dir: Option<&Beneath>,
    files: &'a mut VecDeque<Pending>,
) -> io::Result<Option<&'a mut Contents>> {
    while let (Some(Pending::Archive(name)), Some(dir)) = (files.front(), dir) {
        let opened = open(dir, name)?;
        files.pop_front();
        if let Some(contents) = opened {
            files.push_front(Pending::Open(contents));
        }
    }
    Ok(match files.front_mut() {
        Some(Pending::Open(contents)) => Some(contents),
        Some(Pending::Archive(_)) | None => None,
    })
}

/// `None`: pruned, between two files, or no file that lines are written to.
fn open(dir: &Beneath, name: &str) -> io::Result<Option<Contents>> {
    match dir.open_known_file(Path::new(name), OFlags::RDONLY, 0) {
        Ok((file, stat)) => Ok(Some(Contents::new(file, &stat))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) if status(dir, name)?.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same(a: &Beneath, b: &Beneath) -> bool {
    let id = |dir: &Beneath| rustix::fs::fstat(dir).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    id(a).is_some_and(|one| Some(one) == id(b))
}

/// Device and inode of a regular file; `None` for anything else.
fn status(dir: &Beneath, name: &str) -> io::Result<Option<Id>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            Ok(Some((stat.st_dev, stat.st_ino)))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A file, read in pieces of lines. Holes are not read: an owner who makes a file of terabytes without a byte in it makes
/// nobody wait.
#[derive(Debug)]
struct Contents {
    file: File,
    id: Id,
    /// Where the next read begins.
    position: u64,
    buffer: Vec<u8>,
    /// Up to here the buffer has been handed over.
    done: usize,
    /// It has holes: the zeros beside them are nobody's.
    is_sparse: bool,
}

impl Contents {
    fn new(file: File, stat: &Stat) -> Self {
        let is_sparse = is_sparse(stat.st_blocks.into(), stat.st_size.into());
        let id = (stat.st_dev, stat.st_ino);
        Self { file, id, position: 0, buffer: Vec::new(), done: 0, is_sparse }
    }

    fn go_to(&mut self, position: u64) {
        self.buffer.clear();
        (self.done, self.position) = (0, position);
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.done..).unwrap_or_default()
    }

    /// The next piece of a line, without its newline, into `piece`: whether the line ends with it. `None`: there is none now;
    /// `at_end`: there will not be more, so what is left is a line, too. `within`: the line has begun.
    fn piece(&mut self, piece: &mut Vec<u8>, at_end: bool, within: bool) -> io::Result<Option<bool>> {
        let mut searched = 0;
        loop {
            if self.is_sparse && !within {
                self.done += self.rest().iter().take_while(|byte| **byte == 0).count();
                searched = 0;
            }
            let rest = self.rest();
            let whole = rest.get(..PIECE);
            let newline = memchr(b'\n', whole.unwrap_or(rest).get(searched..).unwrap_or_default());
            let newline = newline.map(|at| searched + at);
            let (count, ends) = match (newline, whole) {
                (Some(at), _) => (at, true),
                (None, Some(whole)) => (character_boundary(whole), false),
                (None, None) => {
                    searched = rest.len();
                    if self.fill()? {
                        continue;
                    }
                    if !at_end || self.rest().is_empty() && !within {
                        return Ok(None);
                    }
                    (self.rest().len(), true)
                }
            };
            piece.clear();
            piece.extend_from_slice(self.rest().get(..count).unwrap_or_default());
            self.done += count + usize::from(newline.is_some());
            return Ok(Some(ends));
        }
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..std::mem::take(&mut self.done));
        loop {
            let had = self.buffer.len();
            self.buffer.reserve(PIECE);
            let count = rustix::io::pread(&self.file, spare_capacity(&mut self.buffer), self.position)?;
            let is_blank = count > 0 && self.buffer.iter().skip(had).all(|byte| *byte == 0);
            if count == 0 {
                // Somebody cut it.
                if self.file.metadata()?.size() < self.position {
                    self.go_to(0);
                    continue;
                }
                return Ok(false);
            }
            if is_blank && let Some(data) = self.data_after(self.position)? {
                self.buffer.truncate(had);
                self.position = data;
                continue;
            }
            self.position += count as u64;
            return Ok(true);
        }
    }

    /// Where the hole ends that is at `position`; `None` when there is none.
    fn data_after(&self, position: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(position)) {
            Ok(data) => Ok(Some(data).filter(|data| *data > position)),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => Ok(Some(self.file.metadata()?.size()).filter(|end| *end > position)),
            // A file system that does not know.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The parts of the file with something in them.
    fn extents(&self) -> io::Result<Vec<(u64, u64)>> {
        let data = self.file.metadata()?;
        let size = data.size();
        if !is_sparse(i128::from(data.blocks()), i128::from(size)) {
            return Ok(vec![(0, size)]);
        }
        let (mut extents, mut position) = (Vec::new(), 0);
        while position < size && extents.len() < MOST_EXTENTS {
            let start = self.data_after(position)?.unwrap_or(position);
            if start >= size {
                break;
            }
            let end =
                rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(size).clamp(start + 1, size);
            extents.push((start, end));
            position = end;
        }
        if extents.len() == MOST_EXTENTS
            && let Some(last) = extents.last_mut()
        {
            last.1 = size;
        }
        Ok(extents)
    }

    /// Where the last `wanted` lines begin that the filter admits, and how many there are: fewer where the file begins, or
    /// where `within` bytes have been looked at, of which is taken what was.
    fn find_last(&self, wanted: usize, within: &mut u64, filter: &Filter) -> io::Result<(u64, usize)> {
        let extents = self.extents()?;
        let size = extents.last().map_or(0, |(_, end)| *end);
        if wanted == 0 {
            return Ok((self.file.metadata()?.size(), 0));
        }
        let (mut found, mut start) = (0, size);
        // What follows the last newline is no line until there is something.
        let mut is_nothing = true;
        let longest = extents.iter().map(|(from, to)| to - from).max().unwrap_or(0);
        let mut block = vec![0; usize::try_from(longest).map_or(PIECE, |longest| longest.min(PIECE))];
        for (from, to) in extents.into_iter().rev() {
            let mut end = to;
            while end > from {
                let count = (end - from).min(PIECE as u64).min(*within);
                if count == 0 {
                    return Ok((start, found));
                }
                *within -= count;
                let begin = end - count;
                let part = block.get_mut(..usize::try_from(count).unwrap_or(PIECE)).unwrap_or_default();
                self.file.read_exact_at(part, begin)?;
                let mut rest = &*part;
                while let Some(at) = memrchr(b'\n', rest) {
                    let line = begin + at as u64 + 1;
                    let (before, after) = rest.split_at(at);
                    is_nothing &= after.iter().skip(1).all(|byte| *byte == 0);
                    rest = before;
                    if !std::mem::take(&mut is_nothing) && self.admits(line, filter)? {
                        (found, start) = (found + 1, line);
                        if found == wanted {
                            return Ok((start, found));
                        }
                    }
                }
                is_nothing &= rest.iter().all(|byte| *byte == 0);
                end = begin;
                if *within == 0 {
                    return Ok((if found == 0 { begin } else { start }, found));
                }
            }
        }
        if !is_nothing && self.admits(0, filter)? {
            found += 1;
        }
        Ok((0, found))
    }

    /// Whether the line at `position` is wanted. One that does not say its time counts as what its neighbours are.
    fn admits(&self, position: u64, filter: &Filter) -> io::Result<bool> {
        if filter.admits_all() {
            return Ok(true);
        }
        let mut head = [0; HEAD_LEN];
        let count = self.file.read_at(&mut head, position)?;
        Ok(match split_head(head.get(..count).unwrap_or_default()) {
            Some((time, stream)) => filter.admits(time, stream),
            None => filter.stream.is_none_or(|stream| stream == Stream::Out),
        })
    }
}

/// `blocks` are of 512 bytes: stat(2). A small file may lie in its inode, and have none.
fn is_sparse(blocks: i128, size: i128) -> bool {
    blocks * 512 < size && size > PIECE as i128
}

/// How many of these bytes can be handed over without cutting a character of UTF-8.
fn character_boundary(bytes: &[u8]) -> usize {
    let is_inner = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let inner = bytes.iter().rev().take(3).take_while(|byte| is_inner(byte)).count();
    match bytes.iter().rev().nth(inner) {
        // The first byte says how many there are.
        Some(first) if (first.leading_ones() as usize) > inner + 1 && first.leading_ones() <= 4 => {
            bytes.len() - inner - 1
        }
        Some(_) | None => bytes.len(),
    }
}

/// Time and stream of a line, if it begins as ours and s6-log's do.
fn split_head(line: &[u8]) -> Option<(&[u8], Stream)> {
    let (head, _) = line.split_at_checked(HEAD_LEN)?;
    let (time, mark) = head.split_at_checked(TIME_LEN)?;
    let form = b"0000-00-00 00:00:00.000000000";
    let fits =
        time.iter().zip(form).all(|(b, form)| if *form == b'0' { b.is_ascii_digit() } else { b == form });
    match mark {
        b"  " if fits => Some((time, Stream::Out)),
        b" !" if fits => Some((time, Stream::Err)),
        _ => None,
    }
}

/// An inotify(7) watch on every log directory, and on the way to those that are not there.
struct Watch {
    fd: OwnedFd,
    logs: HashMap<i32, Vec<usize>>,
    /// Logs whose files were handed in and cannot be watched: they are looked at again and again.
    unwatched: BTreeSet<usize>,
}

/// How often that is.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What a watch has told of logs, by their number.
struct News {
    changed: Vec<usize>,
    /// Their `current` may be another file by now.
    moved: Vec<usize>,
    /// Something has come or gone on the way to them.
    way: bool,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { fd, logs: HashMap::new(), unwatched: BTreeSet::new() })
    }

    fn watch(&self, dir: &Beneath, flags: inotify::WatchFlags) -> io::Result<i32> {
        Ok(inotify::add_watch(&self.fd, format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()), flags)?)
    }

    /// The directory of the log of this number.
    fn add(&mut self, dir: &Beneath, index: usize) -> io::Result<()> {
        use inotify::WatchFlags as Flags;
        let watch = self.watch(dir, Flags::MODIFY | Flags::CREATE | Flags::MOVED_TO)?;
        self.logs.entry(watch).or_default().push(index);
        Ok(())
    }

    /// The `current` of a log whose files were handed in.
    fn add_handed(&mut self, log: &Log, index: usize) {
        use inotify::WatchFlags as Flags;
        let Some(Pending::Open(contents)) = log.files.back() else {
            self.unwatched.insert(index);
            return;
        };
        let path = format!("/proc/self/fd/{}", contents.file.as_raw_fd());
        // ATTRIB: its last name is removed.
        match inotify::add_watch(&self.fd, path, Flags::MODIFY | Flags::MOVE_SELF | Flags::ATTRIB) {
            Ok(watch) => {
                self.unwatched.remove(&index);
                let logs = self.logs.entry(watch).or_default();
                if !logs.contains(&index) {
                    logs.push(index);
                }
            }
            Err(_) => drop(self.unwatched.insert(index)),
        }
    }

    /// A directory in which what leads to a log may come into being, or be opened to us.
    fn add_way(&self, dir: &Beneath) -> io::Result<()> {
        use inotify::WatchFlags as Flags;
        self.watch(dir, Flags::CREATE | Flags::MOVED_TO | Flags::ATTRIB).map(drop)
    }

    /// Waits for changes of `count` logs; `None` at the end.
    fn wait(&self, end: Option<BorrowedFd<'_>>, count: usize) -> io::Result<Option<News>> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)];
        fds.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::empty())));
        match poll(&mut fds, (!self.unwatched.is_empty()).then_some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.get(1).is_some_and(|end| !end.revents().is_empty()) {
            return Ok(None);
        }
        let mut changed: Vec<usize> = self.unwatched.iter().copied().collect();
        let (mut moved, mut way) = (changed.clone(), false);
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.fd, &mut space);
        loop {
            match events.next() {
                Ok(event) => match self.logs.get(&event.wd()) {
                    Some(indices) => {
                        changed.extend_from_slice(indices);
                        if event
                            .events()
                            .intersects(inotify::ReadFlags::MOVE_SELF | inotify::ReadFlags::ATTRIB)
                        {
                            moved.extend_from_slice(indices);
                        }
                    }
                    // Something on the way to a log; or the queue overflowed, and any of them may have changed.
                    None => {
                        way = true;
                        changed.extend(0..count);
                    }
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        for indices in [&mut changed, &mut moved] {
            indices.sort_unstable();
            indices.dedup();
        }
        Ok(Some(News { changed, moved, way }))
    }
}
