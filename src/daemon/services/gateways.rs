//! What is done for gateways in particular: a look at who else runs one, a conversation with the root gateway, a slot removed.

use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::inbox::Input;
use crate::daemon::surface::slots::{self, Slots};
use crate::daemon::topics::profiles::WontStart;
use crate::daemon::topics::topology::{About, Conversed};
use crate::daemon::{Notice, Supervisor, surface};
use crate::hermes::gateway_socket::AskError;
use crate::hermes::presence::{Presence, descends_from, gateway_below};
use crate::hermes::state_json;
use crate::s6::{SCAN_DIRECTORY, materialise};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::io;
use std::path::Path;

impl Supervisor {
    /// Whether a gateway may start, by what lies in its home.
    ///
    /// # Errors
    /// Why not. Where the main program runs it, the core is told, too.
    pub(in crate::daemon) fn may_start(
        &mut self,
        id: ServiceId,
        presence: Presence,
    ) -> Result<(), WontStart> {
        let Some(service) = self.services.get(&id) else { return Ok(()) };
        let of_main = match presence {
            Presence::There { gateway } => {
                let main = self.main.as_ref().and_then(|main| u32::try_from(main.pid()).ok());
                main.and_then(|main| {
                    let handed_over = self.options.s6_surface && surface::is_visible();
                    let recorded = gateway.filter(|pid| descends_from(*pid, main));
                    recorded.or_else(|| gateway_below(main, &service.name, handed_over))
                })
            }
            Presence::Gone => None,
        };
        let may_start = self.topics.profiles.may_start(service, presence, of_main);
        if let Err(why @ WontStart::RunByMain(_)) = &may_start {
            let effects = self.fleet.hold(id, why.to_string(), self.clock.now());
            self.execute(effects);
        }
        may_start
    }

    /// The work that takes the word of an earlier life out of a gateway's state file, where its own is going to be listened to.
    pub(in crate::daemon) fn forget_before_start(
        &self,
        id: ServiceId,
    ) -> Option<impl FnOnce() -> io::Result<()> + use<>> {
        let directory = self.topics.topology.forgets_before_start(id, &self.view())?;
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        Some(move || state_json::forget_last_life(&Beneath::open(&home)?, &user, &directory))
    }

    /// Talks to the root gateway, which is process `pid`, on a thread of its own: its answer may take seconds.
    pub(in crate::daemon) fn converse(&mut self, pid: Option<u32>, about: About) {
        let told = |about, answer| Notice::GatewayConversed(Conversed { about, answer });
        let Some(pid) = pid else {
            return self.inbox.push(Input::Notice(told(about, Err(AskError::NoSocket))));
        };
        #[cfg(test)]
        if crate::sys::time::played::is_on() {
            return match crate::daemon::simulation::planted::conversation(&about) {
                Some(answer) => self.inbox.push(Input::Notice(told(about, Ok(answer)))),
                None => crate::daemon::simulation::conversations::begin(pid, about),
            };
        }
        let (home, user) = (self.options.home.clone(), self.surroundings_now().gateway.credentials());
        let (notifier, kept) = (self.wakeups.notifier.clone(), about.clone());
        let work = move || {
            let home = Beneath::open(&home).map_err(AskError::from);
            let answer = home.and_then(|home| about.talk(&home, &user, pid));
            notifier.send(told(about, answer));
        };
        if let Err(error) = std::thread::Builder::new().name("gateway".to_owned()).spawn(work) {
            self.inbox.push(Input::Notice(told(kept, Err(error.into()))));
        }
    }

    /// Shows these gateways in the scan directory and reads it, where that may hang.
    pub(in crate::daemon) fn read_slots(&mut self, shown: Vec<(ServiceName, Want)>) {
        let around = self.surroundings_now();
        let notifier = self.wakeups.notifier.clone();
        let supervised = self.supervised.clone();
        let work = move || slots::show(&shown, &supervised, &around);
        let done = move |slots: io::Result<io::Result<Slots>>| {
            notifier.send(Notice::Slots(slots.and_then(|slots| slots).map(Box::new)));
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            self.inbox.push(Input::Notice(Notice::Slots(Err(io::Error::other(refused)))));
        }
    }

    /// Removes the slot of a gateway whose profile is gone. One that stays is only shown; it is read again as a profile that is
    /// not there.
    pub(in crate::daemon) fn remove_slot(&mut self, name: String) {
        let user = self.surroundings_now().gateway.credentials();
        let remove = move || {
            Beneath::open(Path::new(SCAN_DIRECTORY))
                .and_then(|scandir| materialise::remove(&scandir, Path::new(&name)))
        };
        let _ = self.logs.files().run(user, remove, |_| {});
    }
}
