//! The loop: the only room that knows all the others.
//!
//! One thread. A wake-up puts what has happened into the [`Inbox`]; the loop takes one piece of news at a time, lets the core and the
//! topics decide, and carries out what they decided, which may bring further news. When there is none and nothing is due, it arms the
//! one timer and sleeps. Nothing here waits for a disk, a reader or a client: helper threads do, and answer with a [`Notice`].

mod act;
mod boot;
mod clock;
mod execute;
mod fault;
mod herald;
mod inbox;
mod main_program;
mod notice;
mod options;
mod serve;
mod services;
mod show;
#[cfg(test)]
mod simulation;
mod sources;
mod surface;
mod topics;
mod trace;
mod upgrade;
mod view;

pub use boot::ownership::Gateways;
pub use boot::run;
pub use notice::Notice;
pub use options::{Mode, Options};

use crate::containment::{self, Containment, IncarnationId};
use crate::control::protocol::{self, EventKind};
use crate::control::server::{Abandoned, Server};
use crate::core::clock::{LostTime, Tick};
use crate::core::effect::Effect;
use crate::core::event::Event;
use crate::core::fleet::{FleetEffects, ServiceId};
use crate::core::name::ServiceName;
use crate::definition::Surroundings;
use crate::definition::limits::inherited;
use crate::definition::programs::Programs;
use crate::definition::trust::Trust;
use crate::hermes::profile_watch::ProfileWatch;
use crate::log::{Container, Logs};
use crate::store::Store;
use boot::ownership::GivingWay;
use boot::ownership::finished::Finished;
use clock::{Clock, wall_seconds};
use herald::Herald;
use inbox::{Inbox, Input};
use main_program::MainProgram;
use mio::{Events, Poll};
use services::Services;
use services::beside::Beside;
use services::launch_error::LaunchError;
use services::starts::Starts;
use sources::listeners::Listeners;
use sources::pressure::Pressure;
use sources::probes::Probes;
use sources::reaping::Unreaped;
use sources::root_watch::RootWatch;
use sources::scan_watch::ScanWatch;
use sources::{Room, Wakeups, read_token};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use surface::slots::Supervised;
use topics::Deadlines;
use topics::admission::Admission;
use topics::definitions::Definitions;
use topics::edits::Edits;
use topics::essential;
use topics::events;
use topics::health::Health;
use topics::limits::{self, ServiceLimits};
use topics::planned::PlannedStops;
use topics::profiles::Profiles;
use topics::readiness::Readiness;
use topics::reclaiming::Reclaiming;
use topics::requests::Requests;
use topics::scanning::Scanning;
use topics::schedules::Schedules;
use topics::scopes::Scopes;
use topics::shutdown::{End, Shutdown};
use topics::topology::Topology;
use topics::upgrade::Upgrade;
use trace::Traced;
use view::{View, decide, view};

/// The topic of warnings that end when the store recovers.
const STORE: &str = "store";

/// So many effects are carried out without taking memory from the kernel for them.
const EFFECTS_KEPT: usize = 64;

/// For whom a commit was made.
#[derive(Debug)]
enum Commit {
    Want(ServiceId, u64),
    Registration(Box<serve::Registering>),
    Limits(Box<limits::Setting>),
    /// What is on record of a service without a definition is erased.
    Erased(ServiceId),
    /// A record that is no service is removed, for this caller.
    Dropped(ServiceName, crate::core::event::Ticket),
    /// A registration that is not to be on record after all, with what its caller is told then.
    Withdrawn(crate::core::event::Ticket, Box<protocol::Outcome>),
}

/// How the loop ended.
#[derive(Debug)]
enum Over {
    /// With this exit code.
    Ended(u8),
    /// Everything stands still; this program is to go on.
    Replaced(PathBuf),
    /// The services have, and another container takes the state over: the main program goes on.
    GivenUp,
}

/// What the topics know, each its own.
#[derive(Debug, Default)]
struct Topics {
    admission: Admission,
    requests: Requests,
    edits: Edits,
    limits: ServiceLimits,
    definitions: Definitions,
    readiness: Readiness,
    health: Health,
    planned: PlannedStops,
    reclaiming: Reclaiming,
    scanning: Scanning,
    schedules: Schedules,
    scopes: Scopes,
    shutdown: Shutdown,
    upgrade: Upgrade,
    profiles: Profiles,
    topology: Topology,
    events: events::Events,
}

/// Everything, owned by the loop.
struct Supervisor {
    options: Options,
    log: slog::Logger,
    clock: Clock,
    lost_time: LostTime,
    wakeups: Wakeups,
    fleet: Traced,
    services: Services,
    inbox: Inbox,
    /// What the core has decided and is not carried out yet.
    outbox: VecDeque<(ServiceId, Effect)>,
    starts: Starts,
    unreaped: Unreaped,
    surroundings: Surroundings,
    containment: Containment,
    finished: Finished,
    report: containment::Report,
    container: Container,
    logs: Logs,
    store: Store,
    commits: HashMap<u64, Commit>,
    next_commit: u64,
    server: Server,
    topics: Topics,
    handing: serve::log_files::Handing,
    listeners: Listeners,
    probes: Probes,
    pressure: Pressure,
    /// One for each life at most.
    beside: BTreeMap<IncarnationId, Beside>,
    main: Option<MainProgram>,
    /// Of our former selves, in Unix milliseconds.
    panics: Vec<u64>,
    /// What is wrong with the whole, with its topic, for `status`.
    warnings: Vec<(&'static str, String)>,
    /// What services have for stdin.
    null: OwnedFd,
    /// Where root's services look for theirs.
    programs: Programs,
    /// The soft and hard limit of open files that children get.
    nofile: Option<(u64, u64)>,
    /// The identity of the state directory.
    instance: String,
    /// Locked as long as we live.
    _alive: Option<std::fs::File>,
    /// How far what the database holds may be believed.
    state_trust: Trust,
    /// Where we listen.
    socket: PathBuf,
    /// FIFOs and keepers of this boot; ours alone.
    runtime_dir: PathBuf,
    /// What is in it is left to the kernel where the container ends.
    names_go_with_us: bool,
    has_hermes: bool,
    /// `None`: there is no scan directory, or it cannot be watched.
    scan_watch: Option<ScanWatch>,
    supervised: Supervised,
    /// The start did without what is still being read.
    late: Option<Box<boot::reading::late::Late>>,
    /// Where readings are.
    busy: boot::reading::finding::Busy,
    /// Deaf in a container that keeps the state.
    giving_way: GivingWay,
    /// `None`: it cannot be watched, and profiles are found at a boot, a reload, or when somebody names them.
    profile_watch: Option<Arc<ProfileWatch>>,
    root_watch: RootWatch,
    herald: Herald,
}

impl Supervisor {
    /// Runs until everything has ended, or until it is time to become another program.
    fn run(&mut self, poll: &mut Poll) -> Over {
        let mut events = Events::with_capacity(1024);
        loop {
            let hurries = match self.turn() {
                ControlFlow::Continue(hurries) => hurries,
                ControlFlow::Break(over) => return over,
            };
            self.container.gather(false);
            match poll.poll(&mut events, hurries.then_some(Duration::ZERO)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    slog::error!(self.log, "failed to wait for events"; "error" => %error);
                }
                _ => {}
            }
            self.give_back_lost_time();
            self.container.gather(true);
            for event in &events {
                self.wake(event);
            }
        }
    }

    /// Between two waits: deals with all that has happened. Whether there is more to do at once, or how it all ended.
    fn turn(&mut self) -> ControlFlow<Over, bool> {
        self.settle();
        if self.start_some() {
            self.settle();
        }
        if self.unreaped.is_due(self.clock.now()) {
            self.reap();
            self.settle();
        }
        let hurries = !self.starts.is_empty() || self.unreaped.is_due(self.clock.now());
        self.containment.tidy(self.clock.now(), hurries);
        self.logs.announce(hurries);
        self.store.announce();
        // Before the end, which may come with the turn in which it was asked for.
        self.herald.turn(self.clock.now(), self.topics.shutdown.is_on(), &self.fleet);
        if let Some(over) = self.ended() {
            return ControlFlow::Break(over);
        }
        if self.topics.upgrade.is_asked()
            && let Some(program) = self.topics.upgrade.due(self.is_busy(), &self.view())
        {
            return ControlFlow::Break(Over::Replaced(program));
        }
        self.server.send_streams(&self.wakeups.registry);
        for Abandoned { peer, why } in self.server.take_abandoned() {
            slog::warn!(self.log, "the answer to a caller was cut short: {why}"; "uid" => peer.uid, "pid" => peer.pid);
        }
        self.admit_callers();
        self.arm_timer();
        ControlFlow::Continue(hurries)
    }

    /// Those whom we could not let in before.
    fn admit_callers(&mut self) {
        if let Some(error) = self.server.pass_time(&self.wakeups.registry, self.clock.now()) {
            slog::warn!(self.log, "a caller could not be let in at once"; "error" => %error);
        }
    }

    /// How the loop ends, once everything has ended or is not waited for any longer.
    fn ended(&self) -> Option<Over> {
        let end = self.topics.shutdown.end(self.main.is_some(), &self.view())?;
        let (End::Exit { left, .. } | End::GivenWay { left }) = end;
        if left {
            slog::error!(self.log, "ending although processes are left that do not die");
        }
        Some(match end {
            End::Exit { code, .. } => Over::Ended(code),
            End::GivenWay { .. } => Over::GivenUp,
        })
    }

    /// A source has news: they go into the inbox.
    fn wake(&mut self, event: &mio::event::Event) {
        let Some((room, slot, generation)) = read_token(event.token()) else { return };
        match room {
            Room::Signals => self.read_signals(),
            Room::Timer => self.wakeups.timer.fired(),
            Room::Notices => {
                self.wakeups.notifier.taking();
                self.wakeups.notices.try_iter().for_each(|notice| self.inbox.push(Input::Notice(notice)));
            }
            Room::Control => {
                let mut incoming = Vec::new();
                self.server.ready(&self.wakeups.registry, slot, generation, event.into(), &mut incoming);
                incoming.into_iter().for_each(|request| self.inbox.push(Input::Request(request)));
                self.server.take_gone().into_iter().for_each(|gone| self.inbox.push(Input::CallerGone(gone)));
            }
            Room::Containment => {
                self.containment.ready(slot, generation, self.clock.now());
            }
            Room::MainProgram => self.inbox.push(Input::MainReported),
            Room::ScanDirectory => {
                self.scan_watch.iter().for_each(ScanWatch::drain);
                self.inbox.push(Input::ScanDirectory);
            }
            Room::Claims => self.inbox.push(Input::Claim),
            Room::Profiles => {
                let changes = self.profile_watch.as_ref().and_then(|watch| watch.take());
                changes.into_iter().for_each(|changes| self.inbox.push(Input::Profiles(changes)));
            }
            Room::Topology if self.root_watch.has_news() => self.inbox.push(Input::RootDirectory),
            Room::Topology => {}
            Room::WallClock if self.wakeups.wall_timer.fired() => self.inbox.push(Input::ClockSet),
            Room::WallClock => {}
            Room::Probes => self.inbox.push(Input::Probe(generation)),
            Room::Readiness => self.inbox.push(Input::Readiness(ServiceId(slot), generation)),
        }
    }

    /// Lets everything that has happened or is due have its consequences, until there are none.
    fn settle(&mut self) {
        loop {
            self.deal();
            let now = self.give_back_lost_time();
            if self.fleet.next_deadline().is_some_and(|at| at <= now) {
                self.reap_before_the_late();
                self.deal();
            }
            if self.topics.admission.is_due(&self.fleet, now) {
                let stalled = self.pressure.read();
                decide!(self.admission.looked(stalled));
            }
            // Nobody is killed for being late who has ended, and waits among thousands to be reaped.
            if !self.unreaped.is_due(now) {
                let due = self.fleet.pass_time(now);
                self.execute(due);
            }
            if self.containment.next_deadline().is_some_and(|at| at <= now) {
                self.containment.tick(now);
            }
            if !self.topics.schedules.is_empty() {
                decide!(self.schedules.pass_time(wall_seconds()));
            }
            decide!(self.planned.pass_time());
            decide!(self.readiness.pass_time());
            decide!(self.health.pass_time());
            decide!(self.reclaiming.pass_time());
            decide!(self.requests.pass_time());
            decide!(self.definitions.pass_time());
            decide!(self.edits.pass_time());
            let main = self.main.is_some();
            decide!(self.shutdown.pass_time(main));
            if self.topics.upgrade.is_asked() {
                let busy = self.is_busy();
                decide!(self.upgrade.pass_time(busy));
            }
            decide!(self.topology.settle());
            decide!(self.topology.placed());
            self.hear_containment();
            if self.inbox.is_empty() && self.outbox.is_empty() {
                // The room that the effects of a boot took is not kept.
                self.outbox.shrink_to(EFFECTS_KEPT);
                return;
            }
        }
    }

    /// Deals with what is in the inbox, each with all that follows from it before the next.
    fn deal(&mut self) {
        loop {
            while let Some((id, effect)) = self.outbox.pop_front() {
                #[cfg(test)]
                let Some(effect) = simulation::planted::effect(self, id, effect) else { continue };
                self.act(id, effect);
                fault::point();
            }
            self.hear_containment();
            let Some(input) = self.inbox.next() else { return };
            #[cfg(test)]
            let Some(input) = simulation::planted::input(self, input) else { continue };
            self.handle(input);
        }
    }

    /// What has happened in containment goes into the inbox.
    fn hear_containment(&mut self) {
        while let Some(event) = self.containment.next_event() {
            self.inbox.push(Input::Containment(event));
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Core(id, event) => {
                if let Event::MainExited { incarnation, exit } = event {
                    decide!(self.topology.exited(id, incarnation, exit));
                }
                let effects = self.fleet.step(id, event, self.clock.now());
                self.execute(effects);
            }
            Input::Containment(event) => self.take_containment_event(event),
            Input::Signal(received) => self.take_signal(received),
            Input::Notice(notice) => self.take_notice(notice),
            Input::Request(incoming) => self.take_request(incoming),
            Input::CallerGone(conn) => self.caller_is_gone(conn),
            Input::MainReported => self.main_reported(),
            Input::ClockSet => decide!(self.schedules.clock_set(wall_seconds())),
            Input::Readiness(id, generation) => self.hear_readiness(id, generation),
            Input::Probe(number) => self.hear_probe(number),
            Input::Probed(answer) => self.answered(answer),
            Input::ScanDirectory => decide!(self.scanning.scan()),
            Input::Claim => self.claimed(),
            Input::Profiles(changes) => {
                decide!(self.profiles.changed(changes));
                decide!(self.definitions.profiles_changed());
            }
            Input::RootDirectory => decide!(self.topology.root_directory_changed()),
            Input::Answer(ticket, outcome) => decide!(self.requests.finish(ticket, outcome)),
            Input::Killed(kill, error) => decide!(self.requests.killed(kill, error)),
            Input::FreezeOrdered { life, frozen, ticket, error } => {
                decide!(self.requests.freeze_ordered(&life, frozen, ticket, error));
            }
            Input::Scope(conn, id, name, answer) => decide!(self.scopes.answered(conn, id, name, answer)),
            Input::Reloaded(report) => decide!(self.definitions.reloaded(report)),
            Input::SetLimits(asked) => decide!(self.limits.set(&asked, &inherited())),
            Input::LimitsPut { life, in_force, left } => decide!(self.limits.put(&life, &in_force, &left)),
            Input::ProcessLimits(life, has) => decide!(self.limits.read(&life, &has)),
            Input::Retired(id) => self.forget(id),
        }
    }

    /// Puts what the core has decided at the end of what is to be carried out.
    fn execute(&mut self, effects: FleetEffects) {
        self.outbox.extend(effects);
    }

    /// Time in which we did not run is nobody's timeout: every deadline moves by it. Returns what time it is.
    fn give_back_lost_time(&mut self) -> Tick {
        let now = self.clock.now();
        let lost = self.lost_time.found(now);
        if !lost.is_zero() {
            let text = format!(
                "the supervisor did not run for {} ms (stopped, paused, or on a busy machine): every timeout is so much longer",
                lost.as_millis()
            );
            self.happened(protocol::Event::warning(EventKind::Paused, text));
            self.timeouts().into_iter().for_each(|topic| topic.postpone(lost));
        }
        now
    }

    /// All who give somebody time.
    fn timeouts(&mut self) -> [&mut dyn Deadlines; 11] {
        [
            &mut self.fleet,
            &mut self.topics.requests,
            &mut self.topics.definitions,
            &mut self.topics.edits,
            &mut self.topics.planned,
            &mut self.topics.readiness,
            &mut self.topics.health,
            &mut self.topics.reclaiming,
            &mut self.topics.topology,
            &mut self.topics.shutdown,
            &mut self.topics.upgrade,
        ]
    }

    fn arm_timer(&mut self) {
        let now = self.give_back_lost_time();
        // The others are only looked at: it does no harm when that is late.
        let timeouts = self.timeouts().into_iter().filter_map(|topic| topic.next_deadline()).min();
        let timeouts = self.lost_time.wait_until(now, timeouts);
        let looks = [
            self.containment.next_deadline(),
            self.unreaped.next_deadline(),
            self.herald.next_deadline(),
            self.server.next_deadline(),
            self.topics.schedules.next_tick(),
            self.topics.admission.next_tick(),
        ];
        let next: Option<Tick> = looks.into_iter().flatten().chain(timeouts).min();
        let wait = next.map_or(Duration::ZERO, |next| self.clock.until(next));
        if let Err(error) = self.wakeups.timer.arm(next, wait) {
            slog::error!(self.log, "failed to arm the timer"; "error" => %error);
        }
        let due = self.topics.schedules.next_wall();
        if let Err(error) = self.wakeups.wall_timer.arm(due, &self.wakeups.registry) {
            slog::error!(self.log, "failed to arm the timer of schedules"; "error" => %error);
        }
    }

    fn read_signals(&mut self) {
        loop {
            match self.wakeups.signals.read() {
                Ok(Some(received)) => self.inbox.push(Input::Signal(received)),
                Ok(None) => return,
                Err(error) => {
                    slog::error!(self.log, "failed to read signals"; "error" => %error);
                    return;
                }
            }
        }
    }

    fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Store(event) => self.take_store_event(event),
            Notice::Log(event) => self.take_log_event(event),
            Notice::Prepared { id, incarnation, file, mirrored, presence } => {
                if let Some((name, written)) = mirrored {
                    self.mirrored(id, &name, written);
                }
                let around = self.surroundings_now();
                let may_start = presence.map_or(Ok(()), |found| self.may_start(id, found));
                let file = may_start.map_err(LaunchError::from).and(file);
                self.launch(id, incarnation, file, &around);
            }
            Notice::Mirrored { id, name, written } => self.mirrored(id, &name, written),
            Notice::StopMarked { id, ticket, error } => decide!(self.planned.marked(id, ticket, error)),
            Notice::LogFiles { conn, service, files } => self.log_files_opened(conn, &service, files),
            Notice::LookedAt { ticket, edits } => decide!(self.edits.looked_at(ticket, edits)),
            Notice::Found(found) => decide!(self.definitions.found(*found)),
            Notice::Late { reading, found } => decide!(self.definitions.late_came(reading, *found)),
            Notice::NotFound(why) => decide!(self.definitions.not_found(&why)),
            Notice::Seen(seen) => decide!(self.readiness.seen(seen)),
            Notice::Probed(answer) => self.answered(answer),
            Notice::LastLines { id, incarnation, lines } => {
                decide!(self.health.snapshot(id, incarnation, lines));
            }
            Notice::RootHeard(heard) => decide!(self.topology.heard(heard)),
            Notice::GatewayConversed(conversed) => decide!(self.topology.conversed(conversed)),
            Notice::ProfileMarked(marked) => decide!(self.topology.marked(marked)),
            Notice::GatewayEnded { id, began } => decide!(self.topology.ended(id, began)),
            Notice::Slots(slots) => {
                self.surroundings = self.surroundings_now();
                let slots = slots.map(|slots| self.topics.definitions.of_slots(*slots, &self.view()));
                decide!(self.scanning.read(slots));
            }
            Notice::Claimed(claimant) => self.take_claim(claimant),
            Notice::UpgradeChecked(checked) => {
                decide!(self.upgrade.checked(checked));
                self.make_room_for_upgrade();
            }
            // Its bug has been told; what it did is done no more, so this is no way to go on.
            Notice::Reclaimed(life, done) => self.reclaimed(&life, done),
            Notice::Panicked => std::panic::resume_unwind(Box::new("a helper thread is no more")),
        }
    }

    fn check_essential(&mut self, id: ServiceId) {
        let ends =
            self.fleet.gateway(id).and_then(essential::ends_with).filter(|_| !self.topics.shutdown.is_on());
        if let Some(code) = ends {
            let name = self.fleet.name(id).map(ToString::to_string).unwrap_or_default();
            let text = format!("essential service failed, shutting down with exit code {code}");
            self.happened(protocol::Event::error(EventKind::Shutdown, text).about(name));
            self.begin_shutdown(Some(code));
        }
    }

    fn view(&self) -> View<'_> {
        view!(self)
    }

    fn warn(&mut self, topic: &'static str, text: String) {
        if !self.warnings.iter().any(|(_, known)| *known == text) {
            slog::warn!(self.log, "{text}"; "topic" => topic);
            self.warnings.push((topic, text));
        }
    }
}
