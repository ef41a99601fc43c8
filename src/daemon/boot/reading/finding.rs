//! Reads everything that lies in files: definitions, profiles, slots.
//!
//! A file may be on a volume that hangs, or takes long. So each is read by itself, by a thread that may wait for it; when
//! nothing comes for a moment another thread goes on with the rest. What is there after a while is taken, what is late is
//! named, keeps its name, and is taken when it comes. One file never hides another.

use crate::core::name::ServiceName;
use crate::daemon::Options;
use crate::daemon::topics::definitions::found::{Environment, Found, Surface};
use crate::definition::diagnose::Diagnostic;
use crate::definition::load::{self, Candidate, Directory, Listed, Loaded};
use crate::definition::template::DEFAULT_PROFILE;
use crate::definition::trust::{Place, Trust};
use crate::definition::{Surroundings, dashboard};
use crate::hermes::profile_watch::ProfileWatch;
use crate::hermes::profiles::{self, Discovered, ProfileError};
use crate::hermes::redirect::is_yes;
use crate::hermes::state_json::{self, Intent};
use crate::s6::SCAN_DIRECTORY;
use crate::sys::beneath::Beneath;
use rustix::event::Timespec;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nothing came for so long: another thread goes on with the rest.
const HELP_AFTER: Duration = Duration::from_millis(100);
/// Threads of one reading.
const MOST_THREADS: usize = 64;
/// Threads of all readings that are in one directory: what hangs, hangs for all of them.
const MOST_IN_DIRECTORY: usize = 16;
/// Entries of `profiles/` that are looked at: its owner may have made millions.
const MOST_ENTRIES: usize = 10_000;
/// Between attempts to read what the system refuses for reasons that may pass, in nanoseconds.
const PAUSES: [i64; 3] = [1_000_000, 10_000_000, 100_000_000];
/// What comes late and close together is taken together.
const TOGETHER: Duration = Duration::from_secs(1);

/// What is to be read.
#[derive(Debug, Clone)]
pub struct Sources {
    dirs: Vec<PathBuf>,
    state: PathBuf,
    around: Surroundings,
    has_hermes: bool,
    s6_surface: bool,
    env: Environment,
    watch: Option<Arc<ProfileWatch>>,
    busy: Busy,
}

impl Sources {
    pub(in crate::daemon) fn new(
        options: &Options,
        around: Surroundings,
        has_hermes: bool,
        watch: Option<Arc<ProfileWatch>>,
        busy: Busy,
    ) -> Self {
        Self {
            dirs: options.services.clone(),
            state: options.state.clone(),
            around,
            has_hermes,
            s6_surface: options.s6_surface,
            env: options.environment.clone(),
            watch,
            busy,
        }
    }
}

/// How many threads are in each directory.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<HashMap<PathBuf, usize>>>);

impl Busy {
    /// False: too many are in it already.
    fn enter(&self, directory: &Path) -> bool {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = busy.entry(directory.to_owned()).or_default();
        let enters = *inside < MOST_IN_DIRECTORY;
        *inside += usize::from(enters);
        enters
    }

    fn leave(&self, directory: &Path) {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inside) = busy.get_mut(directory) {
            *inside -= 1;
            if *inside == 0 {
                busy.remove(directory);
            }
        }
    }
}

/// One thing to be read.
#[derive(Debug, Clone)]
enum Task {
    /// `profiles/`.
    Profiles,
    /// One entry of it.
    Profile(Arc<Beneath>, OsString),
    /// The state file of the root profile.
    Root,
    /// A services directory.
    Directory(PathBuf),
    /// A definition in it.
    File(Arc<Listed>, PathBuf),
    Surface,
    /// How far the place of the database is to be believed.
    Trust,
}

/// What came of it.
#[derive(Debug)]
enum Done {
    Profiles(io::Result<Option<(Beneath, Vec<OsString>)>>),
    Profile(OsString, Judged),
    Root(io::Result<Intent>),
    Directory(PathBuf, io::Result<Listed>),
    File(PathBuf, Candidate),
    Surface(Surface, Vec<String>),
    Trust(Trust),
}

impl Done {
    /// Why the system did not let it be read.
    fn failure(&self) -> Option<&io::Error> {
        match self {
            Self::Profiles(Err(error)) | Self::Root(Err(error)) | Self::Directory(_, Err(error)) => {
                Some(error)
            }
            Self::Profile(_, Ok(Some((_, Err(error))))) => Some(error),
            Self::File(_, candidate) => candidate.unread(),
            Self::Profiles(Ok(_))
            | Self::Profile(..)
            | Self::Root(Ok(_))
            | Self::Directory(_, Ok(_))
            | Self::Surface(..)
            | Self::Trust(_) => None,
        }
    }
}

/// Nothing is wrong with the file: the machine has no descriptors or no memory now, or its disk stumbled.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::IO
                | Errno::INTR
                | Errno::AGAIN
                | Errno::STALE
        )
    )
}

/// A profile with what its state file says, nothing, or what is wrong with the entry.
type Judged = Result<Option<(ServiceName, io::Result<Intent>)>, ProfileError>;

impl Task {
    /// What is read, for messages.
    fn path(&self, sources: &Sources) -> PathBuf {
        match self {
            Self::Profiles => sources.around.home.join(profiles::DIRECTORY),
            Self::Profile(_, name) => sources.around.home.join(profiles::DIRECTORY).join(name),
            Self::Root => sources.around.home.join(state_json::FILE),
            Self::Directory(path) | Self::File(_, path) => path.clone(),
            Self::Surface => SCAN_DIRECTORY.into(),
            Self::Trust => sources.state.clone(),
        }
    }

    /// Does it, and again when what hindered it may have passed: what is not read would be ended, or not begun.
    fn run_patiently(self, sources: &Sources) -> Done {
        for pause in PAUSES {
            let done = self.clone().run(sources);
            if !done.failure().is_some_and(may_pass) {
                return done;
            }
            let pause = Timespec { tv_sec: 0, tv_nsec: pause };
            let _ = rustix::event::poll(&mut [], Some(&pause));
        }
        self.run(sources)
    }

    /// Does it. Blocks on the file system.
    fn run(self, sources: &Sources) -> Done {
        let Sources { around, .. } = sources;
        let user = around.gateway.credentials();
        match self {
            Self::Profiles => Done::Profiles(Beneath::open(&around.home).and_then(|home| {
                // Watched before it is read, so that nothing is missed. Where that cannot be, profiles are found when somebody
                // names them.
                if let Some(watch) = &sources.watch {
                    let _ = watch.arm(&home, &user);
                }
                profiles::entries(&home, &user)
            })),
            Self::Profile(directory, name) => {
                let judged = profiles::judge(&directory, &user, &name).map(|profile| {
                    let profile = profile?;
                    let intent = state_json::read(&directory, &user, Path::new(&name));
                    Some((profile, intent))
                });
                Done::Profile(name, judged)
            }
            Self::Root => Done::Root(
                Beneath::open(&around.home).and_then(|home| state_json::read(&home, &user, Path::new(""))),
            ),
            Self::Directory(path) => {
                let listed = load::list(&path, around);
                Done::Directory(path, listed)
            }
            Self::File(listed, path) => {
                let read = Candidate::read(&listed.place, path.clone(), around);
                Done::File(path, read)
            }
            Self::Surface => {
                let mut warnings = Vec::new();
                let surface = Surface::read(around, &sources.env, &mut warnings);
                Done::Surface(surface, warnings)
            }
            Self::Trust => Done::Trust(trust_of(&sources.state, around)),
        }
    }
}

/// Reads everything, on threads of its own: what is there `patience` after `opened` was dropped goes to `first`, and all of it
/// once more to `later` whenever some of the rest has come. `opened`: there is a state directory to be judged.
///
/// # Errors
/// As pthread_create(3).
pub fn read(
    sources: Sources,
    opened: Receiver<()>,
    patience: Duration,
    first: impl FnOnce(Found) + Send + 'static,
    later: impl Fn(Found) + Send + 'static,
) -> io::Result<()> {
    #[cfg(test)]
    if crate::sys::time::played::is_on() {
        first(Found::at_once(&sources.dirs, &sources.around));
        return Ok(());
    }
    let work = move || {
        let mut gathering = Gathering::begin(sources);
        gathering.judge_state(&opened);
        gathering.wait(patience);
        first(gathering.found());
        gathering.answers.tell_each();
        while !gathering.is_over() {
            if gathering.take_some(Duration::MAX) {
                gathering.wait(TOGETHER);
                later(gathering.found());
            }
        }
    };
    std::thread::Builder::new().name("definitions".to_owned()).spawn(work).map(drop)
}

/// How far what lies in `state` may be believed. Blocks.
fn trust_of(state: &Path, around: &Surroundings) -> Trust {
    match Place::open(state, around) {
        Ok(place) => place.trust().clone(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Trust::Stranger(error.to_string()),
        Err(error) => Trust::Untrusted(error.to_string()),
    }
}

/// What the threads have read.
#[derive(Debug, Default)]
struct Answers {
    come: Mutex<Come>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Come {
    list: Vec<(usize, Option<Done>)>,
    /// Each is told as it comes. At first only the last is: with thousands of files a word of each would be a switch to another
    /// thread and back.
    each: bool,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Come> {
        self.come.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `last`: nothing else is to be read now.
    fn add(&self, number: usize, done: Option<Done>, last: bool) {
        let mut come = self.lock();
        come.list.push((number, done));
        if last || come.each {
            self.changed.notify_one();
        }
    }

    fn tell_each(&self) {
        self.lock().each = true;
    }

    /// All that has come, after `patience` at the latest.
    fn wait(&self, patience: Duration) -> Vec<(usize, Option<Done>)> {
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |come| come.list.is_empty());
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.list)
    }
}

/// A reading under way.
#[derive(Debug)]
struct Gathering {
    sources: Arc<Sources>,
    queue: Sender<(usize, Task)>,
    waiting: Arc<Mutex<Receiver<(usize, Task)>>>,
    answers: Arc<Answers>,
    threads: usize,
    /// What is read, by number; a task that was not tried stays.
    pending: BTreeMap<usize, PathBuf>,
    untried: usize,
    next: usize,
    entries: Vec<OsString>,
    profiles_unread: bool,
    judged: BTreeMap<OsString, Judged>,
    root: Option<io::Result<Intent>>,
    /// Of each directory that was listed.
    listed: BTreeMap<PathBuf, io::Result<Arc<Listed>>>,
    candidates: BTreeMap<PathBuf, Candidate>,
    surface: Option<Surface>,
    state_trust: Option<Trust>,
    warnings: Vec<String>,
}

impl Gathering {
    fn begin(sources: Sources) -> Self {
        let (queue, waiting) = channel();
        let mut gathering = Self {
            sources: Arc::new(sources),
            queue,
            waiting: Arc::new(Mutex::new(waiting)),
            answers: Arc::default(),
            threads: 0,
            pending: BTreeMap::new(),
            untried: 0,
            next: 0,
            entries: Vec::new(),
            profiles_unread: true,
            judged: BTreeMap::new(),
            root: None,
            listed: BTreeMap::new(),
            candidates: BTreeMap::new(),
            surface: None,
            state_trust: None,
            warnings: Vec::new(),
        };
        gathering.add(Task::Profiles);
        // On a machine without Hermes the root profile would be a service that nobody knows.
        if gathering.sources.has_hermes {
            gathering.add(Task::Root);
        }
        for dir in gathering.sources.dirs.clone() {
            gathering.add(Task::Directory(dir));
        }
        if gathering.sources.s6_surface {
            gathering.add(Task::Surface);
        }
        gathering.help();
        gathering
    }

    /// The state directory is judged when `opened` is dropped: only then there surely is one.
    fn judge_state(&mut self, opened: &Receiver<()>) {
        while opened.try_recv() == Err(TryRecvError::Empty) {
            if self.is_over() {
                let _ = opened.recv();
            } else {
                self.wait(HELP_AFTER);
            }
        }
        self.add(Task::Trust);
    }

    fn add(&mut self, task: Task) {
        self.pending.insert(self.next, task.path(&self.sources));
        // The other end is ours.
        let _ = self.queue.send((self.next, task));
        self.next += 1;
    }

    /// One thread more, while there is something for it.
    fn help(&mut self) {
        if self.threads >= MOST_THREADS.min(self.pending.len()) {
            return;
        }
        let (sources, waiting) = (Arc::clone(&self.sources), Arc::clone(&self.waiting));
        let answers = Arc::clone(&self.answers);
        let work = move || {
            let queue = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = queue().recv().ok();
            while let Some((number, task)) = next {
                let path = task.path(&sources);
                let directory = path.parent().unwrap_or(&path);
                let done = sources.busy.enter(directory).then(|| {
                    let done = task.run_patiently(&sources);
                    sources.busy.leave(directory);
                    done
                });
                // Another thread that waits for the queue has the lock.
                let more = waiting.try_lock().ok().and_then(|queue| queue.try_recv().ok());
                answers.add(number, done, more.is_none());
                next = more.or_else(|| queue().recv().ok());
            }
        };
        let spawned = std::thread::Builder::new().name("definition".to_owned()).spawn(work);
        self.threads += usize::from(spawned.is_ok());
    }

    fn take(&mut self, number: usize, done: Option<Done>) {
        let Some(done) = done else {
            self.untried += 1;
            return;
        };
        self.pending.remove(&number);
        match done {
            Done::Profiles(Ok(entries)) => {
                self.profiles_unread = false;
                if let Some((directory, mut names)) = entries {
                    if names.len() > MOST_ENTRIES {
                        let dir = profiles::DIRECTORY;
                        self.warnings.push(format!(
                            "{dir}/ has more than {MOST_ENTRIES} entries; the rest is not read"
                        ));
                        names.truncate(MOST_ENTRIES);
                    }
                    let directory = Arc::new(directory);
                    self.entries.clone_from(&names);
                    names.into_iter().for_each(|name| self.add(Task::Profile(Arc::clone(&directory), name)));
                }
            }
            Done::Profiles(Err(error)) => self.warnings.push(format!("the profiles cannot be read: {error}")),
            Done::Profile(name, judged) => drop(self.judged.insert(name, judged)),
            Done::Root(intent) => self.root = Some(intent),
            Done::Directory(path, listed) => {
                let listed = listed.map(Arc::new);
                if let Ok(listed) = &listed {
                    listed
                        .files
                        .iter()
                        .for_each(|file| self.add(Task::File(Arc::clone(listed), file.clone())));
                }
                self.listed.insert(path, listed);
            }
            Done::File(path, candidate) => drop(self.candidates.insert(path, candidate)),
            Done::Surface(surface, warnings) => {
                self.surface = Some(surface);
                self.warnings.extend(warnings);
            }
            Done::Trust(trust) => self.state_trust = Some(trust),
        }
    }

    /// Takes what has come, or waits for it. False: nothing came for so long.
    fn take_some(&mut self, patience: Duration) -> bool {
        let came = self.answers.wait(patience);
        let some = !came.is_empty();
        came.into_iter().for_each(|(number, done)| self.take(number, done));
        some
    }

    /// Everything that can come has come.
    fn is_over(&self) -> bool {
        self.pending.len() == self.untried
    }

    /// Waits until all is read, for `patience` in which we run: while we were stopped, or the machine slept, the disk had no
    /// time either.
    fn wait(&mut self, patience: Duration) {
        let mut waited = Duration::ZERO;
        while !self.is_over() && waited < patience {
            let before = Instant::now();
            if !self.take_some(HELP_AFTER) {
                self.help();
            }
            waited += before.elapsed().min(HELP_AFTER);
        }
    }

    /// What is known by now.
    fn found(&mut self) -> Found {
        let sources = Arc::clone(&self.sources);
        let Sources { around, has_hermes, env, .. } = &*sources;
        let mut warnings = self.warnings.clone();
        let mut discovered = Discovered::default();
        let (mut intents, mut late_profiles) = (BTreeMap::new(), Vec::new());
        let mut say = |name: &ServiceName, intent: &io::Result<Intent>| match intent {
            Ok(intent) => drop(intents.insert(name.clone(), intent.clone())),
            Err(error) => warnings.push(format!("gateway_state.json of '{name}' is not read: {error}")),
        };
        let root = ServiceName::new(DEFAULT_PROFILE).ok().filter(|_| *has_hermes);
        match (&root, &self.root) {
            (Some(name), Some(intent)) => {
                discovered.named.push(name.clone());
                say(name, intent);
            }
            (Some(name), None) => late_profiles.push(name.clone()),
            (None, _) => {}
        }
        for entry in &self.entries {
            match self.judged.get(entry) {
                Some(Ok(Some((name, intent)))) => {
                    discovered.add(Ok(Some(name.clone())));
                    say(name, intent);
                }
                Some(Ok(None)) => {}
                Some(Err(wrong)) => discovered.add(Err(wrong.clone())),
                None => {
                    late_profiles.extend(entry.to_str().and_then(|name| ServiceName::gateway_of(name).ok()));
                }
            }
        }
        let named = std::mem::take(&mut discovered.named);
        warnings.extend(discovered.into_warnings());
        let variable = |name: &str| env.get(OsStr::new(name)).cloned();
        let wanted = *has_hermes && variable(dashboard::SWITCH).is_some_and(|value| is_yes(&value));
        let dashboard = match wanted.then(|| dashboard::dashboard(variable, around)) {
            Some(Ok(definition)) => Some(definition),
            Some(Err(wrong)) => {
                warnings.extend(wrong.iter().map(Diagnostic::headline));
                None
            }
            None => None,
        };
        Found {
            loaded: Loaded::of(self.directories(), around),
            profiles: named,
            late_profiles,
            profiles_unread: self.profiles_unread,
            intents,
            warnings,
            state_trust: self.state_trust.clone().unwrap_or_else(unknown_trust),
            dashboard,
            // What is known of it stays where there is nothing new.
            surface: self.surface.take().unwrap_or_default(),
            late: self.pending.values().cloned().collect(),
        }
    }

    /// The services directories in their order, with what was read of them.
    fn directories(&mut self) -> Vec<Directory> {
        // Nobody asks again when all has come.
        let last = self.is_over();
        let candidates = &mut self.candidates;
        let mut of =
            |file: &PathBuf| if last { candidates.remove(file) } else { candidates.get(file).cloned() };
        let mut directory = |path: &PathBuf| match self.listed.get(path) {
            None => Directory::late(path.clone()),
            Some(Err(error)) => Directory::unread(path.clone(), error),
            Some(Ok(listed)) => {
                let late = |file: &PathBuf| Candidate::late(&listed.place, file.clone());
                let read = listed.files.iter().map(|file| of(file).unwrap_or_else(|| late(file)));
                let read = Ok(read.collect());
                Directory { path: path.clone(), read, cut: listed.cut }
            }
        };
        self.sources.dirs.iter().map(&mut directory).collect()
    }
}

/// Of a state directory that could not be looked at.
pub fn unknown_trust() -> Trust {
    Trust::Untrusted("its disk does not answer".to_owned())
}
