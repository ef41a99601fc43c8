//! Reading logs back, for `ctl logs`: `current` and the archives of some services, in time order, across rotations.
//!
//! For the client process: it may wait. Both streams of a service are in one file and so in order already; services are
//! merged by the local time in their lines (in the hour that repeats when daylight saving ends, their order is a guess).
//! Files are opened beneath the home directory without following links, with the caller's own rights. Where the way to them is
//! closed to the caller, open files can be handed in ([`Reader::hand`]).
//!
//! Invariants: memory does not depend on how long a line, a file or a directory is (lines come in pieces, holes are
//! skipped, one file of a service is open at a time beside `current`); what is no regular file is not there.

mod contents;
mod lines;
mod service;
mod watch;

use super::rotate::{CURRENT, archives};
use crate::core::line::Line;
use crate::core::words::Stream;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::localtime::Zone;
use contents::Contents;
use lines::{Filter, head_time};
use rustix::fs::Access;
use service::{Log, open};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use watch::{News, Watch};

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
    Credentials { uid: stat.st_uid, gid: stat.st_gid, groups: [stat.st_gid].into() }.on_files(work)?
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

fn is_same(a: &Beneath, b: &Beneath) -> bool {
    let id = |dir: &Beneath| rustix::fs::fstat(dir).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    id(a).is_some_and(|one| Some(one) == id(b))
}
