//! What has become of everything when nothing goes wrong any more, and when all has ended.

use super::comings::may_be_gone;
use super::root::{root_word, served_on};
use super::scopes::forgotten;
use super::word;
use crate::core::gateway::Phase;
use crate::core::name::ServiceName;
use crate::core::words::{State, Want};
use crate::daemon::simulation::services::Spec;
use crate::daemon::simulation::world::World;
use crate::definition::template::DEFAULT_PROFILE;

/// The rules of liveness, when nothing has gone wrong for long enough.
///
/// # Errors
/// Who waits for what.
pub fn at_rest(world: &mut World) -> Result<(), String> {
    for caller in &world.callers {
        if caller.waits() {
            return Err(format!("caller {} waits for an answer: {:?}", caller.number, caller.request));
        }
    }
    let Some(supervisor) = world.supervisor() else { return Err("there is no supervisor".to_owned()) };
    let mut wrong = None;
    for id in supervisor.fleet.ids() {
        let Some((name, gateway)) = supervisor.fleet.name(id).zip(supervisor.fleet.gateway(id)) else {
            continue;
        };
        let lives = world.kernel.living().into_iter().filter(|life| life.name == *name).count();
        let held = world.running.as_ref().and_then(|running| running.hands.store.want(name));
        let state = gateway.state();
        let waits_for_another = gateway.phase() == Phase::Held && !gateway.awaits_turn();
        let right = match gateway.want() {
            Want::Up => {
                matches!(state, State::Up | State::Ready) == (lives == 1)
                    && !matches!(state, State::Starting | State::Stopping)
                    || waits_for_another
            }
            Want::Down => lives == 0 || gateway.is_once(),
        };
        if (!right && !gateway.is_scheduled()) || lives > 1 {
            wrong = Some(format!(
                "{name} is wanted {} and is {state} with {lives} lives: {}",
                gateway.want(),
                gateway.reason()
            ));
        }
        let is_served = root_word(world).is_some_and(|word| word.served.contains(name.as_str()));
        if is_served && lives > 0 && world.specs.get(name.as_str()).is_some_and(Spec::is_named_gateway) {
            wrong = Some(format!("{name} runs although '{DEFAULT_PROFILE}' serves it"));
        }
        if held != Some(gateway.want()) {
            wrong = Some(format!("{name} is wanted {}, and the disk says {}", gateway.want(), word(held)));
        }
        let restarts = gateway.history().restarts;
        let written = world.running.as_ref().map(|running| running.hands.store.restarts(name));
        if world.specs.contains_key(name.as_str()) && written != Some(restarts) {
            wrong = Some(format!("{name} was restarted {restarts} times, and the disk says {written:?}"));
        }
        if matches!(state, State::Backoff) && !gateway.waits_after_success() {
            wrong = Some(format!("{name} is still in backoff"));
        }
    }
    if let Some(name) = world.specs.keys().find(|name| supervisor.fleet.id(name).is_none()) {
        wrong = Some(format!("{name} has a definition, and is no service"));
    }
    let registered = (0..world.registered).map(|n| format!("r{n}"));
    for name in registered.chain(world.ledger.comings.names()) {
        let name = ServiceName::new(&name).map_err(|error| error.to_string())?;
        let held = world.running.as_ref().and_then(|running| running.hands.store.want(&name));
        let is_service = supervisor.fleet.id(name.as_str()).is_some();
        if is_service && may_be_gone(world, name.as_str()) {
            wrong = Some(format!("{name} has no definition, and is a service"));
        }
        if !is_service && held.is_some() {
            wrong = Some(format!(
                "{name} is no service any more, and the disk says that it is wanted {}",
                word(held)
            ));
        }
    }
    for (name, told) in &world.ledger.acknowledged {
        let known = ServiceName::new(name).map_err(|error| error.to_string())?;
        let held = world.running.as_ref().and_then(|running| running.hands.store.want(&known));
        if held != told.want {
            let (told, held) = (word(told.want), word(held));
            wrong = Some(format!("{name} was acknowledged to be wanted {told}, and the disk says {held}"));
        }
    }
    for (name, most) in &world.ledger.limits {
        let known = ServiceName::new(name).map_err(|error| error.to_string())?;
        let held = world.running.as_ref().and_then(|running| running.hands.store.limit(&known, "pids_max"));
        let is_service = supervisor.fleet.id(name).is_some();
        if is_service && held != Some(most.to_string().as_str()) {
            wrong = Some(format!("{name} was given pids_max {most} for good, and the disk says {held:?}"));
        }
    }
    wrong.or_else(|| served_on(world)).or_else(|| forgotten(world)).map_or(Ok(()), Err)
}

/// The end of a supervisor that was asked to: nothing is left.
///
/// # Errors
/// What is.
pub fn at_the_end(world: &mut World) -> Result<(), String> {
    let Some(code) = world.ended else { return Err("the supervisor does not end".to_owned()) };
    if code != 0 {
        return Err(format!("the supervisor ended with {code}"));
    }
    match world.kernel.living().first() {
        Some(left) => Err(format!("life {} of {} is left", left.n, left.name)),
        None => Ok(()),
    }
}
