//! The database engine (redb) behind four operations: open, create, commit, abandon.
//!
//! One commit is one transaction and one sync. redb panics on some damaged files, so every call runs under
//! `catch_unwind`; after an error or a panic the handle is poisoned and the caller drops it and opens anew.

use super::Unwritten;
use super::disk::Watched;
use super::schema::{
    self, ADDITIONS, Alike, Encoded, LIMITS, META, META_ADDITIONS, META_BOOT, META_ENDS, META_INSTANCE,
    META_LIES, META_SCHEMA, META_STAMP, MIRRORED, NEWEST_SCHEMA, RECORDS, RUNS, RowError, Rows, SCHEMA,
    WANTS,
};
use crate::core::name::ServiceName;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    TableHandle,
};
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// For both directions together. The whole database is read once and then only written.
const CACHE_BYTES: usize = 256 << 10;

/// Why the engine could not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The disk refused; the file may be in order.
    #[error("{0}")]
    Io(io::Error),
    /// The file is not what we wrote.
    #[error("{0}")]
    Corrupt(String),
    /// Written by a program with a newer schema.
    #[error("schema {0} is newer than {NEWEST_SCHEMA}")]
    Newer(u32),
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error {
            // An error of the kernel has a number. Without one it is the engine's or ours, about the content.
            redb::Error::Io(error)
                if error.raw_os_error().is_none()
                    && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
            {
                Self::Corrupt(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            error
            @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_)) => {
                Self::Io(io::Error::other(error.to_string()))
            }
            error => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<RowError> for Trouble {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Newer(version) => Self::Newer(u32::from(version)),
            RowError::Short | RowError::Checksum | RowError::Malformed(_) => Self::Corrupt(error.to_string()),
        }
    }
}

/// An open database.
pub(super) struct Engine {
    /// `None` only while it is being dropped.
    db: Option<Database>,
    sync_failed: Arc<AtomicBool>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("sync_failed", &self.sync_failed).finish_non_exhaustive()
    }
}

/// What an existing file held.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) engine: Engine,
    pub(super) rows: Rows,
    /// The file is of another schema than ours, or lacks our additions: it should be written anew.
    pub(super) outdated: bool,
    /// The engine found damage and went back to its last good commit.
    pub(super) repaired: bool,
    /// Rows that are sound but mean nothing to us.
    pub(super) skipped: Vec<String>,
}

impl Engine {
    /// Opens an existing database, checks all of it and reads all of it.
    ///
    /// # Errors
    /// [`Trouble`]; the file is unchanged but for the engine's own repair.
    pub(super) fn open(file: Box<dyn StorageBackend>) -> Result<Found, Trouble> {
        let (file, sync_failed) = Watched::new(file);
        guard(|| {
            if file.len().map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Corrupt("the file is empty".to_owned()));
            }
            let looked_at_all = Arc::new(AtomicBool::new(false));
            let repairs = Arc::clone(&looked_at_all);
            let mut builder = builder();
            builder.set_repair_callback(move |_| repairs.store(true, Ordering::Relaxed));
            let mut db = builder.create_with_backend(file).map_err(redb::Error::from)?;
            // A file that was closed is not verified by opening it. One that was not is, and to do it again is two more syncs.
            let sound =
                looked_at_all.load(Ordering::Relaxed) || db.check_integrity().map_err(redb::Error::from)?;
            let read = db.begin_read().map_err(redb::Error::from)?;
            let (rows, schema, skipped) = read_all(&read)?;
            drop(read);
            let engine = Self { db: Some(db), sync_failed };
            let outdated = schema != SCHEMA || rows.additions < ADDITIONS;
            Ok(Found { engine, rows, outdated, repaired: !sound, skipped })
        })
    }

    /// Makes a database with exactly these rows in an empty file, durably.
    ///
    /// # Errors
    /// [`Trouble`]; the file is worthless then.
    pub(super) fn create(file: Box<dyn StorageBackend>, rows: &Rows) -> Result<Self, Trouble> {
        let (file, sync_failed) = Watched::new(file);
        let all = rows.encoded()?;
        guard(|| {
            let db = builder().create_with_backend(file).map_err(redb::Error::from)?;
            let mut engine = Self { db: Some(db), sync_failed };
            engine.transact(&all, &rows.foreign)?;
            Ok(engine)
        })
    }

    /// All of it or nothing, durable on return.
    ///
    /// # Errors
    /// [`Trouble`]. Whether it is in the file is unknown then, and this engine must be dropped.
    pub(super) fn commit(&mut self, writes: &[Encoded<'_>]) -> Result<(), Trouble> {
        guard(|| self.transact(writes, &[]))
    }

    /// Leaves the file as a supervisor that is killed leaves it. To close it would take three syncs more, and everything in
    /// it is durable; the next opening looks at all of it in either case.
    pub(super) fn abandon(mut self) {
        // Thousands in one process are not to be leaked: the played disk takes nothing more of it.
        #[cfg(test)]
        if crate::sys::time::played::is_on() {
            return;
        }
        let _ = std::mem::ManuallyDrop::new(self.db.take());
    }

    /// Whether a sync of this file has ever failed: then it must not be continued.
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Relaxed)
    }

    fn transact(
        &mut self,
        writes: &[Encoded<'_>],
        foreign: &[(String, String, Vec<u8>)],
    ) -> Result<(), Trouble> {
        let Some(db) = &self.db else { return Err(redb::Error::DatabaseClosed.into()) };
        let transaction = db.begin_write().map_err(redb::Error::from)?;
        // The writes come sorted by table, and opening one costs as much as some writes to it.
        for of_a_table in writes.chunk_by(|(one, ..), (next, ..)| one == next) {
            let Some((name, ..)) = of_a_table.first() else { continue };
            let mut table = transaction.open_table(table(name)).map_err(redb::Error::from)?;
            for (_, key, value) in of_a_table {
                match value {
                    Some(bytes) => drop(table.insert(*key, bytes.as_slice()).map_err(redb::Error::from)?),
                    None => drop(table.remove(*key).map_err(redb::Error::from)?),
                }
            }
        }
        for (name, key, bytes) in foreign {
            let mut table = transaction.open_table(table(name)).map_err(redb::Error::from)?;
            drop(table.insert(key.as_str(), bytes.as_slice()).map_err(redb::Error::from)?);
        }
        Ok(transaction.commit().map_err(redb::Error::from)?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let db = self.db.take();
        // Closing writes too, and so can panic on a damaged file.
        let _ = guard(|| {
            drop(db);
            Ok(())
        });
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn table(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

fn read_all(read: &ReadTransaction) -> Result<(Rows, u32, Vec<String>), Trouble> {
    let mut meta: BTreeMap<_, _> = raw(read, META)?.into_iter().collect();
    let mut entry = |key: &str| meta.remove(key).ok_or_else(|| Trouble::Corrupt(format!("it has no {key}")));
    // Before anything else is understood: a newer schema may have changed all of it.
    let schema: u32 = schema::decode(&entry(META_SCHEMA)?)?;
    if schema > NEWEST_SCHEMA {
        return Err(Trouble::Newer(schema));
    }
    let (instance, stamp) = (schema::decode(&entry(META_INSTANCE)?)?, schema::decode(&entry(META_STAMP)?)?);
    let additions: Option<u32> = optional(&mut meta, META_ADDITIONS)?;
    let ends: Option<Vec<Alike>> = optional(&mut meta, META_ENDS)?;
    let boot = optional(&mut meta, META_BOOT)?;
    let lies = optional(&mut meta, META_LIES)?;
    let mut reader =
        Reader { read, newer: additions > Some(ADDITIONS), foreign: Vec::new(), skipped: Vec::new() };
    let mut rows = Rows {
        instance,
        stamp,
        wants: reader.named(WANTS)?,
        records: reader.named(RECORDS)?,
        runs: reader.named(RUNS)?,
        mirrored: reader.named(MIRRORED)?,
        limits: reader.named(LIMITS)?,
        boot,
        lies,
        additions: additions.unwrap_or(0),
        foreign: Vec::new(),
    };
    for (key, run) in ends.iter().flatten().flat_map(|Alike { of, run }| of.iter().map(move |key| (key, run)))
    {
        match ServiceName::of_slot(key) {
            // It is newer than the one in the table.
            Ok(name) => drop(rows.runs.insert(name, Box::new(run.clone()))),
            Err(error) => reader.skipped.push(format!("a history is skipped: {error}")),
        }
    }
    if reader.newer {
        reader.foreign.extend(meta.into_iter().map(|(key, bytes)| (META.to_owned(), key, bytes)));
        reader.unknown_tables()?;
    }
    rows.foreign = reader.foreign;
    Ok((rows, schema, reader.skipped))
}

fn optional<T: DeserializeOwned>(
    meta: &mut BTreeMap<String, Vec<u8>>,
    key: &str,
) -> Result<Option<T>, Trouble> {
    Ok(meta.remove(key).map(|bytes| schema::decode(&bytes)).transpose()?)
}

struct Reader<'a> {
    read: &'a ReadTransaction,
    /// A newer program has added something: what is sound but not understood is kept instead of being called damage.
    newer: bool,
    foreign: Vec<(String, String, Vec<u8>)>,
    skipped: Vec<String>,
}

impl Reader<'_> {
    fn named<T: DeserializeOwned>(&mut self, table: &str) -> Result<BTreeMap<ServiceName, T>, Trouble> {
        let mut rows = BTreeMap::new();
        for (key, bytes) in raw(self.read, table)? {
            let name = match ServiceName::of_slot(&key) {
                Ok(name) => name,
                Err(error) => {
                    self.skipped.push(format!("a row of {table} is skipped: {error}"));
                    if self.newer {
                        self.foreign.push((table.to_owned(), key, bytes));
                    }
                    continue;
                }
            };
            match schema::decode(&bytes) {
                Ok(row) => drop(rows.insert(name, row)),
                Err(RowError::Malformed(text)) if self.newer => {
                    self.skipped.push(format!(
                        "{table} of '{name}' was written by a newer hermes-sup and is not understood: {text}"
                    ));
                    self.foreign.push((table.to_owned(), key, bytes));
                }
                Err(RowError::Malformed(text)) => {
                    return Err(Trouble::Corrupt(format!("{table} of '{name}': {text}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rows)
    }

    /// Tables of text and bytes, which all of them are to be.
    fn unknown_tables(&mut self) -> Result<(), Trouble> {
        const KNOWN: [&str; 6] = [META, WANTS, RECORDS, RUNS, MIRRORED, LIMITS];
        for handle in self.read.list_tables().map_err(redb::Error::from)? {
            let name = handle.name().to_owned();
            if KNOWN.contains(&name.as_str()) {
                continue;
            }
            match raw(self.read, &name) {
                Ok(rows) => {
                    self.foreign.extend(rows.into_iter().map(|(key, bytes)| (name.clone(), key, bytes)));
                }
                Err(error) => self.skipped.push(format!("the table {name} is left alone: {error}")),
            }
        }
        Ok(())
    }
}

/// All entries of a table; none if it does not exist.
fn raw(read: &ReadTransaction, name: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
    let table = match read.open_table(table(name)) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        opened => opened.map_err(redb::Error::from)?,
    };
    let mut entries = Vec::new();
    for entry in table.iter().map_err(redb::Error::from)? {
        let (key, value) = entry.map_err(redb::Error::from)?;
        entries.push((key.value().to_owned(), value.value().to_vec()));
    }
    Ok(entries)
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread, now, will be caught and handled as a damaged database: a panic hook should say
/// nothing then.
pub fn panic_is_expected() -> bool {
    GUARDED.get()
}

/// Does it. Unlike a panic of the engine, one that ends this is told as every bug.
///
/// # Errors
/// [`Unwritten::Bug`], with what the panic said.
pub(super) fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Result<T, Unwritten> {
    // The caller gives up whatever this has left half done.
    catch_unwind(AssertUnwindSafe(work)).map_err(|said| {
        let text = said.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| said.downcast_ref::<&str>().copied());
        Unwritten::Bug(text.unwrap_or("no reason was given").to_owned())
    })
}

fn guard<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let outer = GUARDED.replace(true);
    // What a panic leaves half done is dropped with its handle, never used again.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    done.unwrap_or_else(|_| Err(Trouble::Corrupt("the database engine gave up on it".to_owned())))
}
