//! Reading logs back, for `ctl logs`: `current` and the archives of some services, in time order, across rotations.
//!
//! For the client process: it may wait. Both streams of a service are in one file and so in order already; services are
//! merged by the local time in their lines (in the hour that repeats when daylight saving ends, their order is a guess).
//! Files are opened beneath the home directory without following links, with the caller's own rights.

use super::Kind;
use super::rotate::{CURRENT, archives};
use super::stamp::{HEAD_LEN, Stamp, TIME_LEN};
use super::tai64n::Label;
use crate::sys::beneath::Beneath;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::fs::inotify;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Which lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query {
    /// Of each service, the last so many that fit the rest of the query.
    pub last: Option<usize>,
    /// Lines written at or after this moment.
    pub since: Option<SystemTime>,
    pub stream: Option<Kind>,
}

/// One line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which of the services given to [`Reader::open`].
    pub source: usize,
    /// Local time, `YYYY-MM-DD HH:MM:SS.nnnnnnnnn`; empty when the file does not say.
    pub time: &'a str,
    pub stream: Kind,
    /// Without the newline.
    pub text: &'a [u8],
}

/// Where the reading of some services' logs stands.
#[derive(Debug)]
pub struct Reader {
    logs: Vec<Log>,
    filter: Filter,
    last: Option<usize>,
}

type Take<'a> = dyn FnMut(Line<'_>) -> io::Result<()> + 'a;

impl Reader {
    /// Finds the files of the services whose log directories, relative to `home`, these are.
    ///
    /// # Errors
    /// As open(2) for a directory or file; `NotFound` for a service that has no log yet.
    pub fn open(home: &Path, dirs: &[PathBuf], query: Query) -> io::Result<Self> {
        let home = Beneath::open(home)?;
        let since = query.since.map(|since| {
            let head = Stamp::default().at(since, Kind::Out);
            head.get(..TIME_LEN).unwrap_or_default().to_vec()
        });
        let logs =
            dirs.iter().map(|dir| Log::open(home.dir(dir)?, query.since)).collect::<io::Result<_>>()?;
        Ok(Self { logs, filter: Filter { since, stream: query.stream }, last: query.last })
    }

    /// Hands over what is there. A last line without its newline is a line too, unless it is going to be followed.
    ///
    /// # Errors
    /// As read(2); what `take` answers ends the reading.
    pub fn read(&mut self, follow: bool, take: &mut Take<'_>) -> io::Result<()> {
        if let Some(last) = self.last.take() {
            for log in &mut self.logs {
                log.skip_to_last(last, &self.filter)?;
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
                take(log.line(index))?;
                *ready = log.advance(&self.filter, !follow)?;
            }
        }
    }

    /// Hands over what comes, until `take` answers with an error or the other side of `end` hangs up:
    /// give it the stdout that `take` writes to, whose reader may go away while nothing is to be written.
    ///
    /// # Errors
    /// As inotify_add_watch(2) and read(2); what `take` answers.
    pub fn follow(&mut self, end: Option<BorrowedFd<'_>>, take: &mut Take<'_>) -> io::Result<()> {
        let watch = Watch::new(&self.logs)?;
        // The watch is there before the look: nothing can come between them unseen.
        let mut changed: Vec<usize> = (0..self.logs.len()).collect();
        loop {
            for index in changed {
                let Some(log) = self.logs.get_mut(index) else { continue };
                loop {
                    while log.advance(&self.filter, false)? {
                        take(log.line(index))?;
                    }
                    if !log.find_newer()? {
                        break;
                    }
                }
            }
            match watch.wait(end)? {
                Some(indices) => changed = indices,
                None => return Ok(()),
            }
        }
    }
}

#[derive(Debug)]
struct Filter {
    since: Option<Vec<u8>>,
    stream: Option<Kind>,
}

impl Filter {
    fn admits(&self, time: &[u8], stream: Kind) -> bool {
        self.since.as_ref().is_none_or(|since| time >= since.as_slice())
            && self.stream.is_none_or(|wanted| wanted == stream)
    }
}

/// One service's files, and the line under the hand.
#[derive(Debug)]
struct Log {
    dir: Beneath,
    /// Oldest first; the one being read is in front.
    files: VecDeque<BufReader<File>>,
    /// The newest archive that is known.
    newest: Option<Label>,
    line: Vec<u8>,
    /// `line` has been handed over.
    used: bool,
    /// Of `line`, or of the last line that had one.
    time: Vec<u8>,
    stream: Kind,
    /// Where in `line` the text begins.
    text: usize,
}

impl Log {
    fn open(dir: Beneath, since: Option<SystemTime>) -> io::Result<Self> {
        let mut log = Self {
            dir,
            files: VecDeque::new(),
            newest: None,
            line: Vec::new(),
            used: false,
            time: Vec::new(),
            stream: Kind::Out,
            text: 0,
        };
        // An archive's label is the moment it was ended: all that is in it is older.
        log.look(since.map(Label::of))?;
        Ok(log)
    }

    fn line(&self, source: usize) -> Line<'_> {
        let text = self.line.get(self.text..).unwrap_or_default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let time = std::str::from_utf8(&self.time).unwrap_or_default();
        Line { source, time, stream: self.stream, text }
    }

    /// Goes to the next line that the filter admits; false when there is none. A last line without its newline counts
    /// if `torn` says so; otherwise it stays until its rest comes.
    fn advance(&mut self, filter: &Filter, torn: bool) -> io::Result<bool> {
        while self.next(torn)? {
            if filter.admits(&self.time, self.stream) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next(&mut self, torn: bool) -> io::Result<bool> {
        if std::mem::take(&mut self.used) {
            self.line.clear();
        }
        while let Some(file) = self.files.front_mut() {
            file.read_until(b'\n', &mut self.line)?;
            let at_end = !self.line.ends_with(b"\n");
            let is_last = self.files.len() == 1;
            if at_end && !is_last {
                self.files.pop_front();
            }
            if !at_end || !self.line.is_empty() && (torn || !is_last) {
                self.parse();
                self.used = true;
                return Ok(true);
            }
            if is_last {
                break;
            }
        }
        Ok(false)
    }

    fn parse(&mut self) {
        match split_head(&self.line) {
            Some((time, stream)) => {
                self.time.clear();
                self.time.extend_from_slice(time);
                (self.stream, self.text) = (stream, HEAD_LEN);
            }
            None => (self.stream, self.text) = (Kind::Out, 0),
        }
    }

    /// Moves to the line that has `last - 1` others after it.
    fn skip_to_last(&mut self, last: usize, filter: &Filter) -> io::Result<()> {
        let mut found: VecDeque<u64> = VecDeque::new();
        let mut wanted = last;
        for index in (0..self.files.len()).rev() {
            let Some(file) = self.files.get_mut(index) else { break };
            let (mut line, mut offset, mut time) = (Vec::new(), 0, Vec::new());
            found.clear();
            loop {
                line.clear();
                let count = file.read_until(b'\n', &mut line)?;
                if count == 0 {
                    break;
                }
                let (at, stream) = split_head(&line).unwrap_or((&time, Kind::Out));
                if filter.admits(at, stream) {
                    found.push_back(offset);
                    if found.len() > wanted {
                        found.pop_front();
                    }
                }
                time = at.to_vec();
                offset += count as u64;
            }
            wanted -= found.len();
            // The end of the newest file, when no line is wanted at all.
            let start = if last == 0 { offset } else { found.front().copied().unwrap_or(0) };
            file.seek(SeekFrom::Start(start))?;
            if wanted == 0 {
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

    /// Opens the archives later than `after`, and `current`, as far as they are not being read already.
    fn look(&mut self, after: Option<Label>) -> io::Result<()> {
        let reading = match self.files.back() {
            Some(file) => Some(inode(file.get_ref())?),
            None => None,
        };
        loop {
            let names = archives(&self.dir)?;
            let newest = names.last().map(|(label, _)| *label);
            let mut files = Vec::new();
            for name in names
                .iter()
                .filter(|(label, _)| after.is_none_or(|after| *label > after))
                .map(|(_, name)| name.as_str())
                .chain([CURRENT])
            {
                match self.dir.open_file(Path::new(name), OFlags::RDONLY, 0) {
                    Ok(file) if Some(inode(&file)?) != reading => files.push(BufReader::new(file)),
                    Ok(_) => {}
                    // Pruned, or between two files.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            // A rotation in the middle would show a file twice or not at all: look again.
            if archives(&self.dir)?.last().map(|(label, _)| *label) == newest {
                self.newest = newest.max(self.newest);
                self.files.extend(files);
                return Ok(());
            }
        }
    }
}

fn inode(file: &File) -> io::Result<(u64, u64)> {
    let data = file.metadata()?;
    Ok((data.dev(), data.ino()))
}

/// Time and stream of a line, if it begins as ours and s6-log's do.
fn split_head(line: &[u8]) -> Option<(&[u8], Kind)> {
    let (head, _) = line.split_at_checked(HEAD_LEN)?;
    let (time, mark) = head.split_at_checked(TIME_LEN)?;
    let form = b"0000-00-00 00:00:00.000000000";
    let fits =
        time.iter().zip(form).all(|(b, form)| if *form == b'0' { b.is_ascii_digit() } else { b == form });
    match mark {
        b"  " if fits => Some((time, Kind::Out)),
        b" !" if fits => Some((time, Kind::Err)),
        _ => None,
    }
}

/// An inotify(7) watch on every log directory.
struct Watch {
    fd: OwnedFd,
    logs: HashMap<i32, Vec<usize>>,
    count: usize,
}

impl Watch {
    fn new(logs: &[Log]) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let mut watches: HashMap<i32, Vec<usize>> = HashMap::new();
        for (index, log) in logs.iter().enumerate() {
            let flags =
                inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            let path = format!("/proc/self/fd/{}", log.dir.as_fd().as_raw_fd());
            watches.entry(inotify::add_watch(&fd, path, flags)?).or_default().push(index);
        }
        Ok(Self { fd, logs: watches, count: logs.len() })
    }

    /// Waits for changes: which logs; `None` at the end.
    fn wait(&self, end: Option<BorrowedFd<'_>>) -> io::Result<Option<Vec<usize>>> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)];
        fds.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::empty())));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.get(1).is_some_and(|end| !end.revents().is_empty()) {
            return Ok(None);
        }
        let mut changed = Vec::new();
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.fd, &mut space);
        loop {
            match events.next() {
                Ok(event) => match self.logs.get(&event.wd()) {
                    Some(indices) => changed.extend_from_slice(indices),
                    // The queue overflowed: any of them may have changed.
                    None => changed.extend(0..self.count),
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        changed.sort_unstable();
        changed.dedup();
        Ok(Some(changed))
    }
}
