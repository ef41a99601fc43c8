//! Which services have finished, for a supervisor that takes over after a SIGKILL: an empty file for each in the runtime directory.
//!
//! The database is told later, when it is convenient, so its row may be about an earlier run than the last one. A file is there
//! from the moment at which a run has ended as it should to that at which the next one begins. So a run whose end nobody saw is
//! never taken for a success.
//!
//! They mean something as long as the work of a killed supervisor goes on; a boot begins without any. They are not synced:
//! after a power cut nothing goes on.

use crate::core::name::ServiceName;
use crate::store::RunRow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The services that have finished.
#[derive(Debug)]
pub(in crate::daemon) struct Finished {
    dir: PathBuf,
    names: BTreeSet<ServiceName>,
}

impl Finished {
    /// Those of the last supervisor if its work `goes_on`, else none. To be asked before a successor of ours could take this for
    /// its own.
    ///
    /// # Errors
    /// As readdir(3), mkdir(2) and rename(2).
    pub fn take_over(
        runtime_dir: &Path,
        goes_on: bool,
        rows: &BTreeMap<ServiceName, RunRow>,
    ) -> io::Result<Self> {
        let dir = runtime_dir.join("finished");
        if goes_on && dir.is_dir() {
            let names = fs::read_dir(&dir)?
                .filter_map(|entry| ServiceName::of_slot(entry.ok()?.file_name().to_str()?).ok())
                .collect();
            return Ok(Self { dir, names });
        }
        // A release that kept no such files knows it of the database alone.
        let known = rows.iter().filter(|(_, row)| goes_on && row.finished);
        let names = known.map(|(name, _)| name.clone()).collect();
        let next = dir.with_extension("next");
        for old in [&dir, &next] {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::create_dir(&next)?;
        let made = Self { dir: next, names };
        made.names.iter().try_for_each(|name| made.write(name))?;
        fs::rename(&made.dir, &dir)?;
        Ok(Self { dir, ..made })
    }

    pub fn contains(&self, name: &ServiceName) -> bool {
        self.names.contains(name)
    }

    /// Notes that the service has finished, or that it has not.
    ///
    /// # Errors
    /// As open(2) and unlink(2).
    pub fn set(&mut self, name: &ServiceName, finished: bool) -> io::Result<()> {
        if finished == self.names.contains(name) {
            return Ok(());
        }
        if finished {
            self.names.insert(name.clone());
            return self.write(name);
        }
        self.names.remove(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Services that are no more.
    pub fn forget_others(&mut self, is_there: impl Fn(&ServiceName) -> bool) {
        let others: Vec<ServiceName> = self.names.iter().filter(|name| !is_there(name)).cloned().collect();
        for name in others {
            // One that stays is found by the next supervisor.
            let _ = self.set(&name, false);
        }
    }

    fn write(&self, name: &ServiceName) -> io::Result<()> {
        File::create(self.path(name)).map(drop)
    }

    fn path(&self, name: &ServiceName) -> PathBuf {
        self.dir.join(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ServiceName {
        ServiceName::of_slot(name).unwrap()
    }

    fn rows(finished: &[&str]) -> BTreeMap<ServiceName, RunRow> {
        finished.iter().map(|one| (name(one), RunRow { finished: true, ..RunRow::default() })).collect()
    }

    #[test]
    fn a_successor_of_a_killed_supervisor_finds_what_has_finished_and_nothing_else() {
        let runtime = tempfile::tempdir().unwrap();
        let take_over = |goes_on, finished: &[&str]| {
            Finished::take_over(runtime.path(), goes_on, &rows(finished)).unwrap().names
        };
        let mut first = Finished::take_over(runtime.path(), false, &rows(&["stale"])).unwrap();
        assert!(first.names.is_empty(), "a boot");
        for one in ["a.b", "migrate", "again"] {
            first.set(&name(one), true).unwrap();
        }
        // Its second run has begun, and the database knows of the first one only.
        first.set(&name("again"), false).unwrap();
        first.set(&name("never"), false).unwrap();
        first.set(&name("unregistered"), true).unwrap();
        first.forget_others(|one| one.as_str() != "unregistered");
        assert_eq!(take_over(true, &["again"]), [name("a.b"), name("migrate")].into());
        assert!(take_over(false, &["migrate"]).is_empty(), "another boot");
        assert!(take_over(true, &["migrate"]).is_empty(), "its successor");
    }

    #[test]
    fn what_an_older_release_has_finished_is_known_of_the_database() {
        let runtime = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let after = Finished::take_over(runtime.path(), true, &rows(&["migrate"])).unwrap();
            assert!(after.contains(&name("migrate")) && !after.contains(&name("web")));
        }
    }
}
