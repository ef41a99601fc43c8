//! `ctl set`: who may set what, the record where it is to last, and what can be put into force at once.

use crate::containment::IncarnationId;
use crate::control::protocol::{Code, Event, EventKind, Outcome};
use crate::core::event::Ticket;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::core::limits::{Enforcer, Inherited, Key, Limits, NotInForce, Value};
use crate::core::name::ServiceName;
use crate::daemon::Commit;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::limits::{ServiceLimits, ours_of};
use crate::daemon::view::View;
use crate::store::{Change, LimitsRow};
use std::collections::BTreeMap;

/// A key's own word for "as the definition has it".
const DEFAULT: &str = "default";

/// What a caller wants to be set for one service.
#[derive(Debug)]
pub struct Asked {
    pub ticket: Ticket,
    pub id: ServiceId,
    pub uid: u32,
    /// By key, in the caller's words.
    pub limits: BTreeMap<String, String>,
    /// Also for the starts to come.
    pub persist: bool,
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

/// Limits that are being put into force, and who waits for that.
#[derive(Debug)]
pub struct InForce {
    id: ServiceId,
    ticket: Ticket,
    /// At once.
    now: Limits,
    /// From the next start on.
    later: Limits,
    /// They are on disk.
    recorded: bool,
    /// What the life had before.
    before: Limits,
}

/// Why limits are not set, with the code to answer.
#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error("the service is gone")]
    Gone,
    #[error("'{name}': there is no limit '{key}'; allowed: {}", Key::ALL.map(Key::as_str).join(", "))]
    UnknownKey { name: ServiceName, key: String },
    #[error("'{name}': {key}: '{text}' {wrong}")]
    Value { name: ServiceName, key: Key, text: String, wrong: crate::core::limits::ValueError },
    #[error("'{0}': nothing to set; write KEY=VALUE")]
    Nothing(ServiceName),
    #[error(
        "not permitted to give '{name}' more than {key}={}: you are uid {uid}, and only root may raise a limit",
        key.show(*has)
    )]
    Raised { name: ServiceName, key: Key, has: Value, uid: u32 },
    #[error("'{name}': {key} holds from a start on; add --persist, then restart it")]
    FromAStartOn { name: ServiceName, key: Key },
    #[error("'{0}': it is not running; add --persist to set it for its starts")]
    NotRunning(ServiceName),
    #[error(
        "'{name}': {key} cannot be recorded above what the definition gives, for the record could be anybody's ({why}); \
         write it into the definition, or set it without --persist"
    )]
    Unbelievable { name: ServiceName, key: Key, why: String },
}

impl SetError {
    fn code(&self) -> Code {
        match self {
            Self::Gone => Code::NoSuchService,
            Self::Raised { .. } => Code::NotPermitted,
            _ => Code::Failed,
        }
    }
}

impl InForce {
    pub fn now(&self) -> &Limits {
        &self.now
    }
}

impl ServiceLimits {
    /// `ctl set` for one service. `ours`: what we have ourselves.
    pub fn set(&mut self, asked: &Asked, ours: &Inherited, view: &View<'_>) -> Actions {
        let Asked { ticket, id, uid, persist, .. } = *asked;
        let name = view.name(id).cloned();
        let checked = self.check(asked, ours, view);
        let (name, (over, reset)) = match name.ok_or(SetError::Gone).and_then(|name| Ok((name, checked?))) {
            Ok(checked) => checked,
            Err(error) => {
                let name = view.name(id).map(ToString::to_string).unwrap_or_default();
                let outcome = Outcome::failed(name, error.code(), view.state(id), error.to_string());
                return vec![Action::Answer(ticket, outcome)];
            }
        };
        let lasting = if persist { ", also for its next starts" } else { "" };
        let text = format!("limits are set by uid {uid}: {}{lasting}", words(&over));
        let mut actions = vec![Action::Tell(Event::info(EventKind::Limit, text).about(&name))];
        if !persist {
            actions.push(self.put_in_force(id, ticket, &over, false, view));
            return actions;
        }
        let mut recorded = self.recorded.newest(&name).with(&over);
        reset.into_iter().for_each(|key| recorded.remove(key));
        self.recorded.pending.insert(name.clone(), recorded.clone());
        let row = LimitsRow { limits: recorded.shown(), asked_by_uid: Some(uid), asked_at_ms: view.now.0 };
        let change = Change::Limits(name.clone(), (!recorded.is_empty()).then_some(row));
        let setting = Setting { id, name, over, recorded, ticket };
        actions.push(Action::Commit(Commit::Limits(Box::new(setting)), vec![change]));
        actions
    }

    /// The values that are to hold, and the keys that go back to what the definition says.
    fn check(
        &self,
        asked: &Asked,
        ours: &Inherited,
        view: &View<'_>,
    ) -> Result<(Limits, Vec<Key>), SetError> {
        let Asked { id, uid, ref limits, persist, .. } = *asked;
        let service = view.service(id).ok_or(SetError::Gone)?;
        let (name, base) = (&service.name, &service.definition.limits);
        let named = || name.clone();
        let (mut over, mut reset) = (Limits::default(), Vec::new());
        for (key, text) in limits {
            let unknown = || SetError::UnknownKey { name: named(), key: key.clone() };
            let key = Key::from_name(key).ok_or_else(unknown)?;
            if text == DEFAULT {
                reset.push(key);
                let value = base.get(key).or_else(|| key.neutral()).unwrap_or_else(|| ours_of(ours, key));
                over.set(key, value);
            } else {
                let wrong = |wrong| SetError::Value { name: named(), key, text: text.clone(), wrong };
                over.set(key, key.parse(text).map_err(wrong)?);
            }
        }
        if over.is_empty() {
            return Err(SetError::Nothing(named()));
        }
        // What it has now, and what it will have: neither shall become more, whichever caller set it.
        let running = within_limits(id, view).is_some();
        let present =
            running.then(|| self.bounds.get(&id).map(|bounds| bounds.asked.clone()).unwrap_or_default());
        let coming = (persist || !running).then(|| base.with(&self.recorded.newest(name)));
        let raised = present.iter().chain(&coming).find_map(|now| {
            let key = *now.raised_by(&over, ours).first()?;
            Some((key, now.get(key).or_else(|| key.neutral()).unwrap_or_else(|| ours_of(ours, key))))
        });
        if let (Some((key, has)), false) = (raised, view.rules().is_privileged(uid)) {
            return Err(SetError::Raised { name: named(), key, has, uid });
        }
        let of_a_process = over.iter().find(|(key, _)| key.enforcer() == Enforcer::Process);
        match (persist, of_a_process, view.trust.reason()) {
            (false, Some((key, _)), _) => Err(SetError::FromAStartOn { name: named(), key }),
            (false, None, _) if !running => Err(SetError::NotRunning(named())),
            (true, _, Some(why)) => match base.raised_by(&over, ours).first() {
                Some(key) => Err(SetError::Unbelievable { name: named(), key: *key, why: why.to_owned() }),
                None => Ok((over, reset)),
            },
            (false, None, _) | (true, _, None) => Ok((over, reset)),
        }
    }

    /// Limits are on disk, or could not be put there.
    pub fn recorded(&mut self, setting: Setting, error: Option<String>, view: &View<'_>) -> Actions {
        let Setting { id, name, over, recorded, ticket } = setting;
        if let Some(why) = error {
            if self.recorded.pending.get(&name) == Some(&recorded) {
                self.recorded.pending.remove(&name);
            }
            let message = format!("'{name}': limits are not set, because they are not recorded: {why}");
            let outcome = Outcome::failed(name.as_str(), Code::Failed, view.state(id), message);
            return vec![Action::Answer(ticket, outcome)];
        }
        self.recorded.keep(&name, recorded);
        vec![self.put_in_force(id, ticket, &over, true, view)]
    }

    /// Puts into force now what can be. `recorded`: it holds for the next starts anyway.
    fn put_in_force(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        over: &Limits,
        recorded: bool,
        view: &View<'_>,
    ) -> Action {
        let life = within_limits(id, view);
        let (now, later): (Vec<_>, Vec<_>) = over
            .iter()
            .partition(|(key, _)| life.is_some() && matches!(key.enforcer(), Enforcer::Controller(_)));
        let (now, later): (Limits, Limits) = (now.into_iter().collect(), later.into_iter().collect());
        let before = self.bounds.get(&id).map(|bounds| bounds.asked.clone()).unwrap_or_default();
        // From here on nobody may raise them again without the right to.
        if life.is_some() && !now.is_empty() {
            let bounds = self.bounds.entry(id).or_default();
            bounds.asked = bounds.asked.with(&now);
        }
        let in_force = InForce { id, ticket, now, later, recorded, before };
        match life {
            Some(life) => Action::PutLimits(life, in_force),
            None => self.answer(&in_force, &[], view),
        }
    }

    /// They were put into force, but for those that are `left`: of those the life has what it had. On record they hold from its next
    /// start on, and that they do not hold now is shown.
    pub fn put(
        &mut self,
        life: &IncarnationId,
        in_force: &InForce,
        left: &[NotInForce],
        view: &View<'_>,
    ) -> Actions {
        let current = view.life(in_force.id).as_ref() == Some(life);
        if let Some(bounds) = self.bounds.get_mut(&in_force.id).filter(|_| current) {
            let is_refused = |key| !in_force.recorded && left.iter().any(|left| left.key == key);
            let is_settled = |key| in_force.now.get(key).is_some() && !is_refused(key);
            bounds.not_in_force.retain(|old| !is_settled(old.key));
            if in_force.recorded {
                bounds.not_in_force.extend(left.iter().cloned());
            }
            for (key, value) in in_force.now.iter().filter(|(key, _)| is_refused(*key)) {
                // Another one may be on its way by now.
                match in_force.before.get(key) {
                    _ if bounds.asked.get(key) != Some(value) => {}
                    Some(before) => bounds.asked.set(key, before),
                    None => bounds.asked.remove(key),
                }
            }
        }
        vec![self.answer(in_force, left, view)]
    }

    /// What became of each.
    fn answer(&self, in_force: &InForce, left: &[NotInForce], view: &View<'_>) -> Action {
        let InForce { id, ticket, ref now, ref later, recorded, .. } = *in_force;
        let Some(name) = view.name(id) else {
            let gone = SetError::Gone;
            return Action::Answer(ticket, Outcome::failed("", gone.code(), None, gone.to_string()));
        };
        let mut held = now.clone();
        left.iter().for_each(|left| held.remove(left.key));
        let mut said = Vec::new();
        if !held.is_empty() {
            said.push(words(&held));
        }
        said.extend(left.iter().map(ToString::to_string));
        if !later.is_empty() {
            said.push(format!("{} from its next start on", words(later)));
        }
        let said = said.join("; ");
        let outcome = match view.state(id) {
            Some(state) if recorded || !held.is_empty() => Outcome::done(name.as_str(), state, Some(said)),
            state => Outcome::failed(name.as_str(), Code::Failed, state, format!("'{name}': {said}")),
        };
        Action::Answer(ticket, outcome)
    }
}

/// The life of a service whose limits can be set: it is there, and not on its way out, where a bound of ours keeps it
/// from making more processes.
fn within_limits(id: ServiceId, view: &View<'_>) -> Option<IncarnationId> {
    let life = view.life(id)?;
    let lives = matches!(view.fleet.gateway(id)?.phase(), Phase::Starting | Phase::Up);
    (lives && view.trees.is_held(&life)).then_some(life)
}

fn words(limits: &Limits) -> String {
    limits.iter().map(|(key, value)| format!("{key}={}", key.show(value))).collect::<Vec<_>>().join(" ")
}
