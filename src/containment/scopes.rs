//! Scopes: processes of one incarnation that have a bound and an end of their own, and are still part of the incarnation.
//!
//! A process of the incarnation asks for itself to be put into a scope; whatever it then starts is in the scope too. A scope
//! never outlives its incarnation and changes nothing about it: killing and emptiness of the whole are still the
//! incarnation's. It ends by itself when nothing is left in it ([`Event::ScopeEnded`]), or on order, as a whole.
//! A process in a scope gets no second one, for that would be a way out of the first one's bound and end.
//!
//! What a scope is depends on the rung: a directory (`cgroup/scope.rs`), which is empty when the kernel says so, or a process
//! with its descendants (`keeper/scope.rs`).

use super::event::{Event, EventQueue};
use super::hold::Containment;
use super::processes::walk;
use super::retry::Retry;
use super::{IncarnationId, Rung};
use crate::core::clock::Tick;
use crate::core::unit::ScopeName;
use crate::sys::pidfd::Pidfd;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Most scopes of one incarnation: each costs a directory and a watch.
const MOST: usize = 1000;

/// Marks the numbers of scopes among the slots of the watch.
const NUMBER: u32 = 1 << 31;

/// A scope that is being ended is looked at again after this long, then at doubled intervals.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(5);

type Key = (IncarnationId, ScopeName);

/// The bounds that a scope is to have. In bytes; `None`: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScopeLimits {
    pub memory_max: Option<u64>,
    pub swap_max: Option<u64>,
    /// The OOM killer takes all of it or, without this, one process.
    pub oom_group: bool,
}

impl ScopeLimits {
    /// The bounds that are asked for, as systemd calls them.
    pub(super) fn bounds(self) -> impl Iterator<Item = &'static str> {
        let bounds = [self.memory_max.map(|_| "MemoryMax"), self.swap_max.map(|_| "MemorySwapMax")];
        bounds.into_iter().flatten()
    }

    /// A line for each bound, on a rung that has none.
    pub(super) fn without_cgroup(self, rung: Rung) -> Vec<String> {
        let line = |limit| {
            format!(
                "{limit} of scopes is not in force: containment '{rung}' has no cgroup for it \
                 ('hermes-sup doctor' tells what would give one)"
            )
        };
        self.bounds().map(line).collect()
    }
}

/// One scope.
pub(super) trait HeldScope: fmt::Debug {
    /// A process of it is alive.
    fn lives(&self) -> bool;

    fn processes(&self) -> Vec<i32>;

    fn figures(&self) -> Figures;

    /// One of the processes in `line` is its leader.
    fn is_led_by(&self, _line: &[i32]) -> bool {
        false
    }

    /// One step towards its end. Returns whether it is over.
    fn end(&mut self) -> bool;

    /// It is empty. Returns how many of its processes the OOM killer has killed.
    fn release(self: Box<Self>) -> u64;
}

/// Who asks for a scope, and which.
pub(super) struct ScopeRequest<'a> {
    pub name: &'a ScopeName,
    pub limits: ScopeLimits,
    pub pid: i32,
    pub process: &'a Pidfd,
    /// For the watch.
    pub number: u32,
}

/// What there is to say of a scope now.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub cgroup: Option<PathBuf>,
    pub procs: usize,
    pub memory_bytes: Option<u64>,
    pub memory_max: Option<u64>,
    pub swap_max: Option<u64>,
    pub adopt_orphans: bool,
}

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
    held: Box<dyn HeldScope>,
    number: u32,
    not_in_force: Vec<String>,
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
    /// On the cgroup rungs the kernel keeps books (/proc/PID/cgroup). On the keeper rungs it is ancestry, followed up to a
    /// keeper: a child of ours, whose number is its own until we reap it. A parent that is younger than its child is
    /// another process that got the number since.
    pub fn member(&self, pid: i32, process: Pidfd) -> Option<Member> {
        let (id, scope) = self.membership(pid)?;
        // Alive still, so what was read under its number was about it.
        (!process.has_ended()).then_some(Member { id, pid, process, scope })
    }

    /// The incarnation that the process with the number `pid` is part of, or was when it ended if nobody has reaped it yet. For
    /// words about it: the number may have changed hands.
    pub fn owner(&self, pid: i32) -> Option<IncarnationId> {
        self.membership(pid).map(|(id, _)| id)
    }

    fn membership(&self, pid: i32) -> Option<(IncarnationId, Option<ScopeName>)> {
        if let Some((slot, scope)) = self.mechanisms().find_map(|mechanism| mechanism.slot_of(pid)) {
            return Some((self.held_in(slot)?.id().clone(), scope));
        }
        self.member_by_ancestry(pid)
    }

    fn member_by_ancestry(&self, pid: i32) -> Option<(IncarnationId, Option<ScopeName>)> {
        const DEEPEST: usize = 4096;
        let mut line = vec![pid];
        let mut child = walk::stat(pid)?;
        while line.len() < DEEPEST {
            let parent = child.parent;
            if let Some(held) = self.held_by_child(parent).filter(|held| held.is_parent(parent)) {
                let mut scopes = self.scopes.of(held.id());
                let scope = scopes.find(|(_, scope)| scope.held.is_led_by(&line));
                return Some((held.id().clone(), scope.map(|((_, name), _)| name.clone())));
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
    ) -> Result<ScopeInfo, ScopeError> {
        if let Some(scope) = &member.scope {
            return Err(ScopeError::Nested(scope.clone()));
        }
        let key = (member.id.clone(), name.clone());
        if self.scopes.look_for(&key, &mut self.events) {
            return Err(ScopeError::Exists(name.clone()));
        }
        if self.scopes.of(&member.id).count() >= MOST {
            let all: Vec<Key> = self.scopes.of(&member.id).map(|(key, _)| key.clone()).collect();
            if all.into_iter().filter(|key| self.scopes.look_for(key, &mut self.events)).count() >= MOST {
                return Err(ScopeError::TooMany);
            }
        }
        let number = self.scopes.new_number();
        let held = self.held(&member.id).ok_or(ScopeError::Gone)?;
        let request = ScopeRequest { name, limits, pid: member.pid, process: &member.process, number };
        let (held, not_in_force) = held.open_scope(&request)?;
        self.scopes.insert(key, Scope { held, number, not_in_force });
        self.scope(&member.id, name).ok_or(ScopeError::Gone)
    }

    /// The scopes of a life that was adopted, where a directory tells of them; elsewhere their leaders are processes
    /// like any other from now on.
    pub(super) fn adopt_scopes(&mut self, id: &IncarnationId) {
        let Some(slot) = self.slot(id) else { return };
        let Some(held) = self.slots.get(slot as usize).and_then(|slot| slot.held.as_ref()) else { return };
        let scopes = &mut self.scopes;
        for (name, number, held) in held.find_scopes(&mut || scopes.new_number()) {
            scopes.insert((id.clone(), name), Scope { held, number, not_in_force: Vec::new() });
        }
    }

    /// `None`: there is no such scope, or no more.
    pub fn scope(&mut self, id: &IncarnationId, name: &ScopeName) -> Option<ScopeInfo> {
        let key = (id.clone(), name.clone());
        if !self.scopes.look_for(&key, &mut self.events) {
            return None;
        }
        let ending = self.scopes.is_ending(&key);
        let scope = self.scopes.live.get(&key)?;
        let figures = scope.held.figures();
        Some(ScopeInfo {
            name: name.clone(),
            ending,
            cgroup: figures.cgroup,
            procs: figures.procs,
            memory_bytes: figures.memory_bytes,
            memory_max: figures.memory_max,
            swap_max: figures.swap_max,
            not_in_force: scope.not_in_force.clone(),
            adopt_orphans: figures.adopt_orphans,
        })
    }

    /// Which of its processes are in which scope.
    pub(super) fn scopes_of(&self, id: &IncarnationId) -> HashMap<i32, ScopeName> {
        let of_scope = |((_, name), scope): (&Key, &Scope)| {
            let name = name.clone();
            scope.held.processes().into_iter().map(move |pid| (pid, name.clone()))
        };
        self.scopes.of(id).flat_map(of_scope).collect()
    }

    /// Begins the end of a scope, at once and without asking it; [`Event::ScopeEnded`] follows. Returns whether there
    /// is such a scope.
    pub fn end_scope(&mut self, id: &IncarnationId, name: &ScopeName, now: Tick) -> bool {
        let key = (id.clone(), name.clone());
        let there = self.scopes.look_for(&key, &mut self.events);
        if there && !self.scopes.is_ending(&key) {
            self.scopes.ending.push((key, Retry::now(Some(now), FIRST_LOOK)));
        }
        there
    }
}

impl Scopes {
    fn of(&self, id: &IncarnationId) -> impl Iterator<Item = (&Key, &Scope)> {
        self.live.iter().filter(move |((of, _), _)| of == id)
    }

    fn is_ending(&self, key: &Key) -> bool {
        self.ending.iter().any(|(one, _)| one == key)
    }

    fn insert(&mut self, key: Key, scope: Scope) {
        self.numbers.insert(scope.number, key.clone());
        self.live.insert(key, scope);
    }

    fn remove(&mut self, key: &Key) -> Option<Scope> {
        self.ending.retain(|(one, _)| one != key);
        let scope = self.live.remove(key)?;
        self.numbers.remove(&scope.number);
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

    /// Whether there is such a scope still. The kernel tells of an empty cgroup up to 10 ms late (kernel/cgroup/cgroup.c,
    /// CGROUP_FILE_NOTIFY_MIN_INTV), and of a leader's death nobody tells: so a question is answered by a look.
    fn look_for(&mut self, key: &Key, events: &mut EventQueue) -> bool {
        // One that is being ended is said to be over in its own time.
        let ending = self.is_ending(key);
        let Some(scope) = self.live.get(key) else { return false };
        let lives = scope.held.lives();
        if !lives && !ending {
            self.is_over(key, events);
        }
        lives || ending
    }

    /// `cgroup.events` of a scope has changed. Returns whether `slot` is the number of a scope.
    pub fn changed(&mut self, slot: u32, events: &mut EventQueue) -> bool {
        if slot & NUMBER == 0 {
            return false;
        }
        if let Some(key) = self.numbers.get(&slot).cloned()
            && self.live.get(&key).is_some_and(|scope| !scope.held.lives())
        {
            self.is_over(&key, events);
        }
        true
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.ending.iter().map(|(_, retry)| retry.next).min()
    }

    /// A look at those that are being ended.
    pub fn tick(&mut self, now: Tick, events: &mut EventQueue) {
        let due: Vec<Key> =
            self.ending.iter_mut().filter_map(|(key, retry)| retry.due(now).then(|| key.clone())).collect();
        for key in due {
            if self.live.get_mut(&key).is_some_and(|scope| scope.held.end()) {
                self.is_over(&key, events);
            }
        }
    }

    fn is_over(&mut self, key: &Key, events: &mut EventQueue) {
        if let Some(scope) = self.remove(key) {
            let oom_kills = scope.held.release();
            events.push(Event::ScopeEnded { id: key.0.clone(), name: key.1.clone(), oom_kills });
        }
    }

    /// The incarnation is over, and so are its scopes; their directories go with its own.
    pub fn release(&mut self, id: &IncarnationId) {
        let keys: Vec<Key> = self.of(id).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.remove(&key);
        }
    }
}
