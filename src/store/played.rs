//! The store without a thread, on a disk that does as a simulation says: [`Hand`] does what the thread would do, when it is told to.
//!
//! The directory is a real one, which a test puts into memory. Every write and sync of the database passes the [`Disk`], which knows
//! what of it a power cut would leave.

use super::disk::{DiskFile, Wrap};
use super::worker::{Batch, Worker};
use super::{Boot, Notify, OpenError, Opened, Options, Shared, Store, StoreEvent};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::sys::time::monotonic;
use redb::StorageBackend;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The store's thread, if it had one.
pub struct Hand {
    worker: Worker,
    shared: Arc<Shared>,
    detach: Detach,
}

/// After it nobody who has the database open can do anything more to it.
pub(super) type Detach = Box<dyn Fn() + Send>;

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

/// Opens the state, as [`super::open`] does.
///
/// # Errors
/// [`OpenError`].
pub fn open(
    options: Options,
    disk: &Disk,
    notify: impl Fn(StoreEvent) + Send + Sync + 'static,
) -> Result<(Store, Opened, Hand), OpenError> {
    let detached = disk.clone();
    open_on(options, disk.wrap(), Box::new(move || detached.detach()), Box::new(notify))
}

/// The same on another disk.
pub(super) fn open_on(
    options: Options,
    wrap: Wrap,
    detach: Detach,
    notify: Notify,
) -> Result<(Store, Opened, Hand), OpenError> {
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), notify });
    let mut worker = Worker::new(options, wrap, Arc::clone(&shared));
    let store = Store { shared: Arc::clone(&shared), unannounced: AtomicBool::new(false) };
    worker.boot()?;
    let boot = std::mem::replace(&mut shared.state().boot, Boot::Over);
    let opened = match boot {
        Boot::Done(opened) => (*opened)?,
        Boot::Pending | Boot::Over => unreachable!("the worker has booted"),
    };
    Ok((store, opened, Hand { worker, shared, detach }))
}

impl Hand {
    /// When there is something to do, if nobody asks before.
    pub fn due(&self) -> Option<Instant> {
        let state = self.shared.state();
        let asked = state.closing || !state.tickets.is_empty();
        if asked { Some(monotonic()) } else { self.worker.due(&state) }
    }

    /// Does what there is to do now. Returns false once the store is closed.
    pub fn turn(&mut self) -> bool {
        let Ok(mut batch) = self.worker.take(&mut self.shared.state()) else { return true };
        let closing = std::mem::take(&mut batch.closing);
        self.worker.turn(batch);
        if !closing {
            return true;
        }
        // What is on the disk by now is all: the engine is left, not closed.
        (self.detach)();
        let ended = self.worker.turn(Batch { closing, ..Batch::default() });
        self.shared.state().ended = ended;
        false
    }

    /// What was acknowledged of this service; `None`: nothing, or it is not known.
    pub fn want(&self, name: &ServiceName) -> Option<Want> {
        self.worker.rows()?.wants.get(name).map(|row| row.want)
    }

    /// How often it was restarted unasked, as far as that is on the disk.
    pub fn restarts(&self, name: &ServiceName) -> u64 {
        self.worker.rows().and_then(|rows| rows.runs.get(name)).map_or(0, |row| row.restarts)
    }

    /// The limit of this name that was set to last, in the words of the definition.
    pub fn limit(&self, name: &ServiceName, limit: &str) -> Option<&str> {
        self.worker.rows()?.limits.get(name)?.limits.get(limit).map(String::as_str)
    }

    /// Something cannot be written now.
    pub fn is_troubled(&self) -> bool {
        self.worker.is_troubled()
    }

    /// What a SIGKILL leaves: the files as they are, and the lock free.
    pub fn kill(mut self) {
        (self.detach)();
        self.worker.abandon();
    }
}

/// What the disk does next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Works,
    /// Writes are refused with this errno.
    Refuses(i32),
    /// Writes are taken, and their sync fails with this errno.
    LosesSync(i32),
}

/// The disk under the database.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    mood: Mood,
    /// Who has opened it last: what an earlier one still writes goes nowhere.
    opener: u64,
    /// Inode of the file that is written, and of it what a power cut leaves for sure.
    inode: u64,
    durable: Vec<u8>,
    /// What was written since.
    unsynced: Vec<(u64, Vec<u8>)>,
    syncs: u64,
    faults: u64,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Syncs that were done, and calls that were refused.
    pub fn counts(&self) -> (u64, u64) {
        let platter = self.lock();
        (platter.syncs, platter.faults)
    }

    /// As [`Detach`].
    fn detach(&self) {
        self.lock().opener += 1;
    }

    fn wrap(&self) -> Wrap {
        let disk = self.clone();
        Arc::new(move |file| Ok(Box::new(PlayedFile::new(file, disk.clone())?)))
    }

    /// The power goes: of what was not synced, `survives` says of each write how many of its bytes are there. Nobody may have the
    /// database open.
    ///
    /// # Errors
    /// As open(2) and write(2).
    pub fn cut(&self, database: &Path, mut survives: impl FnMut(u64, usize) -> usize) -> io::Result<()> {
        let mut platter = self.lock();
        let unsynced = std::mem::take(&mut platter.unsynced);
        let Ok(metadata) = std::fs::metadata(database) else { return Ok(()) };
        if metadata.ino() != platter.inode {
            return Ok(());
        }
        let mut image = platter.durable.clone();
        for (offset, data) in unsynced {
            let kept = survives(offset, data.len()).min(data.len());
            put(&mut image, offset, data.get(..kept).unwrap_or_default());
        }
        // Without truncation: an fsync(2) of its length was long ago.
        let file = std::fs::OpenOptions::new().write(true).open(database)?;
        file.write_all_at(&image, 0)?;
        platter.durable = image;
        Ok(())
    }
}

fn put(image: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(data.len());
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(place) = image.get_mut(start..end) {
        place.copy_from_slice(data);
    }
}

/// The database's file, seen by the disk.
#[derive(Debug)]
struct PlayedFile {
    file: DiskFile,
    disk: Disk,
    opener: u64,
}

impl PlayedFile {
    fn new(file: DiskFile, disk: Disk) -> io::Result<Self> {
        let inode = file.inode()?;
        let opener = {
            let mut platter = disk.lock();
            platter.refused()?;
            if platter.inode != inode {
                let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
                let mut durable = vec![0; length];
                file.read(0, &mut durable)?;
                (platter.inode, platter.durable) = (inode, durable);
                platter.unsynced.clear();
            }
            platter.opener
        };
        Ok(Self { file, disk, opener })
    }
}

impl PlayedFile {
    /// The disk, if it still takes what this one writes.
    fn platter(&self) -> Option<MutexGuard<'_, Platter>> {
        Some(self.disk.lock()).filter(|platter| platter.opener == self.opener)
    }
}

impl Platter {
    fn refused(&mut self) -> io::Result<()> {
        let Mood::Refuses(errno) = self.mood else { return Ok(()) };
        self.faults += 1;
        Err(io::Error::from_raw_os_error(errno))
    }
}

impl StorageBackend for PlayedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let Some(mut platter) = self.platter() else { return Ok(()) };
        platter.refused()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let Some(mut platter) = self.platter() else { return Ok(()) };
        platter.refused()?;
        if let Mood::LosesSync(errno) = platter.mood {
            platter.faults += 1;
            return Err(io::Error::from_raw_os_error(errno));
        }
        platter.syncs += 1;
        for (offset, data) in std::mem::take(&mut platter.unsynced) {
            put(&mut platter.durable, offset, &data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(mut platter) = self.platter() else { return Ok(()) };
        platter.refused()?;
        platter.unsynced.push((offset, data.to_vec()));
        self.file.write(offset, data)
    }
}
