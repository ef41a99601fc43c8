//! The limits of services: what each start gets, what `set` changes, what holds in truth, and an OOM kill.
//!
//! Of a running service the limits are those that it was started with and what was set since; the next start has those
//! of its definition with what is on record in their place. Nothing on record gives more than the definition does while
//! the database lies where the gateway user could put another one.
//!
//! A limit that does not hold is said and shown with the reason, and hinders nothing.

mod set;
#[cfg(test)]
mod stories;

pub use set::{Asked, InForce, Setting};

use crate::containment::{IncarnationId, SpawnError};
use crate::control::protocol::{Event, EventKind};
use crate::core::clock::Tick;
use crate::core::exit::{Exit, Shortage};
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::core::limits::{Enforcer, Inherited, Key, Limits, NotInForce, Oom, Value};
use crate::core::name::ServiceName;
use crate::daemon::act::{Action, Actions};
use crate::daemon::services::Service;
use crate::daemon::view::View;
use crate::definition::trust::Trust;
use crate::store::LimitsRow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// That the memory of a service is held at `memory_high` is said, and its hook run, at most this often: the kernel may say it
/// a hundred times a second.
const HIGH_INTERVAL: Duration = Duration::from_secs(60);

/// The hook, by its key in `[hooks]`.
pub const MEMORY_HIGH: &str = "memory_high";

/// What is known of the limits of all services.
#[derive(Debug, Default)]
pub struct ServiceLimits {
    recorded: Recorded,
    /// Of those that were started with limits, or given some.
    bounds: BTreeMap<ServiceId, Bounds>,
}

/// The limits of the present life of one service.
#[derive(Debug, Default)]
struct Bounds {
    asked: Limits,
    not_in_force: Vec<NotInForce>,
    /// What the log has of the latter: once, not at each restart.
    said: Vec<NotInForce>,
    /// When the kernel last held its memory at `memory_high`.
    high_at: Option<Tick>,
    /// When that was last said, whichever life it was.
    high_said: Option<Tick>,
}

/// What was set for every start to come, by service, whether there is such a service now or not.
#[derive(Debug, Default)]
struct Recorded {
    on_disk: BTreeMap<ServiceName, Limits>,
    /// On its way there.
    pending: BTreeMap<ServiceName, Limits>,
}

impl Recorded {
    fn from_rows(rows: &BTreeMap<ServiceName, LimitsRow>) -> Self {
        let read = |(name, row): (&ServiceName, &LimitsRow)| (name.clone(), Limits::from_shown(&row.limits));
        Self { on_disk: rows.iter().map(read).collect(), pending: BTreeMap::new() }
    }

    fn forget(&mut self, name: &ServiceName) {
        self.on_disk.remove(name);
        self.pending.remove(name);
    }

    /// Also what will be there.
    fn newest(&self, name: &ServiceName) -> Limits {
        self.pending.get(name).or_else(|| self.on_disk.get(name)).cloned().unwrap_or_default()
    }

    fn keep(&mut self, name: &ServiceName, limits: Limits) {
        if self.pending.get(name) == Some(&limits) {
            self.pending.remove(name);
        }
        self.on_disk.insert(name.clone(), limits);
    }
}

impl Bounds {
    /// This limit does not hold. Returns what there is to say of it.
    fn admit(&mut self, left: NotInForce, name: &ServiceName) -> Option<Action> {
        let is_news = !self.said.contains(&left);
        let line = is_news.then(|| met(name, left.to_string()));
        if is_news {
            self.said.push(left.clone());
        }
        self.not_in_force.push(left);
        line
    }

    /// The kernel holds its memory at `memory_high`. Returns whether it is time to say so.
    fn held_high(&mut self, now: Tick) -> bool {
        self.high_at = Some(now);
        let is_news = self.high_said.is_none_or(|said| now.since(said) >= HIGH_INTERVAL);
        if is_news {
            self.high_said = Some(now);
        }
        is_news
    }

    /// Those in force, and a line for each other one.
    fn shown(&self) -> (BTreeMap<String, String>, Vec<String>) {
        let mut held = self.asked.clone();
        for left in self.not_in_force.iter().filter(|left| self.asked.get(left.key) == Some(left.value)) {
            held.remove(left.key);
        }
        (held.shown(), self.not_in_force.iter().map(ToString::to_string).collect())
    }
}

impl ServiceLimits {
    pub fn from_rows(rows: &BTreeMap<ServiceName, LimitsRow>) -> Self {
        Self { recorded: Recorded::from_rows(rows), bounds: BTreeMap::new() }
    }

    /// The database can be read now, and what is on record is this.
    pub fn recall(&mut self, rows: &BTreeMap<ServiceName, LimitsRow>) {
        self.recorded = Recorded::from_rows(rows);
    }

    /// The service is no more, and with it goes what was set for it.
    pub fn forget(&mut self, id: ServiceId, name: &ServiceName) {
        self.bounds.remove(&id);
        self.recorded.forget(name);
    }

    /// The record of what never became a service is dropped.
    pub fn forget_record(&mut self, name: &ServiceName) {
        self.recorded.forget(name);
    }

    /// What a start of the service gets now, and what is on record for it and not believed.
    pub fn of(&self, service: &Service, trust: &Trust, ours: fn() -> Inherited) -> (Limits, Vec<NotInForce>) {
        let mut recorded = self.recorded.on_disk.get(&service.name).cloned().unwrap_or_default();
        let base = &service.definition.limits;
        let mut refused = Vec::new();
        // Most have nothing on record, and a start is no time to ask the kernel for nothing.
        if let (Some(why), false) = (trust.reason(), recorded.is_empty()) {
            for key in base.raised_by(&recorded, &ours()) {
                let why = format!("it was set, and would give more than the definition; {why}");
                refused.extend(recorded.get(key).map(|value| NotInForce { key, value, why }));
                recorded.remove(key);
            }
        }
        (base.with(&recorded), refused)
    }

    /// Those of the running service that are in force, and a line for each other one.
    pub fn shown(&self, id: ServiceId) -> (BTreeMap<String, String>, Vec<String>) {
        self.bounds.get(&id).map(Bounds::shown).unwrap_or_default()
    }

    /// When the memory of the present life was last held at `memory_high`.
    pub fn high_at(&self, id: ServiceId) -> Option<Tick> {
        self.bounds.get(&id)?.high_at
    }

    /// A life begins within these limits.
    pub fn begun(
        &mut self,
        id: ServiceId,
        asked: Limits,
        not_in_force: Vec<NotInForce>,
        view: &View<'_>,
    ) -> Actions {
        let Some(name) = view.name(id) else { return Actions::new() };
        // Most have no limits, and nothing is kept for those.
        if asked.is_empty() && not_in_force.is_empty() && !self.bounds.contains_key(&id) {
            return Actions::new();
        }
        let bounds = self.bounds.entry(id).or_default();
        if bounds.asked != asked {
            bounds.said.clear();
        }
        (bounds.asked, bounds.not_in_force, bounds.high_at) = (asked, Vec::new(), None);
        not_in_force.into_iter().filter_map(|left| bounds.admit(left, name)).collect()
    }

    /// The main process runs: does it have what it was to have?
    pub fn spawned(&mut self, life: &IncarnationId, pid: i32, view: &View<'_>) -> Actions {
        let asked = |id| self.bounds.get(&id).map(|bounds| &bounds.asked);
        let Some(asked) = view.fleet.id(life.name.as_str()).and_then(asked) else { return Actions::new() };
        let bears = asked.iter().any(|(key, _)| key.enforcer() == Enforcer::Process);
        bears.then(|| Action::ReadProcessLimits(life.clone(), pid)).into_iter().collect()
    }

    /// What the main process of this life really has.
    pub fn read(&mut self, life: &IncarnationId, has: &Inherited, view: &View<'_>) -> Actions {
        let current = |id: &ServiceId| view.life(*id).as_ref() == Some(life);
        let Some(id) = view.fleet.id(life.name.as_str()).filter(current) else { return Actions::new() };
        let Some(bounds) = self.bounds.get_mut(&id) else { return Actions::new() };
        let missed = missed(&bounds.asked, has);
        missed.into_iter().filter_map(|left| bounds.admit(left, &life.name)).collect()
    }

    /// The OOM killer has killed a process of a service. `kills`: so far in this life.
    pub fn oom_killed(
        &mut self,
        life: &IncarnationId,
        kills: u64,
        main: bool,
        shortage: Shortage,
        view: &View<'_>,
    ) -> Actions {
        let name = &life.name;
        let bounds = view.fleet.id(name.as_str()).and_then(|id| self.bounds.get(&id));
        match (main, bounds.map_or(Oom::Process, |bounds| bounds.asked.oom())) {
            (true, _) => vec![oom(name, format!("{shortage}: the kernel killed its main process"))],
            (false, Oom::Process) => vec![oom(
                name,
                format!(
                    "{shortage}: the kernel killed a process of it, {kills} in this life; the rest goes on"
                ),
            )],
            (false, Oom::Service) => vec![
                oom(
                    name,
                    format!(
                        "{shortage}: the kernel killed a process of it, {kills} in this life; it ends with that"
                    ),
                ),
                Action::EndForOom(life.clone()),
            ],
        }
    }

    /// The main process of a service has failed: was it at a limit that lets nobody make a process? Whether it ended because of
    /// that only its own log may tell.
    pub fn main_failed(&mut self, life: &IncarnationId, view: &View<'_>) -> Actions {
        let bounds = view.fleet.id(life.name.as_str()).and_then(|id| self.bounds.get(&id));
        let bound = bounds.and_then(|bounds| bounds.asked.get(Key::PidsMax));
        let Some(bound) = bound.filter(|bound| *bound != Value::Max) else { return Actions::new() };
        let refused = view.trees.pids_refused(life);
        if refused == 0 {
            return Actions::new();
        }
        let text = format!(
            "it was at its limit {}={}: the kernel refused it {refused} processes or threads",
            Key::PidsMax,
            Key::PidsMax.show(bound)
        );
        vec![met(&life.name, text)]
    }

    /// The kernel holds the memory of a service at `memory_high`.
    pub fn memory_high(&mut self, life: &IncarnationId, view: &View<'_>) -> Actions {
        let Some(id) = view.fleet.id(life.name.as_str()) else { return Actions::new() };
        let Some((bounds, service)) = self.bounds.get_mut(&id).zip(view.service(id)) else {
            return Actions::new();
        };
        if !bounds.held_high(view.now) {
            return Actions::new();
        }
        let bound = bounds.asked.get(Key::MemoryHigh).map(|value| Key::MemoryHigh.show(value));
        let text = format!(
            "its memory is at memory_high={}: the kernel takes back what it can, and slows it down",
            bound.unwrap_or_default()
        );
        let mut actions = vec![met(&life.name, text)];
        let runs = view.fleet.gateway(id).is_some_and(|gateway| gateway.phase() == Phase::Up);
        let hooks = service.definition.hooks.as_ref().filter(|_| runs);
        let hook = hooks.and_then(|hooks| hooks.memory_high.clone());
        let run = |argv| Action::RunMemoryHigh { id, life: life.clone(), argv };
        actions.extend(hook.map(run));
        actions
    }

    /// How a hook ended, whatever it was for.
    pub fn hook_ended(
        &mut self,
        name: &ServiceName,
        ended: &Result<Exit, SpawnError>,
        _: &View<'_>,
    ) -> Actions {
        let ended = ended.as_ref().map(|exit| *exit).map_err(|why| why as &dyn Display);
        vec![Action::Tell(Event::of_hook(MEMORY_HIGH, ended).about(name))]
    }
}

/// A limit was met, or does not hold.
fn met(name: &ServiceName, text: String) -> Action {
    Action::Tell(Event::warning(EventKind::Limit, text).about(name))
}

fn oom(name: &ServiceName, text: String) -> Action {
    Action::Tell(Event::warning(EventKind::Oom, text).about(name))
}

/// What a process has of a key that it bears itself, when nothing is set.
fn ours_of(ours: &Inherited, key: Key) -> Value {
    match ours.hard(key) {
        Some(u64::MAX) => Value::Max,
        Some(amount) => Value::Amount(amount),
        None => Value::Adjustment(ours.oom_score_adj),
    }
}

/// The limits of a process that are not what was asked for.
fn missed(asked: &Limits, has: &Inherited) -> Vec<NotInForce> {
    let other = |(key, value): (Key, Value)| {
        let had = ours_of(has, key);
        let why = match (key.enforcer(), value, had) {
            (Enforcer::Controller(_), ..) => return None,
            (_, wanted, had) if wanted == had => return None,
            (_, Value::Adjustment(wanted), Value::Adjustment(had)) if wanted > had => {
                format!(
                    "it is {had}, for the supervisor runs as the service's own user and may not change it"
                )
            }
            (_, Value::Adjustment(_), had) => {
                format!("it is {}; to go below that takes CAP_SYS_RESOURCE", key.show(had))
            }
            (_, _, had) => format!("it is {}; to go beyond that takes CAP_SYS_RESOURCE", key.show(had)),
        };
        Some(NotInForce { key, value, why })
    };
    asked.iter().filter_map(other).collect()
}
