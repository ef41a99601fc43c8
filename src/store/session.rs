//! The state on disk: directory, lock, database and mirror together, and every way they can be found.
//!
//! Runs in the store's thread only: each call may block for as long as the disk does.
//!
//! A database file is only ever put in place whole: written as `state.redb.new`, synced, renamed. That is how it is
//! made first, how one that is damaged, outdated or not to be trusted is replaced, and why a crash in between leaves
//! no half-made file.

use super::disk::{self, DiskFile, Wrap};
use super::engine::{Engine, Found, Trouble};
use super::journal::{self, Notes};
use super::lock::{Lock, Taken};
use super::mirror::{self, Mirror};
use super::place::{FILE_MODE, Lies, StateDir, Unopened, identity};
use super::schema::{Encoded, Rows};
use super::{DiskError, OpenError, Options, Unwritten};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const DATABASE: &str = "state.redb";
const NEW: &str = "state.redb.new";
/// A database that a supervisor made is a thousand times smaller.
const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;

/// Directory and lock, and the database while it is usable.
#[derive(Debug)]
pub(super) struct Session {
    dir: StateDir,
    lock: Lock,
    /// For a state that has no id yet.
    instance: String,
    engine: Option<Engine>,
    /// Device and inode of the file that the engine has.
    file: (u64, u64),
    /// The file in place must not be continued: it is missing, damaged, outdated, or a sync of it has failed.
    replace: bool,
}

/// What was found at the first opening.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) rows: Rows,
    pub(super) mirrored_at_ms: Option<u64>,
    /// The mirror says something else, or is missing.
    pub(super) mirror_stale: bool,
    /// False when the database may hold more than `rows`: it is there, but could not even be read.
    pub(super) known: bool,
    /// Why nothing can be written now; what is known is in `rows` all the same.
    pub(super) volatile: Option<Unwritten>,
}

impl Session {
    /// Opens directory and lock.
    ///
    /// # Errors
    /// [`OpenError::Held`] when another supervisor has it, [`OpenError::Unknown`] when that cannot be told;
    /// `Ok(Err(…))` when nobody can have it, and we neither.
    pub(super) fn open(
        options: &Options,
        warnings: &mut Vec<String>,
    ) -> Result<Result<Self, io::Error>, OpenError> {
        let (path, home) = (&options.dir, &options.home);
        match lock(home, path, (options.gid, options.gives_way), warnings) {
            Ok((dir, Taken::Ours(lock))) => {
                let instance = new_instance();
                Ok(Ok(Self { dir, lock, instance, engine: None, file: (0, 0), replace: false }))
            }
            Ok((_, Taken::Held(holder))) => Err(OpenError::Held { path: path.clone(), holder }),
            Err(Unopened::Missing(error)) => Ok(Err(error)),
            Err(Unopened::Unknown(error)) => Err(OpenError::unknown(path, &error)),
        }
    }

    /// The database and the directory that it is in are what the next boot will find.
    pub(super) fn is_in_place(&self) -> bool {
        // What does not answer to this has just taken a commit.
        self.engine.is_none() || self.dir.is_in_place(Some((DATABASE, self.file))).unwrap_or(true)
    }

    /// The next boot will find another directory, or none.
    pub(super) fn is_displaced(&self) -> bool {
        matches!(self.dir.is_in_place(None), Ok(false))
    }

    /// The volume of the state is gone. What was last written to it, unseen, is not to be found when it comes back.
    pub(super) fn is_unmounted(&mut self) -> bool {
        let unmounted = self.dir.is_unmounted(DATABASE);
        if unmounted {
            self.distrust();
        }
        unmounted
    }

    /// Directory and lock in the place of those that were moved or removed. What is found there is not continued: of this
    /// `instance`, it is older than what is known, and gives way; another one is set aside.
    ///
    /// # Errors
    /// [`Unwritten`].
    pub(super) fn made_again(
        options: &Options,
        instance: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Unwritten> {
        let refused = |error| DiskError::new(&options.dir, &error);
        let mut session = Self::open(options, warnings)?.map_err(refused)?;
        session.begin_anew(instance, warnings).map_err(refused)?;
        Ok(session)
    }

    fn begin_anew(&mut self, instance: &str, warnings: &mut Vec<String>) -> io::Result<()> {
        let there = self.dir.existing(DATABASE, OFlags::RDONLY, FILE_MODE, warnings)?.is_some();
        let is_ours = || matches!(self.snapshot(), Ok(Some(rows)) if rows.instance == instance);
        if there && !is_ours() {
            let kept = self.dir.set_aside_corrupt(DATABASE)?;
            warnings.push(format!("another {DATABASE} was in its place: set aside as {kept}"));
        }
        self.replace = true;
        Ok(())
    }

    /// There is neither a database nor its mirror: nothing was ever recorded here. What cannot be told is looked at by `load`.
    pub(super) fn is_new(&self) -> bool {
        [DATABASE, mirror::NAME].into_iter().all(|name| matches!(self.dir.has(name), Ok(false)))
    }

    /// Of a state that is new.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Writes who we are, for the supervisor that finds the state locked.
    pub(super) fn note(&mut self, host: &str) {
        self.lock.note(host);
    }

    pub(super) fn lies(&self) -> Option<Lies> {
        self.dir.lies()
    }

    /// Reads what there is, repairs and rebuilds what must be, and leaves the database open if it can be written.
    ///
    /// # Errors
    /// [`OpenError::NewerSchema`]. All else is in the result's `volatile` and in `warnings`.
    pub(super) fn load(&mut self, wrap: &Wrap, warnings: &mut Vec<String>) -> Result<Loaded, OpenError> {
        let mirror = self.read_mirror(warnings);
        let mirrored_at_ms = mirror.as_ref().and_then(|mirror| mirror.written_at_ms);
        let (mut trouble, mut known) = (None, true);
        let found = match self.find(wrap, warnings) {
            Ok(found) => found,
            Err(Trouble::Newer(found)) => return Err(self.newer(found)),
            // `find` has set it aside.
            Err(Trouble::Corrupt(_)) => None,
            Err(Trouble::Io(error)) => {
                trouble = Some(error);
                match self.snapshot() {
                    Ok(found) => found,
                    Err(Trouble::Newer(found)) => return Err(self.newer(found)),
                    Err(unreadable) => {
                        known = matches!(unreadable, Trouble::Corrupt(_));
                        let path = self.dir.path_of(DATABASE);
                        warnings.push(format!("{} cannot be read: {unreadable}", path.display()));
                        None
                    }
                }
            }
        };
        let rows = self.reconcile(found, mirror.as_ref(), trouble.is_some(), warnings);
        let mirror_stale = !mirror.is_some_and(|mirror| mirror.agrees_with(&rows));
        if trouble.is_none() && self.replace {
            trouble = match self.put_in_place(wrap, &rows) {
                Ok(()) => None,
                Err(Trouble::Io(error)) => Some(error),
                Err(other) => Some(io::Error::other(other.to_string())),
            };
        }
        let volatile = trouble.map(|error| self.refused(&error).into());
        Ok(Loaded { rows, mirrored_at_ms, mirror_stale, known, volatile })
    }

    /// Whether the last commit, or the opening, went well.
    pub(super) fn is_open(&self) -> bool {
        self.engine.is_some()
    }

    /// Commits durably, with one sync. After an error the file is opened anew and it is tried once more.
    /// `after` makes what the database will hold then: the content of a new file, if one is needed. Without writes
    /// it only sees to it that the database is open.
    ///
    /// # Errors
    /// [`Unwritten`].
    pub(super) fn commit(
        &mut self,
        wrap: &Wrap,
        host: &str,
        writes: &[Encoded<'_>],
        after: &dyn Fn() -> Rows,
        warnings: &mut Vec<String>,
    ) -> Result<(), Unwritten> {
        self.lock.note(host);
        let first = self.try_commit(wrap, writes, after, warnings);
        let done = first.or_else(|_| self.try_commit(wrap, writes, after, warnings));
        done.map_err(|trouble| match trouble {
            Trouble::Io(error) => self.refused(&error).into(),
            Trouble::Newer(found) => self.newer(found).into(),
            Trouble::Corrupt(why) => Unwritten::Damaged { path: self.dir.path_of(DATABASE), why },
        })
    }

    fn try_commit(
        &mut self,
        wrap: &Wrap,
        writes: &[Encoded<'_>],
        after: &dyn Fn() -> Rows,
        warnings: &mut Vec<String>,
    ) -> Result<(), Trouble> {
        if self.engine.is_none() && !self.replace {
            match self.find(wrap, warnings) {
                Ok(_) => {}
                // The damaged file is out of the way and we know what it held.
                Err(Trouble::Corrupt(_)) => self.replace = true,
                Err(error) => return Err(error),
            }
        }
        if self.replace {
            return self.put_in_place(wrap, &after());
        }
        let Some(engine) = &mut self.engine else { return self.put_in_place(wrap, &after()) };
        if writes.is_empty() {
            return Ok(());
        }
        let done = engine.commit(writes);
        if let Err(error) = &done {
            self.replace = engine.sync_failed() || matches!(error, Trouble::Corrupt(_));
            self.engine = None;
        }
        done
    }

    /// Opens the database file into `self.engine` and returns its rows; `None` if there is no file of ours.
    /// A damaged one is set aside.
    fn find(&mut self, wrap: &Wrap, warnings: &mut Vec<String>) -> Result<Option<Rows>, Trouble> {
        let file = self.dir.existing(DATABASE, OFlags::RDWR, FILE_MODE, warnings).map_err(Trouble::Io)?;
        let Some(file) = file else {
            self.replace = true;
            return Ok(None);
        };
        self.file = identity(&rustix::fs::fstat(&file).map_err(|error| Trouble::Io(error.into()))?);
        let backend = wrap(DiskFile::new(file)).map_err(Trouble::Io)?;
        match Engine::open(backend) {
            Ok(Found { engine, rows, outdated, repaired, skipped }) => {
                let path = self.dir.path_of(DATABASE);
                if repaired {
                    warnings.push(format!(
                        "{} was damaged and went back to its last good state: the newest change may be missing",
                        path.display()
                    ));
                }
                warnings.extend(skipped.into_iter().map(|what| format!("{}: {what}", path.display())));
                self.replace = outdated;
                self.engine = Some(engine);
                Ok(Some(rows))
            }
            Err(Trouble::Corrupt(why)) => {
                let kept = self.dir.set_aside_corrupt(DATABASE).map_err(Trouble::Io)?;
                warnings.push(format!(
                    "{} is damaged ({why}): set aside as {kept}",
                    self.dir.path_of(DATABASE).display()
                ));
                self.replace = true;
                Err(Trouble::Corrupt(why))
            }
            Err(other) => Err(other),
        }
    }

    /// What the database holds, when it can be read but not written. Works on a copy in memory: even to be read, a
    /// database that was not closed must be repaired first.
    fn snapshot(&self) -> Result<Option<Rows>, Trouble> {
        let file =
            self.dir.existing(DATABASE, OFlags::RDONLY, FILE_MODE, &mut Vec::new()).map_err(Trouble::Io)?;
        let Some(file) = file else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(MAX_SNAPSHOT_BYTES).read_to_end(&mut bytes).map_err(Trouble::Io)?;
        let memory = InMemoryBackend::new();
        memory.set_len(bytes.len() as u64).and_then(|()| memory.write(0, &bytes)).map_err(Trouble::Io)?;
        Ok(Some(Engine::open(Box::new(memory))?.rows))
    }

    /// Database and mirror together: whose wants count. Decides too whether the file must be written anew.
    fn reconcile(
        &mut self,
        found: Option<Rows>,
        mirror: Option<&Mirror>,
        unreadable: bool,
        warnings: &mut Vec<String>,
    ) -> Rows {
        let mirror_path = self.dir.path_of(mirror::NAME);
        match (found, mirror) {
            (Some(mut rows), Some(mirror))
                if mirror.stamp > rows.stamp && mirror.instance.as_ref() == Some(&rows.instance) =>
            {
                warnings.push(format!(
                    "{} is older than {} (change {} and {}): the wants are taken from the latter",
                    self.dir.path_of(DATABASE).display(),
                    mirror_path.display(),
                    rows.stamp,
                    mirror.stamp
                ));
                warnings.extend(problems(&mirror_path, mirror));
                rows.stamp = mirror.stamp;
                rows.wants = mirror.wants.clone();
                self.engine = None;
                self.replace = true;
                rows
            }
            (Some(rows), _) => rows,
            (None, Some(mirror)) => {
                let what = if unreadable { "read" } else { "rebuilt" };
                warnings.push(format!(
                    "the wants of {} services were {what} from {}; registered services and restart history are not in it",
                    mirror.wants.len(),
                    mirror_path.display()
                ));
                warnings.extend(problems(&mirror_path, mirror));
                let instance = mirror.instance.clone().unwrap_or_else(|| self.instance.clone());
                Rows { instance, stamp: mirror.stamp, wants: mirror.wants.clone(), ..Rows::default() }
            }
            (None, None) => Rows { instance: self.instance.clone(), ..Rows::default() },
        }
    }

    fn read_mirror(&self, warnings: &mut Vec<String>) -> Option<Mirror> {
        mirror::read(&self.dir, warnings).unwrap_or_else(|error| {
            let path = self.dir.path_of(mirror::NAME);
            warnings.push(format!("{} cannot be read: {error}", path.display()));
            None
        })
    }

    /// # Errors
    /// [`Unwritten::Mirror`]; the old mirror stays.
    pub(super) fn write_mirror(&self, rows: &Rows) -> Result<(), Unwritten> {
        mirror::write(&self.dir, rows).map_err(|error| Unwritten::Mirror {
            path: self.dir.path_of(mirror::NAME),
            error: error.to_string(),
        })
    }

    /// # Errors
    /// As [`journal::write`]; nothing of the notes is kept then.
    pub(super) fn write_journal(&self, notes: &Notes) -> io::Result<()> {
        journal::write(&self.dir, notes)
    }

    pub(super) fn read_journal(&self, warnings: &mut Vec<String>) -> Vec<String> {
        journal::read(&self.dir, warnings)
    }

    /// Writes a database with these rows and puts it in the place of the one that is there.
    fn put_in_place(&mut self, wrap: &Wrap, rows: &Rows) -> Result<(), Trouble> {
        self.replace = true;
        self.engine = None;
        let file = self.dir.create_anew(NEW).map_err(Trouble::Io)?;
        self.file = identity(&rustix::fs::fstat(&file).map_err(|error| Trouble::Io(error.into()))?);
        let made = wrap(DiskFile::new(file))
            .map_err(Trouble::Io)
            .and_then(|backend| Engine::create(backend, rows))
            .and_then(|engine| {
                self.dir.rename(NEW, DATABASE).and_then(|()| self.dir.sync()).map_err(Trouble::Io)?;
                Ok(engine)
            });
        match made {
            Ok(engine) => {
                self.engine = Some(engine);
                self.replace = false;
                Ok(())
            }
            Err(error) => {
                let _ = self.dir.remove(NEW);
                Err(error)
            }
        }
    }

    /// Writes once what is only reserved of the database's file. Where that fails, commits take longer.
    pub(super) fn write_ahead(&self) {
        if let Ok(Some(file)) = self.dir.existing(DATABASE, OFlags::RDWR, FILE_MODE, &mut Vec::new()) {
            let _ = disk::write_ahead(&file);
        }
    }

    /// Whatever was done to the file last does not count: it is written anew.
    pub(super) fn distrust(&mut self) {
        (self.engine, self.replace) = (None, true);
    }

    /// Lets the lock go; the database stays as it is.
    pub(super) fn abandon(self) {
        if let Some(engine) = self.engine {
            engine.abandon();
        }
    }

    fn newer(&self, found: u32) -> OpenError {
        OpenError::NewerSchema { path: self.dir.path_of(DATABASE), found }
    }

    fn refused(&self, error: &io::Error) -> DiskError {
        DiskError::new(&self.dir.path_of(DATABASE), error)
    }
}

/// The directory at `path`, and the lock in it.
fn lock(
    home: &Path,
    path: &Path,
    (gid, gives_way): (u32, Option<Duration>),
    warnings: &mut Vec<String>,
) -> Result<(StateDir, Taken), Unopened> {
    let dir = StateDir::open(home, path, gid, warnings)?;
    let taken = Lock::take(&dir, gives_way, warnings)?;
    Ok((dir, taken))
}

/// Locks the gateways of a home whose supervisor has its state elsewhere: what is locked is where the state would be
/// otherwise, so that this excludes a holder there.
///
/// # Errors
/// [`OpenError::Held`], [`OpenError::Unknown`]. `None` with a warning: there is no lock, and none can be made.
pub(super) fn lock_home(options: &Options, warnings: &mut Vec<String>) -> Result<Option<Lock>, OpenError> {
    let path = options.home.join(USUAL);
    match lock(&options.home, &path, (options.gid, options.gives_way), warnings) {
        Ok((_, Taken::Ours(mut lock))) => {
            lock.note(&options.host);
            Ok(Some(lock))
        }
        Ok((_, Taken::Held(holder))) => Err(OpenError::Held { path, holder }),
        Err(Unopened::Missing(error)) => {
            warnings.push(format!(
                "{} cannot be made ({error}): nothing keeps a supervisor with another --state from running the services of \
                 this home too",
                path.display()
            ));
            Ok(None)
        }
        Err(Unopened::Unknown(error)) => Err(OpenError::unknown(&path, &error)),
    }
}

/// Where the state is below home, if nothing else is said.
pub(super) const USUAL: &str = "supervisor";

/// The directories that a supervisor locks: that of its state, and where that would be otherwise.
pub(super) fn locked_dirs(options: &Options) -> Vec<PathBuf> {
    let usual = options.home.join(USUAL);
    let elsewhere = options.dir != usual;
    std::iter::once(options.dir.clone()).chain(elsewhere.then_some(usual)).collect()
}

fn problems(path: &Path, mirror: &Mirror) -> Vec<String> {
    mirror.problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect()
}

/// An instance id: 128 random bits in hexadecimal.
pub fn new_instance() -> String {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            // No such call (before Linux 3.17, or filtered): the standard library's hash seeds are random too.
            Err(_) => {
                use std::hash::{BuildHasher, RandomState};
                let (high, low) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
                bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
                break;
            }
        }
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
