//! A gateway lives as long as its profile does: what comes of a profile's directory that appears, is moved or removed,
//! and of one whose gateway somebody else runs.

use crate::core::event::{Command, Event};
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::sources::{Room, plain_token};
use crate::daemon::topics::definitions::found::is_profile;
use crate::daemon::view::decide;
use crate::daemon::{Supervisor, surface};
use crate::hermes::presence::{Presence, descends_from, gateway_below};
use crate::hermes::profile_watch::{Change, ProfileWatch};
use crate::s6::{SCAN_DIRECTORY, materialise};
use crate::sys::beneath::Beneath;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

/// What is known of `profiles/` beside the services.
#[derive(Debug, Default)]
pub struct ProfileLife {
    /// `None`: it cannot be watched, and profiles are found at a boot, a reload, or when somebody names them.
    pub watch: Option<Arc<ProfileWatch>>,
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

impl ProfileLife {
    pub(in crate::daemon) fn new(registry: &Registry) -> io::Result<Self> {
        let watch = ProfileWatch::new()?;
        let fd = watch.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), plain_token(Room::Profiles), Interest::READABLE)?;
        Ok(Self { watch: Some(Arc::new(watch)), ..Self::default() })
    }
}

impl Supervisor {
    /// Something happened in `profiles/`.
    pub(in crate::daemon) fn profiles_changed(&mut self) {
        let Some(changes) = self.profile_life.watch.as_ref().and_then(|watch| watch.take()) else { return };
        let service = |name: &OsStr| ServiceName::gateway_of(name.to_str()?).ok();
        for change in changes {
            match change {
                Change::Gone(name) => {
                    if let Some(name) = service(&name) {
                        self.profile_left(&name, None);
                    }
                }
                Change::Moved { from, to } => {
                    if let Some(from) = service(&from) {
                        self.profile_left(&from, service(&to));
                    }
                }
            }
        }
        decide!(self.definitions.profiles_changed());
    }

    /// Its directory is not where it was: the gateway ends, and with it what was wanted of this name.
    fn profile_left(&mut self, name: &ServiceName, to: Option<ServiceName>) {
        let Some(id) = self.fleet.id(name.as_str()) else { return };
        let of_profile = |service: &&mut Box<crate::daemon::services::Service>| {
            service.record.is_none() && is_profile(&service.definition)
        };
        let Some(service) = self.services.get_mut(&id).filter(of_profile) else { return };
        service.gone = true;
        let slot = service.definition.slot.clone();
        let Some(gateway) = self.fleet.gateway(id) else { return };
        let (want, has_tree) = (gateway.want(), gateway.has_tree());
        match &to {
            Some(to) => slog::info!(self.log, "{name}: its profile is called '{}' now", to.profile()),
            None => slog::info!(self.log, "{name}: its profile was removed"),
        }
        if let Some(to) = to {
            self.profile_life.moves.retain(|old| old.to != to);
            self.profile_life.moves.push(Move { from: name.clone(), to, want, waits: false });
        }
        if has_tree {
            let ticket = self.topics.requests.own_ticket();
            self.inbox.core(id, Event::Command { ticket, command: Command::Stop });
        }
        if let Some(slot) = slot.filter(|slot| slot.dir.starts_with(SCAN_DIRECTORY)) {
            let user = self.surroundings_now().gateway.credentials();
            let remove = move || {
                Beneath::open(Path::new(SCAN_DIRECTORY))
                    .and_then(|scandir| materialise::remove(&scandir, Path::new(&slot.name)))
            };
            // One that stays is only shown; it is read again as a profile that is not there.
            let _ = self.logs.files().run(user, remove, |_| {});
        }
        self.drop_if_gone(id);
    }

    /// What a profile that was moved here was wanted to be, and whether that may begin now.
    pub(in crate::daemon) fn moved_want(&mut self, name: &ServiceName) -> Option<(Want, bool)> {
        let at = self.profile_life.moves.iter().position(|one| one.to == *name)?;
        let one = self.profile_life.moves.get_mut(at)?;
        let want = one.want;
        one.waits = self.fleet.id(one.from.as_str()).is_some();
        let free = !one.waits;
        if free {
            self.profile_life.moves.swap_remove(at);
        }
        Some((want, free))
    }

    /// A service is no more: who has its profile by now may start.
    pub(in crate::daemon) fn profile_is_free(&mut self, from: &ServiceName) {
        self.profile_life.seen.remove(from);
        let Some(at) = self.profile_life.moves.iter().position(|one| one.from == *from && one.waits) else {
            return;
        };
        let Move { to, want, .. } = self.profile_life.moves.swap_remove(at);
        if let (Some(id), Want::Up) = (self.fleet.id(to.as_str()), want) {
            let ticket = self.topics.requests.own_ticket();
            self.inbox.core(id, Event::Command { ticket, command: Command::Start { force: false } });
        }
    }

    /// Whether a gateway may start, by what lies in its home.
    ///
    /// # Errors
    /// Why not, in words.
    pub(in crate::daemon) fn may_start(&mut self, id: ServiceId, presence: Presence) -> Result<(), String> {
        let Some(service) = self.services.get(&id) else { return Ok(()) };
        if presence != Presence::Gone && !self.profile_life.seen.contains(&service.name) {
            self.profile_life.seen.insert(service.name.clone());
        }
        let never_seen = !self.profile_life.seen.contains(&service.name);
        match presence {
            // A slot may be made before its profile, and `hermes` then says what is missing.
            Presence::Gone if never_seen && service.definition.slot.is_some() => Ok(()),
            Presence::Gone => Err("its profile directory is not there".to_owned()),
            Presence::There { gateway } => {
                let main = self.main.as_ref().and_then(|main| u32::try_from(main.pid()).ok());
                let Some(main) = main else { return Ok(()) };
                let handed_over = self.options.s6_surface && surface::is_visible();
                let recorded = gateway.filter(|pid| descends_from(*pid, main));
                let Some(pid) = recorded.or_else(|| gateway_below(main, &service.name, handed_over)) else {
                    return Ok(());
                };
                let reason = format!("the container's main program runs this gateway itself, as pid {pid}");
                let effects = self.fleet.hold(id, reason.clone(), self.clock.now());
                self.execute(effects);
                Err(reason)
            }
        }
    }
}
