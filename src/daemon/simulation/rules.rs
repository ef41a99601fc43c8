//! What must be so, whatever happens. Safety at each step, with the books of the world alone: what the kernel had, what was on the
//! disk, what callers asked and heard. Liveness at the end, when nothing goes wrong any more.

use super::callers::{Caller, Heard};
use super::services::{Kind, Reports, Spec, meaning};
use super::world::World;
use crate::containment::IncarnationId;
use crate::containment::played::Deed;
use crate::control::protocol::{Answer, Outcome, Request, Right};
use crate::core::gateway::Phase;
use crate::core::model::rules::{Broken, Rule};
use crate::core::name::ServiceName;
use crate::core::words::{State, Want};
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::topology::ROOT_PATIENCE;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// A want that somebody was told to be on the disk.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    want: Option<Want>,
}

/// What was seen of a service since a caller asked.
#[derive(Debug, Clone, Default)]
struct Seen {
    up: bool,
    empty: bool,
    wants: BTreeSet<Option<bool>>,
}

/// What the root gateway says of the profiles that it serves.
#[derive(Debug)]
struct Word {
    life: IncarnationId,
    served: BTreeSet<String>,
    /// The supervisor has had the time to read it.
    is_read: bool,
}

/// The root gateway, as far as others wait for it, when the supervisor was at rest last.
#[derive(Debug, Default)]
struct Root {
    /// It is on its way, or has not spoken yet.
    is_awaited: bool,
    /// Since when it may be waited for.
    since: u64,
    /// What was being started then.
    starting: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Heirloom {
    lives: Vec<IncarnationId>,
    failed: Vec<ServiceName>,
}

/// The books of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of each service, what the disk held when it was looked at last, and when it came to hold it.
    on_disk: BTreeMap<String, (Option<Want>, u64)>,
    /// What callers were told, until somebody asks for something else.
    acknowledged: BTreeMap<String, Acknowledged>,
    /// Which caller has asked last for a change of its want.
    asked: BTreeMap<String, usize>,
    /// Until when a start of it may come of a command.
    seen: BTreeMap<(usize, String), Seen>,
    judged: BTreeMap<usize, usize>,
    programs: BTreeMap<IncarnationId, String>,
    /// Oneshots that have succeeded since the last boot.
    succeeded: BTreeSet<ServiceName>,
    /// When a tree of it was last seen up.
    up_at: BTreeMap<ServiceName, u64>,
    /// Lives that have said that they are ready.
    pub ready: BTreeSet<IncarnationId>,
    /// What the next supervisor has to find as it was: lives that go on, and services that have failed.
    heirloom: Heirloom,
    /// The disk refused something since the supervisor began: what it wants may be in its memory alone.
    troubled: bool,
    pub shutting_down: bool,
    /// Their definitions were changed, which ends a failure.
    pub redefined: BTreeSet<ServiceName>,
    /// When the supervisor had heard of everything last.
    pub heard_all: u64,
    /// Who has asked last for limits that last, and what they were told.
    limits_asked: BTreeMap<String, usize>,
    limits: BTreeMap<String, u64>,
    /// What lives were ever given.
    limits_given: BTreeMap<ServiceName, BTreeSet<u64>>,
    word: Option<Word>,
    root: Root,
    broken: Vec<String>,
}

fn word(want: Option<Want>) -> &'static str {
    match want {
        Some(Want::Up) => "up",
        Some(Want::Down) => "down",
        None => "nothing",
    }
}

fn is_up(want: Option<Want>) -> Option<bool> {
    want.map(|want| want == Want::Up)
}

/// The want that a request asks for; `None`: it leaves it as it is.
fn asked_want(request: &Request) -> Option<Option<Want>> {
    match request {
        Request::Start { .. } | Request::Restart { .. } => Some(Some(Want::Up)),
        Request::Stop { .. } => Some(Some(Want::Down)),
        Request::Unregister { .. } => Some(None),
        Request::Register(registration) => Some(Some(if registration.down { Want::Down } else { Want::Up })),
        _ => None,
    }
}

/// It may make a service run.
fn starts(request: &Request) -> bool {
    matches!(
        request,
        Request::Start { .. } | Request::Restart { .. } | Request::Once { .. } | Request::Register(_)
    )
}

impl Ledger {
    /// What the disk holds of the want of a service, when it was looked at last.
    pub fn on_disk(&self, name: &str) -> Option<Want> {
        self.on_disk.get(name)?.0
    }

    pub fn program(&self, id: &IncarnationId) -> Option<&str> {
        self.programs.get(id).map(String::as_str)
    }

    /// The root gateway has written which profiles it serves.
    pub fn spoken(&mut self, life: &IncarnationId, served: &[String]) {
        let served = served.iter().cloned().collect();
        self.word = Some(Word { life: life.clone(), served, is_read: false });
    }

    pub fn has_spoken(&self, life: &IncarnationId) -> bool {
        self.word.as_ref().is_some_and(|word| word.life == *life)
    }

    pub fn asked(&mut self, caller: &Caller) {
        if caller.is_stranger {
            return;
        }
        let all = caller.names().is_none() && caller.request.targets().is_some();
        let mut names: Vec<String> = caller.names().unwrap_or_default().to_vec();
        if let Request::Register(registration) = &caller.request {
            names.push(registration.name.clone());
        }
        if all {
            names.extend(self.on_disk.keys().cloned());
        }
        if persisted_limit(&caller.request).is_some() || asked_want(&caller.request) == Some(None) {
            for name in &names {
                self.limits_asked.insert(name.clone(), caller.number);
                self.limits.remove(name);
            }
        }
        if asked_want(&caller.request).is_some() {
            for name in names {
                self.asked.insert(name.clone(), caller.number);
                // Until it is answered, and for good if it never is, the disk may hold the one or the other.
                self.acknowledged.remove(&name);
            }
        }
    }

    /// Who has not been answered may have been heard.
    pub fn lost_supervisor(&mut self) {
        self.troubled = false;
        self.seen.clear();
        self.programs.clear();
    }

    fn broken(&mut self, what: impl Display) {
        self.broken.push(what.to_string());
    }
}

/// The limit that a request asks for; with it, whether it is to last.
fn asked_limit(request: &Request) -> Option<(u64, bool)> {
    let Request::Set { limits, persist, .. } = request else { return None };
    Some((limits.get("pids_max")?.parse().ok()?, *persist))
}

fn persisted_limit(request: &Request) -> Option<u64> {
    asked_limit(request).filter(|(_, persist)| *persist).map(|(most, _)| most)
}

/// The supervisor has done something.
pub fn did(world: &mut World, deed: &Deed) {
    match deed {
        Deed::Made { id, program, pids_max, .. } => {
            world.ledger.programs.insert(id.clone(), program.clone());
            let meant = meaning(program);
            if meant.is_none_or(|(name, _)| name != id.name.as_str()) {
                world.ledger.broken(format!("{} was made to run {program}", id.name));
            }
            if meant.is_some_and(|(_, hook)| hook.is_none()) {
                world.ledger.succeeded.remove(&id.name);
                starts_rightly(world, id);
                starts_within_limits(world, id, *pids_max);
                waits_for_the_root(world, id);
            }
        }
        Deed::Limited { id, pids_max } => {
            world.ledger.limits_given.entry(id.name.clone()).or_default().extend(pids_max);
        }
        Deed::Killed(id) => {
            let tree = world.kernel.tree(id).map(|tree| (tree.is_up(), tree.oom_kills()));
            let unasked = matches!(tree, Some((true, 0))) && !world.signalled.contains(id);
            let program = world
                .ledger
                .programs
                .get(id)
                .is_some_and(|program| meaning(program).is_some_and(|(_, hook)| hook.is_none()));
            if unasked && program && !world.ledger.shutting_down {
                world.ledger.broken(Broken::from(Rule::KilledUnasked).about(&id.name));
            }
        }
        Deed::Released { id, empty: false } => {
            let forced = world.callers.iter().any(|caller| {
                matches!(caller.request, Request::Start { force: true, .. })
                    && caller.is_about(id.name.as_str())
            });
            if !forced {
                world
                    .ledger
                    .broken(format!("life {} of {} was let go of with processes in it", id.n, id.name));
            }
        }
        Deed::Released { .. }
        | Deed::Signalled { .. }
        | Deed::Froze { .. }
        | Deed::Hook { .. }
        | Deed::HookEnded(_)
        | Deed::Adopted(_) => {}
    }
}

/// A service is started: it is wanted, and what it requires is there.
fn starts_rightly(world: &mut World, id: &IncarnationId) {
    let name = id.name.as_str();
    if world.ledger.shutting_down {
        world.ledger.broken(Broken::from(Rule::StartedInShutdown).about(name));
    }
    let (want, since) = world.ledger.on_disk.get(name).copied().unwrap_or_default();
    // It may have come to the disk long after it was asked for.
    let last = world.ledger.asked.get(name).and_then(|last| world.callers.get(*last));
    let since = last.map_or(since, |caller| caller.asked.min(since));
    let asked = world.callers.iter().filter(|caller| !caller.is_stranger).any(|caller| {
        let is_new = caller.asked >= since || caller.waits();
        starts(&caller.request) && caller.is_about(name) && is_new && !caller.was_refused(name)
    });
    if want == Some(Want::Down) && !asked && !world.ledger.troubled {
        world.ledger.broken(format!("{name} was started although it is wanted down"));
    }
    let requires = world.specs.get(name).map(|spec| spec.requires.clone()).unwrap_or_default();
    for required in requires {
        let is_there = match world.specs.get(required.as_str()).map(|spec| spec.kind) {
            Some(Kind::Daemon) => {
                let says = world.specs.get(required.as_str()).map(|spec| spec.reports);
                let waits = matches!(says, Some(Reports::Pipe | Reports::Line));
                let is_there = |id: &IncarnationId| {
                    let up = world.kernel.tree(id).is_some_and(|tree| tree.is_up());
                    id.name == required && up && (!waits || world.ledger.ready.contains(id))
                };
                // That it has ended since may not be heard yet.
                let heard = world.ledger.heard_all;
                let was_there = world.ledger.up_at.get(&required).is_some_and(|at| *at >= heard);
                let finished = world.ledger.succeeded.contains(&required);
                finished || was_there || world.kernel.living().iter().any(is_there)
            }
            Some(Kind::Oneshot | Kind::Scheduled) => world.ledger.succeeded.contains(&required),
            None => false,
        };
        if !is_there {
            world
                .ledger
                .broken(Broken::from(Rule::BeforeRequirement).about(format_args!("{required}, {name}")));
        }
    }
}

/// What somebody was told to last holds from then on.
fn starts_within_limits(world: &mut World, id: &IncarnationId, pids_max: Option<u64>) {
    let set = world.ledger.limits.get(id.name.as_str()).copied();
    if set.is_some() && set != pids_max {
        let (name, set) = (&id.name, set.unwrap_or_default());
        world.ledger.broken(format!("{name} was started with pids_max {pids_max:?}, and {set} was set"));
    }
}

/// The word of the root gateway, if it runs.
fn root_word(world: &World) -> Option<&Word> {
    let word = world.ledger.word.as_ref()?;
    world.kernel.tree(&word.life).is_some_and(|tree| tree.is_up()).then_some(word)
}

/// The gateway of a named profile is started: the root gateway does not serve it, and is not to be heard first.
fn waits_for_the_root(world: &mut World, id: &IncarnationId) {
    let name = id.name.as_str();
    if !world.specs.get(name).is_some_and(Spec::is_named_gateway) {
        return;
    }
    let word = root_word(world);
    if word.is_some_and(|word| word.is_read && word.served.contains(name)) {
        return world.ledger.broken(format!("{name} was started although '{DEFAULT_PROFILE}' serves it"));
    }
    let has_spoken = word.is_some();
    let Root { is_awaited, since, starting } = &world.ledger.root;
    let is_early = world.now() < since + millis(ROOT_PATIENCE);
    if *is_awaited && is_early && !has_spoken && !starting.contains(name) && awaits_root(world) {
        world.ledger.broken(format!("{name} was started before '{DEFAULT_PROFILE}' had spoken"));
    }
}

/// The root gateway is on its way, for all that the supervisor knows.
fn awaits_root(world: &World) -> bool {
    let Some(supervisor) = world.supervisor() else { return false };
    let root = supervisor.fleet.id(DEFAULT_PROFILE).and_then(|id| supervisor.fleet.gateway(id));
    root.is_some_and(|root| match root.phase() {
        Phase::Held => !root.is_refused(),
        Phase::Starting | Phase::Backoff { .. } | Phase::Up => true,
        Phase::Ending(_) | Phase::Down | Phase::Failed | Phase::Finished => false,
    })
}

/// The supervisor begins: of the root gateway it knows what it has found.
pub fn begins(world: &mut World) {
    world.ledger.word.iter_mut().for_each(|word| word.is_read = false);
    world.ledger.root.is_awaited = awaits_root(world);
    world.ledger.root.starting.clear();
}

/// The supervisor has dealt with all that there was.
pub fn rested(world: &mut World) {
    let now = world.now();
    world.ledger.heard_all = now;
    if world.reads_files() {
        world.ledger.word.iter_mut().for_each(|word| word.is_read = true);
    }
    let is_awaited = awaits_root(world) && root_word(world).is_none();
    let mut starting = BTreeSet::new();
    if let Some(fleet) = world.supervisor().map(|supervisor| &supervisor.fleet) {
        let starts = |id| fleet.gateway(id).is_some_and(|gateway| gateway.phase() == Phase::Starting);
        let ids = fleet.ids().filter(|id| starts(*id));
        starting.extend(ids.filter_map(|id| Some(fleet.name(id)?.to_string())));
    }
    let since = if is_awaited { world.ledger.root.since } else { now };
    world.ledger.root = Root { is_awaited, since, starting };
}

/// A main process has ended.
pub fn ended(world: &mut World, id: &IncarnationId, status: i32) {
    let is_service = world.ledger.program(id).and_then(meaning).is_some_and(|(_, hook)| hook.is_none());
    if is_service && status == 0 {
        world.ledger.succeeded.insert(id.name.clone());
    }
    let now = world.now();
    world.ledger.up_at.insert(id.name.clone(), now);
}

/// The disk may hold something else now.
pub fn committed(world: &mut World) {
    let Some(running) = &world.running else { return };
    let now = world.now();
    let mut names: BTreeSet<String> = world.specs.keys().cloned().collect();
    names.extend((0..world.registered).map(|n| format!("r{n}")));
    world.ledger.troubled |= running.hands.store.is_troubled();
    for name in names {
        let Ok(known) = ServiceName::new(&name) else { continue };
        let want = running.hands.store.want(&known);
        let held = world.ledger.on_disk.entry(name.clone()).or_insert((want, now));
        if held.0 != want {
            // What the definition says comes to the disk some time after it is in force.
            let since = if held.0.is_none() { held.1 } else { now };
            *held = (want, since);
        }
        for ((_, of), seen) in &mut world.ledger.seen {
            if *of == name {
                seen.wants.insert(is_up(want));
            }
        }
    }
}

/// Who comes after a supervisor: another one, or itself as another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    Successor,
    Upgrade,
}

/// The supervisor is about to be killed or replaced, while its processes go on. What was so for a while is so for the next one.
pub fn bequeath(world: &mut World, heir: Heir) {
    let Some(supervisor) = world.supervisor() else { return };
    let now = supervisor.clock.now();
    let is_late = world.now() < world.disk_hangs_until() + millis(AT_ONCE);
    let mut heirloom = Heirloom::default();
    for (id, gateway) in supervisor.fleet.ids().filter_map(|id| Some((id, supervisor.fleet.gateway(id)?))) {
        let Some(name) = supervisor.fleet.name(id) else { continue };
        let lasted = now.since(gateway.since()) > A_WHILE && !world.ledger.troubled;
        let is_written = now.since(gateway.since()) > AT_ONCE && !world.ledger.troubled;
        let wanted = world.ledger.on_disk.get(name.as_str()).is_some_and(|(want, _)| *want == Some(Want::Up));
        match gateway.state() {
            // Over a pipe it could not report any more; an upgrade waits for that.
            State::Up | State::Ready if lasted && wanted && gateway.want() == Want::Up => {
                let life = IncarnationId { name: name.clone(), n: gateway.history().incarnation };
                let by_pipe =
                    world.specs.get(name.as_str()).is_some_and(|spec| spec.reports == Reports::Pipe);
                if !by_pipe || gateway.state() == State::Ready || heir == Heir::Upgrade {
                    heirloom.lives.push(life);
                }
            }
            State::Failed if is_written && !is_late && !world.ledger.redefined.contains(name) => {
                heirloom.failed.push(name.clone())
            }
            _ => {}
        }
    }
    world.ledger.heirloom = heirloom;
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// So long ago that a failure is on the disk, unless that hung.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(2);
/// So long ago that all of it is on the disk.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(5);

/// A supervisor is about to start: of what goes on, what has ended meanwhile is no heirloom.
pub fn inherit(world: &mut World) {
    let kernel = world.kernel.clone();
    world.ledger.heirloom.lives.retain(|id| kernel.tree(id).is_some_and(|tree| tree.is_up()));
}

fn inherited(world: &mut World) -> Result<(), String> {
    let heirloom = std::mem::take(&mut world.ledger.heirloom);
    for life in &heirloom.lives {
        if world.kernel.tree(life).is_none() {
            return Err(format!(
                "life {} of {}, which was up and wanted, was not taken over",
                life.n, life.name
            ));
        }
    }
    let Some(supervisor) = world.supervisor() else { return Ok(()) };
    // A definition that was changed while nobody supervised ends a failure, too.
    for name in heirloom.failed.iter().filter(|name| !world.ledger.redefined.contains(*name)) {
        let gateway = supervisor.fleet.id(name.as_str()).and_then(|id| supervisor.fleet.gateway(id));
        if let Some(gateway) = gateway.filter(|gateway| gateway.state() != State::Failed) {
            return Err(format!("{name} had failed, and is {} for the next supervisor", gateway.state()));
        }
    }
    Ok(())
}

/// A supervisor runs again: what was acknowledged must be there.
///
/// # Errors
/// It is not.
pub fn recovered(world: &mut World) -> Result<(), String> {
    let Some(running) = &world.running else { return Ok(()) };
    for (name, told) in &world.ledger.acknowledged {
        let Ok(known) = ServiceName::new(name) else { continue };
        let want = running.hands.store.want(&known);
        if want != told.want {
            let (told, found) = (word(told.want), word(want));
            return Err(format!("{name} was acknowledged to be wanted {told}, and the disk says {found}"));
        }
    }
    committed(world);
    inherited(world)
}

/// The rules of safety.
///
/// # Errors
/// Which of them does not hold.
pub fn check(world: &mut World) -> Result<(), String> {
    let faults = world.kernel.take_faults();
    world.ledger.broken.extend(faults);
    look(world);
    for index in 0..world.callers.len() {
        judge(world, index)?;
    }
    match world.ledger.broken.first() {
        Some(broken) => Err(broken.clone()),
        None => Ok(()),
    }
}

/// What can be seen of the services now is remembered for those who wait for an answer.
fn look(world: &mut World) {
    let now = world.now();
    let mut up = BTreeSet::new();
    let mut living = BTreeSet::new();
    for id in world.kernel.living() {
        living.insert(id.name.clone());
        if world.kernel.tree(&id).is_some_and(|tree| tree.is_up()) {
            up.insert(id.name.clone());
        }
    }
    for name in &up {
        world.ledger.up_at.insert(name.clone(), now);
    }
    let waiting: Vec<(usize, Vec<String>)> = world
        .callers
        .iter()
        .filter(|caller| {
            let judged = world.ledger.judged.get(&caller.number).copied().unwrap_or_default();
            caller.waits() || caller.outcomes.len() > judged
        })
        .map(|caller| {
            let all = || world.ledger.on_disk.keys().cloned().collect();
            let named = caller.names().map_or_else(all, <[String]>::to_vec);
            let named = match &caller.request {
                Request::Register(registration) => vec![registration.name.clone()],
                _ => named,
            };
            (caller.number, named)
        })
        .collect();
    for (number, names) in waiting {
        for name in names {
            let want = world.ledger.on_disk.get(&name).and_then(|(want, _)| *want);
            let of = ServiceName::new(&name).ok();
            // That it has ended may not be heard yet, while the supervisor stands still.
            let was_up = of.as_ref().and_then(|name| world.ledger.up_at.get(name));
            let may_be_up = was_up.is_some_and(|at| *at >= world.ledger.heard_all);
            let seen = world.ledger.seen.entry((number, name)).or_default();
            seen.wants.insert(is_up(want));
            seen.up |= may_be_up || of.as_ref().is_some_and(|name| up.contains(name));
            seen.empty |= of.as_ref().is_none_or(|name| !living.contains(name));
        }
    }
}

/// What a caller has heard is true, and nothing is said twice.
fn judge(world: &mut World, index: usize) -> Result<(), String> {
    let caller = &world.callers[index];
    let number = caller.number;
    if let Some(excess) = &caller.excess {
        return Err(format!("caller {number} heard {excess} after its answer had ended"));
    }
    let from = world.ledger.judged.get(&number).copied().unwrap_or_default();
    let new: Vec<Outcome> = caller.outcomes.iter().skip(from).map(|(_, outcome)| outcome.clone()).collect();
    for outcome in new {
        world.figures.answers += 1;
        let caller = &world.callers[index];
        let twice = caller.outcomes.iter().filter(|(_, other)| other.name == outcome.name).count() > 1;
        if twice {
            return Err(format!("caller {number} was answered twice about {}", outcome.name));
        }
        world.story.did(&format!(
            "answers caller {number}: {} {}",
            outcome.name,
            outcome.message.clone().unwrap_or_else(|| format!("{:?}", outcome.state))
        ));
        if outcome.ok {
            is_true(world, index, &outcome)?;
        }
    }
    let caller = &world.callers[index];
    if caller.is_stranger {
        let reads = matches!(caller.request.verb().right, Right::Read | Right::Administer);
        if caller.outcomes.iter().any(|(_, outcome)| outcome.ok) || (reads && caller.heard == Heard::End) {
            let method = caller.request.method();
            return Err(format!("caller {number} had '{method}' done, and owns nothing here"));
        }
    }
    world.ledger.judged.insert(number, caller.outcomes.len());
    let must_answer_each = caller.heard == Heard::End && caller.request.verb().answer == Answer::Outcomes;
    if must_answer_each && let Some(names) = caller.names() {
        for name in names {
            if !caller.outcomes.iter().any(|(_, outcome)| outcome.name == *name) {
                return Err(format!("the answer to caller {number} ended without a word about {name}"));
            }
        }
    }
    Ok(())
}

/// What was said to be done is done.
fn is_true(world: &mut World, index: usize, outcome: &Outcome) -> Result<(), String> {
    let caller = &world.callers[index];
    let (number, name) = (caller.number, outcome.name.clone());
    let seen = world.ledger.seen.get(&(number, name.clone())).cloned().unwrap_or_default();
    let request = caller.request.clone();
    let lie = |what: &str| {
        Err(format!("caller {number} was told that {name} is done with '{}', but {what}", request.method()))
    };
    // A stop beside an unregistration is done with that.
    let is_gone = outcome.message.as_deref() == Some("unregistered");
    let wanted = asked_want(&request).map(|want| want.filter(|_| !is_gone));
    if let Some(want) = wanted {
        // Where nothing is on the disk, the next boot makes of the definition what this one has. To register what is registered
        // already changes no want.
        let first = world.specs.get(&name).map(|spec| Some(spec.autostart));
        let by_default = first == Some(is_up(want)) && seen.wants.contains(&None);
        let is_there = matches!(request, Request::Register(_)) && seen.wants.iter().any(Option::is_some);
        // What is stopped and unregistered in one breath is written once.
        let is_erased = matches!(request, Request::Stop { .. }) && !world.specs.contains_key(&name);
        let is_erased = is_erased && seen.wants.contains(&None);
        if !seen.wants.contains(&is_up(want)) && !by_default && !is_there && !is_erased {
            return lie(&format!("its want was never {} on the disk", word(want)));
        }
        let newest = world.ledger.asked.get(&name).is_none_or(|last| *last <= number);
        if newest && !by_default && !is_there && !is_erased {
            world.ledger.acknowledged.insert(name.clone(), Acknowledged { want });
        }
    }
    if let (Some((most, persist)), Ok(known)) = (asked_limit(&request), ServiceName::new(&name)) {
        let given = world.ledger.limits_given.get(&known).is_some_and(|given| given.contains(&most));
        if !persist && !given {
            return lie("no life was given that limit");
        }
        if persist && world.ledger.limits_asked.get(&name) == Some(&number) {
            world.ledger.limits.insert(name.clone(), most);
        }
    }
    let spec = world.specs.get(&name);
    // Another gateway may do its work.
    let runs_at_times = spec.is_some_and(|spec| spec.kind != Kind::Daemon || spec.is_named_gateway());
    match &request {
        Request::Stop { .. } | Request::Unregister { .. } if !seen.empty => lie("its tree was never empty"),
        Request::Start { .. } | Request::Restart { .. } | Request::Once { .. }
            if !seen.up && !runs_at_times =>
        {
            lie("it was never up")
        }
        _ => Ok(()),
    }
}

/// The rules of liveness, when nothing has gone wrong for long enough.
///
/// # Errors
/// Who waits for what.
pub fn at_rest(world: &mut World) -> Result<(), String> {
    for caller in &world.callers {
        if caller.waits() {
            return Err(format!("caller {} waits for an answer: {:?}", caller.number, caller.request));
        }
    }
    let Some(supervisor) = world.supervisor() else { return Err("there is no supervisor".to_owned()) };
    let mut wrong = None;
    for id in supervisor.fleet.ids() {
        let Some((name, gateway)) = supervisor.fleet.name(id).zip(supervisor.fleet.gateway(id)) else {
            continue;
        };
        let lives = world.kernel.living().into_iter().filter(|life| life.name == *name).count();
        let held = world.running.as_ref().and_then(|running| running.hands.store.want(name));
        let state = gateway.state();
        let waits_for_another = gateway.phase() == Phase::Held && !gateway.awaits_turn();
        let right = match gateway.want() {
            Want::Up => {
                matches!(state, State::Up | State::Ready) == (lives == 1)
                    && !matches!(state, State::Starting | State::Stopping)
                    || waits_for_another
            }
            Want::Down => lives == 0 || gateway.is_once(),
        };
        if (!right && !gateway.is_scheduled()) || lives > 1 {
            wrong = Some(format!(
                "{name} is wanted {} and is {state} with {lives} lives: {}",
                gateway.want(),
                gateway.reason()
            ));
        }
        let is_served = root_word(world).is_some_and(|word| word.served.contains(name.as_str()));
        if is_served && lives > 0 && world.specs.get(name.as_str()).is_some_and(Spec::is_named_gateway) {
            wrong = Some(format!("{name} runs although '{DEFAULT_PROFILE}' serves it"));
        }
        if held != Some(gateway.want()) {
            wrong = Some(format!("{name} is wanted {}, and the disk says {}", gateway.want(), word(held)));
        }
        let restarts = gateway.history().restarts;
        let written = world.running.as_ref().map(|running| running.hands.store.restarts(name));
        if world.specs.contains_key(name.as_str()) && written != Some(restarts) {
            wrong = Some(format!("{name} was restarted {restarts} times, and the disk says {written:?}"));
        }
        if matches!(state, State::Backoff) && !gateway.waits_after_success() {
            wrong = Some(format!("{name} is still in backoff"));
        }
    }
    for n in 0..world.registered {
        let name = ServiceName::new(&format!("r{n}")).map_err(|error| error.to_string())?;
        let held = world.running.as_ref().and_then(|running| running.hands.store.want(&name));
        if supervisor.fleet.id(name.as_str()).is_none() && held.is_some() {
            wrong = Some(format!(
                "{name} is no service any more, and the disk says that it is wanted {}",
                word(held)
            ));
        }
    }
    wrong.map_or(Ok(()), Err)
}

/// The end of a supervisor that was asked to: nothing is left.
///
/// # Errors
/// What is.
pub fn at_the_end(world: &mut World) -> Result<(), String> {
    let Some(code) = world.ended else { return Err("the supervisor does not end".to_owned()) };
    if code != 0 {
        return Err(format!("the supervisor ended with {code}"));
    }
    match world.kernel.living().first() {
        Some(left) => Err(format!("life {} of {} is left", left.n, left.name)),
        None => Ok(()),
    }
}
