//! A claim on a state that another supervisor has and gives up when it is asked: how two containers that share nothing
//! but a volume agree.
//!
//! The file `private/claim` beside the lock is the bell; who gives way has one beside each of its locks, that of the state and
//! that of the home. Who claims locks it (flock(2)), then writes its own note into
//! it. Who gives way watches the file (inotify(7)); a write to it is a claim as long as the writer holds its lock, so
//! that the note of a claimant that is gone, or a copied file, is none. The claimant then waits for the lock of the
//! state itself. The kernel gives both locks back when a process ends, however it ends.
//!
//! Everything here blocks on the file system and belongs in a helper thread.

use super::Options;
use super::lock::{self, Holder, MODE, PLACE};
use super::place::StateDir;
use super::session::locked_dirs;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const NAME: &str = "claim";

/// A claim, held until dropped.
#[derive(Debug)]
pub struct Claim {
    _file: File,
    place: StateDir,
}

impl Claim {
    /// Claims what is locked in `dir`: a state, or a home whose supervisor has its state elsewhere. `None`: somebody else
    /// claims it already.
    ///
    /// # Errors
    /// As openat(2), flock(2) and write(2).
    pub fn make(options: &Options, dir: &Path) -> io::Result<Option<Self>> {
        let place = private(options, dir)?;
        let file = open(&place)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        let since = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let note = Holder {
            pid: std::process::id(),
            host: options.host.clone(),
            since,
            gives_way_ms: None,
            dir: None,
        };
        let line = serde_json::to_string(&note)? + "\n";
        // Written before it is cut: a reader in between sees one whole line.
        file.write_all_at(line.as_bytes(), 0)?;
        file.set_len(line.len() as u64)?;
        Ok(Some(Self { _file: file, place }))
    }

    /// Waits until the holder has let go of the state, for as long as that takes. It is free then, not taken.
    ///
    /// # Errors
    /// As openat(2) and flock(2).
    pub fn wait(&self) -> io::Result<()> {
        let lock = lock::open(&self.place, &mut Vec::new())?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                locked => return Ok(locked?),
            }
        }
    }
}

/// The bell of who gives way. Its descriptor is readable when somebody may have rung it.
#[derive(Debug)]
pub struct Bell {
    /// Of the state, and of the home.
    files: Vec<File>,
    watch: OwnedFd,
}

impl Bell {
    /// Watches for claims. One that was made before is not reported by the descriptor: ask [`claimant`] once.
    ///
    /// # Errors
    /// As openat(2), inotify_init(2) and inotify_add_watch(2).
    pub fn hang(options: &Options) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let hang = |dir: &PathBuf| {
            let file = open(&private(options, dir)?)?;
            // There is no watch on a descriptor; its link in /proc names exactly what was opened.
            inotify::add_watch(&watch, format!("/proc/self/fd/{}", file.as_raw_fd()), WatchFlags::MODIFY)?;
            Ok(file)
        };
        let files = locked_dirs(options).iter().map(hang).collect::<io::Result<_>>()?;
        Ok(Self { files, watch })
    }

    /// Takes every event that waits.
    pub fn heard(&self) {
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut events = Reader::new(&self.watch, &mut space);
        while events.next().is_ok() {}
    }

    /// Other handles on the files, for the thread that may wait for them.
    ///
    /// # Errors
    /// As fcntl(2), F_DUPFD_CLOEXEC.
    pub fn files(&self) -> io::Result<Vec<File>> {
        self.files.iter().map(File::try_clone).collect()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// Who claims the state, or the home, now; `files` are a [`Bell`]'s.
pub fn claimant(files: Vec<File>) -> Option<Holder> {
    files.into_iter().find_map(claimant_in)
}

fn claimant_in(mut file: File) -> Option<Holder> {
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingUnlock);
        return None;
    }
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(4096).read_to_end(&mut text).ok()?;
    serde_json::from_slice(text.split(|byte| *byte == b'\n').next()?).ok()
}

fn private(options: &Options, dir: &Path) -> io::Result<StateDir> {
    let mut warnings = Vec::new();
    let dir = StateDir::open(&options.home, dir, options.gid, &mut warnings)?;
    Ok(dir.private(PLACE, &mut warnings)?)
}

/// Never removed: a lock on a removed file would tell nobody anything.
fn open(place: &StateDir) -> io::Result<File> {
    let mut warnings = Vec::new();
    if let Some(file) = place.existing(NAME, OFlags::RDWR, MODE, &mut warnings)? {
        return Ok(file);
    }
    match place.create(NAME, MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            place.existing(NAME, OFlags::RDWR, MODE, &mut warnings)?.ok_or(error)
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{OpenError, Opened, Store, begin};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::time::Duration;

    fn options(home: &tempfile::TempDir) -> Options {
        Options {
            home: home.path().to_owned(),
            dir: home.path().join("supervisor"),
            gid: rustix::process::getegid().as_raw(),
            host: "box".to_owned(),
            patience: Duration::from_secs(60),
            gives_way: Some(Duration::from_secs(9)),
            is_init: false,
        }
    }

    fn rings(bell: &Bell) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    /// A claim counts while the claimant lives; one at a time.
    #[test]
    fn a_claim_rings_and_ends_with_the_claimant() {
        let home = tempfile::tempdir().unwrap();
        let options = options(&home);
        let bell = Bell::hang(&options).unwrap();
        let claimed = || claimant(bell.files().unwrap());
        assert!(!rings(&bell));
        assert_eq!(claimed(), None);
        let claim = Claim::make(&options, &options.dir).unwrap().unwrap();
        assert!(rings(&bell));
        bell.heard();
        assert!(!rings(&bell));
        assert_eq!(claimed().map(|note| (note.pid, note.host)), Some((std::process::id(), "box".to_owned())));
        assert!(Claim::make(&options, &options.dir).unwrap().is_none(), "a second one at the same time");
        drop(claim);
        assert_eq!(claimed(), None, "its note is still there and says nothing");
        let later = Claim::make(&options, &options.dir).unwrap().unwrap();
        assert!(Bell::hang(&options).is_ok_and(|bell| claimant(bell.files().unwrap()).is_some()));
        drop(later);
    }

    fn open_state(options: &Options) -> Result<(Store, Opened), OpenError> {
        begin(options.clone(), |_| {})?.wait(|| true)
    }

    /// The state of one was elsewhere: it went on with the home's gateways, and the container that is there for them was refused.
    #[test]
    fn who_has_its_state_elsewhere_hears_a_claim_on_the_home() {
        let home = tempfile::tempdir().unwrap();
        let usual = options(&home);
        let elsewhere = Options { dir: home.path().join("elsewhere"), ..options(&home) };
        for (holder, newcomer) in [(&elsewhere, &usual), (&usual, &elsewhere)] {
            let (store, _) = open_state(holder).unwrap();
            let bell = Bell::hang(holder).unwrap();
            let Err(OpenError::Held { path, holder }) = open_state(newcomer) else {
                panic!("it is held");
            };
            assert_eq!(holder.and_then(|holder| holder.gives_way_ms), Some(9000));
            let claim = Claim::make(newcomer, &path).unwrap().unwrap();
            assert!(rings(&bell) && claimant(bell.files().unwrap()).is_some());
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| claim.wait());
                store.close(Duration::from_secs(60)).unwrap();
                waiting.join().unwrap().unwrap();
            });
        }
    }

    /// What the holder says of itself is read by who finds the state held; the wait ends with its lock.
    #[test]
    fn the_claimant_waits_for_the_lock() {
        let home = tempfile::tempdir().unwrap();
        let options = options(&home);
        let (store, _) = open_state(&options).unwrap();
        let Err(OpenError::Held { holder, .. }) = open_state(&options) else {
            panic!("it is held");
        };
        assert_eq!(holder.and_then(|holder| holder.gives_way_ms), Some(9000));
        let claim = Claim::make(&options, &options.dir).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| claim.wait());
            store.close(Duration::from_secs(60)).unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert!(open_state(&options).is_ok());
    }
}
