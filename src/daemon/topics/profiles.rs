//! A gateway lives as long as its profile does: what comes of a profile's directory that appears, is moved or removed,
//! and of one whose gateway somebody else runs.

use crate::core::event::Command;
use crate::core::fleet::Fleet;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::act::{Action, Actions};
use crate::daemon::services::Service;
use crate::daemon::topics::definitions::Define;
use crate::daemon::topics::definitions::found::is_profile;
use crate::daemon::view::View;
use crate::hermes::presence::Presence;
use crate::hermes::profile_watch::Change;
use crate::s6::SCAN_DIRECTORY;
use std::collections::BTreeSet;
use std::ffi::OsStr;

/// What is known of `profiles/` beside the services.
#[derive(Debug, Default)]
pub struct Profiles {
    moves: Vec<Move>,
    /// Gateways whose directory was there at a start.
    seen: BTreeSet<ServiceName>,
}

/// A profile has another name: what it was wanted to be goes with it.
#[derive(Debug)]
struct Move {
    from: ServiceName,
    to: ServiceName,
    want: Want,
    /// The service of the new name is known, and waits for the end of the old one.
    waits: bool,
}

/// Why a gateway is not started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WontStart {
    #[error("its profile directory is not there")]
    NoProfile,
    #[error("the container's main program runs this gateway itself, as pid {0}")]
    RunByMain(u32),
}

impl Profiles {
    /// Something happened in `profiles/`.
    pub fn changed(&mut self, changes: Vec<Change>, view: &View<'_>) -> Actions {
        let service = |name: &OsStr| ServiceName::gateway_of(name.to_str()?).ok();
        let left = |change| match change {
            Change::Gone(name) => service(&name).map(|name| self.left(&name, None, view)),
            Change::Moved { from, to } => service(&from).map(|from| self.left(&from, service(&to), view)),
        };
        changes.into_iter().filter_map(left).flatten().collect()
    }

    /// Its directory is not where it was: the gateway ends, and with it what was wanted of this name.
    fn left(&mut self, name: &ServiceName, to: Option<ServiceName>, view: &View<'_>) -> Actions {
        let id = view.fleet.id(name.as_str());
        let Some((id, service)) = id.and_then(|id| Some((id, view.service(id)?))) else {
            return Actions::new();
        };
        let of_profile = |service: &Service| service.record.is_none() && is_profile(&service.definition);
        let Some(gateway) = view.fleet.gateway(id).filter(|_| of_profile(service)) else {
            return Actions::new();
        };
        let text = match &to {
            Some(to) => format!("{name}: its profile is called '{}' now", to.profile()),
            None => format!("{name}: its profile was removed"),
        };
        let mut actions = vec![Action::Log(slog::Level::Info, text)];
        if let Some(to) = to {
            self.moves.retain(|old| old.to != to);
            self.moves.push(Move { from: name.clone(), to, want: gateway.want(), waits: false });
        }
        if gateway.has_tree() {
            actions.push(Action::OwnCommand(id, Command::Stop));
        }
        let slot = service.definition.slot.as_ref();
        let slot = slot.filter(|slot| slot.dir.starts_with(SCAN_DIRECTORY));
        actions.extend(slot.map(|slot| Action::RemoveSlot(slot.name.clone())));
        actions.push(Action::Define(Define::Gone(id)));
        actions
    }

    /// What a profile that was moved here was wanted to be, and whether that may begin now.
    pub fn moved_want(&mut self, name: &ServiceName, fleet: &Fleet) -> Option<(Want, bool)> {
        let at = self.moves.iter().position(|one| one.to == *name)?;
        let one = self.moves.get_mut(at)?;
        let want = one.want;
        one.waits = fleet.id(one.from.as_str()).is_some();
        let free = !one.waits;
        if free {
            self.moves.swap_remove(at);
        }
        Some((want, free))
    }

    /// A service is no more: who has its profile by now may start.
    pub fn free(&mut self, from: &ServiceName, view: &View<'_>) -> Actions {
        self.seen.remove(from);
        let Some(at) = self.moves.iter().position(|one| one.from == *from && one.waits) else {
            return Actions::new();
        };
        let Move { to, want, .. } = self.moves.swap_remove(at);
        let id = view.fleet.id(to.as_str()).filter(|_| want == Want::Up);
        id.map(|id| Action::OwnCommand(id, Command::Start { force: false })).into_iter().collect()
    }

    /// Whether a gateway may start, by what lies in its home. `of_main`: the process below the main program that is this
    /// gateway.
    ///
    /// # Errors
    /// Why not.
    pub fn may_start(
        &mut self,
        service: &Service,
        presence: Presence,
        of_main: Option<u32>,
    ) -> Result<(), WontStart> {
        if presence != Presence::Gone && !self.seen.contains(&service.name) {
            self.seen.insert(service.name.clone());
        }
        let never_seen = !self.seen.contains(&service.name);
        match presence {
            // A slot may be made before its profile, and `hermes` then says what is missing.
            Presence::Gone if never_seen && service.definition.slot.is_some() => Ok(()),
            Presence::Gone => Err(WontStart::NoProfile),
            Presence::There { .. } => of_main.map_or(Ok(()), |pid| Err(WontStart::RunByMain(pid))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fleet::ServiceId;
    use crate::daemon::topics::testing::{GATEWAY_UID, World};
    use crate::definition::resolved::Slot;
    use crate::store::{Program, RecordRow};
    use std::path::Path;

    const THERE: Presence = Presence::There { gateway: None };

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn moved(from: &str, to: &str) -> Vec<Change> {
        vec![Change::Moved { from: from.into(), to: to.into() }]
    }

    fn words(actions: &Actions, world: &World) -> Vec<String> {
        let named = |id: &ServiceId| world.fleet.name(*id).map(ToString::to_string).unwrap_or_default();
        let word = |action: &Action| match action {
            Action::Log(_, text) => text.clone(),
            Action::OwnCommand(id, Command::Stop) => format!("stop {}", named(id)),
            Action::OwnCommand(id, Command::Start { force: false }) => format!("start {}", named(id)),
            Action::Define(Define::Gone(id)) => format!("gone {}", named(id)),
            Action::RemoveSlot(slot) => format!("remove {slot}"),
            other => panic!("not expected: {other:?}"),
        };
        actions.iter().map(word).collect()
    }

    #[test]
    fn a_gateway_whose_profile_is_removed_ends_and_so_does_its_slot() {
        let (mut world, mut profiles) = (World::default(), Profiles::default());
        let id = world.gateway("coder");
        world.up(id, 7);
        let service = world.services.get_mut(&id).unwrap();
        let dir = Path::new(SCAN_DIRECTORY).join("gateway-coder");
        service.definition.slot =
            Some(Box::new(Slot { dir, name: "gateway-coder".to_owned(), rendered: true }));
        let actions = profiles.changed(vec![Change::Gone("coder".into())], &world.view());
        assert_eq!(
            words(&actions, &world),
            ["coder: its profile was removed", "stop coder", "remove gateway-coder", "gone coder"]
        );
        assert!(profiles.changed(vec![Change::Gone("other".into())], &world.view()).is_empty());
    }

    #[test]
    fn a_registered_gateway_does_not_depend_on_a_profile_of_its_name() {
        let (mut world, mut profiles) = (World::default(), Profiles::default());
        let id = world.gateway("coder");
        let record = RecordRow {
            registrant_uid: GATEWAY_UID,
            user: "hermes".to_owned(),
            program: Program::Profile("/srv/guest".to_owned()),
            env: Default::default(),
            registered_at_ms: 0,
        };
        world.services.get_mut(&id).unwrap().record = Some(Box::new(record));
        assert!(profiles.changed(vec![Change::Gone("coder".into())], &world.view()).is_empty());
    }

    #[test]
    fn what_a_profile_was_wanted_to_be_goes_with_its_name_and_begins_when_the_old_one_has_ended() {
        let (mut world, mut profiles) = (World::default(), Profiles::default());
        let old = world.gateway("old");
        world.up(old, 7);
        let actions = profiles.changed(moved("old", "new"), &world.view());
        assert_eq!(words(&actions, &world), ["old: its profile is called 'new' now", "stop old", "gone old"]);
        assert_eq!(profiles.moved_want(&name("new"), &world.fleet), Some((Want::Up, false)));
        world.gateway("new");
        assert_eq!(words(&profiles.free(&name("old"), &world.view()), &world), ["start new"]);
        assert!(profiles.free(&name("old"), &world.view()).is_empty(), "it is told once");
        assert_eq!(profiles.moved_want(&name("new"), &world.fleet), None);
    }

    #[test]
    fn what_is_wanted_down_stays_down_under_its_new_name() {
        let (mut world, mut profiles) = (World::default(), Profiles::default());
        world.gateway("old");
        let actions = profiles.changed(moved("old", "new"), &world.view());
        assert_eq!(words(&actions, &world), ["old: its profile is called 'new' now", "gone old"]);
        assert_eq!(profiles.moved_want(&name("new"), &world.fleet), Some((Want::Down, false)));
        world.gateway("new");
        assert!(profiles.free(&name("old"), &world.view()).is_empty());
    }

    #[test]
    fn where_the_old_service_is_gone_already_the_new_one_begins_at_once() {
        let (mut world, mut profiles) = (World::default(), Profiles::default());
        let old = world.gateway("old");
        world.up(old, 7);
        profiles.changed(moved("old", "new"), &world.view());
        let fleet = Fleet::default();
        assert_eq!(profiles.moved_want(&name("new"), &fleet), Some((Want::Up, true)));
        assert_eq!(profiles.moved_want(&name("new"), &fleet), None);
    }

    #[test]
    fn a_gateway_starts_where_its_profile_is_and_nobody_else_runs_it() {
        let (mut world, mut profiles) = (World::default(), Profiles::default());
        let id = world.gateway("coder");
        let service = &world.services[&id];
        let gone = |profiles: &mut Profiles, service| profiles.may_start(service, Presence::Gone, None);
        assert_eq!(gone(&mut profiles, service), Err(WontStart::NoProfile));
        assert_eq!(profiles.may_start(service, THERE, None), Ok(()));
        assert_eq!(profiles.may_start(service, THERE, Some(42)), Err(WontStart::RunByMain(42)));
        // A slot may come before its profile, but what was there and is gone was removed.
        let mut slotted = Service::new(service.definition.clone(), None);
        slotted.definition.slot =
            Some(Box::new(Slot { dir: "/run/service/x".into(), name: "x".to_owned(), rendered: true }));
        assert_eq!(gone(&mut profiles, &slotted), Err(WontStart::NoProfile));
        assert_eq!(gone(&mut Profiles::default(), &slotted), Ok(()));
    }
}
