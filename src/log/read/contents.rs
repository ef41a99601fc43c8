//! One log file, read in pieces of lines, and looked at from its end.

use super::lines::{Filter, split_head};
use super::service::Id;
use crate::core::words::Stream;
use crate::log::stamp::HEAD_LEN;
use memchr::{memchr, memrchr};
use rustix::buffer::spare_capacity;
use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Bytes of a line that are handed over at a time, and of a file that are read at a time.
pub(super) const PIECE: usize = 64 * 1024;
/// Parts of a sparse file that are told apart. What lies beyond is read, holes and all.
pub(super) const MOST_EXTENTS: usize = 4096;

/// A file, read in pieces of lines. Holes are not read: an owner who makes a file of terabytes without a byte in it makes
/// nobody wait.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) file: File,
    pub(super) id: Id,
    /// Where the next read begins.
    pub(super) position: u64,
    pub(super) buffer: Vec<u8>,
    /// Up to here the buffer has been handed over.
    pub(super) done: usize,
    /// It has holes: the zeros beside them are nobody's.
    pub(super) is_sparse: bool,
}

impl Contents {
    pub(super) fn new(file: File, stat: &Stat) -> Self {
        let is_sparse = is_sparse(stat.st_blocks.into(), stat.st_size.into());
        let id = (stat.st_dev, stat.st_ino);
        Self { file, id, position: 0, buffer: Vec::new(), done: 0, is_sparse }
    }

    pub(super) fn go_to(&mut self, position: u64) {
        self.buffer.clear();
        (self.done, self.position) = (0, position);
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.done..).unwrap_or_default()
    }

    /// The next piece of a line, without its newline, into `piece`: whether the line ends with it. `None`: there is none now;
    /// `at_end`: there will not be more, so what is left is a line, too. `within`: the line has begun.
    pub(super) fn piece(
        &mut self,
        piece: &mut Vec<u8>,
        at_end: bool,
        within: bool,
    ) -> io::Result<Option<bool>> {
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
    pub(super) fn fill(&mut self) -> io::Result<bool> {
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
    pub(super) fn data_after(&self, position: u64) -> io::Result<Option<u64>> {
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
    pub(super) fn extents(&self) -> io::Result<Vec<(u64, u64)>> {
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
    pub(super) fn find_last(
        &self,
        wanted: usize,
        within: &mut u64,
        filter: &Filter,
    ) -> io::Result<(u64, usize)> {
        let extents = self.extents()?;
        let size = extents.last().map_or(0, |(_, end)| *end);
        if wanted == 0 {
            return Ok((self.file.metadata()?.size(), 0));
        }
        let (mut found, mut start) = (0, size);
        // What follows the last newline is no line until there is something.
        let mut is_nothing = true;
        let is_nobodys = |byte: &u8| self.is_sparse && *byte == 0;
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
                    is_nothing &= after.iter().skip(1).all(is_nobodys);
                    rest = before;
                    if !std::mem::take(&mut is_nothing) && self.admits(line, filter)? {
                        (found, start) = (found + 1, line);
                        if found == wanted {
                            return Ok((start, found));
                        }
                    }
                }
                is_nothing &= rest.iter().all(is_nobodys);
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
    pub(super) fn admits(&self, position: u64, filter: &Filter) -> io::Result<bool> {
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
pub(super) fn is_sparse(blocks: i128, size: i128) -> bool {
    blocks * 512 < size && size > PIECE as i128
}

/// How many of these bytes can be handed over without cutting a character of UTF-8.
pub(super) fn character_boundary(bytes: &[u8]) -> usize {
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
