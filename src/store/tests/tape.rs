//! What a store does to its disk, recorded, and what a power cut may leave of it.
//!
//! A disk keeps what was synced. Of what was written since it keeps what it likes, in any order: each sector is there as it was
//! at the last sync, or as one of the writes since then left it. The length of the file is any that it had since.

use super::super::disk::{DiskFile, Wrap};
use super::super::session::DATABASE;
use super::super::{StoreEvent, mirror};
use super::disk::Dice;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// Written whole or not at all.
const SECTOR: usize = 512;

/// What happened, in its order.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A file that was not known, and what it holds.
    Opened {
        file: usize,
        content: Vec<u8>,
    },
    Length {
        file: usize,
        length: usize,
    },
    Write {
        file: usize,
        offset: usize,
        data: Vec<u8>,
    },
    Synced {
        file: usize,
    },
    /// This file has the name of the database from now on.
    InPlace {
        file: usize,
    },
    Mirror(Vec<u8>),
    /// So many changes were asked for by then, and so many were said to be on the disk.
    Asked(usize),
    Acknowledged(usize),
    /// The caller was told that something cannot be written.
    Refused(String),
}

/// A change of one file that was not synced yet.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Debug)]
struct Recording {
    dir: PathBuf,
    steps: Vec<Step>,
    /// By inode. Of an inode that is used again, the newest.
    files: BTreeMap<u64, usize>,
    count: usize,
    in_place: Option<u64>,
    mirror: Option<(u64, i64)>,
    opener: u64,
    failing_syncs: usize,
}

/// A recording of the state directory.
#[derive(Debug, Clone)]
pub(super) struct Tape(Arc<Mutex<Recording>>);

impl Tape {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Recording {
            dir,
            steps: Vec::new(),
            files: BTreeMap::new(),
            count: 0,
            in_place: None,
            mirror: None,
            opener: 0,
            failing_syncs: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap()
    }

    pub(super) fn wrap(&self) -> Wrap {
        let tape = self.clone();
        Arc::new(move |disk| Ok(Box::new(Taped::new(disk, tape.clone())?)))
    }

    /// What was opened can write nothing more.
    pub(super) fn detach(&self) {
        self.lock().opener += 1;
    }

    /// The next sync fails, and nobody knows what it has done.
    pub(super) fn fail_a_sync(&self) {
        self.lock().failing_syncs = 1;
    }

    /// Each sync does what it should.
    pub(super) fn work_again(&self) {
        self.lock().failing_syncs = 0;
    }

    pub(super) fn asked(&self, number: usize) {
        self.lock().add(Step::Asked(number));
    }

    /// A ticket is the number of changes that are done with it.
    pub(super) fn hear(&self, event: StoreEvent) {
        match event {
            StoreEvent::Committed { ticket } => {
                self.lock().add(Step::Acknowledged(usize::try_from(ticket).unwrap()));
            }
            StoreEvent::Failed { reason, .. } => self.lock().add(Step::Refused(reason)),
            StoreEvent::Warning { .. } | StoreEvent::Degraded { .. } | StoreEvent::Recovered { .. } => {}
            StoreEvent::Held { reason } => panic!("{reason}"),
        }
    }

    pub(super) fn take(&self) -> Vec<Step> {
        let mut recording = self.lock();
        recording.look();
        std::mem::take(&mut recording.steps)
    }
}

impl Recording {
    fn add(&mut self, step: Step) {
        self.look();
        self.steps.push(step);
    }

    /// What has changed in the directory since the last step.
    fn look(&mut self) {
        let place = std::fs::metadata(self.dir.join(DATABASE)).map(|found| found.ino()).ok();
        if place != self.in_place
            && let Some(file) = place.and_then(|inode| self.files.get(&inode)).copied()
        {
            self.in_place = place;
            self.steps.push(Step::InPlace { file });
        }
        let path = self.dir.join(mirror::NAME);
        let Ok(found) = std::fs::metadata(&path) else { return };
        let seen = Some((found.ino(), found.mtime_nsec()));
        if seen != self.mirror {
            self.mirror = seen;
            self.steps.push(Step::Mirror(std::fs::read(&path).unwrap()));
        }
    }
}

#[derive(Debug)]
struct Taped {
    disk: DiskFile,
    tape: Tape,
    file: usize,
    opener: u64,
}

impl Taped {
    fn new(disk: DiskFile, tape: Tape) -> io::Result<Self> {
        let (inode, length) = (disk.inode()?, disk.len()?);
        let mut content = vec![0; usize::try_from(length).unwrap()];
        disk.read(0, &mut content)?;
        let (file, opener) = {
            let mut recording = tape.lock();
            let known = recording.files.get(&inode).copied().filter(|_| length > 0);
            let file = known.unwrap_or(recording.count);
            if known.is_none() {
                recording.count += 1;
                recording.files.insert(inode, file);
                recording.steps.push(Step::Opened { file, content });
            }
            recording.look();
            (file, recording.opener)
        };
        Ok(Self { disk, tape, file, opener })
    }

    fn record(&self, step: Step) -> bool {
        let mut recording = self.tape.lock();
        let attached = recording.opener == self.opener;
        if attached {
            recording.add(step);
        }
        attached
    }
}

impl StorageBackend for Taped {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.tape.lock().opener == self.opener {
            self.disk.set_len(length)?;
            let length = usize::try_from(self.disk.len()?).unwrap();
            self.record(Step::Length { file: self.file, length });
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        {
            let mut recording = self.tape.lock();
            if recording.opener == self.opener && recording.failing_syncs > 0 {
                recording.failing_syncs -= 1;
                return Err(rustix::io::Errno::IO.into());
            }
        }
        // In memory there is nothing to wait for.
        self.record(Step::Synced { file: self.file });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        if self.record(Step::Write { file: self.file, offset: at, data: data.to_vec() }) {
            self.disk.write(offset, data)?;
        }
        Ok(())
    }
}

/// A file as the disk has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Platter {
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

impl Platter {
    pub(super) fn sync(&mut self) {
        let all = vec![Kept::All; self.unsynced.len()];
        self.durable = self.image(&all, None);
        self.unsynced.clear();
    }

    /// What a cut leaves, if it keeps this of each change. `dice` choose the sectors of those that are torn.
    pub(super) fn image(&self, kept: &[Kept], mut dice: Option<&mut Dice>) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mut length = image.len();
        for (change, kept) in self.unsynced.iter().zip(kept) {
            match (change, kept) {
                (_, Kept::Nothing) => {}
                (Change::Length(new), _) => length = *new,
                (Change::Write(offset, data), Kept::All) => put(&mut image, *offset, data),
                (Change::Write(offset, data), Kept::Torn) => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if dice.as_mut().is_none_or(|dice| dice.below(2) == 0) {
                            put(&mut image, offset + number * SECTOR, sector);
                        }
                    }
                }
            }
        }
        image.resize(length, 0);
        image
    }

    /// All that was written so far, and that with the last of it torn.
    pub(super) fn prefixes(&self, dice: &mut Dice) -> [Vec<u8>; 2] {
        let mut kept = vec![Kept::All; self.unsynced.len()];
        let whole = self.image(&kept, None);
        if let Some(last) = kept.last_mut() {
            *last = Kept::Torn;
        }
        [whole, self.image(&kept, Some(dice))]
    }

    /// What cuts may leave: every subset of the changes if these are at most `most`, else so many of them. All of it, nothing, and each
    /// one alone and missing are always among them. Half as many again are torn.
    pub(super) fn images(&self, most: usize, dice: &mut Dice) -> Vec<Vec<u8>> {
        let count = self.unsynced.len();
        if count == 0 {
            return vec![self.durable.clone()];
        }
        let every = u32::try_from(count).ok().and_then(|count| 1usize.checked_shl(count));
        let mut images = Vec::new();
        if let Some(every) = every.filter(|every| *every <= most) {
            for subset in 0..every {
                let kept = |place| if subset >> place & 1 == 1 { Kept::All } else { Kept::Nothing };
                images.push(self.image(&(0..count).map(kept).collect::<Vec<_>>(), None));
            }
        } else {
            images.push(self.image(&vec![Kept::Nothing; count], None));
            images.push(self.image(&vec![Kept::All; count], None));
            for place in 0..count {
                for (this, others) in [(Kept::All, Kept::Nothing), (Kept::Nothing, Kept::All)] {
                    let mut kept = vec![others; count];
                    kept[place] = this;
                    images.push(self.image(&kept, None));
                }
            }
            for _ in 0..most.saturating_sub(images.len()) {
                let kept = |_| if dice.below(2) == 0 { Kept::All } else { Kept::Nothing };
                let kept: Vec<_> = (0..count).map(kept).collect();
                images.push(self.image(&kept, None));
            }
        }
        for _ in 0..(most / 2).max(1) {
            let kept = |_| [Kept::All, Kept::Nothing, Kept::Torn][dice.below(3)];
            let kept: Vec<_> = (0..count).map(kept).collect();
            images.push(self.image(&kept, Some(dice)));
        }
        images
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kept {
    Nothing,
    All,
    Torn,
}

fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(data);
}
