//! An abstract kernel, disk and set of callers around the state machine, searched exhaustively.
//!
//! Every reachable combination is visited once. In each one the safety rules hold, and from each one, without any
//! further command, a state can be reached in which every caller is answered. Seeded faults prove that the search
//! would notice: each is a change to the stream between machine and world that some rule must catch.

use super::clock::Tick;
use super::effect::{Effect, Outcome};
use super::event::{Command, Event, Ticket};
use super::exit::Exit;
use super::gateway::{Elsewhere, FINISH_GIVES_UP, Gate, Gateway, Phase, Restored, Stage};
use super::name::ServiceName;
use super::policy::{BurstLimit, ExitRule, Hook, Hooks, Kind, Policy, RestartWhen};
use super::words::Want;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// Deliberate bugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KillIsLost,
    RecordIsLost,
    AcknowledgedBeforeTheCommit,
    MainExitTakenForEmptyTree,
    StopTakenForRestart,
    ReplyIsLost,
    SpawnIsRepeated,
    ReadyIsAssumed,
    NobodyIsAdopted,
    CleanExitTakenForFailure,
    /// That another service does its work is not heard.
    ElsewhereIsIgnored,
    /// That it is not needed any more is not heard.
    NeedIsForever,
    /// A service that is to be given up is not.
    GivingUpIsIgnored,
    /// Every hook before a start is taken for a success.
    PreStartIsIgnored,
    /// A start of a scheduled service runs it.
    StartIsDue,
}

/// The search is run seven times, because all together would be too many states for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    TwoCallers,
    OneCallerAndGates,
    /// One caller, and other services that do this one's work or need it.
    OneCallerAndOthers,
    /// One caller, and a service that reports readiness and has a finish program.
    ReadyAndFinish,
    /// One caller, and a service with every hook.
    Hooks,
    /// One caller, and a oneshot that runs when it is due, if what it requires lets it.
    Scheduled,
    /// As `ReadyAndFinish`, and a supervisor that is killed at any moment and has a successor.
    Crashes,
}

impl Scope {
    fn reports(self) -> bool {
        matches!(self, Self::ReadyAndFinish | Self::Crashes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Main {
    None,
    Making,
    Alive,
    Dead,
}

/// A rule that does not hold, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

impl From<String> for Broken {
    fn from(rule: String) -> Self {
        Self(rule)
    }
}

impl From<&str> for Broken {
    fn from(rule: &str) -> Self {
        Self(rule.to_owned())
    }
}

#[derive(Clone)]
struct World {
    gateway: Gateway,
    now: Tick,
    fault: Fault,
    scope: Scope,
    main: Main,
    /// Processes exist, besides a main process that is not reaped yet.
    tree: bool,
    tree_told: bool,
    killed: bool,
    draining: bool,
    /// The main process is the finish program.
    finishing: bool,
    /// The main process is the hook before a start.
    preparing: bool,
    /// That hook has succeeded, and nothing has come after it.
    prepared: bool,
    /// The hook beside the main process.
    hook: Option<Hook>,
    reported: bool,
    /// How the last main process ended, unless it could not be made.
    ended: Option<Exit>,
    disk: VecDeque<(u64, Option<Want>)>,
    on_disk: Want,
    tickets: BTreeMap<Ticket, Command>,
    next_ticket: u64,
    /// The shutdown was told.
    closing: bool,
    gone: bool,
    /// Another service does its work.
    elsewhere: bool,
    needed: bool,
    /// It is to be given up, and nobody has asked for it since.
    given_up: bool,
    /// The last life was called unhealthy before it ended.
    unhealthy: bool,
    /// Of a scheduled service: a run was due while it waited for one, and has not begun.
    run_is_due: bool,
}

const FORCE: Command = Command::Start { force: true };

const COMMANDS: [Command; 6] = [
    Command::Start { force: false },
    FORCE,
    Command::Stop,
    Command::Restart,
    Command::Once,
    Command::Unregister,
];

/// The service that does this one's work, or needs it.
fn other() -> ServiceName {
    ServiceName::new("other").expect("a valid name")
}

/// What the world may do next.
#[derive(Debug, Clone, PartialEq)]
enum Move {
    Command(Command),
    Disk {
        works: bool,
    },
    Exec {
        works: bool,
    },
    Ready,
    Unhealthy,
    Extended,
    MainEnds(Exit, /* leaves processes */ bool),
    TreeEnds,
    Reaped(Exit),
    Drained,
    HookEnds,
    Time,
    Due,
    Gate(Gate),
    Needed(bool),
    GiveUp,
    Shutdown,
    /// The supervisor is killed; what it was writing got to the disk or not.
    Crash {
        written: bool,
    },
}

impl World {
    fn new(fault: Fault, scope: Scope, want: Want) -> Result<Self, Broken> {
        let mut policy = Policy::default();
        policy.restart.limit = Some(BurstLimit { burst: 2, interval: Duration::from_secs(600) });
        // Elsewhere a clean exit is no failure either, and it runs again.
        if scope != Scope::OneCallerAndGates {
            policy.restart.exit_codes = BTreeMap::from([(0, ExitRule::Stop)]);
        }
        if scope.reports() {
            policy.ready = Some(Duration::from_secs(60));
            policy.finish = Some(Duration::from_secs(5));
        }
        if scope == Scope::Hooks {
            let some = Some(Duration::from_secs(3));
            policy.hooks = Hooks { pre_start: some, post_start: some, pre_stop: some };
        }
        if scope == Scope::Scheduled {
            policy.kind = Kind::Scheduled;
            policy.restart.when = RestartWhen::Never;
        }
        let mut world = Self {
            gateway: Gateway::new(policy, 7),
            now: Tick(1_000_000),
            fault,
            scope,
            main: Main::None,
            tree: false,
            tree_told: false,
            killed: false,
            draining: false,
            finishing: false,
            preparing: false,
            prepared: false,
            hook: None,
            reported: false,
            ended: None,
            disk: VecDeque::new(),
            on_disk: want,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            closing: false,
            gone: false,
            elsewhere: false,
            needed: false,
            given_up: false,
            unhealthy: false,
            run_is_due: false,
        };
        world.feed(Event::Boot(Restored {
            want,
            recorded: true,
            history: Default::default(),
            living: None,
            finished: false,
            needed: None,
        }))?;
        Ok(world)
    }

    fn incarnation(&self) -> u64 {
        self.gateway.history().incarnation
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.gone {
            return moves;
        }
        let callers = if self.scope == Scope::TwoCallers { 2 } else { 1 };
        if self.tickets.len() < callers && self.disk.len() < 2 {
            let stuck = self.gateway.stage() == Some(Stage::Stuck);
            moves.extend(COMMANDS.into_iter().filter(|c| stuck || *c != FORCE).map(Move::Command));
        }
        moves.extend(self.environment());
        if self.scope == Scope::Scheduled {
            moves.push(Move::Due);
        }
        if matches!(self.scope, Scope::OneCallerAndGates | Scope::Scheduled) {
            let gates = [Gate::Open, Gate::Wait("a".into()), Gate::Refused("a".into())];
            moves.extend(gates.map(Move::Gate));
        }
        if self.scope == Scope::OneCallerAndOthers {
            let served = Gate::Elsewhere(Elsewhere::Served { by: other() });
            let gates = [Gate::Open, Gate::Ask(other()), served];
            moves.extend(gates.map(Move::Gate));
            moves.extend([false, true].map(Move::Needed));
            moves.push(Move::GiveUp);
        }
        if self.scope == Scope::ReadyAndFinish && self.main == Main::Alive && !self.tree_told {
            moves.extend([Move::Unhealthy, Move::Extended]);
        }
        if self.scope == Scope::Crashes {
            moves.extend([false, true].map(|written| Move::Crash { written }));
        }
        moves.push(Move::Shutdown);
        moves
    }

    /// The moves that must suffice to answer everybody.
    fn environment(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.gone {
            return moves;
        }
        if !self.disk.is_empty() {
            moves.push(Move::Disk { works: true });
            moves.push(Move::Disk { works: false });
        }
        if self.main == Main::Making {
            moves.push(Move::Exec { works: true });
            moves.push(Move::Exec { works: false });
        }
        if self.main == Main::Alive && !self.tree_told {
            for exit in [Exit::Code(0), Exit::Code(1)] {
                moves.push(Move::MainEnds(exit, true));
                moves.push(Move::MainEnds(exit, false));
            }
            if self.finishing {
                moves.push(Move::MainEnds(Exit::Code(FINISH_GIVES_UP), false));
            } else if self.scope.reports() && !self.reported {
                moves.push(Move::Ready);
            }
        }
        // Leftovers are hostile: only the kill ends them.
        if self.tree && self.main == Main::Dead && self.killed {
            moves.push(Move::TreeEnds);
        }
        // A killed tree may be seen empty before its main process is reaped.
        if self.tree && self.main == Main::Alive && self.killed {
            moves.push(Move::TreeEnds);
        }
        if self.main == Main::Alive && self.tree_told {
            moves.push(Move::Reaped(Exit::Code(1)));
        }
        if self.draining {
            moves.push(Move::Drained);
        }
        if self.hook.is_some() {
            moves.push(Move::HookEnds);
        }
        if self.gateway.deadline().is_some() {
            moves.push(Move::Time);
        }
        moves
    }

    fn apply(&mut self, step: &Move) -> Result<(), Broken> {
        let incarnation = self.incarnation();
        match step.clone() {
            Move::Command(command) => {
                self.given_up = false;
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.tickets.insert(ticket, command);
                let command = match (self.fault, command) {
                    (Fault::StopTakenForRestart, Command::Stop) => Command::Restart,
                    (_, command) => command,
                };
                self.feed(Event::Command { ticket, command })?;
                match (self.fault, command) {
                    (Fault::StartIsDue, Command::Start { .. }) => self.feed(Event::Due),
                    _ => Ok(()),
                }
            }
            Move::Disk { works } => {
                let (seq, want) = self.disk.pop_front().ok_or("no write")?;
                if !works {
                    return self.feed(Event::NotRecorded { seq, reason: "full".into() });
                }
                self.on_disk = want.unwrap_or(Want::Down);
                self.feed(Event::Recorded { seq })
            }
            Move::Exec { works: true } => {
                self.main = Main::Alive;
                self.feed(Event::Spawned { incarnation, pid: 42 })?;
                match self.fault {
                    Fault::ReadyIsAssumed => self.feed(Event::ReadyReported { incarnation }),
                    _ => Ok(()),
                }
            }
            Move::Exec { works: false } => {
                (self.main, self.tree) = (Main::Dead, false);
                self.ended = None;
                self.feed(Event::SpawnFailed { incarnation, reason: "no such file".into() })?;
                self.tell_empty()
            }
            Move::Ready => {
                self.reported = true;
                self.feed(Event::ReadyReported { incarnation })
            }
            Move::Unhealthy if self.gateway.phase() != Phase::Up => Ok(()),
            Move::Unhealthy => {
                self.unhealthy = true;
                self.feed(Event::Unhealthy { incarnation, reason: "no answer".into() })
            }
            Move::Extended => self.feed(Event::Extended { incarnation, by: Duration::from_secs(30) }),
            Move::MainEnds(exit, leaves) => {
                self.main = Main::Dead;
                // A hook is of the tree.
                let leaves = leaves || self.hook.is_some();
                self.tree = leaves;
                self.note_end(exit);
                if self.preparing {
                    (self.ended, self.prepared) = (None, exit == Exit::Code(0));
                }
                let exit = match self.fault {
                    Fault::CleanExitTakenForFailure => Exit::Code(1),
                    Fault::PreStartIsIgnored if self.preparing => Exit::Code(0),
                    _ => exit,
                };
                self.feed(Event::MainExited { incarnation, exit })?;
                if leaves && self.fault != Fault::MainExitTakenForEmptyTree {
                    Ok(())
                } else {
                    self.tell_empty()
                }
            }
            Move::Reaped(exit) => {
                self.main = Main::Dead;
                self.note_end(exit);
                self.feed(Event::MainExited { incarnation, exit })
            }
            Move::HookEnds => {
                self.hook = None;
                self.feed(Event::HookEnded { incarnation })
            }
            Move::TreeEnds => {
                (self.tree, self.hook) = (false, None);
                self.tell_empty()
            }
            Move::Drained => {
                self.draining = false;
                self.feed(Event::LogsDrained { incarnation })
            }
            Move::Time => {
                self.now = self.gateway.deadline().ok_or("no deadline")?.max(self.now);
                self.feed(Event::Time)
            }
            Move::Due => {
                let rests = self.gateway.awaits_run();
                self.run_is_due |= rests;
                self.feed(Event::Due)
            }
            Move::Gate(gate) => {
                self.elsewhere = matches!(gate, Gate::Elsewhere(_));
                // What it was given up for is no more.
                self.given_up &= !self.elsewhere;
                let heard = !self.elsewhere || self.fault != Fault::ElsewhereIsIgnored;
                self.feed(Event::Gate(if heard { gate } else { Gate::Open }))
            }
            Move::Needed(needed) => {
                if !self.closing && !self.gateway.is_retiring() {
                    self.needed = needed;
                }
                let heard = needed || self.fault == Fault::NeedIsForever;
                self.feed(Event::Needed(heard.then(other)))
            }
            Move::GiveUp => {
                // No command for a start is under way, and it wants to have a process.
                let heard = self.gateway.want() == Want::Up && !self.elsewhere && self.tickets.is_empty();
                let has_ended = matches!(self.gateway.phase(), Phase::Down | Phase::Finished);
                self.given_up |= heard && !has_ended && !self.closing && !self.gateway.is_retiring();
                if self.fault == Fault::GivingUpIsIgnored {
                    return Ok(());
                }
                self.feed(Event::GiveUp { reason: "fights".into() })
            }
            Move::Shutdown => {
                self.closing = true;
                self.feed(Event::Shutdown { deadline: self.now.after(Duration::from_secs(9)) })
            }
            Move::Crash { written } => self.crash(written),
        }
    }

    /// The callers lose their connections. The successor adopts what it can, and has ended the rest before it decides
    /// anything.
    fn crash(&mut self, written: bool) -> Result<(), Broken> {
        if let Some((_, want)) = self.disk.pop_front().filter(|_| written) {
            self.on_disk = want.unwrap_or(Want::Down);
        }
        self.disk.clear();
        self.tickets.clear();
        let living = self.gateway.living().filter(|_| self.fault != Fault::NobodyIsAdopted);
        let history = self.gateway.history().clone();
        let finished = self.gateway.phase() == Phase::Finished;
        let kept = self.gateway.living().is_some();
        if !kept {
            (self.main, self.tree, self.draining, self.finishing) = (Main::None, false, false, false);
            (self.preparing, self.prepared, self.hook) = (false, false, None);
        }
        (self.killed, self.closing, self.gone) = (false, false, false);
        self.gateway = Gateway::new(self.gateway.policy().clone(), 7);
        self.feed(Event::Boot(Restored {
            want: self.on_disk,
            recorded: true,
            history,
            living,
            finished,
            needed: None,
        }))
    }

    fn note_end(&mut self, exit: Exit) {
        if !self.finishing {
            self.ended = Some(exit);
        }
    }

    fn tell_empty(&mut self) -> Result<(), Broken> {
        if self.tree_told {
            return Ok(());
        }
        self.tree_told = true;
        self.feed(Event::TreeEmpty { incarnation: self.incarnation() })
    }

    fn feed(&mut self, event: Event) -> Result<(), Broken> {
        let before = self.gateway.want();
        let failures = self.gateway.history().failures.len();
        let effects = self.gateway.step(event.clone(), self.now);
        if self.gateway.want() != before && !matches!(event, Event::Command { .. }) {
            let from_disk =
                matches!(event, Event::Recorded { .. } | Event::NotRecorded { .. } | Event::Boot(_));
            if !from_disk && event != Event::Time {
                return Err(format!("{event:?} changed the want").into());
            }
        }
        let counted = self.gateway.history().failures.len() > failures && !matches!(event, Event::Boot(_));
        if counted && self.ended == Some(Exit::Code(0)) && !self.unhealthy {
            return Err("a clean exit was counted as a failure".into());
        }
        // An operator's stop ends the need, too.
        self.needed &= self.gateway.is_needed();
        for effect in effects {
            self.carry_out(effect)?;
        }
        self.check()
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Record { seq, want } => {
                if self.fault == Fault::AcknowledgedBeforeTheCommit {
                    let ticket = self.tickets.keys().next_back().copied().ok_or("nobody asked")?;
                    self.carry_out(Effect::Reply {
                        ticket,
                        outcome: Outcome::Done { already: false, unrecorded: None },
                    })?;
                }
                if self.fault != Fault::RecordIsLost {
                    self.disk.push_back((seq, Some(want)));
                }
            }
            Effect::Erase { seq } => self.disk.push_back((seq, None)),
            Effect::SaveHistory | Effect::Changed | Effect::Report(_) => {}
            Effect::Finish { incarnation, .. } => {
                self.place(incarnation)?;
                self.finishing = true;
            }
            Effect::Prepare { incarnation } => {
                self.spawn(incarnation)?;
                self.preparing = true;
            }
            Effect::RunHook { .. } if self.hook.is_some() => return Err("two hooks at a time".into()),
            Effect::RunHook { .. } if self.main != Main::Alive || self.preparing => {
                return Err("a hook beside no main process".into());
            }
            Effect::RunHook { hook, .. } => self.hook = Some(hook),
            Effect::EndHook { .. } => {}
            Effect::Spawn { incarnation } => {
                if self.scope == Scope::Hooks && !self.prepared {
                    return Err("the main process was made before its hook had succeeded".into());
                }
                self.spawn(incarnation)?;
                if self.fault == Fault::SpawnIsRepeated {
                    self.spawn(incarnation)?;
                }
            }
            Effect::SignalMain { .. } if self.main != Main::Alive => {
                return Err("a signal to no process".into());
            }
            Effect::SignalMain { planned: true, .. }
                if self.closing || self.gateway.want() == Want::Up || self.gateway.needed_by().is_some() =>
            {
                return Err("a stop that nobody planned".into());
            }
            Effect::SignalTree { .. } if self.tree_told => return Err("a signal to an empty tree".into()),
            Effect::SignalMain { .. } | Effect::SignalTree { .. } => {}
            Effect::KillTree { .. } => self.killed = self.fault != Fault::KillIsLost,
            Effect::DrainLogs { .. } if self.tree => return Err("the log of a living tree was closed".into()),
            Effect::DrainLogs { .. } => self.draining = true,
            Effect::Release { .. } if self.tree => {
                return Err("the place of a living tree was removed".into());
            }
            Effect::Release { .. } => {
                (self.main, self.hook) = (Main::None, None);
                self.draining = false;
            }
            Effect::Abandon { .. } => {
                if self.gateway.stage() == Some(Stage::Draining) {
                    return Err("an empty tree was abandoned".into());
                }
                (self.main, self.tree, self.hook) = (Main::None, false, None);
            }
            Effect::Reply { .. } if self.fault == Fault::ReplyIsLost => {}
            Effect::Reply { ticket, outcome } => self.reply(ticket, &outcome)?,
            Effect::Retired if self.tree => return Err("unregistered with a living tree".into()),
            Effect::Retired => self.gone = true,
        }
        Ok(())
    }

    fn spawn(&mut self, incarnation: u64) -> Result<(), Broken> {
        if self.gateway.want() == Want::Down && !self.gateway.is_once() && !self.needed {
            return Err("spawned against the want".into());
        }
        if self.elsewhere {
            return Err("spawned beside the service that does its work".into());
        }
        if self.given_up {
            return Err("spawned after it was given up".into());
        }
        let asked_for = self.tickets.values().any(|command| *command == Command::Once);
        let may_run = std::mem::take(&mut self.run_is_due) || asked_for || self.gateway.is_once();
        if self.scope == Scope::Scheduled && !may_run {
            return Err("a run that was neither due nor asked for".into());
        }
        self.place(incarnation)
    }

    fn place(&mut self, incarnation: u64) -> Result<(), Broken> {
        if self.tree || !matches!(self.main, Main::None) {
            return Err("spawned beside a living tree".into());
        }
        if incarnation != self.incarnation() {
            return Err("spawned under an old number".into());
        }
        (self.main, self.tree, self.tree_told, self.killed) = (Main::Making, true, false, false);
        (self.finishing, self.reported, self.preparing, self.prepared) = (false, false, false, false);
        self.unhealthy &= self.gateway.phase() != Phase::Starting;
        Ok(())
    }

    fn reply(&mut self, ticket: Ticket, outcome: &Outcome) -> Result<(), Broken> {
        let command = self.tickets.remove(&ticket).ok_or("answered twice")?;
        match (outcome, command) {
            (Outcome::Done { unrecorded: Some(_), .. }, Command::Stop) => {}
            (Outcome::Done { unrecorded: Some(_), .. }, _) => {
                return Err(format!("{command:?} acted unrecorded").into());
            }
            (Outcome::Done { .. }, Command::Start { .. } | Command::Restart) if self.on_disk != Want::Up => {
                return Err("start acknowledged before its commit".into());
            }
            (Outcome::Done { .. }, Command::Stop | Command::Unregister) if self.on_disk != Want::Down => {
                return Err("stop acknowledged before its commit".into());
            }
            _ => {}
        }
        if let Outcome::Done { .. } = outcome {
            let down = matches!(command, Command::Stop | Command::Unregister);
            if down && (self.tree || self.main == Main::Alive) {
                return Err("stop acknowledged with a living tree".into());
            }
            let waits = self.scope.reports() && !self.reported;
            if !down && (waits || self.finishing || self.preparing) && !self.elsewhere {
                return Err("start acknowledged before the service was ready".into());
            }
            let waits_for_its_time = self.scope == Scope::Scheduled && command != Command::Once;
            if !down && self.main != Main::Alive && !self.elsewhere && !waits_for_its_time {
                return Err("start acknowledged without a main process".into());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Broken> {
        let phase = self.gateway.phase();
        let wants_up = self.gateway.want() == Want::Up;
        match phase {
            Phase::Backoff { .. } | Phase::Failed | Phase::Finished if !wants_up && !self.needed => {
                Err("waits against the want".into())
            }
            Phase::Up if self.main == Main::Making => Err("up before exec".into()),
            Phase::Down if self.tree => Err("down with a living tree".into()),
            Phase::Ending(_) | Phase::Backoff { .. }
                if self.gateway.stage() != Some(Stage::Stuck) && self.gateway.deadline().is_none() =>
            {
                Err("waits for nothing".into())
            }
            _ => Ok(()),
        }
    }

    /// What makes two worlds the same for the search: everything but absolute times and numbers.
    fn phase_name(&self) -> String {
        match self.gateway.phase() {
            Phase::Backoff { .. } => "Backoff".to_owned(),
            Phase::Ending(_) => self.gateway.fingerprint_ending(),
            other => format!("{other:?}"),
        }
    }

    fn key(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.fingerprint().hash(&mut hasher);
        hasher.finish()
    }

    fn fingerprint(&self) -> String {
        let phase = self.phase_name();
        let disk: Vec<_> =
            self.disk.iter().map(|(seq, want)| (self.gateway.fingerprint_seq(*seq), want)).collect();
        format!(
            "{phase} {} {:?} {} {} {} {:?} {disk:?} {:?} {:?} {} {:?}",
            self.gateway.fingerprint(),
            self.main,
            self.tree,
            self.tree_told,
            self.killed,
            (self.draining, self.finishing, self.reported, self.preparing, self.prepared, self.hook),
            self.on_disk,
            self.tickets.values().collect::<Vec<_>>(),
            self.gone,
            (self.elsewhere, self.needed, self.given_up, self.unhealthy, self.run_is_due),
        )
    }
}

struct Search {
    worlds: Vec<World>,
    /// For each world, the worlds that the environment alone can make of it.
    onward: Vec<Vec<usize>>,
    edges: usize,
}

fn search(fault: Fault, scope: Scope) -> Result<Search, Broken> {
    let mut index: HashMap<u64, usize> = HashMap::new();
    let mut found = Search { worlds: Vec::new(), onward: Vec::new(), edges: 0 };
    for want in [Want::Down, Want::Up] {
        let world = World::new(fault, scope, want)?;
        index.insert(world.key(), found.worlds.len());
        found.worlds.push(world);
        found.onward.push(Vec::new());
    }
    let mut next = 0;
    while next < found.worlds.len() {
        let world = found.worlds[next].clone();
        let environment = world.environment();
        for step in world.moves() {
            let mut after = world.clone();
            after.apply(&step).map_err(|broken| format!("{broken}: {step:?} in {}", world.fingerprint()))?;
            found.edges += 1;
            let fresh = found.worlds.len();
            let at = *index.entry(after.key()).or_insert(fresh);
            if at == fresh {
                found.worlds.push(after);
                found.onward.push(Vec::new());
            }
            if environment.contains(&step) {
                found.onward[next].push(at);
            }
        }
        next += 1;
    }
    Ok(found)
}

/// Worlds from which the environment alone cannot reach one where nobody waits.
fn unanswerable(found: &Search) -> Option<String> {
    let mut inward = vec![Vec::new(); found.worlds.len()];
    for (from, tos) in found.onward.iter().enumerate() {
        for to in tos {
            inward[*to].push(from);
        }
    }
    // A start that waits for another service is answered when that one moves: the gate is not the environment's.
    let fine = |world: &World| world.tickets.is_empty() || world.gateway.phase() == Phase::Held;
    let mut good: Vec<bool> = found.worlds.iter().map(fine).collect();
    let mut queue: Vec<usize> = (0..good.len()).filter(|at| good[*at]).collect();
    while let Some(at) = queue.pop() {
        for from in &inward[at] {
            if !good[*from] {
                good[*from] = true;
                queue.push(*from);
            }
        }
    }
    let bad = good.iter().position(|good| !good);
    bad.map(|at| format!("nobody answers in {}", found.worlds[at].fingerprint()))
}

fn verdict(fault: Fault, scope: Scope) -> Result<Search, Broken> {
    let found = search(fault, scope)?;
    match unanswerable(&found) {
        Some(bad) => Err(bad.into()),
        None => Ok(found),
    }
}

#[test]
fn every_reachable_state_keeps_the_rules_and_answers_everybody() {
    let phases = |scope: Scope| -> HashSet<String> {
        let found = verdict(Fault::None, scope).unwrap_or_else(|broken| panic!("{scope:?}: {broken}"));
        assert!(found.edges > 10_000, "{scope:?}: {} states, {} edges", found.worlds.len(), found.edges);
        found.worlds.iter().map(World::phase_name).collect()
    };
    // The longest test there is: each search on a processor of its own.
    let seen: HashSet<String> = std::thread::scope(|threads| {
        let scopes = [
            Scope::TwoCallers,
            Scope::OneCallerAndGates,
            Scope::OneCallerAndOthers,
            Scope::ReadyAndFinish,
            Scope::Hooks,
            Scope::Scheduled,
            Scope::Crashes,
        ];
        let searches = scopes.map(|scope| threads.spawn(move || phases(scope)));
        searches.into_iter().flat_map(|search| search.join().unwrap()).collect()
    });
    // The search must have been a search: all phases were reached.
    for name in [
        "Down",
        "Held",
        "Starting",
        "Up",
        "Grace",
        "Hooked",
        "Unsignalled",
        "Killing",
        "Stuck",
        "Draining",
        "Finishing",
        "Backoff",
        "Failed",
        "Finished",
    ] {
        assert!(seen.iter().any(|phase| phase.contains(name)), "{name} was never reached");
    }
}

#[test]
fn the_search_catches_every_seeded_fault() {
    for fault in [
        Fault::KillIsLost,
        Fault::RecordIsLost,
        Fault::AcknowledgedBeforeTheCommit,
        Fault::MainExitTakenForEmptyTree,
        Fault::StopTakenForRestart,
        Fault::ReplyIsLost,
        Fault::SpawnIsRepeated,
        Fault::CleanExitTakenForFailure,
    ] {
        assert!(verdict(fault, Scope::OneCallerAndGates).is_err(), "{fault:?} went unnoticed");
    }
    for fault in [Fault::ElsewhereIsIgnored, Fault::NeedIsForever, Fault::GivingUpIsIgnored] {
        assert!(verdict(fault, Scope::OneCallerAndOthers).is_err(), "{fault:?} went unnoticed");
    }
    assert!(verdict(Fault::PreStartIsIgnored, Scope::Hooks).is_err());
    assert!(verdict(Fault::StartIsDue, Scope::Scheduled).is_err());
    assert!(verdict(Fault::ReadyIsAssumed, Scope::ReadyAndFinish).is_err());
    assert!(verdict(Fault::NobodyIsAdopted, Scope::Crashes).is_err());
}
