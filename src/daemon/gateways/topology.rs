//! One gateway or many: named gateways wait for the root gateway's word, and those that it serves get no process.
//!
//! The root gateway's state file is read when it begins to run and whenever it changes, on the thread that may wait for
//! files. What it says decides the [`Place`] of every named gateway ([`topology::place`]); the core does the rest. Until it
//! has spoken they are held, at most for [`ROOT_PATIENCE`]. All that is decided is in `hermes::topology` and `hermes::errand`;
//! here it is asked, told and carried out.
//!
//! * A named gateway that ends with 78 while nobody wants the root gateway may be of a version that has one gateway for all
//!   profiles: then the root gateway is started for it ([`Event::Needed`]). Its own want stays.
//! * What an operator asks of a served profile is asked of the root gateway, over its control socket.

use crate::control::protocol::{Code, Outcome, State};
use crate::core::clock::Tick;
use crate::core::event::{Command, Event, Incarnation, Ticket};
use crate::core::exit::Exit;
use crate::core::fleet::{Place, ServiceId};
use crate::core::gateway::{Gateway, Phase, Restored};
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::sources::{Room, plain_token};
use crate::daemon::topics::Deadlines;
use crate::daemon::view::decide;
use crate::daemon::{Notice, Supervisor};
use crate::definition::resolved::Ready;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::boot_log::{self, Action, PriorExit};
use crate::hermes::errand::{self, Errand, Verdict};
use crate::hermes::gateway_socket::{self, Answer, AskError, Verb};
use crate::hermes::state_json;
use crate::hermes::state_watch::StateWatch;
use crate::hermes::topology::{self, Doubt, Hold, ROOT_PATIENCE, Root, Seen, Word};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The life of the root gateway that is listened to.
#[derive(Debug)]
struct Followed {
    pid: u32,
    watch: Option<StateWatch>,
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

/// What came of a conversation with the root gateway.
#[derive(Debug)]
pub struct Conversed {
    topic: Topic,
    answer: Result<Answer, AskError>,
}

/// What a conversation was about.
#[derive(Debug, Clone)]
enum Topic {
    /// A profile that it does not serve; this gateway ended because it does not get a process of its own.
    Rescan(Option<ServiceId>),
    /// An operator's command for a profile that it serves, or that is parked.
    Command { id: ServiceId, ticket: Ticket, command: Command, errand: Errand },
}

/// What is known of the root gateway, and who depends on it.
#[derive(Debug, Default)]
pub struct Topology {
    /// Something may be different now.
    moved: bool,
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
    /// Lines of the boot log about gateways that are held.
    boot_lines: Vec<(ServiceName, Option<String>, PriorExit)>,
    /// An operator has stopped what was kept up: only an operator starts it again.
    fold_refused: bool,
}

impl Deadlines for Topology {
    fn next_deadline(&self) -> Option<Tick> {
        self.hold.deadline()
    }

    fn postpone(&mut self, by: Duration) {
        self.hold.postpone(by);
    }
}

impl Topology {
    fn word(&self) -> Option<&Word> {
        self.followed.as_ref().and_then(|followed| followed.word.as_ref())
    }

    fn unfollow(&mut self, registry: &Registry) {
        let watch = self.followed.take().and_then(|followed| followed.watch);
        if let Some(watch) = watch {
            let _ = registry.deregister(&mut SourceFd(&watch.as_fd().as_raw_fd()));
        }
    }
}

impl Supervisor {
    /// The service of the root profile.
    pub(in crate::daemon) fn root_gateway(&self) -> Option<ServiceId> {
        let id = self.fleet.id(DEFAULT_PROFILE)?;
        let directory = self.services.get(&id)?.gateway_directory(&self.options.home)?;
        (directory == Path::new("")).then_some(id)
    }

    /// The profile that a service is the gateway of, unless it is the root profile.
    fn named_profile(&self, id: ServiceId) -> Option<ServiceName> {
        let directory = self.services.get(&id)?.gateway_directory(&self.options.home)?;
        let name = directory.strip_prefix("profiles").ok()?.to_str()?;
        ServiceName::new(name).ok()
    }

    fn named_gateways(&self) -> Vec<(ServiceId, ServiceName)> {
        self.services.keys().filter_map(|id| Some((*id, self.named_profile(*id)?))).collect()
    }

    fn see_root(&self) -> Seen {
        if self.topics.topology.foreground {
            let pid = self.main.as_ref().and_then(|main| u32::try_from(main.pid()).ok());
            return pid.map_or(Seen::Absent, Seen::Runs);
        }
        let Some(gateway) = self.root_gateway().and_then(|id| self.fleet.gateway(id)) else {
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
    fn root(&self) -> Root<'_> {
        topology::root(self.see_root(), self.topics.topology.word(), self.topics.topology.hold)
    }

    /// Where the work of this gateway is done, by what is known now.
    fn place_of(&self, id: ServiceId, profile: &ServiceName) -> Option<Place> {
        let root_name = ServiceName::new(DEFAULT_PROFILE).ok()?;
        if self.topics.topology.asking.contains(&id) {
            return Some(Place::Ask(root_name));
        }
        let parked = self.topics.topology.parked.contains(profile);
        Some(topology::place(self.root(), &root_name, profile.as_str(), parked))
    }

    /// Before anything starts: named gateways wait where the root gateway is to run. `foreground`: as the main program. Whether
    /// they do.
    pub(in crate::daemon) fn hold_before_boot(
        &mut self,
        restored: &mut BTreeMap<ServiceId, Restored>,
        foreground: bool,
    ) -> bool {
        self.topics.topology.foreground = foreground;
        self.restore_need(restored);
        let comes = |restored: &Restored| {
            let wanted = restored.want == Want::Up && !restored.finished && restored.history.failed.is_none();
            wanted || restored.living.is_some()
        };
        let root = self.root_gateway().and_then(|id| restored.get(&id));
        if !foreground && !root.is_some_and(comes) {
            return false;
        }
        self.topics.topology.moved = true;
        let named = self.named_gateways();
        let (Ok(root), false) = (ServiceName::new(DEFAULT_PROFILE), named.is_empty()) else { return false };
        self.topics.topology.hold = Hold::begin(self.clock.now());
        for (id, _) in named {
            let effects = self.fleet.place(id, Place::Ask(root.clone()), self.clock.now());
            self.execute(effects);
        }
        true
    }

    /// An earlier supervisor kept the root gateway up for others, and its life goes on: for those that are wanted up and have no
    /// process.
    fn restore_need(&mut self, restored: &mut BTreeMap<ServiceId, Restored>) {
        let needs = |restored: &Restored| {
            restored.want == Want::Up && restored.living.is_none() && restored.history.failed.is_none()
        };
        let named = self.named_gateways().into_iter().map(|(id, _)| id);
        let folded: BTreeSet<ServiceId> = named.filter(|id| restored.get(id).is_some_and(needs)).collect();
        let first = folded.first().and_then(|id| self.fleet.name(*id)).cloned();
        let root = self.root_gateway().and_then(|id| restored.get_mut(&id));
        if let Some(root) = root.filter(|root| root.living.is_some_and(|living| living.needed)) {
            root.needed = first;
            self.topics.topology.folded = folded;
        }
    }

    /// The lines of the boot log about those that are held: profile, state of before, and how its last life ended.
    pub(in crate::daemon) fn tell_boot_later(
        &mut self,
        lines: Vec<(ServiceName, Option<String>, PriorExit)>,
    ) {
        self.topics.topology.boot_lines = lines;
    }

    /// Says what became of those that were held at boot.
    fn tell_held(&mut self) {
        let lines = std::mem::take(&mut self.topics.topology.boot_lines).into_iter();
        let line = |(name, prior, exit): (ServiceName, Option<String>, PriorExit)| {
            let gateway = self.fleet.id(name.as_str()).and_then(|id| self.fleet.gateway(id));
            let action =
                gateway.map_or(Action::Registered, |gateway| Action::of(gateway.elsewhere(), gateway.want()));
            (boot_log::line(&name, prior.as_deref(), action), exit)
        };
        let lines: Vec<_> = lines.map(line).collect();
        self.tell_boot(lines);
    }

    /// A service has become known; it has not started yet.
    pub(in crate::daemon) fn place_new(&mut self, id: ServiceId) {
        let Some(profile) = self.named_profile(id) else { return };
        self.topics.topology.moved = true;
        if let Some(place) = self.place_of(id, &profile) {
            let effects = self.fleet.place(id, place, self.clock.now());
            self.execute(effects);
        }
        // It says which profiles it serves only when it has looked.
        let unlisted = self
            .topics
            .topology
            .word()
            .is_some_and(|word| word.multiplexes() && !word.served.contains(profile.as_str()));
        if unlisted {
            self.ask_to_rescan(None);
        }
    }

    /// The work that takes the word of an earlier life out of a gateway's state file, where its own is going to be listened to.
    pub(in crate::daemon) fn forget_before_start(
        &self,
        id: ServiceId,
    ) -> Option<impl FnOnce() -> io::Result<()> + use<>> {
        let service = self.services.get(&id)?;
        let directory = service.gateway_directory(&self.options.home)?;
        let is_root = self.root_gateway() == Some(id) && !self.named_gateways().is_empty();
        let listened_to = is_root || service.definition.ready == Ready::GatewayState;
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        listened_to.then_some(move || state_json::forget_last_life(&Beneath::open(&home)?, &user, &directory))
    }

    /// A service has changed its state.
    pub(in crate::daemon) fn topology_changed(&mut self, id: ServiceId) {
        let is_root = self.fleet.name(id).is_some_and(|name| name.as_str() == DEFAULT_PROFILE);
        self.topics.topology.moved |= is_root || self.topics.topology.folded.contains(&id);
    }

    /// A service is no more.
    pub(in crate::daemon) fn topology_forget(&mut self, id: ServiceId) {
        self.topics.fights.forget(id);
        self.topics.topology.asking.remove(&id);
        self.topics.topology.moved |= self.topics.topology.folded.remove(&id);
    }

    /// Brings the places of all named gateways up to date, if something may be different.
    pub(in crate::daemon) fn settle_topology(&mut self) {
        let now = self.clock.now();
        let due = self.topics.topology.next_deadline().is_some_and(|at| at <= now);
        if (!std::mem::take(&mut self.topics.topology.moved) && !due) || self.topics.shutdown.is_on() {
            return;
        }
        let named = self.named_gateways();
        if named.is_empty() {
            self.topics.topology.unfollow(&self.wakeups.registry);
            self.topics.topology.hold = Hold::Off;
            return self.settle_need();
        }
        let seen = self.see_root();
        match seen {
            Seen::Runs(pid) => {
                if self.topics.topology.followed.as_ref().is_none_or(|followed| followed.pid != pid) {
                    self.topics.topology.unfollow(&self.wakeups.registry);
                    self.topics.topology.followed = Some(Followed { pid, watch: None, word: None });
                    self.listen_to_root(true);
                }
            }
            Seen::Absent | Seen::OnItsWay | Seen::Ending => {
                self.topics.topology.unfollow(&self.wakeups.registry)
            }
        }
        let undecided = topology::root(seen, self.topics.topology.word(), Hold::Off) == Root::Coming;
        if self.topics.topology.hold.pass(undecided, now) {
            let waits = |id: &ServiceId| {
                self.fleet.gateway(*id).is_some_and(|gateway| gateway.phase() == Phase::Held)
            };
            if named.iter().any(|(id, _)| waits(id)) {
                slog::warn!(self.log, "'{DEFAULT_PROFILE}' has not said which profiles it serves: the others start without its word";
                    "seconds" => ROOT_PATIENCE.as_secs());
            }
        }
        for (id, profile) in named {
            if let Some(place) = self.place_of(id, &profile) {
                let effects = self.fleet.place(id, place, now);
                self.execute(effects);
            }
        }
        if !matches!(self.topics.topology.hold, Hold::Until(_)) {
            self.tell_held();
        }
        self.settle_need();
    }

    /// The root gateway is kept up as long as a gateway that cannot do without it is wanted up.
    fn settle_need(&mut self) {
        let wanted =
            |id: &ServiceId| self.fleet.gateway(*id).is_some_and(|gateway| gateway.want() == Want::Up);
        let mut folded = std::mem::take(&mut self.topics.topology.folded);
        folded.retain(wanted);
        let needed_by = folded.first().and_then(|id| self.fleet.name(*id)).cloned();
        self.topics.topology.folded = folded;
        if let Some(root) = self.root_gateway() {
            let is = self.fleet.gateway(root).and_then(|gateway| gateway.needed_by()).cloned();
            let up = self.fleet.gateway(root).is_some_and(|gateway| gateway.want() == Want::Up);
            if !up && is != needed_by {
                self.inbox.core(root, Event::Needed(needed_by));
            }
        }
    }

    // ---- The root gateway's word ----------------------------------------------------------------------------------

    /// Reads its state file, where that may hang; with `first`, watches it from then on.
    fn listen_to_root(&mut self, first: bool) {
        let Some(pid) = self.topics.topology.followed.as_ref().map(|followed| followed.pid) else { return };
        let names: Vec<ServiceName> = self.named_gateways().into_iter().map(|(_, name)| name).collect();
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        let work = move || {
            let home = Beneath::open(&home)?;
            // What was written before the watch is seen by the look, what comes later by the watch.
            let watch = first.then(|| StateWatch::new(&home, &user, Path::new(""))).transpose()?;
            Ok((watch, topology::read(&home, &user, &names)?))
        };
        let notifier = self.wakeups.notifier.clone();
        type Read = (Option<StateWatch>, (Option<Word>, BTreeSet<ServiceName>));
        let done = move |read: io::Result<io::Result<Read>>| {
            let (watch, read) = match read.and_then(|read| read) {
                Ok((watch, read)) => (watch, Ok(read)),
                Err(error) => (None, Err(error)),
            };
            notifier.send(Notice::RootHeard(Heard { pid, watch, read }));
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            self.root_heard(Heard { pid, watch: None, read: Err(io::Error::other(refused)) });
        }
    }

    /// The directory of its state file has news.
    pub(in crate::daemon) fn root_directory_changed(&mut self) {
        let watch = self.topics.topology.followed.as_ref().and_then(|followed| followed.watch.as_ref());
        if watch.is_some_and(StateWatch::changed) {
            self.listen_to_root(false);
        }
    }

    /// Its state file was read.
    pub(in crate::daemon) fn root_heard(&mut self, heard: Heard) {
        let Heard { pid, watch, read } = heard;
        let Some(followed) = self.topics.topology.followed.as_mut().filter(|followed| followed.pid == pid)
        else {
            return;
        };
        if let Some(watch) = watch {
            let fd = watch.as_fd().as_raw_fd();
            let token = plain_token(Room::Topology);
            match self.wakeups.registry.register(&mut SourceFd(&fd), token, Interest::READABLE) {
                Ok(()) => followed.watch = Some(watch),
                Err(error) => slog::warn!(self.log, "failed to watch a state file"; "error" => %error),
            }
        }
        match read {
            Ok((word, parked)) => {
                // That of an earlier life, or of another container, is nobody's word.
                let word = word.filter(|word| word.pid == pid);
                if word.is_some() && followed.word != word {
                    let news = word.as_ref().and_then(|word| topology::news(followed.word.as_ref(), word));
                    if let Some(news) = news {
                        slog::info!(self.log, "{DEFAULT_PROFILE}: {news}");
                    }
                    followed.word = word;
                    self.topics.topology.moved = true;
                }
                self.topics.topology.moved |= self.topics.topology.parked != parked;
                self.topics.topology.parked = parked;
            }
            Err(error) => {
                slog::warn!(
                    self.log,
                    "{DEFAULT_PROFILE}: its gateway_state.json does not say which profiles it serves: {error}"
                );
            }
        }
    }

    // ---- Ends that mean that another gateway serves the profile ---------------------------------------------------

    /// A gateway is about to be judged by its exit code; what that means depends on the root gateway.
    pub(in crate::daemon) fn gateway_exited(&mut self, id: ServiceId, incarnation: Incarnation, exit: Exit) {
        let current =
            |gateway: &&Gateway| gateway.phase() == Phase::Up && gateway.history().incarnation == incarnation;
        let Some(gateway) = self.fleet.gateway(id).filter(current) else { return };
        let (since, pid) = (gateway.since(), gateway.pid().and_then(|pid| u32::try_from(pid).ok()));
        if !self.topics.shutdown.is_on() && self.is_gateway(id) {
            self.look_for_a_fight(id, since);
        }
        let Some(profile) = self.named_profile(id).filter(|_| !self.topics.shutdown.is_on()) else { return };
        match topology::doubt(exit, self.root(), profile.as_str(), self.root_may_be_needed()) {
            Some(Doubt::Rescan) => {
                self.topics.topology.asking.insert(id);
                self.ask_to_rescan(Some(id));
            }
            Some(Doubt::WhyItEnded) => {
                let service = self.services.get(&id);
                let directory = service.and_then(|service| service.gateway_directory(&self.options.home));
                let Some((pid, directory)) = pid.zip(directory) else { return };
                self.topics.topology.asking.insert(id);
                self.look_why_it_ended(id, pid, directory);
            }
            None => return,
        }
        if let Some(place) = self.place_of(id, &profile) {
            let effects = self.fleet.place(id, place, self.clock.now());
            self.execute(effects);
        }
    }

    /// Nobody wants it, and nothing speaks against it.
    fn root_may_be_needed(&self) -> bool {
        let root = self.root_gateway().and_then(|id| self.fleet.gateway(id));
        root.is_some_and(|gateway| gateway.want() == Want::Down && gateway.phase() == Phase::Down)
            && !self.topics.topology.fold_refused
    }

    fn look_why_it_ended(&mut self, id: ServiceId, pid: u32, directory: PathBuf) {
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        let work = move || topology::wrote_state(&Beneath::open(&home)?, &user, &directory, pid);
        let notifier = self.wakeups.notifier.clone();
        let done = move |wrote: io::Result<io::Result<bool>>| {
            let began = wrote.and_then(|wrote| wrote).unwrap_or(true);
            notifier.send(Notice::GatewayEnded { id, began });
        };
        if self.logs.files().run(Credentials::own(), work, done).is_err() {
            self.gateway_ended(id, true);
        }
    }

    /// Whether a gateway that ended with 78 had begun to work.
    pub(in crate::daemon) fn gateway_ended(&mut self, id: ServiceId, began: bool) {
        if !self.topics.topology.asking.remove(&id) {
            return;
        }
        self.topics.topology.moved = true;
        if !began
            && self.root_may_be_needed()
            && let Some(name) = self.fleet.name(id).cloned()
        {
            slog::info!(
                self.log,
                "{name}: this version of Hermes has one gateway for all profiles: '{DEFAULT_PROFILE}' is started for it"
            );
            self.topics.topology.folded.insert(id);
            self.settle_need();
        }
    }

    // ---- What is asked of the root gateway ------------------------------------------------------------------------

    /// `id`: a gateway whose end is in doubt until it has answered.
    fn ask_to_rescan(&mut self, id: Option<ServiceId>) {
        self.converse(Topic::Rescan(id), |home, user, pid| {
            gateway_socket::ask(home, user, pid, &Verb::RescanProfiles, errand::PATIENCE)
        });
    }

    /// Talks to it on a thread of its own: its answer may take seconds.
    fn converse(
        &mut self,
        topic: Topic,
        talk: impl FnOnce(&Beneath, &Credentials, u32) -> Result<Answer, AskError> + Send + 'static,
    ) {
        let Some(pid) = self.topics.topology.word().map(|word| word.pid) else {
            return self.conversed(Conversed { topic, answer: Err(AskError::NoSocket) });
        };
        let (home, user) = (self.options.home.clone(), self.surroundings_now().gateway.credentials());
        let (notifier, kept) = (self.wakeups.notifier.clone(), topic.clone());
        let work = move || {
            let home = Beneath::open(&home).map_err(AskError::from);
            let answer = home.and_then(|home| talk(&home, &user, pid));
            notifier.send(Notice::GatewayConversed(Conversed { topic, answer }));
        };
        if let Err(error) = std::thread::Builder::new().name("gateway".to_owned()).spawn(work) {
            self.conversed(Conversed { topic: kept, answer: Err(error.into()) });
        }
    }

    /// It has answered, or is not going to.
    pub(in crate::daemon) fn conversed(&mut self, conversed: Conversed) {
        let Conversed { topic, answer } = conversed;
        if let (Ok(Answer { served: Some(served), .. }), Some(followed)) =
            (&answer, &mut self.topics.topology.followed)
            && let Some(word) = followed.word.as_mut().filter(|word| word.multiplexes())
        {
            // Its state file says so in a moment, too.
            word.served.clone_from(served);
            self.topics.topology.moved = true;
        }
        match topic {
            Topic::Rescan(None) => {}
            Topic::Rescan(Some(id)) => {
                self.topics.topology.moved |= self.topics.topology.asking.remove(&id);
            }
            Topic::Command { id, ticket, command, errand } => {
                self.answer_for_root(id, ticket, command, &errand, answer.as_ref());
            }
        }
    }

    /// An operator's command for a profile that is served or parked is asked of the root gateway, unless that one is told the
    /// same (`together`) or it comes to the same. False: the core takes it as any other.
    pub(in crate::daemon) fn ask_root(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        command: Command,
        together: &BTreeSet<ServiceId>,
    ) -> bool {
        self.operator_asked(id, command);
        let place = self.fleet.gateway(id).and_then(|gateway| gateway.elsewhere()).cloned();
        let (Some(place), Some(profile)) = (place, self.named_profile(id)) else { return false };
        if self.root_gateway().is_some_and(|root| together.contains(&root)) {
            return false;
        }
        if command == Command::Stop && self.is_needed_only_by(together) {
            let message = format!("'{DEFAULT_PROFILE}' was up for it alone, and ends");
            let name = self.fleet.name(id).map(ServiceName::as_str).unwrap_or_default();
            self.topics.topology.answers.insert(ticket, Outcome::done(name, State::Down, Some(message)));
            return false;
        }
        let Some(errand) = Errand::of(&place, command, &profile) else { return false };
        let topic = Topic::Command { id, ticket, command, errand: errand.clone() };
        self.converse(topic, move |home, user, pid| errand.run(home, user, pid));
        true
    }

    /// Nobody wants the root gateway, and it is kept up for no service but these.
    fn is_needed_only_by(&self, ids: &BTreeSet<ServiceId>) -> bool {
        let root = self.root_gateway().and_then(|id| self.fleet.gateway(id));
        root.is_some_and(|root| root.needed_by().is_some()) && self.topics.topology.folded.is_subset(ids)
    }

    /// What an operator's command says about what was found out before.
    fn operator_asked(&mut self, id: ServiceId, command: Command) {
        match command {
            Command::Start { .. } | Command::Restart => {
                self.topics.topology.fold_refused = false;
            }
            Command::Stop => {
                let needed = self.fleet.gateway(id).is_some_and(|gateway| gateway.needed_by().is_some());
                if needed {
                    self.topics.topology.fold_refused = true;
                    self.topics.topology.folded.clear();
                }
            }
            Command::Once | Command::Unregister => {}
        }
    }

    fn answer_for_root(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        command: Command,
        errand: &Errand,
        answer: Result<&Answer, &AskError>,
    ) {
        let Some((name, profile)) = self.fleet.name(id).cloned().zip(self.named_profile(id)) else { return };
        if answer.is_ok() && errand.parks() {
            self.topics.topology.parked.insert(profile);
        } else if answer.is_ok() {
            self.topics.topology.parked.remove(&profile);
        }
        self.topics.topology.moved = true;
        self.settle_topology();
        let state = self.state(id).unwrap_or(State::Down);
        let outcome = match errand.verdict(&name, DEFAULT_PROFILE, answer) {
            Verdict::Done(message) => Outcome::done(name.as_str(), state, message),
            Verdict::Unfinished(message) => {
                Outcome::failed(name.as_str(), Code::TimedOut, Some(state), message)
            }
            Verdict::Refused(message) => {
                let outcome = Outcome::failed(name.as_str(), Code::Failed, Some(state), message);
                return decide!(self.requests.finish(ticket, outcome));
            }
        };
        // It counts once it is recorded.
        self.topics.topology.answers.insert(ticket, outcome);
        let command = match command {
            Command::Restart => Command::Start { force: false },
            command @ (Command::Start { .. } | Command::Stop | Command::Once | Command::Unregister) => {
                command
            }
        };
        self.inbox.core(id, Event::Command { ticket, command });
    }

    /// The answer to a command that was asked of the root gateway, once its want is recorded.
    pub(in crate::daemon) fn prepared_answer(&mut self, id: ServiceId, ticket: Ticket) -> Option<Outcome> {
        let mut outcome = self.topics.topology.answers.remove(&ticket)?;
        outcome.state = self.state(id);
        Some(outcome)
    }

    /// What the status of a gateway says beside its state: why no other one serves it.
    pub(in crate::daemon) fn unserved(&self, id: ServiceId) -> Option<String> {
        let gateway = self.fleet.gateway(id)?;
        let profile = self.named_profile(id).filter(|_| gateway.phase() == Phase::Failed)?;
        let (exit, _) = gateway.history().last_exit?;
        topology::unserved(exit, self.root(), profile.as_str())
    }
}
