//! What the services write: from their FIFOs to the container's streams and to rotated files.
//!
//! ```text
//! service ─FIFO─▶ pump ─▶ Container (stdout, stderr: a thread each, drops behind a stuck reader)
//!                   └───▶ Backlog ─▶ files (a thread: log files, rotation, other work under --home)
//! ```
//!
//! Invariants: a call from the loop never waits for a disk or a reader; when nothing is written, no thread wakes; an
//! idle service costs two descriptors and some hundred bytes; what a service wrote before it died reaches its file.
//! Between FIFO and file the bytes of one service keep their order, and every line that is left out is counted.
//!
//! The threads inherit the signal mask: block signals before they are started.

mod backlog;
mod busy;
mod drain;
mod dress;
mod fifo;
mod files;
mod logdir;
mod logfile;
#[cfg(test)]
pub mod played;
mod pump;
mod read;
mod rotate;
mod split;
mod stamp;
mod stream;
pub mod tai64n;

pub use crate::core::line::Line;
pub use backlog::{FilesHandle, Refused};
pub use drain::OwnLog;
pub use dress::Dress;
pub use logdir::{Clock, LogDir, Times};
pub use read::{Absent, Handed, Query, Reader, open_newest, with_access};
pub use stream::{Container, StreamHealth};

use crate::core::farewell::Farewell;
use crate::core::name::ServiceName;
use crate::core::words::{Overflow, Stream};
use crate::sys::credentials::Credentials;
use crate::sys::localtime::Zone;
use backlog::{Backlog, Item};
use fifo::FifoDir;
use files::Files;
use logfile::LogFile;
use pump::{Command, Pump, Remote, Watch};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Virtual size; only what is used counts.
const THREAD_STACK: usize = 256 * 1024;

/// A service in this room: a small number that the caller chooses, free again after [`LogEvent::Closed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

/// What the room reports, from its own threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// Everything that was in the service's FIFOs at [`Logs::drain`] is in its file. Also after two seconds, with a
    /// warning, when the disk hangs: what is left then stays in order before the next incarnation's lines.
    Drained(SourceId),
    /// The pattern of [`Logs::watch`] matched a line.
    Matched { id: SourceId, incarnation: u64 },
    /// After [`Logs::close`]: file closed, FIFOs removed.
    Closed(SourceId),
    /// For the supervisor's own log and `status`.
    Warning { id: Option<SourceId>, text: String },
}

/// Where and how a service's output is kept.
#[derive(Debug, Clone)]
pub struct LogSpec {
    pub name: ServiceName,
    pub home: PathBuf,
    /// Relative to `home`, such as `logs/gateways/coder`.
    pub dir: PathBuf,
    /// Bytes of a file before it is rotated. A single longer line is not cut.
    pub max_size: u64,
    /// Archives.
    pub keep: u32,
    pub to_container: bool,
    /// How its lines look there.
    pub dress: Dress,
    pub overflow: Overflow,
    /// Who owns the files, and with whose rights they are opened.
    pub owner: Credentials,
    /// The group that may read the files, where it is not the owner's: that of the user whom the service runs as.
    pub readers: Option<u32>,
    /// Who writes into the FIFOs, and owns them.
    pub writer: Credentials,
}

impl LogSpec {
    /// Of the owner, with the readers' group as that of what is made.
    fn file_credentials(&self) -> Credentials {
        let mut who = self.owner.clone();
        if let Some(group) = self.readers {
            who.join(who.gid);
            who.gid = group;
        }
        who
    }
}

/// How one service's log does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceHealth {
    /// Lines, since the service was opened here.
    pub dropped_from_stream: u64,
    pub dropped_from_file: u64,
    /// Why the last write failed; `None` when it did not.
    pub file_error: Option<String>,
}

/// How the room does: how long each destination has been at the piece of work in its hand; `None` when idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    pub files_busy: Option<Duration>,
    pub stdout: StreamHealth,
    pub stderr: StreamHealth,
}

/// What the threads and the front know together about one service.
#[derive(Debug, Default)]
struct Shared {
    dropped_from_stream: AtomicU64,
    dropped_from_file: AtomicU64,
    /// Bytes on their way to the file.
    backlog: AtomicUsize,
    /// The pump reads, or keeps back the beginning of a line.
    in_hand: AtomicBool,
    file_error: Mutex<Option<String>>,
}

impl Shared {
    /// Nothing is on its way to the file.
    fn is_written(&self) -> bool {
        self.backlog.load(Ordering::Acquire) == 0
    }
}

/// Our ends of a service's two FIFOs. Closing them takes them out of the pump's epoll.
#[derive(Debug)]
struct Ends([OwnedFd; 2]);

impl Ends {
    fn of(&self, kind: Stream) -> &OwnedFd {
        let [out, err] = &self.0;
        match kind {
            Stream::Out => out,
            Stream::Err => err,
        }
    }

    /// For a child, as [`FifoDir::child_ends`], also where the FIFOs have no names any more.
    fn for_child(&self, owner: &Credentials) -> io::Result<(OwnedFd, OwnedFd)> {
        let open = |kind| -> io::Result<OwnedFd> {
            let path = format!("/proc/self/fd/{}", self.of(kind).as_raw_fd());
            Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
        };
        owner.on_files(|| Ok((open(Stream::Out)?, open(Stream::Err)?)))?
    }

    fn are_empty(&self) -> bool {
        self.0.iter().all(|end| rustix::io::ioctl_fionread(end).is_ok_and(|bytes| bytes == 0))
    }
}

/// A service that is open, as the front knows it.
#[derive(Debug)]
struct Open {
    name: ServiceName,
    writer: Credentials,
    ends: Arc<Ends>,
    shared: Arc<Shared>,
}

type Notify = Box<dyn Fn(LogEvent) + Send>;

/// The room's front.
#[derive(Debug)]
pub struct Logs {
    fifos: FifoDir,
    remote: Arc<Remote>,
    backlog: Arc<Backlog>,
    container: Container,
    sources: Mutex<foldhash::HashMap<SourceId, Open>>,
    /// The threads have not been told yet of all that was opened or has ended.
    unannounced: AtomicBool,
    /// FIFOs that are not needed any more stay where they are.
    /// Beginnings of lines that an earlier life of ours has read.
    begun: Mutex<Begun>,
    ended: Mutex<Receiver<()>>,
}

/// By service: the beginnings of the lines, on stdout and stderr, whose ends have not come.
pub type Begun = HashMap<String, [Vec<u8>; 2]>;

impl Logs {
    /// Starts the threads. FIFOs go into `<runtime_dir>/log/`; `notify` is called from those threads and must not wait.
    ///
    /// # Errors
    /// As mkdir(2), epoll_create(2), eventfd(2), pthread_create(3).
    pub fn start(
        runtime_dir: &Path,
        container: Container,
        notify: impl Fn(LogEvent) + Send + Clone + 'static,
    ) -> io::Result<Self> {
        let (logs, files, pump, alive) = Self::make(runtime_dir, container, notify)?;
        files.start(alive.clone())?;
        let pump = pump.start(alive);
        if pump.is_err() {
            logs.backlog.stop();
        }
        pump?;
        Ok(logs)
    }

    /// The front, and what its threads are to do; the sender is dropped by each at its end.
    fn make(
        runtime_dir: &Path,
        container: Container,
        notify: impl Fn(LogEvent) + Send + Clone + 'static,
    ) -> io::Result<(Self, Files, Pump, Sender<()>)> {
        // Read here: it takes more stack than the threads have.
        let _ = Zone::own();
        let fifos = FifoDir::open(runtime_dir)?;
        let remote = Arc::new(Remote::new()?);
        let backlog = Arc::new(Backlog::new(Arc::clone(&remote)));
        let (alive, ended) = channel();
        let files = Files::new(Arc::clone(&backlog), Box::new(notify.clone()));
        let (ours, to) = (Arc::clone(&remote), Arc::clone(&backlog));
        let pump = Pump::new(fifos.duplicate()?, ours, to, container.clone(), Box::new(notify))?;
        let (sources, begun, ended) = (Mutex::default(), Mutex::default(), Mutex::new(ended));
        let unannounced = AtomicBool::new(false);
        Ok((
            Self { fifos, remote, backlog, container, sources, unannounced, begun, ended },
            files,
            pump,
            alive,
        ))
    }

    /// Goes on with lines whose beginnings were read by our predecessor; each service's when it is opened.
    pub fn resume(&self, begun: Begun) {
        *lock(&self.begun) = begun;
    }

    /// Makes the FIFOs of a service, or takes over those that an earlier life left, and its directory and file. For an
    /// id that is open, the new spec takes effect, but for name and FIFOs. The threads hear of it at the next
    /// [`Self::announce`]; what is written meanwhile waits in the FIFOs.
    ///
    /// # Errors
    /// As mkfifo(3), open(2), chown(2) in the runtime directory. Trouble with the file is a later warning.
    pub fn open(&self, id: SourceId, spec: LogSpec) -> io::Result<()> {
        self.open_for(id, spec, None)
    }

    /// The same for a service that runs already, with this main process: also FIFOs that somebody has removed are taken over, from
    /// that.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(&self, id: SourceId, spec: LogSpec, main: Option<i32>) -> io::Result<()> {
        let mut sources = lock(&self.sources);
        let (name, to_container, dress, overflow) =
            (spec.name.clone(), spec.to_container, spec.dress, spec.overflow);
        let (shared, ends, begun) = match sources.get_mut(&id) {
            Some(known) => {
                if known.writer.uid != spec.writer.uid && self.fifos.give(&name, &spec.writer) {
                    known.writer = spec.writer.clone();
                }
                (Arc::clone(&known.shared), None, Default::default())
            }
            None => {
                let ends = Arc::new(Ends(match main {
                    Some(main) => self.fifos.take_over(&name, &spec.writer, main)?,
                    None => self.fifos.make(&name, &spec.writer)?,
                }));
                let begun: [Vec<u8>; 2] = lock(&self.begun).remove(name.as_str()).unwrap_or_default();
                let shared = Arc::new(Shared::default());
                shared.in_hand.store(begun.iter().any(|line| !line.is_empty()), Ordering::Release);
                let (ends_too, shared_too) = (Arc::clone(&ends), Arc::clone(&shared));
                let writer = spec.writer.clone();
                let open = Open { name: name.clone(), writer, ends: ends_too, shared: shared_too };
                sources.insert(id, open);
                (shared, Some(ends), begun)
            }
        };
        drop(sources);
        self.backlog.push_leisurely(Item::Open(id, Box::new(LogFile::new(spec, Arc::clone(&shared)))));
        self.remote.post(Command::Open { id, name, ends, begun, to_container, dress, overflow, shared });
        self.unannounced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Tells the threads of what was opened or has ended: once for many. With `more_to_come`, empty files are not made yet: a boot
    /// starts its services first, and whatever writes a line has its file at once.
    pub fn announce(&self, more_to_come: bool) {
        if self.unannounced.swap(more_to_come, Ordering::Relaxed) {
            self.remote.announce();
            self.backlog.rush(more_to_come);
        }
    }

    /// Descriptors for a child's stdout and stderr: blocking, close-on-exec, to be closed here once the child has them.
    ///
    /// # Errors
    /// `NotFound` for an id that is not open; as open(2).
    pub fn child_ends(&self, id: SourceId) -> io::Result<(OwnedFd, OwnedFd)> {
        let sources = lock(&self.sources);
        let open = sources.get(&id).ok_or(io::ErrorKind::NotFound)?;
        match self.fifos.child_ends(&open.name, &open.writer) {
            // Somebody has removed them, and the life that has them goes on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => open.ends.for_child(&open.writer),
            ends => ends,
        }
    }

    /// The same for the first process of a life: FIFOs that somebody has removed are made again, where a successor finds them.
    ///
    /// # Errors
    /// As [`Self::child_ends`] and [`Self::open`].
    pub fn first_ends(&self, id: SourceId) -> io::Result<(OwnedFd, OwnedFd)> {
        let mut sources = lock(&self.sources);
        let open = sources.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        match self.fifos.child_ends(&open.name, &open.writer) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            ends => return ends,
        }
        open.ends = Arc::new(Ends(self.fifos.make(&open.name, &open.writer)?));
        self.remote.send(Command::Renew(id, Arc::clone(&open.ends)));
        self.fifos.child_ends(&open.name, &open.writer)
    }

    /// Reports the first line from now on that `pattern` matches, once, as [`LogEvent::Matched`]; in place of an earlier pattern.
    /// Lines of an earlier life are not among them once they are drained.
    pub fn watch(&self, id: SourceId, incarnation: u64, pattern: Arc<regex_lite::Regex>) {
        self.remote.send(Command::Watch(id, Watch { incarnation, pattern }));
    }

    /// The service's tree is empty: bring what it left in the FIFOs to its file, end its torn last lines, then report
    /// [`LogEvent::Drained`]. A stranger who holds the FIFO open cannot prolong this: what counts is what is in it now.
    ///
    /// Returns true when nothing that it wrote is on its way: all of this is done then, and nothing is reported.
    #[must_use]
    pub fn drain(&self, id: SourceId) -> bool {
        // In this order: what has left a FIFO is in the pump's hand, and what has left that is in the backlog.
        let is_drained = lock(&self.sources).get(&id).is_none_or(|open| {
            open.ends.are_empty() && !open.shared.in_hand.load(Ordering::Acquire) && open.shared.is_written()
        });
        if !is_drained {
            self.remote.send(Command::Drain(id));
        }
        is_drained
    }

    /// Drains, closes the file, removes the FIFOs, reports [`LogEvent::Closed`]. Do not open `id` again before that.
    pub fn close(&self, id: SourceId) {
        if lock(&self.sources).remove(&id).is_some() {
            self.remote.send(Command::Close(id));
        }
    }

    /// The service has ended for good, and nothing is opened under its name any more. Its FIFOs are removed if nothing is left
    /// in them and `farewell` says so; what is on its way to the file gets there. The threads hear of it at the next
    /// [`Self::announce`].
    pub fn retire(&self, id: SourceId, farewell: Farewell) {
        if lock(&self.sources).remove(&id).is_some() {
            self.remote.post(Command::Retire { id, farewell });
            self.unannounced.store(true, Ordering::Relaxed);
        }
    }

    /// Removes the FIFOs of those who are not there any more: their supervisor was killed before it came to that.
    pub fn remove_others(&self, is_there: impl Fn(&ServiceName) -> bool) {
        self.fifos.remove_others(is_there);
    }

    /// Whether service lines go to the container's streams: not while a main program has the terminal. At first: yes.
    pub fn container_stream(&self, on: bool) {
        self.remote.send(Command::ContainerStream(on));
    }

    /// What became of a service's output; zeros for an id that is not open.
    pub fn health(&self, id: SourceId) -> SourceHealth {
        lock(&self.sources).get(&id).map_or_else(SourceHealth::default, |open| SourceHealth {
            dropped_from_stream: open.shared.dropped_from_stream.load(Ordering::Relaxed),
            dropped_from_file: open.shared.dropped_from_file.load(Ordering::Relaxed),
            file_error: lock(&open.shared.file_error).clone(),
        })
    }

    pub fn overall(&self) -> Health {
        Health {
            files_busy: self.backlog.busy(),
            stdout: self.container.health(Stream::Out),
            stderr: self.container.health(Stream::Err),
        }
    }

    /// The thread that may wait for disks, for other work under `--home`.
    pub fn files(&self) -> FilesHandle {
        FilesHandle::new(Arc::clone(&self.backlog))
    }

    /// Writes out everything that is there and ends pump and files; the FIFOs stay, for a successor. Waits `limit` at
    /// most and returns whether all was written. The container's streams go on until [`Container::finish`].
    pub fn finish(&self, limit: Duration) -> bool {
        self.end(limit, None)
    }

    /// As [`Self::finish`], but for lines whose ends have not come: their beginnings are for [`Self::resume`].
    pub fn hand_over(&self, limit: Duration) -> Begun {
        let (sender, receiver) = channel();
        self.end(limit, Some(sender));
        receiver.try_iter().collect()
    }

    fn end(&self, limit: Duration, begun: Option<Sender<(String, [Vec<u8>; 2])>>) -> bool {
        self.remote.send(Command::Finish(limit, begun));
        // Nobody sends: the channel ends when both threads have.
        lock(&self.ended).recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

/// A thread that panicked while it held one of these locks left plain numbers and bytes: usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
