//! One gateway or many: named gateways wait for the root gateway's word, and those that it serves get no process.
//!
//! The root gateway's state file is read when it begins to run and whenever it changes, on the thread that may wait for
//! files. What it says decides the [`Place`] of every named gateway ([`topology::place`]); the core does the rest. Until it
//! has spoken they are held, at most for [`ROOT_PATIENCE`]. What a word, an end or an answer means is in `hermes::topology` and
//! `hermes::errand`; here is what is known, who waits for what, and what is to be done.
//!
//! * A named gateway that ends with 78 while nobody wants the root gateway may be of a version that has one gateway for all
//!   profiles: then the root gateway is started for it ([`Event::Needed`]). Its own want stays.
//! * What an operator asks of a served profile is asked of the root gateway, over its control socket. That it serves one counts, too,
//!   while processes of the profile's own gateway still end.
//! * A stop that comes when the root gateway cannot be asked holds for it all the same: `stops`.

mod ends;
mod errands;
mod stops;
#[cfg(test)]
mod stories;

pub use errands::{About, Conversed};
pub use stops::Marked;

use crate::control::protocol::Outcome;
use crate::core::clock::Tick;
use crate::core::event::{Event, Ticket};
use crate::core::fights::Fights;
use crate::core::fleet::{Place, ServiceId};
use crate::core::gateway::{Phase, Restored};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::topics::Deadlines;
use crate::daemon::view::View;
use crate::definition::resolved::Ready;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::boot_log::{self, PriorExit};
use crate::hermes::state_watch::StateWatch;
use crate::hermes::topology::{self, Hold, ROOT_PATIENCE, Root, Seen, Word};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use errands::Queued;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stops::Stops;

/// The life of the root gateway that is listened to.
#[derive(Debug)]
struct Followed {
    pid: u32,
    word: Option<Word>,
}

/// What was read of the root gateway's state file.
#[derive(Debug)]
pub struct Heard {
    /// The life that it was read for.
    pid: u32,
    /// With the first look.
    watch: Option<StateWatch>,
    read: io::Result<(Option<Word>, BTreeSet<ServiceName>)>,
}

/// A line of the boot log about a gateway that is held: its profile, the state of before, and how its last life ended.
pub type BootLine = (ServiceName, Option<String>, PriorExit);

/// What is known of the root gateway, and who depends on it.
#[derive(Debug, Default)]
pub struct Topology {
    /// Something may be different now.
    moved: bool,
    /// Places were decided, and what follows from them is not done yet.
    placed: bool,
    followed: Option<Followed>,
    /// Profiles whose owner wants no gateway for them.
    parked: BTreeSet<ServiceName>,
    /// Whether named gateways wait for the root gateway's word.
    hold: Hold,
    /// It is the container's main program.
    foreground: bool,
    /// Gateways for which it is being found out why they ended.
    asking: BTreeSet<ServiceId>,
    /// What the root gateway made of commands, for when the want is recorded.
    answers: BTreeMap<Ticket, Outcome>,
    /// Gateways for which the root gateway is kept up.
    folded: BTreeSet<ServiceId>,
    boot_lines: Vec<BootLine>,
    /// An operator has stopped what was kept up: only an operator starts it again.
    fold_refused: bool,
    /// Gateways about whose profiles the root gateway is being asked for an operator, and what was asked for since.
    talks: BTreeMap<ServiceId, Vec<Queued>>,
    stops: Stops,
    fights: Fights,
}

impl Deadlines for Topology {
    fn next_deadline(&self) -> Option<Tick> {
        self.hold.deadline()
    }

    fn postpone(&mut self, by: Duration) {
        self.hold.postpone(by);
    }
}

/// The service of the root profile.
fn root_gateway(view: &View<'_>) -> Option<ServiceId> {
    let id = view.fleet.id(DEFAULT_PROFILE)?;
    let directory = view.service(id)?.gateway_directory(&view.options.home)?;
    (directory == Path::new("")).then_some(id)
}

/// Whether the root gateway is one of these.
fn has_root(ids: &BTreeSet<ServiceId>, view: &View<'_>) -> bool {
    root_gateway(view).is_some_and(|root| ids.contains(&root))
}

/// The profile that a service is the gateway of, unless it is the root profile.
fn named_profile(id: ServiceId, view: &View<'_>) -> Option<ServiceName> {
    let directory = view.service(id)?.gateway_directory(&view.options.home)?;
    let name = directory.strip_prefix("profiles").ok()?.to_str()?;
    ServiceName::new(name).ok()
}

fn named_gateways(view: &View<'_>) -> Vec<(ServiceId, ServiceName)> {
    view.services.keys().filter_map(|id| Some((*id, named_profile(*id, view)?))).collect()
}

impl Topology {
    fn word(&self) -> Option<&Word> {
        self.followed.as_ref().and_then(|followed| followed.word.as_ref())
    }

    fn unfollow(&mut self) -> Option<Action> {
        self.followed.take().map(|_| Action::UnwatchRoot)
    }

    fn see_root(&self, view: &View<'_>) -> Seen {
        if self.foreground {
            return view.main.and_then(|pid| u32::try_from(pid).ok()).map_or(Seen::Absent, Seen::Runs);
        }
        let Some(gateway) = root_gateway(view).and_then(|id| view.fleet.gateway(id)) else {
            return Seen::Absent;
        };
        match gateway.phase() {
            Phase::Up => match gateway.pid().and_then(|pid| u32::try_from(pid).ok()) {
                Some(pid) => Seen::Runs(pid),
                None => Seen::Ending,
            },
            Phase::Ending(_) => Seen::Ending,
            Phase::Held if gateway.is_refused() => Seen::Absent,
            Phase::Held | Phase::Starting | Phase::Backoff { .. } => Seen::OnItsWay,
            Phase::Down | Phase::Failed | Phase::Finished => Seen::Absent,
        }
    }

    /// The root gateway, as far as others depend on it.
    fn root(&self, view: &View<'_>) -> Root<'_> {
        topology::root(self.see_root(view), self.word(), self.hold)
    }

    /// Where the work of this gateway is done, by what is known now.
    fn place_of(&self, id: ServiceId, profile: &ServiceName, view: &View<'_>) -> Option<Place> {
        let root_name = ServiceName::new(DEFAULT_PROFILE).ok()?;
        if self.asking.contains(&id) {
            return Some(Place::Ask(root_name));
        }
        let parked = self.parked.contains(profile);
        Some(topology::place(self.root(view), &root_name, profile.as_str(), parked))
    }

    // ---- Services come and go -------------------------------------------------------------------------------------

    /// Before anything starts: named gateways wait where the root gateway is to run. `foreground`: as the main program. Returns
    /// also whether they do.
    pub fn before_boot(
        &mut self,
        restored: &mut BTreeMap<ServiceId, Restored>,
        foreground: bool,
        view: &View<'_>,
    ) -> (bool, Actions) {
        self.foreground = foreground;
        self.restore_need(restored, view);
        let comes = |restored: &Restored| {
            let wanted = restored.want == Want::Up && !restored.finished && restored.history.failed.is_none();
            wanted || restored.living.is_some()
        };
        let root = root_gateway(view).and_then(|id| restored.get(&id));
        if !foreground && !root.is_some_and(comes) {
            return (false, Actions::new());
        }
        self.moved = true;
        let named = named_gateways(view);
        let (Ok(root), false) = (ServiceName::new(DEFAULT_PROFILE), named.is_empty()) else {
            return (false, Actions::new());
        };
        self.hold = Hold::begin(view.now);
        (true, named.into_iter().map(|(id, _)| Action::Place(id, Place::Ask(root.clone()))).collect())
    }

    /// An earlier supervisor kept the root gateway up for others, and its life goes on: for those that are wanted up and have no
    /// process.
    fn restore_need(&mut self, restored: &mut BTreeMap<ServiceId, Restored>, view: &View<'_>) {
        let needs = |restored: &Restored| {
            restored.want == Want::Up && restored.living.is_none() && restored.history.failed.is_none()
        };
        let named = named_gateways(view).into_iter().map(|(id, _)| id);
        let folded: BTreeSet<ServiceId> = named.filter(|id| restored.get(id).is_some_and(needs)).collect();
        let first = folded.first().and_then(|id| view.name(*id)).cloned();
        let root = root_gateway(view).and_then(|id| restored.get_mut(&id));
        if let Some(root) = root.filter(|root| root.living.is_some_and(|living| living.needed)) {
            root.needed = first;
            self.folded = folded;
        }
    }

    /// The lines of the boot log about those that are held are told when it is known what becomes of them.
    pub fn tell_later(&mut self, lines: Vec<BootLine>) {
        self.boot_lines = lines;
    }

    /// A service has become known; it has not started yet.
    pub fn joined(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some(profile) = named_profile(id, view) else { return Actions::new() };
        self.moved = true;
        let place = self.place_of(id, &profile, view).map(|place| Action::Place(id, place));
        // It says which profiles it serves only when it has looked.
        let unlisted =
            self.word().is_some_and(|word| word.multiplexes() && !word.served.contains(profile.as_str()));
        let rescan = unlisted.then(|| self.converse(About::Rescan(None)));
        place.into_iter().chain(rescan).collect()
    }

    /// Where the state file of a gateway lies that is going to be listened to: the word of an earlier life is taken out of it
    /// before a start.
    pub fn forgets_before_start(&self, id: ServiceId, view: &View<'_>) -> Option<PathBuf> {
        let service = view.service(id)?;
        let directory = service.gateway_directory(&view.options.home)?;
        let is_root = root_gateway(view) == Some(id) && !named_gateways(view).is_empty();
        (is_root || service.definition.ready == Ready::GatewayState).then_some(directory)
    }

    /// A service has changed its state.
    pub fn changed(&mut self, id: ServiceId, view: &View<'_>) {
        let is_root = view.name(id).is_some_and(|name| name.as_str() == DEFAULT_PROFILE);
        self.moved |= is_root || self.folded.contains(&id) || self.stops.contains(id);
    }

    /// A service is no more.
    pub fn forget(&mut self, id: ServiceId) {
        self.fights.forget(id);
        self.asking.remove(&id);
        self.stops.forget(id);
        self.talks.remove(&id);
        self.moved |= self.folded.remove(&id);
    }

    // ---- Places ---------------------------------------------------------------------------------------------------

    /// Brings the places of all named gateways up to date, if something may be different.
    pub fn settle(&mut self, view: &View<'_>) -> Actions {
        let due = self.next_deadline().is_some_and(|at| at <= view.now);
        if (!std::mem::take(&mut self.moved) && !due) || view.closing {
            return Actions::new();
        }
        self.placed = true;
        let named = named_gateways(view);
        if named.is_empty() {
            self.hold = Hold::Off;
            return self.unfollow().into_iter().collect();
        }
        let seen = self.see_root(view);
        let mut actions = Actions::new();
        match seen {
            Seen::Runs(pid) if self.followed.as_ref().is_some_and(|followed| followed.pid == pid) => {}
            Seen::Runs(pid) => {
                actions.extend(self.unfollow());
                self.followed = Some(Followed { pid, word: None });
                actions.extend(self.listen(true, view));
            }
            Seen::Absent | Seen::OnItsWay | Seen::Ending => actions.extend(self.unfollow()),
        }
        let undecided = topology::root(seen, self.word(), Hold::Off) == Root::Coming;
        if self.hold.pass(undecided, view.now) {
            let waits = |id: &ServiceId| {
                view.fleet.gateway(*id).is_some_and(|gateway| gateway.phase() == Phase::Held)
            };
            if named.iter().any(|(id, _)| waits(id)) {
                let text = format!(
                    "'{DEFAULT_PROFILE}' has not said within {} s which profiles it serves: the others start without its \
                     word",
                    ROOT_PATIENCE.as_secs()
                );
                actions.push(Action::Log(slog::Level::Warning, text));
            }
        }
        for (id, profile) in named {
            actions.extend(self.place_of(id, &profile, view).map(|place| Action::Place(id, place)));
        }
        actions
    }

    /// All have their places: what became of those that were held at boot is told, and the root gateway is kept up as long as a
    /// gateway that cannot do without it is wanted up.
    pub fn placed(&mut self, view: &View<'_>) -> Actions {
        if !std::mem::take(&mut self.placed) {
            return if view.closing { self.settle_stops(view) } else { Actions::new() };
        }
        let mut actions = Actions::new();
        if !matches!(self.hold, Hold::Until(_)) && !self.boot_lines.is_empty() {
            actions.push(Action::TellBoot(self.held_lines(view)));
        }
        actions.extend(self.settle_need(view));
        actions.extend(self.settle_stops(view));
        actions
    }

    /// What became of those that were held at boot.
    fn held_lines(&mut self, view: &View<'_>) -> Vec<(String, PriorExit)> {
        let line = |(name, prior, exit): BootLine| {
            let gateway = view.fleet.id(name.as_str()).and_then(|id| view.fleet.gateway(id));
            let action = gateway.map_or(boot_log::Action::Registered, |gateway| {
                boot_log::Action::of(gateway.elsewhere(), gateway.want())
            });
            (boot_log::line(&name, prior.as_deref(), action), exit)
        };
        std::mem::take(&mut self.boot_lines).into_iter().map(line).collect()
    }

    fn settle_need(&mut self, view: &View<'_>) -> Option<Action> {
        let wanted =
            |id: &ServiceId| view.fleet.gateway(*id).is_some_and(|gateway| gateway.want() == Want::Up);
        self.folded.retain(wanted);
        let needed_by = self.folded.first().and_then(|id| view.name(*id)).cloned();
        let root = root_gateway(view)?;
        let is = view.fleet.gateway(root).and_then(|gateway| gateway.needed_by());
        (!wanted(&root) && is != needed_by.as_ref()).then(|| Action::Core(root, Event::Needed(needed_by)))
    }

    // ---- The root gateway's word ----------------------------------------------------------------------------------

    /// Reads its state file, where that may hang; with `first`, it is watched from then on.
    fn listen(&self, first: bool, view: &View<'_>) -> Option<Action> {
        let pid = self.followed.as_ref()?.pid;
        let names: Vec<ServiceName> = named_gateways(view).into_iter().map(|(_, name)| name).collect();
        let (home, user) = (view.options.home.clone(), view.around.gateway.credentials());
        let work = move || {
            let home = Beneath::open(&home)?;
            // What was written before the watch is seen by the look, what comes later by the watch.
            let watch = first.then(|| StateWatch::new(&home, &user, Path::new(""))).transpose()?;
            Ok((watch, topology::read(&home, &user, &names)?))
        };
        let told = move |watch, read| Notice::RootHeard(Heard { pid, watch, read });
        Some(Action::Files(FileWork {
            credentials: Credentials::own(),
            work: Box::new(move || match work() {
                Ok((watch, read)) => told(watch, Ok(read)),
                Err(error) => told(None, Err(error)),
            }),
            refused: Arc::new(move |why| told(None, Err(why))),
        }))
    }

    /// The directory of its state file has news.
    pub fn root_directory_changed(&mut self, view: &View<'_>) -> Actions {
        self.listen(false, view).into_iter().collect()
    }

    /// Its state file was read.
    pub fn heard(&mut self, heard: Heard, _: &View<'_>) -> Actions {
        let Heard { pid, watch, read } = heard;
        let Some(followed) = self.followed.as_mut().filter(|followed| followed.pid == pid) else {
            return Actions::new();
        };
        let mut actions: Actions = watch.map(Action::WatchRoot).into_iter().collect();
        let (word, parked) = match read {
            Ok(read) => read,
            Err(error) => {
                let text = format!(
                    "{DEFAULT_PROFILE}: its gateway_state.json does not say which profiles it serves: {error}"
                );
                actions.push(Action::Log(slog::Level::Warning, text));
                return actions;
            }
        };
        // That of an earlier life, or of another container, is nobody's word.
        if let Some(word) = word.filter(|word| word.pid == pid && followed.word.as_ref() != Some(word)) {
            let news = topology::news(followed.word.as_ref(), &word);
            let line = |news| Action::Log(slog::Level::Info, format!("{DEFAULT_PROFILE}: {news}"));
            actions.extend(news.map(line));
            followed.word = Some(word);
            self.moved = true;
        }
        let mut parked = parked;
        self.stops.correct(&mut parked);
        self.moved |= self.parked != parked;
        self.parked = parked;
        actions
    }
}
