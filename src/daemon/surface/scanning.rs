//! When the scan directory is read, and what becomes of services then: when something is renamed into it or removed, and
//! when `s6-svscanctl` asks, on the thread that may wait for files. A directory that is made in place and still being
//! filled is nobody's business before that.

use crate::control::protocol::{Refusal, RefusalKind, Reply};
use crate::control::server::ConnId;
use crate::core::event::{Command, Event};
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::core::words::{Cause, Want};
use crate::daemon::services::Service;
use crate::daemon::sources::{Room, plain_token};
use crate::daemon::surface::slots::{Slots, run_in, show};
use crate::daemon::topics::definitions::record::TemplateError;
use crate::daemon::{Notice, Supervisor};
use crate::definition::Definition;
use crate::definition::resolved::Slot;
use crate::s6::SCAN_DIRECTORY;
use crate::sys::credentials::Credentials;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

/// Complaints that are told; whoever owns the directory could cause any number of them.
const MOST_TOLD: usize = 1000;

/// Who waits for a reading of the scan directory.
#[derive(Debug, Default)]
pub struct Scanning {
    watch: Option<OwnedFd>,
    under_way: bool,
    /// Waits for the reading that is under way.
    now: Vec<Caller>,
    /// Came later, and waits for the next one.
    next: Vec<Caller>,
    again: bool,
    /// Gateways to be shown with the next reading.
    show: Vec<(ServiceName, Want)>,
    /// What was complained about already.
    told: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Caller {
    conn: ConnId,
    /// Services whose slot is gone are stopped too.
    nuke: bool,
}

impl Scanning {
    /// Watches the directory.
    ///
    /// # Errors
    /// As inotify_init(2), inotify_add_watch(2), epoll_ctl(2).
    pub fn watch(registry: &Registry) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A directory that is made in place is still being filled: its maker says when it is ready.
        let flags = WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, SCAN_DIRECTORY, flags)?;
        let token = plain_token(Room::ScanDirectory);
        registry.register(&mut SourceFd(&watch.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { watch: Some(watch), ..Self::default() })
    }
}

impl Supervisor {
    /// Something was renamed into the scan directory, or removed from it.
    pub(in crate::daemon) fn scan_directory_changed(&mut self) {
        let Some(watch) = self.scanning.as_ref().and_then(|scanning| scanning.watch.as_ref()) else { return };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut space);
        while events.next().is_ok() {}
        self.scan(None);
    }

    /// `s6-svscanctl` asks for a reading; answered when it is acted on. False without a scan directory.
    pub(in crate::daemon) fn rescan(&mut self, conn: ConnId, nuke: bool) -> bool {
        if self.scanning.is_some() {
            self.scan(Some(Caller { conn, nuke }));
        }
        self.scanning.is_some()
    }

    /// Shows a gateway that has come to be known.
    pub(in crate::daemon) fn show_gateway(&mut self, profile: ServiceName, want: Want) {
        if let Some(scanning) = &mut self.scanning {
            scanning.show.push((profile, want));
            self.scan(None);
        }
    }

    /// Reads the scan directory, if there is one.
    pub(in crate::daemon) fn scan(&mut self, caller: Option<Caller>) {
        let Some(scanning) = &mut self.scanning else { return };
        if scanning.under_way {
            scanning.again = true;
            scanning.next.extend(caller);
            return;
        }
        scanning.now.append(&mut scanning.next);
        scanning.now.extend(caller);
        scanning.under_way = true;
        scanning.again = false;
        let gateways = std::mem::take(&mut scanning.show);
        let around = self.surroundings_now();
        let notifier = self.wakeups.notifier.clone();
        let work = move || show(&gateways, &around);
        let done = move |slots: io::Result<io::Result<Slots>>| {
            notifier.send(Notice::Slots(slots.and_then(|slots| slots).map(Box::new)));
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            self.take_slots(Err(io::Error::other(refused)));
        }
    }

    /// The scan directory was read.
    pub(in crate::daemon) fn take_slots(&mut self, slots: io::Result<Box<Slots>>) {
        let Some(scanning) = &mut self.scanning else { return };
        scanning.under_way = false;
        let callers = std::mem::take(&mut scanning.now);
        let again = scanning.again;
        let answer = match slots {
            Ok(slots) if !self.topics.shutdown.is_on() => {
                self.adopt_slots(*slots, callers.iter().any(|caller| caller.nuke));
                Reply::End
            }
            Ok(_) => Reply::End,
            Err(error) => {
                let text = format!("{SCAN_DIRECTORY} was not read: {error}");
                self.tell_once(text.clone());
                Reply::Refused(Refusal::new(RefusalKind::Failed, text))
            }
        };
        for caller in callers {
            self.reply(caller.conn, &answer);
        }
        if again {
            self.scan(None);
        }
    }

    fn tell_once(&mut self, text: String) {
        let Some(scanning) = &mut self.scanning else { return };
        if scanning.told.len() < MOST_TOLD && scanning.told.insert(text.clone()) {
            slog::warn!(self.log, "{text}");
        }
    }

    fn adopt_slots(&mut self, slots: Slots, nuke: bool) {
        self.surroundings = self.surroundings_now();
        let Slots { gateways, others, incomplete, warnings } = slots;
        for warning in warnings {
            self.tell_once(warning);
        }
        let mut seen = incomplete;
        for (name, (slot, down)) in gateways {
            seen.insert(slot.dir.clone());
            match self.slot_gateway(&name, slot) {
                Ok(definition) => self.adopt_slot(definition, down),
                Err(complaint) => self.tell_once(complaint.to_string()),
            }
        }
        for definition in others.into_values() {
            seen.extend(definition.slot.as_ref().map(|slot| slot.dir.clone()));
            let down = !definition.autostart;
            self.adopt_slot(definition, down);
        }
        let lost = |service: &Service| {
            let slot = service.definition.slot.as_ref();
            slot.is_some_and(|slot| slot.dir.starts_with(SCAN_DIRECTORY) && !seen.contains(&slot.dir))
        };
        let lost: Vec<ServiceId> =
            self.services.iter().filter(|(_, service)| lost(service)).map(|(id, _)| *id).collect();
        for id in lost {
            self.slot_is_gone(id, nuke);
        }
    }

    /// The definition of a gateway that has a slot.
    fn slot_gateway(&self, name: &ServiceName, slot: Slot) -> Result<Definition, TemplateError> {
        let mut definition = self.topics.definitions.of_gateway(name, &self.view())?;
        run_in(&mut definition, slot);
        Ok(definition)
    }

    fn adopt_slot(&mut self, definition: Definition, down: bool) {
        let Some(id) = self.fleet.id(definition.name.as_str()) else {
            let want = if down { Want::Down } else { Want::Up };
            return self.introduce(definition, None, (want, Cause::Slot), None);
        };
        let Some(service) = self.services.get_mut(&id) else { return };
        service.gone &= service.definition.slot.is_none();
        let old = &service.definition;
        if old.origin != definition.origin {
            let name = service.name.clone();
            let origin = self.view().origin(id);
            return self.tell_once(format!("the slot of '{name}' is ignored: {origin} comes first"));
        }
        if old.slot != definition.slot || old.hash != definition.hash {
            self.redefine(id, definition, None);
        }
    }

    fn slot_is_gone(&mut self, id: ServiceId, nuke: bool) {
        let Some(service) = self.services.get_mut(&id) else { return };
        service.gone = true;
        if nuke && self.fleet.gateway(id).is_some_and(|gateway| gateway.has_tree()) {
            let ticket = self.topics.requests.own_ticket();
            self.inbox.core(id, Event::Command { ticket, command: Command::Stop });
        }
        self.drop_if_gone(id);
    }
}
