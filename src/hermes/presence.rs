//! Whether a profile is there for its gateway, and whether somebody else runs it: looked at before each start.
//!
//! A gateway holds flock(2) on `gateway.lock` in its home for as long as it lives, with a record of itself in it. The
//! lock is not tried here, for that could make a gateway that is just starting believe that there is another; the
//! record names pid and start, which cannot be another process's.

use super::planned_stop::start_time;
use super::redirect::{gateway_process, keeps_foreground};
use crate::core::name::ServiceName;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use procfs::process::Process;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

const LOCK: &str = "gateway.lock";
const MOST: u64 = 1 << 16;
const MOST_PROCESSES: usize = 256;

/// What was found in the home of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// There is no such directory.
    Gone,
    /// `gateway`: the process that says that it is the gateway, if it lives.
    There { gateway: Option<u32> },
}

/// Looks into the profile's `directory` (relative to home). What cannot be read counts as there: only a directory that
/// is known to be missing is gone. Blocks on the file system.
pub fn look(home: &Beneath, user: &Credentials, directory: &Path) -> Presence {
    let looked = user.on_files(|| {
        if home.dir(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Presence::Gone;
        }
        let record = home.read(&directory.join(LOCK), MOST).ok();
        Presence::There { gateway: record.and_then(|record| living(&record)) }
    });
    looked.unwrap_or(Presence::There { gateway: None })
}

/// The process of a record, if it is still that process.
fn living(record: &[u8]) -> Option<u32> {
    let record: Value = serde_json::from_slice(record).ok()?;
    let pid = u32::try_from(record.get("pid")?.as_u64()?).ok()?;
    let started = record.get("start_time")?.as_u64()?;
    (start_time(pid) == Some(started)).then_some(pid)
}

/// The process of the tree of `ancestor` that is the gateway of the service `name`, by its command line: one that has just
/// ended ours to take its place has no record yet. `handed_over`: `hermes` gives a `gateway run` to the supervisor, unless
/// that one was told to stay in the foreground. The first [`MOST_PROCESSES`] are looked at.
pub fn gateway_below(ancestor: u32, name: &ServiceName, handed_over: bool) -> Option<u32> {
    let mut tree = vec![ancestor];
    let mut at = 0;
    while let Some(pid) = tree.get(at).copied() {
        at += 1;
        let Some(process) = process(pid) else { continue };
        let argv: Vec<OsString> =
            process.cmdline().unwrap_or_default().into_iter().map(OsString::from).collect();
        if gateway_process(&argv).is_some_and(|gateway| gateway == *name) {
            let environment = process.environ().unwrap_or_default();
            let variable = |key: &str| environment.get(OsStr::new(key)).cloned();
            if !handed_over || keeps_foreground(&argv, variable) {
                return Some(pid);
            }
        }
        let tasks = process.tasks().into_iter().flatten().flatten();
        tree.extend(tasks.filter_map(|task| task.children().ok()).flatten());
        tree.truncate(MOST_PROCESSES);
    }
    None
}

/// Whether the process is `ancestor` or a descendant of it, by the parents that /proc names now.
pub fn descends_from(pid: u32, ancestor: u32) -> bool {
    let parents = std::iter::successors(Some(pid), |pid| parent(*pid));
    // A circle cannot be, but a pid may be used again while this is read.
    parents.take(1024).any(|pid| pid == ancestor)
}

fn parent(pid: u32) -> Option<u32> {
    u32::try_from(process(pid)?.stat().ok()?.ppid).ok().filter(|parent| *parent != 0)
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_process_that_is_the_one_of_the_record_counts() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let look = || look(&beneath, &own, Path::new("profiles/coder"));
        assert_eq!(look(), Presence::Gone);
        let profile = home.path().join("profiles/coder");
        std::fs::create_dir_all(&profile).unwrap();
        assert_eq!(look(), Presence::There { gateway: None });
        let me = std::process::id();
        let started = start_time(me).unwrap();
        for (text, expected) in [
            (format!(r#"{{"pid":{me},"start_time":{started},"kind":"hermes-gateway"}}"#), Some(me)),
            (format!(r#"{{"pid":{me},"start_time":{}}}"#, started + 1), None),
            (format!(r#"{{"pid":{me}}}"#), None),
            ("{".to_owned(), None),
        ] {
            std::fs::write(profile.join(LOCK), &text).unwrap();
            assert_eq!(look(), Presence::There { gateway: expected }, "{text}");
        }
    }

    #[test]
    fn a_tree_is_known_by_its_parents() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let me = std::process::id();
        assert!(descends_from(child.id(), me) && descends_from(me, me));
        assert!(!descends_from(me, child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
