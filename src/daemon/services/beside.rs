//! Programs beside the main process of a life, in its one place for them: hooks and probes.

use crate::containment::{HookError, IncarnationId, SpawnError};
use crate::control::protocol::Event as Told;
use crate::core::event::Event;
use crate::core::exit::Exit;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Gateway;
use crate::core::policy::Hook;
use crate::daemon::Supervisor;
use crate::daemon::services::launch::Program;
use crate::daemon::services::launch_error::LaunchError;
use crate::daemon::services::process_limits;
use crate::daemon::topics::limits::MEMORY_HIGH;
use crate::daemon::topics::probing::{Ask, Purpose};
use crate::daemon::view::decide;
use crate::definition::limits::inherited;
use std::collections::BTreeMap;
use std::fmt::Display;

/// What runs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Of a start or a stop: the core waits for it.
    Core(Hook),
    MemoryHigh,
    Probe(Ask),
}

impl Beside {
    /// As the program itself is told.
    fn word(self) -> &'static str {
        match self {
            Self::Core(hook) => hook.as_str(),
            Self::MemoryHigh => MEMORY_HIGH,
            Self::Probe(Ask { purpose: Purpose::Ready, .. }) => "ready",
            Self::Probe(Ask { purpose: Purpose::Health, .. }) => "health",
        }
    }
}

impl Supervisor {
    /// Runs it with the environment of the service, but for its env file, which may lie where the disk hangs.
    pub(in crate::daemon) fn run_beside(
        &mut self,
        id: ServiceId,
        life: &IncarnationId,
        what: Beside,
        argv: Vec<String>,
    ) -> Result<(), LaunchError> {
        let mut plan = self.plan(id, BTreeMap::new(), Program::Hook(argv), &self.surroundings_now())?;
        let service = self.services.get(&id).ok_or(LaunchError::Gone)?;
        process_limits::give(&mut plan, &self.topics.limits.of(service, &self.state_trust, inherited).0);
        self.tell_hook(id, what.word(), &mut plan)?;
        self.containment.run_hook(life, plan)?;
        self.beside.insert(life.clone(), what);
        Ok(())
    }

    /// A hook that the core has asked for. What else is in its place makes room; one that cannot run holds nothing up.
    pub(in crate::daemon) fn run_core_hook(&mut self, id: ServiceId, life: &IncarnationId, hook: Hook) {
        let hooks = self.services.get(&id).and_then(|service| service.definition.hooks.as_ref());
        let argv = hooks.and_then(|hooks| match hook {
            Hook::PostStart => hooks.post_start.clone(),
            Hook::PreStop => hooks.pre_stop.clone(),
        });
        // Without one its definition was changed meanwhile.
        let run = |argv| self.run_beside(id, life, Beside::Core(hook), argv);
        match argv.ok_or(LaunchError::Gone).and_then(run) {
            Ok(()) => {}
            Err(LaunchError::Hook(HookError::Busy)) => self.containment.end_hook(life, self.clock.now()),
            Err(why) => {
                self.happened(Told::of_hook(hook.as_str(), Err(&why)).about(&life.name));
                self.inbox.core(id, Event::HookEnded { incarnation: life.n });
            }
        }
    }

    /// What was beside a main process has ended.
    pub(in crate::daemon) fn beside_ended(&mut self, life: &IncarnationId, ended: &Result<Exit, SpawnError>) {
        let what = self.beside.remove(life);
        let id = self.fleet.id(life.name.as_str());
        if let Some(Beside::Core(hook)) = what {
            let ended = ended.as_ref().map(|exit| *exit).map_err(|why| why as &dyn Display);
            self.happened(Told::of_hook(hook.as_str(), ended).about(&life.name));
            return id.into_iter().for_each(|id| {
                self.inbox.core(id, Event::HookEnded { incarnation: life.n });
            });
        }
        // The core's own one has waited for the place.
        let is_it = |gateway: &&Gateway| gateway.history().incarnation == life.n;
        let waits = id.and_then(|id| {
            let gateway = self.fleet.gateway(id).filter(is_it)?;
            Some((id, gateway.hook()?, gateway.is_ending_hook()))
        });
        match what {
            Some(Beside::Probe(ask)) => self.probe_ended(ask, waits.is_some(), ended),
            Some(Beside::MemoryHigh) => decide!(self.limits.hook_ended(&life.name, ended)),
            Some(Beside::Core(_)) | None => {}
        }
        match waits {
            Some((id, _, true)) => self.inbox.core(id, Event::HookEnded { incarnation: life.n }),
            Some((id, hook, false)) => self.run_core_hook(id, life, hook),
            None => {}
        }
    }
}
