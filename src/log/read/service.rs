//! The files of one service: `current`, and the archives in their order, across rotations.

use super::Handed;
use super::contents::Contents;
use super::lines::{Filter, split_head};
use crate::core::line::Line;
use crate::core::words::Stream;
use crate::log::rotate::{CURRENT, archives, label_of};
use crate::log::stamp::HEAD_LEN;
use crate::log::tai64n::Label;
use crate::sys::beneath::Beneath;
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Device and inode.
pub(super) type Id = (u64, u64);

/// A file that is still to be read. Archives are opened when it is their turn, for there may be many; `current` at once, for
/// it may be renamed.
#[derive(Debug)]
pub(super) enum Pending {
    Archive(String),
    Open(Contents),
}

/// One service's files, and the piece of a line under the hand.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) source: usize,
    /// `None`: its files were handed in, and are all open.
    pub(super) dir: Option<Beneath>,
    /// Oldest first; the one being read is in front.
    pub(super) files: VecDeque<Pending>,
    /// The newest archive that is known.
    pub(super) newest: Option<Label>,
    /// Of `current` as it was opened last.
    pub(super) current: Option<Id>,
    pub(super) has_content: bool,
    pub(super) piece: Vec<u8>,
    pub(super) begins: bool,
    pub(super) ends: bool,
    /// Of the line that the piece is of, or of the last line that had one.
    pub(super) time: Vec<u8>,
    pub(super) stream: Stream,
    /// Where in `piece` the text begins.
    pub(super) text: usize,
    /// The line is not one of those that are wanted.
    pub(super) refused: bool,
}

impl Log {
    pub(super) fn new(source: usize, dir: Option<Beneath>) -> Self {
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

    pub(super) fn open(source: usize, dir: Beneath, since: Option<SystemTime>) -> io::Result<Self> {
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
    pub(super) fn take_handed(&mut self, files: Vec<Handed>) -> io::Result<()> {
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

    pub(super) fn piece(&self) -> Line<'_> {
        let text = self.piece.get(self.text..).unwrap_or_default();
        let time = std::str::from_utf8(&self.time).unwrap_or_default();
        let Self { source, stream, begins, ends, .. } = *self;
        Line { source, time, stream, text, begins, ends }
    }

    /// Goes to the next piece of a line that the filter admits; false when there is none. A last line without its newline
    /// counts if `torn` says so; otherwise it stays until its rest comes.
    pub(super) fn advance(&mut self, filter: &Filter, torn: bool) -> io::Result<bool> {
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

    pub(super) fn next(&mut self, torn: bool) -> io::Result<bool> {
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

    pub(super) fn parse(&mut self) {
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
    pub(super) fn skip_to_last(
        &mut self,
        last: usize,
        within: Option<u64>,
        filter: &Filter,
    ) -> io::Result<()> {
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
    pub(super) fn find_newer(&mut self) -> io::Result<bool> {
        let before = self.files.len();
        self.look(self.newest)?;
        Ok(self.files.len() > before)
    }

    /// Finds the archives later than `after`, and opens `current`, as far as they are not being read already.
    pub(super) fn look(&mut self, after: Option<Label>) -> io::Result<()> {
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
pub(super) fn open_first<'a>(
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
pub(super) fn open(dir: &Beneath, name: &str) -> io::Result<Option<Contents>> {
    match dir.open_known_file(Path::new(name), OFlags::RDONLY, 0) {
        Ok((file, stat)) => Ok(Some(Contents::new(file, &stat))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) if status(dir, name)?.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Device and inode of a regular file; `None` for anything else.
pub(super) fn status(dir: &Beneath, name: &str) -> io::Result<Option<Id>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            Ok(Some((stat.st_dev, stat.st_ino)))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
