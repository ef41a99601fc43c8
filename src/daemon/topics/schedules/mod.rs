//! Which scheduled service is due: a oneshot with `schedule` or `every` that is wanted up. Whether it then runs is the core's decision.

mod plan;

pub use plan::Moment;
use plan::{LATE, Now, Plan};

use crate::control::protocol::{self, EventKind};
use crate::core::clock::Tick;
use crate::core::event::Event;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Gateway;
use crate::core::schedule::Schedule;
use crate::core::words::Want;
use crate::daemon::act::{Action, Actions};
use crate::daemon::view::View;
use crate::sys::localtime::Zone;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The plans of all that are wanted up. Wall times are Unix times in seconds.
#[derive(Debug, Default)]
pub struct Schedules {
    plans: BTreeMap<ServiceId, Plan>,
    /// `None`: the zone of this process.
    zone: Option<Zone>,
}

impl Schedules {
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Of those that the supervisor before us had planned, too.
    pub fn boot(&mut self, wall: i64, view: &View<'_>) -> Actions {
        view.fleet.ids().for_each(|id| self.plan(id, true, wall, view));
        Actions::new()
    }

    /// The service is in another state, or has another want or definition.
    pub fn changed(&mut self, id: ServiceId, wall: i64, view: &View<'_>) -> Actions {
        self.plan(id, false, wall, view);
        Actions::new()
    }

    pub fn forget(&mut self, id: ServiceId) {
        self.plans.remove(&id);
    }

    fn plan(&mut self, id: ServiceId, resumed: bool, wall: i64, view: &View<'_>) {
        let wanted =
            |gateway: &&Gateway| gateway.want() == Want::Up && !gateway.is_retiring() && !view.closing;
        let schedule: Option<&Arc<Schedule>> =
            view.service(id).and_then(|service| service.definition.schedule.as_ref());
        let Some((schedule, gateway)) = schedule.zip(view.fleet.gateway(id).filter(wanted)) else {
            self.plans.remove(&id);
            return;
        };
        let started = gateway.history().runs.as_ref().and_then(|runs| runs.started);
        let now = clocks(self.zone.as_ref(), wall, view);
        match self.plans.get_mut(&id).filter(|plan| plan.is_of(schedule)) {
            Some(plan) => plan.started(started, now),
            None => drop(self.plans.insert(id, Plan::new(Arc::clone(schedule), started, resumed, now))),
        }
    }

    /// What is due runs, or is missed.
    pub fn pass_time(&mut self, wall: i64, view: &View<'_>) -> Actions {
        let now = clocks(self.zone.as_ref(), wall, view);
        let mut actions = Actions::new();
        for (id, plan) in &mut self.plans {
            let Some(late) = plan.due(now) else { continue };
            plan.pass(now);
            match view.name(*id).filter(|_| late > LATE) {
                Some(name) => {
                    let text = format!("its run was due {} ago and is not made up", words(late));
                    let event = protocol::Event::warning(EventKind::Schedule, text).about(name);
                    actions.push(Action::Tell(event));
                }
                None => actions.push(Action::Core(*id, Event::Due)),
            }
        }
        actions
    }

    /// Somebody has set the wall clock, or the machine has slept.
    pub fn clock_set(&mut self, wall: i64, view: &View<'_>) -> Actions {
        let now = clocks(self.zone.as_ref(), wall, view);
        self.plans.values_mut().for_each(|plan| plan.clock_set(now));
        Actions::new()
    }

    pub fn next(&self, id: ServiceId) -> Option<Moment> {
        self.plans.get(&id).and_then(Plan::next)
    }

    /// The first of all on the supervisor's clock.
    pub fn next_tick(&self) -> Option<Tick> {
        self.moments().filter_map(|at| if let Moment::Tick(at) = at { Some(at) } else { None }).min()
    }

    /// The first of all on the wall clock.
    pub fn next_wall(&self) -> Option<i64> {
        self.moments().filter_map(|at| if let Moment::Wall(at) = at { Some(at) } else { None }).min()
    }

    fn moments(&self) -> impl Iterator<Item = Moment> {
        self.plans.values().filter_map(Plan::next)
    }
}

fn clocks<'a>(zone: Option<&'a Zone>, wall: i64, view: &View<'_>) -> Now<'a> {
    Now { tick: view.now, wall, zone: zone.unwrap_or_else(|| Zone::own()) }
}

/// To the second.
fn words(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod stories;
