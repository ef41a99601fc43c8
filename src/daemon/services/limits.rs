//! The limits of services: what each start gets, what `set` changes, what holds in truth, and an OOM kill.
//!
//! Of a running service the limits are those that it was started with and what was set since; the next start has those
//! of its definition with what is on record in their place. Nothing on record gives more than the definition does while
//! the database lies where the gateway user could put another one.
//!
//! A limit that does not hold is said and shown with the reason, and hinders nothing.

use crate::containment::{IncarnationId, SpawnError};
use crate::control::protocol::{Code, Outcome};
use crate::core::clock::Tick;
use crate::core::event::Ticket;
use crate::core::exit::{Exit, Shortage};
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::core::limits::{Enforcer, Inherited, Key, Limits, NotInForce, Oom, Value};
use crate::core::name::ServiceName;
use crate::daemon::inbox::Input;
use crate::daemon::services::Service;
use crate::daemon::{Commit, Supervisor};
use crate::definition::limits::inherited;
use crate::store::{Change, LimitsRow};
use crate::sys::kernel_text;
use crate::sys::spawn::plan::ChildPlan;
use std::collections::BTreeMap;
use std::time::Duration;

/// The limits of the present life of one service.
#[derive(Debug, Default)]
pub struct Bounds {
    asked: Limits,
    not_in_force: Vec<NotInForce>,
    /// What the log has of the latter: once, not at each restart.
    said: Vec<NotInForce>,
    /// When the kernel last held its memory at `memory_high`.
    high_at: Option<Tick>,
    /// When that was last said, whichever life it was.
    high_said: Option<Tick>,
}

/// That the memory of a service is held at `memory_high` is said, and its hook run, at most this often: the kernel may say it
/// a hundred times a second.
const HIGH_INTERVAL: Duration = Duration::from_secs(60);

/// What was set for every start to come, by service, whether there is such a service now or not.
#[derive(Debug, Default)]
pub struct Recorded {
    on_disk: BTreeMap<ServiceName, Limits>,
    /// On its way there.
    pending: BTreeMap<ServiceName, Limits>,
}

/// Limits on their way to the disk, and who waits for that.
#[derive(Debug)]
pub struct Setting {
    id: ServiceId,
    name: ServiceName,
    over: Limits,
    recorded: Limits,
    ticket: Ticket,
}

/// Why limits are not set, with the code to answer.
type Refused = (Code, String);

/// The hook, by its key in `[hooks]`.
const MEMORY_HIGH: &str = "memory_high";

/// A key's own word for "as the definition has it".
const DEFAULT: &str = "default";

impl Recorded {
    pub fn from_rows(rows: &BTreeMap<ServiceName, LimitsRow>) -> Self {
        let read = |(name, row): (&ServiceName, &LimitsRow)| (name.clone(), Limits::from_shown(&row.limits));
        Self { on_disk: rows.iter().map(read).collect(), pending: BTreeMap::new() }
    }

    pub fn forget(&mut self, name: &ServiceName) {
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
    fn admit(&mut self, left: NotInForce, name: &ServiceName, log: &slog::Logger) {
        if !self.said.contains(&left) {
            slog::warn!(log, "{name}: {left}");
            self.said.push(left.clone());
        }
        self.not_in_force.push(left);
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

    /// When its memory was last held at `memory_high`, in this life.
    pub fn high_at(&self) -> Option<Tick> {
        self.high_at
    }

    /// Those in force, and a line for each other one.
    pub fn shown(&self) -> (BTreeMap<String, String>, Vec<String>) {
        let mut held = self.asked.clone();
        for left in self.not_in_force.iter().filter(|left| self.asked.get(left.key) == Some(left.value)) {
            held.remove(left.key);
        }
        (held.shown(), self.not_in_force.iter().map(ToString::to_string).collect())
    }
}

/// What the child itself has to bear.
pub fn give(plan: &mut ChildPlan, limits: &Limits) {
    let amount = |key| match limits.get(key) {
        Some(Value::Amount(amount)) => Some((amount, amount)),
        Some(Value::Max) => Some((u64::MAX, u64::MAX)),
        _ => None,
    };
    plan.nofile = amount(Key::Nofile).or(plan.nofile);
    plan.nproc = amount(Key::Nproc);
    plan.core = amount(Key::Core);
    plan.oom_score_adj = match limits.get(Key::OomScoreAdj) {
        Some(Value::Adjustment(adjustment)) => Some(adjustment),
        _ => None,
    };
}

impl Supervisor {
    /// What a start of the service gets now, and what is on record for it and not believed.
    pub(in crate::daemon) fn limits_of(&self, service: &Service) -> (Limits, Vec<NotInForce>) {
        let mut recorded = self.recorded_limits.on_disk.get(&service.name).cloned().unwrap_or_default();
        let base = &service.definition.limits;
        let mut refused = Vec::new();
        // Most have nothing on record, and a start is no time to ask the kernel for nothing.
        if let (Some(why), false) = (self.state_trust.reason(), recorded.is_empty()) {
            for key in base.raised_by(&recorded, &inherited()) {
                let why = format!("it was set, and would give more than the definition; {why}");
                refused.extend(recorded.get(key).map(|value| NotInForce { key, value, why }));
                recorded.remove(key);
            }
        }
        (base.with(&recorded), refused)
    }

    /// A life begins within these limits.
    pub(in crate::daemon) fn limited(&mut self, id: ServiceId, asked: Limits, not_in_force: Vec<NotInForce>) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let bounds = &mut service.bounds;
        if bounds.asked != asked {
            bounds.said.clear();
        }
        (bounds.asked, bounds.not_in_force, bounds.high_at) = (asked, Vec::new(), None);
        for left in not_in_force {
            bounds.admit(left, &service.name, &self.log);
        }
    }

    /// The main process runs: does it have what it was to have?
    pub(in crate::daemon) fn look_at_process_limits(&mut self, name: &ServiceName, pid: i32) {
        let Some(service) = self.fleet.id(name.as_str()).and_then(|id| self.services.get_mut(&id)) else {
            return;
        };
        let bounds = &mut service.bounds;
        if !bounds.asked.iter().any(|(key, _)| key.enforcer() == Enforcer::Process) {
            return;
        }
        let Some(has) = had_by(pid) else { return };
        for left in looser(&bounds.asked, &has) {
            bounds.admit(left, name, &self.log);
        }
    }

    /// The OOM killer has killed a process of a service.
    pub(in crate::daemon) fn oom_killed(
        &mut self,
        life: &IncarnationId,
        kills: u64,
        main: bool,
        shortage: Shortage,
    ) {
        let name = &life.name;
        let service = self.fleet.id(name.as_str()).and_then(|id| self.services.get(&id));
        let policy = service.map_or(Oom::Process, |service| service.bounds.asked.oom());
        match (main, policy) {
            (true, _) => {
                slog::warn!(self.log, "{name}: {shortage}: the kernel killed its main process");
            }
            (false, Oom::Process) => {
                slog::warn!(self.log, "{name}: {shortage}: the kernel killed a process of it, the rest goes on";
                    "kills" => kills);
            }
            (false, Oom::Service) => {
                slog::warn!(self.log, "{name}: {shortage}: the kernel killed a process of it, and it ends with that";
                    "kills" => kills);
                self.containment.end_for_oom(life, self.clock.now());
            }
        }
    }

    /// The main process of a service has failed: was it at a limit that lets nobody make a process? Whether it ended because of
    /// that only its own log may tell.
    pub(in crate::daemon) fn tell_of_refused_processes(&self, life: &IncarnationId) {
        let service = self.fleet.id(life.name.as_str()).and_then(|id| self.services.get(&id));
        let bound = service.and_then(|service| service.bounds.asked.get(Key::PidsMax));
        let Some(bound) = bound.filter(|bound| *bound != Value::Max) else { return };
        let refused = self.containment.pids_refused(life);
        if refused > 0 {
            slog::warn!(
                self.log,
                "{}: it was at its limit {}={}: the kernel refused it {refused} processes or threads",
                life.name,
                Key::PidsMax,
                Key::PidsMax.show(bound)
            );
        }
    }

    /// The kernel holds the memory of a service at `memory_high`.
    pub(in crate::daemon) fn memory_high(&mut self, life: &IncarnationId) {
        let now = self.clock.now();
        let Some(id) = self.fleet.id(life.name.as_str()) else { return };
        let Some(service) = self.services.get_mut(&id) else { return };
        if !service.bounds.held_high(now) {
            return;
        }
        let bound = service.bounds.asked.get(Key::MemoryHigh).map(|value| Key::MemoryHigh.show(value));
        slog::warn!(
            self.log,
            "{}: its memory is at memory_high={}: the kernel takes back what it can, and slows it down",
            life.name,
            bound.unwrap_or_default()
        );
        let hook = service.definition.hooks.memory_high.clone();
        let runs = self.fleet.gateway(id).is_some_and(|gateway| gateway.phase() == Phase::Up);
        if let Some(argv) = hook.filter(|_| runs)
            && let Err(why) = self.run_hook(id, life, MEMORY_HIGH, argv)
        {
            slog::warn!(self.log, "{}: its hook {MEMORY_HIGH} does not run: {why}", life.name);
        }
    }

    /// How a hook ended, whatever it was for.
    pub(in crate::daemon) fn hook_ended(&self, name: &ServiceName, ended: Result<Exit, SpawnError>) {
        match ended {
            Ok(exit) if exit.is_success() => slog::info!(self.log, "{name}: its hook {MEMORY_HIGH} has run"),
            Ok(exit) => slog::warn!(self.log, "{name}: its hook {MEMORY_HIGH} {exit}"),
            Err(why) => slog::warn!(self.log, "{name}: its hook {MEMORY_HIGH} does not run: {why}"),
        }
    }

    // ---- set ------------------------------------------------------------------------------------------------------

    /// `ctl set` for one service. `None`: the answer comes when it is on disk.
    pub(in crate::daemon) fn set_limits(
        &mut self,
        ticket: Ticket,
        uid: u32,
        id: ServiceId,
        asked: &BTreeMap<String, String>,
        persist: bool,
    ) -> Option<Outcome> {
        let Some(name) = self.fleet.name(id).cloned() else {
            return Some(Outcome::failed("", Code::NoSuchService, None, "the service is gone"));
        };
        let (over, reset) = match self.check_limits(uid, id, asked, persist) {
            Ok(checked) => checked,
            Err((code, message)) => {
                return Some(Outcome::failed(name.as_str(), code, self.state(id), message));
            }
        };
        slog::info!(self.log, "{name}: limits are set: {}", words(&over); "uid" => uid, "persist" => persist);
        if !persist {
            return Some(self.put_in_force(id, &over, false));
        }
        let mut recorded = self.recorded_limits.newest(&name).with(&over);
        reset.into_iter().for_each(|key| recorded.remove(key));
        self.recorded_limits.pending.insert(name.clone(), recorded.clone());
        let row =
            LimitsRow { limits: recorded.shown(), asked_by_uid: Some(uid), asked_at_ms: self.clock.now().0 };
        let change = Change::Limits(name.clone(), (!recorded.is_empty()).then_some(row));
        self.commit(Commit::Limits(Box::new(Setting { id, name, over, recorded, ticket })), vec![change]);
        None
    }

    /// The values that are to hold, and the keys that go back to what the definition says.
    fn check_limits(
        &self,
        uid: u32,
        id: ServiceId,
        asked: &BTreeMap<String, String>,
        persist: bool,
    ) -> Result<(Limits, Vec<Key>), Refused> {
        let gone = || (Code::NoSuchService, "the service is gone".to_owned());
        let service = self.services.get(&id).ok_or_else(gone)?;
        let (name, base) = (&service.name, &service.definition.limits);
        let failed = |message: String| (Code::Failed, format!("'{name}': {message}"));
        let ours = inherited();
        let (mut over, mut reset) = (Limits::default(), Vec::new());
        for (key, text) in asked {
            let key = Key::from_name(key).ok_or_else(|| {
                let known = Key::ALL.map(Key::as_str).join(", ");
                failed(format!("there is no limit '{key}'; allowed: {known}"))
            })?;
            if text == DEFAULT {
                reset.push(key);
                let value = base.get(key).or_else(|| key.neutral()).unwrap_or_else(|| ours_of(&ours, key));
                over.set(key, value);
            } else {
                over.set(key, key.parse(text).map_err(|wrong| failed(format!("{key}: '{text}' {wrong}")))?);
            }
        }
        if over.is_empty() {
            return Err(failed("nothing to set; write KEY=VALUE".to_owned()));
        }
        // What it has now, and what it will have: neither shall become more, by whoever set it.
        let running = self.within_limits(id).is_some();
        let present = running.then(|| service.bounds.asked.clone());
        let coming = (persist || !running).then(|| base.with(&self.recorded_limits.newest(name)));
        let raised = present.iter().chain(&coming).find_map(|now| {
            let key = *now.raised_by(&over, &ours).first()?;
            Some((key, now.get(key).or_else(|| key.neutral()).unwrap_or_else(|| ours_of(&ours, key))))
        });
        if let (Some((key, has)), false) = (raised, self.rules().is_privileged(uid)) {
            let message = format!(
                "not permitted to give '{name}' more than {key}={}: you are uid {uid}, and only root may raise a limit",
                key.show(has)
            );
            return Err((Code::NotPermitted, message));
        }
        if !persist {
            if let Some((key, _)) = over.iter().find(|(key, _)| key.enforcer() == Enforcer::Process) {
                return Err(failed(format!("{key} holds from a start on; add --persist, then restart it")));
            }
            if !running {
                return Err(failed("it is not running; add --persist to set it for its starts".to_owned()));
            }
        } else if let (Some(why), Some(key)) =
            (self.state_trust.reason(), base.raised_by(&over, &ours).first())
        {
            return Err(failed(format!(
                "{key} cannot be recorded above what the definition gives, for the record could be anybody's ({why}); \
                 write it into the definition, or set it without --persist"
            )));
        }
        Ok((over, reset))
    }

    /// Limits are on disk, or could not be put there.
    pub(in crate::daemon) fn limits_recorded(&mut self, setting: Setting, error: Option<String>) {
        let Setting { id, name, over, recorded, ticket } = setting;
        if let Some(why) = error {
            if self.recorded_limits.pending.get(&name) == Some(&recorded) {
                self.recorded_limits.pending.remove(&name);
            }
            let message = format!("'{name}': limits are not set, because they are not recorded: {why}");
            let state = self.state(id);
            let outcome = Outcome::failed(name.as_str(), Code::Failed, state, message);
            return self.inbox.push(Input::Answer(ticket, outcome));
        }
        self.recorded_limits.keep(&name, recorded);
        let outcome = self.put_in_force(id, &over, true);
        self.inbox.push(Input::Answer(ticket, outcome));
    }

    /// Puts into force now what can be, and says what became of each. `recorded`: it holds for the next starts anyway.
    fn put_in_force(&mut self, id: ServiceId, over: &Limits, recorded: bool) -> Outcome {
        let Some(name) = self.fleet.name(id).cloned() else {
            return Outcome::failed("", Code::NoSuchService, None, "the service is gone");
        };
        let running = self.within_limits(id);
        let (now, later): (Vec<_>, Vec<_>) = over
            .iter()
            .partition(|(key, _)| running.is_some() && matches!(key.enforcer(), Enforcer::Controller(_)));
        let (now, later): (Limits, Limits) = (now.into_iter().collect(), later.into_iter().collect());
        let left = running.map_or_else(Vec::new, |life| self.containment.set_limits(&life, &now));
        if let Some(service) = self.services.get_mut(&id) {
            let Bounds { asked, not_in_force, .. } = &mut service.bounds;
            *asked = asked.with(&now);
            not_in_force.retain(|old| now.get(old.key).is_none());
            not_in_force.extend(left.iter().cloned());
        }
        let mut held = now.clone();
        left.iter().for_each(|left| held.remove(left.key));
        let mut said = Vec::new();
        if !held.is_empty() {
            said.push(words(&held));
        }
        said.extend(left.iter().map(ToString::to_string));
        if !later.is_empty() {
            said.push(format!("{} from its next start on", words(&later)));
        }
        let (state, said) = (self.state(id), said.join("; "));
        match state {
            Some(state) if recorded || !held.is_empty() => Outcome::done(name.as_str(), state, Some(said)),
            state => Outcome::failed(name.as_str(), Code::Failed, state, format!("'{name}': {said}")),
        }
    }

    /// The life of a service whose limits can be set: it is there, and not on its way out, where a bound of ours keeps it
    /// from making more processes.
    fn within_limits(&self, id: ServiceId) -> Option<IncarnationId> {
        let life = self.life(id)?;
        let lives = matches!(self.fleet.gateway(id)?.phase(), Phase::Starting | Phase::Up);
        (lives && self.containment.rung(&life).is_some()).then_some(life)
    }

    /// Of a running service those in force, else those of its next start; and a line for each that is not in force.
    pub(in crate::daemon) fn shown_limits(
        &self,
        service: &Service,
        running: bool,
    ) -> (BTreeMap<String, String>, Vec<String>) {
        if running { service.bounds.shown() } else { (self.limits_of(service).0.shown(), Vec::new()) }
    }
}

fn words(limits: &Limits) -> String {
    limits.iter().map(|(key, value)| format!("{key}={}", key.show(value))).collect::<Vec<_>>().join(" ")
}

/// What a process has of a key that it bears itself, when nothing is set.
fn ours_of(ours: &Inherited, key: Key) -> Value {
    match ours.hard(key) {
        Some(u64::MAX) => Value::Max,
        Some(amount) => Value::Amount(amount),
        None => Value::Adjustment(ours.oom_score_adj),
    }
}

/// What a process really has; `None` when it is gone.
fn had_by(pid: i32) -> Option<Inherited> {
    let limits = kernel_text::read(&format!("/proc/{pid}/limits")).ok()?;
    let adjustment = kernel_text::read(&format!("/proc/{pid}/oom_score_adj")).ok()?;
    Some(Inherited {
        nofile: hard_limit(&limits, "Max open files")?,
        nproc: hard_limit(&limits, "Max processes")?,
        core: hard_limit(&limits, "Max core file size")?,
        oom_score_adj: adjustment.trim().parse().ok()?,
    })
}

/// Of a table as in proc_pid_limits(5); `u64::MAX`: unlimited.
fn hard_limit(table: &str, name: &str) -> Option<u64> {
    match table.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        amount => amount.parse().ok(),
    }
}

/// The limits of a process that are not what was asked for.
fn looser(asked: &Limits, has: &Inherited) -> Vec<NotInForce> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(pairs: &[(Key, &str)]) -> Limits {
        pairs.iter().map(|(key, text)| (*key, key.parse(text).unwrap())).collect()
    }

    #[test]
    fn what_a_process_does_not_have_is_told_with_what_it_has() {
        let has = Inherited { nofile: 1024, nproc: u64::MAX, core: 0, oom_score_adj: 0 };
        let asked =
            limits(&[(Key::Nofile, "1024"), (Key::Nproc, "max"), (Key::Core, "0"), (Key::MemoryMax, "1G")]);
        assert_eq!(looser(&asked, &has), []);
        let asked = limits(&[(Key::Nofile, "4096"), (Key::OomScoreAdj, "-5")]);
        let said: Vec<String> = looser(&asked, &has).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "nofile=4096 is not in force: it is 1024; to go beyond that takes CAP_SYS_RESOURCE",
                "oom_score_adj=-5 is not in force: it is 0; to go below that takes CAP_SYS_RESOURCE",
            ]
        );
        let own = had_by(std::process::id().cast_signed()).unwrap();
        assert_eq!((own.nofile, own.oom_score_adj), (inherited().nofile, inherited().oom_score_adj));
    }

    #[test]
    fn what_is_not_in_force_is_not_shown_as_if_it_were() {
        let not_in_force =
            vec![NotInForce { key: Key::PidsMax, value: Value::Amount(5), why: "no such luck".to_owned() }];
        let bounds = Bounds {
            asked: limits(&[(Key::PidsMax, "5"), (Key::MemoryMax, "1G")]),
            not_in_force,
            ..Bounds::default()
        };
        let (held, left) = bounds.shown();
        assert_eq!(held, BTreeMap::from([("memory_max".to_owned(), "1G".to_owned())]));
        assert_eq!(left, ["pids_max=5 is not in force: no such luck"]);
    }

    #[test]
    fn what_the_kernel_says_all_the_time_is_said_once_a_minute() {
        let mut bounds = Bounds::default();
        let said: Vec<u64> =
            (0..130_000).step_by(10).filter(|millis| bounds.held_high(Tick(1_000_000 + millis))).collect();
        assert_eq!(said, [0, 60_000, 120_000]);
        assert_eq!(bounds.high_at(), Some(Tick(1_129_990)));
    }

    #[test]
    fn of_two_that_are_on_their_way_the_second_knows_the_first() {
        let name = ServiceName::new("a").unwrap();
        let (first, second) =
            (limits(&[(Key::PidsMax, "5")]), limits(&[(Key::PidsMax, "5"), (Key::Oom, "service")]));
        let mut recorded = Recorded::default();
        recorded.pending.insert(name.clone(), first.clone());
        assert_eq!(recorded.newest(&name), first);
        recorded.pending.insert(name.clone(), second.clone());
        recorded.keep(&name, first);
        assert_eq!(recorded.newest(&name), second, "what is newer is still on its way");
        recorded.keep(&name, second.clone());
        assert!(recorded.pending.is_empty() && recorded.on_disk[&name] == second);
        recorded.forget(&name);
        assert!(recorded.newest(&name).is_empty());
    }
}
