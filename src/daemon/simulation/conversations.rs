//! What the supervisor asks the root gateway over its control socket, and what that one does and answers, with dice of their own.

use super::callers::Who;
use super::loads::ask_as;
use super::services::{Group, PROFILES};
use super::world::{Happening, World};
use crate::containment::IncarnationId;
use crate::control::protocol::{Request, Targets};
use crate::daemon::Notice;
use crate::daemon::inbox::Input;
use crate::daemon::topics::topology::{About, Conversed};
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::gateway_socket::{Answer, AskError, Verb, played};
use crate::hermes::topology::PARKED;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

thread_local! {
    static BEGUN: RefCell<Vec<(u32, About)>> = const { RefCell::new(Vec::new()) };
}

/// Somebody asks for something about the gateway of a named profile alone; and the time of the next who does.
pub fn load(world: &mut World) {
    if world.quiet || world.ended.is_some() {
        return;
    }
    let dice = &mut world.root_dice;
    let pause = dice.delay(6000, 60_000);
    let targets = Targets::Names(dice.pick(&PROFILES).into_iter().map(str::to_owned).collect());
    let request = match dice.between(0, 9) {
        0..=4 => Request::Stop { targets },
        5..=7 => Request::Start { targets, timeout_ms: None, force: false },
        _ => Request::Restart { targets, timeout_ms: None, rolling: None },
    };
    world.later(pause, Happening::Profiles);
    ask_as(world, Who::Ours, request);
}

/// The supervisor of this thread talks to the root gateway, which is process `pid`.
pub fn begin(pid: u32, about: About) {
    BEGUN.with_borrow_mut(|begun| begun.push((pid, about)));
}

/// What was begun goes on for a while.
pub fn plan(world: &mut World) {
    for (pid, about) in BEGUN.take() {
        world.story.did(&format!("asks '{DEFAULT_PROFILE}': {about:?}"));
        let delay = if world.calm { 5 } else { world.root_dice.delay(500, 8000) };
        world.conversations.push(Some((pid, about)));
        world.later(delay, Happening::RootAnswers(world.conversations.len() - 1));
    }
}

/// The supervisor that asked is no more.
pub fn are_over(world: &mut World) {
    BEGUN.take();
    world.conversations.iter_mut().for_each(|conversation| *conversation = None);
}

/// The root gateway does what it was asked, or does not.
pub fn answer(world: &mut World, number: usize) {
    if !world.reads_files() {
        return world.later(100, Happening::RootAnswers(number));
    }
    let Some((pid, about)) = world.conversations[number].take() else { return };
    let is_it = |id: &IncarnationId| {
        let tree = world.kernel.tree(id);
        tree.is_some_and(|tree| tree.is_up() && !tree.frozen && u32::try_from(tree.main) == Ok(pid))
    };
    let root = world.kernel.living().into_iter().find(is_it);
    let mood = if world.calm { 99 } else { world.root_dice.between(0, 99) };
    let home = Beneath::open(&world.stage.home()).expect("a home");
    let served = root.as_ref().and_then(|root| world.ledger.served_by(root)).cloned();
    let served = Rc::new(RefCell::new(served.filter(|_| world.root_answers)));
    let gateways: BTreeSet<String> = world
        .specs
        .values()
        .filter(|spec| spec.group == Group::Gateway)
        .map(|spec| spec.name.to_string())
        .collect();
    let (changed, place) = (Rc::clone(&served), world.stage.home());
    let does = move |verb: &Verb| {
        let mut served = changed.borrow_mut();
        let Some(served) = served.as_mut() else { return Err(AskError::NoSocket) };
        match mood {
            0..=9 => return Err(AskError::Refused("not now".to_owned())),
            10..=19 => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            _ => {}
        }
        match verb {
            Verb::Serve(name) => {
                served.insert(name.to_string());
            }
            Verb::Unserve(name) => {
                served.remove(name.as_str());
            }
            Verb::RescanProfiles => {
                let serves = |name: &&String| !is_marked(&place, name);
                served.extend(gateways.iter().filter(serves).cloned());
            }
        }
        Ok(Answer { served: Some(served.clone()), pending: mood < 25 })
    };
    let answer = played::with(does, || about.talk(&home, &Credentials::own(), pid));
    world.story.tell(&format!("'{DEFAULT_PROFILE}' answers: {answer:?}"));
    let now: Option<Vec<String>> = served.borrow().as_ref().map(|served| served.iter().cloned().collect());
    if let (Some(root), Some(now)) = (root, now) {
        world.speaks(&root, &now);
    }
    if let Some(running) = &mut world.running {
        let notice = Notice::GatewayConversed(Conversed { about, answer });
        running.supervisor.inbox.push(Input::Notice(notice));
    }
}

/// It is not to be served.
pub fn is_marked(home: &Path, name: &str) -> bool {
    home.join("profiles").join(name).join(PARKED).exists()
}
