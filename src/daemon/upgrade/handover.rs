//! What a supervisor tells the one that it becomes by execve(2), when it is upgraded or has panicked.
//!
//! Children, signal mask and the descriptors named here survive the execution; wants and histories are in the database,
//! the lives that go on in the roster. The rest of what matters is in this document, in a memory file whose number is in
//! an environment variable. Another version may read it: what it does not know it leaves out, and what is missing has a
//! default, so that at the worst a caller loses its connection.

use crate::core::name::ServiceName;
use crate::daemon::services::Told;
use crate::sys::{posture, replace};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Names the descriptor.
pub const VARIABLE: &str = "HERMES_SUP_HANDOVER";
/// Our own program, whatever lies at its path by now (proc_pid_exe(5)).
pub const OURSELVES: &str = "/proc/self/exe";
/// After more panics than this within [`PANIC_WINDOW_MS`] nothing is supervised any more.
const MOST_PANICS: usize = 3;
const PANIC_WINDOW_MS: u64 = 60_000;

/// What makes the document final.
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// See the module head.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Handover {
    /// Of who wrote this.
    pub version: String,
    /// Why it is not the program that was asked for.
    pub refused: Option<String>,
    /// When it panicked, in Unix milliseconds.
    pub panics: Vec<u64>,
    /// The soft and hard limit of open files that children get.
    pub nofile: Option<(u64, u64)>,
    /// The main program, which is our child.
    pub main: Option<i32>,
    /// A shutdown is under way: with the exit code that was asked for, and the main program's.
    pub closing: Option<(Option<u8>, Option<u8>)>,
    /// The socket that listens for callers.
    pub listener: Option<i32>,
    pub callers: Vec<Caller>,
    /// What was said of each service last: nothing is told twice.
    pub told: HashMap<String, Told>,
    /// Services whose stop acts and is not on record, because the disk did not take it.
    pub stopped: Vec<String>,
    /// Beginnings of log lines, by service.
    pub begun: HashMap<String, [Vec<u8>; 2]>,
}

/// A connection to the control socket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Caller {
    pub stream: i32,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub closing: bool,
    /// What it is still owed an answer to, as the protocol has it: another version may know it differently.
    pub request: Option<serde_json::Value>,
}

impl Handover {
    /// The document that we were given, if we were; its variable is nobody else's business.
    pub fn take(environment: &mut BTreeMap<OsString, OsString>) -> Option<Self> {
        let number = environment.remove(OsStr::new(VARIABLE))?.to_str()?.parse().ok()?;
        let memory = posture::take_over(number).ok()?;
        // Anything else under that number was not made by us.
        if !rustix::fs::fcntl_get_seals(&memory).ok()?.contains(SEALS) {
            return None;
        }
        let mut memory = File::from(memory);
        let mut text = String::new();
        memory.rewind().ok()?;
        memory.read_to_string(&mut text).ok()?;
        let handover: Self = serde_json::from_slice(text.as_bytes()).ok()?;
        // A caller that is not taken over before we become another image learns of it by the end of the connection.
        for number in handover.callers.iter().map(|caller| caller.stream).chain(handover.listener) {
            let _ = posture::close_on_exec(number);
        }
        Some(handover)
    }

    /// As [`Self::stopped`](field@Self::stopped), by name.
    pub fn stopped(&self) -> impl Iterator<Item = ServiceName> {
        self.stopped.iter().filter_map(|name| ServiceName::of_slot(name).ok())
    }

    /// What has to survive whatever happens.
    pub fn bare(&self) -> Self {
        Self {
            panics: self.panics.clone(),
            nofile: self.nofile,
            main: self.main,
            closing: self.closing,
            stopped: self.stopped.clone(),
            ..Self::default()
        }
    }

    /// One more panic, at `now` in Unix milliseconds; forgets those that are long ago.
    pub fn panicked(&mut self, now: u64) {
        self.panics.retain(|at| now.saturating_sub(*at) < PANIC_WINDOW_MS);
        self.panics.push(now);
    }

    /// It panics again and again.
    pub fn gives_up(&self) -> bool {
        self.panics.len() > MOST_PANICS
    }

    /// Becomes `program`, or ourselves once more if that cannot be. Returns only if not even that can be, and why.
    pub fn pass(mut self, program: &Path, keep: &[OwnedFd]) -> io::Error {
        env!("CARGO_PKG_VERSION").clone_into(&mut self.version);
        let refused = self.execute(program, keep);
        if program == Path::new(OURSELVES) {
            return refused;
        }
        self.refused = Some(format!("{}: {refused}", program.display()));
        self.execute(Path::new(OURSELVES), keep)
    }

    fn execute(&self, program: &Path, keep: &[OwnedFd]) -> io::Error {
        let memory = || -> io::Result<OwnedFd> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let mut memory = File::from(rustix::fs::memfd_create("handover", flags)?);
            memory.write_all(&serde_json::to_vec(self)?)?;
            rustix::fs::fcntl_add_seals(&memory, SEALS)?;
            Ok(memory.into())
        };
        let memory = match memory() {
            Ok(memory) => memory,
            Err(error) => return error,
        };
        let number = memory.as_raw_fd().to_string();
        let others = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
        let env = others.chain([(VARIABLE.into(), number.into())]).collect();
        let keep: Vec<BorrowedFd<'_>> = keep.iter().chain([&memory]).map(AsFd::as_fd).collect();
        replace::replace(program, std::env::args_os().collect(), env, &keep)
    }
}

/// The program of this name that lies now where ours was started from, also when ours is not there any more.
pub fn own_path() -> io::Result<PathBuf> {
    let path = std::fs::read_link(OURSELVES)?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_left_out_has_a_default_and_what_it_added_is_ignored() {
        let caller = r#"{"stream": 9, "request": {"method": "of-the-future", "parameters": {"new": 1}}}"#;
        let text = format!(r#"{{"main": 7, "of_the_future": true, "callers": [{caller}]}}"#);
        let read: Handover = serde_json::from_str(&text).unwrap();
        assert_eq!((read.main, read.listener, read.callers.len()), (Some(7), None, 1));
    }

    #[test]
    fn a_number_that_is_no_memory_file_is_no_handover() {
        let file = tempfile::tempfile().unwrap();
        let kept = file.try_clone().unwrap();
        for value in [kept.as_raw_fd().to_string(), "1000000".to_owned(), "1".to_owned(), "x".to_owned()] {
            let mut environment = BTreeMap::from([(VARIABLE.into(), value.clone().into())]);
            assert!(Handover::take(&mut environment).is_none(), "{value}");
            assert!(environment.is_empty());
        }
        // It was taken, and closed.
        let _ = std::os::fd::IntoRawFd::into_raw_fd(kept);
    }

    #[test]
    fn panics_count_within_a_minute() {
        let mut handover = Handover::default();
        for at in [0, 30_000, 61_000, 62_000] {
            handover.panicked(at);
        }
        assert!(!handover.gives_up(), "the first is long ago");
        handover.panicked(63_000);
        assert!(handover.gives_up());
    }
}
