//! Orders to lives: begin, signal, freeze, kill, and what is asked about one.

use super::event::{EventQueue, HookError, SpawnError};
use super::held::{Birth, Held};
use super::hold::Containment;
use super::ladder::Refusal;
use super::processes::{MAIN_PID, MARKER, marker};
use super::{IncarnationId, Rung};
use crate::containment::cgroup::reclaim::Reclaim;
use crate::core::clock::Tick;
use crate::core::limits::{Limits, NotInForce};
use crate::core::signal::Signal;
use crate::sys::spawn::plan::ChildPlan;
use std::io;

impl Containment {
    /// Begins an incarnation on `wanted`, or on the report's rung, within `limits`. What became of it is an event. Returns the
    /// limits of a cgroup that are not in force. May wait for a fork server that was stopped, see `spawner.rs`.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is held or left behind then, and no event follows.
    pub fn spawn(
        &mut self,
        id: &IncarnationId,
        mut plan: ChildPlan,
        wanted: Option<Rung>,
        limits: &Limits,
    ) -> Result<Vec<NotInForce>, SpawnError> {
        if self.by_id.contains_key(id) {
            return Err(SpawnError::Busy(id.clone()));
        }
        let rung = self.report.choose(wanted)?;
        plan.set_env(MARKER, &marker(&self.instance, id))?;
        let slot = self.free_slot();
        let spawner = &mut self.spawner;
        let birth = Birth { slot, id, plan: &mut plan, limits, spawner, watcher: &self.watcher };
        let mechanism = self.mechanisms.iter().find(|(of, _)| *of == rung).map(|(_, mechanism)| mechanism);
        let made = mechanism.map(|mechanism| mechanism.spawn(birth));
        self.know_fork_server();
        match made.unwrap_or_else(|| Err(SpawnError::Rung(rung, Refusal::NotTried))) {
            Ok((held, not_in_force)) => {
                self.hold(slot, held);
                Ok(not_in_force)
            }
            Err(error) => {
                self.give_back(slot);
                Err(error)
            }
        }
    }

    /// Runs a hook in the incarnation: a program of the service beside its main process, because something happened to it. It is
    /// within the limits of the tree and ends with it, and the incarnation is not empty while it lives. One at a time for each
    /// incarnation, so that one that hangs does not become many. It is told the number of the main process. How it went is
    /// [`Event::HookEnded`]. May wait as [`Self::spawn`].
    ///
    /// # Errors
    /// [`HookError`]; no event follows then.
    pub fn run_hook(&mut self, id: &IncarnationId, mut plan: ChildPlan) -> Result<(), HookError> {
        let number = self.slot(id).ok_or(HookError::Ending)?;
        let held = self.slots.get_mut(number as usize).and_then(|slot| slot.held.as_mut());
        let held = held.ok_or(HookError::Ending)?;
        plan.set_env(MARKER, &marker(&self.instance, id))?;
        plan.set_env(MAIN_PID, &held.main_pid().ok_or(HookError::Ending)?.to_string())?;
        // So that its end is that of all it has started.
        plan.subreaper = true;
        held.run_hook(&mut self.spawner, &mut plan)?;
        self.know_fork_server();
        self.know_children(number);
        self.record_beside(number);
        Ok(())
    }

    /// Begins the end of the hook that runs in the incarnation, if one does, with all that it has started;
    /// [`Event::HookEnded`] follows when nothing of that is left.
    pub fn end_hook(&mut self, id: &IncarnationId, now: Tick) {
        self.order(id, |held, _| held.end_hook(now));
    }

    /// # Errors
    /// `ESRCH` when it has ended or was never there.
    pub fn signal_main(&self, id: &IncarnationId, signal: Signal) -> io::Result<()> {
        self.held(id).ok_or_else(gone)?.signal_main(signal)
    }

    /// Every process of the tree, once each; one that is born meanwhile may be missed.
    pub fn signal_tree(&self, id: &IncarnationId, signal: Signal) {
        if let Some(held) = self.held(id) {
            held.signal_tree(signal);
        }
    }

    /// Begins to stop every process of the tree where it is, or to let all go on; [`Event::Frozen`] tells when it is so,
    /// if it was not before. A kill ends a frozen tree like any other.
    ///
    /// # Errors
    /// What the kernel or the keeper says; `ESRCH` when it has ended.
    pub fn freeze(&mut self, id: &IncarnationId, frozen: bool) -> io::Result<()> {
        let slot = self.slot(id).and_then(|slot| self.slots.get_mut(slot as usize)).ok_or_else(gone)?;
        let held = slot.held.as_mut().ok_or_else(gone)?;
        slot.was_frozen |= frozen;
        held.freeze(frozen)
    }

    /// Lets it go on if it was ever told to stand still: before a signal that it is to act upon.
    pub fn thaw(&mut self, id: &IncarnationId) {
        let slot = self.slot(id).and_then(|slot| self.slots.get(slot as usize));
        if slot.is_some_and(|slot| slot.was_frozen) {
            // One that cannot be thawed can be killed, and that is what follows.
            let _ = self.freeze(id, false);
        }
    }

    /// Whether all of it stands still now.
    pub fn is_frozen(&self, id: &IncarnationId) -> bool {
        self.held(id).is_some_and(Held::is_frozen)
    }

    /// Begins the end of the whole tree; it converges through `ready`, `reaped` and `tick` until `TreeEmpty`.
    pub fn kill(&mut self, id: &IncarnationId, now: Tick) {
        self.order(id, |held, events| held.kill(now, events));
    }

    /// As [`Self::kill`], because the OOM killer has killed one of its processes.
    pub fn end_for_oom(&mut self, id: &IncarnationId, now: Tick) {
        self.order(id, |held, events| held.end_for_oom(now, events));
    }

    fn order(&mut self, id: &IncarnationId, what: impl FnOnce(&mut dyn Held, &mut EventQueue)) {
        let Some(number) = self.slot(id) else { return };
        if let Some(held) = self.slots.get_mut(number as usize).and_then(|slot| slot.held.as_deref_mut()) {
            what(held, &mut self.events);
            self.after(number);
        }
    }

    /// Puts other limits of its cgroup into force; returns those that are not.
    pub fn set_limits(&self, id: &IncarnationId, limits: &Limits) -> Vec<NotInForce> {
        self.held(id).map(|held| held.set_limits(limits)).unwrap_or_default()
    }

    /// For taking back what it does not use; `None`: nobody counts its memory, or the kernel cannot do that.
    pub fn reclaim(&self, id: &IncarnationId) -> Option<Reclaim> {
        self.held(id)?.reclaim()
    }

    /// How often the kernel refused it a process for its `pids_max`; 0 where nobody counts that.
    pub fn pids_refused(&self, id: &IncarnationId) -> u64 {
        self.held(id).map(Held::pids_refused).unwrap_or(0)
    }

    /// The rung that holds this incarnation.
    pub fn rung(&self, id: &IncarnationId) -> Option<Rung> {
        self.held(id).map(Held::rung)
    }

    /// What is weaker than the rung promises for this service; `None`: nothing.
    pub fn weakness(&self, id: &IncarnationId) -> Option<&'static str> {
        self.held(id)?.weakness()
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}
