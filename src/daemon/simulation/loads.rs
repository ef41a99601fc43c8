//! What is asked of the supervisor and what goes wrong around it, at random.

use super::callers::{Caller, Who};
use super::rules::{before, may_be_served, unit};
use super::services::{Group, MOST_INSTANCES, Spec};
use super::world::{Happening, World};
use crate::control::protocol::{Program, Registration, Request, SignalName, Targets, Until};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::store::played::Mood;
use std::collections::BTreeSet;

/// One of the random loads, and the time of the next.
pub fn load(world: &mut World) {
    if world.quiet || world.ended.is_some() {
        return;
    }
    let pause = world.dice.delay(1500, 60_000);
    world.later(pause, Happening::Load);
    match world.dice.between(0, 99) {
        0..=64 => ask_something(world),
        65..=71 => out_of_memory(world),
        72..=76 => disk(world),
        77..=79 => {
            let time = world.dice.between(500, 15_000);
            world.figures.faults += 1;
            let until = world.now() + time;
            world.later(0, Happening::FilesHang(until));
        }
        80..=82 => {
            world.figures.faults += 1;
            world.later(0, Happening::ProcessesRefused(true));
            let time = world.dice.between(10, 20_000);
            world.later(time, Happening::ProcessesRefused(false));
        }
        83..=85 => {
            let by =
                world.dice.between(1, 7200).cast_signed() * if world.dice.chance(50) { 1000 } else { -1000 };
            world.figures.faults += 1;
            world.later(0, Happening::WallSet(by));
        }
        86..=88 => {
            world.figures.faults += 1;
            let until = world.now() + world.dice.delay(3000, 600_000);
            world.later(0, Happening::Pause(until));
        }
        89..=91 => redefine(world),
        92..=96 => {
            world.later(0, Happening::KillSupervisor);
            // Its successor too, in the middle of its recovery.
            if world.dice.chance(30) {
                let again = world.dice.between(0, 300);
                world.later(again, Happening::KillSupervisor);
            }
        }
        97..=98 => world.later(0, Happening::CutPower),
        _ => world.later(0, Happening::Signal(Signal::HUP)),
    }
}

fn out_of_memory(world: &mut World) {
    let living = world.kernel.living();
    if let Some(id) = world.dice.pick(&living) {
        let main = world.dice.chance(70);
        world.later(0, Happening::OutOfMemory(id, main));
    }
}

fn disk(world: &mut World) {
    world.figures.faults += 1;
    let time = world.dice.delay(3000, 60_000);
    match world.dice.between(0, 2) {
        0 => {
            let until = world.now() + time;
            return world.later(0, Happening::DiskHangs(until));
        }
        1 => world.later(0, Happening::DiskIs(Mood::Refuses(libc::ENOSPC))),
        _ => world.later(0, Happening::DiskIs(Mood::LosesSync(libc::EIO))),
    }
    world.later(time, Happening::DiskIs(Mood::Works));
}

/// A definition is changed, and read again.
fn redefine(world: &mut World) {
    let files: BTreeSet<String> = world.specs.values().map(|spec| spec.file().to_owned()).collect();
    let Some(file) = world.dice.pick(&files.into_iter().collect::<Vec<_>>()) else { return };
    let timeout = world.dice.between(1, 10);
    for spec in world.specs.values_mut().filter(|spec| spec.file() == file) {
        spec.stop_timeout = timeout;
        world.ledger.redefined.insert(spec.name.clone());
    }
    if world.count_dice.chance(60) {
        let count = world.count_dice.between(1, MOST_INSTANCES);
        recount(world, &file, count);
    }
    world.define();
    world.story.tell(&format!("the definition of {file} is changed"));
    let restart = world.dice.chance(30);
    ask(world, Request::Reload { restart });
}

/// The file of several instances makes so many of them from now on.
pub fn recount(world: &mut World, file: &str, count: u64) {
    let is_one = |spec: &Spec| matches!(spec.group, Group::Instance(_)) && spec.file() == file;
    let Some(one) = world.specs.values().find(|spec| is_one(spec)).cloned() else { return };
    world.story.tell(&format!("{file} has {count} instances"));
    world.recounted = true;
    world.specs.retain(|_, spec| !is_one(spec));
    for n in 1..=MOST_INSTANCES {
        let name = ServiceName::new(&format!("{file}@{n}")).expect("a valid name");
        if n > count {
            world.ledger.is_meant_no_more(&name);
        } else {
            let spec = Spec { name: name.clone(), group: Group::Instance(count), ..one.clone() };
            world.specs.insert(name.to_string(), spec);
        }
    }
}

/// A caller asks for something.
pub fn ask(world: &mut World, request: Request) {
    if world.running.is_none() {
        return;
    }
    let slow = if world.calm || world.dice.chance(85) { 0 } else { world.dice.between(1, 40_000) };
    let is_stranger = !world.calm && world.dice.chance(8);
    let who = if is_stranger { Who::Stranger } else { Who::Ours };
    let Some(number) = call(world, who, request, slow) else { return };
    if slow > 0 {
        world.later(slow, Happening::Reads(number));
    }
    if !world.calm && world.dice.chance(5) {
        let time = world.dice.between(0, 3000);
        world.later(time, Happening::HangsUp(number));
    }
}

/// This caller asks for something, and reads at once.
pub fn ask_as(world: &mut World, who: Who, request: Request) {
    if world.running.is_some() {
        call(world, who, request, 0);
    }
}

fn call(world: &mut World, who: Who, request: Request, slow: u64) -> Option<usize> {
    let number = world.callers.len();
    let (now, socket) = (world.now(), world.stage.socket());
    may_be_served(world, number, &request);
    let scope = before(world, &who, &request);
    let owns = owned(world, &who);
    let caller = Caller::ask((number, who, owns), scope, &socket, request, now, now + slow)?;
    let whose = match &caller.who {
        Who::Ours => String::new(),
        Who::Stranger => ", a stranger".to_owned(),
        Who::Owner(uid) => format!(", user {uid}"),
        Who::Inside(id, pid) => {
            world.insiders.push(number);
            format!(", process {pid} of {}", id.name)
        }
    };
    world.story.tell(&format!("caller {number}{whose}: {}", words(&caller.request)));
    world.ledger.asked(&caller);
    world.callers.push(caller);
    Some(number)
}

/// The services that a caller may act on; `None`: on all.
fn owned(world: &World, who: &Who) -> Option<BTreeSet<String>> {
    let of = |uid: u32| world.specs.values().filter(move |spec| spec.user == Some(uid));
    match who {
        Who::Ours => None,
        Who::Stranger | Who::Inside(..) => Some(BTreeSet::new()),
        Who::Owner(uid) => Some(of(*uid).map(|spec| spec.name.to_string()).collect()),
    }
}

fn targets(world: &mut World) -> Targets {
    if world.dice.chance(12) {
        return Targets::All;
    }
    let mut names: Vec<String> = world.specs.keys().cloned().collect();
    names.extend((0..world.registered).map(|n| format!("r{n}")));
    let count = if world.dice.chance(75) { 1 } else { 3 };
    let mut some: Vec<String> = (0..count).filter_map(|_| world.dice.pick(&names)).collect();
    some.sort();
    some.dedup();
    Targets::Names(some)
}

fn ask_something(world: &mut World) {
    let request = something(world);
    ask(world, request);
}

/// A user who may own services asks for something, which may be about those of others; and the time of the next.
pub fn load_of_owners(world: &mut World) {
    if world.quiet || world.ended.is_some() {
        return;
    }
    std::mem::swap(&mut world.dice, &mut world.owner_dice);
    let pause = world.dice.delay(5000, 60_000);
    let owners: BTreeSet<u32> = world.specs.values().filter_map(|spec| spec.user).collect();
    let owner = world.dice.pick(&owners.into_iter().collect::<Vec<_>>());
    // They may register nothing, and what others register is not moved by them.
    let registered = world.registered;
    let mut request = something(world);
    world.registered = registered;
    if world.dice.chance(50) {
        let its = |spec: &&Spec| spec.user == owner;
        let names: Vec<String> = world.specs.values().filter(its).map(|spec| spec.name.to_string()).collect();
        let name = world.dice.pick(&names);
        request = request.about(Targets::Names(name.into_iter().collect()));
    }
    std::mem::swap(&mut world.dice, &mut world.owner_dice);
    if let Some(owner) = owner {
        ask_as(world, Who::Owner(owner), request);
        world.later(pause, Happening::Owners);
    }
}

/// A random request.
fn something(world: &mut World) -> Request {
    let targets = targets(world);
    let timeout_ms = world.dice.chance(20).then(|| world.dice.between(100, 20_000));
    match world.dice.between(0, 99) {
        0..=21 => Request::Start { targets, timeout_ms, force: world.dice.chance(10) },
        22..=41 => Request::Stop { targets },
        42..=55 => {
            let rolling = world.dice.chance(30).then_some(1);
            Request::Restart { targets, timeout_ms, rolling }
        }
        56..=60 => Request::Once { targets, timeout_ms },
        61..=63 => Request::Status { targets },
        64..=66 => {
            let most = world.dice.between(1, 100_000).to_string();
            let limits = [("pids_max".to_owned(), most)].into();
            Request::Set { targets, limits, persist: world.dice.chance(70) }
        }
        67..=72 => Request::Freeze { targets },
        73..=78 => Request::Thaw { targets },
        79..=84 => {
            let until = [Until::Up, Until::Ready, Until::Down][world.dice.index(3)];
            Request::Wait { targets, until, timeout_ms: Some(world.dice.between(100, 60_000)) }
        }
        85..=86 => {
            let signal = [Signal::TERM, Signal::KILL, Signal::HUP][world.dice.index(3)];
            Request::Kill { targets, signal: SignalName(signal), tree: world.dice.chance(30) }
        }
        87..=91 => register(world),
        92..=97 => {
            let registered: Vec<String> = (0..world.registered).map(|n| format!("r{n}")).collect();
            let targets = world.dice.pick(&registered).map_or(targets, |name| Targets::Names(vec![name]));
            Request::Unregister { targets }
        }
        98 => Request::Upgrade { program: None },
        _ => Request::List {},
    }
}

fn register(world: &mut World) -> Request {
    let n = if world.dice.chance(70) || world.registered == 0 {
        world.registered
    } else {
        world.dice.between(0, world.registered - 1)
    };
    world.registered = world.registered.max(n + 1);
    Request::Register(Registration {
        name: format!("r{n}"),
        user: None,
        env: Default::default(),
        down: world.dice.chance(30),
        program: Program::Argv(vec![format!("/played/r{n}")]),
    })
}

fn words(request: &Request) -> String {
    let whom = match (request, request.targets()) {
        (Request::Register(registration), _) => registration.name.clone(),
        (_, Some(Targets::All)) => "--all".to_owned(),
        (_, Some(Targets::Names(names))) => names.join(" "),
        (_, None) => unit(request).map(|name| name.to_string()).unwrap_or_default(),
    };
    format!("{} {whom}", request.method())
}
