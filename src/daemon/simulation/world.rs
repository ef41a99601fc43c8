//! The world of one run: clock, kernel, disk, callers, and an agenda of what happens next. Time goes from one happening or deadline
//! to the next; after each of them the supervisor takes its turn.

use super::callers::Caller;
use super::dice::Dice;
use super::planted::{self, Bug};
use super::rules::{Heir, Ledger};
use super::services::{Spec, fleet, give_away};
use super::story::Story;
use crate::containment::IncarnationId;
use crate::containment::played::Kernel;
use crate::core::clock::Tick;
use crate::core::fleet::ParallelStarts;
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::daemon::boot::played::{Running, Stage};
use crate::daemon::clock::wall_seconds;
use crate::daemon::inbox::Input;
use crate::daemon::sources::{Room, read_token};
use crate::daemon::topics::topology::About;
use crate::daemon::upgrade::handover::Handover;
use crate::daemon::{Over, Supervisor};
use crate::store::played::{Disk, Mood};
use crate::sys::reap::played as children;
use crate::sys::signal::Received;
use crate::sys::time::played::Clock;
use mio::Events;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Where the clock of every run begins: a Monday noon.
const BEGINNING: u64 = 1_700_481_600_000;
/// Turns that a supervisor may take at one moment: more is a loop.
const MOST_TURNS: u32 = 2_000;

/// What is to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    Exec(IncarnationId, bool),
    Ready(IncarnationId),
    Line(IncarnationId, &'static str),
    /// The root gateway says which profiles it serves.
    Serves(IncarnationId, Vec<String>),
    /// With this status of wait(2), leaving so many others.
    Ends(IncarnationId, i32, usize),
    Forks(IncarnationId, usize),
    OtherEnds(IncarnationId),
    HookEnds(IncarnationId, i32, i32),
    /// A process that has a number ends.
    MemberEnds(IncarnationId, i32),
    ScopeForks(IncarnationId, ScopeName),
    /// A kill has reached all of it.
    ScopeDies(IncarnationId, ScopeName),
    Dies(IncarnationId),
    Frozen(IncarnationId, bool),
    OutOfMemory(IncarnationId, bool),
    /// The disk has done what it was asked.
    Disk,
    DiskIs(Mood),
    /// It hangs until then.
    DiskHangs(u64),
    FilesHang(u64),
    ProcessesRefused(bool),
    WallSet(i64),
    /// Somebody reads, asks or goes.
    Reads(usize),
    HangsUp(usize),
    /// The next of the random loads.
    Load,
    /// The next process that does something about scopes.
    Scopes,
    /// The next user who asks for something.
    Owners,
    /// The next who asks for something about a named profile.
    Profiles,
    /// The root gateway answers on its socket.
    RootAnswers(usize),
    KillSupervisor,
    CutPower,
    Start,
    Signal(Signal),
    /// Stands still until then.
    Pause(u64),
}

impl Happening {
    /// Whose processes it happens to.
    fn life(&self) -> Option<&IncarnationId> {
        match self {
            Self::Exec(id, _)
            | Self::Ready(id)
            | Self::Line(id, _)
            | Self::Serves(id, _)
            | Self::Ends(id, ..)
            | Self::Forks(id, _)
            | Self::OtherEnds(id)
            | Self::HookEnds(id, ..)
            | Self::MemberEnds(id, _)
            | Self::ScopeForks(id, _)
            | Self::ScopeDies(id, _)
            | Self::Dies(id)
            | Self::Frozen(id, _)
            | Self::OutOfMemory(id, _) => Some(id),
            Self::Disk
            | Self::DiskIs(_)
            | Self::DiskHangs(_)
            | Self::FilesHang(_)
            | Self::ProcessesRefused(_)
            | Self::WallSet(_)
            | Self::Reads(_)
            | Self::HangsUp(_)
            | Self::Load
            | Self::Scopes
            | Self::Owners
            | Self::RootAnswers(_)
            | Self::Profiles
            | Self::KillSupervisor
            | Self::CutPower
            | Self::Start
            | Self::Signal(_)
            | Self::Pause(_) => None,
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub runs: u64,
    pub steps: u64,
    pub faults: u64,
    pub lives: u64,
    pub answers: u64,
    pub recoveries: u64,
    pub millis: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.faults += other.faults;
        self.lives += other.lives;
        self.answers += other.answers;
        self.recoveries += other.recoveries;
        self.millis += other.millis;
    }
}

pub struct World {
    pub dice: Dice,
    pub scope_dice: Dice,
    pub owner_dice: Dice,
    pub root_dice: Dice,
    pub count_dice: Dice,
    /// A definition of instances was given another number of them.
    pub recounted: bool,
    /// The root gateway has a control socket.
    pub root_answers: bool,
    /// What the supervisor asks the root gateway, until it is answered.
    pub conversations: Vec<Option<(u32, About)>>,
    pub story: Story,
    pub specs: BTreeMap<String, Spec>,
    pub stage: Stage,
    pub kernel: Kernel,
    pub running: Option<Running>,
    pub callers: Vec<Caller>,
    /// Of those, processes of services that wait for an answer.
    pub insiders: Vec<usize>,
    pub ledger: Ledger,
    pub figures: Figures,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// Nothing new is asked for.
    pub quiet: bool,
    /// It has ended, with this code.
    pub ended: Option<u8>,
    pub signalled: BTreeSet<IncarnationId>,
    pub registered: u64,
    agenda: BTreeMap<(u64, u64), Happening>,
    number: u64,
    now: u64,
    /// When the supervisor that runs was started, on its own clock and on this one.
    began: (Tick, u64),
    disk_at: Option<u64>,
    disk_hangs_until: u64,
    files_hang_until: u64,
    paused_until: u64,
    clock: Clock,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut dice = Dice::new(seed);
        let clock = Clock::start(BEGINNING);
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory in memory");
        let (story, kernel) = (Story::default(), Kernel::boot());
        let path = dir.path().to_owned();
        story.begin_in(&path);
        // With dice of its own: what else a seed says is not moved by it.
        let mut turns = Dice::new(!seed);
        let parallel_starts = match turns.between(0, 4) {
            // A planted bug is looked for in few runs, of which none is to be slower.
            _ if bug.is_some() => ParallelStarts::Any,
            0 | 1 => ParallelStarts::Any,
            2 => ParallelStarts::AtMost(1),
            3 => ParallelStarts::AtMost(2),
            _ => ParallelStarts::Auto,
        };
        story.tell(&format!("starts at a time: {parallel_starts:?}"));
        let (kernel_of_stage, log) = (kernel.clone(), story.log());
        let stage = Stage { dir: path, kernel: kernel_of_stage, disk: Disk::default(), log, parallel_starts };
        for made in [stage.home(), stage.services()] {
            std::fs::create_dir_all(made).expect("a directory");
        }
        planted::plant(bug);
        kernel.leave_remains(bug == Some(Bug::RemainsAreLeft));
        let mut specs = fleet(&mut dice);
        let mut owner_dice = Dice::new(seed.rotate_left(16) ^ !seed);
        give_away(&mut specs, &mut owner_dice);
        let specs: BTreeMap<String, Spec> =
            specs.into_iter().map(|spec| (spec.name.to_string(), spec)).collect();
        let mut root_dice = Dice::new(seed.rotate_left(8) ^ !seed);
        let mut scope_dice = Dice::new(seed.rotate_left(32) ^ !seed);
        let has_scopes = scope_dice.chance(60);
        let mut world = Self {
            dice,
            scope_dice,
            owner_dice,
            root_answers: root_dice.chance(75),
            root_dice,
            count_dice: Dice::new(seed.rotate_left(48) ^ !seed),
            recounted: false,
            conversations: Vec::new(),
            story,
            specs,
            stage,
            kernel,
            running: None,
            callers: Vec::new(),
            insiders: Vec::new(),
            ledger: Ledger::default(),
            figures: Figures { runs: 1, ..Figures::default() },
            calm: false,
            quiet: false,
            ended: None,
            signalled: BTreeSet::new(),
            registered: 0,
            agenda: BTreeMap::new(),
            number: 0,
            now: 0,
            began: (Tick(0), 0),
            disk_at: None,
            disk_hangs_until: 0,
            files_hang_until: 0,
            paused_until: 0,
            clock,
            _dir: dir,
        };
        world.define();
        for spec in world.specs.values() {
            world.story.tell(&spec.words());
        }
        world.later(0, Happening::Start);
        world.later(100, Happening::Load);
        if has_scopes {
            world.later(100, Happening::Scopes);
        }
        if world.specs.values().any(Spec::is_root_gateway) {
            world.later(5000, Happening::Profiles);
        }
        if world.specs.values().any(|spec| spec.user.is_some()) {
            world.later(100, Happening::Owners);
        }
        world
    }

    /// Writes the definitions, and makes the profiles.
    pub fn define(&self) {
        for spec in self.specs.values() {
            let path = self.stage.services().join(format!("{}.toml", spec.file()));
            std::fs::write(path, spec.toml()).expect("a definition");
            if spec.is_named_gateway() {
                let profile = self.stage.home().join("profiles").join(spec.name.as_str());
                std::fs::create_dir_all(&profile).expect("a profile");
                std::fs::write(profile.join("SOUL.md"), "").expect("a profile");
            }
        }
    }

    /// The disk under home answers.
    pub fn reads_files(&self) -> bool {
        self.files_hang_until <= self.now
    }

    /// When the disk answers again, or has.
    pub fn disk_hangs_until(&self) -> u64 {
        self.disk_hangs_until
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn later(&mut self, delay: u64, what: Happening) {
        self.number += 1;
        self.agenda.insert((self.now + delay, self.number), what);
    }

    pub fn supervisor(&self) -> Option<&Supervisor> {
        self.running.as_ref().map(|running| &*running.supervisor)
    }

    /// Whatever was still to go wrong does not.
    pub fn becalm(&mut self) {
        self.calm = true;
        self.story.tell("from now on nothing goes wrong");
        self.agenda.retain(|_, what| {
            !matches!(
                what,
                Happening::KillSupervisor
                    | Happening::CutPower
                    | Happening::DiskIs(_)
                    | Happening::DiskHangs(_)
                    | Happening::FilesHang(_)
                    | Happening::ProcessesRefused(_)
                    | Happening::OutOfMemory(..)
                    | Happening::Pause(_)
                    | Happening::HangsUp(_)
            )
        });
        self.stage.disk.set_mood(Mood::Works);
        self.kernel.refuse_processes(false);
        (self.disk_hangs_until, self.files_hang_until, self.paused_until) = (0, 0, 0);
        self.disk_at = None;
        // What is up goes on as it is; of what was to end by itself nothing is left but what was told to.
        let signalled = &self.signalled;
        self.agenda.retain(|_, what| match what {
            Happening::Ends(id, ..) => signalled.contains(id),
            _ => true,
        });
        for id in self.kernel.living() {
            self.befriend(&id);
        }
        if self.running.is_none() && self.ended.is_none() {
            self.later(0, Happening::Start);
        }
    }

    // ---- time ----

    /// One step: the next thing happens, and the supervisor deals with it. `false`: nothing is left to happen before `end`.
    pub fn step(&mut self, end: u64) -> Result<bool, String> {
        let Some(next) = self.next_time().filter(|next| *next <= end) else {
            self.pass_to(end);
            return Ok(false);
        };
        self.pass_to(next);
        self.figures.steps += 1;
        let due = self.agenda.first_key_value().filter(|((at, _), _)| *at <= self.now).map(|(key, _)| *key);
        if let Some(what) = due.and_then(|key| self.agenda.remove(&key)) {
            self.happen(what)?;
        }
        super::scopes::hang_up_with_the_dead(self);
        if self.paused_until <= self.now {
            self.turn()?;
        }
        super::rules::check(self)?;
        Ok(true)
    }

    fn pass_to(&mut self, time: u64) {
        self.now = time.max(self.now);
        self.clock.advance_to(self.now);
        self.story.at(self.now);
    }

    fn next_time(&mut self) -> Option<u64> {
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let armed = self.armed().map(|at| at.max(self.paused_until));
        [agenda, armed].into_iter().flatten().min()
    }

    /// When the supervisor wants to be woken, or one of its threads would wake.
    fn armed(&mut self) -> Option<u64> {
        let (tick, began) = self.began;
        let running = self.running.as_ref()?;
        let wakeups = &running.supervisor.wakeups;
        let timer = wakeups.timer.armed().map(|at| began + at.0.saturating_sub(tick.0));
        let wall = wakeups.wall_timer.armed().map(|at| {
            let wait = u64::try_from(at - wall_seconds()).unwrap_or_default();
            self.now + wait * 1000
        });
        let pump = running.hands.logs.due().map(|at| self.clock.of(at));
        let next = [timer, wall, pump].into_iter().flatten().min()?;
        // What is due already and was not dealt with is due at the next moment.
        Some(next.max(self.now + u64::from(next <= self.now)))
    }

    // ---- what happens ----

    fn happen(&mut self, what: Happening) -> Result<(), String> {
        if !self.happens_to_a_tree(&what) {
            match what {
                Happening::Disk => self.disk_turn(),
                Happening::DiskIs(mood) => {
                    self.story.tell(&format!("the disk: {mood:?}"));
                    self.stage.disk.set_mood(mood);
                }
                Happening::DiskHangs(until) => {
                    self.story.tell(&format!("the disk hangs for {} ms", until - self.now));
                    self.disk_hangs_until = until;
                }
                Happening::FilesHang(until) => {
                    self.story.tell(&format!("the disk under home hangs for {} ms", until - self.now));
                    self.files_hang_until = until;
                    self.later(until - self.now, Happening::Reads(usize::MAX));
                }
                Happening::ProcessesRefused(refused) => {
                    self.story.tell(if refused {
                        "no more processes can be made"
                    } else {
                        "there is room for processes"
                    });
                    self.kernel.refuse_processes(refused);
                }
                Happening::WallSet(by) => self.set_wall(by),
                Happening::HangsUp(caller) => self.callers[caller].hang_up(),
                Happening::Load => super::loads::load(self),
                Happening::Scopes => super::scopes::load(self),
                Happening::Profiles => super::conversations::load(self),
                Happening::RootAnswers(number) => super::conversations::answer(self, number),
                Happening::Owners => super::loads::load_of_owners(self),
                Happening::KillSupervisor => self.kill_supervisor(),
                Happening::CutPower => self.cut_power()?,
                Happening::Start => self.start(None, &[])?,
                Happening::Signal(signal) => self.signal(signal),
                Happening::Pause(until) => {
                    self.story.tell(&format!("the supervisor is stopped for {} ms", until - self.now));
                    self.paused_until = until;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn set_wall(&mut self, by: i64) {
        self.story.tell(&format!("the wall clock is set by {} s", by / 1000));
        self.clock.set_wall(by);
        if let Some(running) = &mut self.running
            && running.supervisor.wakeups.wall_timer.armed().is_some()
        {
            running.supervisor.inbox.push(Input::ClockSet);
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.story.tell(&format!("{signal} to the supervisor"));
        self.ledger.shutting_down |= signal == Signal::TERM;
        if let Some(running) = &mut self.running {
            running.supervisor.inbox.push(Input::Signal(Received { signal, pid: 0, uid: 0 }));
        }
    }

    // ---- the supervisor's life ----

    fn start(&mut self, former: Option<Handover>, keep: &[OwnedFd]) -> Result<(), String> {
        if self.running.is_some() {
            return Ok(());
        }
        self.story.tell("a supervisor starts");
        let _kept_until_it_runs = keep;
        super::rules::inherit(self);
        let is_itself = former.is_some();
        let running =
            self.stage.start(former).map_err(|error| format!("the supervisor does not start: {error}"))?;
        // A life that it did not take over is over, and its number may be another one's.
        let kernel = self.kernel.clone();
        self.agenda.retain(|_, what| what.life().is_none_or(|id| kernel.tree(id).is_some()));
        self.signalled.retain(|id| kernel.tree(id).is_some());
        self.ledger.ready.retain(|id| kernel.tree(id).is_some());
        self.began = (running.supervisor.clock.started(), self.now);
        self.running = Some(running);
        self.disk_at = None;
        super::rules::begins(self);
        if !is_itself {
            super::rules::nothing_is_left(self)?;
        }
        super::rules::recovered(self)
    }

    pub fn kill_supervisor(&mut self) {
        super::rules::bequeath(self, Heir::Successor);
        let Some(running) = self.running.take() else { return };
        self.figures.faults += 1;
        self.figures.recoveries += 1;
        self.story.tell("the supervisor is killed");
        running.kill();
        self.kernel.lose_supervisor();
        self.supervisor_is_gone();
        let delay = self.dice.delay(50, 3000);
        self.later(delay, Happening::Start);
    }

    fn cut_power(&mut self) -> Result<(), String> {
        self.figures.faults += 1;
        self.figures.recoveries += 1;
        self.story.tell("the power is cut");
        super::rules::bequeath(self, Heir::Successor);
        if let Some(running) = self.running.take() {
            running.kill();
        }
        self.kernel.cut_power();
        let dice = &mut self.dice;
        // The order in which the engine writes is its own affair: what survives of a write hangs on where it was.
        let salt = dice.between(0, u64::MAX - 1);
        let survives = |offset: u64, length: usize| {
            let mut dice = Dice::new(salt ^ offset);
            match dice.between(0, 2) {
                0 => 0,
                1 => dice.index(length / 512 + 1) * 512,
                _ => length,
            }
        };
        let database = self.stage.database();
        self.stage
            .disk
            .cut(&database, survives)
            .map_err(|error| format!("{}: {error}", database.display()))?;
        let _ = std::fs::remove_dir_all(self.stage.runtime_dir());
        self.supervisor_is_gone();
        let delay = self.dice.between(1000, 60_000);
        self.later(delay, Happening::Start);
        Ok(())
    }

    fn supervisor_is_gone(&mut self) {
        super::conversations::are_over(self);
        self.disk_at = None;
        self.paused_until = 0;
        for caller in &mut self.callers {
            caller.hang_up();
        }
        self.ledger.lost_supervisor();
    }

    // ---- its turns ----

    /// The supervisor deals with all that there is at this moment.
    fn turn(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        for _ in 0..MOST_TURNS {
            let Some(running) = &mut self.running else { return Ok(()) };
            running.hands.logs.pump();
            if self.files_hang_until <= self.now {
                running.hands.logs.write();
                running.hands.logs.pump();
            }
            let supervisor = &mut running.supervisor;
            let _ = running.poll.poll(&mut events, Some(Duration::ZERO));
            supervisor.give_back_lost_time();
            let mut heard = false;
            for event in &events {
                // The timers of this machine's kernel mean nothing here.
                let timers = [Room::Timer, Room::WallClock, Room::Signals];
                if read_token(event.token()).is_some_and(|(room, ..)| !timers.contains(&room)) {
                    supervisor.wake(event);
                    heard = true;
                }
            }
            if let Some(pid) = children::first_dead() {
                heard = true;
                let pid = pid.unsigned_abs();
                supervisor.inbox.push(Input::Signal(Received { signal: Signal::CHLD, pid, uid: 0 }));
            }
            if self.kernel.has_news() {
                heard = true;
                supervisor.containment.ready(0, 0, supervisor.clock.now());
            }
            let turned = supervisor.turn();
            self.deeds();
            super::conversations::plan(self);
            for caller in &mut self.callers {
                caller.read(self.now);
            }
            self.plan_disk();
            match turned {
                ControlFlow::Continue(hurries) if hurries || heard => {}
                ControlFlow::Continue(_) => {
                    super::rules::rested(self);
                    super::rules::ends_are_told(self);
                    return Ok(());
                }
                ControlFlow::Break(over) => return self.over(over),
            }
        }
        Err("the supervisor does not come to rest".to_owned())
    }

    fn over(&mut self, over: Over) -> Result<(), String> {
        if matches!(over, Over::Replaced(_)) {
            super::rules::bequeath(self, Heir::Upgrade);
        }
        let Some(running) = self.running.take() else { return Ok(()) };
        match over {
            Over::Ended(code) => {
                self.story.did(&format!("ends with {code}"));
                let closed = running.say_goodbye();
                self.ended = Some(code);
                if self.calm
                    && let Err(why) = closed
                {
                    return Err(format!("not everything was written at the end: {why}"));
                }
                for caller in &mut self.callers {
                    caller.read(self.now);
                }
                Ok(())
            }
            Over::Replaced(_) => {
                self.story.did("becomes another program");
                super::conversations::are_over(self);
                let (handover, keep) = running.hand_over();
                self.kernel.hand_over();
                let text = serde_json::to_string(&handover).map_err(|error| error.to_string())?;
                let handover = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                self.disk_at = None;
                // They are the next one's, by their numbers.
                let keep = std::mem::ManuallyDrop::new(keep);
                self.start(Some(handover), &keep)?;
                self.later(0, Happening::Reads(usize::MAX));
                Ok(())
            }
            Over::GivenUp => Err("the supervisor gave the state up, which nobody claims".to_owned()),
        }
    }

    fn plan_disk(&mut self) {
        let Some(running) = &self.running else { return };
        let Some(due) = running.hands.store.due() else { return };
        let due = self.clock.of(due).max(self.now).max(self.disk_hangs_until);
        if self.disk_at.is_none_or(|at| at > due + 5) {
            let latency = if self.calm { 1 } else { self.dice.delay(3, 40) };
            self.disk_at = Some(due + latency);
            self.later(due + latency - self.now, Happening::Disk);
        }
    }

    fn disk_turn(&mut self) {
        if self.disk_at.is_some_and(|at| at <= self.now) {
            self.disk_at = None;
        }
        if self.disk_hangs_until > self.now {
            return;
        }
        if let Some(running) = &mut self.running {
            running.hands.store.turn();
        }
        super::rules::committed(self);
    }
}
