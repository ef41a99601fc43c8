//! The adoption records: which lives a successor may take over, should this supervisor be killed or replaced.
//!
//! One file in the runtime directory (`roster`), one record of a fixed size for each slot, written in place with a single
//! pwrite(2): a record is there or not, whenever we are killed, because a SIGKILL does not cut a write within a page.
//! It is not synced: processes do not survive what a sync would protect against.
//!
//! A record is a line with its name at the end, and a line for each thing that was added since: an older program reads the lines that
//! it knows, and a newer one takes what is not there for unknown.
//!
//! A life has a record only while it is up. What was being started or ended when its supervisor died is ended, not adopted.

use crate::containment::IncarnationId;
use crate::containment::processes;
use crate::core::clock::Tick;
use crate::core::gateway::{Living, Readiness};
use crate::core::name::ServiceName;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Bytes of a record: a name of 251 bytes, ten numbers, and words between them. A page holds whole records.
const RECORD: usize = 512;

/// One life that may be taken over, with what tells its processes from others of the same numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptionRecord {
    pub name: ServiceName,
    pub living: Living,
    /// The main process: [`super::adopt::birth`].
    pub born: u64,
    /// The group that its processes have, where they have one.
    pub tag: Option<u32>,
    /// The definition that it was started with, by its hash. `None`: not known.
    pub definition: Option<u64>,
    /// The program beside the main process (a probe, a hook), with its [`super::adopt::birth`]. It may have ended since.
    pub beside: Option<(i32, u64)>,
}

impl AdoptionRecord {
    pub fn id(&self) -> IncarnationId {
        IncarnationId { name: self.name.clone(), n: self.living.incarnation }
    }

    /// Whose main process it is; `None`: it has ended.
    pub fn uid(&self) -> Option<u32> {
        processes::uid_of(self.living.pid)
    }

    fn encode(&self) -> [u8; RECORD] {
        let Living { incarnation, pid, since, readiness, once, needed } = self.living;
        let (word, at) = match readiness {
            Readiness::Undefined => ("undefined", 0),
            Readiness::Awaited(by) => ("awaited", by.0),
            Readiness::Overdue => ("overdue", 0),
            Readiness::Reported(at) => ("reported", at.0),
        };
        let (since, born) = (since.0, self.born);
        let although = if needed { 2 } else { u8::from(once) };
        let tag = self.tag.unwrap_or(0);
        let mut text = format!(
            "{incarnation} {pid} {born} {tag} {since} {word} {at} {although} {}\n",
            self.name.as_str()
        );
        match (self.definition, self.beside) {
            (Some(definition), _) => text.push_str(&format!("{definition}\n")),
            (None, Some(_)) => text.push('\n'),
            (None, None) => {}
        }
        if let Some((pid, born)) = self.beside {
            text.push_str(&format!("{pid} {born}\n"));
        }
        let mut record = [0; RECORD];
        // All that fits, and that is all there is: see RECORD.
        record.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        record
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let mut lines = record.split(|byte| *byte == b'\n').map(std::str::from_utf8);
        let mut words = lines.next()?.ok()?.splitn(9, ' ');
        let definition = lines.next().and_then(|line| line.ok()?.parse().ok());
        let beside = lines.next().and_then(|line| {
            let (pid, born) = line.ok()?.split_once(' ')?;
            Some((pid.parse().ok()?, born.parse().ok()?))
        });
        let mut number = || words.next()?.parse::<u64>().ok();
        let (incarnation, pid, born, tag, since) = (number()?, number()?, number()?, number()?, number()?);
        let word = words.next()?;
        let at = Tick(words.next()?.parse().ok()?);
        let readiness = match word {
            "undefined" => Readiness::Undefined,
            "awaited" => Readiness::Awaited(at),
            "overdue" => Readiness::Overdue,
            "reported" => Readiness::Reported(at),
            _ => return None,
        };
        let although = words.next()?;
        let (once, needed) = (although == "1", although == "2");
        let name = ServiceName::of_slot(words.next()?).ok()?;
        let (pid, tag) = (i32::try_from(pid).ok()?, u32::try_from(tag).ok()?);
        let living = Living { incarnation, pid, since: Tick(since), readiness, once, needed };
        Some(Self { name, living, born, tag: (tag != 0).then_some(tag), definition, beside })
    }
}

/// The file while it is ours.
#[derive(Debug)]
pub struct AdoptionRecords {
    file: OwnedFd,
    path: PathBuf,
    /// It has taken the place of our predecessor's.
    shown: bool,
}

impl AdoptionRecords {
    /// What an earlier supervisor left in this directory; nothing when there is none, or it cannot be read.
    pub fn left_in(runtime_dir: &Path) -> Vec<AdoptionRecord> {
        let bytes = std::fs::read(path_in(runtime_dir)).unwrap_or_default();
        bytes.chunks_exact(RECORD).filter_map(AdoptionRecord::decode).collect()
    }

    /// Whether an earlier supervisor left its records here: one that ends in order removes them.
    pub fn exists(runtime_dir: &Path) -> bool {
        path_in(runtime_dir).exists()
    }

    /// A new one, beside that of a predecessor, which stays until [`Self::show`].
    ///
    /// # Errors
    /// As open(2).
    pub fn create(runtime_dir: &Path) -> io::Result<Self> {
        let path = path_in(runtime_dir);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(next_to(&path), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { file, path, shown: false })
    }

    /// From now on this is the one that a successor finds.
    ///
    /// # Errors
    /// As rename(2).
    pub fn show(&mut self) -> io::Result<()> {
        if !self.shown {
            rustix::fs::rename(next_to(&self.path), &self.path)?;
            self.shown = true;
        }
        Ok(())
    }

    /// Nothing is left to take over, and nothing was lost.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Writes the record of a slot, or takes it away.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write(&self, slot: u32, record: Option<&AdoptionRecord>) -> io::Result<()> {
        let record = record.map_or([0; RECORD], AdoptionRecord::encode);
        let at = u64::from(slot) * RECORD as u64;
        match rustix::io::pwrite(&self.file, &record, at)? {
            RECORD => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

fn path_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("roster")
}

fn next_to(path: &Path) -> PathBuf {
    path.with_extension("next")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(name: &str, readiness: Readiness) -> AdoptionRecord {
        let needed = readiness == Readiness::Undefined;
        let (incarnation, pid, since) = (u64::MAX, i32::MAX, Tick(u64::MAX));
        let living = Living { incarnation, pid, since, readiness, once: !needed, needed };
        let (name, tag) = (ServiceName::of_slot(name).unwrap(), Some(u32::MAX));
        let beside = Some((i32::MAX, u64::MAX));
        AdoptionRecord { name, living, born: u64::MAX, tag, definition: Some(u64::MAX), beside }
    }

    #[test]
    fn what_was_written_is_read_whatever_is_in_a_name() {
        let longest = "ä".repeat(125);
        let states = [
            Readiness::Undefined,
            Readiness::Awaited(Tick(u64::MAX)),
            Readiness::Overdue,
            Readiness::Reported(Tick(7)),
        ];
        for (name, readiness) in ["coder", "0", "a.b-1", &longest].into_iter().zip(states) {
            let one = record_of(name, readiness);
            assert_eq!(AdoptionRecord::decode(&one.encode()), Some(one));
        }
        assert_eq!(AdoptionRecord::decode(&[0; RECORD]), None, "a slot without a life");
    }

    /// A program is upgraded and rolled back while its services run.
    #[test]
    fn an_older_record_is_read_and_a_newer_one_is_read_by_older_programs() {
        let mut old = [0; RECORD];
        let line = b"7 42 9 0 5 undefined 0 0 web\n";
        old[..line.len()].copy_from_slice(line);
        let read = AdoptionRecord::decode(&old).unwrap();
        assert_eq!((read.name.as_str(), read.living.pid, read.definition), ("web", 42, None));
        assert_eq!((read.beside, read.encode()), (None, old));
        // Which reads up to the end of the first line, or of the second.
        let new = AdoptionRecord { beside: Some((43, 10)), ..read.clone() };
        assert_eq!(new.encode()[..line.len()], old[..line.len()]);
        assert_eq!(AdoptionRecord::decode(&new.encode()), Some(new));
        let new = AdoptionRecord { definition: Some(3), ..read }.encode();
        assert_eq!(new[..line.len()], old[..line.len()]);
    }

    #[test]
    fn a_successor_finds_the_old_one_until_the_new_one_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(AdoptionRecords::left_in(dir.path()), []);
        let (one, two) = (record_of("one", Readiness::Undefined), record_of("two", Readiness::Undefined));
        let mut records = AdoptionRecords::create(dir.path()).unwrap();
        records.show().unwrap();
        records.write(3, Some(&one)).unwrap();
        records.write(1, Some(&two)).unwrap();
        assert_eq!(AdoptionRecords::left_in(dir.path()), [two.clone(), one.clone()]);
        let mut next = AdoptionRecords::create(dir.path()).unwrap();
        next.write(1, Some(&one)).unwrap();
        assert_eq!(AdoptionRecords::left_in(dir.path()), [two, one.clone()]);
        next.show().unwrap();
        assert_eq!(AdoptionRecords::left_in(dir.path()), [one]);
        next.write(1, None).unwrap();
        assert_eq!(AdoptionRecords::left_in(dir.path()), []);
    }
}
