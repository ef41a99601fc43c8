//! Scopes: processes of one incarnation that have a bound and an end of their own, in the incarnation's hands still.
//!
//! A process of the incarnation asks for itself to be put into one; whatever it then starts is in it too. A scope never
//! outlives its incarnation and changes nothing about it: killing and emptiness of the whole are still the
//! incarnation's. It ends by itself when nothing is left in it ([`Event::ScopeEnded`]), or on order, as a whole.
//! A process in a scope gets no second one, for that would be a way out of the first one's bound and end.
//!
//! * On `cgroup` it is a directory beside `main` (`cgroup/scope.rs`), and empty when the kernel says so.
//! * On the keeper rungs it is a process, its *leader*, that has made itself a child subreaper, and all below it. It has
//!   no bound. It ends with its leader: what a leader that died leaves behind belongs to the service. Orphans that the
//!   leader does not reap stay zombies until it ends. To end it, the leader is stopped first and killed last, when what
//!   is below it was twice found dead and the same: a process that hops by fork and exit would have left another
//!   corpse, and nobody but the stopped leader could have reaped it.

use super::cgroup::scope::{self, ScopeLimits};
use super::cgroup::watch::Watched;
use super::cgroup::{leaf, stats};
use super::hold::{Cgroups, Containment, On, Who};
use super::retry::Retry;
use super::{Event, IncarnationId, usage, walk};
use crate::core::clock::Tick;
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::sys::pidfd::Pidfd;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most scopes of one incarnation: each costs a directory and a watch.
const MOST: usize = 1000;

/// Marks the numbers of scopes among the slots of the watch.
const NUMBER: u32 = 1 << 31;

/// A scope that is being ended is looked at again after this long, then at doubled intervals.
const FIRST_LOOK: Duration = Duration::from_millis(5);

type Key = (IncarnationId, ScopeName);

/// All scopes of all incarnations.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    live: BTreeMap<Key, Scope>,
    numbers: HashMap<u32, Key>,
    next_number: u32,
    /// Those that are being ended, with the next look.
    ending: Vec<(Key, Retry)>,
}

#[derive(Debug)]
struct Scope {
    held: Held,
    not_in_force: Vec<String>,
}

#[derive(Debug)]
enum Held {
    Cgroup { path: String, _watched: Watched, number: u32 },
    Leader(Leader),
}

#[derive(Debug)]
struct Leader {
    pid: i32,
    /// In clock ticks since boot: with it the number means this process and no other.
    started: u64,
    /// What was below it at the last look, all of it dead.
    corpses: Option<Vec<i32>>,
}

/// A process that was found to be part of an incarnation.
#[derive(Debug)]
pub struct Member {
    pub id: IncarnationId,
    pid: i32,
    process: Pidfd,
    scope: Option<ScopeName>,
}

/// What there is to say about a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeInfo {
    pub name: ScopeName,
    pub ending: bool,
    /// Its path in the hierarchy, as /proc/PID/cgroup has it.
    pub cgroup: Option<PathBuf>,
    pub procs: usize,
    pub memory_bytes: Option<u64>,
    /// In force, in bytes.
    pub memory_max: Option<u64>,
    pub swap_max: Option<u64>,
    /// What was asked for and is not in force, a line each, the same for every scope.
    pub not_in_force: Vec<String>,
    /// The caller has to become a child subreaper before it executes anything.
    pub adopt_orphans: bool,
}

/// Why there is no scope for the caller; a sentence for people.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error("the caller is in {0} already, and a scope cannot be left for another one")]
    Nested(ScopeName),
    #[error("{0} exists already: choose another name, or end it first with 'systemctl --user stop {0}'")]
    Exists(ScopeName),
    #[error("the service has {MOST} scopes already: end some of them first")]
    TooMany,
    #[error("the calling process has ended")]
    Gone,
    #[error("cannot make the cgroup {path}: {reason}")]
    Cgroup { path: String, reason: io::Error },
}

impl Containment {
    /// The incarnation that the process with the number `pid`, held by `process`, is part of; `None`: of none.
    ///
    /// On `cgroup` the kernel keeps the books (/proc/PID/cgroup). On the keeper rungs it is ancestry, followed up to a
    /// keeper: a child of ours, whose number is its own until we reap it. A parent that is younger than its child is
    /// somebody else who got the number since.
    pub fn member(&self, pid: i32, process: Pidfd) -> Option<Member> {
        let (id, scope) = self.member_by_cgroup(pid).or_else(|| self.member_by_ancestry(pid))?;
        // Alive still, so what was read under its number was about it.
        (!process.has_ended()).then_some(Member { id, pid, process, scope })
    }

    /// The incarnation that the process with the number `pid` is part of, or was when it ended if nobody has reaped it yet. For
    /// words about it: the number may have changed hands.
    pub fn owner(&self, pid: i32) -> Option<IncarnationId> {
        self.member_by_cgroup(pid).or_else(|| self.member_by_ancestry(pid)).map(|(id, _)| id)
    }

    fn member_by_cgroup(&self, pid: i32) -> Option<(IncarnationId, Option<ScopeName>)> {
        let (own, _) = self.cgroups.as_ref()?.tree.identity();
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = Path::new(text.lines().find_map(|line| line.strip_prefix("0::"))?);
        let mut below = path.strip_prefix(own).ok()?.iter().map(|part| part.to_str());
        let (leaf, inner) = (below.next()??, below.next()??);
        let (name, n) = leaf.rsplit_once('.')?;
        let is = |id: &&IncarnationId| id.name.as_str() == name && Ok(id.n) == n.parse();
        let id = self.by_id.keys().find(is)?;
        matches!(self.held(id)?.on, On::Cgroup(_)).then(|| (id.clone(), scope::of_directory(inner)))
    }

    fn member_by_ancestry(&self, pid: i32) -> Option<(IncarnationId, Option<ScopeName>)> {
        const DEEPEST: usize = 4096;
        let mut line = vec![pid];
        let mut child = walk::stat(pid)?;
        while line.len() < DEEPEST {
            let parent = child.parent;
            if let Some(Who::Keeper(slot)) = self.by_pid.get(&parent) {
                let held = self.slots.get(*slot as usize)?.held.as_ref()?;
                let On::Keeper(ward) = &held.on else { return None };
                let leads = |scope: &Scope| match &scope.held {
                    Held::Leader(leader) => line.contains(&leader.pid) && leader.lives(),
                    Held::Cgroup { .. } => false,
                };
                let scope = self.scopes.of(&held.id).find(|(_, scope)| leads(scope));
                return (ward.lost.is_none() && !ward.over)
                    .then(|| (held.id.clone(), scope.map(|((_, name), _)| name.clone())));
            }
            let up = walk::stat(parent)?;
            if up.started > child.started {
                return None;
            }
            line.push(parent);
            child = up;
        }
        None
    }

    /// Puts `member` into a new scope of its incarnation.
    ///
    /// # Errors
    /// [`ScopeError`]; nothing is changed then.
    pub fn open_scope(
        &mut self,
        member: &Member,
        name: &ScopeName,
        limits: ScopeLimits,
        events: &mut Vec<Event>,
    ) -> Result<ScopeInfo, ScopeError> {
        if let Some(scope) = &member.scope {
            return Err(ScopeError::Nested(scope.clone()));
        }
        let key = (member.id.clone(), name.clone());
        if self.look_for(&key, events) {
            return Err(ScopeError::Exists(name.clone()));
        }
        if self.scopes.of(&member.id).count() >= MOST {
            let all: Vec<Key> = self.scopes.of(&member.id).map(|(key, _)| key.clone()).collect();
            if all.into_iter().filter(|key| self.look_for(key, events)).count() >= MOST {
                return Err(ScopeError::TooMany);
            }
        }
        let rung = self.rung(&member.id).ok_or(ScopeError::Gone)?;
        let on_cgroup = self.held(&member.id).is_some_and(|held| matches!(held.on, On::Cgroup(_)));
        let (held, not_in_force) = match &mut self.cgroups {
            Some(cgroups) if on_cgroup => open_directory(&mut self.scopes, cgroups, member, name, limits)?,
            _ => {
                let started = walk::stat(member.pid).ok_or(ScopeError::Gone)?.started;
                if member.process.has_ended() {
                    return Err(ScopeError::Gone);
                }
                let without = |limit| {
                    format!(
                        "{limit} of scopes is not in force: containment '{rung}' has no cgroup for it \
                         ('hermes-sup doctor' tells what would give one)"
                    )
                };
                let leader = Leader { pid: member.pid, started, corpses: None };
                (Held::Leader(leader), limits.names().map(without).collect())
            }
        };
        if let Held::Cgroup { number, .. } = held {
            self.scopes.numbers.insert(number, key.clone());
        }
        self.scopes.live.insert(key, Scope { held, not_in_force });
        self.scope(&member.id, name, events).ok_or(ScopeError::Gone)
    }

    /// The scopes of a life that was taken over, where a directory tells of them; elsewhere their leaders are processes
    /// like any other from now on. What was not in force of their bounds was said when they were made.
    pub(super) fn adopt_scopes(&mut self, id: &IncarnationId) {
        if !self.held(id).is_some_and(|held| matches!(held.on, On::Cgroup(_))) {
            return;
        }
        let Some(Cgroups { tree, watch, .. }) = &self.cgroups else { return };
        let leaf = id.to_string();
        let below = std::fs::read_dir(tree.path().join(&leaf)).into_iter().flatten().flatten();
        for entry in below {
            let Some(name) = entry.file_name().to_str().and_then(scope::of_directory) else { continue };
            let number = self.scopes.new_number();
            let Ok(watched) = watch.add(&entry.path(), number) else { continue };
            let key = (id.clone(), name);
            let held = Held::Cgroup { path: scope::path(&leaf, &key.1), _watched: watched, number };
            self.scopes.numbers.insert(number, key.clone());
            self.scopes.live.insert(key, Scope { held, not_in_force: Vec::new() });
        }
    }

    /// Whether there is such a scope still. The kernel tells of an empty cgroup up to 10 ms late (kernel/cgroup/cgroup.c,
    /// CGROUP_FILE_NOTIFY_MIN_INTV), and of a leader's death nobody tells: so who asks is answered by a look.
    fn look_for(&mut self, key: &Key, events: &mut Vec<Event>) -> bool {
        // One that is being ended is said to be over in its own time.
        let ending = self.scopes.is_ending(key);
        let lives = match (self.scopes.live.get(key).map(|scope| &scope.held), &self.cgroups) {
            (None, _) => return false,
            (Some(Held::Leader(leader)), _) => leader.lives(),
            (Some(Held::Cgroup { path, .. }), Some(Cgroups { tree, .. })) => {
                leaf::populated(tree.as_fd(), path).unwrap_or(true)
            }
            (Some(Held::Cgroup { .. }), None) => false,
        };
        if !lives && !ending {
            self.scope_is_over(key, events);
        }
        lives || ending
    }

    /// `None`: there is no such scope, or no more.
    pub fn scope(
        &mut self,
        id: &IncarnationId,
        name: &ScopeName,
        events: &mut Vec<Event>,
    ) -> Option<ScopeInfo> {
        let key = (id.clone(), name.clone());
        if !self.look_for(&key, events) {
            return None;
        }
        let ending = self.scopes.is_ending(&key);
        let scope = self.scopes.live.get(&key)?;
        let not_in_force = scope.not_in_force.clone();
        let name = name.clone();
        Some(match (&scope.held, &self.cgroups) {
            (Held::Cgroup { path, .. }, Some(Cgroups { tree, .. })) => {
                let pids = leaf::processes(tree.as_fd(), path);
                let (memory_max, swap_max) = scope::bounds(tree.as_fd(), path);
                let (current, _) = stats::memory(tree.as_fd(), path);
                ScopeInfo {
                    name,
                    ending,
                    cgroup: Some(tree.identity().0.join(path)),
                    procs: pids.len(),
                    memory_bytes: current.or_else(|| Some(usage::resident(&pids))),
                    memory_max,
                    swap_max,
                    not_in_force,
                    adopt_orphans: false,
                }
            }
            (Held::Cgroup { .. }, None) => return None,
            (Held::Leader(leader), _) => {
                let pids = walk::descendants(vec![leader.pid]);
                ScopeInfo {
                    name,
                    ending,
                    cgroup: None,
                    procs: pids.len(),
                    memory_bytes: Some(usage::resident(&pids)),
                    memory_max: None,
                    swap_max: None,
                    not_in_force,
                    adopt_orphans: true,
                }
            }
        })
    }

    /// Which of its processes are in which scope.
    pub(super) fn scopes_of(&self, id: &IncarnationId) -> HashMap<i32, ScopeName> {
        let mut found = HashMap::new();
        for ((_, name), scope) in self.scopes.of(id) {
            let pids = match (&scope.held, &self.cgroups) {
                (Held::Cgroup { path, .. }, Some(Cgroups { tree, .. })) => {
                    leaf::processes(tree.as_fd(), path)
                }
                (Held::Leader(leader), _) if leader.lives() => walk::descendants(vec![leader.pid]),
                (Held::Cgroup { .. } | Held::Leader(_), _) => Vec::new(),
            };
            found.extend(pids.into_iter().map(|pid| (pid, name.clone())));
        }
        found
    }

    /// Begins the end of a scope, at once and without asking it; [`Event::ScopeEnded`] follows. Returns whether there
    /// is such a scope.
    pub fn end_scope(
        &mut self,
        id: &IncarnationId,
        name: &ScopeName,
        now: Tick,
        events: &mut Vec<Event>,
    ) -> bool {
        let key = (id.clone(), name.clone());
        let there = self.look_for(&key, events);
        if there && !self.scopes.is_ending(&key) {
            self.scopes.ending.push((key, Retry::now(Some(now), FIRST_LOOK)));
        }
        there
    }

    /// A look at those that are being ended.
    pub(super) fn tick_scopes(&mut self, now: Tick, events: &mut Vec<Event>) {
        let mut due = Vec::new();
        for (key, retry) in &mut self.scopes.ending {
            if retry.due(now) {
                due.push(key.clone());
            }
        }
        for key in due {
            let Some(scope) = self.scopes.live.get_mut(&key) else { continue };
            let over = match (&mut scope.held, &self.cgroups) {
                (Held::Cgroup { path, .. }, Some(Cgroups { tree, .. })) => {
                    let _ = leaf::kill(tree.as_fd(), path);
                    // What `cgroup.kill` leaves alive, or all of them where it does not work.
                    leaf::signal_each(tree.as_fd(), path, Signal::KILL);
                    !leaf::populated(tree.as_fd(), path).unwrap_or(true)
                }
                (Held::Cgroup { .. }, None) => true,
                (Held::Leader(leader), _) => leader.end(),
            };
            if over {
                self.scope_is_over(&key, events);
            }
        }
    }

    /// `cgroup.events` of a scope has changed. Returns whether `slot` is that of a scope.
    pub(super) fn scope_changed(&mut self, slot: u32, events: &mut Vec<Event>) -> bool {
        if slot & NUMBER == 0 {
            return false;
        }
        let (Some(key), Some(cgroups)) = (self.scopes.numbers.get(&slot).cloned(), &self.cgroups) else {
            return true;
        };
        let Some(Scope { held: Held::Cgroup { path, .. }, .. }) = self.scopes.live.get(&key) else {
            return true;
        };
        if !leaf::populated(cgroups.tree.as_fd(), path).unwrap_or(true) {
            self.scope_is_over(&key, events);
        }
        true
    }

    pub(super) fn scopes_deadline(&self) -> Option<Tick> {
        self.scopes.ending.iter().map(|(_, retry)| retry.next).min()
    }

    /// It is empty: its directory goes, which the kernel may call busy for a while yet.
    fn scope_is_over(&mut self, key: &Key, events: &mut Vec<Event>) {
        let Some(scope) = self.scopes.remove(key) else { return };
        let mut oom_kills = 0;
        if let (Held::Cgroup { path, .. }, Some(cgroups)) = (scope.held, &mut self.cgroups) {
            oom_kills = scope::oom_kills(cgroups.tree.as_fd(), &path);
            if leaf::remove(cgroups.tree.as_fd(), &path).is_err() {
                cgroups.leftovers.push((path, Retry::now(None, FIRST_LOOK)));
            }
        }
        events.push(Event::ScopeEnded { id: key.0.clone(), name: key.1.clone(), oom_kills });
    }

    /// The incarnation is over, and so are its scopes; their directories go with its own.
    pub(super) fn release_scopes(&mut self, id: &IncarnationId) {
        let keys: Vec<Key> = self.scopes.of(id).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.scopes.remove(&key);
        }
    }
}

/// Makes the directory of a scope with its watch and bounds, and moves the caller into it.
fn open_directory(
    scopes: &mut Scopes,
    Cgroups { tree, watch, leftovers, .. }: &mut Cgroups,
    member: &Member,
    name: &ScopeName,
    limits: ScopeLimits,
) -> Result<(Held, Vec<String>), ScopeError> {
    let leaf = member.id.to_string();
    let path = scope::path(&leaf, name);
    let full = tree.path().join(&path);
    let failed = |reason: io::Error| ScopeError::Cgroup { path: tree.shown(&path), reason };
    scope::create(tree.as_fd(), &path).map_err(failed)?;
    leftovers.retain(|(left, _)| *left != path);
    let number = scopes.new_number();
    let watched = watch.add(&full, number).map_err(failed);
    let made = watched.and_then(|watched| {
        let has_memory = tree.controllers.contains(&"memory");
        let not_in_force = scope::bound(tree.as_fd(), &leaf, &path, limits, has_memory);
        let joined = match scope::join(tree.as_fd(), &path, member.pid) {
            // If it has ended by now, its number may have been another's when it was used.
            Ok(()) if member.process.has_ended() => Err(ScopeError::Gone),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(ScopeError::Gone),
            joined => joined.map_err(failed),
        };
        joined.map(|()| (Held::Cgroup { path: path.clone(), _watched: watched, number }, not_in_force))
    });
    if made.is_err() && leaf::remove(tree.as_fd(), &path).is_err() {
        leftovers.push((path, Retry::now(None, FIRST_LOOK)));
    }
    made
}

impl Scopes {
    fn of(&self, id: &IncarnationId) -> impl Iterator<Item = (&Key, &Scope)> {
        self.live.iter().filter(move |((of, _), _)| of == id)
    }

    fn is_ending(&self, key: &Key) -> bool {
        self.ending.iter().any(|(one, _)| one == key)
    }

    fn remove(&mut self, key: &Key) -> Option<Scope> {
        self.ending.retain(|(one, _)| one != key);
        let scope = self.live.remove(key)?;
        if let Held::Cgroup { number, .. } = &scope.held {
            self.numbers.remove(number);
        }
        Some(scope)
    }

    fn new_number(&mut self) -> u32 {
        loop {
            self.next_number = self.next_number.wrapping_add(1);
            let number = self.next_number | NUMBER;
            if !self.numbers.contains_key(&number) {
                return number;
            }
        }
    }
}

impl Leader {
    fn lives(&self) -> bool {
        walk::stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_dead())
    }

    /// One step towards its end. Returns whether it and all below it are over.
    fn end(&mut self) -> bool {
        let Ok(process) = Pidfd::open(self.pid) else { return !self.lives() };
        // Looked at behind the pidfd: the number may have changed hands before.
        if !self.lives() {
            return true;
        }
        let _ = process.send(Signal::STOP);
        let leader = self.pid;
        walk::end(leader, &mut || walk::children(leader));
        let mut below = walk::children(leader);
        below.sort_unstable();
        let dead = |pid: &i32| walk::stat(*pid).is_none_or(|stat| stat.is_dead());
        // One whose first thread has ended shows that, not whether the others stand still.
        let stands = walk::stat(leader).is_some_and(|stat| matches!(stat.state, b'T' | b't' | b'Z'));
        let corpses = (stands && below.iter().all(dead)).then_some(below);
        if corpses.is_some() && corpses == self.corpses {
            let _ = process.send(Signal::KILL);
            return !self.lives();
        }
        self.corpses = corpses;
        false
    }
}
