//! Scopes in memory: processes of a tree that have a number, and the scopes that they have been put into.

use super::{Deed, Kernel, State};
use crate::containment::IncarnationId;
use crate::containment::scopes::{Figures, HeldScope, ScopeError, ScopeRequest};
use crate::core::unit::ScopeName;
use std::collections::BTreeMap;

/// What there is of scopes in one tree.
#[derive(Debug, Default)]
pub struct Members {
    /// Processes beside those that are only counted, each with its scope.
    processes: BTreeMap<i32, Option<ScopeName>>,
    scopes: BTreeMap<ScopeName, Scope>,
}

/// As a directory, which is there until the supervisor removes it.
#[derive(Debug)]
struct Scope {
    /// Under which the supervisor watches it.
    number: Option<u32>,
    killed: bool,
    memory_max: Option<u64>,
    swap_max: Option<u64>,
}

/// How often there was such a scope, and how often its last process has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub opened: u64,
    pub emptied: u64,
}

impl Members {
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// The scope of one of them; `None`: it has ended.
    pub fn scope_of(&self, pid: i32) -> Option<Option<&ScopeName>> {
        self.processes.get(&pid).map(Option::as_ref)
    }

    pub fn processes(&self) -> Vec<i32> {
        self.processes.keys().copied().collect()
    }

    pub fn scopes(&self) -> Vec<ScopeName> {
        self.scopes.keys().cloned().collect()
    }

    pub fn has_scope(&self, name: &ScopeName) -> bool {
        self.scopes.contains_key(name)
    }

    /// The processes of a scope.
    pub fn within(&self, name: &ScopeName) -> Vec<i32> {
        let is_within = |(pid, of): (&i32, &Option<ScopeName>)| (of.as_ref() == Some(name)).then_some(*pid);
        self.processes.iter().filter_map(is_within).collect()
    }

    /// The supervisor that watched the scopes is gone, or has let go of the tree.
    pub(super) fn are_not_watched(&mut self) {
        self.scopes.values_mut().for_each(|scope| scope.number = None);
    }

    /// These have ended. The scopes that are empty since.
    fn end(&mut self, pids: &[i32]) -> Vec<ScopeName> {
        let mut left: Vec<ScopeName> =
            pids.iter().filter_map(|pid| self.processes.remove(pid)).flatten().collect();
        left.sort();
        left.dedup();
        left.retain(|name| self.within(name).is_empty());
        left
    }
}

impl State {
    /// Processes that have a number end.
    pub(super) fn members_end(&mut self, id: &IncarnationId, pids: &[i32]) {
        let Some(tree) = self.trees.get_mut(id) else { return };
        for name in tree.members.end(pids) {
            self.news.extend(tree.members.scopes.get(&name).and_then(|scope| scope.number));
            self.scope_counts.entry((id.clone(), name)).or_default().emptied += 1;
        }
        self.news.extend(tree.slot);
    }
}

impl Kernel {
    /// A process of the tree makes another one, which has a number; `None`: nothing runs there.
    pub fn fork_member(&self, id: &IncarnationId) -> Option<i32> {
        let state = &mut *self.state();
        let tree = state.trees.get_mut(id).filter(|tree| tree.is_up() && !tree.frozen && !tree.killed)?;
        let pid = state.next_pid;
        state.next_pid += 1;
        tree.members.processes.insert(pid, None);
        Some(pid)
    }

    /// What runs in a scope makes another process.
    pub fn fork_within(&self, id: &IncarnationId, name: &ScopeName) {
        let state = &mut *self.state();
        let Some(tree) = state.trees.get_mut(id).filter(|tree| !tree.frozen && !tree.killed) else { return };
        let is_killed = tree.members.scopes.get(name).is_none_or(|scope| scope.killed);
        if is_killed || tree.members.within(name).is_empty() {
            return;
        }
        tree.members.processes.insert(state.next_pid, Some(name.clone()));
        state.next_pid += 1;
    }

    pub fn end_member(&self, id: &IncarnationId, pid: i32) {
        let is_still = self.tree(id).is_some_and(|tree| tree.frozen && !tree.killed);
        if !is_still {
            self.state().members_end(id, &[pid]);
        }
    }

    /// A kill has reached every process of a scope.
    pub fn scope_dies(&self, id: &IncarnationId, name: &ScopeName) {
        let within = self.tree(id).map(|tree| tree.members.within(name)).unwrap_or_default();
        self.state().members_end(id, &within);
    }

    pub fn scope_count(&self, id: &IncarnationId, name: &ScopeName) -> Count {
        self.0.borrow().scope_counts.get(&(id.clone(), name.clone())).copied().unwrap_or_default()
    }

    pub(super) fn open_scope(
        &self,
        id: &IncarnationId,
        request: &ScopeRequest<'_>,
    ) -> Result<Box<dyn HeldScope>, ScopeError> {
        let state = &mut *self.state();
        let (name, pid) = (request.name.clone(), request.pid);
        let tree = state.trees.get_mut(id).ok_or(ScopeError::Gone)?;
        let before = tree.members.processes.get_mut(&pid).ok_or(ScopeError::Gone)?;
        let mut faults = Vec::new();
        if let Some(before) = before.replace(name.clone()) {
            faults.push(format!("process {pid} of '{}' was taken out of {before}", id.name));
        }
        let (memory_max, swap_max) = (request.limits.memory_max, request.limits.swap_max);
        let scope = Scope { number: Some(request.number), killed: false, memory_max, swap_max };
        if tree.members.scopes.insert(name.clone(), scope).is_some() {
            faults.push(format!("{name} of '{}' was made, and is there already", id.name));
        }
        state.faults.extend(faults);
        // The kernel tells of a new watch at once, whatever there is to tell.
        state.news.insert(request.number);
        state.scope_counts.entry((id.clone(), name.clone())).or_default().opened += 1;
        state.deeds.push(Deed::Scoped { id: id.clone(), name: name.clone(), pid, memory_max });
        Ok(Box::new(PlayedScope { id: id.clone(), name, kernel: self.clone() }))
    }

    pub(super) fn find_scopes(
        &self,
        id: &IncarnationId,
        number: &mut dyn FnMut() -> u32,
    ) -> Vec<(ScopeName, u32, Box<dyn HeldScope>)> {
        let state = &mut *self.state();
        let Some(tree) = state.trees.get_mut(id) else { return Vec::new() };
        let mut found: Vec<(ScopeName, u32, Box<dyn HeldScope>)> = Vec::new();
        for (name, scope) in &mut tree.members.scopes {
            let number = number();
            scope.number = Some(number);
            state.news.insert(number);
            let held = PlayedScope { id: id.clone(), name: name.clone(), kernel: self.clone() };
            found.push((name.clone(), number, Box::new(held)));
        }
        found
    }
}

/// A scope as the supervisor that holds it sees it.
#[derive(Debug)]
struct PlayedScope {
    id: IncarnationId,
    name: ScopeName,
    kernel: Kernel,
}

impl PlayedScope {
    fn within(&self) -> Vec<i32> {
        self.kernel.tree(&self.id).map(|tree| tree.members.within(&self.name)).unwrap_or_default()
    }
}

impl HeldScope for PlayedScope {
    fn lives(&self) -> bool {
        !self.within().is_empty()
    }

    fn processes(&self) -> Vec<i32> {
        self.within()
    }

    fn figures(&self) -> Figures {
        let tree = self.kernel.tree(&self.id);
        let scope = tree.as_ref().and_then(|tree| tree.members.scopes.get(&self.name));
        Figures {
            procs: self.within().len(),
            memory_max: scope.and_then(|scope| scope.memory_max),
            swap_max: scope.and_then(|scope| scope.swap_max),
            ..Figures::default()
        }
    }

    fn end(&mut self) -> bool {
        let state = &mut *self.kernel.state();
        let held = state.trees.get_mut(&self.id).filter(|tree| tree.slot.is_some());
        let Some(scope) = held.and_then(|tree| tree.members.scopes.get_mut(&self.name)) else {
            state.faults.push(format!("{} of '{}' was ended, and nobody holds it", self.name, self.id.name));
            return true;
        };
        if !std::mem::replace(&mut scope.killed, true) {
            state.deeds.push(Deed::ScopeKilled { id: self.id.clone(), name: self.name.clone() });
        }
        state.trees.get(&self.id).is_none_or(|tree| tree.members.within(&self.name).is_empty())
    }

    fn release(self: Box<Self>) -> u64 {
        let left = self.within();
        let state = &mut *self.kernel.state();
        if !left.is_empty() {
            state
                .faults
                .push(format!("{} of '{}' was let go of with processes in it", self.name, self.id.name));
        }
        let held = state.trees.get_mut(&self.id).filter(|tree| tree.slot.is_some());
        if held.and_then(|tree| tree.members.scopes.remove(&self.name)).is_none() {
            state.faults.push(format!("{} of '{}' was said to be over twice", self.name, self.id.name));
        }
        0
    }
}
