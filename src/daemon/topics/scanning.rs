//! When the scan directory is read, and what becomes of services then: when something is renamed into it or removed, and
//! when `s6-svscanctl` asks. A directory that is made in place and still being filled is nobody's business before that.
//!
//! One reading at a time: what is asked for while one is under way waits for the next.

use crate::control::protocol::{Refusal, RefusalKind, Reply};
use crate::control::server::ConnId;
use crate::core::event::Command;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Gateway;
use crate::core::name::ServiceName;
use crate::core::words::{Cause, Want};
use crate::daemon::act::{Action, Actions};
use crate::daemon::services::{Gone, Service};
use crate::daemon::topics::definitions::record::TemplateError;
use crate::daemon::topics::definitions::{Define, First, New};
use crate::daemon::view::View;
use crate::definition::Definition;
use crate::s6::SCAN_DIRECTORY;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

/// Complaints that are told; the owner of the directory could cause any number of them.
const MOST_TOLD: usize = 1000;

/// Who waits for a reading of the scan directory.
#[derive(Debug, Default)]
pub struct Scanning {
    /// Without the s6 surface there is none.
    on: bool,
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
struct Caller {
    conn: ConnId,
    /// Services whose slot is gone are stopped too.
    nuke: bool,
}

/// What a reading has found.
#[derive(Debug, Default)]
pub struct Slotted {
    /// Each slot's service, or why there is none, and whether it is to stay down.
    pub services: Vec<(Result<Definition, TemplateError>, bool)>,
    /// Directories of slots that are there, whether they make a service or not.
    pub there: BTreeSet<PathBuf>,
    pub warnings: Vec<String>,
}

impl Scanning {
    pub fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// The directory is to be read, if there is one.
    pub fn scan(&mut self, _: &View<'_>) -> Actions {
        self.begin(None).into_iter().collect()
    }

    fn begin(&mut self, caller: Option<Caller>) -> Option<Action> {
        if !self.on {
            return None;
        }
        if self.under_way {
            self.again = true;
            self.next.extend(caller);
            return None;
        }
        self.now.append(&mut self.next);
        self.now.extend(caller);
        (self.under_way, self.again) = (true, false);
        Some(Action::ReadSlots(std::mem::take(&mut self.show)))
    }

    /// `s6-svscanctl` asks for a reading; answered when it is acted on.
    pub fn rescan(&mut self, conn: ConnId, nuke: bool, _: &View<'_>) -> Actions {
        if !self.on {
            let text = "there is no scan directory: start with --s6-surface";
            return vec![Action::refuse(conn, RefusalKind::Failed, text)];
        }
        self.begin(Some(Caller { conn, nuke })).into_iter().collect()
    }

    /// Shows a gateway that has come to be known.
    pub fn show(&mut self, profile: ServiceName, want: Want, view: &View<'_>) -> Actions {
        if self.on {
            self.show.push((profile, want));
        }
        self.scan(view)
    }

    /// The directory was read.
    pub fn read(&mut self, slots: io::Result<Slotted>, view: &View<'_>) -> Actions {
        self.under_way = false;
        let callers = std::mem::take(&mut self.now);
        let mut actions = Actions::new();
        let answer = match slots {
            Ok(_) if view.closing => Reply::End,
            Ok(slots) => {
                actions.extend(self.adopt(slots, callers.iter().any(|caller| caller.nuke), view));
                Reply::End
            }
            Err(error) => {
                let text = format!("{SCAN_DIRECTORY} was not read: {error}");
                actions.extend(self.tell_once(text.clone()));
                Reply::Refused(Refusal::new(RefusalKind::Failed, text))
            }
        };
        actions.extend(callers.into_iter().map(|caller| Action::Reply(caller.conn, answer.clone())));
        if self.again {
            actions.extend(self.begin(None));
        }
        actions
    }

    fn tell_once(&mut self, text: String) -> Option<Action> {
        let is_news = self.told.len() < MOST_TOLD && self.told.insert(text.clone());
        is_news.then_some(Action::Log(slog::Level::Warning, text))
    }

    fn adopt(&mut self, slots: Slotted, nuke: bool, view: &View<'_>) -> Actions {
        let Slotted { services, there, warnings } = slots;
        let mut actions: Actions =
            warnings.into_iter().filter_map(|warning| self.tell_once(warning)).collect();
        for (definition, down) in services {
            actions.extend(match definition {
                Ok(definition) => self.adopt_slot(definition, down, view),
                Err(error) => self.tell_once(error.to_string()).into_iter().collect(),
            });
        }
        let lost = |service: &Service| {
            let slot = service.definition.slot.as_ref();
            slot.is_some_and(|slot| slot.dir.starts_with(SCAN_DIRECTORY) && !there.contains(&slot.dir))
        };
        let lost = view.services.iter().filter(|(_, service)| lost(service));
        actions.extend(lost.flat_map(|(id, _)| slot_is_gone(*id, nuke, view)));
        actions
    }

    fn adopt_slot(&mut self, definition: Definition, down: bool, view: &View<'_>) -> Actions {
        let id = view.fleet.id(definition.name.as_str());
        let Some((id, service)) = id.and_then(|id| Some((id, view.service(id)?))) else {
            let want = if down { Want::Down } else { Want::Up };
            let first = First::Seen(want, Cause::Slot);
            let new = New { definition, record: None, first, intent: None };
            return vec![Action::Define(Define::New(Box::new(new)))];
        };
        let old = &service.definition;
        let mut actions = Actions::new();
        if service.gone != Gone::No && old.slot.is_some() {
            actions.push(Action::Define(Define::Back(id)));
        }
        if old.origin != definition.origin {
            let (name, origin) = (&service.name, view.origin(id));
            actions.extend(self.tell_once(format!("the slot of '{name}' is ignored: {origin} comes first")));
        } else if old.slot != definition.slot || old.hash != definition.hash || old.is_unread() {
            let definition = Box::new(definition);
            actions.push(Action::Define(Define::Changed { id, definition, record: None }));
        }
        actions
    }
}

fn slot_is_gone(id: ServiceId, nuke: bool, view: &View<'_>) -> Actions {
    let runs = view.fleet.gateway(id).is_some_and(Gateway::has_tree);
    let stop = (nuke && runs).then_some(Action::OwnCommand(id, Command::Stop));
    stop.into_iter().chain([Action::Define(Define::Gone(id))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::topics::testing::World;
    use crate::definition::Template;
    use crate::definition::resolved::{Origin, Slot};
    use crate::definition::template::Profile;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    fn slotted(name: &str, slot: &str, world: &World) -> Definition {
        let name = ServiceName::new(name).unwrap();
        let made = Template::built_in().gateway(&name, &Profile::named(&name), &world.around);
        let dir = PathBuf::from(SCAN_DIRECTORY).join(slot);
        Definition {
            slot: Some(Box::new(Slot { dir, name: slot.to_owned(), rendered: true })),
            ..made.unwrap()
        }
    }

    /// All that the slots of these services come to.
    fn found(definitions: Vec<Definition>) -> Slotted {
        let there = definitions.iter().filter_map(|one| Some(one.slot.as_ref()?.dir.clone())).collect();
        let services = definitions.into_iter().map(|definition| (Ok(definition), false)).collect();
        Slotted { services, there, warnings: Vec::new() }
    }

    fn words(actions: &Actions) -> Vec<String> {
        let word = |action: &Action| match action {
            Action::ReadSlots(shown) => {
                let shown: Vec<&str> = shown.iter().map(|(name, _)| name.as_str()).collect();
                format!("read {}", shown.join(" ")).trim_end().to_owned()
            }
            Action::Reply(conn, Reply::End) => format!("{}: end", conn.slot),
            Action::Reply(conn, Reply::Refused(refusal)) => format!("{}: {}", conn.slot, refusal.message),
            Action::Log(_, text) => text.clone(),
            Action::Define(Define::New(new)) => format!("new {} {:?}", new.definition.name, new.first),
            Action::Define(Define::Changed { definition, .. }) => format!("changed {}", definition.name),
            Action::Define(Define::Back(_)) => "back".to_owned(),
            Action::Define(Define::Gone(_)) => "gone".to_owned(),
            Action::OwnCommand(_, Command::Stop) => "stop".to_owned(),
            other => panic!("not expected: {other:?}"),
        };
        actions.iter().map(word).collect()
    }

    #[test]
    fn who_asks_during_a_reading_is_answered_by_the_next_one() {
        let (world, mut scanning) = (World::default(), Scanning::new(true));
        let view = &world.view();
        assert_eq!(words(&scanning.rescan(conn(1), false, view)), ["read"]);
        assert!(scanning.rescan(conn(2), false, view).is_empty(), "one at a time");
        let shown = ServiceName::new("coder").unwrap();
        assert!(scanning.show(shown, Want::Up, view).is_empty());
        assert_eq!(words(&scanning.read(Ok(found(vec![])), view)), ["1: end", "read coder"]);
        assert_eq!(words(&scanning.read(Ok(found(vec![])), view)), ["2: end"]);
        assert_eq!(words(&scanning.scan(view)), ["read"], "it is shown once");
    }

    #[test]
    fn without_the_surface_there_is_nothing_to_read() {
        let (world, mut scanning) = (World::default(), Scanning::new(false));
        let view = &world.view();
        assert!(scanning.scan(view).is_empty());
        assert!(scanning.show(ServiceName::new("coder").unwrap(), Want::Up, view).is_empty());
        let refused = "1: there is no scan directory: start with --s6-surface";
        assert_eq!(words(&scanning.rescan(conn(1), true, view)), [refused]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_told_once() {
        let (world, mut scanning) = (World::default(), Scanning::new(true));
        let view = &world.view();
        scanning.rescan(conn(1), false, view);
        let failed = || Err(io::Error::other("no luck"));
        let line = "/run/service was not read: no luck";
        assert_eq!(words(&scanning.read(failed(), view)), [line, &format!("1: {line}")]);
        scanning.scan(view);
        assert!(scanning.read(failed(), view).is_empty());
        let warns = || Slotted { warnings: vec!["odd".to_owned()], ..found(vec![]) };
        assert_eq!(words(&scanning.read(Ok(warns()), view)), ["odd"]);
        assert!(scanning.read(Ok(warns()), view).is_empty());
    }

    #[test]
    fn a_slot_is_a_service_as_long_as_it_is_there() {
        let (mut world, mut scanning) = (World::default(), Scanning::new(true));
        let coder = || slotted("coder", "gateway-coder", &World::default());
        let mut slots = found(vec![coder()]);
        slots.services[0].1 = true;
        assert_eq!(words(&scanning.read(Ok(slots), &world.view())), ["new coder Seen(Down, Slot)"]);
        let id = world.add(coder());
        let life = world.up(id, 7);
        assert!(scanning.read(Ok(found(vec![coder()])), &world.view()).is_empty());
        // Its directory is still being filled, or being removed: that is nobody's business.
        let filling = Slotted { there: found(vec![coder()]).there, ..Slotted::default() };
        assert!(scanning.read(Ok(filling), &world.view()).is_empty());
        assert_eq!(words(&scanning.read(Ok(found(vec![])), &world.view())), ["gone"]);
        scanning.rescan(conn(1), true, &world.view());
        assert_eq!(words(&scanning.read(Ok(found(vec![])), &world.view())), ["stop", "gone", "1: end"]);
        world.services.get_mut(&id).unwrap().gone = Gone::Yes;
        assert_eq!(words(&scanning.read(Ok(found(vec![coder()])), &world.view())), ["back"]);
        assert_eq!(world.view().life(id), Some(life));
    }

    #[test]
    fn what_runs_in_another_slot_or_from_another_template_is_defined_anew_and_a_file_comes_first() {
        let (mut world, mut scanning) = (World::default(), Scanning::new(true));
        let id = world.gateway("coder");
        let coder = || slotted("coder", "gateway-coder", &World::default());
        assert_eq!(words(&scanning.read(Ok(found(vec![coder()])), &world.view())), ["changed coder"]);
        world.services.get_mut(&id).unwrap().definition.origin = Origin::File("/etc/coder.toml".into());
        let line = "the slot of 'coder' is ignored: /etc/coder.toml comes first";
        assert_eq!(words(&scanning.read(Ok(found(vec![coder()])), &world.view())), [line]);
        assert!(scanning.read(Ok(found(vec![coder()])), &world.view()).is_empty(), "it is told once");
    }

    #[test]
    fn a_malformed_template_is_told_and_a_shutdown_takes_nothing_up() {
        let (mut world, mut scanning) = (World::default(), Scanning::new(true));
        let slots =
            || Slotted { services: vec![(Err(TemplateError::Malformed), false)], ..Slotted::default() };
        let told = scanning.read(Ok(slots()), &world.view());
        assert_eq!(words(&told), ["the gateway template is malformed: see 'hermes-sup check'"]);
        world.closing = true;
        scanning.rescan(conn(1), true, &world.view());
        let coder = slotted("coder", "gateway-coder", &world);
        assert_eq!(words(&scanning.read(Ok(found(vec![coder])), &world.view())), ["1: end"]);
    }
}
