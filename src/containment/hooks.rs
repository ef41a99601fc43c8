//! Hooks: programs of the service that run beside its main process, in its incarnation, because something happened to it.
//!
//! A hook is of the tree like whatever the service starts itself: within its limits, ended with it, and the incarnation is
//! not empty while it lives. How it ends is told ([`Event::HookEnded`]) and changes nothing else. One at a time for each
//! incarnation, so that one that hangs does not become many. Only on the cgroup rungs, where a child of ours can be born
//! into a tree; what hooks are for happens nowhere else.

use super::hold::{Containment, Held, On, Who};
use super::keeper::tags::MARKER;
use super::{Event, IncarnationId};
use crate::sys::spawn::plan::{ChildPlan, PlanError};
use std::io;

/// Why a hook does not run; the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the one before still runs")]
    Busy,
    #[error("its service is ending")]
    Ending,
    #[error("cannot make a process: {0}")]
    Clone(#[from] io::Error),
}

impl Containment {
    /// Runs a program in the incarnation. Never waits: how it went is [`Event::HookEnded`].
    ///
    /// # Errors
    /// [`HookError`]; no event follows then.
    pub fn run_hook(&mut self, id: &IncarnationId, mut plan: ChildPlan) -> Result<(), HookError> {
        plan.set_env(MARKER, &self.marker(id))?;
        let slot = self.by_id.get(id).copied().ok_or(HookError::Ending)?;
        if let Some(rung) = self.rung(id) {
            self.shield(&mut plan, rung);
        }
        let held = self.slots.get_mut(slot as usize).and_then(|place| place.held.as_mut());
        let (Some(Held { on: On::Cgroup(cage), .. }), Some(cgroups)) = (held, &self.cgroups) else {
            return Err(HookError::Ending);
        };
        if cage.hook.is_some() {
            return Err(HookError::Busy);
        }
        if cage.is_ending() {
            return Err(HookError::Ending);
        }
        let pid = cage.run_hook(&cgroups.tree, &mut self.forks, &mut plan)?;
        self.know_fork_server();
        self.by_pid.insert(pid, Who::Hook(slot));
        Ok(())
    }

    pub(super) fn hook_reaped(&mut self, slot: u32, status: i32, events: &mut Vec<Event>) {
        let Some(Held { id, on: On::Cgroup(cage), .. }) = self.held_at(slot) else { return };
        if let Some(ended) = cage.hook_reaped(status) {
            events.push(Event::HookEnded { id: id.clone(), ended });
        }
    }
}
